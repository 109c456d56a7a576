"""
4_test, what is right: which found box stands for which thing, and what follows for precision and recall.

Reads and writes nothing. Matching follows COCO's rules (Lin et al. 2014), whose figures come from faster-coco-eval;
`weighted_curves` gives the same for photos that count several times or not at all, as the bootstrap wants them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from utils.inference import box_overlaps

OVERLAPS = tuple(round(0.5 + 0.05 * n, 2) for n in range(10))  # COCO's thresholds of AP50:95
RECALLS = np.linspace(0, 1, 101)  # at which COCO reads the precision
MOST_MATCHED = 100  # boxes per photo and label, the best ones
NONE, IN_IGNORED = -1, -2  # in place of a thing: nothing, or an ignored box


def _no_boxes() -> np.ndarray:
    return np.zeros((0, 4))


@dataclass(frozen=True)
class JudgedPhoto:
    """
    What is in a photo and what was found there: boxes (M, 4) and (D, 4) in any one unit, labels from 0 to K − 1.

    Ignored boxes (I, 4) are of any label: what is found inside them is neither right nor wrong.
    """

    true_boxes: np.ndarray
    true_labels: np.ndarray
    found_boxes: np.ndarray
    found_labels: np.ndarray
    found_scores: np.ndarray
    true_ignored: np.ndarray = field(default_factory=_no_boxes)

    def of(self, label: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the things, the found boxes and their scores of one label, the best first."""
        mine = np.flatnonzero(self.found_labels == label)
        best = mine[np.argsort(-self.found_scores[mine], kind="stable")][:MOST_MATCHED]
        return self.true_boxes[self.true_labels == label], self.found_boxes[best], self.found_scores[best]


def overlaps(found: np.ndarray, true: np.ndarray, *, of_found: bool = False) -> np.ndarray:
    """
    Return the intersection over union of D with M boxes: (D, M); with `of_found`, over the area of the found box.

    >>> overlaps(np.array([[0, 0, 2, 2.0]]), np.array([[1, 0, 3, 2.0], [5, 5, 6, 6]])).round(3).tolist()
    [[0.333, 0.0]]
    """
    found, true = (np.asarray(boxes, float).reshape(-1, 4) for boxes in (found, true))
    return np.nan_to_num(box_overlaps(found, true, of_one=of_found))  # two boxes without area share nothing


def matches(overlap: np.ndarray, ignored: np.ndarray, threshold: float) -> np.ndarray:
    """
    Return for each of D found boxes, the best first, which thing it is: int (D,), else `NONE` or `IN_IGNORED`.

    `overlap` is (D, M), `ignored` (D, I) the share of each box inside ignored ones. A thing is found once: the next box
    on it is `NONE`, unless it has another.
    """
    taken, found = np.zeros(overlap.shape[1], bool), np.full(len(overlap), NONE)
    least = min(threshold, 1 - 1e-10)
    for n, row in enumerate(overlap):
        free = np.where(taken, -1.0, row)
        # Of equal overlaps COCO takes the last.
        best = len(free) - 1 - int(free[::-1].argmax()) if len(free) else NONE
        if best != NONE and free[best] >= least:
            found[n], taken[best] = best, True
        elif ignored.shape[1] and ignored[n].max() >= least:
            found[n] = IN_IGNORED
    return found


@dataclass(frozen=True)
class Found:
    """The D boxes of one label found in N photos, the best first: (D,) each; `hits` are (D, T) for T thresholds."""

    photos: np.ndarray  # which photo, 0 to N − 1
    scores: np.ndarray
    hits: np.ndarray  # 1 right, 0 wrong, −1 left out
    things: np.ndarray  # how many there are in each photo (N,)


def judged_label(photos: Sequence[JudgedPhoto], label: int, thresholds: Sequence[float] = OVERLAPS) -> Found:
    """Return which boxes of a label are right at each threshold, those of all photos together, the best first."""
    where, scores, hits, things = [], [], [], []
    for n, photo in enumerate(photos):
        true, boxes, told = photo.of(label)
        overlap, ignored = overlaps(boxes, true), overlaps(boxes, photo.true_ignored, of_found=True)
        found = np.array([matches(overlap, ignored, threshold) for threshold in thresholds]).reshape(
            len(thresholds), -1
        )
        hits.append(np.where(found >= 0, 1, np.where(found == IN_IGNORED, -1, 0)).T)
        where.append(np.full(len(boxes), n))
        scores.append(told)
        things.append(len(true))
    scores = np.concatenate([*scores, np.zeros(0)])
    order = np.argsort(-scores, kind="stable")
    hits = np.concatenate([*hits, np.zeros((0, len(thresholds)), int)])[order]
    return Found(np.concatenate([*where, np.zeros(0)])[order].astype(int), scores[order], hits, np.array(things, int))


