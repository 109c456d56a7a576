"""07, the threshold below which a photo is unknown: what it certifies holds on photos that did not choose it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from utils.export.threshold import (
    POINTS,
    TARGETS,
    _choice,
    certify_threshold,
    coverage_drawing,
    coverage_plot,
    threshold_sentence,
)

# Up to 60 photos: the model's confidence, in steps that make ties frequent; whether it is right; the group.
PICTURES = st.lists(
    st.tuples(st.integers(50, 100).map(lambda n: n / 100), st.booleans(), st.integers(0, 40)), min_size=1, max_size=60
)


def pictures(sure, right):
    """Return labels (N,) and probabilities (N, 2) of a model that says 0 for all, and is right or not."""
    sure = np.asarray(sure, dtype=float)
    return np.where(right, 0, 1), np.column_stack([sure, 1 - sure])


def certified(sure, right, groups=None, **options):
    """Return what `certify_threshold` finds; without groups each photo is one."""
    labels, probs = pictures(sure, right)
    return certify_threshold(labels, probs, groups=range(len(labels)) if groups is None else groups, **options)


def confident(count, *, right=None):
    """Return confidences from 0.99 upwards, and who is right, least confident first: by default all."""
    return np.linspace(0.99, 0.9999, count), [True] * count if right is None else right


@pytest.mark.parametrize(
    ("count", "target"), [(10, None), (11, 0.2), (21, 0.2), (22, 0.1), (44, 0.1), (45, 0.05), (90, 0.05)]
)
def test_without_a_mistake_it_takes_11_22_and_45_photos(count, target):
    """By hand: .8 to the 11th, .9 to the 22nd and .95 to the 45th are the first below 10 %."""
    found = certified(*confident(count))
    assert (found["target_error"], found["reached"]) == (target, target is not None)
    assert found["threshold"] == (None if target is None else 0.0)
    if count == 10:
        assert found["why"].startswith("“at most 20 % wrong” takes 11 validation photos without a mistake")
        assert found["why"].endswith(", and there are only 10")
    if count == 22:
        assert found["bound"] == pytest.approx(1 - 0.1 ** (1 / 22), abs=1e-6)  # Clopper and Pearson's, of no mistake
    assert (found["why"] == "") == (target == 0.05)


def test_a_mistake_more_loses_the_strictest_promise():
    """By hand: 1 wrong of 77 passes at 5 % (binomial .0979), 2 wrong do not (.249) but pass at 10 %."""
    sure, _ = confident(77)
    one, two = ([False] * n + [True] * (77 - n) for n in (1, 2))
    assert [certified(sure, right)["target_error"] for right in (one, two)] == [0.05, 0.1]
    found = certified(sure, one)
    assert found["bound"] == pytest.approx(binomtest(1, 77).proportion_ci(0.8, "exact").high, abs=1e-6)
    low, high = binomtest(1, 77).proportion_ci(method="wilson")
    assert found["error"] == {
        "value": round(1 / 77, 6),
        "low": pytest.approx(low, abs=1e-6),
        "high": pytest.approx(high, abs=1e-6),
        "n": 77,
    }
    assert certified(sure, two)["why"] == (
        "“at most 5 % wrong” cannot be certified: 2 of the 77 most confident photos are wrong"
    )


def test_the_mistakes_of_the_tested_photos_do_not_choose():
    """Whatever is right or wrong among the validation photos, the shares tried are the same: 40, and then 20 of 60."""
    sure = np.r_[np.linspace(0.5, 0.6, 20), np.linspace(0.8, 0.85, 20), np.linspace(0.98, 0.99, 20)]
    tried = set()
    for seed in range(40):
        found = certified(sure, np.random.default_rng(seed).random(60) < 0.97)
        if found["reached"]:
            tried.add((found["target_error"], found["error"]["n"]))
    assert len({target for target, _ in tried}) == len(tried) > 1


def test_a_stricter_promise_is_tried_within_the_photos_of_the_one_before():
    """The test's order holds only for sets that lie within each other: of 60 photos, 30 or fewer after 30."""
    named = np.arange(60, 0, -1)
    place, chance = _choice(named, np.zeros(60), 0.1, first=30)
    assert (named[place], chance) == (30, 1.0)


def test_out_of_fold_answers_choose_by_their_share_and_not_by_their_probability():
    """
    Other models are wrong in the less confident half of their photos, so only half of ours are named.

    Their probabilities lie far below ours and mean nothing; without them, our own confidences name all.
    """
    others = (
        np.r_[np.ones(50), np.zeros(50)].astype(int),
        pictures(np.linspace(0.501, 0.51, 100), True)[1],
        range(100),
    )
    found = certified(*confident(80), others=others)
    assert (found["chosen_by"], found["coverage"]["value"]) == ("out of fold", pytest.approx(0.6, abs=0.15))
    alone = certified(*confident(80))
    assert (alone["chosen_by"], alone["coverage"]["value"]) == ("validation", 1.0)


