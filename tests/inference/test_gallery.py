"""The known photos beside a model: which are nearest, as a loop finds them, and no hostile file gets through."""

import hashlib
import io
import json
import pickle

import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from test_inference import COLOURS, colour_model, saved

from utils.inference import ModelError, gallery, load_classifier
from utils.inference.gallery import GALLERY_FORM, MAX_THUMBNAIL, clean_thumbnail
from utils.pictures import jpeg_bytes

KNOWN = [  # label, colour of the known photo
    ("red", (250, 10, 10)),
    ("red", (160, 60, 60)),
    ("green", (20, 240, 20)),
    ("blue", (10, 10, 250)),
    ("blue", (90, 90, 200)),
]


def describing_model() -> onnx.ModelProto:
    """Return a colour model whose features are the mean colours of a picture."""
    model = colour_model()
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 3]))
    model.graph.node.append(helper.make_node("Mul", ["means", "one"], ["features"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, dtype=np.float32), "one"))
    return model


def swatch(colour, size=(40, 30)) -> bytes:
    """Return a JPEG of one colour."""
    return jpeg_bytes(Image.new("RGB", size, colour))


def gallery_bytes(model: bytes, *, jpegs=None, features=None, **changes) -> bytes:
    """Return a gallery of `KNOWN` for a model's bytes; `changes` are those of what it says of itself."""
    jpegs = [swatch(colour) for _, colour in KNOWN] if jpegs is None else jpegs
    features = np.array([colour for _, colour in KNOWN], np.float16) if features is None else features
    facts = {
        "form": GALLERY_FORM,
        "models": [hashlib.sha256(model).hexdigest()],
        "labels": [label for label, _ in KNOWN],
        "ids": [f"{n:016x}" for n in range(len(KNOWN))],
        "ends": np.cumsum([len(jpeg) for jpeg in jpegs]).tolist(),
    }
    tensors = {"features": features, "thumbnails": np.frombuffer(b"".join(jpegs), np.uint8)}
    return safetensors.numpy.save(tensors, {"gallery": json.dumps(facts | changes)})


@pytest.fixture
def model(tmp_path):
    """Return the path of a model with a gallery beside it."""
    path = saved(describing_model(), tmp_path / "model.onnx")
    (tmp_path / "gallery.safetensors").write_bytes(gallery_bytes(path.read_bytes()))
    return path


def test_each_individual_comes_once_by_its_nearest_photo(model):
    """The order is that of a loop over all cosines; labels, ids and similarities fit each other."""
    asked = [Image.new("RGB", (50, 50), colour) for colour in ((200, 40, 50), (60, 70, 190), (30, 200, 90))]
    found = load_classifier(model).nearest(asked, k=2)
    known = np.array([colour for _, colour in KNOWN], float)
    for image, answer in zip(asked, found, strict=True):
        colour = np.array(image.getpixel((0, 0)), float)
        cosines = known @ colour / np.linalg.norm(known, axis=1) / np.linalg.norm(colour)
        best = {}
        for place in sorted(range(len(KNOWN)), key=lambda n: -cosines[n]):
            best.setdefault(KNOWN[place][0], place)
        first = list(best.items())[:2]
        expected = [(label, f"{place:016x}") for label, place in first]
        assert [(one.label, one.id) for one in answer.individuals] == expected
        alike = [one.similarity for one in answer.individuals]
        np.testing.assert_allclose(alike, [cosines[place] for _, place in first], atol=2e-3)
        with Image.open(io.BytesIO(answer.individuals[0].thumbnail)) as shown:
            assert shown.format == "JPEG" and shown.size == (40, 30)
    assert len(load_classifier(model).nearest(asked[0])[0].individuals) == len(
        COLOURS
    )  # five are asked for, three known


def test_a_photo_that_cannot_be_read_does_not_stop_the_others(model):
    """It has an error and no individuals; the next has its own."""
    broken, fine = load_classifier(model).nearest([b"no picture", Image.new("RGB", (9, 9), (255, 0, 0))])
    assert broken.error and broken.individuals == () and fine.error is None and fine.individuals[0].label == "red"


def test_a_model_without_features_or_photos_says_what_to_do(model, tmp_path):
    """No output "features": export with individuals = true. No file: export again. Predictions go on as ever."""
    plain = load_classifier(saved(colour_model(), tmp_path / "plain" / "model.onnx"))
    with pytest.raises(ModelError, match="individuals = true"):
        plain.nearest([])
    (tmp_path / "gallery.safetensors").unlink()
    alone = load_classifier(model)
    with pytest.raises(ModelError, match="no known photos beside this model"):
        alone.nearest([])
    assert alone.predict(Image.new("RGB", (9, 9), (255, 0, 0)))[0].label == "red"


def test_it_goes_to_another_process(model):
    """Pickled with its model, before and after the photos were read."""
    classifier = load_classifier(model)
    before = pickle.loads(pickle.dumps(classifier)).nearest(Image.new("RGB", (9, 9), (0, 0, 255)))
    assert classifier.nearest(Image.new("RGB", (9, 9), (0, 0, 255))) == before
    assert pickle.loads(pickle.dumps(classifier)).nearest(Image.new("RGB", (9, 9), (0, 0, 255))) == before


def header(**entries) -> bytes:
    """Return a file of safetensors that says what it likes."""
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


