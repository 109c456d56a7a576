"""04: the best epoch stays; the seed holds; a stop loses little; what goes wrong is one sentence."""

import pickle
import random
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import small_set
import torch
from fastai.vision.all import Callback, CancelBatchException, no_random
from small_set import figures, fill, killed, quick_learner, stop_at, train, weights

from utils.dataset import read_dataset
from utils.errors import FieldguideError, WriteError
from utils.project import REPOSITORY
from utils.tables import HISTORY_COLUMNS, read_rows
from utils.train import device, loaders
from utils.train import plain as plain_module
from utils.train.callbacks import training_callbacks
from utils.train.checkpoint import read_checkpoint, training_status
from utils.train.device import device_sentence, speed_callbacks
from utils.train.finder import look_for_rate
from utils.train.learners import load_trained
from utils.train.loaders import image_dataloaders
from utils.train.plain import TrainingStopped

ready, plain = small_set.ready, small_set.plain
STANDS = "The model stands: pictures, split and settings are those that it was trained with."
SPOILT = [lambda data: b"", lambda data: b"<html>", lambda data: data[: len(data) // 2]]


def test_two_runs_give_the_same_figures_to_the_last_digit(ready):
    """Same seed, same machine: same batches, same weights, same losses."""
    runs = []
    for _ in range(2):
        torch.rand(3)  # whatever ran before must not matter
        learn = quick_learner(ready)
        runs.append((figures(train(ready, 2, learn=learn, save=False)), weights(learn)))
    pd.testing.assert_frame_equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])


def test_the_default_is_fastais_fine_tune_to_the_last_digit(ready):
    """The same seed given to plain fastai leads to the same weights at the end of the last epoch."""
    ours, theirs = quick_learner(ready), quick_learner(ready)
    seen = {}

    class Last(Callback):
        def after_fit(self):
            seen["last"] = weights(self.learn)

    ours.add_cb(Last())
    state = torch.get_rng_state()
    train(ready, 2, learn=ours, save=False)
    assert torch.equal(torch.get_rng_state(), state)
    with no_random(42):
        theirs.dls.train.rng = random.Random(42)
        theirs.fine_tune(2)
    assert torch.equal(seen["last"], weights(theirs))


def test_the_best_epoch_of_both_phases_is_kept(ready):
    """When the frozen epoch was the best one, its weights are what the learner ends with."""
    learn = quick_learner(ready)
    seen = []

    class Spoil(Callback):
        """After the frozen epoch, make every other epoch worse by throwing the head away."""

        order = 5

        def after_fit(self):
            if not seen:
                seen.append({k: v.clone() for k, v in self.learn.model.state_dict().items()})

        def before_batch(self):
            if seen and self.training:
                raise CancelBatchException

        def before_validate(self):
            if seen:
                for parameter in self.learn.model[1].parameters():
                    parameter.data.mul_(50)

    learn.add_cb(Spoil())
    history = train(ready, 2, learn=learn, save=False)
    assert list(history.phase) == ["frozen", "unfrozen", "unfrozen"]
    assert history.valid_loss.idxmin() == 0
    kept = learn.model.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in seen[0].items())


def test_fastais_table_our_table_and_our_chart_count_alike(ready, monkeypatch):
    """One numbering over both phases, also where old epochs pass: fastai's rows show our epochs and losses."""
    drawn = []
    monkeypatch.undo()
    monkeypatch.setattr(loaders, "worker_count", lambda: 0)
    monkeypatch.setattr(
        "utils.train.callbacks.training_curve", lambda rows, rates, title: drawn.append((len(rows), len(rates))) or b""
    )
    monkeypatch.setattr("utils.train.callbacks.display", lambda *_, **__: SimpleNamespace(update=lambda _: None))
    for _ in range(2):
        printed, learn = [], quick_learner(ready)
        learn.logger = printed.append
        history = train(ready, 2, learn=learn)
        assert [row[0] for row in printed] == list(history.epoch) == [0, 1, 2]
        assert [round(row[2], 6) for row in printed] == list(history.valid_loss)
    assert drawn == [(1, 4), (2, 8), (3, 12), (3, 12)]  # rows and batches; the last one is the round that stands


