"""04, the settings: those that were really used decide whether a round stands, and a changed cell shows everywhere."""

import json
import pickle
from dataclasses import FrozenInstanceError
from zipfile import ZipFile

import matplotlib.pyplot as plt
import pytest
import small_set
import torch
from conftest import code_cells
from fastai.optimizer import ranger
from fastai.vision.all import MixUp, Normalize, RandomResizedCrop, Resize, accuracy, error_rate
from fastcore.basics import noop
from small_set import fill, killed, quick_learner, train

from utils.dataset import read_dataset, round_fingerprint
from utils.errors import FieldguideError
from utils.project import REPOSITORY
from utils.train.callbacks import Seed, training_callbacks
from utils.train.checkpoint import read_checkpoint, training_status
from utils.train.learners import load_trained, make_learner
from utils.train.loaders import image_block, image_dataloaders
from utils.train.record import asked_settings

ready, plain = small_set.ready, small_set.plain
RATES = {"base_lr": 1e-2, "lr_mult": 10}  # those of weights = "none"
STANDS = "The model stands: pictures, split and settings are those that it was trained with."


@pytest.fixture
def run_04(tmp_path, monkeypatch, capsys, make_project):
    """Return a function that runs the cells of 04, some of them changed, and returns what they print."""
    plt.switch_backend("agg")
    settings = make_project().model_dump(exclude={"labels", "allowed_hosts", "honour_noai", "filters"})
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (tmp_path / "project.toml").write_text("\n".join([*lines, "[labels]", 'cat = ["x"]', 'dog = ["y"]']))
    monkeypatch.setenv("PROJECT", str(tmp_path / "project.toml"))
    source = "\n".join(code_cells(REPOSITORY / "notebooks" / "04_train.ipynb"))

    def run(old="", new=""):
        assert old in source
        capsys.readouterr()
        names = {"RandomResizedCrop": RandomResizedCrop}
        exec(source.replace(old, new), names)
        plt.close("all")
        return names["learn"], capsys.readouterr().out

    return run


@pytest.mark.long
@pytest.mark.parametrize(
    ("old", "new", "name", "told"),
    [
        ("project.epochs, **rates", "2, **rates", "epochs", "epochs = 2 instead of 1"),
        ("**rates, cbs", '**rates | {"base_lr": 1e-9}, cbs', "base_lr", "base_lr = 1e-09 instead of 0.01"),
        ("crops(project)", "[RandomResizedCrop(project.size, min_scale=0.3)]", "item_tfms", "another item_tfms"),
        ("*augmentation(project), ", "", "batch_tfms", "another batch_tfms"),
        ("crops(project)", "[RandomResizedCrop(48)]", "size", "size = 48 instead of 32"),
    ],
)
def test_a_changed_cell_shows(ready, run_04, old, new, name, told):
    """Status and record name epochs, rate, crop, augmentation or size, each changed in the notebook's own code."""
    learn, printed = run_04(old, new)
    assert f"Cells of 04 were changed: it trained with {told}" in printed
    loaded = load_trained(ready)
    assert loaded.record == learn.record and told in loaded.record.changed
    assert loaded.record.settings[name] != asked_settings(ready)[name]
    assert told in training_status(ready)


def test_a_changed_cell_stands_and_gives_way(ready, run_04):
    """Run again, nothing is trained; the unchanged notebook trains anew."""
    path, change = ready.project.models / "learner.pth", ("project.epochs, **rates", "2, **rates")
    learn, _ = run_04(*change)
    stamp = path.stat().st_mtime_ns
    again, printed = run_04(*change)
    assert printed.startswith("Cells of 04 were changed") and "Nothing was trained: this round stands." in printed
    assert path.stat().st_mtime_ns == stamp and again.record == learn.record

    _, printed = run_04()
    assert "Nothing was trained" not in printed and path.stat().st_mtime_ns != stamp
    assert load_trained(ready).record.changed == "" and training_status(ready) == STANDS


