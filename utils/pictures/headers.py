"""
What a file's header says: its format and its size. Nothing is decoded.
"""

import io

from .formats import format_of, image_file
from .opening import photo_first
from .plugins import jxl_size
from .raw import developed, is_raw, raw_preview
from .structure import require_bounded

EXTENSIONS = {"JPEG": "jpg", "TIFF": "tif", "HEIF": "heic"}


def header(data: bytes) -> tuple[str, int, int]:
    """Return extension, width and height in pixels of the picture that `data` is; raise what Pillow does for none."""
    require_bounded(data, format_of(data))
    if format_of(data) == "JXL":
        return "jxl", *jxl_size(data)
    if is_raw(data):
        preview = raw_preview(data)
        with image_file(io.BytesIO(preview[0])) if preview else developed(data) as image:
            return "raw", *image.size
    data, _ = photo_first(data, first_frame=True)
    with image_file(io.BytesIO(data)) as image:
        return EXTENSIONS.get(image.format, image.format.lower()), *image.size


def known_header(data: bytes) -> tuple[str, int | str, int | str]:
    """Return what `header` does, and ("bin", "", "") for bytes that are not a known picture."""
    try:
        return header(data)
    except Exception:  # Pillow's parsers raise what they like on hostile bytes; any of it means "unknown"
        return "bin", "", ""
