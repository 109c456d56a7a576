"""
Is a large project quick to open? Reading 10,000 pictures, and applying one flag: an earlier commit against this folder.

    python benchmarks/dataset.py [--pictures 10000] [--rounds 3] [--against 225a66f]

Theirs is `git archive` of the commit in a temporary folder; ours is this folder as it lies here. Both do the same work
with the same Python on copies of one project, in turn, each in a process of its own: 03 for the first time, 03 again
(every call of the notebook, contact sheets too, nothing shown), then one flag applied after another, with a flag on
every picture in review.csv. Importing is not counted. Seconds are medians; a ratio is the median of those within a
round. Wanted: at least 5×.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from road import REPOSITORY, unpacked

LABELS, FLAGS = 10, 10
WANTED = 5  # theirs / ours, at least

TIMED = """
import json, statistics, sys, time
sys.path.insert(0, sys.argv[1])
from collections import Counter
def timed(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
"""
THEIRS = """
from utils.ledger import Ledger
from utils.pictures import contact_sheet
from utils.project import Project
from utils.review import save_flag
from utils.sample import near_copies_together
from utils.split import assign_sides, changed_settings, leak_warning, naive_leaks, near_copy_groups, save_split
from utils.split import split_counts
def split():
    project = Project.load()
    everyone = near_copy_groups(project)
    groups = {id: everyone[id] for id in project.pictures()}
    paths, sizes = project.pictures(), Counter(groups.values())
    copies = sorted((id for id in groups if sizes[groups[id]] > 1), key=groups.get)
    contact_sheet([paths[id] for id in copies[:24]], columns=8)
    near_copies_together(project, groups)
    labels = {id: path.parent.name for id, path in paths.items()}
    known = {id: side for id, (group, side) in project.split().items()}
    sides = assign_sides(everyone, labels, valid=project.valid, test=project.test, seed=project.seed, known=known)
    save_split(project, groups, sides)
    changed_settings(project)
    split_counts(project)
    naive_leaks(groups, valid=project.valid, seed=project.seed)
    leak_warning(project)
    for side in ("train", "valid", "test"):
        strip = [paths[id] for id in sides if sides[id] == side][:12]
        contact_sheet(strip, [path.parent.name for path in strip], columns=12, side=90)
"""
OURS = """
from utils.copies.chains import joined, name_groups
from utils.copies.hashes import hash_codes, hash_neighbours
from utils.dataset import read_dataset
from utils.ledger import Ledger, save_flag
from utils.project import Project
from utils.sheets import contact_sheet
from utils.split import assign_sides, changed_settings, leak_warning, naive_leaks, save_split, split_counts
def split():
    project = Project.load()
    dataset = read_dataset(project)
    # Only what both sides do: the hashes. What the pixels say is measured by copies.py.
    near = hash_neighbours(hash_codes(dataset, dataset.ids), 5)
    groups = name_groups(dataset.ids, joined(len(dataset), [near]).tolist(), {})
    sizes = Counter(groups[id] for id in dataset.ids)
    copies = sorted((picture for picture in dataset if sizes[groups[picture.id]] > 1), key=lambda p: groups[p.id])
    contact_sheet([picture.path for picture in copies[:24]], columns=8)
    labels = dict(zip(dataset.ids, dataset.labels, strict=True))
    known = {id: side for id, (group, side) in dataset.split.items()}
    sides = assign_sides(groups, labels, valid=project.valid, test=project.test, seed=project.seed, known=known)
    dataset = save_split(dataset, groups, sides)
    changed_settings(project)
    split_counts(dataset)
    naive_leaks({id: groups[id] for id in dataset.ids}, valid=project.valid, seed=project.seed)
    leak_warning(dataset, [])
    for side in ("train", "valid", "test"):
        shown = dataset.on(side)
        contact_sheet(shown.paths[:12], shown.labels[:12], columns=12, side=90)
"""
MEASURED = """
first, again = timed(split), timed(split)
project, applied = Project.load(), []
for id in sys.argv[2:]:
    save_flag(project, id, "Delete")
    done = []
    applied.append(timed(lambda: done.extend(Ledger(project).apply())))
    assert [outcome.done for outcome in done] == [True], done
split_csv = (project.data / "split.csv").read_text()
print(json.dumps([first, again, statistics.median(applied), split_csv]))
"""
ROWS = ("03, the first time", "03 again, split.csv there", "one flag applied")


def main() -> None:
    """Run both sides in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", default="225a66f", help="the earlier commit")
    options = parser.parse_args()
    times: dict[str, list[list[float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        roots = {"theirs": unpacked(options.against, Path(folder)), "ours": REPOSITORY}
        for n in range(options.rounds):
            splits = set()
            for side in sorted(roots, reverse=n % 2 == 0):
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    ids = write_pictures(Path(place), options.pictures)
                    *seconds, split = run(side, roots[side], Path(place) / "project.toml", ids[:FLAGS])
                times[side].append(seconds)
                splits.add(split)
            if len(splits) != 1:
                sys.exit("The two sides drew different splits: nothing was measured.")
    print(f"| {options.pictures:,} pictures, medians of {options.rounds}, seconds | {options.against} | ours | ratio |")
    print("|---|---|---|---|")
    for name, theirs, ours in zip(ROWS, *(zip(*times[side], strict=True) for side in ("theirs", "ours")), strict=True):
        ratio = median(their / our for their, our in zip(theirs, ours, strict=True))
        short = "" if ratio >= WANTED else f", wanted {WANTED}×"
        print(f"| {name} | {median(theirs):.3f} | {median(ours):.3f} | {ratio:.1f}×{short} |")


def write_pictures(folder: Path, count: int) -> list[str]:
    """Write a project of tiny pictures, one in ten a near-duplicate of an earlier one; return their ids."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    hashes[10::10] = hashes[9:-1:10] ^ np.uint64(7)
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "navy").save(buffer, "JPEG")
    data, ids = folder / "data" / "many", [f"{n:016x}" for n in range(count)]
    for k in range(LABELS):
        (data / "images" / f"label{k}").mkdir(parents=True)
    rows, flags = ["id,label,hash,width,height,warnings"], ["id,choice,time"]
    for n, id in enumerate(ids):
        label = f"label{n % LABELS}"
        (data / "images" / label / f"{id}.jpg").write_bytes(buffer.getvalue())
        rows.append(f"{id},{label},{hashes[n]:016x},16,16,")
        flags.append(f"{id},Keep,2026-01-01T00:00:00.000000+00:00")
    (data / "pictures.csv").write_text("\n".join(rows) + "\n")
    (data / "review.csv").write_text("\n".join(flags) + "\n")
    labels = "\n".join(f'label{k} = ["label {k}"]' for k in range(LABELS))
    (folder / "project.toml").write_text(
        f'name = "many"\ndata_dir = "data"\nmodels_dir = "models"\n[labels]\n{labels}\n'
    )
    return ids


def run(side: str, root: Path, project: Path, flagged: list[str]) -> list:
    """Run one side in a process of its own and return what it measured; stop the benchmark if it fails."""
    code = TIMED + {"theirs": THEIRS, "ours": OURS}[side] + MEASURED
    environment = os.environ | {"PROJECT": str(project)}
    command = [sys.executable, "-W", "ignore", "-c", code, str(root), *flagged]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\n{side} stopped with status {done.returncode}: nothing was measured.")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
