"""
What next? Which label would gain most from more photos, which photos deserve a look, and which label is done.

Reads the features of a data set, for stage 05; writes nothing. Linear heads on what the packaged network sees are
fitted to a quarter, a half and all of the photos, and judge photos held out (five folds, near-duplicates together, the
test set left alone). So the curve says what the photos teach, not what the trained network has made of them. Errors
fall about as a power of the number of photos (Hestness et al. 2017): doubling will do again what it did before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from PIL import Image

from utils.dataset import Dataset, seeded_rank
from utils.errors import FieldguideError
from utils.features import picture_features
from utils.heads import JUDGE_STRENGTH, fit_head, fold_of
from utils.intervals import Figure, wilson
from utils.project import HEAD_SIZE
from utils.sheets import figure_picture, without_formulas
from utils.words import counted, listed, rounded

PARTS = (0.25, 0.5, 1.0)  # of the photos to learn from
FOUND_WHOLE = 0.95  # of a label's photos found: little is left to gain
WORTH = 0.03  # of a label's photos: an expected gain below that is not to be told from luck
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")  # Okabe and Ito


@dataclass(frozen=True)
class Outlook:
    """What is known of one label: how many of its photos are found, with growing numbers to learn from."""

    label: str
    photos: int  # in the training and validation sets
    taught: tuple[float, ...]  # how many of them taught, in the mean over the folds, for each of `PARTS`
    found: tuple[Figure, ...]  # the share found, for each of `PARTS`
    to_check: int  # photos that the heads would file elsewhere

    @property
    def expected(self) -> float:
        """The share that would be found with twice as many photos, if errors go on falling as they did."""
        half, whole = (1 - figure["value"] for figure in self.found[-2:])
        return 1 - whole * whole / half if 0 < whole < half else 1 - whole

    @property
    def gain(self) -> float:
        """How much more of the label would be found."""
        return self.expected - self.found[-1]["value"]


def what_next(dataset: Dataset) -> list[Outlook]:
    """Return the outlook of each label, those that would gain most first; [] if there are too few photos to tell."""
    pictures = dataset.on("train", "valid")
    features = picture_features(pictures, size=HEAD_SIZE)  # as the quick model of 04 without a mask
    there = np.flatnonzero(~np.isnan(features).any(1))
    features, codes = features[there], np.array(pictures.codes)[there]
    groups, seed, vocab = np.array(pictures.groups)[there], dataset.project.seed, dataset.project.labels
    try:
        folds = fold_of(codes.tolist(), groups.tolist(), seed=seed)
    except FieldguideError:
        return []
    ranks = np.array([seeded_rank(seed, group) for group in groups], dtype=object)
    said, taught = np.empty((len(PARTS), len(codes)), dtype=int), np.zeros((len(PARTS), len(vocab)))
    for fold in range(folds.max() + 1):
        held, rest = folds == fold, np.flatnonzero(folds != fold)
        for n, part in enumerate(PARTS):
            some = growing(codes[rest], ranks[rest], part)
            head = fit_head(features[rest][some], codes[rest][some], len(vocab), strength=JUDGE_STRENGTH)
            said[n, held] = head.probabilities(features[held]).argmax(1)
            taught[n] += np.bincount(codes[rest][some], minlength=len(vocab)) / (folds.max() + 1)
    outlooks = []
    for k, label in enumerate(vocab):
        own = codes == k
        found = tuple(wilson(int((row[own] == k).sum()), int(own.sum()), groups=groups[own]) for row in said)
        if own.any():
            wrong = int((said[-1][own] != k).sum())
            outlooks.append(Outlook(label, int(own.sum()), tuple(taught[:, k].tolist()), found, wrong))
    return sorted(outlooks, key=lambda outlook: (-outlook.gain, outlook.label))


def growing(codes: np.ndarray, ranks: np.ndarray, part: float) -> np.ndarray:
    """Return the positions of a part of each label's photos, at least one, by rank: a larger part holds the smaller."""
    chosen = []
    for code in np.unique(codes):
        own = np.flatnonzero(codes == code)
        chosen += own[np.argsort(ranks[own], kind="stable")][: max(1, round(part * len(own)))].tolist()
    return np.sort(np.array(chosen, dtype=int))


def coach_sentence(outlooks: Sequence[Outlook]) -> str:
    """Return in words what to do next."""
    if not outlooks:
        return "There are too few photos to say what would help. Gather more of every label."
    first, told = outlooks[0], []
    if first.gain >= WORTH:
        now, then = (rounded(share) for share in (first.found[-1]["value"], first.expected))
        more = max(10, round(first.photos, -1))
        told.append(f"{more} more photos of “{first.label}” would help most: now {now} are found, then about {then}.")
    else:
        told.append("More photos of the same kind would hardly help any label.")
    doubtful = {outlook.label: outlook.to_check for outlook in outlooks if outlook.to_check}
    if doubtful:
        most = sorted(doubtful, key=lambda label: (-doubtful[label], label))[:3]
        told.append(f"To check in 06: {', '.join(f'{doubtful[label]} of “{label}”' for label in most)}.")
    if done := [outlook.label for outlook in outlooks if outlook.found[-1]["low"] >= FOUND_WHOLE]:
        told.append(f"{listed(done)} {'is' if len(done) == 1 else 'are'} done.")
    return " ".join(told)


def coach_table(outlooks: Sequence[Outlook]) -> pd.DataFrame:
    """Return the outlooks as a table of texts: one row per label."""
    rows = [
        {
            "label": outlook.label,
            "photos": outlook.photos,
            "found with half of them": rounded(outlook.found[-2]["value"]),
            "found now": rounded(outlook.found[-1]["value"]),
            "expected with twice as many": rounded(outlook.expected),
            "to check": outlook.to_check,
        }
        for outlook in outlooks
    ]
    return pd.DataFrame(rows)


def coach_picture(outlooks: Sequence[Outlook], *, most: int = len(LINES)) -> Image.Image:
    """Return the learning curves of the labels that would gain most, with their 95 % intervals as bands."""
    canvas = Canvas(figsize=(8, 3.6), layout="constrained")
    axes = canvas.subplots()
    for outlook, colour in zip(outlooks[:most], LINES, strict=False):
        values, low, high = ([100 * figure[key] for figure in outlook.found] for key in ("value", "low", "high"))
        name = f"{without_formulas(outlook.label)} ({counted(outlook.photos, 'photo')})"
        axes.plot(outlook.taught, values, "o-", color=colour, label=name)
        axes.fill_between(outlook.taught, low, high, color=colour, alpha=0.12)
    axes.set(xlabel="photos of the label that taught", ylabel="found, %", ylim=(0, 102))
    axes.grid(alpha=0.3)
    if outlooks:
        axes.legend(loc="lower right", fontsize=8)
    return figure_picture(canvas)
