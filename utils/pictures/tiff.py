"""
The directories of a TIFF and of what is built like one, such as DNG: each holds a picture, and one is the photo.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .reasons import PictureError

# Tags.
KIND, OLD_KIND, WIDTH, HEIGHT, BITS_PER_SAMPLE, PHOTOMETRIC, STRIPS, STORED = 254, 255, 256, 257, 258, 262, 273, 274
STRIP_ROWS, TILE_WIDTH, TILE_HEIGHT, TILES, BELOW, MAX_SAMPLE_VALUE = 278, 322, 323, 324, 330, 281
LENGTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
NUMBERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}  # by a tag's type
MOST_DIRECTORIES, MOST_ENTRIES = 100, 500
LONGEST_TAGS = 64_000_000  # bytes that the entries of one directory point at; a camera's notes have less than one
SMALLER, MASK, OLD_SMALLER = 1, 4, 2  # bits of KIND, and a value of OLD_KIND


@dataclass(frozen=True)
class Directory:
    """One picture of a TIFF: where its directory stands, and what that says."""

    offset: int
    following: bool  # in the chain of pages; otherwise it hangs below another
    tags: dict[int, tuple[int, ...]]  # those of whole numbers, at most 8 of each

    def first(self, tag: int, default: int = 0) -> int:
        """Return a tag's first number."""
        return self.tags.get(tag, (default,))[0]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.first(WIDTH), self.first(HEIGHT)

    @property
    def is_photo(self) -> bool:
        """Whether it does not say itself that it is a smaller version of another, or a mask."""
        return not self.first(KIND) & (SMALLER | MASK) and self.first(OLD_KIND) != OLD_SMALLER and all(self.size)

    def is_thumbnail_of(self, other: "Directory") -> bool:
        """Whether it is at most half as large as another, in the same proportion."""
        (width, height), (whole_width, whole_height) = self.size, other.size
        expected = width * whole_height / whole_width if whole_width else 0
        return 2 * width <= whole_width and 2 * height <= whole_height and abs(height - expected) <= 1 + height / 50

    @property
    def pieces(self) -> int:
        """How many strips or tiles there are."""
        return max(self.first(-STRIPS), self.first(-TILES))

    @property
    def piece_pixels(self) -> int:
        """How many pixels one strip or tile has at most."""
        if TILES in self.tags:
            return self.first(TILE_WIDTH) * self.first(TILE_HEIGHT)
        return self.first(WIDTH) * min(self.first(HEIGHT), self.first(STRIP_ROWS, 2**32))


def directories(data: bytes) -> Iterator[Directory]:
    """
    Yield the directories of a TIFF's bytes: the chain of its pages, and those below each.

    Raises PictureError if there are more, or larger ones, than any photo has, or if they go in a circle.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (at,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)
    waiting, seen = [(at, True)], set()
    while waiting:
        at, following = waiting.pop(0)
        if not at or at + 2 > len(data):
            continue
        if at in seen:
            raise PictureError("truncated or broken inside (its pages lead back to an earlier one)")
        if len(seen) == MOST_DIRECTORIES:
            raise PictureError(f"more work than a photo: over {MOST_DIRECTORIES} pages")
        seen.add(at)
        tags, after = _tags(data, at, order, big)
        yield Directory(at, following, tags)
        below = [(each, False) for each in tags.get(BELOW, ())]
        waiting = below + waiting + ([(after, True)] if following else [])


def _tags(data: bytes, at: int, order: str, big: bool) -> tuple[dict[int, tuple[int, ...]], int]:
    """Return the whole numbers of a directory, under minus a tag how many it has, and where the next directory is."""
    head, entry, place = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    (count,) = struct.unpack_from(order + head, data, at)
    if count > MOST_ENTRIES:
        raise PictureError(f"more work than a photo: {count:,} entries of one page, and the limit is {MOST_ENTRIES}")
    at += struct.calcsize(order + head)
    step, tags, length = struct.calcsize(order + entry), {}, 0
    for where in range(at, at + count * step, step):
        if where + step > len(data):
            return tags, 0
        tag, kind, many, value = struct.unpack_from(order + entry, data, where)
        size = LENGTHS.get(kind, 1) * many
        length += size
        if length > LONGEST_TAGS:
            raise PictureError("more work than a photo: over 64 million bytes in the entries of one page")
        tags[-tag] = (many,)
        if kind in NUMBERS and many:
            start = where + step - len(value) if size <= len(value) else struct.unpack(order + place, value)[0]
            few = f"{order}{min(many, 8)}{NUMBERS[kind]}"
            if start + struct.calcsize(few) <= len(data):
                tags[tag] = struct.unpack_from(few, data, start)
    end = at + count * step
    return tags, struct.unpack_from(order + place, data, end)[0] if end + struct.calcsize(place) <= len(data) else 0


def photo_of(found: list[Directory]) -> Directory | None:
    """
    Return the directory that holds the photo: the largest that is no smaller version; None if there are several.

    Cameras and editors put smaller versions before it, behind it and below it. Documents have pages.
    """
    photos = [each for each in found if each.is_photo] or [each for each in found if all(each.size)] or found[:1]
    largest = max(photos, key=lambda each: each.size[0] * each.size[1])
    pages = [each for each in photos if each.following and each is not largest and not each.is_thumbnail_of(largest)]
    return None if pages else largest


def led_to(data: bytes, found: Directory) -> bytes:
    """Return the bytes of a TIFF whose first directory is the one found, wherever it stands."""
    order, big = ("<" if data[:2] == b"II" else ">"), data[2:4] in (b"+\0", b"\0+")
    at, place = (8, f"{order}Q") if big else (4, f"{order}I")
    if struct.unpack_from(place, data, at)[0] == found.offset:
        return data
    return data[:at] + struct.pack(place, found.offset) + data[at + struct.calcsize(place) :]
