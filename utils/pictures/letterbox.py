"""
A picture in a square: reduced or enlarged until its longer side fits, in the middle, grey around it. Shapes stay.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

AROUND = (127, 127, 127)  # what lies around the picture; the mean of the packaged network's values


@dataclass(frozen=True)
class Letterbox:
    """Where a picture lies in a square: it is multiplied by `scale` and moved by `left` and `top`, in pixels."""

    width: int  # of the picture, before
    height: int
    size: int  # of the square's side
    left: int
    top: int
    inner: tuple[int, int]  # width and height of the picture in the square

    def into(self, corners: np.ndarray) -> np.ndarray:
        """Return corners (N, 4), fractions of the picture, as pixels of the square."""
        return corners * (*self.inner, *self.inner) + (self.left, self.top, self.left, self.top)

    def out_of(self, corners: np.ndarray) -> np.ndarray:
        """Return corners (N, 4), pixels of the square, as fractions of the picture, cut off at its edges."""
        moved = corners - (self.left, self.top, self.left, self.top)
        return np.clip(moved / (*self.inner, *self.inner), 0.0, 1.0)


def letterbox_of(width: int, height: int, size: int) -> Letterbox:
    """
    Return where a picture of a width and height lies in a square.

    >>> letterbox_of(400, 200, 100)
    Letterbox(width=400, height=200, size=100, left=0, top=25, inner=(100, 50))
    """
    scale = size / max(width, height)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    return Letterbox(width, height, size, (size - inner[0]) // 2, (size - inner[1]) // 2, inner)


def letterboxed(image: Image.Image, size: int) -> tuple[np.ndarray, Letterbox]:
    """Return an RGB picture in a square, uint8 (size, size, 3), and where in it the picture lies."""
    place = letterbox_of(*image.size, size)
    square = Image.new("RGB", (size, size), AROUND)
    square.paste(image.resize(place.inner, Image.Resampling.BILINEAR), (place.left, place.top))
    return np.asarray(square), place
