"""
Stage 04, the callbacks that ``learn.fine_tune`` is given: what fastai lacks for a training that a person relies on.

`History` counts epochs over both phases; the others look at it. Through `Resume` a training that was stopped goes on as
if nothing had happened: same batches, same augmentations, same figures to the last digit. They are given to the call
(``cbs=``), not to the learner, so that nothing of them stays in what ``learn.export()`` writes.
"""

import random
import time
from collections.abc import Mapping
from weakref import WeakKeyDictionary

import numpy as np
import torch
from fastai.vision.all import (
    CancelEpochException,
    CancelFitException,
    Learner,
    get_random_states,
    set_random_states,
    set_seed,
)
from IPython.display import Image as InlineImage
from IPython.display import display

from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.storage import remove_leftovers, require_writable
from utils.train.checkpoint import (
    broken_state,
    goes_on,
    read_checkpoint,
    read_state,
    record_of,
    save_parts,
    save_round,
    state_path,
)
from utils.train.curves import training_curve
from utils.train.loaders import validation_view
from utils.train.plain import PlainCallback, PlainErrors, not_a_number
from utils.train.record import asked_settings, first_settings, phase_settings
from utils.train.schedule import Schedule

# The weights before the first training. As an attribute of the learner they would stand in what learn.export() writes.
STARTS: WeakKeyDictionary[Learner, dict[str, torch.Tensor]] = WeakKeyDictionary()


def training_callbacks(dataset: Dataset, *, save: bool = True) -> list[PlainCallback]:
    """
    Return the callbacks for ``learn.fine_tune(..., cbs=training_callbacks(dataset))``.

    They seed the training, keep its best epoch, save it after every epoch and go on where it was stopped, draw it,
    move the learning rate by the project's `schedule`, end it by `patience`, and say errors in one sentence. With
    ``save=False`` nothing is drawn, read or written.
    """
    project = dataset.project
    lasting = [Resume(dataset), LiveCurve()] if save else []
    own = [History(), Seed(project.seed), BestEpoch(), Patience(project.patience)]
    return [PlainErrors(), Schedule(project.schedule), *own, *lasting]


class History(PlainCallback):
    """
    Count the epochs over both phases, as fastai's table then does, and keep a row and the learning rates of each.

    A training begins with a frozen phase, or with one of all layers that follows no frozen one.
    """

    order = 51  # right after fastai's Recorder has the epoch's figures

    def __init__(self):
        self.rows: list[dict] = []
        self.figures: list[list[float]] = []  # unrounded: train loss, validation loss, accuracy
        self.rates: list[tuple[float, float]] = []  # of first layers and head, per batch
        self.half_way = False
        self.replayed: dict | None = None  # the row of an epoch that an earlier run finished
        self.note = ""  # for people

    def before_fit(self):
        """Begin anew, unless all layers train now after the head."""
        self.begins = self.opt.frozen_idx > 0 or not self.half_way
        self.half_way = False
        if self.begins:
            self.rows, self.figures, self.rates, self.note = [], [], [], ""

    def before_epoch(self):
        """Start the clock; let fastai's table count on."""
        self.replayed, self.started = None, time.perf_counter()
        self.recorder.log[0] = len(self.rows)

    def after_batch(self):
        """Note the learning rates of a training batch."""
        if self.training:
            first = float("nan") if self.opt.frozen_idx > 0 else float(self.opt.hypers[0]["lr"])
            self.rates.append((first, float(self.opt.hypers[-1]["lr"])))

    def after_epoch(self):
        """Note the epoch's figures."""
        self.figures.append([float(value) for value in self.recorder.values[-1][:3]])
        train_loss, valid_loss, share = self.figures[-1]
        row = {
            "epoch": len(self.rows),
            "phase": "frozen" if self.opt.frozen_idx > 0 else "unfrozen",
            "train_loss": round(train_loss, 6),
            "valid_loss": round(valid_loss, 6),
            "accuracy": round(share, 6),
            "lr": float(f"{self.opt.hypers[-1]['lr']:.4g}"),
            "seconds": round(time.perf_counter() - self.started, 1),
        }
        self.rows.append(self.replayed or row)

    def after_fit(self):
        """Remember whether the head alone has trained."""
        self.half_way = self.opt.frozen_idx > 0

    def since_best(self) -> int:
        """Return how many epochs have passed since the one with the lowest validation loss."""
        losses = [valid_loss for _, valid_loss, _ in self.figures]
        return len(losses) - 1 - losses.index(min(losses))


class Seed(PlainCallback):
    """
    Begin each training with the same random numbers, and with the weights that the learner had at first.

    A cell that is run twice gives the same figures. Afterwards the random numbers are those from before.
    """

    order = 53

    def __init__(self, seed: int):
        self.seed = seed

    def before_fit(self):
        """Seed all generators, at the beginning of a training only."""
        if self.history.begins:
            put_back(self.learn, first_weights(self.learn))
            self.before = get_random_states()
            set_seed(self.seed, reproducible=True)
            self.dls.train.rng = random.Random(self.seed)  # its own generator was seeded when the loader was made

    def after_fit(self):
        """Put the random numbers back when all layers have trained."""
        if self.opt.frozen_idx == 0:
            set_random_states(**self.before)


