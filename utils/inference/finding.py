"""
Stage 08, the command line with a detector: lines, a table, YOLO and COCO files of what was found, and crops of it.

Every file is new and written whole or not at all; what is there already stays, and a run that is begun again writes
what is missing.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from .detector import Detection, FoundBox
from .outputs import CannotDo, NotWritten, as_cells, new_csv, refuse_taken, tabbed, unclobbered
from .sorting import LEFTOVER, folder_names

if "." in __package__:
    from ..pictures import PictureError, jpeg_bytes, open_picture
else:  # inference/ and pictures/ lie loose in another program's folder
    from pictures import PictureError, jpeg_bytes, open_picture

NOTHING_FOUND = "nothing"
BOX_COLUMNS = ("file", "label", "probability", "left", "top", "right", "bottom", "error")
CLASSES_FILE = "classes.txt"  # label names, in the order of the numbers in YOLO files
CROP_MARGIN = 0.1  # of a box's width and height, shown around it in a crop: a classifier needs to see the outline
DIGITS = 7  # behind the point, of fractions


def box_lines(file: str, found: Detection) -> str:
    """
    Return a line for each box: file, label, probability, then left, top, right, bottom in pixels, between tabs.

    >>> box_lines("a.jpg", Detection((FoundBox("cat", 0.75, 0, 0.5, 0.25, 1, (400, 300)),), 400, 300))
    'a.jpg\\tcat\\t0.7500\\t0\\t150\\t100\\t300'
    >>> box_lines("a.jpg", Detection())
    'a.jpg\\tnothing'
    """
    if found.error:
        return tabbed([file, "error", found.error])
    boxes = [[file, box.label, f"{box.probability:.4f}", *map(str, box.pixels)] for box in found.boxes]
    return "\n".join(map(tabbed, boxes or [[file, NOTHING_FOUND]]))


def box_json(file: str, found: Detection) -> str:
    """Return what was found in a photo as one line for programs: a JSON object, corners in fractions of the photo."""
    if found.error:
        return json.dumps({"file": file, "error": found.error})
    names = ("label", "probability", "left", "top", "right", "bottom")
    boxes = [{name: getattr(box, name) for name in names} for box in found.boxes]
    return json.dumps({"file": file, "width": found.width, "height": found.height, "boxes": boxes})


@contextmanager
def box_table(path: Path) -> Iterator[Callable[[str, Detection], None]]:
    """
    Yield a function that writes a photo's rows, one per box, corners as fractions; the table is whole or not there.

    A photo in which nothing was found has one row without a label, and one that could not be read says why.
    """
    with new_csv(path, BOX_COLUMNS) as write_row:

        def write(file: str, found: Detection) -> None:
            name, _ = as_cells(file, "")
            for box in found.boxes:
                corners = [f"{corner:.{DIGITS}f}" for corner in box.corners]
                write_row([*as_cells(file, box.label), repr(box.probability), *corners, ""])
            if not found.boxes:
                write_row([name, *[""] * (len(BOX_COLUMNS) - 2), found.error or ""])

        yield write


@contextmanager
def coco_file(path: Path, labels: Sequence[str]) -> Iterator[Callable[[str, Detection], None]]:
    """Yield a function that takes photos and what was found in them; the COCO file holds all, or is not there."""
    refuse_taken(path, "--coco")
    images, boxes = [], []

    def add(file: str, found: Detection) -> None:
        if found.error:
            return
        image = {"id": len(images) + 1, "file_name": file, "width": found.width, "height": found.height}
        images.append(image)
        for box in found.boxes:
            left, top = box.left * found.width, box.top * found.height
            sides = (box.right - box.left) * found.width, (box.bottom - box.top) * found.height
            boxes.append(
                {"id": len(boxes) + 1, "image_id": image["id"], "category_id": labels.index(box.label) + 1}
                | {"bbox": [round(number, 3) for number in (left, top, *sides)], "area": round(sides[0] * sides[1], 3)}
                | {"iscrowd": 0, "score": box.probability}
            )

    yield add
    categories = [{"id": n, "name": label} for n, label in enumerate(labels, start=1)]
    whole = {"images": images, "categories": categories, "annotations": boxes}
    with unclobbered(path) as temporary:
        temporary.write_text(json.dumps(whole, ensure_ascii=True), encoding="utf-8")


class YoloFolder:
    """Writes a text file for each photo, named like it, with a line for each box; an empty one where nothing is."""

    def __init__(self, folder: Path, labels: Sequence[str]):
        if any(label.splitlines() != [label] for label in labels):
            raise CannotDo("--yolo: a label of this model has a line break, which classes.txt cannot hold.")
        self.folder, self.labels = emptied_of_leftovers(folder, "--yolo"), labels
        if not written_new(folder / CLASSES_FILE, "".join(f"{label}\n" for label in labels).encode("utf-8")):
            raise CannotDo(f"--yolo {folder}: its {CLASSES_FILE} names other labels. Name another folder.")

    def write(self, file: str, found: Detection) -> None:
        """Write the boxes of a photo: the label's number, then middle, width and height as fractions."""
        if found.error:
            return
        name = f"{Path(file).stem}.txt"
        if name.casefold() == CLASSES_FILE:
            raise NotWritten(
                f"{file}: its boxes would stand in {CLASSES_FILE}, which holds the labels. Rename the photo."
            )
        path = self.folder / name
        if not written_new(path, "".join(map(self._line, found.boxes)).encode("utf-8")):
            raise NotWritten(f"{path} is there already, with other boxes than those of {file}. It is not written over.")

    def _line(self, box: FoundBox) -> str:
        numbers = (box.left + box.right) / 2, (box.top + box.bottom) / 2, box.right - box.left, box.bottom - box.top
        return " ".join([str(self.labels.index(box.label)), *(f"{number:.9f}" for number in numbers)]) + "\n"


