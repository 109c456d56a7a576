"""
Is a second look at each photo worth its time? Test-time augmentation, measured for stage 05.

The model judges each photo of the validation set as it is and mirrored, and the two answers are averaged, as
`utils.inference` does with ``tta=True``. Both ways judge the same photos, so they are compared photo by photo.
"""

from collections.abc import Mapping

import pandas as pd

from utils.dataset import Dataset
from utils.evaluate.rounds import p_text, paired_figures
from utils.intervals import LEVEL
from utils.tables import PREDICTION_COLUMNS

MIRRORING = {"FlipItem", "DihedralItem", "flip_mat", "dihedral_mat"}  # names of fastai: steps, and parts of steps


def mirrored_batches():
    """Return a callback of fastai that mirrors each batch of pictures, (B, 3, H, W), before the network sees it."""
    from fastai.callback.core import Callback  # here: it takes seconds, and who reads an evaluation does without

    class Mirrored(Callback):
        def before_batch(self):
            self.learn.xb = tuple(x.flip(-1) for x in self.xb)

    return Mirrored()


def trained_mirrored(dls) -> bool:
    """Return whether training shows mirrored pictures, too; not so with ``do_flip = false``."""
    steps = [*dls.train.after_item.fs, *dls.train.after_batch.fs]
    matrices = [getattr(matrix, "func", matrix) for step in steps for matrix in getattr(step, "aff_fs", ())]
    names = {type(step).__name__ for step in steps} | {getattr(matrix, "__name__", "") for matrix in matrices}
    return not names.isdisjoint(MIRRORING)


def mirroring_gain(dataset: Dataset, plain: pd.DataFrame, mirrored: pd.DataFrame, *, seed: int = 42) -> dict:
    """
    Return what the mean of two tables of predictions gains over the first, on the same N pictures.

    The dict holds the figures ``before``, ``after`` (shares right) and ``difference``, as fractions; ``gained`` and
    ``lost`` groups of near-duplicates; ``p`` of McNemar's exact test; ``needed`` pictures to show such a difference.
    """
    vocab = list(plain.columns[len(PREDICTION_COLUMNS) :])
    together = (plain[vocab] + mirrored[vocab]).idxmax(axis=1)
    before, after = ((said == plain.label).to_numpy(dtype=int) for said in (plain.predicted, together))
    return paired_figures(before, after, [dataset[id].group for id in plain.id], seed=seed)


def mirroring_sentence(found: Mapping) -> str:
    """
    Return in one sentence whether it helps to look at each photo also mirrored, or why that was not measured.

    >>> difference = {"value": 0.004, "low": -0.011, "high": 0.019, "n": 500}
    >>> mirroring_sentence({"difference": difference, "gained": 5, "lost": 3, "p": 0.73})
    'Looking at each photo also mirrored: +0.4 points (95 % interval -1.1 to +1.9, p = 0.7): not shown to help.'
    >>> mirroring_sentence({"why": "training never showed mirrored photos"})
    'Looking at each photo also mirrored was not tried: training never showed mirrored photos.'
    """
    if "why" in found:
        return f"Looking at each photo also mirrored was not tried: {found['why']}."
    difference = found["difference"]
    span = ""
    if difference["low"] is not None:
        span = f"95 % interval {100 * difference['low']:+.1f} to {100 * difference['high']:+.1f}, "
    told = f"Looking at each photo also mirrored: {100 * difference['value']:+.1f} points ({span}{p_text(found['p'])})"
    if found["p"] >= 1 - LEVEL or found["gained"] == found["lost"]:
        return f"{told}: not shown to help."
    if found["gained"] < found["lost"]:
        return f"{told}: it harms, so leave it out."
    return f"{told}: it helps. Ask the exported model with tta=True, or --tta in a terminal."
