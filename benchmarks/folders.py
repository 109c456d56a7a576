"""
A folder of very many photos as the source of stage 01: an earlier commit against this folder, in one run.

    python benchmarks/folders.py [--photos 25000] [--rounds 3] [--against 225a66f]

Two labels, each with so many small files of different content in one folder; `images_per_label` is 150. Each side runs
the cells of its own notebooks/01_download.ipynb up to the one that takes the folder, in a process of its own, with the
same Python and libraries, into a new data folder. Importing is not counted; loading the project is, as it looks into
the source. The sides take turns; the one that goes first changes with each round. Seconds are medians; a ratio is the
median of the ratios within a round. Peak memory is that of the whole process. Wanted: 3 times as quick.

A third run takes a tenth of the files: what 45,000 more files add to the peak is what listing them costs.
"""

import argparse
import io
import json
import os
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from _process import Run, measured
from PIL import Image
from road import REPOSITORY, unpacked

LABELS = ("ants", "bees")
WANTED = 3.0
PER_LABEL = 150
STAGE = """
import json, sys, time
from pathlib import Path
cells = json.loads(Path("01_download.ipynb").read_text(encoding="utf-8"))["cells"]
cells = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
last = next(n for n, cell in enumerate(cells) if "in project.folders" in cell or "take_photos" in cell)
names = {}
exec(cells[0], names)  # the modules are imported now
began = time.perf_counter()
for cell in cells[: last + 1]:
    exec(cell, names)
seconds = time.perf_counter() - began
raw = names["project"].raw
print(json.dumps([seconds, [sum(1 for _ in folder.iterdir()) for folder in sorted(raw.iterdir())]]))
"""


def main() -> None:
    """Run both sides in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=25_000, help="per label")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", default="225a66f", help="the earlier commit")
    options = parser.parse_args()
    if options.photos < 10 * PER_LABEL or options.rounds < 1:
        parser.error(f"--photos must be {10 * PER_LABEL} or more, and --rounds 1 or more")
    times, peaks = defaultdict(list), defaultdict(list)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place)
        roots = {"theirs": unpacked(options.against, folder), "ours": REPOSITORY}
        few, many = (write_photos(folder / f"{count}", count) for count in (options.photos // 10, options.photos))
        for n in range(options.rounds):
            for side in sorted(roots, reverse=n % 2 == 0):
                seconds, run = taken(roots[side], many, folder)
                times[side].append(seconds)
                peaks[side].append(run.memory / 1e6)
            peaks["few"].append(taken(REPOSITORY, few, folder)[1].memory / 1e6)
    files = f"{len(LABELS) * options.photos:,} files, {PER_LABEL} photos per label"
    print(f"| {files}, medians of {options.rounds} | {options.against} | ours | theirs / ours |\n|---|---|---|---|")
    for name, found, form in (("seconds", times, "{:.2f}"), ("peak memory, MB", peaks, "{:.0f}")):
        theirs, ours = found["theirs"], found["ours"]
        ratio = median(their / our for their, our in zip(theirs, ours, strict=True))
        short = f", wanted {WANTED:g}×" if name == "seconds" and ratio < WANTED else ""
        print(f"| {name} | {form.format(median(theirs))} | {form.format(median(ours))} | {ratio:.2f}×{short} |")
    more = median(many - few for many, few in zip(peaks["ours"], peaks["few"], strict=True))
    count = len(LABELS) * (options.photos - options.photos // 10)
    print(
        f"\nOurs with a tenth of the files: {median(peaks['few']):.0f} MB at most. So {count:,} more files take "
        f"{more:.0f} MB more, {more * 1e6 / count:.0f} bytes each."
    )


def write_photos(folder: Path, count: int) -> Path:
    """Write `count` small photos of different content for each label, and return the folder."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((96, 72)).save(buffer, "JPEG")
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for n in range(count):  # what follows a JPEG's end is not looked at
            (folder / label / f"IMG_{n:05}.jpg").write_bytes(buffer.getvalue() + f"{label}{n}".encode())
    return folder


def taken(root: Path, photos: Path, folder: Path) -> tuple[float, Run]:
    """Run one side on a folder of photos; return the seconds of its stage, and what the whole process took."""
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as place:
        project = Path(place) / "project.toml"
        project.write_text(
            f'name = "many"\nsource = {json.dumps(str(photos))}\nimages_per_label = {PER_LABEL}\ndata_dir = "data"\n'
            'models_dir = "models"\n[labels]\n' + "\n".join(f"{label} = []" for label in LABELS) + "\n",
            encoding="utf-8",
        )
        environment = os.environ | {"PROJECT": str(project)}
        environment.pop("PYTHONPATH", None)
        code = f"import os\nos.chdir({str(root / 'notebooks')!r})\n{STAGE}"
        run = measured([sys.executable, "-W", "ignore", "-c", code], environment)
        seconds, kept = json.loads(run.output.splitlines()[-1])
        if kept != [PER_LABEL] * len(LABELS):
            sys.exit(f"{root} took {kept} photos, expected {PER_LABEL} per label: nothing was measured.")
    return seconds, run


if __name__ == "__main__":
    main()
