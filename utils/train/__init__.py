"""
Stage 04: fine-tune a network on the training set and keep its best epoch.
"""

from utils.averaging import networks_of
from utils.train.augment import augmentation, crops
from utils.train.callbacks import training_callbacks
from utils.train.checkpoint import read_checkpoint, training_status
from utils.train.curves import history_table, overfitting_sentence, schedule_picture
from utils.train.device import device_sentence, speed_callbacks, worker_count
from utils.train.finder import look_for_rate
from utils.train.learners import load_trained, make_learner
from utils.train.loaders import image_dataloaders, training_loss
from utils.train.networks import architecture, download_weights, preparation
from utils.train.plain import batches_told_plainly, plain_errors
from utils.train.quick import (
    compared_sentence,
    head_features,
    head_options,
    keep_quick_model,
    quick_model,
    quick_sentence,
)
from utils.train.recipe import learner_as_04, train_as_04
from utils.train.schedule import learning_rates, optimizer, planned_rates

__all__ = [
    "architecture",
    "augmentation",
    "batches_told_plainly",
    "compared_sentence",
    "crops",
    "device_sentence",
    "download_weights",
    "head_features",
    "head_options",
    "history_table",
    "image_dataloaders",
    "keep_quick_model",
    "learner_as_04",
    "learning_rates",
    "load_trained",
    "look_for_rate",
    "make_learner",
    "networks_of",
    "optimizer",
    "overfitting_sentence",
    "plain_errors",
    "planned_rates",
    "preparation",
    "quick_model",
    "quick_sentence",
    "read_checkpoint",
    "schedule_picture",
    "speed_callbacks",
    "train_as_04",
    "training_callbacks",
    "training_loss",
    "training_status",
    "worker_count",
]
