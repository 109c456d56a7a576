"""
4_test, the figures: how much is found, how exactly, and what goes wrong, each with its 95 % interval by group.

Reads and writes nothing: functions take judged photos and return figures.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from utils.detect.matching import (
    OVERLAPS,
    RECALLS,
    Found,
    JudgedPhoto,
    coco_precision,
    judged_label,
    matches,
    mean_overlap,
    overlaps,
    weighted_curves,
    weighted_precision,
)
from utils.intervals import LEVEL, bootstrap, interval, resamples
from utils.words import between, counted, percent

RIGHT_FROM, LOOSE_FROM = 0.5, 0.1  # overlap from which a box is right, and from which it is at the right place
ERRORS = {  # kind → what it means, in the order in which they are told
    "missed": "a thing where no box is, or only one of another place",
    "loose": "a box on a thing whose overlap is below a half",
    "doubled": "a second box on a thing that has one",
    "wrong label": "a box on a thing of another label",
    "background": "a box where nothing is",
}
NO_THINGS = "there is no thing to find"
FEW_BOXES = "no box has this score"


def box_figures(photos: Sequence[JudgedPhoto], labels: Sequence[str], groups: Sequence, threshold: float, *, seed: int):
    """
    Return the figures of one side of evaluation.json.

    "figures" holds ap50, ap (AP50:95), mean_iou, recall, precision and f1, "labels" those of each label, "errors" how
    often each of `ERRORS` happens, "curve" precision against recall. Recall, precision, F1 and errors are of boxes
    whose score reaches the threshold. `groups` name what belongs together of N photos, for the intervals.
    """
    K, founds = len(labels), [judged_label(photos, label) for label in range(len(labels))]
    table = coco_precision(photos, K)  # (T, K)
    known = np.isfinite(table).any(0)
    drawn = bootstrap(
        {
            "ap": lambda w: weighted_precision(founds, w, len(OVERLAPS)),
            **{label: partial(_label_precision, one) for label, one in zip(labels, founds, strict=True)},
        },
        groups,
        seed=seed,
    )
    n = len(photos)
    of = {"n": n, "groups": groups, "why": NO_THINGS}
    values = np.nanmean(table[:, known], 1) if known.any() else np.full(len(OVERLAPS), np.nan)
    figures = {
        "ap50": interval(values[0], drawn["ap"][1][:, 0], **of),
        "ap": interval(values.mean(), drawn["ap"][1].mean(1), **of),
        "mean_iou": _mean_iou(photos, groups, seed=seed),
        **_at_threshold(photos, range(K), groups, threshold, seed=seed),
    }
    each = {
        label: {
            "ap50": interval(table[0, k], drawn[label][1][:, 0], **of),
            **_at_threshold(photos, [k], groups, threshold, seed=seed),
            "n": int(founds[k].things.sum()),
        }
        for k, label in enumerate(labels)
    }
    kinds = [kind for photo in photos for kind, *_ in photo_errors(photo, threshold)]
    errors = {kind: kinds.count(kind) for kind in ERRORS}
    return {"figures": figures, "labels": each, "errors": errors, "curve": _curve_with_band(founds, groups, seed=seed)}


def _label_precision(found: Found, weights: np.ndarray) -> np.ndarray:
    """Return the average precision of one label for weights (R, N) of photos: (R, 1)."""
    return weighted_curves(found, weights).mean(1)[:, None]


def _mean_iou(photos: Sequence[JudgedPhoto], groups: Sequence, *, seed: int) -> dict:
    """Return the mean overlap of things with the boxes found for them."""
    counts = np.array([len(photo.true_boxes) for photo in photos], float)
    means = [mean_overlap([photo]) if len(photo.true_boxes) else 0.0 for photo in photos]
    sums = np.array(means) * counts
    measure = {"": lambda w: _divided(w @ sums, w @ counts)[:, None]}
    value, draws = bootstrap(measure, groups, seed=seed)[""]
    return interval(value[0], draws[:, 0], n=int(counts.sum()), groups=groups, why=NO_THINGS)


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return a quotient, not a number where there is nothing to divide by."""
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)


