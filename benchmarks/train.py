"""
How quick training is and what it teaches: the plain course notebook against stage 04, in one run.

    python benchmarks/train.py [FOLDER] [--drawn 60] [--epochs 4] [--seeds 3] [--arch resnet18] [--weights none]
        [--cache none]

FOLDER holds <label>/<photos>; without it, `--drawn` pictures per label are drawn. Theirs is the course's notebook:
RandomSplitter, Resize from the originals, aug_transforms, fine_tune. Ours is what 04 does, on 02's training copies.
Two tasks: the photos as they are at 224 pixels, and enlarged to 1500×1200 for a network that sees 128. Both sides have
the same network, epochs, seeds and number of training pictures, and are judged on the same pictures, which neither
saw: our test set, taken out of theirs. Processes take turns, each fresh. The limit is the bare network: forward and
backward in PyTorch on one ready batch of the same size; on a GPU with tensor cores in half precision and pixel by
pixel, as 04 trains there. `--cache gpu` keeps ours on the GPU (`--drawn 7000` draws 21,000 pictures). lr_find, which
04 shows, is in neither side. A rate is that of the quickest epoch of all seeds, and the bare network's that of its
quickest stretch of as many images: what a machine that is shared with others can do, when the others are quiet. The
bare network runs without and with freed memory kept, as 04 keeps it; the share is of the quicker. With the packaged
network (`--arch efficientnet_lite0 --weights imagenet`) ours begins with the quick model's head, as 04 does. Fitting it
is not counted here; quick.py counts it.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from _process import measured
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from sample.pictures import LABELS, sample_pictures
from utils.copies import find_copies
from utils.dataset import Dataset, read_dataset
from utils.download import read_folder, save_pictures, source_pictures
from utils.intervals import bootstrap, interval
from utils.project import PACKAGED, Project
from utils.split import assign_sides
from utils.verify import verify_images

VALID, TEST = 0.2, 0.2  # fractions of the pictures; theirs draws its validation set from all but the test pictures
BARE_SECONDS = 30
LARGE = (1500, 1200)  # pixels


@dataclass(frozen=True)
class Task:
    """One training: who trains, on which data, how."""

    side: str
    data: str  # the folder with the data of the project, and the originals
    labels: list[str]
    size: int
    seed: int
    epochs: int
    arch: str
    weights: str
    batch_size: int
    cache: str

    def project(self) -> Project:
        """Return the task as settings of a project."""
        settings = {"size": self.size, "seed": self.seed, "epochs": self.epochs}
        settings |= {"arch": self.arch, "weights": self.weights, "cache": self.cache}
        roots = {"data_dir": self.data, "models_dir": f"{self.data}/models {self.seed}"}
        labels = {label: [] for label in self.labels}
        fixed = {"name": "train", "source": f"{self.data}/photos", "valid": VALID, "test": TEST}
        return Project.model_validate(fixed | settings | roots | {"labels": labels, "batch_size": self.batch_size})

    def dataset(self) -> Dataset:
        """Return the pictures, split by the task's seed."""
        dataset = read_dataset(self.project())
        groups, labels = find_copies(dataset).groups, dict(zip(dataset.ids, dataset.labels, strict=True))
        sides = assign_sides(groups, labels, valid=VALID, test=TEST, seed=self.seed)
        return dataset.with_split({id: (groups[id], side) for id, side in sides.items()})


def main(options: argparse.Namespace) -> None:
    """Measure both tasks and print their tables."""
    with tempfile.TemporaryDirectory() as scratch:
        photos = options.folder or drawn(Path(scratch) / "drawn", options.drawn)
        for size, large in ((224, False), (128, True)):
            labels = sorted(path.name for path in photos.iterdir() if path.is_dir())
            common = {"data": f"{scratch}/data {size}", "labels": labels, "size": size, "epochs": options.epochs}
            common |= {"arch": options.arch, "weights": options.weights, "batch_size": options.batch_size}
            common |= {"cache": options.cache}
            words = prepared(photos, Task(side="ours", seed=0, **common), large=large)
            runs = {"theirs": [], "ours": [], "bare": []}
            for seed in range(options.seeds):
                for side, found in runs.items():
                    found.append(outcome(Task(side=side, seed=seed, **common)))
                    print(f"{size} px, seed {seed}, {side}: {found[-1]['rate']:.1f} images/s", file=sys.stderr)
            print(f"{words}\n\n" + "\n".join(table(size, options, **runs)) + "\n", flush=True)


def outcome(task: Task) -> dict:
    """Run one task in a fresh process; return what it printed, and its peak memory."""
    run = measured([sys.executable, __file__, "--task", json.dumps(asdict(task))])
    found = json.loads(run.output.splitlines()[-1])
    if not found["rate"]:
        sys.exit(f"There are fewer training pictures than batch_size = {task.batch_size}: nothing was measured.")
    return found | {"memory": run.memory}


# ---------------------------------------------------------------------------------------------------------------
# The pictures
# ---------------------------------------------------------------------------------------------------------------


def drawn(folder: Path, per_label: int) -> Path:
    """Draw the sample's pictures, those without a fault, into one folder per label."""
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(drawn_label, folder, per_label), LABELS))
    return folder


