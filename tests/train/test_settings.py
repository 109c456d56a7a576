"""04, the settings of how it learns: optimizer, rate and frozen epochs are those that the project file asks for."""

import math

import pandas as pd
import pytest
import small_set
import torch
from fastai.vision.all import SGD, Callback
from small_set import figures, fill, killed, quick_learner, stop_at, train, weights

from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.train import learning_rates, read_checkpoint, training_callbacks, training_status
from utils.train.record import asked_settings

ready, plain = small_set.ready, small_set.plain
STANDS = "The model stands: pictures, split and settings are those that it was trained with."


def as_asked(dataset, **options):
    """Train as the cells of 04 do, with all that the project file says; return learner and history."""
    project, learn = dataset.project, quick_learner(dataset)
    return learn, train(dataset, project.epochs, learn=learn, **learning_rates(project), **options)


RATE = {"lr": 0.03, "schedule": "smooth"}


@pytest.mark.parametrize(
    "settings", [{"optimizer": "sgd"}, {"lr": 0.004}, {"freeze_epochs": 0}, {"freeze_epochs": 2}, RATE], ids=str
)
def test_what_is_asked_is_what_trains_and_stands(make_project, settings):
    """The record has each setting as the project file has it, nothing is told as changed, and the round stands."""
    dataset = fill(make_project(epochs=2, **settings))
    learn, history = as_asked(dataset)
    told = dict(learn.record.settings)
    assert learn.record.changed == "" and training_status(dataset) == STANDS
    assert {name: told[name] for name in asked_settings(dataset)} == asked_settings(dataset)
    assert list(history.phase) == ["frozen"] * dataset.project.freeze_epochs + ["unfrozen"] * 2
    assert list(history.epoch) == list(range(len(history)))
    stamp = (dataset.project.models / "learner.pth").stat().st_mtime_ns
    as_asked(dataset)
    assert (dataset.project.models / "learner.pth").stat().st_mtime_ns == stamp


def test_the_rate_of_the_project_file_is_the_highest_of_the_head(make_project):
    """The frozen epoch climbs to lr, the others to half of it; 0 leaves the choice to 04."""
    dataset = fill(make_project(lr=0.004))
    as_asked(dataset)
    rates = read_checkpoint(dataset.project)["rates"]
    assert rates[:4, 1].max() <= 0.004 and rates[4:, 1].max() == pytest.approx(0.002, rel=0.1)
    settings = read_checkpoint(dataset.project)["settings"]
    assert (settings["base_lr"], settings["lr"]) == (0.004, 0.002)
    assert learning_rates(make_project(lr=0))["base_lr"] == 1e-2  # of weights = "none"


def test_sgd_has_the_momentum_that_the_schedule_moves(make_project):
    """Its steps are those of averaged gradients, and the record tells it from plain SGD."""
    dataset = fill(make_project(optimizer="sgd"))
    seen = []

    class Momentum(Callback):
        def after_batch(self):
            if self.training:
                parameter = next(p for p, *_ in self.opt.all_params() if p.grad is not None and p.requires_grad)
                seen.append((self.opt.hypers[-1]["mom"], "grad_avg" in self.opt.state[parameter]))

    learn = quick_learner(dataset)
    learn.add_cb(Momentum())
    train(dataset, learn=learn, save=False)
    assert min(mom for mom, _ in seen) < 0.9 < 0.94 < max(mom for mom, _ in seen) and seen[-1][1]
    assert asked_settings(dataset)["optimizer"] == "SGD(wd=0.01)"
    plain = quick_learner(dataset)
    plain.opt_func = SGD
    train(dataset, learn=plain)
    assert "optimizer" in plain.record.changed and plain.record.settings["optimizer"].startswith("SGD without momentum")


@pytest.mark.parametrize("settings", [{"optimizer": "sgd"}, {"freeze_epochs": 0}], ids=str)
@pytest.mark.parametrize("batch", [2, 6, 9])
def test_a_stopped_training_of_other_settings_goes_on(make_project, settings, batch):
    """Killed in any epoch and run again, it ends with the figures of one that never stopped."""
    dataset = fill(make_project(epochs=3, **settings))
    _, expected = as_asked(dataset, save=False)
    killed(dataset, batch, 3, **learning_rates(dataset.project))
    pd.testing.assert_frame_equal(figures(as_asked(dataset)[1]), figures(expected))


