"""
COCO: one JSON file for many photos, boxes in pixels as left, top, width and height.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from utils.boxes.box import BOX_FLAGS, GROUP, Box
from utils.boxes.drawn import Drawn, PhotoBoxes, number_in, said_size
from utils.boxes.finder import PhotoIndex
from utils.boxes.source import BoxNotes, flags_of
from utils.listing import SIDE_NAMES

LARGEST_JSON = 1_500_000_000  # bytes; that of COCO itself has 450 MB
COCO_FLAGS = {name: name for name in BOX_FLAGS} | {"iscrowd": GROUP, "is_group_of": GROUP, "is_depiction": "depiction"}
COCO_LISTS = ("images", "annotations", "categories")


def read_coco(
    folder: Path, texts: Iterable[Path], index: PhotoIndex, notes: BoxNotes
) -> tuple[list[PhotoBoxes], set[Path]]:
    """Return what the JSON files in a folder say of its photos, and which files were read."""
    found: dict[Path, PhotoBoxes] = {}
    files = set()
    for path in (path for path in texts if path.suffix.casefold() == ".json"):
        said = coco_lists(path)
        if isinstance(said, str):
            notes.left("JSON file", said, index.inside(path))
            files.add(path)
        if not isinstance(said, Mapping):
            continue
        files.add(path)
        for photo in _photos_of_json(path, said, index, notes):
            before = found.get(photo.path)
            if before and before.size != photo.size:
                notes.left("entry", "on a photo that another is on, too, with another size", index.inside(photo.path))
            else:
                found[photo.path] = replace(photo, boxes=(*before.boxes, *photo.boxes)) if before else photo
    return list(found.values()), files


def coco_lists(path: Path) -> Mapping | str | None:
    """Return a COCO file's content; what is wrong with it; or None if it is some other JSON."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            return f"larger than {LARGEST_JSON // 10**9} GB"
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            said = json.load(file)
    except OSError as error:
        return f"that cannot be read ({error.strerror or error})"
    except (ValueError, RecursionError):
        return "that cannot be read as JSON"
    if not isinstance(said, Mapping) or not all(isinstance(said.get(name), list) for name in COCO_LISTS):
        return None
    return said


def _photos_of_json(path: Path, said: Mapping, index: PhotoIndex, notes: BoxNotes) -> Iterable[PhotoBoxes]:
    """Yield the photos of one JSON file that are there, with their boxes."""
    where = index.inside(path)
    images, annotations, categories = (
        [each for each in said[name] if isinstance(each, Mapping)] for name in COCO_LISTS
    )
    names = {_id(each): str(each.get("name") or "") for each in categories if _id(each)}
    names |= dict.fromkeys(_twice(categories), "")
    boxes: dict[str, list[Drawn]] = {_id(image): [] for image in images if _id(image)}
    for id in _twice(images):
        notes.left("number", "that two photos of a JSON file have, with their boxes", f"{id} in {where}")
        del boxes[id]
    side = next((SIDE_NAMES[word] for word in re.split("[^a-z]+", where.casefold()) if word in SIDE_NAMES), "")
    for each in annotations:
        of = boxes.get(_id(each, "image_id"))
        if of is None:
            notes.left("box", "of a photo that its file does not list once", f"number {each.get('id')} in {where}")
        elif not isinstance(each.get("bbox"), list) or len(each["bbox"]) != 4:
            notes.left("annotation", "without a box", f"number {each.get('id')} in {where}")
        else:
            left, top, width, height = map(number_in, each["bbox"])
            said_more = each.get("attributes")
            said_more = said_more.items() if isinstance(said_more, Mapping) else ()
            flags = flags_of((("iscrowd", each.get("iscrowd")), *said_more), COCO_FLAGS)
            label = names.get(_id(each, "category_id"), "")
            of.append(Drawn(label, (left, top, left + width, top + height), flags))
    for image in images:
        name = str(image.get("file_name", ""))
        photo, problem = index.named(name, path.parent)
        if _id(image) not in boxes:
            continue  # told above, and of which no file says anything
        if photo:
            size = said_size(image.get("width"), image.get("height"))
            yield PhotoBoxes(photo, tuple(boxes[_id(image)]), size, side=side)
        else:
            notes.left("entry", f"of a JSON file with {problem}", f"{name!r} in {where}")


def _id(said: Mapping, key: str = "id") -> str:
    """Return a number, or a name, by which things in a file refer to each other; "" if it is none."""
    value = said.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""


def _twice(things: Iterable[Mapping]) -> list[str]:
    """Return the numbers that several things have: nobody can tell which of these a box is of."""
    return [id for id, count in Counter(map(_id, things)).items() if id and count > 1]


def coco_text(photos: Sequence[tuple[str, tuple[int, int], Sequence[Box]]], labels: Sequence[str]) -> str:
    """Return the JSON of some photos: name, size (width, height) and boxes of each."""
    number = {label: n for n, label in enumerate(labels, start=1)}
    images, annotations = [], []
    for n, (name, (width, height), boxes) in enumerate(photos, start=1):
        images.append({"id": n, "file_name": name, "width": width, "height": height})
        for box in boxes:
            sizes = (width, height) * 2
            left, top, right, bottom = (corner * side for corner, side in zip(box.corners, sizes, strict=True))
            bbox = [round(value, 6) for value in (left, top, right - left, bottom - top)]
            more = {"attributes": {flag: True for flag in box.flags if flag != GROUP}} if box.flags else {}
            about = {"id": len(annotations) + 1, "image_id": n, "category_id": number[box.label], "bbox": bbox}
            area = math.prod(bbox[2:])
            annotations.append({**about, "area": area, "iscrowd": int(GROUP in box.flags), "segmentation": [], **more})
    categories = [{"id": n, "name": label} for label, n in number.items()]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories}, ensure_ascii=False)
