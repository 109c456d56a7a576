"""
Which pictures are worth comparing: the nearest by what the packaged network sees, by points, and in time or number.

The network knows a cropped or paler picture, but not one turned by a quarter. The points know that one. They are summed
up as in VLAD (Jégou et al. 2010): each counts for the nearest of 64 typical points, by how it differs from that.
"""

from collections.abc import Mapping

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from utils.copies.geometry import MIRRORED
from utils.copies.points import MOST_POINTS

NEIGHBOURS = 5  # per picture, of each kind
WORDS, LENGTH = 64, 256  # typical points; numbers that are kept for each picture
TURNED_AT_ONCE = 256  # pictures: 8 MB
SAMPLED = 1000  # pictures that the words and the directions are taken from
COMPARED_AT_ONCE = 1024  # rows with as many others: 4 MB of similarities


def feature_neighbours(features: np.ndarray, most: int = NEIGHBOURS) -> np.ndarray:
    """
    Return pairs of positions (M, 2), the smaller first: of N pictures each with the `most` nearest by cosine.

    `features` is float32 (N, D). A row of NaN, a picture that could not be read, is no one's neighbour. The search is
    exact. It goes by blocks of rows, so that memory grows with N and not with its square; two blocks are compared once,
    for both.
    """
    places = np.flatnonzero(~np.isnan(features).any(axis=1))
    most = min(most, len(places) - 1)
    if most < 1:
        return np.empty((0, 2), dtype=np.int64)
    unit = features[places]
    unit /= np.maximum(np.sqrt(np.einsum("nd,nd->n", unit, unit)), 1e-12)[:, None]  # no second table of that size
    near = np.full((len(places), most), -1)
    alike = np.full((len(places), most), -np.inf, dtype=np.float32)
    blocks = [slice(start, start + COMPARED_AT_ONCE) for start in range(0, len(places), COMPARED_AT_ONCE)]
    for n, own in enumerate(blocks):
        for other in blocks[n:]:
            found = unit[own] @ unit[other].T
            if own == other:
                np.fill_diagonal(found, -np.inf)
            else:
                _keep_nearest(near[other], alike[other], found.T, own.start)
            _keep_nearest(near[own], alike[own], found, other.start)
    pairs = np.stack([np.repeat(places, most), places[near.ravel()]], axis=1)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _keep_nearest(near: np.ndarray, alike: np.ndarray, found: np.ndarray, start: int) -> None:
    """
    Take in what (B, C) similarities add to the nearest of B rows so far, positions and similarities (B, most).

    The columns of `found` are the positions from `start` on. Few rows gain anything from a late block.
    """
    gain, most = np.flatnonzero(found.max(axis=1) > alike.min(axis=1)), near.shape[1]
    both = np.concatenate([alike[gain], found[gain]], axis=1)
    best = np.argpartition(-both, most - 1, axis=1)[:, :most]
    before = np.take_along_axis(near[gain], np.minimum(best, most - 1), axis=1)
    near[gain] = np.where(best < most, before, start + best - most)
    alike[gain] = np.take_along_axis(both, best, axis=1)


def following(order: np.ndarray, values: np.ndarray, gap: float, ahead: int = 2) -> np.ndarray:
    """
    Return pairs of positions (M, 2) that follow each other within `gap`, in an order of ascending values.

    With two `ahead`, one blurred frame does not break a sequence.
    """
    steps = [(order[:-step], order[step:]) for step in range(1, ahead + 1) if len(order) > step]
    near = [np.stack([a, b], axis=1)[values[b] - values[a] <= gap] for a, b in steps]
    return np.sort(np.concatenate([np.empty((0, 2), dtype=np.int64), *near]), axis=1)


@threadpool_limits.wrap(limits=1, user_api="blas")  # products so small take up to forty times as long on two threads
def points_vectors(points: Mapping[int, np.void], count: int) -> np.ndarray:
    """
    Sum up the points of pictures: float32 (N, up to 256), NaN where there are none.

    A picture, mirrored or turned, gives nearly the same numbers: each point counts as it is and as its mirror image.
    """
    places = [place for place in sorted(points) if points[place]["count"]]
    vectors = np.full((count, LENGTH), np.nan, dtype=np.float32)
    if len(places) < 2:
        return vectors
    sample = places[:: -(-len(places) // SAMPLED)]  # ids are digits of a hash, so any of them are a fair draw
    seen = np.concatenate([_both_ways(points[place])[::10] for place in sample])
    words = KMeans(min(WORDS, len(seen)), n_init=1, max_iter=10, random_state=0).fit(seen).cluster_centers_
    own = np.stack([_summed(points[place], words) for place in sample])
    mean = own.mean(axis=0)
    # The directions in which the sample varies most, from the smaller of the two products.
    strength, mixtures = np.linalg.eigh((own - mean) @ (own - mean).T)
    strongest = np.argsort(-strength)[:LENGTH]
    directions = (own - mean).T @ mixtures[:, strongest] / np.sqrt(np.maximum(strength[strongest], 1e-6))
    for start in range(0, len(places), TURNED_AT_ONCE):
        some = places[start : start + TURNED_AT_ONCE]
        rows = (np.stack([_summed(points[place], words) for place in some]) - mean) @ directions
        vectors[some] = np.pad(rows, ((0, 0), (0, LENGTH - rows.shape[1])))
    return vectors


def _both_ways(row: np.void) -> np.ndarray:
    """Return the descriptors of a picture's points and of their mirror images, float32 (2 P, 128), of length 1."""
    descriptors = np.sqrt(row["descriptors"][: min(int(row["count"]), MOST_POINTS)].astype(np.float32))
    both = np.concatenate([descriptors, descriptors[:, MIRRORED]])
    return both / np.maximum(np.sqrt((both**2).sum(axis=1, keepdims=True)), 1e-6)


def _summed(row: np.void, words: np.ndarray) -> np.ndarray:
    """Return a picture's points by how they differ from the nearest word: float32 (words × 128,), of length 1."""
    both = _both_ways(row)
    nearest = (both @ words.T - (words**2).sum(axis=1) / 2).argmax(axis=1)
    member = (nearest == np.arange(len(words))[:, None]).astype(np.float32)  # (words, 2 P)
    summed = member @ both - member.sum(axis=1, keepdims=True) * words
    # Each word to length 1: else the commonest would count most.
    summed /= np.maximum(np.sqrt((summed**2).sum(axis=1, keepdims=True)), 1e-6)
    return (summed / max(np.sqrt((summed**2).sum()), 1e-6)).ravel().astype(np.float32)
