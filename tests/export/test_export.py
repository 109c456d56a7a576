"""What `utils.export` promises: six files, all or none, put in place only when every way to ask gives one answer."""

import errno
import hashlib
import io
import json
import os
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from killing import kill_at
from PIL import Image
from test_inference import draw, make_learner

from utils.dataset import Dataset, read_dataset, round_fingerprint
from utils.errors import FieldguideError
from utils.export import agreement, placing
from utils.export import classifier as export
from utils.export.agreement import is_plain
from utils.export.awkward import awkward_pictures
from utils.export.card import read_card
from utils.export.classifier import (
    checked_sentence,
    current_evaluation,
    export_classifier,
    out_of_fold_answers,
    sampled_pictures,
)
from utils.export.difference import disagreement
from utils.export.placing import FILES, INT8, put_in_place
from utils.inference import GALLERY
from utils.inference.classifier import Prediction, load_classifier
from utils.inference.vetting import vet
from utils.project import Project
from utils.storage import locked
from utils.tables import SPLIT_COLUMNS, append_rows, write_table

FIGURES = {"accuracy": {"value": 0.75, "low": 0.3, "high": 0.95, "n": 4}}
VERDICT = {"right": 4, "n": 4, "guess": 2, "p": 0.0625, "better": False, "pictures": 4, "side": "valid"}
TEMPERATURE = 3.0  # at which the untrained network's answers differ well between pictures
SIX = [name for name in FILES if name not in (INT8, GALLERY)]  # two are for who asks: test_quantised, test_known_photos
SIDES = ("valid", "valid", "test", "train", "train", "train")
# What the training used; the project file below asks for one epoch more.
TRAINED = {"seed": 42, "arch": "resnet18", "weights": "none", "size": 64, "epochs": 3}


@pytest.fixture(scope="module")
def _learner(tmp_path_factory):
    """Return a learner with the record of its training."""
    return recorded(make_learner(tmp_path_factory.mktemp("export") / "images", network="squeezenet1_1"))  # small files


def recorded(learn):
    """Return a learner with the record that `load_trained` attaches."""
    learn.record = SimpleNamespace(settings=TRAINED)
    return learn


def make_dataset(
    folder: Path, labels: tuple[str, ...] = ("cat", "dog"), sides: tuple[str, ...] = SIDES, **more
) -> Dataset:
    """Return the data set of a project of six photos per label that is trained and evaluated, by its files."""
    settings = {"name": "t", "labels": {label: [label] for label in labels}, "size": 64, "weights": "none"}
    roots = {"data_dir": str(folder / "data"), "models_dir": str(folder / "models")}
    project = Project.model_validate(settings | roots | more)
    rows, said = [], []
    for label in project.labels:
        for n, side in enumerate(sides):
            path = draw(project.images / label / f"{label}{n}.jpg", size=(60 + 9 * n, 80), seed=n)
            rows.append({"id": path.stem, "group": path.stem, "side": side})
            if side == "valid":
                said.append(prediction_row(path.stem, label, project.labels, sure=min(0.6 + 0.1 * n, 0.9999)))
    append_rows(project.table("split"), SPLIT_COLUMNS, rows)
    columns = ("id", "side", "label", "predicted", *project.labels)
    write_table(project.models / "rounds" / "001" / "predictions.csv", columns, sorted(said, key=lambda row: row["id"]))
    evaluation = {"form": 4, "valid": FIGURES, "test": FIGURES, "test_opened": 1, "model": "", "confused": []}
    evaluation |= {key: {} for key in ("labels", "test_labels", "confusion", "reliability", "shortcuts")}
    evaluation |= {"temperature": {"value": TEMPERATURE, "low": 2.0, "high": 4.0, "n": 4}}
    evaluation |= {"verdict": VERDICT, "settings": TRAINED, "changed": ""}
    dataset = read_dataset(project)
    evaluation["fingerprint"] = round_fingerprint(dataset, TRAINED)
    (project.models / "evaluation.json").write_text(json.dumps(evaluation))
    return dataset


def change_evaluation(project: Project, **changes) -> None:
    """Write other values into evaluation.json; None takes a key out."""
    path = project.models / "evaluation.json"
    facts = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in facts.items() if value is not None}))


def prediction_row(id: str, label: str, labels, *, sure: float) -> dict:
    """Return a row of predictions.csv: the label itself with a probability, the others with the rest."""
    rest = (1 - sure) / (len(labels) - 1)
    row = {"id": id, "side": "valid", "label": label, "predicted": label}
    return row | {name: sure if name == label else rest for name in labels}


