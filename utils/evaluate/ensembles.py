"""
Ensembles: what is the average of several networks worth, against one of them? For stage 05, with ``ensemble``.

All networks judge the same photos of the validation set, so they are compared photo by photo. Their scores are caught
while the average is judged: nothing is calculated twice.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax

from utils.averaging import networks_in
from utils.dataset import Dataset
from utils.evaluate.rounds import coded, paired_difference
from utils.evaluate.scores import LEAST
from utils.intervals import Figure
from utils.words import counted, rounded


class CaughtScores:
    """A context in which whatever a learner judges leaves the scores of each network that it averages."""

    def __init__(self, learn):
        self._networks, self._scores = networks_in(learn.model), []

    def __enter__(self) -> "CaughtScores":
        self._scores = [[] for _ in self._networks]
        self._hooks = [
            network.register_forward_hook(lambda layer, given, made, its=its: its.append(made.detach().cpu()))
            for network, its in zip(self._networks, self._scores, strict=True)
        ]
        return self

    def __exit__(self, *raised) -> None:
        for hook in self._hooks:
            hook.remove()

    def rows(self) -> np.ndarray:
        """Return the scores of the N pictures judged so far by each of M networks: float array (N, M, K)."""
        return torch.stack([torch.cat(its) for its in self._scores], 1).double().numpy()


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
    gain, share = accuracy["over_one"], partial(rounded, digits=1)
    told = ", not shown to help"
    if gain["low"] is not None and (gain["low"] > 0 or gain["high"] < 0):
        told = ", it helps" if gain["low"] > 0 else ", it harms"
    return (
        f"On {counted(gain['n'], 'photo')} of the validation set the average of {found['networks']} networks is right "
        f"for {share(accuracy['average'])}, one of them in the mean for {share(np.mean(accuracy['each']))}: "
        f"{_in_points(gain)}{told}. The first alone is right for {share(accuracy['each'][0])}: "
        f"{_in_points(accuracy['over_first'])}. Log loss (0 is perfect): {loss['average']:.3f}, one in the mean "
        f"{np.mean(loss['each']):.3f}: {_in_nats(loss['over_one'])}; the first {loss['each'][0]:.3f}: "
        f"{_in_nats(loss['over_first'])}."
    )


def _in_points(gain: Figure) -> str:
    """Return a difference of two shares in percentage points, with its interval."""
    value, low, high = (None if gain[key] is None else 100 * gain[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} points" + ("" if low is None else f" (95 % interval {low:+.1f} to {high:+.1f})")


def _in_nats(gain: Figure) -> str:
    """Return a difference of two losses, with its interval."""
    value, low, high = (gain[key] for key in ("value", "low", "high"))
    return f"{value:+.3f}" + ("" if low is None else f" (95 % interval {low:+.3f} to {high:+.3f})")
