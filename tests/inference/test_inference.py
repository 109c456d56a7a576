"""What `utils.inference` promises: fastai's answers from the file alone, in order, whatever the pictures are."""

import io
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from redteam import archive, call, pickled, text

from utils.export.awkward import awkward_pictures
from utils.inference import (
    Classifier,
    ModelError,
    NoModel,
    Prediction,
    UnsafeModel,
    load_classifier,
    onnx_file,
    pickle_file,
    recipe,
    streaming,
)
from utils.inference import classifier as inference
from utils.pictures import LONGEST_SIDE, open_picture, squish_and_crop
from utils.storage import file_hash

REPOSITORY = Path(__file__).resolve().parents[2]
COLOURS = ("red", "green", "blue")
SIZES = [(64, 64), (300, 40), (40, 300), (512, 512), (500, 333), (123, 77), (65, 64), (200, 512), (32, 32), (90, 91)]


def draw(path: Path, *, size=(64, 64), seed: int = 0, color=(255, 60, 0)) -> Path:
    """Draw a picture of soft noise over a colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    soft = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    Image.blend(soft, Image.new("RGB", size, color), 0.4).save(path)
    return path


def make_learner(folder: Path, *, labels=("cat", "dog"), size: int = 64, network: str = "resnet18", **augment):
    """Return an untrained learner, made as stage 04 makes one, of twelve drawn pictures varied as `augment` says."""
    import torchvision
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        ImageBlock,
        IndexSplitter,
        Normalize,
        RandomResizedCrop,
        accuracy,
        aug_transforms,
        imagenet_stats,
        parent_label,
        set_seed,
        vision_learner,
    )

    set_seed(7)
    pictures = [draw(folder / label / f"{n}.png", seed=n) for label in labels for n in range(6)]
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(labels))),
        get_y=parent_label,
        splitter=IndexSplitter([0, 1, 6, 7]),
        item_tfms=RandomResizedCrop(size, min_scale=0.5),
        batch_tfms=[*aug_transforms(**augment), Normalize.from_stats(*imagenet_stats)],
    )
    loaders = block.dataloaders(pictures, path=folder, bs=4, num_workers=0)
    return vision_learner(loaders, getattr(torchvision.models, network), pretrained=False, metrics=accuracy)


def colour_model(*, size: int = 16, scale: float = 10.0, name: str = "probabilities", **metadata) -> onnx.ModelProto:
    """
    Return an ONNX network of a few operations that tells red, green and blue pictures apart.

    Its probabilities are the softmax of a picture's mean colours, fractions of 255, times `scale`. Keywords replace
    parts of its metadata, as JSON would hold them; None leaves a part out.
    """
    recipe = {"longest_side": 512, "size": size, "extra": 0}
    facts = {"labels": list(COLOURS), "recipe": recipe, "threshold": 0.6, "name": "colours"} | metadata
    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "scale"], ["scores"]),
        helper.make_node("Softmax", ["scores"], [name], axis=1),
    ]
    weights = {"axes": np.array([1, 2]), "scale": np.array(scale / 255, dtype=np.float32)}
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", size, size, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    helper.set_model_props(model, {key: text for key, text in texts.items() if facts[key] is not None})
    return model


def saved(model: onnx.ModelProto, path: Path) -> Path:
    """Write an ONNX model as it is, unchecked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def softmax(*means: float, scale: float = 10.0) -> list[float]:
    """Return what `colour_model` must answer to a picture of these mean colours, fractions."""
    parts = [math.exp(scale * mean) for mean in means]
    return [part / sum(parts) for part in parts]


@pytest.fixture(scope="session")
def _models(tmp_path_factory) -> dict[str, Path]:
    """Return an export.pkl and a model.onnx of one untrained learner."""
    from utils.export.formats import save_learner, save_onnx

    folder = tmp_path_factory.mktemp("inference")
    learn = make_learner(folder / "images")
    save_learner(learn, folder / "export.pkl")
    recipe = {"longest_side": LONGEST_SIDE, "size": 64, "extra": 16}
    save_onnx(learn, folder / "model.onnx", metadata={"labels": '["cat", "dog"]', "recipe": json.dumps(recipe)})
    return {"pkl": folder / "export.pkl", "onnx": folder / "model.onnx"}


@pytest.fixture(scope="session")
def _model(_models) -> Path:
    return _models["pkl"]


@pytest.fixture(scope="session")
def _classifier(_model):
    return load_classifier(_model)


@pytest.fixture(scope="session")
def _onnx_classifier(_models):
    return load_classifier(_models["onnx"])