def test_better_models_cannot_lend_their_promise():
    """Out-of-fold answers without a mistake do not certify an exported model that is wrong twice in five."""
    rng = np.random.default_rng(0)
    others = (np.zeros(500, dtype=int), pictures(np.linspace(0.9, 1, 500), True)[1], range(500))
    for _ in range(20):
        assert certified(np.linspace(0.9, 0.99, 60), rng.random(60) < 0.6, others=others)["threshold"] is None


def model_answers(rng, n, *, signal, sharpness):
    """Return labels and probabilities of a model of three labels; a sharpness above 1 makes it too confident."""
    labels = rng.integers(0, 3, n)
    scores = (rng.normal(size=(n, 3)) + signal * np.eye(3)[labels]) * signal * sharpness
    probs = np.exp(scores - scores.max(1, keepdims=True))
    return labels, probs / probs.sum(1, keepdims=True)


@pytest.mark.parametrize("sharpness", [1, 1.5])  # calibrated; too confident, so that its own estimate is no help
@pytest.mark.parametrize("judges", [None, 1.75, 2.4])  # no out-of-fold answers; of models as good; of better ones
@pytest.mark.parametrize("n", [40, 200])
def test_promises_are_kept_on_photos_that_did_not_choose(n, judges, sharpness):
    """
    Of 500 drawn projects of a model that is right 81 times in 100, at most one promise in ten is broken.

    benchmarks/threshold.py has the earlier rule beside it, of whose promises 41 to 76 % were broken.
    """
    rng = np.random.default_rng(0)
    fresh, answers = model_answers(rng, 20_000, signal=1.75, sharpness=sharpness)
    sure, wrong = answers.max(1), answers.argmax(1) != fresh
    assert 0.18 < wrong.mean() < 0.20
    kept = []
    for _ in range(500):
        labels, probs = model_answers(rng, n, signal=1.75, sharpness=sharpness)
        others = judges and (*model_answers(rng, 2 * n, signal=judges, sharpness=1), range(2 * n))
        found = certify_threshold(labels, probs, groups=range(n), others=others)
        if found["reached"]:
            kept.append(wrong[sure >= found["threshold"]].mean() <= found["target_error"])
    assert np.mean(kept) >= 0.9 and len(kept) >= (100 if sharpness > 1 else 300)


@given(PICTURES, st.none() | PICTURES)
def test_what_is_certified_passes_the_exact_test(drawn, chosen):
    """Counted again from the entry, compared as `inference` does: Clopper and Pearson's bound keeps the target."""
    sure, right, _ = zip(*drawn, strict=True)
    others = None
    if chosen is not None:
        theirs = list(zip(*chosen, strict=True))
        others = (*pictures(theirs[0], theirs[1]), theirs[2])
    found = certified(sure, right, others=others)
    if not found["reached"]:
        assert (found["threshold"], found["target_error"]) == (None, None) and found["why"]
        assert found["error"]["value"] is found["coverage"]["value"] is None
        return
    named = [good for probability, good in zip(sure, right, strict=True) if not probability < found["threshold"]]
    bound = binomtest(named.count(False), len(named)).proportion_ci(0.8, "exact").high
    assert found["bound"] == pytest.approx(bound, abs=1e-6) and bound <= found["target_error"] + 1e-9
    assert found["error"]["n"] == len(named) and found["coverage"]["value"] == round(len(named) / len(drawn), 6)
    assert found["target_error"] in TARGETS


@given(PICTURES, st.randoms(use_true_random=False), st.integers(1, 4))
def test_order_and_copies_change_nothing(drawn, random, copies):
    """Photos in another order, each several times over in its group, give the same entry to the last digit."""
    first = certified(*zip(*drawn, strict=True))
    drawn = drawn * copies
    random.shuffle(drawn)
    assert certified(*zip(*drawn, strict=True)) == first


def test_one_of_each_group_counts_for_all():
    """45 right photos reach 5 %, 45 near-duplicates of two photos reach nothing; the same of those that choose."""
    sure, right = confident(45)
    assert certified(sure, right)["reached"]
    groups = [n % 2 for n in range(45)]
    assert [certified(sure, right, groups, seed=seed)["reached"] for seed in range(4)] == [False] * 4
    wrong = (np.r_[np.ones(40), np.zeros(60)].astype(int), pictures(np.linspace(0.6, 0.9, 100), True)[1])
    many = certified(*confident(80), others=(*wrong, range(100)))
    few = certified(*confident(80), others=(*wrong, [0] * 40 + list(range(1, 61))))  # one mistake, forty times over
    assert few["coverage"]["value"] > many["coverage"]["value"]


def test_two_ways_to_run_a_network_name_the_same_photos():
    """Probabilities that differ by a millionth fall on the same side of the threshold."""
    labels, probs = model_answers(np.random.default_rng(1), 100, signal=1.7, sharpness=1)
    threshold = certify_threshold(labels, probs, groups=range(100))["threshold"]
    exact = probs.max(1) < threshold
    assert 0 < exact.sum() < 100
    for moved in (1e-6, -1e-6):
        assert ((probs.max(1) + moved < threshold) == exact).all()


