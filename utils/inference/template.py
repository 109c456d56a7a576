"""
Stage 08, the template of a submission: a table whose rows name pictures, and whose other cells are to be filled.

A template comes from elsewhere. So its size is bounded, and what it names is compared, never opened. Its cells are kept
as they are written: what is not filled leaves as it came, quotes and line ends too.
"""

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .outputs import CannotDo, first_few

MAX_TEMPLATE = 2**28  # bytes: 200,000 rows with a column for each of 120 labels
MAX_ROWS = 1_000_000
MAX_RECORD = 2**20  # characters in a row: a column for each of some ten thousand labels
SEPARATORS = ",;\t"
ENCODINGS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}  # that keep the mark as a character
MARK = "\ufeff"
BETWEEN_WORDS = re.compile(r"[\s_.]+")


@dataclass(frozen=True)
class Template:
    """A table to be filled; `read_template` makes it."""

    path: Path
    data: bytes = field(repr=False)
    encoding: str
    separator: str
    header: tuple[str, ...] = ()  # the names of its H columns

    def records(self) -> Iterator[tuple[int, list[str], str]]:
        """
        Yield each record, the header first: the number of its first line, its cells as written, and its line end.

        Joined again, with separators between the cells, they are the text of the file. A record may have line breaks in
        quotes. Raises CannotDo where the text is no table.
        """
        text = io.TextIOWrapper(io.BytesIO(self.data), self.encoding, newline="")
        cells: list[str] = []
        held: list[str] = []  # parts of a cell whose quote is not closed yet
        start, length, mark, opened = 1, 0, "", False
        for number, line in enumerate(self._lines(text), start=1):
            length += len(line)
            if length > MAX_RECORD:
                raise self.wrong(start, f"a row of more than {MAX_RECORD:,} characters, or a quote that is not closed")
            if number == 1 and line.startswith(MARK):
                line, mark = line[1:], MARK
            body = line.rstrip("\r\n")
            for place, piece in enumerate(body.split(self.separator)):
                if not held and not piece.startswith('"'):
                    cells.append(piece)
                    continue
                held += [self.separator, piece] if held and place else [piece]
                opened ^= piece.count('"') % 2 == 1
                if not opened:
                    cells.append("".join(held))
                    held = []
            end = line[len(body) :]
            if held:
                held.append(end)
                continue
            yield start, [mark + cells[0], *cells[1:]], end
            cells, start, length, mark = [], number + 1, 0, ""
        if held:
            raise self.wrong(start, "a quote is opened and never closed")

    def _lines(self, text: io.TextIOWrapper) -> Iterator[str]:
        """Yield the lines of the text, none much longer than a row may be; refuse what is not text."""
        try:
            while line := text.readline(MAX_RECORD + 1):
                if "\0" in line:
                    raise CannotDo(f"{self.path} holds zero bytes, as no text does. Save it as CSV in UTF-8.")
                yield line
        except UnicodeDecodeError as error:
            raise CannotDo(
                f"{self.path} is not text in UTF-8 or UTF-16 ({error.reason}). Save it as CSV in UTF-8."
            ) from error

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each row below the header: its first line's number and its H cells; blank lines are passed over."""
        records = self.records()
        next(records)
        for count, (number, cells, _) in enumerate(filter(not_blank, records), start=1):
            if len(cells) != len(self.header):
                raise self.wrong(number, f"{len(cells)} cells, and the header has {len(self.header)}")
            if count > MAX_ROWS:
                raise CannotDo(f"{self.path} has more than {MAX_ROWS:,} rows. Split it.")
            yield number, cells

    def wrong(self, number: int, what: str) -> CannotDo:
        """Return the refusal of a line."""
        return CannotDo(f"{self.path}, line {number}: {what}. Mend the template, and run this again.")


@dataclass(frozen=True)
class Layout:
    """Which of a template's columns are what."""

    ids: int  # the column that names the pictures
    filled: Mapping[int, str | None]  # column → the label whose probability it takes; None: unknown to the model
    by_name: bool  # the one filled column takes the label itself


def not_blank(record: tuple[int, list[str], str]) -> bool:
    """Return whether a record of a template is a row, not an empty line."""
    return len(record[1]) > 1 or record[1][0].strip() != ""


