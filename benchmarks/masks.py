"""
Masks found in photos that were held out: GrabCut and Otsu's threshold against the masker of 03a, and its seconds.

    python benchmarks/masks.py FOLDER [--thing dark] [--size 192 384] [--held 30] [--drawn 60 10]

FOLDER holds images/ and masks/ with files of the same names. Its photos, in an order drawn with a seed, are held out in
turn, `--held` at a time, and the masker learns from the first `--drawn` of the others; so each photo is judged once.
OpenCV's GrabCut gets a frame 5 % inside the borders and five rounds. Otsu's threshold is told whether the thing is dark
or light. Differences are paired by photo. Seconds are of the processor, per turn, from files to masks that are found;
in the last column with the folds by which 03a judges the masks that train.

A second table says how much longer a prediction takes: resnet18 as model.onnx on one thread, with each use of a mask
against none, in processor seconds; medians of 30 turns, in which all are asked once.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import onnxruntime
import torch
from fastai.vision.learner import create_vision_model

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.dataset import read_dataset, seeded_rank
from utils.export.formats import OPSET, FromPixels, silenced
from utils.intervals import bootstrap, interval, mean_of
from utils.masks import DrawnMask, fit_masker, overlap, save_masker, take_masks
from utils.project import Project
from utils.train import architecture

SEED, FOLDS, INSIDE, ROUNDS, TURNS = 42, 5, 0.05, 5, 30


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--thing", choices=("dark", "light"), default="light")
    parser.add_argument("--size", nargs=2, type=int, default=[192, 384], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--held", type=int, default=30)
    parser.add_argument("--drawn", nargs="*", type=int, default=[60, 10])
    options = parser.parse_args()
    if not options.folder:
        print("Left out: name a folder with images/ and masks/ to measure this.")
        return
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"name": "masks", "labels": {"a": ["a"], "b": ["b"]}, "data_dir": folder, "models_dir": folder}
        settings |= {"mask_source": str(options.folder), "mask_thing": options.thing, "size": options.size}
        project = Project.model_validate(settings)
        measure(project, options.held, options.drawn)
        predict(project)


def measure(project: Project, held: int, counts: Sequence[int]) -> None:
    """Find each mask in each way, and print how well."""
    taken = take_masks(read_dataset(project)).drawn
    ranked = sorted(taken, key=lambda mask: seeded_rank(SEED, mask.content))
    turns = [ranked[start : start + held] for start in range(0, len(ranked) - held + 1, held)]
    masks = [mask for turn in turns for mask in turn]
    rows = [("GrabCut", *peer(grabcut, masks)), ("Otsu", *peer(lambda image: otsu(image, project), masks))]
    rows = [(name, ious, f"{seconds / len(turns):.1f}", "–") for name, ious, seconds in rows]
    best = max(rows, key=lambda row: row[1].mean())
    for count in counts:
        found, seconds = [], {0: 0.0, FOLDS: 0.0}
        for turn, folds in product(turns, seconds):
            learning = [mask for mask in ranked if mask not in turn][:count]
            began = time.process_time()
            masker = fit_masker(project, [*learning, *(replace(mask, trains=False) for mask in turn)], folds=folds)
            seconds[folds] += (time.process_time() - began) / len(turns)
            found += [one.iou for one in masker.judged if one.fold < 0 and not folds]
        rows.append((f"masker, {count} drawn", np.array(found), *(f"{spent:.1f}" for spent in seconds.values())))
    print(f"{len(masks)} photos, {held} held out at a time, at {project.size[0]}×{project.size[1]} pixels.\n")
    print(f"| | mean IoU | worst | against {best[0]}, paired | times | CPU s for {held} | … with folds |")
    print("|---|---|---|---|---|---|---|")
    for name, ious, *spent in rows:
        against = spread(ious - best[1], signed=True) if name != best[0] else "–"
        times = ious.mean() / best[1].mean()
        print(f"| {name} | {spread(ious)} | {ious.min():.2f} | {against} | {times:.2f}× | {' | '.join(spent)} |")


def predict(project: Project) -> None:
    """Print how long a prediction takes with each use of the mask."""
    fitted = fit_masker(project, take_masks(read_dataset(project)).drawn, folds=0)
    save_masker(project, fitted)
    pixels = np.random.default_rng(SEED).integers(0, 256, (1, *project.height_width, 3), dtype=np.uint8)
    sessions, spent = {}, {way: [] for way in ("none", "channel", "paint", "crop")}
    for way in spent:
        own = project.model_copy(update={"mask": way, "weights": "none"})
        network = create_vision_model(architecture(own), 2, pretrained=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        sessions[way] = onnxruntime.InferenceSession(as_onnx(network, project.height_width), options)
    for _, (way, session) in product(range(TURNS), sessions.items()):
        began = time.process_time()
        session.run(["probabilities"], {"pixels": pixels})
        spent[way].append(time.process_time() - began)
    print("\n| resnet18, mask | ms | times |\n|---|---|---|")
    for way, seconds in spent.items():
        print(f"| {way} | {1000 * median(seconds):.1f} | {median(seconds) / median(spent['none']):.2f}× |")


def as_onnx(network: torch.nn.Module, sides: Sequence[int]) -> bytes:
    """Return a network as the bytes of an ONNX file that takes pixels, as 07 writes it."""
    model = FromPixels(network.eval(), torch.zeros(3), torch.ones(3)).eval()
    example = torch.zeros(2, *sides, 3, dtype=torch.uint8)
    with silenced():
        how = {"input_names": ["pixels"], "output_names": model.names, "external_data": False, "verbose": False}
        shapes = {"pixels": {0: torch.export.Dim.DYNAMIC}}
        program = torch.onnx.export(model, (example,), dynamo=True, opset_version=OPSET, dynamic_shapes=shapes, **how)
    return program.model_proto.SerializeToString()


def spread(values: np.ndarray, *, signed: bool = False) -> str:
    """Return a mean with its 95 % interval."""
    groups, shift = range(len(values)), 1 if signed else 0  # the interval's smallest value is 0
    value, draws = bootstrap({"mean": mean_of(values + shift)}, groups, seed=SEED)["mean"]
    figure = interval(value[0], draws[:, 0], n=len(values), groups=groups, top=1 + shift)
    mean, low, high = (figure[name] - shift for name in ("value", "low", "high"))
    sign = "+" if signed else ""
    return f"{mean:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def peer(find: Callable[[np.ndarray], np.ndarray], masks: Sequence[DrawnMask]) -> tuple[np.ndarray, float]:
    """Return the IoU of each mask found by a function of the photo, RGB (H, W, 3), and the CPU seconds that it took."""
    began = time.process_time()
    ious = [overlap(find(np.array(image)), drawn) for image, drawn in (mask.read() for mask in masks)]
    return np.array(ious), time.process_time() - began


def grabcut(image: np.ndarray) -> np.ndarray:
    """Return what GrabCut takes for the thing inside a frame."""
    height, width = image.shape[:2]
    frame = (
        round(width * INSIDE),
        round(height * INSIDE),
        round(width * (1 - 2 * INSIDE)),
        round(height * (1 - 2 * INSIDE)),
    )
    mask, models = np.zeros((height, width), np.uint8), [np.zeros((1, 65)) for _ in range(2)]
    cv2.setRNGSeed(SEED)
    cv2.grabCut(np.ascontiguousarray(image[..., ::-1]), mask, frame, *models, ROUNDS, cv2.GC_INIT_WITH_RECT)
    return (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)


def otsu(image: np.ndarray, project: Project) -> np.ndarray:
    """Return what Otsu's threshold takes for the thing."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    threshold, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_OTSU)
    return grey <= threshold if project.mask_thing == "dark" else grey > threshold


if __name__ == "__main__":
    main()
