"""
What the segments of a JPEG tell: whether it is whole, how many scans it has, and which rows a cut took away.
"""

import io
import re
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageChops

from .formats import image_file

# Any marker but the stuffed zero, restarts and fill bytes, which stand inside the picture's data.
SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
# Something to decode. After 442 cuts near the end it changed the picture each time; ascending bytes, which begin with
# zeros as the decoder's own filling does, left 157 as they were.
MORE = b"\xaa" * 4000
SCAN, END = b"\xff\xda", b"\xff\xd9"
FRAMES = {b"\xff" + bytes([kind]) for kind in range(0xC0, 0xD0) if kind not in (0xC4, 0xC8, 0xCC)}
UNDECODED = 128  # the grey that libjpeg paints where a file that ends too early left it nothing to decode


def segments(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield each segment of a JPEG, up to its end marker: the marker, where it stands, and what the segment holds."""
    at = 2
    while marker := SEGMENT.search(data, at):
        start, length = marker.end(), int.from_bytes(data[marker.end() : marker.end() + 2])
        yield marker[0], marker.start(), data[start + 2 : start + length]
        if marker[0] == END:
            return
        at = start + length
    yield END, len(data), b""  # a file without one


def end_of(data: bytes) -> int:
    """Return where a JPEG's end marker stands; the length of the data if it has none."""
    *_, (_, end, _) = segments(data)
    return end


def lacks_scans(data: bytes) -> bool:
    """Return whether a JPEG ends before each coefficient came down to its last bit, and so is coarse or grey."""
    wanted: set[tuple[int, int]] = set()
    sent: set[tuple[int, int]] = set()
    for marker, _, body in segments(data):
        if marker in FRAMES:
            wanted = {(body[n], k) for n in range(6, len(body), 3) for k in range(64)}
        elif marker == SCAN and len(body) >= 4:
            components, (first, last, bits) = body[1 : 1 + 2 * body[0] : 2], body[-3:]
            if bits & 15 == 0:  # the lowest bit comes with this scan
                sent |= {(component, k) for component in components for k in range(first, last + 1)}
    return not wanted <= sent


def undecoded(image: Image.Image) -> float:
    """
    Return the fraction of a decoded JPEG's rows that its file ended before.

    Where a file was cut in the middle and closed with an end marker, libjpeg leaves the rest at exactly mid-grey and
    Pillow says nothing. A last row of that one grey, while the first is another colour, gives it away; of 742 whole
    photos from the web none has it.
    """
    width, height = image.size
    if image.mode not in ("L", "RGB") or image.crop((0, height - 1, width, height)).getextrema() not in (
        (UNDECODED, UNDECODED),
        ((UNDECODED, UNDECODED),) * 3,
    ):
        return 0.0
    decoded = (np.asarray(image) != UNDECODED).reshape(height, -1).any(axis=1)
    if not decoded.any() or not decoded[0]:  # a picture in a grey frame, or of one grey
        return 0.0
    return float(np.argmax(decoded[::-1])) / height


def wants_more(data: bytes, size: tuple[int, int]) -> bool:
    """Return whether the decoder, when asked for `size`, takes what is put before a JPEG's end for its picture."""
    whole, more = (_decoded(data[: end_of(data)] + behind, size) for behind in (END, MORE + END))
    return ImageChops.difference(whole, more).getbbox(alpha_only=False) is not None


def _decoded(data: bytes, size: tuple[int, int]) -> Image.Image:
    with image_file(io.BytesIO(data)) as image:
        image.draft(None, size)
        image.load()
        return image
