"""07, the threshold below which a picture is unknown: it keeps its promise on pictures that did not choose it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from utils.export import unknown as abstain
from utils.export.unknown import CURVE, LEFT_OUT, coverage_plot, fit_threshold, unseen_labels

# Of each of up to 60 pictures how sure the model was, in steps that make ties frequent, if it was right, and the group.
PICTURES = st.lists(
    st.tuples(st.integers(50, 100).map(lambda n: n / 100), st.booleans(), st.integers(0, 40)), min_size=1, max_size=60
)


def pictures(sure, right):
    """Return labels (N,) and probabilities (N, 2) of a model that says 0 for all, that sure, and is right or not."""
    sure = np.asarray(sure, dtype=float)
    return np.where(right, 0, 1), np.column_stack([sure, 1 - sure])


def fitted(sure, right, groups=None, **options):
    """Return what `fit_threshold` finds; without groups each picture is one."""
    labels, probs = pictures(sure, right)
    return fit_threshold(labels, probs, groups=range(len(labels)) if groups is None else groups, **options)


def counts(unknown, sure, right):
    """Return how many pictures are named and how many wrongly, compared as `inference` does."""
    named = [not probability < unknown["threshold"] for probability in sure]
    return sum(named), sum(name and not good for name, good in zip(named, right, strict=True))


def test_nineteen_right_ones_are_the_fewest_that_keep_a_mistake_in_twenty():
    """By hand: (0 + 1) / (19 + 1) = 5 %; with 18, it is 1 / 19."""
    sure = np.linspace(0.51, 0.99, 40)
    enough = fitted(sure, [False] * 21 + [True] * 19)
    assert enough["threshold"] == pytest.approx((sure[20] + sure[21]) / 2)
    assert (enough["reached"], enough["error"]["value"], enough["coverage"]["value"]) == (True, 0.0, 0.475)
    assert "why" not in enough
    short = fitted(sure, [False] * 22 + [True] * 18)
    assert not short["reached"]
    assert short["threshold"] == pytest.approx((sure[21] + sure[22]) / 2)
    assert short["why"].endswith(
        "names 18 of the held-out pictures, none of them wrongly, and with no more wrong it would take 19"
    )


def test_a_mistake_below_others_is_taken_along_when_there_is_room_for_it():
    """By hand: 1 wrong of 39 is (1 + 1) / (39 + 1) = 5 %, so it may be named; the next wrong one may not."""
    sure = np.linspace(0.51, 0.99, 60)
    right = [False] * 20 + [True] * 10 + [False] + [True] * 29  # lowest first
    found = fitted(sure, right)
    assert counts(found, sure, right) == (40, 1)
    low, high = binomtest(1, 40).proportion_ci(method="wilson")
    assert found["error"] == {
        "value": 0.025,
        "low": pytest.approx(low, abs=1e-6),
        "high": pytest.approx(high, abs=1e-6),
        "n": 40,
    }


def test_a_model_that_is_good_enough_names_every_picture():
    """1 wrong of 100 is less than 5 %: the threshold is 0, and the curve's first point is that of naming all."""
    found = fitted(np.linspace(0.51, 0.9, 100), [False] + [True] * 99)
    assert (found["threshold"], found["coverage"]["value"], found["error"]["value"]) == (0.0, 1.0, 0.01)
    assert found["curve"][0] == {"threshold": 0.0, "coverage": 1.0, "error": 0.01}


@given(PICTURES, st.sampled_from([0.02, 0.05, 0.1, 0.3]))
def test_it_is_the_lowest_of_all_thresholds_that_keep_the_promise(drawn, target):
    """Against trying every probability in turn; otherwise it is the one that comes nearest, and says so."""
    sure, right, _ = zip(*drawn, strict=True)
    found = fitted(sure, right, target=target)
    if len(drawn) < 2 or not any(right):
        assert (found["threshold"], found["reached"]) == (None, False) and found["why"]
        return
    shares = {}
    for least in sorted(set(sure)):
        named = [good for probability, good, _ in drawn if probability >= least]
        shares[least] = (named.count(False) + 1) / (len(named) + 1)
    good = [least for least, share in shares.items() if share <= target + 1e-12]
    assert found["reached"] == bool(good) == ("why" not in found)
    named, mistakes = counts(found, sure, right)
    if good:
        assert named == sum(probability >= good[0] for probability in sure)
    else:
        assert (mistakes + 1) / (named + 1) == pytest.approx(min(shares.values()))
    assert found["error"]["n"] == named and found["error"]["value"] == round(mistakes / named, 6)
    assert found["coverage"]["value"] == round(named / len(drawn), 6)