def test_the_curve_is_drawn_anew_in_its_own_place(ready, monkeypatch):
    """One picture appears, and is replaced after each further epoch; at the end it lies in training.png."""
    monkeypatch.undo()
    shown = []
    handle = SimpleNamespace(update=lambda picture: shown.append("update"))
    monkeypatch.setattr("utils.train.callbacks.display", lambda picture, display_id: shown.append("display") or handle)
    monkeypatch.setattr(loaders, "worker_count", lambda: 0)
    train(ready, 2)
    assert shown == ["display", "update", "update"]
    assert (ready.project.models / "training.png").read_bytes().startswith(b"\x89PNG")


def test_a_diverged_training_says_to_lower_the_rate(ready):
    """With no loss that is a number nothing is kept, and nothing is saved."""
    learn = quick_learner(ready)
    for parameter in learn.model.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(FieldguideError, match=r"^The loss of epoch 0 is not a number \(.* Set a lower rate"):
        train(ready, learn=learn)
    assert not (ready.project.models / "learner.pth").exists()


@pytest.mark.parametrize(("value", "told"), [("nan", "not a number"), ("inf", "infinite")])
def test_a_loss_that_becomes_no_number_stops_and_keeps_the_best_epoch(ready, value, told):
    """The sentence names epoch, rate, optimizer and advice; the best epoch before is the round, and stands."""
    learn = quick_learner(ready)

    class Poison(Callback):
        order = 5

        def after_loss(self):
            if self.training and self.opt.frozen_idx == 0 and self.epoch == 1:
                self.learn.loss = self.loss.detach() * 0 + float(value)

    learn.add_cb(Poison())
    with pytest.raises(FieldguideError, match=rf"^The loss of epoch 2 is {told} \(") as stopped:
        train(ready, 3, learn=learn)
    said = r"\(learning rate \d\.\de-0\d, optimizer adam\)\. Epoch [01], the best until then, is kept\. Set a lower "
    assert re.search(said + r"rate in the project file, such as lr = 0\.0002, and run 04 again\.$", str(stopped.value))
    kept = read_checkpoint(ready.project)
    assert len(kept["rows"]) == 2 and not (ready.project.models / "resume.pth").exists()
    assert all(torch.equal(kept["model"][name], value) for name, value in learn.model.state_dict().items())
    assert torch.isfinite(weights(learn)).all()


def test_the_cell_run_again_begins_where_the_learner_did(ready):
    """After a rate that was too high, or Ctrl-C in the first epoch, the same learner trains as a new one would."""
    expected = train(ready, save=False)
    learn = quick_learner(ready)
    with pytest.raises(FieldguideError, match="is not a number"):
        train(ready, learn=learn, base_lr=1e30)
    stop = stop_at(learn, 2)
    with pytest.raises(TrainingStopped, match=r"^Stopped\. No epoch was done yet: run this cell again"):
        train(ready, learn=learn)
    stop.remove()
    pd.testing.assert_frame_equal(figures(train(ready, learn=learn)), figures(expected))


def test_callbacks_that_were_interrupted_can_be_given_again(ready):
    """A person who keeps them in a cell of their own gets the training of new ones."""
    expected = train(ready, save=False)
    learn, cbs = quick_learner(ready), training_callbacks(ready)
    stop = stop_at(learn, 6)
    with pytest.raises(TrainingStopped):
        learn.fine_tune(1, cbs=cbs)
    stop.remove()
    for _ in range(2):
        learn.fine_tune(1, cbs=cbs)
        pd.testing.assert_frame_equal(figures(pd.DataFrame(learn.record.history)), figures(expected))


