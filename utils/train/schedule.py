"""
Stage 04, the learning rate: which one, how it moves while training, and what fastai's ``lr_find`` says of it.

Every schedule has fastai's two phases: one frozen epoch for the head alone, then `epochs` for all layers. The shapes
are made of fastai's own pieces (``combined_cos``, ``SchedCos``, ``combine_scheds``), so that what is drawn before
training is what trains.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from fastai.callback.schedule import ParamScheduler, SchedCos, SchedNo, combine_scheds, combined_cos, valley
from fastai.vision.all import Callback, Learner

from utils.errors import FieldguideError
from utils.project import Project

LEARNING_RATE = {"imagenet": 2e-3, "none": 1e-2}  # fastai's default; from scratch there is nothing to spoil
LAYER_RATIO = {"imagenet": 100, "none": 10}  # how much slower the first layers learn than the head; 100 is fastai's
SCHEDULES = ("one-cycle", "cyclic", "smooth")
LOWEST = 1e5  # how many times below its peak a rate ends; fastai's div_final
RISE = 0.3  # of a cycle goes up, from a fifth of the peak: fine_tune's pct_start and div
RISE_FROM = 5
MOST_CYCLES = 4
DECAY = 0.5  # each cycle's peak, as a share of the one before
FINDER_STEPS = (30, 100)  # lr_find's 100 steps cost 4 minutes on 2 cores at 224 pixels; small sets need no more than 30
SANE_RATES = (1e-5, 1e-1)  # outside, a suggestion comes from noise
LEAST_FALL = 0.05  # of the loss; a curve that falls less is flat
LEAST_POINTS = 10  # fewer show no shape


def learning_rates(project: Project) -> dict[str, float]:
    """Return `fine_tune`'s base_lr and lr_mult: gentle on pretrained layers, bolder from scratch."""
    return {"base_lr": LEARNING_RATE[project.weights], "lr_mult": LAYER_RATIO[project.weights]}


