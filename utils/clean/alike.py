"""
Which pictures look most like one of them? Exact, by the cosine of what a network sees in them.

Takes features (`utils.features`); reads and writes no file.
"""

import numpy as np

from utils.errors import FieldguideError

COSINE_DIGITS = 5  # of a similarity: below that, the same numbers multiplied in another order differ
POLLED = 200  # pictures, at most, that tell how like the nearest one usually is


class LookAlikes:
    """
    N pictures by how alike they look.

    `features`, float32 array (N, F), has NaN in the row of a picture that none are known of: it is like no other.
    """

    def __init__(self, features: np.ndarray):
        self.features = features
        self._lengths = np.linalg.norm(features, axis=1)
        self.known = self._lengths > 0  # (N,); not so for NaN
        self._usual: float | None = None  # similarity to the nearest picture, of the middle one

    def _similarities(self, positions) -> np.ndarray:
        """Return the cosines (T, N) of T known pictures with all; −1 where nothing is known, and with itself."""
        products = self.features[positions] @ self.features.T
        with np.errstate(divide="ignore", invalid="ignore"):
            products /= self._lengths[positions, None]
            products /= self._lengths
        products[:, ~self.known] = -1
        products[np.arange(len(products)), positions] = -1
        return np.round(products, COSINE_DIGITS)

    def nearest(self, position: int, count: int, *, among=None) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the positions of the most similar other pictures, at most `count`, and their cosines, most similar first.

        `among`, bool array (N,), says which pictures count; by default all do. Of pictures that are as similar, the one
        at the lower position comes first. Raises FieldguideError if nothing is known of this picture.

        >>> LookAlikes(np.array([[1, 0], [0, 1], [2, 0], [3, 1]], dtype=np.float32)).nearest(0, 2)[0].tolist()
        [2, 3]
        """
        if not self.known[position]:
            raise FieldguideError("Nothing is known of how this picture looks, so nothing can be said to be like it.")
        similar = self._similarities([position])[0]
        there = self.known if among is None else self.known & among
        there = np.flatnonzero(there & (np.arange(len(there)) != position))
        order = there[np.argsort(-similar[there], kind="stable")[:count]]
        return order, similar[order]

    def look_alikes(self, position: int, count: int, *, among=None) -> list[int]:
        """Return those of the nearest that are as like this picture as the nearest one is to half of all pictures."""
        if not self.known[position]:
            return []
        if self._usual is None:
            known = np.flatnonzero(self.known)
            asked = known[:: -(-len(known) // POLLED)]
            self._usual = float(np.median(self._similarities(asked).max(1)))
        nearest, similar = self.nearest(position, count, among=among)
        return nearest[similar >= self._usual].tolist()
