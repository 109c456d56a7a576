"""What this machine offers, and work that makes use of it."""

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil

CONTAINER = Path("/sys/fs/cgroup")  # where Linux tells a container its limits
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # what glibc's malloc.h calls M_…
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: -1}  # nothing is mapped by itself, and nothing trimmed
GIVING_BACK = {MMAP_MAX: 2**16, MMAP_THRESHOLD: 2**25, TRIM_THRESHOLD: 2**26}  # where glibc's own rules end


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(container: Path = CONTAINER) -> int:
    """Return how many bytes of memory are free: of this machine, or of the container if its limit leaves less."""
    free = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # no container, or the limit "max"
        limit, used = (int((container / name).read_text()) for name in ("memory.max", "memory.current"))
        lines = (line.split() for line in (container / "memory.stat").read_text().splitlines())
        held = sum(int(size) for name, size in lines if name in ("active_file", "inactive_file"))  # files read before
        free = min(free, limit - used + held)
    return max(0, free)


def in_threads(work: Callable, tasks: Sequence) -> Iterator:
    """Yield what `work` returns for each task, in their order, on all cores; if the caller stops, no further begins."""
    pool = ThreadPoolExecutor(usable_cores())
    try:
        yield from pool.map(work, tasks)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def keep_freed_memory(keep: bool) -> None:
    """
    Have freed memory wait for the next request, or give it back to the system, as is usual; on glibc (Linux) only.

    A training asks for the same gigabytes in each step, and Linux fills them with zeros each time.
    """
    with suppress(AttributeError, OSError, TypeError):  # another system's library
        library = ctypes.CDLL(None)
        for name, value in (KEEPING if keep else GIVING_BACK).items():
            library.mallopt(name, value)
        if not keep:
            library.malloc_trim(0)
