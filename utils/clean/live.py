"""
Which pictures look wrong now? A head that is fitted again on what a person has decided so far.

Takes features (`utils.features`), labels and decisions; reads and writes no file. The head is a ridge regression of the
labels. Each picture is judged by the head fitted without it, which has a closed form (the hat matrix, as for PRESS),
so no head judges a wrong label that it has learned. Decided pictures count more than the others. Of these, the ones
that a first head doubts count less, as they may be wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_array
from scipy.stats import nbinom

from utils.words import counted

EACH_TIME, AT_LATEST = 2500, 10  # pictures up to which the head is fitted after each decision; else after so many
AXES = 512  # principal axes that the head sees
STRENGTH = 0.3  # of the penalty; the pictures lie at a distance of about 1 from their mean
TRUST = 2.0  # how much a decided picture counts, beside an undecided one
DOUBTED = 0.05  # how much a picture counts at least, however wrong it looks
LOOK_ALIKE = 10  # pictures that look as wrong, of which we ask how many were decided
FOUND_BEFORE = 0.5  # wrong labels found before the first one: Jeffreys' prior
SPAN = 0.9  # of the interval
ENOUGH = 0.02  # wrong labels, as a share of all, that are left when a person may stop
LABELS_TRIED = 20  # that a picture is given in thought
LEAST_LOOKED = 0.001
LEAST_DECIDED = 20  # pictures, before we say how many wrong labels are left


@dataclass(frozen=True)
class Left:
    """How many wrong labels are left among the undecided pictures: an estimate and its 90 % interval."""

    about: int
    low: int
    high: int


class LiveOrder:
    """
    N pictures by how wrong they look, after what a person decided so far.

    `features`, float array (N, F), has NaN in the row of a picture that none are known of: it keeps its place.
    `began`, int array (N,), holds the codes of the labels at the beginning.
    """

    def __init__(self, features: np.ndarray, began: np.ndarray):
        self.known = ~np.isnan(features).any(1)
        self._axes = principal_axes(features[self.known]) if self.known.any() else np.zeros((0, 1), np.float32)
        self._began, self._learned = began, None
        labels, codes = np.unique(began[self.known], return_inverse=True)
        margins = label_margins(left_out_scores(self._axes, codes, np.ones(len(codes)), len(labels)), codes[:, None])
        self._use = np.clip(0.5 + margins[:, 0], DOUBTED, 1.0)  # (M,) how much each counts as long as it is undecided
        self.trust = np.full(len(began), np.nan)  # (N,) by how much the head prefers a picture's label to any other
        self.left: Left | None = None  # until enough is decided

    def learn(self, codes: np.ndarray, decided: np.ndarray, *, now: bool) -> None:
        """
        Fit the head to the labels with what was decided, codes (N,), −1 for a picture that is out; decided (N,).

        It is fitted if something changed since the last time. Where there are many pictures, and not `now`, several
        decisions must have.
        """
        enough = 1 if now or len(codes) <= EACH_TIME else AT_LATEST
        if self._learned and ((codes != self._learned[0]) | (decided != self._learned[1])).sum() < enough:
            return
        self._learned = codes, decided
        if not self.known.any():
            return
        began, codes, decided = self._began[self.known], codes[self.known], decided[self.known]
        believed = np.where(codes < 0, began, codes)
        labels, places = np.unique(np.concatenate([believed, began]), return_inverse=True)
        today, before = places[: len(codes)], places[len(codes) :]
        use = np.where(codes < 0, 0.0, np.where(decided, TRUST, self._use))
        scores = left_out_scores(self._axes, today, use, len(labels))
        self.trust[self.known] = label_margins(scores, today[:, None])[:, 0]
        found = int((decided & (codes != began)).sum())
        enough = decided.sum() >= LEAST_DECIDED and len(labels) > 1
        self.left = wrong_left(scores, today, before, decided, found) if enough else None

    def arranged(self, positions: Sequence[int]) -> list[int]:
        """Return positions with the undecided first, and those that look wrong before others; unknown ones stay."""
        places = np.array(positions, dtype=int)
        known = self.known[places]
        ours = places[known]
        places[known] = ours[np.lexsort((self.trust[ours], self._learned[1][ours]))]
        return places.tolist()

    def told(self, codes: np.ndarray, decided: np.ndarray) -> str:
        """Return how many wrong labels were found, and about how many are left, in words."""
        found = f"Since you began: {counted(int((decided & (codes != self._began)).sum()), 'wrong label')} found"
        if self.left is None:
            return f"{found}."
        return f"{found}, about {self.left.about:,} left ({self.left.low:,}–{self.left.high:,})."

    def advice(self) -> str:
        """Return whether to go on looking, in words; "" as long as too few pictures were decided to tell."""
        if self.left is None:
            return ""
        count = int(self.known.sum())
        if self.left.high <= ENOUGH * count:
            return f"You can stop: probably at most {self.left.high:,} of {count:,} labels are still wrong."
        return f"Go on looking: probably {self.left.low:,} to {self.left.high:,} of {count:,} labels are still wrong."


def principal_axes(features: np.ndarray, most: int = AXES) -> np.ndarray:
    """
    Return M pictures along their principal axes: float32 (M, D + 1), D ≤ `most`; the last column is 1, for the bias.

    Each feature is scaled to a standard deviation of 1. The axes are scaled together, so that the mean square of the
    pictures' distances from their mean is about 1.
    """
    scaled = features.astype(np.float32)
    scaled -= scaled.mean(0)
    scaled /= np.maximum(scaled.std(0), 1e-6) * np.sqrt(np.float32(scaled.shape[1]))
    wide = len(scaled) < scaled.shape[1]
    products = (scaled @ scaled.T if wide else scaled.T @ scaled).astype(np.float64)
    size = len(products)
    values, vectors = eigh(products, subset_by_index=[max(0, size - most), size - 1])
    axes = vectors * np.sqrt(np.maximum(values, 0)) if wide else scaled @ vectors
    return np.concatenate([axes, np.ones((len(axes), 1))], axis=1).astype(np.float32)


def left_out_scores(axes: np.ndarray, codes: np.ndarray, use: np.ndarray, k: int) -> np.ndarray:
    """
    Return K scores (M, K) of each picture by the ridge regression fitted to all others; near 1 for its label.

    `axes` (M, D) describe the pictures, `codes` (M,) are their labels, 0 ≤ code < K, and `use` (M,) says how much each
    counts; all labels together count alike. With the hat matrix's diagonal h, the score without the picture itself is
    (score − h · label) / (1 − h).
    """
    totals, rows = np.bincount(codes, use, k), np.arange(len(codes))
    weights = use * (use.sum() / max((totals > 0).sum(), 1) / np.maximum(totals, 1e-9))[codes]
    weighted = axes * weights[:, None].astype(axes.dtype)
    inverse = np.linalg.inv((weighted.T @ axes).astype(np.float64) + STRENGTH * np.eye(axes.shape[1]))
    reach = axes @ inverse.astype(axes.dtype)
    own = np.minimum((reach * weighted).sum(1), 1 - 1e-4)
    sums = csr_array((np.ones(len(codes), axes.dtype), (codes, rows)), shape=(k, len(codes))) @ weighted
    scores = reach @ sums.T
    scores[rows, codes] -= own
    scores /= (1 - own)[:, None]
    return scores


def label_margins(scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return by how much each row's scores (M, K) prefer T labels, codes (M, T), to any other label: (M, T)."""
    own = np.take_along_axis(scores, codes, 1)
    if scores.shape[1] < 2:
        return np.ones_like(own)
    first = scores.argmax(1)[:, None]
    best = np.take_along_axis(scores, first, 1)
    others = scores.copy()
    np.put_along_axis(others, first, -np.inf, 1)
    return own - np.where(codes == first, others.max(1)[:, None], best)


