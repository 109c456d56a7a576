"""
How quick prediction is, from files to labels: fastai's two ways and our two, in one run, beside the bare network.

    python benchmarks/inference.py [FOLDER] [--drawn 200] [--rounds 5] [--many 10000]

FOLDER holds <label>/<photos>; without it, `--drawn` pictures of 800×600 are drawn. All sides have the same untrained
resnet18 at 224 pixels (its weights change no speed), exported once as 07 does, the same pictures and the same cores.
`learn.predict` and `get_preds` are fastai's `load_learner`, on the same export.pkl. The limits are the network alone in
torch on ready tensors, and onnxruntime alone, as it is by default, on ready pixels. Sides take turns, each in a fresh
process; rates and times are medians, and so is a ratio, of those within a round. A cold start is counted from before
the interpreter starts to the first answer, by the shortest program that gives one. Memory is the peak of the process
and its children, in which shared pages count once. Where there is a GPU, torch works on it, and onnxruntime stays on
the CPU.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from _export import write_onnx
from _process import Run, measured

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

SIZE, BATCH = 224, 32  # pixels; pictures
ALONE = 30  # pictures that are predicted one at a time, for the median
STARTS = 5  # cold starts
FEW = 100  # pictures that a long stream is compared with

COLD = {
    "fastai": "from fastai.vision.all import load_learner\nwith (learn := load_learner(model)).no_bar():\n"
    "    print(learn.predict(photo)[0])",
    "ours .pkl": "from utils.inference import load_classifier\nprint(load_classifier(model).predict(photo)[0].label)",
    "ours .onnx": "from utils.inference import load_classifier\nprint(load_classifier(model).predict(photo)[0].label)",
}


def main(options: argparse.Namespace) -> None:
    """Measure all sides and print the tables."""
    cores = same_cores()
    with tempfile.TemporaryDirectory() as scratch:
        photos = options.folder or draw(Path(scratch) / "drawn", options.drawn)
        paths = pictures(photos)
        measured([sys.executable, __file__, "--task", "export", scratch, str(photos), "0"])
        found: dict[str, list[dict]] = {side: [] for side in SIDES}
        for turn in range(options.rounds):
            for side in SIDES:
                found[side].append(outcome(side, scratch, photos))
                print(f"round {turn + 1}, {side}: {found[side][-1]['rate']:.1f} images/s", file=sys.stderr)
        starts = {side: cold_starts(side, Path(scratch), paths[0]) for side in COLD}
        streams = {
            side: [outcome(side, scratch, photos, count)["memory"] for count in (FEW, options.many)]
            for side in ("ours .pkl", "ours .onnx")
        }
        vetting = outcome("vetting", scratch, photos)
        device = found["bare torch"][0]["device"]
        print(f"{len(paths)} photos, resnet18 at {SIZE} pixels, {cores} cores, torch on the {device}\n")
        print("\n".join(rates_table(found)), "\n".join(starts_table(starts)), sep="\n\n", end="\n\n")
        print("\n".join(reach_table(found, starts, streams, vetting, options.many)))


def same_cores() -> int:
    """Keep this process and its children to two cores, where the system can; return how many they have."""
    if not hasattr(os, "sched_setaffinity"):
        return os.cpu_count() or 1
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    return len(os.sched_getaffinity(0))


def outcome(side: str, scratch: str | Path, photos: Path, count: int = 0) -> dict:
    """Run one side in a fresh process, on `count` pictures or on each once; return what it printed, and its memory."""
    run = measured([sys.executable, __file__, "--task", side, str(scratch), str(photos), str(count)])
    return json.loads(run.output.splitlines()[-1]) | {"memory": run.memory}


def cold_starts(side: str, scratch: Path, photo: Path) -> list[float]:
    """Return the seconds from before a process starts until it has printed its first answer, each time anew."""
    model = scratch / ("model.onnx" if side.endswith(".onnx") else "export.pkl")
    code = f"import sys, time\nmodel, photo, began = sys.argv[1:]\n{COLD[side]}\nprint(time.time() - float(began))"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    seconds = []
    for _ in range(STARTS + 1):
        run: Run = measured([sys.executable, "-c", code, str(model), str(photo), str(time.time())], environment)
        seconds.append(float(run.output.splitlines()[-1]))
    return seconds[1:]  # the first finds the disk's cache empty


# ---------------------------------------------------------------------------------------------------------------
# The pictures and the model
# ---------------------------------------------------------------------------------------------------------------


def draw(folder: Path, count: int) -> Path:
    """Draw photos of two labels."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for n in range(count):
        path = folder / ("this", "that")[n % 2] / f"{n:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        soft = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        soft.resize((800, 600), Image.Resampling.BICUBIC).save(path, quality=90)
    return folder


