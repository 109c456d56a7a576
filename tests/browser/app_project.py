"""Two small projects with real models that know colours, made without training; and photos of every kind."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIZE = 32  # pixels
COLOURS = {"red": (230, 30, 40), "green": (20, 190, 60), "blue": (30, 60, 220)}  # label → what it looks like
WARM = {"warm": (230, 90, 30), "cold": (30, 90, 230)}
WHALES = {"Ada": (230, 30, 40), "Bo": (220, 60, 40), "Cleo": (200, 90, 60), "Dot": (30, 190, 60)}
WHALES |= {"Eve": (30, 60, 220), "Flo": (60, 40, 200), "<b>Gus</b>": (230, 220, 40)}  # individuals, by their colour
SHARPNESS = 12.0  # how much a colour must win by
THRESHOLD = 0.6
GREY = (128, 128, 128)  # belongs to no label
FIGURE = {"value": 0.9, "low": 0.81, "high": 0.95, "n": 60}


def save_model(
    folder: Path, name: str, colours: dict, *, threshold: float | None = THRESHOLD, card=True, finds=False, knows=()
) -> Path:
    """
    Write a model.onnx that judges a picture by its mean colour, and a card, as stage 07 lays them out.

    Each label is a direction from grey; its score is how far the mean colour lies that way. If it `finds` the thing,
    that is what is red. If it `knows` photos, pairs of a label and a JPEG, they lie beside it as 07 would put them; its
    features are the mean colour, from grey.
    """
    towards = np.array(list(colours.values()), np.float32) / 255 - 0.5  # (K, 3)
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    constants = {
        "scale": np.float32(255),
        "middle": np.float32(0.5),
        "weight": SHARPNESS * towards.T,  # (3, K)
        "axes": np.array([1, 2], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "scale"], ["unit"]),
        helper.make_node("Sub", ["unit", "middle"], ["centred"]),
        helper.make_node("ReduceMean", ["centred", "axes"], ["mean"], keepdims=0),  # (N, 3)
        helper.make_node("MatMul", ["mean", "weight"], ["scores"]),  # (N, K)
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(colours)])]
    if finds:
        constants |= {"redness": np.array([[20], [-20], [0]], np.float32), "least": np.float32(4)}
        constants |= {"last": np.array([3], np.int64)}
        nodes += [
            helper.make_node("MatMul", ["centred", "redness"], ["red"]),  # (N, H, W, 1)
            helper.make_node("Sub", ["red", "least"], ["surely"]),
            helper.make_node("Sigmoid", ["surely"], ["places"]),
            helper.make_node("Squeeze", ["places", "last"], ["mask"]),
        ]
        outputs.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", SIZE, SIZE]))
    if knows:
        nodes.append(helper.make_node("Identity", ["mean"], ["features"]))
        outputs.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 3]))
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", SIZE, SIZE, 3])
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "colours", [pixels], outputs, weights),
        opset_imports=[helper.make_opsetid("", 23)],
        ir_version=11,
    )
    facts = {
        "labels": json.dumps(list(colours)),
        "recipe": json.dumps({"longest_side": 512, "size": SIZE, "extra": 8}),
        "name": name,
    }
    if threshold is not None:
        facts["threshold"] = json.dumps(threshold)
    helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    if knows:
        (folder / "gallery.safetensors").write_bytes(gallery_of(path, knows))
    if card:
        facts = card_of(name, list(colours), hashlib.sha256(path.read_bytes()).hexdigest(), threshold=threshold)
        (folder / "card.json").write_text(json.dumps(facts), encoding="utf-8")
    return path


def known_whales() -> list[tuple[str, bytes]]:
    """Return two photos of each individual, with its name."""
    return [(name, photo(colour, size=(90, 60), seed=seed)) for name, colour in WHALES.items() for seed in (1, 2)]


def gallery_of(path: Path, knows: Sequence[tuple[str, bytes]]) -> bytes:
    """Return the known photos of a model as 07 writes them; the features are mean colours, from grey."""
    means = [np.asarray(Image.open(io.BytesIO(jpeg)), float).mean((0, 1)) / 255 - 0.5 for _, jpeg in knows]
    facts = {
        "form": 1,
        "models": [hashlib.sha256(path.read_bytes()).hexdigest()],
        "labels": [name for name, _ in knows],
    }
    facts |= {"ids": [f"{n:016x}" for n in range(len(knows))]}
    facts |= {"ends": np.cumsum([len(jpeg) for _, jpeg in knows]).tolist()}
    tensors = {"features": np.array(means, np.float16)}
    tensors["thumbnails"] = np.frombuffer(b"".join(jpeg for _, jpeg in knows), np.uint8)
    return safetensors.numpy.save(tensors, {"gallery": json.dumps(facts)})


def card_of(name: str, labels: Sequence[str], sha256: str, *, threshold: float | None) -> dict:
    """Return a card as stage 07 writes it, with the figures that the page tells."""
    unknown = {"threshold": threshold, "target_error": 0.05, "reached": True, "error": FIGURE | {"value": 0.04}}
    return {
        "name": name,
        "labels": list(labels),
        "counts": {label: {"test": 12, "train": 84, "valid": 24} for label in labels},
        "verdict": {"side": "test", "right": 54, "n": 60, "guess": 20, "p": 0.0, "better": True},
        "test": {"accuracy": FIGURE},
        "valid": {"accuracy": FIGURE | {"value": 0.95}},
        "unknown": unknown | {"coverage": FIGURE | {"value": 0.88}},
        "licences": {"CC BY 4.0": 300, "unknown": 60},
        "limits": ["It knows these labels and nothing else.", "It was tried on photos by daylight only."],
        "arch": "resnet18",
        "size": SIZE,
        "sha256": {"model.onnx": sha256},
        "created": "2026-11-21T10:00:00+00:00",
    }


def write_project(folder: Path, name: str = "colours") -> Path:
    """Write a project file whose models lie beside it; return its path."""
    path = folder / "project.toml"
    path.write_text(
        f'name = "{name}"\ndata_dir = "data"\nmodels_dir = "models"\n[labels]\nred = ["red"]\nblue = ["blue"]\n',
        encoding="utf-8",
    )
    return path


def photo(colour=COLOURS["red"], *, size=(320, 240), format: str = "JPEG", seed: int = 0, **options) -> bytes:
    """Return a picture of one colour under soft noise, as the bytes of a file."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    soft = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    Image.blend(soft, Image.new("RGB", size, colour), 0.8).save(buffer, format, **options)
    return buffer.getvalue()


def red_on_grey(size=(320, 240)) -> bytes:
    """Return a grey PNG with a red box in the middle: half as wide and half as high."""
    picture = Image.new("RGB", size, GREY)
    width, height = size
    picture.paste(COLOURS["red"], (width // 4, height // 4, width * 3 // 4, height * 3 // 4))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def large_photo() -> bytes:
    """Return a picture file of 40 MB."""
    return photo(COLOURS["blue"], size=(4096, 3413), format="BMP")


def animation() -> bytes:
    """Return an animated GIF."""
    frames = [Image.new("RGB", (64, 64), colour) for colour in COLOURS.values()]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=100)
    return buffer.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" onload="window.hacked=1"></svg>'
