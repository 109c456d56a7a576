"""
Stage 06, first part: every picture judged by a model that never saw it.

Reads images/ and split.csv; keeps what it found in models/<name>/out_of_fold.csv. With ImageNet weights the judges are
logistic regressions on the frozen features of the pretrained body, a fold each; the fine-tuned body would not do, for
it has seen the wrong labels. From scratch, they are short trainings of the same recipe. Near-duplicates stand in one fold.
Beside the probabilities, each picture is asked how far it lies from every label in the space of the features: a
classifier must choose a label even for what belongs to none.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fastai.vision.all import Learner
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from utils.errors import FieldguideError
from utils.features import frozen_features, learned_features
from utils.pictures import PictureError, open_picture
from utils.project import Project
from utils.storage import require_writable
from utils.tables import csv_text, read_rows, write_table

FOLDS = 3
NAMED = 5  # unreadable pictures that a warning names


@dataclass(frozen=True)
class Judgement:
    """
    What models that never saw them say of N pictures.

    A picture that cannot be read has NaN everywhere: nobody judged it.
    """

    ids: tuple[str, ...]  # in the order of ``project.pictures()``
    labels: tuple[str, ...]  # the label of each one's folder
    probs: np.ndarray  # (N, K), in the order of the project's labels
    distances: np.ndarray  # (N,), see `relative_distances`


def out_of_fold(
    project: Project, *, body: torch.nn.Module | None, train_fold: Callable[[Mapping[str, str]], Learner]
) -> np.ndarray:
    """Return the probabilities (N, K) of `judge_pictures` alone."""
    return judge_pictures(project, body=body, train_fold=train_fold).probs


def judge_pictures(
    project: Project, *, body: torch.nn.Module | None, train_fold: Callable[[Mapping[str, str]], Learner]
) -> Judgement:
    """
    Judge every picture by a model that never saw it, nor a near-duplicate of it.

    The result is kept in out_of_fold.csv and read from there as long as labels, split and settings stay the same.
    Pictures that cannot be read are named in a warning, and nothing else is held up by them.

    Parameters
    ----------
    project : Project
    body : module of batches (B, 3, size, size) to features (B, F, h, w), or None
        The pretrained network without its head; None where there are no ImageNet weights.
    train_fold : function of sides (mapping of id to "train" or "valid") to a trained learner
        Called once a fold where there is no body to take features from. Its model is body and head, in this order.

    Raises
    ------
    FieldguideError
        If the pictures are too few, or all have one label.
    """
    pictures = project.pictures()
    paths, vocab = list(pictures.values()), list(project.labels)
    labels = tuple(path.parent.name for path in paths)
    _require_two_labels(project, labels)
    kept, columns = project.models / "out_of_fold.csv", ("id", "fingerprint", "distance", *vocab)
    fingerprint = project.fingerprint()
    table = _remembered(kept, columns, list(pictures), fingerprint)
    reasons = _unreadable(paths if table is None else [paths[n] for n in np.flatnonzero(np.isnan(table).any(1))])
    if reasons:
        named = "; ".join(f"{path.parent.name}/{path.name}: {why}" for path, why in list(reasons.items())[:NAMED])
        more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
        count = f"{len(reasons)} pictures" if len(reasons) > 1 else "1 picture"
        warnings.warn(f"{count} cannot be read and no model judges them ({named}{more}). Delete them.", stacklevel=2)
    if table is None or len(reasons) != np.isnan(table).any(1).sum():  # one can be read again
        require_writable(project.models)
        table = _table(project, pictures, labels, set(reasons), body=body, train_fold=train_fold)
        rows = [dict(zip(columns[2:], map(float, row), strict=True)) for row in table]
        known = ({"id": id, "fingerprint": fingerprint} for id in pictures)
        write_table(kept, columns, [one | row for one, row in zip(known, rows, strict=True)])
    return Judgement(tuple(pictures), labels, probs=table[:, 1:], distances=table[:, 0])


def _require_two_labels(project: Project, labels: Sequence[str]) -> None:
    """Refuse to look for wrong labels where there is no other one."""
    if not labels:
        raise FieldguideError(f"There are no pictures in {project.images}. Run 01 and 02 first.")
    if len(set(labels)) == 1:
        raise FieldguideError(
            f"All {len(labels)} pictures are filed under {labels[0]!r}, so none can be told from another label. Gather "
            "pictures of the other labels (01 to 03), or put back what was taken out."
        )


def _remembered(kept: Path, columns: Sequence[str], ids: Sequence[str], fingerprint: str) -> np.ndarray | None:
    """Return distances and probabilities (N, 1 + K) as they were kept, or None if something changed since."""
    if not kept.exists():
        return None
    with kept.open(encoding="utf-8") as file:
        if file.readline() != csv_text(columns, (), header=True):  # the labels, or we, were others then
            return None
    rows = read_rows(kept, columns)
    if [row["id"] for row in rows] != list(ids) or any(row["fingerprint"] != fingerprint for row in rows):
        return None
    return np.array([[float(row[column]) for column in columns[2:]] for row in rows])


def _unreadable(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the pictures that cannot be opened, with the reason."""

    def why(path: Path) -> str:
        try:
            open_picture(path)
        except (PictureError, OSError) as error:
            return str(error) or type(error).__name__
        return ""

    with ThreadPoolExecutor() as pool:
        return {path: reason for path, reason in zip(paths, pool.map(why, paths), strict=True) if reason}


