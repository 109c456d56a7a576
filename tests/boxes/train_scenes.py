"""
A process that trains on drawn scenes as 3_train does, and may be killed after a number of batches.

    python -m tests.boxes.train_scenes FOLDER [BATCHES]
"""

import hashlib
import os
import signal
import sys
from pathlib import Path

import torch
from fastai.vision.all import no_random

from utils.boxes import read_photos
from utils.detect import BoxTraining, planned_for
from utils.detect.training import detector_learner
from utils.project import Project

SCENES = {"name": "scenes", "task": "detect", "source": "photos", "size": 64, "epochs": 1, "batch_size": 4}


def scenes_project(folder: Path, **settings) -> Project:
    """Return the project of the scenes in a folder."""
    roots = {"data_dir": str(folder / "data"), "models_dir": str(folder / "models")}
    return Project.model_validate(SCENES | roots | settings)


class Killed(BoxTraining):
    """Kill this process after a number of training batches in all."""

    order = BoxTraining.order + 1
    left = 0

    def after_batch(self):
        super().after_batch()
        self.left -= self.training
        if self.left == 0 and self.training:
            os.kill(os.getpid(), signal.SIGKILL)


def train_scenes(
    project: Project, *, every: int = 2, batches: int = 0, **changed
) -> tuple[BoxTraining, torch.nn.Module]:
    """Train as 3_train does, unseen; return the callback and the detector."""
    photos = read_photos(project)
    learn = detector_learner(photos)
    training = (Killed if batches else BoxTraining)(photos, planned_for(project, len(learn.dls.train)), every=every)
    training.left = batches
    with no_random(), learn.no_bar(), learn.no_logging():
        learn.fit(project.freeze_epochs + project.epochs, cbs=training)
    return training, learn.model


def digits_of(detector: torch.nn.Module) -> str:
    """Return hex digits that change with any weight."""
    values = (value.contiguous().numpy().tobytes() for value in detector.state_dict().values())
    return hashlib.sha256(b"".join(values)).hexdigest()


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_scenes(scenes_project(Path(sys.argv[1])), batches=int(sys.argv[2]) if len(sys.argv) > 2 else 0)
