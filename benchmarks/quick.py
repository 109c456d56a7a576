"""
From photos to a model: the course's notebook against the quick model, and against a training that begins with it.

    python benchmarks/quick.py FOLDER [--seeds 5] [--epochs 4] [--fewer 2]

FOLDER holds <label>/<photos>. All sides have the packaged network with its ImageNet weights (efficientnet_lite0), the
same photos to learn from, and the same held-out photos that judge; both are drawn anew for each seed. *Course*:
vision_learner and fine_tune(4) at 224 pixels, from the originals. *Head*: ``train = "head"``, from the originals to the
fitted head, features included. *All*: 04 at 224 pixels from the fitted head on, for fewer epochs. Each run is a process
of its own; sides take turns. Importing is not counted. Seconds are medians; accuracies are means over the seeds, with
intervals by bootstrap over the photos.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from _process import measured

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.intervals import bootstrap, interval, mean_of
from utils.project import Project

HELD_OUT, VALID = 0.3, 0.2  # of the photos; of those that are left, for our sides' validation set
SIDES = ("course", "head", "all")


@dataclass(frozen=True)
class Run:
    """One training: who trains, on which photos, how."""

    side: str
    photos: str
    folder: str  # for data and models
    seed: int
    epochs: int

    def sides(self) -> dict[str, list[Path]]:
        """Return the originals to learn from and those that judge, as many of each label, drawn by the seed."""
        found: dict[str, list[Path]] = {"learn": [], "judge": []}
        for folder in sorted(path for path in Path(self.photos).iterdir() if path.is_dir()):
            paths = sorted(path for path in folder.iterdir() if path.is_file())
            order = np.random.default_rng(self.seed).permutation(len(paths))
            cut = round(HELD_OUT * len(paths))
            found["judge"] += [paths[n] for n in order[:cut]]
            found["learn"] += [paths[n] for n in order[cut:]]
        return found


def main(options: argparse.Namespace) -> None:
    """Run all sides in turn and print the table."""
    found: dict[str, list[dict]] = {side: [] for side in SIDES}
    for seed in range(options.seeds):
        for side in (*SIDES[seed % 3 :], *SIDES[: seed % 3]):
            with tempfile.TemporaryDirectory() as folder:
                epochs = options.fewer if side == "all" else options.epochs
                run = Run(side, str(options.folder.resolve()), folder, seed, epochs)
                done = measured([sys.executable, __file__, "--run", json.dumps(asdict(run))])
                found[side].append(json.loads(done.output.splitlines()[-1]) | {"memory": done.memory})
            told = found[side][-1]
            print(f"seed {seed}, {side}: {told['seconds']:.1f} s, {np.mean(told['right']):.3f}", file=sys.stderr)
    print("\n".join(table(found)))


def table(found: dict[str, list[dict]]) -> list[str]:
    """Return the lines of the table."""
    course = found["course"]
    lines = [
        f"| {len(course)} seeds | seconds | quicker | accuracy, n = {len(course[0]['right'])} | − course, points |"
    ]
    lines.append("|---|---|---|---|---|")
    for side, runs in found.items():
        quicker = median(theirs["seconds"] / ours["seconds"] for theirs, ours in zip(course, runs, strict=True))
        right = np.concatenate([run["right"] for run in runs]).astype(float)
        gain = right - np.concatenate([run["right"] for run in course])
        photos = np.concatenate([run["photos"] for run in runs])
        both = [spread(values, photos, top) for values, top in ((right, 1), (gain, None))]
        seconds = median(run["seconds"] for run in runs)
        lines.append(f"| {side} | {seconds:.1f} | {quicker:.1f}× | {both[0]} | {both[1] if side != 'course' else ''} |")
    return lines


def spread(values: np.ndarray, photos: np.ndarray, top: int | None) -> str:
    """Return a mean in points with its interval; a photo that judged several seeds is drawn with all of them."""
    (value,), draws = bootstrap({"": mean_of(values)}, photos, seed=0)[""]
    found = interval(value, draws[:, 0], n=len(values), groups=photos, top=top)
    return "{:.1f} ({:.1f} to {:.1f})".format(*(100 * found[key] for key in ("value", "low", "high")))


# --- one run, in a process of its own ---


def one_run(run: Run) -> None:
    """Train one side and print what it took, and which held-out photos it names rightly."""
    sides = run.sides()
    vocab = sorted({path.parent.name for path in sides["judge"]})
    trained = {"course": course, "head": head, "all": everything}[run.side]
    seconds, said = trained(run, sides, vocab)
    right = [word == path.parent.name for word, path in zip(said, sides["judge"], strict=True)]
    photos = [f"{path.parent.name}/{path.name}" for path in sides["judge"]]
    print(json.dumps({"seconds": seconds, "right": right, "photos": photos}))


def course(run: Run, sides: dict[str, list[Path]], vocab: list[str]) -> tuple[float, list[str]]:
    """Train as the course does, on the originals."""
    from fastai.vision.all import (
        ImageDataLoaders,
        Normalize,
        Resize,
        aug_transforms,
        error_rate,
        parent_label,
        set_seed,
        vision_learner,
    )

    from utils.backbone import COLOURS, efficientnet_lite0

    set_seed(run.seed)
    began = time.perf_counter()
    how = {"item_tfms": Resize(224), "batch_tfms": [*aug_transforms(), Normalize.from_stats(*COLOURS)], "bs": 32}
    dls = ImageDataLoaders.from_path_func("/", sides["learn"], parent_label, valid_pct=VALID, seed=run.seed, **how)
    learn = vision_learner(dls, efficientnet_lite0, metrics=error_rate)
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(run.epochs)
        seconds = time.perf_counter() - began
        probs = learn.get_preds(dl=dls.test_dl(sides["judge"]))[0]
    return seconds, [dls.vocab[k] for k in probs.argmax(1).tolist()]


def prepared(run: Run, paths: list[Path], project: Project):
    """Make the training copies of photos as 02 does, one side in five for validation; return the data set."""
    from utils.dataset import read_dataset
    from utils.pictures import jpeg_bytes, open_picture
    from utils.storage import content_id

    split = {}
    for n, path in enumerate(paths):
        data = jpeg_bytes(open_picture(path, longest_side=512))
        copy = project.images / path.parent.name / f"{content_id(data)}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(data)
        split[copy.stem] = (copy.stem, "valid" if n % round(1 / VALID) == 0 else "train")
    return read_dataset(project).with_split(split)


def settings(run: Run, vocab: list[str], **more) -> Project:
    """Return the project of a run."""
    fixed = {"name": "quick", "labels": {label: [label] for label in vocab}, "seed": run.seed, "epochs": run.epochs}
    return Project.model_validate(fixed | {"data_dir": run.folder, "models_dir": run.folder} | more)


def head(run: Run, sides: dict[str, list[Path]], vocab: list[str]) -> tuple[float, list[str]]:
    """Fit the quick model, and judge by what the packaged network sees of the held-out photos."""
    import fastai.vision.all  # noqa: F401 (importing is not counted)

    from utils.project import HEAD_SIZE
    from utils.seeing import seen_by_network
    from utils.train import quick_model

    began = time.perf_counter()
    quick = quick_model(prepared(run, sides["learn"], settings(run, vocab, train="head")))
    seconds = time.perf_counter() - began
    probs = quick.head.probabilities(np.concatenate(list(seen_by_network(sides["judge"], HEAD_SIZE))))
    return seconds, [vocab[k] for k in probs.argmax(1)]


def everything(run: Run, sides: dict[str, list[Path]], vocab: list[str]) -> tuple[float, list[str]]:
    """Train all layers as 04 does, from the quick model's head on."""
    from utils.train import train_as_04

    began = time.perf_counter()
    project = settings(run, vocab, arch="efficientnet_lite0", size=224)
    learn, _ = train_as_04(prepared(run, sides["learn"], project))
    seconds = time.perf_counter() - began
    with learn.no_bar(), learn.no_logging():
        probs = learn.get_preds(dl=learn.dls.test_dl(sides["judge"]))[0]
    return seconds, [learn.dls.vocab[k] for k in probs.argmax(1).tolist()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The course's notebook against the quick model.")
    parser.add_argument("folder", type=Path, nargs="?", help="holds <label>/<photos>")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4, help="of the course")
    parser.add_argument("--fewer", type=int, default=2, help="of a training that begins with the quick model's head")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        one_run(Run(**json.loads(arguments.run)))
    elif arguments.folder:
        main(arguments)
    else:
        parser.error("name a folder that holds <label>/<photos>")
