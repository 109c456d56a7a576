"""
Pictures at their places: a path on a disk, or an object in s3:// or gs://, read ahead by a few threads.
"""

import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pyarrow import fs

from utils.errors import FieldguideError
from utils.pictures import PictureError, refuse_bytes

STORAGES = ("s3", "gs", "file")
READ_AHEAD = 8  # objects that are fetched at the same time: each is waited for, and takes no processor
WITNESSES = 8  # places that tell whether a machine sees the pictures


class Unreached(OSError):
    """A storage did not hand over a picture that may well be there; it is asked for again later."""


def in_storage(place: str) -> bool:
    """
    Return whether a place is an address of a storage, and not a path.

    >>> in_storage("s3://bucket/a.jpg"), in_storage("/photos/a.jpg"), in_storage("C:/photos/a.jpg")
    (True, False, False)
    """
    return place.startswith(tuple(f"{name}://" for name in STORAGES))


@cache
def _opened_storage(root: str) -> fs.FileSystem:
    """Return a storage; finding the region of a bucket takes a question of its own, so that is asked once."""
    return fs.FileSystem.from_uri(root)[0]


def storage_of(address: str) -> tuple[fs.FileSystem, str]:
    """Return the storage that an address names, and the path in it."""
    parts = urlsplit(address)
    if parts.scheme not in STORAGES:
        raise FieldguideError(f"{address[:200]}: {parts.scheme}:// is no storage that this program can read.")
    path = unquote(f"{parts.netloc}{parts.path}")
    query = f"?{parts.query}" if parts.query else ""  # such as endpoint_override, for a storage of one's own
    return _opened_storage(f"{parts.scheme}://{parts.netloc}/{query}"), path


def object_bytes(address: str) -> bytes:
    """Return the bytes at an address; raises PictureError if there are none or too many, Unreached if none come."""
    try:
        storage, path = storage_of(address)
        with storage.open_input_file(path) as file:
            refuse_bytes(file.size())
            return file.read()
    except FileNotFoundError:
        raise PictureError(f"there is no picture {address[:200]}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, PictureError):
            raise
        raise Unreached(f"{address[:200]} cannot be reached: {str(error).splitlines()[0][:200]}") from error


def each_picture(places: Sequence[str]) -> Iterator[Path | bytes | Exception]:
    """Yield what lies at each place, in order: a path as it is, bytes out of a storage, or why they did not come."""

    def fetched(place: str) -> Path | bytes | Exception:
        try:
            return object_bytes(place) if in_storage(place) else Path(place)
        except Exception as error:  # one picture must not stop the others
            return error

    if not any(map(in_storage, places)):
        yield from map(Path, places)
        return
    remaining = iter(places)
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        waiting = deque(pool.submit(fetched, place) for place in islice(remaining, 2 * READ_AHEAD))
        while waiting:
            yield waiting.popleft().result()
            waiting += [pool.submit(fetched, place) for place in islice(remaining, 1)]


def witnesses(places: Sequence[str]) -> tuple[str, ...]:
    """
    Return places, spread over all, that this machine can see, by which others tell whether they see the pictures too.

    Raises FieldguideError if it sees none of those it looked at.
    """
    chosen = [places[n * len(places) // WITNESSES] for n in range(min(WITNESSES, len(places)))]
    chosen = list(dict.fromkeys([*chosen, places[0], places[len(places) - 1]]))
    there = tuple(place for place in chosen if not is_hidden(place))
    if not there:
        raise FieldguideError(
            f"None of the pictures looked at is there: {is_hidden(chosen[0])}. Put right the places in the table; a "
            "relative path is taken from the table's own folder."
        )
    return there


def is_hidden(place: str) -> str:
    """Return why this machine does not see what lies at a place, or ""."""
    if not in_storage(place):
        return "" if os.path.exists(place) else f"there is no file {place[:200]}"  # noqa: PTH110 (a NUL is no error)
    try:
        storage, path = storage_of(place)
        there = storage.get_file_info(path).type == fs.FileType.File
        return "" if there else f"there is no object {place[:200]}"
    except (OSError, ValueError) as error:
        return f"{place[:200]} cannot be reached ({str(error).splitlines()[0][:200]})"


def blindness(seen: Sequence[str]) -> str:
    """Return a sentence if this machine sees none of the places that the one which hands out the work sees, or ""."""
    if not seen or not all(map(is_hidden, seen)):
        return ""
    return (
        f"The machine {socket.gethostname()} does not see the pictures: {is_hidden(seen[0])}. All machines must find "
        "them at the same place: mount the disk there under the same path, or keep them in s3:// or gs://."
    )
