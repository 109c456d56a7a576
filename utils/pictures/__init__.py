"""
Opening a picture honestly: the one way, used by every path from collecting to prediction.

Count what the file asks for, decode it in full, turn it upright, convert its colours to sRGB, and end as 8-bit RGB:
16-bit values are scaled, transparency is laid on white, an animation is refused. fastai's own opening clips, flattens
and ignores instead, which moves probabilities by up to 0.98. Needs Pillow and numpy alone, and for HEIC, JPEG XL and
some raw files a plug-in each: other programs copy it with `inference`.
"""

from .copies import LONGEST_SIDE, is_training_copy, jpeg_bytes
from .depth import DEPTHS, OWN_BITS
from .formats import PHOTO_SUFFIXES, format_of, image_file
from .headers import header, known_header
from .letterbox import AROUND, Letterbox, letterbox_of, letterboxed
from .limits import LARGEST_OWN_FILE, MAX_PIXELS, refuse_bytes, refuse_size
from .opening import WHITE, Opened, bits_wanted, open_picture, open_with_facts
from .outlines import outlined
from .reasons import PictureError, UnreadableError, shortened
from .sizes import height_and_width, margins, size_text, squish_and_crop
from .turning import ORIENTATION, orientation, turned

__all__ = [
    "AROUND",
    "DEPTHS",
    "LARGEST_OWN_FILE",
    "LONGEST_SIDE",
    "MAX_PIXELS",
    "ORIENTATION",
    "OWN_BITS",
    "PHOTO_SUFFIXES",
    "WHITE",
    "Letterbox",
    "Opened",
    "PictureError",
    "UnreadableError",
    "bits_wanted",
    "format_of",
    "header",
    "height_and_width",
    "image_file",
    "is_training_copy",
    "jpeg_bytes",
    "known_header",
    "letterbox_of",
    "letterboxed",
    "margins",
    "open_picture",
    "open_with_facts",
    "orientation",
    "outlined",
    "refuse_bytes",
    "refuse_size",
    "shortened",
    "size_text",
    "squish_and_crop",
    "turned",
]