def test_a_current_round_stands_and_a_relabelled_one_does_not(ready, capsys):
    """Run again, nothing is trained; after a picture moved, the model is stale and is refused."""
    project, learn = ready.project, quick_learner(ready)
    history = train(ready, learn=learn, base_lr=1e-2, lr_mult=10)
    assert training_status(ready) == STANDS
    stamp = (project.models / "learner.pth").stat().st_mtime_ns
    capsys.readouterr()
    again = train(ready, base_lr=1e-2, lr_mult=10)
    assert capsys.readouterr().out == "Nothing was trained: this round stands.\n"
    assert (project.models / "learner.pth").stat().st_mtime_ns == stamp
    pd.testing.assert_frame_equal(again, history)
    assert torch.equal(load_trained(ready).model[1][-1].weight, learn.model[1][-1].weight)
    assert [row["epoch"] for row in read_rows(project.models / "history.csv", HISTORY_COLUMNS)] == ["0", "1"]

    path = ready.paths[0]
    path.rename(project.images / ("dog" if path.parent.name == "cat" else "cat") / path.name)
    moved = read_dataset(project)
    assert training_status(moved).startswith("Pictures, labels, split or settings changed")
    with pytest.raises(FieldguideError, match="Run 04 again"):
        load_trained(moved)


def test_pictures_that_come_while_it_trains_make_it_stale(ready):
    """The model is stamped with what it was trained on, not with what lies there when it is done."""
    learn = quick_learner(ready)
    ready.paths[0].with_name(f"{'0' * 16}.jpg").write_bytes(ready.paths[0].read_bytes())
    train(ready, learn=learn)
    now = read_dataset(ready.project)
    assert training_status(now).startswith("Pictures, labels, split or settings changed")
    with pytest.raises(FieldguideError, match=r"^The DataLoaders are not those of this data set"):
        train(now, learn=learn)


def test_a_picture_moved_while_it_trains_is_named(ready):
    """The loaders look for it where it was: one sentence instead of a traceback from deep inside fastai."""
    learn = quick_learner(ready)
    path = learn.dls.train_ds.items[0]
    path.unlink()
    with pytest.raises(FieldguideError, match=rf"moved or deleted while 04 was training, .*{path.name}.*Run 04 again"):
        train(ready, learn=learn)


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_that_cannot_be_read_are_named_and_counted(ready, monkeypatch, spoil, workers):
    """Empty, foreign or cut short since 02: one sentence with the file and what to do, also out of another process."""
    monkeypatch.setattr(loaders, "worker_count", lambda: workers)
    learn = quick_learner(ready)
    for path in learn.dls.train_ds.items[3:5]:
        path.write_bytes(spoil(path.read_bytes()))
    name = learn.dls.train_ds.items[3].name
    with pytest.raises(FieldguideError, match=rf"^2 pictures cannot be read, .*{name} among them.*run 04 again"):
        train(ready, learn=learn)
    assert "all_batches" not in vars(learn)


def test_a_folder_that_cannot_be_written_is_said_before_training(ready):
    """Nobody should wait for an hour to be told that nothing can be saved."""
    ready.project.models.parent.mkdir(parents=True)
    ready.project.models.write_text("a file where the folder should be")
    learn = quick_learner(ready)
    stop_at(learn, 0)
    with pytest.raises(FieldguideError, match=r"^Cannot write"):
        train(ready, learn=learn)


ALL_KEYS = {
    "epochs": 3,
    "augment": {"max_rotate": 20.0, "greyscale": 0.5, "denoise": 0.5, "dehaze": 0.5},
    "class_weights": True,
    "seed": 7,
}


@pytest.mark.parametrize(
    ("schedule", "batch", "epoch"),
    [("one-cycle", 10, 2), ("one-cycle", 5, 1), ("one-cycle", 13, 3), ("cyclic", 10, 2), ("smooth", 10, 2)],
)
def test_a_killed_training_goes_on_to_the_same_figures(ready, make_project, schedule, batch, epoch):
    """Stopped in an epoch and run again, history and weights equal an undisturbed training's to the last digit."""
    dataset = read_dataset(make_project(schedule=schedule, **ALL_KEYS))
    undisturbed_learn = quick_learner(dataset)
    expected = train(dataset, 3, learn=undisturbed_learn, save=False)

    assert f"goes on after epoch {epoch - 1}, the last that was done" in killed(dataset, batch, 3)
    assert f"it goes on from epoch {epoch} of 3" in training_status(dataset)
    torch.rand(5), np.random.rand(5)  # another process has other random numbers
    learn = quick_learner(dataset)
    pd.testing.assert_frame_equal(figures(train(dataset, 3, learn=learn)), figures(expected))
    assert torch.equal(weights(learn), weights(undisturbed_learn))
    files = sorted(path.name for path in dataset.project.models.iterdir())
    assert files == ["history.csv", "learner.pth", "training.png"]


