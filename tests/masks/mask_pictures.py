"""Drawn photos with a disc on a noisy ground, their masks, and a project that holds such photos."""

from pathlib import Path

import numpy as np
from conftest import picture_bytes
from PIL import Image, ImageDraw

from utils.dataset import Dataset, read_dataset
from utils.project import Project
from utils.storage import content_id, write_whole
from utils.tables import SOURCES_COLUMNS, SPLIT_COLUMNS, append_rows


def photo_and_mask(seed: int, size: tuple[int, int] = (160, 120)) -> tuple[Image.Image, Image.Image]:
    """Return a photo of one disc, and its mask, white where the disc is; another seed gives another photo."""
    rng = np.random.default_rng(seed)
    ground = Image.fromarray(rng.integers(60, 200, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    mask = Image.new("L", size)
    radius = int(rng.integers(size[1] // 6, size[1] // 4))
    x, y = (int(rng.integers(radius, side - radius)) for side in size)
    for image, colour in ((ground, "tomato"), (mask, 255)):
        ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return ground, mask


def write_pairs(folder: Path, count: int, *, first: int = 0) -> None:
    """Write photos and masks into images/ and masks/ of a folder."""
    for n in range(first, first + count):
        photo, mask = photo_and_mask(n)
        write_whole(folder / "images" / f"{n}.jpg", picture_bytes(photo))
        write_whole(folder / "masks" / f"{n}.png", picture_bytes(mask, "PNG"))


def add_photo(project: Project, seed: int, label: str, *, name: str = "", side: str = "train", group: str = "") -> str:
    """Put the photo of a seed into a project, as 01 to 03 would, and return its id; its giver calls it `name`."""
    data = picture_bytes(photo_and_mask(seed)[0], quality=95)
    id = content_id(data)
    write_whole(project.images / label / f"{id}.jpg", data)
    row = {"id": id, "label": label, "engine": "folder", "title": name or f"IMG_{seed}.jpg", "url": f"{label}/{seed}"}
    append_rows(project.table("sources"), SOURCES_COLUMNS, [row])
    append_rows(project.table("split"), SPLIT_COLUMNS, [{"id": id, "group": group or id, "side": side}])
    return id


def with_photos(project: Project, count: int = 6) -> tuple[Dataset, list[str]]:
    """Return a data set of photos 0, 1, … with their ids in this order; the labels take turns."""
    labels = list(project.labels)
    ids = [add_photo(project, n, labels[n % len(labels)]) for n in range(count)]
    return read_dataset(project), ids
