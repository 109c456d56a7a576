"""What `utils.export.quantised` promises: a quarter of the size, the same input and metadata, and no worse answers."""

import json
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_export import listing, make_dataset, recorded
from test_inference import make_learner

from utils.errors import FieldguideError
from utils.export import classifier as export
from utils.export import quantised
from utils.export.card import read_card
from utils.export.classifier import checked_sentence, export_classifier
from utils.export.formats import save_onnx
from utils.export.placing import FILES, INT8, ONNX
from utils.export.quantised import calibration_batches, objection
from utils.inference import GALLERY, ModelError, load_classifier
from utils.intervals import figure, wilson

SIZE = 64
RECIPE = {"longest_side": 512, "size": SIZE, "extra": 16}
METADATA = {"labels": '["cat", "dog"]', "recipe": json.dumps(RECIPE), "name": "ñ"}
SAME = {"gained": 0, "lost": 0, "p": 1.0, "difference": figure(0.0, -0.1, 0.1, 4), "agreement": wilson(4, 4)}


@pytest.fixture(scope="module")
def _learner(tmp_path_factory):
    return recorded(make_learner(tmp_path_factory.mktemp("quantised") / "images", network="squeezenet1_1"))


@pytest.fixture(scope="module")
def _float(_learner, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("float") / ONNX
    save_onnx(_learner, path, temperature=3.0, metadata=METADATA)
    return path


def soft_pictures(count: int, seed: int = 3) -> np.ndarray:
    """Return pictures of soft noise: uint8 (count, 64, 64, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return small.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2)


@pytest.fixture(scope="module")
def _small(_float) -> bytes:
    return quantised.quantised(_float.read_bytes(), [soft_pictures(8), soft_pictures(4, seed=4)])


# ---------------------------------------------------------------------------------------------------------------
# The file
# ---------------------------------------------------------------------------------------------------------------


def test_the_small_file_is_asked_as_the_other_is(_small, _float, tmp_path):
    """The same input, answer and metadata; a quarter of the size; load_classifier reads it; its answers are near."""
    (tmp_path / INT8).write_bytes(_small)
    small, whole = onnx.load(tmp_path / INT8), onnx.load(_float)
    assert (small.graph.input, small.graph.output) == (whole.graph.input, whole.graph.output)
    assert {entry.key: entry.value for entry in small.metadata_props} == METADATA
    assert [(each.domain, each.version) for each in small.opset_import] == [("", 21)]
    assert 0.25 < len(_small) / _float.stat().st_size < 0.27
    pictures = soft_pictures(20, seed=9)
    answers = [load_classifier(path).probabilities(pictures) for path in (tmp_path / INT8, _float)]
    assert np.ptp(answers[1][:, 0]) > 0.02
    assert answers[0] == pytest.approx(answers[1], abs=0.02)


def test_the_ends_of_the_network_stay_as_they_are(_small, _float):
    """Pixels are prepared, and probabilities made, in the float's own operations; between them weights are bytes."""
    small, whole = onnx.load_model_from_string(_small).graph, onnx.load(_float).graph
    kinds = [[node.op_type for node in graph.node if node.op_type != "DequantizeLinear"] for graph in (whole, small)]
    prepared = ["Transpose", "Cast", "Div", "Sub", "Div"]
    assert (kinds[0][:6], kinds[1][:6]) == ([*prepared, "Conv"], [*prepared, "QuantizeLinear"])
    last = small.node[-1]
    assert (last.op_type, list(last.output)) == ("Softmax", ["probabilities"])
    weights = [tensor for tensor in small.initializer if len(tensor.dims) > 1 and np.prod(tensor.dims) > 3]
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.INT8}


