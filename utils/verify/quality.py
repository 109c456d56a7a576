"""
Measures of stage 02: what makes a picture that opens of little or no use, or a label too small.

Those of pictures are taken on the training copy or a grey reduction of it, so that they mean the same for pictures
of any size.
"""

from collections.abc import Iterable, Mapping

import imagehash
import numpy as np
from PIL import Image

from utils.addresses import registered_domain
from utils.pictures import LONGEST_SIDE, Opened

SMALLEST_SIDE = 64  # pixels; below it there is no animal to see
WIDEST_ASPECT = 6  # longer : shorter side; banners and strips lie beyond
FLAT = 4  # grey levels of 0–255: a picture whose colours all lie within it is a placeholder
DARK, BRIGHT = 30, 225  # mean grey level of 0–255
NARROW = 3  # longer : shorter side; squeezed to a square, such a picture shows little
TILE = 32  # pixels of the reduction
HASHED = 32  # pixels a side of what the perceptual hash sees
CONTRAST = 40  # grey levels that a tile must span, if the picture has them, to tell an edge from noise
# Of a tile's contrast, what its steepest step covers. Of 562 web photos none is below it; blurred by 3 pixels of a
# training copy 87 to 94 in 100 are, by 5 pixels 97 to 100. Of 240 seedlings, enlarged to 150 pixels, the 7 softest are.
BLURRY = 0.29
TEXTURED = 0.28  # small steps in what stands on an even ground: 90 photos cut out have 0.29 to 0.91
UNSAVED = 0.02  # of a picture's rows, lost where a file ends too early: a line of grey at the edge is no matter
FEW = 30  # pictures a label; below it the figures of 05 say little
UNEVEN = 3  # largest : smallest label
MANY_SITES = 3  # unrelated sites that serve the very same bytes


def grey_reduction(image: Image.Image) -> Image.Image:
    """Return an image's grey levels at half a training copy's size; a smaller image keeps its size."""
    grey = image.convert("L")
    side = LONGEST_SIDE // 2
    if max(grey.size) <= side:
        return grey
    size = tuple(max(1, round(pixels * side / max(grey.size))) for pixels in grey.size)
    return grey.resize(size, Image.Resampling.LANCZOS, reducing_gap=1.0)


def useless(opened: Opened, grey: Image.Image, *, sites: int = 0) -> str:
    """
    Return why a picture that opens shows nothing to learn from, "" if it may.

    Parameters
    ----------
    opened : Opened
        At the size of a training copy.
    grey : its `grey_reduction`
    sites : int
        How many unrelated sites serve it, if many do: a drawing is then a placeholder.
    """
    width, height = opened.width, opened.height
    if min(width, height) < SMALLEST_SIDE:
        return f"too small: {width}×{height} pixels, at least {SMALLEST_SIDE} on a side are needed"
    if max(width, height) > WIDEST_ASPECT * min(width, height):
        return f"extreme aspect: {width}×{height} pixels"
    low, high = grey.getextrema()
    # Where the greys differ by more, so do the colours, and these need not be looked at.
    if high - low <= FLAT + 1 and max(high - low for low, high in opened.image.getextrema()) <= FLAT:
        return "one flat colour"
    if opened.missing > UNSAVED:
        return f"truncated: {opened.missing:.0%} of its rows are missing at the bottom"
    if sites and is_drawn(opened.image):
        return f"a placeholder: {sites} unrelated sites serve it"
    return ""


def quality_warnings(grey: np.ndarray, width: int, height: int) -> list[str]:
    """
    Return what may be wrong with a picture that opens: "dark", "bright", "blurry", "tiny", "narrow".

    Parameters
    ----------
    grey : uint8 array (H, W)
        The picture's `grey_reduction`.
    width, height : int
        Pixels of the original.
    """
    level = grey.mean()
    tests = {
        "dark": level < DARK,
        "bright": level > BRIGHT,
        "blurry": sharpness(grey) < BLURRY,
        "tiny": max(width, height) < 2 * SMALLEST_SIDE,
        "narrow": max(width, height) > NARROW * min(width, height),
    }
    return [name for name, found in tests.items() if found]