@pytest.fixture(scope="module")
def _exported(_learner, tmp_path_factory):
    """Return a project that was exported, and what the export returned; shared: not to be changed."""
    dataset = make_dataset(tmp_path_factory.mktemp("exported"))
    return dataset, export_classifier(dataset, _learner)


@pytest.fixture
def dataset(tmp_path, _exported, monkeypatch) -> Dataset:
    """Return a data set like the shared one, not yet exported; its model.onnx is a copy of that one's, for time."""
    _, done = _exported
    saved = done.onnx.read_bytes()
    monkeypatch.setattr(export, "save_onnx", lambda learn, path, **_: path.write_bytes(saved))
    return make_dataset(tmp_path)


@pytest.fixture
def project(dataset) -> Project:
    return dataset.project


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the set of files that a folder holds."""
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---------------------------------------------------------------------------------------------------------------
# What is written
# ---------------------------------------------------------------------------------------------------------------


def test_six_files_are_there_and_answer(_exported):
    """The six files and nothing temporary; vetting accepts the pickle; both models know labels, recipe, threshold."""
    dataset, done = _exported
    project = dataset.project
    assert listing(project.models) == sorted([*SIX, "evaluation.json", "rounds"])
    vet(done.model)
    pickled, network = load_classifier(done.model), load_classifier(done.onnx)
    assert pickled.labels == network.labels == ("cat", "dog")
    assert pickled.recipe == network.recipe
    assert network.threshold == pickled.threshold == done.card["unknown"]["threshold"]
    assert (done.checked, done.by_fastai, done.awkward, done.backup) == (6, 6, len(awkward_pictures()), None)


def test_the_answers_differ_between_pictures(_exported):
    """Agreement means something: the network does not answer the same to every picture."""
    dataset, done = _exported
    answers = load_classifier(done.onnx).predict([*dataset.paths, *awkward_pictures().values()])
    assert np.ptp([answer.probabilities["cat"] for answer in answers if not answer.error]) > 0.05
    assert [answer.error for answer in answers if answer.error] == ["animated or many pages"]


def test_the_card_holds_the_facts(_exported):
    """card.json holds counts, figures, settings, temperature and the SHA-256 of all that made it, hand-counted here."""
    dataset, done = _exported
    project = dataset.project
    card = read_card(done.model)
    assert card == done.card == read_card(project.models) == read_card(done.card_file)
    assert card["counts"] == {label: {"test": 1, "train": 3, "valid": 2} for label in ("cat", "dog")}
    assert (card["valid"], card["test"], card["temperature"]) == (FIGURES, FIGURES, TEMPERATURE)
    assert card["licences"] == {"unknown": 12}
    facts = TRAINED | {"name": "t", "labels": ["cat", "dog"], "verdict": VERDICT, "settings": TRAINED}
    assert facts.items() <= card.items() and project.epochs == 4  # which is not what was trained
    assert card["sha256"] == {
        "export.pkl": sha256(done.model),
        "model.onnx": sha256(done.onnx),
        "ATTRIBUTION.csv": sha256(project.models / "ATTRIBUTION.csv"),
        "MODEL_CARD.md": sha256(done.words),
        "split.csv": sha256(project.table("split")),
    }
    assert card["fingerprint"] == round_fingerprint(dataset, TRAINED)


def test_the_threshold_is_of_the_validation_set_after_scaling(_exported):
    """The four held-out predictions, scaled by the temperature, are what the card's curve is made of."""
    unknown = _exported[1].card["unknown"]
    # 0.6 and 0.7 at temperature 3: p^(1/3) / (p^(1/3) + (1 - p)^(1/3)), by hand 0.5337 and 0.5701; the middle 0.5519
    assert [round(point["threshold"], 4) for point in unknown["curve"]] == [0.0, 0.5519]
    assert (unknown["threshold"], unknown["reached"], unknown["chosen_by"]) == (None, False, "validation")
    assert unknown["why"].endswith("takes 11 validation photos without a mistake, and there are only 4")
    assert unknown["unseen"] == {"why": "it never says “unknown”"}


