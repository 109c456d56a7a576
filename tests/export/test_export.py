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

import numpy as np
import onnx
import pytest
import torch
from killing import kill_at
from PIL import Image
from test_inference import draw, make_learner

from utils.errors import FieldguideError
from utils.export import classifier as export
from utils.export.awkward import awkward_pictures
from utils.export.card import read_card
from utils.export.classifier import (
    FILES,
    checked_sentence,
    disagreement,
    export_classifier,
    is_plain,
    put_in_place,
    sampled_pictures,
    threshold_sentence,
    unseen_sentence,
)
from utils.inference.classifier import Prediction, load_classifier
from utils.inference.vetting import vet
from utils.project import Project
from utils.storage import locked
from utils.tables import SPLIT_COLUMNS, append_rows, write_table
from utils.train.checkpoint import ROUND_PARTS

FIGURES = {"accuracy": {"value": 0.75, "low": 0.3, "high": 0.95, "n": 4}}
TEMPERATURE = 3.0  # at which the untrained network's answers differ well between pictures
SIDES = ("valid", "valid", "test", "train", "train", "train")


@pytest.fixture(scope="module")
def _learner(tmp_path_factory):
    return make_learner(tmp_path_factory.mktemp("export") / "images", network="squeezenet1_1")  # small files


def make_project(folder: Path, labels: tuple[str, ...] = ("cat", "dog")) -> Project:
    """Return a project of six pictures a label that is trained and evaluated, by its files."""
    settings = {"name": "t", "labels": {label: [label] for label in labels}, "size": 64, "weights": "none"}
    roots = {"data_dir": str(folder / "data"), "models_dir": str(folder / "models")}
    project = Project.model_validate(settings | roots)
    rows, said = [], []
    for label in project.labels:
        for n, side in enumerate(SIDES):
            path = draw(project.images / label / f"{label}{n}.jpg", size=(60 + 9 * n, 80), seed=n)
            rows.append({"id": path.stem, "group": path.stem, "side": side})
            if side == "valid":
                said.append(prediction_row(path.stem, label, project.labels, sure=0.6 + 0.1 * n))
    append_rows(project.table("split"), SPLIT_COLUMNS, rows)
    columns = ("id", "side", "label", "predicted", *project.labels)
    write_table(project.models / "rounds" / "001" / "predictions.csv", columns, sorted(said, key=lambda row: row["id"]))
    evaluation = {"valid": FIGURES, "test": FIGURES, "labels": {}, "test_opened": 1}
    evaluation |= {"temperature": {"value": TEMPERATURE, "low": 2.0, "high": 4.0, "n": 4}}
    evaluation["fingerprint"] = project.fingerprint()
    (project.models / "evaluation.json").write_text(json.dumps(evaluation))
    return project


def prediction_row(id: str, label: str, labels, *, sure: float) -> dict:
    """Return a row of predictions.csv: the label itself with a probability, the others with the rest."""
    rest = (1 - sure) / (len(labels) - 1)
    row = {"id": id, "side": "valid", "label": label, "predicted": label}
    return row | {name: sure if name == label else rest for name in labels}


@pytest.fixture(scope="module")
def _exported(_learner, tmp_path_factory):
    """Return a project that was exported, and what the export returned; shared: not to be changed."""
    project = make_project(tmp_path_factory.mktemp("exported"))
    return project, export_classifier(project, _learner)


@pytest.fixture
def project(tmp_path, _exported, monkeypatch) -> Project:
    """Return a project like the shared one, not yet exported; its model.onnx is a copy of that one's, for time."""
    there, _ = _exported
    saved = (there.models / "model.onnx").read_bytes()
    monkeypatch.setattr(export, "save_onnx", lambda learn, path, **_: path.write_bytes(saved))
    return make_project(tmp_path)


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
    project, done = _exported
    assert listing(project.models) == sorted([*FILES, "evaluation.json", "rounds"])
    vet(done.model)
    pickled, network = load_classifier(done.model), load_classifier(done.onnx)
    assert pickled.labels == network.labels == ("cat", "dog")
    assert pickled.recipe == network.recipe
    assert network.threshold == pickled.threshold == done.card["unknown"]["threshold"]
    assert (done.checked, done.by_fastai, done.awkward, done.backup) == (6, 6, len(awkward_pictures()), None)


