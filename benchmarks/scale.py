"""
utils.scale on a cluster of two Ray nodes of this machine: pictures per CPU second, and what kills cost.

    python benchmarks/scale.py [--pictures 5000] [--kills 20] [--drivers 5] [--killed 1000]

Draws pictures of 320×240 and exports an untrained resnet18 at 64 pixels (its weights change no speed). The peer is the
product's own predict in a process of its own, on all cores. It is counted from its first answer on, and ours from the
first fifth of the answers on, when all workers are at work. CPU seconds are those of all processes: driver, workers and
all that Ray runs beside them. Then `--kills` runs over the first `--killed`
pictures, each with one worker and one node killed by SIGKILL at random moments, and `--drivers` runs whose driver is
killed and which are begun again. After each, rows are counted, and compared with the answers of the peer.
"""

import argparse
import csv
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from _export import write_onnx
from _process import measured

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

SIZE, ROUNDS = 64, 3  # pixels; turns of both sides
NODES, LENT = 2, 2  # nodes, and processors that each says to lend: one works, one stays free


def main(options: argparse.Namespace) -> None:
    """Measure, kill, count, and print the tables."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        drawn(folder, options.pictures)
        measured([sys.executable, __file__, "--task", "export", scratch])
        table_of(folder, "all.csv", options.pictures)
        table_of(folder, "some.csv", options.killed)
        with two_nodes() as cluster:
            ours, theirs = [], []
            for turn in range(ROUNDS):
                theirs.append(json.loads(measured([sys.executable, __file__, "--task", "peer", scratch]).output))
                ours.append(paced(cluster, folder, turn, options.pictures // 5))
                print(f"round {turn + 1}: {ours[-1]} against {theirs[-1]['rates']}", file=sys.stderr)
            print("\n".join(rates_table(ours, [each["rates"] for each in theirs])), end="\n\n")
            answers = theirs[0]["answers"]
            workers = [killed_run(cluster, folder, n, answers, options.killed) for n in range(options.kills)]
            drivers = [driver_killed(cluster, folder, n, answers, options.killed) for n in range(options.drivers)]
    print("\n".join(kills_table(workers, drivers, options.killed)))


# ---------------------------------------------------------------------------------------------------------------
# The pictures, the model, the cluster
# ---------------------------------------------------------------------------------------------------------------


def drawn(folder: Path, count: int) -> None:
    """Draw pictures into a folder."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for n in range(count):
        soft = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        soft.resize((320, 240), Image.Resampling.BICUBIC).save(photo(folder, n), quality=90)


def photo(folder: Path, n: int) -> Path:
    """Return where a picture lies."""
    return folder / "photos" / f"{n:06}.jpg"


def table_of(folder: Path, name: str, count: int) -> None:
    """Write the table of the first pictures."""
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([("id", "path"), *((n, photo(folder, n)) for n in range(count))])


def export(folder: Path) -> None:
    """Write model.onnx, as 07 does, of an untrained learner."""
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        ImageBlock,
        IndexSplitter,
        Normalize,
        RandomResizedCrop,
        imagenet_stats,
        resnet18,
        set_seed,
        vision_learner,
    )

    set_seed(0)
    paths = sorted((folder / "photos").iterdir())[:8]
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_y=lambda path: str(int(path.stem) % 2),
        splitter=IndexSplitter([0, 1]),
        item_tfms=RandomResizedCrop(SIZE, min_scale=0.35),
        batch_tfms=[Normalize.from_stats(*imagenet_stats)],
    )
    learn = vision_learner(block.dataloaders(paths, bs=2, num_workers=0), resnet18, pretrained=False)
    write_onnx(learn, folder / "model.onnx", SIZE)


@contextmanager
def two_nodes() -> Iterator:
    """Yield a cluster of two nodes; on a busy machine Ray may need several tries."""
    from ray.cluster_utils import Cluster

    for attempt in range(5):
        cluster = Cluster()
        try:
            for _ in range(NODES):
                cluster.add_node(num_cpus=LENT, include_dashboard=False)
            break
        except Exception:
            cluster.shutdown()
            if attempt == 4:
                raise
    try:
        yield cluster
    finally:
        cluster.shutdown()


def arguments(cluster, table: Path, out: Path) -> list[str]:
    """Return what the command line is given."""
    model = str(table.parent / "model.onnx")
    return ["predict", str(table), "--model", model, "--out", str(out), "--address", cluster.address]


# ---------------------------------------------------------------------------------------------------------------
# The two sides
# ---------------------------------------------------------------------------------------------------------------


def peer(folder: Path) -> dict:
    """Return the answers of the product's own predict, and its rates from the first answer on."""
    from utils.inference import load_classifier

    stream = load_classifier(folder / "model.onnx").stream(sorted((folder / "photos").iterdir()))
    answers = [next(stream)]
    began, busy = time.perf_counter(), time.process_time()
    answers += stream
    rest = len(answers) - 1
    rates = [rest / (time.perf_counter() - began), rest / (time.process_time() - busy)]
    return {"rates": rates, "answers": [[each.label, each.probability] for each in answers]}


