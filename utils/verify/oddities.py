"""
Pictures that are not like the rest of their folder, found before any training.

Reads what the packaged network sees (`utils.features`). A picture's likeness to a label is its mean cosine to the
nearest half of that label's typical pictures. A quarter of each folder, the least like it, is not typical: a folder
fresh from the web may hold so much junk. The cosines are taken in the 32 directions in which typical pictures vary
most, each scaled by the square root of its extent. What a picture has outside them makes it less like all labels.
benchmarks/oddities.py compares this with simpler scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from utils.dataset import Dataset, Picture
from utils.features import picture_features
from utils.words import counted, listed

FEWEST_KNOWN = 8  # readable pictures of a label; fewer do not tell what is usual for it
DIRECTIONS = 32
UNTYPICAL = 0.25  # of each folder
COMPARED = 500  # pictures of a label that the others are compared with
ORDINARY = 0.45  # of the usual likeness: a picture below it for every label is like none
LEAST_USUAL = 0.02  # mean cosine; below it a label's pictures have nothing in common, and none is unlike the others
TINY = 1e-12  # the length of a picture that is like the mean of all
GAP = 0.4  # … by which another label fits better than the own one, to be named


@dataclass(frozen=True)
class Oddity:
    """A picture that is not like the rest of its folder."""

    picture: Picture
    like: str | None  # the label that it is more like; None: it is not like any

    @property
    def reason(self) -> str:
        """What it is like, in words."""
        return f"like {self.like or 'no label'}"


@dataclass(frozen=True)
class Oddities:
    """The pictures of a data set that are not like the rest of their folder."""

    found: dict[str, list[Oddity]]  # label → the oddest first; a label without any is left out
    sentence: str  # how many, and what could not be judged


def find_oddities(dataset: Dataset) -> Oddities:
    """
    Return the pictures that are not like the rest of their folder.

    Labels of fewer than 8 readable pictures are left out: nobody knows what is usual for them. The sentence says so.
    """
    features = picture_features(dataset)
    readable = ~np.isnan(features).any(1)
    codes, vocab = np.array(dataset.codes, dtype=int), list(dataset.project.labels)
    counts = np.bincount(codes[readable], minlength=len(vocab))
    known = [k for k, count in enumerate(counts) if count >= FEWEST_KNOWN]
    places = np.flatnonzero(readable & np.isin(codes, known))
    found: dict[str, list[Oddity]] = {}
    if known:
        own = np.searchsorted(known, codes[places])
        rows = list(dataset)
        for n, like in odd_positions(relative_likeness(features[places], own), own):
            oddity = Oddity(rows[places[n]], None if like is None else vocab[known[like]])
            found.setdefault(oddity.picture.label, []).append(oddity)
    found = {label: found[label] for label in vocab if label in found}
    few = [label for k, label in enumerate(vocab) if k not in known]
    return Oddities(found, told_oddities(found, few=few, unread=int((~readable).sum())))


def relative_likeness(features: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """
    Return how like each label N pictures are: (N, K), where 1 is the median of the label's own pictures.

    `features` is (N, F); `codes`, (N,), are labels in [0, K), each with `FEWEST_KNOWN` pictures or more.
    """
    own = _likeness(features, codes, np.ones(len(codes), dtype=bool))[np.arange(len(codes)), codes]
    limits = np.array([np.quantile(own[codes == k], UNTYPICAL) for k in range(codes.max() + 1)])
    return _likeness(features, codes, own >= limits[codes])


def _likeness(features: np.ndarray, codes: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """Return how like each label N pictures are (N, K), where only typical pictures (bool (N,)) tell what is usual."""
    moved = features.astype(np.float64) - features[typical].mean(0, dtype=np.float64)
    last = moved.shape[1] - 1
    first = last + 1 - min(DIRECTIONS, int(typical.sum()) - 1, last + 1)
    squares, axes = eigh(moved[typical].T @ moved[typical], subset_by_index=(first, last))  # the least first
    extents = np.sqrt(np.maximum(squares, TINY))
    places = moved @ axes
    outside = np.maximum((moved**2).sum(1) - (places**2).sum(1), 0) / extents[0]
    places /= np.sqrt(extents)
    places /= np.sqrt(np.maximum((places**2).sum(1) + outside, TINY))[:, None]
    rows, likeness = np.arange(len(codes)), np.empty((len(codes), codes.max() + 1))
    for k in range(likeness.shape[1]):
        others = np.flatnonzero((codes == k) & typical)[:COMPARED]  # sorted by id, which is a hash: a fair draw
        cosines = places @ places[others].T
        cosines[others, np.arange(len(others))] = -np.inf  # itself
        nearest = (len(others) - np.isin(rows, others) + 1) // 2
        sums = np.cumsum(-np.sort(-cosines, axis=1), axis=1)
        likeness[:, k] = sums[rows, nearest - 1] / nearest
        usual = np.median(likeness[others, k])
        likeness[:, k] = likeness[:, k] / usual if usual >= LEAST_USUAL else codes == k
    return likeness


def odd_positions(likeness: np.ndarray, codes: np.ndarray) -> list[tuple[int, int | None]]:
    """
    Return the positions of odd pictures, each with the label that it is more like or None, the oddest first.

    >>> odd_positions(np.array([[1.0, 0.1], [0.3, 0.9], [0.2, 0.3], [0.8, 0.9]]), np.array([0, 0, 0, 0]))
    [(2, None), (1, 1)]
    """
    rows = np.arange(len(codes))
    own, best = likeness[rows, codes], likeness.argmax(1)
    most = likeness[rows, best]
    odd = np.flatnonzero((most < ORDINARY) | (most - own > GAP))
    odd = odd[np.argsort(own[odd], kind="stable")]
    return [(int(n), None if most[n] < ORDINARY else int(best[n])) for n in odd]


def told_oddities(found: dict[str, list[Oddity]], *, few: Sequence[str] = (), unread: int = 0) -> str:
    """
    Return how many pictures are odd in which way, and what was not judged.

    >>> told_oddities({}, few=["ant"])
    'No picture stands out from its folder. Not judged: “ant” (fewer than 8 pictures).'
    """
    odd = [oddity for same in found.values() for oddity in same]
    near = sum(oddity.like is not None for oddity in odd)
    kinds = [f"{counted(near)} more like another label (perhaps filed wrongly)"] if near else []
    kinds += [f"{counted(len(odd) - near)} like no label (perhaps junk)"] if len(odd) > near else []
    told = f"Not like the rest of their folder: {' and '.join(kinds)}." if odd else ""
    left = [f"{listed(few)} (fewer than {FEWEST_KNOWN} pictures)"] if few else []
    left += [f"{counted(unread)} that cannot be read"] if unread else []
    lost = f" Not judged: {' and '.join(left)}." if left else ""
    return (told or "No picture stands out from its folder.") + lost