def cell_text(cell: str) -> str:
    """
    Return the text that a cell stands for.

    >>> cell_text('"say ""a"", b"'), cell_text("a.png")
    ('say "a", b', 'a.png')
    """
    cell = cell.removeprefix(MARK)
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def written_as(cell: str, text: str, separator: str) -> str:
    """
    Return a text as it stands in a cell: in quotes if the cell had them, or if it must.

    >>> written_as('"x"', "ant", ","), written_as("x", "ant, red", ","), written_as("x", "ant", ",")
    ('"ant"', '"ant, red"', 'ant')
    """
    needed = cell.startswith('"') or any(sign in text for sign in (separator, '"', "\r", "\n"))
    return '"' + text.replace('"', '""') + '"' if needed else text


def read_template(path: Path) -> Template:
    """Return the template at `path`: commas, semicolons or tabs, in UTF-8 or UTF-16, its first line the header."""
    if not path.is_file():
        raise CannotDo(f"--submission {path}: there is no such file.")
    with path.open("rb") as file:
        data = file.read(MAX_TEMPLATE + 1)
    if len(data) > MAX_TEMPLATE:
        raise CannotDo(f"--submission {path}: it has more than {MAX_TEMPLATE // 2**20} MB. Split it.")
    encoding = ENCODINGS.get(data[:2], "utf-8")
    tried = [Template(path, data, encoding, separator) for separator in SEPARATORS]
    headers = [next((cells for _, cells, _ in template.records()), [""]) for template in tried]
    widest = max(range(len(tried)), key=lambda n: len(headers[n]))  # the first of equals
    header = tuple(cell_text(cell).strip() for cell in headers[widest])
    if len(header) < 2:
        raise CannotDo(
            f"--submission {path}: its first line {header[0][:80]!r} has one column. A template has two or more, with "
            "commas, semicolons or tabs between them: the picture's id, and what to fill in."
        )
    return Template(path, data, encoding, SEPARATORS[widest], header)


def find_layout(template: Template, labels: Sequence[str], named: str | None) -> Layout:
    """
    Return which columns hold the ids and which are to be filled.

    By default the first holds the ids. If there is one other, and no label has its name, it takes the label; else each
    other takes the probability of the label of its name. `named` names them instead: the column of the ids, then those
    to fill, with commas between.
    """
    header = template.header
    chosen = _positions(template, named) if named else list(range(len(header)))
    ids, *places = chosen
    known = labels_meant([header[place] for place in places], labels)
    if len(places) == 1 and not known:
        return Layout(ids, dict.fromkeys(places), by_name=True)
    if not known:
        raise CannotDo(
            f"{template.path} has the columns {first_few(header)}, and none is named after a label of the model "
            f"({first_few(labels)}). Name that of the ids, and that for the label: --columns {','.join(header[:2])}"
        )
    filled = {place: known.get(header[place]) for place in places}
    for label in set(known.values()):
        if len(same := [header[place] for place in places if filled[place] == label]) > 1:
            raise CannotDo(f"{template.path} has two columns for the label {label!r}: {first_few(same)}. Keep one.")
    return Layout(ids, filled, by_name=False)


def _positions(template: Template, named: str) -> list[int]:
    """Return where the columns stand that a person named."""
    names = [name.strip() for name in next(csv.reader([named]), [])]
    for name in names:
        if (times := template.header.count(name)) != 1:
            raise CannotDo(
                f"--columns {named}: {template.path} has {times or 'no'} column{'s' * (times > 1)} {name!r}. It has "
                f"{first_few(template.header)}."
            )
    if len(names) < 2 or len(set(names)) < len(names):
        raise CannotDo(f"--columns {named}: name the column of the ids and one or more others, each once: id,label")
    return [template.header.index(name) for name in names]


def loosely(text: str) -> str:
    """
    Return a name without what people write in different ways: case, blanks, underscores, dots.

    >>> loosely("Fat_hen") == loosely("fat  Hen"), loosely("Penaeus sp.")
    (True, 'penaeus sp')
    """
    return BETWEEN_WORDS.sub(" ", unicodedata.normalize("NFC", text)).strip().casefold()


def labels_meant(names: Iterable[str], labels: Sequence[str]) -> dict[str, str]:
    """
    Return name → label for names that are labels, or are loosely the same as one label alone.

    >>> labels_meant(["ant", "Fat Hen", "wasp"], ["ant", "fat_hen"])
    {'ant': 'ant', 'Fat Hen': 'fat_hen'}
    """
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault(loosely(label), []).append(label)
    exact, found = set(labels), {}
    for name in names:
        near = [name] if name in exact else alike.get(loosely(name), [])
        if len(near) == 1:
            found[name] = near[0]
    return found
