"""
Which finds more wrong labels among its first suspects: 06, fastai's cleaner, or plain cross-validation? In one run.

    python benchmarks/clean.py [FOLDER ...] [--shares 0.05 0.1 0.2] [--seeds 5] [--size 48] [--epochs 8]

A FOLDER holds <label>/<photos>; without one, `--drawn` pictures per label are drawn. A share of the pictures, chosen by
the seed, gets a wrong label: N in all. Three orders of suspects:

- fastai: the course's notebook on the noisy labels. One learner judges every picture, also those that it trained on;
  the largest loss comes first, as in its ImageClassifierCleaner.
- cross-validated: what 06's models say out of fold, sorted by the probability of the given label alone.
- ours: the same probabilities, ranked by `rank_suspects`.

The first N and 2 N suspects are counted. The intervals are Student's over the seeds; those of the differences are
paired. All train for as many epochs with the same learning rates. Photos are reduced first, so that loading does not
take the time. From scratch on few photos a network learns little, so the accuracy stands beside: a model that cannot
tell the labels apart cannot find a wrong one either. 06 is meant for `--weights imagenet`.
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
from _process import measured
from PIL import Image
from scipy import stats

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from sample.pictures import LABELS, sample_pictures
from utils.copies import find_copies
from utils.dataset import Dataset, read_dataset
from utils.download import folder_pictures, save_pictures
from utils.project import Project
from utils.tables import SPLIT_COLUMNS, write_table
from utils.verify import verify_images

REDUCED = 160  # pixels of the longest side
VALID = 0.2  # fraction, as in the course
ORDERS = ("fastai", "cross-validated", "ours")


@dataclass(frozen=True)
class Task:
    """All trainings of one side with one seed."""

    side: str  # "one learner" or "folds"
    data: str  # the folder with the data of the project
    labels: list[str]
    shares: list[float]  # of the labels that are wrong
    seed: int
    size: int
    epochs: int
    weights: str

    def project(self, data: str | None = None) -> Project:
        """Return the task as settings of a project, with its data in another place if one is named."""
        settings = {
            "size": self.size,
            "seed": self.seed,
            "epochs": self.epochs,
            "weights": self.weights,
            "batch_size": 16,
        }
        roots = {"data_dir": data or self.data, "models_dir": f"{data or self.data}/models"}
        fixed = {"name": "clean", "source": f"{self.data}/photos", "labels": {label: [] for label in self.labels}}
        return Project.model_validate(fixed | settings | roots)


def main(options: argparse.Namespace) -> None:
    """Measure each folder and print its table as soon as it is known."""
    for folder in options.folders or [None]:
        with tempfile.TemporaryDirectory() as scratch:
            photos = folder or drawn(Path(scratch) / "drawn", options.drawn)
            common = {"data": scratch, "labels": sorted(path.name for path in photos.iterdir() if path.is_dir())}
            common |= {name: getattr(options, name) for name in ("shares", "size", "epochs", "weights")}
            count = prepared(photos, Task(side="folds", seed=0, **common))
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


def prepared(photos: Path, task: Task) -> int:
    """Reduce the photos, take them in, verify and group them as 01 to 03 do; return how many there are."""
    data, project = Path(task.data), task.project()
    for label in task.labels:
        (data / "photos" / label).mkdir(parents=True)
        for path in sorted((photos / label).iterdir()):
            try:
                with Image.open(path) as image:
                    image = image.convert("RGB")
                    image.thumbnail((REDUCED, REDUCED))
                    image.save(data / "photos" / label / f"{path.stem}.jpg", quality=92)
            except OSError as error:
                print(f"{path} is left out: {error}", file=sys.stderr)
    save_pictures(project, folder_pictures(data / "photos", task.labels))
    verify_images(project)
    groups = find_copies(read_dataset(project)).groups
    rows = [{"id": id, "group": group, "side": "train"} for id, group in groups.items()]  # neither uses our sides
    write_table(project.table("split"), SPLIT_COLUMNS, rows)
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
            orders, said = SIDES[task.side](noisy)
            true = read_dataset(task.project())
            right = float(np.mean([label == true[id].label for id, label in said.items()]))
            hits = {name: [id in wrong for id in order] for name, order in orders.items()}
            results.append({"hits": hits, "accuracy": right})
    return results


def one_learner(dataset: Dataset) -> tuple[dict, dict]:
    """Return fastai's order of suspects (ids), and what its learner says of its validation set."""
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        ImageBlock,
        RandomSplitter,
        Resize,
        aug_transforms,
        error_rate,
        get_image_files,
        parent_label,
        resnet18,
        set_seed,
        vision_learner,
    )

    from utils.train import learning_rates

    project = dataset.project
    set_seed(project.seed)
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=lambda folder: sorted(get_image_files(folder)),
        splitter=RandomSplitter(valid_pct=VALID, seed=project.seed),
        get_y=parent_label,
        item_tfms=Resize(project.size),
        batch_tfms=aug_transforms(),
    )
    dls = block.dataloaders(project.images, bs=project.batch_size, num_workers=0)
    learn = vision_learner(dls, resnet18, metrics=error_rate, pretrained=project.weights == "imagenet")
    losses, said = {}, {}
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(project.epochs, **learning_rates(project))
        for side in (0, 1):  # as the cleaner's _get_iw_info takes them
            loader = dls[side].new(shuffle=False, drop_last=False)
            probs, _, loss = learn.get_preds(dl=loader, with_loss=True)
            ids = [path.stem for path in loader.dataset.items]
            losses |= dict(zip(ids, loss.tolist(), strict=True))
            said = {
                id: dls.vocab[n] for id, n in zip(ids, probs.argmax(1).tolist(), strict=True)
            }  # of the validation set
    return {"fastai": sorted(losses, key=lambda id: -losses[id])}, said


