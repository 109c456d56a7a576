"""
The pictures that a fastai learner holds, and what it says of them: for a cleaner without a project.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from utils.dataset import Picture
from utils.errors import FieldguideError
from utils.heads import unreadable
from utils.tables import SIDES


def learner_pictures(learn) -> list[Picture]:
    """Return the N pictures of a fastai learner, the training set first; its items may be paths or DataFrame rows."""
    pictures = []
    for number, loader in enumerate(learn.dls.loaders):
        inputs, targets = loader.dataset.tls[:2]
        rows = getattr(inputs.items, "iloc", inputs.items)
        for n in range(len(inputs.items)):
            path = _path_of(rows[n], inputs.tfms.fs)
            label = str(learn.dls.vocab[int(targets[n])])
            pictures.append(Picture(str(path), path, label, group=str(path), side=SIDES[min(number, 2)]))
    if not pictures:
        raise FieldguideError(
            "This learner holds no pictures: load_learner brings the model only. Name the project as well: "
            "ImageClassifierCleaner(learn, project=project)."
        )
    return pictures


def _path_of(item, transforms: Iterable) -> Path:
    """Follow a learner's own transforms from an item, such as a DataFrame row, until they give a path."""
    for transform in transforms:
        if isinstance(item, str | os.PathLike):
            break
        item = transform(item)
    if not isinstance(item, str | os.PathLike):
        raise FieldguideError(
            f"This learner's items lead to {type(item).__name__}, not to files; only files can be cleaned."
        )
    return Path(item)


def learner_probs(learn, paths: Sequence[Path], labels: Sequence[str]) -> np.ndarray:
    """Return a learner's probabilities (N, K) for N pictures as in validation, in the order of `labels`; or NaN."""
    vocab = [str(label) for label in learn.dls.vocab]
    if set(vocab) != set(labels):
        raise FieldguideError(
            f"The learner tells {', '.join(vocab[:10])} apart, the pictures are {', '.join(list(labels)[:10])}. "
            "Train again (04), or use the project the learner was made for."
        )
    probs = np.full((len(paths), len(vocab)), np.nan)
    readable = list(range(len(paths)))
    try:
        probs[readable] = _predicted(learn, paths)
    except Exception:  # Pillow's, or as a loader's worker hands it on; only now each file is worth a look
        readable = [n for n in readable if not unreadable(paths[n])]
        if len(readable) == len(paths):
            raise
        if readable:
            probs[readable] = _predicted(learn, [paths[n] for n in readable])
    return probs[:, [vocab.index(label) for label in labels]]


def _predicted(learn, paths: Sequence[Path]) -> np.ndarray:
    with learn.no_bar():
        return learn.get_preds(dl=learn.dls.test_dl(list(paths)))[0].numpy()
