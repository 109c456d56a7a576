"""
Masks, photos without the thing: a box over what the masker finds, in the mean colour of what is left.

The outline would tell which one it was. So the whole box of the mask is painted over, a little wider.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from utils.machine import in_threads
from utils.masks.masker import MASKER_FILE, Masker, found_mask, picture_maps, read_masker
from utils.masks.network import level_stages
from utils.masks.reading import MaskError, read_photo
from utils.project import Project
from utils.seeing import one_thread_each

WIDER = 0.08  # of the box's height and width, on each side: masks miss a little of the edge


@dataclass(frozen=True)
class Hiding:
    """A way to look at photos without the thing: called with paths, it yields them with a box over it."""

    masker: Masker

    @property
    def name(self) -> str:
        """Hex digits that change with the masker."""
        return self.masker.drawn

    def __call__(self, paths: Sequence[Path]) -> Iterator[Image.Image | None]:
        """Yield each photo, in order; None if it cannot be read, nothing is found, or the box leaves nothing."""
        stages, masker = level_stages(self.masker.encoder), self.masker

        def hidden(path: Path) -> Image.Image | None:
            try:
                image, _ = read_photo(path)
            except MaskError:
                return None
            return painted_over(image, found_mask(picture_maps(stages, image, masker.size), masker.head, image.size))

        with one_thread_each():
            yield from in_threads(hidden, paths)


def hiding(project: Project) -> Hiding | None:
    """Return how to look at photos without the thing; None if 03a has made no masker."""
    masker = read_masker(project.models / MASKER_FILE)
    return Hiding(masker) if masker else None


def painted_over(image: Image.Image, mask: np.ndarray) -> Image.Image | None:
    """Return an image with the widened box of a mask, bool (H, W), in the mean colour outside, or None."""
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