def copied_weights(learn: Learner) -> dict[str, torch.Tensor]:
    """Return the network's weights as they are now, whatever becomes of them."""
    return {name: value.detach().cpu().clone() for name, value in learn.model.state_dict().items()}


def first_weights(learn: Learner) -> dict[str, torch.Tensor]:
    """Return the weights that a learner had before its first training."""
    return STARTS.setdefault(learn, copied_weights(learn))


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
        """Forget an earlier training."""
        if self.history.begins:
            self.kept, self.lowest = None, float("inf")

    def after_epoch(self):
        """Keep the weights if the epoch is the best so far."""
        valid_loss = self.history.figures[-1][1]
        if self.history.replayed is None and valid_loss < self.lowest:
            self.kept, self.lowest = copied_weights(self.learn), valid_loss

    def after_fit(self):
        """Give the learner the best weights when all layers have trained."""
        if self.opt.frozen_idx == 0:
            if self.kept is None:
                raise not_a_number(0, self.opt.hypers[-1]["lr"])
            self.model.load_state_dict(self.kept)


class Resume(PlainCallback):
    """
    Save where a training stands after each epoch, and the round when it is complete; train nothing twice.

    Epochs that an earlier run finished with the same settings pass with their old figures. What the phase of all
    layers will be is known only when it begins: so the state between the phases is kept, too.
    """

    order = 73  # after BestEpoch

    def __init__(self, dataset: Dataset):
        self.dataset, self.saved = dataset, 0

    def before_fit(self):
        """Look for what was done already, with the settings that are known so far."""
        if self.history.begins:
            self.look_back()
        self.settings |= phase_settings(self.learn)
        matching = [kept for kept in self.found if self.fits(kept)]
        if self.opt.frozen_idx > 0:
            self.pending = next((kept["frozen"] or kept for kept in matching), None)
        else:
            whole = next((kept for kept in matching if kept["settings"].keys() == self.settings.keys()), None)
            self.stands = whole is not None and "view" in whole
            self.pending = whole or self.pending
            if whole:
                self.between = whole["frozen"]
            elif not self.history.begins:
                self.between = changed_weights(self.pending or self.state(), first_weights(self.learn))
        if self.pending:
            self.take_over(self.pending)

    def look_back(self) -> None:
        """Begin a training: see that it can be saved, and read what earlier ones left."""
        project = self.dataset.project
        if getattr(self.dls, "fingerprint", None) != self.dataset.fingerprint:
            raise FieldguideError("The DataLoaders are not those of this data set. Run 04 again from its first cell.")
        require_writable(project.models)  # better said now than after an hour of training
        remove_leftovers(project.models)
        self.asked = asked_settings(self.dataset)
        self.settings = first_settings(self.learn, self.asked)
        shapes = {name: value.shape for name, value in self.model.state_dict().items()}
        found = [read_checkpoint(project), read_state(project, shapes)]
        self.found = [kept for kept in found if kept and kept["data"] == self.dataset.fingerprint]
        self.between, self.pending, self.stands, self.saved = None, None, False, 0

    def fits(self, kept: Mapping) -> bool:
        """Return whether an earlier training has the settings that are known of this one."""
        return all(kept["settings"].get(name, self) == value for name, value in self.settings.items())

    def take_over(self, kept: Mapping) -> None:
        """Take the best epoch and the rates from an earlier run."""
        self.history.rates = [tuple(pair) for pair in kept["rates"].tolist()]
        self.best_epoch.kept = first_weights(self.learn) | dict(kept["model" if self.stands else "best"])
        self.best_epoch.lowest = min(valid_loss for _, valid_loss, _ in kept["figures"])
        self.saved = len(kept["rows"])
        if self.opt.frozen_idx == 0:
            note = f"The training was stopped and {goes_on(kept, self.n_epoch)}."
            self.history.note = "Nothing was trained: this round stands." if self.stands else note

    def before_epoch(self):
        """Pass over an epoch that is done already, or go on after the last one."""
        done = len(self.history.rows)
        if self.pending and done < len(self.pending["rows"]):
            self.history.replayed = dict(self.pending["rows"][done])
            self.recorder.log += self.pending["figures"][done]
            raise CancelEpochException
        if self.pending:
            try:
                self.restore(self.pending)
            except Exception as error:  # whatever a broken file leads to
                raise broken_state(self.dataset.project) from error
            self.pending = None

    def after_epoch(self):
        """Write resume.pth."""
        if self.history.replayed is None and self.best_epoch.kept is not None:
            save_parts(state_path(self.dataset.project), self.known() | {"frozen": self.between} | self.state())
            self.saved = len(self.history.rows)

    def after_fit(self):
        """Write the round when all layers have trained."""
        if self.opt.frozen_idx > 0:
            return
        project = self.dataset.project
        history = {"rows": self.history.rows, "figures": self.history.figures, "rates": rate_tensor(self.history.rates)}
        round_ = self.known() | history | {"labels": list(project.labels), "frozen": self.between}
        if self.stands:
            state_path(project).unlink(missing_ok=True)
        else:
            view = validation_view(self.dls)
            save_round(project, round_ | {"view": view, "model": self.model.state_dict()})
        self.learn.record = record_of(self.dataset, round_)

    def known(self) -> dict:
        """Return to which training a file belongs."""
        return {"data": self.dataset.fingerprint, "settings": dict(self.settings), "asked": self.asked}

    def state(self) -> dict:
        """Return everything that the next epoch depends on, as plain values and tensors."""
        smooth, states = self.recorder.smooth_loss, get_random_states()  # a schedule sets the rest of the optimizer
        kind, numbers, *rest = states.pop("numpy_state")
        scaler = getattr(self.learn, "scaler", None)  # of mixed precision
        model = self.model.state_dict()
        return {
            "rows": list(self.history.rows),
            "figures": list(self.history.figures),
            "rates": rate_tensor(self.history.rates),
            "best": self.best_epoch.kept if self.history.since_best() else model,  # the same tensors are written once
            "model": model,
            "optimizer": [dict(state) for state in self.opt.state_dict()["state"]],
            "smooth": (smooth.count, float(smooth.val)),
            "random": states | {"numpy_state": (kind, numbers.tolist(), *rest)},
            "batches": self.dls.train.rng.getstate(),
            "scaler": scaler.state_dict() if scaler else {},
        }

    def restore(self, kept: Mapping) -> None:
        """Put the learner and all random generators into the state in which an earlier run left them."""
        smooth = self.recorder.smooth_loss
        self.model.load_state_dict(first_weights(self.learn) | dict(kept["model"]))
        if self.epoch > 0:  # else a phase begins, as fastai begins it: with an optimizer that remembers nothing
            for (parameter, *_), state in zip(self.opt.all_params(), kept["optimizer"], strict=True):
                self.opt.state[parameter] = {name: _moved(value, parameter) for name, value in state.items()}
            smooth.count, smooth.val = kept["smooth"][0], torch.tensor(kept["smooth"][1])
            if kept.get("scaler"):
                self.learn.scaler.load_state_dict(kept["scaler"])
        kind, numbers, *rest = kept["random"]["numpy_state"]
        set_random_states(**kept["random"] | {"numpy_state": (kind, np.array(numbers, dtype=np.uint32), *rest)})
        self.dls.train.rng = random.Random()
        self.dls.train.rng.setstate(kept["batches"])


