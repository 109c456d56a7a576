"""
Turning a picture upright, as its EXIF record says and nothing else.

Pillow also takes the turn from an XMP note, which no browser does: editors leave stale ones behind.
"""

import re

from PIL import Image

ORIENTATION = 0x0112  # EXIF
XMP = ("xmp", "XML:com.adobe.xmp")  # what Pillow calls a picture's note
FROM_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def without_xmp(image: Image.Image) -> Image.Image:
    """Return an image that forgot its XMP note, from which Pillow would turn it as it is decoded."""
    for name in XMP:
        image.info.pop(name, None)
    return image


def orientation(image: Image.Image) -> int:
    """Return how an image is stored, 1 to 8; 1 (upright) where its EXIF record says nothing or is broken."""
    try:
        if any(name in image.info for name in XMP):
            facts, image = image.info, Image.new("L", (1, 1))
            image.info = {name: fact for name, fact in facts.items() if name not in XMP}
        found = image.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, ZeroDivisionError, OverflowError, re.error):
        return 1  # viewers show such a picture as it is stored, and so do we
    return found if found in FROM_STORED else 1


def turned(image: Image.Image, stored: int) -> Image.Image:
    """Return an image upright that is stored in one of EXIF's eight ways."""
    return image.transpose(FROM_STORED[stored]) if stored in FROM_STORED else image
