"""
One class out of the box table of Open Images: duckdb against ours, CPU seconds and peak memory.

    python benchmarks/box_tables.py [--rows 14600000] [--peer PEER/bin/python]

Draws a table with the columns, the number of rows and the share of boats of the official one, 2.2 GB in a temporary
folder. duckdb reads it with `read_csv` and writes the rows of one class to a CSV file. Ours keeps these rows in a file,
too, and makes the boxes of each photo of them, as 1_tables does. Each runs in a process of its own, with all that it
imports, and the two take turns; the median of three runs counts. Without --peer an environment is made for duckdb,
which needs the network.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from _process import measured

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.boxes.open_images import _boxes_of_table
from utils.boxes.source import BoxNotes
from utils.boxes.table_rows import wanted_rows
from utils.project import Project

HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside,"
    "XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y\n"
)
BOAT, BOATS = "/m/019jd", 79_000 / 14_600_000  # the class, and its share of all rows
CLASSES, BLOCK = 600, 100_000  # others; rows that are drawn, then written again under other ids
ROUNDS = 3


def main() -> None:
    """Print the table, or do one task and print what it found as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=14_600_000)
    parser.add_argument("--peer", help="the Python of an environment with benchmarks/peers/duckdb.txt")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(ours(Path(options.task))))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = draw_table(Path(folder) / "boxes.csv", options.rows)
        peer = options.peer or peer_environment(Path(folder))
        runs: dict[str, list] = {"duckdb": [], "ours": []}
        for n in range(ROUNDS):
            for name, python in (("duckdb", peer), ("ours", sys.executable)):
                place = Path(folder) / f"{name}{n}"
                place.mkdir()
                script = Path(__file__).with_name("_duckdb_peer.py") if name == "duckdb" else Path(__file__)
                task = [str(place)] if name == "duckdb" else ["--task", str(place)]
                run = measured([python, str(script), *task])
                runs[name].append((*json.loads(run.output.splitlines()[-1]), run.seconds, run.memory))
        report(rows, runs)


def report(rows: int, runs: dict[str, list]) -> None:
    """Print the medians, and the ratios of ours to theirs."""
    found = {name: [median(column) for column in zip(*own, strict=True)] for name, own in runs.items()}
    if found["ours"][0] != found["duckdb"][0]:
        sys.exit(f"duckdb found {found['duckdb'][0]} rows and ours {found['ours'][0]}: nothing was measured.")
    print(f"{rows:,} rows, {found['ours'][0]:,.0f} of the class\n")
    print("| | CPU, s | by the clock, s | peak memory, MB |\n|---|---|---|---|")
    for name, (_, cpu, seconds, memory) in found.items():
        print(f"| {name} | {cpu:.1f} | {seconds:.1f} | {memory / 1e6:.0f} |")
    ratios = [mine / its for mine, its in zip(found["ours"][1:], found["duckdb"][1:], strict=True)]
    print(f"| ours / duckdb | {ratios[0]:.2f} | {ratios[1]:.2f} | {ratios[2]:.2f} |")


def draw_table(path: Path, rows: int) -> int:
    """Write a table of so many rows; return how many it has."""
    draw = np.random.default_rng(42)
    letters = np.array(list("0123456789bcdfghjklmnpqrstvwxyz_"))
    codes = [f"/m/0{''.join(draw.choice(letters, draw.integers(3, 7)))}" for _ in range(CLASSES)]
    common = np.minimum(draw.exponential(CLASSES / 10, BLOCK).astype(int), CLASSES - 1)  # few classes have most boxes
    boats = draw.random(BLOCK) < BOATS
    numbers, flags = draw.random((BLOCK, 12)), draw.random((BLOCK, 5)) < 0.2
    lines = []
    for n in range(BLOCK):
        texts = [
            f"{value:.6f}"
            for value in np.concatenate([np.sort(numbers[n, :2]), np.sort(numbers[n, 2:4]), numbers[n, 4:]])
        ]
        code = BOAT if boats[n] else codes[common[n]]
        marks = ["1" if flag else "0" for flag in flags[n]]
        lines.append(",".join([f"@@@@{n // 8:012x}", "xclick", code, "1", *texts[:4], *marks, *texts[4:]]) + "\n")
    with path.open("wb") as file:
        file.write(HEADER.encode())
        for start in range(0, rows, BLOCK):
            block = "".join(lines[: min(BLOCK, rows - start)]).encode()
            file.write(block.replace(b"@@@@", b"%04x" % (start // BLOCK)))
    return rows


def peer_environment(folder: Path) -> str:
    """Make an environment with duckdb, and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder / "peer"], check=True)
    python = folder / "peer" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    wanted = Path(__file__).parent / "peers" / "duckdb.txt"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", wanted], check=True)
    return str(python)


def ours(folder: Path) -> tuple[int, float]:
    """Keep the rows of the class, make boxes of them, and return their number and this process's CPU seconds."""
    project = Project.model_validate(
        {"name": "boats", "task": "detect", "source": "open_images", "labels": {"Boat": []}, "data_dir": str(folder)}
    )
    notes = BoxNotes()
    kept = wanted_rows(project, str(folder.parent / "boxes.csv"), "LabelName", {BOAT}, notes)
    boxes: dict[str, list] = {}
    for id, box in _boxes_of_table(kept, {BOAT: "Boat"}, notes):
        boxes.setdefault(id, []).append(box)
    return sum(map(len, boxes.values())), time.process_time()


if __name__ == "__main__":
    main()