def test_an_unchanged_notebook_uses_what_the_project_file_asks(ready, run_04):
    """Each setting read off the learner is the one that was asked; the hash of the first weights is one more."""
    learn, printed = run_04()
    assert printed.startswith("There is no model yet") and STANDS in printed
    assert "lr_find is left out: it would take 30 steps" in printed and "learner.pth" in printed.splitlines()[-1]
    settings = dict(learn.record.settings)
    assert len(settings.pop("start")) == 16
    assert settings == asked_settings(ready)
    assert json.loads(json.dumps(settings)) == settings


def test_the_record_is_what_the_fingerprint_is_made_of(ready):
    """The file, the learner of 04 and the learner that is loaded tell the same; none of them can be changed."""
    learn = quick_learner(ready)
    train(ready, learn=learn, **RATES)
    record = load_trained(ready).record
    assert record == learn.record and record.changed == ""
    assert record.settings == read_checkpoint(ready.project)["settings"]
    assert record.fingerprint == round_fingerprint(ready, record.settings)
    assert [row["phase"] for row in record.history] == ["frozen", "unfrozen"]
    with pytest.raises(FrozenInstanceError):
        record.changed = "nothing"


def test_another_seed_is_another_round(ready):
    """Also where the network began with the same weights: seed and fingerprint differ, and nothing is taken over."""
    records = []
    for seed in (42, 43, 43):
        learn = quick_learner(ready)
        cbs = [Seed(seed) if isinstance(cb, Seed) else cb for cb in training_callbacks(ready)]
        learn.fine_tune(1, **RATES, cbs=cbs)
        records.append(learn.record)
    first, second, third = records
    assert (first.settings["seed"], second.settings["seed"]) == (42, 43)
    assert {k: v for k, v in first.settings.items() if second.settings[k] != v} == {"seed": 42}
    assert first.fingerprint != second.fingerprint and first.history != second.history
    assert second.changed == "Cells of 04 were changed: it trained with seed = 43 instead of 42."
    assert third == second


CHANGES = {
    "pct_start": lambda learn: {"pct_start": 0.6},
    "momentum": lambda learn: {"moms": (0.9, 0.7, 0.9)},
    "weight decay": lambda learn: {"wd": 0.3},
    "loss": lambda learn: setattr(learn.loss_func.func, "label_smoothing", 0.1),
    "class weights": lambda learn: setattr(learn.loss_func.func, "weight", torch.tensor([1.0, 2.0])),
    "optimizer": lambda learn: setattr(learn, "opt_func", ranger),
    "callback": lambda learn: learn.add_cb(MixUp()) and None,
    "network": lambda learn: torch.nn.init.zeros_(learn.model[1][-1].weight) is None,
    "frozen epochs": lambda learn: {"freeze_epochs": 2},
    "dropout": lambda learn: setattr(learn.model[1][3], "p", 0.1),
    "batch normalisation": lambda learn: setattr(learn, "train_bn", False),
}


@pytest.mark.long
@pytest.mark.parametrize("change", CHANGES)
def test_whatever_a_reader_changes_makes_another_round(make_project, change):
    """Schedule, momentum, optimizer, loss, weights, callbacks: nothing of the stored round is taken, and it is told."""
    ready = fill(make_project(arch="mobilenet_v3_small"))  # one that normalises
    train(ready, **RATES)
    before = load_trained(ready).record
    learn = quick_learner(ready)
    options = CHANGES[change](learn) or {}
    train(ready, learn=learn, **RATES, **options if isinstance(options, dict) else {})
    assert learn.record.fingerprint != before.fingerprint and learn.record.history != before.history
    assert learn.record.changed


def test_a_callback_is_known_by_what_it_was_given(ready):
    """Another alpha of MixUp is another training."""
    records = []
    for alpha in (0.1, 0.9):
        learn = quick_learner(ready)
        learn.add_cb(MixUp(alpha))
        train(ready, learn=learn, **RATES)
        records.append(learn.record)
    assert records[0].fingerprint != records[1].fingerprint


