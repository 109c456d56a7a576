"""Drawn pictures of every kind that a visitor may bring, and files that are none."""

import io
from functools import cache

import numpy as np
from drawn_heic import heic
from PIL import Image

from utils.export.awkward import _sketch, _turned, _wide_gamut_profile, awkward_pictures


def file_of(image: Image.Image, format: str, **options) -> bytes:
    """Return an image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(*shape: int, seed: int = 0, mode: str | None = None) -> Image.Image:
    """Return a picture of random values: it shows each difference of one level."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode)


@cache
def exact_pictures() -> dict[str, bytes]:
    """Return pictures without a profile, whose pixels the page must prepare to the last bit: name → bytes."""
    coloured, large, broad = noise(300, 401, 3), _sketch(3, (2051, 2500)), _sketch(4, (5003, 3007))
    deep = Image.fromarray(np.random.default_rng(1).integers(0, 65536, (100, 120)).astype(np.uint16))
    files = {
        "noise.png": file_of(coloured, "PNG"),
        "noise.bmp": file_of(coloured, "BMP"),
        "one-frame.gif": file_of(coloured, "GIF"),
        "noise.webp": file_of(coloured, "WEBP"),
        "lossless.webp": file_of(coloured, "WEBP", lossless=True),
        "drawn.avif": file_of(_sketch(5), "AVIF"),
        "cmyk-noise.jpg": file_of(coloured.convert("CMYK"), "JPEG"),
        "transparent-noise.png": file_of(noise(64, 64, 4), "PNG"),
        "transparent-noise.webp": file_of(noise(64, 64, 4), "WEBP", lossless=True),
        "grey-transparent-noise.png": file_of(noise(64, 64, 2, mode="LA"), "PNG"),
        "deep.png": file_of(deep, "PNG"),
        "larger-than-its-draft.png": file_of(broad, "PNG"),
        "tall-strip.png": file_of(noise(1400, 12, 3), "PNG"),
        "reduced-by-strips.png": file_of(_sketch(6, (5003, 3507)), "PNG", compress_level=1),
        "large-progressive.jpg": file_of(broad, "JPEG", progressive=True, subsampling=0),
        "drawn.heic": heic(_sketch(7, (48, 64))),
        "turned.heic": heic(_sketch(8, (48, 64)), turns=1),
    }
    for turn in range(1, 9):
        files |= {
            f"turned-{turn}-large.jpg": file_of(large, "JPEG", exif=_turned(turn)),
            f"turned-{turn}.webp": file_of(_sketch(20 + turn), "WEBP", exif=_turned(turn)),
            f"turned-{turn}.png": file_of(_sketch(30 + turn), "PNG", exif=_turned(turn)),
        }
    drawn = {name: data for name, data in awkward_pictures().items() if name not in NOT_EXACT}
    return files | drawn


DISPLAY_P3 = _wide_gamut_profile()
NOT_EXACT = ("wide-gamut.jpg", "animated.gif", "grey-16-bit.tif")


def wide_pictures() -> dict[str, bytes]:
    """Return pictures in the colours of Display P3, which the browser converts in its own way: name → bytes."""
    profile, coloured = DISPLAY_P3, noise(300, 401, 3)
    return {
        "wide-gamut.jpg": file_of(coloured, "JPEG", icc_profile=profile, quality=95),
        "wide-gamut.png": file_of(coloured, "PNG", icc_profile=profile),
        "wide-gamut.webp": file_of(coloured, "WEBP", icc_profile=profile, lossless=True),
        "wide-gamut-large.jpg": file_of(_sketch(9, (3003, 2307)), "JPEG", icc_profile=profile),
        "wide-gamut.heic": heic(_sketch(10, (48, 64)), colours=(12, 13, 6)),
    }


def refused_files() -> dict[str, bytes]:
    """Return files that neither Python nor the page takes for one photo: name → bytes."""
    coloured = noise(300, 401, 3)
    frames = {"save_all": True, "append_images": [coloured.rotate(180)]}
    return {
        "cut.jpg": file_of(_sketch(1), "JPEG")[:3000],
        "cut.png": file_of(coloured, "PNG")[:30_000],
        "animated.webp": file_of(coloured, "WEBP", **frames),
        "animated.png": file_of(coloured, "PNG", **frames),
        "animated.gif": file_of(coloured, "GIF", **frames),
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="window.hacked=1"></svg>',
        "page.html": b"<!doctype html><script>window.hacked=1</script>",
        "text.pdf": b"%PDF-1.4 ...",
        "empty.jpg": b"",
        "archive.zip": b"PK\x03\x04....",
    }
