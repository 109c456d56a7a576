"""
Has a stage become slower? Notebooks 01–08 from nothing: an earlier commit against this folder, in one run.

    python benchmarks/road.py [PROJECT_FILE] [--rounds 3] [--against 225a66f]

Theirs is `git archive` of the commit in a temporary folder; ours is this folder as it lies here. Each side runs its
own notebooks with its own notebooks/run.py, on the same settings, with the same Python and the same libraries, into new
data and models folders. The sides take turns; the one that goes first changes with each round. A stage is timed from
the moment run.py names it to the end of that line. Seconds are medians over the rounds. A ratio is the median of the
ratios within a round. Wanted: no stage above 1.1×.

The shipped sample takes about six minutes per side and round on two cores. Ctrl-C ends the benchmark and all that it
started. Nothing is kept, and the next run begins anew.
"""

import argparse
import codecs
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from _process import LOOK_EVERY, SHARE, tree_memory

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.errors import FieldguideError
from utils.project import Project

NAMED = re.compile(r"(\d\d[a-z]?_\w+|sample_truth)\s")  # how a line of run.py begins that tells of one notebook
TOLD = re.compile(r"\s(\d+) s\b")  # … and how it goes on when the notebook has ended
WANTED = 1.1  # ours / theirs, at most


@dataclass(frozen=True)
class Road:
    """One run of all notebooks: notebook → seconds, the whole in seconds, peak memory in bytes, what was printed."""

    stages: Mapping[str, float]
    seconds: float
    memory: int
    output: str


def main() -> None:
    """Run both sides in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", nargs="?", type=Path, default=REPOSITORY / "project.toml")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", default="225a66f", help="the earlier commit")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    try:
        project = Project.load(options.project.resolve())
    except FieldguideError as error:
        sys.exit(str(error))
    if project.searches:
        sys.exit(f"{options.project} searches the web, which answers differently each time. Name a sample or a folder.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the temporary folder goes, as with Ctrl-C
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            compare(project, Path(folder), options.rounds, options.against)
    except KeyboardInterrupt:
        sys.exit("\nStopped; nothing was kept.")


def compare(project: Project, folder: Path, rounds: int, commit: str) -> None:
    """Run the rounds in `folder` and print what they say."""
    roots = {"theirs": unpacked(commit, folder), "ours": REPOSITORY}
    for root in roots.values():  # both sides start with compiled modules …
        subprocess.run([sys.executable, "-m", "compileall", "-q", root / "utils", root / "notebooks"], check=True)
    subprocess.run(  # … and with the libraries in the machine's memory
        [sys.executable, "-c", "import fastai.vision.all, onnxruntime, nbconvert"], check=True, capture_output=True
    )
    runs: dict[str, list[Road]] = defaultdict(list)
    for n in range(rounds):
        for side in sorted(roots, reverse=n % 2 == 0):
            with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as place:
                print(f"round {n + 1} of {rounds}, {side} …", file=sys.stderr, flush=True)
                runs[side].append(travelled(roots[side], write_project(project, Path(place)), Path(place)))
    print(f"What ours printed in the last round:\n\n{runs['ours'][-1].output}")
    print("\n".join(table(runs["theirs"], runs["ours"], commit)))


def unpacked(commit: str, folder: Path) -> Path:
    """Return a folder that holds the repository as it was at a commit."""
    archive = folder / "theirs.zip"
    command = ["git", "-C", str(REPOSITORY), "archive", "--format=zip", f"--output={archive}", commit]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit("git is not installed; the earlier commit cannot be had without it.")
    if done.returncode:
        sys.exit(f"There is no commit {commit} to compare with: {done.stderr.strip()} A ZIP download has no history.")
    shutil.unpack_archive(archive, folder / "theirs")
    return folder / "theirs"


def write_project(project: Project, folder: Path) -> Path:
    """Write the settings that the project file names, with new data and models folders, and return the file's path."""
    settings = project.model_dump(exclude_unset=True)
    settings |= {"data_dir": str(folder / "data"), "models_dir": str(folder / "models")}
    plain = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    lines = [f"{key} = {in_toml(value)}" for key, value in plain.items()]
    for section in settings.keys() - plain.keys():
        lines += [f"[{section}]", *(f"{in_toml(key)} = {in_toml(value)}" for key, value in settings[section].items())]
    path = folder / "project.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def in_toml(value) -> str:
    """Return text, a number, true, false or a list of these as TOML, which writes them as JSON does."""
    return json.dumps(value, ensure_ascii=False)