def test_where_a_training_goes_on_is_counted_from_its_own_epochs(make_project):
    """With three frozen epochs and two of all layers, the last one is 4."""
    dataset = fill(make_project(epochs=2, freeze_epochs=3))
    killed(dataset, 9, 2, **learning_rates(dataset.project))
    assert training_status(dataset).endswith("it goes on from epoch 2 of 4.")


def test_no_frozen_epochs_are_no_fit_of_their_own(make_project):
    """fastai's fine_tune begins a fit of no epochs there, with an empty table: it ends before anything sees it."""
    learn, begun = quick_learner(fill(make_project())), []

    class Begun(Callback):
        order = 60

        def before_fit(self):
            begun.append(self.n_epoch)

    learn.add_cb(Begun())
    learn.fine_tune(2, freeze_epochs=0, cbs=training_callbacks(read_dataset(make_project()), save=False))
    assert begun == [2]


def test_a_cell_that_freezes_otherwise_shows(make_project):
    """A frozen epoch where the file asks for none is told, and none where it asks for one."""
    none = fill(make_project(freeze_epochs=0))
    learn = quick_learner(none)
    train(none, learn=learn, **learning_rates(none.project) | {"freeze_epochs": 1})
    assert learn.record.changed == "Cells of 04 were changed: it trained with freeze_epochs = 1 instead of 0."
    one = read_dataset(make_project())
    learn = quick_learner(one)
    train(one, learn=learn, **learning_rates(one.project) | {"freeze_epochs": 0})
    assert learn.record.changed == "Cells of 04 were changed: it trained with no frozen phase."


def test_another_optimizer_or_rate_makes_the_model_stale(ready, make_project):
    """The model is judged by the project file as it is now; spelt-out defaults change nothing."""
    as_asked(ready)
    for other in ({"optimizer": "sgd"}, {"lr": 0.5}, {"freeze_epochs": 2}, {"freeze_epochs": 0}):
        assert training_status(read_dataset(make_project(**other))).startswith("Pictures, labels, split or settings")
    same = read_dataset(make_project(optimizer="adam", lr=0, freeze_epochs=1))
    assert training_status(same) == STANDS


def test_a_rate_that_is_far_too_high_names_optimizer_and_rate(make_project):
    """A real divergence, not a played one: one sentence, and no round where no epoch was any good."""
    dataset = fill(make_project(optimizer="sgd", lr=1.0, epochs=3))
    learn = quick_learner(dataset)
    with pytest.raises(FieldguideError, match=r"\(learning rate .*, optimizer sgd\)\. .*such as lr = 0\.1, and run 04"):
        train(dataset, 3, learn=learn, **learning_rates(dataset.project))


def test_validation_losses_that_are_no_numbers_are_passed_over(ready, capsys):
    """An epoch whose validation loss is not a number is never the best, and does not end a training by patience."""

    class Blind(Callback):
        order = 5

        def after_pred(self):
            if not self.training and self.opt.frozen_idx > 0:
                self.learn.pred = self.pred * math.nan

    whole, stopped, again = (quick_learner(ready) for _ in range(3))
    for learn in (whole, stopped, again):
        learn.add_cb(Blind())
    expected = train(ready, 3, learn=whole, save=False, base_lr=5e-4)
    assert math.isnan(expected.valid_loss[0]) and expected.valid_loss[1:].idxmin() > 1
    stop_at(stopped, 10)
    with pytest.raises(KeyboardInterrupt):
        train(ready, 3, learn=stopped, base_lr=5e-4)
    pd.testing.assert_frame_equal(figures(train(ready, 3, learn=again, base_lr=5e-4)), figures(expected))
    assert "goes on from epoch 2 of 3" in capsys.readouterr().out
    assert torch.equal(weights(again), weights(whole))
