"""04: the split that was decided is the one that trains; the best epoch stays; the seed holds; a stop loses little."""

import json
import pickle
import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import Callback, CancelBatchException, PILImage, no_random

from utils.copies import near_duplicate_groups
from utils.errors import FieldguideError
from utils.project import REPOSITORY
from utils.split.sides import assign_sides, save_split
from utils.tables import read_rows
from utils.train import training as train
from utils.train.checkpoint import HISTORY_COLUMNS, TrainingRecord, is_trained, save_training, training_status
from utils.train.device import device_sentence, speed_callbacks
from utils.train.schedule import finder_steps, longest_fall, rate_sentence
from utils.train.training import (
    fine_tune,
    image_block,
    image_dataloaders,
    load_trained,
    make_learner,
    train_fold,
    training_loss,
    undisturbed,
)
from utils.verify.judging import verify_images


@pytest.fixture
def ready(make_project, fill_raw):
    """Return a project with verified and split pictures, 12 a label."""
    project = make_project()
    fill_raw(project, 12)
    verify_images(project)
    groups = near_duplicate_groups(project)
    labels = {id: path.parent.name for id, path in project.pictures().items()}
    save_split(project, groups, assign_sides(groups, labels, valid=0.25, test=0.1))
    return project


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """Load in this process, for a dozen small pictures need no others, and draw no curves."""
    monkeypatch.setattr(train, "worker_count", lambda: 0)
    monkeypatch.setattr(TrainingRecord, "draw", lambda record: None)


def quick_learner(project):
    """Return a learner made as in 04, that prints nothing."""
    dls = image_dataloaders(project)
    how = {"cbs": speed_callbacks(dls), "loss_func": training_loss(project, dls)}
    learn = make_learner(project, dls, pretrained=False, **how)
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.logger = lambda *_: None
    return learn


def figures(history):
    """Return a history without the seconds, which differ from run to run."""
    return history.drop(columns="seconds")


def weights(learn):
    """Return all weights as one list of numbers."""
    return torch.cat([value.detach().flatten().float() for value in learn.model.state_dict().values()])


class Kill(Callback):
    """Stop at a training batch, counted over both phases, as Ctrl-C does."""

    order = 5

    def __init__(self, batch):
        self.left = batch

    def before_batch(self):
        self.left -= self.training
        if self.left < 0:
            raise KeyboardInterrupt


def killed(project, batch, **options):
    """Train until a batch and stop there; four batches are an epoch."""
    learn = quick_learner(project)
    learn.add_cb(Kill(batch))
    with pytest.raises(KeyboardInterrupt):
        fine_tune(learn, project.epochs, project=project, **options)


def test_the_sides_of_the_loaders_are_those_of_the_split(ready):
    """Each picture trains or judges as split.csv says; the test side does neither."""
    dls = image_dataloaders(ready, image_block(ready))
    got = {path.stem: "train" for path in dls.train_ds.items} | {path.stem: "valid" for path in dls.valid_ds.items}
    assert got == {id: side for id, side in ready.sides().items() if side != "test"}
    assert list(dls.vocab) == ["cat", "dog"]


def test_other_sides_can_be_given_for_a_fold(ready):
    """Cross-validation uses the same loaders with sides of its own."""
    ids = list(ready.pictures())
    sides = {id: "valid" if n % 3 == 0 else "train" for n, id in enumerate(ids)}
    dls = image_dataloaders(ready, sides=sides)
    assert {path.stem for path in dls.valid_ds.items} == set(ids[::3])


def test_without_a_split_the_loaders_say_which_notebook_to_run(make_project, fill_raw):
    """Before 03 no picture has a side."""
    project = make_project()
    fill_raw(project, 3)
    verify_images(project)
    with pytest.raises(FieldguideError, match="Run 02 and 03 first"):
        image_dataloaders(project)


