"""
Stage 08, what the command line writes: new files, whole or not at all, and lines that a terminal can show.
"""

import csv
import errno
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

NO_LETTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")  # which end a line, or tell a terminal what to do
SHOWN = 5  # names in a sentence
# What a spreadsheet runs as a formula: at the start of a cell, which some also begin at semicolons, tabs and line ends.
RUN_AS_FORMULA = re.compile(r"(^|[;\t\r\n])(?='*(?:\"|[^\S\t\r\n])*[=+\-@\uff1d\uff0b\uff0d\uff20])")


class CannotDo(ValueError):
    """What was asked for cannot be done; the message says why."""


class NotWritten(ValueError):
    """This photo was judged, but what was to be written of it could not be; the message says why."""


def tabbed(cells: Iterable[str]) -> str:
    """
    Return cells as one line with tabs between them; what would end it, or command a terminal, becomes a space.

    >>> tabbed(["a.jpg", "two\\nlines"])
    'a.jpg\\ttwo lines'
    """
    return "\t".join(NO_LETTERS.sub(" ", cell) for cell in cells)


def first_few(names: Sequence[str]) -> str:
    """
    Return the first of some names, for a sentence.

    >>> first_few(["ant", "bee"]), first_few(["1", "2", "3", "4", "5", "6", "7"])
    ('“ant”, “bee”', '“1”, “2”, “3”, “4”, “5” and 2 more')
    """
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(f"“{tabbed([name])[:60]}”" for name in names[:SHOWN]) + more


def refuse_taken(path: Path, option: str = "--csv") -> None:
    """Refuse to write a file where something is already, or where there is no folder."""
    if os.path.lexists(path):
        raise CannotDo(f"{option} {path}: this file is there already, and is not written over. Name another.")
    if not path.parent.is_dir():
        raise CannotDo(f"{option} {path}: there is no folder {path.parent}. Make it first.")


@contextmanager
def new_csv(path: Path, header: Sequence[str]) -> Iterator[Callable[[Sequence[str]], None]]:
    """Yield a function that writes a row of a new table; the table is at `path` if the block succeeds, else nowhere."""
    refuse_taken(path)
    errors = sys.getfilesystemencodeerrors()  # a file's name may hold bytes that are not letters
    with unclobbered(path) as temporary, temporary.open("w", encoding="utf-8", errors=errors, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        yield writer.writerow


def as_cells(file: str, label: str) -> list[str]:
    """
    Return a file's name and a label as they stand in a table that a spreadsheet may open.

    They are as they are, quotes and line breaks too, unless a spreadsheet would take them for a formula: then the path
    begins with ``./``, and an apostrophe precedes the label, as in the tables of a project.
    """
    name = os.path.join(".", file) if RUN_AS_FORMULA.match(file) else file  # noqa: PTH118
    return [RUN_AS_FORMULA.sub(r"\1'", text) for text in (name, label)]


@contextmanager
def unclobbered(path: Path) -> Iterator[Path]:
    """Yield a temporary path; what was written there is put at `path` if the block succeeds and nothing is there."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename, it never replaces
        except OSError:  # something is there, or the disk knows no links
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, "is there already, and is not written over", str(path)) from None
            temporary.rename(path)
    except OSError as error:
        if str(error.filename) == str(temporary):  # nobody named that one
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
