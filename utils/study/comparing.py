"""
Stage 09, what differences are worth: settings compared photo by photo, on the same validation sets.

A difference is uncertain for two reasons: other photos, and other trainings (seeds). Both are counted: the variance is
that of groups of near-duplicates, each with all the seeds that judged it, plus what the seeds add to it (Cameron,
Gelbach, Miller 2011, "Robust inference with multiway clustering"; degrees of freedom as in Satterthwaite 1946). Two or
three seeds tell little of what seeds add. So that share is taken to be the same for all comparisons of a study, and is
averaged over them, as an analysis of variance does. Many comparisons find something by chance; Holm's procedure (1979)
corrects for that.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t

from utils.intervals import LEVEL, wilson
from utils.study.runs import RUN_DONE, TrainingRun

MOST_MORE = 20  # seeds; with more, a study is no way to tell


@dataclass(frozen=True)
class Estimate:
    """A mean over photos and seeds, with the two parts of its variance."""

    value: float
    photos: float  # variance of the mean, by groups of near-duplicates
    groups: int
    extra: float  # … and what seeds add to it; by chance it may lie below 0, and then counts as 0
    seeds: int
    freedom_of_extra: float  # degrees of freedom

    @property
    def error(self) -> float:
        """The standard error."""
        return math.sqrt(self.photos + max(0.0, self.extra))

    @property
    def freedom(self) -> float:
        """The degrees of freedom of the error."""
        extra = max(0.0, self.extra)
        parts = self.photos**2 / max(1, self.groups - 1) + (extra**2 / self.freedom_of_extra if extra else 0.0)
        return self.error**4 / parts

    @property
    def p(self) -> float:
        """The chance of a mean as far from 0, if it were 0 in truth."""
        if self.value == 0:
            return 1.0
        return float(2 * t.sf(abs(self.value) / self.error, self.freedom))

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the interval that holds the true mean with a probability of `level`."""
        half = float(t.ppf((1 + level) / 2, self.freedom)) * self.error
        return self.value - half, self.value + half

    def seeds_needed(self, level: float = LEVEL) -> float:
        """Return about how many seeds in all would show a difference of this size; infinite for none."""
        if self.value == 0:
            return math.inf
        return self.seeds * (float(t.ppf((1 + level) / 2, self.freedom)) * self.error / self.value) ** 2


def estimate(values: Mapping[int, np.ndarray], groups: Mapping[int, Sequence[Hashable]]) -> Estimate:
    """
    Return the mean of values, seed → float array (N,), over photos and seeds.

    `groups`, seed → N names, tell which photos are near-duplicates. One seed alone cannot tell what others would add.

    >>> few = estimate({1: np.array([1.0, 0, 0, 1])}, {1: "abcd"})
    >>> few.value, few.seeds, round(few.error, 2)
    (0.5, 1, 0.29)
    """
    flat = np.concatenate([np.asarray(values[seed], dtype=float) for seed in values])
    of_groups = [group for seed in values for group in groups[seed]]
    of_seeds = [seed for seed in values for _ in groups[seed]]
    _, by_group = np.unique(np.array(of_groups, dtype=str), return_inverse=True)
    _, by_seed = np.unique(of_seeds, return_inverse=True)
    away = flat - flat.mean()
    G, S = int(by_group.max()) + 1, int(by_seed.max()) + 1
    photos = max(_variance(away, by_group), 1 / G**2)  # of few photos that all agree, one more could still differ
    extra = _variance(away, by_seed) - _variance(away, by_group * S + by_seed) if S > 1 else 0.0
    return Estimate(float(flat.mean()), photos, G, extra, S, max(1, S - 1))


def pooled(pairs: Mapping[tuple, Estimate]) -> dict[tuple, Estimate]:
    """Return estimates by pairs of names with what seeds add averaged over all pairs of more than one seed."""
    several = [found for found in pairs.values() if found.seeds > 1]
    if not several:
        return dict(pairs)
    of_one_seed = float(np.mean([found.extra * found.seeds for found in several]))
    names = {name for pair in pairs for name in pair}
    freedom = (float(np.mean([found.seeds for found in several])) - 1) * max(1, len(names) - 1)
    return {
        pair: replace(found, extra=of_one_seed / found.seeds, freedom_of_extra=freedom) for pair, found in pairs.items()
    }


def _variance(away: np.ndarray, clusters: np.ndarray) -> float:
    """Return the variance of a mean whose deviations (N,) hang together within clusters."""
    sums = np.bincount(clusters, weights=away)
    C = len(np.unique(clusters))
    return float((sums**2).sum() / len(away) ** 2 * C / max(1, C - 1))


def accuracy_interval(
    runs: Sequence[TrainingRun], groups: Mapping[int, Sequence[Hashable]]
) -> tuple[float, float, float]:
    """Return the mean accuracy of runs over photos and seeds, a fraction, and its 95 % interval."""
    found = estimate({run.seed: run.right for run in runs}, groups)
    low, high = found.interval()
    if found.value in (0, 1):
        photos = [group for run in runs for group in groups[run.seed]]
        edge = wilson(round(found.value * len(photos)), len(photos), groups=photos)
        low, high = edge["low"], edge["high"]
    return found.value, max(0.0, low), min(1.0, high)


@dataclass(frozen=True)
class Contrast:
    """One setting, or value of a key, against another: how much better it is, a fraction."""

    better: Hashable
    worse: Hashable
    difference: Estimate
    level: float  # that Holm's procedure asks of its interval
    differs: bool

    @property
    def interval(self) -> tuple[float, float]:
        """Return the interval of the difference at that level."""
        return self.difference.interval(self.level)


def contrasts(pairs: Mapping[tuple, Estimate], *, error: float = 1 - LEVEL) -> list[Contrast]:
    """
    Return all pairs, (one, other) → how much better one is, corrected by Holm's procedure, the clearest first.

    `error` is the chance that any of those that are called different is not.
    """
    ranked = sorted(pooled(pairs).items(), key=lambda pair: (pair[1].p, str(pair[0])))
    found, level, going_on = [], 1 - error / max(1, len(ranked)), True
    for n, ((one, other), difference) in enumerate(ranked):
        if going_on:
            level = 1 - error / (len(ranked) - n)
            going_on = difference.p <= 1 - level
        better, worse, sign = (one, other, 1) if difference.value >= 0 else (other, one, -1)
        found.append(Contrast(better, worse, replace(difference, value=sign * difference.value), level, going_on))
    return found


def paired(
    ones: Sequence[TrainingRun], others: Sequence[TrainingRun], groups: Mapping[int, Sequence[Hashable]]
) -> Estimate | None:
    """
    Return how much better some runs are than others, run n against run n; None if no two judged the same photos.

    Pairs of one seed are averaged photo by photo: they share training and validation set.
    """
    gains: dict[int, list[np.ndarray]] = {}
    for one, other in zip(ones, others, strict=True):
        if one.status == other.status == RUN_DONE and (one.seed, one.judged) == (other.seed, other.judged):
            gains.setdefault(one.seed, []).append(one.right.astype(float) - other.right)
    if not gains:
        return None
    means = {seed: np.mean(found, axis=0) for seed, found in gains.items()}
    return estimate(means, {seed: groups[seed] for seed in means})
