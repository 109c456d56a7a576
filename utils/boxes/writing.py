"""
boxes.csv as files that other programs read: YOLO text, COCO JSON or VOC XML, with the photos, in a folder of their own.
"""

import json
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from utils.boxes.box import BOX_FLAGS, GROUP
from utils.boxes.coco import coco_text
from utils.boxes.photos import BoxedPhoto, Photos
from utils.boxes.sizes import stored_size
from utils.boxes.voc import VOC_FLAGS, voc_text
from utils.boxes.yolo import yolo_text, yolo_yaml
from utils.errors import FieldguideError
from utils.storage import UNFINISHED, content_id, explained, make_folder, sync_folder
from utils.tables import SIDES
from utils.words import counted

MANIFEST = "contents.json"  # what was written: by it a later run knows that nobody put or changed something there
NO_SIDE = "unsplit"  # photos that split.csv does not know
KEPT_FLAGS = {"YOLO": (), "COCO": BOX_FLAGS, "VOC": tuple(VOC_FLAGS)}


def write_box_files(photos: Photos, folder: Path, kind: str) -> list[str]:
    """
    Write photos and boxes as "YOLO", "COCO" or "VOC" files into a folder, whole or not at all.

    The photos are copied. A folder that an earlier call wrote is replaced; one in which anything else lies, or was
    changed, is not touched. Return sentences: what was written, and which flags the format cannot hold. Raises
    FieldguideError if the folder holds other files, and ValueError for another format.
    """
    if kind not in KEPT_FLAGS:
        raise ValueError(f"{kind!r} is not a format of boxes; write 'YOLO', 'COCO' or 'VOC'")
    folder = Path(folder).absolute()
    _require_ours(folder)
    make_folder(folder.parent)
    new = folder.with_name(f".{secrets.token_hex(8)}{UNFINISHED}")
    try:
        with explained(folder):
            _fill_folder(photos, new, kind)
            old = folder.with_name(f".{secrets.token_hex(8)}{UNFINISHED}")
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
            sync_folder(folder.parent)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return [*_written_sentences(photos, folder, kind), *_lost_sentences(photos, kind)]


def _fill_folder(photos: Photos, folder: Path, kind: str) -> None:
    """Write everything into a new folder."""
    texts = dict({"YOLO": _yolo_files, "COCO": _coco_files, "VOC": _voc_files}[kind](photos))
    place, contents = folder / ("JPEGImages" if kind == "VOC" else "images"), {}
    place.mkdir(parents=True)
    for photo in photos:
        shutil.copyfile(photo.path, place / photo.path.name)
        contents[f"{place.name}/{photo.path.name}"] = photo.path.stat().st_size
    for name, text in texts.items():
        data = text.encode("utf-8")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        contents[name] = content_id(data)
    (folder / MANIFEST).write_text(json.dumps(contents, indent=0), encoding="utf-8")


def _of_sides(photos: Photos) -> Mapping[str, list[BoxedPhoto]]:
    """Return side → its photos; `NO_SIDE` for those without."""
    sides: dict[str, list[BoxedPhoto]] = {}
    for photo in photos:
        sides.setdefault(photo.side or NO_SIDE, []).append(photo)
    return {side: sides[side] for side in (*SIDES, NO_SIDE) if side in sides}


def _yolo_files(photos: Photos) -> Iterator[tuple[str, str]]:
    """Yield name and text of each file beside the photos."""
    for photo in photos:
        yield f"labels/{photo.id}.txt", yolo_text(photo.boxes, photos.labels)
    for side, own in _of_sides(photos).items():
        if side != NO_SIDE:
            yield f"{side}.txt", "".join(f"./images/{photo.path.name}\n" for photo in own)
    yield "data.yaml", yolo_yaml(photos.labels)


def _coco_files(photos: Photos) -> Iterator[tuple[str, str]]:
    """Yield name and text of each file beside the photos."""
    for side, own in _of_sides(photos).items():
        rows = [(photo.path.name, stored_size(photo.path)[:2], photo.boxes) for photo in own]
        yield f"annotations/{side}.json", coco_text(rows, photos.labels)


def _voc_files(photos: Photos) -> Iterator[tuple[str, str]]:
    """Yield name and text of each file beside the photos."""
    for photo in photos:
        yield f"Annotations/{photo.id}.xml", voc_text(photo.path.name, stored_size(photo.path)[:2], photo.boxes)
    for side, own in _of_sides(photos).items():
        if side != NO_SIDE:
            yield f"ImageSets/Main/{side}.txt", "".join(f"{photo.id}\n" for photo in own)


def _require_ours(folder: Path) -> None:
    """Refuse a folder in which something lies that an earlier call did not write."""
    if not folder.exists():
        return
    contents: Mapping = {}
    with suppress(OSError, ValueError):
        contents = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    advice = "Nothing was written. Name another folder, or move that one away."
    if not folder.is_dir() or not isinstance(contents, Mapping):
        raise FieldguideError(f"{folder} is there, and not written by this. {advice}")
    for path in (path for path in sorted(folder.rglob("*")) if path.is_file()):
        name = path.relative_to(folder).as_posix()
        now = path.stat().st_size if name.endswith(".jpg") else None
        if name != MANIFEST and contents.get(name) != (content_id(path.read_bytes()) if now is None else now):
            raise FieldguideError(f"{folder} holds {name}, which was not written by this, or was changed. {advice}")


def _written_sentences(photos: Photos, folder: Path, kind: str) -> Iterator[str]:
    """Yield what was written."""
    boxes = sum(len(photo.boxes) for photo in photos)
    sides = {side: len(own) for side, own in _of_sides(photos).items()}
    told = ", ".join(f"{side} {count:,}" for side, count in sides.items())
    yield f"{kind}: {counted(len(photos), 'photo')} ({told}) with {counted(boxes, 'box', 'boxes')} in {folder}."
    if NO_SIDE in sides and kind != "COCO":
        yield f"{counted(sides[NO_SIDE], 'photo')} without a side stand in no list. Split first, in 2_photos."


def _lost_sentences(photos: Photos, kind: str) -> Iterator[str]:
    """Yield which flags the format cannot hold."""
    lost = Counter(flag for photo in photos for box in photo.boxes for flag in box.flags)
    lost = {flag: count for flag, count in sorted(lost.items()) if flag not in KEPT_FLAGS[kind]}
    if lost:
        named = ", ".join(f"{flag} ({counted(count, 'box', 'boxes')})" for flag, count in lost.items())
        group = " A box around many things is a plain box there." if GROUP in lost else ""
        yield f"{kind} has no place for the flags {named}.{group}"