def hostile(model: bytes) -> dict[str, tuple[bytes, str]]:
    """Return galleries that cannot be used: name → bytes and words of the refusal."""
    good, many = gallery_bytes(model), [swatch(colour) for _, colour in KNOWN]
    facts = json.dumps(
        {
            "form": GALLERY_FORM,
            "models": [hashlib.sha256(model).hexdigest()],
            "labels": ["red"],
            "ids": ["a"],
            "ends": [3],
        }
    )
    huge = {"dtype": "F16", "shape": [1, 10**12], "data_offsets": [0, 2 * 10**12]}
    thumbs = {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}
    return {
        "empty": (b"", "damaged"),
        "text": (b"not a gallery at all", "cut short"),
        "cut short": (good[:-20], "not where it says"),
        "a long head": ((2**40).to_bytes(8, "little") + good[8:], "cut short"),
        "no JSON": ((5).to_bytes(8, "little") + b"hello", "damaged"),
        "deep JSON": ((40_000).to_bytes(8, "little") + b"[" * 40_000, "damaged"),
        "no facts": (header(features=huge), "damaged"),
        "numbers for a terabyte": (
            header(__metadata__={"gallery": facts}, features=huge, thumbnails=thumbs),
            "not where",
        ),
        "a negative side": (
            header(__metadata__={"gallery": facts}, features=huge | {"shape": [-1, 5]}, thumbnails=thumbs),
            "another kind",
        ),
        "another model": (gallery_bytes(b"other"), "made for another model"),
        "another version": (gallery_bytes(model, form=99), "another version"),
        "no lists": (gallery_bytes(model, labels="red"), "does not say a label"),
        "fewer names": (gallery_bytes(model, ids=["a"]), "does not say a label"),
        "unknown labels": (gallery_bytes(model, labels=["red", "green", "blue", "red", "<b>"]), "does not know"),
        "labels of lists": (gallery_bytes(model, labels=[["red"]] * 5), "damaged"),
        "ids of numbers": (gallery_bytes(model, ids=[1, 2, 3, 4, 5]), "too many photos"),
        "no number": (gallery_bytes(model, features=np.full((5, 3), np.nan, np.float16)), "not numbers"),
        "too few rows": (gallery_bytes(model, features=np.ones((4, 3), np.float16)), "not numbers for each"),
        "floats of 32 bits": (gallery_bytes(model, features=np.ones((5, 3), np.float32)), "another kind"),
        "ends that fall": (gallery_bytes(model, ends=[500, 400, 900, 1000, 1100]), "no bounds"),
        "ends of truth": (gallery_bytes(model, ends=[True, 2, 3, 4, 5]), "no bounds"),
        "ends elsewhere": (gallery_bytes(model, ends=[1, 2, 3, 4, 5]), "end elsewhere"),
        "a photo too large": (gallery_bytes(model, jpegs=[bytes(MAX_THUMBNAIL + 1), *many[1:]]), "too large"),
    }


@pytest.mark.parametrize("name", hostile(b""))
def test_a_hostile_gallery_is_refused_in_a_sentence(name, model):
    """It names the file and what was found; predictions are not touched by it."""
    data, words = hostile(model.read_bytes())[name]
    model.with_name("gallery.safetensors").write_bytes(data)
    classifier = load_classifier(model)
    with pytest.raises(ModelError, match=rf"gallery\.safetensors cannot be used: .*{words}.*notebook 07"):
        classifier.nearest([])
    assert classifier.predict(Image.new("RGB", (9, 9), (255, 0, 0)))[0].label == "red"


def test_a_gallery_larger_than_any_is_not_read(model, monkeypatch):
    """The bound counts bytes of the file."""
    monkeypatch.setattr(gallery, "MAX_GALLERY", 100)
    with pytest.raises(ModelError, match="it is larger than"):
        load_classifier(model).nearest([])


def test_features_of_another_length_are_refused(model):
    """A gallery that names the model and yet does not fit it."""
    data = gallery_bytes(model.read_bytes(), features=np.ones((5, 4), np.float16))
    model.with_name("gallery.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="do not fit"):
        load_classifier(model).nearest(Image.new("RGB", (9, 9)))


def bomb() -> bytes:
    """Return a small JPEG that says that it is 60,000 pixels wide."""
    data = bytearray(swatch((1, 2, 3)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (60_000).to_bytes(2, "big") * 2
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"GIF89a", swatch((1, 2, 3), (161, 20)), bomb(), swatch((1, 2, 3))[:200], b"<svg onload=alert(1)>"],
    ids=["empty", "another format", "too wide", "a bomb", "cut short", "a script"],
)
def test_a_small_photo_that_is_none_is_refused(data):
    """Only a JPEG of at most 160 pixels is shown, decoded and written anew."""
    with pytest.raises(ModelError, match=r"a small photo in gallery\.safetensors is broken"):
        clean_thumbnail(data)


def test_a_small_photo_is_written_anew():
    """What hides behind the picture's end, or in a comment, is gone."""
    data = swatch((200, 30, 40)) + b"<script>alert(1)</script>"
    clean = clean_thumbnail(data)
    assert b"script" not in clean
    with Image.open(io.BytesIO(clean)) as image:
        assert image.size == (40, 30) and abs(image.getpixel((5, 5))[0] - 200) < 4
