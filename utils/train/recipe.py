"""
Stage 04 as one call: what its cells do if none of them is changed.

Draws, reads and writes nothing but features: studies and benchmarks train many times.
"""

from fastai.vision.all import Learner

from utils.dataset import Dataset
from utils.project import PACKAGED
from utils.train.callbacks import training_callbacks
from utils.train.device import speed_callbacks
from utils.train.learners import make_learner
from utils.train.loaders import image_dataloaders, training_loss
from utils.train.networks import download_weights
from utils.train.quick import head_options, quick_model
from utils.train.schedule import learning_rates


def learner_as_04(dataset: Dataset) -> Learner:
    """Return the learner of 04 for a data set, by its project's settings; it is not trained yet."""
    project, dls = dataset.project, image_dataloaders(dataset)
    begins = project.arch == PACKAGED and project.weights == "imagenet"  # with the quick model's head
    options = head_options(dataset, quick_model(dataset)) if begins else {}
    how = {"pretrained": download_weights(project), "loss_func": training_loss(dataset), "cbs": speed_callbacks(dls)}
    return make_learner(project, dls, **how, **options)


def train_as_04(dataset: Dataset) -> tuple[Learner, list[dict]]:
    """Train all layers on a data set, by its project's settings; return the learner and the rows of its history."""
    project, learn = dataset.project, learner_as_04(dataset)
    cbs = training_callbacks(dataset, save=False)
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(project.epochs, cbs=cbs, **learning_rates(project))
    return learn, next(cb.rows for cb in cbs if hasattr(cb, "rows"))
