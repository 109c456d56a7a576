"""05: rounds that stand, openings of the test set that are counted, figures that say why they are missing."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tree
from fastai.vision.all import aug_transforms
from sklearn.metrics import confusion_matrix

from utils.dataset import Dataset, read_dataset, round_fingerprint
from utils.errors import FieldguideError
from utils.evaluate import evaluation as evaluate
from utils.evaluate import shortcuts
from utils.evaluate.evaluation import (
    confused_pairs,
    evaluate_round,
    label_table,
    pair_table,
    predict_side,
    round_figures,
    score_table,
    worst_predictions,
)
from utils.evaluate.rounds import read_evaluation, read_predictions, save_predictions
from utils.evaluate.scores import scorecard
from utils.intervals import verdict
from utils.tables import SOURCES_COLUMNS, SPLIT_COLUMNS, append_rows
from utils.verify import verify_images
from utils.words import SETS

FIGURES = {"accuracy", "balanced_accuracy", "macro_f1", "auc", "log_loss", "calibration_error"}


def some_predictions(dataset, side):
    """Return a stand-in's predictions of one side: drawn from the id, right more often than not."""
    vocab, rows = list(dataset.project.labels), []
    for picture in dataset.on(side):
        rng = np.random.default_rng(int(picture.id[:8], 16))
        probs = np.exp(rng.normal(size=len(vocab)) + (np.array(vocab) == picture.label))
        probs /= probs.sum()
        said = vocab[int(probs.argmax())]
        row = {"id": picture.id, "side": side, "label": picture.label, "predicted": said}
        rows.append(row | dict(zip(vocab, probs.tolist(), strict=True)))
    return pd.DataFrame(rows, columns=["id", "side", "label", "predicted", *vocab])


class Learner:
    """Stands for a learner of the project as it is now, with the record of its training."""

    def __init__(self, project, *, changed="", augment=(), **settings):
        steps = SimpleNamespace(after_item=SimpleNamespace(fs=[]), after_batch=SimpleNamespace(fs=augment))
        self.dls = SimpleNamespace(vocab=list(project.labels), train=steps)
        settings = {"arch": "resnet18", "epochs": 1} | settings
        fingerprint = round_fingerprint(read_dataset(project), settings)
        self.record = SimpleNamespace(fingerprint=fingerprint, settings=settings, changed=changed)


def evaluated(project, learn=None, **options):
    """Return what 05 gives on the project as it is now."""
    return evaluate_round(read_dataset(project), learn or Learner(project), **options)


@pytest.fixture
def ready(make_project, fill_raw, monkeypatch):
    """Return a project with sides, eight pictures per label, and the list of the sides that a stand-in predicted."""
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

    def predict_side(dataset, learn, side, cbs=()):
        asked.append(f"{side} mirrored" if cbs else side)
        table = some_predictions(dataset, side)
        if cbs:  # sure of another label than the folder's: the mean of both answers is wrong
            for label in dataset.project.labels:
                table[label] = (table.label != label).astype(float)
        return table

    monkeypatch.setattr(evaluate, "predict_side", predict_side)
    monkeypatch.setattr(shortcuts, "PERMUTATIONS", 3)
    return project, asked


def alone(project, table):
    """Return a data set of the pictures in a table of predictions, each a group of its own."""
    rows = (tuple(table.id), tuple(table.id), tuple(table.label), tuple(table.id), tuple(table.side))
    return Dataset(project, *rows, {})


def strict(project):
    """Return evaluation.json, refusing what JSON does not know (NaN, Infinity)."""
    text = (project.models / "evaluation.json").read_text(encoding="utf-8")
    return json.loads(text, parse_constant=lambda name: pytest.fail(name))


def test_evaluation_holds_every_figure(ready):
    """Each figure has value, low, high and n; counts, bins, temperature and shortcuts are there, in strict JSON."""
    project, _ = ready
    evaluation = evaluated(project)
    assert strict(project) == evaluation
    assert set(evaluation) == {
        *("form", "valid", "test", "labels", "test_labels", "confusion", "confused", "temperature", "reliability"),
        *("shortcuts", "test_opened", "fingerprint", "model", "verdict", "settings", "changed", "mirrored"),
    }
    assert set(evaluation["valid"]) == FIGURES | {"calibration_error_scaled"}
    entries = [*evaluation["valid"].values(), evaluation["temperature"], evaluation["shortcuts"]["accuracy"]]
    entries += [of[name] for of in evaluation["labels"].values() for name in ("precision", "recall", "f1")]
    entries += [pair["share"] for pair in evaluation["confused"]]
    entries += [b["right"] for bins in evaluation["reliability"].values() for b in bins]
    assert [entry for entry in entries if not {"value", "low", "high", "n"} <= set(entry)] == []
    table = read_predictions(project)
    expected = confusion_matrix(table.label, table.predicted, labels=["cat", "dog"])
    assert [list(row.values()) for row in evaluation["confusion"].values()] == expected.tolist()
    assert (evaluation["test"], evaluation["test_labels"], evaluation["test_opened"]) == ({}, {}, 0)


