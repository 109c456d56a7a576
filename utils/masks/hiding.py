"""
Masks, photos without the thing: a box over what the masker finds, in the mean colour of what is left.

The outline would tell which one it was. So the whole box of the mask is painted over, a little wider.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from utils.machine import in_threads
from utils.masks.masker import Masker, found_mask, picture_maps
from utils.masks.network import level_stages
from utils.masks.reading import MaskError, read_photo
from utils.seeing import one_thread_each

WIDER = 0.08  # of the box's height and width, on each side: masks miss a little of the edge


def without_things(masker: Masker, paths: Sequence[Path]) -> Iterator[Image.Image | None]:
    """
    Yield each photo with a box over the thing, in order.

    None stands for one that cannot be read, in which nothing is found, or of which the box leaves nothing.
    """
    stages = level_stages()

    def hidden(path: Path) -> Image.Image | None:
        try:
            image, _ = read_photo(path)
        except MaskError:
            return None
        return painted_over(image, found_mask(picture_maps(stages, image, masker.size), masker.head, image.size))

    with one_thread_each():
        yield from in_threads(hidden, paths)


def painted_over(image: Image.Image, mask: np.ndarray) -> Image.Image | None:
    """Return an image with the widened box of a mask, bool (H, W), in the mean colour outside it; None as above."""
    if not mask.any():
        return None
    pixels, box = np.array(image), []
    for axis, side in ((1, mask.shape[0]), (0, mask.shape[1])):
        there = np.flatnonzero(mask.any(axis))
        wider = round(WIDER * (there[-1] + 1 - there[0]))
        box.append(slice(max(0, there[0] - wider), min(side, there[-1] + 1 + wider)))
    outside = np.ones(mask.shape, dtype=bool)
    outside[tuple(box)] = False
    if not outside.any():
        return None
    pixels[tuple(box)] = pixels[outside].mean(0).round()
    return Image.fromarray(pixels)
