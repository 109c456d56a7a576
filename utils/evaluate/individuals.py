"""
Individuals: which known animal is it, by the photo that looks most alike?

For stage 05, with ``individuals = true``. Each photo is compared with the training photos by the features on which the
network's head stands. The known individuals are ranked by their nearest photo, as people who keep catalogues of whales
do. A new individual has no label: it is what an answer below the threshold of 07 may be.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from utils.averaging import networks_in
from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.evaluate.caught import Caught
from utils.evaluate.rounds import coded
from utils.intervals import Figure, bootstrap, interval, mean_of
from utils.words import SETS, counted, percent

AMONG = 5  # individuals that are shown: of top-5 and MAP@5
RANKED_AT_ONCE = 256  # photos compared with all known ones at once
RANKED_BY = {
    "nearest": "by the nearest known photo",
    "softmax": "by the network's own probabilities",
    "guessing": "always the most photographed first",
}
PLACE_COLUMNS = {"top1": "the first is right", "top5": f"among the first {AMONG}", "map5": f"MAP@{AMONG}"}


def feature_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """
    Return the layers whose inputs, made flat, are a network's features: for each network of an ensemble one.

    What reaches them are the maps of the body, pooled: they are the first layers of the heads that have learned.
    """
    return [_first_of_head(network) for network in networks_in(model)]


class CaughtFeatures(Caught):
    """A context in which whatever a learner judges leaves its features; those of several networks count alike."""

    def __init__(self, learn):
        super().__init__(feature_layers(learn.model), made=False)

    def rows(self) -> np.ndarray:
        """Return the features of the pictures judged so far, each of length 1: float32 array (N, D)."""
        each = [torch.cat([rows.flatten(1).float() for rows in its]).numpy() for its in self.batches]
        return of_length_1(np.hstack([of_length_1(rows) for rows in each]))


def _first_of_head(network: torch.nn.Module) -> torch.nn.Module:
    """Return the first layer of a network's head that has learned something."""
    head = network[-1] if isinstance(network, torch.nn.Sequential) else network
    if (layer := next((layer for layer in head.modules() if list(layer.parameters(recurse=False))), None)) is None:
        raise FieldguideError("This network has no head that learned something. Train it as 04 does.")
    return layer