def test_a_training_stopped_among_several_frozen_epochs_goes_on(ready):
    """Also there the optimizer is in the middle of something."""
    expected = train(ready, save=False, freeze_epochs=3)
    killed(ready, 9, freeze_epochs=3)
    pd.testing.assert_frame_equal(figures(train(ready, freeze_epochs=3)), figures(expected))


RUN = """
import json, sys
from utils.dataset import read_dataset
from utils.project import Project
from utils.train import loaders
loaders.worker_count = lambda: 0
from small_set import train
project = Project.model_validate(json.loads(sys.argv[1]))
train(read_dataset(project), project.epochs)
"""


def test_a_process_that_is_killed_loses_one_epoch_at_most(ready, make_project):
    """Killed from outside while it trains, and run again, it ends with the figures of an undisturbed training."""
    project = make_project(epochs=30)
    dataset = read_dataset(project)
    tests = REPOSITORY / "tests"
    paths = f"import sys; sys.path[:0] = {[str(REPOSITORY), str(tests), str(tests / 'train')]!r}\n"
    process = subprocess.Popen([sys.executable, "-c", paths + RUN, project.model_dump_json()], stderr=subprocess.PIPE)
    state = project.models / "resume.pth"
    while not state.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() != 0, "it was over before it was killed"
    process.stderr.close()
    kept = torch.load(state, weights_only=True)
    assert 1 <= len(kept["rows"]) <= 30

    histories = []
    for save, batches in ((True, 4), (False, 4 * (len(kept["rows"]) + 1))):  # the next epoch, by either way
        learn, cbs = quick_learner(dataset), training_callbacks(dataset, save=save)
        stop_at(learn, batches)
        with pytest.raises(KeyboardInterrupt):
            learn.fine_tune(30, cbs=cbs)
        rows = next(cb.rows for cb in cbs if type(cb).__name__ == "History")
        histories.append(figures(pd.DataFrame(rows)))
    assert len(histories[0]) == len(kept["rows"]) + 1
    pd.testing.assert_frame_equal(*histories)


def test_other_settings_begin_anew(ready):
    """What was stopped belongs to its own rate, epochs and pictures; with another rate, nothing of it is used."""
    killed(ready, 5)
    expected = train(ready, base_lr=1e-3, save=False)
    pd.testing.assert_frame_equal(figures(train(ready, base_lr=1e-3)), figures(expected))
    assert not (ready.project.models / "resume.pth").exists()


@pytest.mark.parametrize("before", [train, lambda dataset: killed(dataset, 6)])
def test_another_number_of_epochs_takes_only_the_frozen_phase_over(ready, before):
    """That phase is the same to the last digit; what follows it is trained, and not twice."""
    before(ready)
    expected = train(ready, 2, save=False)
    learn = quick_learner(ready)
    stop_at(learn, 8)  # two epochs train, and not the frozen one
    pd.testing.assert_frame_equal(figures(train(ready, 2, learn=learn)), figures(expected))


class Spy:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def cut_short(path, kept):
    path.write_bytes(path.read_bytes()[:1000])


def with_code(path, kept):
    torch.save(kept | {"rows": Spy(path.with_name("mark"))}, path, pickle_module=pickle)


def of_another_network(path, kept):
    torch.save(kept | {"model": {"0.weight": torch.zeros(3)}}, path)


def without_rows(path, kept):
    torch.save(kept | {"rows": [{"epoch": 0}]}, path)


def with_another_optimizer(path, kept):
    torch.save(kept | {"optimizer": kept["optimizer"][:3]}, path)


def with_no_random_state(path, kept):
    torch.save(kept | {"random": {}}, path)


