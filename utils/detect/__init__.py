"""
Notebooks 3_train to 5_mend: a detector that learns boxes, what its figures say, its files, and the boxes it doubts.
"""

from utils.detect.charting import batch_sheet, box_history_table, precision_recall_picture, worst_sheet_of
from utils.detect.detecting import ScoredBox, detect_boxes
from utils.detect.evaluating import (
    box_rounds,
    evaluate_boxes,
    found_path,
    read_box_evaluation,
    read_found,
    worst_photos,
)
from utils.detect.exporting import export_detector
from utils.detect.folding import BoxSuspect, box_suspects, out_of_fold_boxes
from utils.detect.judging import box_label_table, box_verdict_sentence, error_table
from utils.detect.keeping import detector_status, load_trained_detector, read_detector
from utils.detect.loading import box_dataloaders
from utils.detect.mending import photos_to_mend
from utils.detect.network import BoxDetector, build_detector, raw_outputs
from utils.detect.summary import finding_lines
from utils.detect.training import AP50, BoxTraining, MeanIoU, box_loss, detector_layers, detector_rates, planned_for

__all__ = [
    "AP50",
    "BoxDetector",
    "BoxSuspect",
    "BoxTraining",
    "MeanIoU",
    "ScoredBox",
    "batch_sheet",
    "box_dataloaders",
    "box_history_table",
    "box_label_table",
    "box_loss",
    "box_rounds",
    "box_suspects",
    "box_verdict_sentence",
    "build_detector",
    "detect_boxes",
    "detector_layers",
    "detector_rates",
    "detector_status",
    "error_table",
    "evaluate_boxes",
    "export_detector",
    "finding_lines",
    "found_path",
    "load_trained_detector",
    "out_of_fold_boxes",
    "photos_to_mend",
    "planned_for",
    "precision_recall_picture",
    "raw_outputs",
    "read_box_evaluation",
    "read_detector",
    "read_found",
    "worst_photos",
    "worst_sheet_of",
]
