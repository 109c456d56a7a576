"""
Stage 04, what lasts: the trained round, and a training that was stopped in the middle.

Reads and writes learner.pth, history.csv and training.png, the round that is complete, and resume.pth, the state
after the last epoch of one that is not. Both are read without running anything in them.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import torch

from utils.dataset import Dataset, round_fingerprint
from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import write_whole
from utils.tables import write_table
from utils.train.curves import training_curve
from utils.train.record import Record, asked_settings, changed_sentence

FORM = 2  # of both files; the version before had no number
HISTORY_COLUMNS = ("epoch", "phase", "train_loss", "valid_loss", "accuracy", "lr", "seconds")
ROUND_PARTS = {"form", "data", "settings", "asked", "labels", "rows", "figures", "rates", "frozen", "view", "model"}
STATE_PARTS = {"form", "data", "settings", "asked", "rows", "figures", "rates", "frozen"} | {
    *("best", "model", "optimizer", "smooth", "random", "batches")
}
OLDER = "The model in {} comes from an earlier version of Fieldguide"


def round_path_of(project: Project) -> Path:
    """Return where the trained round lies."""
    return project.models / "learner.pth"


def state_path(project: Project) -> Path:
    """Return where a training that is not complete lies."""
    return project.models / "resume.pth"


def save_parts(path: Path, parts: Mapping) -> None:
    """Write with torch, whole or not at all."""
    buffer = io.BytesIO()  # torch.save on a full disk would raise a RuntimeError of its own
    torch.save({"form": FORM} | dict(parts), buffer)
    write_whole(path, buffer.getvalue())


def save_round(project: Project, parts: Mapping) -> None:
    """Write the table and the picture of a training's history, then learner.pth, which makes the round complete."""
    write_table(project.models / "history.csv", HISTORY_COLUMNS, parts["rows"])
    write_whole(project.models / "training.png", training_curve(parts["rows"], parts["rates"].numpy()))
    save_parts(round_path_of(project), parts)
    state_path(project).unlink(missing_ok=True)


def read_parts(path: Path, wanted: set[str]) -> dict | None:
    """Return what one of our files holds: nothing ({}) of an earlier version, None where there is no file."""
    if not path.exists():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        missing = wanted - found.keys()
    except Exception as error:  # torch.load raises many kinds on a broken file, and advises to trust it
        raise FieldguideError(f"{path} is broken. Delete it and run 04 again.") from error
    if "recipe" in found:
        return {}
    if missing or found["form"] != FORM:
        lacks = f"it lacks {min(missing)!r}" if missing else "its form is unknown"
        raise FieldguideError(f"{path} was not written by this version of 04: {lacks}. Delete it and run 04 again.")
    return found


def read_checkpoint(project: Project) -> dict | None:
    """Return learner.pth: {} if it is of an earlier version, None where there is none. Nothing in it can run code."""
    return read_parts(round_path_of(project), ROUND_PARTS)


def read_state(project: Project, shapes: Mapping[str, torch.Size]) -> dict | None:
    """
    Return where a training was stopped, or None if none was.

    Raises
    ------
    FieldguideError
        If resume.pth is not a whole file of 04, or holds other weights than a network of these shapes has.
    """
    kept = read_parts(state_path(project), STATE_PARTS)
    if not kept:
        return None
    try:
        fits = all({name: value.shape for name, value in kept[part].items()} == shapes for part in ("model", "best"))
        whole = all(set(row) == set(HISTORY_COLUMNS) for row in kept["rows"]) and kept["rates"].shape[1] == 2
        whole = whole and len(kept["rows"]) == len(kept["figures"]) > 0
    except (AttributeError, TypeError, IndexError):
        fits = False
    if not (fits and whole):
        raise broken_state(project)
    return kept


def broken_state(project: Project) -> FieldguideError:
    """Return what to say of a resume.pth that cannot be gone on from."""
    return FieldguideError(f"{state_path(project)} is broken. Delete it and run 04 again: it begins at epoch 0.")


def record_of(dataset: Dataset, kept: Mapping) -> Record:
    """Return the record of a round that was trained on this data set."""
    settings, rows = kept["settings"], list(kept["rows"])
    changed = changed_sentence(settings, kept["asked"])
    return Record(settings, changed, round_fingerprint(dataset, settings), rows)


def is_current(dataset: Dataset, kept: Mapping | None) -> bool:
    """Return whether a round belongs to today's pictures, labels and split, and to the project file as it is."""
    return bool(kept) and (kept["data"], kept["asked"]) == (dataset.fingerprint, asked_settings(dataset))


def training_status(dataset: Dataset) -> str:
    """Return one sentence: is there a model, and is it the one that today's pictures and settings would give?"""
    project = dataset.project
    kept = read_checkpoint(project)
    if is_current(dataset, kept):
        changed = record_of(dataset, kept).changed
        if not changed:
            return "The model stands: pictures, split and settings are those that it was trained with."
        return f"{changed} That model stands as long as the cells below ask for the same; else it is trained anew."
    state = read_parts(state_path(project), STATE_PARTS)
    if is_current(dataset, state):
        return f"A training was stopped. Unless you change the cells below, it {goes_on(state, project.epochs)}."
    if kept is None:
        return "There is no model yet: it is trained now."
    if not kept:
        return f"{OLDER.format(project.models)}: it is trained again now."
    return "Pictures, labels, split or settings changed since the last training: a new round is trained now."


def goes_on(kept: Mapping, epochs: int) -> str:
    """
    Return where a stopped training begins again, in words; epoch 0 is the frozen one.

    >>> goes_on({"rows": [{}, {}, {}]}, 12)
    'goes on from epoch 3 of 12'
    """
    return f"goes on from epoch {len(kept['rows'])} of {epochs}"
