"""
Which of the many boxes that a detector's network gives are told: the most probable ones, each thing once.

The rule is torchvision's: greedy suppression, label by label. It needs numpy alone, so that a detector runs where torch
is not installed.
"""

import numpy as np


def box_overlaps(one: np.ndarray, other: np.ndarray, *, of_one: bool = False) -> np.ndarray:
    """
    Return how much N and M boxes overlap, (N, M): shared area divided by joined area (IoU), from 0 to 1.

    With `of_one` it is divided by the area of the first box alone.

    Boxes are (N, 4) and (M, 4): left, top, right, bottom. Between two boxes without area it is NaN.

    >>> box_overlaps(np.array([[0, 0, 2, 1]]), np.array([[1, 0, 3, 1], [5, 5, 6, 6]])).round(3).tolist()
    [[0.333, 0.0]]
    """
    one, other = one[:, None], other[None]  # (N, 1, 4), (1, M, 4)
    sides = np.maximum(0, np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2]))
    shared = sides[..., 0] * sides[..., 1]
    with np.errstate(invalid="ignore"):
        return shared / (box_areas(one) if of_one else box_areas(one) + box_areas(other) - shared)


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Return the areas (…) of boxes (…, 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def suppressed(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, *, overlap: float, most: int | None = None
) -> np.ndarray:
    """
    Return which of N boxes are kept, as positions, the highest score first; of equal scores the first box.

    Label by label, the box with the highest score is kept, and all that overlap it by more than `overlap` are dropped;
    then the next. At most `most` are kept in all. This is ``torchvision.ops.batched_nms``.

    >>> boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 8], [0, 0, 9, 9]], dtype=np.float32)
    >>> suppressed(boxes, np.array([0.7, 0.9, 0.8]), np.array([0, 0, 1]), overlap=0.6).tolist()
    [1, 2]
    """
    overlap = np.float64(overlap)  # as a float32 it would be another number
    order = np.argsort(-scores, kind="stable")
    kept = np.zeros(len(order), dtype=bool)  # by place in the order
    for label in np.unique(labels):
        left = np.flatnonzero(labels[order] == label)
        for _ in range(len(left) if most is None else most):
            if not len(left):
                break
            kept[left[0]] = True
            alike = box_overlaps(boxes[order[left[:1]]], boxes[order[left[1:]]])[0]
            left = left[1:][~(alike > overlap)]  # NaN, of boxes without area, drops none
    return order[kept][:most]


def strongest(
    boxes: np.ndarray, scores: np.ndarray, *, least: float, overlap: float, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Return the boxes (M, 4), scores (M,) and labels (M,) that are told of one picture, the highest score first.

    `boxes` (A, 4) and `scores` (A, K) are what the network gives of it; a box may be two things. Those with a score
    below `least` are left out; see `suppressed` for the rest.
    """
    places, labels = np.nonzero(scores >= least)
    boxes, scores = boxes[places], scores[places, labels]
    kept = suppressed(boxes, scores, labels, overlap=overlap, most=most)
    return boxes[kept], scores[kept], labels[kept]
