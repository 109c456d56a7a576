"""
Stage 07: whether two answers to a picture are the same. Needs no torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from utils.inference import Detection, Detector, FoundBox, Prediction, box_overlaps

ALL_BOXES = 100_000  # boxes: more than any network gives of a picture
AGREEMENT = 1e-3  # the largest difference of a probability between fastai's answers and ours


def disagreement(one: Prediction, other: Prediction, *, within: float = AGREEMENT) -> str:
    """
    Return in what two answers differ, "" if they are the same.

    Probabilities are the same if they differ by at most `within`, errors when they have the same words. Labels must be
    the same too, unless both are so nearly equal in probability (by less than twice that) that the last digits decide.

    >>> disagreement(Prediction("a", 0.9, {"a": 0.9, "b": 0.1}), Prediction("a", 0.8, {"a": 0.8, "b": 0.2}))
    "the probability of 'a' is 0.9000 and 0.8000"
    >>> disagreement(Prediction("a", 0.5002, {"a": 0.5002, "b": 0.4998}), Prediction("b", 0.5, {"a": 0.5, "b": 0.5}))
    ''
    """
    if one.error or other.error:
        return "" if one.error == other.error else f"{one.error or one.label!r} and {other.error or other.label!r}"
    if list(one.probabilities) != list(other.probabilities):
        return f"the labels are {', '.join(one.probabilities)} and {', '.join(other.probabilities)}"
    for label, probability in one.probabilities.items():
        if not abs(probability - other.probabilities[label]) <= within:  # NaN differs from all
            return f"the probability of {label!r} is {probability:.4f} and {other.probabilities[label]:.4f}"
    for answer, label in ((one, other.label), (other, one.label)):
        if answer.probabilities[label] < max(answer.probabilities.values()) - 2 * within:
            return f"the labels are {one.label!r} and {other.label!r}"
    return ""


def box_disagreement(
    one: Detection,
    other: Detection,
    *,
    least: float,
    overlap: float,
    most: int,
    within: float = AGREEMENT,
    candidates: Callable[[], Sequence[FoundBox]] = tuple,
) -> str:
    """
    Return in what the boxes of two answers differ, "" if they are the same.

    Boxes are the same if they have one label, and corners and probability that differ by at most `within`. A box that
    only one answer has is no difference where the last digits decide whether it is told: at the probability `least`,
    at the `overlap` with a more probable box, or where `most` boxes are told. `candidates` returns the boxes of `other`
    before any dropped another: of two that are on one thing and nearly as probable, either may drop the other.

    >>> box = FoundBox("a", 0.9, 0.1, 0.1, 0.5, 0.5, (100, 100))
    >>> moved = FoundBox("a", 0.9, 0.1, 0.1, 0.5, 0.6, (100, 100))
    >>> rules = {"least": 0.05, "overlap": 0.6, "most": 100}
    >>> box_disagreement(Detection((box,)), Detection((box,)), **rules)
    ''
    >>> box_disagreement(Detection((box,)), Detection((moved,)), **rules)
    '“a” (0.9000) at 0.1000 0.1000 0.5000 0.5000 differs by 0.1000'
    """
    if one.error or other.error:
        return "" if one.error == other.error else f"{one.error or 'boxes'!r} and {other.error or 'boxes'!r}"
    ours, theirs = list(one.boxes), list(other.boxes)
    for box in one.boxes:
        if twin := next((each for each in theirs if box_distance(box, each) <= within), None):
            ours.remove(box)
            theirs.remove(twin)
    alone = [*ours, *theirs]
    tie = partial(_is_tie, overlap=overlap - within, within=2 * within)
    known = candidates() if ours and theirs else ()
    dropped = [box for box in ours if any(box_distance(box, each) <= within for each in known)]
    ties = [box for box in dropped if any(tie(box, each) for each in other.boxes)]
    left = [box for box in one.boxes if box not in ours or box in ties]
    ties += [box for box in theirs if any(tie(box, each) for each in left)]
    lowest = max([least, *(each.boxes[-1].probability for each in (one, other) if len(each.boxes) >= most)]) + within
    edge = [
        box
        for box in alone
        if box in ties
        or box.probability <= lowest
        or (abs(_overlaps(box, (*one.boxes, *other.boxes)) - overlap) <= within).any()
    ]
    for box in alone:
        if box in edge or (_overlaps(box, edge) > overlap - within).any():  # or a box at the edge dropped this one
            continue
        told = f"“{box.label}” ({box.probability:.4f}) at {' '.join(f'{corner:.4f}' for corner in box.corners)}"
        nearest = min((box_distance(box, each) for each in (theirs if box in ours else ours)), default=1.0)
        return f"{told} differs by {nearest:.4f}" if nearest < 1 else f"only one finds {told}"
    return ""


def box_distance(one: FoundBox, other: FoundBox) -> float:
    """Return the largest difference of two boxes' corners and probabilities, as fractions; 1 if their labels differ."""
    if one.label != other.label:
        return 1.0
    pairs = zip((*one.corners, one.probability), (*other.corners, other.probability), strict=True)
    return max(abs(a - b) for a, b in pairs)


def undecided(detector: Detector, picture, least: float) -> tuple[FoundBox, ...]:
    """Return all boxes of a picture with a probability of `least` or more, before any of them dropped another."""
    recipe = replace(detector.recipe, overlap=1.0, most=ALL_BOXES)
    return replace(detector, recipe=recipe).predict([picture], threshold=least)[0].boxes


def _is_tie(one: FoundBox, other: FoundBox, *, overlap: float, within: float) -> bool:
    """Return whether two boxes are of one thing and nearly as probable, so that either may drop the other."""
    if one.label != other.label or abs(one.probability - other.probability) > within:
        return False
    return bool(box_overlaps(np.array([one.corners]), np.array([other.corners]))[0, 0] > overlap)


def _overlaps(box: FoundBox, others: Sequence[FoundBox]) -> np.ndarray:
    """Return how much a box overlaps those of its label, (M,)."""
    corners = [each.corners for each in others if each.label == box.label and each is not box]
    return box_overlaps(np.array([box.corners]), np.array(corners).reshape(-1, 4))[0]
