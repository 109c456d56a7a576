"""
Tables as CSV: logs that grow by whole lines, and the columns of every table.

Foundation of every stage. A row is one line of the file. A torn last line, left by a kill, is dropped when read. A text
that a spreadsheet would take for a formula is written with an apostrophe before it, and read back without.
"""

import csv
import io
import os
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import BinaryIO

from utils.errors import FieldguideError
from utils.storage import explained, write_whole

LINE_BREAKS = re.compile(r"[\r\n\x00\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+")
# How a formula of a spreadsheet begins, after blanks, quotes and, so that `plain_text` undoes `guarded`, apostrophes.
FORMULA = r"'*(?:\"|[^\S\t\r\n])*[=+\-@\uff1d\uff0b\uff0d\uff20]"
TO_GUARD = re.compile(rf"(^|[;\t\r\n])(?={FORMULA})")  # spreadsheets may split cells at semicolons or tabs
GUARDED = re.compile(rf"(^|[;\t\r\n])'(?={FORMULA})")
CELLS_TO_GUARD = re.compile(rf"(^|[,;\t\n]){FORMULA}")
LIMIT = threading.Lock()  # held while csv's limit of a field is another: the whole process has only one
FOLDER, HAND = "folder", "hand"  # engines in sources.csv: files of a source here, those a person put into images/
TABLE = "table"  # … addresses in a table of photos
TAKEN = ("kept", "thumbnail")  # the statuses in sources.csv of rows that stand for a file
HAD = (*TAKEN, "copy")  # … of those whose picture lies there, maybe under another row
SOURCES_COLUMNS = (
    *("id", "label", "query", "engine", "url", "page_url", "title", "license", "status", "reason"),
    *("bytes", "width", "height", "fetched_at"),
)
GIVEN_COLUMNS = ("url", "label", "side", "group", "creator", "rights_holder")
PICTURES_COLUMNS = ("id", "label", "hash", "width", "height", "warnings", "bits")
FIRST_COLUMNS = {PICTURES_COLUMNS: 6}  # of a table that grew since: one that ends after them is an older one
REJECTED_COLUMNS = ("id", "label", "stage", "reason")
SPLIT_COLUMNS = ("id", "group", "side")
SIDES = ("train", "valid", "test")
COPIES_COLUMNS = ("id", "bytes", "changed", "content")
BOX_CORRECTION_COLUMNS = ("time", "id", "before", "after", "kind")
BOXES_COLUMNS = ("id", "label", "left", "top", "right", "bottom", "flags", "by")
REVIEW_COLUMNS = ("id", "choice", "time")
CORRECTION_COLUMNS = ("time", "id", "old", "new", "predicted", "probability")
STROKES_COLUMNS = ("time", "token", "do", "size", "points", "file")
HISTORY_COLUMNS = ("epoch", "phase", "train_loss", "valid_loss", "accuracy", "lr", "seconds")
RUNS_COLUMNS = (
    *("setting", "seed", "settings", "status", "reason", "accuracy", "valid_loss", "train_accuracy"),
    *("seconds", "history", "judged", "right", "finished_at"),
)
ATTRIBUTION_COLUMNS = (
    *("id", "label", "side", "title", "page_url", "url"),
    *("license", "creator", "rights_holder", "engine", "fetched_at"),
)
PREDICTION_COLUMNS = ("id", "side", "label", "predicted")  # then one column per label
OUT_OF_FOLD_COLUMNS = ("id", "fingerprint", "distance")  # then one column per label


def one_line(value) -> str:
    """
    Return a value as it is read back from a table: one line of valid UTF-8. Web answers may hold lone surrogates.

    >>> one_line("two\\nlines"), one_line("\\ud83d"), one_line(7)
    ('two lines', '?', '7')
    """
    text = str(value)
    if text.isprintable():  # as nearly all are; the rest is slow
        return text
    return LINE_BREAKS.sub(" ", text.encode("utf-8", "replace").decode("utf-8"))


