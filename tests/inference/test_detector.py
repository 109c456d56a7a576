"""What `load_detector` promises: boxes from the file alone, suppressed as torchvision does it, whatever is given."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from drawn_detector import LABELS, detector_model, save_detector, things
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_inference import REPOSITORY, colour_model, saved

from utils.inference import (
    Detection,
    FoundBox,
    ModelError,
    NoModel,
    box_overlaps,
    is_detector,
    load_classifier,
    load_detector,
    load_model,
)
from utils.inference.suppression import strongest, suppressed
from utils.pictures import ORIENTATION, letterbox_of


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A detector of red and blue things."""
    return load_detector(save_detector(tmp_path_factory.mktemp("detector") / "model.onnx"))


# --- boxes and suppression ------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.5, 0.6]), st.sampled_from([1, 3]))
def test_suppression_is_torchvisions(seed, overlap, labels):
    """The same boxes in the same order as torchvision.ops.batched_nms, with equal scores and equal boxes among them."""
    import torch
    from torchvision.ops import batched_nms, box_iou

    draw = np.random.default_rng(seed)
    count = int(draw.integers(0, 60))
    corner, sides = draw.integers(0, 30, (count, 2)), draw.integers(0, 20, (count, 2))  # some have no area
    boxes = np.concatenate([corner, corner + sides], 1).astype(np.float32)
    scores = draw.choice([0.1, 0.25, 0.5, 0.9], count).astype(np.float32)  # ties everywhere
    names = draw.integers(0, labels, count)
    theirs = batched_nms(*map(torch.from_numpy, (boxes, scores, names)), overlap)
    assert suppressed(boxes, scores, names, overlap=overlap).tolist() == theirs.tolist()
    assert suppressed(boxes, scores, names, overlap=overlap, most=5).tolist() == theirs.tolist()[:5]
    tensor = torch.from_numpy(boxes)
    np.testing.assert_array_equal(box_overlaps(boxes, boxes), box_iou(tensor, tensor).numpy())


def test_many_boxes_are_suppressed_as_torchvision_does():
    """Beyond 1,000 boxes torchvision goes another way; the answer is the same."""
    import torch
    from torchvision.ops import batched_nms

    draw = np.random.default_rng(5)
    corner = draw.random((3000, 2), dtype=np.float32) * 500
    boxes = np.concatenate([corner, corner + 20 + draw.random((3000, 2), dtype=np.float32) * 80], 1)
    scores, names = draw.random(3000, dtype=np.float32), draw.integers(0, 4, 3000)
    theirs = batched_nms(*map(torch.from_numpy, (boxes, scores, names)), 0.6).tolist()
    assert suppressed(boxes, scores, names, overlap=0.6).tolist() == theirs


def test_a_place_may_be_two_things():
    """Two labels of one place are two boxes; those below the least score are none, one at it is."""
    boxes, scores = np.array([[0, 0, 4, 4], [9, 9, 12, 12]], np.float32), np.array([[0.5, 0.9], [0.2, 0.25]])
    kept, values, labels = strongest(boxes, scores, least=0.25, overlap=0.6, most=100)
    assert (values.tolist(), labels.tolist()) == ([0.9, 0.5, 0.25], [1, 0, 1])
    assert kept.tolist() == [[0, 0, 4, 4], [0, 0, 4, 4], [9, 9, 12, 12]]


# --- a detector ------------------------------------------------------------------------------------------------------


def test_things_are_found_where_they_are(detector):
    """Each box covers the middle of its thing, in fractions of the picture and in its pixels."""
    (found,) = detector.predict([things((320, 200))])
    assert (found.width, found.height, found.error) == (320, 200, None)
    assert {box.label for box in found.boxes} == set(LABELS)
    for label, x, y in (("ball", 40 + 33, 25 + 33), ("block", 320 - 42, 200 - 42)):
        left, top, right, bottom = max(
            (box for box in found.boxes if box.label == label), key=lambda box: box.probability
        ).pixels
        assert left < x < right and top < y < bottom
    probabilities = [box.probability for box in found.boxes]
    assert probabilities == sorted(probabilities, reverse=True) and min(probabilities) >= detector.threshold


def test_the_square_is_the_one_of_training(detector):
    """What the network sees is `letterboxed`; its boxes leave the square by the same numbers."""
    image = things((200, 320))
    boxes, scores = detector.raw(detector.recipe.square(image).pixels[None])
    kept, _, _ = strongest(boxes[0], scores[0], least=0.6, overlap=0.3, most=100)
    (found,) = detector.predict(image)
    wanted = letterbox_of(200, 320, 64).out_of(kept.astype(float))
    np.testing.assert_array_equal([box.corners for box in found.boxes], wanted)