def test_the_answers_differ_between_pictures(_exported):
    """Agreement means something: the network does not answer the same to every picture."""
    project, done = _exported
    answers = load_classifier(done.onnx).predict([*project.pictures().values(), *awkward_pictures().values()])
    assert np.ptp([answer.probabilities["cat"] for answer in answers if not answer.error]) > 0.05
    assert [answer.error for answer in answers if answer.error] == ["animated or many pages"]


def test_the_card_holds_the_facts(_exported):
    """card.json holds counts, figures, settings, temperature and the SHA-256 of all that made it, hand-counted here."""
    project, done = _exported
    card = read_card(done.model)
    assert card == done.card == read_card(project.models) == read_card(done.card_file)
    assert card["counts"] == {label: {"test": 1, "train": 3, "valid": 2} for label in ("cat", "dog")}
    assert (card["valid"], card["test"], card["temperature"]) == (FIGURES, FIGURES, TEMPERATURE)
    assert card["licences"] == {"unknown": 12}
    facts = {"name": "t", "labels": ["cat", "dog"], "seed": 42, "arch": "resnet18", "weights": "none", "size": 64}
    assert facts.items() <= card.items()
    assert card["sha256"] == {
        "export.pkl": sha256(done.model),
        "model.onnx": sha256(done.onnx),
        "ATTRIBUTION.csv": sha256(project.models / "ATTRIBUTION.csv"),
        "MODEL_CARD.md": sha256(done.words),
        "split.csv": sha256(project.table("split")),
    }
    assert card["fingerprint"] == project.fingerprint()


def test_the_threshold_is_of_the_valid_side_after_scaling(_exported):
    """The four held-out predictions, scaled by the temperature, are what the card's curve is made of."""
    unknown = _exported[1].card["unknown"]
    # 0.6 and 0.7 at temperature 3: p^(1/3) / (p^(1/3) + (1 - p)^(1/3)), by hand 0.5337 and 0.5701; the middle 0.5519
    assert [round(point["threshold"], 4) for point in unknown["curve"]] == [0.0, 0.5519]
    assert (unknown["target_error"], unknown["error"]["n"]) == (0.05, 2 if unknown["threshold"] else 4)
    assert unknown["unseen"] == {"why": "leaving one label out leaves a single one; it takes three labels"}


def test_the_metadata_is_all_a_program_needs(_exported):
    """model.onnx carries labels, recipe, threshold and name as the contract says."""
    _, done = _exported
    metadata = {entry.key: entry.value for entry in onnx.load(done.onnx).metadata_props}
    assert metadata.pop("name") == "t"
    facts = {key: json.loads(value) for key, value in metadata.items()}
    assert facts == {
        "labels": ["cat", "dog"],
        "recipe": {"longest_side": 512, "size": 64, "extra": 16},
        "threshold": done.card["unknown"]["threshold"],
    }


def test_unseen_labels_are_asked_of_features(tmp_path, monkeypatch):
    """Of the learner's own features it is optimistic, of ImageNet's not; a card that lacks it names no folder here."""
    labels = ("cat", "dog", "fox")
    learn = make_learner(tmp_path / "images", labels=labels, network="squeezenet1_1")
    project = make_project(tmp_path, labels)
    learn.model.train()
    found = export._unseen(project, learn, 0.05)
    assert (found["optimistic"], sorted(found["labels"])) == (True, sorted(labels))
    assert found["unknown"]["n"] == 6
    assert learn.model.training
    monkeypatch.setattr(export, "pretrained_body", lambda project: learn.model[0])
    assert export._unseen(project, learn, 0.05)["optimistic"] is False

    def gone(project):
        raise FieldguideError("The ImageNet weights could not be downloaded: copy them to /home/me/.cache.")

    monkeypatch.setattr(export, "pretrained_body", gone)
    with pytest.warns(UserWarning, match="copy them to /home/me"):
        assert export._unseen(project, learn, 0.05) == {"why": "the ImageNet weights were not at hand"}


