"""
Masks, where they come from: a folder that the project file names, and data/<name>/masks, which is the person's.

A folder with images/ and masks/ brings its own photos. They train the masker and are never classified. Else the folder
holds masks of the project's own photos, named as these were called by their giver, or by their ids.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import numpy as np
from PIL import Image

from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.listing import list_photos
from utils.masks.drawing import finish_drawings, strokes_log
from utils.masks.reading import LIGHT, MaskError, mask_png, masks_folder, read_mask, read_photo
from utils.settling import PAINT
from utils.storage import content_id, locked, remove_leftovers, visible_files, write_whole

JUDGING = "valid", "test"  # sides whose photos only judge the masker: in use, nobody draws
# Reasons why a mask is not used, which are counted.
NO_PHOTO, SECOND, GONE = "it has no photo", "another mask has the same photo", "its photo is no longer in the project"
NO_MASK = "a photo without a mask"


@dataclass(frozen=True)
class DrawnMask:
    """A mask that can be used, and its photo."""

    name: str  # of the photo, as its giver calls it
    photo: Path
    mask: Path
    thing: str  # "light" or "dark"
    group: str  # shared by near-duplicates
    trains: bool  # else its photo is in the validation or test set, and it only judges
    content: str  # hex digits that change with the photo or the mask

    def read(self) -> tuple[Image.Image, np.ndarray]:
        """Return the photo, at most 512 pixels, and its mask, bool (H, W), or raise MaskError."""
        image, own = read_photo(self.photo)
        return image, read_mask(self.mask, self.thing, image.size, own)


@dataclass(frozen=True)
class Masks:
    """The masks of a project: those that can be used, sorted by name, and what became of the others."""

    drawn: tuple[DrawnMask, ...] = ()
    copied: int = 0  # to data/<name>/masks, in this call
    refused: tuple[tuple[str, str], ...] = ()  # file and reason

    @property
    def enough(self) -> bool:
        """Whether a masker can learn from them: two photos of the training set have one, and are no near-duplicates."""
        return len({mask.group for mask in self.drawn if mask.trains}) > 1

    @property
    def reasons(self) -> Counter:
        """How many masks were refused for each reason."""
        return Counter(reason for _, reason in self.refused)


def take_masks(dataset: Dataset) -> Masks:
    """
    Copy the masks of the project's own photos from `mask_source`, and return all masks that can be used.

    A mask that is in data/<name>/masks already is a person's, and stays as it is; one that was being painted when the
    kernel died is finished. Raises FieldguideError if the source is not there, or is a folder of this project's own.
    """
    finish_drawings(dataset)
    place, copied, refused, brought = _source(dataset), 0, [], []
    if place and (place / "images").is_dir() and (place / "masks").is_dir():
        brought = list(_pairs(place, refused))
    elif place:
        copied = _copy_masks(dataset, place, refused)
    drawn = list(_usable(dataset, brought, refused))
    return Masks(tuple(sorted(drawn, key=lambda mask: (mask.name, mask.content))), copied, tuple(sorted(refused)))


def _source(dataset: Dataset) -> Path | None:
    """Return the folder that the project file names; None where it names none."""
    named = dataset.project.mask_source
    if named in ("", PAINT):
        return None
    place, own = Path(named), dataset.project.data.resolve()
    if not place.is_dir():
        raise FieldguideError(
            f"mask_source = {named!r} is not a folder. Name one that holds masks, or images/ and masks/; or remove the "
            "key from the project file."
        )
    if place.resolve().is_relative_to(own) or own.is_relative_to(place.resolve()):
        raise FieldguideError(
            f"mask_source = {named!r} lies in {own}, or holds it. There this project keeps its own files: name another "
            "folder, or remove the key (masks in masks/<id>.png are used without it)."
        )
    return place


def _pairs(place: Path, refused: list) -> Iterator[tuple[Path, Path]]:
    """Yield the photos and masks of a folder with images/ and masks/ that have the same name, whatever the suffix."""
    photos, masks = (_by_stem(place / part, refused) for part in ("images", "masks"))
    refused += [(_below(path, place), NO_PHOTO) for stem, path in masks.items() if stem not in photos]
    refused += [(_below(path, place), NO_MASK) for stem, path in photos.items() if stem not in masks]
    yield from ((photos[stem], masks[stem]) for stem in sorted(photos.keys() & masks.keys()))


def _by_stem(folder: Path, refused: list) -> dict[str, Path]:
    """Return the pictures in a folder and below by their place and name without suffix; of two the first counts."""
    found: dict[str, Path] = {}
    for path in list_photos(folder).photos:
        if found.setdefault(_normal(path.relative_to(folder).with_suffix("").as_posix()), path) != path:
            refused.append((_below(path, folder.parent), SECOND))
    return found


def _copy_masks(dataset: Dataset, place: Path, refused: list) -> int:
    """Copy masks of own photos that are not there yet, white where the thing is; return how many."""
    known, copied, taken = _photo_names(dataset), 0, set()
    with locked(dataset.project.data):
        remove_leftovers(masks_folder(dataset), below=False)
        for path in list_photos(place).photos:
            full = _normal(f"{path.parent.name}/{path.stem}")
            ids = known.get(full) or known.get(_normal(path.stem), [])
            name = _below(path, place)
            if len(ids) != 1 or ids[0] in taken:
                several = f"its name is that of {len(ids)} photos; put it into a folder named as theirs"
                refused.append((name, several if len(ids) > 1 else SECOND if ids else NO_PHOTO))
                continue
            taken.add(ids[0])
            target = masks_folder(dataset) / f"{ids[0]}.png"
            if target.exists() or strokes_log(dataset, ids[0]).exists():  # what a person cleared does not come back
                continue
            try:
                image, _ = read_photo(dataset[ids[0]].path)
                mask = read_mask(path, dataset.project.mask_thing, image.size)
            except MaskError as error:
                refused.append((name, str(error)))
                continue
            write_whole(target, mask_png(mask))
            copied += 1
    return copied


def _photo_names(dataset: Dataset) -> dict[str, list[str]]:
    """Return the names by which a mask may call a photo, with the ids that have each: id, own name, with its folder."""
    names: dict[str, list[str]] = defaultdict(list)
    for picture, place in zip(dataset, dataset.places, strict=True):
        folder, _, own = place.partition("/")
        told = {picture.id}
        if own:
            stem = Path(own).stem
            told |= {own, stem, f"{folder}/{own}", f"{folder}/{stem}"}
        for name in map(_normal, told):
            names[name].append(picture.id)
    return names


def _usable(dataset: Dataset, brought: list[tuple[Path, Path]], refused: list) -> Iterator[DrawnMask]:
    """Yield the masks that can be read: those of own photos, then those that brought their photo."""
    root, seen = masks_folder(dataset), set()
    pairs = [(path, path, LIGHT) for path in visible_files(root)]
    pairs += [(photo, mask, dataset.project.mask_thing) for photo, mask in brought]
    for photo, mask, thing in pairs:
        own = photo == mask  # in masks/<id>.png, which names its photo
        name = f"masks/{mask.name}" if own else _below(mask, mask.parents[1])
        if own and (mask.suffix != ".png" or mask.stem not in dataset):
            refused.append((name, GONE if mask.suffix == ".png" else "it is not called <id>.png"))
            continue
        try:
            photo = dataset[mask.stem].path if own else photo
            id = mask.stem if own else content_id(photo.read_bytes())
            if id in seen:
                raise MaskError(SECOND)
            told = dataset.records.told(photo) if own else photo.name
            content = id + content_id(mask.read_bytes())
            group, side = dataset.split.get(id, (id, None))
            found = DrawnMask(told, photo, mask, thing, group, side not in JUDGING, content)
            found.read()
        except (MaskError, OSError) as error:
            refused.append((name, str(error)))
            continue
        seen.add(id)
        yield found


def _normal(name: str) -> str:
    """Return a name as it is compared: macOS writes letters with marks in another way."""
    return normalize("NFC", name)


def _below(path: Path, folder: Path) -> str:
    """Return a path as it is called from a folder."""
    return path.relative_to(folder).as_posix()
