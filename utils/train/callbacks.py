"""
Stage 04, the callbacks that ``learn.fine_tune`` is given: what fastai lacks for a training that a person relies on.

`History` counts epochs over both phases; the others look at it. They are given to the call (``cbs=``), not to the
learner, so that nothing of them stays in what ``learn.export()`` writes.
"""

import math
import random
import sys
import time
from collections.abc import Mapping
from weakref import WeakKeyDictionary

import numpy as np
import torch
from fastai.callback.core import CancelEpochException, CancelFitException
from fastai.learner import Learner
from fastai.torch_core import get_random_states, set_random_states, set_seed, to_device
from IPython.display import Image as InlineImage
from IPython.display import display

from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.storage import remove_leftovers, require_writable
from utils.train.cache import Cache, keep_in_memory
from utils.train.checkpoint import (
    OF_PROCESSES,
    STATE,
    broken_state,
    goes_on,
    read_checkpoint,
    read_state,
    record_of,
    save_parts,
    save_round,
)
from utils.train.curves import best_row, training_curve
from utils.train.device import KeepMemory
from utils.train.distributed import ShareBatches, ShareGradients
from utils.train.diverging import Diverged, diverged_error
from utils.train.gpu_cache import keep_on_gpu
from utils.train.loaders import validation_view
from utils.train.plain import PlainCallback, PlainErrors
from utils.train.processes import Group
from utils.train.record import asked_settings, digits, first_settings, phase_settings
from utils.train.schedule import Schedule

HOUR = 3600  # seconds
KEEPERS = {"memory": keep_in_memory, "gpu": keep_on_gpu}  # `cache` → what decodes the pictures
# The weights before the first training. As an attribute of the learner they would stand in what learn.export() writes.
STARTS: WeakKeyDictionary[Learner, dict[str, torch.Tensor]] = WeakKeyDictionary()


def training_callbacks(
    dataset: Dataset, *, save: bool = True, group: Group | None = None, pieces: int = 1
) -> list[PlainCallback]:
    """
    Return callbacks for ``learn.fine_tune(..., cbs=...)``; with ``save=False`` nothing is drawn, read or written.

    With a `group`, even of one process, no curve is drawn while it trains. `pieces` are what each process makes of its
    part of a batch.
    """
    project = dataset.project
    shared = {"processes": group.count if group else 1, "pieces": pieces}
    shared = {name: value for name, value in shared.items() if value > 1}
    lasting = [Resume(dataset, shared, writes=not group or group.first)] if save else []
    lasting += [LiveCurve()] if save and not group else []
    lasting += [Cache(KEEPERS[project.cache])] if project.cache in KEEPERS else []
    if shared:
        lasting += [ShareBatches(dataset, group, pieces=pieces), ShareGradients(project.seed, group, pieces=pieces)]
    own = [KeepMemory(), History(), Seed(project.seed), BestEpoch(), Diverged(), Patience(project.patience)]
    return [PlainErrors(), Schedule(project.schedule), *own, *lasting]


