"""
The formats that count as photos, told by content alone, and their headers.
"""

import re
import struct
from typing import BinaryIO

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from .plugins import heif_file, jxl_file

PngImagePlugin.MAX_TEXT_CHUNK = 16 * 1024**2  # bytes; photo editors' notes (XMP) may be larger than Pillow's 1 MB
# Formats that are photos. Pillow knows more, some of which start programs (EPS). Of a camera's MPO, which is a JPEG and
# more behind it, the first picture is the photo.
OPENERS = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "HEIF": heif_file,
    "JXL": jxl_file,
}
# How the files of a format begin.
BEGINNINGS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM",
    "TIFF": rb"II\*\0|MM\0\*|II\+\0|MM\0\+",
    "AVIF": rb"....ftyp(....){0,12}(avif|avis)",  # of several brands one may be the format's
    "HEIF": rb"....ftyp(....){0,12}(hei[cxms]|hev[cxms]|mif1|msf1)",
    "JXL": rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
}
# File names that end so are of photos. Some cannot be read here: whoever opens them says so for each.
PHOTO_SUFFIXES = set(
    re.findall(r"\.\w+", ".avif.avifs.bmp.dib.gif.heic.heif.jfif.jpe.jpeg.jpg.jxl.mpo.png.tif.tiff.webp")
)
TELLING = 64  # bytes that tell a format


def format_of(data: bytes) -> str:
    """
    Return the name of a file's format, told by its first bytes; "" if it is none of those that count as photos.

    >>> format_of(b"GIF89a..."), format_of(b"<html>")
    ('GIF', '')
    """
    return next((name for name, begins in BEGINNINGS.items() if re.match(begins, data, re.DOTALL)), "")


def image_file(file: BinaryIO) -> Image.Image:
    """
    Open a file without decoding it.

    ``Image.open`` would refuse all above 179 million pixels, also a JPEG that is decoded at an eighth of its size.
    """
    kind = format_of(file.read(TELLING))
    file.seek(0)
    try:
        return OPENERS[kind](file, "")
    except (KeyError, SyntaxError, IndexError, TypeError, struct.error) as error:
        raise UnidentifiedImageError(f"cannot identify image file ({kind or 'unknown'})") from error