def test_a_head_of_ones_own_is_told_and_not_taken_for_04s(ready):
    """05 cannot make such a network, and says so; weights drawn by another seed are told too."""
    learn = make_learner(ready.project, image_dataloaders(ready), pretrained=False, lin_ftrs=[16])
    learn.logger = noop
    train(ready, learn=learn, **RATES)
    assert "another network" in learn.record.changed and "another network" in training_status(ready)
    with pytest.raises(FieldguideError, match="a network that the notebook's own cell does not make"):
        load_trained(ready)
    other = make_learner(ready.project.model_copy(update={"seed": 1}), image_dataloaders(ready), pretrained=False)
    other.logger = noop
    train(ready, learn=other, **RATES)
    assert other.record.changed == (
        "Cells of 04 were changed: it trained with initial_weights = others instead of seeded."
    )


@pytest.mark.parametrize("metrics", [error_rate, [error_rate, accuracy], []])
def test_accuracy_is_accuracy_whatever_else_is_measured(ready, metrics):
    """Found by its name among several; without it one sentence, and nothing trains."""
    learn = quick_learner(ready)
    learn.metrics = metrics
    if isinstance(metrics, list) and len(metrics) == 2:
        row = train(ready, learn=learn, **RATES).iloc[-1]
        assert row.accuracy == pytest.approx(1 - float(learn.recorder.values[-1][2]), abs=1e-6)
    else:
        with pytest.raises(FieldguideError, match="04 needs metrics=accuracy"):
            train(ready, learn=learn, **RATES)


def test_a_training_without_a_frozen_phase(ready):
    """fastai allows it, and the record says so once."""
    learn = quick_learner(ready)
    train(ready, learn=learn, freeze_epochs=0, **RATES)
    assert [row["phase"] for row in learn.record.history] == ["unfrozen"]
    assert read_checkpoint(ready.project)["settings"]["epochs"] == 1


def test_a_fit_of_frozen_layers_alone_is_refused(ready):
    """It would train the head only and keep nothing; unfrozen, it is a training without a frozen phase."""
    learn = quick_learner(ready)
    learn.freeze()
    with pytest.raises(FieldguideError, match=r"Call learn\.unfreeze\(\) first"):
        learn.fit_one_cycle(1, cbs=training_callbacks(ready))
    learn.unfreeze()
    learn.fit_one_cycle(1, 1e-3, cbs=training_callbacks(ready))
    assert "it trained with no frozen phase" in learn.record.changed
    assert "None" not in learn.record.changed


def test_a_stopped_training_stays_when_another_round_stands(ready):
    """A trial of other settings was stopped; the round of the usual ones is looked at, and the trial goes on."""
    train(ready, **RATES)
    killed(ready, 10, 3, **RATES)
    train(ready, **RATES)
    assert (ready.project.models / "resume.pth").exists()


def test_settings_of_the_project_file_that_change_later_make_it_stale(ready, make_project):
    """The model is judged by the project file as it is now."""
    train(ready, **RATES)
    for other in ({"epochs": 2}, {"seed": 1}, {"patience": 3}, {"schedule": "smooth"}, {"augment": "strong"}):
        now = read_dataset(make_project(**other))
        assert training_status(now).startswith("Pictures, labels, split or settings changed")
        with pytest.raises(FieldguideError, match=r"settings changed since the model was trained\. Run 04 again"):
            load_trained(now)


@pytest.mark.parametrize("schedule", ["cyclic", "smooth"])
def test_the_schedules_of_ours_are_known_by_name(ready, make_project, schedule):
    """What moves the rate is what the project file asks for."""
    dataset = read_dataset(make_project(schedule=schedule, epochs=4))
    learn = quick_learner(dataset)
    train(dataset, 4, learn=learn, **RATES)
    assert learn.record.settings["schedule"] == schedule and learn.record.changed == ""


def test_a_datablock_that_shows_pictures_in_another_way_must_be_given(ready):
    """05 would judge the model on pictures unlike those it learned from: refused with the way out."""
    block = image_block(ready.project).new(item_tfms=Resize(32), batch_tfms=Normalize.from_stats([0.1] * 3, [0.1] * 3))
    learn = quick_learner(ready, block)
    train(ready, learn=learn, **RATES)
    with pytest.raises(FieldguideError, match=r"Give it to load_trained\(dataset, block\)"):
        load_trained(ready)
    assert load_trained(ready, block).record == learn.record
    assert "another item_tfms, another batch_tfms" in learn.record.changed


