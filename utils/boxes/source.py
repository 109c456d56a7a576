"""
Photos and boxes as a source has them, before anything is taken: one record for folders and for tables.

A source is hostile until checked. What it says wrongly is mended where there is one way to do so, else left out; both
are counted, and `BoxNotes` tells them in sentences.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from utils.boxes.box import Box, box_problem, clipped
from utils.errors import FieldguideError
from utils.listing import misspelt
from utils.names import as_label
from utils.words import counted

SLACK = 1e-3  # of a side: how far a box may reach out before that is told; rounding does as much
OUTSIDE_PHOTO = "outside of its photo"
LONGEST_EXAMPLE = 80  # characters of an example in a sentence
# EXIF's way of storing → how corners of what is stored become those of the upright picture, as fractions.
UPRIGHT_CORNERS = {
    2: lambda x, y: (1 - x, y),
    3: lambda x, y: (1 - x, 1 - y),
    4: lambda x, y: (x, 1 - y),
    5: lambda x, y: (y, x),
    6: lambda x, y: (1 - y, x),
    7: lambda x, y: (1 - y, 1 - x),
    8: lambda x, y: (y, 1 - x),
}
STORED_AS = {90: 8, 180: 3, 270: 6}  # degrees counter-clockwise that turn a picture upright → EXIF's number for it


@dataclass(frozen=True)
class SourcePhoto:
    """One photo of a source, and its boxes as fractions of the upright picture; none if nothing is in it."""

    address: str  # of a file on this computer, or in the web, as sources.csv notes it
    boxes: tuple[Box, ...]
    path: Path | None = None  # of a file on this computer
    title: str = ""
    given: Mapping[str, str] = field(default_factory=dict)  # side, creator, license, page_url
    thumbnail: str = ""  # where a smaller version of it lies
    rotation: int = 0  # degrees counter-clockwise that turn the picture upright, beyond what its file says
    md5: str = ""  # of its bytes, in base64; "" if the source does not say


@dataclass(frozen=True)
class BoxSource:
    """What one source holds: its photos, sorted by address, and in sentences what was mended and left out."""

    place: str  # as the project file names it
    format: str  # "VOC", "YOLO", "COCO" or "Open Images"
    photos: tuple[SourcePhoto, ...]
    remarks: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # every label that is there, wanted or not
    root: Path | None = None  # the folder of its photos

    @property
    def counts(self) -> Counter:
        """Return label → how many boxes the source has."""
        return Counter(box.label for photo in self.photos for box in photo.boxes)


class BoxNotes:
    """Counts what a source has that is mended or left out, by kind, and keeps the first example of each."""

    def __init__(self):
        self._found: dict[tuple[str, str, str], list[str]] = {}
        self._count: Counter = Counter()

    def left(self, noun: str, why: str, example: str) -> None:
        """Note that one thing, such as a box, is left out, and why."""
        self._note(("Left out", noun, why), example)

    def told(self, noun: str, what: str, example: str) -> None:
        """Note that something was mended, or is odd and stays."""
        self._note(("", noun, what), example)

    def _note(self, key: tuple[str, str, str], example: str) -> None:
        self._count[key] += 1
        self._found.setdefault(key, [example])

    def take(self, other: "BoxNotes") -> None:
        """Add what others counted."""
        self._count += other._count
        self._found = other._found | self._found

    def sentences(self) -> tuple[str, ...]:
        """Return one sentence for each kind, those of what is left out first, the most frequent first."""
        order = sorted(self._count, key=lambda key: (not key[0], -self._count[key], key))
        return tuple(
            f"{kind + ': ' if kind else ''}{counted(self._count[key], noun, PLURAL_NOUNS.get(noun))} {why}, such as "
            f"{self._found[key][0][:LONGEST_EXAMPLE]}."
            for key in order
            for kind, noun, why in [key]
        )


PLURAL_NOUNS = {"box": "boxes", "XML file": "XML files", "address": "addresses"}


def checked_boxes(found: Iterable[Box], notes: BoxNotes, where: str) -> tuple[Box, ...]:
    """Return the boxes of one photo that are boxes, cut off at its edges, each once; `notes` count the others."""
    kept: dict[tuple, Box] = {}
    for box in found:
        whole = clipped(box) if all(map(_is_finite, box.corners)) else box
        if problem := box_problem(whole):
            outside = box_problem(box) != problem and "area" in problem
            notes.left("box", OUTSIDE_PHOTO if outside else _as_ending(problem), f"{box.label} in {where}")
            continue
        if max(abs(mine - its) for mine, its in zip(whole.corners, box.corners, strict=True)) > SLACK:
            notes.told("box", "cut off at the edge of the photo", f"{box.label} in {where}")
        if (key := (whole.label, whole.corners)) in kept:
            notes.left("box", "there twice", f"{box.label} in {where}")
            whole = replace(kept[key], flags=tuple(sorted({*kept[key].flags, *whole.flags})))
        kept[key] = whole
    return tuple(kept.values())


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")  # false for NaN, too


def _as_ending(problem: str) -> str:
    """Return what `box_problem` says of a box as the end of a sentence on several."""
    return problem.removeprefix("a box ") if problem.startswith("a box") else f"with {problem}"


def turned_box(box: Box, stored: int) -> Box:
    """
    Return a box of a picture as it is stored (EXIF's numbers 1 to 8) as one of the upright picture.

    >>> turned_box(Box("boat", 0.0, 0.0, 0.25, 0.5), 8).corners  # to be turned by 90° counter-clockwise
    (0.0, 0.75, 0.5, 1.0)
    """
    if stored not in UPRIGHT_CORNERS:
        return box
    turn = UPRIGHT_CORNERS[stored]
    (x, y), (other_x, other_y) = turn(box.left, box.top), turn(box.right, box.bottom)
    return replace(box, left=min(x, other_x), top=min(y, other_y), right=max(x, other_x), bottom=max(y, other_y))


def wanted_boxes(
    photos: Iterable[SourcePhoto], labels: Collection[str], place: str, noted: str = ""
) -> tuple[tuple[SourcePhoto, ...], str]:
    """
    Return the photos with the boxes of wanted labels, all of them if `labels` is empty, and a sentence on the others.

    A photo that has boxes of other labels only is one without a thing to find. `noted` is what was left out. Raises
    FieldguideError if the source has no usable box, or none of a wanted label, or a label that differs only in case.
    """
    photos = tuple(photos)
    found = Counter(box.label for photo in photos for box in photo.boxes)
    if not found:
        told = f"{place} has photos, and no box in any of them that can be used."
        raise FieldguideError(" ".join(filter(None, [told, noted, "Draw some, or name another source."])))
    if not labels:
        return photos, ""
    if wrong := misspelt(sorted(found), labels):
        name, meant = wrong
        raise FieldguideError(
            f"{place} has the label {name!r}, which is none of the project file. Is it {meant!r}? Write {name!r} under "
            "[labels]."
        )
    others = {label: count for label, count in sorted(found.items()) if label not in labels}
    if len(others) == len(found):
        raise FieldguideError(
            f"{place} has no box of {', '.join(map(repr, labels))}. Its labels: {_with_counts(others)}. Correct "
            "[labels] in the project file."
        )
    kept = tuple(replace(p, boxes=tuple(box for box in p.boxes if box.label in labels)) for p in photos)
    return kept, f"Boxes of labels that the project file leaves out: {_with_counts(others)}." if others else ""


def _with_counts(found: Mapping[str, int]) -> str:
    """Return labels with their counts in words."""
    more = f" and {len(found) - 20:,} more" if len(found) > 20 else ""
    return ", ".join(f"{label} ({count:,})" for label, count in list(found.items())[:20]) + more


def plain_label(name: str) -> str:
    """Return a name in a source as a label; "" if it cannot be one."""
    label = as_label(" ".join(name.split()))[:100].strip()
    return "" if label.startswith("(") or not label else label


def flags_of(said: Iterable[tuple[str, object]], known: Mapping[str, str]) -> tuple[str, ...]:
    """Return the flags, sorted, that pairs of names and values set: `known` maps a name to its flag."""
    return tuple(sorted({known[name] for name, value in said if name in known and is_set(value)}))


def is_set(value: object) -> bool:
    """
    Return whether a flag is set, as files write that.

    >>> [is_set(value) for value in (1, "1", "true", "-1", "0", None, False)]
    [True, True, True, False, False, False, False]
    """
    return str(value).strip().casefold() in ("1", "true", "yes", "1.0")


def given_rows(source: BoxSource) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield the address of each photo of which the source says more than its boxes, and what it says."""
    yield from ((photo.address, photo.given) for photo in source.photos if any(photo.given.values()))
