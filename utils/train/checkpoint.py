"""
Stage 04, what lasts: the trained round, and a training that was stopped in the middle.

Reads and writes learner.pth, history.csv and training.png, the round that is complete, and resume.pth, the state
after the last epoch of one that is not. Both are read without running anything in them. From resume.pth a training
goes on as if nothing had happened: same batches, same augmentations, same figures to the last digit.
"""

import io
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from fastai.vision.all import (
    Callback,
    CancelEpochException,
    CancelFitException,
    Learner,
    get_random_states,
    set_random_states,
)
from IPython.display import Image as InlineImage
from IPython.display import display

from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import write_whole
from utils.tables import write_table
from utils.train.curves import training_curve

HISTORY_COLUMNS = ("epoch", "phase", "train_loss", "valid_loss", "accuracy", "lr", "seconds")
ROUND_PARTS = {"fingerprint", "recipe", "arch", "labels", "history", "model"}
STATE_PARTS = {"rows", "figures", "rates", "lowest", "best", "model", "optimizer", "smooth", "random", "batches"}


class BrokenState(Exception):
    """What resume.pth holds does not fit the training that it should go on with."""


class TrainingRecord(Callback):
    """
    Keep a row an epoch and the best weights over every fit it is given to, and draw both as they come.

    Parameters
    ----------
    kept : mapping, optional
        The state after the last epoch that an earlier run finished (see `state`). fastai's fits are then begun
        anew, the epochs that are done pass with their old figures, and the next one starts where they ended.
    save : function of a state, optional
        Called after each epoch.
    patience : int
        Stop the fit after so many epochs without a lower validation loss; 0 never does. fastai's own
        EarlyStoppingCallback counts anew in each phase, and names the wrong epoch.
    title : str
        A sentence above the curves.
    """

    order = 70  # after fastai's Recorder has the epoch's figures

    def __init__(
        self,
        *,
        kept: Mapping | None = None,
        save: Callable[[dict], None] | None = None,
        patience: int = 0,
        title: str = "",
    ):
        self.kept, self.save, self.patience, self.title = kept, save, patience, title
        self.rows: list[dict] = []
        self.figures: list[list[float]] = []  # unrounded: train loss, validation loss, accuracy
        self.rates: list[tuple[float, float]] = []  # of first layers and head, a batch each
        self.best: dict | None = None
        self.lowest = float("inf")
        self.shown = None
        if kept is not None:
            self.rates = [tuple(pair) for pair in kept["rates"].tolist()]
            self.best, self.lowest = kept["best"], kept["lowest"]

    def before_epoch(self):
        """Start the epoch's clock; pass over an epoch that is done already."""
        self.started = time.perf_counter()
        if self.kept is None:
            return
        done = len(self.rows)
        if done < len(self.kept["rows"]):
            self.recorder.log += self.kept["figures"][done]
            raise CancelEpochException
        try:
            self.restore(self.kept)
        except Exception as error:  # whatever a broken file leads to
            raise BrokenState(str(error)) from error
        self.kept = None

    def after_batch(self):
        """Note the learning rates of a training batch."""
        if self.training:
            hypers = self.learn.opt.hypers
            first = float("nan") if self.learn.opt.frozen_idx > 0 else float(hypers[0]["lr"])
            self.rates.append((first, float(hypers[-1]["lr"])))

    def after_epoch(self):
        """Note the epoch's figures, keep its weights if they are the best, redraw the curve, and stop in time."""
        self.figures.append([float(value) for value in self.recorder.values[-1][:3]])
        if self.kept is not None:
            self.rows.append(dict(self.kept["rows"][len(self.rows)]))
        else:
            self.rows.append(self.row(*self.figures[-1]))
            valid_loss = self.figures[-1][1]
            if valid_loss < self.lowest:
                self.lowest = valid_loss
                weights = self.learn.model.state_dict()
                self.best = {name: value.detach().cpu().clone() for name, value in weights.items()}
            self.draw()
            if self.save is not None and self.best is not None:
                self.save(self.state())
        if self.has_waited():
            raise CancelFitException

    def row(self, train_loss: float, valid_loss: float, share: float) -> dict:
        """Return the epoch as a row of history.csv."""
        return {
            "epoch": len(self.rows),
            "phase": "frozen" if self.learn.opt.frozen_idx > 0 else "unfrozen",
            "train_loss": round(train_loss, 6),
            "valid_loss": round(valid_loss, 6),
            "accuracy": round(share, 6),
            "lr": float(f"{self.learn.opt.hypers[-1]['lr']:.4g}"),
            "seconds": round(time.perf_counter() - self.started, 1),
        }

    def waited(self) -> int:
        """Return how many epochs have passed since the best one."""
        losses = [valid_loss for _, valid_loss, _ in self.figures]
        return len(losses) - 1 - losses.index(min(losses)) if losses else 0

    def has_waited(self) -> bool:
        """Return whether the validation loss has not become lower for as long as patience lasts."""
        return 0 < self.patience <= self.waited()

    def draw(self):
        """Show the curve, in place of the one before."""
        picture = InlineImage(training_curve(self.rows, np.array(self.rates), title=self.title))
        if self.shown is None:
            self.shown = display(picture, display_id=True)
        else:
            self.shown.update(picture)

    def state(self) -> dict:
        """Return everything that the next epoch depends on, as plain values and tensors."""
        optimizer, smooth = self.learn.opt.state_dict()["state"], self.recorder.smooth_loss  # a schedule sets the rest
        states = get_random_states()
        kind, numbers, *rest = states.pop("numpy_state")
        scaler = getattr(self.learn, "scaler", None)  # of mixed precision
        model = self.learn.model.state_dict()
        return {
            "rows": self.rows,
            "figures": self.figures,
            "rates": torch.tensor(self.rates, dtype=torch.float64).reshape(-1, 2),
            "lowest": self.lowest,
            "best": self.best if self.waited() else model,  # the same tensors are written once
            "model": model,
            "optimizer": [dict(state) for state in optimizer],
            "smooth": (smooth.count, float(smooth.val)),
            "random": states | {"numpy_state": (kind, numbers.tolist(), *rest)},
            "batches": self.learn.dls.train.rng.getstate(),
            "scaler": scaler.state_dict() if scaler else {},
        }

    def restore(self, kept: Mapping) -> None:
        """Put the learner and all random generators into the state in which an earlier run left them."""
        opt, smooth = self.learn.opt, self.recorder.smooth_loss
        self.learn.model.load_state_dict(kept["model"])
        if self.epoch > 0:  # else a phase begins, as fastai begins it: with an optimizer that remembers nothing
            for (parameter, *_), state in zip(opt.all_params(), kept["optimizer"], strict=True):
                opt.state[parameter] = {name: _moved(value, parameter) for name, value in state.items()}
            smooth.count, smooth.val = kept["smooth"][0], torch.tensor(kept["smooth"][1])
            if kept.get("scaler"):
                self.learn.scaler.load_state_dict(kept["scaler"])
        kind, numbers, *rest = kept["random"]["numpy_state"]
        set_random_states(**kept["random"] | {"numpy_state": (kind, np.array(numbers, dtype=np.uint32), *rest)})
        self.learn.dls.train.rng = random.Random()
        self.learn.dls.train.rng.setstate(kept["batches"])