@pytest.fixture
def _colours(tmp_path):
    """Return the classifier of a colour model."""
    return load_classifier(saved(colour_model(), tmp_path / "model.onnx"))


def patch(*colour: int) -> np.ndarray:
    """Return a picture of one colour, as an array."""
    return np.full((20, 30, 3), colour, dtype=np.uint8)


RED, GREEN, BLUE, GREY = patch(255, 0, 0), patch(0, 255, 0), patch(0, 0, 255), patch(90, 90, 90)


@pytest.fixture(scope="session")
def _pictures(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [draw(folder / f"{n}.png", size=size, seed=n) for n, size in enumerate(SIZES)]
    return paths + [draw(folder / f"{n}.jpg", size=size, seed=n) for n, size in enumerate(SIZES)]


def test_answers_as_fastai_does(_model, _classifier, _pictures):
    """On upright 8-bit RGB files of many sizes, labels equal load_learner's and probabilities are within 1e-3."""
    from fastai.learner import load_learner

    learner = load_learner(_model)
    for path, ours in zip(_pictures, _classifier.predict(_pictures), strict=True):
        with learner.no_bar():
            label, _, theirs = learner.predict(path)
        assert ours.label == label
        assert list(ours.probabilities.values()) == pytest.approx(theirs.tolist(), abs=1e-3)


def test_both_kinds_of_file_answer_alike(_classifier, _onnx_classifier, _pictures):
    """On ordinary and on awkward pictures the .onnx gives the .pkl's labels and its probabilities within 1e-3."""
    pictures = [*_pictures, *awkward_pictures().values()]
    by_pickle, by_onnx = _classifier.predict(pictures), _onnx_classifier.predict(pictures)
    assert [p.label for p in by_onnx] == [p.label for p in by_pickle]
    assert [p.error for p in by_onnx] == [p.error for p in by_pickle]
    judged = [(a, b) for a, b in zip(by_onnx, by_pickle, strict=True) if a.error is None]
    assert len(judged) >= len(pictures) - 2
    for a, b in judged:
        assert dict(a.probabilities) == pytest.approx(dict(b.probabilities), abs=1e-3)


def test_the_answers_differ_between_pictures(_classifier, _pictures):
    """Agreement means something: the untrained network does not answer the same to every picture."""
    spread = np.ptp([p.probabilities["cat"] for p in _classifier.predict(_pictures)])
    assert spread > 0.02


def test_probabilities_sum_to_one(_classifier, _pictures):
    """A prediction's probabilities are over all labels in order, sum to 1, and name the largest."""
    for prediction in _classifier.predict(_pictures):
        assert tuple(prediction.probabilities) == _classifier.labels == ("cat", "dog")
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-12)
        assert prediction.probability == max(prediction.probabilities.values())
        assert prediction.probabilities[prediction.label] == prediction.probability


def test_probabilities_of_onnx_are_those_of_the_network(_colours):
    """The answers are the network's, in the order of its labels, and sum to 1 as doubles do."""
    predictions = _colours.predict([RED, patch(0, 204, 51), GREY])
    expected = [softmax(1, 0, 0), softmax(0, 0.8, 0.2), softmax(1, 1, 1)]
    assert [p.label for p in predictions] == ["red", "green", "red"]
    for prediction, row in zip(predictions, expected, strict=True):
        assert tuple(prediction.probabilities) == COLOURS
        assert list(prediction.probabilities.values()) == pytest.approx(row, abs=1e-6)
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-12)


def test_every_kind_of_picture_gives_one_answer(_classifier, _pictures):
    """A path, a string, bytes, a PIL image and an array of the same picture are judged alike."""
    path = _pictures[0]
    image = Image.open(path)
    kinds = [path, str(path), path.read_bytes(), image, np.asarray(image)]
    probabilities = [p.probability for p in _classifier.predict(kinds)]
    assert probabilities == pytest.approx([probabilities[0]] * 5, abs=1e-6)


def test_a_large_picture_is_judged_as_its_training_copy(_classifier, tmp_path):
    """A photo beyond 512 pixels is judged by the reduced copy that training would have made of it."""
    rng = np.random.default_rng(1)
    photo = Image.fromarray(rng.integers(0, 256, (900, 1400, 3), dtype=np.uint8))
    copy = open_picture(photo, longest_side=512)
    ours, expected = (p.probability for p in _classifier.predict([photo, copy]))
    assert ours == pytest.approx(expected, abs=1e-6)
    reduced = np.asarray(squish_and_crop(copy, 64, extra=16))
    assert np.array_equal(_classifier.recipe.pixels(photo), reduced)


