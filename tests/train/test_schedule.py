"""04, the learning rate: what is drawn is what trains; lr_find is listened to only where its curve says something."""

import math
import re
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.callback.schedule import valley
from fastai.vision.all import Callback, DataLoaders, Learner
from torch.utils.data import TensorDataset

from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.train.finder import finder_steps, look_for_rate, suggestion
from utils.train.schedule import Schedule, planned_rates, whole_phase

RATES = np.geomspace(1e-7, 10, 22)


class Rates(Callback):
    """Note the rates of first layers and head at each step."""

    run_valid, order = False, 65  # after the scheduler, before the next batch

    def __init__(self):
        self.seen = []

    def after_batch(self):
        hypers = self.learn.opt.hypers
        self.seen.append((math.nan if self.opt.frozen_idx else hypers[0]["lr"], hypers[-1]["lr"]))


@pytest.fixture
def learn():
    """Return a learner of three groups of layers and five batches an epoch."""
    torch.manual_seed(0)
    data = TensorDataset(torch.rand(20, 4), torch.rand(20, 1))
    dls = DataLoaders.from_dsets(data, data, bs=4, num_workers=0, device="cpu")
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))
    learn = Learner(dls, model, loss_func=torch.nn.MSELoss(), splitter=lambda m: [list(p.parameters()) for p in m])
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.logger = lambda *_: None
    return learn


@pytest.mark.parametrize("schedule", ["one-cycle", "cyclic", "smooth"])
@pytest.mark.parametrize(("epochs", "frozen"), [(1, 1), (4, 0), (4, 1), (7, 3)])
def test_what_is_drawn_is_what_trains(learn, schedule, epochs, frozen):
    """The planned rates of head and first layers are those of every batch, fine_tune's own among them."""
    record = Rates()
    rates = {"base_lr": 1e-2, "lr_mult": 10}
    learn.fine_tune(epochs, freeze_epochs=frozen, **rates, cbs=[Schedule(schedule), record])
    plan = planned_rates(schedule, epochs, steps=5, freeze_epochs=frozen, **rates)
    assert plan.shape == (5 * (frozen + epochs), 2)
    np.testing.assert_allclose(np.array(record.seen), plan, rtol=1e-5)


def test_cyclic_halves_its_peak_from_cycle_to_cycle():
    """Twelve epochs are four cycles, with peaks of 1, 1/2, 1/4 and 1/8, each followed by a fall to almost nothing."""
    rate = whole_phase("cyclic", 12, 1.0)
    curve = np.array([rate(step / 1200) for step in range(1200)])
    assert curve.reshape(4, 300).max(1).tolist() == pytest.approx([1, 0.5, 0.25, 0.125], rel=1e-4)
    assert curve.reshape(4, 300)[:, -1].max() < 1e-3


def test_smooth_only_falls():
    """From its peak at the first step down to the last."""
    rate = whole_phase("smooth", 3, 1.0)
    curve = [rate(step / 100) for step in range(101)]
    assert curve[0] == 1 and curve == sorted(curve, reverse=True) and curve[-1] == pytest.approx(1e-5)


def test_an_unknown_schedule_is_named():
    """The sentence lists the known ones."""
    with pytest.raises(FieldguideError, match=r"'zigzag' is unknown\. Write one of one-cycle, cyclic, smooth"):
        whole_phase("zigzag", 3, 1.0)


@pytest.mark.parametrize(("batches", "steps"), [(1, 30), (16, 32), (20, 40), (500, 100)])
def test_the_finder_takes_fewer_steps_for_small_sets(batches, steps):
    """Two epochs' worth, at least 30, at most fastai's 100."""
    assert finder_steps(SimpleNamespace(dls=SimpleNamespace(train=range(batches)))) == steps


def falling_then_rising():
    """Return a useful curve: flat, then a fall around 1e-3, then a rise."""
    position = np.log10(RATES)
    return 1.0 - 0.5 / (1 + np.exp(-3 * (position + 3))) + np.clip(position + 1, 0, None) ** 2


def test_a_useful_curve_gives_fastais_suggestion():
    """The suggestion is valley's."""
    losses = falling_then_rising()
    assert suggestion(torch.tensor(RATES), torch.tensor(losses)) == (valley(list(RATES), list(losses), 30)[0], "")


CURVES = {
    "only rose": np.linspace(1, 4, 22),
    "flat": 1 + 0.01 * np.sin(np.arange(22)),
    "still fell": np.linspace(4, 1, 22),
    "soon not a number": falling_then_rising()[:6],
    "outside": np.array([2.0, 1.7, 1.4, 1.1] + [3.0] * 18),
}


@pytest.mark.parametrize("says", CURVES)
def test_a_curve_that_says_nothing_is_ignored_with_the_reason(make_project, says):
    """The suggestion is not a number; the sentence says why, and which rate is used instead."""
    losses = CURVES[says]
    rate, why = suggestion(torch.tensor(RATES[: len(losses)]), torch.tensor(losses))
    assert math.isnan(rate) and says in why
    sentence = sentence_of(make_project, losses)
    assert "is ignored: " in sentence and says in sentence and "The training below uses 1.0e-02." in sentence


def test_a_suggestion_stands_beside_the_rate_that_is_used(make_project):
    """Both figures, and how to take the suggestion: as a number, which holds when lr_find is left out next time."""
    rate, _ = suggestion(RATES, falling_then_rising())
    sentence = sentence_of(make_project, falling_then_rising())
    assert "The training below uses 1.0e-02." in sentence
    assert float(re.search(r"set lr = (\S+)\.$", sentence)[1]) == pytest.approx(rate, rel=0.05)


def sentence_of(make_project, losses):
    """Return what is said of a curve, for a training of many steps."""

    def lr_find(num_it, suggest_funcs):
        rate, (at, loss) = suggest_funcs(torch.tensor(RATES[: len(losses)]), torch.tensor(losses), num_it)
        assert math.isnan(rate) or (rate == at and loss == losses[np.argmin(abs(RATES - rate))])

    learn = SimpleNamespace(dls=SimpleNamespace(train=range(100)), lr_find=lr_find)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.train.finder.undisturbed", lambda learn, seed: nullcontext())
        return look_for_rate(read_dataset(make_project()), learn)
