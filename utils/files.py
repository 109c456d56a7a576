"""
Writing files whole or not at all, append-only tables, and one writer at a time.

Foundation of every stage. A stage may be killed at any moment, so a table is written to a temporary file
in the same folder and renamed, and a log grows by whole lines: a torn last line is dropped when read.
"""

import csv
import errno
import hashlib
import io
import os
import re
import secrets
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

TEMPORARY = ".part"  # in the name of files that are still being written
TOGETHER = 8  # files that the disk is asked for at the same time
LINE_BREAKS = re.compile(r"[\r\n\x00\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+")
LIMIT = threading.Lock()  # held while csv's limit of a field is another

ADVICE = {
    errno.ENOSPC: "the disk is full. Free some space",
    errno.EDQUOT: "your disk quota is used up. Free some space",
    errno.EACCES: "this account may not write there. Change the folder's permissions, or name another in project.toml",
    errno.EPERM: "this account may not write there. Change the folder's permissions, or name another in project.toml",
    errno.EROFS: "that disk is read-only. Name another folder in project.toml (data_dir, models_dir)",
    errno.EFBIG: "the file is larger than that disk, or this account, may hold. Name another folder in project.toml",
    errno.ENAMETOOLONG: "the path is too long for this system. Move the project to a shorter one",
}


class FieldguideError(ValueError):
    """
    Something a person can put right; the message says what happened, with which value, and what to do.

    In a notebook only the message is shown: a traceback would hide the one sentence that helps.
    """

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class WriteError(FieldguideError, OSError):
    """A file or folder could not be written."""


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
        advice = ADVICE.get(error.errno, f"{error.strerror or error}. Put that right")
        raise WriteError(
            f"Cannot write {path}: {advice} and run this notebook again; nothing gathered so far is lost."
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
    """Return the files in `folder`, sorted by name, without hidden ones; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir())


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in `folder`, sorted by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temporary(path: Path) -> Path:
    """Return a new hidden name beside `path`, as `remove_leftovers` knows it."""
    return path.with_name(f".{secrets.token_hex(8)}{TEMPORARY}{path.suffix}")


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """
    Yield a temporary path beside `path`; rename it to `path` if the block succeeds, else remove it.

    The rename is atomic within one file system, so a reader sees the old file or the whole new one.
    """
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


def write_new(path: Path, data: bytes) -> bool:
    """Write `data` to `path` unless something is there already; return whether it was written."""
    if path.exists():
        return False
    write_whole(path, data)
    return True


class Shelf:
    """
    Many new files, written aside and put in their places together: whole, on disk, and with one wait for many.

    What was not put in place when the process dies lies there as temporary files, for `remove_leftovers`.
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
        """Put all files in their places, or none of them that is not there yet when something goes wrong."""
        if not self._aside:
            return
        aside, self._aside = self._aside, {}
        left = dict(aside)
        try:
            # Asked at the same time, a file system settles many files in few turns of the disk: 4 times as quick.
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
    """Close and remove a temporary file; on a full disk, closing writes again what is left and fails again."""
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


def remove_leftovers(folder: Path, *, below: bool = True) -> int:
    """Remove the temporary files that a killed run left in `folder` and, mostly, below it; return how many."""
    name = f".{'[0-9a-f]' * 16}{TEMPORARY}*"
    leftovers = sorted(folder.rglob(name) if below else folder.glob(name))
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return len(leftovers)


def one_line(value) -> str:
    """
    Return a value as it is read back from a table: one line of valid UTF-8; web answers hold lone surrogates.

    >>> one_line("two\\nlines"), one_line("\\ud83d"), one_line(7)
    ('two lines', '?', '7')
    """
    return LINE_BREAKS.sub(" ", str(value).encode("utf-8", "replace").decode("utf-8"))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping], *, header: bool) -> str:
    """Return `rows` as CSV, one physical line a row."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if header:
        writer.writerow(columns)
    for row in rows:
        writer.writerow([one_line(row.get(column, "")) for column in columns])
    return buffer.getvalue()


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping]) -> None:
    """Write `rows` (mappings of column to value) as a CSV table, whole or not at all."""
    write_whole(path, csv_text(columns, rows, header=True))


def append_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping]) -> None:
    """
    Append `rows` to the log at `path` in one write of whole lines, and wait until they are on disk.

    A torn last line, left by a kill in the middle of a write, is cut off first.

    Raises
    ------
    FieldguideError
        If the last line has all columns and only lacks its line break (see `check_ended`), or the header is another.
    """
    text = csv_text(columns, rows, header=False)
    if not text:
        return
    if not path.exists() or path.stat().st_size == 0:
        write_whole(path, csv_text(columns, (), header=True) + text)
        return
    with explained(path), path.open("rb+") as log:
        _check_header(path, columns, _fields(log.readline(100_000).decode("utf-8-sig", "replace").rstrip("\r\n")))
        end, line = _last_line(log)
        if _is_whole(columns, line):
            raise FieldguideError(_unended(path))
        try:
            log.seek(end)
            log.truncate()
            log.write(text.encode("utf-8"))
            log.flush()
            os.fsync(log.fileno())
        except OSError:
            log.truncate(end)  # a full disk must not leave half a row behind
            raise


def check_ended(path: Path, columns: Sequence[str]) -> None:
    """
    Refuse a table whose last line has all columns but no line break, as some editors save it; call before rewriting.

    Such a line is most likely a person's whole row. It can't be told from one torn in its last field, so it is
    neither counted nor cut off.
    """
    if path.exists():
        with path.open("rb") as log:
            if _is_whole(columns, _last_line(log)[1]):
                raise FieldguideError(_unended(path))


def mend_log(path: Path, columns: Sequence[str]) -> None:
    """
    Cut off a last line without a line break, whole or not: for a log whose rows a machine can write again.

    A header that lacks its line break gets it. What does not begin with the header stays as it is.
    """
    if path.exists():
        with explained(path), path.open("rb+") as log:
            header = log.readline()
            if _fields(header.decode("utf-8-sig", "replace").rstrip("\r\n")) != list(columns):
                return
            end, line = _last_line(log)
            if end and line:
                log.truncate(end)
            elif line:
                log.seek(0, os.SEEK_END)
                log.write(b"\n")


def _last_line(log: BinaryIO) -> tuple[int, str]:
    """Return where the last line break of an open log ends, and the text behind it, which is no whole line."""
    end = log.seek(0, os.SEEK_END)
    tail = b""
    while b"\n" not in tail and len(tail) < end:
        start = max(0, end - 2 * len(tail) - 8192)  # twice as far each time: a log without line breaks is no trap
        log.seek(start)
        tail = log.read(end - start)
    line = tail[tail.rfind(b"\n") + 1 :]
    return end - len(line), line.decode("utf-8-sig", "replace")


def _is_whole(columns: Sequence[str], line: str) -> bool:
    """Return whether a line that lacks its line break has all columns."""
    return len(_fields(line)) == len(columns)


def _unended(path: Path) -> str:
    """Return what to do about a last line that has all columns but no line break."""
    with path.open("rb") as log:
        number = sum(1 for _ in log)
    return (
        f"{path}, line {number}: the last line has no line break at its end and is not counted. Open the file, press "
        "Enter at the end of that line if it is whole, delete it if it is not, and save."
    )


def _fields(line: str) -> list[str]:
    """Return the fields of one line; none if it is blank, or ends within quotes as only a torn one does."""
    try:
        return _split(line)
    except csv.Error:
        return []


def _split(line: str) -> list[str]:
    """Return the fields of one line, of any length; csv's limit, which is one for the whole process, stays as it is."""
    with LIMIT:
        limit = csv.field_size_limit(max(csv.field_size_limit(), len(line)))
        try:
            return next(csv.reader([line], strict=True), [])
        finally:
            csv.field_size_limit(limit)


