"""Figures of 05 against scikit-learn and hand counts; intervals that are as wide as the evidence is thin."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, roc_auc_score

from utils.evaluate import scores
from utils.evaluate.scores import (
    cross_fitted,
    fit_temperature,
    label_scores,
    reliability,
    scale,
    scorecard,
    temperature_figure,
)
from utils.intervals import bootstrap, figure, resamples, wilson


def some_predictions(n=60, k=3, seed=0):
    """Return labels (N,) and probabilities (N, K) that are right more often than not, with ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = (rng.normal(size=(n, k)) + 1.5 * np.eye(k)[labels]).round(1)
    probs = np.exp(logits)
    return labels, probs / probs.sum(1, keepdims=True)


def oracle(labels, probs):
    """Return scikit-learn's figures, the means over the labels that occur."""
    predicted, there = probs.argmax(1), np.unique(labels)
    return {
        "accuracy": (predicted == labels).mean(),
        "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        "macro_f1": f1_score(labels, predicted, average="macro", labels=there),
        "auc": np.mean([roc_auc_score(labels == k, probs[:, k]) for k in there]),
        "log_loss": log_loss(labels, probs, labels=range(probs.shape[1])),
    }


@pytest.mark.parametrize(("k", "seed"), [(2, 0), (3, 1), (7, 2)])
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_the_figures_are_scikit_learns(k, seed):
    """Accuracy, balanced accuracy, macro-F1, AUC and log loss agree with scikit-learn, also with a label missing."""
    labels, probs = some_predictions(80, k, seed)
    labels[labels == 6] = 0  # one of seven does not occur
    card = scorecard(labels, probs)
    expected = oracle(labels, probs)
    assert {name: card[name]["value"] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert all(f["low"] <= f["value"] <= f["high"] and f["n"] == 80 for f in card.values())


def test_a_resample_is_the_repeated_pictures(monkeypatch):
    """The fast measures give for weights what scikit-learn gives for the pictures, each as often as it was drawn."""
    labels, probs = some_predictions(40)
    groups, seen = np.arange(40) // 2, {}
    weights = next(resamples(groups, seed=3))[:5]
    monkeypatch.setattr(scores, "bootstrap", lambda given, *rest, **options: seen.update(given) or {})
    with pytest.raises(KeyError):  # nothing comes back of the bootstrap
        scorecard(labels, probs, groups=groups)
    drawn = {name: seen[name](weights)[:, 0] for name in ("balanced_accuracy", "macro_f1", "auc", "log_loss")}
    for row, weight in enumerate(weights.astype(int)):
        expected = oracle(np.repeat(labels, weight), np.repeat(probs, weight, axis=0))
        assert {name: values[row] for name, values in drawn.items()} == pytest.approx({k: expected[k] for k in drawn})
        assert (weight[::2] == weight[1::2]).all()  # near-duplicates come together


def test_the_interval_holds_the_truth_in_about_95_of_100_sets():
    """Of 200 drawn sets of 60 pictures, 88 to 100 in 100 intervals hold the AUC, log loss and macro-F1 of them all."""
    labels, probs = some_predictions(20_000)
    truth = oracle(labels, probs)
    hits = dict.fromkeys(("macro_f1", "auc", "log_loss", "accuracy"), 0)
    for start in range(0, 12_000, 60):
        card = scorecard(labels[start : start + 60], probs[start : start + 60])
        for name in hits:
            hits[name] += card[name]["low"] <= truth[name] <= card[name]["high"]
    assert [name for name, count in hits.items() if not 0.88 <= count / 200 <= 1] == []


def test_near_duplicates_are_no_more_evidence_than_one_picture():
    """Ten groups of six, right or wrong together, have the interval of ten pictures, and n is still 60."""
    groups = np.repeat(np.arange(10), 6)
    assert wilson(48, 60, groups=groups) == wilson(8, 10) | {"n": 60}
    twos = wilson(3, 6, groups=["a", "a", "a", "a", "b", "b"])  # 36 / (16 + 4) = 1.8 pictures
    assert wilson(1, 2)["low"] > twos["low"] > wilson(0, 1)["low"]
    labels, probs = some_predictions(10)
    card = scorecard(np.repeat(labels, 6), np.repeat(probs, 6, axis=0), groups=groups)
    assert card["accuracy"] == scorecard(labels, probs)["accuracy"] | {"n": 60}
    bins = reliability(np.repeat(labels, 6), np.repeat(probs, 6, axis=0), groups=groups)
    assert [b["right"] | {"n": b["right"]["n"] // 6} for b in bins] == [b["right"] for b in reliability(labels, probs)]
    names, said = [str(k) for k in labels], [str(k) for k in probs.argmax(1)]
    alone = label_scores(names, said, ["0", "1", "2"])
    copied = label_scores(np.repeat(names, 6), np.repeat(said, 6), ["0", "1", "2"], groups=groups)
    for measure in ("precision", "recall"):
        assert [copied[k][measure]["low"] for k in alone] == [alone[k][measure]["low"] for k in alone]


def test_near_duplicates_widen_the_interval():
    """Ten copies of each picture are no tenfold evidence: the bootstrap draws them together."""
    labels, probs = some_predictions(40)
    alone = scorecard(np.repeat(labels, 10), np.repeat(probs, 10, axis=0))["log_loss"]
    grouped = scorecard(np.repeat(labels, 10), np.repeat(probs, 10, axis=0), groups=np.repeat(np.arange(40), 10))
    assert grouped["log_loss"]["high"] - grouped["log_loss"]["low"] > 2 * (alone["high"] - alone["low"])


def test_a_faultless_set_is_not_called_certain():
    """All of ten right: macro-F1 is 1, and its interval begins where Wilson's for 10 of 10 does."""
    labels = np.arange(10) % 2
    card = scorecard(labels, np.eye(2)[labels] * 0.8 + 0.1)
    assert card["macro_f1"] == card["auc"] == card["accuracy"] == wilson(10, 10)


def test_one_picture_has_figures_and_no_spread():
    """A side of one picture, or of copies of one, gives values; what cannot be had is None and says why."""
    card = scorecard([0], np.array([[0.7, 0.3]]))
    assert (card["accuracy"]["value"], card["macro_f1"]["value"], card["macro_f1"]["low"]) == (1.0, 1.0, None)
    assert card["log_loss"]["why"] == "one picture, or one group of near-duplicates, has no spread"
    assert card["auc"] == figure(None, None, None, 1, why="all pictures are of one label")


def test_the_calibration_error_is_the_hand_counted_one():
    """Four 95 % sure, three right; two 65 % sure, both right: (|3.8 − 3| + |1.3 − 2|) / 6 = 0.25."""
    probs = np.array([[0.95, 0.05]] * 4 + [[0.65, 0.35]] * 2)
    labels = [0, 0, 0, 1, 0, 0]
    card = scorecard(labels, probs, scaled=np.full((6, 2), 0.5))
    assert card["calibration_error"]["value"] == pytest.approx(0.25)
    assert card["calibration_error_scaled"]["value"] == pytest.approx(abs(5 / 6 - 0.5), abs=1e-6)
    bins = reliability(labels, probs)
    assert [(b["from"], b["to"], b["sure"], b["right"]["value"], b["right"]["n"]) for b in bins] == [
        (0.6, 0.7, 0.65, 1.0, 2),
        (0.9, 1.0, 0.95, 0.75, 4),
    ]


def calibrated(n, k, seed):
    """Return labels drawn from the probabilities themselves, and these: (N,), (N, K)."""
    rng = np.random.default_rng(seed)
    probs = np.exp(2 * rng.normal(size=(n, k)))
    probs /= probs.sum(1, keepdims=True)
    return (probs.cumsum(1) < rng.random((n, 1))).sum(1).clip(max=k - 1), probs


def test_chance_alone_is_not_called_miscalibration():
    """A perfect model shows an error on 50 pictures; in 90 of 100 sets or more the interval begins at 0."""
    sets = [calibrated(50, 3, seed) for seed in range(40)]
    lows = [scorecard(labels, probs)["calibration_error"]["low"] for labels, probs in sets]
    assert np.mean(np.array(lows) == 0) >= 0.9
    labels, probs = calibrated(400, 3, 0)
    assert scorecard(labels, scale(probs, 1 / 3))["calibration_error"]["low"] > 0.05


def test_the_interval_of_the_calibration_error_holds_the_truth():
    """Of 40 sets of 200 pictures, drawn from a model a little too sure, 85 in 100 intervals or more hold its error."""
    labels, probs = calibrated(100_000, 3, 99)
    truth = scores._calibration_measure(labels, scale(probs, 1 / 1.3))(np.ones((1, 100_000)))[0, 0]
    hits = 0
    for seed in range(40):
        labels, probs = calibrated(200, 3, seed)
        found = scorecard(labels, scale(probs, 1 / 1.3))["calibration_error"]
        hits += found["low"] <= truth <= found["high"]
    assert hits >= 34


def test_the_temperature_is_that_of_logistic_regression():
    """With two labels, 1 / T is the slope of the log-odds, fitted by scikit-learn without intercept or penalty."""
    labels, probs = calibrated(300, 2, 1)
    odds = np.log(probs[:, 1] / probs[:, 0])[:, None]
    slope = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(odds, labels).coef_[0, 0]
    assert fit_temperature(labels, probs) == pytest.approx(1 / slope, rel=1e-3)


def test_a_model_made_too_sure_is_cooled_down_again():
    """Probabilities at a temperature of 1/2.5 ask for 2.5; the interval holds it, and the scaled error is smaller."""
    labels, probs = calibrated(600, 4, 2)
    sure = scale(probs, 1 / 2.5)
    fitted = temperature_figure(labels, sure, groups=np.arange(600))
    assert fitted["low"] < 2.5 < fitted["high"] and fitted["value"] == pytest.approx(2.5, rel=0.2)
    card = scorecard(labels, sure, scaled=cross_fitted(labels, sure, groups=np.arange(600)))
    assert card["calibration_error_scaled"]["value"] < card["calibration_error"]["value"] / 2


def test_the_temperatures_of_resamples_are_the_fitted_ones(monkeypatch):
    """The grid finds for a resample what the search finds for its repeated pictures."""
    labels, probs = calibrated(80, 3, 5)
    seen = []
    monkeypatch.setattr(scores, "bootstrap", lambda *given, **rest: seen.append(bootstrap(*given, **rest)) or seen[-1])
    temperature_figure(labels, probs, groups=np.arange(80))
    draws = seen[0][""][1][:, 0]
    weights = next(resamples(np.arange(80), seed=42))[:10].astype(int)
    expected = [fit_temperature(np.repeat(labels, w), np.repeat(probs, w, axis=0)) for w in weights]
    assert draws[:10] == pytest.approx(expected, rel=1e-2)


def test_no_picture_is_scaled_by_a_temperature_that_it_chose():
    """Turning a picture's label round changes nothing in its own fold, where its near-duplicates are too."""
    labels, probs = calibrated(60, 2, 3)
    groups = np.arange(60) // 3
    first = cross_fitted(labels, probs, groups=groups)
    for n in (0, 15, 30, 45):
        turned = np.where(np.arange(60) == n, 1 - labels, labels)
        second = cross_fitted(turned, probs, groups=groups)
        assert (first[n : n + 3] == second[n : n + 3]).all()  # it and its near-duplicates
        assert (first != second).any(1).sum() >= 40  # the other folds


def test_near_duplicates_do_not_disprove_calibration():
    """Fifty pictures show an error by chance; ten copies of each show the same, and prove no more."""
    for seed in range(5):
        labels, probs = calibrated(50, 3, seed)
        copied = np.repeat(labels, 10), np.repeat(probs, 10, axis=0)
        found = scorecard(*copied, groups=np.repeat(np.arange(50), 10))["calibration_error"]
        assert found["low"] == 0 == scorecard(labels, probs)["calibration_error"]["low"]


def test_a_faultless_set_has_no_temperature():
    """Every picture right: the surer the likelier, without end; so there is none, and it says so."""
    labels = np.arange(10) % 2
    probs = np.eye(2)[labels] * 0.8 + 0.1
    assert temperature_figure(labels, probs, groups=np.arange(10))["why"].startswith("every picture is right")
    assert cross_fitted(labels, probs, groups=np.arange(10)) is None


def test_precision_and_recall_are_the_hand_counted_ones():
    """Two cats called cat, one dog called cat, one dog called dog; no owl at all."""
    of = label_scores(["cat", "cat", "dog", "dog"], ["cat", "cat", "cat", "dog"], ["cat", "dog", "owl"])
    assert of["cat"]["precision"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert (of["cat"]["recall"]["value"], of["cat"]["f1"]["value"], of["cat"]["n"]) == (1.0, 0.8, 2)
    assert (of["dog"]["precision"]["value"], of["dog"]["recall"]["value"]) == (1.0, 0.5)
    assert of["owl"]["precision"] == {"value": None, "low": 0.0, "high": 1.0, "n": 0} | {
        "why": "no picture was called 'owl'"
    }
    assert of["owl"]["f1"] == figure(None, None, None, 0, why="there is no picture of 'owl' in this set")


def test_f1_is_scikit_learns_with_an_interval():
    """Each label's F1 agrees with scikit-learn and lies within its interval."""
    labels, probs = some_predictions(90)
    predicted, vocab = probs.argmax(1), ["a", "b", "c"]
    of = label_scores([vocab[k] for k in labels], [vocab[k] for k in predicted], vocab)
    assert [of[name]["f1"]["value"] for name in vocab] == pytest.approx(
        list(f1_score(labels, predicted, average=None)), abs=1e-6
    )
    assert all(0 < of[name]["f1"]["low"] < of[name]["f1"]["value"] < of[name]["f1"]["high"] < 1 for name in vocab)


def test_the_interval_of_the_temperature_holds_the_truth():
    """Of 60 sets of 60 pictures from a model as sure as right, 54 or more hold the temperature 1."""
    hits = 0
    for seed in range(60):
        labels, probs = calibrated(60, 3, seed)
        found = temperature_figure(labels, probs, groups=np.arange(60))
        hits += found["low"] <= 1 <= found["high"]
    assert hits >= 54


def test_shapes_that_do_not_fit_are_refused():
    """No pictures, or a row missing."""
    with pytest.raises(ValueError, match="expected"):
        scorecard([], np.zeros((0, 2)))
    with pytest.raises(ValueError, match="expected"):
        scorecard([0, 1], np.zeros((1, 2)))


def test_the_interval_of_the_temperature_stays_within_what_was_searched():
    """Of 80 small sets every end lies within 0.05 to 20 or is open and says why; 1 is held in 90 of 100 or more."""
    hits, tried, opened = 0, 0, 0
    for seed in range(80):
        labels, probs = calibrated(15, 3, seed)
        found = temperature_figure(labels, probs, groups=np.arange(15))
        if found["value"] is None:
            continue
        low, high = found["low"], found["high"]
        assert all(end is None or 0.05 <= end <= 20 for end in (low, high))
        assert (low is None or high is None) == ("why" in found)
        tried, opened = tried + 1, opened + (high is None)
        hits += (low is None or low <= 1) and (high is None or high >= 1)
    assert opened > 10 and hits >= 0.9 * tried


def test_a_model_that_is_sure_and_wrong_has_a_temperature_without_an_upper_end():
    """Right no more often than by chance at 99 % confidence: no temperature is too high."""
    labels = np.arange(60) % 2
    probs = np.where(np.random.default_rng(0).random((60, 1)) < 0.5, [0.99, 0.01], [0.01, 0.99])
    found = temperature_figure(labels, probs, groups=np.arange(60))
    assert found["high"] is None and found["low"] > 3 and found["why"].startswith("the resamples reach the end")
