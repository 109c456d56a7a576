"""
The pictures of a project as one frozen table: read once, then handed from function to function.

Foundation of every stage. Reads the folders of images/ once, split.csv once, and sources.csv and pictures.csv once each
if somebody asks for what they hold. What a notebook says of a picture (its label, group, side) comes from here, so that
two of its cells cannot disagree. After files moved, read the data set anew.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import file_stamp
from utils.tables import (
    FOLDER,
    GIVEN_COLUMNS,
    HAND,
    PICTURES_COLUMNS,
    SIDES,
    SOURCES_COLUMNS,
    SPLIT_COLUMNS,
    each_row,
)
from utils.words import counted

GIVEN_SIDES = {"test": 0, "valid": 1, "train": 2}  # of a photo that has several, the first of these counts


@dataclass(frozen=True)
class Picture:
    """One row of a `Dataset`: `side` is None if split.csv does not know the picture. Its fields are the columns."""

    id: str
    path: Path
    label: str
    group: str
    side: str | None


class Records:
    """What pictures.csv and sources.csv say of pictures; each is read once, when it is first asked."""

    def __init__(self, project: Project):
        self._project = project

    @cached_property
    def hashes(self) -> Mapping[str, str]:
        """Id → perceptual hash (16 hex digits), from pictures.csv: every picture that 02 ever accepted."""
        return {row["id"]: row["hash"] for row in self._rows}

    @cached_property
    def bits(self) -> int | None:
        """How many bits the values of 16-bit pictures have, from pictures.csv; None if there is no such picture."""
        return max((int(row["bits"]) for row in self._rows if row["bits"].isdecimal()), default=None)

    @cached_property
    def _rows(self) -> list[dict[str, str]]:
        return list(each_row(self._project.table("pictures"), PICTURES_COLUMNS))

    @cached_property
    def given(self) -> Mapping[str | tuple[str, str], tuple[str, str]]:
        """The name of each file in the folder of its giver, and of that folder, by id and by id and label."""
        given: dict[str | tuple[str, str], tuple[str, str]] = {}
        for row in each_row(self._project.table("sources"), SOURCES_COLUMNS):
            if row["id"] and row["engine"] in (FOLDER, HAND):
                given.setdefault(row["id"], (row["title"], row["label"]))
                given.setdefault((row["id"], row["label"]), (row["title"], row["label"]))
        return given

    def own_name(self, path: Path) -> str:
        """Return what the file of a picture in raw/ or images/ was called by its giver; "" if it is from elsewhere."""
        key = path.stem, path.parent.name
        return self.given.get(key, self.given.get(key[0], ("", "")))[0]

    def caption(self, path: Path, text: str | None = None) -> str:
        """Return what stands below a picture: its own name, if it has one, and on the next line `text`, or its id."""
        return "\n".join(filter(None, [self.own_name(path), path.stem if text is None else text]))

    def told(self, path: Path) -> str:
        """Return a picture's name in a line: its own with the id, such as "IMG_1.jpg (0f5a…)", else the file's."""
        own = self.own_name(path)
        return f"{own} ({path.stem})" if own else path.name

    @cached_property
    def said(self) -> Mapping[str, Mapping[str, str]]:
        """
        Id → what its source says of it beside its label: side, group, creator, rights_holder; from given.csv.

        Of a photo that a ready split has on two sides, the judging one counts: it may not train the model. Else the
        last row counts: a source that was moved gives its photos new addresses, and their groups new names.
        """
        rows = {(row["url"], row["label"]): row for row in each_row(self._project.table("given"), GIVEN_COLUMNS)}
        said: dict[str, Mapping[str, str]] = {}
        for row in each_row(self._project.table("sources"), SOURCES_COLUMNS) if rows else ():
            found = rows.get((row["url"], row["label"]))
            if row["id"] and found:
                before = said.setdefault(row["id"], found)
                said[row["id"]] = min(found, before, key=lambda each: GIVEN_SIDES.get(each["side"], len(GIVEN_SIDES)))
        return said


@dataclass(frozen=True, repr=False)
class Dataset:
    """
    The N pictures of a training set, sorted by id, as columns of one length.

    `split` is all of split.csv, id → (group, side). Pictures that are absent now, in the trash or of a label that left
    the project file, keep their group and side there: they may come back.
    """

    project: Project
    ids: tuple[str, ...]
    paths: tuple[Path, ...]  # images/<label>/<id>.jpg
    labels: tuple[str, ...]  # the parent folder of the path, and nothing else
    groups: tuple[str, ...]  # shared by near-duplicates; a picture that split.csv does not know is one of its own
    sides: tuple[str | None, ...]  # "train", "valid", "test"; None if split.csv does not know the picture
    split: Mapping[str, tuple[str, str]]
    stamp: list[int] | None = None  # of split.csv as it was read; None if `split` is not what it holds
    records: Records = field(default=None, compare=False)

    COLUMNS: ClassVar = ("ids", "paths", "labels", "groups", "sides")  # the fields of `Picture`, in its order

    def __post_init__(self):
        if self.records is None:
            object.__setattr__(self, "records", Records(self.project))

    def __repr__(self) -> str:
        return f"<Dataset {self.project.name!r} of {counted(len(self))}>"

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Picture]:
        return map(Picture, *(getattr(self, name) for name in self.COLUMNS))

    def __getitem__(self, id: str) -> Picture:
        """Return the picture of an id, or raise KeyError."""
        return Picture(*(getattr(self, name)[self.position[id]] for name in self.COLUMNS))

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
        The name that each file had in the folder of the person who gave it; "" if it came from elsewhere.

        A file that lies in two label folders has the name it has under the picture's label.
        """
        return tuple(name for name, _ in self._given)

    @cached_property
    def places(self) -> tuple[str, ...]:
        """The folder and the name that each file had, such as "ants/IMG_1.jpg"; "" if it came from elsewhere."""
        return tuple(f"{folder}/{name}" if name else "" for name, folder in self._given)

    @cached_property
    def given_sides(self) -> Mapping[str, str]:
        """Id → the side on which a ready split has the picture; {} if the project file wants no ready split."""
        if not self.project.use_given_split:
            return {}
        return {id: side for id, side in self._said("side").items() if side in SIDES}

    @cached_property
    def given_groups(self) -> Mapping[str, str]:
        """Id → the group that a table names, for those that have one."""
        return self._said("group")

    def _said(self, field: str) -> dict[str, str]:
        """Return id → what its source says in a column of given.csv, for those of which it says something there."""
        said = self.records.said
        return {id: said[id][field] for id in self.ids if id in said and said[id][field]}

    @cached_property
    def _given(self) -> tuple[tuple[str, str], ...]:
        own, keys = self.records.given, zip(self.ids, self.labels, strict=True)
        return tuple(own.get(key, own.get(key[0], ("", ""))) for key in keys)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change when a picture, a label or a side does."""
        pictures = list(zip(self.ids, self.labels, self.sides, strict=True))
        return _digest({"labels": list(self.project.labels), "pictures": pictures})

    def where(self, wanted: Callable[[Picture], bool]) -> "Dataset":
        """Return the pictures for which `wanted` is true, in the same order."""
        return self._rows([n for n, picture in enumerate(self) if wanted(picture)])

    def on(self, *sides: str) -> "Dataset":
        """Return the pictures of the named sides, in the same order."""
        return self._rows([n for n, side in enumerate(self.sides) if side in sides])

    def of(self, label: str) -> "Dataset":
        """Return the pictures of one label, in the same order."""
        return self._rows([n for n, own in enumerate(self.labels) if own == label])

    def with_split(self, split: Mapping[str, tuple[str, str]], stamp: list[int] | None = None) -> "Dataset":
        """Return the same pictures with the groups and sides of another split."""
        groups, sides = _groups_and_sides(self.ids, split)
        return replace(self, groups=groups, sides=sides, split=split, stamp=stamp)

    def _rows(self, places: Sequence[int]) -> "Dataset":
        columns = {name: getattr(self, name) for name in self.COLUMNS}
        return replace(self, **{name: tuple([column[n] for n in places]) for name, column in columns.items()})


def read_dataset(project: Project) -> Dataset:
    """
    Read the pictures of a project: its folders as they are now, and split.csv.

    Labels that left the project file are left out. One id in two label folders is refused: nobody can know which label
    is meant. A project that finds things in photos is refused.
    """
    require_labels_apart(project)
    found: dict[str, str] = {}  # id → label
    for label in project.labels:
        for name in pictures_in(project.images / label):
            id = name.removesuffix(".jpg")
            if id in found:
                raise FieldguideError(
                    f"The picture {name} lies under two labels: {found[id]!r} and {label!r} in {project.images}. "
                    "Remove one of the two."
                )
            found[id] = label
    ids = tuple(sorted(found))
    labels = tuple([found[id] for id in ids])
    folders = {label: project.images / label for label in project.labels}
    paths = tuple([folders[label].joinpath(f"{id}.jpg") for id, label in zip(ids, labels, strict=True)])
    stamp = file_stamp(project.table("split"))
    split = read_split(project)
    groups, sides = _groups_and_sides(ids, split)
    return Dataset(project, ids, paths, labels, groups, sides, split, stamp)


def require_labels_apart(project: Project) -> None:
    """Refuse a project that finds things in photos: it has notebooks of its own."""
    if project.task == "detect":
        raise FieldguideError(
            f'{project.name} finds things in photos (task = "detect"). Its notebooks are in notebooks/boxes: begin '
            "with 1_tables."
        )


def read_split(project: Project) -> dict[str, tuple[str, str]]:
    """Return split.csv as id → (group, side); the first row of an id counts: a picture never changes side."""
    rows: dict[str, tuple[str, str]] = {}
    for row in each_row(project.table("split"), SPLIT_COLUMNS):
        if row["side"] not in SIDES:
            raise FieldguideError(
                f"{project.table('split')} says {row['side']!r} for picture {row['id']}, expected one of "
                f"{', '.join(SIDES)}. Correct that line."
            )
        rows.setdefault(row["id"], (row["group"], row["side"]))
    return rows


def pictures_in(folder: Path) -> list[str]:
    """Return the names of the training copies in a label's folder, in any order; hidden files are left out."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [e.name for e in entries if e.name.endswith(".jpg") and e.name[0] != "." and e.is_file()]


def seeded_rank(seed: int, name: object) -> bytes:
    """Return a key to sort names by: an order drawn by the seed, which a name that joins or leaves does not change."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _groups_and_sides(ids: Sequence[str], split: Mapping) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    """Return the columns groups and sides of N ids."""
    rows = [split.get(id, (id, None)) for id in ids]
    return tuple(group for group, _ in rows), tuple(side for _, side in rows)


def round_fingerprint(dataset: Dataset, settings: Mapping) -> str:
    """
    Return 16 hex digits that change when the pictures, labels, sides or training settings do.

    A trained round is current as long as its fingerprint is the one that its project would give today. `settings` are
    those that training really used, not those that a file asks for, with values that JSON can hold.
    """
    return _digest({"data": dataset.fingerprint, "settings": dict(settings)})


def _digest(facts: Mapping) -> str:
    """Return 16 hex digits of the SHA-256 of `facts` as JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