def sharpness(grey: np.ndarray) -> float:
    """
    Return how sharp the sharpest parts of a picture are: 0 blurred, 1 an edge from one pixel to the next.

    In each tile the steepest step between neighbours is divided by the tile's contrast, so that a pale picture is
    not taken for a blurred one. Of the tiles with some contrast the 90th percentile counts: a sharp animal before a
    blurred ground is sharp, and a date in the corner does not save a blurred photo. An edge blurred by σ pixels
    has a step of 0.4/σ of its height. A picture without contrast is not judged: 1.

    Parameters
    ----------
    grey : uint8 array (H, W)
    """
    spread = int(grey.max()) - int(grey.min())
    rows, columns = (max(1, side // TILE) for side in grey.shape)
    height, width = (side // n for side, n in zip(grey.shape, (rows, columns), strict=True))
    if spread <= 2 * FLAT or min(height, width) < 4:
        return 1.0

    def of_tiles(extreme: np.ufunc, values: np.ndarray) -> np.ndarray:
        whole = values[: rows * height, : columns * width].reshape(rows, height, columns * width)
        return extreme.reduce(extreme.reduce(whole, axis=1).reshape(rows, columns, width), axis=2).ravel()

    steps = np.zeros_like(grey)
    steps[:, :-1] = _apart(grey[:, 1:], grey[:, :-1])
    steps[:-1] = np.maximum(steps[:-1], _apart(grey[1:], grey[:-1]))
    contrast = of_tiles(np.maximum, grey) - of_tiles(np.minimum, grey)
    steepest = of_tiles(np.maximum, steps)
    telling = contrast >= min(CONTRAST, spread / 2)
    if not telling.any():  # an even change from one side to the other
        return 0.0
    return float(np.percentile(np.minimum(steepest[telling] / contrast[telling], 1), 90))


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how far apart two uint8 arrays are; their plain difference would wrap around below 0."""
    return np.maximum(one, other) - np.minimum(one, other)


def perceptual_hash(grey: Image.Image) -> str:
    """
    Return 64 bits that stay nearly the same when a picture is scaled, encoded anew or lightly edited, as 16 hex digits.

    Each tells whether one of the 8×8 lowest frequencies is above their median (`imagehash.phash`). Reducing to its 32
    pixels a side in two steps changes at most 2 bits in each of 802 photos, and is quicker.

    Parameters
    ----------
    grey : a picture's `grey_reduction`
    """
    small = grey.resize((HASHED, HASHED), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return str(imagehash.phash(small, hash_size=8))


def is_drawn(image: Image.Image) -> bool:
    """
    Return whether a picture is plainly a drawing, such as a site's "no picture here": figures on an even ground.

    One colour must fill half of it, and what stands on that ground must be even too, or step from colour to colour at
    once, as letters and lines do. An animal that was cut out and laid on white is full of small steps, and stays.

    Parameters
    ----------
    image : RGB image
    """
    pixels = np.asarray(image).astype(np.int16)
    if min(pixels.shape[:2]) < 2:
        return False
    codes = pixels.astype(np.int32) @ (65536, 256, 1)
    colours, counts = np.unique(codes, return_counts=True)
    ground = colours[counts.argmax()] // np.array([65536, 256, 1]) % 256
    apart = np.abs(pixels - ground).max(2)
    if (apart <= 3).mean() < 0.5:
        return False
    steps = np.maximum(
        np.abs(np.diff(pixels, axis=1)).max(2)[:-1],
        np.abs(np.diff(pixels, axis=0)).max(2)[:, :-1],
    )
    figure = steps[apart[:-1, :-1] > 24]  # farther from the ground's colour than a JPEG's noise
    return not figure.size or bool(((figure > 2) & (figure <= 40)).mean() < TEXTURED)


def served_by_many(rows: Iterable[dict[str, str]]) -> dict[str, int]:
    """
    Return id → number of sites, for the pictures that many unrelated sites serve to the very byte.

    Parameters
    ----------
    rows : iterable of rows of sources.csv
    """
    sites: dict[str, set[str]] = {}
    for row in rows:
        if row["id"] and (name := registered_domain(row["url"])):
            sites.setdefault(row["id"], set()).add(name)
    return {id: len(names) for id, names in sites.items() if len(names) >= MANY_SITES}


def label_remarks(counts: Mapping[str, int], *, sides: int, more: str) -> list[str]:
    """
    Return a sentence for each label too small for 03, one on all others with few pictures, one if they are uneven.

    Parameters
    ----------
    counts : mapping of K labels to numbers of pictures
    sides : int
        How many sides 03 makes.
    more : str
        The sentence on how to gather more.
    """
    if not counts:
        return []
    remarks = [
        f"Label {label!r} has {count} picture{'s' * (count != 1)}, and 03 needs {sides}, one for each side. {more}"
        for label, count in counts.items()
        if count < sides
    ]
    if few := [f"{label!r} has {count}" for label, count in counts.items() if sides <= count < FEW]:
        remarks.append(f"{', '.join(few)} pictures; below {FEW}, chance decides how well a label is told. {more}")
    large, small = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[small] and counts[large] > UNEVEN * counts[small]:
        remarks.append(
            f"Label {large!r} has {counts[large] / counts[small]:.1f} times as many pictures as {small!r} "
            f"({counts[large]} to {counts[small]}), so that guessing {large!r} pays. Gather more of {small!r}, or take "
            f"some of {large!r} out."
        )
    return remarks
