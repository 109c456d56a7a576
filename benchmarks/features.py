"""
How quickly features come: the bare network on ready pixels against `picture_features` on files, and its memory.

    python benchmarks/features.py [--pictures 1000 10000]

Draws that many pictures of 512×384 pixels, saved as 02 does. Bare: PyTorch's forward pass of the packaged network,
batches of 16 of the same ready pixels, on all cores; half as many pictures before ours and as many after it, because a
shared machine's speed changes. Ours: from the files to the kept numbers, in a process of its own; then once more in
another, with all of them kept. What a process takes before it has a picture is told beside its peak.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _process import measured
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.pictures import jpeg_bytes
from utils.project import Project
from utils.storage import write_whole


def main() -> None:
    """Print the table, or do one task and print what it found as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", nargs="*", type=int, default=[1000, 10_000])
    parser.add_argument("--task", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps({"bare": bare, "ours": ours, "start": start}[options.task[0]](Path(options.task[1]))))
        return
    print("| pictures | bare, per second | ours, per second | ours / bare | again, s | peak memory, MB (start) |")
    print("|---|---|---|---|---|---|")
    for count in options.pictures:
        with tempfile.TemporaryDirectory() as folder:
            draw(project_of(Path(folder)), count)
            before, _ = done("bare", folder)
            first, memory = done("ours", folder)
            again, _ = done("ours", folder)
            after, _ = done("bare", folder)
            _, alone = done("start", folder)
        rate, bare_rate = count / first, count / (before + after)
        memories = f"{memory / 1e6:.0f} ({alone / 1e6:.0f})"
        print(
            f"| {count:,} | {bare_rate:.0f} | {rate:.0f} | {rate / bare_rate:.2f} | {again:.2f} | {memories} |",
            flush=True,
        )


def done(task: str, folder: str) -> tuple[float, int]:
    """Run a task in a fresh process; return what it found, and its peak memory in bytes."""
    run = measured([sys.executable, __file__, "--task", task, folder])
    return float(run.output.splitlines()[-1]), run.memory


def project_of(folder: Path) -> Project:
    """Return the project that holds the drawn pictures."""
    roots = {"data_dir": str(folder), "models_dir": str(folder)}
    return Project.model_validate({"name": "features", "labels": {"a": ["a"], "b": ["b"]}} | roots)


def draw(project: Project, count: int) -> None:
    """Write pictures as 02 does."""
    for n in range(count):
        coarse = np.random.default_rng(n).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((512, 384), Image.Resampling.BICUBIC)
        write_whole(project.images / "ab"[n % 2] / f"{n:016x}.jpg", jpeg_bytes(image))


def bare(folder: Path) -> float:
    """Return the seconds in which PyTorch brings half as many ready pictures through the network, on all cores."""
    import torch

    from utils.backbone import packaged_body
    from utils.dataset import read_dataset
    from utils.machine import usable_cores
    from utils.project import FEATURE_SIZE
    from utils.seeing import BATCH, folded

    torch.set_num_threads(usable_cores())
    network = folded(packaged_body()).to(memory_format=torch.channels_last)
    pixels = torch.rand(BATCH, 3, FEATURE_SIZE, FEATURE_SIZE).contiguous(memory_format=torch.channels_last)
    batches = len(read_dataset(project_of(folder))) / 2 / BATCH
    with torch.inference_mode():
        network(pixels)
        began = time.perf_counter()
        for _ in range(round(batches)):
            network(pixels).mean((2, 3))
        seconds = time.perf_counter() - began
    return seconds * batches / round(batches)


def ours(folder: Path) -> float:
    """Return the seconds that `picture_features` takes for the drawn pictures."""
    from utils.dataset import read_dataset
    from utils.features import picture_features

    dataset = read_dataset(project_of(folder))
    began = time.perf_counter()
    found = picture_features(dataset)
    seconds = time.perf_counter() - began
    assert np.isfinite(found).all() and len(found) == len(dataset)
    return seconds


def start(folder: Path) -> float:
    """Load what `ours` loads, and look at no picture."""
    from utils.backbone import packaged_body
    from utils.seeing import folded

    folded(packaged_body())
    return 0.0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main()
