"""
3_train, the training: what a detector needs around fastai's ``learn.fit``.

The network finds its loss itself, as the boxes go into it beside the pictures. `box_loss` adds its parts, `MeanIoU` and
`AP50` judge the validation set, and `BoxTraining` does the rest: the planned learning rates, the best epoch, and
backups to go on from. Random numbers of a step follow from the seed and the step alone, so that a training that was
killed ends with the same digits.
"""

import math
import time
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.core import Callback, CancelEpochException, CancelFitException
from fastai.learner import Metric
from fastai.torch_core import get_random_states, set_random_states, to_device
from fastai.vision.all import Learner
from IPython.display import Image as InlineImage
from IPython.display import display
from torch import Tensor, nn
from tqdm.auto import tqdm

from utils.boxes import Photos
from utils.detect.charting import best_epoch, box_chart, epoch_rank
from utils.detect.keeping import (
    BOX_STATE,
    asked_for,
    plan_id,
    read_detector,
    read_ongoing,
    save_detector,
    where_stopped,
    write_parts,
)
from utils.detect.loading import box_dataloaders, smaller_pictures
from utils.detect.matching import JudgedPhoto, average_precision, mean_overlap
from utils.detect.network import BoxDetector, build_detector
from utils.errors import FieldguideError
from utils.machine import keep_freed_memory
from utils.project import Project
from utils.storage import require_writable
from utils.train import batches_told_plainly, learning_rates, optimizer, plain_errors, planned_rates

EVERY = 200  # batches between two backups; each epoch ends with one, too
BODY_SLOWER = 10  # times that the pretrained layers learn more slowly than the pyramid and the head


def detector_rates(project: Project) -> dict[str, float]:
    """Return base_lr, lr_mult and freeze_epochs for `planned_rates`: as in 04, but bolder on pretrained layers."""
    pretrained = project.weights != "none"
    return learning_rates(project) | {"lr_mult": BODY_SLOWER if pretrained else 1}


def planned_for(project: Project, steps: int) -> np.ndarray:
    """Return the learning rates of a training, float (steps · epochs, 2): of the pretrained layers, and of the rest."""
    return planned_rates(project.schedule, project.epochs, steps=steps, **detector_rates(project))


def detector_layers(detector: BoxDetector) -> list[list[nn.Parameter]]:
    """Return a detector's weights in two groups, for ``Learner(splitter=...)``: the pretrained layers, and the rest."""
    backbone = detector.network.backbone
    body = next((part for name, part in backbone.named_children() if name in ("stages", "body")), backbone)
    own = {id(parameter) for parameter in body.parameters()}
    learning = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    return [[p for p in learning if id(p) in own], [p for p in learning if id(p) not in own]]


def box_loss(told, counts: Tensor) -> Tensor:
    """Return the sum of a detector's losses; in evaluation it tells them beside the boxes that it found."""
    return sum(parts_of(told).values())


def parts_of(told) -> Mapping[str, Tensor]:
    """Return the parts of the loss by name, from what a `BoxDetector` returns when it is given targets."""
    return told if isinstance(told, Mapping) else told[0]


class BoxMetric(Metric):
    """A figure of what a detector finds in the validation set."""

    def reset(self):
        self.photos: list[JudgedPhoto] = []

    def accumulate(self, learn):
        _, found = learn.pred
        for each, target in zip(found, learn.xb[1], strict=True):
            given = {f"true_{name}": target[name].cpu().numpy() for name in ("boxes", "labels", "ignored")}
            told = {f"found_{name}": each[name].cpu().numpy() for name in ("boxes", "labels", "scores")}
            left, top, right, bottom = target["picture"].tolist()  # nothing reaches out of the photo
            told["found_boxes"] = told["found_boxes"].clip((left, top) * 2, (right, bottom) * 2)
            self.photos.append(JudgedPhoto(**given, **told))


class MeanIoU(BoxMetric):
    """The mean overlap (intersection over union) of each thing with the box found for it; 0 where there is none."""

    name = "mean_iou"

    @property
    def value(self):
        return mean_overlap(self.photos)


class AP50(BoxMetric):
    """The area under the curve of precision and recall, a box being right if it overlaps by half: COCO's AP50."""

    name = "ap50"

    @property
    def value(self):
        return average_precision(self.photos, thresholds=[0.5])