def test_two_runs_give_the_same_figures_to_the_last_digit(ready, monkeypatch):
    """Same seed, same machine: same batches, same weights, same losses."""
    runs = []
    for _ in range(2):
        torch.rand(3)  # whatever ran before must not matter
        learn = quick_learner(ready)
        history = fine_tune(learn, 2, seed=7).drop(columns="seconds")
        runs.append((history, torch.cat([p.detach().flatten() for p in learn.model.parameters()])))
    pd.testing.assert_frame_equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])


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
    history = fine_tune(learn, 2, seed=1)
    assert list(history.phase) == ["frozen", "unfrozen", "unfrozen"]
    assert history.valid_loss.idxmin() == 0
    kept = learn.model.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in seen[0].items())


def test_a_diverged_training_says_to_lower_the_rate(ready):
    """With no loss that is a number nothing is kept, and nothing is saved."""
    learn = quick_learner(ready)
    for parameter in learn.model.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(FieldguideError, match="Try a base_lr ten times smaller"):
        fine_tune(learn, 1, project=ready)
    assert not (ready.models / "learner.pth").exists()


def test_the_cell_run_again_begins_where_the_learner_did(ready):
    """After a rate that was too high, or Ctrl-C in the first epoch, the same learner trains as a new one would."""
    expected = fine_tune(quick_learner(ready), 1)
    learn = quick_learner(ready)
    with pytest.raises(FieldguideError, match="is no number"):
        fine_tune(learn, 1, base_lr=1e30, project=ready)
    kill = Kill(2)
    learn.add_cb(kill)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(learn, 1, project=ready)
    learn.remove_cb(kill)
    pd.testing.assert_frame_equal(figures(fine_tune(learn, 1, project=ready)), figures(expected))


def test_a_current_round_stands_and_a_relabelled_one_does_not(ready):
    """Run again, nothing is trained; after a picture moved, the model is stale and is refused."""
    learn = quick_learner(ready)
    history = fine_tune(learn, 1, project=ready)
    assert is_trained(ready)
    stamp = (ready.models / "learner.pth").stat().st_mtime_ns
    again = fine_tune(quick_learner(ready), 1, project=ready)
    assert (ready.models / "learner.pth").stat().st_mtime_ns == stamp
    pd.testing.assert_frame_equal(again, history, check_dtype=False)
    loaded = load_trained(ready)
    assert torch.equal(loaded.model[1][-1].weight, learn.model[1][-1].weight)
    assert [row["epoch"] for row in read_rows(ready.models / "history.csv", HISTORY_COLUMNS)] == ["0", "1"]

    path = next(iter(ready.pictures().values()))
    path.rename(ready.images / ("dog" if path.parent.name == "cat" else "cat") / path.name)
    assert not is_trained(ready)
    with pytest.raises(FieldguideError, match="Run 04 again"):
        load_trained(ready)


def test_a_changed_cell_trains_anew(ready):
    """Who edits the learning rate, the epochs or the transforms in 04 gets another training, not the old one."""
    fine_tune(quick_learner(ready), 1, project=ready)
    stamp = (ready.models / "learner.pth").stat().st_mtime_ns
    assert len(fine_tune(quick_learner(ready), 2, project=ready)) == 3
    assert (ready.models / "learner.pth").stat().st_mtime_ns != stamp


def test_pictures_that_come_while_it_trains_make_it_stale(ready):
    """The model is stamped with what it was trained on, not with what lies there when it is done."""
    learn = quick_learner(ready)
    path = next(iter(ready.pictures().values()))
    path.with_name(f"{'0' * 16}.jpg").write_bytes(path.read_bytes())
    fine_tune(learn, 1, project=ready)
    assert not is_trained(ready)