def _table(
    project: Project,
    pictures: Mapping[str, Path],
    labels: Sequence[str],
    unread: set[Path],
    *,
    body: torch.nn.Module | None,
    train_fold: Callable,
) -> np.ndarray:
    """Return distances and probabilities (N, 1 + K), each rounded as the table keeps it; NaN for what is unread."""
    table = np.full((len(pictures), 1 + len(project.labels)), np.nan)
    there = np.array([path not in unread for path in pictures.values()])
    ids = [id for id, path in pictures.items() if path not in unread]
    labels = [label for label, good in zip(labels, there, strict=True) if good]
    _require_two_labels(project, labels)
    split = project.split()
    if lone := [id for id in ids if id not in split]:
        warnings.warn(
            f"{len(lone)} pictures have no side yet, {lone[0]} among them: a near-duplicate of one may judge it. Run 03 "
            "first.",
            stacklevel=3,
        )
    folds = fold_of(labels, project.groups(ids), seed=project.seed)
    codes = np.array([list(project.labels).index(label) for label in labels])
    if body is not None:
        found = _from_features(project, body, [pictures[id] for id in ids], codes, folds)
    else:
        found = _from_trainings(project, {id: pictures[id] for id in ids}, codes, folds, train_fold)
    table[there] = np.column_stack(found)
    return np.array([[float(f"{value:.6g}") for value in row] for row in table])


def fold_of(labels: Sequence, groups: Sequence, *, seed: int, folds: int = FOLDS) -> np.ndarray:
    """
    Return the fold (0 ≤ fold < folds) of N pictures: stratified by label, near-duplicates in one fold.

    Where no label has as many pictures as there are folds, there are fewer folds. A label whose pictures are all
    near-duplicates of each other, or one, stands in one fold, and the model that judges it never saw the label.

    Raises
    ------
    FieldguideError
        If there are fewer different pictures than folds, or no label has two.
    """
    if len(set(groups)) < folds:
        raise FieldguideError(f"{len(set(groups))} different pictures are too few for {folds} folds. Gather more.")
    most = max(Counter(labels).values())
    if most < 2:
        raise FieldguideError(
            f"{len(labels)} pictures have {len(labels)} labels, one each: there is nothing to compare them with. "
            "Gather more of each label."
        )
    numbers = np.empty(len(labels), dtype=int)
    splitter = StratifiedGroupKFold(min(folds, most), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # known, see above
        for fold, (_, held) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):
            numbers[held] = fold
    return np.unique(numbers, return_inverse=True)[1]  # few large groups may leave a fold empty


