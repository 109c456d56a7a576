"""
The search for near-duplicates in pieces, for many processes: near hashes by bands, and pairs of pictures by pixels.

The pieces make up the very search of 03, so the answer is the same, wherever each was done. What 03 knows beyond hashes
and pixels (features, points of all pictures, times and names) has no part in it.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from utils.copies.chains import joined, stars
from utils.copies.geometry import DIFFERENT, SAME_PICTURE, compared
from utils.copies.groups import compare
from utils.copies.hashes import BANDS, band_flips, flipped_pairs, hash_neighbours, in_bands, nearest_pairs
from utils.copies.neighbours import NEIGHBOURS
from utils.copies.points import SEEN, pixel_points
from utils.pictures import open_picture

PIECE_CODES = 2_000_000  # hashes that one piece compares with all: some seconds where there are ten million
LATE = 10_000  # answers
Seen = tuple[np.void, np.ndarray]  # a row of `POINTS_ROW`, and pixels


def search_pieces(count: int) -> list[tuple[int, int, int]]:
    """Return the pieces in which near ones of so many hashes are found: band, bits that differ in it, first hash."""
    starts = range(0, count, PIECE_CODES)
    return [(low, flip, start) for low in BANDS for flip in band_flips(low) for start in starts]


class HashSearch:
    """The search among N distinct hashes, uint64 (N,), ascending; it remembers a band for the next piece."""

    def __init__(self, codes: np.ndarray):
        self._codes, self._banded = codes, lru_cache(1)(partial(in_bands, codes))

    def pairs(self, piece: tuple[int, int, int]) -> np.ndarray:
        """
        Return pairs of positions (M, 2) that a piece finds.

        Of each hash it keeps the nearest, as the whole search does: what a million hashes yield that are all near each
        other stays small.
        """
        low, flip, start = piece
        found = flipped_pairs(self._codes, self._banded(low), flip, own=slice(start, start + PIECE_CODES))
        return nearest_pairs(found, self._codes, NEIGHBOURS)


def seen_picture(picture: Path | bytes) -> Seen:
    """Return what is compared of a picture; raises PictureError or OSError if it cannot be read."""
    pixels = np.asarray(open_picture(picture, longest_side=SEEN))
    return pixel_points(pixels)[0], pixels


def same_picture(first: Seen, second: Seen) -> bool:
    """Return whether two pictures are the same one changed."""
    return compared(first[0], second[0], lambda n: (first, second)[n][1]) == SAME_PICTURE


def versions_of_one(
    codes: np.ndarray,
    same: Callable[[np.ndarray], np.ndarray],
    found: Callable[[np.ndarray], Iterable[np.ndarray]],
) -> np.ndarray:
    """
    Return for each of N pictures the first one that shows the same photo: positions (N,).

    `codes` are their hashes, uint64 (N,). `found` takes distinct hashes and returns what the pieces of the search yield
    for them; `same` takes pairs of positions (M, 2), the smaller first, and returns which are the same picture, bool
    (M,). Nothing is asked twice of it. Long chains are cut as in 03.
    """
    answers = PairAnswers(len(codes), same)
    compare(answers, len(codes), lambda places: [hash_neighbours(codes[places], NEIGHBOURS, found)])
    pairs, said = answers.known()
    return joined(len(codes), [stars(pairs[said == SAME_PICTURE], len(codes), answers)])


class PairAnswers:
    """What `same` says of pairs among N pictures, as `Verdicts` says it; in arrays, as there may be millions."""

    def __init__(self, count: int, same: Callable[[np.ndarray], np.ndarray]):
        self._count, self._same = count, same
        self._keys = np.empty(0, dtype=np.int64)  # (M,), ascending: first position × count + second
        self._said = np.empty(0, dtype=np.uint8)  # (M,)
        self._late: dict[int, int] = {}  # the last few: chains ask for one pair at a time, among millions

    def of(self, pairs: np.ndarray) -> np.ndarray:
        """Return SAME_PICTURE or DIFFERENT, uint8 (M,), for pairs of positions (M, 2), the smaller first."""
        keys = pairs[:, 0] * self._count + pairs[:, 1]
        new = np.setdiff1d(keys[~self._settled(keys)], list(self._late))
        if len(new):
            same = self._same(np.stack(np.divmod(new, self._count), axis=1))
            said = np.where(same, SAME_PICTURE, DIFFERENT).astype(np.uint8)
            if len(self._late) + len(new) > LATE:
                self._settle(new, said)
            else:
                self._late |= dict(zip(new.tolist(), said.tolist(), strict=True))
        settled = self._settled(keys)
        found = np.zeros(len(keys), dtype=np.uint8)
        found[settled] = self._said[np.searchsorted(self._keys, keys[settled])]
        found[~settled] = [self._late[key] for key in keys[~settled].tolist()]
        return found

    def known(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all pairs (M, 2) that were asked for, and what was said of them (M,)."""
        self._settle()
        return np.stack(np.divmod(self._keys, max(self._count, 1)), axis=1), self._said

    def _settled(self, keys: np.ndarray) -> np.ndarray:
        """Return which keys stand in the arrays."""
        places = np.minimum(np.searchsorted(self._keys, keys), max(len(self._keys) - 1, 0))
        return self._keys[places] == keys if len(self._keys) else np.zeros(len(keys), dtype=bool)

    def _settle(self, new: Sequence[int] = (), said: Sequence[int] = ()) -> None:
        """Put the last few into the arrays, and new keys (M,) with what was said of them (M,)."""
        keys = np.concatenate([self._keys, np.array([*self._late], dtype=np.int64), np.asarray(new, dtype=np.int64)])
        late = np.array([*self._late.values()], dtype=np.uint8)
        said = np.concatenate([self._said, late, np.asarray(said, dtype=np.uint8)])
        order = np.argsort(keys, kind="stable")
        self._keys, self._said, self._late = keys[order], said[order], {}
