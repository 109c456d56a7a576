"""
What stage 02 knows: its tables, and the files in raw/, images/ and trash/ by their names alone.

Reads and appends to pictures.csv and rejected.csv. No picture is opened here, so the report costs nothing.
"""

import os
import re
from collections.abc import Container, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from utils.project import Project
from utils.storage import visible_files
from utils.tables import PICTURES_COLUMNS, REJECTED_COLUMNS, append_rows, each_row, one_line

ID = re.compile(r"[0-9a-f]{16}")
KNOWN = "the same picture "  # how the reasons of copies begin


@dataclass(frozen=True)
class Judged:
    """One picture after opening: its training copy, or the reason why it has none."""

    id: str
    label: str
    reason: str = ""
    copy: bytes = b""
    hash: str = ""
    width: int = 0
    height: int = 0
    warnings: str = ""
    bits: int | str = ""  # of the set, for a 16-bit picture
    unread: bool = False  # the system did not hand the file over, so the picture was not judged


@dataclass
class Run:
    """What one run of 02 did and met; it grows as the run goes on."""

    added: int = 0
    rejected: int = 0
    unread: list[Judged] = field(default_factory=list)  # files in raw/ that the system did not hand over
    left: list[Path] = field(default_factory=list)  # files in images/ that are plainly not pictures
    odd: list[Path] = field(default_factory=list)  # what is no file there: folders, pipes, sockets, links to nowhere
    changing: list[Path] = field(default_factory=list)  # files there that something wrote to meanwhile


class Tables:
    """The rows of pictures.csv, and those of rejected.csv that are of stage 02; appends new ones."""

    def __init__(self, project: Project):
        self.project = project
        self.label_of: dict[str, str] = {}
        self.accepted: set[tuple[str, str]] = set()  # (id, label)
        self.warnings: dict[str, str] = {}  # id → what may be wrong with it, "" for nothing
        self.bits: int | None = None  # of the set's 16-bit pictures; None as long as none was accepted
        for row in each_row(project.table("pictures"), PICTURES_COLUMNS):
            self._know(row)
        rejected = each_row(project.table("rejected"), REJECTED_COLUMNS)
        self.rejected = [row for row in rejected if row["stage"] == "verify"]
        self.settled = {(row["id"], row["label"]) for row in self.rejected}

    def _know(self, row: Mapping[str, str]) -> None:
        """Remember a row of pictures.csv; if a picture has several, the last one counts."""
        self.label_of[row["id"]] = row["label"]
        self.accepted.add((row["id"], row["label"]))
        self.warnings[row["id"]] = row["warnings"]
        if row["bits"]:
            self.bits = int(row["bits"])

    def add(self, batch: list[Judged]) -> None:
        """Append a row for each picture that has none yet."""
        good = {judged.id: vars(judged) for judged in batch if not judged.reason and judged.id not in self.label_of}
        append_rows(self.project.table("pictures"), PICTURES_COLUMNS, good.values())
        for row in good.values():
            self._know(row)
        new = [judged for judged in batch if judged.reason and (judged.id, judged.label) not in self.settled]
        rows = [{"id": one.id, "label": one.label, "stage": "verify", "reason": one_line(one.reason)} for one in new]
        append_rows(self.project.table("rejected"), REJECTED_COLUMNS, rows)
        self.rejected += rows
        self.settled |= {(row["id"], row["label"]) for row in rows}

    def standing(self) -> list[dict[str, str]]:
        """
        Return the rows of rejected.csv that still hold.

        Once pictures.csv lists a picture, it was taken back, and its row no longer holds. One kind does: a picture that
        was accepted earlier under another label stays rejected under this one, until it lies there.
        """
        return [row for row in self.rejected if not self._taken_back(row)]

    def _taken_back(self, row: dict[str, str]) -> bool:
        if row["id"] not in self.label_of:
            return False
        if (row["id"], row["label"]) in self.accepted or not row["reason"].startswith((f"{KNOWN}is", f"{KNOWN}was")):
            return True
        return (self.project.images / row["label"] / f"{row['id']}.jpg").is_file()


def raw_files(project: Project, *, ours: bool = True) -> list[Path]:
    """Return the gathered files of the project's labels, sorted; or, if not `ours`, the rest of raw/<label>/."""
    found = []
    for folder in (project.raw / label for label in project.labels):
        with os.scandir(folder) if folder.is_dir() else nullcontext(()) as entries:
            for entry in sorted(entries, key=attrgetter("name")):
                named = bool(ID.fullmatch(Path(entry.name).stem))
                if not entry.name.startswith(".") and ours == (named and entry.is_file(follow_symlinks=False)):
                    found.append(folder / entry.name)
    return found


def unlabelled(project: Project) -> list[Path]:
    """Return the photos that came without a label and have none yet: those in raw/, too, have been given one."""
    waiting = visible_files(project.unsorted)
    there = {path.stem for path in raw_files(project)} if waiting else set()
    return [path for path in waiting if path.stem not in there]


def by_id(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Return id → the files of that name, in the order given."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(path.stem, []).append(path)
    return found


def lying(project: Project) -> dict[str, list[Path]]:
    """Return id → where it lies in images/, whatever the folder: also one that is not a label any more."""
    return by_id(path for path in sorted(project.images.glob("*/*.jpg")) if path.is_file())


def trashed(project: Project, there: Container[str]) -> dict[str, Path]:
    """Return id → where it lies in trash/ and nowhere else: a person took it out, and it must not come back."""
    return {path.stem: path for path in sorted(project.trash.glob("*/*.jpg")) if path.stem not in there}


def already_under(label: str) -> str:
    """Return the reason for a picture that lies under another label."""
    return f"{KNOWN}is already under {label!r}"


def two_labels(others: Iterable[str]) -> str:
    """Return the reason for a picture that came under several labels, so that nobody can tell which is right."""
    return f"{KNOWN}came under two labels: also {', '.join(map(repr, others))}"


def kind(reason: str) -> str:
    """
    Return a reason without its details.

    >>> kind("too small: 63×200 pixels, at least 64 on a side are needed")
    'too small'
    """
    plain = re.sub(rf"\b{ID.pattern}\b", "another", reason)
    return re.split(r" \(|: ", plain, maxsplit=1)[0]
