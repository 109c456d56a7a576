"""
Work that a file's structure announces, counted before anything is decoded: hostile files ask for hours of it.

A few kilobytes can announce thousands of scans, frames, notes or strips, each of which a decoder goes through. Photos
have few. Not even headers are parsed before: Pillow unpacks notes while it opens a file.
"""

import struct
from collections.abc import Callable

from .jpeg import FRAMES, SCAN, segments
from .reasons import PictureError
from .tiff import directories

MOST_WORK = 1_500_000_000  # pixels × passes over them: 108 million pixels in 13 scans; 2 to 10 seconds
MOST_SEGMENTS = 2000  # of a JPEG; one with a depth map has up to 300, and each scan brings a few
MOST_KEPT = 110_000_000  # pixels, each of which a decoder keeps in 6 bytes until the last scan
MOST_EXIF = 16  # records of a JPEG, which Pillow puts together one by one
MOST_CHUNKS = 200_000  # of a PNG; 120 million pixels in pieces of 8 kB have 60,000
MOST_NOTES = 1000  # chunks of a PNG that are not its pixels
MOST_FRAMES = 1000  # of an animation, whose first frame may be asked for
MOST_PIECES = 2_000_000  # of a GIF; 400 MB in pieces of 255 bytes have fewer
LONGEST_COMMENT = 1_000_000  # bytes that a GIF holds beside its pixels
LONGEST_RLE = 5_000_000  # bytes of a run-length coded BMP, which Pillow decodes in Python


def require_bounded(data: bytes, kind: str) -> None:
    """Refuse the bytes of a file of a format if its structure announces more work than photos do."""
    if count := COUNTERS.get(kind):
        count(data)


def _refuse_more(what: str, found: int, most: int) -> None:
    """Refuse a file that announces more than photos have."""
    if found > most:
        raise PictureError(f"more work than a photo: {found:,} {what}, and the limit is {most:,}")


def _count_jpeg(data: bytes) -> None:
    """Count segments, scans and pixels."""
    pixels = scans = exif = 0
    for number, (marker, _, body) in enumerate(segments(data)):
        if marker in FRAMES and len(body) >= 5:
            height, width = struct.unpack_from(">HH", body, 1)
            pixels = max(pixels, width * height)
        exif += marker == b"\xff\xe1" and body[:4] == b"Exif"
        scans += marker == SCAN
        _refuse_more("segments", number, MOST_SEGMENTS)
        _refuse_more("EXIF records", exif, MOST_EXIF)
        _refuse_more(f"pixels in {scans} scans", pixels * scans, MOST_WORK)
        _refuse_more("pixels of a JPEG in several scans", pixels * (scans > 1), MOST_KEPT)


def _count_png(data: bytes) -> None:
    """Count chunks, notes, colour profiles and frames."""
    at, chunks, notes, profiles = 8, 0, 0, 0
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        chunks, notes, profiles = chunks + 1, notes + (name not in (b"IDAT", b"fdAT")), profiles + (name == b"iCCP")
        _refuse_more("chunks", chunks, MOST_CHUNKS)
        _refuse_more("notes", notes, MOST_NOTES)
        _refuse_more("colour profiles", profiles, 1)
        at += 12 + length


def _count_webp(data: bytes) -> None:
    """Count chunks, each frame of an animation being one."""
    at, chunks = 12, 0
    while at + 8 <= len(data):
        chunks += 1
        _refuse_more("frames", chunks, MOST_FRAMES)
        (length,) = struct.unpack_from("<I", data, at + 4)
        at += 8 + length + length % 2


def _count_gif(data: bytes) -> None:
    """Count what stands before the end of the second frame, and what of it is beside the pixels."""
    at, frames, pieces, notes = 13 + _colours(data[10:11]), 0, 0, 0
    while at < len(data) and data[at] != 0x3B and frames < 2:
        start, frame = at, data[at] == 0x2C
        if frame:
            at += 11 + _colours(data[at + 9 : at + 10])
        elif data[at] == 0x21:
            at += 2
        else:
            at += 1  # Pillow too looks for the next mark
        while data[start] in (0x21, 0x2C) and at < len(data) and data[at]:
            at, pieces = at + 1 + data[at], pieces + 1
            _refuse_more("pieces", pieces, MOST_PIECES)
        at += data[start] in (0x21, 0x2C)
        frames, notes = frames + frame, notes + (at - start) * (not frame)
        _refuse_more("bytes of notes", notes, LONGEST_COMMENT)


def _colours(flags: bytes) -> int:
    """Return how many bytes the table of colours takes that a GIF's flags announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 128 else 0


def _count_tiff(data: bytes) -> None:
    """Count directories, entries and strips or tiles, and what those ask to decode."""
    pieces = 0
    for found in directories(data):
        pieces = max(pieces, found.pieces * found.piece_pixels)
        _refuse_more("strips or tiles", found.pieces, MOST_CHUNKS)
    _refuse_more("pixels in strips or tiles", pieces, MOST_WORK)


def _count_bmp(data: bytes) -> None:
    """Look at how a BMP is compressed."""
    compression = data[30:34]
    if compression in (b"\1\0\0\0", b"\2\0\0\0"):
        _refuse_more("bytes in runs", len(data), LONGEST_RLE)


COUNTERS: dict[str, Callable[[bytes], None]] = {
    "JPEG": _count_jpeg,
    "PNG": _count_png,
    "WEBP": _count_webp,
    "GIF": _count_gif,
    "TIFF": _count_tiff,
    "BMP": _count_bmp,
}
