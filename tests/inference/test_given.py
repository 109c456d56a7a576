"""What `predict` takes: one answer for one photo, whatever holds it, and one clear error for all else."""

import base64
import datetime
import gzip
import io
import os
import re
import urllib.parse
import zipfile
from pathlib import Path
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import picture_bytes
from PIL import Image
from test_inference import colour_model, draw, make_learner, run, saved

from utils.inference import given, load_classifier
from utils.pictures import LONGEST_SIDE, MAX_PIXELS

KINDS = ("export.pkl", "model.onnx")


class Upload:
    """An upload as web frameworks hand it over: it passes on what a file in it can do."""

    def __init__(self, data: bytes):
        self.stream = io.BytesIO(data)

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


class Whole:
    """An upload that gives all its bytes at once, and takes no size."""

    def __init__(self, data: bytes):
        self.data = data

    def read(self) -> bytes:
        return self.data


class Endless(io.RawIOBase):
    """A file without an end."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return len(buffer)


@pytest.fixture(scope="module")
def _models(tmp_path_factory) -> dict:
    """Return the classifiers of one untrained learner's two files."""
    from utils.export.formats import save_learner, save_onnx

    folder = tmp_path_factory.mktemp("given")
    learn = make_learner(folder / "images")
    save_learner(learn, folder / "export.pkl")
    recipe = f'{{"longest_side": {LONGEST_SIDE}, "size": 64, "extra": 16}}'
    save_onnx(learn, folder / "model.onnx", metadata={"labels": '["cat", "dog"]', "recipe": recipe})
    return {name: load_classifier(folder / name) for name in KINDS}


@pytest.fixture(scope="module")
def _photo(tmp_path_factory) -> Path:
    """Return the path of a photo in a format that loses nothing; red and blue differ in it."""
    return draw(tmp_path_factory.mktemp("photo") / "photo.png", size=(120, 90), seed=5)


@pytest.fixture
def _colours(tmp_path):
    """Return a classifier that tells red, green and blue photos apart."""
    return load_classifier(saved(colour_model(), tmp_path / "model.onnx"))


def at(file, place: int):
    """Return a file, put at a place."""
    file.seek(place)
    return file


def piped(data: bytes):
    """Return a pipe that holds some bytes, unbuffered: it cannot go back, and gives what is there."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as file:
        assert len(data) < 60_000  # more would wait for somebody to read it
        file.write(data)
    return os.fdopen(reader, "rb", buffering=0)


def zipped(data: bytes):
    """Return a file inside an archive, open."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("photo.png", data)
    return zipfile.ZipFile(buffer).open("photo.png")


def from_the_web(data: bytes):
    """Return a file that cannot go back and gives less than it was asked for."""

    class Slow(io.RawIOBase):
        rest = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:
            part = self.rest.read(100)
            buffer[: len(part)] = part
            return len(part)

    return Slow()


def uploaded(data: bytes) -> tuple:
    """Return the value of a FileUpload widget after somebody chose a photo."""
    facts = {"name": "photo.png", "type": "image/png", "size": len(data), "content": memoryview(data)}
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    return ipywidgets.FileUpload(value=({**facts, "last_modified": now},)).value


def colours_first(array: np.ndarray) -> torch.Tensor:
    """Return a tensor of a photo as torch's networks take it."""
    return torch.from_numpy(array.copy()).permute(2, 0, 1)


def fastai_tensor(array: np.ndarray):
    """Return a photo as fastai's data loaders hold it, as fractions."""
    from fastai.vision.all import TensorImage

    return TensorImage(colours_first(array).float() / 255)


