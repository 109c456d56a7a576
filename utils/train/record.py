"""
Stage 04, the settings: those that a training really used, read off the learner, beside those of the project file.

Reads and writes nothing. These settings decide whether a round stands, and evaluation and card tell them: a cell of 04
that was changed shows everywhere.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from fastai.optimizer import Adam
from fastai.vision.all import Learner
from fasttransform import Pipeline

from utils.dataset import Dataset
from utils.train.loaders import image_block, training_loss
from utils.train.schedule import learning_rates, schedule_name, scheduled

FAST = {"ChannelsLast", "MixedPrecision"}  # of the machine, not of the training: see `device`
STANDARD = {"TrainEvalCallback", "Recorder", "CastToTensor", "ProgressCallback"}  # fastai's own
CHANGED = "changed in 04"


@dataclass(frozen=True)
class Record:
    """
    What is known of a training: ``learn.record``.

    Attributes
    ----------
    settings : dict of values that JSON can hold
        The settings that were really used.
    changed : str
        A sentence on what differs from the project file; "" if nothing does.
    fingerprint : str
        16 hex digits of the pictures and these settings, as `round_fingerprint` gives.
    history : list of dict
        The rows of history.csv.
    """

    settings: dict
    changed: str
    fingerprint: str
    history: list[dict]

    def __reduce__(self):
        """Pickle as a plain dict: what ``learn.export()`` writes must load without utils."""
        return dict, (asdict(self),)


def first_settings(learn: Learner, asked: Mapping) -> dict:
    """Return the settings that a learner has when its training begins: all but those of the phases."""
    loader, network = learn.dls.train, getattr(learn, "arch", type(learn.model))
    items, batches = texts(loader.after_item), texts(loader.after_batch)
    sizes = [step.size for step in [*loader.after_item.fs, *loader.after_batch.fs] if getattr(step, "size", None)]
    own = {name: getattr(learn, name, None) for name in ("seed", "patience")}  # our callbacks of these names
    named = {type(cb).__name__ for cb in learn.cbs if not type(cb).__module__.startswith(__package__)}
    return {
        "arch": getattr(network, "__name__", str(network)),
        "weights": "imagenet" if getattr(learn, "pretrained", False) else "none",
        "start": weights_hash(learn.model),
        "n_in": next((p.shape[1] for p in learn.model.parameters() if p.ndim == 4), None),
        "size": max(sizes[-1]) if sizes else None,
        "batch_size": loader.bs,
        "seed": own["seed"] and own["seed"].seed,
        "patience": own["patience"].patience if own["patience"] else 0,
        "augment": asked["augment"] if batches == asked["batch_tfms"] else CHANGED,
        "item_tfms": items,
        "batch_tfms": batches,
        "class_weights": loss_weight(learn.loss_func) is not None,
        "loss": loss_text(learn.loss_func),
        "optimizer": optimizer_text(learn.opt_func, learn.opt.hypers[-1]),
        "callbacks": sorted(named - FAST - STANDARD - {"ParamScheduler"}),
    }


def phase_settings(learn: Learner) -> dict:
    """Return the settings of the phase that begins: its epochs, and how the learning rate is about to move."""
    peaks = scheduled(learn, "lr").max(0)  # of each group of layers
    head = digits(peaks[-1])
    if learn.opt.frozen_idx > 0:
        return {"freeze_epochs": learn.n_epoch, "base_lr": head, "frozen_schedule": schedule_name(learn)}
    whole = {"lr": head, "lr_mult": digits(peaks[-1] / peaks[0]), "schedule": schedule_name(learn)}
    return {"epochs": learn.n_epoch} | whole


def asked_settings(dataset: Dataset) -> dict:
    """Return the settings that 04 uses if none of its cells is changed."""
    project, block = dataset.project, image_block(dataset.project)
    rates = learning_rates(project)
    return {
        "arch": project.arch,
        "weights": project.weights,
        "n_in": 3,
        "size": project.size,
        "batch_size": min(project.batch_size, len(dataset.on("train"))),
        "seed": project.seed,
        "freeze_epochs": 1,
        "epochs": project.epochs,
        **rates,
        "lr": digits(rates["base_lr"] / 2),
        "schedule": project.schedule,
        "frozen_schedule": "one-cycle",
        "patience": project.patience,
        "augment": project.augment,
        "item_tfms": texts(Pipeline(block.item_tfms)),
        "batch_tfms": texts(Pipeline(block.batch_tfms)),
        "class_weights": project.class_weights,
        "loss": loss_text(training_loss(dataset)),
        "optimizer": optimizer_text(Adam, Adam([torch.zeros(1)], lr=0).hypers[-1]),
        "callbacks": [],
    }


SHOWN_BY = {"augment": "batch_tfms", "lr": "base_lr", "class_weights": "loss"}  # said once


def changed_sentence(settings: Mapping, asked: Mapping) -> str:
    """
    Name the settings that differ from those of the project file.

    >>> changed_sentence({"epochs": 1, "loss": "Focal loss"}, {"epochs": 3, "loss": "Cross entropy"})
    'Cells of 04 were changed: it trained with epochs = 1 instead of 3, another loss.'
    """
    other = {name: (settings.get(name), value) for name, value in asked.items() if settings.get(name) != value}
    words = []
    for name in [name for name in other if SHOWN_BY.get(name) not in other]:
        used, wanted = (f"{value:g}" if isinstance(value, float) else str(value) for value in other[name])
        words.append(f"another {name}" if " " in used + wanted else f"{name} = {used} instead of {wanted}")
    return f"Cells of 04 were changed: it trained with {', '.join(words)}." if words else ""


def texts(steps: Pipeline) -> list[str]:
    """Return transforms as text, the same on every device."""
    lines = (str(step).partition("\n(enc:")[0] for step in steps.fs)
    return [re.sub(r"\s+", " ", re.sub(r", device='[^']*'|np\.float64(?=\()", "", line)) for line in lines]


def weights_hash(model: torch.nn.Module) -> str:
    """Return 16 hex digits of a network's weights."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def loss_weight(loss) -> torch.Tensor | None:
    """Return the weights of the labels in a loss, or None."""
    return getattr(getattr(loss, "func", loss), "weight", None)


def loss_text(loss) -> str:
    """Return a loss as text: its name, its numbers and its weights."""
    inner, weight = getattr(loss, "func", loss), loss_weight(loss)
    facts = {name: value for name, value in vars(inner).items() if isinstance(value, int | float | str)}
    facts |= {} if weight is None else {"weight": [digits(value) for value in weight.tolist()]}
    told = (f"{name}={facts[name]}" for name in sorted(facts) if name != "training" and name[0] != "_")
    return f"{getattr(inner, '__name__', type(inner).__name__)}({', '.join(told)})"


def optimizer_text(optimizer, hypers: Mapping) -> str:
    """Return an optimizer as text: its name and what no schedule moves."""
    name = getattr(getattr(optimizer, "func", optimizer), "__name__", str(optimizer))
    return f"{name}({', '.join(f'{key}={hypers[key]}' for key in sorted(hypers.keys() - {'lr', 'mom'}))})"


def digits(value: float) -> float:
    """
    Return a number with four digits: more come from how it was calculated.

    >>> digits(0.00199999998)
    0.002
    """
    return float(f"{value:.4g}")