def test_marks_are_looked_for_in_a_round_that_stands(ready):
    """A round that an earlier version judged without them gets its marks; nothing is judged again."""
    project, asked = ready
    first = evaluated(project)
    old = json.loads(json.dumps(first))
    del old["shortcuts"]["marks"]
    (project.models / "evaluation.json").write_text(json.dumps(old), encoding="utf-8")
    assert evaluated(project) == first == strict(project) and asked == ["valid"]
    assert first["shortcuts"]["marks"]["pictures"] == 12


def test_a_second_look_is_measured_where_training_mirrored(ready):
    """The validation set is judged mirrored, too, also of a round that stands; with do_flip = false it says why not."""
    project, asked = ready
    learn = Learner(project, augment=aug_transforms())
    first = evaluated(project, learn)
    assert asked == ["valid", "valid mirrored"]
    found, plain = first["mirrored"], first["valid"]["accuracy"]["value"]
    assert plain > 0 and (found["before"]["value"], found["after"]["value"]) == (plain, 0.0)
    assert found["difference"]["value"] == -plain and found["gained"] == 0
    old = {key: value for key, value in first.items() if key != "mirrored"}
    (project.models / "evaluation.json").write_text(json.dumps(old), encoding="utf-8")
    assert evaluated(project, learn) == first == strict(project)
    assert asked == ["valid", "valid mirrored", "valid mirrored"]
    (project.models / "evaluation.json").unlink()
    handed = evaluated(project, Learner(project, augment=aug_transforms(do_flip=False)))["mirrored"]
    assert list(handed) == ["why"] and "do_flip = false" in handed["why"] and asked[3:] == ["valid"]


def test_a_judged_round_stands_and_a_changed_one_is_the_next(ready):
    """The same fingerprint is not judged again and no file is touched; after a change there is a second round."""
    project, asked = ready
    first = evaluated(project)
    assert first["valid"]["accuracy"]["n"] == 8
    before = {path: path.stat().st_mtime_ns for path in project.models.rglob("*")}
    assert evaluated(project) == first
    assert {path: path.stat().st_mtime_ns for path in project.models.rglob("*")} == before
    assert asked == ["valid"]
    path = read_dataset(project).on("valid").paths[0]
    path.rename(project.images / ("dog" if path.parent.name == "cat" else "cat") / path.name)
    evaluated(project)
    assert sorted(p.parent.name for p in project.models.glob("rounds/*/predictions.csv")) == ["001", "002"]


def test_the_same_round_gives_the_same_bytes(ready):
    """Judged again from nothing, every file is the same to the last byte."""
    project, _ = ready
    evaluated(project, open_test=True)
    first = tree(project.models)
    for name in first:
        (project.models / name).unlink()
    evaluated(project, open_test=True)
    assert tree(project.models) == first


def test_the_test_side_is_opened_only_when_asked_and_counted(ready):
    """Asked once, it is judged once; a second look at the same round costs nothing, the next round's look counts."""
    project, asked = ready
    evaluated(project)
    assert strict(project)["test_opened"] == 0
    opened = evaluated(project, open_test=True)
    assert (opened["test_opened"], opened["test"]["accuracy"]["n"]) == (1, 4)
    assert set(opened["test"]) == FIGURES | {"calibration_error_scaled"}
    assert {label: of["n"] for label, of in opened["test_labels"].items()} == {"cat": 2, "dog": 2}
    assert evaluated(project, open_test=True)["test_opened"] == 1
    assert asked.count("test") == 1
    assert [p.parent.name for p in project.models.glob("rounds/*/predictions.csv")] == ["001"]
    assert (len(read_predictions(project)), len(read_predictions(project, side="test"))) == (8, 4)
    read_dataset(project).on("train").paths[0].unlink()
    assert evaluated(project)["test_opened"] == 1
    assert evaluated(project, open_test=True)["test_opened"] == 2


