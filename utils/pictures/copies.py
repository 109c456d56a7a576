"""
Training copies: a picture as the bytes of a small JPEG, and whether bytes are one.
"""

import io

from PIL import Image

from .formats import image_file
from .structure import require_bounded
from .turning import orientation

LONGEST_SIDE = 512  # pixels, of a training copy
JPEG_QUALITY = 92  # of a training copy


def jpeg_bytes(image: Image.Image, *, quality: int = JPEG_QUALITY) -> bytes:
    """Return an RGB image as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, comment=b"")  # Pillow would pass a comment of the original on
    return buffer.getvalue()


def is_training_copy(data: bytes) -> bool:
    """Return whether `data` is a training copy: a whole RGB JPEG, stored upright, of at most 512 pixels."""
    try:
        require_bounded(data, "JPEG")
        with image_file(io.BytesIO(data)) as image:
            if image.format != "JPEG" or image.mode != "RGB" or max(image.size) > LONGEST_SIDE:
                return False
            image.load()
            return orientation(image) == 1
    except Exception:  # Pillow's parsers raise what they like; any of it means no
        return False
