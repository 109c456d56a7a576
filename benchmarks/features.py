"""
How quickly features come: the bare network on ready pixels against `picture_features` on files, and its memory.

    python benchmarks/features.py [--pictures 1000 10000]

Draws that many pictures of 512×384 pixels, saved as 02 does. Bare: the packaged network alone, batches of 16 of the
same ready pixels, on all cores, in PyTorch and in onnxruntime; half as many pictures before ours and as many after it,
because a shared machine's speed changes. Ours: from the files to the kept numbers, in a process of its own; then once
more in another, with all of them kept. What a process takes before it has a picture is told beside its peak.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _process import measured
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.pictures import jpeg_bytes
from utils.project import FEATURE_SIZE, Project
from utils.storage import write_whole

BARE = ("torch", "runtime")
TOGETHER = 16  # pictures in a batch of the bare network


def main() -> None:
    """Print the table, or do one task and print what it found as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", nargs="*", type=int, default=[1000, 10_000])
    parser.add_argument("--task", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        name, folder = options.task
        print(json.dumps({"torch": in_torch, "runtime": in_runtime, "ours": ours, "start": start}[name](Path(folder))))
        return
    print("| pictures | per second: torch | onnxruntime | ours | ours / torch | ours / onnxruntime | again, s "
          "| peak memory, MB (start) |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for count in options.pictures:
        with tempfile.TemporaryDirectory() as folder:
            draw(project_of(Path(folder)), count)
            before = [done(each, folder)[0] for each in BARE]
            first, memory = done("ours", folder)
            again, _ = done("ours", folder)
            after = [done(each, folder)[0] for each in BARE]
            _, alone = done("start", folder)
        rate, bare = count / first, [count / (one + other) for one, other in zip(before, after, strict=True)]
        rates = [f"{each:.0f}" for each in (*bare, rate)] + [f"{rate / each:.2f}" for each in bare]
        print(f"| {count:,} | {' | '.join(rates)} | {again:.2f} | {memory / 1e6:.0f} ({alone / 1e6:.0f}) |", flush=True)


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


def in_torch(folder: Path) -> float:
    """Return the seconds in which PyTorch brings half as many ready pictures through the network, on all cores."""
    import torch

    from utils.backbone import packaged_body
    from utils.machine import usable_cores
    from utils.seeing import folded

    torch.set_num_threads(usable_cores())
    network = folded(packaged_body()).to(memory_format=torch.channels_last)
    pixels = torch.rand(TOGETHER, 3, FEATURE_SIZE, FEATURE_SIZE).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        return half(folder, lambda: network(pixels).mean((2, 3)))


def in_runtime(folder: Path) -> float:
    """Return the seconds of onnxruntime for the same, with as many threads as it takes by itself."""
    import onnxruntime

    from utils.backbone import packaged_body
    from utils.graph import as_onnx
    from utils.seeing import folded

    graph = as_onnx(folded(packaged_body())).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).random((TOGETHER, 3, FEATURE_SIZE, FEATURE_SIZE), dtype=np.float32)
    return half(folder, lambda: session.run(None, {"pixels": pixels})[0].mean((2, 3)))


def half(folder: Path, look: Callable[[], object]) -> float:
    """Return the seconds for half as many pictures as lie there, TOGETHER of them at each look."""
    from utils.dataset import read_dataset

    batches = len(read_dataset(project_of(folder))) / 2 / TOGETHER
    look()
    began = time.perf_counter()
    for _ in range(round(batches)):
        look()
    return (time.perf_counter() - began) * batches / round(batches)


def ours(folder: Path) -> float:
    """Return the seconds that `picture_features` takes for the drawn pictures, imports not counted."""
    import onnxruntime  # noqa: F401

    import utils.seeing  # noqa: F401
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
    from utils.seeing import packaged_network

    packaged_network()
    return 0.0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main()