def test_what_was_opened_stays_counted(ready):
    """With evaluation.json deleted, or a run killed before it was written, the rounds remember; none counts twice."""
    project, _ = ready
    evaluated(project, open_test=True)
    for open_test in (True, False):
        (project.models / "evaluation.json").unlink()
        assert evaluated(project, open_test=open_test)["test_opened"] == 1
    assert evaluated(project, open_test=True)["test_opened"] == 2  # shut in between
    assert [p.parent.name for p in project.models.glob("rounds/*/predictions.csv")] == ["001"]


def test_a_model_trained_again_is_judged_again(ready):
    """Another learner.pth under the same labels and settings is another round's model."""
    project, asked = ready
    project.models.mkdir(parents=True)
    (project.models / "learner.pth").write_bytes(b"first")
    first = evaluated(project)
    (project.models / "learner.pth").write_bytes(b"second")
    assert evaluated(project)["model"] != first["model"]
    assert asked == ["valid", "valid"]


def older(project, **changed):
    """Turn evaluation.json into one that an earlier version wrote; return it."""
    path = project.models / "evaluation.json"
    new = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: new[key] for key in ("valid", "test", "labels", "test_opened", "fingerprint", "model")}
    path.write_text(json.dumps(kept | changed), encoding="utf-8")


def test_a_round_judged_in_an_older_form_is_judged_again(ready):
    """Its figures are made anew, the open test set among them; round and counter stay."""
    project, asked = ready
    new = evaluated(project, open_test=True)
    for open_test in (False, True):
        older(project)
        assert evaluated(project, open_test=open_test) == new
    assert [p.parent.name for p in project.models.glob("rounds/*/predictions.csv")] == ["001"]
    assert asked == ["valid", "test"] * 3


def test_a_models_folder_of_the_version_before_says_train_again(ready):
    """Its fingerprint is of another kind: one sentence; after 04 and 05 a new round, the test set still counted."""
    project, _ = ready
    evaluated(project, open_test=True)
    older(project, form=3, fingerprint="of another kind", test_opened=2)
    with pytest.raises(FieldguideError, match=r"evaluation\.json is of another version.*: run 04 and 05\.$"):
        read_evaluation(project)
    assert evaluated(project, Learner(project, epochs=3))["test_opened"] == 2
    assert read_evaluation(project)["settings"]["epochs"] == 3


def test_the_verdict_comes_with_the_settings_that_were_really_used(ready):
    """The verdict is the validation set's until the test set is open; settings and what changed are the record's."""
    project, asked = ready
    told = "Cells of 04 were changed: it trained with epochs = 1 instead of 3."
    learn = Learner(project, epochs=1, changed=told)
    evaluation = evaluated(project, learn)
    assert (evaluation["settings"], evaluation["changed"]) == (learn.record.settings, told)
    assert evaluation["fingerprint"] == learn.record.fingerprint
    for side, open_test in (("valid", False), ("test", True), ("test", False)):
        table = some_predictions(read_dataset(project), side)
        expected = verdict(table.label, table.predicted) | {"side": side}
        assert evaluated(project, learn, open_test=open_test)["verdict"] == expected
    assert strict(project)["verdict"]["side"] == "test"
    judged = len(asked)
    learn.record.changed = ""  # the project file says now what was trained
    assert evaluated(project, learn)["changed"] == "" == strict(project)["changed"]
    assert len(asked) == judged


def test_other_settings_are_another_round(ready):
    """A learner trained otherwise is not the one that was judged, though pictures and labels are the same."""
    project, asked = ready
    first = evaluated(project)
    assert evaluated(project, Learner(project, epochs=9))["fingerprint"] != first["fingerprint"]
    assert asked == ["valid", "valid"]


def test_the_verdict_counts_near_duplicates_once(ready):
    """All pictures of the validation set in one group are one picture."""
    project, _ = ready
    text = project.table("split").read_text().splitlines()
    rows = [line.split(",") for line in text[1:]]
    one = [f"{id},{'copies' if side == 'valid' else group},{side}" for id, group, side in rows]
    project.table("split").write_text("\n".join([text[0], *one]) + "\n")
    found = evaluated(project)["verdict"]
    assert (found["n"], found["pictures"]) == (1, 8)


def test_a_picture_deleted_since_training_asks_for_04(ready):
    """The learner's pictures are no longer the project's: nothing is written under the wrong fingerprint."""
    project, _ = ready
    learn = Learner(project)
    read_dataset(project).paths[0].unlink()
    with pytest.raises(FieldguideError, match=r"changed since this model was trained\. Run 03 and 04 again"):
        evaluated(project, learn)
    assert not project.models.exists()