def drawn_label(folder: Path, per_label: int, label: str) -> None:
    """Draw the pictures of one label."""
    (folder / label).mkdir(parents=True)
    for picture in sample_pictures([label], per_label=per_label):
        if not picture.fault:
            (folder / picture.name).write_bytes(picture.data)


def prepared(photos: Path, task: Task, *, large: bool) -> str:
    """Take in and verify the photos as 01 and 02 do, lay out the same pictures' originals, and say what there is."""
    data, project = Path(task.data), task.project()
    for label in task.labels:
        (data / "photos" / label).mkdir(parents=True)
        for path in sorted((photos / label).iterdir()):
            copied(path, data / "photos" / label / path.name, large=large)
    save_pictures(project, source_pictures(read_folder(data / "photos", task.labels)))
    began = time.perf_counter()
    verify_images(project)
    seconds = time.perf_counter() - began
    originals = {path.stem: path for path in sorted(project.raw.rglob("*.*"))}
    kept = read_dataset(project)
    for picture in kept:
        link = data / "originals" / picture.label / originals[picture.id].name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(originals[picture.id])
    kilobytes = np.mean([originals[id].stat().st_size for id in kept.ids]) / 1000
    return (
        f"{len(kept)} photos of {len(task.labels)} labels, {kilobytes:.0f} kB in the mean; 02 made their training "
        f"copies once, in {seconds:.1f} s, which are not counted below."
    )


def copied(path: Path, target: Path, *, large: bool) -> None:
    """Copy a photo, or enlarge it; what cannot be opened is left to 02."""
    if not large:
        shutil.copyfile(path, target)
        return
    try:
        with Image.open(path) as image:
            image.convert("RGB").resize(LARGE, Image.Resampling.LANCZOS).save(target.with_suffix(".jpg"), quality=90)
    except OSError:
        return


# ---------------------------------------------------------------------------------------------------------------
# The sides, each in a process of its own
# ---------------------------------------------------------------------------------------------------------------


def run(task: Task) -> dict:
    """Do one task; return its rate (images/s), and for a training the seconds an epoch and what it answered."""
    from fastai.vision.all import Callback

    class Watch(Callback):
        """Time the passes that train all layers: loading, augmentation, network and optimizer."""

        def __init__(self):
            self.rates = []

        def before_train(self):
            self.images, self.began = 0, time.perf_counter()

        def after_batch(self):
            self.images += len(self.yb[0]) if self.training else 0

        def after_train(self):
            finished()
            if self.opt.frozen_idx == 0:
                self.rates.append(self.images / (time.perf_counter() - self.began))

    if task.side == "bare":
        return bare_rates(task, len(task.dataset().on("train")))
    learn, fit, judges = {"theirs": theirs, "ours": ours}[task.side](task, task.dataset())
    learn.add_cb(watch := Watch())
    began = time.perf_counter()
    with learn.no_bar(), learn.no_logging():
        fit()
    finished()
    seconds = time.perf_counter() - began
    probs = learn.get_preds(dl=learn.dls.test_dl(judges))[0]
    said = [learn.dls.vocab[n] for n in probs.argmax(1).tolist()]
    right = {path.stem: int(word == path.parent.name) for path, word in zip(judges, said, strict=True)}
    told = {"trained": len(learn.dls.train_ds), "workers": learn.dls.train.fake_l.num_workers, "right": right}
    return told | {"rate": max(watch.rates), "epoch": seconds / (task.epochs + 1)}


def finished() -> None:
    """Wait until a GPU has done what it was asked to."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def theirs(task: Task, dataset: Dataset) -> tuple:
    """Return the course's learner, its training, and the originals that judge it."""
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        ImageBlock,
        Normalize,
        RandomSplitter,
        Resize,
        aug_transforms,
        error_rate,
        get_image_files,
        parent_label,
        set_seed,
        vision_learner,
    )

    from utils.train import architecture, preparation

    set_seed(task.seed)
    # fastai itself normalises for torchvision's weights, and knows no others.
    known = [Normalize.from_stats(*preparation(dataset.project).stats)] if task.arch == PACKAGED else []
    tested = set(dataset.on("test").ids)
    paths = sorted(get_image_files(Path(task.data) / "originals"))
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        splitter=RandomSplitter(valid_pct=VALID / (1 - TEST), seed=task.seed),
        get_y=parent_label,
        item_tfms=Resize(task.size),
        batch_tfms=[*aug_transforms(), *known],
    )
    dls = block.dataloaders([path for path in paths if path.stem not in tested], bs=task.batch_size)
    learn = vision_learner(
        dls, architecture(dataset.project), metrics=error_rate, pretrained=task.weights == "imagenet"
    )
    return learn, lambda: learn.fine_tune(task.epochs), [path for path in paths if path.stem in tested]


def ours(task: Task, dataset: Dataset) -> tuple:
    """Return 04's learner, its training, and the training copies that judge it."""
    from utils.train import learner_as_04, learning_rates, training_callbacks

    learn, project = learner_as_04(dataset), dataset.project
    fit = partial(learn.fine_tune, task.epochs, **learning_rates(project), cbs=training_callbacks(dataset))
    return learn, fit, list(dataset.on("test").paths)


