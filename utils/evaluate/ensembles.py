"""
Ensembles: what is the average of several networks worth, against one of them? For stage 05, with ``ensemble``.

All networks judge the same photos of the validation set, so they are compared photo by photo. Their scores are caught
while the average is judged: nothing is calculated twice.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax

from utils.averaging import networks_in
from utils.dataset import Dataset
from utils.evaluate.caught import Caught
from utils.evaluate.rounds import coded, paired_difference
from utils.evaluate.scores import LEAST
from utils.intervals import Figure
from utils.words import counted, rounded


class CaughtScores(Caught):
    """A context in which whatever a learner judges leaves the scores of each network that it averages."""

    def __init__(self, learn):
        super().__init__(networks_in(learn.model), made=True)

    def rows(self) -> np.ndarray:
        """Return the scores of the N pictures judged so far by each of M networks: float array (N, M, K)."""
        return torch.stack([torch.cat(its) for its in self.batches], 1).double().numpy()


def ensemble_figures(dataset: Dataset, valid: pd.DataFrame, scores: np.ndarray) -> dict:
    """
    Return what the average of M networks is worth on N pictures against one of them, in the mean, and the first.

    `valid` are the predictions of the average, `scores` (N, M, K) those of each network. The dict holds ``networks``
    (M), and for ``accuracy`` (a fraction) and ``log_loss`` (nats) the value of the ``average``, the values of ``each``
    network, and as figures with 95 % intervals by group ``over_one``: average − mean of the M, and ``over_first``.
    """
    labels, probs = coded(valid)  # (N,), (N, K)
    groups, own = [dataset[id].group for id in valid.id], np.arange(len(labels))
    single = softmax(scores, axis=2)
    measured = {
        "accuracy": (probs.argmax(1) == labels, single.argmax(2) == labels[:, None]),
        "log_loss": (
            -np.log(np.clip(probs[own, labels], LEAST, 1)),
            -np.log(np.clip(single[own, :, labels], LEAST, 1)),
        ),
    }
    found: dict = {"networks": scores.shape[1]}
    for name, (average, each) in measured.items():
        average, each = average.astype(float), each.astype(float)  # (N,), (N, M)
        found[name] = {
            "average": round(float(average.mean()), 6),
            "each": [round(float(value), 6) for value in each.mean(0)],
            "over_one": paired_difference(average - each.mean(1), groups, seed=dataset.project.seed),
            "over_first": paired_difference(average - each[:, 0], groups, seed=dataset.project.seed),
        }
    return found


def ensemble_sentence(found: Mapping) -> str:
    """Return in words what `ensemble_figures` found."""
    accuracy, loss = found["accuracy"], found["log_loss"]
    mean, mean_loss = np.mean(accuracy["each"]), np.mean(loss["each"])
    return (
        f"The average of {found['networks']} networks is right for {rounded(accuracy['average'], 1)} of "
        f"{counted(accuracy['over_one']['n'], 'photo')} of the validation set, one of them in the mean for "
        f"{rounded(mean, 1)}: {_in_points(accuracy['over_one'])}. Log loss (0 is perfect): {loss['average']:.3f}, of "
        f"one {mean_loss:.3f}: {_in_nats(loss['over_one'])}. "
        f"Against the first alone: {_in_points(accuracy['over_first'])}; log loss {_in_nats(loss['over_first'])}."
    )


def _in_points(gain: Figure) -> str:
    """Return what is gained in accuracy, in percentage points, with its interval and whether that helps."""
    value, low, high = (None if gain[end] is None else 100 * gain[end] for end in ("value", "low", "high"))
    if low is None:
        return f"{value:+.1f} points"
    return f"{value:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}, {_figure_told(low, high)})"


def _in_nats(gain: Figure) -> str:
    """Return what is gained in log loss, where less is better, with its interval and whether that helps."""
    value, low, high = (gain[end] for end in ("value", "low", "high"))
    if low is None:
        return f"{value:+.3f}"
    return f"{value:+.3f} (95 % interval {low:+.3f} to {high:+.3f}, {_figure_told(-high, -low)})"


def _figure_told(low: float, high: float) -> str:
    """Return in words what an interval of a gain says."""
    return "it helps" if low > 0 else "it harms" if high < 0 else "not shown to help"