def write_out_of_fold(dataset: Dataset, probability: float, *, fingerprint: str = "old", labels=()) -> None:
    """Write out_of_fold.csv as 06 does: each photo's own label with a probability; cat0 and cat5 were unreadable."""
    vocab = list(labels or dataset.project.labels)
    rows = []
    for picture in dataset:
        own = {name: probability if name == picture.label else 1 - probability for name in vocab}
        unread = picture.id in ("cat0", "cat5")
        row = {"id": picture.id, "fingerprint": fingerprint, "distance": 1.0}
        rows.append(row | (dict.fromkeys(vocab, float("nan")) if unread else own))
    columns = ("id", "fingerprint", "distance", *vocab)
    write_table(dataset.project.models / "out_of_fold.csv", columns, rows)


def test_out_of_fold_answers_are_those_of_the_training_set(dataset, project):
    """Under today's labels, and without what could not be read; those of the last cleaning serve as well."""
    assert out_of_fold_answers(dataset) is None
    write_out_of_fold(dataset, 0.8)
    shutil.move(project.images / "dog" / "dog4.jpg", project.images / "cat" / "dog4.jpg")
    labels, probs, groups = out_of_fold_answers(read_dataset(project))
    assert groups == ["cat3", "cat4", "dog3", "dog4", "dog5"]
    assert labels == [0, 0, 1, 0, 1]
    assert probs.tolist() == pytest.approx(np.array([[0.8, 0.2]] * 2 + [[0.2, 0.8]] * 3))
    write_out_of_fold(dataset, 0.8, labels=("cat", "fox"))
    assert out_of_fold_answers(dataset) is None


def test_out_of_fold_answers_help_to_choose(dataset, project, _learner):
    """Where 06 left some, the card says so."""
    write_out_of_fold(dataset, 0.8)
    assert export_classifier(dataset, _learner).card["unknown"]["chosen_by"] == "out of fold"


def test_the_metadata_is_all_a_program_needs(_exported):
    """model.onnx carries labels, recipe and name as the contract says."""
    _, done = _exported
    metadata = {entry.key: entry.value for entry in onnx.load(done.onnx).metadata_props}
    assert (metadata.pop("name"), metadata.pop("writer")) == ("t", "3")
    facts = {key: json.loads(value) for key, value in metadata.items()}
    assert facts == {
        "labels": ["cat", "dog"],
        "recipe": {"longest_side": 512, "size": 64, "extra": 16, "resample": "bilinear", "mirrored": True},
    }  # and the threshold, where one is certified: see below


def test_a_certified_threshold_goes_with_both_files(tmp_path):
    """Of 24 validation photos that are all right, 20 % is certified; card, pickle and model.onnx have one threshold."""
    dataset = make_dataset(tmp_path, sides=("valid",) * 12 + ("train",) * 3)
    done = export_classifier(dataset, recorded(make_learner(tmp_path / "images", network="squeezenet1_1")))
    unknown = done.card["unknown"]
    assert (unknown["target_error"], unknown["error"]["value"]) == (0.2, 0.0)
    assert 0.5 < unknown["threshold"] == load_classifier(done.model).threshold == load_classifier(done.onnx).threshold


def test_unseen_labels_are_asked_of_features(tmp_path):
    """Of the packaged network, for every label; a model that names every photo is not asked, a gone photo is named."""
    labels = ("cat", "dog", "fox")
    make_learner(tmp_path / "images", labels=labels, network="squeezenet1_1")
    dataset = make_dataset(tmp_path, labels)
    unknown = {"threshold": 0.6, "coverage": {"value": 0.5}}
    found = export._asked_of_unseen(dataset, unknown)
    assert sorted(found["labels"]) == sorted(labels)
    assert found["unknown"]["n"] == 6
    assert export._asked_of_unseen(dataset, unknown | {"threshold": 0.0}) == {"why": "it never says “unknown”"}
    gone = dataset.on("valid").paths[0]
    gone.unlink()
    with pytest.raises(FieldguideError, match=rf"{gone.name} cannot be read\. Run 02"):
        export._asked_of_unseen(dataset, unknown)


def test_pictures_for_features_are_drawn_alike_from_labels(dataset, project):
    """Many photos are drawn by a hash, as many of each label and side; the test set is never among them."""
    every = sampled_pictures(dataset)
    assert every.ids == dataset.on("train", "valid").ids
    assert sampled_pictures(dataset, most=4).ids == every.ids  # no fewer than ten of each label and side
    append_rows(project.table("split"), SPLIT_COLUMNS, [more(project, n) for n in range(30)])
    drawn, again = (sampled_pictures(read_dataset(project), most=4) for _ in range(2))
    assert (len(drawn), drawn.ids) == (3 + 2 + 10 + 2, again.ids)