def _moved(value, parameter: torch.Tensor):
    """Return what the optimizer remembers of a parameter on the parameter's device, or refuse another shape."""
    if not isinstance(value, torch.Tensor):
        return value
    if value.shape != parameter.shape:
        raise ValueError(f"a state of shape {tuple(value.shape)} for a parameter of shape {tuple(parameter.shape)}")
    return value.to(parameter.device)


def save_training(project: Project, learn: Learner, record: TrainingRecord, recipe: Mapping[str, str]) -> None:
    """Write learner.pth, which makes the round complete, then the table and the picture of its history."""
    checkpoint = {
        "fingerprint": learn.dls.fingerprint,  # of the pictures it was trained on, not of what came in meanwhile
        "recipe": dict(recipe),
        "arch": project.arch,
        "labels": list(project.labels),
        "history": record.rows,
        "rates": torch.tensor(record.rates, dtype=torch.float64).reshape(-1, 2),
        "model": learn.model.state_dict(),
    }
    _save(project.models / "learner.pth", checkpoint)
    write_table(project.models / "history.csv", HISTORY_COLUMNS, record.rows)
    write_whole(project.models / "training.png", training_curve(record.rows, np.array(record.rates)))
    remove_state(project)


def _save(path: Path, parts: Mapping) -> None:
    """Write with torch, whole or not at all."""
    buffer = io.BytesIO()  # torch.save on a full disk would raise a RuntimeError of its own
    torch.save(dict(parts), buffer)
    write_whole(path, buffer.getvalue())


def _read(path: Path, parts: set[str]) -> dict | None:
    """Return what one of our files holds, or None where there is none; nothing in it can run code."""
    if not path.exists():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        missing = parts - found.keys()
    except Exception as error:  # torch.load raises many kinds on a broken file, and advises to trust it
        raise FieldguideError(f"{path} is broken. Delete it and run 04 again.") from error
    if missing:
        raise FieldguideError(f"{path} is none that 04 wrote: it lacks {min(missing)!r}. Delete it and run 04 again.")
    return found


