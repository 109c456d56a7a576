"""
YOLO: one text file per photo, one line per box: the label's number, and middle, width and height as fractions.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from utils.boxes.box import Box
from utils.boxes.drawn import Drawn, PhotoBoxes, number_in
from utils.boxes.finder import PhotoIndex
from utils.boxes.source import BoxNotes
from utils.errors import FieldguideError
from utils.listing import SIDE_NAMES

LARGEST_TEXT, LARGEST_YAML = 5_000_000, 500_000  # bytes of a file
NAMES_FILES = ("classes.txt", "obj.names", "labels.txt", "names.txt", "class_names.txt")
NO_LABELS = {*NAMES_FILES, "requirements.txt", "readme.txt", "license.txt", "notes.txt"}
NO_LABELS |= {f"{name}{end}" for name in SIDE_NAMES for end in (".txt", "_list.txt")}
YOLO_DIGITS = 9  # behind the point: middle and width come back as corners within a millionth


def read_yolo(
    folder: Path, texts: Iterable[Path], index: PhotoIndex, notes: BoxNotes
) -> tuple[list[PhotoBoxes], set[Path]]:
    """Return what the text files in a folder say of its photos, and which files were read."""
    texts = list(texts)
    names, source = yolo_names(folder, texts)
    files = [path for path in texts if path.suffix.casefold() == ".txt" and path.name.casefold() not in NO_LABELS]
    found, read = {}, {source} if source else set()
    for path in files:
        photo, problem = index.of_file(path)
        lines = _label_lines(path)
        if lines is None and not photo:
            continue  # some other text
        read.add(path)
        where = index.inside(path)
        if not photo:
            notes.left("YOLO file", f"with {problem}", where)
        elif lines is None:
            notes.left("YOLO file", "that cannot be read as lines of numbers", where)
        elif photo in found:
            notes.left("YOLO file", "on a photo that another is on, too", where)
        else:
            boxes = tuple(box for line in lines if (box := _box_of(line, names, notes, where)))
            found[photo] = PhotoBoxes(photo, boxes, fractions=True)
    if found and not names:
        raise FieldguideError(
            f"{folder} holds {len(found):,} YOLO files and no names for their labels. Put data.yaml, or classes.txt "
            "with one name per line in the order of their numbers, into it."
        )
    return list(found.values()), read if found or len(read) > bool(source) else set()


def yolo_names(folder: Path, texts: Iterable[Path]) -> tuple[dict[int, str], Path | None]:
    """Return number → label from data.yaml, classes.txt or a file of names, and which of them said so."""
    texts = sorted(texts, key=lambda path: (len(path.parts), path))
    for path in (path for path in texts if path.suffix.casefold() in (".yaml", ".yml")):
        if names := _yaml_names(path):
            return names, path
    for path in (path for path in texts if path.name.casefold() in NAMES_FILES or path.suffix == ".names"):
        lines = (read_small(path) or "").splitlines()
        if names := {n: line.strip() for n, line in enumerate(lines) if line.strip()}:
            return names, path
    return {}, None


def _yaml_names(path: Path) -> dict[int, str]:
    """Return the key `names` of a YAML file, a list or a mapping of numbers; {} if it has none."""
    try:  # BaseLoader makes texts, lists and mappings alone: a label "no" stays one
        names = yaml.load(read_small(path, LARGEST_YAML) or "", Loader=yaml.BaseLoader)["names"]
        pairs = list(names.items() if isinstance(names, Mapping) else enumerate(names))
        return {int(n): name for n, name in pairs if str(n).isdecimal() and isinstance(name, str)}
    except (yaml.YAMLError, LookupError, TypeError, RecursionError, ValueError):
        return {}


def read_small(path: Path, most: int = LARGEST_TEXT) -> str | None:
    """Return a text file; None if it is larger than `most` bytes, or cannot be read."""
    try:
        small = path.stat().st_size <= most
        return path.read_text(encoding="utf-8-sig", errors="replace") if small else None
    except OSError:
        return None


def _label_lines(path: Path) -> list[list[str]] | None:
    """Return the lines of a file of labels, each as its numbers; None if that is another kind of text."""
    text = read_small(path)
    if text is None:
        return None
    lines = [line.split() for line in text.splitlines()]
    lines = [line for line in lines if line]
    return lines if all(re.fullmatch(r"-?\d{1,9}(\.0*)?", line[0]) and len(line) >= 2 for line in lines) else None


def _box_of(line: Sequence[str], names: Mapping[int, str], notes: BoxNotes, where: str) -> Drawn | None:
    """Return the box of one line; None for an unknown label. Of an outline, the box around it."""
    number, values = int(float(line[0])), [number_in(text) for text in line[1:]]
    if names and number not in names:
        notes.left("box", "of an unknown label", f"number {number} in {where}")
        return None
    label = names.get(number, str(number))
    if len(values) in (4, 5):  # the fifth is how sure a detector was
        x, y, width, height = values[:4]
        return Drawn(label, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    if len(values) >= 6 and len(values) % 2 == 0:
        notes.told("outline", "of things, and the boxes around them were taken", where)
        across, down = values[::2], values[1::2]
        return Drawn(label, (min(across), min(down), max(across), max(down)))
    notes.left("line", "of a YOLO file with another number of values", f"{' '.join(line)!r} in {where}")
    return None


def yolo_text(boxes: Iterable[Box], labels: Sequence[str]) -> str:
    """Return the lines of one photo, one per box; "" for a photo without any."""
    lines = []
    for box in boxes:
        middle = (box.left + box.right) / 2, (box.top + box.bottom) / 2
        numbers = (*middle, box.right - box.left, box.bottom - box.top)
        lines.append(
            " ".join([str(labels.index(box.label)), *(f"{value:.{YOLO_DIGITS}f}" for value in numbers)]) + "\n"
        )
    return "".join(lines)


def yolo_yaml(labels: Sequence[str]) -> str:
    """Return data.yaml, which names the labels and the lists of photos."""
    lists = {"train": "train.txt", "val": "valid.txt", "test": "test.txt", "names": dict(enumerate(labels))}
    return yaml.safe_dump(lists, sort_keys=False, allow_unicode=True)
