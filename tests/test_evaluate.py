"""05: figures against scikit-learn and hand counts; rounds that stand."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss

from utils import evaluate
from utils.evaluate import evaluate_round, label_scores, read_predictions, scorecard, wilson, worst_predictions
from utils.files import FieldguideError, append_rows
from utils.project import SPLIT_COLUMNS


def some_predictions(n=60, k=3, seed=0):
    """Return labels (N,) and probabilities (N, K) that are right more often than not."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + 1.5 * np.eye(k)[labels]
    probs = np.exp(logits)
    return labels, probs / probs.sum(1, keepdims=True)


def test_the_figures_are_scikit_learns():
    """Accuracy, balanced accuracy, macro-F1 and log loss agree with scikit-learn."""
    labels, probs = some_predictions()
    card = scorecard(labels, probs)
    predicted = probs.argmax(1)
    assert card["accuracy"]["value"] == pytest.approx((predicted == labels).mean(), abs=1e-6)
    assert card["balanced_accuracy"]["value"] == pytest.approx(balanced_accuracy_score(labels, predicted), abs=1e-6)
    assert card["macro_f1"]["value"] == pytest.approx(f1_score(labels, predicted, average="macro"), abs=1e-6)
    assert card["log_loss"]["value"] == pytest.approx(log_loss(labels, probs), abs=1e-6)
    assert all(figure["low"] <= figure["value"] <= figure["high"] and figure["n"] == 60 for figure in card.values())


def test_wilson_is_the_textbooks():
    """8 of 10: 0.490 to 0.943 (Wilson 1927, as in Brown, Cai and DasGupta 2001); none of none is open."""
    figure = wilson(8, 10)
    assert (round(figure["low"], 3), round(figure["high"], 3)) == (0.490, 0.943)
    assert wilson(0, 0) == {"value": None, "low": 0.0, "high": 1.0, "n": 0}


def test_near_copies_widen_the_interval():
    """Ten copies of each picture are no tenfold evidence: the bootstrap draws them together."""
    labels, probs = some_predictions(40)
    alone = scorecard(np.repeat(labels, 10), np.repeat(probs, 10, axis=0))["log_loss"]
    grouped = scorecard(np.repeat(labels, 10), np.repeat(probs, 10, axis=0), groups=np.repeat(np.arange(40), 10))
    assert grouped["log_loss"]["high"] - grouped["log_loss"]["low"] > 2 * (alone["high"] - alone["low"])


def test_precision_and_recall_are_the_hand_counted_ones():
    """Two cats called cat, one dog called cat, one dog called dog; no owl at all."""
    scores = label_scores(["cat", "cat", "dog", "dog"], ["cat", "cat", "cat", "dog"], ["cat", "dog", "owl"])
    assert scores["cat"]["precision"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert (scores["cat"]["recall"]["value"], scores["cat"]["n"]) == (1.0, 2)
    assert (scores["dog"]["precision"]["value"], scores["dog"]["recall"]["value"]) == (1.0, 0.5)
    assert (scores["owl"]["precision"]["value"], scores["owl"]["n"]) == (None, 0)


@pytest.fixture
def judged(make_project, fill_raw, monkeypatch):
    """Return a project with sides, and a stand-in for the learner's predictions of one side."""
    from utils.verify import verify_images

    project = make_project()
    ids = fill_raw(project, 8)
    verify_images(project)
    rows = [
        {"id": id, "group": id, "side": ("test", "valid", "valid", "train")[n % 4]}
        for label in ids
        for n, id in enumerate(ids[label])
    ]
    append_rows(project.table("split"), SPLIT_COLUMNS, rows)
    asked = []

    def predict_side(project, learn, side):
        asked.append(side)
        paths = {id: project.pictures()[id] for id, its in project.sides().items() if its == side}
        table = pd.DataFrame({"cat": [0.75] * len(paths), "dog": [0.25] * len(paths)})
        for name, values in (
            ("predicted", "cat"),
            ("label", [path.parent.name for path in paths.values()]),
            ("side", side),
            ("id", list(paths)),
        ):
            table.insert(0, name, values)
        return table

    monkeypatch.setattr(evaluate, "predict_side", predict_side)
    learner = type("Learner", (), {"dls": type("Loaders", (), {"vocab": ["cat", "dog"]})})
    return project, learner, asked


def test_a_judged_round_stands_and_a_changed_one_is_the_next(judged):
    """The same fingerprint is not judged again; after a change there is a second round."""
    project, learner, asked = judged
    first = evaluate_round(project, learner)
    assert first["valid"]["accuracy"]["value"] == 0.5 and first["valid"]["accuracy"]["n"] == 8
    assert evaluate_round(project, learner) == first
    assert asked == ["valid"]
    path = next(path for id, path in project.pictures().items() if project.sides()[id] == "valid")
    path.rename(project.images / ("dog" if path.parent.name == "cat" else "cat") / path.name)
    evaluate_round(project, learner)
    assert sorted(p.parent.name for p in project.models.glob("rounds/*/predictions.csv")) == ["001", "002"]


def test_the_test_side_is_opened_only_when_asked_and_counted(judged):
    """Asked once, it is judged once; a second look at the same round costs nothing."""
    project, learner, asked = judged
    evaluate_round(project, learner)
    assert json.loads((project.models / "evaluation.json").read_text())["test_opened"] == 0
    opened = evaluate_round(project, learner, open_test=True)
    assert (opened["test_opened"], opened["test"]["accuracy"]["n"]) == (1, 4)
    assert evaluate_round(project, learner, open_test=True)["test_opened"] == 1
    assert asked.count("test") == 1
    assert [p.parent.name for p in project.models.glob("rounds/*/predictions.csv")] == ["001"]
    assert (len(read_predictions(project)), len(read_predictions(project, side="test"))) == (8, 4)


def test_a_model_trained_again_is_judged_again(judged):
    """Another learner.pth under the same labels and settings is another round's model."""
    project, learner, asked = judged
    project.models.mkdir(parents=True)
    (project.models / "learner.pth").write_bytes(b"first")
    first = evaluate_round(project, learner)
    (project.models / "learner.pth").write_bytes(b"second")
    assert evaluate_round(project, learner)["model"] != first["model"]
    assert asked == ["valid", "valid"]


def test_predictions_come_back_with_ids_as_text(judged):
    """An id of digits alone stays text, and the worst picture is a dog called cat."""
    project, learner, _ = judged
    evaluate_round(project, learner)
    table = read_predictions(project)
    assert all(len(id) == 16 for id in table.id)
    worst = worst_predictions(table, count=1).iloc[0]
    assert (worst.label, worst.predicted) == ("dog", "cat")
    assert worst.loss == pytest.approx(-np.log(0.25), abs=1e-3)


def test_predictions_that_are_not_there_say_which_notebook_to_run(make_project):
    """Before 05 the sentence names it."""
    with pytest.raises(FieldguideError, match="Run 05 first"):
        read_predictions(make_project())


@pytest.mark.parametrize(("text", "says"), [("{", "is broken"), ("[]", "is none that 05 wrote")])
def test_a_broken_evaluation_is_named(make_project, text, says):
    """A file edited by hand says which one to delete."""
    project = make_project()
    project.models.mkdir(parents=True)
    (project.models / "evaluation.json").write_text(text)
    with pytest.raises(FieldguideError, match=rf"evaluation\.json {says}"):
        evaluate.read_evaluation(project)
