"""
How much one picture may ask for: pixels, bytes and memory, refused before anything is decoded.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .reasons import PictureError

MAX_PIXELS = 80_000_000  # of what is decoded: larger ones are decompression bombs more often than photos
# Pixels, where a format's decoder takes less or more memory for each: 5 bytes, and 16 for WebP and AVIF. With the bytes
# of its file, one picture stays below 800 MB. A JPEG is reduced while it is decoded, and counts by what comes out.
MOST_PIXELS = {"PNG": 110_000_000, "TIFF": 110_000_000, "BMP": 110_000_000, "HEIF": 50_000_000}
MOST_PIXELS |= {"WEBP": 40_000_000, "AVIF": 40_000_000, "JXL": 40_000_000}
LARGEST_OWN_FILE = 400_000_000  # bytes; 110 million pixels, uncompressed, and some notes
LARGE_BYTES, LARGE_SHARE = 50_000_000, 0.2  # of a format's most pixels; beyond either, one picture at a time
LARGE_ONE = threading.RLock()
LONGEST_HOLD = 120  # seconds; a process that was forked while another thread held the lock would wait for ever


def refuse_size(width: int, height: int, *, most: int = MAX_PIXELS) -> None:
    """Refuse a picture of too many pixels, or of none."""
    if width * height > most:
        raise PictureError(f"too many pixels: {width}×{height}, more than {most // 1_000_000} million")
    if width * height == 0:
        raise PictureError(f"no pixels: {width}×{height}")


def refuse_bytes(size: int) -> None:
    """Refuse a file of more bytes than one's own photos have."""
    if size > LARGEST_OWN_FILE:
        raise PictureError(f"larger than {LARGEST_OWN_FILE // 1_000_000} MB: {size // 1_000_000} MB")


def is_large(format: str | None, pixels: int) -> bool:
    """Return whether a picture takes so much memory that it is opened alone."""
    return pixels > LARGE_SHARE * MOST_PIXELS.get(format, MAX_PIXELS)


@contextmanager
def alone(large: bool) -> Iterator[None]:
    """Hold other large pictures back while one is open, so that memory does not grow with the number of threads."""
    held = large and LARGE_ONE.acquire(timeout=LONGEST_HOLD)
    try:
        yield
    finally:
        if held:
            LARGE_ONE.release()
