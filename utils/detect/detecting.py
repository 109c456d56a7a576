"""
4_test, what a detector finds: boxes of whole photos, as fractions, through the same square as in training.

Reads images/; writes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm

from utils.boxes import CORNER_DIGITS, FROM_MODEL, Box, BoxedPhoto, Photos, box_problem, corner_array
from utils.detect.loading import is_ignored, opened_photo
from utils.detect.matching import JudgedPhoto
from utils.detect.network import BoxDetector
from utils.pictures import letterboxed

DETECTED_AT_ONCE = 8  # photos
FoundBoxes = Mapping[str, Sequence["ScoredBox"]]  # id → boxes, the best first


@dataclass(frozen=True)
class ScoredBox(Box):
    """A box that a detector found, and its score in [0, 1]."""

    by: str = FROM_MODEL
    score: float = 0.0


def detect_boxes(detector: BoxDetector, photos: Photos, *, told: str = "") -> dict[str, tuple[ScoredBox, ...]]:
    """
    Return what a detector finds in each photo: id → boxes, the best first, none for some.

    `told` is written before a bar of progress; without it there is none.
    """
    all, found = tuple(photos), {}
    device = next(detector.parameters()).device
    detector.eval()
    for start in tqdm(range(0, len(all), DETECTED_AT_ONCE), desc=told, unit="batch", disable=not told):
        some = all[start : start + DETECTED_AT_ONCE]
        squares, places = zip(*(letterboxed(opened_photo(photo), detector.size) for photo in some), strict=True)
        with torch.inference_mode():
            answers = detector(torch.from_numpy(np.stack(squares)).to(device))
        for photo, answer, place in zip(some, answers, places, strict=True):
            corners = place.out_of(answer["boxes"].double().cpu().numpy()).round(CORNER_DIGITS)
            rows = zip(corners.tolist(), answer["labels"].tolist(), answer["scores"].tolist(), strict=True)
            boxes = (ScoredBox(detector.labels[label], *box, score=round(score, 6)) for box, label, score in rows)
            found[photo.id] = tuple(box for box in boxes if not box_problem(box))
    return found


def judged_photo(photo: BoxedPhoto, found: Sequence[ScoredBox], labels: Sequence[str]) -> JudgedPhoto:
    """Return a photo's boxes and those found in it as arrays, corners as fractions."""
    things = [box for box in photo.boxes if not is_ignored(box)]
    others = [box for box in photo.boxes if is_ignored(box)]
    place = {label: n for n, label in enumerate(labels)}
    return JudgedPhoto(
        true_boxes=corner_array(things),
        true_labels=np.array([place[box.label] for box in things], int),
        found_boxes=corner_array(found),
        found_labels=np.array([place[box.label] for box in found], int),
        found_scores=np.array([box.score for box in found], float),
        true_ignored=corner_array(others),
    )


def judged_photos(photos: Photos, found: FoundBoxes) -> list[JudgedPhoto]:
    """Return all photos and what was found in them, in their order."""
    return [judged_photo(photo, found.get(photo.id, ()), photos.labels) for photo in photos]
