"""
Finding raccoons: 3_train against the same network in a plain PyTorch loop, and against torchvision's recipe.

    python benchmarks/raccoons.py FOLDER [--seeds 0 1 2] [--held 40] [--plain 1] [--recipe 3]

FOLDER holds images/ and annotations/ with a VOC file of the same name each. Per seed, `--held` photos are drawn to be
held out, and each way trains on the others; all begin with the same weights, and the photos are opened once before.

- ours: the learner of 3_train, with the settings of task = "detect". It judges nothing while it trains, and its last
  epoch counts: the photos held out choose nothing.
- plain: the same network, pictures and rates in a loop of 20 lines around torch's AdamW, for the first `--plain` seeds.
- recipe: torchvision's reference recipe (references/detection): SGD with a rate of .02 per 16 pictures, momentum .9,
  weight decay 1e-4, a warm-up, steps after two thirds and 11/12 of the epochs, mirrored pictures, nothing frozen.

Seconds are of the processor, one thread, from opened photos to a trained network. AP is faster-coco-eval's.
"""

import argparse
import random
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree  # files of a folder that you name yourself
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.boxes import Box, Photos, read_photos, write_boxes
from utils.detect import build_detector
from utils.detect.detecting import detect_boxes, judged_photos
from utils.detect.loading import BoxChanges, BoxLoader, box_changes, box_dataloaders
from utils.detect.matching import average_precision
from utils.detect.training import box_loss, detector_layers, planned_for, train_as_3
from utils.project import Project
from utils.storage import content_id

WARM_UP, STEPS, FALL = 100, (2 / 3, 11 / 12), 0.1  # of the recipe: batches, shares of the epochs, times
NO_CHANGES = BoxChanges(crop=1, stretch=1, light=0, colour=0)  # all but the mirroring


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--held", type=int, default=40)
    parser.add_argument("--plain", type=int, default=1)
    parser.add_argument("--recipe", type=int, default=3)
    options = parser.parse_args()
    if not options.folder:
        print("Left out: name a folder with images/ and annotations/ to measure this.")
        return
    torch.set_num_threads(1)
    ways: dict[str, tuple[Callable, int]] = {
        "3_train": (ours, len(options.seeds)),
        "the same in plain PyTorch": (plain, options.plain),
        "torchvision's recipe": (recipe, options.recipe),
    }
    print("| | seed | AP50 | AP50:95 | CPU seconds |\n|---|---|---|---|---|", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), options.folder)
        for n, seed in enumerate(options.seeds):
            photos = drawn(Path(folder), seed, options.held)
            for name, (train, count) in ways.items():
                if n >= count:
                    continue
                began = time.process_time()
                detector = train(photos)
                seconds = time.process_time() - began
                held = photos.on("test")
                judged = judged_photos(held, detect_boxes(detector, held))
                rows.append((name, average_precision(judged, thresholds=[0.5]), average_precision(judged), seconds))
                print(f"| {name} | {seed} | {rows[-1][1]:.3f} | {rows[-1][2]:.3f} | {seconds:.0f} |", flush=True)
    for name in ways:
        if mine := [row[1:] for row in rows if row[0] == name]:
            ap50, ap, seconds = (mean(column) for column in zip(*mine, strict=True))
            print(f"| **{name}, mean** | {len(mine)} | **{ap50:.3f}** | {ap:.3f} | {seconds:.0f} |")


def fill(folder: Path, source: Path) -> None:
    """Put photos and boxes where a project of 2_photos keeps them."""
    project = project_in(folder, 0)
    project.images.mkdir(parents=True)
    boxes = {}
    for path in sorted(source.glob("annotations/*.xml")):
        root = ElementTree.parse(path).getroot()
        file = source / "images" / root.findtext("filename")
        id = content_id(file.read_bytes())
        image = Image.open(file).convert("RGB")
        image.thumbnail((640, 640), Image.Resampling.BILINEAR)
        image.save(project.images / f"{id}.jpg", quality=92)
        sides = [int(root.findtext(f"size/{side}")) for side in ("width", "height")] * 2
        boxes[id] = [box_of(thing, sides) for thing in root.iter("object")]
    write_boxes(project.table("boxes"), boxes)


