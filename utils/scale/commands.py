"""
The command line: pictures of a table, judged on all processors of this machine or of a cluster; or collected there.

    python -m utils.scale {verify,features,predict} TABLE --out FOLDER [--model M] [--address auto] [--cores N]
    python -m utils.scale copies TABLE --checked FOLDER --out FOLDER [--address auto] [--cores N]
    python -m utils.scale collect TABLE --out FOLDER [--address auto] [--allow-host HOST] [--ignore-noai]

Reads TABLE, a CSV or Parquet file of ids and places. Writes Parquet parts into FOLDER, and _DONE once all are there.
Begun again, it judges only what is missing. Exit codes: 0; 1 if nothing could be done or the work had to stop; 2 if
some pictures have an error instead of an answer; 130 after Ctrl-C.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pyarrow as pa
import ray
from tqdm import tqdm

from utils.errors import FieldguideError
from utils.inference import ModelError
from utils.scale.cluster import answers_to, connected, machine_sizes, workers_for
from utils.scale.grouping import GROUP_COLUMNS, Grouping, read_checked, write_groups
from utils.scale.jobs import JOB_MAKERS, job_of, part_schema
from utils.scale.parts import Parts, each_part, own_folder
from utils.scale.photos import read_photo_places
from utils.scale.running import MOST_IN_BLOCK, judge_missing
from utils.scale.storages import witnesses
from utils.storage import make_folder, remove_leftovers
from utils.words import counted

GROUPING, WORK = "copies", "_work"  # readers of a folder of parts pass over names that begin so
COLLECT = "collect"
ALL, STOPPED_SHORT, SOME, INTERRUPTED = 0, 1, 2, 130  # exit codes
PAUSE_AFTER_HALT = 5.0  # seconds in which a cluster notices which of its machines are gone


class Pace:
    """How quick the work is, from the first answer on: workers start for half a minute, however much there is to do."""

    def __init__(self, unit: str = "pictures"):
        self.unit = unit
        self.first = self.last = 0.0  # when these answers came
        self.rows = 0  # that came after the first ones

    def told(self, bar: tqdm, rows: int) -> None:
        """Hear of new rows, and show them."""
        self.last = time.monotonic()
        if self.first:
            self.rows += rows
        else:
            self.first = self.last
            bar.unpause()
        bar.update(rows)

    def __str__(self) -> str:
        return f" {self.rows / (self.last - self.first):.1f} {self.unit} per second." if self.rows else ""


def run_job(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for, and return its exit code."""
    options = _asked_for(arguments)
    try:
        return {GROUPING: _group_all, COLLECT: _collect}.get(options.task, _run_all)(options)
    except (FieldguideError, ModelError) as error:
        print(error, file=sys.stderr)
        return STOPPED_SHORT
    except KeyboardInterrupt:
        print("Stopped. What was judged is kept; run this again to go on.", file=sys.stderr)
        return INTERRUPTED


class OptionParser(argparse.ArgumentParser):
    """A parser that exits with 1, as 2 says that some pictures have an error."""

    def error(self, message: str):
        """Say what is wrong with the options, and exit."""
        self.exit(STOPPED_SHORT, f"{self.format_usage()}{message[:1].upper()}{message[1:]}.\n")


