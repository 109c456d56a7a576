"""
What one of several processes of a training does in the tests, which start it with torchrun.

    torchrun ... two_processes.py train OUT     the command line; OUT/<rank>.json: pictures of each epoch, files written
    torchrun ... two_processes.py step OUT      a plain network without random numbers; OUT/<rank>.pth: its weights
    torchrun ... two_processes.py differ OUT    the command line; the second process reads OUT/other.toml
"""

import json
import os
import sys
from pathlib import Path

import torch
from fastai.data.all import CategoryBlock, DataBlock, parent_label
from fastai.vision.all import SGD, ImageBlock, Learner, Resize, accuracy
from torch import nn

from utils.dataset import read_dataset
from utils.project import Project
from utils.train import loaders
from utils.train.__main__ import train_project
from utils.train.callbacks import training_callbacks
from utils.train.distributed import PartsDL
from utils.train.loaders import image_dataloaders, training_loss
from utils.train.processes import Group, process_group

CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def train(out: Path, arguments: list[str]) -> int:
    """Train by the command line; write down what this process loaded, epoch by epoch, and what it changed on disk."""
    project, loaded, changed = Project.load(), {"train": [], "valid": []}, []
    load, begin = PartsDL.do_item, PartsDL.get_idxs

    def get_idxs(self):
        loaded[("train", "valid")[self.dataset.split_idx]].append([])
        return begin(self)

    def do_item(self, n):
        loaded[("train", "valid")[self.dataset.split_idx]][-1].append(self.dataset.items[n].stem)
        return load(self, n)

    def heard(event: str, args: tuple) -> None:
        changes = event in ("os.rename", "os.remove", "os.mkdir") or (event == "open" and args[2] & CHANGES)
        if changes and str(args[0]).startswith((str(project.models), str(project.data))):
            changed.append(str(args[0]))

    PartsDL.get_idxs, PartsDL.do_item = get_idxs, do_item
    loaders.worker_count = lambda: 0
    sys.addaudithook(heard)
    status = train_project(arguments)
    told = {"loaded": loaded, "changed": changed}
    (out / f"{os.environ['RANK']}.json").write_text(json.dumps(told))
    return status


def plain_weights(group: Group, *, pieces: int = 1) -> list[torch.Tensor]:
    """Return a small network's weights after an epoch without random numbers, trained with the callbacks of a group."""
    dataset = read_dataset(Project.load())
    kinds = (ImageBlock, CategoryBlock(vocab=list(dataset.project.labels)))
    block = DataBlock(blocks=kinds, get_y=parent_label, item_tfms=Resize(32, method="squish"))
    dls = image_dataloaders(dataset, block)
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)]
    how = {"loss_func": training_loss(dataset), "opt_func": SGD, "metrics": accuracy, "train_bn": False}
    learn = Learner(dls, nn.Sequential(*layers), **how)
    cbs = training_callbacks(dataset, save=False, group=group, pieces=pieces)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=0.1, cbs=cbs)
    return [value.detach() for value in learn.model.parameters()]


def step(out: Path, arguments: list[str]) -> int:
    """Train the small network with other processes, and keep its weights."""
    loaders.worker_count = lambda: 0
    with process_group() as group:
        weights = plain_weights(group, pieces=int(arguments[0]))
        torch.save(weights, out / f"{group.rank}.pth")
    return 0


def differ(out: Path, arguments: list[str]) -> int:
    """Train by the command line; the second process reads another project file."""
    if os.environ["RANK"] == "1":
        os.environ["PROJECT"] = str(out / "other.toml")
    return train_project(arguments)


if __name__ == "__main__":
    sys.exit({"train": train, "step": step, "differ": differ}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3:]))