WAYS = {  # from a path, its bytes and its pixels
    "path": lambda path, data, pixels: path,
    "text": lambda path, data, pixels: str(path),
    "bytes": lambda path, data, pixels: data,
    "bytearray": lambda path, data, pixels: bytearray(data),
    "memoryview": lambda path, data, pixels: memoryview(data),
    "open file": lambda path, data, pixels: path.open("rb"),
    "open file, unbuffered": lambda path, data, pixels: path.open("rb", buffering=0),
    "open file, read before": lambda path, data, pixels: at(path.open("rb"), len(data)),
    "bytes in a file, written before": lambda path, data, pixels: at(io.BytesIO(data), 77),
    "file in an archive": lambda path, data, pixels: zipped(data),
    "compressed file": lambda path, data, pixels: gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(data))),
    "pipe": lambda path, data, pixels: piped(data),
    "file that cannot seek": lambda path, data, pixels: from_the_web(data),
    "widget's value": lambda path, data, pixels: uploaded(data),
    "widget's upload": lambda path, data, pixels: uploaded(data)[0],
    "upload as a dict": lambda path, data, pixels: {"content": memoryview(data)},
    "upload as an object": lambda path, data, pixels: SimpleNamespace(content=data),
    "upload with read": lambda path, data, pixels: at(Upload(data), 5),
    "upload with read alone": lambda path, data, pixels: Whole(data),
    "image": lambda path, data, pixels: Image.open(path),
    "image with opacity": lambda path, data, pixels: Image.open(path).convert("RGBA"),
    "array": lambda path, data, pixels: pixels,
    "array with opacity": lambda path, data, pixels: np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]),
    "fractions of 16 bits": lambda path, data, pixels: (pixels / 255).astype(np.float16),
    "fractions of 32 bits": lambda path, data, pixels: pixels.astype(np.float32) / 255,
    "fractions of 64 bits": lambda path, data, pixels: pixels / 255,
    "tensor, colours first": lambda path, data, pixels: colours_first(pixels),
    "tensor, colours last": lambda path, data, pixels: torch.from_numpy(pixels.copy()),
    "tensor of fractions": lambda path, data, pixels: (colours_first(pixels) / 255).requires_grad_(),
    "fastai's tensor": lambda path, data, pixels: fastai_tensor(pixels),
    "data: URI": lambda path, data, pixels: f"data:image/png;base64,{base64.b64encode(data).decode()}",
    "data: URI in lines": lambda path, data, pixels: "DATA:image/png;BASE64," + base64.encodebytes(data).decode(),
    "data: URI of an address": lambda path, data, pixels: (
        "data:;base64," + base64.urlsafe_b64encode(data).decode().rstrip("=")
    ),
    "data: URI with signs": lambda path, data, pixels: "data:image/png," + urllib.parse.quote(data),
    "data: URI with both": lambda path, data, pixels: (
        "data:image/png;name=a.png;base64," + urllib.parse.quote(base64.b64encode(data), safe="")
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_one_photo_has_one_answer_whatever_holds_it(_models, _photo, kind, way):
    """Given alone, a photo in any form is one photo, and has the very answer of its file."""
    pixels = np.asarray(Image.open(_photo))
    (expected,) = _models[kind].predict(_photo)
    assert expected.error is None
    assert _models[kind].predict(WAYS[way](_photo, _photo.read_bytes(), pixels)) == [expected]


@pytest.mark.parametrize("kind", KINDS)
def test_many_photos_have_many_answers_in_their_order(_models, _photo, tmp_path, kind):
    """A list, a generator or a column of photos in many forms has an answer for each, in order."""
    paths = [draw(tmp_path / f"{n}.png", size=(80, 60), seed=n) for n in range(len(WAYS))]
    expected = [p.probability for p in _models[kind].predict(paths)]
    assert len(set(expected)) > len(paths) // 2
    ways = [WAYS[way] for way in WAYS if way != "widget's value"]
    given_as = [
        way(path, path.read_bytes(), np.asarray(Image.open(path))) for way, path in zip(ways, paths, strict=False)
    ]
    answers = [p.probability for p in _models[kind].predict(iter(given_as))]
    assert answers == pytest.approx(expected[: len(ways)], abs=1e-6)
    assert [p.probability for p in _models[kind].predict(pd.Series(paths))] == expected


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
def test_grey_photos_have_two_dimensions_or_one_grey(_models, tmp_path, make):
    """Grey pixels of shape (H, W), (H, W, 1) and, as a tensor, (1, H, W) have the answer of the grey file."""
    grey = np.random.default_rng(2).integers(0, 256, (50, 70), dtype=np.uint8)
    path = tmp_path / "grey.png"
    Image.fromarray(grey).save(path)
    expected = _models["model.onnx"].predict(path)
    shapes = [grey, grey[:, :, None]] + [grey[None]] * (make is torch.from_numpy)
    for pixels in shapes:
        assert _models["model.onnx"].predict(make(pixels)) == expected


def test_the_order_of_opencv_is_turned_round(_colours):
    """With bgr, blue comes first in arrays and tensors, opacity stays last, and files go by their own order."""
    blue = np.zeros((20, 30, 3), np.uint8)
    blue[:, :, 0] = 255
    opaque = np.dstack([blue, np.full((20, 30), 255, np.uint8)])
    pictures = [
        blue,
        opaque,
        colours_first(blue),
        blue / 255,
        Image.fromarray(blue),
        picture_bytes(Image.fromarray(blue)),
    ]
    assert [p.label for p in _colours.predict(pictures)] == ["red"] * 6
    assert [p.label for p in _colours.predict(pictures, bgr=True)] == ["blue"] * 4 + ["red"] * 2
    assert next(_colours.stream(blue, bgr=True)).label == "blue"


def test_five_colours_are_refused_also_with_bgr(_colours):
    """Turning the order round does not make a picture of an array that is none."""
    (prediction,) = _colours.predict(np.zeros((20, 30, 5), np.uint8), bgr=True)
    assert "(20, 30, 5)" in prediction.error


@pytest.mark.parametrize(
    "nothing",
    [
        None,
        5,
        2.5,
        object(),
        {"a.jpg": "ant"},
        {"a.jpg"},
        pd.DataFrame({"path": ["a.jpg"]}),
        np.array(5),
        torch.tensor(5),
    ],
    ids=lambda nothing: type(nothing).__name__,
)
def test_what_is_no_picture_is_one_error(_colours, nothing):
    """It is a TypeError that says what was given and what to give; in a list, the others are still judged."""
    name = type(nothing).__name__
    with pytest.raises(TypeError, match=f"^This {name} is not a picture. Give a path, the bytes") as refusal:
        _colours.predict(nothing)
    assert len(str(refusal.value)) < 250
    red = np.full((9, 9, 3), (255, 0, 0), np.uint8)
    answers = _colours.predict([red, nothing, red])
    assert [p.label for p in answers] == ["red", None, "red"] and answers[1].error


@pytest.mark.parametrize("batch", [np.zeros((2, 9, 8, 3), np.uint8), torch.zeros(2, 3, 9, 8)], ids=["array", "tensor"])
def test_an_array_of_four_dimensions_is_refused(_colours, batch):
    """It says to give a list, which is judged; within a list it is an error of its own."""
    with pytest.raises(TypeError, match=r"of shape \(2, .*holds many pictures. Give a list of them: list"):
        _colours.predict(batch)
    assert [p.label for p in _colours.predict(list(batch))] == ["red", "red"]
    assert [p.error is None for p in _colours.predict([batch[0], batch])] == [True, False]


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (np.zeros((3, 20, 30), np.uint8), r"shape \(3, 20, 30\); expected uint8 of shape \(H, W\)"),
        (np.zeros((20, 30), np.uint16), "an array of uint16"),
        (np.zeros((20, 30), bool), "an array of bool"),
        (np.zeros(20, np.uint8), r"an array of shape \(20,\)"),
        (np.zeros((0, 30, 3), np.uint8), "no pixels"),
        (np.zeros((0, 30, 3)), "no pixels"),
        (np.full((20, 30), 1.5), "an array of float64 from 1.5 to 1.5; give fractions"),
        (np.linspace(-1, 1, 600).reshape(20, 30), "from -1 to 1"),
        (np.linspace(0, 255, 600).reshape(20, 30), "from 0 to 255"),
        (np.full((20, 30), np.nan), "from nan to nan"),
        (np.broadcast_to(np.uint8(0), (MAX_PIXELS, 2)), "too many pixels"),
        (np.broadcast_to(0.5, (MAX_PIXELS, 2, 3)), "too many pixels"),
        (Image.new("1", (MAX_PIXELS // 1000, 1001)), "too many pixels"),
        (Image.new("RGB", (0, 5)), "no pixels"),
        (torch.zeros(3, 20, 3, dtype=torch.uint8), r"shape \(3, 20, 3\): its colours may be its first or its last"),
        (torch.zeros(5, 20, 30), r"\(5, 20, 30\)"),
        (torch.full((3, 20, 30), 2.0), "from 2 to 2"),
        (io.StringIO("text"), 'opened as text; open it with "rb"'),
        (SimpleNamespace(read=lambda size: "text"), "gives str where bytes were expected"),
        (SimpleNamespace(read=lambda size: None), "gives NoneType"),
        ("data:image/png;base64,QQ=Q", "base64 is damaged"),
        ("data:image/png;base64,A", "base64 is damaged"),
        ("data:image/png;base64,", "empty file"),
        ("data:text/html,<html></html>", "a web page"),
        (np.array([["a.jpg"]]), "ndarray is not a picture"),
    ],
)
def test_what_leaves_the_picture_to_guessing_is_an_error(_colours, picture, words):
    """Shapes, ranges and contents that do not say what the picture is: one error, with what was given."""
    (prediction,) = _colours.predict(picture)
    assert re.search(words, prediction.error), prediction.error


def test_what_must_be_awaited_is_told(_colours):
    """An upload of an asynchronous framework is refused, and nothing is left unawaited."""

    class Later:
        async def read(self, size: int = -1) -> bytes:
            return b""

    (prediction,) = _colours.predict(Later())
    assert "this Later must be awaited" in prediction.error


@pytest.mark.parametrize(
    "long",
    [
        "Q" * 2_000_000,
        "Q" * 1000,
        "/".join(["Q" * 200] * 10),
        Path("Q" * 2_000_000),
        "https://example.org/" + "Q" * 2_000_000,
        "data:image/png;base64" + "Q" * 2_000_000,
        "data:image/png;base64," + "Q" * 2_000_001,
        "data:image/png," + "Q" * 2_000_000,
        "data:image/png;" + "Q" * 900 + ",Q",
    ],
    ids=["text", "name", "path", "Path", "address", "no comma", "base64", "letters", "kind"],
)
def test_an_error_repeats_no_more_than_a_hundred_letters(_colours, long):
    """However long the text that was given, the error is short."""
    (prediction,) = _colours.predict(long)
    assert prediction.error.count("Q") <= 100
    assert len(prediction.error) < 300


def test_an_error_keeps_the_end_of_a_path(_colours, tmp_path):
    """The name of a photo in deep folders is still there to read."""
    (prediction,) = _colours.predict(tmp_path / ("folder/" * 30) / "missing.jpg")
    assert prediction.error.startswith("There is no picture /") and prediction.error.endswith("/missing.jpg.")


def test_a_long_data_uri_is_refused_before_it_is_decoded(_colours, monkeypatch):
    """Beyond the limit nothing is decoded; at the limit it is."""
    uri = "data:image/png;base64," + "Q" * 400
    monkeypatch.setattr(given, "MAX_URI", len(uri))
    assert "not a picture" in _colours.predict(uri)[0].error
    monkeypatch.setattr(given, "MAX_URI", len(uri) - 1)
    monkeypatch.setattr(given, "unquote_to_bytes", lambda text: pytest.fail("it was decoded"))
    assert "a data: URI of 422 letters" in _colours.predict(uri)[0].error


@pytest.mark.parametrize("part", [3, 4, 5, 1000])
def test_a_data_uri_is_decoded_in_parts(monkeypatch, part):
    """Wherever a part ends, no %-sign is torn from its digits, and a lone one stays."""
    monkeypatch.setattr(given, "PORTION", part)
    data = bytes(range(256)) + b"abc" + bytes(range(256))
    assert given.readable("data:," + urllib.parse.quote(data)) == data
    assert given.readable("data:,100%&%%41%4") == b"100%&%A%4"


def test_a_file_without_an_end_is_refused(_colours, monkeypatch):
    """Of an open file or an upload no more is read than a picture may have."""
    monkeypatch.setattr(given, "LARGEST_OWN_FILE", 3_000_000)
    for endless in (Endless(), io.BufferedReader(Endless()), Whole(bytes(3_000_001))):
        assert "an open file of more than 3 million bytes" in _colours.predict(endless)[0].error
    assert "not a picture" in _colours.predict(Whole(bytes(3_000_000)))[0].error


def test_an_open_file_is_left_as_it_was(_colours, _photo):
    """It stays open, at its place; a file given twice is read twice."""
    with _photo.open("rb") as file:
        file.seek(33)
        first, second = _colours.predict([file, file])
        assert first == second == _colours.predict(_photo)[0]
        assert file.tell() == 33


def test_a_file_that_is_closed_behind_it_was_read(_colours, _photo):
    """A generator may open each file in a with block; a file closed before is an error."""

    def opened():
        for _ in range(5):
            with _photo.open("rb") as file:
                yield file

    assert _colours.predict(opened()) == _colours.predict([_photo] * 5)
    with _photo.open("rb") as file:
        pass
    assert "closed file" in _colours.predict(file)[0].error


def test_an_image_is_refused_where_its_file_is(_colours):
    """An animation opened by PIL has its file's error; one of its frames, copied, is a picture."""
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    image = Image.open(buffer)
    assert [p.error for p in _colours.predict([image, buffer])] == ["animated or many pages"] * 2
    image.seek(1)
    assert _colours.predict(image.copy())[0].label == "blue"


def test_telling_kinds_apart_imports_no_torch(_photo, tmp_path):
    """With a model.onnx, pictures of every kind but tensors are judged without torch or pandas."""
    code = (
        "import io, sys; import numpy as np; from PIL import Image; from utils.inference import load_classifier\n"
        "path = sys.argv[2]; data = open(path, 'rb').read(); image = Image.open(path)\n"
        "kinds = [path, data, io.BytesIO(data), {'content': data}, image, np.asarray(image), 'data:,x', None]\n"
        "print(*[p.error is None for p in load_classifier(sys.argv[1]).predict(kinds)])\n"
        "print({'torch', 'pandas', 'fastai'} & set(sys.modules))"
    )
    done = run("-c", code, saved(colour_model(), tmp_path / "model.onnx"), _photo)
    assert done.stdout.decode().split("\n")[:2] == ["True " * 6 + "False False", "set()"], done.stderr
