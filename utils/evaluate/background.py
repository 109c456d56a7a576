"""
The shortcut alarm's third look: what does a model know that sees the picture without the thing?

For stage 05, with what utils.masks hides. Where photos of one animal come from few days, the
sea tells which one it is. So a box hides what the masker of 03a finds, and linear heads on what the packaged network
sees of the rest judge photos held out (folds by group).
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import torch

from utils.dataset import Dataset, seeded_rank
from utils.errors import FieldguideError
from utils.evaluate.shortcuts import WEAK
from utils.features import picture_features
from utils.heads import JUDGE_STRENGTH, fit_head, fold_of
from utils.intervals import LEVEL, verdict, wilson
from utils.project import FEATURES
from utils.seeing import image_pixels, network_features, one_thread_each, packaged_network
from utils.words import counted, percent, rounded

MOST_HIDDEN = 400  # photos: the masker takes about a tenth of a second for each
HIDDEN_AT_ONCE = 16


def find_background(dataset: Dataset, hiding, earlier: Mapping | None = None) -> dict | None:
    """
    Return how well the background alone tells the labels of the training and validation sets.

    `hiding` is as utils.masks makes it; without it, or where `earlier` was found with the same one, `earlier` is
    returned. The dict holds ``accuracy``, a figure; ``whole``, that of the same photos with the thing; ``majority``,
    the share of the most frequent label; ``p``, the chance that guessing gets as many right; ``left_out``, the photos
    in which nothing was found, or nothing else was to be seen; ``masker``, the name of `hiding`. With too few photos,
    accuracy has no value and says why.
    """
    if hiding is None or (earlier and earlier["masker"] == hiding.name):
        return earlier
    sample = sampled_groups(dataset.on("train", "valid"), most=MOST_HIDDEN)
    features = hidden_features(hiding(sample.paths), len(sample))
    whole = picture_features(sample)
    seen = ~np.isnan(features).any(1) & ~np.isnan(whole).any(1)
    left = sample.where(lambda picture: seen[sample.position[picture.id]])
    found = {"masker": hiding.name, "left_out": int((~seen).sum())}
    try:
        folds = fold_of(left.labels, left.groups, seed=dataset.project.seed)
        if folds.max() < 1 or len(set(left.labels)) < 2:
            raise FieldguideError("nothing to compare")
    except (FieldguideError, ValueError):
        return found | {"accuracy": wilson(0, 0, why="too few photos in which the thing was found")}
    said, with_it = (held_out_labels(rows[seen], left, folds) for rows in (features, whole))
    shares = [wilson(int((each == left.labels).sum()), len(left), groups=left.groups) for each in (said, with_it)]
    return found | {
        "accuracy": shares[0],
        "whole": shares[1],
        "majority": round(max(Counter(left.labels).values()) / len(left), 6),
        "p": verdict(left.labels, said, groups=left.groups)["p"],
    }


def sampled_groups(dataset: Dataset, *, most: int) -> Dataset:
    """Return whole groups of a data set, drawn with the seed, of at most `most` photos; at least one group."""
    sizes, chosen, count = Counter(dataset.groups), set(), 0
    for group in sorted(sizes, key=lambda group: seeded_rank(dataset.project.seed, group)):
        if not chosen or count + sizes[group] <= most:
            chosen.add(group)
            count += sizes[group]
    return dataset.where(lambda picture: picture.group in chosen)


def hidden_features(images, n: int) -> np.ndarray:
    """Return what the packaged network sees in N images: float32 (N, 1280); NaN where the image is None."""
    network, rows = packaged_network(), np.full((n, FEATURES), np.nan, dtype=np.float32)
    waiting: dict[int, np.ndarray] = {}

    def look() -> None:
        with one_thread_each():
            rows[list(waiting)] = network_features(network, torch.from_numpy(np.stack(list(waiting.values())))).numpy()
        waiting.clear()

    for place, image in enumerate(images):
        if image is not None:
            waiting[place] = image_pixels(image)
        if len(waiting) == HIDDEN_AT_ONCE:
            look()
    if waiting:
        look()
    return rows


def held_out_labels(features: np.ndarray, dataset: Dataset, folds: np.ndarray) -> np.ndarray:
    """Return the label (N,) that a head names for each picture, features (N, F), which learned from the other folds."""
    codes, vocab = np.array(dataset.codes), np.array(list(dataset.project.labels))
    said = np.empty(len(codes), dtype=int)
    for fold in range(folds.max() + 1):
        held = folds == fold
        head = fit_head(features[~held], codes[~held], len(vocab), strength=JUDGE_STRENGTH)
        said[held] = head.probabilities(features[held]).argmax(1)
    return vocab[said]


def background_line(found: Mapping) -> str:
    """Return in one line what the background alone tells, from the shortcuts of evaluation.json, and what to do."""
    background = found.get("background")
    if not background:
        return "What the background tells was not looked at: that takes the masker of 03a."
    accuracy = background["accuracy"]
    if accuracy["value"] is None:
        return f"What the background tells was not measured: {accuracy['why']}."
    told = (
        f"With a box over the thing, the background alone gives the right label for {percent(accuracy, digits=0)} of "
        f"{counted(accuracy['n'])}; always naming the most frequent label: {rounded(background['majority'])}, "
        f"p = {background['p']:.2g}; with the thing: {rounded(background['whole']['value'])}"
    )
    if left := background["left_out"]:
        told += f" (left out, for the masker found no thing or nothing else: {left:,})"
    gain = accuracy["value"] - background["majority"]
    if background["p"] >= 1 - LEVEL or gain <= 0:
        return f"No shortcut found. {told}."
    alarm = "Hardly a shortcut." if gain < WEAK else "Shortcut!"
    return (
        f"{alarm} {told}. Photos of one label come from few days or places: gather others, and have group_by join "
        "those of one day."
    )
