"""
Values of more than 8 bits, and floating ones, as 8 bits; Pillow's convert would clip them at 255 (all white).
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

from .reasons import PictureError
from .sizes import strips


def value_range(image: Image.Image) -> tuple[float, float]:
    """Return the lowest and the highest value of an image; refuse pixels that are no numbers."""
    found = [(float(values.min()), float(values.max())) for values in (np.asarray(strip) for _, strip in strips(image))]
    low, high = min(low for low, _ in found), max(high for _, high in found)
    if not np.isfinite([low, high]).all():
        raise PictureError("pixels that are no numbers")
    return low, high


def deep_to_grey(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """
    Return what scales parts of a grey image of 16 or 32 bits, or floating, to 8 bits.

    The range is 0 to the top of the type, or to the highest value; with negative values, lowest to highest.
    """
    low, high = value_range(image)
    top = 65535.0 if image.mode.startswith("I") and high > 255 else 255.0 if high > 1 else 1.0
    if low < 0:  # of no known range, such as heights or differences
        top = high
    low, top = min(low, 0.0), max(top, high)

    def scaled(part: Image.Image) -> Image.Image:
        values = (np.asarray(part).astype(np.float32) - low) / max(top - low, np.finfo(np.float32).tiny) * 255
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))

    return scaled
