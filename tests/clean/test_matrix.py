"""05's matrix as buttons: its numbers are those of scikit-learn, and a cell shows its pictures in the grid."""

import numpy as np
import pandas as pd
import pytest
from cleaning_pictures import PROBS, draw, make_project
from sklearn.metrics import confusion_matrix

from utils.clean import ImageClassifierCleaner, predicted_probs
from utils.clean.matrix import MOST_LABELS
from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.ledger import DELETE


def test_its_numbers_are_those_of_scikit_learn_on_what_was_judged(tmp_path):
    dataset = read_dataset(make_project(tmp_path))
    judged = [n % 3 > 0 for n in range(len(dataset.ids))]
    probs = np.where(np.array(judged)[:, None], PROBS, np.nan)
    table = ImageClassifierCleaner(dataset=dataset, probs=probs).matrix().table
    wanted = confusion_matrix(np.array(dataset.codes)[judged], PROBS[judged].argmax(1)).tolist()
    assert (table["labels"], table["counts"], table["note"]) == (["cat", "dog"], wanted, "")


def test_a_cell_shows_its_pictures_the_most_confident_first_and_the_way_back(tmp_path):
    cleaner = ImageClassifierCleaner(project=make_project(tmp_path), probs=PROBS)
    grid, sent = cleaner.widget, []
    grid.send = lambda message, buffers=None: sent.append(message)
    assert cleaner.matrix().answer({"row": 0, "column": 0}).startswith("3 pictures shown in the cleaner below")
    assert [card["key"] for card in sent[-1]["cards"]] == ["c0", "c3", "c1"]
    assert (sent[-1]["order"], sent[-1]["back"]) == ("Most confident first", "Back to all pictures")


def test_after_apply_a_press_counts_the_folders_of_now(tmp_path):
    """c2 was deleted elsewhere in the kernel: it is in no cell, and the table says so from the next press on."""
    cleaner = ImageClassifierCleaner(project=make_project(tmp_path), probs=PROBS)
    matrix = cleaner.matrix()
    assert matrix.table["counts"][0] == [3, 1]
    cleaner.cleaning.flag({"c2": DELETE})
    cleaner.apply()
    assert matrix.answer({"row": 0, "column": 1}) == "No picture is in this cell any more."
    assert matrix.table["counts"][0] == [3, 0]


def test_of_many_labels_those_with_the_most_errors_are_shown(tmp_path):
    """Of 1,000 labels a browser gets 24 rows and columns, and a sentence says so."""
    labels = (*(f"k{n:03}" for n in range(998)), "cat", "dog")
    project = make_project(tmp_path, labels=labels)
    for label in labels[:40]:
        draw(project.images / label / f"{label}.jpg", (200, 200, 200))
    with project.table("split").open("a") as table:
        table.writelines(f"{label},{label},train\n" for label in labels[:40])
    dataset = read_dataset(project)
    probs = np.zeros((len(dataset.ids), len(project.labels)))
    probs[np.arange(len(probs)), dataset.codes] = 1
    probs[dataset.position["d0"]] = np.eye(len(labels))[list(project.labels).index("k039")]
    table = ImageClassifierCleaner(dataset=dataset, probs=probs).matrix().table
    assert {"dog", "k039"} <= set(table["labels"]) and len(table["counts"]) == len(table["labels"]) == MOST_LABELS
    assert table["note"] == "24 of 42 labels: those with the most errors."


@pytest.mark.parametrize(
    "message",
    [None, [], {}, {"row": 2, "column": 0}, {"row": -1, "column": 0}, {"row": True, "column": 0}, {"row": "0"}],
)
def test_a_hostile_message_opens_nothing(tmp_path, message):
    cleaner = ImageClassifierCleaner(project=make_project(tmp_path), probs=PROBS)
    cleaner.widget.send = lambda *_: pytest.fail("the grid was told to show something")
    assert "There is no such cell" in cleaner.matrix().answer(message)


def test_without_answers_there_is_no_matrix(tmp_path):
    with pytest.raises(FieldguideError, match="give the cleaner probs"):
        ImageClassifierCleaner(project=make_project(tmp_path)).matrix()


def test_predictions_become_probabilities_by_id(tmp_path):
    """Ids of today in the order of today; a picture without a prediction has NaN, a label unknown to the model 0."""
    dataset = read_dataset(make_project(tmp_path))
    predictions = pd.DataFrame({"id": ["d1", "gone", "c0"], "predicted": "cat", "cat": [0.7, 1.0, 0.6]})
    probs = predicted_probs(dataset, predictions)
    assert probs[dataset.position["d1"]].tolist() == [0.7, 0] and probs[dataset.position["c0"]].tolist() == [0.6, 0]
    assert np.isnan(probs).all(1).sum() == len(dataset.ids) - 2


def test_a_broken_table_of_choices_is_told(tmp_path):
    """A press answers with the sentence that the grid would show, and not at all by silence."""
    project = make_project(tmp_path)
    matrix = ImageClassifierCleaner(project=project, probs=PROBS).matrix()
    project.table("review").write_text("no,such,columns\n1,2,3\n")
    assert "review.csv" in matrix.answer({"row": 0, "column": 0})
