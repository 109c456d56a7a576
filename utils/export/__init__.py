"""
Stage 07: put the model into files that other programs can load.
"""

from importlib import import_module

from utils.export.card import age_sentence, read_card

HOMES = {
    "DetectorExport": "detector",
    "FILES": "placing",
    "TrainedBoxes": "detector",
    "about": "plainwords",
    "card_in_words": "plainwords",
    "certify_threshold": "threshold",
    "checked_sentence": "classifier",
    "coverage_plot": "threshold",
    "current_evaluation": "classifier",
    "export_classifier": "classifier",
    "exported_sentence": "detector",
    "page_sentence": "page",
    "save_learner": "formats",
    "save_onnx": "formats",
    "sought": "boxpage",
    "threshold_sentence": "threshold",
    "unseen_sentence": "unseen",
    "write_detector": "detector",
}
__all__ = ["age_sentence", "read_card", *HOMES]


def __getattr__(name: str):
    """Import the part that holds a name when it is first asked for: the app needs `read_card` alone, without torch."""
    if name in HOMES:
        return getattr(import_module(f"utils.export.{HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
