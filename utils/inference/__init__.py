"""
Stage 08: load a model file as any program would, and ask it about photos.

This folder and `pictures` stand alone. Copy both into another program, side by side: in a package of yours, or loose
beside your script. A model.onnx then needs numpy, Pillow and onnxruntime; an export.pkl needs fastai.
"""

from .classifier import Classifier, Prediction, load_classifier
from .detector import Detection, Detector, FoundBox, is_detector, load_detector, load_model
from .gallery import GALLERY, GALLERY_FORM, THUMBNAIL_SIDE, Known, Nearest, unit_rows
from .streaming import NoModel
from .suppression import box_overlaps, strongest
from .vetting import ModelError, UnsafeModel, vet

__all__ = [
    "GALLERY",
    "GALLERY_FORM",
    "THUMBNAIL_SIDE",
    "Classifier",
    "Detection",
    "Detector",
    "FoundBox",
    "Known",
    "ModelError",
    "Nearest",
    "NoModel",
    "Prediction",
    "UnsafeModel",
    "box_overlaps",
    "is_detector",
    "load_classifier",
    "load_detector",
    "load_model",
    "strongest",
    "unit_rows",
    "vet",
]
