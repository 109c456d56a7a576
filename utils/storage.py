"""
Files written whole or not at all, one writer at a time, and what a notebook says it has written.

Foundation of every stage. A stage may be killed at any moment, so a file is written under a temporary name in the same
folder and renamed.
"""

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from utils.errors import FieldguideError, WriteError

UNFINISHED = ".part"  # in the name of files that are still being written
MINUTE = 60  # seconds: what is written from memory is done by then; younger temporary files may be another notebook's
TOGETHER = 8  # files that are synced at the same time
STARTED = time.time()  # of this notebook's kernel, more or less
COARSE = 2  # seconds in which some disks count

NO_RIGHT = "this account may not write there. Change the folder's permissions, or name another in project.toml"
REMEDIES = {
    errno.ENOSPC: "the disk is full. Free some space",
    errno.EDQUOT: "your disk quota is used up. Free some space",
    errno.EACCES: NO_RIGHT,
    errno.EPERM: NO_RIGHT,
    errno.EROFS: "that disk is read-only. Name another folder in project.toml (data_dir, models_dir)",
    errno.EFBIG: "the file is larger than that disk, or this account, may hold. Name another folder in project.toml",
    errno.ENAMETOOLONG: "the path is too long for this system. Move the project to a shorter one",
}


def content_id(data: bytes) -> str:
    """
    Return the name of a picture: the first 16 hex digits of its bytes' SHA-256.

    >>> content_id(b"")
    'e3b0c44298fc1c14'
    """
    return hashlib.sha256(data).hexdigest()[:16]


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError while writing `path` into a `WriteError` that says what to do."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        advice = REMEDIES.get(error.errno, f"{error.strerror or error}. Put that right")
        raise WriteError(
            f"Cannot write {path}: {advice} and run this again; nothing gathered so far is lost."
        ) from error


def make_folder(path: Path) -> Path:
    """Create `path` and its parents where they are missing, and return it."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def require_writable(folder: Path) -> None:
    """Raise a `WriteError` now if nothing can be written to `folder`, rather than after long work."""
    make_folder(folder)
    with explained(folder):
        probe = _temporary(folder / "probe")
        probe.touch()
        probe.unlink()


def visible_files(folder: Path) -> list[Path]:
    """
    Return the files in `folder`, sorted by name, without hidden ones; none where there is no folder.

    Folders, pipes, sockets and links that lead nowhere are no files: whoever opened a pipe would wait for ever.
    """
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in `folder`, sorted by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def file_stamp(path: Path) -> list[int]:
    """Return numbers that change when a file is written or renamed, even back to its old name; [] if absent."""
    if not path.exists():
        return []
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def written(*paths: Path, since: float = STARTED) -> str:
    """Return the line that ends a notebook: which of `paths` were written by it, and which stand from before."""
    root, told = Path(__file__).resolve().parents[1], {"Written": [], "Unchanged": []}
    for path in (path for path in map(Path, paths) if path.exists()):
        inside = subfolders(path) if path.is_dir() else []
        new = max(each.stat().st_mtime for each in (path, *inside)) >= since - COARSE
        name = path.relative_to(root) if path.is_relative_to(root) else path
        told["Written" if new else "Unchanged"].append(name.as_posix())
    return ". ".join(f"{word}: {', '.join(names)}" for word, names in told.items() if names) or "Nothing was written."


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temporary(path: Path) -> Path:
    """Return a new hidden name beside `path`; `remove_leftovers` knows such names."""
    return path.with_name(f".{secrets.token_hex(8)}{UNFINISHED}{path.suffix}")


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it (which is atomic) if the block succeeds, else remove it."""
    make_folder(path.parent)
    with explained(path):
        temporary = _temporary(path)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


class Shelf:
    """
    Many new files, written under temporary names and put in their places together: one wait for the disk, not many.

    If the process dies before that, temporary files are left for `remove_leftovers`.
    """

    def __init__(self):
        self._aside: dict[Path, tuple[Path, BinaryIO]] = {}  # temporary file → its place, and itself still open
        self._folders: set[Path] = set()

    def add(self, path: Path, data: bytes) -> None:
        """Write `data` to a temporary file beside `path`."""
        if path.parent not in self._folders:
            self._folders.add(make_folder(path.parent))
        temporary = _temporary(path)
        with explained(path):
            file = temporary.open("xb")
            self._aside[temporary] = path, file
            try:
                file.write(data)
                file.flush()
            except BaseException:
                del self._aside[temporary]
                _discard(temporary, file)
                raise

    def settle(self) -> None:
        """Put all files in their places. Where that fails, those not yet in place are removed."""
        if not self._aside:
            return
        aside, self._aside = self._aside, {}
        left = dict(aside)
        try:
            # Synced at the same time, many files share a turn of the disk: 4 times as quick.
            with ThreadPoolExecutor(TOGETHER) as pool:
                list(pool.map(_sync, *zip(*aside.values(), strict=True)))
            for temporary, (path, _) in aside.items():
                with explained(path):
                    temporary.replace(path)
                del left[temporary]
            for folder in sorted({path.parent for path, _ in aside.values()}):
                sync_folder(folder)
        finally:
            for temporary, (_, file) in left.items():
                _discard(temporary, file)


def _sync(path: Path, file: BinaryIO) -> None:
    """Wait until a file that will lie at `path` is on disk, and close it."""
    with explained(path):
        os.fsync(file.fileno())
        file.close()


def _discard(temporary: Path, file: BinaryIO) -> None:
    """Close and remove a temporary file. On a full disk closing fails again: it tries to write what is left."""
    with suppress(OSError):
        file.close()
    temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk too, where the system can tell."""
    with suppress(OSError):  # Windows opens no folders, some network drives sync none
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folder: Path, *, below: bool = True, older: float = 0) -> int:
    """
    Remove what a killed run left in `folder` and, mostly, below it, so many seconds ago; return how many files.

    One that cannot be removed, as on a read-only disk, stays.
    """
    name, now, removed = f".{'[0-9a-f]' * 16}{UNFINISHED}*", time.time(), 0
    for path in sorted(folder.rglob(name) if below else folder.glob(name)):
        with suppress(OSError):
            if not older or now - path.stat().st_mtime > older:
                path.unlink()
                removed += 1
    return removed


@contextmanager
def locked(folder: Path, *, wait: float = 5.0) -> Iterator[None]:
    """Hold the lock of a data folder, one writer at a time; give up after `wait` seconds, with a sentence."""
    make_folder(folder)
    lock = FileLock(folder / ".lock")
    with explained(folder / ".lock"):
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            raise FieldguideError(
                f"Another notebook or program is working on {folder}. Wait until it is done, or stop it, "
                "and run this cell again; nothing is lost."
            ) from None
    try:
        yield
    finally:
        lock.release()
