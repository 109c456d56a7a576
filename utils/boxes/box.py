"""
Boxes around things in photos, and boxes.csv, their one truth: every other format is read into it and written from it.

A corner is a fraction of the upright picture, from 0 at the left or top edge to 1 at the right or bottom one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.errors import FieldguideError
from utils.tables import BOXES_COLUMNS, each_row, write_table

BOX_FLAGS = ("depiction", "difficult", "group", "inside", "occluded", "truncated")
GROUP = "group"  # a box around many things at once: neither a thing to find nor a place without one
# By whom a box is: drawn by a person, brought by its source, or found by a model.
PERSON, GIVEN, FROM_MODEL = "person", "given", "model"
CORNER_NAMES = ("left", "top", "right", "bottom")
CORNER_DIGITS = 7  # behind the point, of a fraction in boxes.csv
LEAST_WIDTH = 1e-5  # the least width and height of a box, as a fraction: less is no area


@dataclass(frozen=True, order=True)
class Box:
    """
    One thing in one photo: its label, and its corners as fractions of the upright picture, in [0, 1].

    >>> Box("boat", 0.1, 0.2, 0.5, 0.6).area
    0.16
    """

    label: str
    left: float
    top: float
    right: float
    bottom: float
    flags: tuple[str, ...] = field(default=(), compare=False)  # of BOX_FLAGS, sorted
    by: str = field(default=GIVEN, compare=False)

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        return self.left, self.top, self.right, self.bottom

    @property
    def area(self) -> float:
        """The share of the picture that the box covers."""
        return round((self.right - self.left) * (self.bottom - self.top), 2 * CORNER_DIGITS)


def box_problem(box: Box) -> str:
    """
    Return what is wrong with a box, or "".

    >>> box_problem(Box("boat", 0.5, 0.2, 0.5, 0.6)), box_problem(Box("boat", -0.1, 0.2, 0.5, 0.6))
    ('a box without area', 'a box that reaches out of its picture')
    """
    if not all(math.isfinite(corner) for corner in box.corners):
        return "a corner that is not a number"
    if box.right - box.left < LEAST_WIDTH or box.bottom - box.top < LEAST_WIDTH:
        return "a box without area"
    return "" if all(0 <= corner <= 1 for corner in box.corners) else "a box that reaches out of its picture"


def clipped(box: Box) -> Box:
    """Return a box cut off at the edges of its picture, its corners rounded as boxes.csv keeps them."""
    corners = [round(min(1.0, max(0.0, corner)), CORNER_DIGITS) for corner in box.corners]
    return Box(box.label, *corners, tuple(sorted(set(box.flags))), box.by)


def corner_array(boxes: Sequence[Box]) -> np.ndarray:
    """Return N boxes as float64 (N, 4): left, top, right, bottom."""
    return np.array([box.corners for box in boxes], dtype=np.float64).reshape(-1, 4)


def read_boxes(path: Path) -> dict[str, tuple[Box, ...]]:
    """Return boxes.csv as id → boxes in the order of the file; a photo without boxes has no row."""
    found: dict[str, list[Box]] = {}
    for row in each_row(path, BOXES_COLUMNS):
        try:
            corners = [float(row[name]) for name in CORNER_NAMES]
        except ValueError as error:
            raise FieldguideError(f"{path}, picture {row['id']}: {error}. Correct or delete that line.") from None
        box = Box(row["label"], *corners, tuple(row["flags"].split()), row["by"])
        unknown = [f"unknown flag {flag!r}" for flag in sorted(set(box.flags) - set(BOX_FLAGS))]
        unknown += ["a label that cannot be one"] if not box.label.strip() or box.label.startswith("(") else []
        if problem := box_problem(box) or "".join(unknown[:1]):
            raise FieldguideError(f"{path}, picture {row['id']}: {problem} ({row}). Correct or delete that line.")
        found.setdefault(row["id"], []).append(box)
    return {id: tuple(boxes) for id, boxes in found.items()}


def write_boxes(path: Path, boxes: Mapping[str, Iterable[Box]]) -> None:
    """Write boxes.csv, photos sorted by id, whole or not at all. Raises ValueError for a box that cannot be."""
    rows = []
    for id in sorted(boxes):
        for box in boxes[id]:
            if problem := box_problem(box):
                raise ValueError(f"picture {id}: {problem}: {box}")
            corners = dict(zip(CORNER_NAMES, map(as_fraction, box.corners), strict=True))
            rows.append({"id": id, "label": box.label, **corners, "flags": " ".join(box.flags), "by": box.by})
    write_table(path, BOXES_COLUMNS, rows)


def as_fraction(value: float) -> str:
    """
    Return a fraction as boxes.csv writes it.

    >>> as_fraction(0.25), as_fraction(1 / 3), as_fraction(1)
    ('0.25', '0.3333333', '1')
    """
    return f"{value:.{CORNER_DIGITS}f}".rstrip("0").rstrip(".")