def more(project: Project, n: int) -> dict:
    path = draw(project.images / "dog" / f"more{n}.jpg", seed=n)
    return {"id": path.stem, "group": path.stem, "side": "train"}


# ---------------------------------------------------------------------------------------------------------------
# The gate
# ---------------------------------------------------------------------------------------------------------------


def shifted(prediction: Prediction, by: float) -> Prediction:
    """Return a prediction with a little more of one label and less of the other."""
    first, second = prediction.probabilities
    row = {first: prediction.probabilities[first] + by, second: prediction.probabilities[second] - by}
    return replace(prediction, probabilities=row)


@pytest.mark.parametrize("who", ["fastai's own predict", "model.onnx", "model.onnx on what is drawn"])
def test_disagreement_stops_the_export(dataset, project, _learner, monkeypatch, who):
    """One answer that is off by 0.002 is refused with picture, paths and figures, and the earlier set stays."""
    (project.models / "export.pkl").write_bytes(b"old")
    if who == "fastai's own predict":
        real = export.fastai_predictor

        def predictor(path):
            return lambda picture: shifted(real(path)(picture), 0.002 if picture.stem == "dog1" else 0)

        monkeypatch.setattr(export, "fastai_predictor", predictor)
        words = r"fastai's own predict and export\.pkl disagree on .*dog1\.jpg: the probability of 'cat' is 0\.\d{4} "
    else:
        drawn = who.endswith("drawn")
        monkeypatch.setattr(export, "load_classifier", partial(off, export.load_classifier, drawn=drawn))
        place = r"the drawn picture transparent\.png" if drawn else r".*cat1\.jpg"
        words = (
            rf"export\.pkl and model\.onnx disagree on {place}: the probability of 'cat' is 0\.\d{{4}} and 0\.\d{{4}}"
        )
    with pytest.raises(FieldguideError, match=words) as refusal:
        export_classifier(dataset, _learner)
    assert "Nothing was exported" in str(refusal.value) and "report it" in str(refusal.value)
    assert (project.models / "export.pkl").read_bytes() == b"old"
    assert listing(project.models) == ["evaluation.json", "export.pkl", "rounds"]


def off(load, path, *, drawn: bool):
    """Return a classifier; that of an ONNX file is wrong about the second picture, of files or of drawn ones."""
    real = load(path)
    if path.suffix != ".onnx":
        return real

    class Off:
        def stream(self, images):
            images = list(images)
            for n, answer in enumerate(real.stream(images)):
                yield shifted(answer, 0.002) if n == 1 and isinstance(images[n], bytes) == drawn else answer

    return Off()


def test_labels_count_unless_the_last_digit_decides():
    """Another label is a disagreement, but for a tie within the tolerance; no number, another error, or order too."""
    a = Prediction("a", 0.6, {"a": 0.6, "b": 0.4})
    tie = Prediction("a", 0.5004, {"a": 0.5004, "b": 0.4996})
    assert disagreement(a, a) == disagreement(tie, Prediction("b", 0.5001, {"a": 0.4999, "b": 0.5001})) == ""
    assert disagreement(a, replace(a, label="b")) == "the labels are 'a' and 'b'"
    assert disagreement(a, replace(a, probabilities={"b": 0.4, "a": 0.6})) == "the labels are a, b and b, a"
    assert "nan" in disagreement(a, replace(a, probabilities={"a": float("nan"), "b": 0.4}))
    assert disagreement(a, Prediction(error="broken")) == "'a' and 'broken'"
    assert disagreement(Prediction(error="broken"), Prediction(error="broken")) == ""


def test_fastai_judges_only_what_it_opens_as_we_do(tmp_path):
    """Upright 8-bit RGB of at most 512 pixels: of the drawn awkward ones these are five."""
    plain = []
    for name, data in awkward_pictures().items():
        (tmp_path / name).write_bytes(data)
        if is_plain(tmp_path / name):
            plain.append(name)
    assert plain == ["upright.jpg", "one-pixel.png", "tiny.png", "progressive.jpg", "photo.webp"]


def test_a_picture_put_there_by_hand_is_compared_between_our_files(dataset, project, _learner):
    """A held-out picture with transparency is no hindrance: fastai, which ignores it, is not asked."""
    path = project.images / "dog" / "dog0.jpg"
    path.write_bytes(awkward_pictures()["transparent.png"])
    done = export_classifier(dataset, _learner)
    assert (done.checked, done.by_fastai) == (6, 5)


