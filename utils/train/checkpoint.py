"""
Stage 04, what lasts: the trained round, and a training that was stopped in the middle.

Reads and writes learner.pth, history.csv and training.png, the round that is complete, and resume.pth, the state
after the last epoch of one that is not. Both are read without running anything in them.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from utils.averaging import networks_of
from utils.dataset import Dataset, round_fingerprint
from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import write_whole
from utils.tables import HISTORY_COLUMNS, write_table
from utils.train.curves import training_curve
from utils.train.record import Record, asked_settings, changed_sentence

ROUND, STATE = "learner.pth", "resume.pth"
FORM = 2  # of both files; the version before had no number
BOTH_PARTS = {"form", "data", "settings", "asked", "rows", "figures", "rates", "frozen", "model"}
ROUND_PARTS = BOTH_PARTS | {"labels", "view"}
STATE_PARTS = BOTH_PARTS | {"best", "optimizer", "smooth", "random", "batches", "scaler"}
OF_PROCESSES = ("processes", "pieces")  # settings of a training by several; one process has neither
OF_ONE_NETWORK = {"seed", "start", *OF_PROCESSES}  # settings in which the networks of an ensemble may differ
OLDER = "The model in {} comes from an earlier version of Fieldguide"


def save_parts(path: Path, parts: Mapping) -> None:
    """Write with torch, whole or not at all."""
    buffer = io.BytesIO()  # torch.save on a full disk would raise a RuntimeError of its own
    torch.save({"form": FORM} | dict(parts), buffer)
    write_whole(path, buffer.getvalue())


def save_round(project: Project, parts: Mapping) -> None:
    """Write the table and the picture of a training's history, then learner.pth, which makes the round complete."""
    write_table(project.network / "history.csv", HISTORY_COLUMNS, parts["rows"])
    write_whole(project.network / "training.png", training_curve(parts["rows"], parts["rates"].numpy()))
    save_parts(project.network / ROUND, parts)


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
    return read_parts(project.network / ROUND, ROUND_PARTS)


def read_state(project: Project, weights: Mapping[str, torch.Tensor]) -> dict | None:
    """Return where a training was stopped, or None; refuse what is not a whole state of a network of these weights."""
    kept = read_parts(project.network / STATE, STATE_PARTS)
    if not kept:
        return None
    networks = (weights, kept["model"], kept["best"])
    shapes = {tuple((name, value.shape) for name, value in network.items()) for network in networks}
    columns = {tuple(row) for row in kept["rows"]}
    if len(shapes) > 1 or columns != {HISTORY_COLUMNS} or len(kept["rows"]) != len(kept["figures"]):
        raise broken_state(project)
    return kept


def broken_state(project: Project) -> FieldguideError:
    """Return what to say of a resume.pth that cannot be gone on from."""
    return FieldguideError(f"{project.network / STATE} is broken. Delete it and run 04 again: it begins at epoch 0.")


def record_of(dataset: Dataset, kept: Mapping, **together) -> Record:
    """Return the record of a round that was trained on this data set; `together` are settings of an ensemble."""
    settings, rows = kept["settings"] | together, list(kept["rows"])
    changed = changed_sentence(settings, kept["asked"])
    return Record(settings, changed, round_fingerprint(dataset, settings), rows)


def is_current(dataset: Dataset, kept: Mapping | None) -> bool:
    """Return whether a round belongs to today's pictures, labels and split, and to the project file as it is."""
    return bool(kept) and (kept["data"], kept["asked"]) == (dataset.fingerprint, asked_settings(dataset))


def trained_otherwise(rounds: Sequence[Mapping]) -> int | None:
    """Return the number, from 1, of the first network whose settings are not the first one's, the seed aside."""
    told = [{name: value for name, value in kept["settings"].items() if name not in OF_ONE_NETWORK} for kept in rounds]
    return next((n for n, settings in enumerate(told, start=1) if settings != told[0]), None)


def training_status(dataset: Dataset) -> str:
    """Return in words: is there a model, and is it the one that today's pictures and settings would give?"""
    networks = networks_of(dataset)
    rounds = [read_checkpoint(each.project) for each in networks]
    for n, (network, kept) in enumerate(zip(networks, rounds, strict=True), start=1):
        told = _network_status(network, kept)
        if not is_current(network, kept):
            return f"Network {n} of {len(networks)}. {told}" if len(networks) > 1 else told
    if (n := trained_otherwise(rounds)) is not None:
        return f"Network {n} was trained by other cells than the first: it is trained again now."
    first = _network_status(networks[0], rounds[0])
    return f"{first} It is an average of {len(networks)} networks." if len(networks) > 1 else first


def _network_status(dataset: Dataset, kept: Mapping | None) -> str:
    """Return in one sentence how far the training of one network is; `kept` is what its learner.pth holds."""
    project = dataset.project
    if is_current(dataset, kept):
        changed = record_of(dataset, kept).changed
        if not changed:
            return "The model stands: pictures, split and settings are those that it was trained with."
        return f"{changed} That model stands as long as the cells below ask for the same; else it is trained anew."
    state = read_parts(project.network / STATE, STATE_PARTS)
    if is_current(dataset, state):
        return f"A training was stopped. Unless you change the cells below, it {goes_on(state)}."
    if kept is None:
        return "There is no model yet: it is trained now."
    if not kept:
        return f"{OLDER.format(project.network)}: it is trained again now."
    return "Pictures, labels, split or settings changed since the last training: a new round is trained now."


def goes_on(kept: Mapping) -> str:
    """Return where a stopped training begins again, in words; epoch 0 is the first one."""
    epochs = kept["settings"].get("epochs", kept["asked"]["epochs"])
    last = kept["settings"].get("freeze_epochs", 0) + epochs - 1
    return f"goes on from epoch {len(kept['rows'])} of {last}"
