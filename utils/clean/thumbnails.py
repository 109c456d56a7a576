"""
Thumbnails for the cleaner: JPEG, kept in memory, and drawn ahead.

Reads the files it is given; writes nothing. Pillow decodes outside Python's lock, so a few threads draw a page. The
next page is drawn while the person looks at this one; that stops at once when another page is asked for.
"""

import glob
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from utils.dataset import Picture
from utils.pictures import OWN_BITS, PictureError, jpeg_bytes, open_picture
from utils.project import Project
from utils.storage import file_stamp

THUMBNAILS_KEPT = 2000  # in memory: about 20 MB
DRAWERS = 2
THUMBNAIL_QUALITY = 85
ZOOMED = 1600  # pixels, of a picture looked at in full


@dataclass(frozen=True)
class Thumbnail:
    """A JPEG file's bytes, or b"" and why the picture cannot be read."""

    jpeg: bytes
    problem: str = ""


class Thumbnails:
    """Thumbnails of at most `height` × `width` pixels."""

    def __init__(self, *, height: int, width: int):
        self._height, self._width = height, width
        self._stop = threading.Event()

    def draw(self, paths: Sequence[Path]) -> list[Thumbnail]:
        """Return the thumbnails of N pictures."""
        self._stop.set()
        with ThreadPoolExecutor(DRAWERS) as pool:
            return list(pool.map(self._one, paths))

    def draw_ahead(self, paths: Sequence[Path]) -> threading.Thread:
        """Draw pictures that will probably be asked for next, in a thread that ends when others are asked for."""
        self._stop.set()
        self._stop = stop = threading.Event()

        def fill() -> None:
            for path in paths:
                if stop.is_set():
                    return
                self._one(path)  # only to fill the memory that `draw` reads

        thread = threading.Thread(target=fill, daemon=True)  # a kernel that shuts down does not wait for it
        thread.start()
        return thread

    def _one(self, path: Path) -> Thumbnail:
        if stamp := file_stamp(path):
            return _thumbnail_of(path, self._height, self._width, tuple(stamp))
        return Thumbnail(b"", f"The file is gone: it was moved or deleted by hand. It was {path}.")


@lru_cache(maxsize=THUMBNAILS_KEPT)
def _thumbnail_of(path: Path, height: int, width: int, stamp: tuple[int, ...]) -> Thumbnail:
    """Draw a thumbnail; a replaced file has another `stamp` and so gets a new one."""
    try:
        image = open_picture(path, longest_side=max(height, width), first_frame=True, bits=OWN_BITS)
    except (PictureError, OSError) as error:
        return Thumbnail(b"", str(error))
    image.thumbnail((width, height))
    return Thumbnail(jpeg_bytes(image, quality=THUMBNAIL_QUALITY))


def draw_large(paths: Sequence[Path]) -> Thumbnail:
    """Return the first of these files that can be read, reduced to at most 1600 pixels."""
    for path in paths:
        drawn = _thumbnail_of.__wrapped__(path, ZOOMED, ZOOMED, ())  # not kept: one may weigh as much as a page
        if not drawn.problem:
            break
    return drawn


def original(project: Project, picture: Picture) -> Path:
    """Return the file in raw/ that a picture was made from; its training copy if there is none."""
    labels = sorted(project.labels, key=lambda label: label != picture.label)  # most often under its own
    for label in labels:
        for path in sorted((project.raw / label).glob(f"{glob.escape(picture.id)}.*")):
            if path.stem == picture.id:  # and not of another picture whose name goes on after a dot
                return path
    return picture.path