@pytest.mark.parametrize(
    "spoil", [cut_short, with_code, of_another_network, without_rows, with_another_optimizer, with_no_random_state]
)
def test_a_broken_state_is_named_and_runs_nothing(ready, spoil):
    """One sentence with the file and the way out; nothing in it was executed, and it is left where it is."""
    killed(ready, 9, 2)
    path = ready.project.models / "resume.pth"
    spoil(path, torch.load(path, weights_only=True))
    with pytest.raises(FieldguideError, match=r"^[^\n]*resume\.pth is broken\. Delete it and run 04 again"):
        train(ready, 2)
    assert path.exists() and not path.with_name("mark").exists()


def test_patience_ends_a_training_that_gets_no_better(ready, make_project):
    """Two epochs after the best one it stops, also when it was killed before; the round is complete, and stands."""
    dataset = read_dataset(make_project(epochs=40, patience=2))
    rates = {"base_lr": 1e-2, "lr_mult": 10}
    expected = train(dataset, 40, save=False, **rates)
    assert len(expected) < 41 and expected.valid_loss.idxmin() == len(expected) - 3
    killed(dataset, 4 * len(expected) - 6, 40, **rates)
    pd.testing.assert_frame_equal(figures(train(dataset, 40, **rates)), figures(expected))
    assert training_status(dataset) == STANDS


def look(dataset, learn):
    """Let lr_find look, as 04 does, for a training that is long enough; draw nothing."""
    long = replace(dataset, project=dataset.project.model_copy(update={"epochs": 9}))
    find = learn.lr_find
    learn.lr_find = lambda **options: find(**options, show_plot=False)
    said = look_for_rate(long, learn)
    del learn.lr_find
    return said


def test_lr_find_changes_nothing_that_comes_after(make_project):
    """Weights, gradients, random numbers and the later figures are those of a learner that never met lr_find."""
    ready = fill(make_project(arch="resnet18"))  # with normalisation, so that the rate can climb for more than 5 steps
    plain, searched = quick_learner(ready), quick_learner(ready)
    torch.manual_seed(5), random.seed(5)
    before = weights(searched), torch.get_rng_state(), random.getstate(), searched.dls.train.rng.getstate()
    assert look(ready, searched).startswith("lr_find ")
    after = weights(searched), torch.get_rng_state(), random.getstate(), searched.dls.train.rng.getstate()
    assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(before, after, strict=True))
    assert [p for p in searched.model.parameters() if p.grad is not None] == []
    assert len(searched.recorder.lrs) > 5 and searched.opt is None and not ready.project.models.exists()
    expected = train(ready, 2, learn=plain, save=False)
    pd.testing.assert_frame_equal(figures(train(ready, 2, learn=searched, save=False)), figures(expected))


def test_lr_find_works_on_a_trained_network_and_on_one_without_numbers(ready):
    """After fine_tune, where fastai's own may fail; and where every loss is not a number, which is said."""
    learn = quick_learner(ready)
    train(ready, learn=learn, save=False)
    look(ready, learn)
    for parameter in learn.model.parameters():
        parameter.data.fill_(float("nan"))
    assert "is ignored: the loss was soon not a number" in look(ready, learn)


def test_lr_find_is_left_out_where_it_would_cost_more_than_the_training(ready, make_project):
    """30 steps against 2 epochs of 4 batches; with 7 epochs and one more it is asked; where the model stands, not."""
    learn, asked = quick_learner(ready), []

    def lr_find(num_it, suggest_funcs):
        asked.append(num_it)
        suggest_funcs(torch.tensor([]), torch.tensor([]), num_it)

    learn.lr_find = lr_find
    assert look_for_rate(ready, learn).startswith("lr_find is left out: it would take 30 steps, and the whole training")
    assert look_for_rate(read_dataset(make_project(epochs=6)), learn).startswith("lr_find is left out: it would")
    assert asked == []
    assert "The training below uses 1.0e-02" in look_for_rate(read_dataset(make_project(epochs=7)), learn)
    assert asked == [30]
    train(ready, base_lr=1e-2, lr_mult=10)
    assert look_for_rate(ready, learn).startswith("lr_find is left out: there is a model already")