class History(PlainCallback):
    """
    Count the epochs over both phases, as fastai's table then does, and keep each one's row and learning rates.

    A training begins with a frozen phase, or with one of all layers that follows no frozen one.
    """

    order = 51  # right after fastai's Recorder has the epoch's figures

    def __init__(self):
        self.half_way = False  # the head has trained
        self.failure: FieldguideError | None = None  # why the training has to end
        self.replayed: dict | None = None  # the row of an epoch that an earlier run finished

    def before_fit(self):
        if "accuracy" not in self.recorder.metric_names:
            raise FieldguideError("04 needs metrics=accuracy in vision_learner; put others into a list behind it.")
        if self.opt.frozen_idx > 0 and not called_by("fine_tune"):
            raise FieldguideError("Only the head would train, and nothing be kept. Call learn.unfreeze() first.")
        if self.n_epoch == 0:  # fine_tune(freeze_epochs=0): all layers follow, and are the beginning
            raise CancelFitException
        self.begins = self.opt.frozen_idx > 0 or not self.half_way
        self.half_way = False
        if self.begins:
            self.rows: list[dict] = []
            self.figures: list[list[float]] = []  # unrounded: train loss, validation loss, accuracy
            self.rates: list[tuple[float, float]] = []  # of first layers and head, per batch
            self.note, self.failure = "", None  # the note is for people

    def before_epoch(self):
        self.replayed, self.started = None, time.perf_counter()
        self.recorder.log[0] = len(self.rows)

    def after_batch(self):
        if self.training:
            first = float("nan") if self.opt.frozen_idx > 0 else float(self.opt.hypers[0]["lr"])
            self.rates.append((first, float(self.opt.hypers[-1]["lr"])))

    def after_epoch(self):
        told = dict(zip(self.recorder.metric_names[1:], self.recorder.values[-1], strict=False))
        self.figures.append([float(told[name]) for name in ("train_loss", "valid_loss", "accuracy")])
        losses_and_share = (round(value, 6) for value in self.figures[-1])
        row = {
            "epoch": len(self.rows),
            "phase": "frozen" if self.opt.frozen_idx > 0 else "unfrozen",
            **dict(zip(("train_loss", "valid_loss", "accuracy"), losses_and_share, strict=True)),
            "lr": digits(self.opt.hypers[-1]["lr"]),
            "seconds": round(time.perf_counter() - self.started, 1),
        }
        self.rows.append(self.replayed or row)

    def after_fit(self):
        self.half_way = self.opt.frozen_idx > 0 and self.n_epoch > 0

    def since_best(self) -> int:
        """Return how many epochs have passed since that of the lowest validation loss; 0 where none is a number."""
        best = best_row(self.rows)
        return len(self.rows) - 1 - self.rows.index(best) if best else 0


def called_by(name: str) -> bool:
    """Return whether a function of this name is at work now."""
    frame = sys._getframe()
    while frame and frame.f_code.co_name != name:
        frame = frame.f_back
    return frame is not None


class Seed(PlainCallback):
    """Begin each training with the same random numbers and weights; afterwards the random numbers are those before."""

    order = 53

    def __init__(self, seed: int):
        self.seed = seed

    def before_fit(self):
        if self.history.begins:
            put_back(self.learn, first_weights(self.learn))
            self.before = get_random_states()
            set_seed(self.seed, reproducible=True)
            self.dls.train.rng = random.Random(self.seed)  # its own generator was seeded when the loader was made

    def after_fit(self):
        if self.opt.frozen_idx == 0:
            set_random_states(**self.before)


def copied_weights(learn: Learner) -> dict[str, torch.Tensor]:
    """Return the network's weights as they are now, whatever becomes of them."""
    return {name: value.detach().cpu().clone() for name, value in learn.model.state_dict().items()}


def first_weights(learn: Learner) -> dict[str, torch.Tensor]:
    """Return the weights that a learner had before its first training."""
    if learn not in STARTS:
        STARTS[learn] = copied_weights(learn)
    return STARTS[learn]


def put_back(learn: Learner, weights: Mapping[str, torch.Tensor]) -> None:
    """Give the network these weights and no gradients: by those of zero, too, weight decay shrinks frozen layers."""
    learn.model.load_state_dict(weights)
    for parameter in learn.model.parameters():
        parameter.grad = None


class BestEpoch(PlainCallback):
    """
    End a training with the weights of the epoch with the lowest validation loss, in whichever phase.

    fastai's SaveModelCallback forgets the frozen phase. On few validation pictures the choice is noisy.
    """

    order = 71

    def before_fit(self):
        if self.history.begins:
            self.kept, self.lowest = None, float("inf")

    def after_epoch(self):
        valid_loss = self.history.figures[-1][1]
        if self.history.replayed is None and valid_loss < self.lowest:
            self.kept, self.lowest = copied_weights(self.learn), valid_loss

    def after_fit(self):
        if self.opt.frozen_idx == 0:
            if self.kept is None:  # the training loss was a number, the validation loss never
                raise self.history.failure or diverged_error(self.learn, 0, torch.tensor(float("nan")))
            self.model.load_state_dict(self.kept)