@pytest.mark.parametrize("upper", [1.0, np.nextafter(1, 0)])
def test_a_model_as_confident_as_numbers_can_be_is_split_between_neighbours(upper):
    """Between two neighbouring numbers lies none, and their mean may be either: the threshold is the upper one."""
    others = (
        np.r_[np.ones(50), np.zeros(50)].astype(int),
        pictures(np.r_[[0.6] * 50, [0.9] * 50], True)[1],
        range(100),
    )
    found = certified([np.nextafter(upper, 0)] * 60 + [upper] * 60, [False] * 60 + [True] * 60, others=others)
    assert found["threshold"] == upper and found["coverage"]["value"] == 0.5


def test_the_curve_is_short_and_holds_the_chosen_threshold():
    """3,000 photos: at most 100 points, from naming all to few, each counted; the entry is JSON to the last digit."""
    labels, probs = model_answers(np.random.default_rng(2), 3000, signal=1.9, sharpness=1)
    found = certify_threshold(labels, probs, groups=range(3000))
    curve = found["curve"]
    assert len(curve) <= POINTS and found["threshold"] in [point["threshold"] for point in curve]
    assert [point["coverage"] for point in curve] == sorted((p["coverage"] for p in curve), reverse=True)
    assert (curve[0]["coverage"], curve[-1]["coverage"]) == (1.0, pytest.approx(0, abs=0.01))
    for point in curve[::7]:
        named = probs.max(1) >= point["threshold"]
        assert point["coverage"] == round(named.mean(), 6)
        assert point["error"] == round((probs.argmax(1) != labels)[named].mean(), 6)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_where_nothing_can_be_said_it_says_why():
    """No photo, one group, or a model that is never right: no threshold, no figures, a sentence."""
    for found, why in (
        (certify_threshold([], np.empty((0, 3)), groups=[]), "there are no validation photos"),
        (certified([0.9, 0.8], [True, True], ["same", "same"]), "“at most 20 % wrong” takes 11 validation photos"),
        (certified(np.linspace(0.98, 0.99, 50), [False] * 50), "“at most 20 % wrong” cannot be certified: 50 of"),
        (
            certified(np.linspace(0.5, 0.6, 50), [True] * 50),
            "going by its own confidences, the test for “at",
        ),
    ):
        assert (found["threshold"], found["reached"], found["error"]["value"]) == (None, False, None)
        assert found["why"].startswith(why) and found["error"]["why"] == found["coverage"]["why"] == found["why"]


def test_the_sentence_says_what_is_certified_and_who_chose():
    """When it says unknown, at most how many names are wrong, what was counted, and why no more is promised."""
    found = certified(*confident(40))
    assert threshold_sentence(found) == (
        "It names every photo. Of the names it gives, at most 10 % are wrong (certified with 90 % confidence, for "
        "photos like these). In the validation set it names 100 % of the photos, 0 of 40 wrongly. There are no "
        "out-of-fold answers (06), so the model's own confidences chose the threshold; the validation set tested it. "
        "Nothing stricter is certified: “at most 5 % wrong” takes 45 validation photos without a mistake, and there "
        "are only 40."
    )
    told = threshold_sentence(found | {"threshold": 0.625, "chosen_by": "out of fold", "why": ""})
    assert told.startswith(
        "Asked to, it says “unknown” below a confidence of 0.62. Of the names it gives, at most 10 %"
    )
    assert told.endswith("helped to choose the threshold; the validation set tested it.")


def test_the_plot_shows_the_curve_the_target_and_the_threshold():
    """Each as it is in the entry, with a mark or a line of its own, so that no colour is needed."""
    unknown = certify_threshold(
        *model_answers(np.random.default_rng(4), 200, signal=1.7, sharpness=1), groups=range(200)
    )
    (axes,) = coverage_drawing(unknown).axes
    curve, target, chosen = axes.lines
    assert curve.get_xydata().tolist() == [[100 * p["coverage"], 100 * p["error"]] for p in unknown["curve"]]
    assert set(target.get_ydata()) == {100 * unknown["target_error"]}
    assert chosen.get_xydata().tolist() == [[100 * unknown[key]["value"] for key in ("coverage", "error")]]
    assert len({(line.get_linestyle(), line.get_marker()) for line in axes.lines}) == 3
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words[1:] == [
        f"certified: at most {100 * unknown['target_error']:g} % wrong",
        f"threshold {unknown['threshold']:.2f}",
    ]
    assert coverage_plot(unknown).size == (585, 342)  # what a notebook shows


def test_the_plot_says_why_there_is_no_threshold():
    """In words, where the threshold would stand."""
    for found in (certify_threshold([], np.empty((0, 2)), groups=[]), certified([0.6, 0.7], [True, False])):
        assert coverage_drawing(found).axes[0].get_title() == f"no threshold: {found['why']}"
