"""
Simple models on what the packaged network sees, and with them every picture judged by a model that never saw it.

Foundation of 04's quick model and of 06. Reads the features of a data set; keeps the judgements in
models/<name>/out_of_fold.csv. A head is a logistic regression. A fine-tuned network cannot judge the pictures that it
trained on: it has seen the wrong labels. Near-duplicates stand in one fold. Wrong labels mislead heads too, so each
judge is the mean of two: one learned from all pictures of the other folds, one from those that nobody clearly doubts. A
classifier must choose a label even for a picture that fits none, so we also measure how far each picture lies from
every label.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from utils.dataset import Dataset, round_fingerprint
from utils.errors import FieldguideError
from utils.features import FEATURES_NAME, picture_features
from utils.intervals import verdict
from utils.pictures import PictureError, open_picture
from utils.storage import MINUTE, remove_leftovers, require_writable
from utils.tables import OUT_OF_FOLD_COLUMNS, read_rows, write_table
from utils.words import counted

JUDGES = 5  # folds
FEWEST = 3  # different pictures, to judge each by a model of others
NAMED = 5  # unreadable pictures that a warning names
JUDGE_STRENGTH = 0.01  # scikit-learn's C of the judges: weak enough that wrong labels are not learned by heart
DOUBT = 2.0  # a picture is doubted if another label is at least twice as probable as its own
STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0)  # of a head that cross-validation chooses
LEAST_PROBABILITY = 1e-4  # a label of one picture has the probability 0 where that is held out
BLAS_THREADS = 1  # the matrices are small: on 16 cores, 16 threads took seven times as long as one
NEVER = -1000.0  # the score of a label that a head has never seen: its probability is 0


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


def judge_pictures(dataset: Dataset) -> Judgement:
    """
    Judge every picture by a head that never saw it, nor a near-duplicate of it.

    The result is kept in out_of_fold.csv. It is read from there until a picture, a label, a group or the seed changes.
    A warning names pictures that cannot be read; all others are judged. Raises FieldguideError for too few pictures, or
    only one label.
    """
    project = dataset.project
    _require_two_labels(dataset)
    features = picture_features(dataset)
    unread = np.isnan(features).any(1)
    if unread.any():
        paths = [dataset.paths[n] for n in np.flatnonzero(unread)]
        named = "; ".join(
            f"{path.parent.name}/{dataset.records.told(path)}: {unreadable(path)}" for path in paths[:NAMED]
        )
        more = f"; and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
        warnings.warn(
            f"{counted(len(paths))} cannot be read and no model judges them ({named}{more}). Delete them.",
            stacklevel=2,
        )
    kept, columns = project.models / "out_of_fold.csv", (*OUT_OF_FOLD_COLUMNS, *project.labels)
    fingerprint = judges_fingerprint(dataset)
    remove_leftovers(project.models, below=False, older=MINUTE)
    table = _kept_table(kept, columns, dataset.ids, fingerprint)
    if table is None or (np.isnan(table).any(1) != unread).any():  # one can be read again
        require_writable(project.models)
        table = np.full((len(dataset), 1 + len(project.labels)), np.nan)
        readable = dataset.where(lambda picture: not unread[dataset.position[picture.id]])
        table[~unread] = _judged_table(readable, features[~unread])
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


def judges_fingerprint(dataset: Dataset) -> str:
    """Return 16 hex digits that change when the judges would say something else."""
    how = {"network": FEATURES_NAME, "judges": JUDGES, "strength": JUDGE_STRENGTH, "seed": dataset.project.seed}
    return round_fingerprint(dataset, how | {"groups": dataset.groups, "doubt": DOUBT})


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


def _judged_table(dataset: Dataset, features: np.ndarray) -> np.ndarray:
    """Return distances and probabilities (N, 1 + K), each rounded as the table keeps it."""
    _require_two_labels(dataset)
    if lone := [id for id in dataset.ids if id not in dataset.split]:
        warnings.warn(
            f"{counted(len(lone))} not in split.csv yet, such as {lone[0]}: a judge may know a near-duplicate. Run 03.",
            stacklevel=3,
        )
    codes, k = np.array(dataset.codes), len(dataset.project.labels)
    folds = fold_of(dataset.labels, dataset.groups, seed=dataset.project.seed)
    found = np.empty((len(dataset), 1 + k))
    found[:, 1:] = out_of_fold(features, codes, k, folds)
    for fold in range(folds.max() + 1):
        held = folds == fold
        found[held, 0] = relative_distances(features[~held], codes[~held], features[held])
    return np.array([[float(f"{value:.6g}") for value in row] for row in found])


def out_of_fold(features: np.ndarray, codes: np.ndarray, k: int, folds: np.ndarray) -> np.ndarray:
    """
    Return probabilities (N, K) for N pictures, features (N, F), by judges that never saw the picture's fold.

    A judge is the mean of a head that learned from all pictures of the other folds, and one that learned from those
    that are not doubted. The second finds more wrong labels, but where a label is hard it leaves out the unusual
    pictures that are right, and then doubts all that resemble them: the mean is better than both.
    """
    probs = np.zeros((len(codes), k))
    for teaching in (folds != np.arange(folds.max() + 1)[:, None], _undoubted(features, codes, k, folds)):
        for fold, taught in enumerate(teaching):
            held = folds == fold
            head = fit_head(features[taught], codes[taught], k, strength=JUDGE_STRENGTH)
            probs[held] += head.probabilities(features[held]) / 2
    return probs


def _undoubted(features: np.ndarray, codes: np.ndarray, k: int, folds: np.ndarray) -> np.ndarray:
    """
    Return for each of J folds which of the N pictures outside it are not doubted: bool array (J, N).

    A picture is doubted by a head that saw neither its fold nor the one to be judged. If it had seen that one, the
    pictures left would be those that agree with it, and labels given by chance would look better than chance. A label
    keeps at least half of its pictures.
    """
    kept = folds != np.arange(folds.max() + 1)[:, None]
    if len(kept) == 2:  # no third fold could teach such a head
        return kept
    odds = np.zeros(kept.shape)  # of the most probable label against the own one; 0 if the head never saw that
    for pair in combinations(range(len(kept)), 2):
        rest = ~np.isin(folds, pair)
        head = fit_head(features[rest], codes[rest], k, strength=JUDGE_STRENGTH)
        for one, judged in (pair, pair[::-1]):
            held = np.flatnonzero(folds == one)
            probs = head.probabilities(features[held])
            own = probs[np.arange(len(held)), codes[held]]
            odds[judged, held] = np.where(own > 0, probs.max(1) / np.maximum(own, LEAST_PROBABILITY), 0)
    for fold, others in enumerate(kept.copy()):
        for code in np.unique(codes[others]):
            own = np.flatnonzero(others & (codes == code))
            most = own[np.argsort(-odds[fold, own], kind="stable")][: len(own) // 2]
            kept[fold, most] = odds[fold, most] < DOUBT
    return kept


def fold_of(labels: Sequence, groups: Sequence, *, seed: int, folds: int = JUDGES) -> np.ndarray:
    """
    Return the fold (0 ≤ fold < folds) of N pictures: stratified by label, near-duplicates in one fold.

    There are fewer folds if no label has as many pictures, or if there are fewer groups. A label of one picture, or of
    near-duplicates only, stands in one fold; the model that judges it never saw the label.
    """
    if (different := len(set(groups))) < FEWEST:
        raise FieldguideError(f"{different} different pictures are too few to judge each other. Gather more.")
    most = max(Counter(labels).values())
    if most < 2:
        raise FieldguideError(
            f"{len(labels)} pictures have {len(labels)} labels, one each: there is nothing to compare them with. "
            "Gather more of each label."
        )
    numbers = np.empty(len(labels), dtype=int)
    splitter = StratifiedGroupKFold(min(folds, most, different), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # known, see above
        for fold, (_, held) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):
            numbers[held] = fold
    return np.unique(numbers, return_inverse=True)[1]  # few large groups may leave a fold empty


@dataclass(frozen=True)
class Head:
    """A linear layer on features: K scores for F features."""

    weight: np.ndarray  # (K, F)
    bias: np.ndarray  # (K,)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return probabilities (N, K) for features (N, F)."""
        return softmax(features @ self.weight.T + self.bias, axis=1)


