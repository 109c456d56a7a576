"""
What comparing two pictures said, for as many pairs as are asked: computed once, and kept in data/<name>/copies/.

A verdict stands as long as both files have the size that they had.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from utils.copies.geometry import DIFFERENT, compared
from utils.copies.kept import keep_rows, kept_rows, on_all_cores
from utils.copies.points import POINTS_FORM, seen_pixels
from utils.dataset import Dataset

VERDICTS_FORM = f"pairs-1-{POINTS_FORM}"
VERDICT_ROW = np.dtype([("ids", "S16", (2,)), ("sizes", "<i8", (2,)), ("verdict", "u1")])
PAIRS_TOGETHER = 2048  # per file: some seconds of work
IN_MEMORY = 256  # pictures whose pixels are at hand: 60 MB


class Verdicts:
    """The verdicts of a data set's pairs of positions; `points` maps positions to rows of `POINTS_ROW`."""

    def __init__(self, dataset: Dataset, points: Mapping[int, np.void]):
        self._points = points
        self._folder = dataset.project.data / "copies" / VERDICTS_FORM
        self._pixels = lru_cache(IN_MEMORY)(lambda place: seen_pixels(dataset.paths[place]))
        self._places = {(row["id"].item(), row["size"].item()): place for place, row in points.items()}
        self._known: dict[tuple[int, int], int] = {}
        self._asked: set[tuple[int, int]] = set()
        for rows in kept_rows(self._folder, VERDICT_ROW):
            self._learn(rows)

    def of(self, pairs: np.ndarray) -> np.ndarray:
        """Return the verdicts, uint8 (M,), of pairs of positions (M, 2), the smaller first; unreadable: DIFFERENT."""
        wanted = [(a, b) for a, b in pairs.tolist() if a in self._points and b in self._points]
        self._asked.update(wanted)
        missing = sorted({pair for pair in wanted if pair not in self._known})
        if missing:
            work = on_all_cores(self._compare, missing, together=PAIRS_TOGETHER, desc="comparing pictures", unit="pair")
            for done in work:
                rows = np.concatenate(done)
                keep_rows(self._folder, rows)
                self._learn(rows)
        return np.array([self._known.get((a, b), DIFFERENT) for a, b in pairs.tolist()], dtype=np.uint8)

    def known(self) -> tuple[np.ndarray, np.ndarray]:
        """
        Return all pairs of positions (M, 2) that were asked for, and their verdicts (M,).

        What earlier runs compared besides does not count: without what they kept, the result would be another.
        """
        pairs = sorted(self._asked)
        return np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array([self._known[p] for p in pairs], dtype=np.uint8)

    def _learn(self, rows: np.ndarray) -> None:
        """Take in the rows of pictures that are here, in the size that they have now."""
        columns = (rows[name].tolist() for name in VERDICT_ROW.names)
        for ids, sizes, verdict in zip(*columns, strict=True):
            places = [self._places.get(one) for one in zip(ids, sizes, strict=True)]
            if None not in places:
                self._known[min(places), max(places)] = verdict

    def _compare(self, pair: tuple[int, int]) -> np.ndarray:
        """Return one pair as an array (1,) of `VERDICT_ROW`."""
        first, second = (self._points[n] for n in pair)
        row = np.zeros(1, dtype=VERDICT_ROW)
        row["ids"][0], row["sizes"][0] = (first["id"], second["id"]), (first["size"], second["size"])
        row["verdict"] = compared(first, second, lambda n: self._pixels(pair[n]))
        return row