def changed_weights(state: Mapping, first: Mapping[str, torch.Tensor]) -> dict:
    """Return a state between the phases with those weights alone that changed: most of the network was frozen."""
    parts = {part: {name: value.cpu().clone() for name, value in state[part].items()} for part in ("model", "best")}
    for weights in parts.values():
        for name in [name for name, value in weights.items() if torch.equal(value, first[name])]:
            del weights[name]
    return dict(state) | parts | {"optimizer": []}


def rate_tensor(rates: list[tuple[float, float]]) -> torch.Tensor:
    """Return learning rates as a tensor (N, 2)."""
    return torch.tensor(rates, dtype=torch.float64).reshape(-1, 2)


def _moved(value, parameter: torch.Tensor):
    """Return what the optimizer remembers of a parameter on the parameter's device, or refuse another shape."""
    if not isinstance(value, torch.Tensor):
        return value
    if value.shape != parameter.shape:
        raise ValueError(f"a state of shape {tuple(value.shape)} for a parameter of shape {tuple(parameter.shape)}")
    return value.to(parameter.device)


class LiveCurve(PlainCallback):
    """Draw losses, accuracy and learning rate after each epoch, in place of the picture before."""

    order = 75

    def before_fit(self):
        """Begin with no picture."""
        if self.history.begins:
            self.shown = None

    def after_epoch(self):
        """Draw what is new."""
        if self.history.replayed is None:
            self.draw()

    def after_fit(self):
        """Draw a round that stands, too, and say so."""
        if self.opt.frozen_idx == 0:
            if self.shown is None:
                self.draw()
            if self.history.note:
                print(self.history.note)

    def draw(self):
        """Show the curve."""
        rates = np.array(self.history.rates).reshape(-1, 2)
        picture = InlineImage(training_curve(self.history.rows, rates, title=self.history.note))
        if self.shown is None:
            self.shown = display(picture, display_id=True)
        else:
            self.shown.update(picture)


class Patience(PlainCallback):
    """
    End a phase after so many epochs without a lower validation loss; 0 never does.

    fastai's EarlyStoppingCallback counts anew in each phase, and names the wrong epoch.
    """

    order = 77  # after the epoch is saved and drawn

    def __init__(self, patience: int):
        self.patience = patience

    def after_epoch(self):
        """Count."""
        if 0 < self.patience <= self.history.since_best():
            raise CancelFitException
