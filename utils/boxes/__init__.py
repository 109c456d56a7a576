"""
Finding things in photos: boxes from tables and files, a detector that learns them, and what its figures say.

What needs torch is imported when it is first asked for: tables and photos are looked at without it.
"""

from importlib import import_module

from utils.boxes.box import (
    Box,
    read_boxes,
    write_boxes,
)
from utils.boxes.corrections import (
    BoxLedger,
)
from utils.boxes.drawing import (
    BOX_COLOURS,
    box_sheet,
    draw_boxes,
)
from utils.boxes.editor import (
    BoxEditor,
    ToLookAt,
)
from utils.boxes.folder import (
    read_box_folder,
)
from utils.boxes.open_images import (
    read_open_images,
)
from utils.boxes.overview import (
    box_sizes_figure,
    boxes_overview,
    read_box_sources,
)
from utils.boxes.photos import (
    BoxedPhoto,
    Photos,
    read_photos,
)
from utils.boxes.sides import (
    SplitPhotos,
    sides_table,
    split_photos,
)
from utils.boxes.source import (
    BoxSource,
    SourcePhoto,
)
from utils.boxes.taking import (
    boxed_photos_table,
    take_boxed_photos,
)
from utils.boxes.writing import (
    write_box_files,
)

LATER = {  # name → the part that holds it
    "AP50": "training",
    "BoxDetector": "network",
    "BoxSuspect": "folding",
    "BoxTraining": "training",
    "FoundBox": "detecting",
    "MeanIoU": "training",
    "batch_sheet": "charting",
    "box_dataloaders": "loading",
    "box_history_table": "charting",
    "box_label_table": "judging",
    "box_loss": "training",
    "box_rounds": "evaluating",
    "box_suspects": "folding",
    "box_verdict_sentence": "judging",
    "build_detector": "network",
    "detect_boxes": "detecting",
    "detector_layers": "training",
    "detector_rates": "training",
    "detector_status": "keeping",
    "error_table": "judging",
    "evaluate_boxes": "evaluating",
    "export_detector": "exporting",
    "finding_lines": "summary",
    "found_path": "evaluating",
    "load_trained_detector": "keeping",
    "out_of_fold_boxes": "folding",
    "outlined_boxes": "charting",
    "photos_to_mend": "mending",
    "planned_for": "training",
    "precision_recall_picture": "charting",
    "raw_outputs": "network",
    "read_box_evaluation": "evaluating",
    "read_detector": "keeping",
    "read_found": "evaluating",
    "worst_photos": "evaluating",
    "worst_sheet_of": "charting",
}
__all__ = [
    "BOX_COLOURS",
    "Box",
    "BoxEditor",
    "BoxLedger",
    "BoxSource",
    "BoxedPhoto",
    "Photos",
    "SourcePhoto",
    "SplitPhotos",
    "ToLookAt",
    "box_sheet",
    "box_sizes_figure",
    "boxed_photos_table",
    "boxes_overview",
    "draw_boxes",
    "read_box_folder",
    "read_box_sources",
    "read_boxes",
    "read_open_images",
    "read_photos",
    "sides_table",
    "split_photos",
    "take_boxed_photos",
    "write_box_files",
    "write_boxes",
    *LATER,
]


def __getattr__(name: str):
    """Import the part that holds a name."""
    if name in LATER:
        return getattr(import_module(f"utils.boxes.{LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
