"""
Stage 07: put the model into files that other programs can load.
"""

from utils.export.card import read_card
from utils.export.classifier import FILES, checked_sentence, export_classifier, threshold_sentence, unseen_sentence
from utils.export.formats import save_learner, save_onnx
from utils.export.unknown import coverage_plot

__all__ = [
    "FILES",
    "checked_sentence",
    "coverage_plot",
    "export_classifier",
    "read_card",
    "save_learner",
    "save_onnx",
    "threshold_sentence",
    "unseen_sentence",
]