def weighted_curves(found: Found, weights: np.ndarray, *, at: int = 0) -> np.ndarray:
    """
    Return the precision at each of `RECALLS`, for weights (R, N) of photos: float (R, 101), NaN without things.

    `at` is the place of the overlap's threshold. A precision is the best at that recall or a higher one, 0 beyond.
    """
    kept = found.hits[:, at] >= 0
    right = found.hits[kept, at].astype(float)
    counted = weights[:, found.photos[kept]]  # (R, D)
    hits, all = np.cumsum(counted * right, 1), np.cumsum(counted, 1)
    wanted = (weights @ found.things)[:, None]  # (R, 1)
    precision = np.divide(hits, all, out=np.zeros_like(hits), where=all > 0)
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    precision = np.concatenate([precision, np.zeros((len(weights), 1))], 1)  # beyond the last box
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = hits / wanted
    curves = np.stack([row[np.searchsorted(at, RECALLS)] for row, at in zip(precision, recall, strict=True)])
    return np.where(wanted > 0, curves, np.nan)


def weighted_precision(founds: Iterable[Found], weights: np.ndarray, thresholds: int) -> np.ndarray:
    """Return the mean over the labels of the average precision at each of T thresholds: (R, T)."""
    each = [[weighted_curves(found, weights, at=t).mean(1) for t in range(thresholds)] for found in founds]
    several = np.array(each).reshape(-1, thresholds, len(weights))  # (K, T, R)
    known = np.isfinite(several)
    sums = np.where(known, several, 0).sum(0) / np.maximum(known.sum(0), 1)
    return np.where(known.any(0), sums, np.nan).T


def coco_precision(photos: Sequence[JudgedPhoto], labels: int, thresholds: Sequence[float] = OVERLAPS) -> np.ndarray:
    """
    Return the average precision by faster-coco-eval: float (T, K), not a number where a label has no thing.
    """
    images, things, boxes = [{"id": n} for n in range(len(photos))], [], []
    for n, photo in enumerate(photos):
        rows = [(box, int(label), 0) for box, label in zip(photo.true_boxes, photo.true_labels, strict=True)]
        rows += [(box, label, 1) for box in photo.true_ignored for label in range(labels)]
        for box, label, ignored in rows:
            entry = {"id": len(things) + 1, "image_id": n, "category_id": label, "iscrowd": ignored}
            things.append(entry | _as_coco(box))
        for box, label, score in zip(photo.found_boxes, photo.found_labels, photo.found_scores, strict=True):
            boxes.append({"image_id": n, "category_id": int(label), "score": float(score)} | _as_coco(box))
    if not things or not boxes:
        counts = np.array([sum((photo.true_labels == label).sum() for photo in photos) for label in range(labels)])
        return np.tile(np.where(counts > 0, 0.0, np.nan), (len(thresholds), 1))
    truth = COCO({"images": images, "annotations": things, "categories": [{"id": label} for label in range(labels)]})
    judge = COCOeval_faster(truth, truth.loadRes(boxes), "bbox", print_function=_silent)
    judge.params.iouThrs = np.array(thresholds)
    judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
    judge.params.maxDets = [MOST_MATCHED]
    judge.evaluate()
    judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, 0]  # (T, 101, K), −1 where a label has no thing
    return np.where((precision < 0).all(1), np.nan, precision.mean(1))


def _silent(*_) -> None:
    """Say nothing."""


def _as_coco(box: np.ndarray) -> dict:
    left, top, right, bottom = map(float, box)
    return {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}


def average_precision(photos: Sequence[JudgedPhoto], *, thresholds: Sequence[float] = OVERLAPS) -> float:
    """Return the mean of the average precision over thresholds and labels that have a thing; else not a number."""
    labels = 1 + max((int(photo.true_labels.max()) for photo in photos if len(photo.true_labels)), default=-1)
    if not labels:
        return float("nan")
    return float(np.nanmean(coco_precision([_known(photo, labels) for photo in photos], labels, thresholds)))


def _known(photo: JudgedPhoto, labels: int) -> JudgedPhoto:
    """Return a photo without found boxes of labels that no photo has: they cost nothing."""
    mine = photo.found_labels < labels
    found = photo.found_boxes[mine], photo.found_labels[mine], photo.found_scores[mine]
    return JudgedPhoto(photo.true_boxes, photo.true_labels, *found, photo.true_ignored)


def mean_overlap(photos: Sequence[JudgedPhoto]) -> float:
    """
    Return the mean overlap of each thing with the box found for it, 0 where there is none: in [0, 1].

    Of each label a photo's best boxes count, as many as it has things. Not a number where there is no thing.
    """
    shares = []
    for photo in photos:
        for label in np.unique(photo.true_labels):
            true, boxes, _ = photo.of(int(label))
            table = overlaps(boxes[: len(true)], true)  # (D, M)
            told = np.zeros(len(true))
            while table.size and table.max() > 0:
                box, thing = np.unravel_index(table.argmax(), table.shape)
                told[thing] = table[box, thing]
                table[box], table[:, thing] = 0, 0
            shares.extend(told)
    return float(np.mean(shares)) if shares else float("nan")
