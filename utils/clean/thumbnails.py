"""
Small pictures for the pages of stage 06: JPEG, drawn through `pictures`, kept in memory, and drawn ahead.

Reads the files it is given; writes nothing. Pillow decodes outside Python's lock, so a page is drawn by a few threads;
the next page is drawn while the person looks at this one, and stops at once when another is asked for.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from utils.pictures import PictureError, jpeg_bytes, open_picture

KEPT = 2000  # thumbnails in memory: about 20 MB
THREADS = 2
QUALITY = 85
LARGE = 1600  # pixels, of a picture looked at in full


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
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(self._one, paths))

    def draw_ahead(self, paths: Sequence[Path]) -> threading.Thread:
        """Draw pictures that will probably be asked for next, in a thread that ends when others are asked for."""
        self._stop.set()
        self._stop = threading.Event()
        # A daemon: a kernel that shuts down does not wait for it. It only fills the memory that `draw` reads.
        thread = threading.Thread(target=self._fill, args=(tuple(paths), self._stop), daemon=True)
        thread.start()
        return thread

    def _fill(self, paths: Sequence[Path], stop: threading.Event) -> None:
        for path in paths:
            if stop.is_set():
                return
            self._one(path)

    def _one(self, path: Path) -> Thumbnail:
        try:
            status = path.stat()
            changed = (status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            return Thumbnail(b"", f"The file is gone: it was moved or deleted by hand. It was {path}.")
        except OSError:
            changed = None
        return _drawn(path, self._height, self._width, changed)


@lru_cache(maxsize=KEPT)
def _drawn(path: Path, height: int, width: int, changed: tuple[int, int] | None) -> Thumbnail:
    """Draw a thumbnail; `changed` is there so that a replaced file gets a new one."""
    try:
        image = open_picture(path, longest_side=max(height, width), first_frame=True)
    except (PictureError, OSError) as error:
        return Thumbnail(b"", str(error))
    image.thumbnail((width, height))
    return Thumbnail(jpeg_bytes(image, quality=QUALITY))


def draw_large(paths: Sequence[Path]) -> Thumbnail:
    """Return the first of these files that can be read, reduced to at most 1600 pixels."""
    drawn = Thumbnail(b"", "there is no file")
    for path in paths:
        drawn = _drawn.__wrapped__(path, LARGE, LARGE, None)  # not kept: one may weigh as much as a page
        if not drawn.problem:
            break
    return drawn
