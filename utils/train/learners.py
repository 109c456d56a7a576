"""
Stage 04, the learner that it trained. Reads learner.pth, of an ensemble those of all its networks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fastai.callback.core import Callback
from fastai.vision.all import DataBlock, DataLoaders, Learner, accuracy, no_random, vision_learner

from utils.averaging import averaged, networks_of
from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.project import Project
from utils.train.checkpoint import OLDER, ROUND, is_current, read_checkpoint, record_of, trained_otherwise
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

    With `ensemble` in the project file, its network gives the mean of the scores of all; the record is the first one's,
    and names their number and seeds. Where 04 trained with a DataBlock of its own that prepares pictures in another
    way, `block` must be that one. A model is refused if pictures, split or the project file changed since.
    """
    networks = networks_of(dataset)
    rounds = [_current_round(network) for network in networks]
    if (n := trained_otherwise(rounds)) is not None:
        raise FieldguideError(f"Network {n} was trained by other cells of 04 than the first. Run 04 again.")
    dls = image_dataloaders(replace(dataset, project=_as_used(dataset.project, rounds[0])), block)
    learn, *others = [_learner_of(*each, dls) for each in zip(networks, rounds, strict=True)]
    view = validation_view(dls)
    if any(view.shape != kept["view"].shape or (view - kept["view"]).abs().max() > SAME_VIEW for kept in rounds):
        raise FieldguideError(
            "04 trained with a DataBlock of its own, which shows pictures to the network in another way. Give it to "
            "load_trained(dataset, block), or run 04 again with the DataBlock of the notebook."
        )
    together = {}
    if others:
        together = {"ensemble": len(networks), "seeds": [kept["settings"]["seed"] for kept in rounds]}
        models = [learn.model, *(each.model for each in others)]
        learn.model, learn.opt = averaged(models, len(dataset.project.labels)).to(dls.device), None
    learn.record = record_of(networks[0], rounds[0], **together)
    return learn


def _current_round(dataset: Dataset) -> dict:
    """Return what learner.pth of one network holds, or refuse one that is not of today's pictures and project file."""
    project, path = dataset.project, dataset.project.network / ROUND
    kept = read_checkpoint(project)
    if kept is None:
        raise FieldguideError(f"There is no trained model in {project.network}. Run 04 first.")
    if not kept:
        raise FieldguideError(f"{OLDER.format(project.network)}. Run 04 again: it trains a new one.")
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
    return kept


def _as_used(project: Project, kept: Mapping) -> Project:
    """Return a project with the network and the size of pictures that a round was really trained with."""
    settings = kept["settings"]
    return project.model_copy(update={"arch": settings["arch"], "size": settings["size"] or project.size})


def _learner_of(dataset: Dataset, kept: Mapping, dls: DataLoaders) -> Learner:
    """Return the learner of one network's round."""
    used, settings = _as_used(dataset.project, kept), kept["settings"]
    options = {"n_in": settings["n_in"] or 3}
    if settings["head"] == "linear":
        options |= {"custom_head": linear_head(len(used.labels)), "init": None}
    learn = make_learner(used, dls, pretrained=False, **options)
    try:
        learn.model.load_state_dict(kept["model"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise FieldguideError(
            f"{used.network / ROUND} says it is a {used.arch}, and holds other weights. Delete it and run 04 again."
        ) from error
    return learn