def export(scratch: Path, photos: Path) -> dict:
    """Write an untrained learner, made as 04 makes one, as 07 writes it; fastai's own dataloaders come with it."""
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        ImageBlock,
        IndexSplitter,
        Normalize,
        RandomResizedCrop,
        aug_transforms,
        imagenet_stats,
        parent_label,
        resnet18,
        set_seed,
        vision_learner,
    )

    from utils.export import save_learner

    set_seed(0)
    paths = pictures(photos)
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_y=parent_label,
        splitter=IndexSplitter([0]),
        item_tfms=RandomResizedCrop(SIZE, min_scale=0.35),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(*imagenet_stats)],
    )
    learn = vision_learner(block.dataloaders(paths, bs=BATCH, num_workers=0), resnet18, pretrained=False)
    save_learner(learn, scratch / "export.pkl")
    write_onnx(learn, scratch / "model.onnx", SIZE)
    return {}


def pictures(photos: Path) -> list[Path]:
    """Return the photos in the order in which all sides get them."""
    return [path for path in sorted(photos.glob("*/*")) if path.is_file()]


# ---------------------------------------------------------------------------------------------------------------
# The sides, each in a process of its own
# ---------------------------------------------------------------------------------------------------------------

# A side takes pictures and returns how many it has judged. Each is made from the folder with the model.
Judge = Callable[[list[Path]], int]


def predict(scratch: Path) -> tuple[Judge, str]:
    """Return fastai's way for one picture, called for each."""
    learn, device = learner(scratch)
    return lambda paths: sum(len(learn.predict(path)) > 0 for path in paths), device


def get_preds(scratch: Path, workers: int) -> tuple[Judge, str]:
    """Return fastai's way for many pictures."""
    learn, device = learner(scratch)
    return lambda paths: len(learn.get_preds(dl=learn.dls.test_dl(paths, num_workers=workers))[0]), device


def learner(scratch: Path) -> tuple:
    """Return what fastai loads, on a GPU where there is one, without progress bars."""
    import torch
    from fastai.vision.all import load_learner

    device = "cuda" if torch.cuda.is_available() else "cpu"
    learn = load_learner(scratch / "export.pkl", cpu=device == "cpu")
    learn.no_bar().__enter__()
    return learn, device


def ours(scratch: Path, file: str) -> tuple[Judge, str]:
    """Return our way for any number of pictures."""
    from utils.inference import load_classifier

    classifier = load_classifier(scratch / file)

    def judge(paths) -> int:
        return sum(prediction.error is None for prediction in classifier.stream(paths))

    return judge, classifier.device


def bare_torch(scratch: Path) -> tuple[Judge, str]:
    """Return the network alone, on tensors that are there."""
    import torch

    learn, device = learner(scratch)
    network = learn.model.to(device).eval()
    batch = torch.rand(BATCH, 3, SIZE, SIZE, device=device)

    def judge(paths: list[Path]) -> int:
        with torch.inference_mode():
            for size in batch_sizes(len(paths)):
                network(batch[:size]).softmax(1).cpu()
        return len(paths)

    return judge, device