def paced(cluster, folder: Path, turn: int, warm: int) -> list[float]:
    """Return pictures per second, and per CPU second of all processes, from so many answers on."""
    seen: list[tuple[float, float, int]] = []  # when, CPU seconds until then, rows until then

    def note(rows: int) -> None:
        if rows >= warm and (not seen or time.perf_counter() - seen[-1][0] > 1):
            seen.append((time.perf_counter(), cpu_seconds(), rows))

    run_hearing(arguments(cluster, folder / "all.csv", folder / f"out {turn}"), note)
    (began, busy, first), (ended, busier, last) = seen[0], seen[-1]
    return [(last - first) / (ended - began), (last - first) / (busier - busy)]


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of all that it started."""
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            times = process.cpu_times()
            total += times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return total


def run_hearing(given: list[str], hear: Callable[[int], None]) -> None:
    """Run the command line here; `hear` is told how many rows there are, each time that some came."""
    from utils.scale import commands, scale_out

    rows, told = 0, commands.Pace.told

    def told_too(self, bar, new: int) -> None:
        nonlocal rows
        rows += new
        hear(rows)
        told(self, bar, new)

    commands.Pace.told = told_too
    try:
        if scale_out(given):
            sys.exit("The run did not end well: nothing was measured.")
    finally:
        commands.Pace.told = told


# ---------------------------------------------------------------------------------------------------------------
# Kills
# ---------------------------------------------------------------------------------------------------------------


def killed_run(cluster, folder: Path, n: int, answers: list, count: int) -> tuple[int, int, float]:
    """Kill a worker and a node at random moments of a run; return what `counted_rows` does."""
    draw = random.Random(n)
    deeds = [(draw.randrange(1, count * 3 // 4), deed) for deed in ("worker", "node")]

    def hear(rows: int) -> None:
        for due in [each for each in deeds if each[0] <= rows]:
            deeds.remove(due)
            kill_worker(draw) if due[1] == "worker" else cluster.remove_node(
                cluster.list_all_nodes()[-1], allow_graceful=False
            )

    out = folder / f"killed {n}"
    run_hearing(arguments(cluster, folder / "some.csv", out), hear)
    if deeds:
        sys.exit(f"{deeds} did not happen.")
    cluster.add_node(num_cpus=LENT)
    print(f"kills {n + 1}: {counted_rows(out, answers, count)}", file=sys.stderr)
    return counted_rows(out, answers, count)


def kill_worker(draw: random.Random) -> None:
    """Kill one of the processes that judge pictures."""
    family = psutil.Process().children(recursive=True)
    found = [each for each in family if "ray::MapWorker" in " ".join(each.cmdline())]
    if found:  # none, where those of the node that was killed are just being started again
        draw.choice(found).kill()


def driver_killed(cluster, folder: Path, n: int, answers: list, count: int) -> tuple[int, int, float]:
    """Kill the process that hands out the work, at a random moment, and begin again; return what is counted then."""
    out, draw = folder / f"driver {n}", random.Random(1000 + n)
    command = [sys.executable, "-m", "utils.scale", *arguments(cluster, folder / "some.csv", out)]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL) as driver:
        while not any(out.glob("part-*")) and driver.poll() is None:
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 2))
        os.kill(driver.pid, signal.SIGKILL)
    subprocess.run(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, check=True)
    print(f"driver {n + 1}: {counted_rows(out, answers, count)}", file=sys.stderr)
    return counted_rows(out, answers, count)


def counted_rows(out: Path, answers: list, count: int) -> tuple[int, int, float]:
    """Return how many rows are lost, how many doubled, and how far probabilities lie from the peer's at most."""
    from utils.scale.parts import written_rows

    rows = written_rows(out).to_pylist()
    ids = [int(row["id"]) for row in rows]
    apart = max(
        abs(row["probability"] - answers[n][1]) if row["label"] == answers[n][0] else 1.0
        for n, row in zip(ids, rows, strict=True)
    )
    return count - len(set(ids)), len(ids) - len(set(ids)), apart


# ---------------------------------------------------------------------------------------------------------------
# The tables
# ---------------------------------------------------------------------------------------------------------------


def rates_table(ours: list[list[float]], theirs: list[list[float]]) -> list[str]:
    """Return the lines of the table of rates: medians, and the ratio's median within a round."""
    ratios = [mine[1] / its[1] for mine, its in zip(ours, theirs, strict=True)]
    lines = ["| start-up not counted | pictures/s | per CPU second |", "|---|---|---|"]
    for name, rates in (("utils.inference, all cores", theirs), ("utils.scale, two workers of one core", ours)):
        middle = [statistics.median(column) for column in zip(*rates, strict=True)]
        lines.append(f"| {name} | {middle[0]:.0f} | {middle[1]:.0f} |")
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return [*lines, f"| ratio per CPU second (reach: ≥ 0.8) | | {statistics.median(ratios):.2f} ({spread}) |"]


def kills_table(workers: list, drivers: list, count: int) -> list[str]:
    """Return the lines of the table of kills."""
    lines = [
        f"| killed, {count:,} pictures each | runs | rows lost | rows doubled | furthest apart |",
        "|---|---|---|---|---|",
    ]
    for name, runs in (("a worker and a node", workers), ("the driver, begun again", drivers)):
        if runs:
            lost, doubled, apart = zip(*runs, strict=True)
            lines.append(f"| {name} | {len(runs)} | {sum(lost)} | {sum(doubled)} | {max(apart):.1e} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--drivers", type=int, default=5)
    parser.add_argument("--killed", type=int, default=1000)
    parser.add_argument("--task", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.task:
        main(given)
    elif given.task[0] == "export":
        export(Path(given.task[1]))
    else:
        print(json.dumps(peer(Path(given.task[1]))))
