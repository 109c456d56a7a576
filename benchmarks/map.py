"""
How long the cleaner's map takes, how well it keeps look-alikes together, and how smoothly it moves.

    python benchmarks/map.py [--count 10000] [--points 50000] [--peer PYTHON]

Features are drawn by chance, as wide as the packaged network's: each of 20 labels has 5 kinds, and the pictures of a
kind differ in 30 directions. The first table gives the time until all pictures have a place, the first time and again
from map.npz, each in a process of its own; and how many of the ten pictures most alike by their features are among the
ten nearest on the map. umap-learn's defaults get the same features. It is left out unless `--peer` names a Python that
has it:

    python -m venv PEER && PEER/bin/pip install -r benchmarks/peers/umap.txt

The second table is of the widget's own script in Chromium, headless and without a graphics card, at 1366×768. For five
seconds each, the pointer drags the whole map, moves over it without dragging, and drags it when it is enlarged ten
times. The pointer moves once per frame. Chromium shows at most 60 frames per second.
"""

import argparse
import base64
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]

LABELS, KINDS, DIRECTIONS, WIDTH = 20, 5, 30, 1280
NEAREST, SAMPLED = 10, 1000  # pictures beside each; pictures of which we ask
SECONDS = 5
PAGE = """async ([script, style, buffers, labels]) => {
    document.head.append(Object.assign(document.createElement('style'), {textContent: style}));
    const {default: widget} = await import(URL.createObjectURL(new Blob([script], {type: 'text/javascript'})));
    const views = buffers.map(text => new DataView(Uint8Array.from(atob(text), each => each.charCodeAt()).buffer));
    const hear = {};
    const answer = () => hear['msg:custom']({tell: 'map', labels, note: ''}, views);
    const send = ({ask}) => ask === 'hello' && setTimeout(answer);
    const model = {on: (event, call) => { hear[event] = call; }, off() {}, send};
    widget.render({model, el: document.body});
}"""
MOVE = """([seconds, pressed, zooms]) => new Promise(resolve => {
    const canvas = document.querySelector('canvas');
    const {left, top, width, height} = canvas.getBoundingClientRect();
    const send = (type, x, y) =>
        canvas.dispatchEvent(new PointerEvent(type, {pointerId: 1, clientX: left + x, clientY: top + y}));
    canvas.setPointerCapture = () => {}; // no pointer of this number is down
    for (let n = 0; n < zooms; n++) canvas.dispatchEvent(new KeyboardEvent('keydown', {key: '+'}));
    if (pressed) send('pointerdown', width / 2, height / 2);
    const began = performance.now();
    const frames = [];
    const step = now => {
        frames.push(now);
        const turn = (performance.now() - began) / 500;
        send('pointermove', width / 2 + 150 * Math.sin(turn), height / 2 + 100 * Math.cos(turn));
        if (performance.now() - began < 1000 * seconds) return requestAnimationFrame(step);
        send('pointerup', 0, 0);
        resolve(frames);
    };
    requestAnimationFrame(step);
})"""