def test_pictures_for_features_are_drawn_alike_from_labels(project):
    """Many pictures are drawn by a hash, as many of each label and side; the test side is never among them."""
    sides = project.sides()
    every = sampled_pictures(project)
    assert sorted(every) == sorted(id for id in sides if sides[id] != "test")
    few = sampled_pictures(project, most=4)  # which would be one of each label and side
    assert few == every  # no fewer than ten of each
    append_rows(project.table("split"), SPLIT_COLUMNS, [more(project, n) for n in range(30)])
    drawn = sampled_pictures(project, most=4)
    assert len(drawn) == 3 + 2 + 10 + 2
    assert drawn == sampled_pictures(project, most=4)


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
def test_disagreement_stops_the_export(project, _learner, monkeypatch, who):
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
        export_classifier(project, _learner)
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


def test_a_picture_put_there_by_hand_is_compared_between_our_files(project, _learner):
    """A held-out picture with transparency is no hindrance: fastai, which ignores it, is not asked."""
    path = project.images / "dog" / "dog0.jpg"
    path.write_bytes(awkward_pictures()["transparent.png"])
    done = export_classifier(project, _learner)
    assert (done.checked, done.by_fastai) == (6, 5)


def test_a_held_out_picture_that_is_broken_is_named(project, _learner):
    """What no path can read checks nothing: refused, with the reason and what to do."""
    (project.images / "dog" / "dog0.jpg").write_bytes(b"<html>")
    with pytest.raises(FieldguideError, match=r"dog0\.jpg cannot be read \(not a picture.*run 02 to 05 again"):
        export_classifier(project, _learner)
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


def test_a_stale_evaluation_is_refused(project, _learner):
    """When labels changed since the last training, nothing is written and the message names 04 and 05."""
    shutil.move(project.images / "cat" / "cat5.jpg", project.images / "dog" / "cat5.jpg")
    with pytest.raises(FieldguideError, match="Run 04 and 05 again"):
        export_classifier(project, _learner)
    assert listing(project.models) == ["evaluation.json", "rounds"]


def test_a_model_trained_since_is_refused(project, _learner):
    """Figures of another learner.pth than the one that is there now do not go into a card."""
    (project.models / "learner.pth").write_bytes(b"newer")
    with pytest.raises(FieldguideError, match=r"trained again since it was judged\. Run 05"):
        export_classifier(project, _learner)


def test_a_learner_that_was_loaded_before_is_refused(project, _learner):
    """A notebook left open since the last training holds other weights than those that were judged: refused."""
    path = project.models / "learner.pth"
    weights = {name: value.clone() for name, value in _learner.model.state_dict().items()}
    parts = dict.fromkeys(ROUND_PARTS, "") | {"model": weights}
    torch.save(parts, path)
    export._require_judged(project, _learner)
    next(iter(weights.values())).view(-1)[0] += 1e-6
    torch.save(parts, path)
    evaluation = json.loads((project.models / "evaluation.json").read_text()) | {"model": sha256(path)}
    with pytest.raises(FieldguideError, match=r"trained again since it was loaded here\. Run this notebook again"):
        export_classifier(project, _learner, evaluation=evaluation)
    assert listing(project.models) == ["evaluation.json", "learner.pth", "rounds"]


def test_pictures_moved_while_it_exports_are_noticed(project, _learner, monkeypatch):
    """A card would count other pictures than those that trained the model: refused, and the earlier set stays."""
    (project.models / "export.pkl").write_bytes(b"old")
    real = export.awkward_pictures

    def meanwhile():
        shutil.move(project.images / "cat" / "cat5.jpg", project.images / "dog" / "cat5.jpg")
        return real()

    monkeypatch.setattr(export, "awkward_pictures", meanwhile)
    with pytest.raises(FieldguideError, match="changed since the last training"):
        export_classifier(project, _learner)
    assert listing(project.models) == ["evaluation.json", "export.pkl", "rounds"]
    assert (project.models / "export.pkl").read_bytes() == b"old"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, "hot"])
