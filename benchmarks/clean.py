"""
Which finds more wrong labels among its first suspects: 06, fastai's cleaner, or cleanlab? In one run.

    python benchmarks/clean.py [FOLDER ...] [--shares 0.05 0.1 0.2] [--seeds 5] [--size 128] [--peer PYTHON]

A FOLDER holds <label>/<photos>; without one, `--drawn` pictures per label are drawn. A share of the pictures, chosen by
the seed, gets a wrong label: N in all. Three orders of suspects:

- course: the course's notebook on the noisy labels. vision_learner with the packaged network and its ImageNet weights,
  fine_tune(4). This learner judges every picture, also those that it trained on; the largest loss comes first, as in
  its ImageClassifierCleaner. All go through the transforms of validation: its cleaner's own augmentation adds chance.
- cleanlab: its default score of what 06's judges say. Left out unless `--peer` names a Python that has it.
- ours: what 06's judges say, ranked by `rank_suspects`.

The course trains at 128 pixels by default, to bound the time; 06 looks at 128 pixels always. The first N and 2 N
suspects are counted. The intervals are Student's over the seeds; those of the differences are paired. The accuracy, by
the true labels, stands beside: a model that cannot tell the labels apart cannot find a wrong one either.
"""

import argparse
import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from _cleanlab import LEFT_OUT, cleanlab_says
from _process import measured
from scipy import stats

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from sample.pictures import LABELS, sample_pictures
from utils.copies import find_copies
from utils.dataset import Dataset, read_dataset
from utils.download import read_folder, save_pictures, source_pictures
from utils.features import picture_features
from utils.project import PACKAGED, Project
from utils.tables import SPLIT_COLUMNS, write_table
from utils.verify import verify_images

VALID = 0.2  # fraction, as in the course
ORDERS = ("course", "cleanlab", "ours")


@dataclass(frozen=True)
class Task:
    """All trainings of one side with one seed."""

    side: str  # "course" or "judges"
    data: str  # the folder with the data of the project
    photos: str  # the folder with the originals
    labels: list[str]
    shares: list[float]  # of the labels that are wrong
    seed: int
    size: int
    epochs: int
    peer: str | None  # a Python that has cleanlab

    def project(self, data: str | None = None) -> Project:
        """Return the task as settings of a project, with its data in another place if one is named."""
        settings = {
            "size": self.size,
            "seed": self.seed,
            "epochs": self.epochs,
            "arch": PACKAGED,
        }
        roots = {"data_dir": data or self.data, "models_dir": f"{data or self.data}/models"}
        fixed = {"name": "clean", "source": self.photos, "labels": {label: [] for label in self.labels}}
        return Project.model_validate(fixed | settings | roots)


def main(options: argparse.Namespace) -> None:
    """Measure each folder and print its table as soon as it is known."""
    if not options.peer:
        print(f"{LEFT_OUT}\n")
    for folder in options.folders or [None]:
        with tempfile.TemporaryDirectory() as scratch:
            photos = folder or drawn(Path(scratch) / "drawn", options.drawn)
            common = {"data": scratch, "photos": str(photos.resolve())}
            common["labels"] = sorted(path.name for path in photos.iterdir() if path.is_dir())
            common |= {name: getattr(options, name) for name in ("shares", "size", "epochs", "peer")}
            count = prepared(Task(side="judges", seed=0, **common))
            tasks = [Task(side=side, seed=seed, **common) for seed in range(options.seeds) for side in SIDES]
            with ThreadPoolExecutor(options.processes) as pool:
                found = list(pool.map(outcome, tasks))
            print("\n".join(table(folder.name if folder else "drawn", count, options, found)) + "\n", flush=True)


def outcome(task: Task) -> list[dict]:
    """Run one task in a fresh process on one thread; return what it printed, a mapping a share."""
    run = measured(
        [sys.executable, __file__, "--task", json.dumps(asdict(task))], os.environ | {"OMP_NUM_THREADS": "1"}
    )
    print(f"seed {task.seed}, {task.side}: {run.seconds:.0f} s", file=sys.stderr)
    return json.loads(run.output.splitlines()[-1])