@given(PICTURES, st.tuples(st.floats(0.01, 0.5), st.floats(0.01, 0.5)))
def test_whoever_bears_more_mistakes_gets_no_higher_threshold(drawn, targets):
    """Monotone in the target, whether it is reached or not."""
    sure, right, groups = zip(*drawn, strict=True)
    strict, loose = (fitted(sure, right, groups, target=target)["threshold"] for target in sorted(targets))
    assert (strict is None) == (loose is None)
    assert strict is None or loose <= strict


@given(PICTURES, st.randoms(use_true_random=False), st.integers(1, 4))
def test_order_and_copies_change_nothing(drawn, random, copies):
    """Pictures in another order, each several times over in its group, give the same entry to the last digit."""
    first = fitted(*zip(*drawn, strict=True))
    drawn = drawn * copies
    random.shuffle(drawn)
    assert fitted(*zip(*drawn, strict=True)) == first


def test_one_of_each_group_counts_for_all():
    """19 right pictures reach 5 %, 19 near-duplicates of two pictures do not; another seed draws another one of each."""
    sure = np.linspace(0.6, 0.99, 19)
    assert fitted(sure, [True] * 19)["reached"]
    copies = [fitted(sure, [True] * 18 + [False], [n % 2 for n in range(19)], seed=seed) for seed in range(8)]
    assert not any(found["reached"] for found in copies)
    assert [found["curve"][0]["coverage"] for found in copies] == [1.0] * 8
    assert len({found["curve"][1]["threshold"] for found in copies}) > 1


def model_answers(rng, n, *, signal, sharpness):
    """Return labels and probabilities of a model of four labels; a sharpness above 1 makes it too sure of itself."""
    labels = rng.integers(0, 4, n)
    scores = (rng.normal(size=(n, 4)) + signal * np.eye(4)[labels]) * signal * sharpness
    probs = np.exp(scores - scores.max(1, keepdims=True))
    return labels, probs / probs.sum(1, keepdims=True)


@pytest.mark.parametrize("sharpness", [1, 4])
@pytest.mark.parametrize("n", [50, 200])
def test_the_promise_holds_on_pictures_that_did_not_choose_the_threshold(n, sharpness):
    """Of 150 drawn valid sides of a model that is right 9 times in 10, and fresh pictures: 5 % wrong or fewer."""
    rng = np.random.default_rng(0)
    fresh, answers = model_answers(rng, 20_000, signal=2.45, sharpness=sharpness)
    sure, wrong = answers.max(1), answers.argmax(1) != fresh
    assert 0.09 < wrong.mean() < 0.11
    errors, named = [], []
    for _ in range(150):
        labels, probs = model_answers(rng, n, signal=2.45, sharpness=sharpness)
        found = fit_threshold(labels, probs, groups=range(n))
        kept = sure >= found["threshold"]
        if found["reached"]:
            errors.append(wrong[kept].mean())
            named.append(kept.mean())
    assert 0.03 < np.mean(errors) < 0.05
    assert np.mean(named) > 0.7
    assert len(errors) >= 135


def test_two_ways_to_run_a_network_name_the_same_pictures():
    """Probabilities that differ by a millionth fall on the same side of the threshold."""
    rng = np.random.default_rng(1)
    labels, probs = model_answers(rng, 100, signal=1.7, sharpness=1)
    threshold = fit_threshold(labels, probs, groups=range(100))["threshold"]
    exact = probs.max(1) < threshold
    assert 0 < exact.sum() < 100
    for moved in (1e-6, -1e-6):
        assert ((probs.max(1) + moved < threshold) == exact).all()


@pytest.mark.parametrize("upper", [1.0, np.nextafter(1, 0)])
def test_a_model_as_sure_as_numbers_can_be_is_split_between_neighbours(upper):
    """Between two neighbouring numbers lies none, and their mean may be either: the threshold is the upper one."""
    found = fitted([np.nextafter(upper, 0)] * 30 + [upper] * 30, [False] * 30 + [True] * 30)
    assert found["threshold"] == upper and found["coverage"]["value"] == 0.5


