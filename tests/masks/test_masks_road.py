"""03a on the drawn sample: its true outlines are the source of masks, so the road needs no network."""

import numpy as np
import pytest
from conftest import tree
from PIL import Image
from tiny_projects import SEA, SETTINGS, run

from sample import save_outlines
from utils.dataset import read_dataset
from utils.masks import MaskPainter, read_masker
from utils.project import Project

pytestmark = [pytest.mark.notebooks, pytest.mark.long]
SOURCE = 'source = "sample"\nmask_source = "outlines"'


def test_03a_learns_the_outlines_of_the_sample(tmp_path):
    """01 to 03a: masks are copied, a masker is fitted and shown; a second run changes no file."""
    text = SETTINGS.format(source=SOURCE).replace("size = 32", "size = 128") + SEA
    (tmp_path / "project.toml").write_text(text, encoding="utf-8")
    project = Project.load(tmp_path / "project.toml")
    assert save_outlines(project, tmp_path / "outlines", per_label=6) == 18
    names = ["01_download", "02_verify", "03_split", "03a_masks"]
    done = run(tmp_path, "notebooks/run.py", *names, "--reports", str(tmp_path / "reports"))
    assert done.returncode == 0, done.stderr
    masks = sorted((project.data / "masks").glob("*.png"))
    photos = {path.stem: path for path in project.images.glob("*/*.jpg")}
    assert len(masks) > 12 and {path.stem for path in masks} <= photos.keys()
    for path in masks:
        assert Image.open(path).size == Image.open(photos[path.stem]).size
    assert (
        np.mean([one.iou for one in read_masker(project.models / "masker.safetensors").judged]) > 0.4
    )  # an ellipse of the same size gets less
    page = (tmp_path / "reports" / "03a_masks.html").read_text(encoding="utf-8")
    assert "Mean IoU" in page and page.count("data:image/jpeg") >= 2
    before = tree(project.data) | tree(project.models)
    done = run(tmp_path, "notebooks/run.py", "03a_masks", "--reports", str(tmp_path / "reports"))
    assert done.returncode == 0, done.stderr
    assert tree(project.data) | tree(project.models) == before


def test_03a_runs_where_masks_are_still_to_be_painted(tmp_path):
    """With none, and with one that is too few for a masker: the notebook says what to do."""
    text = SETTINGS.format(source='source = "sample"\nmask_source = "paint"').replace("size = 32", "size = 128") + SEA
    (tmp_path / "project.toml").write_text(text, encoding="utf-8")
    project = Project.load(tmp_path / "project.toml")
    names = ["01_download", "02_verify", "03_split", "03a_masks"]
    done = run(tmp_path, "notebooks/run.py", *names, "--reports", str(tmp_path / "reports"))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "reports" / "03a_masks.html").read_text(encoding="utf-8")
    assert "There is no mask yet." in page and "paint 10 more" in page
    dataset = read_dataset(project)
    painter, id = MaskPainter(dataset), dataset.on("train").ids[0]
    stroke = {"ask": "stroke", "key": id, "do": "brush", "size": 30, "points": [[40, 40]], "token": "v1-1"}
    assert painter.answer(stroke)[0]["tell"] == "saved"
    done = run(tmp_path, "notebooks/run.py", "03a_masks", "--reports", str(tmp_path / "reports"))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "reports" / "03a_masks.html").read_text(encoding="utf-8")
    assert "paint more below" in page and "paint 9 more" in page