def _at_threshold(photos, labels, groups, threshold: float, *, seed: int) -> dict:
    """Return recall, precision and F1 of the boxes whose score reaches the threshold, over some labels."""
    right, wrong, things = counts_at(photos, labels, threshold)
    measures = {
        "recall": lambda w: _divided(w @ right, w @ things)[:, None],
        "precision": lambda w: _divided(w @ right, w @ (right + wrong))[:, None],
        "f1": lambda w: _divided(2 * (w @ right), w @ (right + wrong + things))[:, None],
    }
    sizes = {"recall": things.sum(), "precision": (right + wrong).sum(), "f1": things.sum()}
    reasons = {"recall": NO_THINGS, "precision": FEW_BOXES, "f1": NO_THINGS}
    drawn = bootstrap(measures, groups, seed=seed)
    return {
        name: interval(value[0], draws[:, 0], n=int(sizes[name]), groups=groups, why=reasons[name])
        for name, (value, draws) in drawn.items()
    }


def counts_at(photos: Sequence[JudgedPhoto], labels, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return per photo (N,) how many boxes reach the threshold and are right, or wrong; and how many things it has."""
    right, wrong, things = (np.zeros(len(photos)) for _ in range(3))
    for label in labels:
        found = judged_label(photos, label, [RIGHT_FROM])
        told = found.scores >= threshold
        for counts, hit in ((right, 1), (wrong, 0)):
            counts += np.bincount(found.photos[told & (found.hits[:, 0] == hit)], minlength=len(photos))
        things += found.things
    return right, wrong, things


def _curve_with_band(founds: Sequence[Found], groups: Sequence, *, seed: int) -> dict:
    """Return precision at each recall, the mean of the labels that have things, with its 95 % band."""

    def mean_curve(weights: np.ndarray) -> np.ndarray:
        each = np.array([weighted_curves(found, weights) for found in founds])  # (K, R, 101)
        known = np.isfinite(each[..., 0]).sum(0)[:, None]
        return _divided(np.nansum(each, 0), np.broadcast_to(known, each.shape[1:]).astype(float))

    whole = mean_curve(np.ones((1, len(groups))))[0]
    draws = np.concatenate([mean_curve(weights) for weights in resamples(groups, seed=seed)])
    draws = draws[np.isfinite(draws[:, 0])]
    if not np.isfinite(whole[0]) or not len(draws):
        return {"recall": [], "precision": [], "low": [], "high": []}
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    lines = {"recall": RECALLS, "precision": whole, "low": np.minimum(low, whole), "high": np.maximum(high, whole)}
    return {name: [round(float(value), 6) for value in line] for name, line in lines.items()}


def best_threshold(photos: Sequence[JudgedPhoto], labels: int) -> float:
    """
    Return the least score of a box to be told with which F1 is highest, over all labels; .5 where nothing is right.

    It lies in the middle between the last box that is told and the next one.
    """
    founds = [judged_label(photos, label, [RIGHT_FROM]) for label in range(labels)]
    scores = np.concatenate([found.scores for found in founds] or [np.zeros(0)])
    hits = np.concatenate([found.hits[:, 0] for found in founds] or [np.zeros(0)])
    order = np.argsort(-scores[hits >= 0], kind="stable")
    scores, hits = scores[hits >= 0][order], hits[hits >= 0][order]
    if not hits.any():
        return 0.5
    f1 = 2 * np.cumsum(hits) / (np.arange(1, len(hits) + 1) + sum(found.things.sum() for found in founds))
    ends = np.append(scores[1:] < scores[:-1], True)  # equal scores are told together
    best = int(np.where(ends, f1, -1).argmax())
    following = scores[best + 1] if best + 1 < len(scores) else 0.0
    return round(float((scores[best] + following) / 2), 4)


def photo_errors(photo: JudgedPhoto, threshold: float) -> list[tuple[str, np.ndarray, int, float]]:
    """
    Return what is wrong in a photo: (kind, corners (4,), label, score), the score of a thing that is missed being 0.

    A loose box, or one of a wrong label, is an error of its own; its thing is then not missed as well.
    """
    told = np.flatnonzero(photo.found_scores >= threshold)
    told = told[np.argsort(-photo.found_scores[told], kind="stable")]
    boxes, labels, scores = photo.found_boxes[told], photo.found_labels[told], photo.found_scores[told]
    share = overlaps(boxes, photo.true_boxes)  # (D, M)
    inside = overlaps(boxes, photo.true_ignored, of_found=True)
    same = labels[:, None] == photo.true_labels[None]  # (D, M)
    found = matches(np.where(same, share, 0), inside, RIGHT_FROM)
    errors, seen = [], set(found[found >= 0].tolist())
    for n in np.flatnonzero(found == -1):
        mine = np.where(same[n], share[n], 0)
        nearest, other = _most(mine), _most(share[n])
        if nearest is not None and mine[nearest] >= RIGHT_FROM:
            kind = "doubled"
        elif other is not None and share[n][other] >= RIGHT_FROM:
            kind, _ = "wrong label", seen.add(other)
        elif nearest is not None and mine[nearest] >= LOOSE_FROM:
            kind, _ = ("doubled", None) if nearest in found else ("loose", seen.add(nearest))
        else:
            kind = "background"
        errors.append((kind, boxes[n], int(labels[n]), float(scores[n])))
    missed = [m for m in range(len(photo.true_boxes)) if m not in seen]
    return errors + [("missed", photo.true_boxes[m], int(photo.true_labels[m]), 0.0) for m in missed]


def _most(shares: np.ndarray) -> int | None:
    """Return the place of the largest overlap, None if there is none."""
    return int(shares.argmax()) if len(shares) and shares.max() > 0 else None


def box_verdict(photos: Sequence[JudgedPhoto], labels: Sequence[str], threshold: float, side: str) -> dict:
    """Return what the first sentence of 4_test tells: counts of photos, things, and boxes that are right and wrong."""
    right, wrong, things = counts_at(photos, range(len(labels)), threshold)
    counts = {"found": int(right.sum()), "things": int(things.sum()), "wrong": int(wrong.sum())}
    what = labels[0] if len(labels) == 1 else ""
    return {"photos": len(photos), **counts, "label": what, "threshold": threshold, "side": side}


def box_verdict_sentence(verdict: Mapping, ap50: Mapping) -> str:
    """
    Return the sentence that stands before all figures.

    >>> verdict = {"photos": 40, "found": 38, "things": 44, "wrong": 3, "label": "raccoon", "threshold": 0.4}
    >>> box_verdict_sentence(verdict, {"value": 0.87, "low": 0.79, "high": 0.93, "n": 40})
    'Of 44 boxes around “raccoon” in 40 held-out photos it finds 38 (AP50 .87, .79 to .93); 3 more boxes are wrong.'
    """
    around = f" around “{verdict['label']}”" if verdict["label"] else ""
    boxes = counted(verdict["things"], "box", "boxes") + around
    span = between(ap50["low"], ap50["high"], pointed)
    told = f" (AP50 {pointed(ap50['value'])}{', ' * bool(span)}{span})" if ap50["value"] is not None else ""
    wrong = counted(verdict["wrong"], "more box is", "more boxes are")
    photos = counted(verdict["photos"], "held-out photo")
    return f"Of {boxes} in {photos} it finds {verdict['found']:,}{told}; {wrong} wrong."


def pointed(value: float) -> str:
    """
    Return a figure between 0 and 1 with two digits, as detection writes it.

    >>> pointed(0.871), pointed(1.0)
    ('.87', '1.00')
    """
    return f"{value:.2f}".removeprefix("0")


def box_label_table(scores: Mapping[str, Mapping]) -> pd.DataFrame:
    """Return AP50, recall and precision of each label, with 95 % intervals, as a table of texts."""
    names = ("ap50", "recall", "precision")
    rows = {
        label: {name: percent(s[name], told="", digits=0) for name in names} | {"boxes": s["n"]}
        for label, s in scores.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*names, "boxes"])


def error_table(errors: Mapping[str, int]) -> pd.DataFrame:
    """Return how often each kind of error happens, and what it means."""
    rows = [{"error": kind, "boxes": count, "meaning": ERRORS[kind]} for kind, count in errors.items()]
    return pd.DataFrame(rows).set_index("error")