def bare_rates(task: Task, images_an_epoch: int) -> dict[str, float]:
    """
    Return how many images a second go forward and backward through the network alone, in the quickest stretch.

    First with memory as it is in any process ("usual"), then while what is freed is kept, as ours trains ("rate").
    """
    import torch
    from fastai.vision.learner import create_vision_model

    from utils.machine import keep_freed_memory
    from utils.train import architecture
    from utils.train.device import has_tensor_cores

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = device.type == "cuda" and has_tensor_cores(device)
    layout = torch.channels_last if half else torch.contiguous_format
    torch.manual_seed(task.seed)
    network = create_vision_model(architecture(task.project()), len(task.labels), pretrained=False).train()
    network = network.to(device, memory_format=layout)
    images = torch.rand(task.batch_size, 3, task.size, task.size, device=device).to(memory_format=layout)
    labels = torch.tensor([random.Random(task.seed).randrange(len(task.labels))] * task.batch_size, device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.float16, enabled=half):
            loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        network.zero_grad()

    def quickest() -> float:
        for _ in range(2):  # the first steps prepare
            step()
        finished()
        steps, rates, end = images_an_epoch // task.batch_size, [], time.perf_counter() + BARE_SECONDS
        while len(rates) < 2 or time.perf_counter() < end:
            began = time.perf_counter()
            for _ in range(steps):
                step()
            finished()
            rates.append(steps * task.batch_size / (time.perf_counter() - began))
        return max(rates)

    usual = quickest()
    keep_freed_memory(True)
    return {"usual": usual, "rate": quickest()}


# ---------------------------------------------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------------------------------------------


def table(size: int, options: argparse.Namespace, *, theirs: list[dict], ours: list[dict], bare: list[dict]):
    """Return the lines of the table of one task."""
    both = (theirs, ours)
    rates = [max(run["rate"] for run in found) for found in both]
    epochs = [min(run["epoch"] for run in found) for found in both]
    memory = [middle(found, "memory") / 1e9 for found in both]
    shares, difference = accuracies(theirs, ours)
    trained = " and ".join(str(round(middle(found, "trained"))) for found in both)
    usual, kept = (max(run[name] for run in bare) for name in ("usual", "rate"))
    limit = max(usual, kept)
    head = f"| {size} px, {options.epochs} epochs, batch {options.batch_size}, {options.seeds} seeds"
    return [
        f"{head}, {trained} training pictures | course | ours | |",
        "|---|---|---|---|",
        f"| images/s while all layers train | {rates[0]:.1f} | {rates[1]:.1f} | {rates[1] / rates[0]:.2f}× |",
        f"| … as a share of the bare network's {limit:.1f} | {rates[0] / limit:.2f} | {rates[1] / limit:.2f} | |",
        f"| the bare network without and with memory kept | {usual:.1f} | {kept:.1f} | {kept / usual:.2f}× |",
        f"| seconds an epoch, with validation | {epochs[0]:.1f} | {epochs[1]:.1f} | {epochs[1] / epochs[0]:.2f}× |",
        f"| processes that load pictures | {theirs[0]['workers']} | {ours[0]['workers']} | |",
        f"| peak memory, GB | {memory[0]:.1f} | {memory[1]:.1f} | {memory[1] / memory[0]:.2f}× |",
        f"| accuracy on pictures that neither saw | {shares[0]} | {shares[1]} | {difference} |",
    ]


def middle(found: list[dict], key: str) -> float:
    """Return the median of one figure over the seeds."""
    return median(run[key] for run in found)


def accuracies(theirs: list[dict], ours: list[dict]) -> tuple[list[str], str]:
    """Return both accuracies and their difference with 95 % intervals: bootstrap by picture, which seeds share."""
    answers = [(one["right"], other["right"]) for one, other in zip(theirs, ours, strict=True)]
    pairs = [(id, one[id], other[id]) for one, other in answers for id in sorted(one)]
    ids = [id for id, *_ in pairs]
    right = np.array([values for _, *values in pairs], dtype=float)  # (N, 2)
    columns = np.column_stack([right, right[:, 1] - right[:, 0]])
    values, draws = bootstrap({"": lambda w: w @ columns / w.sum(1, keepdims=True)}, ids, seed=0)[""]
    found = [interval(values[n], draws[:, n], n=len(ids), groups=ids, top=None if n == 2 else 1) for n in range(3)]
    shares = [f"{one['value']:.1%} ({one['low']:.1%} to {one['high']:.1%})" for one in found[:2]]
    points = [100 * found[2][key] for key in ("value", "low", "high")]
    return shares, "{:+.1f} points ({:+.1f} to {:+.1f}), n = {}".format(*points, len(ids))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--drawn", type=int, default=60, help="pictures per label, without a folder")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--weights", choices=("none", "imagenet"), default="none")
    parser.add_argument("--cache", choices=("none", "memory", "gpu"), default="none", help="of ours")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.task:
        print(json.dumps(run(Task(**chosen.task))))
    else:
        main(chosen)