class Crops:
    """Cuts what was found out of photos: FOLDER/<label>/<photo>_<n>.jpg, at full size and with a margin."""

    def __init__(self, folder: Path, labels: Sequence[str], bits: int | None):
        self.folder, self.names, self.bits = emptied_of_leftovers(folder, "--crops"), folder_names(labels), bits
        for name in self.names.values():
            if (folder / name).is_dir():
                emptied_of_leftovers(folder / name, "--crops")

    def cut(self, file: str, found: Detection) -> None:
        """Cut out the boxes of a photo, numbered from 1; raises NotWritten if it can no longer be read."""
        if not found.boxes:
            return
        try:
            image = open_picture(file, bits=self.bits)
        except (PictureError, OSError) as error:
            raise NotWritten(f"{file} was looked through but not cut: {error}.") from error
        for n, box in enumerate(found.boxes, start=1):
            folder = self.folder / self.names[box.label]
            folder.mkdir(exist_ok=True)
            data = jpeg_bytes(image.crop(with_margin(box, image.size)))
            stem = f"{Path(file).stem}_{n}"
            names = (f"{stem}.jpg" if k == 1 else f"{stem} ({k}).jpg" for k in count(1))
            next(name for name in names if written_new(folder / name, data))


def with_margin(box: FoundBox, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """
    Return a box with a margin of a tenth on each side, in pixels of a picture of this width and height.

    >>> with_margin(FoundBox("cat", 0.9, 0.0, 0.5, 0.5, 1.0, (400, 300)), (200, 100))
    (0, 45, 110, 100)
    """
    wide, high = CROP_MARGIN * (box.right - box.left), CROP_MARGIN * (box.bottom - box.top)
    wider = (
        max(0.0, box.left - wide),
        max(0.0, box.top - high),
        min(1.0, box.right + wide),
        min(1.0, box.bottom + high),
    )
    return FoundBox(box.label, box.probability, *wider, size).pixels


def emptied_of_leftovers(folder: Path, option: str) -> Path:
    """Return a folder, which is made if need be, without what a killed run left in it."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise CannotDo(f"{option} {folder} is a file, not a folder. Name another.")
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in sorted(folder.glob(LEFTOVER)):
        leftover.unlink(missing_ok=True)
    return folder


def written_new(path: Path, data: bytes) -> bool:
    """Write a new file; return whether it holds these bytes now: False where another one is there, which stays."""
    with suppress(FileExistsError):
        if not os.path.lexists(path):
            with unclobbered(path) as temporary:
                temporary.write_bytes(data)
            return True
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data


def box_outputs(options, labels: Sequence[str], bits: int | None, stack: ExitStack) -> list[Callable]:
    """Return what takes each photo and what was found in it, as the options say; tables are finished with the stack."""
    outputs: list[Callable] = []
    if options.crops:
        outputs.append(Crops(options.crops, labels, bits).cut)
    if options.yolo:
        outputs.append(YoloFolder(options.yolo, labels).write)
    if options.coco:
        outputs.append(stack.enter_context(coco_file(options.coco, labels)))
    return outputs
