"""
4_test: judge a detector on photos that it was not trained on, and keep what it answered.

Reads photos, boxes.csv and detector.pth; writes evaluation.json, whose "task" is "detect", and
rounds/<NNN>/boxes.csv with every box that was found. The threshold of confidence is chosen on the validation set; the
test set stays closed until it is asked for, and openings are counted.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from utils.boxes import CORNER_NAMES, Photos, as_fraction
from utils.detect.detecting import FoundBoxes, ScoredBox, detect_boxes, judged_photo, judged_photos
from utils.detect.judging import best_threshold, box_figures, box_verdict, photo_errors
from utils.detect.keeping import DETECTOR_FILE, changed_cells
from utils.detect.network import BoxDetector
from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import file_hash, write_whole
from utils.tables import csv_text, each_row
from utils.words import SETS

JUDGED_FORM = 1  # of evaluation.json where things are found
FOUND_COLUMNS = ("id", "side", "label", *CORNER_NAMES, "score")
ROUND_KEYS = {"form", "task", "model", "verdict", "threshold", "valid", "test", "test_opened", "settings", "changed"}
TEST_EMPTY = "Write test = 0.1 in the project file before a split is drawn, or go on without: open_test=False."


def evaluate_boxes(photos: Photos, detector: BoxDetector, *, open_test: bool = False) -> dict:
    """
    Judge a detector on the validation set (and on the test set if asked), save and return evaluation.json.

    A round that was judged before stands as it is. models/README.md lists the keys of the dict; its "verdict" is about
    the test set if that is open, else the validation set. Raises FieldguideError if there is nothing to judge on, or
    the detector is not the one in detector.pth.
    """
    project = photos.project
    record = getattr(detector, "record", {})
    if record.get("data") != photos.fingerprint:
        raise FieldguideError("Photos, boxes or sides changed since this detector was trained. Run 3_train again.")
    if record.get("file") != file_hash(project.models / DETECTOR_FILE):
        raise FieldguideError("3_train has trained another detector meanwhile. Run 4_test again from its first cell.")
    earlier = read_box_evaluation(project) or {}
    model = file_hash(project.models / DETECTOR_FILE)
    stands = earlier.get("model") == model
    was_open = stands and bool(earlier["test"])
    if stands and (was_open or not open_test):
        return earlier
    wanted = ("valid", "test") if open_test or was_open else ("valid",)
    found = {side: _found_on(photos, detector, side) for side in wanted}
    threshold = best_threshold(judged_photos(photos.on("valid"), found["valid"]), len(photos.labels))
    sides = {side: _side_figures(photos.on(side), boxes, threshold) for side, boxes in found.items()}
    judged = wanted[-1]
    evaluation = {
        **{"form": JUDGED_FORM, "task": "detect", "model": model, "fingerprint": photos.fingerprint},
        "verdict": box_verdict(judged_photos(photos.on(judged), found[judged]), photos.labels, threshold, judged),
        **{"threshold": threshold, "valid": sides["valid"], "test": sides.get("test", {})},
        **{"settings": detector.record["settings"], "changed": changed_cells(detector.record)},
    }
    _save_found(project, photos, found, again=stands)
    counted = earlier.get("test_opened", 0) + (len(wanted) > 1 and not was_open)
    evaluation["test_opened"] = max(counted, box_rounds_opened(project))  # evaluation.json may have been deleted
    text = json.dumps(evaluation, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(project.models / "evaluation.json", text)
    return evaluation


def _found_on(photos: Photos, detector: BoxDetector, side: str) -> dict:
    """Return what a detector finds on one side."""
    judged = photos.on(side)
    if not len(judged):
        advice = "Run 2_photos first." if side == "valid" else TEST_EMPTY
        raise FieldguideError(f"The {SETS[side]} of {photos.project.name!r} is empty. {advice}")
    return detect_boxes(detector, judged, told=SETS[side])


def _side_figures(photos: Photos, found: Mapping, threshold: float) -> dict:
    """Return the figures of the photos of one side."""
    groups = [picture.group for picture in photos.dataset]
    judged = judged_photos(photos, found)
    return box_figures(judged, photos.labels, groups, threshold, seed=photos.project.seed)


def read_box_evaluation(project: Project) -> dict | None:
    """Return evaluation.json of a project that finds things, or None where 4_test has not run."""
    path = project.models / "evaluation.json"
    try:
        evaluation = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise FieldguideError(f"{path} is broken ({error}). Delete it and run 4_test again.") from error
    if not isinstance(evaluation, dict) or evaluation.get("task") != "detect":
        raise FieldguideError(
            f"{path} is of a project that tells photos apart. Give this project another name, or delete that file."
        )
    if ROUND_KEYS - evaluation.keys() or evaluation["form"] != JUDGED_FORM:
        raise FieldguideError(f"{path} was not written by this version of 4_test. Delete it and run 4_test again.")
    return evaluation


def box_rounds(project: Project) -> list[int]:
    """Return the numbers of the judged rounds, in order."""
    found = project.models.glob("rounds/*/boxes.csv")
    return sorted(int(path.parent.name) for path in found if path.parent.name.isdecimal())


def found_path(project: Project, number: int):
    """Return where the boxes that a round found are kept."""
    return project.models / "rounds" / f"{number:03}" / "boxes.csv"


def box_rounds_opened(project: Project) -> int:
    """Return how many rounds hold boxes of the test set."""
    tables = (found_path(project, number).read_bytes() for number in box_rounds(project))
    return sum(any(line.split(b",")[1:2] == [b"test"] for line in table.splitlines()) for table in tables)


def _save_found(project: Project, photos: Photos, found: Mapping, *, again: bool) -> None:
    """Write every box that was found: as the next round, or as the last one if the same detector is judged again."""
    text = found_table(
        {side: {photo.id: boxes[photo.id] for photo in photos.on(side)} for side, boxes in found.items()}
    )
    text = text.encode("utf-8")
    last = max(box_rounds(project), default=0)
    before = found_path(project, last).read_bytes() if last else b""
    same = before and (again or text.startswith(before))  # the test set was opened, or the run killed before its end
    if before != text:
        write_whole(found_path(project, last if same else last + 1), text)


def found_table(found: Mapping[str, FoundBoxes]) -> str:
    """Return side → id → boxes as a table; a photo in which nothing was found has a row without a label."""
    rows = []
    for side, photos in found.items():
        for id, boxes in photos.items():
            rows += [_found_row(id, side, box) for box in boxes] or [{"id": id, "side": side}]
    return csv_text(FOUND_COLUMNS, rows, header=True)


def _found_row(id: str, side: str, box: ScoredBox) -> dict:
    corners = dict(zip(CORNER_NAMES, map(as_fraction, box.corners), strict=True))
    return {"id": id, "side": side, "label": box.label, **corners, "score": box.score}


def read_found(project: Project, *, number: int | None = None) -> dict[str, tuple[ScoredBox, ...]]:
    """Return what a round found, by default the last one: id → boxes, the best first, of every judged photo."""
    numbers = box_rounds(project)
    if not numbers or (number or numbers[-1]) not in numbers:
        raise FieldguideError(f"There is no such round in {project.models}. Run 4_test first.")
    return read_found_table(found_path(project, number or numbers[-1]), "4_test")


def read_found_table(path: Path, notebook: str) -> dict[str, tuple[ScoredBox, ...]]:
    """Return a table of found boxes: id → boxes, the best first; `notebook` writes it again."""
    found: dict[str, list[ScoredBox]] = {}
    for row in each_row(path, FOUND_COLUMNS):
        boxes = found.setdefault(row["id"], [])
        if row["label"]:
            try:
                corners, score = [float(row[name]) for name in CORNER_NAMES], float(row["score"])
            except ValueError as error:
                raise FieldguideError(f"{path} is broken ({error}). Delete it and run {notebook} again.") from None
            boxes.append(ScoredBox(row["label"], *corners, score=score))
    return {id: tuple(boxes) for id, boxes in found.items()}


def worst_photos(photos: Photos, found: Mapping, threshold: float, *, count: int = 9) -> pd.DataFrame:
    """Return the judged photos with the most errors, of equals those with the surest wrong boxes: id, errors, kinds."""
    rows = []
    for photo in photos:
        if photo.id in found:
            errors = photo_errors(judged_photo(photo, found[photo.id], photos.labels), threshold)
            surest = max((score for *_, score in errors), default=0.0)
            kinds = ", ".join(sorted(kind for kind, *_ in errors))
            rows.append({"id": photo.id, "errors": len(errors), "score": surest, "kinds": kinds})
    table = pd.DataFrame(rows, columns=["id", "errors", "score", "kinds"])
    order = {"by": ["errors", "score", "id"], "ascending": [False, False, True], "kind": "stable"}
    return table[table.errors > 0].sort_values(**order).head(count).reset_index(drop=True)
