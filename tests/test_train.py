"""04: the split that was decided is the one that trains; the best epoch stays; the seed holds."""

import pandas as pd
import pytest
import torch
from fastai.vision.all import Callback, CancelBatchException

from utils import train
from utils.files import FieldguideError, read_rows
from utils.split import assign_sides, near_copy_groups, save_split
from utils.train import (
    HISTORY_COLUMNS,
    TrainingRecord,
    download_weights,
    fine_tune,
    image_block,
    image_dataloaders,
    is_trained,
    load_trained,
    make_learner,
    pretrained_body,
    train_fold,
)
from utils.verify import verify_images


@pytest.fixture
def ready(make_project, fill_raw):
    """Return a project with verified and split pictures, 12 a label."""
    project = make_project()
    fill_raw(project, 12)
    verify_images(project)
    groups = near_copy_groups(project)
    labels = {id: path.parent.name for id, path in project.pictures().items()}
    save_split(project, groups, assign_sides(groups, labels, valid=0.25, test=0.1))
    return project


@pytest.fixture(autouse=True)
def no_workers(monkeypatch):
    """Load in this process: a dozen small pictures need no others."""
    monkeypatch.setattr(train, "worker_count", lambda: 0)


def quick_learner(project):
    """Return a learner made as in 04, that prints nothing."""
    learn = make_learner(project, image_dataloaders(project), pretrained=False)
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    return learn


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
    learn.dls.train_ds.items[0].unlink()
    with pytest.raises(FieldguideError, match=r"moved or deleted while 04 was training.*Run 04 again"):
        fine_tune(learn, 1, project=ready)


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
    train.save_training(ready, learn, TrainingRecord(), {})
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


def test_without_network_or_cache_the_weights_say_the_way_out(make_project, tmp_path, monkeypatch):
    """No download and no copy on disk: one sentence with the address, the place and the switch."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def no_network(*args, **kwargs):
        raise OSError("Temporary failure in name resolution")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(FieldguideError, match=r'resnet18-f37072fd\.pth to .*weights = "none"'):
        download_weights(make_project(weights="imagenet"))


def test_weights_come_from_torchs_own_cache(make_project, tmp_path, monkeypatch):
    """A copy in the cache is used as it is, for the learner and for the frozen body."""
    import torchvision

    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    network = torchvision.models.resnet18(weights=None)
    torch.save(network.state_dict(), folder / "resnet18-f37072fd.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    project = make_project(weights="imagenet")
    assert download_weights(project) is True
    assert torch.equal(pretrained_body(project)[0].weight, network.conv1.weight)
    (folder / "resnet18-f37072fd.pth").write_bytes(b"cut short")
    with pytest.raises(FieldguideError, match=r"resnet18-f37072fd\.pth are broken\. Delete that file"):
        download_weights(project)


def test_an_unknown_architecture_is_named(make_project):
    """A misspelt arch gives torchvision's version and examples."""
    with pytest.raises(FieldguideError, match="'resnet19' is no model of torchvision"):
        train.architecture(make_project(arch="resnet19"))


def test_a_fold_is_trained_on_the_other_sides_only(ready):
    """The learner of a fold never loads what it will judge."""
    ids = list(ready.pictures())
    sides = {id: "valid" if n % 2 else "train" for n, id in enumerate(ids)}
    learn = train_fold(ready, sides)
    assert {path.stem for path in learn.dls.train_ds.items} == set(ids[::2])
    assert not ready.models.exists()