def test_a_temperature_that_is_none_is_refused(project, _learner, value):
    """Where hands broke evaluation.json, one sentence says what to run."""
    evaluation = json.loads((project.models / "evaluation.json").read_text()) | {"temperature": {"value": value}}
    with pytest.raises(FieldguideError, match=r"The temperature is .*run 05 again"):
        export_classifier(project, _learner, evaluation=evaluation)
    assert listing(project.models) == ["evaluation.json", "rounds"]


def test_no_or_a_broken_evaluation_is_refused(project, _learner):
    """Without a readable evaluation.json the message says what to run."""
    (project.models / "evaluation.json").write_text("{")
    with pytest.raises(FieldguideError, match=r"evaluation\.json is broken .*run 05 again"):
        export_classifier(project, _learner)
    (project.models / "evaluation.json").unlink()
    with pytest.raises(FieldguideError, match=r"There is no .*Run 04 and 05"):
        export_classifier(project, _learner)


def test_predictions_of_other_pictures_are_refused(project, _learner):
    """A threshold is not fitted on a round of other pictures; the message says how to judge again."""
    table = project.models / "rounds" / "001" / "predictions.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(FieldguideError, match=r"not of the pictures .* Delete .*evaluation\.json and run 05 again"):
        export_classifier(project, _learner)
    shutil.rmtree(project.models / "rounds")
    with pytest.raises(FieldguideError, match=r"not of the pictures .* Delete .*evaluation\.json and run 05 again"):
        export_classifier(project, _learner)


def test_a_learner_of_other_labels_is_refused(project, tmp_path):
    """A learner whose labels are not the project's is refused with both."""
    other = make_learner(tmp_path / "other", labels=("cat", "fox"), network="squeezenet1_1")
    with pytest.raises(FieldguideError, match=r"cat, fox.*cat, dog"):
        export_classifier(project, other)


def test_what_vetting_refuses_is_not_exported(project, _learner):
    """A learner with a function that is not fastai's or torch's is refused with its name, and nothing is written."""
    block = _learner.model[0]
    block.helper = draw
    try:
        with pytest.raises(FieldguideError, match=r"names test_inference\.draw"):
            export_classifier(project, _learner)
        block.helper = lambda: None
        with pytest.raises(FieldguideError, match="no lambda"):
            export_classifier(project, _learner)
    finally:
        del block.helper
    assert listing(project.models) == ["evaluation.json", "rounds"]


def test_a_target_that_is_no_share_is_refused(project, _learner):
    """Percent in place of a fraction is told at once."""
    with pytest.raises(FieldguideError, match="target_error = 5: expected a share"):
        export_classifier(project, _learner, target_error=5)


def test_two_exports_at_once_are_one(project, _learner, monkeypatch):
    """While another program exports, this one waits a while and then says so; nothing is written."""
    monkeypatch.setattr(export, "locked", partial(locked, wait=0.05))
    with locked(project.models), pytest.raises(FieldguideError, match="Another notebook or program is working on"):
        export_classifier(project, _learner)
    assert listing(project.models) == ["evaluation.json", "rounds"]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root and Windows may write anywhere")
