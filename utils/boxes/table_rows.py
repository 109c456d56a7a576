"""
Rows of large tables: those that matter are kept in data/<name>/cache/, so that a second run reads no gigabytes.
"""

import csv
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.boxes.source import BoxNotes
from utils.boxes.streams import is_address, line_blocks, lines_with
from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import content_id, file_stamp, write_whole

MOST_LINES_IN_ROW = 50  # of a text with line breaks in quotes
NOT_A_HEADER = 200  # characters of a first line that are shown


@dataclass(frozen=True)
class TableRows:
    """The rows of one table that were asked for, as lines, and where each column stands."""

    place: str
    columns: dict[str, int]  # name in small letters → position
    lines: tuple[bytes, ...]

    def rows(self, notes: BoxNotes) -> Iterator[list[str]]:
        """Yield the cells of each row; those of a row with too many or too few are counted and left out."""
        for line in self.lines:
            cells = cells_of(line)
            if len(cells) == width_of(self.columns):
                yield cells
            else:
                fields = f"with another number of fields than {width_of(self.columns)}"
                notes.left("row", fields, f"{line[:40]!r} in {self.place}")


def wanted_rows(
    project: Project, place: str, column: str, words: Collection[str], notes: BoxNotes, *, needed: Sequence[str] = ()
) -> TableRows:
    """
    Return the rows of a table whose `column` is one of some words, in the order of the table.

    The table is a CSV file, or an address that holds one, with its columns in any order. Raises FieldguideError if it
    cannot be read, or lacks a column that is `needed`. A table that ends within a row is told, and is read anew next
    time.
    """
    kept = _cache_file(project, place, [column, sorted(words)])
    if kept.exists():
        header, *lines = kept.read_bytes().splitlines()
        return TableRows(place, _place_of_columns(place, header, (column, *needed)), tuple(lines))
    blocks = iter(line_blocks(place, allowed_hosts=project.allowed_hosts))
    header, begin = _header(next(blocks, b""))
    columns = _place_of_columns(place, header, (column, *needed))
    ends: list[bytes] = []
    blocks = _watched(begin, blocks, ends)
    at, words = columns[column.casefold()], set(words)
    if column.casefold() == "imageid":
        found = _lines_of_ids(blocks, at, words, quoted=b'"' in header)
    else:
        inside = 0 < at < width_of(columns) - 1 and b'"' not in header
        found = lines_with(blocks, words, between=b"," if inside else b"")
    lines = tuple(line for line in found if _cell(line, at) in words)
    if ends and len(cells_of(ends[0])) != width_of(columns):
        notes.told("table", "cut short: its last row is not whole, and what followed it is missing", place)
        lines = tuple(line for line in lines if line != ends[0])
    else:
        write_whole(kept, b"\n".join([header, *lines]) + b"\n")
    return TableRows(place, columns, lines)


def _cache_file(project: Project, place: str, asked: object) -> Path:
    """Return where the rows of a table are kept; a file that changed is another one."""
    stamp = [] if is_address(place) else file_stamp(Path(place))
    key = content_id(json.dumps([place, stamp, asked]).encode("utf-8"))
    return project.data / "cache" / "open_images" / f"{key}.csv"


def _header(block: bytes) -> tuple[bytes, bytes]:
    """Return the first line of a table, and the rest of a block."""
    header, _, rest = block.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    return header.removesuffix(b"\r"), rest


def _place_of_columns(place: str, header: bytes, needed: Iterable[str]) -> dict[str, int]:
    """Return where each column stands, or refuse a table without those that are needed."""
    columns = {name.strip().casefold(): n for n, name in enumerate(cells_of(header))}
    if missing := [name for name in needed if name.casefold() not in columns]:
        shown = header.decode("utf-8", "replace")[:NOT_A_HEADER]
        raise FieldguideError(
            f"{place} has no column {missing[0]}; it begins with {shown!r}. Is it another table? Correct [open_images]."
        )
    return columns


def _watched(begin: bytes, blocks: Iterator[bytes], ends: list[bytes]) -> Iterator[bytes]:
    """Yield blocks, and note the last line if it lacks its line break."""
    last = begin
    if begin:
        yield begin
    for last in blocks:
        yield last
    if last and not last.endswith(b"\n"):
        ends.append(last[last.rfind(b"\n") + 1 :].removesuffix(b"\r"))


def width_of(columns: Mapping[str, int]) -> int:
    """Return how many fields a row has; a name that stands there twice counts twice."""
    return max(columns.values()) + 1


def _lines_of_ids(blocks: Iterable[bytes], at: int, ids: Collection[str], *, quoted: bool) -> Iterator[bytes]:
    """Yield the lines with one of many ids in a column; a text in quotes may have line breaks."""
    wanted = {id.encode() for id in ids}
    plain = at == 0 and not quoted
    cell: Callable[[bytes], bytes] = _first_cell if plain else lambda line: _cell(line, at).encode()
    open_line, joined = b"", 0
    for block in blocks:
        for line in block.splitlines():
            if open_line:
                open_line, joined = open_line + b" " + line, joined + 1
                if open_line.count(b'"') % 2 == 0 or joined > MOST_LINES_IN_ROW:
                    yield open_line
                    open_line, joined = b"", 0
            elif cell(line) in wanted:
                if line.count(b'"') % 2:
                    open_line = line
                else:
                    yield line
    if open_line:
        yield open_line


def _first_cell(line: bytes) -> bytes:
    return line[: line.find(b",")]


def _cell(line: bytes, at: int) -> str:
    """Return one cell of a line; "" if it has too few."""
    cells = cells_of(line)
    return cells[at] if at < len(cells) else ""


def cells_of(line: bytes) -> list[str]:
    """
    Return the cells of one line of CSV.

    >>> cells_of(b'a,"b, c",d')
    ['a', 'b, c', 'd']
    """
    text = line.decode("utf-8", "replace")
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text]), [])
    except csv.Error:
        return []
