"""
Stage 04, a training that diverges: it stops with one sentence, and its best epoch is kept.

fastai's TerminateOnNaNCallback ends the phase in silence. Here the epoch with the lowest validation loss is put back
and saved as the round, and then the sentence comes.
"""

import torch
from fastai.callback.core import CancelFitException
from fastai.learner import Learner

from utils.errors import FieldguideError
from utils.train.curves import best_row
from utils.train.plain import PlainCallback
from utils.train.schedule import scheduled

LOWER = 10  # how many times lower a rate is advised


class Diverged(PlainCallback):
    """End the training where a loss is infinite or not a number."""

    order = 78  # after all that save and draw

    def after_batch(self):
        if self.training and not torch.isfinite(self.loss):
            self.history.failure = diverged_error(self.learn, len(self.history.rows), self.loss)
            raise CancelFitException

    def after_fit(self):
        if self.history.failure:
            raise self.history.failure


def diverged_error(learn: Learner, epoch: int, loss: torch.Tensor) -> FieldguideError:
    """Return what to say of a loss that is infinite or not a number: the rate, the optimizer and what to do."""
    frozen, best = learn.opt.frozen_idx > 0, best_row(learn.history.rows)
    became = "infinite" if torch.isinf(loss) else "not a number"
    rate, name = learn.opt.hypers[-1]["lr"], getattr(learn.opt_func, "func", learn.opt_func).__name__.lower()
    kept = f"Epoch {best['epoch']}, the best until then, is kept. " if best and not frozen else ""
    base = scheduled(learn, "lr").max() * (1 if frozen else 2)  # fine_tune halves it for all layers
    return FieldguideError(
        f"The loss of epoch {epoch} is {became} (learning rate {rate:.1e}, optimizer {name}). {kept}Set a lower rate "
        f"in the project file, such as lr = {base / LOWER:.1g}, and run 04 again."
    )
