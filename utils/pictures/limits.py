"""
How much one picture may ask for: pixels, bytes and memory, refused before anything is decoded.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .reasons import PictureError

MAX_PIXELS = 80_000_000  # decoded at once: larger ones are decompression bombs more often than photos
LARGEST_OWN_FILE = 400_000_000  # bytes; a scan of 120 million pixels, uncompressed, and some notes
# Pixels of a file, where a format's decoder takes more or less memory for each. A JPEG is reduced while it is decoded.
MOST_PIXELS = {"PNG": 120_000_000, "TIFF": 120_000_000, "BMP": 120_000_000}
LARGE_PIXELS, LARGE_BYTES = 20_000_000, 50_000_000  # beyond either, one picture at a time
LARGE_ONE = threading.Lock()
LONGEST_HOLD = 120  # seconds; a process that was forked while another thread held the lock would wait for ever


def refuse_size(width: int, height: int, *, most: int = MAX_PIXELS) -> None:
    """Refuse a picture of too many pixels, or of none."""
    if width * height > most:
        raise PictureError(f"too many pixels: {width}×{height}, more than {most // 1_000_000} million")
    if width * height == 0:
        raise PictureError(f"no pixels: {width}×{height}")


@contextmanager
def alone(large: bool) -> Iterator[None]:
    """Hold other large pictures back while one is open, so that memory does not grow with the number of threads."""
    held = large and LARGE_ONE.acquire(timeout=LONGEST_HOLD)
    try:
        yield
    finally:
        if held:
            LARGE_ONE.release()