# ---------------------------------------------------------------------------------------------------------------------
# The pictures
# ---------------------------------------------------------------------------------------------------------------------


def drawn(folder: Path, per_label: int) -> Path:
    """Draw the sample's pictures, those without a fault, into one folder per label."""
    for label in LABELS:
        (folder / label).mkdir(parents=True)
    for picture in sample_pictures(LABELS, per_label=per_label):
        if not picture.fault:
            (folder / picture.name).write_bytes(picture.data)
    return folder


def prepared(task: Task) -> int:
    """Take the photos in, verify and group them as 01 to 03 do, look at them; return how many there are."""
    project = task.project()
    save_pictures(project, source_pictures(read_folder(Path(task.photos), task.labels)))
    verify_images(project)
    dataset = read_dataset(project)
    rows = [{"id": id, "group": group, "side": "train"} for id, group in find_copies(dataset).groups.items()]
    write_table(project.table("split"), SPLIT_COLUMNS, rows)  # neither side uses our sides
    picture_features(dataset)
    return len(rows)


def planted(task: Task, share: float, folder: str) -> tuple[Dataset, set[str]]:
    """Lay the pictures out anew with wrong labels among them; return these and the ids of the wrong ones."""
    clean, noisy = read_dataset(task.project()), task.project(folder)
    rng = np.random.default_rng([task.seed, round(1000 * share)])
    wrong = set(rng.choice(clean.ids, round(share * len(clean)), replace=False).tolist())
    for picture in clean:
        label = picture.label
        if picture.id in wrong:
            label = str(rng.choice([other for other in task.labels if other != label]))
        (noisy.images / label).mkdir(parents=True, exist_ok=True)
        os.link(picture.path, noisy.images / label / picture.path.name)
    for name in ("split", "pictures"):
        os.link(clean.project.table(name), noisy.table(name))
    (noisy.data / "features").symlink_to(clean.project.data / "features")  # labels change nothing in them
    return read_dataset(noisy), wrong


# ---------------------------------------------------------------------------------------------------------------------
# The sides, each in processes of its own
# ---------------------------------------------------------------------------------------------------------------------


def run(task: Task) -> list[dict]:
    """Return for each share the ids in each order of the side, which of them are wrong, and how good the models are."""
    results = []
    for share in task.shares:
        with tempfile.TemporaryDirectory(dir=task.data) as folder:
            noisy, wrong = planted(task, share, folder)
            orders, said = SIDES[task.side](noisy, task)
            true = read_dataset(task.project())
            right = float(np.mean([label == true[id].label for id, label in said.items()]))
            hits = {name: [id in wrong for id in order] for name, order in orders.items()}
            results.append({"hits": hits, "accuracy": right})
    return results


def course(dataset: Dataset, task: Task) -> tuple[dict, dict]:
    """Return the course's order of suspects (ids), and what its learner says of its validation set."""
    from fastai.vision.all import (
        ImageDataLoaders,
        Normalize,
        Resize,
        aug_transforms,
        error_rate,
        get_image_files,
        set_seed,
        vision_learner,
    )

    from utils.backbone import COLOURS, efficientnet_lite0

    set_seed(task.seed)
    how = {"item_tfms": Resize(task.size), "batch_tfms": [*aug_transforms(), Normalize.from_stats(*COLOURS)], "bs": 32}
    paths = sorted(get_image_files(dataset.project.images), key=lambda path: path.name)
    how |= {"valid_pct": VALID, "seed": task.seed, "num_workers": 0}
    dls = ImageDataLoaders.from_name_func("/", paths, lambda name: dataset[Path(name).stem].label, **how)
    learn = vision_learner(dls, efficientnet_lite0, metrics=error_rate)
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(task.epochs)
        probs, _, losses = learn.get_preds(dl=dls.test_dl(paths, with_labels=True), with_loss=True)
    order = [paths[n].stem for n in losses.argsort(descending=True, stable=True).tolist()]
    said = {path.stem: dls.vocab[k] for path, k in zip(paths, probs.argmax(1).tolist(), strict=True)}
    return {"course": order}, {path.stem: said[path.stem] for path in dls.valid_ds.items}


