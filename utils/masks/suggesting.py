"""
Masks, help for whoever paints: a first mask to correct, and the photos of which the masker is least sure.

A photo's uncertainty is the mean entropy, in bits, of what the masker says of its places: 0 where it is sure of each, 1
where each may as well be the thing as not.
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn

from utils.dataset import Dataset, Picture, seeded_rank
from utils.masks.masker import Masker, found_mask, picture_maps
from utils.masks.network import scores
from utils.masks.source import JUDGING
from utils.masks.strokes import Point, StrokeError, box_inside
from utils.seeing import one_thread_each

MOST_JUDGED = 200  # photos of which the masker is asked how sure it is: 15 seconds
ROUNDS = 5  # of GrabCut
LEAST_CHANCE = 1e-6


def suggested_by_masker(masker: Masker, stages: Sequence[nn.Module], image: Image.Image) -> np.ndarray:
    """Return the mask, bool (H, W), that the masker finds in a photo, or raise StrokeError if it finds nothing."""
    with one_thread_each():
        found = found_mask(picture_maps(stages, image, masker.size), masker.head, image.size)
    if not found.any():
        raise StrokeError("The masker finds nothing in this photo. Paint it, or drag a box around the thing.")
    return found


def suggested_in_box(image: Image.Image, points: Sequence[Point]) -> np.ndarray:
    """
    Return what GrabCut takes for the thing within a box, bool (H, W), or raise StrokeError if it finds nothing.

    Rother, Kolmogorov and Blake 2004: colours within the box and outside of it are told apart, and the outline follows
    edges.
    """
    pixels = np.ascontiguousarray(np.asarray(image)[..., ::-1])  # OpenCV's order of colours
    box = _with_margin(box_inside(points, image.size), image.size)
    kinds = np.zeros(pixels.shape[:2], np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # its colours are grouped by chance
    try:
        cv2.grabCut(pixels, kinds, box, *models, ROUNDS, cv2.GC_INIT_WITH_RECT)
    except cv2.error as error:  # as on a photo of one colour
        raise StrokeError(f"Nothing can be told apart in this box. Paint it by hand. ({error.err})") from None
    found = np.isin(kinds, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if not found.any():
        raise StrokeError("Nothing in this box differs from what is around it. Drag another box, or paint by hand.")
    return found


def _with_margin(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a box that leaves a margin of the photo: GrabCut learns there what is not the thing."""
    return (1, 1, size[0] - 2, size[1] - 2) if box[2:] == size else box


def uncertainty(masker: Masker, stages: Sequence[nn.Module], image: Image.Image) -> float:
    """Return how unsure the masker is of a photo, from 0 to 1."""
    with one_thread_each(), torch.no_grad():
        likely = (
            scores(picture_maps(stages, image, masker.size), masker.head)
            .sigmoid()
            .clamp(LEAST_CHANCE, 1 - LEAST_CHANCE)
        )
        return float(-(likely * likely.log2() + (1 - likely) * (1 - likely).log2()).mean())


def to_paint(dataset: Dataset, done: Iterable[str], unsure: dict[str, float]) -> list[Picture]:
    """
    Return the photos that may train and are not `done`, first those of which the masker is least sure.

    `unsure` maps ids to uncertainties; the rest follows in an order drawn by the project's seed.
    """
    rest = [picture for picture in _by_chance(dataset, done) if picture.side not in JUDGING]
    return sorted(rest, key=lambda picture: -unsure.get(picture.id, -1.0))


def to_judge(dataset: Dataset, done: Iterable[str]) -> list[Picture]:
    """
    Return the photos of the validation and test sets that are not `done`, in an order drawn by the project's seed.

    Their masks judge the masker. Chosen by its doubts, they would make it look worse than it is.
    """
    return [picture for picture in _by_chance(dataset, done) if picture.side in JUDGING]


def _by_chance(dataset: Dataset, done: Iterable[str]) -> list[Picture]:
    left = set(dataset.ids) - set(done)
    return sorted((dataset[id] for id in left), key=lambda picture: seeded_rank(dataset.project.seed, picture.id))
