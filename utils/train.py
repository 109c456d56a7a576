"""
Stage 04: fine-tune a pretrained network on the train side, keeping the best epoch by the valid side.

Reads images/ and split.csv; writes learner.pth, history.csv and training.png under models/<name>. fastai does
the work; this module adds what it lacks: the split that split.csv decided, one best epoch over both phases of
``fine_tune`` (fastai forgets the frozen phase's), a curve that lives while it trains, and a seed that holds.
"""

import io
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torchvision
from fastai.vision.all import (  # the course's import: it also gives Learner its fine_tune and no_bar
    Callback,
    CancelValidException,
    CategoryBlock,
    DataBlock,
    DataLoaders,
    ImageBlock,
    Learner,
    Normalize,
    RandomResizedCrop,
    accuracy,
    aug_transforms,
    create_body,
    imagenet_stats,
    no_random,
    parent_label,
    vision_learner,
)
from fastai.vision.learner import model_meta
from IPython.display import Image as InlineImage
from IPython.display import display
from matplotlib.figure import Figure

from utils.files import (
    FieldguideError,
    make_folder,
    read_rows,
    remove_leftovers,
    require_writable,
    write_table,
    write_whole,
)
from utils.project import REJECTED_COLUMNS, Project

HISTORY_COLUMNS = ("epoch", "phase", "train_loss", "valid_loss", "accuracy", "lr", "seconds")
MIN_SCALE = 0.6  # a crop shows at least this share of the picture's area: the animal is often small in it
LEARNING_RATE = {"imagenet": 2e-3, "none": 1e-2}  # fastai's default; from scratch there is nothing to spoil
LAYER_RATIO = {"imagenet": 100, "none": 10}  # how much slower the first layers learn than the head; 100 is fastai's


def learning_rates(project: Project) -> dict[str, float]:
    """Return `fine_tune`'s base_lr and lr_mult: gentle on pretrained layers, bolder from scratch."""
    return {"base_lr": LEARNING_RATE[project.weights], "lr_mult": LAYER_RATIO[project.weights]}


def image_block(project: Project) -> DataBlock:
    """Return the DataBlock that 04 shows: the one way pictures become batches."""
    return DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(project.labels))),
        get_y=parent_label,
        item_tfms=RandomResizedCrop(project.size, min_scale=MIN_SCALE),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(*imagenet_stats)],
    )


def image_dataloaders(
    project: Project, block: DataBlock | None = None, *, sides: Mapping[str, str] | None = None
) -> DataLoaders:
    """
    Return fastai's DataLoaders with the train and valid sides that split.csv decided.

    Parameters
    ----------
    project : Project
    block : DataBlock, optional
        How a picture becomes a batch; by default `image_block`. Its splitter is replaced.
    sides : mapping of id to side, optional
        Other sides than split.csv's, for cross-validation.

    Raises
    ------
    FieldguideError
        If 03 has not run, a side is empty, or a picture has no side yet.
    """
    fingerprint = project.fingerprint()
    pictures = project.pictures()
    if sides is None:
        sides = project.sides()
        bridges = {
            row["id"] for row in read_rows(project.table("rejected"), REJECTED_COLUMNS) if row["stage"] == "split"
        }
        if sides and (new := sorted(set(pictures) - set(sides) - bridges)):
            raise FieldguideError(f"{len(new)} pictures have no side yet, {new[0]} among them. Run 03 first.")
    items = {side: [path for id, path in pictures.items() if sides.get(id) == side] for side in ("train", "valid")}
    for side, paths in items.items():
        if not paths:
            raise FieldguideError(f"No picture stands on the {side} side of {project.name!r}. Run 02 and 03 first.")
    block = block or image_block(project)
    # In place: a copied DataBlock goes on loading through the original, whose splitter is random.
    block.splitter = _Sides(len(items["train"]))
    with no_random(project.seed):
        dls = block.dataloaders(
            items["train"] + items["valid"],
            path=project.models,
            bs=min(project.batch_size, len(items["train"])),
            num_workers=worker_count(),
        )
    dls.fingerprint = fingerprint
    return dls


class _Sides:
    """Split items of which the first `count` train and the rest are valid."""

    def __init__(self, count: int):
        self.count = count

    def __call__(self, items) -> tuple[list[int], list[int]]:
        return list(range(self.count)), list(range(self.count, len(items)))


