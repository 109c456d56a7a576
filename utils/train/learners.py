"""
Stage 04, the learners: the one that 04 trained, and those of cross-validation. Reads learner.pth.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fastai.callback.core import Callback, CancelValidException
from fastai.vision.all import DataBlock, DataLoaders, Learner, accuracy, no_random, vision_learner

from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.project import Project
from utils.train.checkpoint import OLDER, ROUND, is_current, read_checkpoint, record_of
from utils.train.device import speed_callbacks
from utils.train.loaders import image_dataloaders, training_loss, validation_view
from utils.train.networks import architecture, download_weights
from utils.train.plain import plain_errors
from utils.train.schedule import Schedule, learning_rates

SAME_VIEW = 0.02  # of a normalised colour; another machine calculates a little differently


def make_learner(
    project: Project, dls: DataLoaders, *, pretrained: bool, cbs: Sequence[Callback] = (), loss_func=None, **options
) -> Learner:
    """Return 04's vision_learner with the project's seed behind every weight that is drawn."""
    options |= {"loss_func": loss_func, "cbs": list(cbs), "metrics": accuracy}
    with no_random(project.seed):
        return vision_learner(dls, architecture(project), pretrained=pretrained, **options)


def load_trained(dataset: Dataset, block: DataBlock | None = None) -> Learner:
    """
    Return the learner that 04 trained, with its `Record` as ``learn.record``.

    Where 04 trained with a DataBlock of its own that prepares pictures in another way, `block` must be that one. A
    model is refused if pictures, split or the project file changed since.
    """
    project, path = dataset.project, dataset.project.models / ROUND
    kept = read_checkpoint(project)
    if kept is None:
        raise FieldguideError(f"There is no trained model in {project.models}. Run 04 first.")
    if not kept:
        raise FieldguideError(f"{OLDER.format(project.models)}. Run 04 again: it trains a new one.")
    settings = kept["settings"]
    if kept["labels"] != list(project.labels):
        raise FieldguideError(
            f"{path} is a {settings['arch']} for {', '.join(kept['labels'])}; the project file asks for a "
            f"{project.arch} for {', '.join(project.labels)}. Run 04 again."
        )
    if not is_current(dataset, kept):
        raise FieldguideError("Pictures, labels, split or settings changed since the model was trained. Run 04 again.")
    if settings["network"] != kept["asked"]["network"]:
        raise FieldguideError(
            "04 trained a network that the notebook's own cell does not make. Run 04 again with that cell unchanged."
        )
    used = project.model_copy(update={"arch": settings["arch"], "size": settings["size"] or project.size})
    dls = image_dataloaders(replace(dataset, project=used), block)
    learn = make_learner(used, dls, pretrained=False, n_in=settings["n_in"] or 3)
    try:
        learn.model.load_state_dict(kept["model"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise FieldguideError(
            f"{path} says it is a {used.arch}, and holds other weights. Delete it and run 04 again."
        ) from error
    view = validation_view(dls)
    if view.shape != kept["view"].shape or (view - kept["view"]).abs().max() > SAME_VIEW:
        raise FieldguideError(
            "04 trained with a DataBlock of its own, which shows pictures to the network in another way. Give it to "
            "load_trained(dataset, block), or run 04 again with the DataBlock of the notebook."
        )
    learn.record = record_of(dataset, kept)
    return learn


class NoValidation(Callback):
    """Skip the validation after each epoch: a fold is judged once, when it is trained."""

    order = 5  # before anything is set up for the pass

    def before_validate(self):
        """Leave before the first batch."""
        raise CancelValidException


def train_fold(dataset: Dataset, sides: Mapping[str, str]) -> Learner:
    """Return a learner of the same recipe as 04's, trained on other sides; shows and saves nothing."""
    project, fold = dataset.project, dataset.with_split({id: (id, side) for id, side in sides.items()})
    dls = image_dataloaders(dataset, sides=sides)
    how = {"cbs": speed_callbacks(dls), "loss_func": training_loss(fold)}
    learn = make_learner(project, dls, pretrained=download_weights(project), **how)
    with learn.no_bar(), learn.no_logging(), no_random(project.seed), plain_errors(dls):
        dls.train.rng = random.Random(project.seed)
        learn.fine_tune(project.epochs, **learning_rates(project), cbs=[Schedule(project.schedule), NoValidation()])
    return learn
