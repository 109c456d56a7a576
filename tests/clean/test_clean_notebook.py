"""Notebook 06, run from top to bottom: it shows what would move, and moves only what choices.csv asks for."""

import os
from pathlib import Path

import nbformat
import pytest
from conftest import tree
from nbclient import NotebookClient
from test_heads import ready_dataset

from utils.dataset import read_dataset
from utils.heads import judges_fingerprint
from utils.ledger import read_review, save_flags
from utils.project import REPOSITORY, Project
from utils.tables import OUT_OF_FOLD_COLUMNS, write_table

pytestmark = pytest.mark.notebooks
SETTINGS = """
name = "pets"
weights = "none"
size = 32
data_dir = "data"
models_dir = "models"
[labels]
cat = ["cat"]
dog = ["dog"]
"""


@pytest.fixture
def project(tmp_path, fill_raw, monkeypatch) -> Project:
    """A project of 24 pictures with a split, as notebooks load it."""
    (tmp_path / "project.toml").write_text(SETTINGS)
    monkeypatch.setenv("PROJECT", str(tmp_path / "project.toml"))
    project = Project.load()
    fill_raw(project, 12)
    ready_dataset(project)
    return project


def judge(project: Project, says: dict[str, int]) -> None:
    """Keep in out_of_fold.csv that judges name the labels of `says` (id → 0 or 1) with 90 %, for the labels as now."""
    dataset = read_dataset(project)
    rows = [
        {"id": id, "fingerprint": judges_fingerprint(dataset), "distance": 1.0, "cat": 0.9 - 0.8 * says[id]}
        for id in dataset.ids
    ]
    columns = (*OUT_OF_FOLD_COLUMNS, *project.labels)
    write_table(project.models / "out_of_fold.csv", columns, [row | {"dog": 1 - row["cat"]} for row in rows])


def run_06() -> str:
    """Run the notebook in a kernel of its own; return all that its cells show."""
    path = REPOSITORY / "notebooks" / "06_clean.ipynb"
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def test_run_all_moves_no_picture(project):
    """Flags that nobody applied stay flags; the last cell tells what would move, and that no table changed."""
    dataset = read_dataset(project)
    judge(project, dict(zip(dataset.ids, dataset.codes, strict=True)))
    cat, dog = dataset.of("cat").ids[0], dataset.of("dog").ids[0]
    save_flags(project, {cat: "dog", dog: "Delete"})
    for path in (project.models / "out_of_fold.csv", project.table("review")):
        os.utime(path, (0, 0))  # from long ago, however quickly the kernel starts
    before = tree(project.images)
    shown = run_06()
    assert tree(project.images) == before and not project.trash.exists()
    assert read_review(project) == {cat: "dog", dog: "Delete"}
    assert "No choices to take over" in shown
    assert "The judges agree with the folder for 24 of 24 photos; guessing would get 12." in shown
    assert "2 pictures would move. Nothing moves until you press Apply (2)" in shown
    assert sorted(shown.split(f"{cat}.jpg")[1].split()[:2]) == ["cat", "dog"] and "trash" in shown
    unchanged = next(line for line in shown.splitlines() if line.startswith("Unchanged: "))
    names = [Path(name).name for name in unchanged.removeprefix("Unchanged: ").split(", ")]
    assert names == ["out_of_fold.csv", "review.csv"]
    assert "No map" not in shown and (project.data / "features" / "map.npz").exists()


def test_a_file_of_choices_is_carried_out_and_nothing_else(project):
    """choices.csv is a person's own act: its pictures move, a waiting flag does not; judges see the new labels."""
    dataset = read_dataset(project)
    cat, dog = dataset.of("cat").ids[0], dataset.of("dog").ids[0]
    places = project.images / "cat" / f"{cat}.jpg", project.images / "dog" / f"{cat}.jpg"
    places[0].rename(places[1])
    says = dict(zip(dataset.ids, dataset.codes, strict=True))
    judge(project, says)
    places[1].rename(places[0])
    save_flags(project, {dog: "cat"})
    project.table("choices").write_text(f"id,choice\n{cat},dog\n")
    shown = run_06()
    after = read_dataset(project)
    assert (after[cat].label, after[dog].label, read_review(project)) == ("dog", "dog", {dog: "cat"})
    assert "Took over 1 choice from choices.csv. Moved 1 to another label and 0 to the trash. Next: run 03" in shown
    assert "corrections.csv" in shown and "1 picture would move" in shown
    assert "23 of 24 photos" in shown  # the moved picture is a suspect under its new label


def test_judges_no_better_than_guessing_close_the_list(project):
    """With judges that say dog of all, 06 lists no suspect, says why, and points to 02."""
    judge(project, dict.fromkeys(read_dataset(project).ids, 1))
    shown = run_06()
    assert "12 of 24 photos; guessing would get 12. That is no better than guessing. So there is no list" in shown
    assert "Look at the contact sheets of 02" in shown and "No suspects to show." in shown
    assert "No map: " in shown