def test_one_picture_alone_is_one_picture(_classifier, _pictures):
    """A path, bytes, image or array given without a list is one picture, not an iterable of letters or rows."""
    path = _pictures[0]
    data = path.read_bytes()
    kinds = (path, str(path), data, bytearray(data), memoryview(data), Image.open(path), np.asarray(Image.open(path)))
    for alone in kinds:
        (prediction,) = _classifier.predict(alone)
        assert prediction.label


def test_an_array_of_paths_is_many_pictures(_colours, _pictures):
    """An array of N paths is N pictures."""
    assert len(_colours.predict(np.array(_pictures[:3]))) == len(_colours.predict(np.array(["a", "b", "c"]))) == 3


def test_one_image_may_be_given_many_times(_colours, tmp_path):
    """A PIL image still bound to its file is decoded once, also where several threads ask for it."""
    path = draw(tmp_path / "photo.png", size=(600, 400))
    expected = _colours.predict(path)[0]
    with Image.open(path) as image:
        assert _colours.predict([image] * 12) == [expected] * 12


def test_a_broken_picture_does_not_stop_the_others(_classifier, _pictures, tmp_path):
    """Each unreadable picture becomes an error in its place; the rest are judged."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(_pictures[-1].read_bytes()[:300])
    found = _classifier.predict([_pictures[0], broken, tmp_path / "none.jpg", tmp_path, 5, None, _pictures[1]])
    assert [p.error is None for p in found] == [True, False, False, False, False, False, True]
    assert found[1] == Prediction(error=found[1].error)
    assert "none.jpg" in found[2].error


def test_an_address_is_no_picture(_colours):
    """A URL where a picture's path belongs is told as such, and nothing is fetched."""
    (prediction,) = _colours.predict(["https://example.org/a.jpg"])
    assert prediction.error == "https://example.org/a.jpg is an address, not a file; download the picture first"


def test_no_pictures_give_no_answers(_classifier):
    """An empty iterable gives an empty list."""
    assert _classifier.predict([]) == []


def test_a_stream_keeps_order_across_batches(_classifier, _pictures):
    """Batches of any size give the same answers in the same order."""
    whole = [p.probability for p in _classifier.predict(_pictures)]
    for batch_size in (1, 3, 100):
        streamed = [p.probability for p in _classifier.stream(iter(_pictures), batch_size=batch_size)]
        assert streamed == pytest.approx(whole, abs=1e-5)


def test_a_stream_is_lazy(_classifier, _pictures):
    """An endless iterable is read no further than two batches ahead, and stops when the reader does."""
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield _pictures[0]

    stream = _classifier.stream(endless(), batch_size=2)
    assert taken == 0
    for _ in range(5):
        next(stream)
    stream.close()
    assert 6 <= taken <= 6 + 2 * 2


class Watched:
    """A network that notes how many pictures each step has; with `gate`, the first step ends after a later one."""

    def __init__(self, network, *, lanes: int | None = None, gate: threading.Event | None = None):
        self.network, self.gate, self.steps = network, gate, []
        self.lanes, self.device = lanes or network.lanes, network.device

    def __call__(self, pixels):
        self.steps.append(len(pixels))
        if self.gate and len(self.steps) == 1:
            self.gate.wait(10)
        elif self.gate:
            self.gate.set()
        return self.network(pixels)


def watched(classifier, **options) -> tuple[Classifier, list[int]]:
    """Return the same classifier with a watched network, and the list that its steps are noted in."""
    network = Watched(classifier.network, **options)
    return Classifier(classifier.labels, classifier.recipe, classifier.threshold, network), network.steps


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_the_batch_size_is_what_the_network_sees(_classifier, _onnx_classifier, _pictures, batch_size):
    """Both kinds of file: each step has batch_size pictures, and only the last has fewer."""
    whole, rest = divmod(len(_pictures), batch_size)
    for classifier in map(watched, (_classifier, _onnx_classifier)):
        assert len(list(classifier[0].stream(_pictures, batch_size=batch_size))) == len(_pictures)
        assert sorted(classifier[1], reverse=True) == [batch_size] * whole + [rest] * (rest > 0)


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 32])
def test_batches_side_by_side_keep_order_and_take_no_more(_colours, lanes, batch_size):
    """Whichever batch ends first: answers in order, a batch per lane and one more taken ahead, whole steps."""
    gate = threading.Event() if min(lanes, batch_size) > 1 else None
    classifier, steps = watched(_colours, lanes=lanes, gate=gate)
    taken = 0

    def source():
        nonlocal taken
        for n in range(200):
            taken += 1
            yield (RED, GREEN, BLUE)[n % 3]

    for n, prediction in enumerate(classifier.stream(source(), batch_size=batch_size)):
        assert prediction.label == ("red", "green", "blue")[n % 3]
        assert taken <= n + (min(lanes, batch_size) + 1) * batch_size
    assert n == 199 and (gate is None or gate.is_set())
    assert sorted(steps)[1:] == [batch_size] * (len(steps) - 1) and sum(steps) == 200