def bare_onnx(scratch: Path) -> tuple[Judge, str]:
    """Return onnxruntime alone, on pixels that are there."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(scratch / "model.onnx", providers=["CPUExecutionProvider"])
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)

    def judge(paths: list[Path]) -> int:
        for size in batch_sizes(len(paths)):
            session.run(None, {"pixels": batch[:size]})
        return len(paths)

    return judge, "cpu"


def batch_sizes(count: int) -> Iterator[int]:
    """Yield the sizes of the batches of so many pictures."""
    for start in range(0, count, BATCH):
        yield min(BATCH, count - start)


SIDES: dict[str, Callable[[Path], tuple[Judge, str]]] = {
    "learn.predict": predict,
    "get_preds, no workers": lambda scratch: get_preds(scratch, 0),
    "get_preds, 2 workers": lambda scratch: get_preds(scratch, 2),
    "ours .pkl": lambda scratch: ours(scratch, "export.pkl"),
    "bare torch": bare_torch,
    "ours .onnx": lambda scratch: ours(scratch, "model.onnx"),
    "bare onnxruntime": bare_onnx,
}


def run(side: str, scratch: Path, photos: Path, count: int) -> dict:
    """Do one task: all pictures once and then some alone, or a stream of `count`, the same files again and again."""
    if side == "export":
        return export(scratch, photos)
    if side == "vetting":
        return vetted(scratch)
    judge, device = SIDES[side](scratch)
    paths = pictures(photos)
    if count:
        # The same files in the short stream and in the long one: a large photo takes more memory than a small one.
        return {"judged": judge(itertools.islice(itertools.cycle(paths[:FEW]), count))}
    judge(paths[:BATCH])  # the first batch prepares
    began = time.perf_counter()
    judged = judge(paths)
    rate = judged / (time.perf_counter() - began)
    if judged < len(paths):
        sys.exit(
            f"{side} could read {judged} of {len(paths)} photos: take out the others, so that all do the same work."
        )
    alone = []
    for path in itertools.islice(itertools.cycle(paths), ALONE):
        began = time.perf_counter()
        judge([path])
        alone.append(time.perf_counter() - began)
    return {"rate": rate, "alone": statistics.median(alone), "device": device}


def vetted(scratch: Path) -> dict:
    """Return the median of the seconds that vetting the export takes, and its bytes."""
    from utils.inference import vet

    seconds = []
    for _ in range(STARTS):
        began = time.perf_counter()
        vet(scratch / "export.pkl")
        seconds.append(time.perf_counter() - began)
    return {"seconds": statistics.median(seconds), "bytes": (scratch / "export.pkl").stat().st_size}


# ---------------------------------------------------------------------------------------------------------------
# The tables
# ---------------------------------------------------------------------------------------------------------------


def rates_table(found: dict[str, list[dict]]) -> list[str]:
    """Return the lines of the table of all sides."""
    lines = ["| from files to labels | images/s | ms for one picture, warm | peak memory, MB |", "|---|---|---|---|"]
    for side, runs in found.items():
        alone = 1000 * statistics.median(one["alone"] for one in runs)
        memory = statistics.median(one["memory"] for one in runs) / 1e6
        rate = statistics.median(one["rate"] for one in runs)
        lines.append(f"| {side} | {rate:.1f} | {alone:.0f} | {memory:,.0f} |")
    return lines


def starts_table(starts: dict[str, list[float]]) -> list[str]:
    """Return the lines of the table of cold starts."""
    lines = [
        f"| cold start to the first answer, {STARTS} times | median, s | quickest | slowest |",
        "|---|---|---|---|",
    ]
    return lines + [
        f"| {side} | {statistics.median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f} |"
        for side, seconds in starts.items()
    ]


def reach_table(
    found: dict[str, list[dict]],
    starts: dict[str, list[float]],
    streams: dict[str, list[int]],
    vetting: dict,
    many: int,
) -> list[str]:
    """Return the lines of the table of what should be reached."""
    rate = {side: [one["rate"] for one in runs] for side, runs in found.items()}
    quicker = [max(pair) for pair in zip(rate["get_preds, no workers"], rate["get_preds, 2 workers"], strict=True)]
    cold = {side: statistics.median(seconds) for side, seconds in starts.items()}
    device = found["bare torch"][0]["device"]
    rows = [
        (".onnx: times learn.predict's rate", ratio(rate["ours .onnx"], rate["learn.predict"]), "≥ 2"),
        (".onnx: times get_preds' rate, the quicker one", ratio(rate["ours .onnx"], quicker), "≥ 1.6"),
        (".onnx: share of bare onnxruntime's rate", ratio(rate["ours .onnx"], rate["bare onnxruntime"]), "≥ 0.85"),
        (f".pkl: share of bare torch's rate ({device})", ratio(rate["ours .pkl"], rate["bare torch"]), "≥ 0.7, GPU"),
        (".onnx: fastai's cold start in ours", cold["fastai"] / cold["ours .onnx"], "≥ 5"),
        (".pkl: fastai's cold start in ours", cold["fastai"] / cold["ours .pkl"], ""),
    ]
    for side, (few, more) in streams.items():
        words = f"{side.removeprefix('ours ')}: memory at {many:,} pictures to {FEW} ({few / 1e6:,.0f} MB)"
        rows.append((words, more / few, "≤ 1.1"))
    rows.append((f"vetting an export of {vetting['bytes'] / 1e6:.0f} MB, s", vetting["seconds"], "≤ 0.3"))
    return ["| | measured | reach |", "|---|---|---|"] + [f"| {a} | {b:.2f} | {c} |" for a, b, c in rows]


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median over the rounds of the ratio of two rates: a machine's speed may change between rounds."""
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--drawn", type=int, default=200, help="pictures, without a folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=10_000, help="pictures in the long stream")
    parser.add_argument("--task", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.task:
        side, scratch, photos, count = chosen.task
        print(json.dumps(run(side, Path(scratch), Path(photos), int(count))))
    else:
        main(chosen)