def read_checkpoint(project: Project) -> dict | None:
    """Return learner.pth, or None where there is none; nothing in it can run code."""
    return _read(project.models / "learner.pth", ROUND_PARTS)


def save_state(project: Project, learn: Learner, state: Mapping, recipe: Mapping[str, str]) -> None:
    """Write resume.pth: where a training stands after an epoch, and to which training that belongs."""
    _save(_state_path(project), {"fingerprint": learn.dls.fingerprint, "recipe": dict(recipe)} | dict(state))


def read_state(project: Project, learn: Learner, recipe: Mapping[str, str]) -> dict | None:
    """
    Return where this very training was stopped, or None if it was not: other settings make another training.

    Raises
    ------
    FieldguideError
        If resume.pth is no whole file of 04, or holds other weights than the learner's network has.
    """
    kept = _read(_state_path(project), STATE_PARTS | {"fingerprint", "recipe"})
    if kept is None or (kept["fingerprint"], kept["recipe"]) != (learn.dls.fingerprint, dict(recipe)):
        return None
    shapes = {name: value.shape for name, value in learn.model.state_dict().items()}
    try:
        fits = all({name: value.shape for name, value in kept[part].items()} == shapes for part in ("model", "best"))
        whole = all(set(row) == set(HISTORY_COLUMNS) for row in kept["rows"])
        fits = fits and whole and len(kept["rows"]) == len(kept["figures"]) > 0 and kept["rates"].shape[1] == 2
    except (AttributeError, TypeError, IndexError):
        fits = False
    if not fits:
        raise broken_state(project)
    return kept


def broken_state(project: Project) -> FieldguideError:
    """Return what to say of a resume.pth that cannot be gone on from."""
    return FieldguideError(f"{_state_path(project)} is broken. Delete it and run 04 again: it begins at epoch 0.")


def remove_state(project: Project) -> None:
    """Remove resume.pth: the training is complete."""
    _state_path(project).unlink(missing_ok=True)


def _state_path(project: Project) -> Path:
    return project.models / "resume.pth"


def is_trained(project: Project) -> bool:
    """Return whether learner.pth was trained on today's labels, split and settings."""
    return is_current(project, read_checkpoint(project))


def is_current(project: Project, checkpoint: dict | None) -> bool:
    """Return whether a checkpoint, where there is one, belongs to today's labels, split and settings."""
    return checkpoint is not None and checkpoint["fingerprint"] == project.fingerprint()


def training_status(project: Project) -> str:
    """Return one sentence: is there a model, and is it the one that today's labels and settings would give?"""
    checkpoint = read_checkpoint(project)
    if is_current(project, checkpoint):
        return (
            "The model stands: labels, split and settings are those it was trained with. It is trained anew only if "
            "you change the cells below."
        )
    kept = _read(_state_path(project), STATE_PARTS | {"fingerprint", "recipe"})
    if kept is not None and kept["fingerprint"] == project.fingerprint():
        return f"A training was stopped: unless you change the cells below, it {goes_on(kept, project.epochs)}."
    if checkpoint is None:
        return "No model yet: it is trained now."
    return "Labels, split or settings changed since the last training: a new round is trained now."


def goes_on(kept: Mapping, epochs: int) -> str:
    """
    Return where a stopped training begins again, in words; epoch 0 is the frozen one.

    >>> goes_on({"rows": [{}, {}, {}]}, 12)
    'goes on from epoch 3 of 12'
    """
    return f"goes on from epoch {len(kept['rows'])} of {epochs}"


def load_weights(project: Project, learn: Learner, checkpoint: dict | None) -> Learner:
    """
    Load the weights of a checkpoint (see `read_checkpoint`) into a learner.

    Raises
    ------
    FieldguideError
        If there is none, or it belongs to another network or other labels.
    """
    path = project.models / "learner.pth"
    if checkpoint is None:
        raise FieldguideError(f"There is no trained model in {project.models}. Run 04 first.")
    if (checkpoint["arch"], checkpoint["labels"]) != (project.arch, list(project.labels)):
        raise FieldguideError(
            f"{path} is a {checkpoint['arch']} for {', '.join(checkpoint['labels'])}; the project file asks for a "
            f"{project.arch} for {', '.join(project.labels)}. Run 04 again."
        )
    try:
        learn.model.load_state_dict(checkpoint["model"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise FieldguideError(
            f"{path} says it is a {project.arch}, and holds other weights. Delete it and run 04 again."
        ) from error
    return learn
