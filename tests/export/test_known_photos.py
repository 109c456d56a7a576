"""gallery.safetensors: of single animals the known photos go along, by the model's own features, with the set."""

import io

import numpy as np
import onnx
import pytest
from PIL import Image
from test_export import SIX, change_evaluation, listing, make_dataset, recorded, sha256
from test_inference import make_learner

from utils.errors import FieldguideError
from utils.evaluate.individuals import CaughtFeatures
from utils.export import classifier as export
from utils.export.card import read_card
from utils.export.classifier import export_classifier
from utils.export.gallery import gallery_photos
from utils.inference import GALLERY, load_classifier
from utils.intervals import figure

FOUND = {"individuals": 2, "photos": 6, "valid": {"nearest": {"top1": figure(0.5, 0.2, 0.8, 4)}}}


@pytest.fixture(scope="module")
def _learner(tmp_path_factory):
    return recorded(make_learner(tmp_path_factory.mktemp("known") / "images", network="squeezenet1_1"))


@pytest.fixture(scope="module")
def _exported(_learner, tmp_path_factory):
    """Return a data set of single animals that was exported, and what the export returned."""
    dataset = make_dataset(tmp_path_factory.mktemp("exported"), individuals=True)
    change_evaluation(dataset.project, individuals=FOUND)
    return dataset, export_classifier(dataset, _learner)


def test_the_known_photos_are_a_file_of_the_set(_exported):
    """Seven files; the card names the file's SHA-256, how many photos it shows, and who sees them."""
    dataset, done = _exported
    assert listing(dataset.project.models) == sorted([*SIX, GALLERY, "evaluation.json", "rounds"])
    card = read_card(done.model)
    assert card["gallery"] == {"photos": 6, "of": 6, "each": 3} and card["individuals"] == FOUND
    assert card["sha256"][GALLERY] == sha256(dataset.project.models / GALLERY)
    said = " ".join(card["limits"])
    assert "shows the right individual for 50 %" in said and "small copies of all 6 training photos" in said
    assert f"| {GALLERY.replace('_', '')} |" in done.words.read_text(encoding="utf-8")


def test_the_features_are_those_that_05_measured(_exported, _learner):
    """The output "features" of model.onnx is what 05 catches of the learner; the probabilities are as ever."""
    dataset, done = _exported
    network = load_classifier(done.onnx)
    with _learner.no_bar(), CaughtFeatures(_learner) as caught:
        probs, _ = _learner.get_preds(dl=_learner.dls.test_dl(list(dataset.paths)))
    pixels = np.stack([network.recipe.pixels(path) for path in dataset.paths])
    rows = network.network.features(pixels)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, caught.rows(), atol=2e-3)
    cooled = (probs.log() / done.card["temperature"]).softmax(1)
    np.testing.assert_allclose(network.probabilities(pixels), cooled, atol=1e-3)
    outputs = {value.name: value for value in onnx.load(done.onnx).graph.output}
    assert list(outputs) == ["probabilities", "features"]
    assert [side.dim_param or side.dim_value for side in outputs["features"].type.tensor_type.shape.dim] == ["N", 1024]


def test_each_known_photo_is_nearest_to_itself(_exported):
    """A training photo finds its own id with a similarity of 1, and its own small copy; the test set is not shown."""
    dataset, done = _exported
    train = dataset.on("train")
    for picture, answer in zip(train, load_classifier(done.onnx).nearest(train.paths), strict=True):
        (first,) = [one for one in answer.individuals if one.label == picture.label]  # both labels have this drawing
        assert first.id == picture.id and first.similarity > 0.999
        with Image.open(io.BytesIO(first.thumbnail)) as shown, Image.open(picture.path) as own:
            assert shown.size == own.size  # smaller than 160 pixels
            assert np.abs(np.asarray(shown, float) - np.asarray(own.convert("RGB"), float)).mean() < 12
    assert set(load_classifier(done.onnx).gallery.ids) == set(train.ids)


def test_the_same_model_exported_again_rewrites_nothing(_exported, _learner):
    """The same photos and model give the same bytes: no file is touched, and nothing is kept aside."""
    dataset, _ = _exported
    before = {name: (dataset.project.models / name).stat().st_mtime_ns for name in [*SIX, GALLERY]}
    again = export_classifier(dataset, _learner)
    assert again.backup is None
    assert {name: (dataset.project.models / name).stat().st_mtime_ns for name in before} == before


@pytest.mark.long
def test_without_the_key_there_are_neither_features_nor_photos(_learner, tmp_path):
    """Written with the key, then without: the photos go, model.onnx has one output; the earlier set is kept whole."""
    dataset = make_dataset(tmp_path, individuals=True)
    first = export_classifier(dataset, _learner)
    plain = type(dataset.project).model_validate(dataset.project.model_dump() | {"individuals": False})
    second = export_classifier(export.read_dataset(plain), _learner)
    assert GALLERY in listing(second.backup) and GALLERY not in listing(plain.models)
    assert [value.name for value in onnx.load(second.onnx).graph.output] == ["probabilities"]
    assert first.onnx == second.onnx and "gallery" not in second.card and "individuals" not in second.card


def test_at_most_ten_of_each_are_shown_and_the_seed_draws_them(tmp_path, monkeypatch):
    """Fewer where there are very many individuals; one stays of each; the draw is the same each time."""
    dataset = make_dataset(tmp_path, sides=("valid", *["train"] * 12), individuals=True)
    shown = gallery_photos(dataset)
    assert [shown.labels.count(label) for label in ("cat", "dog")] == [10, 10]
    assert gallery_photos(dataset).ids == shown.ids
    monkeypatch.setattr("utils.export.gallery.MOST_IN_ALL", 7)
    assert [gallery_photos(dataset).labels.count(label) for label in ("cat", "dog")] == [3, 3]
    monkeypatch.setattr("utils.export.gallery.MOST_IN_ALL", 1)
    assert len(gallery_photos(dataset)) == 2
    other = type(dataset.project).model_validate(dataset.project.model_dump() | {"seed": 7})
    assert gallery_photos(export.read_dataset(other)).ids != gallery_photos(dataset).ids


def test_a_photo_that_is_broken_stops_the_export_and_leaves_the_set(_exported, _learner, tmp_path, monkeypatch):
    """One training photo cannot be read: a sentence names it, and no file is put in place."""
    dataset = make_dataset(tmp_path, individuals=True)
    saved = _exported[1].onnx.read_bytes()
    monkeypatch.setattr(export, "save_onnx", lambda learn, path, **_: path.write_bytes(saved))
    dataset.on("train").paths[0].write_bytes(b"broken")
    with pytest.raises(FieldguideError, match="cannot be read"):
        export_classifier(dataset, _learner)
    assert GALLERY not in listing(dataset.project.models) and "model.onnx" not in listing(dataset.project.models)
