"""
Which planted junk and wrong labels 02 shows before any training, and how many other pictures with them.

    python benchmarks/oddities.py FOLDER --junk FOLDER [--junk FOLDER] [--seeds 5]

FOLDER holds <label>/<photos>. Into each label come photos of the junk folders, of all or of the first alone, and the
labels of some of its own are made wrong. Ours is what 02 shows. The others rank by one plain score, and each shows as
many pictures as ours did in the same draw: the distance to the mean of the label, scikit-learn's isolation forest
fitted to each label, a shrunk Mahalanobis distance, and the bare cosine to the ten nearest of the label. "Others
shown": of 100 pictures that nobody planted. Photos from the web hold real junk and odd views, so not all are false.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.seeing import seen_by_network
from utils.verify.oddities import odd_positions, relative_likeness

GOOD, WRONG, JUNK = range(3)
PLANTED = ((0.0, 0.0), (0.05, 0.05), (0.1, 0.1), (0.25, 0.05))  # of each label: junk, wrong labels
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif"}


class Draw(NamedTuple):
    """One data set with planted pictures."""

    features: np.ndarray  # (N, F)
    codes: np.ndarray  # (N,) the labels of the folders
    truth: np.ndarray  # (N,) GOOD, WRONG or JUNK


def main(arguments: argparse.Namespace) -> None:
    """Print one table per part planted."""
    photos, names = seen(arguments.folder)
    vocab, codes = np.unique(names, return_inverse=True)
    junk = [seen(folder)[0] for folder in arguments.junk]
    print(f"{len(photos)} photos, {len(vocab)} labels, {sum(map(len, junk))} junk photos; {arguments.seeds} seeds")
    for kinds, told in ((range(len(junk)), "all kinds of junk"), ([0], "one kind")):
        for of_junk, of_wrong in PLANTED:
            pool = np.concatenate([junk[n] for n in kinds])
            draws = [plant(photos, codes, pool, of_junk, of_wrong, seed) for seed in range(arguments.seeds)]
            print(f"\n{100 * of_junk:.0f} % junk, {told}, {100 * of_wrong:.0f} % wrong labels\n")
            print("| | junk shown | wrong labels shown | others shown, per 100 |\n|---|---|---|---|")
            for row in rows_of(draws):
                print(row)


def seen(folder: Path) -> tuple[np.ndarray, list[str]]:
    """Return the features of the readable photos of a folder, and the folder each lies in."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise SystemExit(f"{folder} holds no photos. Name a folder of photos.")
    features = np.concatenate(list(seen_by_network(paths)))
    readable = ~np.isnan(features).any(1)
    return features[readable], [path.parent.name for path, there in zip(paths, readable, strict=True) if there]


def plant(photos: np.ndarray, codes: np.ndarray, pool: np.ndarray, of_junk: float, of_wrong: float, seed: int) -> Draw:
    """Return the photos with some labels made wrong, and junk from the pool added to each label."""
    rng, k = np.random.default_rng(seed), codes.max() + 1
    given, truth = codes.copy(), np.full(len(codes), GOOD)
    added: list[int] = []
    for label in range(k):
        own = np.flatnonzero(codes == label)
        moved = rng.choice(own, round(of_wrong * len(own)), replace=False)
        given[moved] = (label + rng.integers(1, k, len(moved))) % k
        truth[moved] = WRONG
        added += [label] * round(of_junk * len(own))
    chosen = pool[rng.choice(len(pool), len(added), replace=False)]
    truth = np.concatenate([truth, np.full(len(added), JUNK)])
    return Draw(np.concatenate([photos, chosen]), np.concatenate([given, added]).astype(int), truth)


def rows_of(draws: Sequence[Draw]) -> list[str]:
    """Return a line per way: the shares of what was planted, and of the others, over all draws."""
    ours = [[n for n, _ in odd_positions(relative_likeness(draw.features, draw.codes), draw.codes)] for draw in draws]
    lines = [line("ours", draws, ours)]
    for name, score in (
        ("distance to the label's mean", distance_to_mean),
        ("isolation forest per label", isolation),
        ("Mahalanobis, shrunk", mahalanobis),
        ("own likeness, nearest 10", nearest_ten),
    ):
        lines.append(line(name, draws, [first(score, draw, len(odd)) for draw, odd in zip(draws, ours, strict=True)]))
    return lines


def first(score: Callable[[Draw], np.ndarray], draw: Draw, count: int) -> np.ndarray:
    """Return the positions of the pictures with the largest scores."""
    return np.argsort(-score(draw), kind="stable")[:count]


def line(name: str, draws: Sequence[Draw], chosen: Sequence[Sequence[int]]) -> str:
    """Return one row of the table."""
    shares = {GOOD: [], WRONG: [], JUNK: []}
    for draw, positions in zip(draws, chosen, strict=True):
        shown = np.zeros(len(draw.codes), dtype=bool)
        shown[positions] = True
        for kind, found in shares.items():
            found += shown[draw.truth == kind].tolist()
    junk, wrong = (f"{100 * mean(shares[kind]):.0f} %" if shares[kind] else "–" for kind in (JUNK, WRONG))
    return f"| {name} | {junk} | {wrong} | {100 * mean(shares[GOOD]):.1f} |"


# --- plain scores: the larger, the odder ---


def distance_to_mean(draw: Draw) -> np.ndarray:
    """Return how far each picture lies from the mean of its label."""
    centres = np.stack([draw.features[draw.codes == k].mean(0) for k in range(draw.codes.max() + 1)])
    return np.linalg.norm(draw.features - centres[draw.codes], axis=1)


def isolation(draw: Draw) -> np.ndarray:
    """Return the isolation forest's score, fitted to each label alone."""
    scores = np.empty(len(draw.codes))
    for k in range(draw.codes.max() + 1):
        own = draw.features[draw.codes == k]
        scores[draw.codes == k] = -IsolationForest(random_state=0).fit(own).score_samples(own)
    return scores


def mahalanobis(draw: Draw) -> np.ndarray:
    """Return the distance to the label's median in 100 directions, by the covariance as Ledoit and Wolf shrink it."""
    spread = PCA(100, svd_solver="randomized", random_state=0).fit_transform(draw.features.astype(np.float64))
    centres = np.stack([np.median(spread[draw.codes == k], axis=0) for k in range(draw.codes.max() + 1)])
    return LedoitWolf(assume_centered=True).fit(spread - centres[draw.codes]).mahalanobis(spread - centres[draw.codes])


def nearest_ten(draw: Draw) -> np.ndarray:
    """Return how unlike the ten nearest pictures of the label a picture is, by the cosine of the bare features."""
    unit = draw.features / np.linalg.norm(draw.features, axis=1, keepdims=True)
    cosines = np.where(draw.codes[:, None] == draw.codes, unit @ unit.T, -1.0)
    np.fill_diagonal(cosines, -1.0)
    return -np.sort(cosines, axis=1)[:, -10:].mean(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Planted junk and wrong labels that 02 shows.")
    parser.add_argument("folder", type=Path, help="holds <label>/<photos>")
    parser.add_argument("--junk", type=Path, action="append", required=True, help="a folder of photos of other things")
    parser.add_argument("--seeds", type=int, default=5)
    main(parser.parse_args())