def guarded(text: str) -> str:
    """
    Return a text as it stands in a table: an apostrophe precedes what a spreadsheet would run as a formula.

    `plain_text` returns the text again, whatever it is.

    >>> guarded("=1+1"), guarded("ants;@SUM(A1)"), guarded("'=1"), guarded("a-b = c")
    ("'=1+1", "ants;'@SUM(A1)", "''=1", 'a-b = c')
    """
    return TO_GUARD.sub(r"\1'", text)


def plain_text(cell: str) -> str:
    """
    Return the text that a cell of a table stands for: what `guarded` was given.

    >>> plain_text("'=1+1"), plain_text("''=1"), plain_text("=1+1"), plain_text("'t was")
    ('=1+1', "'=1", '=1+1', "'t was")
    """
    return GUARDED.sub(r"\1", cell) if "'" in cell else cell


def csv_text(columns: Sequence[str], rows: Iterable[Mapping], *, header: bool) -> str:
    """Return `rows` as CSV, one line per row; what a spreadsheet would run is `guarded`, numbers stay numbers."""
    rows = [*([columns] if header else []), *([row.get(column, "") for column in columns] for row in rows)]
    text = "".join([",".join(map(str, row)) + "\n" for row in rows])
    plain = text.count(",") == len(rows) * (len(columns) - 1) > 0 and text.count("\n") == len(rows) and '"' not in text
    if plain and text.replace("\n", "").isprintable() and not CELLS_TO_GUARD.search(text):
        return text  # what csv would write, in a third of the time
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([one_line(v) if isinstance(v, Real) else guarded(one_line(v)) for v in row] for row in rows)
    return buffer.getvalue()


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping]) -> None:
    """Write `rows` (mappings of column to value) as a CSV table, whole or not at all."""
    write_whole(path, csv_text(columns, rows, header=True))


def append_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping]) -> None:
    """
    Append `rows` to the log at `path` in one write of whole lines, and wait until they are on disk.

    A torn last line, left by a kill in the middle of a write, is cut off first. One that has all columns and lacks only
    its line break is refused: it may be a person's whole row, as some editors save it, or torn in its last field.
    """
    text = csv_text(columns, rows, header=False)
    if not text:
        return
    if not path.exists() or path.stat().st_size == 0:
        write_whole(path, csv_text(columns, (), header=True) + text)
        return
    if tuple(columns) in FIRST_COLUMNS:
        _grow(path, columns)
    with explained(path), path.open("rb+") as log:
        _check_header(path, columns, _parsed(log.readline(100_000)))
        end, line = _unended(log)
        if len(_parsed(line)) == len(columns):
            raise FieldguideError(_end_it(path, log))
        try:
            log.seek(end)
            log.truncate()
            log.write(text.encode("utf-8"))
            log.flush()
            os.fsync(log.fileno())
        except OSError:
            log.truncate(end)  # a full disk must not leave half a row behind
            raise


def _grow(path: Path, columns: Sequence[str]) -> None:
    """Write an older table anew, with the columns that it lacks."""
    with explained(path), path.open("rb") as log:
        older = _check_header(path, columns, _parsed(log.readline(100_000)))
    if older:
        write_table(path, columns, each_row(path, columns, ended=True))


def check_ended(path: Path, columns: Sequence[str]) -> None:
    """Refuse a table whose last line has all columns but no line break (see `append_rows`)."""
    if path.exists():
        with path.open("rb") as log:
            if len(_parsed(_unended(log)[1])) == len(columns):
                raise FieldguideError(_end_it(path, log))


def mend_log(path: Path, columns: Sequence[str]) -> None:
    """Cut off a last line without a line break, if a machine can write it again; a header gets its line break."""
    if path.exists():
        with explained(path), path.open("rb+") as log:
            if _parsed(log.readline()) != list(columns):
                return
            end, line = _unended(log)
            if end and line:
                log.truncate(end)
            elif line:
                log.seek(0, os.SEEK_END)
                log.write(b"\n")


