"""
Stage 09, one run: the recipe of 04 with other settings, on sides of its own.

The sides are drawn anew for each seed, out of the training and the validation set; all settings share them. The test
set is not read. Groups of near-duplicates stay together, as in 03.
"""

import gc
import time
from dataclasses import replace

import numpy as np
from fastai.vision.all import Learner, no_random

from utils.dataset import Dataset
from utils.errors import FieldguideError, WriteError
from utils.split import assign_sides
from utils.study.runs import RUN_DONE, RUN_FAILED, TrainingRun, judged_id
from utils.study.settings import Setting
from utils.train import head_features, quick_model, train_as_04

LONGEST_REASON = 500  # characters of a table's cell


def pool_of(dataset: Dataset) -> Dataset:
    """Return the pictures that a study may read: those of the training and the validation set."""
    pool = dataset.on("train", "valid")
    if not len(pool):
        raise FieldguideError(f"{dataset.project.name!r} has no training set yet. Run 01 to 03 first.")
    return pool


def with_sides(pool: Dataset, seed: int) -> Dataset:
    """Return the pool with sides that the seed draws; the validation set is as large a share as in the project."""
    project, groups = pool.project, dict(zip(pool.ids, pool.groups, strict=True))
    labels = dict(zip(pool.ids, pool.labels, strict=True))
    share = project.valid / (1 - project.test)
    sides = assign_sides(groups, labels, valid=share, test=0.0, seed=seed)
    return pool.with_split({id: (groups[id], side) for id, side in sides.items()})


class PicturesMoved(FieldguideError):
    """A picture of the study is no longer where it was: what trained now would not be comparable."""


def require_pictures(pool: Dataset) -> None:
    """Raise PicturesMoved if a picture of the study was moved or deleted, as 06 does."""
    if (gone := next((path for path in pool.paths if not path.is_file()), None)) is not None:
        raise PicturesMoved(
            f"{gone} was moved or deleted after this study was read. Run this notebook from the top: a study of the "
            "pictures as they are now begins, and the runs of this one are kept."
        )


def run_setting(pool: Dataset, setting: Setting, seed: int, *, look_back: bool = False) -> TrainingRun:
    """
    Train a setting with a seed and judge it; a run that fails has its reason.

    `look_back` also judges the training pictures as they are, without augmentation. Ctrl-C, a full disk, and pictures
    that are gone are raised: they say nothing of the setting.
    """
    require_pictures(pool)
    began, named = time.perf_counter(), {"setting": setting.id, "seed": seed, "settings": setting.name}
    try:
        drawn = with_sides(pool, seed)
        project = setting.project.model_copy(update={"seed": seed})
        dataset = replace(drawn, project=project)
        found = _head(dataset) if project.train == "head" else _all_layers(dataset, look_back=look_back)
    except WriteError:  # a full disk says nothing of the setting
        raise
    except Exception as error:  # whatever a setting leads to is a result of the study
        require_pictures(pool)
        return TrainingRun(**named, status=RUN_FAILED, reason=_why_failed(error), seconds=time.perf_counter() - began)
    finally:
        gc.collect()  # a learner and its callbacks hold each other, and the memory of a GPU
    right, rest = found
    judged = judged_id(dataset.on("valid").ids)
    seconds = time.perf_counter() - began
    return TrainingRun(
        **named, status=RUN_DONE, right=right, accuracy=float(right.mean()), judged=judged, seconds=seconds, **rest
    )


def _why_failed(error: Exception) -> str:
    """Return why a run failed, without what 04 advises: a study keeps no epoch, and goes on by itself."""
    text = str(error) or type(error).__name__
    return (text.partition(". ")[0] + "." if text.endswith("un 04 again.") else text)[:LONGEST_REASON]


def _head(dataset: Dataset) -> tuple[np.ndarray, dict]:
    """Fit a head; return which validation pictures it names rightly (no unreadable one), and its figures."""
    size, valid = dataset.project.size, dataset.on("valid")
    quick = quick_model(dataset, size=size)
    features = head_features(valid, size=size)
    readable = ~np.isnan(features).any(1)
    right = np.zeros(len(valid), dtype=bool)
    said = quick.head.probabilities(features[readable]).argmax(1)
    right[readable] = said == np.array(valid.codes)[readable]
    return right, {"valid_loss": quick.losses[1], "train_accuracy": quick.train_accuracy}


def _all_layers(dataset: Dataset, *, look_back: bool) -> tuple[np.ndarray, dict]:
    """Train all layers; return which validation pictures are named rightly, and the figures."""
    learn, rows = train_as_04(dataset)
    try:
        right = _right(learn, learn.dls.valid)
        losses = [row["valid_loss"] for row in rows]
        told = {"history": rows, "valid_loss": min(losses)}
        if look_back:
            told["train_accuracy"] = float(
                _right(learn, learn.dls.test_dl(learn.dls.train.items, with_labels=True)).mean()
            )
        return right, told
    finally:
        learn.dls = None


def _right(learn: Learner, dl) -> np.ndarray:
    """Return which pictures of a DataLoader the network names rightly: bool array (N,)."""
    with learn.no_bar(), learn.no_logging(), no_random():
        probs, targets = learn.get_preds(dl=dl)
    return (probs.argmax(1) == targets).numpy()