def decoders() -> list[threading.Thread]:
    """Return the threads that open pictures and are still there."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("pictures")]


def test_a_stream_leaves_no_thread_behind(_colours):
    """Read to its end, closed early, or never begun: no thread stays."""
    _colours.predict([RED] * 5)
    assert decoders() == []
    stream = _colours.stream(iter([RED] * 50), batch_size=2)
    next(stream)
    assert decoders() != []
    stream.close()
    assert decoders() == []
    _colours.stream([RED])
    assert decoders() == []


def test_a_failing_iterable_is_told_after_what_came_before(_colours):
    """The iterable's own exception arrives once the pictures before it are judged, and no thread stays."""

    def failing():
        yield from (RED, GREEN, BLUE)
        raise ConnectionError("the camera is gone")

    for batch_size in (1, 2, 32):
        seen = []
        with pytest.raises(ConnectionError, match="the camera is gone"):
            seen.extend(p.label for p in _colours.stream(failing(), batch_size=batch_size))
        stream, labels = _colours.stream(failing(), batch_size=batch_size), []
        with pytest.raises(ConnectionError):
            for prediction in stream:
                labels.append(prediction.label)
        assert labels == list(COLOURS)
        assert decoders() == []


def test_a_picture_deleted_while_streaming_is_told(_colours, tmp_path):
    """A file that goes away between being named and being opened is an error in its place."""
    paths = [draw(tmp_path / f"{n}.png", seed=n) for n in range(8)]
    stream = _colours.stream(paths, batch_size=1)
    next(stream)
    paths[5].unlink()
    errors = [prediction.error for prediction in stream]
    assert [error is None for error in errors] == [True] * 4 + [False] + [True] * 2
    assert "5.png" in errors[4]


def test_pictures_in_memory_do_not_pile_up(_colours):
    """Of an endless source of arrays only a few live at once, however large the batch."""
    seen, most = [], 0

    def camera():
        nonlocal most
        while True:
            frame = RED.copy()
            seen.append(weakref.ref(frame))
            most = max(most, sum(reference() is not None for reference in seen))
            yield frame

    stream = _colours.stream(camera(), batch_size=100)
    for _ in range(300):
        next(stream)
    stream.close()
    assert most <= 3 * min(streaming.DECODERS, onnx_file.cores()) + 3


def test_unknown_below_the_threshold(_colours):
    """With unknown=True a picture whose best probability lies below the threshold has no label; the rest stays."""
    assert _colours.threshold == 0.6
    red, grey, broken = _colours.predict([RED, GREY, b"no picture"], unknown=True)
    assert (red.label, grey.label, broken.label) == ("red", None, None)
    assert (grey.error, broken.probability) == (None, None)
    assert grey.probability == pytest.approx(1 / 3) == max(grey.probabilities.values())
    assert _colours.predict(GREY)[0].label == "red"
    assert next(_colours.stream(GREY, unknown=True)).label is None


def test_a_probability_at_the_threshold_is_known(tmp_path):
    """Only what lies below the threshold is unknown."""
    path = saved(colour_model(scale=0, labels=["a", "b", "c"], threshold=1 / 3), tmp_path / "model.onnx")
    (prediction,) = load_classifier(path).predict(RED, unknown=True)
    assert prediction.label == ("a" if prediction.probability >= 1 / 3 else None)
    path = saved(colour_model(threshold=0), tmp_path / "all.onnx")
    assert load_classifier(path).predict(GREY, unknown=True)[0].label == "red"


def test_unknown_needs_a_threshold(_classifier, tmp_path):
    """Where the model has no threshold, asking for it is refused at once, in a sentence that says what to do."""
    without = load_classifier(saved(colour_model(threshold=None), tmp_path / "model.onnx"))
    for classifier in (_classifier, without):
        assert classifier.threshold is None
        with pytest.raises(ModelError, match="Export it again with notebook 07"):
            classifier.stream([RED], unknown=True)


