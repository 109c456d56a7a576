"""
What a file of boxes says of one photo, in the units of its format: what the readers of VOC, YOLO and COCO return.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Drawn:
    """One box as its file has it: the label, its left, top, right and bottom, and its flags."""

    label: str
    corners: tuple[float, float, float, float]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class PhotoBoxes:
    """All that is said of one photo: boxes in pixels of a `size` (width, height), or as fractions."""

    path: Path
    boxes: tuple[Drawn, ...]
    size: tuple[int, int] | None = None  # None if its file does not say
    fractions: bool = False
    side: str = ""  # of a ready split, where the file of boxes is that of one side


def number_in(text: object) -> float:
    """Return a number of a file; NaN for what is none, so that whoever checks boxes leaves it out."""
    try:
        return float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def said_size(width: object, height: object) -> tuple[int, int] | None:
    """Return a size in pixels, or None where a file says none, or nonsense."""
    found = number_in(width), number_in(height)
    return (int(found[0]), int(found[1])) if all(1 <= side < 1e6 for side in found) else None
