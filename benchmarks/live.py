"""
How many pictures must be looked at to find the wrong labels: in 06's order as it stood at first, in the order that
follows each decision, and in cleanlab's? And is the number of wrong labels that the page calls left true? In one run.

    python benchmarks/live.py FOLDER... [--share 0.1] [--seeds 5] [--page 12] [--peer PYTHON]

A FOLDER holds <label>/<photos>. The sets: each folder, and all together. A share of the labels, chosen by the seed, is
made wrong. A person then looks at one page after the other and puts each wrong label right: how many pictures until
nine tenths of the wrong ones are found? Each order judges by the packaged network's features alone:

- fixed: what 06's judges say, ranked by `rank_suspects`, once.
- live: `LiveOrder`, after each page, and after each picture.
- cleanlab: its default score of what 06's judges say, once. Left out unless `--peer` names a Python that has it.

After every 20 pictures, as far as half of all, we ask whether "about n left (a–b)" holds the truth. Ratios are to the
fixed order, of the same seed; intervals by bootstrap over the pairs of set and seed. A second table gives the seconds
from a decision to the page in its new order, with labels and features drawn by chance, and the memory that 2,000
decisions take.
"""

import argparse
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
from _cleanlab import LEFT_OUT, cleanlab_says
from ranking import described, judged, sets_of, spoiled

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.clean import Cleaning, Grid, rank_suspects
from utils.clean.live import LiveOrder
from utils.dataset import Picture
from utils.project import FEATURES

FOUND = 0.9  # of the wrong labels
EVERY = 20  # pictures, between two questions how many are left
SIZES = (2000, 10000)
DECISIONS = 2000  # whose memory is measured


def needed(wrong: np.ndarray) -> int:
    """Return how many pictures come until 90 % of the wrong ones are found; `wrong` (N,) in the order of looking."""
    return int(np.flatnonzero(np.cumsum(wrong) >= np.ceil(FOUND * wrong.sum()))[0]) + 1


def looked_through(
    features: np.ndarray, given: np.ndarray, true: np.ndarray, page: int
) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """
    Return the order (at most N,) in which a person sees pictures, as far as half of all and the last wrong one; and
    decisions, truly left, low and high, every so often.
    """
    order, codes, decided = LiveOrder(features, given), given.copy(), np.zeros(len(given), dtype=bool)
    seen, said = [], []
    while len(seen) < len(given) / 2 or (~decided & (given != true)).any():
        order.learn(codes.copy(), decided.copy(), now=True)
        if order.left and len(seen) // EVERY > (len(seen) - page) // EVERY and len(seen) <= len(given) / 2:
            left = int(((given != true) & ~decided).sum())
            said.append((len(seen), left, order.left.low, order.left.high))
        shown = order.arranged(np.flatnonzero(~decided))[:page]
        codes[shown], decided[shown] = true[shown], True
        seen += shown
    return np.array(seen), said


def main(options: argparse.Namespace) -> None:
    """Measure all sets, then the time; print the tables."""
    paths = [path for folder in options.folders for path in sorted(folder.glob("*/*"))]
    paths, descriptions = described(paths, None, only_packaged=True)
    sets = {name: places for name, places in sets_of(paths).items() if name not in ("few", "uneven")}
    cases = [(name, seed) for name in sets for seed in range(options.seeds)]
    work = []
    for name, seed in cases:
        labels = [f"{paths[n].parent.parent.name}/{paths[n].parent.name}" for n in sets[name]]
        true = np.unique(labels, return_inverse=True)[1]
        given = spoiled(true, options.share, options.way, seed)
        features = descriptions["lite0"][sets[name]]
        work.append((features, given, true, judged((features, given, seed, True))[1]))
        print(f"{name}, seed {seed}: judged", file=sys.stderr)
    theirs = cleanlab_says(options.peer, [(given, probs) for _, given, _, probs in work]) if options.peer else []
    if not options.peer:
        print(f"{LEFT_OUT}\n")
    looks, said = [], []
    for n, (features, given, true, probs) in enumerate(work):
        orders = [rank_suspects(given, probs)]
        for page in (options.page, 1):
            order, told = looked_through(features, given, true, page)
            orders.append(order)
        said.append(told)  # of the last: after each picture
        orders += [np.argsort(theirs[n][0], kind="stable")] if theirs else []
        looks.append([needed((given != true)[order]) for order in orders])
    sides = ["fixed", f"live, pages of {options.page}", "live, each picture", *(["cleanlab"] if theirs else [])]
    print("\n".join(table(cases, np.array(looks), sides, said, options)))
    print("\n".join(times()))


