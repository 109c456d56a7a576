"""04 as one call: what a study trains is what the notebook trains."""

import matplotlib.pyplot as plt
import small_set
from conftest import code_cells
from small_set import fill

from utils.dataset import read_dataset
from utils.project import REPOSITORY, Project
from utils.train import train_as_04

plain = small_set.plain
SETTINGS = """
name = "pets"
arch = "squeezenet1_1"
weights = "none"
size = 32
epochs = 2
batch_size = 4
class_weights = true
schedule = "cyclic"
augment = "strong"
data_dir = "data"
models_dir = "models"

[labels]
cat = ["cat photo"]
dog = ["dog photo"]
"""


def test_the_recipe_is_what_the_cells_of_04_do(tmp_path, monkeypatch):
    """The same figures to the last digit, epoch by epoch; nothing is written."""
    path = tmp_path / "pets.toml"
    path.write_text(SETTINGS)
    for dog in fill(Project.load(path)).on("train").of("dog").paths[:3]:
        dog.unlink()  # so that the weights of the labels matter
    dataset = read_dataset(Project.load(path))
    learn, rows = train_as_04(dataset)
    assert not dataset.project.models.exists() and len(learn.dls.vocab) == 2
    monkeypatch.setenv("PROJECT", str(path))
    monkeypatch.chdir(REPOSITORY / "notebooks")
    names: dict = {}
    exec("\n".join(code_cells(REPOSITORY / "notebooks" / "04_train.ipynb")), names)
    plt.close("all")
    theirs = names["learn"].record.history
    figures = ("epoch", "phase", "train_loss", "valid_loss", "accuracy", "lr")
    assert [[row[name] for name in figures] for row in rows] == [[row[name] for name in figures] for row in theirs]
