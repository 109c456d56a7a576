"""
Figures of a classifier, each with its 95 % interval and the number of pictures behind it.

Works on labels and probabilities alone, for stage 05. The figures are scikit-learn's; for the bootstrap a few matrix
products replace 1,000 calls of it. A figure that cannot be computed is None and says why.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from utils.intervals import LEVEL, NO_SPREAD, RESAMPLES, Figure, Measure, bootstrap, figure, interval, mean_of, wilson

BINS = 10  # of equal width, for the calibration error and its diagram
CALIBRATION_FOLDS = 5  # so that no picture is scaled by a temperature that it helped to choose
COOLEST, HOTTEST = 0.05, 20.0  # the range in which a temperature is sought
OPEN_END = "the resamples reach the end of the range that is searched, 0.05 to 20"
LEAST = 1e-15  # a probability of 0 has no logarithm


def scorecard(
    labels: Sequence[int],
    probs: np.ndarray,
    *,
    groups: Sequence | None = None,
    scaled: np.ndarray | None = None,
    seed: int = 42,
) -> dict[str, Figure]:
    """
    Return the figures of a classifier, each with its 95 % interval.

    `labels`, int array (N,), are the true classes, 0 ≤ label < K; `probs`, float array (N, K), the probabilities, and
    `scaled` those after temperature scaling, for ``calibration_error_scaled``. A row sums to 1. Near-duplicates share
    one of the N `groups`: they are not independent evidence, so the bootstrap draws them together.

    The dict holds ``accuracy`` (Wilson's interval), ``balanced_accuracy``, ``macro_f1``, ``auc`` (one label against the
    rest, the mean over labels), ``log_loss`` and ``calibration_error`` (bootstrap by group), each ``{"value", "low",
    "high", "n"}``. All are fractions but log_loss, in nats. Means over labels are over those that occur. A figure, or
    its interval, that cannot be computed is None, and ``"why"`` says why.

    If all pictures are right, or none is, no resample differs, and the bootstrap would show no doubt at all. Wilson's
    end for that many groups takes its place. The calibration error (Guo et al. 2017, 10 bins of equal width) is too
    high in small sets, and higher still in their resamples. So its interval is the basic one, mirrored about the value.
    It begins at 0 where a perfectly calibrated model could show as much.

    >>> card = scorecard([0, 0, 1, 1], np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]))
    >>> card["accuracy"]["value"], card["accuracy"]["n"]
    (0.75, 4)
    """
    labels, probs = np.asarray(labels, dtype=int), np.asarray(probs, dtype=float)
    n, predicted = len(labels), probs.argmax(1)
    if n == 0 or len(probs) != n:
        raise ValueError(f"{n} labels and probabilities of shape {probs.shape}: expected (N,) and (N, K), N > 0")
    groups = np.arange(n) if groups is None else np.asarray(groups)
    hits, true, said = _one_hot(labels, predicted, probs.shape[1])
    calibration = {"calibration_error": probs} | ({} if scaled is None else {"calibration_error_scaled": scaled})
    measures = {
        "balanced_accuracy": lambda w: _mean_where(_ratio(w @ hits, w @ true)),
        "macro_f1": lambda w: _mean_where(_f1(w @ hits, w @ true, w @ said)),
        "auc": auc_measure(labels, probs),
        "log_loss": mean_of(_losses(labels, probs, 1)),
        **{name: _calibration_measure(labels, table) for name, table in calibration.items()},
    }
    figures = {"accuracy": wilson(int((predicted == labels).sum()), n, groups=groups)}
    for name, (values, draws) in bootstrap(measures, groups, seed=seed).items():
        how = {"top": None if name == "log_loss" else 1, "mirrored": name in calibration}
        why = "all pictures are of one label" if name == "auc" else ""
        figures[name] = interval(values[0], draws[:, 0], n=n, groups=groups, why=why, **how)
    for name, table in calibration.items():
        if figures[name]["low"] and could_be_calibrated(figures[name]["value"], table, groups=groups, seed=seed):
            figures[name]["low"] = 0.0
    return figures


def _one_hot(labels: np.ndarray, predicted: np.ndarray, K: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return as 0 and 1, each (N, K): of the label and predicted so; of the label; predicted so."""
    true, said = np.eye(K)[labels], np.eye(K)[predicted]
    return true * said, true, said


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole; NaN where there is no whole."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _f1(hits: np.ndarray, true: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Return F1; NaN for a label without pictures."""
    return np.where(true > 0, _ratio(2 * hits, true + said), np.nan)


