"""
Values of more than 8 bits, and floating ones, as 8 bits; Pillow's convert would clip them at 255 (all white).

A file of 16 bits may hold 12 of them, and rarely says so. One picture's brightest value tells little of the others, so
one rule counts for a whole set: the bits that its brightest picture needs. Tags, where a file has them, come first.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .reasons import PictureError
from .sizes import strips
from .tiff import BITS_PER_SAMPLE, MAX_SAMPLE_VALUE, PHOTOMETRIC

DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras have
FULL = 16  # bits, where nothing says otherwise
OWN_BITS = 0  # in place of a set's: as many as the picture's values need. For looking at it, never for learning from it
COLOUR_TYPES = (2, 4, 6)  # of a PNG with several values per pixel: Pillow keeps 8 bits of each


@dataclass(frozen=True)
class Depth:
    """What the values of a grey image span, and what its file says of them."""

    low: float
    high: float
    own: int | None = None  # bits that its tags name
    inverted: bool = False  # whether 0 is white

    @property
    def wanted(self) -> int | None:
        """The bits that its tags name, or that hold its values; None for values that no camera of 16 bits gives."""
        if self.low < 0 or self.high >= 2**FULL:
            return None
        return self.own or next(bits for bits in DEPTHS if self.high < 2**bits)


def is_deep(image: Image.Image) -> bool:
    """Return whether an image is grey of whole numbers of 16 or 32 bits."""
    return image.mode.startswith("I")


def depth_of(image: Image.Image, data: bytes = b"") -> Depth:
    """Return the depth of an image that is not of 8 bits; `data` are its file's bytes, if it has any."""
    low, high, used = np.inf, -np.inf, 0
    for _, strip in strips(image):
        values = np.asarray(strip)
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        used |= int(np.bitwise_or.reduce(values, axis=None)) if is_deep(image) else 0
    if not np.isfinite([low, high]).all():
        raise PictureError("pixels that are no numbers")
    if not is_deep(image):
        return Depth(low, high)
    tags = getattr(image, "tag_v2", {})
    own = _bits_in_tiff(tags) if tags else _bits_in_png(data, used)
    return Depth(low, high, own if own and low >= 0 and high < 2**own else None, tags.get(PHOTOMETRIC) == 0)


def _bits_in_tiff(tags) -> int | None:
    """Return how many bits the values of a TIFF have, as its tags say: fewer than their places, or a round maximum."""
    places, top = tags.get(BITS_PER_SAMPLE, (FULL,))[0], tags.get(MAX_SAMPLE_VALUE)
    top = top[0] if isinstance(top, tuple) else top
    # Another maximum is only that of this picture.
    named = {2**bits - 1: bits for bits in DEPTHS}.get(top)
    return places if places in DEPTHS and places < FULL else named


def _bits_in_png(data: bytes, used: int) -> int | None:
    """
    Return how many bits the values of a PNG have that notes them (sBIT); `used` are all bits that are set in any.

    The standard has values of fewer bits spread over all 16. Some programs write them as they are; then the lowest of
    the 16 bits are used, which are empty or repeat the highest otherwise.
    """
    at = 33  # behind the signature and IHDR
    while data[:4] == b"\x89PNG" and data[at + 4 : at + 8] not in (b"IDAT", b""):
        if data[at + 4 : at + 8] == b"sBIT":
            bits = data[at + 8]
            as_they_are = bits in DEPTHS and used < 2**bits and used & 2 ** (FULL - bits) - 1
            return bits if as_they_are else FULL
        at += 12 + int.from_bytes(data[at : at + 4])
    return None


def keeps_upper_bits(image: Image.Image, data: bytes) -> bool:
    """Return whether a file has several values of 16 bits per pixel: Pillow reads the upper 8 of each."""
    if data[:4] == b"\x89PNG":
        return data[24] == FULL and data[25] in COLOUR_TYPES
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, ())
    return isinstance(bits, tuple) and len(bits) > 1 and bits[0] == FULL


def grey_of(image: Image.Image, depth: Depth, bits: int | None) -> Callable[[Image.Image], Image.Image]:
    """
    Return what scales parts of a grey image that is not of 8 bits to 8 bits.

    Whole numbers range from 0 to the top of `bits`, unless the file's own tags name others; floating ones from 0 to 1,
    255 or the highest value; with negative values, from the lowest to the highest. Raises PictureError for values above
    the top.
    """
    top = depth.high
    if depth.wanted and is_deep(image):
        bits = depth.own or (depth.wanted if bits == OWN_BITS else bits or FULL)
        top = 2.0**bits - 1
        if depth.high > top:
            raise PictureError(f"too bright for {bits} bits: a value of {depth.high:.0f}, the most is {top:.0f}")
    elif depth.low >= 0 and not is_deep(image):
        top = max(255.0 if top > 1 else 1.0, top)
    return _scaling(min(depth.low, 0.0), top, inverted=depth.inverted)


def _scaling(low: float, top: float, *, inverted: bool) -> Callable[[Image.Image], Image.Image]:
    """Return what makes `low` black and `top` white, or the other way round."""

    def scaled(part: Image.Image) -> Image.Image:
        values = (np.asarray(part).astype(np.float32) - low) / max(top - low, np.finfo(np.float32).tiny) * 255
        grey = values.round().clip(0, 255).astype(np.uint8)
        return Image.fromarray(255 - grey if inverted else grey)

    return scaled
