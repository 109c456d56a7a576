"""
How long and how much memory near hashes take in stage 03: found by bands of bits against comparing all with all.

    python benchmarks/split.py [--pictures 10000 200000]

Draws perceptual hashes (one in ten near an earlier one) and labels, finds the nearest of each as 03 does, joins them
and draws the sides. Then the nearest of each by as many drawn numbers as features and points have: the search is exact,
so what the numbers are changes little. For 200,000 that takes ten minutes. Both ways of finding near hashes run on the
same 100,000 and must agree. What the pixels say is measured by copies.py.
"""

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.copies.chains import joined, name_groups
from utils.copies.hashes import NEAR, hash_neighbours, near_pairs
from utils.copies.neighbours import LENGTH, NEIGHBOURS, feature_neighbours
from utils.project import FEATURES
from utils.split import assign_sides

LABELS = 10


def main(counts: list[int]) -> None:
    """Print the table."""
    print("| | |\n|---|---|")
    codes = hashes(100_000)
    ours, found = timed(lambda: {tuple(pair) for pairs in near_pairs(codes) for pair in pairs.tolist()})
    theirs, expected = timed(lambda: set(all_pairs(codes)))
    if found != expected:
        sys.exit("The two ways found different pairs; nothing was measured.")
    figures = f"{theirs:.1f} s / {ours:.1f} s / {theirs / ours:.1f}×"
    print(f"| near hashes among 100,000: all with all / by bands / ratio | {figures} |")
    for count in counts:
        seconds, groups = timed(lambda count=count: split(count))
        memory = psutil.Process().memory_info().rss / 1e9
        print(
            f"| {count:,} pictures, {groups:,} groups, from stored hashes to sides | {seconds:.1f} s, {memory:.2f} GB |"
        )
        for kind, width in (("features", FEATURES), ("points", LENGTH)):
            seconds, _ = timed(lambda count=count, width=width: feature_neighbours(drawn(count, width)))
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
            told = f"{seconds:.0f} s, {memory:.1f} GB at most"
            print(f"| {count:,} pictures, the nearest by {width:,} numbers ({kind}) | {told} |", flush=True)


def drawn(count: int, width: int) -> np.ndarray:
    """Return float32 numbers (N, width) around a mean, as features lie."""
    numbers = np.random.default_rng(0).standard_normal((count, width), dtype=np.float32)
    numbers += 1
    return numbers


def timed(work) -> tuple[float, object]:
    """Return the seconds that a function took, and what it returned."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def hashes(count: int, seed: int = 0) -> np.ndarray:
    """Return N hashes, uint64 (N,), of which one in ten differs from an earlier one in up to `NEAR` bits."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**64, count, dtype=np.uint64)
    for n in range(10, count, 10):
        flips = rng.choice(64, rng.integers(0, NEAR + 1), replace=False).astype(np.uint64)
        codes[n] = codes[n - 1] ^ np.bitwise_or.reduce(np.uint64(1) << flips, initial=np.uint64(0))
    return codes


def all_pairs(codes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the same pairs as `near_pairs`, found by comparing each with all that follow."""
    for n, code in enumerate(codes[:-1]):
        for other in np.flatnonzero(np.bitwise_count(codes[n + 1 :] ^ code) <= NEAR):
            yield n, n + 1 + int(other)


def split(count: int) -> int:
    """Group `count` pictures by their hashes alone and split them; return the number of groups."""
    codes = hashes(count)
    ids = [f"{n:016x}" for n in range(count)]
    groups = name_groups(ids, joined(count, [hash_neighbours(codes, NEIGHBOURS)]).tolist(), {})
    sides = assign_sides(groups, {id: f"label {n % LABELS}" for n, id in enumerate(ids)})
    if len(sides) != count:
        sys.exit(f"{count - len(sides)} pictures got no side; nothing was measured.")
    return len(set(groups.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time and memory of the searches in 03.")
    parser.add_argument("--pictures", type=int, nargs="+", default=[10_000, 200_000])
    main(parser.parse_args().pictures)
