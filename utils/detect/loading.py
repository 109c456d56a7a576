"""
3_train, the pictures: photos and their boxes as batches for a detector, varied from epoch to epoch.

Reads images/; writes nothing. Every random choice follows from the seed, the epoch and the photo's id alone. So a
training that was stopped sees the same batches when it goes on, however many processes load them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from fastai.data.all import DataLoader, DataLoaders
from PIL import Image, ImageDraw, ImageEnhance
from torch import Tensor

from utils.boxes import GROUP, Box, BoxedPhoto, Photos, corner_array
from utils.errors import FieldguideError
from utils.pictures import AROUND, PictureError, letterboxed, open_picture
from utils.project import Project
from utils.storage import content_id
from utils.train import worker_count
from utils.words import counted

IGNORED_FLAGS = frozenset({GROUP, "difficult"})  # of boxes that are neither things to find nor places without one
NO_LABEL = -1  # in place of a label's position, of boxes that are ignored
CROP_TRIES = 20  # to draw a part of the photo that shows a thing
SHOWN_WHOLE = 0.15  # share of the training pictures that are shown as they are
LEAST_SHOWN = 0.4  # of a thing's area, at least, for its box to stay; one that shows less is ignored from then on
KEPT_CORES = 2  # for the training itself: on two, processes that load photos would take them from it
USED_KEYS = {"crop", "do_flip", "flip_vert", "max_lighting", "max_saturation", "mult", "stretch"}  # of [augment]


@dataclass(frozen=True)
class BoxChanges:
    """
    How training pictures vary. All but the mirroring are the same for the picture and what it shows.

    `crop` is the least share of the photo's area that is shown, `stretch` how many times wider or narrower that part is
    than the photo, `light` and `colour` the largest changes of brightness, contrast and saturation.
    """

    crop: float = 0.4
    stretch: float = 1.35
    mirrored: bool = True
    upside_down: bool = False
    light: float = 0.2
    colour: float = 0.2


def box_changes(project: Project) -> BoxChanges:
    """
    Return how `augment` in the project file lets training pictures vary.

    Raises FieldguideError for keys of [augment] that turn or bend pictures, or change them in steps of 04: a box that
    is turned does not fit its thing any more.
    """
    if project.augment == "standard":
        return BoxChanges()
    if project.augment == "strong":
        return BoxChanges(crop=0.2, light=0.4, colour=0.4)
    table, usual = project.augment, BoxChanges()
    if other := sorted(table.keys() - USED_KEYS):
        raise FieldguideError(
            f"[augment] has {other[0]}, which does not go with boxes. Keys that do: {', '.join(sorted(USED_KEYS))}."
        )
    many = table.get("mult", 1.0)
    return BoxChanges(
        crop=table.get("crop", usual.crop),
        stretch=table.get("stretch", usual.stretch),
        mirrored=table.get("do_flip", True),
        upside_down=table.get("flip_vert", False),
        light=min(0.9, many * table.get("max_lighting", usual.light)),
        colour=table.get("max_saturation", usual.colour),
    )


def varied(
    image: Image.Image, corners: np.ndarray, labels: np.ndarray, changes: BoxChanges, draw: np.random.Generator
) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """
    Return a photo as `draw` varies it, its boxes (M, 4) in pixels, and their labels (M,).

    A box is cut off with the photo. Where less than `LEAST_SHOWN` of it is left it becomes `NO_LABEL`; where nothing is
    left it goes, with its label.
    """
    if draw.random() >= SHOWN_WHOLE:
        image, corners, labels = _cropped(image, corners, labels, changes, draw)
    for lit, most in ((ImageEnhance.Brightness, changes.light), (ImageEnhance.Contrast, changes.light)):
        image = lit(image).enhance(draw.uniform(1 - most, 1 + most))
    image = ImageEnhance.Color(image).enhance(draw.uniform(1 - changes.colour, 1 + changes.colour))
    for wanted, way, axis in (
        (changes.mirrored, Image.Transpose.FLIP_LEFT_RIGHT, 0),
        (changes.upside_down, Image.Transpose.FLIP_TOP_BOTTOM, 1),
    ):
        if draw.random() < 0.5 and wanted:
            image, corners = image.transpose(way), corners.copy()
            corners[:, [axis, axis + 2]] = image.size[axis] - corners[:, [axis + 2, axis]]
    return image, corners, labels


def _cropped(image, corners, labels, changes, draw):
    """Return a part of a photo that shows a thing, if it has any; the whole one where none is found in `CROP_TRIES`."""
    width, height = image.size
    for _ in range(CROP_TRIES):
        share, stretch = draw.uniform(changes.crop, 1), math.exp(draw.uniform(-1, 1) * math.log(changes.stretch))
        wide, high = min(width, width * math.sqrt(share * stretch)), min(height, height * math.sqrt(share / stretch))
        left, top = round(draw.uniform(0, width - wide)), round(draw.uniform(0, height - high))
        right, bottom = max(left + 1, round(left + wide)), max(top + 1, round(top + high))
        cut = corners.clip((left, top) * 2, (right, bottom) * 2) - (left, top) * 2
        shares = _areas(cut) / _areas(corners)
        seen = shares >= LEAST_SHOWN
        if (seen & (labels != NO_LABEL)).any() or not (labels != NO_LABEL).any():
            left_over = np.where(seen, labels, NO_LABEL)
            kept = shares > 0
            return image.crop((left, top, right, bottom)), cut[kept], left_over[kept]
    return image, corners, labels


def _areas(corners: np.ndarray) -> np.ndarray:
    """Return the areas (M,) of boxes (M, 4)."""
    return np.prod(corners[:, 2:] - corners[:, :2], 1)


def is_ignored(box: Box) -> bool:
    """Return whether a box is neither a thing to find nor a place without one."""
    return not IGNORED_FLAGS.isdisjoint(box.flags)


class BoxPictures:
    """
    The N photos of one side as a detector sees them. Item (epoch, n) is a picture and its target.

    The picture is a uint8 tensor (size, size, 3); the target a dict: "boxes" float32 (M, 4) in pixels of the square,
    "labels" int64 (M,), "ignored" float32 (I, 4), and "picture" float32 (4,), where in the square the photo lies. Where
    the detector's loss cannot leave out ignored boxes (`hide`), what only they cover is grey.
    """

    def __init__(self, photos: Photos, *, changes: BoxChanges | None = None, hide: bool = False):
        project = photos.project
        self.photos, self.labels, self.changes, self.hide = tuple(photos), photos.labels, changes, hide
        self.seed, self.size = project.seed, project.size

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def items(self) -> list[Path]:
        """The paths of the photos."""
        return [photo.path for photo in self.photos]

    def __getitem__(self, at: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]:
        epoch, n = at
        photo = self.photos[n]
        image = opened_photo(photo)
        corners = corner_array(photo.boxes) * (image.size * 2)
        labels = np.array([NO_LABEL if is_ignored(box) else self.labels.index(box.label) for box in photo.boxes], int)
        if self.changes:
            draw = np.random.default_rng([self.seed, epoch, int(content_id(photo.id.encode()), 16)])
            image, corners, labels = varied(image, corners, labels, self.changes, draw)
        if self.hide:
            image = _hidden(image, corners, labels)
        pixels, place = letterboxed(image, self.size)
        corners = place.into(corners / (image.size * 2)).astype(np.float32)
        wide = (corners[:, 2:] > corners[:, :2]).all(1)  # in 32 bits a thin box may have lost its area
        things, others = corners[wide & (labels != NO_LABEL)], corners[wide & (labels == NO_LABEL)]
        target = {"boxes": things, "labels": labels[wide & (labels != NO_LABEL)], "ignored": others}
        target["picture"] = place.into(np.array([0.0, 0, 1, 1])).astype(np.float32)
        return torch.from_numpy(pixels.copy()), {name: torch.from_numpy(value) for name, value in target.items()}


def opened_photo(photo: BoxedPhoto) -> Image.Image:
    """Return a photo's training copy, or say which one cannot be read."""
    try:
        return open_picture(photo.path)
    except FileNotFoundError:
        raise FieldguideError(f"A photo was moved or deleted meanwhile, {photo.path}. Run 3_train again.") from None
    except (PictureError, OSError) as error:
        raise FieldguideError(
            f"{photo.path} cannot be read ({error}). Delete it and its line in pictures.csv, and run 2_photos."
        ) from error


