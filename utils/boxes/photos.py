"""
The photos of a project and the boxes in each: read once, then handed from function to function.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from utils.boxes.box import GROUP, Box, read_boxes
from utils.boxes.byhand import require_unchanged
from utils.boxes.corrections import BoxLedger
from utils.dataset import Dataset, pictures_in, read_split
from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import file_stamp

NO_BOX = "(nothing)"  # of photos without a box, in place of a label: no label may begin with a bracket


@dataclass(frozen=True)
class BoxedPhoto:
    """One photo and its boxes, which may be none; `side` is None if split.csv does not know it."""

    id: str
    path: Path  # images/<id>.jpg
    boxes: tuple[Box, ...]
    side: str | None


@dataclass(frozen=True, repr=False)
class Photos:
    """
    The N photos of a project that finds things, sorted by id, and boxes.csv.

    `dataset` holds the same photos as the stages that know nothing of boxes want them: its label is the most frequent
    of a photo, or `NO_BOX`.
    """

    dataset: Dataset
    boxes: Mapping[str, tuple[Box, ...]]  # id → boxes, of photos that have some
    labels: tuple[str, ...]  # the K labels that are to be found, sorted

    def __repr__(self) -> str:
        return f"<Photos {self.project.name!r}: {len(self)}, boxes: {sum(map(len, self.boxes.values()))}>"

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[BoxedPhoto]:
        return (BoxedPhoto(each.id, each.path, self.boxes.get(each.id, ()), each.side) for each in self.dataset)

    def __getitem__(self, id: str) -> BoxedPhoto:
        picture = self.dataset[id]
        return BoxedPhoto(id, picture.path, self.boxes.get(id, ()), picture.side)

    @property
    def project(self) -> Project:
        """The settings, as the project file has them."""
        return self.dataset.project

    def on(self, *sides: str) -> "Photos":
        """Return the photos of the named sides, in the same order, with the same labels."""
        return replace(self, dataset=self.dataset.on(*sides))

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change when a photo comes or goes, or a box, a label or a side changes."""
        rows = [[each.id, each.side, [[*box.corners, box.label, box.flags] for box in each.boxes]] for each in self]
        return hashlib.sha256(json.dumps([self.labels, rows], sort_keys=True).encode()).hexdigest()[:16]


def read_photos(project: Project) -> Photos:
    """
    Read the photos in images/, boxes.csv and split.csv.

    Labels are those of the project file, else all in boxes.csv. Boxes of other labels are left out. A correction that a
    kill left half written is completed first: nothing is trained on half of it. Raises FieldguideError if the project
    is not one that finds things, a table cannot be read, or a training copy was changed since it was made.
    """
    if project.task != "detect":
        raise FieldguideError(
            f"{project.name} tells photos apart: its notebooks are 01 to 08. To find things in photos, write "
            'task = "detect" into the project file.'
        )
    BoxLedger(project).settle()
    every = read_boxes(project.table("boxes"))
    labels = tuple(project.labels) or tuple(sorted({box.label for boxes in every.values() for box in boxes}))
    ids = tuple(sorted(name.removesuffix(".jpg") for name in pictures_in(project.images)))
    require_unchanged(project, ids)
    wanted = {id: tuple(box for box in every.get(id, ()) if box.label in labels) for id in ids}
    boxes = {id: found for id, found in wanted.items() if found}
    split, stamp = read_split(project), file_stamp(project.table("split"))
    paths = tuple(project.images / f"{id}.jpg" for id in ids)
    strata = tuple(main_label(boxes.get(id, ())) for id in ids)
    dataset = Dataset(project, ids, paths, strata, ids, (None,) * len(ids), {})
    return Photos(dataset.with_split(split, stamp), boxes, labels)


def main_label(boxes: tuple[Box, ...]) -> str:
    """
    Return the label that most boxes of a photo have, of several the first by name; `NO_BOX` if there is no box.

    >>> main_label((Box("cat", 0, 0, 1, 1), Box("dog", 0, 0, 1, 1), Box("dog", 0, 0, 0.5, 1))), main_label(())
    ('dog', '(nothing)')
    """
    counts = Counter(box.label for box in boxes if GROUP not in box.flags)
    return min(counts, key=lambda label: (-counts[label], label), default=NO_BOX)
