"""What is right: average precision by hand-counted cases, ignored boxes, errors by kind, and the threshold."""

import numpy as np
import pytest

from utils.detect.judging import best_threshold, box_figures, photo_errors
from utils.detect.matching import (
    OVERLAPS,
    JudgedPhoto,
    average_precision,
    coco_precision,
    judged_label,
    mean_overlap,
    weighted_curves,
)

THING = (0.1, 0.1, 0.5, 0.5)
ELSEWHERE = (0.6, 0.6, 0.9, 0.9)
LOOSE = (0.1, 0.1, 0.5, 0.25)  # overlaps THING by .375


def photo(true, found, ignored=()) -> JudgedPhoto:
    """Return a judged photo from things (corners, label) and found boxes (corners, label, score)."""
    return JudgedPhoto(
        true_boxes=np.array([box for box, _ in true], float).reshape(-1, 4),
        true_labels=np.array([label for _, label in true], int),
        found_boxes=np.array([box for box, *_ in found], float).reshape(-1, 4),
        found_labels=np.array([label for _, label, _ in found], int),
        found_scores=np.array([score for *_, score in found], float),
        true_ignored=np.array(ignored, float).reshape(-1, 4),
    )


def drawn_photos(seed: int, count: int = 30, labels: int = 3) -> list[JudgedPhoto]:
    """Return photos with things, and found boxes near them and elsewhere."""
    draw, photos = np.random.default_rng(seed), []

    def boxes(n: int) -> np.ndarray:
        corner = draw.random((n, 2)) * 0.6
        return np.concatenate([corner, corner + 0.05 + draw.random((n, 2)) * 0.4], 1)

    for n in range(count):
        true = boxes(draw.integers(4))
        kinds = draw.integers(0, labels, len(true))
        near = [np.clip(true + draw.normal(0, spread, true.shape), 0, None) for spread in (0.03, 0.05)]
        found = np.concatenate([*near, boxes(draw.integers(4))])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 0.01)
        told = np.concatenate([kinds, kinds, draw.integers(0, labels, len(found) - 2 * len(true))])
        scores = draw.permutation(1000)[: len(found)] / 1000 + n * 1e-6  # no two alike
        photos.append(JudgedPhoto(true, kinds, found, told, scores, boxes(draw.integers(2))))
    return photos