def judges(dataset: Dataset, task: Task) -> tuple[dict, dict]:
    """Return the orders of suspects (ids) that 06's judges give, and what they say."""
    from utils.clean import rank_suspects
    from utils.heads import judge_pictures

    judged, codes = judge_pictures(dataset), np.array(dataset.codes)
    orders = {"ours": rank_suspects(codes, judged.probs)}
    if task.peer:
        ((scores, _),) = cleanlab_says(task.peer, [(codes, judged.probs)])
        orders["cleanlab"] = np.argsort(scores, kind="stable")
    said = {id: judged.vocab[n] for id, n in zip(judged.ids, judged.probs.argmax(1).tolist(), strict=True)}
    return {name: [judged.ids[n] for n in order] for name, order in orders.items()}, said


SIDES = {"course": course, "judges": judges}


# ---------------------------------------------------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------------------------------------------------


def table(name: str, count: int, options: argparse.Namespace, found: list[list[dict]]) -> list[str]:
    """Return the lines of one folder's table; `found` holds the sides of the first seed, then of the next."""
    how = f"the course at {options.size} px, {options.epochs} epochs; {options.seeds} seeds"
    orders = [order for order in ORDERS if order != "cleanlab" or options.peer]
    against = " | ".join(f"ours − {order}" for order in orders[:-1])
    lines = [f"| {name}: {count} pictures; {how} | {' | '.join(orders)} | {against} |"]
    lines.append("|---" * 2 * len(orders) + "|")
    for n, share in enumerate(options.shares):
        seeds = list(zip(found[0::2], found[1::2], strict=True))  # (course, judges) per seed
        hits = [one[n]["hits"] | several[n]["hits"] for one, several in seeds]
        wrong = sum(hits[0]["ours"])
        head = f"{share:.0%} wrong, N = {wrong}"
        for words, first in (("found among the first N", wrong), ("found among the first 2 N", 2 * wrong)):
            values = np.array([[sum(one[order][:first]) / wrong for order in orders] for one in hits])
            cells = [spread(column) for column in values.T]
            cells += [spread(values[:, -1] - column, sign=True) for column in values.T[:-1]]
            lines.append(f"| {head}: {words} | {' | '.join(cells)} |")
        right = [spread(np.array([side[n]["accuracy"] for side in sides])) for sides in zip(*seeds, strict=True)]
        cells = [right[0], *[right[1]] * (len(orders) - 1), *[""] * (len(orders) - 1)]
        lines.append(f"| {head}: accuracy on pictures not trained on | {' | '.join(cells)} |")
    return lines


def spread(values: np.ndarray, *, sign: bool = False) -> str:
    """Return a mean with its 95 % interval over the seeds, in per cent, by Student's t."""
    mean = 100 * values.mean()
    words = f"{mean:+.0f}" if sign else f"{mean:.0f} %"
    if len(values) < 2:
        return words
    half = 100 * stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    if sign:
        return f"{words} ({mean - half:+.0f} to {mean + half:+.0f})"
    return f"{words} ({max(0.0, mean - half):.0f} to {min(100.0, mean + half):.0f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--size", type=int, default=128, help="pixels, of the course")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--drawn", type=int, default=60, help="pictures per label, without a folder")
    parser.add_argument("--peer", metavar="PYTHON", help="of an environment with benchmarks/peers/cleanlab.txt")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="trainings at the same time")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.task:
        print(json.dumps(run(Task(**chosen.task))))
    else:
        main(chosen)
