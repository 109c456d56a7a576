"""
A folder of photos and boxes: which format its files have, and which photo each is of.

Photos and files belong together by their names (see `finder`). Nothing is changed.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath

from utils.archives import unpack_zip
from utils.boxes.box import Box
from utils.boxes.coco import read_coco
from utils.boxes.drawn import PhotoBoxes
from utils.boxes.finder import PhotoIndex
from utils.boxes.sizes import stored_size
from utils.boxes.source import BoxNotes, BoxSource, SourcePhoto, checked_boxes, plain_label, turned_box, wanted_boxes
from utils.boxes.voc import read_voc
from utils.boxes.yolo import read_small, read_yolo
from utils.errors import FieldguideError
from utils.listing import SIDE_NAMES, Listing, list_photos, passed_sentence
from utils.places import is_archive
from utils.project import Project
from utils.storage import locked
from utils.words import counted

FORMATS: Mapping[str, Callable] = {"COCO": read_coco, "VOC": read_voc, "YOLO": read_yolo}
LARGEST_LIST = 100_000_000  # bytes of a list of photos
SAME_SHAPE = 0.02  # how far two ratios of width to height may be apart, of pictures that are one, reduced
LISTS_OF_PHOTOS = (".", "ImageSets/Main", "ImageSets")  # where train.txt and the like may lie


def read_box_folder(project: Project, place: Path) -> BoxSource:
    """
    List the photos of a folder, or a ZIP of one, with their boxes from VOC XML, YOLO text or COCO JSON.

    Which of these it is, is found by what lies there. A photo that its format says to be empty is a photo without a
    thing; one of which nothing is said is left out. Raises FieldguideError if the place is not there, or holds no boxes
    of the project's labels.
    """
    if not place.exists():
        raise FieldguideError(f"There is no folder {place}. Correct source in the project file.")
    folder, remarks = place, ()
    if is_archive(place):
        with locked(project.data):
            folder, remarks = unpack_zip(place, project.data / "cache")
    elif not place.is_dir():
        raise FieldguideError(f"{place} is a file, not a folder or a ZIP. Name the folder that holds photos and boxes.")
    apart = () if folder != place else (project.data.resolve(), project.models.resolve())
    listing = list_photos(folder, follow_links=project.follow_links, but=apart)
    if not listing.files:
        raise FieldguideError(f"{place} holds no photos. {passed_sentence(folder, listing.passed)}".strip())
    notes, index = BoxNotes(), PhotoIndex(folder, listing.photos)
    name, found, others, files = _read_best(folder, listing, index, notes, place)
    sides = _sides(folder, listing, index) or {each.path: each.side for each in found if each.side}
    sides = sides if is_ready_split(sides.values()) else {}
    photos = [photo for each in found if (photo := _source_photo(each, index, sides, notes))]
    spoken = {each.path for each in found}
    for path in (path for path in listing.photos if path not in spoken):
        notes.left("photo", f"of which no {name} file says whether a thing is in it", index.inside(path))
    photos.sort(key=lambda photo: photo.address)
    kept, told = wanted_boxes(photos, project.labels, str(place), " ".join(notes.sentences()))
    names = tuple(sorted({box.label for photo in photos for box in photo.boxes}))
    passed = passed_sentence(folder, [each for each in listing.passed if each[1] not in files])
    told_others = [f"{other} files are there too, and were not read: {counted(n, 'photo')}." for other, n in others]
    remarks = tuple(filter(None, (*remarks, *notes.sentences(), told, *told_others, passed)))
    return BoxSource(str(place), name, kept, remarks, names, folder)


def _read_best(
    folder: Path, listing: Listing, index: PhotoIndex, notes: BoxNotes, place: Path
) -> tuple[str, list[PhotoBoxes], list[tuple[str, int]], set[Path]]:
    """Return the format that says something of most photos, what it says, the other formats, and the files read."""
    texts = [path for _, path in listing.passed]
    read = []
    for rank, (name, reader) in enumerate(FORMATS.items()):
        own = BoxNotes()
        found, files = reader(folder, texts, index, own)
        if files:
            read.append((-len(found), rank, name, found, own, files))
    if not read:
        raise FieldguideError(
            f"{place} holds {counted(len(listing.files), 'photo')} and no file of boxes. Put VOC XML, YOLO text or "
            "COCO JSON beside them."
        )
    _, _, name, found, own, files = min(read, key=lambda each: each[:2])
    notes.take(own)
    if not found:
        told = " ".join(own.sentences())
        raise FieldguideError(f"{place} holds {name} files, but no readable one belongs to a photo there. {told}")
    return name, found, [(other[2], -other[0]) for other in read if other[2] != name and other[0]], files


def _source_photo(
    said: PhotoBoxes, index: PhotoIndex, sides: Mapping[Path, str], notes: BoxNotes
) -> SourcePhoto | None:
    """Return one photo with its boxes as fractions; None if its size is not the one that its boxes are for."""
    where = index.inside(said.path)
    scale = ((1.0, 1.0), 1) if said.fractions else _scale(said, where, notes)
    if not scale:
        return None
    (width, height), stored = scale
    boxes = []
    for drawn in said.boxes:
        if label := plain_label(drawn.label):
            corners = [value / side for value, side in zip(drawn.corners, (width, height) * 2, strict=True)]
            boxes.append(turned_box(Box(label, *corners, drawn.flags), stored))
        else:
            notes.left("box", "of an unknown label", f"{drawn.label!r} in {where}")
    side = sides.get(said.path)
    checked = checked_boxes(boxes, notes, where)
    return SourcePhoto(said.path.as_uri(), checked, said.path, index.title(said.path), {"side": side} if side else {})


def _scale(said: PhotoBoxes, where: str, notes: BoxNotes) -> tuple[tuple[float, float], int] | None:
    """
    Return the width and height that pixels of boxes are of, and how these are turned (EXIF's numbers 1 to 8).

    Programs to draw boxes show a photo upright, most of them; others ignore its EXIF record. The size in the file says
    which it was, wherever a quarter turn makes another of it; else the photo was upright.
    """
    size, (width, height, stored) = said.size, stored_size(said.path)
    if not width:  # whoever takes it says why it cannot be read
        return (size, 1) if size else None
    upright = (height, width) if stored >= 5 else (width, height)
    told = f"{where} ({'×'.join(map(str, size or ()))} said, {'×'.join(map(str, upright))} found)"
    if not size:
        notes.told("photo", "whose file says no size: that of the photo was taken", where)
        return upright, 1
    if size == upright or (same := _same_shape(size, upright)):
        if stored != 1 and (stored < 5 or width == height):
            notes.told("photo", "turned by its EXIF record: its boxes are taken for the upright photo", where)
        if size != upright and same:
            notes.told("photo", "of another size than its file says and of the same shape: boxes moved along", told)
        return size, 1
    if stored >= 5 and _same_shape(size, (width, height)):
        notes.told("photo", "whose boxes are for the photo as it is stored: they were turned with it", where)
        return size, stored
    notes.left("photo", "of another shape than its file says, so that its boxes cannot be right", told)
    return None


def _same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two sizes are those of one picture, one of them reduced."""
    return abs(size[0] * other[1] / (size[1] * other[0]) - 1) <= SAME_SHAPE


def _sides(folder: Path, listing: Listing, index: PhotoIndex) -> dict[Path, str]:
    """Return photo → side, where the folder is split already: by folders, or by lists such as train.txt."""
    sides: dict[Path, str] = {}
    for path in listing.photos:
        named = [SIDE_NAMES[part] for part in index.inside(path).casefold().split("/")[:-1] if part in SIDE_NAMES]
        sides |= {path: named[0]} if named else {}
    for place in () if sides else LISTS_OF_PHOTOS:
        for name, side in SIDE_NAMES.items():
            for line in _listed_names(folder / place / f"{name}.txt"):
                found, _ = index.named(line, folder)
                found = found or index.of_file(folder / f"{PurePosixPath(line).name}.x")[0]
                sides |= {found: side} if found else {}
    return sides


def is_ready_split(sides: Collection[str]) -> bool:
    """Return whether photos have a set to train on, and one to judge by."""
    return len({*sides, "train"}) > 1 and "train" in {*sides}


def _listed_names(path: Path) -> list[str]:
    """Return the lines of a list of photos, without blanks at their ends; none if there is no such file."""
    lines = (read_small(path, LARGEST_LIST) or "").replace("\\", "/").splitlines()
    return [line.strip().removeprefix("./") for line in lines if line.strip() and len(line) < 4096]
