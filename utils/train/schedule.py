"""
Stage 04, the learning rate: how high it is, and how it moves while training.

Every schedule has the two phases of fastai's ``fine_tune``: the head alone, then all layers. The shapes are made of
fastai's own pieces (``combined_cos``, ``SchedCos``, ``combine_scheds``).
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from fastai.callback.schedule import SchedCos, SchedNo, combine_scheds, combined_cos
from fastai.optimizer import SGD, Adam
from fastai.vision.all import Learner

from utils.errors import FieldguideError
from utils.project import Project
from utils.train.plain import PlainCallback

LAYER_RATIO = {"pretrained": 100, "none": 10}  # how much slower the first layers learn than the head; 100 is fastai's
SCHEDULES = ("one-cycle", "cyclic", "smooth")
LOWEST = 1e5  # how many times below its peak a rate ends; fastai's div_final
RISE = 0.3  # of a cycle goes up, from a fifth of the peak: fine_tune's pct_start and div
RISE_FROM = 5
MOST_CYCLES = 4
DECAY = 0.5  # each cycle's peak, as a share of the one before
WEIGHT_DECAY = 0.01  # what fastai's Adam has; its SGD has none
MOMENTA = (0.85, 0.95)  # fastai moves the momentum against the rate, between these
POSITIONS = np.linspace(0, 1, 101)  # of a phase, where a schedule is looked at


def learning_rates(project: Project) -> dict[str, float]:
    """
    Return ``fine_tune``'s base_lr, lr_mult and freeze_epochs.

    Where the project file leaves the rate to 04, it is gentle on pretrained layers and bolder from scratch.
    """
    ratio = LAYER_RATIO["none" if project.weights == "none" else "pretrained"]
    return {"base_lr": project.base_lr, "lr_mult": ratio, "freeze_epochs": project.freeze_epochs}


def optimizer(project: Project) -> Callable:
    """
    Return the function that makes the project's optimizer, for ``vision_learner(opt_func=...)``.

    fastai's ``SGD`` has no momentum unless it is made with one: the schedule would move a number that nobody reads.
    """
    return Adam if project.optimizer == "adam" else partial(SGD, mom=MOMENTA[1], wd=WEIGHT_DECAY)


def cycle_lengths(epochs: int) -> list[int]:
    """
    Return how many epochs each cycle of the schedule "cyclic" lasts: at least two, if there are two.

    >>> cycle_lengths(7), cycle_lengths(12), cycle_lengths(1)
    ([3, 2, 2], [3, 3, 3, 3], [1])
    """
    cycles = min(MOST_CYCLES, max(1, epochs // 2))
    return [epochs // cycles + (n < epochs % cycles) for n in range(cycles)]


def frozen_phase(peak: np.ndarray | float) -> Callable:
    """Return the rate as a function of the position in [0, 1] in the frozen phase: ``fine_tune``'s."""
    return combined_cos(0.99, peak / 25, peak, peak / LOWEST)


def whole_phase(schedule: str, epochs: int, peak: np.ndarray | float) -> Callable:
    """
    Return the rate as a function of the position in [0, 1] in the phase that trains all layers.

    "one-cycle": up for 30 % and down for the rest, as ``fine_tune`` does. "cyclic": up to four such cycles, each with
    half the peak of the one before (Smith 2017, "Cyclical learning rates"). "smooth": down along a cosine. `peak` is
    the highest rate, of each group of layers or of one.
    """
    if schedule == "smooth":
        return SchedCos(peak, peak / LOWEST)
    if schedule == "cyclic":
        lengths = cycle_lengths(epochs)
        shares = [length / epochs for length in lengths[:-1]]
        tops = [peak * DECAY**n for n in range(len(lengths))]
        waves = [combined_cos(RISE, top / RISE_FROM, top, top / LOWEST) for top in tops]
        return combine_scheds([*shares, 1 - sum(shares)], waves)
    if schedule == "one-cycle":
        return combined_cos(RISE, peak / RISE_FROM, peak, peak / LOWEST)
    raise FieldguideError(f"schedule = {schedule!r} is unknown. Write one of {', '.join(SCHEDULES)}.")


class Schedule(PlainCallback):
    """Replace the one-cycle schedule that ``learn.fine_tune`` gives to all layers; the frozen phase keeps it."""

    order = 55  # before fastai's ParamScheduler begins

    def __init__(self, schedule: str):
        self.schedule = schedule

    def before_fit(self):
        """Put the other schedule into fastai's scheduler; the momentum then stays where it is."""
        if self.schedule != "one-cycle" and self.opt.frozen_idx == 0:
            peak, steady = scheduled(self.learn, "lr").max(0), self.moms[0]
            rates = whole_phase(self.schedule, self.n_epoch, peak)
            self.param_scheduler.scheds = {"lr": rates, "mom": SchedNo(steady, steady)}


def scheduled(learn: Learner, name: str) -> np.ndarray:
    """Return how a fit is about to move a hyperparameter: float array (101, G), for each of G groups of layers."""
    now = [hypers[name] for hypers in learn.opt.hypers]
    scheduler = getattr(learn, "param_scheduler", None)
    move = scheduler.scheds.get(name) if scheduler else None
    return np.array([np.broadcast_to(move(at) if move else now, len(now)) for at in POSITIONS], dtype=float)


def schedule_name(learn: Learner) -> str:
    """Return the name of the schedule that a fit is about to follow, or how else it moves the learning rate."""
    rates, momentum = (scheduled(learn, name)[:, -1] for name in ("lr", "mom"))
    own = getattr(learn, "schedule", None)
    name = own.schedule if own and learn.opt.frozen_idx == 0 else "one-cycle"
    plan = frozen_phase(1.0) if learn.opt.frozen_idx > 0 else whole_phase(name, learn.n_epoch, 1.0)
    usual = np.allclose(rates / rates.max(), [float(plan(at)) for at in POSITIONS], rtol=1e-3)
    lowest = MOMENTA[0] if name == "one-cycle" else MOMENTA[1]
    if usual and np.allclose([momentum.min(), momentum.max()], [lowest, MOMENTA[1]]):
        return name
    shares = ", ".join(f"{share:.0%}" for share in (rates / rates.max())[::20])
    return f"{shares} of the rate, with a momentum of {momentum.min():.2g} to {momentum.max():.2g}"


def planned_rates(
    schedule: str, epochs: int, *, steps: int, base_lr: float, lr_mult: float, freeze_epochs: int = 1
) -> np.ndarray:
    """
    Return the rates that ``fine_tune`` will train with: float array (steps · (freeze_epochs + epochs), 2).

    Columns are the first layers (not a number while they are frozen) and the head; `steps` are batches per epoch.
    """
    frozen, whole = frozen_phase(base_lr), whole_phase(schedule, epochs, np.array([base_lr / 2 / lr_mult, base_lr / 2]))
    first = [(math.nan, frozen(step / (steps * freeze_epochs))) for step in range(steps * freeze_epochs)]
    return np.array([*first, *(whole(step / (steps * epochs)) for step in range(steps * epochs))])
