"""
Stage 06, second part: which pictures are probably filed under the wrong label, or under none that fits?

Reads split.csv and pictures.csv for near-duplicates; what the models say comes from `folds`. The ranking measures each
probability by how sure the models usually are of that label, so that a hard label does not fill the list with its
ordinary pictures (Northcutt et al. 2021, confident learning), and weighs the given label against its rivals, so that a
picture which no label fits well does not stand before one that another label fits.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from utils.errors import FieldguideError
from utils.heads import Judgement, judge_pictures, out_of_fold
from utils.project import Project
from utils.tables import PICTURES_COLUMNS, read_rows
from utils.words import share

__all__ = ["Judgement", "Suspect", "find_suspects", "judge_pictures", "list_suspects", "out_of_fold", "rank_suspects"]

WRONG_SURE = "wrong, and sure"
WRONG_UNSURE = "wrong, and unsure"
RIGHT_UNSURE = "right, but unsure"
COPIES = "copies under two labels"
UNLIKE = "unlike any label"

PRIOR = 5  # pictures; so many of middling sureness are added to each label, lest one of three pictures count as known
ODDS = 2.0  # sure is what is at least twice as probable as what it is weighed against
MOST_UNSURE = 0.1  # of all pictures; no list of doubts is longer, or nobody reads it to its end
FEW = 24  # … but so many may always stand there: one page
FAR = 5.0  # median deviations above the median; where distances are normal, 1 picture in 2,500 lies beyond
LEAST_DEVIATION = 0.02  # of the median: where half of the pictures lie equally far, the others are not all far
OWN = 8  # pictures of a label that tell what is far for it; with fewer, those of all labels tell
HASH = re.compile(r"[0-9a-fA-F]{16}")
BITS = 64  # of a perceptual hash


@dataclass(frozen=True)
class Suspect:
    """A picture to look at, and why."""

    position: int  # in ``project.pictures()``
    list: str  # which of the five lists it stands in
    reason: str  # one line
    figure: float  # what the reason rests on: a probability, a number of bits, or a distance


def rank_suspects(labels: Sequence[int], probs: np.ndarray) -> np.ndarray:
    """
    Rank N pictures by how much their label looks wrong.

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

    Examples
    --------
    >>> rank_suspects([0, 0, 1], np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])).tolist()
    [1, 2, 0]
    """
    labels, probs = _checked(labels, probs)
    relative = probs / usual_sureness(labels, probs)
    # By the length of the row, not its sum: many labels with a little each weigh less than one rival with as much.
    relative /= np.maximum(np.linalg.norm(relative, axis=1, keepdims=True), 1e-12)
    return np.argsort(_given(labels, relative), kind="stable")  # NaN goes last


def usual_sureness(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """
    Return how sure the models usually are of each label where it is given: float array (K,), never 0.

    The mean probability of the label over its pictures, drawn towards the mean over all by `PRIOR` pictures more.
    """
    judged = ~np.isnan(probs).any(axis=1)
    labels, own = labels[judged], _given(labels, probs)[judged]
    counts = np.bincount(labels, minlength=probs.shape[1])
    sums = np.bincount(labels, own, minlength=probs.shape[1])
    middling = own.mean() if len(own) else 1.0
    return np.maximum((sums + PRIOR * middling) / (counts + PRIOR), 1e-6)


def _checked(labels: Sequence[int], probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


# ---------------------------------------------------------------------------------------------------------------------
# The five lists
# ---------------------------------------------------------------------------------------------------------------------


def find_suspects(project: Project, judged: Judgement) -> list[Suspect]:
    """
    Return the pictures of a project that deserve a look, in five lists, worst first within each.

    Parameters
    ----------
    project : Project
    judged : Judgement
        What `judge_pictures` returned. Positions are those of its ids, which are those of ``project.pictures()``.

    Raises
    ------
    FieldguideError
        If pictures were moved, removed or added since.
    """
    pictures = project.pictures()
    if (tuple(pictures), judged.labels) != (judged.ids, tuple(path.parent.name for path in pictures.values())):
        raise FieldguideError(
            "Pictures were moved, removed or added since the models judged them. Run this notebook again from its "
            "first cell."
        )
    vocab = list(project.labels)
    hashes = {row["id"]: row["hash"] for row in read_rows(project.table("pictures"), PICTURES_COLUMNS)}
    return list_suspects(
        [vocab.index(label) for label in judged.labels],
        judged.probs,
        vocab=vocab,
        names=[path.name for path in pictures.values()],
        distances=judged.distances,
        groups=project.groups(judged.ids),
        hashes=[int(hashes[id], 16) if HASH.fullmatch(hashes.get(id, "")) else None for id in judged.ids],
    )


def list_suspects(
    labels: Sequence[int],
    probs: np.ndarray,
    *,
    vocab: Sequence[str],
    names: Sequence[str] | None = None,
    distances: Sequence[float] | None = None,
    groups: Sequence[Hashable] | None = None,
    hashes: Sequence[int | None] | None = None,
) -> list[Suspect]:
    """
    Return the suspects among N pictures.

    A prediction is *wrong* if another label than the given one is the most probable. It is *sure* if that label is at
    least twice as probable as the given one, and as probable as is usual for pictures filed under it: the threshold of
    confident learning. It is *right, but unsure* if the given label is less than twice as probable as the next. All
    that is wrong is listed; right but unsure are at most a tenth of the pictures (or 24). A picture is *unlike any
    label* if its distance lies more than 5 median deviations above the median of its label's pictures.

    Parameters
    ----------
    labels : int array (N,)
        The given labels, 0 ≤ label < K.
    probs : float array (N, K)
        Out-of-fold probabilities; a row with NaN is a picture that nobody judged.
    vocab : sequence of K labels
    names : sequence of N file names, optional
        How the reasons call the pictures; by default by their positions.
    distances : float array (N,), optional
        As `folds.relative_distances` returns them; NaN for what nobody judged.
    groups : sequence of N group names, optional
        Near-duplicates share one.
    hashes : sequence of N 64-bit numbers or None, optional
        Perceptual hashes, which tell how near near-duplicates are.

    Examples
    --------
    >>> probs = np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [0.4, 0.6]])
    >>> for suspect in list_suspects([0, 0, 1, 1], probs, vocab=["ant", "bee"]):
    ...     print(suspect.position, suspect.list, "|", suspect.reason)
    1 wrong, and sure | looks like bee: 90 %, where 63 % is usual; like ant: 10 %, where 57 % is usual
    3 right, but unsure | bee 60 %, where 63 % is usual; ant comes next with 40 %
    """
    labels, probs = _checked(labels, probs)
    groups = list(range(len(labels))) if groups is None else list(groups)
    names = [f"picture {n}" for n in range(len(labels))] if names is None else list(names)
    found = [*_doubted(labels, probs, vocab, groups)]
    found += _copies(labels, vocab, names, groups, hashes or [None] * len(labels))
    found += [] if distances is None else _unlike(labels, np.asarray(distances, dtype=float), vocab)
    return found


def _doubted(labels: np.ndarray, probs: np.ndarray, vocab: Sequence[str], groups: Sequence) -> Iterator[Suspect]:
    """Yield what the models would file elsewhere, and what they nearly would."""
    if probs.shape[1] < 2:
        return
    usual = usual_sureness(labels, probs)
    order = [n for n in rank_suspects(labels, probs).tolist() if not np.isnan(probs[n]).any()]
    said, given = probs.argmax(1), _given(labels, probs)
    kinds = defaultdict(set)  # label → its different pictures
    for label, group in zip(labels.tolist(), groups, strict=True):
        kinds[label].add(group)
    wrong = [n for n in order if given[n] < probs[n, said[n]]]  # equally probable ones are not wrong
    sure = {n for n in wrong if probs[n, said[n]] >= max(usual[said[n]], ODDS * given[n])}
    for name, chosen in ((WRONG_SURE, True), (WRONG_UNSURE, False)):
        for n in wrong:
            if (n in sure) == chosen:
                model, folder = said[n], labels[n]
                reason = (
                    f"looks like {vocab[model]}: {share(probs[n, model])}, where {share(usual[model])} is usual; "
                    f"like {vocab[folder]}: {share(given[n])}, where {share(usual[folder])} is usual"
                )
                if len(kinds[folder]) == 1:
                    reason += f"; no model has seen another {vocab[folder]}"
                yield Suspect(n, name, reason, float(probs[n, model]))
    rivals = probs.copy()
    rivals[np.arange(len(labels)), labels] = -1
    rival = rivals.argmax(1)
    second = _given(rival, probs)
    unsure = [n for n in order if second[n] <= given[n] < ODDS * second[n]]
    for n in unsure[: max(FEW, round(MOST_UNSURE * len(labels)))]:
        reason = (
            f"{vocab[labels[n]]} {share(given[n])}, where {share(usual[labels[n]])} is usual; {vocab[rival[n]]} "
            f"comes next with {share(second[n])}"
        )
        yield Suspect(n, RIGHT_UNSURE, reason, float(given[n]))


def _copies(
    labels: np.ndarray, vocab: Sequence[str], names: Sequence[str], groups: Sequence, hashes: Sequence[int | None]
) -> list[Suspect]:
    """
    Return near-duplicates filed differently, each beside its partner, the nearest copies first.

    Of a group, those are listed that do not have its most frequent label, each with the picture of another label that
    is nearest to it: of three hundred frames of a film with one filed elsewhere, these are two.
    """
    members: Mapping[Hashable, list[int]] = defaultdict(list)
    for n, group in enumerate(groups):
        members[group].append(n)
    nearest: dict[int, tuple[int, int]] = {}  # position → bits, position of its partner
    for same in members.values():
        counts = Counter(labels[same].tolist())
        if len(counts) < 2:
            continue
        usual = min(counts, key=lambda label: (-counts[label], label))
        for n in same:
            if labels[n] == usual:
                continue
            pair = min((_apart(hashes[n], hashes[other]), other) for other in same if labels[other] != labels[n])
            nearest[n] = pair
            nearest[pair[1]] = min(nearest.get(pair[1], (BITS, n)), (pair[0], n))
    found = []
    for n, (bits, other) in sorted(nearest.items(), key=lambda item: (item[1][0], min(item[0], item[1][1]), item[0])):
        reason = f"a near-duplicate of {names[other]}, which is filed as {vocab[labels[other]]}"
        if bits < BITS:
            reason += f": {bits} of {BITS} bits of their hashes differ" if bits else ": their hashes are the same"
        found.append(Suspect(n, COPIES, reason, float(bits)))
    return found


def _apart(one: int | None, other: int | None) -> int:
    """Return in how many bits two hashes differ; all of them where one is not known."""
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
            f"{distances[n]:.1f} times as far from the nearest label as that label's own pictures usually are; of "
            f"{vocab[labels[n]]}, nearly all lie within {limits[labels[n]]:.1f} times",
            float(distances[n]),
        )
        for n in sorted(far, key=lambda n: -distances[n] / limits[labels[n]])
    ]
