"""
Stage 04: fine-tune a network on the training set and keep its best epoch.
"""

from utils.train.augment import augmentation
from utils.train.checkpoint import is_trained, read_checkpoint, training_status
from utils.train.curves import history_table, overfitting_sentence, schedule_picture
from utils.train.device import device_sentence, speed_callbacks
from utils.train.networks import architecture, download_weights, pretrained_body
from utils.train.schedule import finder_steps, learning_rates, longest_fall, planned_rates, rate_sentence
from utils.train.training import (
    fine_tune,
    image_dataloaders,
    load_trained,
    make_learner,
    train_fold,
    training_loss,
    undisturbed,
)

__all__ = [
    "architecture",
    "augmentation",
    "device_sentence",
    "download_weights",
    "finder_steps",
    "fine_tune",
    "history_table",
    "image_dataloaders",
    "is_trained",
    "learning_rates",
    "load_trained",
    "longest_fall",
    "make_learner",
    "overfitting_sentence",
    "planned_rates",
    "pretrained_body",
    "rate_sentence",
    "read_checkpoint",
    "schedule_picture",
    "speed_callbacks",
    "train_fold",
    "training_loss",
    "training_status",
    "undisturbed",
]
