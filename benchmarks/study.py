"""
What studies cost and find: heads against fine-tuning, racing against the full grid, settings that are equal.

    python benchmarks/study.py FOLDER [--only heads race weights equal planted cost] [--studies 20]

FOLDER holds <label>/<photos>. All with the packaged network and its ImageNet weights. *heads*: 12 settings that a head
reads × 3 seeds, against fine-tuning the settings that a fine-tuning reads (its time is told per run, for 12 settings).
*race*: 8 settings (size and epochs) × 5 seeds in full, and how many of these runs racing asks for. *weights*: the same
with pretrained weights against none, two sizes, two numbers of epochs. *equal*: studies of two settings that
differ in nothing that matters (batches of 16 and of 17), how many say that they differ. *planted*: 128 pixels against
32. *cost*: CPU seconds of a run against the same training alone.
"""

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.dataset import Dataset, read_dataset
from utils.pictures import jpeg_bytes, open_picture
from utils.project import Project
from utils.storage import content_id, write_whole
from utils.study import Study, read_study
from utils.study.comparing import paired
from utils.study.conclusions import value_pairs
from utils.study.racing import leader_of, standing
from utils.study.training import run_setting, with_sides
from utils.tables import SPLIT_COLUMNS, write_table
from utils.train import train_as_04

PARTS = ("heads", "race", "weights", "equal", "planted", "cost")
RACES = {
    "race": {"size": [32, 64, 96, 128], "epochs": [1, 3]},
    "weights": {"weights": ["imagenet", "none"], "size": [64, 128], "epochs": [1, 3]},
}


def main(options: argparse.Namespace) -> None:
    """Run what is asked for and print a line or more of each."""
    with tempfile.TemporaryDirectory() as folder:
        labels = sorted(path.name for path in options.folder.iterdir() if path.is_dir())
        fixed = {"name": "study", "labels": {label: [label] for label in labels}, "arch": "efficientnet_lite0"}
        fixed |= {"data_dir": folder, "models_dir": folder, "size": 64, "epochs": 1, "test": 0.0, "valid": 0.2}
        prepare(options.folder, Project.model_validate(fixed))
        for name in options.only:
            print(f"\n## {name}", flush=True)
            if name in RACES:
                race(fixed, RACES[name])
            else:
                {"heads": heads, "equal": equal, "planted": planted, "cost": cost}[name](fixed, options)


def prepare(photos: Path, project: Project) -> None:
    """Make training copies as 02 does; all stand in the training set, from which a study draws its own."""
    rows = []
    for path in sorted(path for path in photos.rglob("*") if path.is_file()):
        data = jpeg_bytes(open_picture(path, longest_side=512))
        write_whole(project.images / path.parent.name / f"{content_id(data)}.jpg", data)
        rows.append({"id": content_id(data), "group": content_id(data), "side": "train"})
    write_table(project.table("split"), SPLIT_COLUMNS, rows)


def made(fixed: Mapping, section: Mapping, **more) -> Study:
    """Return a study of the prepared photos."""
    return read_study(Project.model_validate(dict(fixed) | more | {"study": dict(section)}))


def timed(study: Study) -> float:
    """Train all runs of a study; return the seconds."""
    began = time.perf_counter()
    study.run(minutes=600)
    return time.perf_counter() - began


def heads(fixed: Mapping, options: argparse.Namespace) -> None:
    """Compare a study by heads with one by fine-tuning."""
    common = {"size": [64, 96, 128], "class_weights": [False, True], "race": False}
    quick = made(fixed, common | {"strength": [0.001, 0.01]}, train="head")
    seconds = timed(quick)
    slow = made(fixed, common)
    per_run = timed(slow) / (len(slow.settings) * len(slow.seeds))
    whole = per_run * len(quick.settings) * len(quick.seeds)
    print(f"heads: {seconds:.0f} s for {len(quick.settings)} settings × 3 seeds; fine-tuning: {per_run:.1f} s a run,")
    print(f"{whole:.0f} s for as many: heads take {seconds / whole:.3f} of the time")
    best = {s.id: s for s in quick.settings}[quick.standing().leader]
    runs, winner = slow.runs(), slow.standing().leader
    chosen = next(s for s in slow.settings if all(best.values[key] == s.values[key] for key in s.values))
    print(f"heads choose: {best.name}; fine-tuning chooses: {next(s.name for s in slow.settings if s.id == winner)}")
    told_gain("fine-tuned, the heads' choice against fine-tuning's own", slow, runs, chosen.id, winner)


