"""
How long a switch to another label takes in the cleaner, and what 200 of them leave behind: fastai's widget and ours.

    python benchmarks/switch.py [--count 10000] [--switches 200]

Both show the same drawn pictures (512×384) of 20 labels, with the same made-up probabilities, 30 per page at 128×256.
Each runs in a process of its own; neither has a browser at the other end. A switch is what the kernel does from the
choice of a label until all that the browser needs has been sent. Each label is visited in turn: the first time its
pictures are cold, afterwards fastai opens them again and ours has their thumbnails. The probabilities are given, as
judging is not part of a switch. Ours has a project with 2,000 flags and a list of suspects, and sets a flag before each
switch. The flag is not timed, but it must not make the next switch wait. At the end ours turns to the next page after a
look of half a second; fastai's has no pages.
"""

import argparse
import builtins
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
from _process import measured
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

LABELS = [f"label {n:02}" for n in range(20)]
DIFFERENT = 300  # pictures; the others are further names of the same files
LOOK = 0.5  # seconds
FLAGS, SUSPECTS = 2000, 500  # in the project of ours


def main(count: int, switches: int) -> None:
    """Measure both and print the table."""
    with tempfile.TemporaryDirectory() as scratch:
        draw(Path(scratch), count)
        found = {}
        for side in ("theirs", "ours"):
            run = measured([sys.executable, __file__, "--task", side, scratch, str(switches)])
            found[side] = json.loads(run.output.splitlines()[-1])
    theirs, ours = found["theirs"], found["ours"]
    print(f"| {count:,} pictures, {len(LABELS)} labels | fastai | ours | fastai / ours |\n|---|---|---|---|")
    for name, key in (("to a label seen for the first time", "cold"), ("to a label seen before", "warm")):
        for word, figure in (("median", statistics.median), ("slowest", max)):
            one, other = figure(theirs[key]), figure(ours[key])
            print(f"| {name}, ms, {word} | {1000 * one:.0f} | {1000 * other:.0f} | {one / other:.0f} |")
    print(f"| to the next page after {LOOK} s, ms, median | – | {1000 * statistics.median(ours['next']):.0f} | |")
    print(f"| widgets more after {switches} switches | {theirs['widgets']:,} | {ours['widgets']:,} | |")
    print(f"| … and memory of the kernel, MB more | {theirs['memory'] / 1e6:.0f} | {ours['memory'] / 1e6:.0f} | |")


def draw(folder: Path, count: int) -> None:
    """Draw the pictures into one folder per label, as a project's training set lies."""
    rng = np.random.default_rng(0)
    for n in range(count):
        label = LABELS[n % len(LABELS)]
        path = folder / "data" / "switch" / "images" / label / f"{n:016x}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if n < DIFFERENT:
            soft = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            soft.resize((512, 384), Image.Resampling.BICUBIC).save(path, quality=85)
        else:
            like = n % DIFFERENT
            os.link(folder / "data" / "switch" / "images" / LABELS[like % len(LABELS)] / f"{like:016x}.jpg", path)


def run(side: str, folder: Path, switches: int) -> dict:
    """Switch through the labels; return seconds, widgets and bytes."""
    from ipywidgets.widgets import widget

    switch, turn, flag = {"theirs": theirs, "ours": ours}[side](folder)
    times = []
    for n in range(switches):
        if n == len(LABELS):  # all labels were seen: what grows from here on grows for ever
            before, memory = len(widget._instances), psutil.Process().memory_info().rss
        if flag:
            flag(n)
        began = time.perf_counter()
        switch(LABELS[n % len(LABELS)])
        times.append(time.perf_counter() - began)
    grown = {"widgets": len(widget._instances) - before, "memory": psutil.Process().memory_info().rss - memory}
    turns = []
    for _ in range(10 if turn else 0):
        time.sleep(LOOK)
        began = time.perf_counter()
        turn()
        turns.append(time.perf_counter() - began)
    return {"cold": times[1 : len(LABELS)], "warm": times[len(LABELS) :], "next": turns} | grown


def probabilities(count: int) -> np.ndarray:
    """Return made-up probabilities (N, K)."""
    return np.random.default_rng(1).dirichlet(np.ones(len(LABELS)), count)


def theirs(folder: Path) -> tuple:
    """Return what switches fastai's cleaner to a label; of a learner it only needs the answers."""
    import torch
    from fastai.vision.widgets import ImageClassifierCleaner
    from IPython.display import display

    builtins.display = display  # fastai's class relies on what IPython lends its cells

    paths = sorted((folder / "data" / "switch" / "images").glob("*/*.jpg"))
    loader = SimpleNamespace(vocab=LABELS, dataset=SimpleNamespace(items=paths))
    loader.new = lambda **_: loader

    def get_preds(**_) -> tuple:
        probs = torch.from_numpy(probabilities(len(paths)))
        targets = torch.tensor([LABELS.index(path.parent.name) for path in paths])
        return probs, targets, probs.argmax(1), -probs[torch.arange(len(targets)), targets].log()

    class Loaders(list):
        vocab = LABELS

    cleaner = ImageClassifierCleaner(SimpleNamespace(dls=Loaders([loader, loader]), get_preds=get_preds))
    return lambda label: setattr(cleaner.dd_cats, "value", label), None, None


def ours(folder: Path) -> tuple:
    """Return what switches our cleaner to a label, turns to its next page, and flags, as the browser's messages do."""
    from utils.clean import RIGHT_UNSURE, ImageClassifierCleaner, Suspect
    from utils.dataset import read_dataset
    from utils.ledger import save_flags
    from utils.project import Project

    labels = {label: [label] for label in LABELS}
    project = Project.model_validate({"name": "switch", "labels": labels, "data_dir": str(folder / "data")})
    dataset = read_dataset(project)
    ids = dataset.ids
    save_flags(project, dict.fromkeys(ids[-FLAGS:], "Keep"))
    suspects = [Suspect(n, RIGHT_UNSURE, "made up", 0.5) for n in range(min(SUSPECTS, len(ids)))]
    probs = probabilities(len(ids))
    grid = ImageClassifierCleaner(project=project, dataset=dataset, probs=probs, suspects=suspects).widget
    state = {"list": "", "label": "", "side": "", "show": "", "sort": "Worst first", "page": 0}

    def show(**news) -> None:
        state.update(news)
        grid._receive(grid, {"ask": "page", "view": "v", "serial": 1, **state}, [])

    def flag(n: int) -> None:
        keys = [ids[n % len(ids)]]
        grid._receive(grid, {"ask": "flag", "view": "v", "serial": 1, "keys": keys, "choice": "Delete"}, [])

    return lambda label: show(label=label, page=0), lambda: show(page=state["page"] + 1), flag


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--switches", type=int, default=200)
    parser.add_argument("--task", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.task:
        side, folder, switches = chosen.task
        print(json.dumps(run(side, Path(folder), int(switches))))
    else:
        main(chosen.count, chosen.switches)