def test_a_read_only_folder_is_told(project, _learner):
    """Where the models folder is read-only, one sentence says so."""
    project.models.chmod(0o500)
    try:
        with pytest.raises(FieldguideError, match="may not write there"):
            export_classifier(project, _learner)
    finally:
        project.models.chmod(0o700)


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EACCES, "this account may not write there"), (errno.ENOSPC, "the disk is full")]
)
@pytest.mark.parametrize("when", ["made", "put in place", "kept"])
def test_a_disk_that_takes_no_files_is_told(project, _learner, monkeypatch, number, words, when):
    """Whenever writing fails, the refusal names the file and the way out; the earlier set stays, nothing else does."""
    (project.models / "export.pkl").write_bytes(b"old")

    def refused(*_):
        raise OSError(number, os.strerror(number))

    # What fails: the first file that is waited for, the first rename, the copy of what was there.
    target, name = {"made": (os, "fsync"), "put in place": (export, "sync_folder"), "kept": (shutil, "copyfileobj")}[
        when
    ]
    if when == "put in place":
        monkeypatch.setattr(Path, "replace", once_in(project.models, Path.replace, refused))
    else:
        monkeypatch.setattr(target, name, refused)
    with pytest.raises(FieldguideError, match=rf"Cannot write .*{words}"):
        export_classifier(project, _learner)
    monkeypatch.undo()
    assert (project.models / "export.pkl").read_bytes() == b"old"
    assert set(listing(project.models)) <= {"evaluation.json", "export.pkl", "exports", "rounds"}


def once_in(folder: Path, real, refused):
    """Return a rename that is refused where something is put into a folder itself."""
    return lambda path, target: refused() if Path(target).parent == folder else real(path, target)


# ---------------------------------------------------------------------------------------------------------------
# Whole or not at all
# ---------------------------------------------------------------------------------------------------------------


def test_the_same_model_again_changes_nothing(project, _learner):
    """Exported again, no file is touched, no backup made, and what takes long is taken from the card."""
    first = export_classifier(project, _learner)
    before = {name: (project.models / name).stat().st_mtime_ns for name in FILES}
    again = export_classifier(project, _learner)
    assert {name: (project.models / name).stat().st_mtime_ns for name in FILES} == before
    assert (again.card, again.backup) == (first.card, None)
    assert listing(project.models) == sorted([*FILES, "evaluation.json", "rounds"])


def test_how_unseen_labels_are_spotted_is_remembered(tmp_path, monkeypatch):
    """The same model and target take it from the card; another model, or another target, asks again."""
    model = tmp_path / "export.pkl"
    model.write_bytes(b"model")
    unseen = {"unknown": {"value": 0.8}}
    card = {"sha256": {"export.pkl": sha256(model)}, "fingerprint": "f", "unknown": {"target_error": 0.05}}
    card["unknown"]["unseen"] = unseen
    remembered = partial(export._remembered, model=model, evaluation={"fingerprint": "f"}, target=0.05)
    assert remembered(card) == unseen
    assert remembered({}) is None
    assert remembered(card, target=0.1) is None
    assert remembered(card, evaluation={"fingerprint": "g"}) is None
    for other in ({"why": "no weights"}, {}):
        assert remembered(card | {"unknown": card["unknown"] | {"unseen": other}}) is None
    model.write_bytes(b"another")
    assert remembered(card) is None


def test_an_earlier_set_is_kept_by_number(project, _learner):
    """What was there when the model changes is kept whole under the next number; export.001.pkl of old stays."""
    (project.models / "export.001.pkl").write_bytes(b"older still")
    for content in (b"first", b"second"):
        (project.models / "export.pkl").write_bytes(content)
        (project.models / "card.json").write_bytes(content)
        done = export_classifier(project, _learner)
    kept = project.models / "exports"
    assert (listing(kept), done.backup) == (["001", "002"], kept / "002")
    assert files_of(kept / "001") == {"export.pkl": b"first", "card.json": b"first"}
    last = files_of(kept / "002")
    assert sorted(last) == sorted(FILES)  # 001's successor was whole before it was overwritten by hand
    assert (last["export.pkl"], last["card.json"]) == (b"second", b"second")
    assert (project.models / "export.001.pkl").read_bytes() == b"older still"


