"""
What comparing pictures learned, kept on disk in tables of one row type, and long work on all cores.

Each file is written whole. A run that is killed loses at most the rows of the file that it was about to write. A file
that is broken, or of another form, is removed: everything here can be computed anew.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from utils.machine import in_threads
from utils.storage import MINUTE, content_id, remove_leftovers, write_whole

LARGEST_TABLE = 64 * 2**20  # bytes of one file; ours have at most 4 million


def kept_rows(folder: Path, form: np.dtype) -> Iterator[np.ndarray]:
    """Yield the rows of each file in `folder`. They are mapped, not read, so that many take up little memory."""
    remove_leftovers(folder, below=False, older=MINUTE)
    for path in sorted(folder.glob("*.npy")):
        try:
            if path.stat().st_size > LARGEST_TABLE:
                raise ValueError("too large")
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
            if rows.dtype != form or rows.ndim != 1:
                raise ValueError("another form")
        except FileNotFoundError:  # another notebook removed it
            continue
        except Exception:  # numpy raises what it likes
            path.unlink(missing_ok=True)
            continue
        yield rows


def keep_rows(folder: Path, rows: np.ndarray) -> None:
    """Write rows as one file, named by its content: two notebooks that compute the same write the same."""
    if len(rows):
        buffer = io.BytesIO()
        np.save(buffer, rows)
        write_whole(folder / f"{content_id(buffer.getvalue())}.npy", buffer.getvalue())


def on_all_cores(work: Callable, tasks: Sequence, *, together: int, desc: str, unit: str) -> Iterator[list]:
    """Yield what `work` returns for each task, in their order and so many at a time, under a progress bar."""
    with tqdm(total=len(tasks), desc=desc, unit=unit) as bar, one_thread_per_caller():
        for start in range(0, len(tasks), together):
            done = []
            for result in in_threads(work, tasks[start : start + together]):
                done.append(result)
                bar.update()
            yield done


@contextmanager
def one_thread_per_caller() -> Iterator[None]:
    """Let OpenCV and numpy take one thread for each that calls them: the callers are as many as there are cores."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        cv2.setNumThreads(threads)
