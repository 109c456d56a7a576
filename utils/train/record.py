"""
Stage 04, the settings: those that a training really used, read off the learner, beside those of the project file.

Reads and writes nothing. A round stands by these settings, and evaluation and card tell them.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
from fastai.optimizer import Optimizer, average_grad
from fastai.vision.all import Learner
from fasttransform import Pipeline

from utils.dataset import Dataset
from utils.masks import mask_way
from utils.pictures import size_text
from utils.project import PACKAGED
from utils.seeing import mask_front_of
from utils.storage import content_id
from utils.train.loaders import image_block, training_loss
from utils.train.networks import architecture, asked_front, network_facts, seeded_start, weights_id
from utils.train.schedule import learning_rates, optimizer, schedule_name, scheduled

FAST = {"ChannelsLast", "MixedPrecision"}  # of the machine, not of the training: see `device`
STANDARD = {"TrainEvalCallback", "Recorder", "CastToTensor", "ProgressCallback", "ParamScheduler"}  # fastai's own
AS_ASKED = {"train", "arch", "weights", "size", "epochs", "seed", "schedule", "patience", "augment", "class_weights"}
OF_A_HEAD = {"train", "arch", "weights", "size", "seed", "class_weights"}  # what a head alone depends on
SHOWN_BY = {"augment": "batch_tfms", "lr": "base_lr", "class_weights": "loss", "layer_groups": "network"}
SHOWN_BY |= {"initial_weights": "network", "n_in": "network", "head": "network"}  # differences that are named once
OF_THE_FROZEN = {"freeze_epochs", "base_lr", "frozen_schedule", "lr_mult"}


@dataclass(frozen=True)
class Record:
    """What is known of a training: ``learn.record``."""

    settings: dict  # those that were really used; JSON can hold them
    changed: str  # a sentence on what differs from the project file, or ""
    fingerprint: str  # of the pictures and these settings, as `round_fingerprint` gives
    history: list[dict]  # the rows of history.csv

    def __reduce__(self):
        """Pickle as a plain dict: what ``learn.export()`` writes must load without utils."""
        return dict, (asdict(self),)


def network_settings(learn: Learner, asked: Mapping) -> dict:
    """Return what is known of a learner's network, and the size of its pictures."""
    loader, network = learn.dls.train, getattr(learn, "arch", type(learn.model))
    sizes = [step.size for step in [*loader.after_item.fs, *loader.after_batch.fs] if getattr(step, "size", None)]
    front = mask_front_of(learn.model)
    return ({"mask": mask_id(front)} if front else {}) | {
        "arch": getattr(network, "__name__", str(network)),
        "weights": asked["weights"] if getattr(learn, "pretrained", False) else "none",
        "start": weights_id(learn.model),
        "network": content_id(repr(learn.model).encode()),
        "n_in": 3 if front else next((p.shape[1] for p in learn.model.parameters() if p.ndim == 4), None),
        "size": _one_or_two(sizes[-1]) if sizes else None,
        "head": head_text(learn.model),
    }


def mask_id(front) -> str:
    """Return the setting of a network with a mask: the word, and hex digits of the front's numbers."""
    return f"{mask_way(front)} {weights_id(front)}"


def _one_or_two(size: tuple[int, int]) -> int | list[int]:
    """Return fastai's width and height as the project file has them: one number, or height and width."""
    width, height = map(int, size)
    return height if height == width else [height, width]


def first_settings(learn: Learner, asked: Mapping) -> dict:
    """Return the settings that a learner has when its training begins: all but those of the phases."""
    loader = learn.dls.train
    batches, loss = texts(loader.after_batch), loss_text(learn.loss_func)
    cbs = {type(cb).__name__: cb for cb in learn.cbs}
    others = [cb for cb in learn.cbs if not type(cb).__module__.startswith(__package__)]
    network = network_settings(learn, asked)
    chosen = {"strength": asked["strength"]} if "strength" in asked and network["head"] == "linear" else {}
    return (
        network
        | chosen
        | {
            "train": "all",
            "initial_weights": "seeded" if begins_as_asked(learn, asked, network["start"]) else "others",
            "layer_groups": [sum(p.numel() for p in group) for group in learn.opt.param_lists],
            "train_bn": learn.train_bn,
            "batch_size": loader.bs,
            "seed": getattr(cbs.get("Seed"), "seed", None),
            "patience": getattr(cbs.get("Patience"), "patience", 0),
            "augment": asked["augment"] if batches == asked["batch_tfms"] else "changed in 04",
            "item_tfms": texts(loader.after_item),
            "batch_tfms": batches,
            "class_weights": "weight=" in loss,
            "loss": loss,
            "optimizer": optimizer_text(learn.opt_func, learn.opt),
            "callbacks": sorted(callback_text(cb) for cb in others if type(cb).__name__ not in FAST | STANDARD),
        }
    )


def begins_as_asked(learn: Learner, asked: Mapping, start: str) -> bool:
    """Return whether a learner begins with the weights that the seed draws; the quick model's head is no draw."""
    if asked["head"] == "linear" or not callable(getattr(learn, "arch", None)):
        return asked["head"] == "linear"
    how = {"pretrained": asked["weights"] != "none", "seed": asked["seed"], "labels": len(learn.dls.vocab)}
    return start == seeded_start(learn.arch, **how)