def test_a_pickles_threshold_is_in_the_card_beside_it(_model, tmp_path):
    """card.json counts only where it names this file's SHA-256, and a broken one does not stop the model."""
    path = Path(shutil.copy(_model, tmp_path))
    unknown = {"threshold": 0.7}
    for card, expected in [
        ({"sha256": {"export.pkl": file_hash(path)}, "unknown": unknown}, 0.7),
        ({"sha256": {"export.pkl": file_hash(path)}, "unknown": {"threshold": None}}, None),
        ({"sha256": {"export.pkl": file_hash(path)}, "unknown": {"threshold": 7}}, None),
        ({"sha256": {"export.pkl": "0" * 64}, "unknown": unknown}, None),
        ({"sha256": "x"}, None),
        ([1], None),
    ]:
        (tmp_path / "card.json").write_text(json.dumps(card), encoding="utf-8")
        assert pickle_file.threshold_beside(path) == expected
    (tmp_path / "card.json").write_bytes(b"\xff{")
    assert load_classifier(path).threshold is None


def test_a_classifier_says_itself_shortly(_colours, _classifier, tmp_path):
    """Its representation is one line: the first labels, the size, the device, the threshold."""
    assert repr(_colours) == "<Classifier of red, green, blue: 16 pixels, cpu, unsure below 0.60>"
    assert repr(_classifier) == f"<Classifier of cat, dog: 64 pixels, {_classifier.device}>"
    odd = Classifier(("a\nb", "\x1b[2J"), _colours.recipe, None, _colours.network)
    assert repr(odd) == "<Classifier of a b, \\x1b[2J: 16 pixels, cpu>"
    many = Classifier(tuple(map(str, range(1000))), _colours.recipe, None, _colours.network)
    assert repr(many) == "<Classifier of 0, 1, 2, 3, 4, 5 and 994 more: 16 pixels, cpu>"


def test_the_recipe_comes_from_the_file(tmp_path):
    """Size, crop and labels are the learner's own, not this module's."""
    from utils.export.formats import save_learner

    learn = make_learner(tmp_path / "images", labels=("морской огурец", 'a "b"', "c"), size=96)
    save_learner(learn, tmp_path / "export.pkl")
    classifier = load_classifier(tmp_path / "export.pkl")
    assert classifier.labels == ('a "b"', "c", "морской огурец")  # fastai sorts them
    assert (classifier.recipe.size, classifier.recipe.extra) == (96, 16)
    assert classifier.network.mean == pytest.approx((0.485, 0.456, 0.406))
    path = saved(colour_model(size=48, recipe={"longest_side": 100, "size": 48, "extra": 8}), tmp_path / "model.onnx")
    assert load_classifier(path).recipe == recipe.Recipe(longest_side=100, size=48, extra=8)


def test_16_bit_pictures_are_read_with_the_bits_of_training(tmp_path):
    """The recipe names them: 12-bit values are as bright as the same picture of 8 bits, and larger ones an error."""
    model = colour_model(recipe={"longest_side": 512, "size": 16, "extra": 0, "bits": 12})
    classifier = load_classifier(saved(model, tmp_path / "model.onnx"))
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    deep, plain, brighter = (Image.fromarray(each) for each in (levels * 16, levels.astype(np.uint8), levels * 257))
    pixels = [classifier.recipe.pixels(image).astype(int) for image in (deep, plain)]
    assert np.abs(pixels[0] - pixels[1]).max() <= 1
    assert "too bright for 12 bits" in classifier.predict(brighter)[0].error


def test_a_file_of_fastais_default_needs_trust(_pictures, tmp_path):
    """What learn.export() writes by default holds code: refused, and loaded with trusted=True."""
    learn = make_learner(tmp_path / "images")
    learn.path = tmp_path
    learn.export("default.pkl")
    with pytest.raises(UnsafeModel, match="trusted=True"):
        load_classifier(tmp_path / "default.pkl")
    assert load_classifier(tmp_path / "default.pkl", trusted=True).predict(_pictures[0])[0].label


def test_what_is_no_model_is_told_in_a_sentence(_model, tmp_path):
    """A missing file, folder, address, cut file, picture, or model of another kind: one sentence that names it."""
    import torch

    cut = tmp_path / "cut.pkl"
    cut.write_bytes(_model.read_bytes()[:100_000])
    other = tmp_path / "other.pkl"
    torch.save({"weights": torch.zeros(3)}, other)
    empty = tmp_path / "empty.pkl"
    empty.write_bytes(b"")
    picture = draw(tmp_path / "photo.png")
    for path, words in [
        (tmp_path / "none.pkl", "There is no model"),
        (tmp_path, "is a folder"),
        ("https://example.org/export.pkl", "is an address"),
        (cut, "cut short"),
        (other, "not a fastai learner"),
        (empty, "it is empty"),
        (picture, "not a torch archive"),
    ]:
        with pytest.raises(ModelError, match=words) as refusal:
            load_classifier(path)
        assert str(path) in str(refusal.value)
        assert "\n" not in str(refusal.value)
    with pytest.raises(FileNotFoundError):
        load_classifier(tmp_path / "none.pkl")
    assert issubclass(NoModel, ValueError)