def fit_head(features: np.ndarray, codes: np.ndarray, k: int, *, strength: float, balanced: bool = False) -> Head:
    """
    Fit a logistic regression to features (M, F) and their labels' codes (M,), 0 ≤ code < K.

    `strength` is scikit-learn's C: the larger, the closer to the training set. Each feature is scaled to a standard
    deviation of 1 first; the layer returned takes them unscaled. A label without a picture is never named. `balanced`
    lets rare labels count for more.
    """
    known = np.unique(codes)
    weight, bias = np.zeros((k, features.shape[1])), np.full(k, NEVER)
    bias[known] = 0
    if len(known) == 1:  # nothing is to be told apart
        return Head(weight, bias)
    with threadpool_limits(BLAS_THREADS, user_api="blas"):
        scaler = StandardScaler().fit(features.astype(np.float64))
        scaled, axes = scaler.transform(features), None
        if len(scaled) < scaled.shape[1]:  # the weights lie in the space that the pictures span, which is smaller
            left, lengths, axes = np.linalg.svd(scaled, full_matrices=False)
            scaled = left * lengths
        weights = "balanced" if balanced else None
        model = LogisticRegression(C=strength, max_iter=1000, class_weight=weights).fit(scaled, codes)
        rows, at = model.coef_ if axes is None else model.coef_ @ axes, model.intercept_
        if len(known) == 2:  # scikit-learn then keeps one row, for the second label against the first
            rows, at = np.concatenate([-rows, rows]) / 2, np.concatenate([-at, at]) / 2
        weight[known] = rows / scaler.scale_
        bias[known] = at - weight[known] @ scaler.mean_
    return Head(weight, bias)


def choose_strength(
    features: np.ndarray, codes: np.ndarray, k: int, *, groups: np.ndarray, seed: int, balanced: bool = False
) -> float:
    """Return which of `STRENGTHS` gives the most probable labels in pictures held out, near-duplicates together."""
    try:
        folds = fold_of(codes.tolist(), groups.tolist(), seed=seed)
    except FieldguideError:  # too few pictures to hold any out
        return JUDGE_STRENGTH
    losses = []
    for strength in STRENGTHS:
        loss = 0.0
        for fold in range(folds.max() + 1):
            held = folds == fold
            head = fit_head(features[~held], codes[~held], k, strength=strength, balanced=balanced)
            own = head.probabilities(features[held])[np.arange(held.sum()), codes[held]]
            loss -= np.log(np.maximum(own, LEAST_PROBABILITY)).sum()
        losses.append(loss)
    return STRENGTHS[int(np.argmin(losses))]


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