def _from_trainings(
    project: Project, pictures: Mapping[str, Path], codes: np.ndarray, folds: np.ndarray, train_fold: Callable
) -> tuple[np.ndarray, np.ndarray]:
    """Return distances (N,) and probabilities (N, K) out of one training a fold."""
    paths = np.array(list(pictures.values()), dtype=object)
    distances, probs = np.empty(len(paths)), np.empty((len(paths), len(project.labels)))
    for fold in tqdm(range(folds.max() + 1), desc="trainings without a part", unit="fold"):
        held = folds == fold
        learn = train_fold({id: "valid" if out else "train" for id, out in zip(pictures, held, strict=True)})
        with learn.no_bar():
            probs[held] = learn.get_preds(dl=learn.dls.test_dl(list(paths[held])))[0].double().numpy()
        features = learned_features(learn, list(paths))
        distances[held] = relative_distances(features[~held], codes[~held], features[held])
    return distances, probs


def _from_features(
    project: Project, body: torch.nn.Module, paths: list[Path], codes: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return distances (N,) and probabilities (N, K) of logistic regression on the pretrained body's features."""
    features = frozen_features(body, paths, size=project.size)
    distances, probs = np.empty(len(paths)), np.zeros((len(paths), len(project.labels)))
    for fold in range(folds.max() + 1):
        held = folds == fold
        seen = np.unique(codes[~held])
        if len(seen) == 1:  # of two labels, one whose pictures are all near-duplicates: nothing to tell apart
            probs[held, seen[0]] = 1
        else:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
            probs[np.ix_(held, seen)] = model.fit(features[~held], codes[~held]).predict_proba(features[held])
        distances[held] = relative_distances(features[~held], codes[~held], features[held])
    return distances, probs


def relative_distances(seen: np.ndarray, codes: np.ndarray, held: np.ndarray) -> np.ndarray:
    """
    Return how far pictures lie from the nearest label, in terms of how far that label's own pictures lie.

    A label's centre is the mean of its pictures' features, each feature scaled to a standard deviation of 1. A label's
    usual distance is the median of its own pictures', each to the centre made without it.

    Parameters
    ----------
    seen : float array (M, F)
        Features of pictures that make the centres.
    codes : int array (M,)
        Their labels.
    held : float array (H, F)
        Features of other pictures.

    Returns
    -------
    float array (H,)
        1 is as far as usual; 2 is twice as far. Of a label with one picture, what is usual is what is for the rest.

    Examples
    --------
    >>> relative_distances(np.array([[-1.0], [1.0], [9.0], [11.0]]), np.array([0, 0, 1, 1]), np.array([[2.0], [16.0]]))
    array([1., 3.])
    """
    scaler = StandardScaler().fit(seen)
    seen, held = scaler.transform(seen), scaler.transform(held)
    _, codes, counts = np.unique(codes, return_inverse=True, return_counts=True)
    centres = np.zeros((len(counts), seen.shape[1]))  # (K', F)
    np.add.at(centres, codes, seen)
    centres /= counts[:, None]
    # The mean without a picture lies n / (n - 1) times as far from it as the mean with it.
    own = np.linalg.norm(seen - centres[codes], axis=1) * (counts / np.maximum(counts - 1, 1))[codes]
    usual = np.array([np.median(own[codes == code]) if count > 1 else np.nan for code, count in enumerate(counts)])
    rest = np.nanmedian(usual) if (counts > 1).any() else 1.0
    usual = np.where(np.isnan(usual), rest, usual)
    least = 1e-6 * max(1.0, rest)  # a label of one picture many times over is not infinitely far from all
    return (pairwise_distances(held, centres) / np.maximum(usual, least)).min(1)