def test_a_held_out_picture_that_is_broken_is_named(dataset, project, _learner):
    """What no path can read checks nothing: refused, with the reason and what to do."""
    (project.images / "dog" / "dog0.jpg").write_bytes(b"<html>")
    with pytest.raises(FieldguideError, match=r"dog0\.jpg cannot be read \(not a picture.*run 02 to 05 again"):
        export_classifier(dataset, _learner)
    assert listing(project.models) == ["evaluation.json", "rounds"]


def test_the_drawn_pictures_are_the_same_at_each_call():
    """Their bytes depend on nothing but Pillow; among them is every kind that people send."""
    files = awkward_pictures()
    assert files == awkward_pictures()
    modes = set()
    for name, data in files.items():
        with Image.open(io.BytesIO(data)) as image:
            modes.add(image.mode)
        assert data and name.rpartition(".")[2] in ("jpg", "png", "tif", "webp", "gif")
    assert modes == {"RGB", "RGBA", "LA", "P", "CMYK", "I;16", "L", "1"}


# ---------------------------------------------------------------------------------------------------------------
# Refusals
# ---------------------------------------------------------------------------------------------------------------


def test_a_stale_evaluation_is_refused(dataset, project, _learner):
    """When labels or the trained settings changed since the last training, the message names 04 and 05."""
    other = recorded(SimpleNamespace())
    other.record = SimpleNamespace(settings=TRAINED | {"epochs": 9})
    with pytest.raises(FieldguideError, match="Run 04 and 05 again"):
        export_classifier(dataset, other)
    shutil.move(project.images / "cat" / "cat5.jpg", project.images / "dog" / "cat5.jpg")
    with pytest.raises(FieldguideError, match="Run 04 and 05 again"):
        export_classifier(read_dataset(project), _learner)
    assert listing(project.models) == ["evaluation.json", "rounds"]


def test_a_models_folder_of_an_earlier_version_is_told(dataset, project, _learner):
    """Its evaluation lacks settings and verdict: one sentence says to train again."""
    change_evaluation(project, form=2, settings=None, verdict=None)
    with pytest.raises(FieldguideError, match=r"evaluation\.json is of an.* version.*[Tt]rain again"):
        export_classifier(dataset, _learner)


def test_a_learner_without_a_record_is_refused(dataset):
    """Nobody knows what a learner was trained with that `load_trained` did not return."""
    with pytest.raises(FieldguideError, match="no record of its training"):
        export_classifier(dataset, SimpleNamespace())


def test_a_model_trained_since_is_refused(dataset, project, _learner):
    """Figures of another learner.pth than the one that is there now do not go into a card."""
    (project.models / "learner.pth").write_bytes(b"newer")
    with pytest.raises(FieldguideError, match=r"trained again since it was judged\. Run 05"):
        export_classifier(dataset, _learner)


def test_a_learner_that_was_loaded_before_is_refused(dataset, _learner, monkeypatch):
    """A notebook left open since the last training holds other weights than those that were judged: refused."""
    weights = {name: value.clone() for name, value in _learner.model.state_dict().items()}
    monkeypatch.setattr(export, "read_checkpoint", lambda project: {"model": weights})
    assert current_evaluation(dataset, _learner)["verdict"] == VERDICT
    next(iter(weights.values())).view(-1)[0] += 1e-6
    with pytest.raises(FieldguideError, match=r"trained again since it was loaded here\. Run this notebook again"):
        export_classifier(dataset, _learner)
    assert listing(dataset.project.models) == ["evaluation.json", "rounds"]


def test_pictures_moved_while_it_exports_are_noticed(dataset, project, _learner, monkeypatch):
    """A card would count other pictures than those that trained the model: refused, and the earlier set stays."""
    (project.models / "export.pkl").write_bytes(b"old")
    real = agreement.awkward_pictures

    def meanwhile():
        shutil.move(project.images / "cat" / "cat5.jpg", project.images / "dog" / "cat5.jpg")
        return real()

    monkeypatch.setattr(agreement, "awkward_pictures", meanwhile)
    with pytest.raises(FieldguideError, match="changed since the last training"):
        export_classifier(dataset, _learner)
    assert listing(project.models) == ["evaluation.json", "export.pkl", "rounds"]
    assert (project.models / "export.pkl").read_bytes() == b"old"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, "hot"])
