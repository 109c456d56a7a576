"""
Near-duplicates among a million hashes, as utils.scale copies finds them: seconds, memory, and what is found.

    python benchmarks/hashes.py [--counts 250000 500000 1000000] [--groupby 100000 200000] [--pairs 200]

Draws perceptual hashes. One in ten is a copy of the one before it, but for up to 10 bits. One in ten more has the hash
of one blank frame, and one in fifty that of a camera's frame but for up to 6 bits: most pairs of these are near. The
search is handed out to Ray's workers on this machine, each size in a process of its own. Seconds are those from the
hashes to the pairs that would be compared; Ray's start stands beside. Found: of the planted copies, those that are
paired with their own. Ten million is the parabola through the sizes, not measured.

The peer is Ray Data's groupby: a hash has a key for each two of its 12 bands, and near ones share one (pigeonhole);
hashes with one key are compared with each other. It must find as many pairs, so it gets the planted copies alone.

In the end drawn pictures are compared by pixels, each pair new, as a worker does on one processor.
"""

import argparse
import json
import resource
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import psutil
from _process import measured

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.copies.hashes import NEAR, hash_neighbours
from utils.copies.neighbours import NEIGHBOURS

FEWEST_COPIED, BLANK, FRAMES = 10, 10, 50  # one in so many is a copy, the blank frame, a frame of the camera
BANDS, SHARED = 12, 2  # of the peer: bands, and those that near hashes share at least
LARGE = 10_000_000


def main(options: argparse.Namespace) -> None:
    """Measure, and print the tables."""
    print("| hashes | Ray's start, s | search, s | pairs to compare | planted found | driver, GB | a worker, GB |")
    print("|---|---|---|---|---|---|---|")
    seconds, pairs = [], []
    for count in options.counts:
        found = json.loads(measured([sys.executable, __file__, "--task", "search", str(count)]).output)
        seconds.append(found["seconds"])
        pairs.append(found["pairs"])
        memory = f"{found['driver']:.2f} | {found['worker']:.2f}"
        share = f"{found['found']:,} of {found['planted']:,}"
        print(
            f"| {count:,} | {found['start']:.0f} | {seconds[-1]:.0f} | {pairs[-1]:,} | {share} | {memory} |", flush=True
        )
    if len(options.counts) >= 3:
        large = np.polyval(np.polyfit(options.counts, seconds, 2), LARGE)
        more = round(np.polyval(np.polyfit(options.counts, pairs, 1), LARGE), -5)
        print(f"| {LARGE:,}, extrapolated | | {large:,.0f} | {more:,.0f} | | | |")
    print("\n| hashes | groupby, s | utils.scale, s | ratio |\n|---|---|---|---|")
    for count in options.groupby:
        runs = [
            json.loads(measured([sys.executable, __file__, "--task", task, str(count), "--plain"]).output)
            for task in ("groupby", "search")
        ]
        theirs, ours = (run["seconds"] for run in runs)
        if runs[0]["same"] != runs[1]["same"]:
            sys.exit(f"groupby found other pairs than the search: {runs}. Nothing was measured.")
        print(f"| {count:,} | {theirs:.0f} | {ours:.0f} | {theirs / ours:.1f} |", flush=True)
    print(f"\nA new pair of pictures is compared in {compared(options.pairs):.3f} s on one processor.")