def box_of(thing: ElementTree.Element, sides: list[int]) -> Box:
    """Return the box of one object in a VOC file."""
    corners = [float(thing.findtext(f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax")]
    fractions = (round(min(1.0, corner / side), 7) for corner, side in zip(corners, sides, strict=True))
    return Box(thing.findtext("name"), *fractions)


def project_in(folder: Path, seed: int) -> Project:
    """Return the project of all ways, with the settings that task = "detect" begins with."""
    roots = {"data_dir": str(folder / "data"), "models_dir": str(folder / "models")}
    return Project.model_validate({"name": "raccoons", "task": "detect", "source": "photos", "seed": seed} | roots)


def drawn(folder: Path, seed: int, held: int) -> Photos:
    """Return the photos with `held` of them in the test set; the rest train, and judge nothing."""
    photos = read_photos(project_in(folder, seed))
    ids = random.Random(seed).sample(photos.dataset.ids, len(photos))
    sides = {id: "test" if n < held else "train" for n, id in enumerate(ids)}
    return replace(photos, dataset=photos.dataset.with_split({id: (id, side) for id, side in sides.items()}))


def with_valid(photos: Photos) -> Photos:
    """Return photos with one of the training set as validation set, as fastai wants one."""
    first = photos.on("train").dataset.ids[0]
    sides = {photo.id: (photo.id, "valid" if photo.id == first else photo.side) for photo in photos}
    return replace(photos, dataset=photos.dataset.with_split(sides))


def ours(photos: Photos):
    """Return the detector that 3_train's learner trains."""
    return train_as_3(with_valid(photos), best=False)[0].model


def loader_of(photos: Photos, detector, changes: BoxChanges) -> BoxLoader:
    """Return the training pictures of 3_train, varied in a way."""
    loader = box_dataloaders(with_valid(photos), detector).train
    loader.dataset.changes = changes
    return loader


def plain(photos: Photos):
    """Return the detector that a loop around torch's AdamW trains, with 3_train's pictures and rates."""
    project, detector = photos.project, build_detector(photos.project, photos.labels)
    loader = loader_of(photos, detector, box_changes(project))
    plan = planned_for(project, len(loader))
    groups = [{"params": group, "lr": 0.0} for group in detector_layers(detector)]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-5, weight_decay=0.01)
    frozen = project.freeze_epochs * len(loader)
    rates = ([0 if np.isnan(rate) else rate for rate in row] for row in plan)
    return looped(detector, loader, optimizer, rates, project.freeze_epochs + project.epochs, frozen=frozen)


def recipe(photos: Photos):
    """Return the detector that torchvision's reference recipe trains for as many epochs."""
    project, detector = photos.project, build_detector(photos.project, photos.labels)
    loader, epochs = loader_of(photos, detector, NO_CHANGES), project.freeze_epochs + project.epochs
    highest = 0.02 * project.batch_size / 16
    groups = [{"params": group, "lr": 0.0} for group in detector_layers(detector)]
    optimizer = torch.optim.SGD(groups, lr=highest, momentum=0.9, weight_decay=1e-4)
    return looped(detector, loader, optimizer, steps(highest, len(loader), epochs), epochs)


def steps(highest: float, batches: int, epochs: int) -> Iterator[tuple[float, float]]:
    """Yield the recipe's rate of each batch, of both groups of layers."""
    for n in range(batches * epochs):
        fallen = sum(n / (batches * epochs) >= at for at in STEPS)
        rate = highest * min(1.0, 0.001 + n / WARM_UP) * FALL**fallen
        yield rate, rate


def looped(detector, loader: BoxLoader, optimizer, rates: Iterator, epochs: int, *, frozen: int = 0):
    """Train a detector in a plain loop; the first layers stay as they are for `frozen` batches."""
    detector.to(memory_format=torch.channels_last)
    first, n = optimizer.param_groups[0]["params"], 0
    for loader.epoch in range(epochs):
        detector.train()
        for pixels, targets, counts in loader:
            for parameter in first:
                parameter.requires_grad_(n >= frozen)
            for group, rate in zip(optimizer.param_groups, next(rates), strict=True):
                group["lr"] = rate
            optimizer.zero_grad()
            box_loss(detector(pixels, targets), counts).backward()
            optimizer.step()
            n += 1
    return detector.eval()


if __name__ == "__main__":
    main()
