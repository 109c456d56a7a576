"""
Stage 06, first part: which pictures are probably filed under the wrong label?

Every picture is judged by a model that never saw it. With ImageNet weights that is logistic regression on the
frozen features of the pretrained body, over folds; from scratch, one short training of the same recipe a fold.
The ranking divides each label's probability by how sure the models are of that label in general, so that a hard
label does not fill the list with its ordinary pictures (Northcutt et al. 2021, confident learning).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from fastai.vision.all import default_device, imagenet_stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from utils.files import FieldguideError, csv_text, read_rows, require_writable, write_table
from utils.pictures import open_picture, squish_and_crop
from utils.project import Project

FOLDS = 3
BATCH = 32  # pictures at once through the frozen body
VALIDATION_EXTRA = 0.14  # RandomResizedCrop's val_xtra: the share at the edges that validation cuts off


def rank_suspects(labels: Sequence[int], probs: np.ndarray) -> np.ndarray:
    """
    Rank N pictures by how much their label looks wrong.

    Parameters
    ----------
    labels : int array (N,)
        The given labels, 0 ≤ label < K.
    probs : float array (N, K)
        Probabilities from models that did not train on the picture.

    Returns
    -------
    int array (N,)
        Positions, worst first; equals keep their order.

    Examples
    --------
    >>> rank_suspects([0, 0, 1], np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])).tolist()
    [1, 2, 0]
    """
    labels, probs = np.asarray(labels, dtype=int), np.asarray(probs, dtype=float)
    if probs.ndim != 2 or probs.shape[0] != len(labels):
        raise ValueError(f"{len(labels)} labels and probabilities of shape {probs.shape}: expected (N,) and (N, K)")
    if len(labels) == 0:
        return np.array([], dtype=int)
    usual = np.ones(probs.shape[1])  # how sure the models are of each label where it is given: (K,)
    for label in np.unique(labels):
        usual[label] = max(probs[labels == label, label].mean(), 1e-3)
    relative = probs / usual
    relative /= np.maximum(relative.sum(1, keepdims=True), 1e-12)
    return np.argsort(relative[np.arange(len(labels)), labels], kind="stable")


def fold_of(labels: Sequence, groups: Sequence, *, seed: int, folds: int = FOLDS) -> np.ndarray:
    """Return the fold (0 ≤ fold < folds) of N pictures: stratified by label, near-copies in one fold."""
    if len(set(groups)) < folds:
        raise FieldguideError(f"{len(set(groups))} different pictures are too few for {folds} folds. Gather more.")
    numbers = np.empty(len(labels), dtype=int)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, held) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):
        numbers[held] = fold
    return numbers


def out_of_fold(
    project: Project, *, body: torch.nn.Module | None, train_fold: Callable[[Mapping[str, str]], object]
) -> np.ndarray:
    """
    Return probabilities for every picture from a model that never saw it.

    Parameters
    ----------
    project : Project
    body : module of batches (B, 3, size, size) to features (B, F, h, w), or None
        The pretrained network without its head; None where there are no ImageNet weights.
    train_fold : function of sides (mapping of id to "train" or "valid") to a trained learner
        Called once a fold where there is no body to take features from.

    Returns
    -------
    float array (N, K)
        In the order of ``project.pictures()`` and of the project's labels. Kept in out_of_fold.csv and read from
        there as long as labels, split and settings stay the same.
    """
    pictures = project.pictures()
    vocab = list(project.labels)
    columns = ("id", "fingerprint", *vocab)
    kept = project.models / "out_of_fold.csv"
    rows = read_rows(kept, columns) if _begins_with(kept, columns) else []
    fingerprint = project.fingerprint()
    if [row["id"] for row in rows] == list(pictures) and all(row["fingerprint"] == fingerprint for row in rows):
        return np.array([[float(row[label]) for label in vocab] for row in rows])

    require_writable(project.models)
    split = project.split()
    labels = [path.parent.name for path in pictures.values()]
    folds = fold_of(labels, [split[id][0] if id in split else id for id in pictures], seed=project.seed)
    if body is not None:
        probs = _from_features(project, body, list(pictures.values()), labels, folds)
    else:
        probs = _from_trainings(list(pictures.items()), vocab, folds, train_fold)
    write_table(
        kept,
        columns,
        [
            {"id": id, "fingerprint": fingerprint} | dict(zip(vocab, map(float, row), strict=True))
            for id, row in zip(pictures, probs, strict=True)
        ],
    )
    return probs


def _begins_with(path: Path, columns: Sequence[str]) -> bool:
    """Return whether a table has these columns: labels may have changed since it was written."""
    return path.exists() and path.read_text(encoding="utf-8").startswith(csv_text(columns, (), header=True))


def _from_trainings(pictures: list, vocab: list[str], folds: np.ndarray, train_fold: Callable) -> np.ndarray:
    """Return out-of-fold probabilities (N, K) of one training a fold."""
    probs = np.zeros((len(pictures), len(vocab)))
    for fold in tqdm(range(folds.max() + 1), desc="trainings without a third", unit="fold"):
        held = folds == fold
        sides = {id: "valid" if out else "train" for (id, _), out in zip(pictures, held, strict=True)}
        learn = train_fold(sides)
        paths = [path for (_, path), out in zip(pictures, held, strict=True) if out]
        with learn.no_bar():
            probs[held] = learn.get_preds(dl=learn.dls.test_dl(paths))[0].double().numpy()
    return probs


def _from_features(
    project: Project, body: torch.nn.Module, paths: list[Path], labels: list[str], folds: np.ndarray
) -> np.ndarray:
    """Return out-of-fold probabilities (N, K) of logistic regression on the pretrained body's features."""
    features = frozen_features(body, paths, size=project.size)
    vocab = list(project.labels)
    codes = np.array([vocab.index(label) for label in labels])
    probs = np.zeros((len(paths), len(vocab)))
    for fold in range(folds.max() + 1):
        held = folds == fold
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        model.fit(features[~held], codes[~held])
        probs[np.ix_(held, model.classes_)] = model.predict_proba(features[held])
    return probs


def frozen_features(body: torch.nn.Module, paths: Sequence[Path], *, size: int) -> np.ndarray:
    """
    Return the body's features of N pictures, averaged over the picture: float array (N, F).

    Pictures come through the validation transforms: squished, cropped to `size` pixels, normalised as ImageNet's.
    """
    device = default_device()
    body = body.to(device).eval()
    mean, std = (torch.tensor(stat, device=device).view(1, 3, 1, 1) for stat in imagenet_stats)
    features = []
    with torch.inference_mode():
        for start in tqdm(range(0, len(paths), BATCH), desc="features", unit="batch"):
            pixels = np.stack([_pixels(path, size) for path in paths[start : start + BATCH]])  # (B, size, size, 3)
            batch = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2) / 255  # (B, 3, size, size)
            features.append(body((batch - mean) / std).mean((2, 3)).cpu().numpy())  # (B, F)
    return np.concatenate(features)


def _pixels(path: Path, size: int) -> np.ndarray:
    """Return one picture as the model sees it: uint8 (size, size, 3)."""
    extra = math.ceil(size * VALIDATION_EXTRA / 8) * 8
    return np.asarray(squish_and_crop(open_picture(path), size, extra=extra))
