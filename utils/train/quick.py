"""
Stage 04, the quick model: a linear head on what the packaged network sees, in seconds.

Reads the features of a data set. The head learns from the training set alone: how freely it may follow it is decided by
cross-validation inside it, near-duplicates together. 04 shows this model first, so that a long training has something
to be better than; with ``train = "head"`` it is the model. Training only the top on pretrained features comes near to
fine-tuning's accuracy at a fraction of the time (arXiv 2209.07932).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from fastai.vision.all import Learner
from sklearn.metrics import log_loss

from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.features import Front, picture_features
from utils.heads import Head, choose_strength, fit_head
from utils.intervals import verdict
from utils.project import HEAD_MASKS, HEAD_SIZE, PACKAGED
from utils.train.checkpoint import is_current, read_checkpoint, record_of, save_round
from utils.train.curves import best_row
from utils.train.loaders import validation_view
from utils.train.networks import asked_front, linear_head
from utils.train.record import Record, asked_settings, mask_id, network_settings
from utils.words import counted, verdict_sentence


@dataclass(frozen=True)
class QuickModel:
    """A linear head on the packaged network's features, fitted to the training set."""

    head: Head
    strength: float  # scikit-learn's C that cross-validation chose
    verdict: dict  # on the validation set, as `utils.intervals.verdict` returns it
    accuracy: float  # on the n pictures of the validation set that can be read, a fraction
    n: int
    losses: tuple[float, float]  # mean, in nats, on the training and the validation set
    train_accuracy: float  # on the training set, a fraction
    seconds: float  # that it took, from pictures to head


def quick_model(dataset: Dataset, *, size: int = HEAD_SIZE) -> QuickModel:
    """
    Fit a linear head to the training set and judge it on the validation set; unreadable pictures stay out.

    The network sees pictures of `size` pixels; with ``train = "head"`` and a mask, the thing in them.
    """
    began = time.perf_counter()
    project = dataset.project
    features = head_features(dataset, size=size) if project.train == "head" else picture_features(dataset, size=size)
    readable = ~np.isnan(features).any(1)
    codes, groups, k = np.array(dataset.codes), np.array(dataset.groups), len(project.labels)
    sides = {name: readable & (np.array(dataset.sides, dtype=object) == name) for name in ("train", "valid")}
    if not all(there.any() for there in sides.values()):
        raise FieldguideError(f"The training or validation set of {project.name!r} is empty. Run 02 and 03 first.")
    train, valid = sides.values()
    how = {"balanced": project.class_weights}
    strength = project.strength or choose_strength(
        features[train], codes[train], k, groups=groups[train], seed=project.seed, **how
    )
    head = fit_head(features[train], codes[train], k, strength=strength, **how)
    probs = {name: head.probabilities(features[there]) for name, there in sides.items()}
    losses = tuple(log_loss(codes[sides[name]], probs[name], labels=range(k)) for name in sides)
    right = {name: probs[name].argmax(1) == codes[there] for name, there in sides.items()}
    shares = {name: float(values.mean()) for name, values in right.items()}
    told = verdict(codes[valid], probs["valid"].argmax(1), groups=groups[valid])
    figures = {"accuracy": shares["valid"], "n": len(right["valid"]), "train_accuracy": shares["train"]}
    return QuickModel(head, strength, told, **figures, losses=losses, seconds=time.perf_counter() - began)


def head_features(dataset: Dataset, *, size: int | Sequence[int]) -> np.ndarray:
    """
    Return what the packaged network sees in N pictures at `size` pixels, (N, 1280); NaN where one cannot be read.

    Where the project cuts or paints its pictures, so are these. A mask as a fourth channel it could not see.
    """
    project, front = dataset.project, None
    if project.mask in HEAD_MASKS:
        layers = asked_front(project.model_copy(update={"size": size}))
        front = Front(mask_id(layers).replace(" ", "-"), layers)
    return picture_features(dataset, size=size, front=front)


def quick_sentence(quick: QuickModel) -> str:
    """Return what the quick model took and is worth, in words."""
    return f"The quick model took {quick.seconds:.1f} s. {verdict_sentence(quick.verdict)}"


def head_options(dataset: Dataset, quick: QuickModel) -> dict:
    """
    Return what ``vision_learner`` needs to begin with the quick model's head; nothing for another network.

    A network sees larger pictures differently: on seedlings at 224 pixels a head for 128 was right for 64 % instead of
    93 %. So for another `size`, or with a mask, the head is fitted again, to what the network then sees, as freely.
    """
    project, fitted = dataset.project, quick.head
    if project.arch != PACKAGED or project.weights != "imagenet":
        return {}
    if project.train == "all" and (project.size != HEAD_SIZE or project.mask in HEAD_MASKS):
        train = dataset.on("train")
        features = head_features(train, size=project.size)
        readable, codes, k = ~np.isnan(features).any(1), np.array(train.codes), len(project.labels)
        how = {"strength": quick.strength, "balanced": project.class_weights}
        fitted = fit_head(features[readable], codes[readable], k, **how)
    head = linear_head(len(project.labels))
    with torch.no_grad():
        head[-1].weight.copy_(torch.from_numpy(fitted.weight))
        head[-1].bias.copy_(torch.from_numpy(fitted.bias))
    return {"custom_head": head, "init": None}  # None: fastai would draw the head's weights anew


def keep_quick_model(dataset: Dataset, learn: Learner, quick: QuickModel) -> None:
    """Save the quick model as the round of ``train = "head"``, unless it stands; `learn` gets its record."""
    project, asked = dataset.project, asked_settings(dataset)
    kept = read_checkpoint(project)
    if not is_current(dataset, kept):
        (train_loss, valid_loss), seconds = quick.losses, round(quick.seconds, 1)
        figures = {"train_loss": train_loss, "valid_loss": valid_loss, "accuracy": quick.accuracy}
        row = {"epoch": 0, "phase": "head", **{name: round(float(value), 6) for name, value in figures.items()}}
        kept = {
            "data": dataset.fingerprint,
            "settings": asked | network_settings(learn, asked),
            "asked": asked,
            "rows": [row | {"lr": 0.0, "seconds": seconds}],
            "figures": [list(map(float, figures.values()))],
            "rates": torch.empty((0, 2), dtype=torch.float64),
            "frozen": None,
            "labels": list(project.labels),
            "view": validation_view(learn.dls),
            "model": learn.model.state_dict(),
        }
        save_round(project, kept)
    learn.record = record_of(dataset, kept)


def compared_sentence(quick: QuickModel, record: Record, accuracy: float | None = None) -> str:
    """
    Return in words whether a trained model is better than the quick one on the validation set.

    `accuracy`, a fraction, is by default that of the epoch that was kept; an ensemble has another one.
    """
    if record.settings["train"] == "head":
        return 'This is the quick model: train = "head".'
    accuracy = best_row(record.history)["accuracy"] if accuracy is None else accuracy
    trained, first = round(accuracy * quick.n), round(quick.accuracy * quick.n)
    photos = counted(quick.n, "photo")
    told = f"Of {photos} in the validation set the trained model names {trained} rightly, the quick model {first}."
    if trained > first:
        return told
    return (
        f'{told} So the training gained nothing. Take the quick model: set train = "head" in the project file and run '
        "04 again. Or gather more photos, or train for more epochs."
    )