def _mean_where(values: np.ndarray) -> np.ndarray:
    """Return the mean of each row over the labels that have a value: (R, K) → (R, 1)."""
    there = ~np.isnan(values)
    return _ratio(np.where(there, values, 0).sum(1, keepdims=True), there.sum(1, keepdims=True))


def auc_measure(labels: np.ndarray, probs: np.ndarray) -> Measure:
    """Return the mean over labels of the share of pairs (one of the label, one not) in the right order."""
    K = probs.shape[1]
    sorted_once = []
    for k in range(K):
        order = np.argsort(probs[:, k], kind="stable")
        ties = np.flatnonzero(np.r_[True, np.diff(probs[order, k]) > 0])  # where the next probability begins
        sorted_once.append((order, ties, labels[order] == k))

    def measure(w: np.ndarray) -> np.ndarray:
        areas = np.full((len(w), K), np.nan)
        for k, (order, ties, own) in enumerate(sorted_once):
            drawn = w[:, order]
            of_it = np.add.reduceat(drawn * own, ties, axis=1)
            others = np.add.reduceat(drawn * ~own, ties, axis=1)
            below = others.cumsum(1) - others
            areas[:, k] = _ratio((of_it * (below + others / 2)).sum(1), of_it.sum(1) * others.sum(1))
        return _mean_where(areas)

    return measure


def _calibration_measure(labels: np.ndarray, probs: np.ndarray) -> Measure:
    """Return the mean gap between confidence and share right, over the bins (Guo et al. 2017)."""
    sure = probs.max(1)
    gaps = np.eye(BINS)[bin_of(sure)] * (sure - (probs.argmax(1) == labels))[:, None]  # (N, BINS)
    return lambda w: (np.abs(w @ gaps).sum(1) / w.sum(1))[:, None]


def could_be_calibrated(error: float, probs: np.ndarray, *, groups: np.ndarray, seed: int = 42) -> bool:
    """
    Return whether 2.5 in 100 perfectly calibrated models or more would show such a calibration error by chance.

    Each picture is right with the probability that the model gave it, near-duplicates together (consistency
    resampling, Bröcker and Smith 2007).
    """
    sure, (names, codes) = probs.max(1), np.unique(groups, return_inverse=True)
    in_bin, rng = np.eye(BINS)[bin_of(sure)], np.random.default_rng(seed)
    sets = (rng.random(len(names))[codes] < sure for _ in range(RESAMPLES))
    errors = [np.abs((sure - right) @ in_bin).sum() / len(sure) for right in sets]
    return bool(error <= np.quantile(errors, (1 + LEVEL) / 2))


def bin_of(sure: np.ndarray) -> np.ndarray:
    """Return the bin, 0 ≤ bin < BINS, of N probabilities."""
    return np.minimum((np.asarray(sure) * BINS).astype(int), BINS - 1)


def label_scores(
    labels: Sequence[str], predicted: Sequence[str], vocab: Sequence[str], *, groups: Sequence | None = None, seed=42
) -> dict[str, dict]:
    """
    Return precision, recall and F1 of each label, with n = pictures of it.

    Precision and recall have Wilson's intervals, F1 the bootstrap's. A label that was never predicted has no
    precision; one without pictures has no recall and no F1 (None, with the reason).
    """
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    true, guess = (np.array([list(vocab).index(label) for label in names], dtype=int) for names in (labels, predicted))
    hits, own, said = _one_hot(true, guess, len(vocab))
    values, draws = bootstrap({"f1": lambda w: _f1(w @ hits, w @ own, w @ said)}, groups, seed=seed)["f1"]
    scores = {}
    for k, label in enumerate(vocab):
        right, n, called = (int(column[:, k].sum()) for column in (hits, own, said))
        missing = f"there is no picture of {label!r} in this set"
        concerned = groups[(true == k) | (guess == k)]
        scores[label] = {
            "precision": wilson(right, called, groups=groups[guess == k], why=f"no picture was called {label!r}"),
            "recall": wilson(right, n, groups=groups[true == k], why=missing),
            "f1": interval(values[k], draws[:, k], n=n, groups=concerned, why=missing),
            "n": n,
        }
    return scores


