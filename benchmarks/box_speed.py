"""
How quick a detector is in use: torchvision's FCOS in evaluation against model.onnx and suppression in numpy.

    python benchmarks/box_speed.py [FOLDER] [--photos 80] [--size 160] [--epochs 3] [--rounds 5]

FOLDER holds images/ and annotations/ with a VOC XML for each photo; without it, photos with discs and blocks are drawn.
One FCOS with a feature pyramid on the packaged network is trained on the first 80 % of them for `--epochs`, in a plain
loop, so that its boxes mean something. Both sides get the same squares in memory, of the other photos, 16 at a time,
and give boxes from a score of 0.05 on; reading photos is the same for both and not measured. One core and thread, CPU
seconds of the process; sides take turns, rates are medians of the rounds, and so is the ratio, of those within a round.
AP50 is faster-coco-eval's.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from PIL import Image, ImageDraw

from utils.detect.exporting import RawNetwork
from utils.detect.network import LEAST_SCORE, MOST_BOXES, MOST_OVERLAP, BoxDetector, build_detector
from utils.export.formats import onnx_bytes
from utils.inference import load_detector
from utils.inference.suppression import strongest
from utils.pictures import letterboxed, open_picture
from utils.project import Project

BATCH, LONGEST = 16, 640
Truth = tuple[np.ndarray, np.ndarray]  # boxes (M, 4) as fractions of the photo, labels (M,)


def main(options: argparse.Namespace) -> None:
    """Train, export, measure both sides in turns, and print the table."""
    torch.set_num_threads(1)
    labels, photos = voc_folder(options.folder) if options.folder else drawn(5 * options.photos)
    squares, truth = as_squares(photos, options.size)
    first = len(photos) * 4 // 5
    settings = {"name": "speed", "task": "detect", "source": "x", "labels": {label: [] for label in labels}}
    project = Project.model_validate(settings | {"arch": "efficientnet_lite0", "size": options.size})
    detector = build_detector(project, labels)
    train(detector, squares[:first], truth[:first], options.epochs)
    pixels, targets = squares[first:], truth[first:]
    with tempfile.TemporaryDirectory() as scratch:
        ours = exported(detector, labels, Path(scratch) / "model.onnx")
        sides: dict[str, Callable] = {
            "torchvision": lambda batch: torchvisions(detector, batch),
            "model.onnx + numpy": lambda batch: numpys(ours, batch),
        }
        found, rates = {}, {side: [] for side in sides}
        for turn in range(options.rounds + 1):
            for side, ask in sides.items():
                began = time.process_time()
                found[side] = [each for at in range(0, len(pixels), BATCH) for each in ask(pixels[at : at + BATCH])]
                if turn:  # the first is for warming up
                    rates[side].append(len(pixels) / (time.process_time() - began))
    report(options, labels, pixels, targets, found, rates)


def report(options, labels, pixels, targets, found, rates) -> None:
    """Print the rates, the ratio, and how much the boxes differ."""
    theirs, ours = found.values()
    pairs = list(zip(theirs, ours, strict=True))
    counts = [(len(one[0]), len(other[0])) for one, other in pairs]
    same = [(one, other) for one, other in pairs if len(one[0]) == len(other[0])]
    corners = max((abs(one[0] - other[0]).max() for one, other in same if len(one[0])), default=0.0)
    scores = max((abs(one[1] - other[1]).max() for one, other in same if len(one[0])), default=0.0)
    ap = [ap50(side, targets, options.size, len(labels)) for side in found.values()]
    ratios = [b / a for a, b in zip(*rates.values(), strict=True)]
    print(f"FCOS on efficientnet_lite0, {options.size} px, {len(pixels)} photos, {len(labels)} labels, one thread\n")
    print("| | pictures per CPU second | AP50 |\n|---|---|---|")
    for (side, rate), value in zip(rates.items(), ap, strict=True):
        print(f"| {side} | {statistics.median(rate):.1f} ({min(rate):.1f} to {max(rate):.1f}) | {value:.4f} |")
    print(f"\nratio {statistics.median(ratios):.2f}× ({min(ratios):.2f} to {max(ratios):.2f}), wanted: at least 1.8×")
    print(f"AP50 differs by {abs(ap[0] - ap[1]):.5f}, wanted: at most .001")
    boxes = sum(a for a, _ in counts)
    print(f"{boxes:,} boxes; {len(pairs) - len(same)} photos with another number of them. Greatest difference: corners")
    print(f"{corners:.2g} px of {options.size}, scores {scores:.2g}")


# ---------------------------------------------------------------------------------------------------------------
# The sides
# ---------------------------------------------------------------------------------------------------------------


def torchvisions(detector: BoxDetector, batch: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """Ask torchvision's own module as its users do: a list of pictures in, dicts out."""
    images = list(torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255)
    with torch.inference_mode():
        found = detector.network(images)
    return [tuple(each[name].numpy() for name in ("boxes", "scores", "labels")) for each in found]