def _asked_for(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = OptionParser(
        prog="python -m utils.scale",
        description="Judge the pictures of a table on all processors of this machine, or of a Ray cluster.",
        epilog="Exit code 0; 1: the work could not be done; 2: done, but some pictures have an error.",
    )
    add = parser.add_argument
    told = "fetch pictures of the web; is it of use, what the packaged network sees, which label, which are copies"
    add("task", choices=[*JOB_MAKERS, GROUPING, COLLECT], help=told)
    add("table", metavar="TABLE", help="a .csv or .parquet file with the columns id and path (or file, address, url)")
    add("--out", metavar="FOLDER", required=True, help="where the Parquet parts go; for collect, and the pictures")
    add("--model", metavar="M", help="for predict: a model.onnx or an export.pkl")
    add("--checked", metavar="FOLDER", help="for copies: what verify wrote")
    add("--address", metavar="auto", help="a running Ray cluster: auto, or HOST:PORT; by default this machine alone")
    add("--cores", metavar="N", type=int, default=1, help="processors for each worker; a worker loads the model once")
    add("--allow-host", metavar="HOST", action="append", default=[], help="for collect: a private host to fetch from")
    add("--ignore-noai", action="store_true", help="for collect: also pictures whose site asks not to train on them")
    options = parser.parse_args(arguments)
    if (options.task == GROUPING) != bool(options.checked):
        parser.error("copies needs --checked, the folder that verify wrote, and no other task takes it")
    if options.cores < 1:
        parser.error(f"--cores {options.cores}: a worker needs at least one processor")
    return options


def _collect(options: argparse.Namespace) -> int:
    """Fetch what is missing, and return the exit code."""
    return SOME if resolve_name("utils.scale.collecting:collect")(options, Pace("addresses")) else ALL


def _run_all(options: argparse.Namespace) -> int:
    """Judge what is missing, and return the exit code."""
    table, job = read_photo_places(options.table), job_of(options)
    with own_folder(options.out) as folder:
        parts = Parts(folder, table["id"], part_schema(job.columns), job.facts)
        known = len(table) - len(parts.missing)
        if known:
            print(f"{counted(known)} of {len(table):,} have their row already.", file=sys.stderr)
        pace = Pace()
        try:
            if len(parts.missing):
                parts.begin()
                _judge(options, job, table, parts, pace)
        finally:
            parts.finish()
    told = f"{counted(len(table))} in {Path(options.out)}, {parts.errors:,} of them with an error."
    print(f"{told}{pace}", file=sys.stderr)
    return SOME if parts.errors else ALL


def _judge(options: argparse.Namespace, job, table: pa.Table, parts: Parts, pace: Pace) -> None:
    """Judge what is missing on a cluster."""
    seen = _seen(table)
    with connected(options.address):
        _hand_out_all(options, job, table, parts, pace, seen)


def _seen(table: pa.Table) -> tuple[str, ...]:
    """Return places by which other machines tell whether they see the pictures."""
    step = max(1, len(table) // 1000)
    return witnesses(table["place"].take(pa.array(range(0, len(table), step))).to_pylist())


def _hand_out_all(
    options: argparse.Namespace, job, table: pa.Table, parts: Parts, pace: Pace, seen: Sequence[str], unit="picture"
) -> None:
    """Hand out what is missing to the workers of a cluster, under a progress bar."""
    complete = getattr(job, "complete", False)
    workers, missing = workers_for(machine_sizes(), options.cores), len(parts.missing)
    print(f"{counted(workers, 'worker')} on {counted(len(machine_sizes()), 'machine')}.", file=sys.stderr)
    hand_out = partial(_handed_out, ray.put(job), seen, options.cores, getattr(job, "most_in_block", MOST_IN_BLOCK))
    with tqdm(total=len(table), initial=len(table) - missing, desc=parts.facts["task"], unit=unit) as bar:
        told = partial(pace.told, bar)
        pause = PAUSE_AFTER_HALT
        judge_missing(parts, table["place"], hand_out, told, workers=workers, pause=pause, complete=complete)


def _handed_out(
    job: ray.ObjectRef, seen: Sequence[str], cores: int, most: int, positions: np.ndarray, places: pa.Array, block: int
) -> Iterator[pa.Table]:
    """Yield the answers that the cluster gives to these pictures."""
    return answers_to(job, positions, places, seen=seen, cores=cores, block=min(block, most))


def _group_all(options: argparse.Namespace) -> int:
    """Write the groups of near-duplicates, and return the exit code."""
    table = read_photo_places(options.table)
    checked = read_checked(options.checked, table)
    with own_folder(options.out) as folder, ExitStack() as stack:
        parts = Parts(folder, table["id"], GROUP_COLUMNS, {"task": GROUPING, "pictures": checked.digest})
        if not len(parts.missing):
            parts.finish()
            print(f"{counted(len(table))} have their row already.", file=sys.stderr)
            return SOME if parts.errors else ALL
        parts.begin()
        grouping = Grouping(checked, folder / WORK, Answering(options, _seen(table), stack).rows)
        rows = grouping.rows()
        write_groups(parts, table["id"], rows)
        parts.finish()
    print(f"{counted(len(table))} in {Path(options.out)}: {grouping.told(rows)}", file=sys.stderr)
    return SOME if parts.errors else ALL


class Answering:
    """Work of several kinds on one cluster, which starts when something is first handed out, and ends with `stack`."""

    def __init__(self, options: argparse.Namespace, seen: Sequence[str], stack: ExitStack):
        self._options, self._seen, self._stack, self._connected = options, seen, stack, False

    def connect(self) -> None:
        """Connect to the cluster, if that was not done yet."""
        if not self._connected:
            self._stack.enter_context(connected(self._options.address))
            self._connected = True

    def rows(self, job, asked: pa.Table, folder: Path, unit: str) -> Iterator[pa.Table]:
        """Yield the rows of a job for ids and places, part by part; those that are in the folder are not asked for."""
        remove_leftovers(make_folder(folder), below=False)
        parts = Parts(folder, asked["id"], part_schema(job.columns), job.facts)
        if len(parts.missing):
            self.connect()
            parts.begin()
            try:
                _hand_out_all(self._options, job, asked, parts, Pace(), self._seen, unit)
            finally:
                parts.finish()
        return each_part(folder)