def test_a_temperature_that_is_none_is_refused(dataset, project, _learner, value):
    """Where hands broke evaluation.json, one sentence says what to run."""
    change_evaluation(project, temperature={"value": value})
    with pytest.raises(FieldguideError, match=r"(The temperature is|evaluation\.json (is|was not)) .*run 05 again"):
        export_classifier(dataset, _learner)
    assert listing(project.models) == ["evaluation.json", "rounds"]


def test_no_or_a_broken_evaluation_is_refused(dataset, project, _learner):
    """Without a readable evaluation.json the message says what to run."""
    (project.models / "evaluation.json").write_text("{")
    with pytest.raises(FieldguideError, match=r"evaluation\.json is broken .*run 05 again"):
        export_classifier(dataset, _learner)
    (project.models / "evaluation.json").unlink()
    with pytest.raises(FieldguideError, match=r"There is no .*Run 04 and 05"):
        export_classifier(dataset, _learner)


def test_predictions_of_other_pictures_are_refused(dataset, project, _learner):
    """A threshold is not fitted on a round of other pictures; the message says how to judge again."""
    table = project.models / "rounds" / "001" / "predictions.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(FieldguideError, match=r"not of the photos .* Delete .*evaluation\.json and run 05 again"):
        export_classifier(dataset, _learner)
    shutil.rmtree(project.models / "rounds")
    with pytest.raises(FieldguideError, match=r"not of the photos .* Delete .*evaluation\.json and run 05 again"):
        export_classifier(dataset, _learner)


def test_a_learner_of_other_labels_is_refused(dataset, tmp_path):
    """A learner whose labels are not the project's is refused with both."""
    other = recorded(make_learner(tmp_path / "other", labels=("cat", "fox"), network="squeezenet1_1"))
    with pytest.raises(FieldguideError, match=r"cat, fox.*cat, dog"):
        export_classifier(dataset, other)


def test_what_vetting_refuses_is_not_exported(dataset, project, _learner):
    """A learner with a function that is not fastai's or torch's is refused with its name, and nothing is written."""
    block = _learner.model[0]
    block.helper = draw
    try:
        with pytest.raises(FieldguideError, match=r"names test_inference\.draw"):
            export_classifier(dataset, _learner)
        block.helper = lambda: None
        with pytest.raises(FieldguideError, match="no lambda"):
            export_classifier(dataset, _learner)
    finally:
        del block.helper
    assert listing(project.models) == ["evaluation.json", "rounds"]


def test_two_exports_at_once_are_one(dataset, project, _learner, monkeypatch):
    """While another program exports, this one waits a while and then says so; nothing is written."""
    monkeypatch.setattr(export, "locked", partial(locked, wait=0.05))
    with locked(project.models), pytest.raises(FieldguideError, match="Another notebook or program is working on"):
        export_classifier(dataset, _learner)
    assert listing(project.models) == ["evaluation.json", "rounds"]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root and Windows may write anywhere")
def test_a_read_only_folder_is_told(dataset, project, _learner):
    """Where the models folder is read-only, one sentence says so."""
    project.models.chmod(0o500)
    try:
        with pytest.raises(FieldguideError, match="may not write there"):
            export_classifier(dataset, _learner)
    finally:
        project.models.chmod(0o700)


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EACCES, "this account may not write there"), (errno.ENOSPC, "the disk is full")]
)
@pytest.mark.parametrize("when", ["made", "put in place", "kept"])
def test_a_disk_that_takes_no_files_is_told(dataset, project, _learner, monkeypatch, number, words, when):
    """Whenever writing fails, the refusal names the file and the way out; the earlier set stays, nothing else does."""
    (project.models / "export.pkl").write_bytes(b"old")

    def refused(*_):
        raise OSError(number, os.strerror(number))

    # What fails: the first file that is waited for, the first rename, the copy of what was there.
    target, name = (os, "fsync") if when == "made" else (placing, "write_whole")
    if when == "put in place":
        monkeypatch.setattr(Path, "replace", once_in(project.models, Path.replace, refused))
    else:
        monkeypatch.setattr(target, name, refused)
    with pytest.raises(FieldguideError, match=rf"Cannot write .*{words}"):
        export_classifier(dataset, _learner)
    monkeypatch.undo()
    assert (project.models / "export.pkl").read_bytes() == b"old"
    assert set(listing(project.models)) <= {"evaluation.json", "export.pkl", "exports", "rounds"}