def test_the_same_network_and_photos_give_the_same_bytes(_small, _float):
    """Made again, the file is the same to the byte; other photos make another."""
    source, batches = _float.read_bytes(), [soft_pictures(8), soft_pictures(4, seed=4)]
    assert quantised.quantised(source, batches) == _small
    assert quantised.quantised(source, [batches[0] // 2]) != _small


def test_the_quantiser_is_silent_and_leaves_nothing(_float, tmp_path, monkeypatch, capfd, caplog):
    """It prints, warns and logs nothing, and no file stays in the working folder or in that of temporary files."""
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with warnings.catch_warnings(record=True) as told, caplog.at_level(logging.INFO):
        warnings.simplefilter("always")
        quantised.quantised(_float.read_bytes(), [soft_pictures(2)])
    assert (list(told), capfd.readouterr(), caplog.records) == ([], ("", ""), [])
    assert [list(folder.iterdir()) for folder in (work, temporary)] == [[], []]


def test_a_network_that_cannot_be_quantised_is_told(_float):
    """What the quantiser fails on becomes one sentence."""
    with pytest.raises(ModelError, match="onnxruntime cannot write this network in eight bits"):
        quantised.quantised(_float.read_bytes(), [np.zeros((1, 7, 7, 3), dtype=np.uint8)])


def test_photos_of_the_training_set_calibrate_it(_float, tmp_path, monkeypatch):
    """A few, drawn by a hash with the seed, prepared as for the network, never one of the other sets."""
    monkeypatch.setattr(quantised, "CALIBRATED_ON", 4)
    monkeypatch.setattr(quantised, "PHOTOS_AT_ONCE", 3)
    model, dataset = load_classifier(_float), make_dataset(tmp_path)
    seen = []
    real = type(model.recipe).pixels
    monkeypatch.setattr(type(model.recipe), "pixels", lambda self, path: seen.append(path) or real(self, path))
    assert [batch.shape for batch in calibration_batches(dataset, model)] == [(3, 64, 64, 3), (1, 64, 64, 3)]
    drawn = list(seen)
    assert len(set(drawn)) == 4 and set(drawn) <= set(dataset.on("train").paths)
    seen.clear()
    assert list(calibration_batches(dataset, model)) and seen == drawn
    seen.clear()
    other = make_dataset(tmp_path / "b", seed=43)
    assert list(calibration_batches(other, model)) and [path.name for path in seen] != [path.name for path in drawn]


def test_a_broken_training_photo_is_named(_float, tmp_path):
    """It is not taken for a fault of the quantiser."""
    dataset = make_dataset(tmp_path)
    broken = dataset.on("train").paths[0]
    broken.write_bytes(b"no picture")
    with pytest.raises(FieldguideError, match=rf"{broken.name} cannot be read .*run 02 to 05 again"):
        quantised.quantised(_float.read_bytes(), calibration_batches(dataset, load_classifier(_float)))


# ---------------------------------------------------------------------------------------------------------------
# Whether it is kept
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, ""),
        ({"difference": figure(-0.01, -0.03, 0.0, 200), "lost": 2, "p": 0.5}, ""),
        ({"difference": figure(-0.011, -0.03, 0.0, 200), "lost": 3, "p": 0.25}, "1.1 points lower (p = 0.2), and 1"),
        ({"difference": figure(-0.007, -0.01, 0.0, 1000), "lost": 7, "p": 0.016}, "0.7 points lower (p = 0.02), which"),
        ({"difference": figure(0.02, 0.01, 0.03, 1000), "gained": 20, "p": 0.0001}, ""),  # better is not worse
        ({"share": 1.0}, "no smaller than model.onnx"),
    ],
)
def test_what_is_seen_to_be_worse_is_not_kept(facts, words):
    """More than a point lost, or a loss that chance would hardly bring, or no smaller file."""
    found = objection(SAME | {"share": 0.26} | facts)
    assert (words in found) and bool(found) == bool(words)


def test_both_files_are_asked_about_the_validation_set(_float, tmp_path):
    """The labels of both are compared photo by photo, a group of near-duplicates once; hand-counted here."""

    class Saying:
        def __init__(self, *labels):
            self.labels = labels

        def stream(self, paths):
            return [quantised_answer(label) for label, _ in zip(self.labels, paths, strict=True)]

    dataset = make_dataset(tmp_path).on("valid")  # cat0, cat1, dog0, dog1
    whole, small = Saying("cat", "cat", "dog", "cat"), Saying("cat", "dog", "dog", "dog")
    found = quantised.both_judged(dataset, whole, small)
    assert (found["agreement"]["value"], found["agreement"]["n"]) == (0.5, 4)
    assert (found["difference"]["value"], found["gained"], found["lost"], found["p"]) == (0.0, 1, 1, 1.0)