def test_unknown_and_doubled_ids_in_the_split_do_no_harm(ready):
    """An id without a picture is passed over, the first row of a doubled one counts."""
    project, _ = ready
    first = evaluated(project)
    id = read_dataset(project).on("valid").ids[0]
    rows = [{"id": "f" * 16, "group": "f" * 16, "side": "valid"}, {"id": id, "group": "x", "side": "test"}]
    append_rows(project.table("split"), SPLIT_COLUMNS, rows)
    (project.models / "evaluation.json").unlink()
    assert evaluated(project) == first


def test_a_label_that_valid_lacks_has_no_figures_and_says_so(make_project):
    """Nothing fails and no NaN comes about: its recall is None with the reason, the others are as usual."""
    project = make_project(labels={name: [name] for name in ("cat", "dog", "owl")})
    rng = np.random.default_rng(0)
    probs = rng.dirichlet((1, 1, 1), size=20)
    valid = pd.DataFrame(probs, columns=["cat", "dog", "owl"])
    valid.insert(0, "predicted", [valid.columns[k] for k in probs.argmax(1)])
    valid.insert(0, "label", ["cat", "dog"] * 10)
    valid.insert(0, "side", "valid")
    valid.insert(0, "id", [f"{n:016}" for n in range(20)])
    figures = round_figures(alone(project, valid), valid, valid[:0])
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    owl = figures["labels"]["owl"]
    assert (owl["n"], owl["recall"]["value"], owl["f1"]["value"]) == (0, None, None)
    assert owl["recall"]["why"] == "there is no picture of 'owl' in this set"
    assert label_table(figures["labels"]).loc["owl", "f1"] == "– (there is no picture of 'owl' in this set)"
    labels = [("cat", "dog", "owl").index(label) for label in valid.label]
    assert figures["valid"]["auc"] == scorecard(labels, probs)["auc"]


@pytest.mark.parametrize("count", [1, 2])
def test_a_side_of_one_or_two_pictures_is_judged(make_project, count):
    """Values where there are any, None and the reason where there are not; the tables show both."""
    project = make_project()
    valid = pd.DataFrame({"id": ["a", "b"], "side": "valid", "label": "cat", "predicted": ["cat", "dog"]})
    valid["cat"], valid["dog"] = [0.9, 0.2], [0.1, 0.8]
    figures = round_figures(alone(project, valid), valid[:count], valid[:count].assign(side="test"))
    json.dumps(figures, allow_nan=False)
    assert figures["valid"]["accuracy"]["value"] == 1 / count
    table = score_table(figures["valid"])
    assert table.loc["auc", "why"] == "all pictures are of one label" and np.isnan(table.loc["auc", "value"])
    assert figures["test"]["calibration_error_scaled"]["n"] == count


def test_predictions_come_back_and_the_worst_is_the_surest_error(ready):
    """Sorted by loss, −ln of the probability of the picture's own label; file and probability are shown."""
    project, _ = ready
    table = some_predictions(read_dataset(project), "valid")
    save_predictions(project, table, again=False)
    worst = worst_predictions(read_predictions(project), count=3)
    losses = [-np.log(row[row.label]) for _, row in table.iterrows()]
    assert worst.loss.tolist() == pytest.approx(sorted(losses, reverse=True)[:3], abs=1e-3)
    place = int(np.argmax(losses))
    assert worst.file[0] == f"{table.label[place]}/{table.id[place]}.jpg"
    assert worst.probability[0] == pytest.approx(table.loc[place, ["cat", "dog"]].max(), abs=1e-3)


def test_the_worst_are_called_as_their_giver_called_them(ready):
    """Own file names come first, where a person gave any; else the table is as it was."""
    project, _ = ready
    dataset = read_dataset(project)
    save_predictions(project, some_predictions(dataset, "valid"), again=False)
    worst = worst_predictions(read_predictions(project), dataset, count=3)
    assert worst.columns[0] == "file"
    label, id = worst.file[1].removesuffix(".jpg").split("/")
    row = {"id": id, "label": label, "engine": "folder", "title": "IMG 1.jpg"}
    append_rows(project.table("sources"), SOURCES_COLUMNS, [row])
    named = worst_predictions(read_predictions(project), read_dataset(project), count=3)
    assert list(named.columns)[:2] == ["own name", "file"]
    assert list(named["own name"]) == ["", "IMG 1.jpg", ""] and named.drop(columns="own name").equals(worst)