def of_length_1(features: np.ndarray) -> np.ndarray:
    """
    Return features (N, D), each row divided by its length; a row of zeros stays as it is.

    >>> of_length_1(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1)


def nearest_of_each(
    features: np.ndarray, known: np.ndarray, codes: np.ndarray, k: int, *, groups: Sequence, known_groups: Sequence
) -> np.ndarray:
    """
    Return how alike N photos are to the nearest known photo of each of K individuals: cosines (N, K).

    `features` (N, D) and `known` (M, D) have rows of length 1; `codes` (M,) are the individuals of the known photos,
    0 ≤ code < K. A photo is never compared with one of its own group. An individual of which no photo is left has −inf.
    """
    found = np.full((len(features), k), -np.inf)
    if not len(known):
        return found
    order = np.argsort(codes, kind="stable")
    present, starts = np.unique(codes[order], return_index=True)
    _, both = np.unique(np.array([*groups, *known_groups], dtype=str), return_inverse=True)
    own, others = both[: len(features)], both[len(features) :][order]
    for start in range(0, len(features), RANKED_AT_ONCE):
        rows = slice(start, start + RANKED_AT_ONCE)
        alike = features[rows] @ known[order].T
        alike[own[rows, None] == others] = -np.inf
        found[rows, present] = np.maximum.reduceat(alike, starts, axis=1)
    return found


def places_of(scores: np.ndarray, codes: Sequence[int]) -> np.ndarray:
    """
    Return the place of the right individual when each of N rows of scores (N, K) is ranked: 1 is the first.

    Of equal scores the earlier column comes first. A right one with a score of −inf has no place: inf.

    >>> places_of(np.array([[0.1, 0.9, 0.5], [0.7, 0.7, 0.2], [0.1, 0.2, -np.inf]]), [2, 1, 2])
    array([ 2.,  2., inf])
    """
    codes = np.asarray(codes, dtype=int)
    own = scores[np.arange(len(codes)), codes][:, None]
    earlier = np.arange(scores.shape[1]) < codes[:, None]
    places = 1.0 + (scores > own).sum(1) + ((scores == own) & earlier).sum(1)
    return np.where(np.isneginf(own[:, 0]), np.inf, places)


def ranking_figures(places: np.ndarray, *, groups: Sequence, seed: int) -> dict[str, Figure]:
    """
    Return top-1, top-5 and MAP@5 of the places of N right individuals, with 95 % intervals by group.

    Top-5 is the share whose right individual is among the first five. MAP@5 also counts how early it comes: 1 for the
    first place, 1/2 for the second, … 1/5 for the fifth, else 0; the mean over the photos.
    """
    gains = {
        "top1": (places == 1).astype(float),
        "top5": (places <= AMONG).astype(float),
        "map5": np.where(places <= AMONG, 1 / places, 0.0),
    }
    drawn = bootstrap({name: mean_of(gain) for name, gain in gains.items()}, groups, seed=seed)
    return {
        name: interval(values[0], draws[:, 0], n=len(places), groups=groups) for name, (values, draws) in drawn.items()
    }


def individual_figures(
    dataset: Dataset, features: Mapping[str, np.ndarray], predictions: Mapping[str, pd.DataFrame]
) -> dict:
    """
    Return how well single individuals are recognised: by nearest photos, by the network's probabilities, by guessing.

    `features` holds the row (D,) of each id of the training set and of the sides in `predictions`. The dict holds
    ``individuals`` and ``photos`` that are known, and for each side ``nearest``, ``softmax`` and ``guessing``, each
    with the figures ``top1``, ``top5`` and ``map5``. Guessing names the individuals with most training photos first.
    """
    known, k, seed = dataset.on("train"), len(dataset.project.labels), dataset.project.seed
    photos, codes = np.stack([features[id] for id in known.ids]), np.array(known.codes)
    counts = np.bincount(codes, minlength=k).astype(float)
    found = {"individuals": int((counts > 0).sum()), "photos": len(known)}
    for side, table in predictions.items():
        right, probs = coded(table)
        groups = [dataset[id].group for id in table.id]
        asked = np.stack([features[id] for id in table.id])
        scores = {
            "nearest": nearest_of_each(asked, photos, codes, k, groups=groups, known_groups=known.groups),
            "softmax": probs,
            "guessing": np.tile(counts, (len(table), 1)),
        }
        found[side] = {
            way: ranking_figures(places_of(each, right), groups=groups, seed=seed) for way, each in scores.items()
        }
    return found


def individual_sentence(found: Mapping | None) -> str:
    """Return in words how well individuals are recognised, by the test set where it is open; "" without figures."""
    if not found:
        return ""
    side = "test" if "test" in found else "valid"
    nearest = found[side]["nearest"]
    told = (
        f"Of {counted(nearest['top1']['n'], 'photo')} of the {SETS[side]}, the nearest of {found['photos']:,} known "
        f"photos shows the right individual for {percent(nearest['top1'], digits=0)}."
    )
    if found["individuals"] > AMONG:
        told += f" It is among the {AMONG} nearest individuals for {percent(nearest['top5'], digits=0)}."
    return f"{told} {NEW_ONE}"


NEW_ONE = (
    "A new individual has no label of its own: an answer below the threshold of 07 means “not one of the known ones, "
    "or not sure”."
)


def individual_table(found: Mapping) -> pd.DataFrame:
    """Return the figures of `individual_figures` as a table of texts, one row per set and way."""
    rows = {
        f"{SETS[side]}: {RANKED_BY[way]}": {
            PLACE_COLUMNS[name]: percent(figure, told="", digits=0) for name, figure in figures.items()
        }
        for side in ("valid", "test")
        if side in found
        for way, figures in found[side].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(PLACE_COLUMNS.values()))