class Resume(PlainCallback):
    """
    Save where a training stands after each epoch, and the round when it is complete; train nothing twice.

    Epochs that an earlier run finished with the same settings pass with their old figures. Then the training goes on as
    if it had never stopped: same batches, same augmentations, same figures to the last digit. What the phase of all
    layers will be is known only when it begins, so the state between the phases is kept, too.
    """

    order = 73  # after BestEpoch

    def __init__(self, dataset: Dataset, shared: Mapping[str, int], *, writes: bool):
        self.dataset, self.shared, self.writes, self.saved = dataset, shared, writes, 0

    def before_fit(self):
        if self.history.begins:
            self.look_back()
        self.settings |= phase_settings(self.learn)
        matching = [kept for kept in self.found if self.settings.items() <= kept["settings"].items()]
        if self.opt.frozen_idx > 0:
            self.pending = next((kept["frozen"] or kept for kept in matching), None)
        else:
            whole = matching[0] if matching else None
            self.pending, self.stands = whole or self.pending, bool(whole) and "view" in whole
            if not self.history.begins:
                self.between = whole["frozen"] if whole else self.slim(self.pending or self.state())
            # Only now: a training goes on, or stands, with any number of processes.
            told = whole["settings"] if self.stands else self.shared
            self.settings |= {name: told[name] for name in OF_PROCESSES if name in told}
        if self.pending:
            self.take_over(self.pending)

    def look_back(self) -> None:
        """Begin a training: see that it can be saved, and read what earlier ones left."""
        project = self.dataset.project
        if getattr(self.dls, "fingerprint", None) != self.dataset.fingerprint:
            raise FieldguideError("The DataLoaders are not those of this data set. Run 04 again from its first cell.")
        if self.writes:
            require_writable(project.network)  # better said now than after an hour of training
            # Younger ones may be another notebook's, still at it.
            remove_leftovers(project.network, below=False, older=HOUR)
        self.asked = asked_settings(self.dataset)
        self.settings = first_settings(self.learn, self.asked)
        found = [read_checkpoint(project), read_state(project, first_weights(self.learn))]
        self.found = [kept for kept in found if kept and kept["data"] == self.dataset.fingerprint]
        self.between, self.pending, self.stands, self.saved = None, None, False, 0

    def take_over(self, kept: Mapping) -> None:
        """Take the best epoch and the rates from an earlier run."""
        self.history.rates = [tuple(pair) for pair in kept["rates"].tolist()]
        known = [loss for _, loss, _ in kept["figures"] if math.isfinite(loss)]
        self.best_epoch.lowest = min(known, default=math.inf)
        if known:  # else no epoch was any good so far
            self.best_epoch.kept = first_weights(self.learn) | dict(kept["model" if self.stands else "best"])
        self.saved = len(kept["rows"])
        goes = f"The training was stopped and {goes_on(kept)}."
        self.history.note = "Nothing was trained: this round stands." if self.stands else goes

    def before_epoch(self):
        done = len(self.history.rows)
        if self.pending and done < len(self.pending["rows"]):
            self.history.replayed = dict(self.pending["rows"][done])
            told = dict(zip(("train_loss", "valid_loss", "accuracy"), self.pending["figures"][done], strict=True))
            self.recorder.log += [told.get(name) for name in self.recorder.metric_names[1:-1]]
            raise CancelEpochException
        if self.pending:
            try:
                self.restore(self.pending)
            except Exception as error:  # whatever a broken file leads to
                raise broken_state(self.dataset.project) from error
            self.pending = None

    def after_epoch(self):
        if self.history.replayed is None and self.best_epoch.kept is not None:
            if self.writes:
                save_parts(self.dataset.project.network / STATE, self.state())
            self.saved = len(self.history.rows)

    def after_fit(self):
        if self.opt.frozen_idx == 0:
            project = self.dataset.project
            if not self.stands and self.writes:
                last = {"labels": list(project.labels), "view": validation_view(self.dls)}
                save_round(project, self.so_far() | last | {"model": self.model.state_dict()})
                (project.network / STATE).unlink(missing_ok=True)
            self.learn.record = record_of(self.dataset, self.so_far())

    def so_far(self) -> dict:
        """Return to which training a file belongs, and its history."""
        rates = torch.tensor(self.history.rates, dtype=torch.float64).reshape(-1, 2)
        history = {"rows": list(self.history.rows), "figures": list(self.history.figures), "rates": rates}
        known = {"data": self.dataset.fingerprint, "settings": dict(self.settings), "asked": self.asked}
        return known | history | {"frozen": self.between}

    def state(self) -> dict:
        """Return everything that the next epoch depends on, as plain values and tensors."""
        smooth, states = self.recorder.smooth_loss, get_random_states()
        kind, numbers, *rest = states.pop("numpy_state")
        scaler = getattr(self.learn, "scaler", None)  # of mixed precision
        model = self.model.state_dict()
        return self.so_far() | {
            "best": self.best_epoch.kept if self.history.since_best() else model,  # the same tensors are written once
            "model": model,
            "optimizer": [dict(state) for state in self.opt.state_dict()["state"]],  # a schedule sets the rest
            "smooth": (smooth.count, float(smooth.val)),
            "random": states | {"numpy_state": (kind, numbers.tolist(), *rest)},
            "batches": self.dls.train.rng.getstate(),
            "scaler": scaler.state_dict() if scaler else {},
        }

    def slim(self, state: Mapping) -> dict:
        """Return a state between the phases with only the weights that changed: most of the network was frozen."""
        first, slim = first_weights(self.learn), dict(state) | {"optimizer": []}
        for part in ("model", "best"):
            changed = {name: value.cpu() for name, value in state[part].items()}
            slim[part] = {name: value.clone() for name, value in changed.items() if not torch.equal(value, first[name])}
        return slim

    def restore(self, kept: Mapping) -> None:
        """Put the learner and all random generators into the state in which an earlier run left them."""
        smooth = self.recorder.smooth_loss
        self.model.load_state_dict(first_weights(self.learn) | dict(kept["model"]))
        if self.epoch > 0:  # else a phase begins, as fastai begins it: with an optimizer that remembers nothing
            for (parameter, *_), state in zip(self.opt.all_params(), kept["optimizer"], strict=True):
                self.opt.state[parameter] = to_device(dict(state), parameter.device)
            smooth.count, smooth.val = kept["smooth"][0], torch.tensor(kept["smooth"][1])
            if kept["scaler"]:
                self.learn.scaler.load_state_dict(kept["scaler"])
        kind, numbers, *rest = kept["random"]["numpy_state"]
        set_random_states(**kept["random"] | {"numpy_state": (kind, np.array(numbers, dtype=np.uint32), *rest)})
        self.dls.train.rng = random.Random()
        self.dls.train.rng.setstate(kept["batches"])


class LiveCurve(PlainCallback):
    """Draw losses, accuracy and learning rate after each epoch, in place of the picture before."""

    order = 75

    def before_fit(self):
        if self.history.begins:
            self.shown = None

    def after_epoch(self):
        if self.history.replayed is None:
            self.draw()

    def after_fit(self):
        if self.opt.frozen_idx == 0:
            if self.shown is None:  # a round that stands
                self.draw()
            if self.history.note:
                print(self.history.note)

    def draw(self) -> None:
        """Show the curve."""
        rates = np.array(self.history.rates).reshape(-1, 2)
        picture = InlineImage(training_curve(self.history.rows, rates, title=self.history.note))
        if self.shown is None:
            self.shown = display(picture, display_id=True)
        else:
            self.shown.update(picture)


class Patience(PlainCallback):
    """End a phase after so many epochs without a lower validation loss, counted over both phases; 0 never does."""

    order = 77  # after the epoch is saved and drawn

    def __init__(self, patience: int):
        self.patience = patience

    def after_epoch(self):
        if 0 < self.patience <= self.history.since_best():
            raise CancelFitException