def scale(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities (N, K) at a temperature: above 1 the confidence falls, below 1 it rises; ranks stay."""
    return softmax(np.log(np.clip(probs, LEAST, 1)) / temperature, axis=1)


def _losses(labels: np.ndarray, probs: np.ndarray, temperature: float) -> np.ndarray:
    """Return each picture's negative log-likelihood at a temperature: (N,), in nats."""
    return -np.log(np.clip(scale(probs, temperature)[np.arange(len(labels)), labels], LEAST, 1))


def fit_temperature(labels: Sequence[int], probs: np.ndarray) -> float | None:
    """Return the temperature at which the labels are most likely, within 0.05 to 20; None if every picture is right."""
    labels, probs = np.asarray(labels, dtype=int), np.asarray(probs, dtype=float)
    if (probs[np.arange(len(labels)), labels] >= probs.max(1)).all():
        return None
    bounds = np.log(COOLEST), np.log(HOTTEST)
    found = minimize_scalar(lambda t: _losses(labels, probs, np.exp(t)).mean(), bounds=bounds, method="bounded")
    return float(np.exp(found.x))


def temperature_figure(labels: Sequence[int], probs: np.ndarray, *, groups: Sequence, seed: int = 42) -> Figure:
    """
    Return the fitted temperature with its interval, from resamples by group.

    An end of the interval is None if the resamples, or their mirror image, reach the end of the range that is searched:
    nothing is known beyond it.
    """
    labels, probs = np.asarray(labels, dtype=int), np.asarray(probs, dtype=float)
    value = fit_temperature(labels, probs)
    if value is None:
        return figure(None, None, None, len(labels), why="every picture is right, so no confidence is too high")
    if len(np.unique(np.asarray(groups))) < 2:
        return figure(value, None, None, len(labels), why=NO_SPREAD)
    grid = np.geomspace(COOLEST, HOTTEST, 601)  # steps of 1 %
    losses = np.stack([_losses(labels, probs, temperature) for temperature in grid], axis=1)  # (N, 601)
    draws = bootstrap({"": lambda w: grid[(w @ losses).argmin(1)][:, None]}, groups, seed=seed)[""][1][:, 0]
    least, most = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    ends = [(least, least > grid[1]), (most, most < grid[-2])]  # and whether the search stopped there by itself
    if grid[1] < value < grid[-2]:
        # Small sets give too low a temperature, their resamples a lower one still: the mirror image makes up for that.
        ends = [(value**2 / end, known) for end, known in reversed(ends)]
    low, high = (end if known and COOLEST <= end <= HOTTEST else None for end, known in ends)
    low, high = low and min(low, value), high and max(high, value)
    return figure(value, low, high, len(labels), why="" if low and high else OPEN_END)


def cross_fitted(labels: Sequence[int], probs: np.ndarray, *, groups: Sequence, seed: int = 42) -> np.ndarray | None:
    """
    Return the probabilities of N pictures, each scaled by a temperature fitted on the other folds.

    Near-duplicates share a fold. A picture scaled by a temperature that it helped to choose would flatter the
    calibration. None if there are fewer than two groups, or no temperature fits them all.
    """
    labels, probs = np.asarray(labels, dtype=int), np.asarray(probs, dtype=float)
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    G = codes.max() + 1
    if G < 2 or fit_temperature(labels, probs) is None:
        return None
    fold = (np.random.default_rng(seed).permutation(G) % min(CALIBRATION_FOLDS, G))[codes]
    result = probs.copy()
    for k in range(fold.max() + 1):
        temperature = fit_temperature(labels[fold != k], probs[fold != k])
        if temperature is not None:
            result[fold == k] = scale(probs[fold == k], temperature)
    return result


def reliability(labels: Sequence[int], probs: np.ndarray, *, groups: Sequence | None = None) -> list[dict]:
    """Return for each bin with pictures: its ends, the mean confidence ("sure"), the share right."""
    labels, probs = np.asarray(labels, dtype=int), np.asarray(probs, dtype=float)
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    sure, right = probs.max(1), probs.argmax(1) == labels
    bins, rows = bin_of(sure), []
    for b in np.unique(bins).tolist():
        here = bins == b
        share = wilson(int(right[here].sum()), int(here.sum()), groups=groups[here])
        mean = round(float(sure[here].mean()), 6)
        rows.append({"from": b / BINS, "to": (b + 1) / BINS, "sure": mean, "right": share})
    return rows
