"""
Flags: what a person decided about pictures and the ledger has not carried out yet.

Reads and writes review.csv, and reads choices made elsewhere (choices.csv). A flag is on disk when it is set, and
belongs to a picture's id, never to a place on screen. One flag is a new row at the end of the table; the last row of
an id counts. Several flags at once are a new table, so that all of them are stored or none is.
"""

import csv
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path, PurePosixPath

from utils.dataset import pictures_in
from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import explained, file_stamp, locked
from utils.tables import LINE_BREAKS, REVIEW_COLUMNS, append_rows, each_row, plain_text, write_table
from utils.words import listed

KEEP, DELETE = "Keep", "Delete"  # choices in review.csv, where a label may stand too
UNFIT = re.compile(r"[/\\\ud800-\udfff]")  # never in an id: it would lead to another folder, or not fit in a table
LONGEST_ID = 251  # bytes, so that ".jpg" fits behind it
FEW_FILES = 2000  # files looked for one by one; for more it is quicker to list the folders


def read_review(project: Project) -> dict[str, str]:
    """Return the flags not yet applied, id → "Keep", "Delete" or a label; the last row of an id counts."""
    return {id: row["choice"] for id, row in read_flags(project).items()}


def save_flag(project: Project, id: str, choice: str | None) -> None:
    """
    Store the flag of one picture, "Keep", "Delete" or a label, on disk, at once; None takes it back ("not looked at").

    A picture's own label is stored as "Keep". A picture that is not in the training set is refused.
    """
    if refused := save_flags(project, {id: choice}):
        raise FieldguideError(refused[id])


def save_flags(project: Project, choices: Mapping[str, str | None]) -> dict[str, str]:
    """Store the flags of several pictures as `save_flag` does, and return those refused, id → reason."""
    with locked(project.data):
        return store_flags(project, choices)[1]


