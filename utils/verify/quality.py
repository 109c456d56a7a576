"""
Measures of stage 02: is a picture that opens of any use, or is something wrong with it?

They are taken on the training copy, or on a small grey version of it, so that they mean the same for pictures of any
size.
"""

from collections.abc import Iterable

import imagehash
import numpy as np
from PIL import Image

from utils.addresses import registered_domain
from utils.pictures import LONGEST_SIDE, Opened

SMALLEST_SIDE = 64  # pixels; a smaller picture shows too little
WIDEST_ASPECT = 6  # longer : shorter side; beyond it lie banners and strips
FLAT = 4  # grey levels of 0–255: if all colours lie this close, the picture is a placeholder
DARK, BRIGHT = 30, 225  # mean grey level of 0–255
NARROW = 3  # longer : shorter side; squeezed to a square, such a picture shows little
TILE = 32  # pixels, of the small grey version
HASHED = 32  # pixels, the side of what the perceptual hash sees
CONTRAST = 40  # grey levels that a tile must span to count, unless the whole picture spans fewer than twice as many
# The steepest step in a tile, as a share of the tile's contrast. Of 562 web photos none is below 0.29. Blurred by 3
# pixels of a training copy, 87 to 94 in 100 are; by 5 pixels, 97 to 100. Of 240 enlarged seedlings, 7 soft ones are.
BLURRY = 0.29
TEXTURED = 0.28  # share of small steps in what stands on an even ground: 90 photos cut out have 0.29 to 0.91
UNSAVED = 0.02  # share of a picture's rows that may be lost where a file ends too early: a grey line at the edge
MANY_SITES = 3  # unrelated sites that serve the very same bytes


def grey_reduction(image: Image.Image) -> Image.Image:
    """Return an image in grey, at half a training copy's size or less."""
    grey = image.convert("L")
    side = LONGEST_SIDE // 2
    if max(grey.size) <= side:
        return grey
    size = tuple(max(1, round(pixels * side / max(grey.size))) for pixels in grey.size)
    return grey.resize(size, Image.Resampling.LANCZOS, reducing_gap=1.0)


def useless(opened: Opened, grey: Image.Image, *, sites: int = 0) -> str:
    """
    Return why a picture that opens shows nothing to learn from, or "".

    `opened` has the size of a training copy, and `grey` is its `grey_reduction`. `sites` says how many unrelated sites
    serve it, if many do: then a drawing is a placeholder.
    """
    width, height = opened.width, opened.height
    if min(width, height) < SMALLEST_SIDE:
        return f"too small: {width}×{height} pixels, at least {SMALLEST_SIDE} on a side are needed"
    if max(width, height) > WIDEST_ASPECT * min(width, height):
        return f"extreme aspect: {width}×{height} pixels"
    low, high = grey.getextrema()
    # If the greys differ by more, so do the colours, and we need not look at those.
    if high - low <= FLAT + 1 and max(high - low for low, high in opened.image.getextrema()) <= FLAT:
        return "one flat colour"
    if opened.missing > UNSAVED:
        return f"truncated: {opened.missing:.0%} of its rows are missing at the bottom"
    if sites and is_drawn(opened.image):
        return f"a placeholder: {sites} unrelated sites serve it"
    return ""


def quality_warnings(grey: np.ndarray, width: int, height: int) -> list[str]:
    """Return what may be wrong with a picture; `grey` is its `grey_reduction`, width and height the original's."""
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
    Return how sharp the sharpest parts of a picture, uint8 (H, W), are: 0 is blurred, 1 an edge within one pixel.

    In each tile, the steepest step between neighbours is divided by the tile's contrast, lest a pale picture count as
    blurred. Of the tiles with some contrast, the 90th percentile counts: a sharp animal before a blurred ground is
    sharp, and a date in the corner does not save a blurred photo. An edge blurred by σ pixels has a step of 0.4/σ of
    its height. A picture without contrast is not judged: 1.
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
    steps[:, :-1] = _difference(grey[:, 1:], grey[:, :-1])
    steps[:-1] = np.maximum(steps[:-1], _difference(grey[1:], grey[:-1]))
    contrast = of_tiles(np.maximum, grey) - of_tiles(np.minimum, grey)
    steepest = of_tiles(np.maximum, steps)
    telling = contrast >= min(CONTRAST, spread / 2)
    if not telling.any():  # an even change from one side to the other
        return 0.0
    return float(np.percentile(np.minimum(steepest[telling] / contrast[telling], 1), 90))


def _difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how far apart two uint8 arrays are; a plain subtraction would wrap around below 0."""
    return np.maximum(one, other) - np.minimum(one, other)


def perceptual_hash(grey: Image.Image) -> str:
    """
    Return 64 bits that hardly change when a picture is scaled, encoded anew or lightly edited, as 16 hex digits.

    Each bit says whether one of the 8×8 lowest frequencies is above their median (`imagehash.phash`). Reducing the
    `grey_reduction` to 32 pixels in two steps is quicker, and changes at most 2 bits in each of 802 photos.
    """
    small = grey.resize((HASHED, HASHED), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return str(imagehash.phash(small, hash_size=8))


def is_drawn(image: Image.Image) -> bool:
    """
    Return whether an RGB picture is plainly a drawing, such as a site's "no picture here".

    One colour fills half of it, and what stands on that ground is even too, or steps from colour to colour at once, as
    letters and lines do. An animal that was cut out and laid on white is full of small steps, and is not a drawing.
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
    across, down = (np.abs(np.diff(pixels, axis=axis)).max(2) for axis in (1, 0))
    steps = np.maximum(across[:-1], down[:, :-1])
    figure = steps[apart[:-1, :-1] > 24]  # farther from the ground's colour than JPEG noise
    return not figure.size or bool(((figure > 2) & (figure <= 40)).mean() < TEXTURED)


def served_by_many(rows: Iterable[dict[str, str]]) -> dict[str, int]:
    """Return id → number of sites, from the rows of sources.csv, for pictures that many unrelated sites serve."""
    sites: dict[str, set[str]] = {}
    for row in rows:
        if row["id"] and (name := registered_domain(row["url"])):
            sites.setdefault(row["id"], set()).add(name)
    return {id: len(names) for id, names in sites.items() if len(names) >= MANY_SITES}
