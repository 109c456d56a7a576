"""What this machine offers, and work that makes use of it."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable, tasks: Sequence) -> Iterator:
    """Yield what `work` returns for each task, in their order, on all cores; if the caller stops, no further begins."""
    pool = ThreadPoolExecutor(usable_cores())
    try:
        yield from pool.map(work, tasks)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