def worker_count() -> int:
    """Return how many processes may load pictures: one a core, none where notebooks can't start any."""
    if sys.platform != "linux":
        return 0  # macOS and Windows start workers anew, which costs more than it gives on sets of this size
    return min(8, len(os.sched_getaffinity(0)))


def architecture(project: Project) -> Callable:
    """Return the torchvision function of the project's `arch`, such as ``resnet18``."""
    if project.arch not in torchvision.models.list_models(module=torchvision.models):
        raise FieldguideError(
            f"arch = {project.arch!r} is no model of torchvision {torchvision.__version__}. Write one such as "
            "resnet18, resnet34 or resnet50."
        )
    return getattr(torchvision.models, project.arch)


def download_weights(project: Project) -> bool:
    """
    Make sure that the ImageNet weights are on this machine; return whether the project wants them.

    Raises
    ------
    FieldguideError
        If they cannot be downloaded, or the copy on disk is broken; the message says where to put them.
    """
    if project.weights == "none":
        return False
    architecture(project)  # refuses a name that torchvision does not know
    url = torchvision.models.get_model_weights(project.arch).DEFAULT.url  # the weights that fastai takes, too
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not cached.exists():
        make_folder(cached.parent)
        sha256_begins = cached.stem.rpartition("-")[2]
        try:
            torch.hub.download_url_to_file(url, str(cached), hash_prefix=sha256_begins)
        except (OSError, HTTPException, RuntimeError) as error:
            raise FieldguideError(
                f"The ImageNet weights of {project.arch} could not be downloaded ({error}). Connect to the internet "
                f"(or, if the disk is full, free some space) and run this again; or copy {url} to {cached}; or set "
                'weights = "none" in the project file to train from scratch.'
            ) from error
    try:
        torch.load(cached, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds on a broken file, and advises to trust it
        raise FieldguideError(f"The weights in {cached} are broken. Delete that file and run this again.") from error
    return True


def pretrained_body(project: Project) -> torch.nn.Module | None:
    """Return the network of `arch` with ImageNet weights and without its head, or None with ``weights = "none"``."""
    if not download_weights(project):
        return None
    arch = architecture(project)
    return create_body(arch(weights="DEFAULT"), cut=model_meta.get(arch, {}).get("cut"))


def make_learner(project: Project, dls: DataLoaders, *, pretrained: bool) -> Learner:
    """Return 04's vision_learner with the project's seed behind every weight that is drawn."""
    with no_random(project.seed):
        return vision_learner(dls, architecture(project), pretrained=pretrained, metrics=accuracy)


def fine_tune(
    learn: Learner,
    epochs: int,
    *,
    base_lr: float = 2e-3,
    lr_mult: float = 100,
    seed: int = 42,
    project: Project | None = None,
) -> pd.DataFrame:
    """
    Run fastai's ``learn.fine_tune`` and end with the best epoch of both its phases.

    One frozen epoch trains the head, then `epochs` train all layers. The epoch with the lowest validation loss,
    frozen one included, is what `learn` holds afterwards.

    Parameters
    ----------
    learn : Learner with the metric ``accuracy``
    epochs : int
        Epochs after the frozen one.
    base_lr, lr_mult : float
        As in fastai: the head's learning rate, and how many times slower the first layers learn.
    seed : int
        The same seed on the same machine gives the same batches, augmentations and figures.
    project : Project, optional
        Where to save learner.pth, history.csv and training.png. If the round saved there is current, it is
        loaded and nothing is trained.

    Returns
    -------
    DataFrame
        A row an epoch, with the columns of history.csv; losses are cross-entropies, accuracy a fraction.

    Raises
    ------
    FieldguideError
        If no epoch has a validation loss that is a number.
    """
    recipe = training_recipe(learn, epochs=epochs, base_lr=base_lr, lr_mult=lr_mult, seed=seed)
    if project is not None:
        checkpoint = read_checkpoint(project)
        if is_current(project, checkpoint) and checkpoint["recipe"] == recipe:
            return loaded_round(project, learn, checkpoint)
        require_writable(project.models)  # better said now than after an hour of training
        remove_leftovers(project.models)
    record = TrainingRecord()
    with no_random(seed):
        learn.dls.train.rng = random.Random(seed)  # its own generator was seeded when the loader was made
        try:
            learn.fine_tune(epochs, base_lr=base_lr, lr_mult=lr_mult, freeze_epochs=1, cbs=record)
        except FileNotFoundError as error:
            raise FieldguideError(
                f"A picture was moved or deleted while 04 was training ({str(error).splitlines()[-1]}). Run 04 again."
            ) from error
    if record.best is None:
        raise FieldguideError(
            f"No epoch ended with a validation loss that is a number (learning rate {base_lr}). Try a base_lr ten "
            "times smaller."
        )
    learn.model.load_state_dict(record.best)
    if project is not None:
        save_training(project, learn, record, recipe)
    return pd.DataFrame(record.rows)


def training_recipe(learn: Learner, **options) -> dict[str, str]:
    """Return as text what a training depends on beside the project: the options of `fine_tune` and the transforms."""
    loader = learn.dls.train
    steps = [*loader.after_item.fs, *loader.after_batch.fs]
    return {name: str(value) for name, value in options.items()} | {"transforms": "; ".join(map(str, steps))}


def loaded_round(project: Project, learn: Learner, checkpoint: dict) -> pd.DataFrame:
    """Load a round that stands into the learner, show its curve, and return its history."""
    load_weights(project, learn, checkpoint)
    display(InlineImage(training_curve(checkpoint["history"])))
    return pd.DataFrame(checkpoint["history"])


class TrainingRecord(Callback):
    """Keep a row an epoch and the best weights over every fit it is given to, and draw both as they come."""

    order = 70  # after fastai's Recorder has the epoch's figures

    def __init__(self):
        self.rows: list[dict] = []
        self.best: dict | None = None
        self.lowest = float("inf")
        self.shown = None

    def before_epoch(self):
        """Start the epoch's clock."""
        self.started = time.perf_counter()

    def after_epoch(self):
        """Note the epoch's figures, keep its weights if they are the best, and redraw the curve."""
        train_loss, valid_loss, share = (float(value) for value in self.recorder.values[-1][:3])
        row = {
            "epoch": len(self.rows),
            "phase": "frozen" if self.learn.opt.frozen_idx > 0 else "unfrozen",
            "train_loss": round(train_loss, 6),
            "valid_loss": round(valid_loss, 6),
            "accuracy": round(share, 6),
            "lr": float(f"{self.learn.opt.hypers[-1]['lr']:.4g}"),
            "seconds": round(time.perf_counter() - self.started, 1),
        }
        self.rows.append(row)
        if valid_loss < self.lowest:
            self.lowest = valid_loss
            self.best = {name: value.detach().cpu().clone() for name, value in self.learn.model.state_dict().items()}
        self.draw()

    def draw(self):
        """Show the curve, in place of the one before."""
        picture = InlineImage(training_curve(self.rows))
        if self.shown is None:
            self.shown = display(picture, display_id=True)
        else:
            self.shown.update(picture)


class NoValidation(Callback):
    """Skip the validation after each epoch: a fold is judged once, when it is trained."""

    order = 5  # before anything is set up for the pass

    def before_validate(self):
        """Leave before the first batch."""
        raise CancelValidException


def training_curve(rows: list[dict]) -> bytes:
    """Return losses and accuracy against epochs as a PNG; the best epoch is marked."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    losses, share = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    losses.plot(epochs, [row["train_loss"] for row in rows], "o-", label="train", color="#0072b2")
    losses.plot(epochs, [row["valid_loss"] for row in rows], "s--", label="valid", color="#d55e00")
    share.plot(epochs, [row["accuracy"] for row in rows], "s--", color="#d55e00", label="valid")
    valid_losses = np.array([row["valid_loss"] for row in rows])
    for axes, title in ((losses, "loss (lower is better)"), (share, "accuracy on the valid side")):
        if np.isfinite(valid_losses).any():
            best = int(np.nanargmin(valid_losses))
            axes.axvline(best, color="#999999", linewidth=1, linestyle=":", label="best epoch")
        axes.set(title=title, xlabel="epoch (0 is the frozen one)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    share.set_ylim(0, 1.02)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def save_training(project: Project, learn: Learner, record: TrainingRecord, recipe: Mapping[str, str]) -> None:
    """Write learner.pth, which makes the round complete, then the table and the picture of its history."""
    checkpoint = {
        "fingerprint": learn.dls.fingerprint,  # of the pictures it was trained on, not of what came in meanwhile
        "recipe": dict(recipe),
        "arch": project.arch,
        "labels": list(project.labels),
        "history": record.rows,
        "model": learn.model.state_dict(),
    }
    buffer = io.BytesIO()  # torch.save on a full disk would raise a RuntimeError of its own
    torch.save(checkpoint, buffer)
    write_whole(project.models / "learner.pth", buffer.getvalue())
    write_table(project.models / "history.csv", HISTORY_COLUMNS, record.rows)
    write_whole(project.models / "training.png", training_curve(record.rows))


def read_checkpoint(project: Project) -> dict | None:
    """Return learner.pth, or None where there is none; nothing in it can run code."""
    path = project.models / "learner.pth"
    if not path.exists():
        return None
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"fingerprint", "recipe", "arch", "labels", "history", "model"} - set(checkpoint)
    except Exception as error:  # torch.load raises many kinds on a broken file, and advises to trust it
        raise FieldguideError(f"{path} is broken. Delete it and run 04 again.") from error
    if missing:
        raise FieldguideError(f"{path} is none that 04 wrote: it lacks {min(missing)!r}. Delete it and run 04 again.")
    return checkpoint


def is_trained(project: Project) -> bool:
    """Return whether learner.pth was trained on today's labels, split and settings."""
    return is_current(project, read_checkpoint(project))


def is_current(project: Project, checkpoint: dict | None) -> bool:
    """Return whether a checkpoint, where there is one, belongs to today's labels, split and settings."""
    return checkpoint is not None and checkpoint["fingerprint"] == project.fingerprint()


def training_status(project: Project) -> str:
    """Return one sentence: is there a model, and is it the one that today's labels and settings would give?"""
    checkpoint = read_checkpoint(project)
    if checkpoint is None:
        return "No model yet: it is trained now."
    if is_current(project, checkpoint):
        return (
            "The model stands: labels, split and settings are those it was trained with. It is trained anew only if "
            "you change the cells below."
        )
    return "Labels, split or settings changed since the last training: a new round is trained now."


def load_weights(project: Project, learn: Learner, checkpoint: dict | None) -> Learner:
    """
    Load the weights of a checkpoint (see `read_checkpoint`) into a learner.

    Raises
    ------
    FieldguideError
        If there is none, or it belongs to another network or other labels.
    """
    if checkpoint is None:
        raise FieldguideError(f"There is no trained model in {project.models}. Run 04 first.")
    if (checkpoint["arch"], checkpoint["labels"]) != (project.arch, list(project.labels)):
        raise FieldguideError(
            f"{project.models / 'learner.pth'} is a {checkpoint['arch']} for {', '.join(checkpoint['labels'])}; the "
            f"project file asks for a {project.arch} for {', '.join(project.labels)}. Run 04 again."
        )
    learn.model.load_state_dict(checkpoint["model"])
    return learn


def load_trained(project: Project) -> Learner:
    """
    Return the learner that 04 trained, with the DataLoaders of today's sides.

    Raises
    ------
    FieldguideError
        If there is none, or labels, split or settings changed since.
    """
    learn = make_learner(project, image_dataloaders(project), pretrained=False)
    checkpoint = read_checkpoint(project)
    load_weights(project, learn, checkpoint)
    if not is_current(project, checkpoint):
        raise FieldguideError("Labels, split or settings changed since the model was trained. Run 04 again.")
    return learn


def train_fold(project: Project, sides: Mapping[str, str]) -> Learner:
    """Return a learner of the same recipe as 04's, trained on other sides; shows and saves nothing."""
    dls = image_dataloaders(project, sides=sides)
    learn = make_learner(project, dls, pretrained=download_weights(project))
    with learn.no_bar(), learn.no_logging(), no_random(project.seed):
        dls.train.rng = random.Random(project.seed)
        learn.fine_tune(project.epochs, **learning_rates(project), freeze_epochs=1, cbs=NoValidation())
    return learn
