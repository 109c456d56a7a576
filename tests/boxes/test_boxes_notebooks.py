"""The notebooks 1_tables and 2_photos, run top to bottom on drawn photos."""

import os

import nbformat
import pytest
from drawn_boxes import draw_folder
from nbclient import NotebookClient

from utils.boxes import read_photos
from utils.boxes.yolo import yolo_text, yolo_yaml
from utils.project import REPOSITORY, Project

pytestmark = pytest.mark.notebooks
SETTINGS = """
name = "drawn ñ"
task = "detect"
source = "photos"
size = 64
data_dir = "data"
models_dir = "models"
"""


def test_the_first_two_notebooks_take_and_split_photos(tmp_path, monkeypatch):
    """Run in an unattended kernel, they leave photos with boxes on every side, and show a sheet and a table."""
    for name, own in draw_folder(tmp_path / "photos", 24).items():
        (tmp_path / "photos" / f"{name}.txt").write_text(yolo_text(own, ["ball", "block"]), encoding="utf-8")
    (tmp_path / "photos" / "data.yaml").write_text(yolo_yaml(["ball", "block"]), encoding="utf-8")
    (tmp_path / "boxes.toml").write_text(SETTINGS, encoding="utf-8")
    monkeypatch.setitem(os.environ, "PROJECT", str(tmp_path / "boxes.toml"))
    for name in ("1_tables", "2_photos"):
        path = REPOSITORY / "notebooks" / "boxes" / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
        shown = {
            kind for cell in notebook.cells for output in cell.get("outputs", ()) for kind in output.get("data", ())
        }
        assert {"image/jpeg", "text/html"} <= shown
    photos = read_photos(Project.load(tmp_path / "boxes.toml"))
    assert len(photos) == 24 and {photo.side for photo in photos} == {"train", "valid", "test"}
    assert photos.labels == ("ball", "block")