def test_the_curve_is_short_and_holds_the_chosen_threshold():
    """3,000 pictures: at most 100 points, from naming all to few, each counted; the entry is JSON to the last digit."""
    rng = np.random.default_rng(2)
    labels, probs = model_answers(rng, 3000, signal=1.7, sharpness=1)
    found = fit_threshold(labels, probs, groups=range(3000))
    curve = found["curve"]
    assert len(curve) <= CURVE and found["threshold"] in [point["threshold"] for point in curve]
    assert [point["coverage"] for point in curve] == sorted((p["coverage"] for p in curve), reverse=True)
    assert (curve[0]["coverage"], curve[-1]["coverage"]) == (1.0, pytest.approx(0, abs=0.01))
    for point in curve[::7]:
        named = probs.max(1) >= point["threshold"]
        assert point["coverage"] == round(named.mean(), 6)
        assert point["error"] == round((probs.argmax(1) != labels)[named].mean(), 6)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("labels", "probs", "groups", "words"),
    [
        ([0, 1], np.full((3, 2), 0.5), [0, 1], "2 labels, 2 groups, probabilities (3, 2)"),
        ([0, 1], np.array([[0.5, 0.5], [np.nan, 1]]), [0, 1], "no number"),
    ],
)
def test_what_is_no_prediction_is_refused(labels, probs, groups, words):
    """Shapes that do not match and probabilities that are no numbers, with what was found."""
    with pytest.raises(ValueError, match=words.replace("(", r"\(").replace(")", r"\)")):
        fit_threshold(labels, probs, groups=groups)
    with pytest.raises(ValueError, match="target = 5"):
        fit_threshold([0, 0], np.full((2, 2), 0.5), groups=[0, 1], target=5)


def test_where_nothing_can_be_said_it_says_why():
    """No picture, one group, or a model that is never right: no threshold, no figures, a sentence."""
    for found in (
        fit_threshold([], np.empty((0, 3)), groups=[]),
        fitted([0.9, 0.8], [True, True], ["same", "same"]),
        fitted([0.9, 0.8], [False, False]),
    ):
        assert (found["threshold"], found["reached"], found["error"]["value"]) == (None, False, None)
        assert found["why"] == found["coverage"]["why"]


# ---------------------------------------------------------------------------------------------------------------
# A label that was never shown
# ---------------------------------------------------------------------------------------------------------------


