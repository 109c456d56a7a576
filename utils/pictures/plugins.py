"""
Formats that Pillow itself does not know: HEIC, by pi-heif, and JPEG XL, if its plug-in is installed.

Neither is registered with Pillow by us: each file is handed to the plug-in's own class, when the first one comes.
"""

from typing import BinaryIO

from PIL import Image

from .limits import MOST_PIXELS, refuse_size
from .reasons import PictureError

PROPORTIONS = {
    1: (1, 1),
    2: (12, 10),
    3: (4, 3),
    4: (3, 2),
    5: (16, 9),
    6: (5, 4),
    7: (2, 1),
}  # width : height, in JPEG XL


def heif_file(file: BinaryIO, name: str) -> Image.Image:
    """Open a HEIC file without decoding it. Decoded, it is upright."""
    try:
        from pi_heif import HeifImageFile
    except ImportError:
        raise PictureError("a HEIC photo, which needs pi-heif: pip install pi-heif, or save it as JPEG") from None
    return HeifImageFile(file, name)


def jxl_file(file: BinaryIO, name: str) -> Image.Image:
    """Open and decode a JPEG XL file; refuse too many pixels before."""
    refuse_size(*jxl_size(file.read()), most=MOST_PIXELS["JXL"])
    file.seek(0)
    try:
        from pillow_jxl.JpegXLImagePlugin import JXLImageFile  # this also makes Pillow itself know the format
    except ImportError:
        raise PictureError(
            "a JPEG XL photo, which needs a plug-in: pip install pillow-jxl-plugin, or save it as JPEG"
        ) from None
    return JXLImageFile(file, name)


def jxl_size(data: bytes) -> tuple[int, int]:
    """
    Return width and height of a JPEG XL file from its first bits; its plug-in decodes all of it before it tells.

    >>> jxl_size(bytes([0xFF, 0x0A, 0b01_00111_1, 0]))  # a square of 8 × (7 + 1) pixels
    (64, 64)
    """
    at = 2
    if data[:2] != b"\xff\x0a":
        starts = [(data.find(name), skipped) for name, skipped in ((b"jxlc", 4), (b"jxlp", 8))]
        at = min((place + skipped for place, skipped in starts if place >= 0), default=len(data)) + 2
    bits = int.from_bytes(data[at : at + 16], "little")

    def take(count: int) -> int:
        nonlocal bits
        taken, bits = bits & (1 << count) - 1, bits >> count
        return taken

    def side(eighths: int) -> int:
        return 8 * (take(5) + 1) if eighths else 1 + take((9, 13, 18, 30)[take(2)])

    eighths = take(1)
    height = side(eighths)
    ratio = take(3)
    wide, high = PROPORTIONS.get(ratio, (0, 1))
    return (height * wide // high if ratio else side(eighths)), height