def wrong_left(scores: np.ndarray, codes: np.ndarray, began: np.ndarray, decided: np.ndarray, found: int) -> Left:
    """
    Estimate how many wrong labels are among the undecided, from how many were found.

    Each picture is given other labels in thought. The head never saw the picture's own label, so its scores (M, K) say
    at once how wrong that would look. What share of such labels would have been looked at by now? The pictures that
    look as wrong tell: how many of them are decided. Where a share R of all wrong labels was looked at, and `found`
    were found, the number left follows a negative binomial distribution.
    """
    k = scores.shape[1]
    steps = np.arange(1, k, -(-k // LABELS_TRIED))
    margins, tried = np.split(
        label_margins(scores, np.column_stack([began, (codes[:, None] + steps) % k])), [1], axis=1
    )
    order = np.argsort(margins[:, 0], kind="stable")
    width = 2 * LOOK_ALIKE + 1
    looked = np.convolve(np.pad(decided[order].astype(float), LOOK_ALIKE, mode="edge"), np.ones(width) / width, "valid")
    share = np.interp(tried, margins[order, 0], looked).mean()
    model = nbinom(found + FOUND_BEFORE, np.clip(share, LEAST_LOOKED, 1 - LEAST_LOOKED))
    most = int((~decided).sum())
    about, low, high = (min(int(model.ppf(part)), most) for part in (0.5, (1 - SPAN) / 2, (1 + SPAN) / 2))
    return Left(about, low, high)
