"""
5_mend: which photos deserve a look, and why, from what detectors found in photos that they never saw.
"""

from collections.abc import Iterable, Sequence

from utils.boxes import ToLookAt
from utils.detect.folding import BoxSuspect
from utils.words import counted, share

LACKING = ("background", "loose", "wrong label")  # kinds of suspects whose found box is offered
DOUBTS = {  # kind → what speaks against the boxes, of one label; {score} is a percentage
    "missed": "No detector finds the {label} in this box: is it there?",
    "background": "A detector finds a {label} ({score}) where no box is.",
    "loose": "A detector finds the {label} ({score}) in another box.",
    "wrong label": "A detector finds a {label} ({score}) where a box of another label is.",
    "doubled": "A detector finds two {label} ({score}) where one box is.",
}
MOST_TOLD = 3  # doubts about one photo


def photos_to_mend(suspects: Iterable[BoxSuspect]) -> list[ToLookAt]:
    """Return the photos of some suspects, each once, in the order in which they first come; with the model's boxes."""
    of_photo: dict[str, list[BoxSuspect]] = {}
    for suspect in suspects:
        of_photo.setdefault(suspect.id, []).append(suspect)
    return [ToLookAt(id, _doubts(own), tuple(_offered(own))) for id, own in of_photo.items()]


def _doubts(suspects: Sequence[BoxSuspect]) -> str:
    """Return what speaks against the boxes of one photo, in sentences."""
    told = [DOUBTS[each.kind].format(label=each.box.label, score=share(each.score)) for each in suspects[:MOST_TOLD]]
    if (more := len(suspects) - MOST_TOLD) > 0:
        told.append(f"And {counted(more, 'more doubt')}.")
    return " ".join(told)


def _offered(suspects: Sequence[BoxSuspect]) -> list:
    """Return the boxes that detectors found and boxes.csv lacks."""
    return [each.box for each in suspects if each.kind in LACKING]