def _unended(log: BinaryIO) -> tuple[int, bytes]:
    """Return where the last line break of an open log ends, and the bytes after it: a line without its end."""
    end = log.seek(0, os.SEEK_END)
    tail = b""
    while b"\n" not in tail and len(tail) < end:
        start = max(0, end - 2 * len(tail) - 8192)  # twice as far each time: a log without line breaks is no trap
        log.seek(start)
        tail = log.read(end - start)
    line = tail[tail.rfind(b"\n") + 1 :]
    return end - len(line), line


def _end_it(path: Path, log: BinaryIO) -> str:
    """Return what to do about a last line that has all columns but no line break."""
    log.seek(0)
    return (
        f"{path}, line {sum(1 for _ in log)}: the last line has no line break at its end and is not counted. Open the "
        "file, press Enter at the end of that line if it is whole, delete it if it is not, and save."
    )


def _parsed(line: bytes) -> list[str]:
    """Return the fields of one line; none if it is blank, or ends within quotes as only a torn one does."""
    try:
        return _split(line.decode("utf-8-sig", "replace").rstrip("\r\n"))
    except csv.Error:
        return []


def _split(line: str) -> list[str]:
    """Return the texts in one line, of any length; csv's limit, which is one for the whole process, stays as it is."""
    if "'" in line:
        return [plain_text(cell) for cell in _cells(line)]
    return _cells(line)


def _cells(line: str) -> list[str]:
    """Return the cells of one line as they stand in the file."""
    if '"' not in line and "\r" not in line:
        return line.split(",") if line else []
    with LIMIT:
        limit = csv.field_size_limit(max(csv.field_size_limit(), len(line)))
        try:
            return next(csv.reader([line], strict=True), [])
        finally:
            csv.field_size_limit(limit)


def _check_header(path: Path, columns: Sequence[str], fields: Sequence[str]) -> int:
    """Refuse a table that does not begin with its columns; return how many of them an older table lacks."""
    first = FIRST_COLUMNS.get(tuple(columns), len(columns))
    if first <= len(fields) and list(fields) == list(columns[: len(fields)]):
        return len(columns) - len(fields)
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

    A last line without a line break is left out; where it has all columns, a warning says so. Another header, or a row
    with another number of fields, is refused.
    """
    return list(each_row(path, columns))


def each_row(path: Path, columns: Sequence[str], *, ended: bool = False) -> Iterator[dict[str, str]]:
    """Yield what `read_rows` returns, row by row; with `ended`, a whole last line without a line break is an error."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            whole = line.endswith(b"\n")
            fields = _row_fields(path, number, line) if whole or number == 1 else _parsed(line)
            if number == 1:
                lacks = _check_header(path, columns, fields)
            fields += [""] * lacks * (number > 1 and bool(fields))
            if not whole:
                if len(fields) == len(columns) and ended:
                    raise FieldguideError(_end_it(path, file))
                if len(fields) == len(columns):
                    warnings.warn(_end_it(path, file), stacklevel=3)
                return
            if number > 1 and fields:
                if len(fields) != len(columns):
                    raise FieldguideError(
                        f"{path}, line {number}: {len(fields)} fields where {len(columns)} are expected "
                        f"({','.join(fields)[:80]!r}). Repair or delete that line."
                    )
                yield dict(zip(columns, fields, strict=False))  # as many they are


def _row_fields(path: Path, number: int, line: bytes) -> list[str]:
    """Return the fields of one whole line. No quote reaches into the next line."""
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")  # spreadsheets put a mark in front
        return _split(text.rstrip("\r\n"))
    except UnicodeDecodeError as error:
        raise FieldguideError(
            f"{path}, line {number}, is not UTF-8 text ({error.reason}). Save it as CSV in UTF-8."
        ) from error
    except csv.Error as error:
        raise FieldguideError(
            f"{path}, line {number}: {error} ({line.decode()[:80]!r}). Repair or delete that line."
        ) from error
