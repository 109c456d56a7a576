"""3_train: what reaches the network, what is kept, how a stopped training goes on, and what errors say."""

import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from drawn_boxes import fill_project
from PIL import Image
from train_scenes import digits_of, scenes_project, train_scenes

from utils.boxes import Box, read_boxes, read_photos, write_boxes
from utils.detect import detector_status, load_trained_detector
from utils.detect.charting import best_epoch
from utils.detect.loading import (
    NO_LABEL,
    BoxChanges,
    BoxPictures,
    box_changes,
    box_dataloaders,
    smaller_pictures,
    varied,
)
from utils.detect.network import build_detector
from utils.detect.training import BoxTraining, detector_layers, detector_learner, planned_for
from utils.errors import FieldguideError
from utils.project import REPOSITORY, Project

PHOTOS = 16


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a finished training, its project, its callback and its detector."""
    folder = tmp_path_factory.mktemp("scenes")
    project = scenes_project(folder)
    fill_project(project, PHOTOS)
    return folder, project, *train_scenes(project)


def red_square(width: int, height: int, box: tuple[int, int, int, int]) -> Image.Image:
    """Return a grey picture with a red box."""
    picture = np.full((height, width, 3), 90, np.uint8)
    picture[box[1] : box[3], box[0] : box[2]] = (200, 30, 30)
    return Image.fromarray(picture)


@pytest.mark.parametrize("seed", range(30))
def test_boxes_stay_on_their_things(seed):
    """However a photo is cut, mirrored and lit, its box is where the red is, to a pixel."""
    box = (60, 30, 110, 80)
    changes = BoxChanges(crop=0.3, upside_down=True)
    image, corners, labels = varied(
        red_square(160, 120, box), np.array([box], float), np.array([0]), changes, np.random.default_rng(seed)
    )
    pixels = np.asarray(image).astype(int)
    rows, columns = np.nonzero(pixels[..., 0] > pixels[..., 1] + 40)
    assert labels.tolist() == [0]
    assert corners[0] == pytest.approx((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), abs=1)


def test_what_is_cut_away_loses_its_label():
    """Of two boxes in opposite corners, one cut off wholly goes; one of which little is left is ignored."""
    boxes = np.array([[0, 0, 60, 60], [100, 60, 160, 120]], float)
    seen = set()
    for seed in range(200):
        draw = np.random.default_rng(seed)
        image, corners, labels = varied(Image.new("RGB", (160, 120)), boxes, np.array([0, 1]), BoxChanges(0.1), draw)
        assert len(corners) == len(labels) and (corners >= 0).all()
        assert (corners[:, 2:] <= image.size).all() and (corners[:, 2:] > corners[:, :2]).all()
        seen |= {tuple(sorted(labels.tolist()))}
    assert {(0,), (1,), (NO_LABEL, 0), (0, 1)} <= seen


def test_batches_follow_from_seed_and_epoch_alone(trained):
    """The same epoch brings the same pictures and boxes; another epoch others; the validation set never changes."""
    photos = read_photos(trained[1])
    pictures = BoxPictures(photos, changes=box_changes(trained[1]))
    (one, first), (again, second), (other, _) = pictures[3, 2], pictures[3, 2], pictures[4, 2]
    assert torch.equal(one, again) and torch.equal(first["boxes"], second["boxes"])
    assert not torch.equal(one, other)
    plain = BoxPictures(photos)
    assert torch.equal(plain[0, 2][0], plain[5, 2][0])


def test_a_batch_left_out_is_the_rest_of_the_epoch(trained):
    """A loader that skips one batch yields the others as they were, and still counts all of them."""
    photos = read_photos(trained[1])
    loader = box_dataloaders(photos, build_detector(trained[1], photos.labels, pretrained=False)).train
    loader.epoch = 1
    whole = [batch[0] for batch in loader]
    loader.skipped = 1
    assert all(torch.equal(a, b) for a, b in zip(whole[1:], [batch[0] for batch in loader], strict=True))
    assert len(loader) == len(whole)


def test_a_training_leaves_its_files(trained):
    """detector.pth, the table with a row per epoch, and the chart; no state to go on from."""
    _, project, training, detector = trained
    names = sorted(path.name for path in project.models.iterdir())
    assert names == ["box_history.csv", "detector.pth", "training.png"]
    assert [row["phase"] for row in training.rows] == ["frozen", "unfrozen"]
    parts = ("classification", "bbox_regression", "bbox_ctrness")
    for side in ("train", "valid"):
        assert training.rows[-1][f"{side}_loss"] == pytest.approx(
            sum(training.rows[-1][f"{side}_{part}"] for part in parts), abs=1e-6
        )
    loaded = load_trained_detector(read_photos(project))
    assert digits_of(loaded) == digits_of(detector) and not loaded.training
    assert loaded.record["settings"]["epochs"] == 1


def test_a_round_stands_until_something_changes(trained):
    """Run again, nothing is trained; with a box moved or another size, the sentence says that it will be."""
    folder, project, training, detector = trained
    photos = read_photos(project)
    assert detector_status(photos).startswith("The detector stands")
    before = (project.models / "detector.pth").read_bytes()
    again, same = train_scenes(project)
    assert again.stands and again.rows == training.rows and digits_of(same) == digits_of(detector)
    assert (project.models / "detector.pth").read_bytes() == before
    other = read_photos(scenes_project(folder, size=96))
    assert "a new round is trained" in detector_status(other)
    with pytest.raises(FieldguideError, match="Run 3_train again"):
        load_trained_detector(other)


def test_the_best_epoch_is_kept():
    """The highest AP50; of equals the lowest loss; where AP50 is not a number, the lowest loss."""
    rows = [{"epoch": n, "ap50": ap, "valid_loss": loss} for n, (ap, loss) in enumerate([(0.5, 2), (0.7, 3), (0.7, 1)])]
    assert best_epoch(rows) == 2 and best_epoch(rows[:2]) == 1
    assert best_epoch([row | {"ap50": float("nan")} for row in rows]) == 2


def stopped_and_gone_on(folder, trained, *, batches: int) -> str:
    """Return the digits of a detector whose training is interrupted in this process and then goes on."""
    shutil.copytree(trained[0] / "data", folder / "data")
    project = scenes_project(folder)

    class Stop(Exception):
        pass

    def stop(self):
        original(self)
        left[0] -= self.training
        if not left[0]:
            raise Stop("now")

    original, left = BoxTraining.after_batch, [batches]
    BoxTraining.after_batch = stop
    try:
        with pytest.raises(Stop):
            train_scenes(project)
    finally:
        BoxTraining.after_batch = original
    assert "it goes on with batch" in detector_status(read_photos(project))
    return digits_of(train_scenes(project)[1])


def test_a_stopped_training_ends_with_the_same_digits(trained, tmp_path):
    """Stopped in the middle of the second epoch, one batch after a backup, and begun again: no digit differs."""
    steps = len(detector_learner(read_photos(trained[1])).dls.train)
    assert stopped_and_gone_on(tmp_path, trained, batches=steps + 3) == digits_of(trained[3])


@pytest.mark.long
@pytest.mark.parametrize("batches", range(1, 7))
def test_killed_and_begun_again(trained, tmp_path, batches):
    """A process that is killed after any batch, and another that goes on, give the digits of a whole training."""
    shutil.copytree(trained[0] / "data", tmp_path / "data")
    command = [sys.executable, "-m", "tests.boxes.train_scenes", str(tmp_path)]
    killed = subprocess.run([*command, str(batches)], cwd=REPOSITORY, capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True)
    assert digits_of(load_trained_detector(read_photos(scenes_project(tmp_path)))) == digits_of(trained[3])


def test_the_pretrained_layers_wait_for_the_frozen_epochs(trained):
    """After the frozen epoch the backbone is as it came, and the head is not; later both have learned."""
    photos, seen = read_photos(trained[1]), []

    class Looked(BoxTraining):
        def after_epoch(self):
            super().after_epoch()
            seen.append([[weight.detach().clone() for weight in group] for group in detector_layers(self.model)])

    learn = detector_learner(photos)
    begun = [[weight.detach().clone() for weight in group] for group in detector_layers(learn.model)]
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, cbs=Looked(photos, planned_for(trained[1], len(learn.dls.train)), save=False))
    same = [[all(map(torch.equal, *pair)) for pair in zip(begun, after, strict=True)] for after in seen]
    assert same == [[True, False], [False, False]]


def test_broken_files_are_named(trained, tmp_path):
    """A damaged detector.pth is refused with its path and what to do; a pickle that would run is not run."""
    shutil.copytree(trained[0] / "data", tmp_path / "data")
    project = scenes_project(tmp_path)
    project.models.mkdir(parents=True)
    for data in (b"nothing of torch", pickle.dumps(print), (trained[1].models / "detector.pth").read_bytes()[:1000]):
        (project.models / "detector.pth").write_bytes(data)
        with pytest.raises(FieldguideError, match=r"detector\.pth is broken. Delete it and run 3_train again"):
            load_trained_detector(read_photos(project))


def test_memory_that_runs_out_says_what_to_set(trained, monkeypatch, tmp_path):
    """The sentence names the batch size to try, and with small batches the size of pictures."""
    shutil.copytree(trained[0] / "data", tmp_path / "data")

    def full(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("utils.detect.network.BoxDetector.forward", full)
    for settings, says in (({"batch_size": 4}, "Set batch_size = 2"), ({"batch_size": 2}, "Set size = 32")):
        with pytest.raises(FieldguideError, match=f"{says} in the project file.*run 3_train again"):
            train_scenes(scenes_project(tmp_path, **settings))
    assert smaller_pictures(Project.model_validate(trained[1].model_dump() | {"size": 320})) == "Set size = 160"


def test_what_cannot_be_learned_is_said(make_project):
    """A label without a box in the training set, photos without a side, and [augment] that would turn boxes."""
    project = make_project(task="detect", source="photos", labels={}, arch="efficientnet_lite0", size=64)
    fill_project(project, PHOTOS)
    boxes = read_boxes(project.table("boxes"))
    photos, detector = read_photos(project), build_detector(project, ("ball", "block"), pretrained=False)
    group = {
        id: [Box(b.label, *b.corners, ("group",) * (b.label == "ball")) for b in found] for id, found in boxes.items()
    }
    write_boxes(project.table("boxes"), group)
    with pytest.raises(FieldguideError, match="box around 'ball' that counts"):
        box_dataloaders(read_photos(project), detector)
    project.table("split").write_text("id,group,side\n")
    with pytest.raises(FieldguideError, match=f"{PHOTOS} photos without a side.*Run 2_photos"):
        box_dataloaders(read_photos(project), detector)
    with pytest.raises(FieldguideError, match="max_rotate, which does not go with boxes"):
        box_changes(photos.project.model_copy(update={"augment": {"max_rotate": 20.0}}))
