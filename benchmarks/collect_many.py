"""
Collecting at scale: `python -m utils.scale collect` against img2dataset, the same pictures from the same hosts.

    python benchmarks/collect_many.py --peer PEER/bin/python [--pictures 5000]

PEER is an environment of its own: PEER/bin/pip install -r benchmarks/peers/img2dataset.txt. The pictures are those of
collect.py, 1024×768 and about 140 kB, served on eight loopback addresses by one process. Both sides have one fetching
process, keep the bytes as they came and write one file per picture. img2dataset runs with its 32 threads and writes
bytes without looking at them, and then as it does when it has to decode them. Each side runs in a fresh folder, in
turn, three times; counted is from the first fifth of the pictures on, so that no start is counted. CPU seconds
are those of all processes but the host. Prints a table for the README.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from collect import PHOTO, Host, drawn

REPOSITORY = Path(__file__).resolve().parents[1]
PEER = Path(__file__).with_name("_img2dataset_peer.py")
HOSTS = 8
ROUNDS = 3
LOOK_AGAIN = 0.2  # seconds
SIDES = ("img2dataset, not decoded", "img2dataset, decoded", "ours")


def main(options: argparse.Namespace) -> None:
    """Measure the sides in turn, and print the table."""
    sides = SIDES if options.peer else SIDES[-1:]
    found: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as scratch, Host(drawn(Path(scratch) / "photos", PHOTO), HOSTS) as url:
        port = url.rsplit(":", 1)[1]
        hosts = [f"127.0.0.{n + 1}:{port}" for n in range(HOSTS)]
        links = Path(scratch) / "links.csv"
        rows = [f"{n},http://{hosts[n % HOSTS]}/{n}.jpg" for n in range(options.pictures)]
        links.write_text("\n".join(["id,url", *rows]) + "\n")
        for turn in range(ROUNDS):
            for side in sides:
                with tempfile.TemporaryDirectory() as out:
                    found[side].append(
                        paced(command(options.peer, side, links, Path(out), hosts), Path(out), options.pictures)
                    )
                print(f"round {turn + 1}, {side}: {found[side][-1]}", file=sys.stderr)
    print("\n".join(table(found, options.pictures)))


def command(peer: str, side: str, links: Path, out: Path, hosts: list[str]) -> list[str]:
    """Return the command of one side."""
    if side == "ours":
        allowed = [part for host in hosts for part in ("--allow-host", host)]
        return [sys.executable, "-m", "utils.scale", "collect", str(links), "--out", str(out), *allowed]
    return [peer, str(PEER), "lean" if side.endswith("not decoded") else "decoding", str(links), str(out)]


def paced(given: list[str], out: Path, count: int) -> tuple[float, float]:
    """Return pictures per second and per CPU second, from the first fifth of the pictures to the last."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    seen: list[tuple[float, float, int]] = []  # when, CPU seconds until then, pictures until then
    pictures, complete = 0, False
    with subprocess.Popen(
        given, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None and not complete:
            time.sleep(LOOK_AGAIN)
            pictures = sum(1 for path in out.rglob("*.jpg") if not path.name.startswith("."))
            complete = pictures >= count
            if count // 5 <= pictures < count:  # after the last picture, processes end and take their figures along
                seen.append((time.perf_counter(), tree_seconds(process.pid), pictures))
        errors = process.communicate()[1].decode()
    if len(seen) < 2 or not complete:
        sys.exit(f"{errors}\n{given[:4]} stopped with {pictures} of {count} pictures, or was too quick to be measured.")
    (began, busy, first), (ended, busier, last) = seen[0], seen[-1]
    return (last - first) / (ended - began), (last - first) / (busier - busy)


def tree_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and of all that it started."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += sum(times[:4])  # also of its children that ended
    return total


def table(found: dict[str, list[tuple[float, float]]], count: int) -> list[str]:
    """Return the table: medians, and the ratios of ours to each of theirs with their range."""
    lines = [f"| {count:,} pictures, {HOSTS} hosts | pictures per second | per CPU second |", "|---|---|---|"]
    for side, runs in found.items():
        lines.append(
            f"| {side} | {' | '.join(f'{statistics.median(column):.0f}' for column in zip(*runs, strict=True))} |"
        )
    for side in list(found)[:-1]:
        ratios = [
            [ours[k] / theirs[k] for ours, theirs in zip(found["ours"], found[side], strict=True)] for k in (0, 1)
        ]
        told = [f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in ratios]
        lines.append(f"| ours / {side} | {' | '.join(told)} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="the Python of the environment with img2dataset; without it, ours alone")
    parser.add_argument("--pictures", type=int, default=5000)
    main(parser.parse_args())