def drawn(count: int, *, plain: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return N hashes, uint64 (N,), and the positions of the planted copies; each is one of the hash before it."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**64, count, dtype=np.uint64)
    copies = np.arange(1, count, FEWEST_COPIED)
    codes[copies] = codes[copies - 1] ^ flips(rng, len(copies), NEAR)
    if not plain:
        blank, frames = np.arange(2, count, BLANK), np.arange(3, count, FRAMES)
        codes[blank] = codes[2]
        codes[frames] = codes[3] ^ flips(rng, len(frames), 6)
    return codes, copies


def flips(rng: np.random.Generator, count: int, most: int) -> np.ndarray:
    """Return random 64-bit numbers with at most `most` bits set."""
    bits = np.uint64(1) << rng.random((count, 64), dtype=np.float32).argsort(axis=1)[:, :most].astype(np.uint64)
    kept = np.arange(most) < rng.integers(0, most + 1, count)[:, None]
    return np.bitwise_or.reduce(np.where(kept, bits, np.uint64(0)), axis=1)


def search(count: int, *, plain: bool) -> dict:
    """Find pairs as utils.scale does, on a cluster of this machine."""
    from utils.scale.commands import Answering
    from utils.scale.grouping import Grouping

    codes, copies = drawn(count, plain=plain)
    options = argparse.Namespace(address=None, cores=1)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack, Watched() as watched:
        began = time.perf_counter()
        answering = Answering(options, (), stack)
        answering.connect()
        started = time.perf_counter()
        grouping = Grouping(None, Path(folder), answering.rows)
        pairs = hash_neighbours(codes, NEIGHBOURS, grouping.found)
        ended = time.perf_counter()
    keys = set((pairs[:, 0] * count + pairs[:, 1]).tolist())
    return {
        "start": started - began,
        "seconds": ended - started,
        "pairs": len(pairs),
        "planted": len(copies),
        "found": sum(int(n - 1) * count + int(n) in keys for n in copies),
        "same": int((codes[pairs[:, 0]] != codes[pairs[:, 1]]).sum()),
        "driver": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "worker": watched.most / 1e9,
    }


class Watched:
    """The most memory that a worker had of its own."""

    def __enter__(self):
        self.most, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._ended.wait(0.5):
            for process in psutil.Process().children(recursive=True):
                try:
                    if "ray::MapWorker" in " ".join(process.cmdline()):
                        self.most = max(self.most, process.memory_full_info().uss)
                except psutil.Error:
                    continue

    def __exit__(self, *error) -> None:
        self._ended.set()
        self._thread.join()


def groupby(count: int) -> dict:
    """Find pairs with Ray Data's groupby, on a cluster of this machine."""
    import pyarrow as pa
    import ray

    from utils.scale.cluster import connected

    codes = np.unique(drawn(count, plain=True)[0])
    edges = np.linspace(0, 64, BANDS + 1).astype(int).tolist()
    bands = [(1 << end) - (1 << start) for start, end in pairwise(edges)]
    masks = [np.uint64(sum(chosen)) for chosen in combinations(bands, SHARED)]

    def keyed(rows: pa.Table) -> pa.Table:
        own = rows["code"].to_numpy()
        # A prime for each two bands, so that equal bits of different bands are different keys.
        keys = [(own & mask) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(n * 1_000_003) for n, mask in enumerate(masks)]
        return pa.table({"key": np.concatenate(keys).view(np.int64), "code": np.tile(own, len(masks))})

    def compared_all(rows: pa.Table) -> pa.Table:
        own = rows["code"].to_numpy()
        first, second = np.nonzero(np.triu(np.bitwise_count(own[:, None] ^ own) <= NEAR, 1))
        return pa.table({"first": own[first], "second": own[second]})

    with connected(None):
        began = time.perf_counter()
        blocks = [pa.table({"code": codes[start : start + 20_000]}) for start in range(0, count, 20_000)]
        rows = ray.data.from_blocks(blocks).map_batches(keyed, batch_size=None, batch_format="pyarrow")
        rows = rows.groupby("key", num_partitions=64).map_groups(compared_all, batch_format="pyarrow")
        pairs = [np.empty((0, 2), dtype=np.uint64)]
        for found in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
            pairs.append(np.sort(np.stack([found["first"], found["second"]], axis=1), axis=1))
        both = np.unique(np.concatenate(pairs), axis=0)
        return {"seconds": time.perf_counter() - began, "same": len(both)}


def compared(count: int) -> float:
    """Return the seconds in which a worker compares a pair of drawn pictures with each other."""
    from PIL import Image

    from utils.scale.pairing import BETWEEN, Comparing

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        pairs = []
        for n in range(count):
            soft = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            soft = soft.resize((640, 480), Image.Resampling.BICUBIC)
            for name, quality in (("a", 95), ("b", 60)):
                soft.save(Path(folder) / f"{n}{name}.jpg", quality=quality)
            pairs.append(f"{folder}/{n}a.jpg{BETWEEN}{folder}/{n}b.jpg")
        judge = Comparing("").worker(1)
        began = time.perf_counter()
        if not all(row["same"] for row in judge(Comparing.read(pairs))):
            sys.exit("A picture is not the same as itself saved again. Nothing was measured.")
        return (time.perf_counter() - began) / count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="*", default=[250_000, 500_000, 1_000_000])
    parser.add_argument("--groupby", type=int, nargs="*", default=[100_000, 200_000])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--task", nargs=2, metavar=("NAME", "COUNT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.task:
        main(given)
    elif given.task[0] == "search":
        print(json.dumps(search(int(given.task[1]), plain=given.plain)))
    else:
        print(json.dumps(groupby(int(given.task[1]))))