def cycle_lengths(epochs: int) -> list[int]:
    """
    Return how many epochs each cycle of the schedule "cyclic" lasts: at least two, if there are two.

    >>> cycle_lengths(4), cycle_lengths(7), cycle_lengths(12), cycle_lengths(1)
    ([2, 2], [3, 2, 2], [3, 3, 3, 3], [1])
    """
    cycles = min(MOST_CYCLES, max(1, epochs // 2))
    return [epochs // cycles + (n < epochs % cycles) for n in range(cycles)]


def frozen_phase(peak: np.ndarray | float) -> Callable:
    """Return the rate as a function of the position in [0, 1] in the frozen epoch: ``fine_tune``'s."""
    return combined_cos(0.99, peak / 25, peak, peak / LOWEST)


def whole_phase(schedule: str, epochs: int, peak: np.ndarray | float) -> Callable:
    """
    Return the rate as a function of the position in [0, 1] in the phase that trains all layers.

    Parameters
    ----------
    schedule : str
        "one-cycle": up for 30 % and down for the rest, as ``fine_tune`` does. "cyclic": up to four such cycles, each
        with half the peak of the one before (Smith 2017, "Cyclical learning rates"). "smooth": down along a cosine.
    epochs : int
    peak : float array (G,) or float
        The highest rate of each of G groups of layers.
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


def fit_phases(
    learn: Learner, epochs: int, *, schedule: str, base_lr: float, lr_mult: float, cbs: Sequence[Callback]
) -> None:
    """Train one frozen epoch, then `epochs` of all layers: ``learn.fine_tune``, or the same with another schedule."""
    cbs = list(cbs)
    if schedule == "one-cycle":
        learn.fine_tune(epochs, base_lr=base_lr, lr_mult=lr_mult, freeze_epochs=1, cbs=cbs)
        return
    learn.freeze()
    learn.fit_one_cycle(1, slice(base_lr), pct_start=0.99, cbs=cbs)
    learn.unfreeze()
    learn.opt.set_hyper("lr", slice(base_lr / 2 / lr_mult, base_lr / 2))  # fastai's spread over the groups of layers
    peak = np.array([hyper["lr"] for hyper in learn.opt.hypers])
    steady = learn.moms[0]  # fastai moves the momentum against the rate; these schedules leave it
    phases = {"lr": whole_phase(schedule, epochs, peak), "mom": SchedNo(steady, steady)}
    learn.fit(epochs, cbs=[ParamScheduler(phases), *cbs])


def planned_rates(schedule: str, epochs: int, *, steps: int, base_lr: float, lr_mult: float) -> np.ndarray:
    """
    Return the rates that `fit_phases` will train with: float array (steps · (epochs + 1), 2).

    Columns are the first layers (not a number while they are frozen) and the head; `steps` are batches an epoch.
    """
    frozen, whole = frozen_phase(base_lr), whole_phase(schedule, epochs, np.array([base_lr / 2 / lr_mult, base_lr / 2]))
    first = [(math.nan, frozen(step / steps)) for step in range(steps)]
    return np.array([*first, *(whole(step / (steps * epochs)) for step in range(steps * epochs))])


def finder_steps(learn: Learner) -> int:
    """Return how many batches ``lr_find`` should try: two epochs' worth, at least 30 and at most 100."""
    fewest, most = FINDER_STEPS
    return min(most, max(fewest, 2 * len(learn.dls.train)))


def longest_fall(rates: Sequence[float], losses: Sequence[float], steps: int) -> tuple[float, tuple[float, float]]:
    """
    Suggest a rate as fastai's ``valley`` does, or one that is not a number where the curve is no use.

    For ``lr_find(suggest_funcs=longest_fall)``, which leaves out the ends of the curve and everything after a loss
    that is no number; ``valley`` fails on what may then be left.
    """
    rate, _ = _suggestion(rates, losses)
    at = [float(loss) for other, loss in zip(rates, losses, strict=True) if float(other) == rate]
    return rate, (rate, at[0] if at else math.nan)


def _suggestion(rates: Sequence[float], losses: Sequence[float]) -> tuple[float, str]:
    """Return a rate and no words, or not a number and why."""
    rates, losses = [float(rate) for rate in rates], [float(loss) for loss in losses]
    if len(rates) < LEAST_POINTS or not np.isfinite(losses).all():
        return math.nan, "the loss was soon no number, or rose beyond measure"
    lowest = int(np.argmin(losses))
    if lowest == 0:
        return math.nan, "the loss only rose"
    if losses[0] - losses[lowest] < LEAST_FALL * losses[0]:
        return math.nan, f"its curve is flat: the loss fell by less than {LEAST_FALL:.0%}"
    if lowest == len(losses) - 1:
        return math.nan, "the loss still fell at the highest rate tried"
    rate, _ = valley(rates, losses, len(rates))
    if not SANE_RATES[0] <= rate <= SANE_RATES[1]:
        return math.nan, f"{rate:.1e} lies outside of {SANE_RATES[0]:.0e} to {SANE_RATES[1]:.0e}"
    return rate, ""


def rate_sentence(learn: Learner, *, used: float) -> str:
    """Say what ``lr_find`` suggests beside the rate that is used, or why its suggestion is ignored."""
    recorder, ends = learn.recorder, (finder_steps(learn) // 10, -5)  # what lr_find itself leaves out
    rates, losses = (values[slice(*ends)] for values in (recorder.lrs, recorder.losses))
    whole = next((n for n, loss in enumerate(losses) if math.isnan(loss)), len(losses))
    rate, why = _suggestion(rates[:whole], losses[:whole])
    if math.isnan(rate):
        return f"lr_find is no help here, and ignored: {why}. The training below uses {used:.1e}."
    return (
        f"lr_find suggests {rate:.1e}; the training below uses {used:.1e}, for so few steps tell a rate only roughly. "
        f"To take the suggestion, write base_lr={rate:.1e} below."
    )
