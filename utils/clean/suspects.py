"""
Which pictures are probably filed under the wrong label, or under none that fits?

Asks `utils.copies` for near-duplicates; what the models say comes from `utils.heads`. The ranking is that of the given
label's probability (Kuan and Mueller 2022, "self-confidence"), with two mild corrections: benchmarks/ranking.py
compares. Each label becomes as probable, on average, as it is frequent. And the strongest rival counts a little: a
picture that another label fits stands before one that no label fits. A correction by the usual confidence of each
label (confident learning) did harm where labels differ in size or difficulty.
"""

import string
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from utils.copies import same_photos
from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.heads import Judgement
from utils.words import share, verdict_sentence

WRONG_SURE = "Probably wrong"
WRONG_UNSURE = "Possibly wrong"
RIGHT_UNSURE = "Right, but unsure"
DOUBT_LISTS = (WRONG_SURE, WRONG_UNSURE, RIGHT_UNSURE)  # the lists whose order is that of doubt
COPIES = "Near-duplicates under two labels"
UNLIKE = "Unlike any label"

PRIOR = 5  # pictures added to each label's count and sum, so that few pictures correct little
RIVAL = 0.2  # weight of the strongest rival beside the given label; 0 is self-confidence, 1 the odds between both
ODDS = 2.0  # a model is sure of a label that is at least twice as probable as its rival
SMALLEST = 1e-12  # of a probability, for its logarithm
MOST_UNSURE = 0.1  # of all pictures: nobody reads a longer list of doubts to its end
LEAST_UNSURE = 24  # … but so many always fit: one page
FAR = 5.0  # median deviations above the median; of normal distances, 1 picture in 2,500 lies beyond
LEAST_DEVIATION = 0.02  # of the median: if half of the pictures lie equally far, the others are not all far
OWN = 8  # pictures of a label that tell what is far for it; with fewer, those of all labels tell
BITS = 64  # of a perceptual hash


@dataclass(frozen=True)
class Suspect:
    """A picture to look at, and why."""

    position: int  # in the data set
    list: str  # in which it stands
    reason: str  # what the card says
    figure: float  # what the reason rests on: a probability, a number of bits, or a distance


def judges_sentence(verdict: Mapping) -> str:
    """
    Return how often the judges agree with the folders (see `Judgement.verdict`), and whether there is a list then.

    >>> judges_sentence({"right": 214, "n": 246, "guess": 90, "p": 0.0, "better": True})
    'The judges agree with the folder for 214 of 246 photos; guessing would get 90. That is better than guessing.'
    """
    told = "The judges agree with the folder" + verdict_sentence(verdict).removeprefix("Right")
    if not verdict["better"]:
        told += " So there is no list of suspects. Look at the contact sheets of 02, or page through the cleaner."
    return told


def rank_suspects(labels: Sequence[int], probs: np.ndarray) -> np.ndarray:
    """
    Rank N pictures by how wrong their label looks.

    Parameters
    ----------
    labels : int array (N,)
        The given labels, 0 ≤ label < K.
    probs : float array (N, K)
        Probabilities from models that did not train on the picture. Rows with NaN, which nobody judged, come last.

    Returns
    -------
    int array (N,)
        Positions, worst first; equals keep their order.

    >>> rank_suspects([0, 0, 1], np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])).tolist()
    [1, 2, 0]
    """
    labels, probs = _checked_labels(labels, probs)
    fair = calibrated(labels, probs)
    rival = _given(_rivals(labels, fair), fair) if probs.shape[1] > 1 else np.ones(len(labels))
    own, rival = np.log(np.maximum(_given(labels, fair), SMALLEST)), np.log(np.maximum(rival, SMALLEST))
    return np.argsort(own - RIVAL * rival, kind="stable")  # NaN goes last


