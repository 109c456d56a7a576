"""
4_test, the export: a trained detector as files that programs, the app and a browser load.

The files, their check and their words are `utils.export`'s; here stands what a detector of ours tells it.
"""

from collections import Counter
from collections.abc import Mapping

from torch import Tensor, nn

from utils.boxes.network import LEAST_SCORE, MOST_BOXES, OVERLAP, OWN, BoxDetector, raw_outputs
from utils.boxes.photos import Photos
from utils.errors import FieldguideError
from utils.export import DetectorExport, TrainedBoxes, write_detector
from utils.tables import SIDES

LONGEST_COPY = 640  # pixels of the longest side of a training copy
DETECTOR_FILE = "detector.pth"
DECIDES_INSIDE = "decides inside its network which boxes it tells, in steps that not every program has"


class RawNetwork(nn.Module):
    """A detector without its decisions: uint8 pixels (N, S, S, 3) in, all boxes (N, A, 4) and scores (N, A, K) out."""

    def __init__(self, detector: BoxDetector):
        super().__init__()
        self.detector = detector

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return raw_outputs(self.detector, pixels)


def export_detector(photos: Photos, detector: BoxDetector, evaluation: Mapping) -> DetectorExport:
    """
    Export a trained detector as a set of files in models/<name>; the detector is left as it is.

    `evaluation` is what evaluation.json holds, for this detector and these photos. A detector of torchvision that
    decides inside its network cannot be exported: then the result says so and no file changes. Raises FieldguideError
    as `write_detector` does, and if the detector was not trained for the labels of the photos.
    """
    project = photos.project
    if detector.labels != photos.labels:
        raise FieldguideError(
            f"The detector finds {', '.join(detector.labels)}, the project {', '.join(photos.labels)}. Run 3_train and "
            "4_test again."
        )
    was, device = detector.training, next(detector.parameters()).device
    detector.cpu().eval()
    try:
        trained = TrainedBoxes(
            weights=project.models / DETECTOR_FILE,
            labels=detector.labels,
            raw=RawNetwork(detector) if detector.name == OWN else None,
            decided=detector,
            size=detector.size,
            longest_side=LONGEST_COPY,
            least=LEAST_SCORE,
            overlap=OVERLAP,
            most=MOST_BOXES,
            threshold=evaluation["threshold"],
            why="" if detector.name == OWN else f"{detector.name} {DECIDES_INSIDE}",
        )
        return write_detector(photos.dataset, trained, evaluation, box_counts(photos))
    finally:
        detector.train(was).to(device)


def box_counts(photos: Photos) -> dict[str, dict[str, int]]:
    """Return label → side → number of boxes, groups and difficult ones among them."""
    counts = Counter((box.label, photo.side) for photo in photos for box in photo.boxes)
    return {label: {side: counts[label, side] for side in SIDES} for label in photos.labels}
