"""
Out-of-fold boxes: what detectors find in training photos that they never saw, for suspects among the boxes.

Reads photos and boxes.csv; writes models/<name>/box_folds/<photos>-<boxes>-<n>.csv, one file per fold, so that what is
done need not be done again. While a person mends boxes the files stand: what was found in a photo never depended on its
own boxes, and a few better boxes in other photos change little.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from utils.boxes import Box, Photos
from utils.detect.detecting import ScoredBox, detect_boxes, judged_photo
from utils.detect.evaluating import found_table, read_found_table
from utils.detect.judging import RIGHT_FROM, photo_errors
from utils.detect.keeping import asked_for
from utils.detect.matching import JudgedPhoto, overlaps
from utils.detect.training import train_as_3
from utils.errors import FieldguideError
from utils.storage import content_id, write_whole

BOX_FOLDS, FOLD_EPOCHS = 3, 4
SURE = 0.5  # score from which a box that boxes.csv lacks is worth a look
LEAST_GROUPS = 2


@dataclass(frozen=True)
class BoxSuspect:
    """
    A box that may be wrong, or may be lacking: `kind` is one of `judging.ERRORS`, from the detector's view.

    `box` is that of boxes.csv where the detector finds nothing ("missed"), else the one that it found. `score` in
    [0, 1] says how much speaks for an error.
    """

    kind: str
    id: str
    box: Box | ScoredBox
    score: float


def out_of_fold_boxes(
    photos: Photos, *, folds: int = BOX_FOLDS, epochs: int = FOLD_EPOCHS, again: bool = False
) -> tuple[dict[str, tuple], str]:
    """
    Return what is found in each training photo by a detector that never saw it, and which boxes the detectors know.

    The first is id → boxes, the best first; the second a sentence. Photos of a group stay together. Each of the `folds`
    trains for `epochs` and is kept: a call that was stopped goes on with the next one. If only boxes changed since the
    last complete call, its detectors stand, unless `again`; other photos, groups, labels or settings are trained anew.
    """
    train = photos.on("train")
    groups = sorted({picture.group for picture in train.dataset}, key=lambda group: content_id(group.encode()))
    if len(groups) < max(folds, LEAST_GROUPS):
        raise FieldguideError(f"{len(groups)} groups of training photos are too few for {folds} folds. Gather more.")
    of_group = {group: n % folds for n, group in enumerate(groups)}
    fold_of = {picture.id: of_group[picture.group] for picture in train.dataset}
    project = photos.project.model_copy(update={"epochs": epochs})
    short = replace(train, dataset=replace(train.dataset, project=project))
    trained_on = [sorted((each.id, each.group) for each in train.dataset), train.labels, asked_for(short), folds]
    same, place = content_id(json.dumps(trained_on).encode()), project.models / "box_folds"
    paths = [place / f"{same}-{train.fingerprint}-{fold}.csv" for fold in range(folds)]
    if not again and not all(path.exists() for path in paths) and (earlier := _complete_folds(place, same, folds)):
        return _found_in(earlier), "The detectors learned before boxes were changed. again=True trains them anew."
    for fold, path in enumerate(paths):
        if not path.exists():
            sides = {id: (id, "valid" if own == fold else "train") for id, own in fold_of.items()}
            divided = replace(short, dataset=short.dataset.with_split(sides))
            learn, _ = train_as_3(divided, best=False, told=f"fold {fold + 1} of {folds}")
            write_whole(path, found_table({"train": detect_boxes(learn.model, divided.on("valid"))}))
    for old in sorted({*place.glob("*.csv")} - {*paths}):
        old.unlink()
    return _found_in(paths), "The detectors learned from the boxes as they are."


def _complete_folds(place: Path, same: str, folds: int) -> list[Path]:
    """Return the files of all folds of one earlier training on the same photos; [] if there is none."""
    for first in sorted(place.glob(f"{same}-*-0.csv")):
        paths = [first.with_name(f"{first.stem[:-1]}{fold}.csv") for fold in range(folds)]
        if all(path.exists() for path in paths):
            return paths
    return []


def _found_in(paths: Iterable[Path]) -> dict[str, tuple]:
    """Return what the detectors of all folds found: id → boxes."""
    return {id: boxes for path in paths for id, boxes in read_found_table(path, "5_mend").items()}


def _likeliest(judged: JudgedPhoto, corners: np.ndarray) -> float:
    """Return the best score of a found box that overlaps corners (4,) by half; 0 if there is none."""
    over = overlaps(judged.found_boxes, corners[None])[:, 0] >= RIGHT_FROM
    return float(judged.found_scores[over].max()) if over.any() else 0.0


def box_suspects(photos: Photos, predictions: Mapping[str, tuple[ScoredBox, ...]]) -> list[BoxSuspect]:
    """
    Return boxes that may be wrong or lacking in the photos that have predictions, the most suspect first.

    A box that was found is as suspect as its score. A box of boxes.csv that nobody found is as suspect as the best
    score of any box that overlaps it is low: 1 if there is none. Ignored boxes are no suspects.
    """
    suspects = []
    for photo in photos:
        if photo.id not in predictions:
            continue
        judged = judged_photo(photo, predictions[photo.id], photos.labels)
        for kind, corners, label, score in photo_errors(judged, SURE):
            box = ScoredBox(photos.labels[label], *map(float, corners), score=score)
            if kind == "missed":
                box = next(each for each in photo.boxes if each.corners == tuple(map(float, corners)))
                score = 1 - _likeliest(judged, corners)
            suspects.append(BoxSuspect(kind, photo.id, box, round(score, 6)))
    return sorted(suspects, key=lambda one: (-one.score, one.id, one.kind, one.box.corners))