def test_another_preparation_is_refused(tmp_path):
    """A learner that prepares pictures otherwise than stage 04 would be judged wrongly here: refused."""
    from fastai.vision.all import Resize

    learn = make_learner(tmp_path / "images")
    for loader in learn.dls.loaders:
        loader.after_item.fs[:] = [Resize(64), *loader.after_item.fs[1:]]
    learn.path = tmp_path
    learn.export("other.pkl", pickle_module=pickle)
    with pytest.raises(ModelError, match="prepares pictures in another way"):
        load_classifier(tmp_path / "other.pkl", trusted=True)


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda learn: learn.dls.vocab.items.append("cat"), "label 'cat' is there twice"),
        (lambda learn: learn.dls.vocab.items.append("\ud800"), "not a whole text"),
        (lambda learn: learn.dls.vocab.items.append(""), "not a list of texts"),
        (lambda learn: learn.dls.vocab.items.append("eel"), r"expected \(3, 3\)"),
        (lambda learn: setattr(learn.dls.valid.after_item[0], "val_xtra", "x"), "not a classifier of pictures"),
        (lambda learn: setattr(learn.dls.valid.after_item[0], "val_xtra", 10**400), "not a classifier of pictures"),
        (lambda learn: setattr(learn.model, "train", "x"), "not a classifier of pictures"),
    ],
)
def test_a_pickle_with_odd_parts_is_refused(alter, words, _model, monkeypatch):
    """Labels, numbers or layers that vetting lets pass and that make no sense: one sentence that names the file."""
    learner = pickle_file.unpickled(_model, _model.read_bytes(), trusted=True)
    alter(learner)
    monkeypatch.setattr(pickle_file, "unpickled", lambda *_, **__: learner)
    with pytest.raises(ModelError, match=words) as refusal:
        load_classifier(_model)
    assert str(refusal.value).startswith(str(_model)) and str(refusal.value).isprintable()