def test_a_picture_moved_while_it_trains_is_named(ready):
    """The loaders look for it where it was: one sentence instead of a traceback from deep inside fastai."""
    learn = quick_learner(ready)
    path = learn.dls.train_ds.items[0]
    path.unlink()
    with pytest.raises(FieldguideError, match=rf"moved or deleted while 04 was training, .*{path.name}.*Run 04 again"):
        fine_tune(learn, 1, project=ready)


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: b"<html>", lambda data: data[: len(data) // 2]])
@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_that_cannot_be_read_are_named_and_counted(ready, monkeypatch, spoil, workers):
    """Empty, foreign or cut short since 02: one sentence with the file and what to do, also out of another process."""
    monkeypatch.setattr(train, "worker_count", lambda: workers)
    learn = quick_learner(ready)
    for path in learn.dls.train_ds.items[3:5]:
        path.write_bytes(spoil(path.read_bytes()))
    name = learn.dls.train_ds.items[3].name
    with pytest.raises(FieldguideError, match=rf"^2 pictures cannot be read, .*{name} among them.*run 04 again"):
        fine_tune(learn, 1, project=ready)


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: b"<html>", lambda data: data[: len(data) // 2]])
def test_what_cannot_be_read_is_said_before_a_batch_is_made(ready, spoil):
    """04 shows a batch first: a picture cut short would end there in a traceback that does not name it."""
    paths = [path for id, path in ready.pictures().items() if ready.sides()[id] == "valid"]
    paths[-1].write_bytes(spoil(paths[-1].read_bytes()))
    with pytest.raises(FieldguideError, match=rf"^1 picture cannot be read, .*{paths[-1].name}.*run 04 again"):
        image_dataloaders(ready)


def test_what_is_no_jpeg_or_has_more_behind_its_end_is_read(ready):
    """A person may put a picture of their own in a picture's place: what opens, trains."""
    first, second, *_ = image_dataloaders(ready).train_ds.items
    first.write_bytes(first.read_bytes() + b"more")
    draw = PILImage.create(second)
    draw.save(second, "PNG")
    assert len(image_dataloaders(ready).train_ds) == 16


def test_a_folder_that_cannot_be_written_is_said_before_training(ready, monkeypatch):
    """Nobody should wait for an hour to be told that nothing can be saved."""
    ready.models.parent.mkdir(parents=True, exist_ok=True)
    ready.models.write_text("a file where the folder should be")
    learn = quick_learner(ready)
    monkeypatch.setattr(learn, "fine_tune", None)  # would fail if it were called
    with pytest.raises(FieldguideError, match="Cannot write"):
        fine_tune(learn, 1, project=ready)


def test_a_picture_without_a_side_stops_the_training(ready, fill_raw):
    """New pictures need 03 first, else the model would pass for one that knows them."""
    from conftest import draw_picture, picture_bytes, put_raw

    put_raw(ready, "cat", picture_bytes(draw_picture(7777)))
    verify_images(ready)
    with pytest.raises(FieldguideError, match=r"1 pictures have no side yet.*Run 03 first"):
        image_dataloaders(ready)


def test_a_checkpoint_of_other_labels_is_refused_with_both_named(ready, make_project):
    """The sentence says what the file is and what the project asks for."""
    learn = quick_learner(ready)
    save_training(ready, learn, TrainingRecord(), {})
    checkpoint = torch.load(ready.models / "learner.pth", weights_only=True) | {"labels": ["hen", "owl"]}
    torch.save(checkpoint, ready.models / "learner.pth")
    with pytest.raises(FieldguideError, match=r"resnet18 for hen, owl.*resnet18 for cat, dog"):
        load_trained(ready)


def test_a_broken_checkpoint_is_named(ready):
    """A file cut short says which file to delete."""
    ready.models.mkdir(parents=True)
    (ready.models / "learner.pth").write_bytes(b"cut short")
    with pytest.raises(FieldguideError, match=r"learner\.pth is broken\. Delete it and run 04 again"):
        load_trained(ready)


def test_a_fold_is_trained_on_the_other_sides_only(ready):
    """The learner of a fold never loads what it will judge."""
    ids = list(ready.pictures())
    sides = {id: "valid" if n % 2 else "train" for n, id in enumerate(ids)}
    learn = train_fold(ready, sides)
    assert {path.stem for path in learn.dls.train_ds.items} == set(ids[::2])
    assert not ready.models.exists()


def test_the_default_is_fastais_fine_tune_to_the_last_digit(ready):
    """The same seed given to plain fastai leads to the same weights at the end of the last epoch."""
    ours, theirs = quick_learner(ready), quick_learner(ready)
    seen = {}

    class Last(Callback):
        def after_fit(self):
            seen["last"] = weights(self.learn)

    ours.add_cb(Last())
    fine_tune(ours, 2, seed=3)
    with no_random(3):
        theirs.dls.train.rng = random.Random(3)
        theirs.fine_tune(2)
    assert torch.equal(seen["last"], weights(theirs))


ALL_KEYS = {
    "epochs": 3,
    "augment": {"max_rotate": 20.0, "greyscale": 0.5, "denoise": 0.5, "dehaze": 0.5},
    "class_weights": True,
}


@pytest.mark.parametrize(
    ("schedule", "batch", "epoch"), [("one-cycle", 10, 2), ("one-cycle", 5, 1), ("cyclic", 10, 2), ("smooth", 10, 2)]
)
def test_a_killed_training_goes_on_to_the_same_figures(ready, make_project, schedule, batch, epoch):
    """Stopped in an epoch and run again, history and weights equal an undisturbed training's to the last digit."""
    project = make_project(schedule=schedule, **ALL_KEYS)
    options = {"schedule": schedule, "seed": 7}
    undisturbed_learn = quick_learner(project)
    expected = fine_tune(undisturbed_learn, 3, **options)

    killed(project, batch, **options)
    assert f"it goes on from epoch {epoch} of 3" in training_status(project)
    torch.rand(5), np.random.rand(5)  # another process has other random numbers
    learn = quick_learner(project)
    pd.testing.assert_frame_equal(figures(fine_tune(learn, 3, project=project, **options)), figures(expected))
    assert torch.equal(weights(learn), weights(undisturbed_learn))
    assert sorted(path.name for path in project.models.iterdir()) == ["history.csv", "learner.pth", "training.png"]


RUN = """
import json, sys
from utils.project import Project
from utils import train
train.worker_count = lambda: 0
from test_training import quick_learner
project = Project.model_validate(json.loads(sys.argv[1]))
train.fine_tune(quick_learner(project), project.epochs, project=project)
"""


def test_a_process_that_is_killed_loses_one_epoch_at_most(ready, make_project):
    """Killed from outside while it trains, and run again, it ends with the figures of an undisturbed training."""
    project = make_project(epochs=30)
    settings = json.dumps(project.model_dump(include={"name", "labels", "data_dir", "models_dir", "weights", "size"}))
    settings = json.dumps(json.loads(settings) | {"epochs": 30, "batch_size": 4})
    paths = f"import sys; sys.path[:0] = [{str(REPOSITORY)!r}, {str(Path(__file__).parent)!r}]\n"
    process = subprocess.Popen([sys.executable, "-c", paths + RUN, settings], stderr=subprocess.PIPE)
    state = project.models / "resume.pth"
    while not state.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() != 0, "it was over before it was killed"
    process.stderr.close()
    kept = torch.load(state, weights_only=True)
    assert 1 <= len(kept["rows"]) <= 30

    class Enough(Callback):
        order = 80

        def after_epoch(self):
            if len(self.training_record.rows) == len(kept["rows"]) + 1:
                raise KeyboardInterrupt

    histories = []
    for where in (project, None):
        learn = quick_learner(project)
        learn.add_cb(Enough())
        record = {}
        learn.add_cb(Keep(record))
        with pytest.raises(KeyboardInterrupt):
            fine_tune(learn, 30, project=where)
        histories.append(figures(pd.DataFrame(record["rows"])))
    pd.testing.assert_frame_equal(*histories)


class Keep(Callback):
    """Keep the rows of a training that will be stopped."""

    order = 75

    def __init__(self, record):
        self.record = record

    def after_epoch(self):
        self.record["rows"] = list(self.training_record.rows)


def test_another_recipe_begins_anew(ready):
    """What was stopped belongs to its own rate, epochs and pictures; with others, nothing of it is used."""
    killed(ready, 5)
    expected = fine_tune(quick_learner(ready), 1, base_lr=1e-3)
    history = fine_tune(quick_learner(ready), 1, base_lr=1e-3, project=ready)
    pd.testing.assert_frame_equal(figures(history), figures(expected))
    assert not (ready.models / "resume.pth").exists()


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
def test_a_broken_state_is_named_and_runs_nothing(ready, make_project, spoil):
    """One sentence with the file and the way out; nothing in it was executed, and it is left where it is."""
    project = make_project(epochs=2)
    killed(project, 9)
    path = project.models / "resume.pth"
    spoil(path, torch.load(path, weights_only=True))
    with pytest.raises(FieldguideError, match=r"^[^\n]*resume\.pth is broken\. Delete it and run 04 again"):
        fine_tune(quick_learner(project), 2, project=project)
    assert path.exists() and not path.with_name("mark").exists()


def test_patience_ends_a_training_that_gets_no_better(ready, make_project):
    """Two epochs after the best one it stops, also when it was killed before; the round is complete, and stands."""
    project = make_project(epochs=40, patience=2)
    expected = fine_tune(quick_learner(project), 40, patience=2)
    assert len(expected) < 41 and expected.valid_loss.idxmin() == len(expected) - 3
    killed(project, 4 * len(expected) - 6, patience=2)
    history = fine_tune(quick_learner(project), 40, patience=2, project=project)
    pd.testing.assert_frame_equal(figures(history), figures(expected))
    assert is_trained(project)


def test_the_curve_is_drawn_anew_in_its_own_place(ready, monkeypatch):
    """One picture appears, and is replaced after each further epoch; at the end it lies in training.png."""
    monkeypatch.undo()
    shown = []
    handle = SimpleNamespace(update=lambda picture: shown.append("update"))
    monkeypatch.setattr("utils.train.checkpoint.display", lambda picture, display_id: shown.append("display") or handle)
    monkeypatch.setattr(train, "worker_count", lambda: 0)
    fine_tune(quick_learner(ready), 2, project=ready)
    assert shown == ["display", "update", "update"]
    assert (ready.models / "training.png").read_bytes().startswith(b"\x89PNG")


def test_lr_find_changes_nothing_that_comes_after(ready):
    """Weights, gradients, random numbers and the later figures are those of a learner that never met lr_find."""
    plain, searched = quick_learner(ready), quick_learner(ready)
    torch.manual_seed(5), random.seed(5)
    before = weights(searched), torch.get_rng_state(), random.getstate(), searched.dls.train.rng.getstate()
    with undisturbed(searched):
        found = searched.lr_find(num_it=8, suggest_funcs=longest_fall, show_plot=False)
    after = weights(searched), torch.get_rng_state(), random.getstate(), searched.dls.train.rng.getstate()
    assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(before, after, strict=True))
    assert [p for p in searched.model.parameters() if p.grad is not None] == []
    assert len(found) == 1 and searched.opt is None and not ready.models.exists()
    pd.testing.assert_frame_equal(figures(fine_tune(searched, 2)), figures(fine_tune(plain, 2)))


def test_lr_find_works_on_a_trained_network_and_on_one_without_numbers(ready):
    """After fine_tune, where fastai's own may fail; and where every loss is no number, which is said."""
    learn = quick_learner(ready)
    fine_tune(learn, 1)
    with undisturbed(learn):
        learn.lr_find(num_it=8, suggest_funcs=longest_fall, show_plot=False)
    for parameter in learn.model.parameters():
        parameter.data.fill_(float("nan"))
    with undisturbed(learn):
        (rate,) = learn.lr_find(num_it=finder_steps(learn), suggest_funcs=longest_fall, show_plot=False)
    assert np.isnan(rate)
    assert "ignored: the loss was soon no number" in rate_sentence(learn, used=1e-2)


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
            fine_tune(learn, 1)
        else:
            with undisturbed(learn):
                learn.lr_find(num_it=6, show_plot=False)


def test_other_errors_are_not_explained_away(ready):
    """What a person cannot put right keeps its own type and words."""
    learn = quick_learner(ready)
    learn.add_cb(Fail(RuntimeError("an error of ours")))
    with pytest.raises(RuntimeError, match="an error of ours"):
        fine_tune(learn, 1)


def test_a_disk_that_fills_up_while_it_trains_is_said_plainly(ready, monkeypatch):
    """The sentence about the disk comes without fastai's words before it."""
    from utils.errors import WriteError
    from utils.train import checkpoint

    def full(*_):
        raise WriteError("Cannot write resume.pth: the disk is full. Free some space")

    monkeypatch.setattr(checkpoint, "write_whole", full)
    with pytest.raises(FieldguideError, match=r"^Cannot write resume\.pth: the disk is full"):
        fine_tune(quick_learner(ready), 1, project=ready)


def test_a_loss_that_becomes_no_number_names_its_epoch(ready):
    """Nothing is saved as a round, though earlier epochs were good."""
    learn = quick_learner(ready)

    class Poison(Callback):
        order = 5

        def before_batch(self):
            if self.training and self.opt.frozen_idx == 0 and self.epoch == 1:
                self.learn.xb = (self.x * float("nan"),)

    learn.add_cb(Poison())
    with pytest.raises(FieldguideError, match="The loss of epoch 2 is no number"):
        fine_tune(learn, 3, project=ready)
    assert not (ready.models / "learner.pth").exists()


def test_pictures_deleted_before_it_trains_are_not_missed(ready):
    """What a person removed between 03 and 04 trains nothing, and hinders nothing."""
    gone = [path for id, path in ready.pictures().items() if ready.sides()[id] == "train"][:2]
    for path in gone:
        path.unlink()
    learn = quick_learner(ready)
    assert not {path.stem for path in gone} & {path.stem for path in learn.dls.train_ds.items}
    assert len(fine_tune(learn, 1)) == 2


@pytest.mark.parametrize("left", [1, 0])
def test_a_label_with_nothing_to_learn_from_is_named(ready, left):
    """One training picture of a label, or all pictures in the other one: said before anything is trained."""
    sides = ready.sides()
    for path in [path for id, path in ready.pictures().items() if sides[id] == "train" and path.parent.name == "cat"][
        left:
    ]:
        path.rename(ready.images / "dog" / path.name)
    with pytest.raises(
        FieldguideError, match=rf"^Nothing can be learned of cat \({left} on the train side\): 2 pictures are the least"
    ):
        image_dataloaders(ready)


def test_class_weights_are_those_counted_by_hand(ready, make_project):
    """4 cats and 8 dogs on the train side: N / (K · n) = 12 / 8 and 12 / 16; without the switch no weights."""
    sides = ready.sides()
    cats = [path for id, path in ready.pictures().items() if sides[id] == "train" and path.parent.name == "cat"]
    dogs = [path for id, path in ready.pictures().items() if sides[id] == "train" and path.parent.name == "dog"]
    for path in [*cats[4:], *dogs[8:]]:
        path.unlink()
    project = make_project(class_weights=True)
    loss = training_loss(project, image_dataloaders(project))
    assert loss.func.weight.tolist() == pytest.approx([12 / 8, 12 / 16])
    assert training_loss(ready, image_dataloaders(ready)).func.weight is None


def test_weights_make_another_round(ready):
    """Who changes the loss in 04 gets another training; the defaults leave the recipe as it ever was."""
    learn = quick_learner(ready)
    options = {"epochs": 1, "base_lr": 1.0, "lr_mult": 1, "seed": 1}
    before = train.training_recipe(learn, **options)
    assert set(before) == {*options, "transforms"}
    assert train.training_recipe(learn, **options, schedule="one-cycle", patience=0) == before
    assert train.training_recipe(learn, **options, schedule="cyclic", patience=0)["schedule"] == "cyclic"
    learn.loss_func = train.CrossEntropyLossFlat(weight=torch.tensor([1.0, 2.0]))
    assert train.training_recipe(learn, **options)["weight"] == "[1.0, 2.0]"


def test_a_round_from_before_the_third_curve_loads(ready):
    """A learner.pth without learning rates stands as it did."""
    history = fine_tune(quick_learner(ready), 1, project=ready)
    checkpoint = torch.load(ready.models / "learner.pth", weights_only=True)
    del checkpoint["rates"]
    torch.save(checkpoint, ready.models / "learner.pth")
    pd.testing.assert_frame_equal(fine_tune(quick_learner(ready), 1, project=ready), history, check_dtype=False)


def test_a_checkpoint_with_other_weights_is_refused(ready):
    """A file that says it is a resnet18 and holds something else names itself."""
    fine_tune(quick_learner(ready), 1, project=ready)
    checkpoint = torch.load(ready.models / "learner.pth", weights_only=True)
    torch.save(checkpoint | {"model": {"0.weight": torch.zeros(2)}}, ready.models / "learner.pth")
    with pytest.raises(FieldguideError, match="says it is a resnet18, and holds other weights"):
        load_trained(ready)


@pytest.mark.filterwarnings("error")
def test_networks_that_fastai_does_not_list_are_made_without_warnings(ready, make_project):
    """It asks torchvision for them in an old way, which is nothing that a person could put right."""
    quick_learner(make_project(arch="mobilenet_v3_small"))


def test_a_processor_calculates_in_full_precision(ready):
    """Without a GPU no half precision is used, and 04 says on what it trains and why."""
    dls = image_dataloaders(ready)
    dls.device = torch.device("cpu")
    assert [type(cb).__name__ for cb in speed_callbacks(dls)] == ["ChannelsLast"]
    assert "on the processor, because" in device_sentence(dls) and "in full precision" in device_sentence(dls)


def test_a_gpu_with_tensor_cores_calculates_in_half_precision(monkeypatch):
    """And an old one does not: there it would be no faster."""
    loader = SimpleNamespace(fake_l=SimpleNamespace(num_workers=2))
    dls = SimpleNamespace(device=torch.device("cuda"), train=loader)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    for capability, names, says in (((9, 0), ["ChannelsLast", "MixedPrecision"], "half"), ((6, 1), [], "full")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, known=capability: known)
        assert [type(cb).__name__ for cb in speed_callbacks(dls)] == names
        assert f"Trains on the GPU Some GPU, in {says} precision" in device_sentence(dls)


@pytest.mark.parametrize("schedule", ["cyclic", "smooth"])
def test_a_fold_is_trained_by_the_same_recipe(ready, make_project, schedule):
    """06 trains with the schedule, the weights and the augmentation of 04."""
    project = make_project(schedule=schedule, **ALL_KEYS | {"epochs": 1, "patience": 1})
    sides = {id: "valid" if n % 2 else "train" for n, id in enumerate(project.pictures())}
    learn = train_fold(project, sides)
    assert learn.loss_func.func.weight is not None
    assert "Greyscale" in [type(step).__name__ for step in learn.dls.train.after_batch.fs]
    assert len(learn.recorder.lrs) == len(learn.dls.train)