def once_in(folder: Path, real, refused):
    """Return a rename that is refused where something is put into a folder itself."""
    return lambda path, target: refused() if Path(target).parent == folder else real(path, target)


# ---------------------------------------------------------------------------------------------------------------
# Whole or not at all
# ---------------------------------------------------------------------------------------------------------------


def test_the_same_model_again_changes_nothing(dataset, project, _learner, monkeypatch):
    """Exported again, no file is touched, no backup made, and what takes long is taken from the earlier set."""
    first = export_classifier(dataset, _learner)
    before = {name: (project.models / name).stat().st_mtime_ns for name in SIX}
    with monkeypatch.context() as patched:
        patched.setattr(export, "save_onnx", None)  # calling it would fail
        again = export_classifier(dataset, _learner)
    assert {name: (project.models / name).stat().st_mtime_ns for name in SIX} == before
    assert (again.card, again.backup) == (first.card, None)
    assert listing(project.models) == sorted([*SIX, "evaluation.json", "rounds"])


def test_a_model_onnx_of_an_earlier_writer_is_made_again(dataset, project, _learner, monkeypatch):
    """When we write the same learner differently, the earlier file does not stay."""
    copy, made = export.save_onnx, []
    monkeypatch.setattr(
        export, "save_onnx", lambda *places, metadata, **how: made.append(metadata["writer"]) or copy(*places, **how)
    )
    for writer in (3, 3, 4):
        monkeypatch.setattr(export, "WRITER", writer)
        export_classifier(dataset, _learner)
    assert made == ["3", "4"]


def test_a_model_onnx_that_somebody_changed_is_made_again(dataset, project, _learner):
    """With other bytes than the card says, it is not believed; the same network gives the same bytes."""
    export_classifier(dataset, _learner)
    good = (project.models / "model.onnx").read_bytes()
    (project.models / "model.onnx").write_bytes(good + b"\0")
    export_classifier(dataset, _learner)
    assert (project.models / "model.onnx").read_bytes() == good


def test_what_was_found_of_unseen_labels_is_remembered(tmp_path):
    """The same model and threshold take it from the card; another model, or another threshold, asks again."""
    model = tmp_path / "export.pkl"
    model.write_bytes(b"model")
    unseen = {"unknown": {"value": 0.8}}
    card = {"sha256": {"export.pkl": sha256(model)}, "fingerprint": "f", "unknown": {"threshold": 0.6}}
    card["unknown"]["unseen"] = unseen
    known = partial(export._unseen_before, model=model, evaluation={"fingerprint": "f"}, unknown={"threshold": 0.6})
    assert known(card) == unseen
    assert known({}) is None
    assert known(card, unknown={"threshold": 0.7}) is None
    assert known(card, evaluation={"fingerprint": "g"}) is None
    for other in ({"why": "no weights"}, {}):
        assert known(card | {"unknown": card["unknown"] | {"unseen": other}}) is None
    model.write_bytes(b"another")
    assert known(card) is None


def test_an_earlier_set_is_kept_by_number(dataset, project, _learner):
    """What was there when the model changes is kept whole under the next number; export.001.pkl of old stays."""
    (project.models / "export.001.pkl").write_bytes(b"older still")
    for content in (b"first", b"second"):
        (project.models / "export.pkl").write_bytes(content)
        (project.models / "card.json").write_bytes(content)
        done = export_classifier(dataset, _learner)
    kept = project.models / "exports"
    assert (listing(kept), done.backup) == (["001", "002"], kept / "002")
    assert files_of(kept / "001") == {"export.pkl": b"first", "card.json": b"first"}
    last = files_of(kept / "002")
    assert sorted(last) == sorted(SIX)  # 001's successor was whole before it was overwritten by hand
    assert (last["export.pkl"], last["card.json"]) == (b"second", b"second")
    assert (project.models / "export.001.pkl").read_bytes() == b"older still"


def test_whatever_is_overwritten_is_kept(dataset, project, _learner):
    """The same model with another card is another set: the earlier one is in exports/001, once."""
    export_classifier(dataset, _learner)
    before = files_of(project.models)
    change_evaluation(project, test_opened=2)
    done = export_classifier(dataset, _learner)
    assert done.backup == project.models / "exports" / "001"
    assert files_of(done.backup) == before
    changed = {name for name, data in files_of(project.models).items() if data != before[name]}
    assert changed == {"MODEL_CARD.md", "README.md", "card.json"}
    assert export_classifier(dataset, _learner).backup is None