def travelled(root: Path, project_file: Path, folder: Path) -> Road:
    """Run all notebooks of one side in a process of its own; stop the benchmark if that fails."""
    environment = os.environ | {"PROJECT": str(project_file), "PYTHONUNBUFFERED": "1"}  # each line as it is written
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "notebooks/run.py", "--reports", str(folder / "reports")]
    errors = folder / "errors"
    began = time.perf_counter()
    with errors.open("wb") as told:
        process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=told)
        with ended_with_children(process), watched(process) as peak:
            stages, output = timed_stages(arrivals(process.stdout.fileno()))
            status = process.wait()
    seconds = time.perf_counter() - began
    if status:
        said = errors.read_text(encoding="utf-8", errors="replace")
        sys.exit(f"{output}\n{said}\n{root}: run.py stopped with status {status}. Nothing was measured.")
    return Road(stages, seconds, peak[0], output)


def arrivals(handle: int) -> Iterator[tuple[float, str]]:
    """Yield what a process prints, piece by piece, each with the time at which it came."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    while data := os.read(handle, 65536):
        yield time.perf_counter(), decode(data)


def timed_stages(pieces: Iterator[tuple[float, str]]) -> tuple[dict[str, float], str]:
    """
    Return the seconds that each notebook took, and all the text, from what run.py prints and when.

    A notebook that runs twice has the sum of both. The benchmark stops where the seconds that run.py tells are others.

    >>> said = [(0.0, "sea_life: cat, dog\\n"), (1.0, "01_download    "), (3.4, "    2 s  \\n"), (3.5, "pictures 9\\n")]
    >>> {name: round(seconds, 1) for name, seconds in timed_stages(iter(said))[0].items()}
    {'01_download': 2.4}
    """
    stages: dict[str, float] = defaultdict(float)
    output, line, began = "", "", 0.0
    for moment, text in pieces:
        output += text
        for part in text.splitlines(keepends=True):
            before, line = NAMED.match(line), line + part
            if NAMED.match(line) and not before:
                began = moment
            if not line.endswith("\n"):
                continue
            name, told = NAMED.match(line), TOLD.search(line)
            if name and told:
                took = moment - began
                if abs(took - int(told[1])) > 1:
                    sys.exit(f"{line.strip()!r} came after {took:.1f} s. Nothing was measured.")
                stages[name[1]] += took
            line = ""
    if not stages:
        sys.exit(f"{output}\nrun.py told of no notebook. Nothing was measured.")
    return dict(stages), output


@contextmanager
def watched(process: subprocess.Popen) -> Iterator[list[int]]:
    """Look at the memory of a process and its children until the block ends; yield a list that holds the peak."""
    peak, ended = [0], threading.Event()

    def look() -> None:
        took = 0.0
        while not ended.wait(max(LOOK_EVERY, took / SHARE)):
            looked = time.perf_counter()
            peak[0] = max(peak[0], tree_memory(process.pid))
            took = time.perf_counter() - looked

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


@contextmanager
def ended_with_children(process: subprocess.Popen) -> Iterator[None]:
    """End a process and all that it started, such as kernels, when the block is left early."""
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
            for each in family:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs(family, timeout=10)
        process.stdout.close()
        process.wait()


def table(theirs: Sequence[Road], ours: Sequence[Road], commit: str) -> list[str]:
    """Return the lines of the table, and a sentence that says whether a stage is above the limit."""
    rows = [f"| medians of {len(ours)} | {commit} | ours | ours / theirs |", "|---|---|---|---|"]
    slower = []
    for name in sorted({name for run in (*theirs, *ours) for name in run.stages}):
        before, after = ([run.stages.get(name) for run in runs] for runs in (theirs, ours))
        if None in before or None in after:
            there = [f"{median(times):.1f}" if None not in times else "–" for times in (before, after)]
            rows.append(f"| {name}, seconds | {there[0]} | {there[1]} | |")
            continue
        ratio = within_rounds(before, after)
        rows.append(f"| {name}, seconds | {median(before):.1f} | {median(after):.1f} | {ratio:.2f}× |")
        if round(ratio, 2) > WANTED:
            slower.append(f"{name} {ratio:.2f}×")
    whole = [[run.seconds for run in runs] for runs in (theirs, ours)]
    rows.append(f"| all, seconds | {median(whole[0]):.0f} | {median(whole[1]):.0f} | {within_rounds(*whole):.2f}× |")
    peaks = [[run.memory / 1e9 for run in runs] for runs in (theirs, ours)]
    rows.append(f"| peak memory, GB | {median(peaks[0]):.2f} | {median(peaks[1]):.2f} | {within_rounds(*peaks):.2f}× |")
    rows.append("")
    rows.append(f"Above {WANTED}×: {', '.join(slower)}." if slower else f"No stage is above {WANTED}×.")
    return rows


def within_rounds(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """Return the median of the rounds' ratios, ours / theirs."""
    return median(after / before for before, after in zip(theirs, ours, strict=True))


if __name__ == "__main__":
    main()
