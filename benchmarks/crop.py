"""
Which one is it: from the whole photo, cut to the thing, painted around it, or from the background alone.

    PROJECT=projects/flukes.toml python benchmarks/crop.py [--seeds 5]

The project's notebooks 01 to 03a must have been run. Every photo is judged by a head that never saw it: five folds,
drawn anew for each seed, once with the project's groups kept together and once photo by photo, as a random split does.
All ways have the same network (efficientnet_lite0, frozen) and the same folds; the masks are the masker's own. The
background alone is a photo with a box over the thing, where the box leaves anything. Differences are paired by photo;
their intervals are drawn by group.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.dataset import Dataset, read_dataset
from utils.features import picture_features
from utils.heads import JUDGE_STRENGTH, fit_head
from utils.intervals import bootstrap, interval, mean_of
from utils.masks import hiding
from utils.project import Project
from utils.seeing import folded, network_features
from utils.train import head_features

FOLDS = 5


def main(options: argparse.Namespace) -> None:
    """Print a table for each way to split."""
    dataset = read_dataset(Project.load())
    size = dataset.project.size
    seen = {"whole photo": picture_features(dataset, size=size)}
    for name, way in (("cut to the thing", "crop"), ("background painted grey", "paint")):
        seen[name] = head_features(with_mask(dataset, way), size=size)
    seen["whole and cut"] = np.hstack([seen["whole photo"], seen["cut to the thing"]])
    hidden = background(dataset)
    there = ~np.isnan(np.hstack(list(seen.values()))).any(1)
    codes, groups = np.array(dataset.codes), np.array(dataset.groups)
    share = np.bincount(codes[there]).max() / there.sum()
    print(
        f"{there.sum()} photos of {len(dataset.project.labels)} labels, {len(set(groups[there]))} groups; guessing "
        f"{100 * share:.1f} %. {options.seeds} seeds, {FOLDS} folds.\n"
    )
    for kept in ("groups together", "photo by photo"):
        print(f"| {kept} | photos | right, % | − whole photo, points |\n|---|---|---|---|")
        for name, rows in (seen | {"background alone": hidden}).items():
            usable = there & ~np.isnan(rows).any(1)
            how = codes[usable], groups[usable], kept, options.seeds
            right, whole = (judged(each[usable], *how) for each in (rows, seen["whole photo"]))
            gain = spread(right - whole, groups[usable], top=None) if name != "whole photo" else "–"
            print(f"| {name} | {usable.sum()} | {spread(right, groups[usable], top=1)} | {gain} |")
        print()


def with_mask(dataset: Dataset, way: str) -> Dataset:
    """Return a data set whose project does this with the mask."""
    return read_dataset(dataset.project.model_copy(update={"mask": way}))


def background(dataset: Dataset) -> np.ndarray:
    """Return what the network sees of each photo with a box over the thing, (N, 1280); NaN where nothing is left."""
    import torch

    from utils.backbone import RESAMPLE, packaged_body
    from utils.pictures import margins, squish_and_crop

    size, network = dataset.project.size, folded(packaged_body())
    rows = np.full((len(dataset), 1280), np.nan, dtype=np.float32)
    for n, image in enumerate(hiding(dataset.project)(dataset.paths)):
        if image is not None:
            pixels = np.array(squish_and_crop(image, size, extra=margins(size), resample=RESAMPLE))
            rows[n] = network_features(network, torch.from_numpy(pixels)[None]).numpy()
    return rows


def judged(rows: np.ndarray, codes: np.ndarray, groups: np.ndarray, kept: str, seeds: int) -> np.ndarray:
    """Return in which share of the seeds each of N photos is named rightly by a head that never saw it."""
    right = np.zeros(len(codes))
    for seed in range(seeds):
        kind = StratifiedGroupKFold if kept == "groups together" else StratifiedKFold
        for learn, judge in kind(FOLDS, shuffle=True, random_state=seed).split(rows, codes, groups):
            head = fit_head(rows[learn], codes[learn], max(codes) + 1, strength=JUDGE_STRENGTH, balanced=False)
            right[judge] += head.probabilities(rows[judge]).argmax(1) == codes[judge]
    return right / seeds


def spread(values: np.ndarray, groups: Sequence[str], *, top: int | None) -> str:
    """Return a mean in percent with its 95 % interval."""
    (value,), draws = bootstrap({"": mean_of(values)}, groups, seed=0)[""]
    found = interval(value, draws[:, 0], n=len(values), groups=groups, top=top)
    sign = "+" if top is None else ""
    mean, low, high = (100 * found[key] for key in ("value", "low", "high"))
    return f"{mean:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    main(parser.parse_args())
