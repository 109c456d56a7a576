"""
How quick the page of 07 is, how much is loaded for it, and whether it answers as Python does.

    python benchmarks/page.py [--photos FOLDER] [--model FILE ...] [--gradio-python PATH] [--rounds 5]

Untrained networks (their weights change no speed), made as 04 makes them and written as 07 writes them, run in a
Chromium without a window: WebAssembly, one thread; and two where the page is isolated. Beside each runs Python's
onnxruntime with one thread on the same pixels. Sides take turns, and a ratio is the median of those within a round, for
other work on the machine slows both. `--model` measures any model.onnx as well. FOLDER holds photos at any depth; the
page and `load_classifier` are asked about each. PATH is a Python that has gradio 6, onnxruntime and Pillow: its app,
an Interface from Image to Label around `load_classifier`, then judges the same photos in the same browser: on this
machine, and as if it stood behind a line that takes 10 Mbit/s from the visitor after 30 ms.
"""

import argparse
import gzip
import io
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from _export import write_onnx
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.export.awkward import awkward_pictures
from utils.export.page import has_profile, write_files
from utils.inference import Classifier, load_classifier
from utils.page import RUNTIME, fetch_runtime, served
from utils.page.asking import asked, open_page, windowless_browser
from utils.project import Project
from utils.train import make_learner

LABELS = {"this": ["this"], "that": ["that"]}
NETWORKS = (("resnet18", 224), ("resnet18", 128), ("efficientnet_lite0", 224))
JUDGED = 15  # pictures of one round
VISITS = 5
FEW, FEW_LARGE = 30, 6  # photos that are judged beside Gradio's app
LINE = {"offline": False, "latency": 30, "downloadThroughput": 50e6 / 8, "uploadThroughput": 10e6 / 8}  # ms, bytes/s
SMALL, MEGAPIXEL, CAMERA = (500, 375), (1156, 867), (4000, 3000)  # pixels: width, height
APP = """
import sys
model, port, repository = sys.argv[1:]
sys.path.insert(0, repository)
import gradio
from utils.inference import load_classifier
classifier = load_classifier(model)
def judge(path):
    return classifier.predict([path])[0].probabilities
inputs = gradio.Image(type="filepath", image_mode=None)
app = gradio.Interface(judge, inputs, gradio.Label(), live=True, flagging_mode="never")
app.launch(server_name="127.0.0.1", server_port=int(port), quiet=True)
"""


@dataclass(frozen=True)
class Side:
    """A model, the page around it, and what Python makes of it."""

    name: str
    model: Path
    page: Path
    classifier: Classifier


def main(options: argparse.Namespace) -> None:
    """Measure everything and print the tables."""
    photos = sorted(path for path in options.photos.rglob("*") if path.is_file()) if options.photos else []
    with tempfile.TemporaryDirectory() as scratch, windowless_browser() as browser:
        if browser is None:
            return print("No Chromium, Chrome or Edge is installed: nothing was measured.")
        sides = [prepared_side(model, Path(scratch) / str(n)) for n, model in enumerate(models(options, Path(scratch)))]
        print(f"{browser.browser_type.name} {browser.version}, {os.cpu_count()} cores, {options.rounds} rounds\n")
        show(rates_table(sides, browser, options.rounds))
        show(preparing_table(sides[0], browser, options.rounds))
        show(visits_table(sides, browser))
        show(sizes_table(sides))
        show(answers_table([sides[0], *sides[len(NETWORKS) :]], browser, photos))
        if options.gradio_python:
            show(gradio_table([sides[0], *sides[2:]], browser, options.gradio_python, photos))


def show(lines: Sequence[str]) -> None:
    """Print a table as soon as it is measured."""
    print(*lines, sep="\n", end="\n\n", flush=True)


# ---------------------------------------------------------------------------------------------------------------
# The models, their pages and the pictures
# ---------------------------------------------------------------------------------------------------------------


