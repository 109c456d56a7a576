"""
How many bits the 16-bit pictures of a set have: one number for all of them, which never changes by itself.
"""

from collections.abc import Iterable
from pathlib import Path

from utils.pictures import DEPTHS, PictureError, bits_wanted
from utils.verify.verdicts import Tables, raw_files

SUFFIXES = (".png", ".tif", ".jxl")  # in raw/, named by content: of the formats that hold 16 bits
GREY_16 = b"\x10\0"  # where a PNG says its bits and its kind of colours
TOO_BRIGHT = "too bright for "  # how the reason of a picture begins that needs more bits


def bits_of_set(tables: Tables, also: Iterable[Path] = ()) -> int | None:
    """
    Return how many bits the values of the set's 16-bit pictures have, None if it has no such picture.

    As soon as one was accepted, its row says so. Before, the brightest decides of all that are not judged yet and those
    in `also`, and tags that name a number. In a data set from before pictures.csv had this column, 16-bit pictures were
    read as 16 bits, and still are.
    """
    if tables.bits is None:
        known = tables.accepted | tables.settled
        files = [(path, (path.stem, path.parent.name)) for path in raw_files(tables.project)]
        fresh = [path for path, key in files if key not in known]
        found = [wanted for path in (*fresh, *also) if (wanted := _wanted(path))]
        if found and any(key in tables.accepted and _wanted(path) for path, key in files):
            found = [DEPTHS[-1]]
        tables.bits = max(found, default=None)
    return tables.bits


def _wanted(path: Path) -> int | None:
    """Return the bits that a file needs; None for one that is not of 16 bits, or cannot be read: 02 says why."""
    try:
        if path.suffix not in SUFFIXES:
            return None
        with path.open("rb") as file:
            head = file.read(26)
        return None if path.suffix == ".png" and head[24:] != GREY_16 else bits_wanted(path)
    except (PictureError, OSError):
        return None


def brightness_remarks(tables: Tables, rows: list[dict[str, str]]) -> list[str]:
    """Return a sentence on pictures of more bits than the set, and what to do; none if there are none."""
    count = sum(row["reason"].startswith(TOO_BRIGHT) for row in rows)
    if not count:
        return []
    table, rejected, images = (
        tables.project.table("pictures"),
        tables.project.table("rejected"),
        tables.project.images,
    )
    return [
        f"{count} of the 16-bit pictures hold larger values than the {tables.bits} bits that this set was read with. "
        "They were rejected. If they come from another camera, export them as 8 bits and add them again. To read the "
        f"whole set anew instead, move {table}, {rejected} and {images} away and run 02 again. What you moved or "
        "deleted by hand there is then to be done again."
    ]
