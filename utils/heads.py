"""
Simple models on the features of a network, and with them every picture judged by a model that never saw it.

Foundation of 06. Reads the pictures of a data set; keeps what it found in models/<name>/out_of_fold.csv. With ImageNet
weights the judges are logistic regressions on the features of the pretrained network, one per fold. The fine-tuned
network cannot judge: it has seen the wrong labels. From scratch, the judges are short trainings of 04's recipe.
Near-duplicates stand in one fold. A classifier must choose a label even for a picture that fits none, so we
also measure how far each picture lies from every label.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
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

from utils.dataset import Dataset, round_fingerprint
from utils.errors import FieldguideError
from utils.features import frozen_features, learned_features
from utils.intervals import verdict
from utils.pictures import PictureError, open_picture
from utils.storage import require_writable
from utils.tables import OUT_OF_FOLD_COLUMNS, read_rows, write_table
from utils.words import counted

JUDGES = 3  # folds
NAMED = 5  # unreadable pictures that a warning names
# The settings of the project file that change what the judges say: of every judge, and of one that is trained.
JUDGE_SETTINGS = {"arch", "weights", "size", "seed"}
RECIPE_SETTINGS = {"epochs", "batch_size", "schedule", "augment", "class_weights"}

TrainFold = Callable[[Mapping[str, str]], Learner]  # sides (id → "train" or "valid") → a learner trained on them


@dataclass(frozen=True)
class Judgement:
    """What models that never saw them say of N pictures, in the data set's order; NaN where one cannot be read."""

    ids: tuple[str, ...]
    labels: tuple[str, ...]  # of their folders
    groups: tuple[str, ...]  # near-duplicates share one
    vocab: tuple[str, ...]  # K labels, the columns of `probs`
    probs: np.ndarray  # (N, K)
    distances: np.ndarray  # (N,), see `relative_distances`

    @cached_property
    def verdict(self) -> dict[str, float | int | bool]:
        """How often the judges agree with the folder, against guessing: see `utils.intervals.verdict`."""
        judged = np.flatnonzero(~np.isnan(self.probs).any(1))
        said = [self.vocab[k] for k in self.probs[judged].argmax(1)]
        return verdict([self.labels[n] for n in judged], said, groups=[self.groups[n] for n in judged])


def judge_pictures(dataset: Dataset, *, body: torch.nn.Module | None, train_fold: TrainFold) -> Judgement:
    """
    Judge every picture by a model that never saw it, nor a near-duplicate of it.

    The result is kept in out_of_fold.csv. It is read from there until a picture, a label, a group or a setting that
    matters to the judges changes. A warning names pictures that cannot be read; all others are judged.

    `body` is the pretrained network without its head: batches (B, 3, size, size) to features (B, F, h, w). Where there
    is none, `train_fold` is called once per fold with sides (id → "train" or "valid") and returns a trained learner,
    whose model is body and head, in this order. Raises FieldguideError for too few pictures, or only one label.
    """
    project = dataset.project
    _require_two_labels(dataset)
    kept, columns = project.models / "out_of_fold.csv", (*OUT_OF_FOLD_COLUMNS, *project.labels)
    fingerprint = _judges_fingerprint(dataset, trained=body is None)
    table = _kept_table(kept, columns, dataset.ids, fingerprint)
    doubtful = range(len(dataset)) if table is None else np.flatnonzero(np.isnan(table).any(1))
    with ThreadPoolExecutor() as pool:
        paths = [dataset.paths[n] for n in doubtful]
        reasons = {path: why for path, why in zip(paths, pool.map(unreadable, paths), strict=True) if why}
    if reasons:
        named = "; ".join(f"{path.parent.name}/{path.name}: {why}" for path, why in list(reasons.items())[:NAMED])
        more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
        warnings.warn(
            f"{counted(len(reasons))} cannot be read and no model judges them ({named}{more}). Delete them.",
            stacklevel=2,
        )
    if table is None or len(reasons) != np.isnan(table).any(1).sum():  # one can be read again
        require_writable(project.models)
        table = _judged_table(dataset, set(reasons), body=body, train_fold=train_fold)
        rows = [(id, fingerprint, *map(float, row)) for id, row in zip(dataset.ids, table, strict=True)]
        write_table(kept, columns, [dict(zip(columns, row, strict=True)) for row in rows])
    judged = {"probs": table[:, 1:], "distances": table[:, 0]}
    return Judgement(dataset.ids, dataset.labels, dataset.groups, tuple(project.labels), **judged)


