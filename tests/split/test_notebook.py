"""Notebook 03, its cells run in this process."""

import sys

from conftest import code_cells, draw_picture, picture_bytes, put_raw
from watching import watched

from utils.dataset import read_dataset
from utils.project import REPOSITORY, Project
from utils.verify import verify_images

SETTINGS = """
name = "pets"
data_dir = "data"
models_dir = "models"
[labels]
cat = ["cat photo"]
dog = ["dog photo"]
"""


def run_03(folder, monkeypatch):
    """Run the code cells of 03 on the project of `folder`."""
    monkeypatch.setenv("PROJECT", str(folder / "project.toml"))
    monkeypatch.setattr("sys.path", list(sys.path))
    exec("\n".join(code_cells(REPOSITORY / "notebooks" / "03_split.ipynb")), {})


def test_03_reads_folders_and_tables_once(tmp_path, monkeypatch, fill_raw, capsys):
    """Each label's folder is walked once, split.csv and pictures.csv are read once; the end says what was written."""
    (tmp_path / "project.toml").write_text(SETTINGS)
    project = Project.load(tmp_path / "project.toml")
    fill_raw(project, 12)
    image = draw_picture(901, size=(400, 300))
    for quality in (95, 50):
        put_raw(project, "cat", picture_bytes(image, quality=quality))
    verify_images(project)
    for new in (26, 0):
        with watched() as seen:
            run_03(tmp_path, monkeypatch)
        said = capsys.readouterr().out
        assert f"Pictures new in split.csv: {new}." in said
        assert "Compared by content: 26 pictures, 1 group of near-duplicates." in said
        assert "pictures that share a group: 2." in said and "no group that was found stands on" in said
        assert f"Written: {project.table('split')}, {project.data / 'split.json'}" in said
        folders = {label: seen[str(project.images / label)] for label in project.labels}
        assert folders == {"cat": 1, "dog": 1}
        # The first time the table is made, under another name; the second time it is read, and nothing is added.
        assert (seen[str(project.table("pictures"))], seen[str(project.table("split"))]) == (1, int(new == 0))
    assert read_dataset(project).sides.count(None) == 0
