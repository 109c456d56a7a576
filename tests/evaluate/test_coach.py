"""What next: learning curves per label from heads on growing parts, and what they say to do."""

import numpy as np
import pytest

from utils.dataset import Dataset
from utils.evaluate import coach
from utils.evaluate.coach import Outlook, coach_picture, coach_sentence, coach_table, growing, what_next
from utils.intervals import wilson
from utils.project import HEAD_SIZE


def outlook(label="ant", found=(20, 26, 30), photos=40, to_check=10) -> Outlook:
    """Return the outlook of a label with so many of its photos found."""
    return Outlook(label, photos, (8.0, 16.0, 32.0), tuple(wilson(hits, photos) for hits in found), to_check)


@pytest.fixture
def drawn(make_project, monkeypatch):
    """Return a function that makes a data set of points instead of pictures; two labels are clear, two overlap."""

    def make(per_label: int) -> Dataset:
        project = make_project(labels={name: [name] for name in ("ant", "bee", "cat", "dog")})
        rng = np.random.default_rng(0)
        codes = np.repeat(np.arange(4), per_label)
        centres = np.array([[9, 0], [0, 9], [-5.0, -6.5], [-6.5, -5.0]])
        features = np.concatenate([centres[codes], np.zeros((len(codes), 3))], axis=1)
        features = (features + rng.normal(size=features.shape)).astype(np.float32)
        ids = tuple(f"{n:04}" for n in range(len(codes)))
        paths = tuple(project.images / f"{id}.jpg" for id in ids)
        labels = tuple(list(project.labels)[k] for k in codes)
        sides = tuple("train" if n % 5 else "valid" for n in range(len(codes)))
        dataset = Dataset(project, ids, paths, labels, ids, sides, {})

        def seen(asked: Dataset, *, size: int) -> np.ndarray:
            assert size == HEAD_SIZE  # what the quick model sees
            return features[[int(id) for id in asked.ids]]

        monkeypatch.setattr(coach, "picture_features", seen)
        return dataset

    return make


def test_labels_that_are_taken_for_each_other_are_not_found_whole(drawn):
    """The clear ones are; those that overlap have photos to check. The label that gains most comes first."""
    found = what_next(drawn(60))
    by_label = {each.label: each for each in found}
    assert all(by_label[name].found[-1]["value"] > 0.95 and by_label[name].to_check <= 3 for name in ("ant", "bee"))
    assert all(by_label[name].found[-1]["value"] < 0.9 and by_label[name].to_check > 5 for name in ("cat", "dog"))
    assert [each.gain for each in found] == sorted((each.gain for each in found), reverse=True)
    assert [round(each.taught[-1]) for each in found] == [48] * 4  # four fifths of 60
    assert found == what_next(drawn(60))


def test_the_test_set_is_left_alone(drawn):
    """Its photos neither teach nor judge."""
    dataset = drawn(20)
    closed = dataset.with_split({id: (id, "test" if n % 4 == 0 else "train") for n, id in enumerate(dataset.ids)})
    assert {each.photos for each in what_next(closed)} == {15}


def test_a_part_holds_the_smaller_part():
    """By rank and per label, at least one of each."""
    codes, ranks = np.array([0] * 8 + [1] * 3), np.array([f"{n * 7 % 11:02}" for n in range(11)], dtype=object)
    parts = [set(growing(codes, ranks, part).tolist()) for part in (0.25, 0.5, 1.0)]
    assert parts[0] < parts[1] < parts[2] and len(parts[2]) == 11
    assert [sum(codes[list(part)] == 1) for part in parts] == [1, 2, 3]


def test_doubling_is_expected_to_do_again_what_it_did():
    """By hand: 14 of 40 missed with half, 10 with all, so 10 · 10 / 14 with twice as many; no gain, no promise."""
    assert outlook().expected == pytest.approx(1 - 10 / 40 * 10 / 14)
    assert outlook(found=(30, 30, 30)).gain == 0 and outlook(found=(30, 32, 30)).gain == 0
    assert outlook(found=(30, 39, 40)).expected == 1


def test_the_sentence_says_what_helps_what_to_check_and_what_is_done():
    """With the figures of the label that gains most."""
    done = outlook("bee", (398, 400, 400), photos=400, to_check=0)
    assert coach_sentence([outlook(), done]) == (
        "40 more photos of “ant” would help most: now 75 % are found, then about 82 %. To check in 06: 10 of “ant”. "
        "“bee” is done."
    )
    assert coach_sentence([done]) == "More photos of the same kind would hardly help any label. “bee” is done."
    assert coach_sentence([]).startswith("There are too few photos")


def test_too_few_photos_have_no_outlook(drawn):
    """Nothing can be held out."""
    dataset = drawn(1)
    assert what_next(dataset) == []


def test_table_and_picture_show_every_label(drawn):
    """One row per label; the picture has a size a notebook can show."""
    found = what_next(drawn(20))
    table = coach_table(found)
    assert sorted(table.label) == ["ant", "bee", "cat", "dog"] and list(table["photos"]) == [20] * 4
    assert coach_picture(found).size == (720, 324)