def _check_header(path: Path, columns: Sequence[str], fields: Sequence[str]) -> None:
    if list(fields) == list(columns):
        return
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if mark.join(fields).replace('"', "").split(mark) == list(columns):
            raise FieldguideError(
                f"{path} has {name} between its columns, as some spreadsheets save it. Save it again as CSV with "
                "commas (and in UTF-8); nothing in it is lost."
            )
    raise FieldguideError(
        f"{path} begins with {','.join(fields)[:80]!r}, expected {','.join(columns)!r}. "
        "Put the first line back, or move the file away to begin a new one."
    )


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """
    Return the rows of the table at `path` as dicts of `columns`; an absent or empty file is an empty table.

    A last line without a line break is left out; where it has all columns, a warning says so.

    Raises
    ------
    FieldguideError
        If the header is another one, or a row has another number of fields: a table edited by hand.
    """
    return list(each_row(path, columns))


def each_row(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield what `read_rows` returns, a row at a time: a long log never lies in memory as a whole."""
    if not path.exists():
        return
    with path.open("rb") as file:
        end, line = _last_line(file)
    if _is_whole(columns, line):
        warnings.warn(_unended(path), stacklevel=3)
    with path.open(encoding="utf-8-sig", newline="\n") as file:  # spreadsheets put a mark in front
        try:
            for number, line in enumerate(file, start=1):
                if end and not line.endswith("\n"):
                    return  # torn
                fields = _row_fields(path, number, line)
                if number == 1:
                    _check_header(path, columns, fields)
                elif fields and len(fields) != len(columns):
                    raise FieldguideError(
                        f"{path}, line {number}: {len(fields)} fields where {len(columns)} are expected "
                        f"({','.join(fields)[:80]!r}). Repair or delete that line."
                    )
                elif fields:
                    yield dict(zip(columns, fields, strict=True))
        except UnicodeDecodeError as error:
            raise FieldguideError(f"{path} is not UTF-8 text ({error.reason}). Save it as CSV in UTF-8.") from error


def _row_fields(path: Path, number: int, line: str) -> list[str]:
    """Return the fields of one whole line: a row is a line (see `csv_text`), and no quote reaches into the next."""
    try:
        return _split(line.rstrip("\r\n"))
    except csv.Error as error:
        raise FieldguideError(f"{path}, line {number}: {error} ({line[:80]!r}). Repair or delete that line.") from error


@contextmanager
def locked(folder: Path, *, wait: float = 5.0) -> Iterator[None]:
    """
    Hold the lock of a data folder: one writer at a time, whoever it is.

    Raises
    ------
    FieldguideError
        If another notebook or program still holds it after `wait` seconds.
    """
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