def test_labels_are_compared_once():
    """A file of very many labels is not read for hours: each is looked up, not compared with all the others."""
    compared = []

    class Label(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared.append(other)
            return str.__eq__(self, other)

    labels = [Label(n) for n in range(300)]
    assert recipe.checked_labels(labels) == tuple(labels)
    assert len(compared) <= 2 * len(labels)


def test_the_content_tells_which_kind_of_file_it_is(_models, tmp_path):
    """A model.onnx named .pkl and an export.pkl named .onnx are loaded as what they are."""
    shutil.copy(_models["onnx"], tmp_path / "export.pkl")
    shutil.copy(_models["pkl"], tmp_path / "model.onnx")
    assert isinstance(load_classifier(tmp_path / "export.pkl").network, onnx_file.OnnxNetwork)
    assert isinstance(load_classifier(tmp_path / "model.onnx").network, pickle_file.TorchNetwork)


RECIPE = {"longest_side": 512, "size": 16, "extra": 0}


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"labels": None}, "labels are missing"),
        ({"labels": []}, "labels are missing"),
        ({"labels": "[1, 2, 3]"}, "not a list of texts"),
        ({"labels": '{"a": 1}'}, "not a list of texts"),
        ({"labels": '["red", "green", "\\ud800"]'}, "not a whole text"),
        ({"labels": ["red", "red", "blue"]}, "'red' is there twice"),
        ({"labels": ["red", "green"]}, r"numbers of shape \(3, 3\), expected \(3, 2\)"),
        ({"labels": "[" * 100_000}, "not JSON"),
        ({"recipe": None}, "recipe does not say"),
        ({"recipe": "{"}, "not JSON"),
        ({"recipe": RECIPE | {"size": 10**9}}, "not used here"),
        ({"recipe": RECIPE | {"size": -1}}, "not used here"),
        ({"recipe": RECIPE | {"extra": 10**6}}, "not used here"),
        ({"recipe": RECIPE | {"longest_side": 10**6}}, "not used here"),
        ({"recipe": RECIPE | {"size": "16"}}, "in whole pixels"),
        ({"recipe": RECIPE | {"size": 32}}, "does not work"),
        ({"recipe": RECIPE | {"bits": 11}}, "as 11 bits, expected one of"),
        ({"recipe": RECIPE | {"bits": "12"}}, "as 12 bits, expected one of"),
        ({"threshold": 2}, "threshold is 2"),
        ({"threshold": "NaN"}, "threshold is nan"),
        ({"threshold": "true"}, "threshold is True"),
    ],
)
def test_an_onnx_file_with_wrong_metadata_is_refused(metadata, words, tmp_path):
    """Labels, recipe or threshold that are missing or make no sense: one sentence that names the file."""
    path = saved(colour_model(**metadata), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=words) as refusal:
        load_classifier(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def elsewhere(tensor: TensorProto, *, location: str = "secret.bin") -> TensorProto:
    """Say that a tensor's numbers lie in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def test_a_huge_onnx_file_is_refused_unread(tmp_path, monkeypatch):
    """A file larger than any network is refused before it is read."""
    path = saved(colour_model(), tmp_path / "model.onnx")
    monkeypatch.setattr(onnx_file, "MAX_ONNX", path.stat().st_size - 1)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("it was read"))
    with pytest.raises(ModelError, match="more than any network"):
        load_classifier(path)


@pytest.mark.parametrize("outcome", ["pixels", "an error"])
def test_a_photo_that_changes_while_it_is_read_has_no_answer(_classifier, tmp_path, monkeypatch, outcome):
    """Neither the old photo was judged nor the new one: that is its error, and the other photos have their answers."""
    photos = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in photos:
        Image.new("RGB", (80, 60), "red").save(path)
    real = inference.Recipe.pixels

    def written_to(self, picture):
        if picture == photos[0]:
            picture.write_bytes(picture.read_bytes() + b" ")
            if outcome == "an error":
                raise ValueError("truncated")
        return real(self, picture)

    monkeypatch.setattr(inference.Recipe, "pixels", written_to)
    first, second = _classifier.predict(photos)
    assert (first.label, first.error) == (None, "the file changed while it was read")
    assert second.error is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_no_model(tmp_path):
    """A named pipe, which would never end, is refused."""
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="not a regular file"):
        load_classifier(tmp_path / "model.onnx")


def run(*arguments, cwd=REPOSITORY, **environment) -> subprocess.CompletedProcess:
    """Run Python with these arguments."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True)


def test_importing_does_not_import_torch():
    """Importing the module imports neither torch nor fastai nor onnxruntime."""
    code = "import sys, utils.inference; print(sorted({'torch', 'fastai', 'onnxruntime'} & set(sys.modules)))"
    done = run("-c", code)
    assert done.stdout.strip() == b"[]", done.stderr


def test_an_onnx_file_needs_neither_torch_nor_fastai(_models, _pictures):
    """Loading a model.onnx and judging with it imports neither torch nor fastai nor onnx."""
    code = (
        "import sys; from utils.inference import load_classifier; "
        "print(load_classifier(sys.argv[1]).predict(sys.argv[2])[0].label, "
        "sorted({'torch', 'torchvision', 'fastai', 'onnx'} & set(sys.modules)))"
    )
    done = run("-c", code, _models["onnx"], _pictures[0])
    assert done.stdout.split()[0] in (b"cat", b"dog"), done.stderr
    assert done.stdout.split()[1] == b"[]"


def test_a_file_that_names_another_never_reaches_onnxruntime(tmp_path):
    """External data is refused before onnxruntime, which would read it, is even imported."""
    model = colour_model()
    elsewhere(model.graph.initializer[0])
    path = saved(model, tmp_path / "model.onnx")
    code = (
        "import sys; from utils.inference import load_classifier, ModelError\n"
        "try: load_classifier(sys.argv[1])\n"
        "except ModelError: print('onnxruntime' in sys.modules)"
    )
    assert run("-c", code, path).stdout.strip() == b"False"


def test_a_hostile_pickle_never_reaches_torch(tmp_path):
    """A pickle that names a command is refused before torch or fastai is imported."""
    path = archive(tmp_path / "export.pkl", pickled(call("os.system", text("true"))))
    code = (
        "import sys; from utils.inference import load_classifier, UnsafeModel\n"
        "try: load_classifier(sys.argv[1])\n"
        "except UnsafeModel: print(sorted({'torch', 'fastai'} & set(sys.modules)))"
    )
    assert run("-c", code, path).stdout.strip() == b"[]"


@pytest.mark.parametrize(("kind", "module"), [("onnx", "onnxruntime"), ("pkl", "torch"), ("pkl", "fastai")])
def test_what_is_not_installed_is_named(_models, kind, module):
    """Without onnxruntime, torch or fastai the refusal names what to install."""
    code = (
        f"import sys; sys.modules[{module!r}] = None; from utils.inference import load_classifier, ModelError\n"
        "try: load_classifier(sys.argv[1])\n"
        "except ModelError as error: print(error)"
    )
    done = run("-c", code, _models[kind])
    package = "onnxruntime" if kind == "onnx" else "fastai"
    assert f"pip install {package}" in done.stdout.decode() and module in done.stdout.decode(), done.stderr


def copy_alone(folder: Path) -> Path:
    """Copy what stands alone into another program's folder."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("inference", "pictures"):
        shutil.copytree(REPOSITORY / "utils" / name, folder / name, ignore=ignore)
    return folder


@pytest.mark.parametrize("package", ["", "theirs"])
def test_another_program_can_copy_it(package, _models, _pictures, _classifier, tmp_path):
    """In a package or loose beside a script: both kinds of file load, and nothing else of ours is needed."""
    (tmp_path / package).mkdir(exist_ok=True)
    copy_alone(tmp_path / package)
    module = f"{package}.inference".removeprefix(".")
    (tmp_path / "script.py").write_text(
        f"import sys; import {module}; load = sys.modules[{module!r}].load_classifier\n"
        "for path in sys.argv[2:]:\n"
        "    print(load(path).predict(sys.argv[1])[0].probability, 'torch' in sys.modules, 'utils' in sys.modules)"
    )
    done = run(tmp_path / "script.py", _pictures[0], _models["onnx"], _models["pkl"], cwd="/", PYTHONPATH="")
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    assert [line[1:] for line in lines] == [["False", "False"], ["True", "False"]], done.stderr
    expected = _classifier.predict(_pictures[0])[0].probability
    assert [float(line[0]) for line in lines] == pytest.approx([expected] * 2, abs=1e-5)
    done = run("-m", module, _models["onnx"], _pictures[0], cwd=tmp_path, PYTHONPATH="")
    assert done.stdout.decode().split("\t")[1] in ("cat", "dog"), done.stderr
    assert f"python -m {module} " in run("-m", module, "--help", cwd=tmp_path, PYTHONPATH="").stdout.decode()


def test_no_part_can_be_taken_for_another_module():
    """On a module search path, the parts shadow neither Python's modules nor those they import."""
    parts = {path.stem for path in (REPOSITORY / "utils" / "inference").glob("*.py")} | {"inference", "pictures"}
    theirs = {"onnx", "onnxruntime", "torch", "fastai", "numpy", "PIL", "tqdm"}
    assert parts & (sys.stdlib_module_names | theirs) == set()


def test_top_is_sorted():
    """`top` gives the most probable labels first, and nothing for an error."""
    prediction = Prediction("b", 0.5, {"a": 0.2, "b": 0.5, "c": 0.3})
    assert prediction.top(2) == [("b", 0.5), ("c", 0.3)]
    assert Prediction(error="broken").top() == []


def test_bytes_in_memory_are_pictures(_classifier, _pictures):
    """An io buffer's bytes, as an upload brings them, are read without a file."""
    buffer = io.BytesIO()
    Image.open(_pictures[0]).save(buffer, "PNG")
    assert _classifier.predict([buffer.getvalue()])[0].error is None


def test_a_gpu_may_not_round_more_than_others_do():
    """While the network runs, convolutions may not use TF32; what the program had set is back afterwards."""
    import torch

    seen = []

    class Layer(torch.nn.Module):
        def forward(self, batch):
            seen.append(torch.backends.cudnn.allow_tf32)
            return batch.mean((2, 3))

    before = torch.backends.cudnn.allow_tf32
    network = pickle_file.TorchNetwork(Layer(), (0.0,) * 3, (1.0,) * 3, "cpu", ("", b"", False))
    assert network(np.zeros((1, 8, 8, 3), dtype=np.uint8)).shape == (1, 3)
    assert (seen, torch.backends.cudnn.allow_tf32) == ([False], before)


def test_a_model_keeps_to_the_cores_that_it_was_lent(_models, _pictures):
    """One core: one batch at a time on one thread, of onnxruntime as of torch, with equal answers; none is refused."""
    import torch

    for path in _models.values():
        lent = load_classifier(path, cores=1)
        assert lent.network.lanes == 1 and pickle.loads(pickle.dumps(lent)).network.lent == 1
        for one, other in zip(lent.predict(_pictures[:3]), load_classifier(path).predict(_pictures[:3]), strict=True):
            assert one.probability == pytest.approx(other.probability, abs=1e-6)
        with pytest.raises(ValueError, match="cores = 0"):
            load_classifier(path, cores=0)
    onnx_model, pickled = (load_classifier(_models[kind], cores=1) for kind in ("onnx", "pkl"))
    assert onnx_model.network.session.get_session_options().intra_op_num_threads == 1
    threads, before = [], torch.get_num_threads()
    pickled.network.module.register_forward_hook(lambda *_: threads.append(torch.get_num_threads()))
    torch.set_num_threads(before + 1)
    try:
        pickled.predict(_pictures[0])
        assert threads == [1] and torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