def calibrated(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """
    Return probabilities (N, K) with each label about as probable, on average, as it is frequent.

    Out of fold they are not: a model that had to do without a fold knows the rare labels too little.

    >>> calibrated(np.array([0, 1]), np.array([[0.5, 0.5], [0.5, 0.5]])).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    judged = ~np.isnan(probs).any(axis=1)
    counts = np.bincount(labels[judged], minlength=probs.shape[1])
    scaled = probs * (counts + PRIOR) / (probs[judged].sum(0) + PRIOR)
    return scaled / np.maximum(scaled.sum(1, keepdims=True), SMALLEST)


def _checked_labels(labels: Sequence[int], probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and probabilities as arrays that belong together."""
    labels, probs = np.asarray(labels, dtype=int), np.asarray(probs, dtype=float)
    if probs.ndim != 2 or probs.shape[0] != len(labels):
        raise ValueError(f"{len(labels)} labels and probabilities of shape {probs.shape}: expected (N,) and (N, K)")
    if len(labels) and not (labels.min() >= 0 and labels.max() < probs.shape[1]):
        raise ValueError(f"labels from {labels.min()} to {labels.max()}: expected 0 to {probs.shape[1] - 1}")
    return labels, probs


def _given(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return each row's value (N,) at its given label."""
    return values[np.arange(len(labels)), labels]


def _rivals(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Return for each row the most probable label (N,) but the given one."""
    others = probs.copy()
    others[np.arange(len(labels)), labels] = -1
    return others.argmax(1)


def find_suspects(dataset: Dataset, judged: Judgement) -> list[Suspect]:
    """
    Return the pictures that deserve a look, in five lists, worst first within each.

    There are none if the judges are no better than guessing: then their doubts say nothing about the folders.
    `judged` is what `judge_pictures` returned; it is refused if pictures were moved, removed or added since.
    """
    if (dataset.ids, dataset.labels) != (judged.ids, judged.labels):
        raise FieldguideError(
            "Pictures were moved, removed or added since the models judged them. Run this notebook again from its "
            "first cell."
        )
    if not judged.verdict["better"]:
        return []
    hashes = dataset.records.hashes
    return list_suspects(
        dataset.codes,
        judged.probs,
        vocab=judged.vocab,
        names=list(map(dataset.records.told, dataset.paths)),
        distances=judged.distances,
        groups=dataset.groups,
        photos=list(map(same_photos(dataset).get, dataset.ids)),
        hashes=[_hash_number(hashes.get(id, "")) for id in dataset.ids],
    )


def confused_suspects(dataset: Dataset, predictions: pd.DataFrame) -> list[Suspect]:
    """
    Return the pictures in each cell beside the diagonal of 05's matrix: a list per cell, the largest first.

    `predictions` is what `read_predictions` returns: id, predicted, and a column per label. The folders are those of
    today; pictures that are gone since are left out.
    """
    cells = defaultdict(list)
    for row in predictions.to_dict("records"):
        if row["id"] in dataset and (label := dataset[row["id"]].label) != (said := row["predicted"]):
            cells[label, said].append((float(row[said]), dataset.position[row["id"]]))
    return [
        Suspect(n, f"05: {label} taken for {said}", f"Folder: {label}. Model of 05: {said} ({share(figure)}).", figure)
        for (label, said), found in sorted(cells.items(), key=lambda cell: (-len(cell[1]), cell[0]))
        for figure, n in sorted(found, key=lambda pair: (-pair[0], pair[1]))
    ]


def predicted_probs(dataset: Dataset, predictions: pd.DataFrame) -> np.ndarray:
    """
    Return the probabilities of a table of predictions, float array (N, K): NaN for a picture that it does not hold.

    `predictions` is what `read_predictions` returns: id and a column per label. A label that the model did not know
    has the probability 0.
    """
    columns = predictions.set_index("id").reindex(columns=list(dataset.project.labels), fill_value=0.0)
    return columns.reindex(dataset.ids).to_numpy(dtype=float)


def list_suspects(
    labels: Sequence[int],
    probs: np.ndarray,
    *,
    vocab: Sequence[str],
    names: Sequence[str] | None = None,  # of the files; the reasons call the pictures by them
    distances: Sequence[float] | None = None,  # see `relative_distances`; NaN for what nobody judged
    groups: Sequence[Hashable] | None = None,  # pictures that stand on one side share one
    photos: Sequence[Hashable] | None = None,  # versions of one photo share one; by default, those of a group
    hashes: Sequence[int | None] | None = None,  # perceptual, 64 bits: they tell which near-duplicate is the nearest
) -> list[Suspect]:
    """
    Return the suspects among N pictures.

    A picture is *probably wrong* if another label is at least twice as probable as the given one. It is *possibly
    wrong* if another label is the most probable, with less. It is *right, but unsure* if the given label is less than
    twice as probable as the next; these are at most a tenth of the pictures (or 24). It is *unlike any label* if its
    distance lies more than 5 median deviations above the median of its label's pictures.

    `labels`, int array (N,), are the given ones; `probs`, float array (N, K) with a column for each of `vocab`, are
    out-of-fold probabilities. A row with NaN is a picture that nobody judged.

    >>> probs = np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [0.4, 0.6]])
    >>> for suspect in list_suspects([0, 0, 1, 1], probs, vocab=["ant", "bee"]):
    ...     print(suspect.position, suspect.list, "|", suspect.reason)
    1 Probably wrong | Folder: ant. Model: bee (90 %).
    3 Right, but unsure | Folder: bee. Model: bee (60 %). Next: ant (40 %).
    """
    labels, probs = _checked_labels(labels, probs)
    groups = list(range(len(labels))) if groups is None else list(groups)
    names = [f"picture {n}" for n in range(len(labels))] if names is None else list(names)
    found = [*_doubted(labels, probs, vocab, groups)]
    found += _copies(labels, vocab, names, groups if photos is None else list(photos), hashes or [None] * len(labels))
    found += [] if distances is None else _unlike(labels, np.asarray(distances, dtype=float), vocab)
    return found


def _doubted(labels: np.ndarray, probs: np.ndarray, vocab: Sequence[str], groups: Sequence) -> Iterator[Suspect]:
    """Yield the pictures that the models would file elsewhere, then those that they nearly would."""
    if probs.shape[1] < 2:
        return
    order = [n for n in rank_suspects(labels, probs).tolist() if not np.isnan(probs[n]).any()]
    said, given = probs.argmax(1), _given(labels, probs)
    different = defaultdict(set)  # label → its different pictures
    for label, group in zip(labels.tolist(), groups, strict=True):
        different[label].add(group)
    wrong = [n for n in order if given[n] < probs[n, said[n]]]  # equally probable ones are not wrong
    sure = {n for n in wrong if probs[n, said[n]] >= ODDS * given[n]}
    for name, chosen in ((WRONG_SURE, True), (WRONG_UNSURE, False)):
        for n in wrong:
            if (n in sure) == chosen:
                model, folder = said[n], labels[n]
                reason = f"Folder: {vocab[folder]}. Model: {vocab[model]} ({share(probs[n, model])})."
                if len(different[folder]) == 1:
                    reason += f" The model has seen no other {vocab[folder]}."
                yield Suspect(n, name, reason, float(probs[n, model]))
    rival = _rivals(labels, probs)
    second = _given(rival, probs)
    unsure = [n for n in order if second[n] <= given[n] < ODDS * second[n]]
    for n in unsure[: max(LEAST_UNSURE, round(MOST_UNSURE * len(labels)))]:
        label, other = vocab[labels[n]], vocab[rival[n]]
        reason = f"Folder: {label}. Model: {label} ({share(given[n])}). Next: {other} ({share(second[n])})."
        yield Suspect(n, RIGHT_UNSURE, reason, float(given[n]))


def _copies(
    labels: np.ndarray, vocab: Sequence[str], names: Sequence[str], photos: Sequence, hashes: Sequence[int | None]
) -> list[Suspect]:
    """
    Return near-duplicates filed differently, each beside its partner, the nearest first.

    Of a photo's versions, those without its most frequent label are listed, each with the nearest picture of another
    label. If one of three hundred versions is filed elsewhere, two pictures are listed.
    """
    members: Mapping[Hashable, list[int]] = defaultdict(list)
    for n, photo in enumerate(photos):
        members[photo].append(n)
    nearest: dict[int, tuple[int, int]] = {}  # position → bits, position of its partner
    for same in members.values():
        counts = Counter(labels[same].tolist())
        if len(counts) < 2:
            continue
        usual = min(counts, key=lambda label: (-counts[label], label))
        for n in same:
            if labels[n] == usual:
                continue
            pair = min((_bits_apart(hashes[n], hashes[other]), other) for other in same if labels[other] != labels[n])
            nearest[n] = pair
            nearest[pair[1]] = min(nearest.get(pair[1], (BITS, n)), (pair[0], n))
    found = []
    for n, (bits, other) in sorted(nearest.items(), key=lambda item: (item[1][0], min(item[0], item[1][1]), item[0])):
        reason = f"Its near-duplicate {names[other]} is in the folder {vocab[labels[other]]}."
        found.append(Suspect(n, COPIES, reason, float(bits)))
    return found


def _hash_number(text: str) -> int | None:
    """Return a perceptual hash as a number, or None if the table holds no valid one."""
    return int(text, 16) if len(text) == BITS // 4 and set(text) <= set(string.hexdigits) else None


def _bits_apart(one: int | None, other: int | None) -> int:
    """Return in how many bits two hashes differ; all of them if one is not known."""
    return BITS if one is None or other is None else (one ^ other).bit_count()


def _unlike(labels: np.ndarray, distances: np.ndarray, vocab: Sequence[str]) -> list[Suspect]:
    """Return the pictures that lie far from every label, the farthest beyond their label's limit first."""
    judged = np.isfinite(distances)
    limits = {}
    for label in np.unique(labels[judged]).tolist():
        own = judged & (labels == label)
        values = distances[own if own.sum() >= OWN else judged]
        median = np.median(values)
        limits[label] = median + FAR * max(np.median(np.abs(values - median)), LEAST_DEVIATION * median)
    far = [n for n in np.flatnonzero(judged).tolist() if distances[n] > limits[labels[n]]]
    return [
        Suspect(
            n,
            UNLIKE,
            f"{distances[n]:.1f} times as far from every label as usual. For {vocab[labels[n]]}, up to "
            f"{limits[labels[n]]:.1f} times is normal.",
            float(distances[n]),
        )
        for n in sorted(far, key=lambda n: -distances[n] / limits[labels[n]])
    ]