def quantised_answer(label: str):
    from utils.inference import Prediction

    return Prediction(label, 1.0, {label: 1.0})


@pytest.fixture
def exported(_learner, _float, tmp_path, monkeypatch):
    """Return a function that exports the learner with ``int8`` as the project file says; model.onnx is a copy."""
    data = onnx.load(_float)

    def save(learn, path, *, metadata, **how):
        onnx.helper.set_model_props(data, dict(metadata))
        path.write_bytes(data.SerializeToString(deterministic=True))

    monkeypatch.setattr(export, "save_onnx", save)

    def run(**settings):
        if not (tmp_path / "data").exists():
            make_dataset(tmp_path)
        dataset = export.read_dataset(make_project(tmp_path, settings))
        return dataset.project.models, export_classifier(dataset, _learner)

    return run


def make_project(folder: Path, settings: dict):
    from utils.project import Project

    facts = {"name": "t", "labels": {"cat": ["cat"], "dog": ["dog"]}, "size": 64, "weights": "none"}
    roots = {"data_dir": str(folder / "data"), "models_dir": str(folder / "models")}
    return Project.model_validate(facts | roots | settings)


def test_who_asks_gets_a_small_file(exported, monkeypatch):
    """The seventh file is there, the card holds its figures and hash, and it is told in words; else there are six."""
    monkeypatch.setattr(quantised, "both_judged", lambda *_: SAME)
    folder, done = exported()
    assert (INT8 in listing(folder), "int8" in done.card, INT8 in checked_sentence(done)) == (False, False, False)
    folder, done = exported(int8=True)
    small = load_classifier(folder / INT8)
    assert small.labels == ("cat", "dog") and small.recipe == load_classifier(folder / ONNX).recipe
    card = read_card(folder)
    sizes = {name: (folder / name).stat().st_size for name in (ONNX, INT8)}
    assert card["int8"] == SAME | {"bytes": sizes, "share": sizes[INT8] / sizes[ONNX], "why": ""}
    assert INT8 in card["sha256"]
    for words in (checked_sentence(done), done.words.read_text(encoding="utf-8")):
        assert "model.int8.onnx has 1.3 MB, 26 % of model.onnx. On 4 photos of the validation set" in words
    assert done.backup is not None and INT8 not in listing(done.backup)
    before = {name: (folder / name).stat().st_mtime_ns for name in FILES if name != GALLERY}
    assert exported(int8=True)[1].card == done.card
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before


def test_no_small_file_of_an_earlier_model_stays(exported, monkeypatch):
    """A set without one takes the earlier one away, into exports/NNN; where it is worse, the card says why."""
    monkeypatch.setattr(quantised, "both_judged", lambda *_: SAME)
    folder, _ = exported(int8=True)
    small = (folder / INT8).read_bytes()
    _, second = exported()
    assert (INT8 in listing(folder), (second.backup / INT8).read_bytes() == small) == (False, True)
    assert INT8 not in second.card["sha256"]
    worse = SAME | {"difference": figure(-0.25, -0.6, 0.0, 4), "lost": 1}
    monkeypatch.setattr(quantised, "both_judged", lambda *_: worse)
    folder, third = exported(int8=True)
    told = "There is no model.int8.onnx: on the validation set its accuracy is 25.0 points lower"
    assert INT8 not in listing(folder) and INT8 not in third.card["sha256"]
    assert told in checked_sentence(third) and told in third.words.read_text(encoding="utf-8")


def test_a_failure_of_the_quantiser_stops_no_export(exported, monkeypatch):
    """The six files are written, and the reason is told."""

    def fail(*_):
        raise ModelError("onnxruntime cannot write this network in eight bits (why)")

    monkeypatch.setattr(quantised, "quantised", fail)
    folder, done = exported(int8=True)
    assert done.card["int8"] == {"why": "onnxruntime cannot write this network in eight bits (why)"}
    assert INT8 not in listing(folder) and "eight bits (why)." in checked_sentence(done)
