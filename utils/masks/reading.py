"""
Masks, a mask file: where it lies; opened as hostile, and returned as true where the thing is.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from utils.dataset import Dataset
from utils.pictures import LONGEST_SIDE, PictureError, open_picture, open_with_facts

LIGHT = "light"  # what the thing is in a mask; else "dark"
MIDDLE = 128  # a JPEG's edges are soft
COLOURLESS = 8  # channels may differ by so much where a profile rounded them


class MaskError(ValueError):
    """A mask that cannot be used; the message is the reason, without the file's name."""


def masks_folder(dataset: Dataset) -> Path:
    """Return the folder of the masks of a project's own photos: masks/<id>.png, white where the thing is."""
    return dataset.project.data / "masks"


def mask_png(mask: np.ndarray) -> bytes:
    """Return a mask, bool (H, W), as the bytes of a PNG: 255 where the thing is, else 0."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return buffer.getvalue()


def read_photo(picture) -> tuple[Image.Image, tuple[int, int]]:
    """Return a photo as 02 reduces it, at most 512 pixels, and its own width and height, or raise MaskError."""
    try:
        opened = open_with_facts(picture, longest_side=LONGEST_SIDE)
    except (PictureError, OSError) as error:
        raise MaskError(f"its photo cannot be read: {error}") from None
    own, small = (opened.width, opened.height), opened.image.size
    turned = (own[0] > own[1]) != (small[0] > small[1])  # upright, it is as high as it was wide
    return opened.image, own[::-1] if turned else own


def read_mask(picture, thing: str, small: tuple[int, int], own: tuple[int, int] | None = None) -> np.ndarray:
    """
    Return a mask as bool (H, W), true where the thing is.

    `thing` is "light" or "dark". `small` is the width and height wanted, those of the photo as 02 reduced it, `own`
    those that the photo has itself. A mask of the same shape is scaled, each pixel taken from its nearest.

    Raises MaskError if it is no picture, has another shape or colours, or is empty or full.
    """
    try:
        image = open_picture(picture)
    except (PictureError, OSError) as error:
        raise MaskError(f"it cannot be read: {error}") from None
    own = own or small
    if not (same_shape(image.size, own) or same_shape(image.size, small)):
        raise MaskError(f"its size is {_pixels(image.size)}, its photo's {_pixels(own)}, which is another shape")
    values = np.asarray(image)
    if int((values.max(2) - values.min(2)).max()) > COLOURLESS:
        raise MaskError("it is in colour; save it in black and white")
    _require_both(values[..., 0], thing)
    if image.size != small:
        values = np.asarray(image.resize(small, Image.Resampling.NEAREST))
        _require_both(values[..., 0], thing)
    return (values[..., 0] >= MIDDLE) == (thing == LIGHT)


def same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """
    Return whether two sizes, width and height, are of one shape: equal, or one reduced to whole pixels.

    >>> same_shape((4000, 3000), (512, 384)), same_shape((4000, 2999), (512, 384)), same_shape((384, 512), (512, 384))
    (True, True, False)
    """
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(*one, *other)


def _require_both(values: np.ndarray, thing: str) -> None:
    """Raise MaskError if a mask is empty, or covers the whole photo."""
    lowest, highest = int(values.min()), int(values.max())
    if lowest < MIDDLE <= highest:
        return
    told = "all of it is the thing" if (lowest >= MIDDLE) == (thing == LIGHT) else "nothing of it is the thing"
    raise MaskError(f"{told}: its values are {lowest} to {highest}, where 0 is dark, 255 is light and {thing} is meant")


def _pixels(size: tuple[int, int]) -> str:
    """Return a width and height in words."""
    return f"{size[0]}×{size[1]}"
