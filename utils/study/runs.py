"""
Stage 09, what was found: one row of runs.csv per training, in models/<name>/study/<data>/.

A row is appended whole, with which pictures of the validation set were named rightly, so that any two settings can be
compared photo by photo. Who trains holds a lock of that run: two notebooks may share a study. A lock that is free,
with a note of an earlier attempt beside it, is of a notebook that was killed.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from utils.errors import FieldguideError
from utils.storage import content_id, explained, locked, make_folder, write_whole
from utils.tables import RUNS_COLUMNS, append_rows, mend_log, read_rows

RUN_DONE, RUN_FAILED = "done", "failed"
MOST_DEATHS = 3  # of the process, in the middle of one run: then that run is the likely reason
RIGHT_LETTER, WRONG_LETTER = "y", "n"  # spreadsheets take 0110 for a number
APPENDING = 60  # seconds to wait for another notebook that appends a row


@dataclass(frozen=True)
class TrainingRun:
    """One training of a setting."""

    setting: str  # its id
    seed: int
    settings: str  # in words
    status: str  # RUN_DONE or RUN_FAILED
    reason: str = ""  # why it failed
    history: list[dict] = field(default_factory=list)  # rows as in history.csv
    accuracy: float = np.nan  # on the validation set, a fraction
    valid_loss: float = np.nan
    train_accuracy: float = np.nan  # on training pictures as they are, where the study asks for it
    seconds: float = 0.0
    judged: str = ""  # 16 hex digits of the ids of the validation set, in order
    right: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))  # (N,), of the validation set

    @property
    def key(self) -> tuple[str, int]:
        """Return what this run is known by."""
        return self.setting, self.seed


def judged_id(ids: Sequence[str]) -> str:
    """Return 16 hex digits that stand for the pictures of a validation set, in their order."""
    return content_id("\n".join(ids).encode())


def read_runs(folder: Path) -> dict[tuple[str, int], TrainingRun]:
    """Return the runs of a study by setting and seed; of a run that was tried again, the last."""
    runs = [_read_run(row, folder) for row in read_rows(folder / "runs.csv", RUNS_COLUMNS)]
    return {run.key: run for run in runs}


def _read_run(row: dict[str, str], folder: Path) -> TrainingRun:
    """Return what a row says."""
    try:
        numbers = ("accuracy", "valid_loss", "train_accuracy", "seconds")
        figures = {name: float(row[name] or "nan") for name in numbers}
        if row["status"] not in (RUN_DONE, RUN_FAILED) or set(row["right"]) - {RIGHT_LETTER, WRONG_LETTER}:
            raise ValueError(f"status {row['status']!r}")
        return TrainingRun(
            **{name: row[name] for name in ("setting", "settings", "status", "reason", "judged")},
            seed=int(row["seed"]),
            history=json.loads(row["history"] or "[]"),
            right=np.array([letter == RIGHT_LETTER for letter in row["right"]], dtype=bool),
            **figures,
        )
    except ValueError as error:
        raise FieldguideError(
            f"{folder / 'runs.csv'}: the row of setting {row['setting']!r}, seed {row['seed']!r} cannot be read "
            f"({error}). Delete that line: the run is done again."
        ) from None


def mend_runs(folder: Path) -> None:
    """Cut off half a row that a kill left behind: that run is done again."""
    with locked(folder, wait=APPENDING):
        mend_log(folder / "runs.csv", RUNS_COLUMNS)


def add_run(folder: Path, run: TrainingRun, *, again: bool = False) -> None:
    """Append the row of a run; one that is there already stays, unless this is a failed one's second try."""
    with locked(folder, wait=APPENDING):
        path = folder / "runs.csv"
        mend_log(path, RUNS_COLUMNS)
        before = read_runs(folder).get(run.key)
        if before is None or (again and before.status == RUN_FAILED):
            figures = {name: getattr(run, name) for name in ("accuracy", "valid_loss", "train_accuracy", "seconds")}
            row = {name: "" if np.isnan(value) else f"{value:.6g}" for name, value in figures.items()}
            row |= {name: getattr(run, name) for name in ("setting", "seed", "settings", "status", "reason", "judged")}
            row |= {"history": json.dumps(run.history) if run.history else ""}
            row |= {"right": "".join(np.where(run.right, RIGHT_LETTER, WRONG_LETTER).tolist())}
            row |= {"finished_at": datetime.now(UTC).isoformat(timespec="seconds")}
            append_rows(path, RUNS_COLUMNS, [row])


@contextmanager
def claimed(folder: Path, key: tuple[str, int]) -> Iterator[int | None]:
    """
    Hold the lock of a run; yield how many processes died in the middle of it, or None if another one is at it now.

    Ctrl-C and errors are no deaths.
    """
    note = _note(folder, key)
    make_folder(note.parent)
    lock = FileLock(note.with_suffix(".lock"))
    with explained(note):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            lock = None
    if lock is None:
        yield None
        return
    try:
        deaths = int(note.read_text()) if note.exists() and note.read_text().isdecimal() else 0
        write_whole(note, str(deaths + 1))
        yield deaths
        note.unlink(missing_ok=True)
    except BaseException:
        note.unlink(missing_ok=True)
        raise
    finally:
        lock.release()


def _note(folder: Path, key: tuple[str, int]) -> Path:
    """Return the file that says how often a run was begun and not ended."""
    return folder / "under_way" / f"{key[0]}-{key[1]}.begun"
