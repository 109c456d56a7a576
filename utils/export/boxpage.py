"""
The page of a detector: what page.json says of it, and whether the page finds the same boxes as model.onnx.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from utils.errors import FieldguideError
from utils.export.difference import box_disagreement, undecided
from utils.inference import Detection, Detector, FoundBox
from utils.page import PageAnswer
from utils.words import listed

PLACES_TRIED = 64  # of those at which the network looks, that the page compares with Python's numbers
MOST_SOUGHT, LONGEST_SOUGHT = 3, 50  # labels in the title, and their letters


def box_page_facts(detector: Detector, drawn: np.ndarray) -> dict:
    """
    Return what page.json says of a detector beside what it says of any model.

    `drawn` uint8 (S, S, 3) is the picture that the page tries its model on.
    """
    recipe = detector.recipe
    boxes, scores = (array[0] for array in detector.raw(drawn[None]))  # (A, 4), (A, K)
    some = np.linspace(0, len(boxes) - 1, min(PLACES_TRIED, len(boxes))).astype(int)
    rules = {name: getattr(recipe, name) for name in ("longest_side", "bits", "overlap", "most")}
    return {
        "task": "detect",
        "title": sought(detector.labels),
        "recipe": rules | {"size": [recipe.size, recipe.size], "resample": "bilinear"},
        "probe": {"places": some.tolist(), "boxes": boxes[some].tolist(), "scores": scores[some].tolist()},
    }


def sought(labels: Sequence[str]) -> str:
    """
    Return the question that the page of a detector answers.

    >>> sought(["boat"]), sought(["a", "b", "c", "d"])
    ('Where is “boat” in the photo?', 'What is where in the photo?')
    """
    if len(labels) > MOST_SOUGHT or sum(map(len, labels)) > LONGEST_SOUGHT:
        return "What is where in the photo?"
    return f"Where is {listed(labels).replace(' and ', ' or ')} in the photo?"


def require_boxes_of_page(
    detector: Detector, pictures: Mapping[str, bytes], answers: Sequence[PageAnswer], within: Mapping[str, float]
) -> None:
    """
    Refuse a page that tells other boxes of pictures than model.onnx does.

    `within` says for each picture by how much corners and probabilities may differ; a picture that is not in it is not
    for browsers.
    """
    rules = {"least": detector.threshold, "overlap": detector.recipe.overlap, "most": detector.recipe.most}
    found = detector.predict(pictures.values())
    for name, answer, ours in zip(pictures, answers, found, strict=True):
        if answer.error and (ours.error or name not in within):
            continue
        theirs = told_by_page(answer, detector.labels, (ours.width, ours.height))
        again = partial(undecided, detector, pictures[name], detector.threshold)
        if different := box_disagreement(theirs, ours, **rules, within=within.get(name, 0.0), candidates=again):
            raise FieldguideError(
                f"The page and model.onnx disagree on {name}: {different}. No page was written. Please report it, with "
                "the browser's version."
            )


def told_by_page(answer: PageAnswer, labels: Sequence[str], size: tuple[int, int]) -> Detection:
    """Return what the page found as the detector would say it; `size` is that of the upright picture."""
    if answer.error or answer.boxes is None:
        return Detection(error=answer.error or "no boxes")
    names = ("left", "top", "right", "bottom")
    boxes = (FoundBox(labels[b["label"]], b["probability"], *(b[name] for name in names), size) for b in answer.boxes)
    return Detection(tuple(boxes), *size)
