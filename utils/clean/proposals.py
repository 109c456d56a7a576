"""
Which label does a photo without one look like? The head of `live`, fitted to all pictures that have a label by now.

Takes features (`utils.features`) and labels; reads and writes no file. A label's score becomes a probability by one
number, the sharpness under which the left-out scores of the labelled pictures fit their labels best. A few examples
cannot show that a head is never wrong, so every label also gets one count more (Laplace's rule).
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax

from utils.clean.live import AT_LATEST, EACH_TIME, left_out_scores, principal_axes

SHARPNESS = np.geomspace(1, 64, 25)  # tried


class Proposals:
    """
    A label and its probability for each of N pictures.

    `features`, float array (N, F), has NaN in the row of a picture that none are known of: nothing is proposed for it.
    """

    def __init__(self, features: np.ndarray):
        self.known = ~np.isnan(features).any(1)
        self._axes = principal_axes(features[self.known]) if self.known.any() else np.zeros((0, 1), np.float32)
        self._learned: np.ndarray | None = None
        self.label, self.probability = np.full(len(features), -1), np.full(len(features), np.nan)

    def learn(self, codes: np.ndarray, *, now: bool) -> None:
        """
        Fit the head to the labels, codes (N,), −1 for a picture without one. With fewer than two nothing is proposed.

        It is fitted if a label changed since the last time; where there are many pictures, and not `now`, if ten did.
        """
        enough = 1 if now or len(codes) <= EACH_TIME else AT_LATEST
        if self._learned is not None and (codes != self._learned).sum() < enough:
            return
        self._learned = codes.copy()
        self.label[:], self.probability[:] = -1, np.nan
        examples = codes[self.known] >= 0
        labels, own = np.unique(codes[self.known][examples], return_inverse=True)
        if len(labels) < 2:
            return
        places = np.zeros(len(examples), dtype=int)
        places[examples] = own
        scores = left_out_scores(self._axes, places, examples.astype(float), len(labels))
        chances = _probabilities(scores, examples, own)
        best = chances.argmax(1)
        self.label[self.known], self.probability[self.known] = labels[best], chances[np.arange(len(best)), best]

    def arranged(self, positions: Sequence[int], *, certain: bool) -> list[int]:
        """Return positions with the most (else the least) certain first, and those without a proposal last."""
        places = np.array(positions, dtype=int)
        chances = self.probability[places]
        return places[np.argsort(-chances if certain else chances, kind="stable")].tolist()  # NaN comes last


def _probabilities(scores: np.ndarray, examples: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return probabilities (M, K) for scores (M, K); `own` are the codes of the rows that are examples (bool (M,))."""
    rows = np.arange(len(own))
    fits = [log_softmax(scores[examples] * sharp, axis=1)[rows, own].mean() for sharp in SHARPNESS]
    chances = np.exp(log_softmax(scores * SHARPNESS[int(np.argmax(fits))], axis=1))
    return (len(own) * chances + 1) / (len(own) + scores.shape[1])
