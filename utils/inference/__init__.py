"""
Stage 08: load a model file as any program would, and ask it about photos.

This folder and `pictures` stand alone. Copy both into another program, side by side: in a package of yours, or loose
beside your script. A model.onnx then needs numpy, Pillow and onnxruntime; an export.pkl needs fastai.
"""

from .classifier import Classifier, NoModel, Prediction, load_classifier
from .gallery import GALLERY, GALLERY_FORM, THUMBNAIL_SIDE, Known, Nearest, unit_rows
from .vetting import ModelError, UnsafeModel, vet

__all__ = [
    "GALLERY",
    "GALLERY_FORM",
    "THUMBNAIL_SIDE",
    "Classifier",
    "Known",
    "ModelError",
    "Nearest",
    "NoModel",
    "Prediction",
    "UnsafeModel",
    "load_classifier",
    "unit_rows",
    "vet",
]
