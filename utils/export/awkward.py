"""
Stage 07, the test set of awkward files: pictures as people have them, which a training set no longer shows.

Draws, in memory, what 02 turns upright, reduces and converts before training, and what a user of the model sends as it
is: transparency, palettes, CMYK, 16 bits, turned cameras, odd shapes and sizes, colour profiles, an animation. `export`
asks both model files about each. The same files at each call, with one version of Pillow.
"""

import io
import struct
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageCms, ImageDraw

SIDE = (320, 240)  # pixels
HUGE = (6000, 4000)  # as a camera of 24 million pixels makes them
ORIENTATION = 0x0112  # EXIF
TURNS = range(2, 9)  # what EXIF knows beside upright
# The three primaries of Display P3, in which many phones photograph, in the numbers of profiles (XYZ at D50).
WIDE_GAMUT = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.15710, 0.06657, 0.78407),
}
DATE = slice(24, 36)  # in a profile's header


def awkward_pictures() -> dict[str, bytes]:
    """
    Return drawn files as cameras, scanners and web pages make them: name → bytes.

    Examples
    --------
    >>> files = awkward_pictures()
    >>> len(files), "animated.gif" in files
    (26, True)
    """
    photo, mask = _drawn(1), Image.linear_gradient("L").resize(SIDE)
    wide_gamut = _wide_gamut_profile()
    deep = Image.fromarray(np.asarray(_drawn(2).convert("L")).astype(np.uint16) * 257)
    cut_out = _drawn(3).quantize(32)
    several = [_drawn(n).quantize(64) for n in (4, 5)]
    files = {
        "upright.jpg": _file(photo, "JPEG"),
        "transparent.png": _file(_with_alpha(photo, mask), "PNG"),
        "transparent-grey.png": _file(_with_alpha(photo.convert("L"), mask), "PNG"),
        "palette.png": _file(_drawn(6).quantize(64), "PNG"),
        "palette-transparent.png": _file(cut_out, "PNG", transparency=cut_out.getpixel((5, 5))),
        "cmyk.jpg": _file(_drawn(7).convert("CMYK"), "JPEG"),
        "grey-16-bit.png": _file(deep, "PNG"),
        "grey-16-bit.tif": _file(deep, "TIFF"),
        "grey.jpg": _file(_drawn(8).convert("L"), "JPEG"),
        "black-and-white.png": _file(_drawn(9).convert("1"), "PNG"),
        "wide.jpg": _file(_drawn(10, (1000, 100)), "JPEG"),
        "tall.jpg": _file(_drawn(11, (100, 1000)), "JPEG"),
        "one-pixel.png": _file(Image.new("RGB", (1, 1), "tomato"), "PNG"),
        "tiny.png": _file(_drawn(12, (7, 5)), "PNG"),
        "huge.jpg": _file(_drawn(13, HUGE), "JPEG"),
        "progressive.jpg": _file(_drawn(14), "JPEG", progressive=True),
        "wide-gamut.jpg": _file(_drawn(15), "JPEG", icc_profile=wide_gamut),
        "photo.webp": _file(_drawn(16), "WEBP"),
        "animated.gif": _file(several[0], "GIF", save_all=True, append_images=several[1:]),
    }
    return files | {f"turned-{turn}.jpg": _file(photo, "JPEG", exif=_turned(turn)) for turn in TURNS}


def _drawn(seed: int, size: tuple[int, int] = SIDE) -> Image.Image:
    """Return shapes and stripes of the seed's colours; large ones take no longer than small ones to think of."""
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


def _with_alpha(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Return an image that shows through as a mask says."""
    image = image.copy()
    image.putalpha(mask)
    return image


def _turned(turn: int) -> Image.Exif:
    """Return the EXIF record of a camera that was held in another way."""
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
    profile[DATE] = struct.pack(">6H", 2017, 1, 1, 0, 0, 0)  # the library writes the time of now
    for name, primary in WIDE_GAMUT.items():
        start = _place(profile, name) + 8  # behind the tag's own name and four empty bytes
        profile[start : start + 12] = _fixed_point(primary)
    return bytes(profile)


def _place(profile: bytes, name: bytes) -> int:
    """Return where the tag of a name begins in a profile."""
    count = struct.unpack_from(">I", profile, 128)[0]
    tags = (struct.unpack_from(">4sII", profile, 132 + 12 * n) for n in range(count))
    return next(start for tag, start, _ in tags if tag == name)


def _fixed_point(numbers: Iterable[float]) -> bytes:
    """Return numbers as profiles write them: 16 bits before the point and 16 behind it."""
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)