def phase_settings(learn: Learner) -> dict:
    """Return the settings of the phase that begins: its epochs, and how the learning rate is about to move."""
    peaks = scheduled(learn, "lr").max(0)  # of each group of layers
    head = digits(peaks[-1])
    if learn.opt.frozen_idx > 0:
        return {"freeze_epochs": learn.n_epoch, "base_lr": head, "frozen_schedule": schedule_name(learn)}
    whole = {"freeze_epochs": 0} if learn.history.begins else {}  # nothing was frozen before
    whole |= {"lr": head, "lr_mult": digits(peaks[-1] / peaks[0]), "schedule": schedule_name(learn)}
    return {"epochs": learn.n_epoch} | whole


def asked_settings(dataset: Dataset) -> dict:
    """Return the settings that 04 uses if none of its cells is changed."""
    project, block = dataset.project, image_block(dataset.project)
    head = "linear" if (project.arch, project.weights) == (PACKAGED, "imagenet") else "fastai"
    network, groups = network_facts(architecture(project), len(project.labels), linear=head == "linear")
    # Of the quick model's head, also where it only begins the training; 0 lets cross-validation choose.
    chosen = {"strength": project.strength} if project.strength and head == "linear" else {}
    masked = {} if project.mask == "none" else {"mask": mask_id(asked_front(project))}
    if project.train == "head":
        return project.model_dump(include=OF_A_HEAD) | chosen | masked | {"n_in": 3, "head": head, "network": network}
    rates, make = learning_rates(project), optimizer(project)
    return (
        project.model_dump(include=AS_ASKED)
        | chosen
        | masked
        | {
            "weights": project.weights_name,
            "head": head,
            "n_in": 3,
            "initial_weights": "seeded",
            "network": network,
            "layer_groups": list(groups),
            "train_bn": True,
            "batch_size": min(project.batch_size, len(dataset.on("train"))),
            "freeze_epochs": project.freeze_epochs,
            **({"base_lr": digits(rates["base_lr"]), "frozen_schedule": "one-cycle"} if project.freeze_epochs else {}),
            "lr_mult": rates["lr_mult"],
            "lr": digits(rates["base_lr"] / 2),
            "item_tfms": texts(Pipeline(block.item_tfms)),
            "batch_tfms": texts(Pipeline(block.batch_tfms)),
            "loss": loss_text(training_loss(dataset)),
            "optimizer": optimizer_text(make, make([torch.zeros(1)], lr=0)),
            "callbacks": [],
        }
    )


def head_text(network) -> str:
    """Return which head a network has: "linear", as the quick model's, or "fastai" for any other."""
    children = [type(layer).__name__ for layer in network[-1].children()] if hasattr(network, "__getitem__") else []
    return "linear" if children == ["AdaptiveAvgPool2d", "Flatten", "Linear"] else "fastai"


def changed_sentence(settings: Mapping, asked: Mapping) -> str:
    """Name the settings that differ from those of the project file; "" if none does."""
    other = {name: (settings.get(name), value) for name, value in asked.items() if settings.get(name) != value}
    words = []
    if "freeze_epochs" in other and not settings.get("freeze_epochs"):
        words, other = ["no frozen phase"], {name: pair for name, pair in other.items() if name not in OF_THE_FROZEN}
    for name in [name for name in other if SHOWN_BY.get(name) not in other]:
        used, wanted = (size_text(value) if name == "size" and value else _value_text(value) for value in other[name])
        long = name != "size" and (name == "network" or " " in used + wanted)
        words.append(f"another {name}" if long else f"{name} = {used} instead of {wanted}")
    return f"Cells of 04 were changed: it trained with {', '.join(words)}." if words else ""


def _value_text(value) -> str:
    """Return the value of a setting as a sentence has it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def texts(steps: Pipeline) -> list[str]:
    """Return transforms as text, the same on every device."""
    lines = (str(step).partition("\n(enc:")[0] for step in steps.fs)
    return [re.sub(r"\s+", " ", re.sub(r", device='[^']*'|np\.float64(?=\()", "", line)) for line in lines]


def callback_text(value, depth: int = 4) -> str:
    """Return a callback as text: its name and what it was given, also inside the objects that it holds."""
    if isinstance(value, torch.Tensor):
        return str(value.tolist()) if value.numel() <= 16 else str(tuple(value.shape))
    if depth == 0 or isinstance(value, type) or not hasattr(value, "__dict__"):
        return str(value) if isinstance(value, int | float | str | tuple | None) else type(value).__name__
    told = (f"{name}={callback_text(vars(value)[name], depth - 1)}" for name in sorted(vars(value).keys() - {"learn"}))
    return f"{type(value).__name__}({', '.join(told)})"


def loss_text(loss) -> str:
    """Return a loss as text: its name, its numbers and its weights."""
    inner = getattr(loss, "func", loss)
    facts = {name: value for name, value in vars(inner).items() if isinstance(value, int | float | str)}
    if (weight := getattr(inner, "weight", None)) is not None:
        facts["weight"] = [digits(value) for value in weight.tolist()]
    told = (f"{name}={facts[name]}" for name in sorted(facts.keys() - {"training"}))
    return f"{getattr(inner, '__name__', type(inner).__name__)}({', '.join(told)})"


def optimizer_text(make: Callable, made: Optimizer) -> str:
    """Return an optimizer as text: its name, without momentum or with it, and what no schedule moves."""
    name, hypers = getattr(getattr(make, "func", make), "__name__", str(make)), made.hypers[-1]
    name += " without momentum" if name == "SGD" and average_grad not in made.cbs else ""
    return f"{name}({', '.join(f'{key}={hypers[key]}' for key in sorted(hypers.keys() - {'lr', 'mom'}))})"


def digits(value: float) -> float:
    """Return a number with four digits: more come from how it was calculated."""
    return float(f"{value:.4g}")