def clusters(K, count, *, apart=3.0, seed=0):
    """Return features (N, 6) about K centres, their labels, and every third picture held out."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(K, 6)) * apart
    codes = np.repeat(np.arange(K), count)
    return (
        centres[codes] + rng.normal(size=(K * count, 6)),
        np.char.add("l", codes.astype(str)),
        np.arange(K * count) % 3 == 0,
    )


def test_each_label_left_out_is_judged_by_a_model_of_the_others():
    """Against scikit-learn in a plain loop: shares called unknown, false alarms and AUC."""
    features, labels, held = clusters(4, 45, apart=1)
    found = unseen_labels(features, labels, held, groups=range(180), target=0.05, seed=1, optimistic=False)
    shares, alarms, areas = {}, [], []
    for label in ("l0", "l1", "l2", "l3"):
        taught, judged = (labels != label) & ~held, (labels != label) & held
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        model.fit(features[taught], labels[taught])
        codes = [list(model.classes_).index(name) for name in labels[judged]]
        seen, new = (model.predict_proba(features[some]) for some in (judged, (labels == label) & held))
        threshold = fit_threshold(codes, seen, groups=range(len(codes)), target=0.05)["threshold"]
        shares[label] = (new.max(1) < threshold).mean()
        alarms += list(seen.max(1) < threshold)
        surest = np.r_[seen.max(1), new.max(1)]
        areas.append(roc_auc_score([0] * len(seen) + [1] * len(new), -surest))
    assert {label: entry["value"] for label, entry in found["labels"].items()} == pytest.approx(shares, abs=1e-6)
    assert 0 < np.mean(list(shares.values())) < 1
    assert found["unknown"]["value"] == pytest.approx(np.mean(list(shares.values())), abs=1e-6)
    assert (found["unknown"]["n"], found["false_alarms"]["n"], found["auc"]["n"]) == (60, 60, 60)
    assert found["false_alarms"]["value"] == pytest.approx(np.mean(alarms), abs=1e-6)
    assert found["auc"]["value"] == pytest.approx(np.mean(areas), abs=1e-6)
    assert found["auc"]["low"] < found["auc"]["value"] < found["auc"]["high"]


def test_features_that_know_the_label_are_called_optimistic():
    """The flag and a sentence on what it means; the figures are the same."""
    features, labels, held = clusters(3, 12)
    both = [
        unseen_labels(features, labels, held, groups=range(36), target=0.05, seed=1, optimistic=flag)
        for flag in (True, False)
    ]
    notes = [one.pop("note") for one in both]
    assert [one.pop("optimistic") for one in both] == [True, False]
    assert both[0] == both[1]
    assert "spots a label that is truly new less often" in notes[0]
    assert "pretrained" in notes[1] and "ImageNet" in notes[1]
    json.dumps(both, allow_nan=False)


def test_pictures_in_another_order_and_copies_in_a_group_change_little():
    """Order does not matter, and intervals know that copies are no evidence."""
    features, labels, held = clusters(3, 30, apart=1)
    settings = {"target": 0.05, "seed": 1, "optimistic": True}
    first = unseen_labels(features, labels, held, groups=range(90), **settings)
    order = np.random.default_rng(3).permutation(90)
    other = unseen_labels(features[order], labels[order], held[order], groups=order, **settings)
    for key in ("unknown", "labels", "false_alarms"):
        assert other[key] == first[key]
    assert other["auc"] == pytest.approx(first["auc"], abs=0.02)
    judged = np.r_[np.arange(90), np.flatnonzero(held), np.flatnonzero(held)]
    copied = unseen_labels(features[judged], labels[judged], held[judged], groups=judged, **settings)
    assert copied["unknown"]["n"] == 3 * first["unknown"]["n"]
    for key in ("unknown", "false_alarms"):
        assert copied[key]["low"] == pytest.approx(first[key]["low"], abs=1e-5)
    lows = [[one["labels"][label]["low"] for label in ("l0", "l1", "l2")] for one in (first, copied)]
    assert lows[1] == pytest.approx(lows[0], abs=1e-5)


@pytest.mark.parametrize(("kept", "count"), [(["l0", "l1"], 2), (["l0"], 1), ([], 0)])
def test_fewer_than_three_labels_say_why(kept, count):
    """With one left out, a single label would remain, which nothing can be taken for."""
    features, labels, held = clusters(3, 12)
    some = np.isin(labels, kept)
    found = unseen_labels(
        features[some], labels[some], held[some], groups=labels[some], target=0.05, seed=1, optimistic=True
    )
    assert list(found) == ["why"] and found["why"].startswith(f"{count} label")


def test_a_label_on_one_side_only_is_left_aside_and_named():
    """A label without held-out pictures cannot be asked about; the others are judged without it."""
    features, labels, held = clusters(4, 12)
    held[labels == "l2"] = False
    found = unseen_labels(features, labels, held, groups=range(48), target=0.05, seed=1, optimistic=True)
    assert list(found["labels"]) == ["l0", "l1", "l3"]
    assert "1 of 4 labels stand on one side only" in found["note"]


def test_of_many_labels_some_are_left_out_and_few_pictures_teach(monkeypatch):
    """Of 30 labels 20 are drawn by the seed; where pictures are too many, as many of each label teach; it is said."""
    monkeypatch.setattr(abstain, "TAUGHT", 60)
    features, labels, held = clusters(30, 9)
    found, again, other = (
        unseen_labels(features, labels, held, groups=range(270), target=0.05, seed=seed, optimistic=True)
        for seed in (1, 1, 2)
    )
    assert found == again and list(found["labels"]) != list(other["labels"])
    assert len(found["labels"]) == LEFT_OUT
    assert "20 of 30 labels were left out in turn" in found["note"]
    assert "learned from 60 of 180 pictures" in found["note"]
    codes = np.random.default_rng(0).permutation(270) % 30
    taught = abstain._a_share_of_each(codes, np.arange(270), np.random.default_rng(1))
    assert np.bincount(codes[taught]).tolist() == [2] * 30


# ---------------------------------------------------------------------------------------------------------------
# The picture
# ---------------------------------------------------------------------------------------------------------------


def test_the_plot_shows_the_curve_the_target_and_the_threshold():
    """Each as it is in the entry, with a mark or a line of its own, so that no colour is needed."""
    rng = np.random.default_rng(4)
    unknown = fit_threshold(*model_answers(rng, 200, signal=1.7, sharpness=1), groups=range(200))
    (axes,) = abstain._drawn(unknown).axes
    curve, target, chosen = axes.lines
    assert curve.get_xydata().tolist() == [[100 * p["coverage"], 100 * p["error"]] for p in unknown["curve"]]
    assert set(target.get_ydata()) == {5.0}
    assert chosen.get_xydata().tolist() == [[100 * unknown[key]["value"] for key in ("coverage", "error")]]
    assert len({(line.get_linestyle(), line.get_marker()) for line in axes.lines}) == 3
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words[1:] == ["target: 5 % wrong", f"threshold {unknown['threshold']:.2f}"]
    assert coverage_plot(unknown).size == (585, 342)  # what a notebook shows


def test_the_plot_says_when_the_target_is_missed_or_there_is_no_threshold():
    """In words, where the threshold would stand."""
    missed = abstain._drawn(fitted([0.6, 0.7, 0.8], [True, False, True])).axes[0]
    assert missed.get_legend().get_texts()[2].get_text().endswith("(cannot promise the target)")
    none = abstain._drawn(fit_threshold([], np.empty((0, 2)), groups=[])).axes[0]
    assert none.get_title().startswith("no threshold: one picture")
