"""
The job of verifying: is each file a picture of use, as notebook 02 judges it, and what would show that it is a copy?

It makes no training copies. Copies of a picture have the same content; near-duplicates have hashes that differ little.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from utils.pictures import PictureError, refuse_bytes
from utils.scale.jobs import abreast
from utils.storage import content_id
from utils.verify import judged_picture

TEXT_COLUMNS = ("content", "hash", "warnings")
SIZE_COLUMNS = ("width", "height", "bits")


@dataclass(frozen=True)
class Verifying:
    """What 02 asks of a single file."""

    columns = pa.schema([(name, pa.string()) for name in TEXT_COLUMNS] + [(name, pa.int32()) for name in SIZE_COLUMNS])

    @property
    def facts(self) -> dict[str, str]:
        """What made the rows."""
        return {"task": "verify"}

    def worker(self, cores: int) -> Callable[[Iterator], Iterator[Mapping]]:
        """Return what judges files, one on each processor."""
        return lambda pictures: abreast(judged_row, pictures, cores)


def verifying(options: argparse.Namespace) -> Verifying:
    """Return the job."""
    return Verifying()


def judged_row(picture: Path | bytes | Exception) -> Mapping:
    """Return what is known of a picture, or why it is rejected."""
    try:
        data = whole_file(picture)
    except (OSError, ValueError) as error:
        return {"error": str(error)}
    judged = judged_picture(data, "", copied=False)
    if judged.reason:
        return {"content": content_id(data), "error": judged.reason}
    found = {name: getattr(judged, name) or None for name in ("hash", "bits", "width", "height")}
    return {"content": content_id(data), "warnings": judged.warnings, **found}


def whole_file(picture: Path | bytes | Exception) -> bytes:
    """Return the bytes of a picture; raises what kept them from coming, or PictureError if there is no regular file."""
    if isinstance(picture, Exception):
        raise picture
    if isinstance(picture, bytes):
        return picture
    if not picture.is_file():  # a pipe would be waited for
        raise PictureError(f"there is no file {picture}")
    refuse_bytes(picture.stat().st_size)
    return picture.read_bytes()
