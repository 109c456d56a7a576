"""
A camera's raw file: the JPEG inside it that the camera made, where that is large enough to stand for the photo.
"""

import io
import re
import struct
from collections.abc import Iterator

from PIL import Image

from .formats import format_of, image_file
from .limits import refuse_size
from .reasons import PictureError
from .tiff import STORED, Directory, directories

# Raw files that are no TIFF by their first bytes, and those that are: Canon's, and any whose pixels lie in a mosaic.
BEGINNINGS_OF_RAW = rb"FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\0|....ftypcrx "
CANON = b"CR"  # at byte 8
MOSAICS = (32803, 34892)  # values of PHOTOMETRIC: colours of a filter, and linear raw
INSIDE, INSIDE_LENGTH, STRIP_LENGTH, PANASONIC = 513, 514, 279, 46  # tags that lead to a JPEG
LEAST_SIDE, LEAST_SHARE = 1024, 0.5  # pixels of the preview's longer side, or its share of the raw picture's
MOST_RAW = 60_000_000  # pixels that rawpy develops at once
PREVIEW = "raw-preview"  # the remark on a raw file that is known by its preview


def is_raw(data: bytes) -> bool:
    """Return whether a file is a camera's raw file."""
    if re.match(BEGINNINGS_OF_RAW, data, re.DOTALL):
        return True
    if format_of(data) != "TIFF":
        return False
    return data[8:10] == CANON or any(_is_mosaic(each) for each in directories(data))


def raw_preview(data: bytes) -> tuple[bytes, int] | None:
    """Return the largest JPEG inside a raw file, and how it is stored (1 to 8); None if it is too small to count."""
    found = [] if data[:4] in (b"FUJI",) or data[4:8] == b"ftyp" else list(directories(data))
    side = max((max(each.size) for each in found if _is_mosaic(each)), default=0)
    best, largest = None, 0
    for start, length in _jpegs(data, found):
        inside = data[start : start + length]
        if format_of(inside) != "JPEG":
            continue
        with image_file(io.BytesIO(inside)) as image:
            if max(image.size) > largest:
                best, largest = inside, max(image.size)
    if largest < LEAST_SIDE and not (side and largest >= LEAST_SHARE * side):
        return None
    return best, found[0].first(STORED, 1) if found else 1


def developed(data: bytes) -> Image.Image:
    """Return what rawpy, if it is installed, makes of a raw file: upright, 8-bit RGB in sRGB."""
    try:
        import rawpy
    except ImportError:
        raise PictureError(
            "a camera's raw file without a preview that is large enough: export it as JPEG, or pip install rawpy"
        ) from None
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            refuse_size(raw.sizes.width, raw.sizes.height, most=MOST_RAW)
            return Image.fromarray(raw.postprocess(use_camera_wb=True))
    except rawpy.LibRawError as error:
        raise PictureError(f"a camera's raw file that rawpy cannot read ({error}): export it as JPEG") from error


def _is_mosaic(found: Directory) -> bool:
    return found.first(262) in MOSAICS


def _jpegs(data: bytes, found: list[Directory]) -> Iterator[tuple[int, int]]:
    """Yield where a raw file says that JPEGs lie, and how long they are."""
    if data[:4] == b"FUJI" and len(data) >= 92:
        yield struct.unpack_from(">II", data, 84)
    for each in found:
        if INSIDE in each.tags:
            yield each.first(INSIDE), each.first(INSIDE_LENGTH)
        if each.pieces == 1 and not _is_mosaic(each):
            yield each.first(273), each.first(STRIP_LENGTH)
        if PANASONIC in each.tags:
            yield each.first(PANASONIC), each.first(-PANASONIC)