def read_choices(path: str | Path) -> dict[str, str]:
    """
    Read choices a person made elsewhere: a CSV with the columns id and choice, others are ignored.

    An id may be a file name or a path. If an id comes twice, the last choice counts. The separator may be a comma, a
    semicolon or a tab: spreadsheets write all three.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        header = lines[0] if lines else ""
        mark = next((mark for mark in ",;\t" if mark in header), ",")
        rows = csv.DictReader(lines, delimiter=mark)
        rows.fieldnames = [name.strip().casefold() for name in rows.fieldnames or ()]
        if missing := {"id", "choice"} - set(rows.fieldnames):
            raise FieldguideError(
                f"{path} begins with {header[:80]!r}: the column {' and '.join(sorted(missing))} is missing. "
                "Its first line must name the columns id and choice."
            )
        return {id_in(row["id"] or ""): plain_text((row["choice"] or "").strip()) for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FieldguideError(f"Cannot read the choices in {path}: {error}. Save them as CSV in UTF-8.") from error


def save_choices(project: Project, path: str | Path) -> dict[str, str]:
    """
    Merge the choices of a CSV (see `read_choices`) into the review, once; return those refused, id → reason.

    A merged file is renamed to its next free number, such as choices.001.csv. Read again, it would redo what was
    undone and override newer flags. To merge it again, for example after mending what was refused, rename it back.
    Where it cannot be renamed, its choices are in the review already.
    """
    path = Path(path)
    with locked(project.data):
        _, refused = store_flags(project, read_choices(path))
        numbered = (path.with_name(f"{path.stem}.{number:03}{path.suffix}") for number in count(1))
        with explained(path):
            path.rename(next(name for name in numbered if not os.path.lexists(name)))
    return refused


# --- what the ledger needs too; whoever changes something holds the lock ------------------------------------------


def read_flags(project: Project, *, ended: bool = False) -> dict[str, dict[str, str]]:
    """Return the last row of each id in review.csv, the one set last at the end; `ended` as in `each_row`."""
    flags: dict[str, dict[str, str]] = {}
    for row in each_row(project.table("review"), REVIEW_COLUMNS, ended=ended):
        flags.pop(row["id"], None)
        flags[row["id"]] = row
    return flags


class Review:
    """The flags, id → its last row, for one holder of the lock: read once, and written only when they change."""

    def __init__(self, project: Project):
        self._project, self._path = project, project.table("review")
        self._read()

    def _read(self) -> None:
        self._stamp = file_stamp(self._path)
        self.flags = read_flags(self._project, ended=True)

    def change(self, *, gone: Iterable[Mapping[str, str]] = (), new: Iterable[dict[str, str]] = ()) -> None:
        """Take the rows `gone` out and put `new` in, both or neither; a flag set anew has another time, and stays."""
        if file_stamp(self._path) != self._stamp:  # an editor knows no lock
            self._read()
        new = {row["id"]: row for row in new}
        dropped = {row["id"] for row in gone if self.flags.get(row["id"]) == row}
        if new or dropped:
            kept = {id: row for id, row in self.flags.items() if id not in dropped and id not in new}
            write_table(self._path, REVIEW_COLUMNS, [*kept.values(), *new.values()])
            self._stamp, self.flags = file_stamp(self._path), kept | new


def store_flags(project: Project, choices: Mapping[str, str | None]) -> tuple[dict[str, str | None], dict[str, str]]:
    """Store flags as `save_flags` does, and return id → choice of those stored and id → reason of those refused."""
    labels = labels_of(project.images, project.labels, choices)
    stored, refused = {}, {}
    for id, choice in choices.items():
        try:
            stored[id] = None if choice is None else _spelt(project, id, choice, labels.get(id, []))
        except FieldguideError as error:
            refused[id] = str(error)
    rows = [{"id": id, "choice": choice, "time": now()} for id, choice in stored.items() if choice]
    withdrawn = [id for id, choice in stored.items() if choice is None]
    if withdrawn or len(rows) > 1:
        review = Review(project)
        review.change(gone=[review.flags[id] for id in withdrawn if id in review.flags], new=rows)
    else:
        append_rows(project.table("review"), REVIEW_COLUMNS, rows)
    return stored, refused


def labels_of(root: Path, labels: Iterable[str], ids: Iterable[str]) -> dict[str, list[str]]:
    """Return each of `ids` that lies in a label's folder below `root` now, id → the labels it lies under."""
    labels, under = list(labels), {id: [] for id in ids if is_id(id)}
    if len(under) * len(labels) <= FEW_FILES:
        for id, found in under.items():
            found += [label for label in labels if (root / label / f"{id}.jpg").exists()]
    else:
        for label in labels:
            for name in pictures_in(root / label):
                if (id := name.removesuffix(".jpg")) in under:
                    under[id].append(label)
    return {id: found for id, found in under.items() if found}


def is_id(id: str) -> bool:
    """
    Return whether an id is a plain file name that a table holds as it is.

    >>> is_id("0123456789abcdef"), is_id("../cat/0123456789abcdef")
    (True, False)
    """
    hidden = not id or id.startswith(".")
    return not (hidden or UNFIT.search(id) or LINE_BREAKS.search(id)) and len(id.encode("utf-8")) <= LONGEST_ID


def id_in(text: str) -> str:
    """
    Return the id in a file name or path.

    >>> id_in("images/cat/0123456789abcdef.jpg")
    '0123456789abcdef'
    """
    return PurePosixPath(text.strip().replace("\\", "/")).name.removesuffix(".jpg")


def now() -> str:
    """Return the time in UTC to the microsecond: it also tells two rows about one picture apart."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _spelt(project: Project, id: str, choice: str, labels: Sequence[str]) -> str:
    """Return `choice` as review.csv spells it, or raise saying why it cannot be stored."""
    if not labels:
        raise FieldguideError(f"{id!r} is not in the training set {project.images}. Was it moved or deleted?")
    if len(labels) > 1:
        raise FieldguideError(f"{id!r} lies under {' and '.join(map(repr, labels))}. Remove all but one of the files.")
    word = choice.strip().strip("<>").capitalize()  # fastai writes <Keep> and <Delete>
    label = unicodedata.normalize("NFC", choice.strip())
    if word in (KEEP, DELETE):
        return word
    if label not in project.labels:
        raise FieldguideError(
            f"{choice!r} is no choice for {id!r}. Choose {KEEP}, {DELETE} or one of {listed(project.labels)}."
        )
    return KEEP if label == labels[0] else label