def main(options: argparse.Namespace) -> None:
    """Measure places, then frames; print the two tables."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "features.npy", drawn_features(options.count))
        found = {name: placed(sys.executable, "ours", folder) for name in ("first", "again")}
        found |= {"umap": placed(options.peer, "umap", folder)} if options.peer else {}
    heads = {"first": "ours, the first time", "again": "ours, from map.npz", "umap": "umap-learn"}
    print(f"| {options.count:,} pictures | {' | '.join(heads[name] for name in found)} |")
    print("|---" * (1 + len(found)) + "|")
    for told, key, form in (
        ("seconds, with imports", "whole", "{:.1f}"),
        ("seconds without them", "seconds", "{:.2f}"),
        ("peak memory, GB", "memory", "{:.2f}"),
        (f"of the {NEAREST} most alike among the {NEAREST} nearest, %", "kept", "{:.0f}"),
    ):
        print(f"| {told} | {' | '.join(form.format(each[key]) for each in found.values())} |")
    print("\n".join(["", f"| {options.points:,} points | frames per second | longest frame, ms |", "|---|---|---|"]))
    for told, times in frames(options.points):
        between = np.diff(times)
        print(f"| {told} | {1000 / between.mean():.0f} | {between.max():.0f} |")


def drawn_features(count: int) -> np.ndarray:
    """Return features (count, WIDTH) of pictures of several labels, each of several kinds; label by label in turn."""
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(LABELS, WIDTH))
    kinds = labels[:, None] + rng.normal(size=(LABELS, KINDS, WIDTH)) * 0.7
    directions = rng.normal(size=(LABELS, DIRECTIONS, WIDTH)) / np.sqrt(DIRECTIONS)
    label, kind = np.arange(count) % LABELS, rng.integers(0, KINDS, count)
    own = np.einsum("nd,ndw->nw", rng.normal(size=(count, DIRECTIONS)), directions[label], optimize=True)
    return (kinds[label, kind] + own + rng.normal(size=(count, WIDTH)) * 0.3).astype(np.float32)


def placed(python: str, side: str, folder: Path) -> dict:
    """Have one side arrange the pictures in a process of its own; return what it took, and what it kept, in percent."""
    from _process import measured  # not at the top: the peer's environment has no psutil

    run = measured([python, __file__, "--task", side, str(folder)])
    return json.loads(run.output.splitlines()[-1]) | {"whole": run.seconds, "memory": run.memory / 1e9}


def arrange(side: str, folder: Path) -> dict:
    """Arrange the pictures with ours or with umap-learn; return the seconds and the share that was kept."""
    features = np.load(folder / "features.npy")
    if side == "ours":
        sys.path.insert(0, str(REPOSITORY))
        from utils.clean.layout import kept_layout

        began = time.perf_counter()
        places = kept_layout(folder, [f"{n:016x}" for n in range(len(features))], features)
    else:
        import umap

        began = time.perf_counter()
        places = umap.UMAP().fit_transform(features)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "kept": 100 * kept(features, places)}


def kept(features: np.ndarray, places: np.ndarray) -> float:
    """Return the share of the pictures most alike that are among the nearest on the map, over a sample of pictures."""
    sample = np.arange(0, len(features), -(-len(features) // SAMPLED))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    alike = -(unit[sample] @ unit.T)
    apart = ((places[sample, None] - places) ** 2).sum(2)
    nearest = []
    for far in (alike, apart):
        far[np.arange(len(sample)), sample] = np.inf
        nearest.append(np.argpartition(far, NEAREST, axis=1)[:, :NEAREST])
    return float(np.mean([len(set(a) & set(b)) / NEAREST for a, b in zip(*nearest, strict=True)]))


def frames(count: int):
    """Yield what the pointer does, and the times of the frames in milliseconds, for a map of `count` points."""
    from playwright.sync_api import sync_playwright

    sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]
    from browser.conftest import FLAGS, browser_program

    message, buffers, script, style = widget_of(count)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_program(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.evaluate(PAGE, [script, style, [base64.b64encode(each).decode() for each in buffers], message["labels"]])
        page.get_by_role("button", name="label 00").wait_for()
        for told, pressed, zooms in (
            ("dragging the whole map", True, 0),
            ("moving the pointer over it", False, 0),
            ("dragging, ten times enlarged", True, 6),
        ):
            yield told, page.evaluate(MOVE, [SECONDS, pressed, zooms])
        browser.close()


def widget_of(count: int) -> tuple:
    """Return what the kernel tells a view of a map of `count` pictures that were never drawn, its script and style."""
    from utils.clean import Cleaning, Grid
    from utils.clean.picture_map import PictureMap
    from utils.dataset import Picture
    from utils.widgets import front_end

    rng, labels = np.random.default_rng(0), [f"label {n:02}" for n in range(LABELS)]
    codes = np.arange(count) % LABELS
    names = [Path(f"{n:016x}.jpg") for n in range(count)]
    pictures = [Picture(path.stem, path, labels[k], "", None) for path, k in zip(names, codes, strict=True)]
    grid = Grid(Cleaning(pictures, labels), labels=labels, height=96, width=128, max_n=12)
    places = (rng.uniform(size=(LABELS, 2))[codes] * 0.8 + 0.1 + rng.normal(size=(count, 2)) * 0.04).clip(0, 1)
    shown = PictureMap(grid, places)
    parts = REPOSITORY / "utils" / "clean"
    script = front_end(parts / "picture_map.js")
    return *shown.answer({"ask": "hello"}), script, (parts / "picture_map.css").read_text(encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="pictures that are arranged")
    parser.add_argument("--points", type=int, default=50_000, help="points that are moved")
    parser.add_argument("--peer", metavar="PYTHON", help="of an environment with benchmarks/peers/umap.txt")
    parser.add_argument("--task", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        print(json.dumps(arrange(given.task[0], Path(given.task[1]))))
    else:
        main(given)
