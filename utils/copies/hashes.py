"""
Pictures whose perceptual hashes nearly agree: candidates, found by bands of bits instead of comparing all with all.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np

from utils.dataset import Dataset
from utils.errors import FieldguideError

# Bits of 64 in which the perceptual hashes of near-duplicates may differ. Of 300 real photos, 96 to 100 % are within 10
# of themselves cropped by 4 % (71 to 87 % within 6). So are 5 of the 321,201 pairs that 802 different photos make.
NEAR = 10
BANDS = range(0, 64, 16)  # where bands of 16 bits begin
PERCEPTUAL_HASH = re.compile(r"[0-9a-fA-F]{16}")
CANDIDATES = 2_000_000  # pairs compared at a time: about 100 MB


def hash_codes(dataset: Dataset, ids: Sequence[str]) -> np.ndarray:
    """Return the hashes of N ids as a uint64 array (N,), or name one that is none: a table edited by hand."""
    hashes = dataset.records.hashes
    if spoilt := [id for id in ids if not PERCEPTUAL_HASH.fullmatch(hashes[id])]:
        raise FieldguideError(
            f"{dataset.project.table('pictures')} says {hashes[spoilt[0]][:40]!r} in the column hash of picture "
            f"{spoilt[0]}, expected 16 hex digits. Delete that line and run 02 again: it makes it anew."
        )
    return np.array([int(hashes[id], 16) for id in ids], dtype=np.uint64)


def near_pairs(codes: np.ndarray, *, near: int = NEAR) -> Iterator[np.ndarray]:
    """
    Yield pairs of positions whose 64-bit codes differ in at most `near` bits, the smaller first, as int arrays (M, 2).

    Two codes within 10 bits differ in at most 2 bits in one of their first three bands of 16 bits, or else in at most
    1 bit in the last (pigeonhole). So for each band only codes with so near a band are compared: of random codes one
    pair in 500. A pair may come more than once. (Multi-index hashing: Norouzi, Punjani and Fleet 2012.)
    Each of the N codes (uint64) comes at most once: a thousand equal ones would make a million pairs.
    """
    for low in BANDS:
        banded = in_bands(codes, low)
        for flip in band_flips(low, near):
            yield from flipped_pairs(codes, banded, flip, near=near)


def band_flips(low: int, near: int = NEAR) -> list[int]:
    """Return the bits in which two bands of 16 bits, those from `low` on, may differ in codes that are near."""
    most = (near - low // 16) // 4  # bits
    return [sum(1 << bit for bit in bits) for n in range(most + 1) for bits in combinations(range(16), n)]


def in_bands(codes: np.ndarray, low: int) -> tuple[np.ndarray, ...]:
    """Return the band of each of N codes, an order by bands, and where each of the 65,536 bands begins in it, twice."""
    band = (codes >> np.uint64(low) & np.uint64(0xFFFF)).astype(np.int64)
    sizes = np.bincount(band, minlength=2**16)
    return band, np.argsort(band.astype(np.uint16), kind="stable"), sizes, np.cumsum(sizes) - sizes


def flipped_pairs(
    codes: np.ndarray, banded: tuple[np.ndarray, ...], flip: int, *, near: int = NEAR, own: slice = slice(None)
) -> Iterator[np.ndarray]:
    """Yield pairs (M, 2) of near codes, those `own` against all, whose bands (of `in_bands`) differ in these bits."""
    band, order, sizes, starts = banded
    other = band[own] ^ flip
    counts = sizes[other] * (other >= band[own])  # each two bands once
    places = np.flatnonzero(counts)
    ends = np.cumsum(counts[places])  # thousands of codes may share a band, so equal shares of codes would not do
    for part in np.split(places, np.searchsorted(ends, np.arange(CANDIDATES, counts.sum(), CANDIDATES))):
        first = np.repeat(part, counts[part])
        begins = starts[other[part]] - np.cumsum(counts[part]) + counts[part]
        second = order[np.arange(len(first)) + np.repeat(begins, counts[part])]
        first += own.start or 0
        close = (np.bitwise_count(codes[first] ^ codes[second]) <= near) & (first != second)
        if close.any():
            yield np.sort(np.stack([first[close], second[close]], axis=1), axis=1)


def hash_neighbours(
    codes: np.ndarray, most: int, found: Callable[[np.ndarray], Iterable[np.ndarray]] = near_pairs
) -> np.ndarray:
    """
    Return pairs of positions (M, 2), the smaller first: each of N codes (uint64) with the `most` nearest in `NEAR`.

    Of equal codes each is paired with the next: a thousand of them would make half a million pairs. `found` searches
    the distinct codes, ascending; it may leave out pairs that are not among the `most` nearest of either code.
    """
    order = np.argsort(codes, kind="stable")
    equal = codes[order[1:]] == codes[order[:-1]]
    distinct, first = np.unique(codes, return_index=True)
    chained = np.sort(np.stack([order[:-1][equal], order[1:][equal]], axis=1), axis=1)
    nearest = np.sort(first[nearest_pairs(found(distinct), distinct, most)], axis=1)
    return np.unique(np.concatenate([chained, nearest]), axis=0)


def nearest_pairs(found: Iterable[np.ndarray], codes: np.ndarray, most: int) -> np.ndarray:
    """Return those of near pairs (M, 2) that are among the `most` nearest of either code; memory grows with N alone."""
    near, size = [np.empty((0, 2), dtype=np.int64)], 0
    farthest = np.full(len(codes), 64, dtype=np.uint8)  # bits, of the `most` nearest of a code so far
    for pairs in found:
        bits = np.bitwise_count(codes[pairs[:, 0]] ^ codes[pairs[:, 1]])
        near.append(pairs[(bits[:, None] <= farthest[pairs]).any(axis=1)])
        size += len(near[-1])
        if size > CANDIDATES:  # thousands that are all near to each other
            near, size = [_nearest_of_each(near, codes, most, farthest)], 0
    return _nearest_of_each(near, codes, most, farthest)


def _nearest_of_each(found: Sequence[np.ndarray], codes: np.ndarray, most: int, farthest: np.ndarray) -> np.ndarray:
    """
    Return the pairs (M, 2) of several arrays that are among the `most` nearest of either of their codes.

    Writes into `farthest`, uint8 (N,), the bits of the last of these, where a code has so many.
    """
    first, second = np.concatenate(found).T
    bits = np.bitwise_count(codes[first] ^ codes[second]).astype(np.int64)
    count = max(len(codes), 1)
    # One number per direction, which sorts by code, then bits, then the other code.
    keys = _ascending(np.concatenate([(a * 65 + bits) * count + b for a, b in ((first, second), (second, first))]))
    own = keys // (65 * count)
    rank = np.arange(len(keys)) - np.searchsorted(own, own)
    last = rank == most - 1
    farthest[own[last]] = keys[last] // count % 65
    own, other = own[rank < most], keys[rank < most] % count
    return np.stack(np.divmod(_ascending(np.minimum(own, other) * count + np.maximum(own, other)), count), axis=1)


def _ascending(keys: np.ndarray) -> np.ndarray:
    """Return distinct numbers in ascending order; on millions of them numpy's unique is slow."""
    keys = np.sort(keys)
    return keys[np.diff(keys, prepend=-1) > 0]