def folds(dataset: Dataset) -> tuple[dict, dict]:
    """Return the two orders of suspects (ids) that out-of-fold probabilities give, and what the models say."""
    from utils.clean import rank_suspects
    from utils.heads import judge_pictures

    os.sched_getaffinity = lambda _: ()  # a process has one core here: loaders would only take turns with it
    judged = judge_pictures(dataset)
    given = judged.probs[np.arange(len(dataset)), dataset.codes]
    orders = {"cross-validated": np.argsort(given, kind="stable"), "ours": rank_suspects(dataset.codes, judged.probs)}
    said = {id: judged.vocab[n] for id, n in zip(judged.ids, judged.probs.argmax(1).tolist(), strict=True)}
    return {name: [judged.ids[n] for n in order] for name, order in orders.items()}, said


SIDES = {"one learner": one_learner, "folds": folds}


# ---------------------------------------------------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------------------------------------------------


def table(name: str, count: int, options: argparse.Namespace, found: list[list[dict]]) -> list[str]:
    """Return the lines of one folder's table; `found` holds the sides of the first seed, then of the next."""
    how = f"{options.size} px, {options.epochs} epochs, weights {options.weights}, {options.seeds} seeds"
    lines = [
        f"| {name}: {count} pictures; {how} | {' | '.join(ORDERS)} | ours − fastai | ours − cross-validated |",
        "|---|---|---|---|---|---|",
    ]
    for n, share in enumerate(options.shares):
        seeds = list(zip(found[0::2], found[1::2], strict=True))  # (one learner, folds) a seed
        hits = [one[n]["hits"] | several[n]["hits"] for one, several in seeds]
        wrong = sum(hits[0]["ours"])
        head = f"{share:.0%} wrong, N = {wrong}"
        for words, first, of in (
            ("precision and recall of the first N", wrong, wrong),
            ("precision of the first 2 N", 2 * wrong, 2 * wrong),
            ("recall of the first 2 N", 2 * wrong, wrong),
        ):
            values = np.array([[sum(one[order][:first]) / of for order in ORDERS] for one in hits])  # (seeds, 3)
            cells = [spread(values[:, k]) for k in range(3)]
            cells += [spread(values[:, 2] - values[:, k], sign=True) for k in range(2)]
            lines.append(f"| {head}: {words} | {' | '.join(cells)} |")
        right = [[one[n]["accuracy"] for one, _ in seeds], [several[n]["accuracy"] for _, several in seeds]]
        shown = [spread(np.array(values)) for values in right]
        lines.append(
            f"| {head}: accuracy by the true labels on pictures not trained on | {shown[0]} | {shown[1]} | | | |"
        )
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
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--drawn", type=int, default=60, help="pictures per label, without a folder")
    parser.add_argument("--weights", choices=("none", "imagenet"), default="none")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="trainings at the same time")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.task:
        print(json.dumps(run(Task(**chosen.task))))
    else:
        main(chosen)
