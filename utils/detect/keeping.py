"""
3_train, what lasts: the trained detector, and a training that was stopped in the middle.

Reads and writes detector.pth, box_history.csv and training.png, the round that is complete, and box_resume.pth, where
a training stands that is not. Both are read without running anything in them.
"""

import io
import pickle
from collections.abc import Mapping

import torch

from utils.boxes import Photos
from utils.detect.charting import box_chart
from utils.detect.loading import box_changes
from utils.detect.network import BoxDetector, build_detector
from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import content_id, file_hash, write_whole
from utils.tables import write_table

DETECTOR_FILE, BOX_STATE, BOX_HISTORY = "detector.pth", "box_resume.pth", "box_history.csv"
DETECTOR_FORM = 1  # of both files
SHARED_PARTS = {"form", "task", "data", "asked", "settings", "labels", "rows", "model"}
ONGOING_PARTS = SHARED_PARTS | {"epoch", "batch", "sums", "best", "judged", "optimizer"}
LASTING = (  # settings of the project file that a detector follows from
    *("detector", "arch", "weights", "size", "epochs", "freeze_epochs", "batch_size", "optimizer", "lr", "schedule"),
    *("patience", "seed"),
)
FIRST_HISTORY = ("epoch", "phase", "train_loss", "valid_loss", "mean_iou", "ap50", "lr", "seconds")


def asked_for(photos: Photos) -> dict:
    """Return the settings that 3_train uses if none of its cells is changed; JSON can hold them."""
    project = photos.project
    whole = project.model_dump(include=set(LASTING)) | {"weights": project.weights_name}
    batch = min(project.batch_size, len(photos.on("train")))
    return whole | {"lr": project.base_lr, "batch_size": batch, "augment": str(box_changes(project))}


def write_parts(path, parts: Mapping) -> None:
    """Write a file of torch, whole or not at all."""
    buffer = io.BytesIO()
    torch.save({"form": DETECTOR_FORM, "task": "detect"} | dict(parts), buffer)
    write_whole(path, buffer.getvalue())


def save_detector(project: Project, parts: Mapping) -> None:
    """Write the table and the chart of a training, then detector.pth, which makes the round complete."""
    rows = parts["rows"]
    columns = [*FIRST_HISTORY, *(name for name in rows[0] if name not in FIRST_HISTORY)]
    write_table(project.models / BOX_HISTORY, columns, rows)
    write_whole(project.models / "training.png", box_chart(rows))
    write_parts(project.models / DETECTOR_FILE, parts)
    (project.models / BOX_STATE).unlink(missing_ok=True)


def read_detector(project: Project) -> dict | None:
    """Return what detector.pth holds, or None where there is none. Nothing in it can run code."""
    return _read_checked(project, DETECTOR_FILE, SHARED_PARTS, "Delete it and run 3_train again.")


def read_ongoing(project: Project) -> dict | None:
    """Return where a training was stopped, or None."""
    return _read_checked(project, BOX_STATE, ONGOING_PARTS, "Delete it and run 3_train again: it begins at epoch 0.")


def _read_checked(project: Project, name: str, wanted: set[str], advice: str) -> dict | None:
    path = project.models / name
    if not path.exists():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise FieldguideError(f"{path} is broken. {advice}") from error
    if not isinstance(found, dict) or wanted - found.keys() or found["form"] != DETECTOR_FORM:
        raise FieldguideError(f"{path} was not written by this version of 3_train. {advice}")
    return found


def is_of_today(photos: Photos, kept: Mapping | None) -> bool:
    """Return whether a round belongs to the photos, boxes and split as they are, and to the project file."""
    return bool(kept) and (kept["data"], kept["asked"]) == (photos.fingerprint, asked_for(photos))


def detector_status(photos: Photos) -> str:
    """Return in words: is there a detector, and is it the one that today's photos, boxes and settings would give?"""
    kept, ongoing = read_detector(photos.project), read_ongoing(photos.project)
    if is_of_today(photos, kept):
        told = "The detector stands: photos, boxes, split and settings are those that it was trained with."
        return f"{changed_cells(kept)} It stands as long as they ask for the same." if changed_cells(kept) else told
    if is_of_today(photos, ongoing):
        return f"A training was stopped. Unless you change the cells below, it goes on {where_stopped(ongoing)}."
    if kept is None:
        return "There is no detector yet: it is trained now."
    return "Photos, boxes, split or settings changed since the last training: a new round is trained now."


def where_stopped(ongoing: Mapping) -> str:
    """Return where a training goes on, in words; epochs and batches are counted from 0."""
    return f"with batch {ongoing['batch']} of epoch {ongoing['epoch']}"


def changed_cells(kept: Mapping) -> str:
    """Name the settings in which a training differed from the project file; "" if in none."""
    used, asked = kept["settings"], kept["asked"]
    other = [name for name in used if name in asked and used[name] != asked[name]]
    other += ["other learning rates"] * ("lr" not in other and used["plan"] != used["usual_plan"])
    return f"Cells of 3_train were changed: it trained with another {', another '.join(other)}." if other else ""


def load_trained_detector(photos: Photos) -> BoxDetector:
    """
    Return the detector that 3_train trained, ready to judge, with `record`: what detector.pth says of it, but weights.

    Raises FieldguideError where there is none, or photos, boxes, split or the project file changed since.
    """
    project, path = photos.project, photos.project.models / DETECTOR_FILE
    kept = read_detector(project)
    if kept is None:
        raise FieldguideError(f"There is no trained detector in {project.models}. Run 3_train first.")
    if not is_of_today(photos, kept):
        raise FieldguideError(
            "Photos, boxes, split or settings changed since the detector was trained. Run 3_train again."
        )
    detector = build_detector(project, kept["labels"], pretrained=False)
    try:
        detector.load_state_dict(kept["model"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise FieldguideError(
            f"{path} says it is a {project.detector}, and holds other weights. Delete it and run 3_train again."
        ) from error
    detector.record = {name: kept[name] for name in SHARED_PARTS - {"model", "form"}} | {"file": file_hash(path)}
    return detector.eval()


def plan_id(plan) -> str:
    """Return 16 hex digits that change with any learning rate, but not with how it was calculated."""
    return content_id(plan.round(9).tobytes())
