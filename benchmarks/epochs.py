"""
How many epochs does it take? Accuracy against epochs, each number of epochs a training of its own.

    python benchmarks/epochs.py [PROJECT_FILE] [--epochs 1 2 4 8 12] [--seeds 3]

Without a file it gathers the shipped sample afresh; with one, such as projects/animals.toml, it takes the pictures that
01 to 03 of that project have gathered and split. Trains as 04 does, on the project's own split, and judges on the
validation set; the test set stays shut, and nothing of the project's is written. One training's curve does not tell
this: in the first epochs of a long training the learning rate is still high.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _process import measured

REPOSITORY = Path(__file__).resolve().parents[1]
RUNNER = str(REPOSITORY / "notebooks" / "run.py")
sys.path.insert(0, str(REPOSITORY))

from utils.dataset import read_dataset
from utils.evaluate import predict_side
from utils.intervals import bootstrap, interval
from utils.project import Project
from utils.train import train_as_04


def main(file: Path | None, epochs: list[int], seeds: int) -> None:
    """Train with each number of epochs and print the table, a row as soon as it is known."""
    with tempfile.TemporaryDirectory() as scratch:
        project = Project.load(file or gathered(Path(scratch)))
        train, valid = (len(read_dataset(project).on(side)) for side in ("train", "valid"))
        if not train:
            sys.exit(f"{project.name} has no split yet. Run 01 to 03 on it first.")
        print(f"{project.name}: {train} pictures train, {valid} judge; {project.arch}, ")
        print(f"weights {project.weights}, {project.size} px, {seeds} seeds\n")
        print("| epochs | accuracy (95 % interval) | seconds |\n|---|---|---|")
        for count in epochs:
            share, seconds = trained(project, count, seeds)
            print(f"| 1 frozen + {count} | {share} | {seconds:.0f} |", flush=True)


def gathered(folder: Path) -> Path:
    """Run 01 to 03 of the shipped project file in a fresh folder; return the project file there."""
    path = folder / "project.toml"
    roots = f'data_dir = "{folder}/data"\nmodels_dir = "{folder}/models"\n'
    path.write_text(roots + (REPOSITORY / "project.toml").read_text(encoding="utf-8"), encoding="utf-8")
    stages = ("01_download", "02_verify", "03_split")
    measured([sys.executable, RUNNER, *stages, "--reports", f"{folder}/reports"], os.environ | {"PROJECT": str(path)})
    return path


def trained(project: Project, epochs: int, seeds: int) -> tuple[str, float]:
    """Return the accuracy over all seeds with its interval, and the mean seconds of a training."""
    right, groups, began = [], [], time.perf_counter()
    for seed in range(seeds):
        task = project.model_copy(update={"epochs": epochs, "seed": seed})
        dataset = read_dataset(task)
        learn, _ = train_as_04(dataset)
        with learn.no_bar(), learn.no_logging():
            answers = predict_side(dataset, learn, "valid")
        right += (answers.predicted == answers.label).tolist()
        groups += [dataset[id].group for id in answers.id]  # seeds share pictures; near-duplicates tell nothing new
    hits = np.array(right, dtype=float)
    value, draws = bootstrap({"": lambda w: (w @ hits / w.sum(1))[:, None]}, groups, seed=0)[""]
    found = interval(value[0], draws[:, 0], n=len(hits), groups=groups)
    share = f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})"
    return share, (time.perf_counter() - began) / seeds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, metavar="PROJECT_FILE")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 4, 8, 12])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    main(options.file, options.epochs, options.seeds)
