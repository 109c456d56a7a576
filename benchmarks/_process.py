"""Runs one side of a comparison in a process of its own, so that neither lives off what the other left behind."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil

LOOK_EVERY = 0.1  # seconds at least
SHARE = 0.02  # of the time goes into looking: at gigabytes it takes tens of milliseconds, on cores that are measured


@dataclass(frozen=True)
class Run:
    """What a process took: `seconds` by the clock, peak `memory` in bytes, and the text that it printed."""

    seconds: float
    memory: int
    output: str


def measured(command: list[str], environment: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end and measure it, with all that it starts; stop the benchmark if it fails."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment or os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    peak, output = 0, None
    while output is None:
        looked = time.perf_counter()
        peak = max(peak, tree_memory(process.pid))
        took = time.perf_counter() - looked
        with suppress(subprocess.TimeoutExpired):
            output, errors = process.communicate(timeout=max(LOOK_EVERY, took / SHARE))
    seconds = time.perf_counter() - began
    if process.returncode:
        sys.exit(
            f"{output}{errors}\n{' '.join(command)} stopped with status {process.returncode}: nothing was measured."
        )
    return Run(seconds, peak, output)


def tree_memory(pid: int) -> int:
    """Return the memory of a process and its children in bytes; pages that they share count once."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for process in family:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # one ended while it was looked at
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.uss)  # macOS and Windows do not tell how pages are shared
    return total
