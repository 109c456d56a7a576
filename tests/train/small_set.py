"""What the tests of 04 share: a dozen drawn pictures per label with a split, a learner as 04 makes it, a training."""

import pandas as pd
import pytest
import torch
from conftest import draw_picture, picture_bytes
from fastcore.basics import noop

from utils.dataset import read_dataset
from utils.storage import content_id, write_whole
from utils.tables import SPLIT_COLUMNS, write_table
from utils.train import image_dataloaders, loaders, make_learner, speed_callbacks, training_callbacks, training_loss
from utils.train.callbacks import LiveCurve

SIDES = ["train"] * 8 + ["valid"] * 3 + ["test"]


def fill(project):
    """Draw twelve pictures per label into images/, and split them: eight train, three validate, one is the test set."""
    rows = []
    for n, label in enumerate(project.labels):
        for k, side in enumerate(SIDES):
            data = picture_bytes(draw_picture(1000 * n + k, colour=("tomato", "navy")[n]))
            write_whole(project.images / label / f"{content_id(data)}.jpg", data)
            rows.append({"id": content_id(data), "group": content_id(data), "side": side})
    write_table(project.table("split"), SPLIT_COLUMNS, rows)
    return read_dataset(project)


@pytest.fixture
def ready(make_project):
    """Return the data set of a small project."""
    return fill(make_project())


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """Load in this process, for a dozen small pictures need no others, and draw no curves."""
    monkeypatch.setattr(loaders, "worker_count", lambda: 0)
    monkeypatch.setattr(LiveCurve, "draw", lambda _: None)


def quick_learner(dataset, block=None):
    """Return a learner made as in 04, that prints nothing."""
    dls = image_dataloaders(dataset, block)
    how = {"cbs": speed_callbacks(dls), "loss_func": training_loss(dataset)}
    learn = make_learner(dataset.project, dls, pretrained=False, **how)
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.logger = noop
    return learn


def train(dataset, epochs=1, *, learn=None, save=True, base_lr=2e-3, freeze_epochs=1, **options):
    """Train as 04 does, on a learner of its own or on one that is given; return the history."""
    cbs = training_callbacks(dataset, save=save)
    learn = learn or quick_learner(dataset)
    learn.fine_tune(epochs, base_lr=base_lr, freeze_epochs=freeze_epochs, cbs=cbs, **options)
    rows = next(cb.rows for cb in cbs if type(cb).__name__ == "History")
    assert not save or learn.record.history == rows
    return pd.DataFrame(rows)


def figures(history):
    """Return a history without the seconds, which differ from run to run."""
    return history.drop(columns="seconds")


def weights(learn):
    """Return all weights as one list of numbers."""
    return torch.cat([value.detach().flatten().float() for value in learn.model.state_dict().values()])


def stop_at(learn, batch):
    """Stop at a training batch, counted over both phases, as Ctrl-C does; return what takes this back."""
    left = [batch]

    def forward(model, _):
        left[0] -= model.training
        if left[0] < 0:
            raise KeyboardInterrupt

    return learn.model.register_forward_pre_hook(forward)


def killed(dataset, batch, epochs=1, **options):
    """Train until a batch and stop there, four batches are an epoch; return what was said."""
    learn = quick_learner(dataset)
    stop_at(learn, batch)
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(dataset, epochs, learn=learn, **options)
    return str(stopped.value)
