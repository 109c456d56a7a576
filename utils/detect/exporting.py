"""
4_test, the export: a trained detector as files that programs, the app and a browser load.

The files, their check and their words are `utils.export`'s; here stands what a detector of ours tells it.
"""

from collections import Counter

from torch import Tensor, nn

from utils.boxes import COPY_SIDE, Photos
from utils.detect.evaluating import read_box_evaluation
from utils.detect.judging import box_verdict_sentence
from utils.detect.keeping import DETECTOR_FILE
from utils.detect.network import LEAST_SCORE, MOST_BOXES, MOST_OVERLAP, BoxDetector, raw_outputs
from utils.errors import FieldguideError
from utils.export import DetectorExport, TrainedBoxes, write_detector
from utils.storage import file_hash
from utils.tables import SIDES

DECIDES_INSIDE = "decides inside its network where it looks a second time, in steps that not every program has"


class RawNetwork(nn.Module):
    """A detector without its decisions: uint8 pixels (N, S, S, 3) in, all boxes (N, A, 4) and scores (N, A, K) out."""

    def __init__(self, detector: BoxDetector):
        super().__init__()
        self.detector = detector

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return raw_outputs(self.detector, pixels)


def export_detector(photos: Photos, detector: BoxDetector) -> DetectorExport:
    """
    Export a detector that `load_trained_detector` returned as a set of files in models/<name>; it is left as it is.

    A detector of two stages, such as faster R-CNN, cannot be exported: then the result says so and no file changes.
    Raises FieldguideError as `write_detector` does, and if 4_test has not judged this very detector on these photos.
    """
    project, evaluation = photos.project, judged_now(photos, detector)
    was, device = detector.training, next(detector.parameters()).device
    detector.cpu().eval()
    try:
        trained = TrainedBoxes(
            weights=project.models / DETECTOR_FILE,
            labels=detector.labels,
            raw=RawNetwork(detector) if detector.one_stage else None,
            decided=detector,
            size=detector.size,
            longest_side=COPY_SIDE,
            least=LEAST_SCORE,
            overlap=getattr(detector.network, "nms_thresh", MOST_OVERLAP),
            most=MOST_BOXES,
            threshold=float(evaluation["threshold"]),
            why="" if detector.one_stage else f"{detector.name} {DECIDES_INSIDE}",
        )
        return write_detector(photos.dataset, trained, _for_the_card(evaluation), box_counts(photos))
    finally:
        detector.train(was).to(device)


def judged_now(photos: Photos, detector: BoxDetector) -> dict:
    """Return evaluation.json, or refuse one that did not judge this very detector on today's photos and boxes."""
    project, evaluation = photos.project, read_box_evaluation(photos.project)
    if evaluation is None:
        raise FieldguideError(f"There is no {project.models / 'evaluation.json'}. Run 4_test from its first cell.")
    record = getattr(detector, "record", {})
    if not photos.fingerprint == evaluation["fingerprint"] == record.get("data"):
        raise FieldguideError("Photos, boxes or sides changed since the training. Run 3_train and 4_test again.")
    if not evaluation["model"] == record.get("file") == file_hash(project.models / DETECTOR_FILE):
        raise FieldguideError("The detector was trained again since it was judged. Run 4_test again.")
    return evaluation


def _for_the_card(evaluation: dict) -> dict:
    """Return evaluation.json as the card wants it: figures and labels of each set, and the verdict as a sentence."""
    verdict, sets = evaluation["verdict"], {side: evaluation[side] for side in ("valid", "test") if evaluation[side]}
    shared = {name: evaluation[name] for name in ("settings", "changed", "fingerprint", "test_opened")}
    return shared | {
        "told": box_verdict_sentence(verdict, sets[verdict["side"]]["figures"]["ap50"]),
        **{side: found["figures"] for side, found in sets.items()},
        "by_label": {side: found["labels"] for side, found in sets.items()},
    }


def box_counts(photos: Photos) -> dict[str, dict[str, int]]:
    """Return label → side → number of boxes, groups and difficult ones among them."""
    counts = Counter((box.label, photo.side) for photo in photos for box in photo.boxes)
    return {label: {side: counts[label, side] for side in SIDES} for label in photos.labels}