def test_a_large_turned_photo_has_its_upright_size(detector, tmp_path):
    """Fractions and pixels are of the upright picture before it is reduced, whatever its EXIF says."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # stored lying on its side
    path = tmp_path / "photo.jpg"
    things((1000, 1600)).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
    (found,) = detector.predict(path)
    assert (found.width, found.height) == (1000, 1600)
    (upright,) = detector.predict(things((1000, 1600)))
    corners = [np.array([box.corners for box in each.boxes[:2]]) for each in (found, upright)]
    assert np.abs(np.subtract(*corners)).max() < 0.02


def test_whatever_can_be_a_picture_is_taken(detector, tmp_path):
    """A path, bytes, an array and an image give the same boxes; what is broken has an error and stops nothing."""
    image = things()
    image.save(tmp_path / "a.png")
    given = [tmp_path / "a.png", (tmp_path / "a.png").read_bytes(), np.asarray(image), image, b""]
    *found, broken = detector.predict(given)
    assert [each.boxes for each in found] == [found[0].boxes] * 4 and found[0].boxes
    assert broken == Detection(error="empty file")
    assert list(detector.stream(iter(given), batch_size=2)) == [*found, broken]


def test_another_threshold_can_be_asked_for(detector):
    """A lower one gives more boxes, and those of a higher one are the first of these; 2 is none."""
    few, usual, many = (detector.predict(things(), threshold=least)[0].boxes for least in (0.85, None, 0.015))
    assert len(few) < len(usual) < len(many) and many[: len(few)] == few
    with pytest.raises(ValueError, match="threshold = 2"):
        detector.predict(things(), threshold=2)


def test_a_box_has_at_least_a_pixel():
    """A box so thin that its corners round to one pixel can still be cut out."""
    box = FoundBox("ant", 0.9, 0.9999, 0.5, 1.0, 0.5001, (40, 30))
    assert box.pixels == (39, 15, 40, 16)


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": ["ball"]}, r"its scores have the shape \(3, 64, 2\), expected \(3, 64, 1\)"),
        ({"labels": ["ball", "ball"]}, "is there twice"),
        ({"recipe": {"size": 64}}, "does not say longest_side, size, overlap and most"),
        ({"recipe": {"size": 64, "longest_side": 512, "overlap": 7, "most": 100}}, "what is not used here"),
        ({"recipe": {"size": 2048, "longest_side": 512, "overlap": 0.5, "most": 100}}, "what is not used here"),
        ({"recipe": {"size": 64, "longest_side": 512, "overlap": 0.5, "most": 100, "bits": 3}}, "as 3 bits"),
        ({"recipe": {"size": 32, "longest_side": 512, "overlap": 0.5, "most": 100}}, "does not work"),
        ({"threshold": None}, "its threshold is missing"),
        ({"threshold": 3}, "its threshold is 3"),
        ({"names": ("boxes", "likely_ones")}, "does not work"),
    ],
)
def test_a_file_that_does_not_fit_itself_is_refused(tmp_path, options, words):
    """One sentence names the file and what does not fit."""
    own = {name: options.pop(name) for name in ("names",) if name in options}
    model = detector_model(**own)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    facts |= {name: json.dumps(value) for name, value in options.items()}
    if "threshold" in options and options["threshold"] is None:
        del facts["threshold"]
    onnx.helper.set_model_props(model, facts)
    path = saved(model, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=words) as refusal:
        load_detector(path)
    assert str(path) in str(refusal.value)


def test_scores_that_are_no_probabilities_are_refused(tmp_path):
    """A network without its last sigmoid is not used."""
    model = detector_model()
    next(node for node in model.graph.node if node.op_type == "Sigmoid").op_type = "Relu"
    with pytest.raises(ModelError, match="not probabilities"):
        load_detector(saved(model, tmp_path / "model.onnx")).predict(Image.new("RGB", (64, 64), (255, 0, 0)))


def test_each_loader_names_the_other(detector, tmp_path):
    """A detector is no classifier and the other way round; `load_model` takes both."""
    things_at, colours_at = detector.network.path, saved(colour_model(), tmp_path / "colours.onnx")
    with pytest.raises(ModelError, match="it finds things in photos; load it with load_detector"):
        load_classifier(things_at)
    with pytest.raises(ModelError, match="it tells photos apart and finds no boxes; load it with load_classifier"):
        load_detector(colours_at)
    assert (is_detector(things_at), is_detector(colours_at), is_detector(tmp_path / "none.onnx")) == (
        True,
        False,
        False,
    )
    assert load_model(things_at) == detector and load_model(colours_at).labels == ("red", "green", "blue")


def test_what_is_no_file_is_told(tmp_path):
    """No file, a folder, a pickle: a sentence says which."""
    (tmp_path / "export.pkl").write_bytes(b"PK\x03\x04")
    with pytest.raises(NoModel, match="There is no model"):
        load_detector(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        load_detector(tmp_path)
    with pytest.raises(ModelError, match=r"not a model\.onnx"):
        load_detector(tmp_path / "export.pkl")


def test_it_needs_neither_torch_nor_onnx(detector, tmp_path):
    """Loading and asking import numpy, Pillow and onnxruntime alone."""
    things().save(tmp_path / "a.png")
    code = (
        "import sys; from utils.inference import load_detector\n"
        "print(len(load_detector(sys.argv[1]).predict(sys.argv[2])[0].boxes) > 0,"
        " sorted({'torch', 'torchvision', 'fastai', 'onnx', 'pandas'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, detector.network.path, str(tmp_path / "a.png")]
    assert subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout == "True []\n"
