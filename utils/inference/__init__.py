"""
Stage 08: load a model file as any program would, and ask it about photos.
"""

from .classifier import Classifier, NoModel, Prediction, load_classifier
from .vetting import ModelError, UnsafeModel, vet

__all__ = ["Classifier", "ModelError", "NoModel", "Prediction", "UnsafeModel", "load_classifier", "vet"]
