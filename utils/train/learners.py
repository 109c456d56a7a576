"""
Stage 04, the learner that it trained. Reads learner.pth.
"""

from collections.abc import Sequence
from dataclasses import replace

from fastai.callback.core import Callback
from fastai.vision.all import DataBlock, DataLoaders, Learner, accuracy, no_random, vision_learner

from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.project import Project
from utils.train.checkpoint import OLDER, ROUND, is_current, read_checkpoint, record_of
from utils.train.loaders import image_dataloaders, validation_view
from utils.train.networks import architecture, linear_head
from utils.train.schedule import optimizer

SAME_VIEW = 0.02  # of a normalised colour; another machine calculates a little differently


def make_learner(
    project: Project, dls: DataLoaders, *, pretrained: bool, cbs: Sequence[Callback] = (), loss_func=None, **options
) -> Learner:
    """Return 04's vision_learner with the project's seed behind every weight that is drawn."""
    options |= {"loss_func": loss_func, "opt_func": optimizer(project), "cbs": list(cbs), "metrics": accuracy}
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
    options = {"n_in": settings["n_in"] or 3}
    if settings["head"] == "linear":
        options |= {"custom_head": linear_head(len(project.labels)), "init": None}
    learn = make_learner(used, dls, pretrained=False, **options)
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
