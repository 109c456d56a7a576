"""
Intervals: how far a figure can be believed, and whether a model is better than guessing.

Proportions have Wilson's interval, for as many pictures as their near-duplicates are worth. Other figures are drawn
again 1,000 times by group of near-duplicates (Efron's bootstrap).
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.stats import binom, norm, skew, t

RESAMPLES = 1000  # of the bootstrap; the interval's ends then move by about a tenth of its width
LEVEL = 0.95
AT_ONCE = 2_000_000  # numbers in a matrix of the bootstrap: 16 MB
NO_SPREAD = "one picture, or one group of near-duplicates, has no spread"
Figure = dict[str, float | int | str | None]
# A measure takes weights (R, N), how often each of N pictures was drawn in R resamples, and returns (R, F): F figures.
Measure = Callable[[np.ndarray], np.ndarray]


def resamples(groups: Sequence, *, seed: int) -> Iterator[np.ndarray]:
    """Yield weights (R, N), RESAMPLES rows in all: how often each picture's group was drawn."""
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    G, rng = codes.max() + 1, np.random.default_rng(seed)
    step = max(1, AT_ONCE // len(codes))
    for start in range(0, RESAMPLES, step):
        yield rng.multinomial(G, np.full(G, 1 / G), size=min(step, RESAMPLES - start))[:, codes].astype(float)


def bootstrap(measures: dict[str, Measure], groups: Sequence, *, seed: int) -> dict[str, tuple]:
    """Return for each measure its F values (F,) and its values in the resamples (RESAMPLES, F)."""
    whole = np.ones((1, len(groups)))
    draws: dict[str, list[np.ndarray]] = {name: [] for name in measures}
    for weights in resamples(groups, seed=seed):
        for name, measure in measures.items():
            draws[name].append(measure(weights))
    return {name: (measure(whole)[0], np.concatenate(draws[name])) for name, measure in measures.items()}


def mean_of(values: np.ndarray) -> Measure:
    """Return the measure of the mean of N values, one per picture."""
    return lambda w: (w @ values / w.sum(1))[:, None]


def interval(
    value: float, draws: np.ndarray, *, n: int, groups: Sequence, top: float | None = 1, mirrored=False, why: str = ""
) -> Figure:
    """
    Return a figure with the 95 % interval that its values in the resamples give.

    `value` is NaN if there is no such figure, for the reason `why`; `draws` (R,) are NaN where a resample has none.
    `top` is the largest value possible (None: no limit); the smallest is 0. `mirrored` asks for the basic interval
    (2 value − draw), widened so that it holds the value.
    """
    if not np.isfinite(value):
        return figure(None, None, None, n, why=why)
    draws = draws[np.isfinite(draws)].round(12)  # a difference in the last digits is none
    G = len(np.unique(np.asarray(groups)))
    if G < 2 or len(draws) == 0:
        return figure(value, None, None, n, why=NO_SPREAD)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2] if mirrored else _levels(draws, G))
    if mirrored:
        low, high = max(0, min(value, 2 * value - high)), min(top or np.inf, max(value, 2 * value - low))
    elif low == high == top:
        low = wilson(len(groups), len(groups), groups=groups)["low"]
    elif low == high == 0:
        high = wilson(0, len(groups), groups=groups)["high"]
    return figure(value, min(low, value), max(high, value), n)


def _levels(draws: np.ndarray, G: int) -> np.ndarray:
    """
    Return at which shares of the resamples of G groups the interval ends.

    The plain 2.5 and 97.5 % hold the truth too seldom if groups are few or a figure leans to one side. So the ends are
    accelerated (Efron 1987), by a sixth of the draws' skewness, and spread by Student's quantile (Hesterberg 2015).
    """
    lean = skew(draws) / 6 if np.ptp(draws) > 0 else 0
    ends = lean + np.array([-1, 1]) * t.ppf((1 + LEVEL) / 2, G - 1) * np.sqrt(G / (G - 1))
    return norm.cdf(lean + ends / np.maximum(1 - lean * ends, 1e-9))


def figure(value: float | None, low: float | None, high: float | None, n: int, *, why: str = "") -> Figure:
    """Return one entry of evaluation.json; an end that is None is open."""
    numbers = {"value": value, "low": low, "high": high}
    entry = {name: None if number is None else round(float(number), 6) for name, number in numbers.items()}
    return entry | {"n": int(n)} | ({"why": why} if why else {})


def wilson(hits: int, n: int, *, groups: Sequence | None = None, why: str = "there is no picture to count") -> Figure:
    """
    Return the share hits / n with its 95 % Wilson interval (Wilson 1927); n = 0 leaves everything open.

    Near-duplicates share one of the n `groups`. They are right or wrong together, so all are as much evidence as
    n²/Σm² pictures, m in a group (Kish 1965): the interval is that of so many. scipy's takes whole numbers only.
    """
    if n == 0:
        return figure(None, 0, 1, 0, why=why)
    counts = np.ones(n) if groups is None else np.unique(np.asarray(groups), return_counts=True)[1]
    share, room = hits / n, norm.ppf((1 + LEVEL) / 2) ** 2 * (counts**2).sum() / n**2
    half = np.sqrt(room * (share * (1 - share) + room / 4))
    return figure(share, max(0.0, (share + room / 2 - half) / (1 + room)), (share + room / 2 + half) / (1 + room), n)


def verdict(labels: Sequence, predicted: Sequence, *, groups: Sequence | None = None) -> dict[str, float | int | bool]:
    """
    Compare a classifier with guessing, by the exact binomial test.

    Guessing means naming the label that is most frequent among these very N pictures, even if another label leads in
    the training set. No other guess gets more of them, so no model looks good because the guess was a poor one. Who
    names labels without looking is called better in at most 5 of 100 cases (Hoeffding 1956).

    Near-duplicates share a group, and the first of a group stands for it, with its own label and prediction. Pictures
    are sorted by id, a hash, so which one comes first depends on neither: the groups are independent draws, also if one
    holds several labels.

    The dict holds ``right`` of ``n`` pictures (one per group), ``guess`` (how many guessing gets), ``p`` (the chance
    that guessing gets as many right or more), ``better`` (whether p lies below 0.05) and ``pictures`` (N).

    >>> verdict(["ant", "ant", "bee", "bee"], ["ant", "ant", "bee", "ant"])
    {'right': 3, 'n': 4, 'guess': 2, 'p': 0.3125, 'better': False, 'pictures': 4}
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if len(labels) == 0:
        raise ValueError("no picture was judged: a verdict needs one or more")
    first = slice(None) if groups is None else np.unique(np.asarray(groups), return_index=True)[1]
    right, n = int((labels == predicted)[first].sum()), len(labels[first])
    guess = int(np.unique(labels[first], return_counts=True)[1].max())
    p = float(binom.sf(right - 1, n, guess / n))
    better = p < 1 - LEVEL
    return {"right": right, "n": n, "guess": guess, "p": round(p, 6), "better": better, "pictures": len(labels)}


def luck(verdict: dict) -> int:
    """Return how many pictures guessing gets at most in 95 of 100 cases; a model needs more to be called better."""
    return int(binom.ppf(LEVEL, verdict["n"], verdict["guess"] / verdict["n"]))