def table(cases: list, looks: np.ndarray, sides: list[str], said: list, options: argparse.Namespace) -> list[str]:
    """Return the lines of the first table: pictures looked at per side, ratios to the first, and what was held."""
    heads = [*sides, *(f"{side} / fixed" for side in sides[1:]), "“about n left” held"]
    lines = [f"| {options.share:.0%} wrong ({options.way}), {options.seeds} seeds | {' | '.join(heads)} |"]
    lines.append("|---" * (1 + len(heads)) + "|")
    names = list(dict.fromkeys(name for name, _ in cases))
    single = [name for name in names if name != "all"]
    for told, members in [*((name, [name]) for name in names), ("each folder", single)]:
        rows = [n for n, (name, _) in enumerate(cases) if name in members]
        ratios = looks[rows] / looks[rows, :1]
        held = [low <= left <= high for n in rows for _, left, low, high in said[n]]
        cells = [f"{column.mean():.1f}" for column in looks[rows].T]
        cells += [spread(column) for column in ratios.T[1:]]
        cells.append(f"{100 * np.mean(held):.0f} % of {len(held)}")
        lines.append(f"| {told} | {' | '.join(cells)} |")
    return lines


def spread(ratios: np.ndarray) -> str:
    """Return the mean of ratios with its 95 % interval, by bootstrap."""
    drawn = np.random.default_rng(0).choice(ratios, (5000, len(ratios))).mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{ratios.mean():.2f} ({low:.2f} to {high:.2f})"


def times() -> list[str]:
    """Return the lines of the second table."""
    lines = [
        "",
        "| pictures, labels | a decision and the next page, s: median | slowest | memory of 2,000 decisions, MB |",
    ]
    lines.append("|---|---|---|---|")
    for n, k in ((SIZES[0], 4), (SIZES[1], 4), (SIZES[1], 1000)):
        rng = np.random.default_rng(0)
        codes = rng.integers(0, k, n)
        features = rng.normal(size=(k, FEATURES))[codes] + 3 * rng.normal(size=(n, FEATURES))
        names = [f"label{code}" for code in range(k)]
        pictures = [Picture(f"p{m}", Path(f"p{m}.jpg"), names[code], f"p{m}", "train") for m, code in enumerate(codes)]
        cleaning = Cleaning(pictures, names, features=features.astype(np.float32))
        grid = Grid(cleaning, labels=names, height=64, width=64, max_n=12)
        view = {"list": "", "label": "", "side": "", "show": "", "sort": "Worst first"}
        seconds = []
        for page in range(30):
            shown, _ = grid.answer({"ask": "page", "page": page, **view})
            start = time.perf_counter()
            grid.answer({"ask": "flag", "keys": [shown["cards"][0]["key"]], "choice": "Keep"})
            grid.answer({"ask": "page", "page": page + 1, **view})
            seconds.append(time.perf_counter() - start)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for m in range(DECISIONS if n == SIZES[0] else 0):
            grid.answer({"ask": "flag", "keys": [f"p{m}"], "choice": "Keep"})
        grown = (tracemalloc.get_traced_memory()[0] - before) / 2**20
        tracemalloc.stop()
        memory = f"{grown:.1f}" if n == SIZES[0] else "–"
        lines.append(f"| {n:,}, {k:,} | {np.median(seconds):.3f} | {max(seconds):.3f} | {memory} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--share", type=float, default=0.1, help="of the labels that are wrong")
    parser.add_argument("--way", choices=("any", "pairs"), default="any", help="any other label, or always the same")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--page", type=int, default=12, help="pictures on a page")
    parser.add_argument("--peer", metavar="PYTHON", help="of an environment with benchmarks/peers/cleanlab.txt")
    chosen = parser.parse_args()
    if chosen.folders:
        main(chosen)
    else:
        print("Left out: name folders of photos to measure this.")