class Fail(Callback):
    """Raise an error in the second batch."""

    def __init__(self, error):
        self.error = error

    def before_batch(self):
        if self.iter == 1:
            raise self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
        OSError(12, "Cannot allocate memory"),
        MemoryError("so many pixels"),
    ],
)
@pytest.mark.parametrize("step", ["fine_tune", "lr_find"])
def test_when_memory_runs_out_half_the_batch_is_advised(ready, error, step):
    """From the GPU, the processor, a loader or the system: the batch size that is, and the one to try."""
    learn = quick_learner(ready)
    learn.add_cb(Fail(type(error)(*error.args)))
    with pytest.raises(FieldguideError, match=r"batch_size = 4\. Set batch_size = 2 in the project file, restart"):
        if step == "fine_tune":
            train(ready, learn=learn)
        else:
            look(ready, learn)


def test_other_errors_are_not_explained_away(ready):
    """What a person cannot put right keeps its own type and words."""
    learn = quick_learner(ready)
    learn.add_cb(Fail(RuntimeError("an error of ours")))
    with pytest.raises(RuntimeError, match="an error of ours"):
        train(ready, learn=learn)


@pytest.mark.parametrize("step", ["fine_tune", "lr_find"])
def test_an_interrupt_is_one_sentence_and_still_an_interrupt(ready, step):
    """IPython shows the sentence alone, and "Run all" stops, for it is a KeyboardInterrupt."""
    learn = quick_learner(ready)
    learn.add_cb(Fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt) as stopped:
        if step == "fine_tune":
            train(ready, learn=learn)
        else:
            look(ready, learn)
    assert stopped.value._render_traceback_() == [str(stopped.value)]
    assert str(stopped.value).startswith("Stopped. ")


def test_a_disk_that_fills_up_while_it_trains_is_said_plainly(ready, monkeypatch):
    """The sentence about the disk comes without fastai's words before it."""

    def full(*_):
        raise WriteError("Cannot write resume.pth: the disk is full. Free some space")

    monkeypatch.setattr("utils.train.checkpoint.write_whole", full)
    with pytest.raises(FieldguideError, match=r"^Cannot write resume\.pth: the disk is full"):
        train(ready)


@pytest.mark.filterwarnings("error::UserWarning")
def test_networks_that_fastai_does_not_list_are_made_without_warnings(ready, make_project):
    """It asks torchvision for them in an old way, which is nothing that a person could put right."""
    quick_learner(read_dataset(make_project(arch="mobilenet_v3_small")))


def test_a_processor_calculates_in_full_precision(ready):
    """Without a GPU no half precision is used, and 04 says on what it trains and why."""
    dls = image_dataloaders(ready)
    dls.device = torch.device("cpu")
    assert [type(cb).__name__ for cb in speed_callbacks(dls)] == ["ChannelsLast"]
    assert "on the processor, because" in device_sentence(dls) and "in full precision" in device_sentence(dls)


def test_a_training_keeps_freed_memory_and_gives_it_back(ready, monkeypatch):
    """From one step to the next, while a phase runs; other cells of the notebook find it free."""
    told = []
    monkeypatch.setattr(device, "keep_freed_memory", told.append)
    train(ready, save=False)
    assert told == [True, False, True, False]


def test_a_stopped_training_gives_its_memory_back(ready, monkeypatch):
    """The kernel lives on, and the person may have other work before the training goes on."""
    told = []
    monkeypatch.setattr(device, "keep_freed_memory", told.append)
    monkeypatch.setattr(plain_module, "keep_freed_memory", told.append)
    killed(ready, 2, save=False)
    assert told == [True, False]


def test_a_gpu_with_tensor_cores_calculates_in_half_precision(monkeypatch):
    """And an old one does not: there it would be no faster."""
    loader = SimpleNamespace(fake_l=SimpleNamespace(num_workers=2))
    dls = SimpleNamespace(device=torch.device("cuda"), train=loader)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    for capability, names, says in (((9, 0), ["ChannelsLast", "MixedPrecision"], "half"), ((6, 1), [], "full")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, known=capability: known)
        assert [type(cb).__name__ for cb in speed_callbacks(dls)] == names
        assert f"Trains on the GPU Some GPU, in {says} precision" in device_sentence(dls)
