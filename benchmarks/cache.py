"""
What keeping decoded pictures in memory gives: a training of 04 without against one with ``cache = "memory"``.

    python benchmarks/cache.py [FOLDER] [--drawn 60] [--epochs 4] [--size 128] [--arch efficientnet_lite0] [--rounds 3]

FOLDER holds <label>/<photos>; without it, `--drawn` pictures per label are drawn. Theirs decodes each picture in each
epoch, as fastai does; ours decodes it once, before the first epoch, which is counted. Both train the same network with
the same settings on the same training copies, each in a fresh process; they take turns. An epoch of all layers, where
ours decodes nothing, is told apart. Processor seconds are those of all processes together: on a machine that is shared
with others they tell more than the clock. Losses are compared to the last digit.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _process import Run, measured

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from train import drawn

from utils.copies import find_copies
from utils.dataset import Dataset, read_dataset
from utils.download import read_folder, save_pictures, source_pictures
from utils.project import Project
from utils.split import assign_sides
from utils.verify import verify_images

FIGURES = {
    "seconds of a training": "seconds",
    "processor seconds of a training": "work",
    "seconds of an epoch of all layers": "epoch",
    "processor seconds of an epoch of all layers": "epoch_work",
}


def main(options: argparse.Namespace) -> None:
    """Train in turn without and with pictures in memory, and print the table."""
    with tempfile.TemporaryDirectory() as scratch:
        path = gathered(Path(scratch), options)
        runs = {"none": [], "memory": []}
        for _ in range(options.rounds):
            for cache, found in runs.items():
                task = {"file": str(path), "cache": cache, "epochs": options.epochs}
                task |= {"size": options.size, "arch": options.arch}
                run = measured([sys.executable, __file__, "--task", json.dumps(task)])
                found.append((run, json.loads(run.output.splitlines()[-1])))
        print(f"{runs['none'][0][1]['what']}; {options.epochs} epochs after a frozen one, {options.rounds} rounds\n")
        print("\n".join(table(**runs)))


def table(none: list[tuple[Run, dict]], memory: list[tuple[Run, dict]]) -> list[str]:
    """Return the rows of the table: the quickest round of each side, its memory, and whether losses are equal."""
    rows = ["| | without | in memory | ratio |", "|---|---|---|---|"]
    for name, key in FIGURES.items():
        theirs, ours = (min(told[key] for _, told in found) for found in (none, memory))
        rows.append(f"| {name} | {theirs:.2f} | {ours:.2f} | {theirs / ours:.2f}× |")
    theirs, ours = (max(run.memory for run, _ in found) / 1e9 for found in (none, memory))
    rows.append(f"| peak memory, GB | {theirs:.2f} | {ours:.2f} | {ours / theirs:.2f}× |")
    losses = {json.dumps(told["losses"]) for _, told in none + memory}
    return [*rows, "", f"Losses of all epochs: {'equal to the last digit' if len(losses) == 1 else 'NOT EQUAL'}."]


def gathered(folder: Path, options: argparse.Namespace) -> Path:
    """Take photos in and verify them as 01 and 02 do; return the project file."""
    photos = (options.folder or drawn(folder / "drawn", options.drawn)).resolve()
    labels = sorted(path.name for path in photos.iterdir() if path.is_dir())
    path = folder / "project.toml"
    roots = f'name = "cache"\nsource = "{photos}"\ndata_dir = "{folder}/data"\nmodels_dir = "{folder}/models"\n'
    path.write_text(roots + "[labels]\n" + "".join(f'"{label}" = []\n' for label in labels), encoding="utf-8")
    project = Project.load(path)
    save_pictures(project, source_pictures(read_folder(photos, labels)))
    verify_images(project)
    return path


def split(dataset: Dataset) -> Dataset:
    """Return the data set with sides as 03 draws them."""
    groups, labels = find_copies(dataset).groups, dict(zip(dataset.ids, dataset.labels, strict=True))
    sides = assign_sides(groups, labels, valid=dataset.project.valid, test=dataset.project.test)
    return dataset.with_split({id: (groups[id], side) for id, side in sides.items()})


def run(task: dict) -> dict:
    """Train once; return the seconds of all and of the quickest epoch of all layers, and unrounded losses."""
    from fastai.vision.all import Callback

    from utils.train import learner_as_04, learning_rates, training_callbacks

    class Watch(Callback):
        """Time each epoch of all layers, and note unrounded losses."""

        order = 90  # the last of all

        def __init__(self):
            self.took, self.losses = [], []

        def before_train(self):
            self.began = now()

        def after_epoch(self):
            self.losses.append([float(value) for value in self.recorder.values[-1]])
            if self.opt.frozen_idx == 0:
                self.took.append(now() - self.began)

    asked = {key: task[key] for key in ("cache", "epochs", "size", "arch")}
    project = Project.load(task["file"]).model_copy(update=asked)
    dataset = split(read_dataset(project))
    learn = learner_as_04(dataset)
    cbs = [*training_callbacks(dataset, save=False), watch := Watch()]
    began = now()
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(project.epochs, **learning_rates(project), cbs=cbs)
    what = f"{len(learn.dls.train_ds)} photos train, {len(learn.dls.valid_ds)} judge; {project.arch}, {project.size} px"
    (seconds, work), (epoch, epoch_work) = (now() - began).tolist(), np.min(watch.took, axis=0).tolist()
    told = {"seconds": seconds, "work": work, "epoch": epoch, "epoch_work": epoch_work}
    return told | {"losses": watch.losses, "what": what}


def now() -> np.ndarray:
    """Return the seconds of the clock, and those of the processor that this process and its children have used."""
    used = os.times()
    return np.array([time.perf_counter(), used.user + used.system + used.children_user + used.children_system])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--drawn", type=int, default=60, help="pictures per label, without a folder")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--arch", default="efficientnet_lite0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.task:
        print(json.dumps(run(chosen.task)))
    else:
        main(chosen)