def test_a_readme_is_the_persons_to_complete(dataset, project, _learner):
    """What a person adds stays while the words stay; when those change it is in the backup, and the licence goes on."""
    readme = project.models / "README.md"
    readme.write_text("mine")
    done = export_classifier(dataset, _learner)
    assert files_of(done.backup) == {"README.md": b"mine"}
    mine = readme.read_text().replace("---\n", "---\nlicense: cc-by-4.0\n", 1) + "\nThanks to all.\n"
    readme.write_text(mine)
    assert export_classifier(dataset, _learner).backup is None
    assert readme.read_text() == mine
    change_evaluation(project, test_opened=2)
    done = export_classifier(dataset, _learner)
    assert (done.backup / "README.md").read_text() == mine
    assert "license: cc-by-4.0\n" in readme.read_text() and "Thanks" not in readme.read_text()
    assert "cc-by" not in done.words.read_text()


@pytest.mark.parametrize("step", ["save_onnx", "require_agreement_on_awkward", "model_card"])
def test_what_is_interrupted_leaves_the_earlier_set(dataset, project, _learner, monkeypatch, step):
    """Stopped by hand while a set is made, the one before is untouched and nothing is left over."""
    (project.models / "export.pkl").write_bytes(b"old")

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, step, stopped)
    with pytest.raises(KeyboardInterrupt):
        export_classifier(dataset, _learner)
    assert listing(project.models) == ["evaluation.json", "export.pkl", "rounds"]
    assert (project.models / "export.pkl").read_bytes() == b"old"


def test_what_a_killed_run_left_is_removed(dataset, project, _learner):
    """A half-made set from a run that was killed is gone after the next one."""
    (project.models / ".export" / "exports").mkdir(parents=True)
    (project.models / ".export" / "export.pkl").write_bytes(b"half")
    export_classifier(dataset, _learner)
    assert listing(project.models) == sorted([*SIX, "evaluation.json", "rounds"])


def staged_set(folder: Path, mark: bytes) -> dict[str, bytes]:
    """Put a set of files with a mark into a new folder, its card naming the SHA-256 of the others; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: mark + name.encode() for name in FILES if name != "card.json"}
    card = {"sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}}
    files["card.json"] = json.dumps(card).encode()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return files


def is_torn(folder: Path) -> bool:
    """Return whether a card names other files than those that lie beside it."""
    named = json.loads((folder / "card.json").read_bytes())["sha256"]
    return any(sha256(folder / name) != digest for name, digest in named.items())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_step_is_put_right_by_the_next_run(tmp_path):
    """
    Killed at each step of putting a set in place: the earlier set is there, or in exports/001, and whole.

    What is torn is known by its card, and the next run ends where an undisturbed one does, with one backup.
    """
    for step in range(1, 100):
        folder = tmp_path / str(step)
        staged = folder / ".export"
        old, new = staged_set(folder, b"old "), staged_set(staged, b"new ")
        if not killed(partial(put_in_place, staged, folder), step, folder):
            break
        there, kept = files_of(folder), folder / "exports" / "001"
        assert there in (old, new) or is_torn(folder)
        assert there == new or there["card.json"] == old["card.json"]  # it comes last
        assert there == old or files_of(kept) == old
        shutil.rmtree(staged, ignore_errors=True)
        staged_set(staged, b"new ")
        put_in_place(staged, folder)
        assert (files_of(folder), files_of(kept), listing(folder / "exports")) == (new, old, ["001"])
    assert step > 20  # there were that many moments to be killed at
    assert files_of(folder) == new


def killed(deed, step: int, folder: Path) -> bool:
    """Do something in a child that is killed at a step; return whether it was, and not done before."""
    child = os.fork()
    if child == 0:
        try:
            kill_at(step, 0, folder)
            deed()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


# ---------------------------------------------------------------------------------------------------------------
# In words
# ---------------------------------------------------------------------------------------------------------------


def test_what_was_found_is_told_in_sentences(_exported):
    """What the notebook prints of what was compared."""
    _, done = _exported
    assert checked_sentence(done) == (
        "Both files gave the same answer to all 6 held-out photos and to 26 drawn awkward ones. fastai itself gave it "
        "too, to 6 of the held-out photos."
    )
    assert checked_sentence(replace(done, by_fastai=4)).endswith(
        "too, to 4 of the held-out photos; the 2 others are not upright 8-bit RGB of at most 512 pixels, and fastai "
        "opens such files in its own way."
    )