def models(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Yield name → model.onnx: the networks of 04, untrained, and those that the command line names."""
    for arch, size in NETWORKS:
        path = scratch / f"{arch}-{size}.onnx"
        export(arch, size, path)
        yield f"{arch}, {size} px", path
    for path in options.model:
        yield str(path), path


def export(arch: str, size: int, path: Path) -> None:
    """Write an untrained network as 07 writes one."""
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        ImageBlock,
        IndexSplitter,
        Normalize,
        RandomResizedCrop,
        imagenet_stats,
    )

    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_x=lambda n: np.zeros((size, size, 3), np.uint8),
        get_y=lambda n: list(LABELS)[n % 2],
        splitter=IndexSplitter([0]),
        item_tfms=RandomResizedCrop(size, min_scale=0.35),
        batch_tfms=[Normalize.from_stats(*imagenet_stats)],
    )
    project = Project(name="benchmark", labels=LABELS, arch=arch, size=size, weights="none")
    learn = make_learner(project, block.dataloaders(list(range(4)), bs=2, num_workers=0), pretrained=False)
    write_onnx(learn, path, size)


def prepared_side(model: tuple[str, Path], folder: Path) -> Side:
    """Write the page of a model."""
    name, path = model
    classifier = load_classifier(path)
    folder.mkdir()
    project = Project(name="benchmark", labels=LABELS)  # the model has labels of its own
    write_files(folder, project, path, classifier, fetch_runtime())
    return Side(name, path, folder, classifier)


def drawn(size: tuple[int, int], count: int = 1) -> dict[str, bytes]:
    """Draw photos with soft shapes and a camera's grain: name → bytes of a JPEG."""
    files = {}
    for n in range(count):
        rng = np.random.default_rng(n)
        soft = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        grain = rng.normal(0, 6, (size[1], size[0], 1)).astype(np.float32)
        buffer = io.BytesIO()
        Image.fromarray(np.clip(np.asarray(soft) + grain, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=88)
        files[f"drawn-{size[0]}-{n}.jpg"] = buffer.getvalue()
    return files


# ---------------------------------------------------------------------------------------------------------------
# Speed
# ---------------------------------------------------------------------------------------------------------------


def rates_table(sides: Sequence[Side], browser, rounds: int) -> list[str]:
    """Return the table of photos per second, judging time alone: the page against onnxruntime in Python."""
    pictures = drawn(SMALL, JUDGED)
    found: dict[str, list[list[float]]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            alone, isolated = (page_seconds(side, browser, pictures, isolated=each) for each in (False, True))
            found[side.name].append([1 / alone, 1 / isolated, 1 / session_seconds(side, pictures)])
    first = next(iter(found.values()))
    lines = [
        "| judged per second | page, 1 thread | page, isolated | Python, 1 thread | page / Python | times the first |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        page, isolated, python = (statistics.median(column) for column in zip(*runs, strict=True))
        share = statistics.median(run[0] / run[2] for run in runs)
        against = statistics.median(run[0] / other[0] for run, other in zip(runs, first, strict=True))
        lines.append(f"| {name} | {page:.1f} | {isolated:.1f} | {python:.1f} | {share:.2f} | {against:.1f} |")
    return lines


def page_seconds(side: Side, browser, pictures: dict[str, bytes], *, isolated: bool) -> float:
    """Return the median of the seconds that the page's network takes for a picture."""
    with served(side.page, isolated=isolated) as address, window(browser) as page:
        open_page(page, address)
        answers = [asked(page, name, data) for name, data in pictures.items()]
    return statistics.median(answer.milliseconds["judging"] for answer in answers) / 1000


def session_seconds(side: Side, pictures: dict[str, bytes]) -> float:
    """Return the median of the seconds that onnxruntime in Python takes for a picture, with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(side.model, options, providers=["CPUExecutionProvider"])
    seconds = []
    for data in pictures.values():
        pixels = side.classifier.recipe.pixels(data)[None]
        began = time.perf_counter()
        session.run(None, {"pixels": pixels})
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def preparing_table(side: Side, browser, rounds: int) -> list[str]:
    """Return the table of milliseconds from a file to what the network sees."""
    lines = ["| from file to pixels, ms, median (quickest) | page | Python |", "|---|---|---|"]
    for size in (SMALL, MEGAPIXEL, CAMERA):
        (data,) = drawn(size).values()
        with served(side.page) as address, window(browser) as page:
            open_page(page, address)
            ours = [asked(page, "photo.jpg", data).milliseconds["preparing"] for _ in range(3 + 5 * rounds)][3:]
        python = []
        for _ in range(5 * rounds):
            began = time.perf_counter()
            side.classifier.recipe.pixels(data)
            python.append(1000 * (time.perf_counter() - began))
        cells = [f"{statistics.median(each):.1f} ({min(each):.1f})" for each in (ours, python)]
        lines.append(f"| JPEG of {size[0]}×{size[1]} | {' | '.join(cells)} |")
    return lines


def visits_table(sides: Sequence[Side], browser) -> list[str]:
    """Return the table of seconds from opening the page to the first answer, when the browser has it in store."""
    lines = ["| from opening to the first answer, s | median | quickest | slowest |", "|---|---|---|---|"]
    (data,) = drawn(SMALL).values()
    for side in sides:
        seconds = []
        with served(side.page) as address, context(browser) as visitor:
            for _ in range(1 + VISITS):
                page = visitor.new_page()
                began = time.perf_counter()
                open_page(page, address)
                asked(page, "photo.jpg", data)
                seconds.append(time.perf_counter() - began)
                page.close()
        first, *later = seconds
        cells = f"{statistics.median(later):.2f} | {min(later):.2f} | {max(later):.2f}"
        lines.append(f"| {side.name} (first visit, from this machine: {first:.2f}) | {cells} |")
    return lines


@contextmanager
def context(browser) -> Iterator:
    """Yield a visitor with a store of their own."""
    made = browser.new_context()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def window(browser) -> Iterator:
    """Yield a window of a new visitor."""
    with context(browser) as visitor:
        yield visitor.new_page()


# ---------------------------------------------------------------------------------------------------------------
# Sizes and answers
# ---------------------------------------------------------------------------------------------------------------


def sizes_table(sides: Sequence[Side]) -> list[str]:
    """Return the table of what a visitor's browser loads."""
    rows = [(f"model.onnx of {side.name}", [side.model]) for side in sides]
    for when, words in (("always", "by each page"), ("webgpu", "with a graphics card"), ("heic", "for a HEIC photo")):
        paths = [sides[0].page / name for name, pinned in RUNTIME.items() if pinned.when == when]
        rows.append((f"what it runs on, loaded {words}", paths))
    lines = ["| MB | as it is | gzipped |", "|---|---|---|"]
    for name, paths in rows:
        contents = [path.read_bytes() for path in paths]
        packed = sum(len(gzip.compress(content, 6)) for content in contents)
        lines.append(f"| {name} | {sum(map(len, contents)) / 1e6:.1f} | {packed / 1e6:.1f} |")
    return lines


def answers_table(sides: Sequence[Side], browser, photos: Sequence[Path]) -> list[str]:
    """Return the table of the largest differences of a probability between the page and `load_classifier`."""
    pictures = {f"drawn {name}": data for name, data in awkward_pictures().items()}
    pictures |= {f"photo {n} {path.name}": path.read_bytes() for n, path in enumerate(photos)}
    lines = ["| the same file | largest difference | judged | refused by both | by one only |", "|---|---|---|---|---|"]
    for side in sides:
        found: dict[str, list] = {}
        with served(side.page) as address, window(browser) as page:
            open_page(page, address)
            for (name, data), ours in zip(pictures.items(), side.classifier.predict(pictures.values()), strict=True):
                theirs = asked(page, name, data)
                kind = name.split()[0] + (" with a profile" if has_profile(data) else "")
                if theirs.error or ours.error:
                    found.setdefault(kind, []).append("both" if theirs.error and ours.error else "one")
                else:
                    pairs = zip(theirs.probabilities, ours.probabilities.values(), strict=True)
                    found.setdefault(kind, []).append(max(abs(a - b) for a, b in pairs))
        for kind, outcomes in found.items():
            values = [each for each in outcomes if not isinstance(each, str)]
            cells = f"{max(values, default=0):.1e} | {len(values)} | {outcomes.count('both')} | {outcomes.count('one')}"
            lines.append(f"| {side.name}: {kind} | {cells} |")
    return lines


# ---------------------------------------------------------------------------------------------------------------
# Gradio's app beside the page
# ---------------------------------------------------------------------------------------------------------------


def gradio_table(sides: Sequence[Side], browser, python: str, photos: Sequence[Path]) -> list[str]:
    """Return the table of seconds from a photo given to its label shown, and of the bytes that were sent."""
    lines = [
        "| photo given to label shown, s, median | page | Gradio | times as quick | MB sent: page | Gradio |",
        "|---|---|---|---|---|---|",
    ]
    small = {path.name: path.read_bytes() for path in photos[:: max(1, len(photos) // FEW)][:FEW]} or drawn(SMALL, FEW)
    sets = {f"{len(small)} small photos": small, f"{FEW_LARGE} of 12 megapixels": drawn(CAMERA, FEW_LARGE)}
    for side in sides:
        with served(side.page) as address, gradio(python, side.model) as other, window(browser) as page:
            theirs = page.context.new_page()
            open_page(page, address)
            theirs.goto(other)
            line = theirs.context.new_cdp_session(theirs)
            for words, files in [*sets.items(), *((f"{words}, 10 Mbit/s", files) for words, files in sets.items())]:
                if words.endswith("Mbit/s"):
                    line.send("Network.emulateNetworkConditions", LINE)
                pairs, sent = beside(page, theirs, files)
                ours, their = (statistics.median(column) for column in zip(*pairs, strict=True))
                cells = f"{ours:.2f} | {their:.2f} | {their / ours:.1f} | {sent[0] / 1e6:.1f} | {sent[1] / 1e6:.1f}"
                lines.append(f"| {side.name}: {words} | {cells} |")
    return lines


def beside(page, theirs, files: dict[str, bytes]) -> tuple[list[tuple[float, float]], list[int]]:
    """Give each photo to the page and to Gradio's app in turn; return the seconds of both, and the bytes both sent."""
    posted: tuple[list, list] = ([], [])
    counting = [lambda request, to=requests: to.append(request) for requests in posted]
    for each, handler in zip((page, theirs), counting, strict=True):
        each.on("request", handler)
    pairs = []
    for name, data in files.items():
        photo = {"name": name, "mimeType": "image/jpeg", "buffer": data}
        before = page.locator("#cards > li").count()
        began = time.perf_counter()
        page.set_input_files("#photos", photo)
        page.locator("#cards > li .label").nth(before).wait_for(state="attached")
        ours = time.perf_counter() - began
        began = time.perf_counter()
        theirs.set_input_files("input[type=file]", photo)
        theirs.wait_for_selector("[data-testid=label-output-value]")
        pairs.append((ours, time.perf_counter() - began))
        theirs.get_by_role("button", name="Clear").last.click()
        theirs.wait_for_selector("[data-testid=label-output-value]", state="detached")
        theirs.wait_for_selector("input[type=file]", state="attached")
    for each, handler in zip((page, theirs), counting, strict=True):
        each.remove_listener("request", handler)
    sent = [sum(int(each.all_headers().get("content-length", 0)) for each in requests) for requests in posted]
    return pairs[1:], sent  # the first photo also warms both up


@contextmanager
def gradio(python: str, model: Path) -> Iterator[str]:
    """Serve a model by Gradio; yield the address."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        script = Path(folder) / "app.py"
        script.write_text(APP, encoding="utf-8")
        environment = os.environ | {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}
        process = subprocess.Popen([python, str(script), str(model), str(port), str(REPOSITORY)], env=environment)
        try:
            address = f"http://127.0.0.1:{port}/"
            for _ in range(600):
                if process.poll() is not None:
                    sys.exit(f"{python} could not start Gradio's app: see above.")
                with suppress(OSError), urllib.request.urlopen(address):
                    break
                time.sleep(0.1)
            yield address
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of photos")
    parser.add_argument("--model", type=Path, action="append", default=[], help="another model.onnx; may be repeated")
    parser.add_argument("--gradio-python", help="a Python with gradio 6, onnxruntime and Pillow")
    parser.add_argument("--rounds", type=int, default=5)
    main(parser.parse_args())
