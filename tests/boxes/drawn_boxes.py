"""Drawn photos with things in them: discs and blocks on a noisy ground, and where each stands."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from utils.boxes import Box, write_boxes
from utils.storage import content_id

COLOURS = {"ball": (200, 60, 40), "block": (40, 90, 200)}


def draw_scene(seed: int, *, size: tuple[int, int] = (160, 120), most: int = 2) -> tuple[Image.Image, tuple[Box, ...]]:
    """Return a picture and the boxes of the things in it, 0 to `most`; every sixth is empty."""
    draw, (width, height) = np.random.default_rng(seed), size
    ground = draw.integers(90, 140, (height, width, 3), dtype=np.uint8)
    image, boxes = Image.fromarray(ground), []
    pen = ImageDraw.Draw(image)
    for n in range(0 if seed % 6 == 5 else 1 + int(draw.integers(most))):
        label = ("ball", "block")[int(draw.integers(2))]
        side = int(draw.integers(height // 4, height // 2))
        left = int(draw.integers(0, width // most - side)) + n * (width // most)  # things do not overlap
        top = int(draw.integers(0, height - side))
        shape = pen.ellipse if label == "ball" else pen.rectangle
        shape((left, top, left + side - 1, top + side - 1), fill=COLOURS[label])
        corners = left / width, top / height, (left + side) / width, (top + side) / height
        boxes.append(Box(label, *(round(corner, 7) for corner in corners)))
    return image, tuple(boxes)


def draw_folder(folder: Path, count: int) -> dict[str, tuple[Box, ...]]:
    """Draw photos 0000.jpg … into a folder; return the boxes of each by its name without the ending."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for n in range(count):
        image, boxes = draw_scene(n)
        image.save(folder / f"{n:04}.jpg", quality=92)
        found[f"{n:04}"] = boxes
    return found


def fill_project(project, count: int) -> None:
    """Put drawn photos and their boxes where a project keeps them, as after 2_photos, split in three."""
    project.images.mkdir(parents=True, exist_ok=True)
    boxes, rows = {}, []
    for n in range(count):
        image, found = draw_scene(n)
        image.save(path := project.images / "new.jpg", quality=92)
        id = content_id(path.read_bytes())
        path.rename(project.images / f"{id}.jpg")
        boxes[id] = found
        rows.append(f"{id},{id},{'test' if n % 10 == 1 else 'valid' if n % 5 == 0 else 'train'}\n")
    write_boxes(project.table("boxes"), {id: found for id, found in boxes.items() if found})
    project.table("split").write_text("id,group,side\n" + "".join(rows), encoding="utf-8")


def telling_much(detector):
    """Return a one-stage detector whose weights are drawn so that it tells many boxes, each with a score of its own."""
    import torch

    generator, side = torch.Generator().manual_seed(1), detector.size
    detector.train()
    with torch.no_grad():
        for layer in detector.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None  # takes what it is shown: else what is drawn fades from layer to layer
        detector.maps_and_outputs(torch.randint(0, 256, (4, side, side, 3), dtype=torch.uint8, generator=generator))
        for name, weights in detector.network.head.classification_head.named_parameters():
            if "cls_logits" in name or (weights.ndim == 4 and weights.shape[2:] == (1, 1)):
                torch.nn.init.normal_(weights, std=0.1, generator=generator)
    return detector.eval()