def test_the_most_confused_pairs_come_first():
    """Counted by hand: 3 of 5 dogs are called cats, 1 of 4 cats a dog; what is right is no confusion."""
    rows = [("cat", "cat")] * 3 + [("cat", "dog")] + [("dog", "cat")] * 3 + [("dog", "dog")] * 2
    table = pd.DataFrame(rows, columns=["label", "predicted"])
    pairs = confused_pairs(table, groups=range(9))
    assert [(pair["label"], pair["predicted"], pair["pictures"]) for pair in pairs] == [
        ("dog", "cat", 3),
        ("cat", "dog", 1),
    ]
    assert pair_table(pairs).values.tolist()[0] == ["dog", "cat", 3, 5, "60 % (23 % to 88 %)"]
    assert len(pair_table(pairs, count=1)) == 1 and pair_table([]).empty
    assert confused_pairs(table[:3], groups=range(3)) == []
    copies = confused_pairs(table, groups=[*"abcde", "e", "e", "f", "g"])  # the three dogs are one
    assert copies[0]["share"]["high"] > pairs[0]["share"]["high"] and copies[0]["share"]["n"] == 5


def test_the_score_table_of_a_shut_side_is_empty():
    """No figures, no rows, the same columns."""
    assert list(score_table({}).columns) == ["value", "95 % from", "to", "n"] and score_table({}).empty


class Answering(Learner):
    """Stands for a learner whose get_preds answers, or fails, as told."""

    def __init__(self, project, answer):
        super().__init__(project)
        self.answer = answer
        self.dls.test_dl = lambda paths: paths

    def get_preds(self, dl, cbs=()):
        """Return the answer for each picture."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return (torch.tensor([self.answer] * len(dl)), None)


def test_predictions_are_sorted_by_id_and_sum_to_one(ready, monkeypatch):
    """One row a picture of the side, in the order of ids; a last digit lost in single precision is put right."""
    project, _ = ready
    table = predict_side(read_dataset(project), Answering(project, [0.25, 0.7500001]), "valid")
    assert table.id.tolist() == list(read_dataset(project).on("valid").ids)
    assert table.predicted.unique().tolist() == ["dog"]
    assert (table.cat + table.dog).tolist() == pytest.approx([1] * 8, abs=1e-15)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (FileNotFoundError("no such file: a.jpg"), r"moved or deleted while it was judged \(no such file: a\.jpg\)"),
        (OSError("image file is truncated"), r"cannot be read \(image file is truncated\)\. Remove it"),
        ([float("nan"), 0.5], "something other than numbers: its training failed"),
    ],
)
def test_predictions_that_cannot_be_made_say_why(ready, answer, says):
    """A picture gone or broken, a network of NaN: one sentence, and what to do."""
    project, _ = ready
    with pytest.raises(FieldguideError, match=says):
        predict_side(read_dataset(project), Answering(project, answer), "valid")


@pytest.mark.parametrize(("side", "says"), [("valid", "Run 03 first"), ("test", "open_test=False")])
def test_an_empty_side_says_what_to_do(make_project, fill_raw, side, says):
    """Without a split, or without a test set, the sentence names the way on."""
    project = make_project()
    fill_raw(project, 1)
    verify_images(project)
    with pytest.raises(FieldguideError, match=rf"The {SETS[side]} of 'pets' is empty\. .*{says}"):
        predict_side(read_dataset(project), Answering(project, [1.0, 0.0]), side)


def hurt(text, *keys, value):
    """Return evaluation.json with the value at a path of keys replaced."""
    facts = json.loads(text)
    place = facts
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return json.dumps(facts)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text[:-1], "is broken"),
        (lambda text: "\xff", "is broken"),
        (lambda text: "[" * 100_000, "is broken"),
        (lambda text: "[]", "was not written by 05"),
        (lambda text: "{}", "was not written by 05"),
        (lambda text: hurt(text, "valid", value=1), "was not written by 05"),
        (lambda text: hurt(text, "valid", "accuracy", value=0.5), "was not written by 05"),
        (lambda text: hurt(text, "valid", "accuracy", "value", value="0.5"), "was not written by 05"),
        (lambda text: hurt(text, "valid", "accuracy", "value", value=math.nan), "was not written by 05"),
        (lambda text: hurt(text, "valid", "accuracy", value={"value": 0.5, "n": 2}), "was not written by 05"),
        (lambda text: hurt(text, "verdict", "right", value=None), "was not written by 05"),
        (lambda text: hurt(text, "verdict", value={}), "was not written by 05"),
        (lambda text: hurt(text, "test_opened", value="2"), "was not written by 05"),
    ],
)
def test_a_broken_evaluation_is_named(ready, change, says):
    """A file edited by hand says which one to delete."""
    project, _ = ready
    evaluated(project)
    path = project.models / "evaluation.json"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="latin-1")
    with pytest.raises(FieldguideError, match=rf"evaluation\.json {says}"):
        read_evaluation(project)
