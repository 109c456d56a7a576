"""
Stage 04, a look at ``lr_find``: what it suggests, said in a sentence, or why it is not listened to.

Reads learner.pth, to know whether the model stands; writes nothing.
"""

import math
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from fastai.callback.schedule import valley
from fastai.vision.all import Learner, no_random

from utils.dataset import Dataset
from utils.train.callbacks import copied_weights, put_back
from utils.train.checkpoint import is_current, read_checkpoint
from utils.train.plain import plain_errors
from utils.train.schedule import learning_rates

FINDER_STEPS = (30, 100)  # lr_find's 100 steps cost 4 minutes on 2 cores at 224 pixels; small sets need no more than 30
SANE_RATES = (1e-5, 1e-1)  # outside, a suggestion comes from noise
LEAST_FALL = 0.05  # of the loss; a curve that falls less is flat
LEAST_POINTS = 10  # fewer show no shape


def look_for_rate(dataset: Dataset, learn: Learner) -> str:
    """Run fastai's ``learn.lr_find``, unless it takes longer than the training, and say what it suggests."""
    project, steps, found = dataset.project, finder_steps(learn), []
    whole = len(learn.dls.train) * (project.freeze_epochs + project.epochs)
    if project.train == "head":
        return 'lr_find is left out: with train = "head" no rate is needed.'
    uses = f"The training below uses {learning_rates(project)['base_lr']:.1e}."
    if is_current(dataset, read_checkpoint(project)):
        return f"lr_find is left out: there is a model already. {uses}"
    if steps > whole:
        return f"lr_find is left out: it would take {steps} steps, and the whole training takes {whole}. {uses}"

    def longest_fall(rates, losses, _) -> tuple[float, tuple[float, float]]:
        rate, why = suggestion(rates, losses)
        found.append((rate, why))
        return rate, (rate, math.nan if why else float(losses[rates == rate][0]))

    with undisturbed(learn, seed=project.seed):
        learn.lr_find(num_it=steps, suggest_funcs=longest_fall)
    rate, why = found[0]
    if why:
        return f"lr_find does not help here and is ignored: {why}. {uses}"
    return f"lr_find suggests {rate:.1e}, roughly: its steps are few. {uses} To follow it, set lr = {rate:.1e}."


@contextmanager
def undisturbed(learn: Learner, *, seed: int = 42) -> Iterator[None]:
    """
    Let ``lr_find`` train for a moment, and leave everything that the training depends on as it was.

    fastai puts the weights back, unless it fails. It leaves gradients behind, uses up random numbers, needs a folder,
    and may fail after ``fine_tune``.
    """
    weights, loader = copied_weights(learn), learn.dls.train
    before = learn.opt, learn.path, learn.model_dir, loader.rng
    with tempfile.TemporaryDirectory() as folder, no_random(seed), plain_errors(learn.dls):
        learn.opt, learn.path, learn.model_dir = None, Path(folder), "."
        loader.rng = random.Random(seed)
        try:
            yield
        finally:
            learn.opt, learn.path, learn.model_dir, loader.rng = before
            put_back(learn, weights)


def finder_steps(learn: Learner) -> int:
    """Return how many batches ``lr_find`` should try: two epochs' worth, at least 30 and at most 100."""
    fewest, most = FINDER_STEPS
    return min(most, max(fewest, 2 * len(learn.dls.train)))


def suggestion(rates: Sequence[float], losses: Sequence[float]) -> tuple[float, str]:
    """Return the rate that fastai's ``valley`` suggests and "", or "not a number" and why the curve says nothing."""
    rates, losses = [float(rate) for rate in rates], [float(loss) for loss in losses]
    if len(rates) < LEAST_POINTS or not np.isfinite(losses).all():
        return math.nan, "the loss was soon not a number, or rose beyond measure"
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
