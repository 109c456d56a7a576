"""A model.onnx that finds red and blue things without training: cell by cell of a grid, by their mean colour."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

SIZE, CELL = 64, 8  # pixels of the square, and of a cell
LABELS = ("ball", "block")  # red and blue
WIDE = 20  # pixels of a cell's box, which a cell's colours widen somewhat


def detector_model(*, labels=LABELS, size: int = SIZE, names=("boxes", "scores"), **metadata) -> onnx.ModelProto:
    """
    Return an ONNX network that finds what is red or blue.

    A box lies around the middle of each of its cells; its score says how red, or blue, the cell is. Keywords replace
    parts of its metadata, as JSON would hold them; None leaves a part out.
    """
    cells = size // CELL
    middles = (np.indices((cells, cells))[::-1].reshape(2, -1).T + 0.5) * CELL  # (A, 2): x, y
    red, blue = (0.04, -0.02, -0.02), (-0.02, -0.02, 0.04)
    constants = {
        "likeness": np.array([red, blue], np.float32).reshape(2, 3, 1, 1),
        "least": np.array([-4.0, -4.0], np.float32),
        "spread": np.array([[-0.03, 0, 0], [0, -0.02, 0], [0, 0.01, 0.02], [0.04, 0, 0]], np.float32)[:, :, None, None],
        "places": np.concatenate([middles - WIDE / 2, middles + WIDE / 2], 1)[None].astype(np.float32),
        "by_label": np.array([0, len(labels), -1]),
        "by_corner": np.array([0, 4, -1]),
        "nothing": np.float32(0),
        "side": np.float32(size),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["colours"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["colours"], ["means"], kernel_shape=[CELL] * 2, strides=[CELL] * 2),
        helper.make_node("Conv", ["means", "likeness", "least"], ["alike"]),
        helper.make_node("Sigmoid", ["alike"], ["likely"]),
        helper.make_node("Reshape", ["likely", "by_label"], ["listed"]),
        helper.make_node("Transpose", ["listed"], [names[1]], perm=[0, 2, 1]),
        helper.make_node("Conv", ["means", "spread"], ["wider"]),
        helper.make_node("Reshape", ["wider", "by_corner"], ["corners"]),
        helper.make_node("Transpose", ["corners"], ["moved"], perm=[0, 2, 1]),
        helper.make_node("Add", ["places", "moved"], ["loose"]),
        helper.make_node("Clip", ["loose", "nothing", "side"], [names[0]]),
    ]
    kinds = zip(names, ([4], [len(labels)]), strict=True)
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "things",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", size, size, 3])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", cells**2, *last]) for name, last in kinds],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    recipe = {"longest_side": 512, "size": size, "overlap": 0.3, "most": 100}
    facts = {"task": "detect", "labels": list(labels), "recipe": recipe, "threshold": 0.6} | metadata
    helper.set_model_props(model, {name: json.dumps(fact) for name, fact in facts.items() if fact is not None})
    return model


def save_detector(path: Path, **options) -> Path:
    """Write such a model.onnx, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(detector_model(**options).SerializeToString())
    return path


def detector_card(path: Path, **more) -> dict:
    """Return the card of a detector as an export writes it, with a few figures."""
    figure = {"value": 0.86, "low": 0.8, "high": 0.91, "n": 40}
    return {
        "task": "detect",
        "name": "things",
        "labels": list(LABELS),
        "test": {"ap50": figure, "ap": figure | {"value": 0.6}},
        "counts": {label: {"train": 90, "valid": 20, "test": 10} for label in LABELS},
        "licences": {"CC BY 4.0": 120},
        "limits": ["It finds balls and blocks and nothing else."],
        "sha256": {"model.onnx": hashlib.sha256(path.read_bytes()).hexdigest()},
        "created": "2026-11-21T10:00:00+00:00",
    } | more


def things(size=(320, 200), *, seed: int = 0) -> Image.Image:
    """Return a grey picture, noisy, with a red disc in its upper left and a blue block in its lower right."""
    noise = np.random.default_rng(seed).integers(100, 140, (size[1], size[0], 3), dtype=np.uint8)
    image, (width, height) = Image.fromarray(noise), size
    pen, side = ImageDraw.Draw(image), min(size) // 3
    pen.ellipse((width // 8, height // 8, width // 8 + side, height // 8 + side), fill=(230, 30, 40))
    pen.rectangle((width - side - 9, height - side - 9, width - 9, height - 9), fill=(30, 60, 220))
    return image