def told_gain(what: str, study: Study, runs: Mapping, one: str, other: str) -> None:
    """Print how much better one setting is than another, with its interval."""
    gain = paired([runs[one, s] for s in study.seeds], [runs[other, s] for s in study.seeds], study.groups)
    low, high = gain.interval()
    print(f"{what}: {100 * gain.value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})", flush=True)


def race(fixed: Mapping, keys: Mapping) -> None:
    """Count the runs that racing would have asked for, out of a grid that was trained in full."""
    full = made(fixed, dict(keys) | {"seeds": 5, "race": False})
    seconds = timed(full)
    runs, kept = full.runs(), {}
    while (now := standing(full.settings, full.seeds, kept, full.groups)).due:
        kept |= {(s.id, seed): runs[s.id, seed] for s, seed in now.due}
    share = len(kept) / len(runs)
    print(f"full grid: {len(runs)} runs in {seconds:.0f} s; racing: {len(kept)} runs, {share:.2f} of them")
    names, best = {s.id: s.name for s in full.settings}, leader_of(full.settings, full.seeds, runs)
    print(f"leader of the grid: {names[best]}; of the race: {names[now.leader]}")
    told_gain("the race's leader against the grid's", full, runs, now.leader, best)


def equal(fixed: Mapping, options: argparse.Namespace) -> None:
    """Count the studies of two equal settings that say that they differ."""
    found = 0
    for n in range(options.studies):
        study = made(fixed, {"batch_size": [16, 17], "race": False}, seed=1000 * n)
        timed(study)
        (gain,) = value_pairs(study.settings, study.runs(), study.groups).values()
        found += gain.p <= 0.05
    print(f"two equal settings, 3 seeds: {found} of {options.studies} studies say that they differ")


def planted(fixed: Mapping, options: argparse.Namespace) -> None:
    """See whether 128 pixels are found to be better than 32."""
    study = made(fixed, {"size": [32, 128]})
    timed(study)
    (((better, _), gain),) = value_pairs(study.settings, study.runs(), study.groups).items()
    low, high = gain.interval()
    print(
        f"{better[1]} pixels against the other: {100 * gain.value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    )


def cost(fixed: Mapping, options: argparse.Namespace) -> None:
    """Compare the CPU seconds of a run with those of the same training alone, in turns."""
    study = made(fixed, {"epochs": [2]}, size=96)
    setting, ours, theirs = study.settings[0], 0.0, 0.0
    for seed in range(4):
        began = cpu()
        train_as_04(alone(study, seed))
        gc.collect()  # its loaders end, whose seconds would else be counted below
        middle = cpu()
        run_setting(study.pool, setting, seed)
        if seed:  # the first of each warms up
            theirs, ours = theirs + middle - began, ours + cpu() - middle
    print(f"CPU seconds: a run {ours / 3:.1f}, the training alone {theirs / 3:.1f}: {ours / theirs:.2f}×")


def alone(study: Study, seed: int) -> Dataset:
    """Return the data set of a run's training."""
    project = study.settings[0].project.model_copy(update={"seed": seed})
    drawn = with_sides(study.pool, seed)
    return read_dataset(project).with_split(drawn.split)


def cpu() -> float:
    """Return the CPU seconds of this process and of the ended ones that it began."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds <label>/<photos>")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--studies", type=int, default=20)
    main(parser.parse_args())
