"""The notebooks of boxes, run top to bottom on drawn photos by `make run`'s runner."""

import json

import pytest
from drawn_boxes import draw_folder
from tiny_projects import run

from utils.boxes import read_photos
from utils.boxes.yolo import yolo_text, yolo_yaml
from utils.inference import load_detector
from utils.project import Project

pytestmark = [pytest.mark.notebooks, pytest.mark.long]
SETTINGS = """
name = "drawn ñ"
task = "detect"
source = "photos"
size = 96
epochs = 2
batch_size = 4
data_dir = "data"
models_dir = "models"
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Return the folder of a small project after 1_tables to 4_test, and 5_mend, ran on it, and what they printed."""
    folder = tmp_path_factory.mktemp("boxes, ñ")
    for name, own in draw_folder(folder / "photos", 40).items():
        (folder / "photos" / f"{name}.txt").write_text(yolo_text(own, ["ball", "block"]), encoding="utf-8")
    (folder / "photos" / "data.yaml").write_text(yolo_yaml(["ball", "block"]), encoding="utf-8")
    (folder / "project.toml").write_text(SETTINGS, encoding="utf-8")
    road = run(folder, "notebooks/run.py", "--reports", str(folder / "reports"))
    assert road.returncode == 0, road.stderr[-3000:] + road.stdout[-3000:]
    mend = run(folder, "notebooks/run.py", "5_mend", "--reports", str(folder / "reports"))
    assert mend.returncode == 0, mend.stderr[-3000:]
    return folder, road.stdout


def test_photos_stand_on_every_side(drawn):
    """All photos are taken and split, those without a thing among them; the labels are those of the files."""
    photos = read_photos(Project.load(drawn[0] / "project.toml"))
    assert len(photos) == 40 and {photo.side for photo in photos} == {"train", "valid", "test"}
    assert photos.labels == ("ball", "block") and any(not photo.boxes for photo in photos)


def test_the_road_ends_with_a_verdict_and_a_model(drawn):
    """The run tells what the detector finds; evaluation.json says the same; model.onnx answers to a photo."""
    folder, told = drawn
    project = Project.load(folder / "project.toml")
    verdict = json.loads((project.models / "evaluation.json").read_text(encoding="utf-8"))["verdict"]
    assert f"in {verdict['photos']} held-out photos it finds {verdict['found']}" in told
    assert {path.name for path in project.models.iterdir()} >= {
        *("detector.pth", "box_history.csv", "training.png", "rounds", "box_folds", "model.onnx", "card.json"),
        *("MODEL_CARD.md", "README.md", "ATTRIBUTION.csv"),
    }
    detector = load_detector(project.models / "model.onnx")
    (seen,) = detector.predict([next(iter(read_photos(project))).path])
    assert seen.error is None and detector.labels == ("ball", "block")


def test_the_command_line_cuts_things_out(drawn, tmp_path):
    """--crops writes what is found into a folder per label, from which a classifier can learn."""
    folder, _ = drawn
    model = Project.load(folder / "project.toml").models / "model.onnx"
    photos = [str(path) for path in sorted((folder / "photos").glob("*.jpg"))[:6]]
    options = ("--threshold", "0.1", "--crops", str(tmp_path / "crops"))
    done = run(folder, "-m", "utils.inference", str(model), *photos, *options)
    assert done.returncode == 0, done.stderr
    assert {path.parent.name for path in (tmp_path / "crops").rglob("*.jpg")} <= {"ball", "block"}
    assert list((tmp_path / "crops").rglob("*.jpg"))


def test_a_second_run_trains_nothing(drawn):
    """Everything stands: the detector, the verdict and the files keep their bytes."""
    folder, _ = drawn
    models = Project.load(folder / "project.toml").models
    before = {path.name: path.read_bytes() for path in models.iterdir() if path.is_file()}
    again = run(folder, "notebooks/run.py", "--reports", str(folder / "reports"))
    assert again.returncode == 0, again.stderr
    assert {path.name: path.read_bytes() for path in models.iterdir() if path.is_file()} == before
