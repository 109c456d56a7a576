"""
Stage 07: a test set of awkward files, as cameras, scanners and web pages make them.

02 turns, reduces and converts photos before training. A user of the model sends them as they are: transparent, with a
palette, in CMYK, of 16 bits, turned, with a colour profile, animated. `agreement` asks both model files about each. The
files are drawn in memory and are the same at each call, with one version of Pillow.
"""

import io
import struct

import numpy as np
from PIL import Image, ImageCms, ImageDraw

from utils.pictures import ORIENTATION

SIDE = (320, 240)  # pixels
HUGE = (6000, 4000)  # as a camera of 24 million pixels makes them
TURNS = range(2, 9)  # EXIF orientations other than upright
# The primaries of Display P3, the colour space of many phones, as profiles write them (XYZ at D50).
WIDE_GAMUT = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.15710, 0.06657, 0.78407),
}
DATE, TAG_TABLE = 24, 128  # where they begin in a profile


def awkward_pictures() -> dict[str, bytes]:
    """
    Return drawn files as cameras, scanners and web pages make them: name → bytes.

    >>> files = awkward_pictures()
    >>> len(files), "animated.gif" in files
    (26, True)
    """
    photo, mask = _sketch(1), Image.linear_gradient("L").resize(SIDE)
    wide_gamut = _wide_gamut_profile()
    deep = Image.fromarray(np.asarray(_sketch(2).convert("L")).astype(np.uint16) * 257)
    cut_out = _sketch(3).quantize(32)
    several = [_sketch(n).quantize(64) for n in (4, 5)]
    files = {
        "upright.jpg": _file(photo, "JPEG"),
        "transparent.png": _file(Image.merge("RGBA", (*photo.split(), mask)), "PNG"),
        "transparent-grey.png": _file(Image.merge("LA", (photo.convert("L"), mask)), "PNG"),
        "palette.png": _file(_sketch(6).quantize(64), "PNG"),
        "palette-transparent.png": _file(cut_out, "PNG", transparency=cut_out.getpixel((5, 5))),
        "cmyk.jpg": _file(_sketch(7).convert("CMYK"), "JPEG"),
        "grey-16-bit.png": _file(deep, "PNG"),
        "grey-16-bit.tif": _file(deep, "TIFF"),
        "grey.jpg": _file(_sketch(8).convert("L"), "JPEG"),
        "black-and-white.png": _file(_sketch(9).convert("1"), "PNG"),
        "wide.jpg": _file(_sketch(10, (1000, 100)), "JPEG"),
        "tall.jpg": _file(_sketch(11, (100, 1000)), "JPEG"),
        "one-pixel.png": _file(Image.new("RGB", (1, 1), "tomato"), "PNG"),
        "tiny.png": _file(_sketch(12, (7, 5)), "PNG"),
        "huge.jpg": _file(_sketch(13, HUGE), "JPEG"),
        "progressive.jpg": _file(_sketch(14), "JPEG", progressive=True),
        "wide-gamut.jpg": _file(_sketch(15), "JPEG", icc_profile=wide_gamut),
        "photo.webp": _file(_sketch(16), "WEBP"),
        "animated.gif": _file(several[0], "GIF", save_all=True, append_images=several[1:]),
    }
    return files | {f"turned-{turn}.jpg": _file(photo, "JPEG", exif=_turned(turn)) for turn in TURNS}


def _sketch(seed: int, size: tuple[int, int] = SIDE) -> Image.Image:
    """Return a picture of shapes in random colours."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, _colour(rng))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        corners = np.sort(rng.random((2, 2)), axis=0) * size  # left, top; right, bottom
        shape = (draw.ellipse, draw.rectangle)[rng.integers(2)]
        shape([*corners.ravel()], fill=_colour(rng))
    return image


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    return tuple(map(int, rng.integers(0, 256, 3)))


def _turned(turn: int) -> Image.Exif:
    """Return the EXIF record of a turned camera."""
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    return exif


def _file(image: Image.Image, format: str, **options) -> bytes:
    """Return an image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _wide_gamut_profile() -> bytes:
    """Return the colour profile of Display P3: that of sRGB with other primaries."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    struct.pack_into(">6H", profile, DATE, 2017, 1, 1, 0, 0, 0)  # the library writes the time of now
    (count,) = struct.unpack_from(">I", profile, TAG_TABLE)
    for tag, start, _ in struct.iter_unpack(">4sII", bytes(profile[TAG_TABLE + 4 :][: 12 * count])):
        if tag in WIDE_GAMUT:  # behind the tag's name and four empty bytes, as 16 bits before the point and 16 behind
            struct.pack_into(">3i", profile, start + 8, *(round(number * 65536) for number in WIDE_GAMUT[tag]))
    return bytes(profile)
