"""
boxes/4_test, the export: turn a trained detector into files that others can use.

Writes model.onnx, ATTRIBUTION.csv, MODEL_CARD.md, README.md and card.json into models/<name>, all of them or none. The
network gives all boxes and scores. Which of them are told is worked out behind it: by torch here, by numpy in use.
Files are put in place only if both tell the same boxes of the held-out photos and of drawn awkward files.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from utils.dataset import Dataset, seeded_rank
from utils.errors import FieldguideError
from utils.export.attribution import attribution
from utils.export.awkward import awkward_pictures
from utils.export.boxcard import box_card, box_facts
from utils.export.difference import box_disagreement, undecided
from utils.export.formats import first_line, onnx_bytes
from utils.export.placing import CARD, MODEL_CARD, ONNX, SOURCES, put_in_place, workshop
from utils.export.staging import earlier_card, onnx_made_before, stage_words
from utils.inference import Detection, Detector, FoundBox, ModelError, load_detector
from utils.project import Project
from utils.storage import file_hash, locked, write_whole
from utils.words import counted

DETECTOR_WRITER = 1  # of model.onnx: raise it when the same detector is written differently, so that no old file stays
EXAMPLE_SQUARES = 2  # pictures shown to the exporter; of one alone it would take N for a constant
MOST_COMPARED = 500  # held-out photos: a minute
SQUARES = 8  # that torch is shown at once


@dataclass(frozen=True)
class TrainedBoxes:
    """A trained detector as its export needs it; it is left as it is."""

    weights: Path  # detector.pth
    labels: tuple[str, ...]  # K
    # uint8 pixels (N, S, S, 3) → boxes (N, A, 4) in pixels of the square and scores (N, A, K), before any decision.
    # None for a network that does not tell them, and `why`.
    raw: torch.nn.Module | None
    # The same pixels → for each picture what torch itself tells, as the dict of torchvision: boxes, labels, scores.
    decided: Callable[[torch.Tensor], Sequence[Mapping[str, torch.Tensor]]]
    size: int  # S, pixels
    longest_side: int  # pixels, of training copies
    least: float  # score below which torch tells no box
    overlap: float  # of two boxes of one label that overlap more (IoU), the worse is dropped
    most: int  # boxes of a picture that are told
    threshold: float  # from which probability on boxes are told to users
    why: str = ""


@dataclass(frozen=True)
class DetectorExport:
    """What was exported, and on how many pictures torch and the file were compared."""

    onnx: Path | None  # model.onnx; None if this network cannot become one
    why: str  # … and why; "" if it did
    words: Path | None = None  # MODEL_CARD.md
    card_file: Path | None = None  # card.json
    backup: Path | None = None  # the folder in which the earlier, different set is kept
    card: Mapping | None = None
    checked: int = 0  # held-out photos
    awkward: int = 0  # drawn awkward files
    boxes: int = 0  # boxes that both told of them


def write_detector(
    dataset: Dataset, trained: TrainedBoxes, evaluation: Mapping, counts: Mapping[str, Mapping[str, int]]
) -> DetectorExport:
    """
    Export a trained detector as a set of files in models/<name>; a network that cannot be exported leaves all as it is.

    `evaluation` is what evaluation.json holds, `counts` maps each label to side → number of boxes. An earlier,
    different set is kept whole in exports/<NNN>. Exported again, the same detector rewrites nothing. Raises
    FieldguideError, and leaves the set as it was, if torch and the file tell different boxes of a picture.
    """
    project = dataset.project
    held_out = dataset.on("valid", "test")
    if not held_out:
        raise FieldguideError("Validation and test set are empty, so nothing can check the export. Run 2_photos.")
    if trained.raw is None:
        return _not_exported(project, trained.why)
    with locked(project.models), workshop(project.models) as staged:
        earlier, metadata = earlier_card(project.models), _box_metadata(dataset, trained)
        data = onnx_made_before(earlier, project.models / ONNX, trained.weights, metadata)
        try:
            example = torch.zeros(EXAMPLE_SQUARES, trained.size, trained.size, 3, dtype=torch.uint8)
            data = onnx_bytes(trained.raw.eval(), example, ("boxes", "scores"), metadata) if data is None else data
        except Exception as error:  # each step of the exporter raises kinds of its own
            return _not_exported(project, f"torch cannot write this network as ONNX ({first_line(error)})")
        write_whole(staged / ONNX, data)
        try:
            exported = load_detector(staged / ONNX)
        except ModelError as error:
            raise FieldguideError(f"This detector cannot become a file that is safe to load: {error}") from error
        compared = sorted(held_out, key=lambda picture: seeded_rank(project.seed, picture.id))[:MOST_COMPARED]
        boxes = require_same_boxes(trained, exported, {str(each.path): each.path for each in compared})
        drawn = awkward_pictures()
        boxes += require_same_boxes(trained, exported, {f"the drawn picture {name}": drawn[name] for name in drawn})
        origins, licences = attribution(dataset)
        write_whole(staged / SOURCES, origins)
        sha256 = {name: file_hash(staged / name) for name in (ONNX, SOURCES)}
        tables = [path for name in ("split", "boxes") if (path := project.table(name)).exists()]
        sha256 |= {path.name: file_hash(path) for path in (trained.weights, *tables)}
        card = box_facts(dataset, evaluation, counts, threshold=trained.threshold, licences=licences, sha256=sha256)
        card = stage_words(staged, project.models, card, box_card(card), earlier)
        backup = put_in_place(staged, project.models)
    places = (project.models / name for name in (MODEL_CARD, CARD))
    return DetectorExport(project.models / ONNX, "", *places, backup, card, len(compared), len(drawn), boxes)


def _not_exported(project: Project, why: str) -> DetectorExport:
    """Return that nothing was exported; a file that stays is of another detector, which nobody should take for this."""
    stays = f". {project.models / ONNX} is of an earlier detector" if (project.models / ONNX).exists() else ""
    return DetectorExport(None, why + stays)


def _box_metadata(dataset: Dataset, trained: TrainedBoxes) -> dict[str, str]:
    """Return what model.onnx says of itself: everything that a program needs to use it."""
    recipe = {name: getattr(trained, name) for name in ("longest_side", "size", "overlap", "most")}
    if bits := dataset.records.bits:
        recipe["bits"] = bits
    facts = {"task": "detect", "labels": list(trained.labels), "recipe": recipe, "threshold": trained.threshold}
    return {"name": dataset.project.name, "writer": str(DETECTOR_WRITER)} | {
        key: json.dumps(fact, ensure_ascii=False) for key, fact in facts.items()
    }


def require_same_boxes(trained: TrainedBoxes, exported: Detector, pictures: Mapping[str, Path | bytes]) -> int:
    """Refuse a file of which torch and numpy tell different boxes of a picture; return how many boxes both told."""
    rules = {"least": trained.least, "overlap": trained.overlap, "most": trained.most}
    told = 0
    bar = tqdm(pictures.items(), desc="model.onnx and torch asked about pictures", unit="picture")
    ours = exported.stream(pictures.values(), threshold=trained.least)
    for (name, picture), found, theirs in zip(
        bar, ours, told_by_torch(trained, exported, list(pictures.values())), strict=True
    ):
        if found.error and isinstance(picture, Path):
            raise FieldguideError(f"{name} cannot be read ({found.error}). Remove it and run 2_photos to 4_test again.")
        again = partial(undecided, exported, picture, trained.least)
        if different := box_disagreement(theirs, found, **rules, candidates=again):
            raise FieldguideError(
                f"torch and model.onnx disagree on {name}: {different}. Nothing was exported. Please report it, with "
                "the kind of detector."
            )
        told += len(found.boxes)
    return told


def told_by_torch(trained: TrainedBoxes, exported: Detector, pictures: Sequence[Path | bytes]) -> Iterator[Detection]:
    """Yield what torch itself tells of pictures, which are opened as the exported file asks for."""
    for start in range(0, len(pictures), SQUARES):
        squares = []
        for picture in pictures[start : start + SQUARES]:
            try:
                squares.append(exported.recipe.square(picture))
            except Exception as error:  # the file's own answer says so too, and is compared
                squares.append(str(error))
        pixels = [each.pixels for each in squares if not isinstance(each, str)]
        with torch.inference_mode():
            found = iter(trained.decided(torch.from_numpy(np.stack(pixels))) if pixels else ())
        for square in squares:
            if isinstance(square, str):
                yield Detection(error=square)
                continue
            answer = next(found)
            boxes, labels, scores = (answer[name].cpu().numpy() for name in ("boxes", "labels", "scores"))
            corners, size = square.place.out_of(boxes.astype(np.float64)), (square.width, square.height)
            rows = zip(labels.tolist(), scores.tolist(), corners.tolist(), strict=True)
            yield Detection(tuple(FoundBox(trained.labels[n], score, *box, size) for n, score, box in rows), *size)


def exported_sentence(exported: DetectorExport) -> str:
    """Return in sentences what was written and compared, or why nothing was."""
    if exported.onnx is None:
        return (
            f"No model.onnx was written: {exported.why}. The trained detector is in detector.pth, for the notebooks of "
            'this project. For programs, a browser or the command line, set detector = "fcos", or a detector of one '
            "stage such as ssdlite320_mobilenet_v3_large, and train again."
        )
    return (
        f"{exported.onnx} is written ({exported.onnx.stat().st_size / 1e6:.1f} MB). torch and this file told the same "
        f"{counted(exported.boxes, 'box', 'boxes')} of {counted(exported.checked, 'held-out photo')} and "
        f"{exported.awkward} drawn awkward ones."
    )
