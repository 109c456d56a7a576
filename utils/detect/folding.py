"""
Out-of-fold boxes: what detectors find in training photos that they never saw, for suspects among the boxes.

Reads photos and boxes.csv; writes models/<name>/box_folds/<n>.csv, one file per fold, so that what is done need not be
done again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

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


def out_of_fold_boxes(photos: Photos, *, folds: int = BOX_FOLDS, epochs: int = FOLD_EPOCHS) -> dict[str, tuple]:
    """
    Return what is found in each training photo by a detector that never saw it: id → boxes, the best first.

    Photos of a group stay together. Each of the `folds` trains for `epochs` and is kept: a call that was stopped goes
    on with the next one, and nothing is trained twice for the same photos, boxes and settings.
    """
    train = photos.on("train")
    groups = sorted({picture.group for picture in train.dataset}, key=lambda group: content_id(group.encode()))
    if len(groups) < max(folds, LEAST_GROUPS):
        raise FieldguideError(f"{len(groups)} groups of training photos are too few for {folds} folds. Gather more.")
    of_group = {group: n % folds for n, group in enumerate(groups)}
    fold_of = {picture.id: of_group[picture.group] for picture in train.dataset}
    project = photos.project.model_copy(update={"epochs": epochs})
    short = replace(train, dataset=replace(train.dataset, project=project))
    now = content_id(f"{train.fingerprint} {asked_for(short)} {folds}".encode())
    found: dict[str, tuple] = {}
    for fold in range(folds):
        path = project.models / "box_folds" / f"{now}-{fold}.csv"
        if not path.exists():
            sides = {id: (id, "valid" if own == fold else "train") for id, own in fold_of.items()}
            divided = replace(short, dataset=short.dataset.with_split(sides))
            learn, _ = train_as_3(divided, best=False, told=f"fold {fold + 1} of {folds}")
            write_whole(path, found_table({"train": detect_boxes(learn.model, divided.on("valid"))}))
        found |= read_found_table(path, "5_mend")
    for old in sorted(set((project.models / "box_folds").glob("*.csv"))):
        if not old.name.startswith(now):
            old.unlink()
    return found


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