def test_whatever_is_overwritten_is_kept(project, _learner):
    """The same model with another threshold is another set: the earlier one is in exports/001, once."""
    export_classifier(project, _learner)
    before = files_of(project.models)
    done = export_classifier(project, _learner, target_error=0.5)
    assert done.backup == project.models / "exports" / "001"
    assert files_of(done.backup) == before
    changed = {name for name, data in files_of(project.models).items() if data != before[name]}
    assert changed == {"MODEL_CARD.md", "README.md", "card.json"}
    assert export_classifier(project, _learner, target_error=0.5).backup is None


def test_a_readme_is_the_persons_to_complete(project, _learner):
    """What a person adds stays while the words stay; when those change it is in the backup, and the licence goes on."""
    readme = project.models / "README.md"
    readme.write_text("mine")
    done = export_classifier(project, _learner)
    assert files_of(done.backup) == {"README.md": b"mine"}
    mine = readme.read_text().replace("---\n", "---\nlicense: cc-by-4.0\n", 1) + "\nThanks to all.\n"
    readme.write_text(mine)
    assert export_classifier(project, _learner).backup is None
    assert readme.read_text() == mine
    done = export_classifier(project, _learner, target_error=0.5)
    assert (done.backup / "README.md").read_text() == mine
    assert "license: cc-by-4.0\n" in readme.read_text() and "Thanks" not in readme.read_text()
    assert "cc-by" not in done.words.read_text()


@pytest.mark.parametrize("step", ["save_onnx", "awkward_pictures", "model_card"])
def test_what_is_interrupted_leaves_the_earlier_set(project, _learner, monkeypatch, step):
    """Stopped by hand while a set is made, the one before is untouched and nothing is left over."""
    (project.models / "export.pkl").write_bytes(b"old")

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, step, stopped)
    with pytest.raises(KeyboardInterrupt):
        export_classifier(project, _learner)
    assert listing(project.models) == ["evaluation.json", "export.pkl", "rounds"]
    assert (project.models / "export.pkl").read_bytes() == b"old"


def test_what_a_killed_run_left_is_removed(project, _learner):
    """A half-made set from a run that was killed is gone after the next one."""
    (project.models / ".export" / "exports").mkdir(parents=True)
    (project.models / ".export" / "export.pkl").write_bytes(b"half")
    export_classifier(project, _learner)
    assert listing(project.models) == sorted([*FILES, "evaluation.json", "rounds"])


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
    """What the notebook prints: what was compared, when the model abstains, and how it fares with the unseen."""
    _, done = _exported
    assert checked_sentence(done) == (
        "Both files gave the same answer to all 6 held-out pictures, and to 26 awkward ones drawn for the purpose. "
        "fastai itself gave it too, to all that were held out."
    )
    others = "what is no upright 8-bit RGB of at most 512 pixels it opens in its own way."
    assert checked_sentence(replace(done, by_fastai=4)).endswith(f"gave it too, to 4 of those held out: {others}")
    assert checked_sentence(replace(done, by_fastai=0)).endswith(f"fastai itself was not asked: {others}")
    few = {"threshold": 0.5, "target_error": 0.05, "reached": False, "why": "2 are wrong"}
    few |= {"coverage": {"value": 0.8, "n": 50}, "error": {"value": 0.05, "n": 40}}
    assert threshold_sentence(few) == (
        'Asked to, it says "unknown" below a probability of 0.50. On the valid side 80% of the pictures then get a '
        "label, and 5.0% of these a wrong one. 2 are wrong."
    )
    assert threshold_sentence(few | {"threshold": 0.0, "reached": True}) == (
        "Every picture gets a label, and on the valid side 5.0% get a wrong one."
    )
    assert threshold_sentence(few | {"threshold": 0.0, "why": "no threshold can promise it"}).endswith(
        "get a wrong one. No threshold can promise it."
    )
    unseen = {"unknown": {"value": 0.6}, "false_alarms": {"value": 0.1}, "note": "Optimistic."}
    assert unseen_sentence(unseen) == (
        'With each label left out in turn, 60% of its pictures were called "unknown", and 10% of the others\' too. '
        "Optimistic."
    )