class BoxTraining(Callback):
    """
    Train by a plan of learning rates, keep the best epoch, and save where the training stands.

    `plan` is that of `planned_for`; the first `freeze_epochs` leave the pretrained layers as they are. Each `every`
    batches, and after each epoch, all that the next batch depends on is written; a run that finds it goes on there. The
    best epoch is that of the highest AP50 on the validation set, of equals the one of the lowest loss: the loss rises
    with confidence long before boxes get worse. With ``save=False`` nothing is drawn, read or written; with
    ``best=False`` the last epoch counts.
    """

    order = 65  # after fastai's Recorder, which knows the epoch's figures

    def __init__(self, photos: Photos, plan: np.ndarray, *, every: int = EVERY, save: bool = True, best: bool = True):
        self.given, self.plan, self.every = photos, np.asarray(plan, float), every
        self.lasting, self.chooses, self.bar = save, best, None

    def __call__(self, event_name: str):
        """Run an event as fastai does, and fail with one sentence."""
        with self.told_plainly():
            return super().__call__(event_name)

    def told_plainly(self):
        """Return the context in which what a person can put right becomes a sentence."""
        stopped = "Stopped. Run this cell again, and the training goes on after the last backup."
        smaller = smaller_pictures(self.given.project)
        return plain_errors(self.dls, stopped=stopped, notebook="3_train", smaller=smaller)

    def before_fit(self):
        project, self.steps = self.given.project, len(self.dls.train)
        self.frozen_epochs = project.freeze_epochs
        if len(self.plan) != self.steps * self.n_epoch:
            epochs = len(self.plan) / self.steps
            raise FieldguideError(
                f"The plan has learning rates for {epochs:g} epochs, and learn.fit was asked for {self.n_epoch}. Give "
                "both the same number."
            )
        self.before, self.rows, self.best, self.judged = get_random_states(), [], None, None
        self.epoch_begun, self.batch, self.sums, self.pending, self.stands = 0, 0, {}, None, False
        self.asked, self.shown, self.note = asked_for(self.given), None, ""
        self.settings = self.used_settings()
        if self.lasting:
            self.look_back(project)

    def used_settings(self) -> dict:
        """Return the settings that this training really has."""
        loader, usual = self.dls.train, planned_for(self.given.project, self.steps)
        name = getattr(self.opt_func, "func", self.opt_func).__name__.lower()
        used = {"epochs": self.n_epoch - self.frozen_epochs, "batch_size": loader.bs, "optimizer": name}
        used |= {"augment": str(loader.dataset.changes), "plan": plan_id(self.plan), "usual_plan": plan_id(usual)}
        return self.asked | used

    def look_back(self, project: Project) -> None:
        """Take over what an earlier run left of the same training: all of it, or where it was stopped."""
        if self.dls.fingerprint != self.given.fingerprint:
            raise FieldguideError(
                "The DataLoaders are not those of these photos. Run 3_train again from its first cell."
            )
        require_writable(project.models)
        kept, ongoing = read_detector(project), read_ongoing(project)
        same = {"data": self.given.fingerprint, "settings": self.settings, "asked": self.asked}
        if kept and {name: kept[name] for name in same} == same:
            self.rows, self.stands, self.note = list(kept["rows"]), True, "Nothing was trained: this round stands."
            self.model.load_state_dict(kept["model"])
            raise CancelFitException
        if ongoing and {name: ongoing[name] for name in same} == same:
            self.pending, self.rows = ongoing, list(ongoing["rows"])
            self.best, self.judged = ongoing["best"], tuple(ongoing["judged"]) or None
            self.note = f"The training was stopped and went on {where_stopped(ongoing)}."

    def before_epoch(self):
        if self.epoch < len(self.rows):  # done by an earlier run
            told = self.rows[self.epoch]
            self.recorder.log += [told[name] for name in self.recorder.metric_names[1:-1]]
            raise CancelEpochException
        keep_freed_memory(True)
        self.learn.all_batches = partial(batches_told_plainly, self.learn, self.told_plainly)
        self.opt.freeze_to(1 if self.epoch < self.frozen_epochs else 0)
        self.epoch_begun, self.batch, self.sums = time.perf_counter(), 0, {"train": {}, "valid": {}}
        self.dls.train.epoch, self.dls.train.skipped = self.epoch, 0
        if self.pending:
            self.restore(self.pending)
            self.pending = None

    def before_batch(self):
        step = self.epoch * self.steps + self.batch
        if self.training:
            self.opt.set_hyper("lr", [0.0 if math.isnan(rate) else rate for rate in self.plan[step].tolist()])
            torch.manual_seed((self.given.project.seed << 20) + step)  # of places that a network draws to learn from

    def after_batch(self):
        parts, count = parts_of(self.pred), len(self.yb[0])
        self.add("train" if self.training else "valid", {name: value.item() for name, value in parts.items()}, count)
        if not self.training:
            return
        if not math.isfinite(self.loss.item()):
            lower = f"{self.given.project.base_lr / 10:.1g}"
            raise FieldguideError(
                f"The loss of epoch {self.epoch} is not a number. Set a lower rate in the project file, such as lr = "
                f"{lower}, and run 3_train again."
            )
        self.batch += 1
        if self.lasting and self.every and self.batch % self.every == 0 and self.batch < self.steps:
            write_parts(self.given.project.models / BOX_STATE, self.state(self.epoch, self.batch))

    def add(self, side: str, parts: Mapping[str, float], count: int) -> None:
        """Add the losses of a batch of `count` photos to those of the epoch."""
        sums = self.sums[side]
        for name, value in ({"loss": sum(parts.values())} | parts).items():
            total, photos = sums.get(name, (0.0, 0))
            sums[name] = (total + value * count, photos + count)

    def after_epoch(self):
        vars(self.learn).pop("all_batches", None)
        if self.epoch < len(self.rows):
            return
        figures = dict(zip(self.recorder.metric_names[1:], self.recorder.final_record, strict=False))
        means = {
            f"{side}_{name}": total / photos
            for side, sums in self.sums.items()
            for name, (total, photos) in sums.items()
        }
        row = {"epoch": self.epoch, "phase": "frozen" if self.epoch < self.frozen_epochs else "unfrozen"}
        row |= {name: means.pop(name) for name in ("train_loss", "valid_loss")}
        row |= {name: float(figures[name]) for name in (MeanIoU.name, AP50.name)}
        row |= {"lr": float(self.opt.hypers[-1]["lr"]), "seconds": time.perf_counter() - self.epoch_begun, **means}
        self.rows.append({name: round(value, 9) if isinstance(value, float) else value for name, value in row.items()})
        if self.chooses and (self.judged is None or epoch_rank(row) > self.judged):
            self.judged = epoch_rank(row)
            self.best = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        if self.bar is not None:
            self.bar.update()
        if self.lasting:
            write_parts(self.given.project.models / BOX_STATE, self.state(self.epoch + 1, 0))
            self.draw()
        patience, since = self.given.project.patience, len(self.rows) - 1 - best_epoch(self.rows)
        if 0 < patience <= since:
            raise CancelFitException

    def after_fit(self):
        keep_freed_memory(False)
        set_random_states(**self.before)
        if self.stands or not self.rows:
            self.draw()
            return
        if self.chooses:
            self.model.load_state_dict(self.best)
        if self.lasting:
            save_detector(self.given.project, self.shared() | {"model": self.model.state_dict()})
            self.draw()

    def shared(self) -> dict:
        """Return to which training a file belongs, and its history."""
        known = {"data": self.given.fingerprint, "asked": self.asked, "settings": self.settings}
        return known | {"labels": list(self.given.labels), "rows": list(self.rows)}

    def state(self, epoch: int, batch: int) -> dict:
        """Return all that the next batch depends on, as plain values and tensors."""
        return self.shared() | {
            **{"epoch": epoch, "batch": batch, "sums": self.sums["train"] if batch else {}},
            **{"model": self.model.state_dict(), "best": self.best, "judged": list(self.judged or ())},
            "optimizer": [dict(state) for state in self.opt.state_dict()["state"]],
        }

    def restore(self, kept: Mapping) -> None:
        """Put network and optimizer into the state in which an earlier run left them."""
        try:
            self.model.load_state_dict(kept["model"])
            for (parameter, *_), state in zip(self.opt.all_params(), kept["optimizer"], strict=True):
                self.opt.state[parameter] = to_device(dict(state), parameter.device)
        except (RuntimeError, ValueError, TypeError) as error:
            path = self.given.project.models / BOX_STATE
            raise FieldguideError(
                f"{path} is broken. Delete it and run 3_train again: it begins at epoch 0."
            ) from error
        self.batch = self.dls.train.skipped = kept["batch"]
        self.sums["train"] = {name: tuple(pair) for name, pair in kept["sums"].items()}

    def draw(self) -> None:
        """Show the curves, in place of the picture before."""
        if not (self.lasting and self.rows):
            return
        picture = InlineImage(box_chart(self.rows, title=self.note))
        if self.shown is None:
            self.shown = display(picture, display_id=True)
        else:
            self.shown.update(picture)


def detector_learner(photos: Photos) -> Learner:
    """Return the learner of 3_train if none of its cells is changed; it is not trained yet."""
    project, detector = photos.project, build_detector(photos.project, photos.labels)
    how = {"opt_func": optimizer(project), "splitter": detector_layers, "train_bn": False}
    how |= {"loss_func": box_loss, "metrics": [MeanIoU(), AP50()], "cbs": ChannelsLast()}
    return Learner(box_dataloaders(photos, detector), detector, **how)


def train_as_3(photos: Photos, *, best: bool = True, told: str = "") -> tuple[Learner, list[dict]]:
    """Train as 3_train does, and write nothing; return the learner and its history. See `BoxTraining` for `best`.

    `told` is written before a bar of progress; without it there is none.
    """
    learn, project = detector_learner(photos), photos.project
    training = BoxTraining(photos, planned_for(project, len(learn.dls.train)), save=False, best=best)
    epochs = project.freeze_epochs + project.epochs
    with learn.no_bar(), learn.no_logging(), tqdm(total=epochs, desc=told, unit="epoch", disable=not told) as bar:
        training.bar = bar
        learn.fit(epochs, cbs=training)
    return learn, training.rows