def old_version(project, labels=("cat", "dog")):
    """Write learner.pth and resume.pth as the version before wrote them."""
    rates = torch.tensor([(float("nan"), 1e-3), (1e-4, 1e-3)], dtype=torch.float64)
    row = {
        "epoch": 0,
        "phase": "frozen",
        "train_loss": 1.0,
        "valid_loss": 1.0,
        "accuracy": 0.5,
        "lr": 0.1,
        "seconds": 1.0,
    }
    recipe = {"epochs": "1", "base_lr": "0.01", "lr_mult": "10", "seed": "42", "transforms": "Flip"}
    model = quick_learner(read_dataset(project)).model.state_dict()
    both = {"fingerprint": "0123456789abcdef", "recipe": recipe, "rates": rates}
    project.models.mkdir(parents=True)
    checkpoint = both | {"arch": "resnet18", "labels": list(labels), "history": [row], "model": model}
    torch.save(checkpoint, project.models / "learner.pth")
    state = both | {"rows": [row], "figures": [[1.0, 1.0, 0.5]], "lowest": 1.0, "best": model, "model": model}
    state |= {"optimizer": [], "smooth": (4, 1.0), "random": {}, "batches": (), "scaler": {}}
    torch.save(state, project.models / "resume.pth")


def test_a_models_folder_of_the_version_before_is_trained_again(ready):
    """One sentence in 04's first cell and in 05; 04 trains, and then everything is as new."""
    old_version(ready.project)
    assert training_status(ready).endswith("comes from an earlier version of Fieldguide: it is trained again now.")
    with pytest.raises(FieldguideError, match=r"earlier version of Fieldguide\. Run 04 again: it trains a new one"):
        load_trained(ready)
    assert len(train(ready, **RATES)) == 2
    assert training_status(ready) == STANDS and load_trained(ready).record.changed == ""
    assert not (ready.project.models / "resume.pth").exists()


def test_a_checkpoint_of_other_labels_is_refused_with_both_named(ready):
    """The sentence says what the file is and what the project asks for."""
    train(ready, **RATES)
    path = ready.project.models / "learner.pth"
    torch.save(torch.load(path, weights_only=True) | {"labels": ["hen", "owl"]}, path)
    with pytest.raises(FieldguideError, match=r"squeezenet1_1 for hen, owl.*squeezenet1_1 for cat, dog"):
        load_trained(ready)


@pytest.mark.parametrize("data", [b"cut short", b""])
def test_a_broken_checkpoint_is_named(ready, data):
    """A file cut short says which file to delete, in 04 and in 05."""
    ready.project.models.mkdir(parents=True)
    (ready.project.models / "learner.pth").write_bytes(data)
    for use in (load_trained, training_status, train):
        with pytest.raises(FieldguideError, match=r"learner\.pth is broken\. Delete it and run 04 again"):
            use(ready)


def test_a_checkpoint_with_other_weights_is_refused(ready):
    """A file that says it is a squeezenet and holds something else names itself."""
    train(ready, **RATES)
    path = ready.project.models / "learner.pth"
    torch.save(torch.load(path, weights_only=True) | {"model": {"0.weight": torch.zeros(2)}}, path)
    with pytest.raises(FieldguideError, match="says it is a squeezenet1_1, and holds other weights"):
        load_trained(ready)


def test_what_fastai_exports_after_the_training_needs_nothing_of_ours(ready, tmp_path):
    """The callbacks have left the learner, and the record is written as plain values."""
    learn = quick_learner(ready)
    train(ready, learn=learn, **RATES)
    assert [cb for cb in learn.cbs if type(cb).__module__.startswith("utils")] == []
    learn.path = tmp_path
    learn.export()
    with ZipFile(tmp_path / "export.pkl") as file:
        assert b"utils.train" not in file.read("export/data.pkl")
    assert pickle.loads(pickle.dumps(learn.record))["fingerprint"] == learn.record.fingerprint


def test_a_stopped_training_of_another_project_file_is_not_promised(ready, make_project):
    """Its settings changed since: the status speaks of a new training, and that is what happens."""
    assert "after epoch 1" in killed(ready, 9, 2, **RATES)
    other = read_dataset(make_project(seed=5))
    assert training_status(other) == "There is no model yet: it is trained now."