def numpys(ours, batch: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """Ask model.onnx, and suppress in numpy."""
    rules = {"least": LEAST_SCORE, "overlap": MOST_OVERLAP, "most": MOST_BOXES}
    return [strongest(boxes, scores, **rules) for boxes, scores in zip(*ours.raw(batch), strict=True)]


def exported(detector: BoxDetector, labels, path: Path):
    """Write the detector as `utils.export` does and load it as a program does."""
    import json

    detector.eval()
    recipe = {"longest_side": LONGEST, "size": detector.size, "overlap": MOST_OVERLAP, "most": MOST_BOXES}
    facts = {"task": "detect", "labels": list(labels), "recipe": recipe, "threshold": LEAST_SCORE}
    example = torch.zeros(2, detector.size, detector.size, 3, dtype=torch.uint8)
    texts = {name: json.dumps(fact) for name, fact in facts.items()}
    path.write_bytes(onnx_bytes(RawNetwork(detector), example, ("boxes", "scores"), texts))
    return load_detector(path)


def train(detector: BoxDetector, pixels: np.ndarray, truth: list[Truth], epochs: int) -> None:
    """Train in a plain loop: mirrored pictures, AdamW, one cycle."""
    torch.manual_seed(0)
    steps = epochs * (-(-len(pixels) // 8))
    optimizer = torch.optim.AdamW(detector.parameters(), 1e-3, weight_decay=1e-2)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    detector.train()
    size = detector.size
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(pixels))
        for at in range(0, len(order), 8):
            some, targets = order[at : at + 8], []
            mirrored = np.random.default_rng(epoch * 10_000 + at).random(len(some)) < 0.5
            pairs = list(zip(some, mirrored, strict=True))
            batch = np.stack([pixels[n][:, ::-1] if turned else pixels[n] for n, turned in pairs])
            for n, turned in pairs:
                boxes = truth[n][0].copy()
                if turned:
                    boxes[:, [0, 2]] = size - boxes[:, [2, 0]]
                boxes, labels = torch.from_numpy(boxes).float(), torch.from_numpy(truth[n][1])
                targets.append({"boxes": boxes, "labels": labels, "ignored": torch.zeros(0, 4)})
            loss = sum(detector(torch.from_numpy(batch.copy()), targets).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}", file=sys.stderr)
    detector.eval()


# ---------------------------------------------------------------------------------------------------------------
# Photos and figures
# ---------------------------------------------------------------------------------------------------------------


def voc_folder(folder: Path) -> tuple[list[str], list[tuple[Image.Image, Truth]]]:
    """Return the labels and photos of a folder with VOC XML files."""
    found, names = [], set()
    for path in sorted((folder / "annotations").glob("*.xml")):
        root = ET.parse(path).getroot()
        size = [float(root.findtext(f"size/{side}")) for side in ("width", "height")]
        things = [(thing.findtext("name"), thing.find("bndbox")) for thing in root.iter("object")]
        corners = [[float(box.findtext(name)) for name in ("xmin", "ymin", "xmax", "ymax")] for _, box in things]
        names |= {name for name, _ in things}
        found.append((folder / "images" / root.findtext("filename"), np.array(corners) / (size * 2), things))
    labels = sorted(names)
    photos = [
        (open_picture(path, longest_side=LONGEST), (boxes, np.array([labels.index(name) for name, _ in things])))
        for path, boxes, things in found
    ]
    return labels, photos


def drawn(count: int) -> tuple[list[str], list[tuple[Image.Image, Truth]]]:
    """Draw photos of up to two discs and blocks on a noisy ground."""
    photos = []
    for seed in range(count):
        draw = np.random.default_rng(seed)
        image = Image.fromarray(draw.integers(90, 140, (240, 320, 3), dtype=np.uint8))
        pen, boxes, labels = ImageDraw.Draw(image), [], []
        for n in range(1 + int(draw.integers(2))):
            side, label = int(draw.integers(50, 120)), int(draw.integers(2))
            left, top = n * 160 + int(draw.integers(0, 160 - side)), int(draw.integers(0, 240 - side))
            shape = (pen.ellipse, pen.rectangle)[label]
            shape((left, top, left + side, top + side), fill=tuple(map(int, draw.integers(0, 255, 3))))
            boxes.append([left / 320, top / 240, (left + side) / 320, (top + side) / 240])
            labels.append(label)
        photos.append((image, (np.array(boxes), np.array(labels))))
    return ["ball", "block"], photos


def as_squares(photos, size: int) -> tuple[np.ndarray, list[Truth]]:
    """Return photos in squares, uint8 (N, S, S, 3), and their boxes in pixels of these."""
    placed = [letterboxed(image, size) for image, _ in photos]
    truth = [(place.into(boxes), labels) for (_, place), (_, (boxes, labels)) in zip(placed, photos, strict=True)]
    return np.stack([pixels for pixels, _ in placed]), truth


def ap50(found, truth: list[Truth], size: int, labels: int) -> float:
    """Return AP50, mean over the labels, of boxes in pixels."""
    gt = {"images": [{"id": n, "width": size, "height": size} for n in range(len(truth))], "annotations": []}
    gt["categories"] = [{"id": n, "name": str(n)} for n in range(labels)]
    for n, (boxes, names) in enumerate(truth):
        for (left, top, right, bottom), name in zip(boxes.tolist(), names.tolist(), strict=True):
            box = {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
            gt["annotations"].append(
                box | {"image_id": n, "category_id": name, "iscrowd": 0, "id": len(gt["annotations"]) + 1}
            )
    results = [
        {"image_id": n, "category_id": name, "bbox": [left, top, right - left, bottom - top], "score": score}
        for n, (boxes, scores, names) in enumerate(found)
        for (left, top, right, bottom), score, name in zip(boxes.tolist(), scores.tolist(), names.tolist(), strict=True)
    ]
    coco = COCO(gt)
    judge = COCOeval_faster(coco, coco.loadRes(results), "bbox", print_function=lambda *_: None)
    judge.run()
    return float(judge.stats_as_dict["AP_50"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--photos", type=int, default=80, help="drawn ones that are judged")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    main(parser.parse_args())
