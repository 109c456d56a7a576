"""
What a model file says of itself, checked: its labels, its recipe for pictures, its threshold.

The recipe prepares a picture as validation did in training, so that the answers agree with fastai's.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .vetting import ModelError

if "." in __package__:
    from ..pictures import DEPTHS, LONGEST_SIDE, open_picture, squish_and_crop
else:  # inference/ and pictures/ lie loose in another program's folder
    from pictures import DEPTHS, LONGEST_SIDE, open_picture, squish_and_crop

MAX_SIZE = 1024  # pixels, as in project.toml; a file that asks for more would fill the memory
MAX_SIDE = 8192  # pixels that a picture is reduced to before it is squished; ours are 512
REDUCTIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
HALF_A_LETTER = re.compile("[\ud800-\udfff]")  # JSON can hold one, a file's name cannot


@dataclass(frozen=True)
class Recipe:
    """How a picture becomes the network's input; all in pixels."""

    longest_side: int  # larger pictures are reduced to it first
    size: int  # squish to (size + extra)², then cut the middle size²
    extra: int
    resample: str = "bilinear"  # how to squish: a name in `REDUCTIONS`
    bits: int | None = None  # of 16-bit pictures' values, as in training; None if it had no such pictures
    mirrored: bool | None = None  # whether training showed mirrored pictures, too; None if the file does not say

    def pixels(self, picture) -> np.ndarray:
        """Return a picture, whatever `open_picture` takes, as uint8 of shape (size, size, 3)."""
        image = open_picture(picture, longest_side=self.longest_side, bits=self.bits)
        return np.asarray(squish_and_crop(image, self.size, extra=self.extra, resample=REDUCTIONS[self.resample]))


def checked_labels(labels) -> tuple[str, ...]:
    """Return the labels, or refuse anything but a list of different texts."""
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels) or not labels:
        raise ModelError("its labels are missing, or not a list of texts")
    for label, times in Counter(labels).items():
        if times > 1 or HALF_A_LETTER.search(label):
            raise ModelError(f"its label {label[:80]!r} is there twice, or not a whole text")
    return tuple(labels)


def checked_recipe(facts) -> Recipe:
    """Return a recipe, or refuse sizes that are missing or of no use."""
    names = ("longest_side", "size", "extra")
    if not isinstance(facts, dict) or any(type(facts.get(name)) is not int for name in names):
        raise ModelError(f"its recipe does not say {', '.join(names)} in whole pixels")
    resample = facts.get("resample", "bilinear")  # earlier exports do not name it
    if not isinstance(resample, str) or resample not in REDUCTIONS:
        raise ModelError(f"its recipe reduces pictures by {str(resample)[:40]!r}, expected {' or '.join(REDUCTIONS)}")
    if (bits := facts.get("bits")) is not None and (type(bits) is not int or bits not in DEPTHS):
        raise ModelError(f"its recipe reads 16-bit pictures as {str(bits)[:40]} bits, expected one of {DEPTHS}")
    if (mirrored := facts.get("mirrored")) is not None and type(mirrored) is not bool:
        raise ModelError(f"its recipe says mirrored = {str(mirrored)[:40]}, expected true or false")
    recipe = Recipe(*(facts[name] for name in names), resample, bits, mirrored)
    if not (0 < recipe.size <= MAX_SIZE and 0 <= recipe.extra <= recipe.size and 0 < recipe.longest_side <= MAX_SIDE):
        raise ModelError(f"its recipe asks for pictures of a size that is not used here ({str(facts)[:100]})")
    return recipe


def validation_recipe(size: int, beyond: float, resample: int, **notes: int | bool | None) -> Recipe:
    """
    Return stage 04's recipe.

    `beyond` is fastai's val_xtra, the fraction of `size` that is squished and cut off; `resample` is Pillow's number.
    `notes` are those of stage 07: `bits` and `mirrored`, as in `Recipe`.
    """
    facts = {"longest_side": LONGEST_SIDE, "size": size, "extra": math.ceil(size * beyond / 8) * 8}
    return checked_recipe(facts | {"resample": Image.Resampling(resample).name.lower()} | notes)


def checked_threshold(threshold) -> float | None:
    """Return a threshold, or refuse one that is not a fraction; None is none."""
    if threshold is not None and (type(threshold) not in (int, float) or not 0 <= threshold <= 1):
        raise ModelError(f"its threshold is {str(threshold)[:40]}, expected a fraction between 0 and 1")
    return threshold
