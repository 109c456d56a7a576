"""
The pictures of a project as one frozen table: read once, then handed from function to function.

Foundation of every stage. Reads the folders of images/ once and split.csv once. What the notebooks say of a picture
(its label, group, side) comes from here, so that two cells of one notebook cannot disagree. After files moved, read
it anew.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from utils.errors import FieldguideError
from utils.project import Project
from utils.tables import FOLDER, HAND, SIDES, SOURCES_COLUMNS, SPLIT_COLUMNS, TAKEN, each_row, read_rows


@dataclass(frozen=True)
class Picture:
    """One row of a `Dataset`; `side` is None while split.csv does not know the picture."""

    id: str
    path: Path
    label: str
    group: str
    side: str | None


@dataclass(frozen=True)
class Dataset:
    """
    The N pictures of a training set, sorted by id, as columns of one length.

    Attributes
    ----------
    project : Project
    ids : tuple of N str
    paths : tuple of N paths
        images/<label>/<id>.jpg.
    labels : tuple of N str
        The parent folder of the path, and nothing else, is the label.
    groups : tuple of N str
        Near-duplicates share a group. A picture that split.csv does not know is a group of its own.
    sides : tuple of N str or None
        "train", "valid" or "test"; None where split.csv does not know the picture.
    split : mapping of id to (group, side)
        All of split.csv. Pictures that are absent now, in the trash or of a label that left the project file, keep
        their group and side here: they may come back.
    """

    project: Project
    ids: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    sides: tuple[str | None, ...]
    split: Mapping[str, tuple[str, str]]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Picture]:
        return map(Picture, self.ids, self.paths, self.labels, self.groups, self.sides)

    def __getitem__(self, id: str) -> Picture:
        """Return the picture of an id, or raise KeyError."""
        n = self.position[id]
        return Picture(self.ids[n], self.paths[n], self.labels[n], self.groups[n], self.sides[n])

    def __contains__(self, id: object) -> bool:
        return id in self.position

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Id → its place in the columns."""
        return {id: n for n, id in enumerate(self.ids)}

    @cached_property
    def codes(self) -> tuple[int, ...]:
        """The labels as positions in the project's list of labels, each in [0, K)."""
        place = {label: k for k, label in enumerate(self.project.labels)}
        return tuple(place[label] for label in self.labels)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """
        The name that each file had in the folder it came from, "" where it came from elsewhere.

        Read from sources.csv when it is first asked for.
        """
        own: dict[str, str] = {}
        for row in each_row(self.project.table("sources"), SOURCES_COLUMNS):
            if row["engine"] in (FOLDER, HAND) and row["status"] in TAKEN:
                own.setdefault(row["id"], row["title"])
        return tuple(own.get(id, "") for id in self.ids)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change when a picture, a label or a side does."""
        facts = {
            "labels": list(self.project.labels),
            "pictures": list(zip(self.ids, self.labels, self.sides, strict=True)),
        }
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def where(self, wanted: Callable[[Picture], bool]) -> "Dataset":
        """
        Return the pictures for which `wanted` is true, in the same order.

        For example ``dataset.where(lambda picture: picture.side == "valid")``.
        """
        return self._rows([n for n, picture in enumerate(self) if wanted(picture)])

    def on(self, *sides: str) -> "Dataset":
        """Return the pictures of the named sides, in the same order."""
        return self._rows([n for n, side in enumerate(self.sides) if side in sides])

    def of(self, label: str) -> "Dataset":
        """Return the pictures of one label, in the same order."""
        return self._rows([n for n, own in enumerate(self.labels) if own == label])

    def with_split(self, split: Mapping[str, tuple[str, str]]) -> "Dataset":
        """Return the same pictures with the groups and sides of another split."""
        groups, sides = _columns(self.ids, split)
        return replace(self, groups=groups, sides=sides, split=split)

    def _rows(self, places: Sequence[int]) -> "Dataset":
        columns = ("ids", "paths", "labels", "groups", "sides")
        return replace(self, **{name: tuple(getattr(self, name)[n] for n in places) for name in columns})


def read_dataset(project: Project) -> Dataset:
    """
    Read the pictures of a project: its folders as they are now, and split.csv.

    Labels that left the project file are left out.

    Raises
    ------
    FieldguideError
        If one id lies in two label folders (nobody can know which label is meant), or split.csv names an unknown side.
    """
    found: dict[str, tuple[str, str]] = {}  # id → label, path
    for label in project.labels:
        for name, path in _pictures_in(project.images / label):
            id = name.removesuffix(".jpg")
            if id in found:
                raise FieldguideError(
                    f"The picture {name} lies under two labels: {found[id][0]!r} and {label!r} in {project.images}. "
                    "Remove one of the two."
                )
            found[id] = label, path
    ids = tuple(sorted(found))
    split = read_split(project)
    groups, sides = _columns(ids, split)
    paths = tuple(Path(found[id][1]) for id in ids)
    return Dataset(project, ids, paths, tuple(found[id][0] for id in ids), groups, sides, split)


def read_split(project: Project) -> dict[str, tuple[str, str]]:
    """Return split.csv as id → (group, side); the first row of an id counts: a picture never changes side."""
    rows: dict[str, tuple[str, str]] = {}
    for row in read_rows(project.table("split"), SPLIT_COLUMNS):
        if row["side"] not in SIDES:
            raise FieldguideError(
                f"{project.table('split')} says {row['side']!r} for picture {row['id']}, expected one of "
                f"{', '.join(SIDES)}. Correct that line."
            )
        rows.setdefault(row["id"], (row["group"], row["side"]))
    return rows


def _pictures_in(folder: Path) -> list[tuple[str, str]]:
    """Return name and path of each training copy in a label's folder, in any order."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [(e.name, e.path) for e in entries if e.name.endswith(".jpg") and e.name[0] != "." and e.is_file()]


def _columns(
    ids: Sequence[str], split: Mapping[str, tuple[str, str]]
) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    """Return the columns groups and sides of N ids."""
    rows = [split.get(id, (id, None)) for id in ids]
    return tuple(group for group, _ in rows), tuple(side for _, side in rows)


def round_fingerprint(dataset: Dataset, settings: Mapping) -> str:
    """
    Return 16 hex digits that change when the pictures, labels, sides or training settings do.

    A trained round is current as long as its fingerprint is the one that its project would give today.

    Parameters
    ----------
    settings : mapping of names to values that JSON can hold
        Those that training really used, not those that a file asks for.
    """
    facts = {"data": dataset.fingerprint, "settings": dict(settings)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