def _hidden(image: Image.Image, corners: np.ndarray, labels: np.ndarray) -> Image.Image:
    """Return a photo in which ignored boxes are grey, but for the things inside them."""
    if not (labels == NO_LABEL).any():
        return image
    grey, pen = image.copy(), None
    pen = ImageDraw.Draw(grey)
    for box in corners[labels == NO_LABEL]:
        pen.rectangle(tuple(box), fill=AROUND)
    for box in corners[labels != NO_LABEL].round().astype(int):
        part = tuple(map(int, box))
        grey.paste(image.crop(part), part[:2])
    return grey


class BoxLoader(DataLoader):
    """fastai's DataLoader, in an order that follows from seed and epoch; `skipped` batches of an epoch are done."""

    epoch, skipped = 0, 0

    def get_idxs(self) -> list[tuple[int, int]]:
        count = len(self.dataset)
        order = shuffled(count, self.dataset.seed, self.epoch) if self.shuffle else range(count)
        return [(self.epoch, n) for n in order][self.skipped * self.bs :]


@lru_cache(maxsize=2)
def shuffled(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    """Return the numbers below `count` in the order of an epoch."""
    return tuple(np.random.default_rng([seed, epoch]).permutation(count).tolist())


def together(items: Sequence[tuple[Tensor, dict[str, Tensor]]]) -> tuple[Tensor, list[dict[str, Tensor]], Tensor]:
    """Return N pictures (N, size, size, 3), their targets, and how many things each shows (N,), which fastai counts."""
    pixels, targets = zip(*items, strict=True)
    return torch.stack(pixels), list(targets), torch.tensor([len(target["boxes"]) for target in targets])


def box_dataloaders(photos: Photos, detector, *, workers: int | None = None) -> DataLoaders:
    """
    Return fastai's DataLoaders of the training and the validation set, for a `BoxDetector`.

    A batch is (pictures, targets, counts): the first two go into the network, which finds its loss itself. Raises
    FieldguideError for an empty set, labels without a box to learn from, and photos without a side.
    """
    project, train, valid = photos.project, photos.on("train"), photos.on("valid")
    if without := [photo.id for photo in photos if photo.side is None]:
        raise FieldguideError(
            f"{counted(len(without), 'photo')} without a side, {without[0]} among them. Run 2_photos."
        )
    for name, side in (("training", train), ("validation", valid)):
        if not len(side):
            raise FieldguideError(f"The {name} set of {project.name!r} is empty. Run 2_photos first.")
    found = {box.label for photo in train for box in photo.boxes if not is_ignored(box)}
    if missing := [label for label in photos.labels if label not in found] or ([] if photos.labels else ["anything"]):
        raise FieldguideError(
            f"No photo of the training set has a box around {missing[0]!r} that counts: nothing can be learned of it. "
            "Gather more photos (1_tables, 2_photos), or take the label out of the project file."
        )
    hide, workers = not detector.ignores, worker_count(kept=KEPT_CORES) if workers is None else workers
    how = {"bs": min(project.batch_size, len(train)), "num_workers": workers, "create_batch": together}
    sets = [BoxPictures(train, changes=box_changes(project), hide=hide), BoxPictures(valid, hide=hide)]
    loaders = [BoxLoader(each, shuffle=n == 0, **how) for n, each in enumerate(sets)]
    dls = DataLoaders(*loaders, path=project.models, device=_device())
    dls.fingerprint = photos.fingerprint
    return dls


def _device() -> torch.device:
    """Return the device to train on: a GPU where torch finds one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def smaller_pictures(project: Project) -> str:
    """Return what to do where memory runs out and batches are small already."""
    smaller = project.size // 64 * 32
    return f"Set size = {smaller}" if smaller else "Write a smaller arch, such as resnet18,"
