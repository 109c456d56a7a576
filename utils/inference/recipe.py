"""
What a model file says of itself, checked: its labels, its recipe for pictures, its threshold.

The recipe prepares a picture as validation did in training, so that the answers agree with fastai's.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .vetting import ModelError

if "." in __package__:
    from ..pictures import (
        DEPTHS,
        LONGEST_SIDE,
        Letterbox,
        height_and_width,
        letterboxed,
        open_picture,
        open_with_facts,
        size_text,
        squish_and_crop,
    )
else:  # inference/ and pictures/ lie loose in another program's folder
    from pictures import (
        DEPTHS,
        LONGEST_SIDE,
        Letterbox,
        height_and_width,
        letterboxed,
        open_picture,
        open_with_facts,
        size_text,
        squish_and_crop,
    )

MAX_SIZE = 1024  # pixels, as in project.toml; a file that asks for more would fill the memory
MAX_SIDE = 8192  # pixels that a picture is reduced to before it is squished; ours are 512
MAX_BOXES_TOLD = 10_000  # boxes of a picture; ours tell 100
REDUCTIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
HALF_A_LETTER = re.compile("[\ud800-\udfff]")  # JSON can hold one, a file's name cannot


@dataclass(frozen=True)
class Recipe:
    """How a picture becomes the network's input; all in pixels."""

    longest_side: int  # larger pictures are reduced to it first
    size: int | tuple[int, int]  # one number, or height and width: squish to size + extra, then cut out the middle
    extra: int | tuple[int, int]
    resample: str = "bilinear"  # how to squish: a name in `REDUCTIONS`
    bits: int | None = None  # of 16-bit pictures' values, as in training; None if it had no such pictures
    mirrored: bool | None = None  # whether training showed mirrored pictures, too; None if the file does not say

    @property
    def height_width(self) -> tuple[int, int]:
        """The height and width of what the network sees, in pixels."""
        return height_and_width(self.size)

    @property
    def size_shown(self) -> str:
        """The size as people read it, such as "224" or "256 × 512"."""
        return size_text(self.size)

    def pixels(self, picture) -> np.ndarray:
        """Return a picture, whatever `open_picture` takes, as uint8 of shape (H, W, 3)."""
        image = open_picture(picture, longest_side=self.longest_side, bits=self.bits)
        return np.asarray(squish_and_crop(image, self.size, extra=self.extra, resample=REDUCTIONS[self.resample]))

    def whole(self, found: np.ndarray) -> np.ndarray:
        """Return a map (h, w) of what the network sees of a picture as one of the whole picture, squished: float32."""
        (height, width), (below, beside) = self.height_width, height_and_width(self.extra)
        top, left = below // 2, beside // 2
        spread = np.zeros((height + below, width + beside), dtype=np.float32)
        larger = Image.fromarray(found.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
        spread[top : top + height, left : left + width] = larger
        return spread


@dataclass(frozen=True)
class Squared:
    """A picture in a square, as a detector's network sees it."""

    pixels: np.ndarray  # uint8 (S, S, 3)
    place: Letterbox  # where in the square the picture lies
    width: int  # of the upright picture, in pixels
    height: int


@dataclass(frozen=True)
class BoxRecipe:
    """How a picture becomes the input of a network that finds things, and which of its boxes are told."""

    longest_side: int  # pixels; larger pictures are reduced to it first
    size: int  # pixels of the square's side
    overlap: float  # of two boxes of one label that overlap more (IoU), the less probable is dropped
    most: int  # boxes that are told of a picture
    bits: int | None = None  # of 16-bit pictures' values, as in training; None if it had no such pictures

    def square(self, picture) -> Squared:
        """Return a picture, whatever `open_picture` takes, in a square."""
        opened = open_with_facts(picture, longest_side=self.longest_side, bits=self.bits)
        return Squared(*letterboxed(opened.image, self.size), *opened.upright)


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
    facts = facts if isinstance(facts, dict) else {}
    longest, size, extra = (
        facts.get("longest_side"),
        _of_a_side_or_two(facts, "size"),
        _of_a_side_or_two(facts, "extra"),
    )
    if type(longest) is not int or size is None or extra is None:
        raise ModelError("its recipe does not say longest_side, size, extra in whole pixels")
    resample = facts.get("resample", "bilinear")  # earlier exports do not name it
    if not isinstance(resample, str) or resample not in REDUCTIONS:
        raise ModelError(f"its recipe reduces pictures by {str(resample)[:40]!r}, expected {' or '.join(REDUCTIONS)}")
    bits = _checked_bits(facts)
    if (mirrored := facts.get("mirrored")) is not None and type(mirrored) is not bool:
        raise ModelError(f"its recipe says mirrored = {str(mirrored)[:40]}, expected true or false")
    sides = zip(height_and_width(size), height_and_width(extra), strict=True)
    if not (all(0 < side <= MAX_SIZE and 0 <= more <= side for side, more in sides) and 0 < longest <= MAX_SIDE):
        raise ModelError(f"its recipe asks for pictures of a size that is not used here ({str(facts)[:100]})")
    return Recipe(longest, size, extra, resample, bits, mirrored)


def checked_box_recipe(facts) -> BoxRecipe:
    """Return the recipe of a network that finds things, or refuse one whose numbers are missing or of no use."""
    facts = facts if isinstance(facts, dict) else {}
    longest, size, overlap, most = (facts.get(name) for name in ("longest_side", "size", "overlap", "most"))
    whole = all(type(number) is int and number > 0 for number in (longest, size, most))
    if not whole or type(overlap) not in (int, float):
        raise ModelError("its recipe does not say longest_side, size, overlap and most in numbers")
    if size > MAX_SIZE or longest > MAX_SIDE or most > MAX_BOXES_TOLD or not 0 < overlap <= 1:
        raise ModelError(f"its recipe asks for what is not used here ({str(facts)[:100]})")
    return BoxRecipe(longest, size, overlap, most, _checked_bits(facts))


def _checked_bits(facts: dict) -> int | None:
    """Return as how many bits a recipe reads 16-bit pictures, None if it does not say, or refuse the number."""
    if (bits := facts.get("bits")) is not None and (type(bits) is not int or bits not in DEPTHS):
        raise ModelError(f"its recipe reads 16-bit pictures as {str(bits)[:40]} bits, expected one of {DEPTHS}")
    return bits


def _of_a_side_or_two(facts: dict, name: str) -> int | tuple[int, int] | None:
    """Return a number of pixels, or those of height and width; None if it is neither."""
    value = facts.get(name)
    two = isinstance(value, list | tuple) and len(value) == 2 and all(type(side) is int for side in value)
    return tuple(value) if two else value if type(value) is int else None


def validation_recipe(
    size: int | Sequence[int], extra: int | Sequence[int], resample: int, **notes: int | bool | None
) -> Recipe:
    """
    Return stage 04's recipe.

    `size` and `extra` are one number of pixels, or height and width: what validation shows, and what it squishes beyond
    that and cuts off. `resample` is Pillow's number. `notes` are 07's: `bits` and `mirrored`, as in `Recipe`.
    """
    facts = {"longest_side": LONGEST_SIDE, "size": size, "extra": extra}
    return checked_recipe(facts | {"resample": Image.Resampling(resample).name.lower()} | notes)


def checked_threshold(threshold) -> float | None:
    """Return a threshold, or refuse one that is not a fraction; None is none."""
    if threshold is not None and (type(threshold) not in (int, float) or not 0 <= threshold <= 1):
        raise ModelError(f"its threshold is {str(threshold)[:40]}, expected a fraction between 0 and 1")
    return threshold