@pytest.mark.parametrize(
    ("photos", "ap50"),
    [
        ([photo([(THING, 0)], [(THING, 0, 0.9)])], 1.0),
        ([photo([(THING, 0)], [(ELSEWHERE, 0, 0.9), (THING, 0, 0.8)])], 0.5),  # every recall at a precision of 1/2
        ([photo([(THING, 0), (ELSEWHERE, 0)], [(THING, 0, 0.9)])], 51 / 101),  # recalls 0 to .5 of 101, then nothing
        ([photo([(THING, 0)], [(THING, 0, 0.9), (THING, 0, 0.8)])], 1.0),  # a double below costs nothing
        ([photo([(THING, 0)], [(LOOSE, 0, 0.9)])], 0.0),
        ([photo([(THING, 0)], []), photo([], [(THING, 0, 0.5)])], 0.0),
        ([photo([(THING, 0)], [(ELSEWHERE, 0, 0.9), (THING, 0, 0.8)], ignored=[ELSEWHERE])], 1.0),
        ([photo([(THING, 0), (ELSEWHERE, 1)], [(THING, 0, 0.9), (ELSEWHERE, 0, 0.8)])], 0.5),  # the mean of 1 and 0
    ],
)
def test_average_precision_by_hand(photos, ap50):
    """Photos with one or two things, whose AP50 a person can count."""
    assert average_precision(photos, thresholds=[0.5]) == pytest.approx(ap50, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_our_matching_is_cocos(seed):
    """At all overlaps and for each label, the curves that the bootstrap weights give faster-coco-eval's figures."""
    photos = drawn_photos(seed)
    founds = [judged_label(photos, label) for label in range(3)]
    ours = [[weighted_curves(one, np.ones((1, 30)), at=t).mean() for one in founds] for t in range(len(OVERLAPS))]
    assert np.array(ours) == pytest.approx(coco_precision(photos, 3), abs=1e-9, nan_ok=True)


def test_a_weight_of_two_is_a_photo_twice():
    """A resample that draws photos several times, or never, has the AP of just these photos."""
    photos, weights = drawn_photos(7), np.random.default_rng(7).integers(0, 3, 30)
    several = [one for one, count in zip(photos, weights, strict=True) for _ in range(count)]
    ours = weighted_curves(judged_label(photos, 0), weights[None].astype(float)).mean()
    order = weighted_curves(judged_label(several, 0), np.ones((1, len(several)))).mean()
    assert ours == pytest.approx(order, abs=1e-9)


def test_a_box_in_a_group_is_neither_right_nor_wrong():
    """What is found inside an ignored box is left out of all figures; the same box elsewhere is an error."""
    inside = photo([(THING, 0)], [(THING, 0, 0.9), (ELSEWHERE, 0, 0.8)], ignored=[(0.55, 0.55, 1, 1)])
    outside = photo([(THING, 0)], [(THING, 0, 0.9), (ELSEWHERE, 0, 0.8)])
    assert photo_errors(inside, 0.5) == []
    assert [kind for kind, *_ in photo_errors(outside, 0.5)] == ["background"]


def test_errors_by_kind():
    """Each wrong box has one kind, and a thing that has a loose box is not missed as well."""
    true = [(THING, 0), (ELSEWHERE, 1), ((0, 0.8, 0.1, 0.95), 0)]
    near = (0.12, 0.12, 0.5, 0.5)
    found = [(THING, 0, 0.9), (near, 0, 0.8), (ELSEWHERE, 0, 0.7), ((0.6, 0.05, 0.8, 0.2), 1, 0.6), (THING, 1, 0.1)]
    errors = photo_errors(photo(true, found), 0.5)
    assert [kind for kind, *_ in errors] == ["doubled", "wrong label", "background", "missed"]
    assert [kind for kind, *_ in photo_errors(photo([(THING, 0)], [(LOOSE, 0, 0.9)]), 0.5)] == ["loose"]


def test_the_threshold_with_the_highest_f1():
    """Two right boxes above a wrong one: the threshold lies in the middle between them."""
    photos = [photo([(THING, 0), (ELSEWHERE, 0)], [(THING, 0, 0.9), (ELSEWHERE, 0, 0.6), ((0, 0.9, 0.1, 1), 0, 0.3)])]
    assert best_threshold(photos, 1) == 0.45
    assert best_threshold([photo([(THING, 0)], [])], 1) == 0.5


def test_mean_overlap_counts_what_is_missed():
    """One thing found exactly and one not at all: one half. A second box of a photo with one thing counts nothing."""
    assert mean_overlap([photo([(THING, 0), (ELSEWHERE, 0)], [(THING, 0, 0.9)])]) == 0.5
    assert mean_overlap([photo([(THING, 0)], [(LOOSE, 0, 0.9), (THING, 0, 0.8)])]) == pytest.approx(0.375)


def test_figures_of_nothing_say_why():
    """A side without a thing has no AP, and a reason; nothing raises."""
    told = box_figures([photo([], []), photo([], [(THING, 0, 0.9)])], ["cat"], ["a", "b"], 0.5, seed=1)
    assert told["figures"]["ap50"]["value"] is None and "no thing" in told["figures"]["ap50"]["why"]
    assert told["figures"]["precision"]["value"] == 0 and told["errors"]["background"] == 1


def test_intervals_hold_their_value_and_tell_groups():
    """Ten copies of each photo as groups give the interval of the photos alone, not a third of its width."""
    photos = drawn_photos(3)
    alone = box_figures(photos, ["a", "b", "c"], [str(n) for n in range(30)], 0.5, seed=1)["figures"]["ap50"]
    copies = box_figures(photos * 10, ["a", "b", "c"], [str(n) for n in range(30)] * 10, 0.5, seed=1)["figures"]["ap50"]
    assert alone["low"] < alone["value"] < alone["high"]
    assert copies["high"] - copies["low"] == pytest.approx(alone["high"] - alone["low"], rel=0.1)