def _require_two_labels(dataset: Dataset) -> None:
    """Refuse to look for wrong labels if there is no other one."""
    if not len(dataset):
        raise FieldguideError(f"There are no pictures in {dataset.project.images}. Run 01 and 02 first.")
    if len(set(dataset.labels)) == 1:
        raise FieldguideError(
            f"All {counted(len(dataset))} are filed under {dataset.labels[0]!r}, so there is no other label to compare "
            "with. Gather pictures of the other labels (01 to 03), or put back what was taken out."
        )


def _judges_fingerprint(dataset: Dataset, *, trained: bool) -> str:
    """Return 16 hex digits that change when the judges would say something else."""
    settings = dataset.project.model_dump(mode="json", include=JUDGE_SETTINGS | (RECIPE_SETTINGS if trained else set()))
    return round_fingerprint(dataset, settings | {"trained": trained, "groups": dataset.groups})


def _kept_table(kept: Path, columns: Sequence[str], ids: Sequence[str], fingerprint: str) -> np.ndarray | None:
    """Return distances and probabilities (N, 1 + K) as they were kept, or None if something changed since."""
    try:
        rows = read_rows(kept, columns)
    except FieldguideError:  # of other labels, or an earlier version's: it is made anew
        return None
    if [row["id"] for row in rows] != list(ids) or any(row["fingerprint"] != fingerprint for row in rows):
        return None
    return np.array([[float(row[column]) for column in columns[2:]] for row in rows])


def unreadable(path: Path) -> str:
    """Return why a picture cannot be read, "" if it can."""
    try:
        open_picture(path)
    except (PictureError, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def _judged_table(
    dataset: Dataset, unread: set[Path], *, body: torch.nn.Module | None, train_fold: TrainFold
) -> np.ndarray:
    """Return distances and probabilities (N, 1 + K), each rounded as the table keeps it; NaN for what is unread."""
    there = np.array([path not in unread for path in dataset.paths])
    readable = dataset.where(lambda picture: picture.path not in unread)
    _require_two_labels(readable)
    if lone := [id for id in readable.ids if id not in dataset.split]:
        warnings.warn(
            f"{counted(len(lone))} not in split.csv yet, such as {lone[0]}: a judge may know a near-duplicate. Run 03.",
            stacklevel=3,
        )
    ids, paths, codes = readable.ids, np.array(readable.paths, dtype=object), np.array(readable.codes)
    k, folds = len(dataset.project.labels), fold_of(readable.labels, readable.groups, seed=dataset.project.seed)
    features = None if body is None else frozen_features(body, readable.paths, size=dataset.project.size)
    found = np.empty((len(ids), 1 + k))
    for fold in tqdm(range(folds.max() + 1), desc="judges", unit="fold"):
        held = folds == fold
        if body is not None:
            found[held, 1:] = _logistic(features[~held], codes[~held], features[held], k)
        else:
            learn = train_fold({id: "valid" if out else "train" for id, out in zip(ids, held, strict=True)})
            with learn.no_bar():
                found[held, 1:] = learn.get_preds(dl=learn.dls.test_dl(list(paths[held])))[0].double().numpy()
            features = learned_features(learn, list(paths))
        found[held, 0] = relative_distances(features[~held], codes[~held], features[held])
    table = np.full((len(dataset), 1 + k), np.nan)
    table[there] = found
    return np.array([[float(f"{value:.6g}") for value in row] for row in table])


def fold_of(labels: Sequence, groups: Sequence, *, seed: int, folds: int = JUDGES) -> np.ndarray:
    """
    Return the fold (0 ≤ fold < folds) of N pictures: stratified by label, near-duplicates in one fold.

    If no label has as many pictures as there are folds, there are fewer folds. A label of one picture, or of
    near-duplicates only, stands in one fold; the model that judges it never saw the label.
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


def _logistic(seen: np.ndarray, codes: np.ndarray, held: np.ndarray, k: int) -> np.ndarray:
    """Return the probabilities (H, K) that logistic regression on the features seen (M, F) gives those held (H, F)."""
    probs, known = np.zeros((len(held), k)), np.unique(codes)
    if len(known) == 1:  # of two labels, one is all near-duplicates: nothing to tell apart
        probs[:, known[0]] = 1
    else:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        probs[:, known] = model.fit(seen, codes).predict_proba(held)
    return probs


def relative_distances(seen: np.ndarray, codes: np.ndarray, held: np.ndarray) -> np.ndarray:
    """
    Return how far pictures (features held, (H, F)) lie from the nearest label of others (features seen, (M, F)).

    The unit is how far that label's own pictures lie: the median of their distances, each to the centre made without
    it. A label's centre is the mean of its pictures' features, each feature scaled to a standard deviation of 1. So in
    the float array (H,) 1 is as far as usual. A label of one picture takes the median of the other labels.

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
