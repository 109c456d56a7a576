"""
Stage 07, the small model file: model.int8.onnx, made of model.onnx for phones, small boards and web pages.

Its weights are whole numbers of eight bits, a quarter of the size. Between the layers numbers have eight bits too:
photos of the training set say how large they get (static quantisation by onnxruntime; Jacob et al. 2018, CVPR). The
file is kept only if the validation set does not show it to be worse.
"""

from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from utils.dataset import Dataset, seeded_rank
from utils.errors import FieldguideError
from utils.evaluate import p_text, paired_figures
from utils.export.formats import neutral, silenced
from utils.export.placing import INT8, ONNX
from utils.inference import Classifier, ModelError, load_classifier
from utils.intervals import LEVEL, wilson
from utils.storage import write_whole
from utils.words import counted, percent, rounded

CALIBRATED_ON = 128  # photos of the training set, drawn by a seeded hash; more hardly move the largest numbers
PHOTOS_AT_ONCE = 16  # photos per step of the network
MOST_LOST = 0.01  # of accuracy: a point
WITH_WEIGHTS = {"Conv", "Gemm", "MatMul"}


class Batches:
    """What onnxruntime's quantiser asks for pictures: `get_next` gives a batch, then None."""

    def __init__(self, batches: Iterable[np.ndarray]) -> None:
        self.left = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next pictures as the network's input, or None if there are no more."""
        pixels = next(self.left, None)
        return None if pixels is None else {"pixels": pixels}


def small_model(dataset: Dataset, staged: Path) -> dict:
    """
    Write model.int8.onnx beside a staged model.onnx if it is not worse; return the facts that card.json holds of it.

    ``bytes`` of both files, ``share`` of the one of the other, ``agreement`` of their labels on the validation set,
    the ``difference`` of accuracy, ``gained`` and ``lost`` groups of near-duplicates and ``p`` of McNemar's exact test;
    ``why`` there is no such file, "" if there is one.
    """
    source, path, whole = staged / ONNX, staged / INT8, load_classifier(staged / ONNX)
    try:
        write_whole(path, quantised(source.read_bytes(), calibration_batches(dataset, whole)))
        small = load_classifier(path)
    except ModelError as error:
        path.unlink(missing_ok=True)
        return {"why": str(error).replace(str(path), INT8).rstrip(".")}
    facts = {"bytes": {name: (staged / name).stat().st_size for name in (ONNX, INT8)}}
    facts |= both_judged(dataset.on("valid"), whole, small)
    facts["share"] = facts["bytes"][INT8] / facts["bytes"][ONNX]
    facts["why"] = objection(facts)
    if facts["why"]:
        path.unlink()
    return facts


def calibration_batches(dataset: Dataset, classifier: Classifier) -> Iterable[np.ndarray]:
    """Yield pixels (n, H, W, 3) of training photos that the seed draws, prepared as the classifier sees them."""
    train, seed = dataset.on("train"), dataset.project.seed
    drawn = sorted(sorted(train.ids, key=lambda id: seeded_rank(seed, id))[:CALIBRATED_ON])
    for start in range(0, len(drawn), PHOTOS_AT_ONCE):
        yield np.stack([network_pixels(classifier, train[id].path) for id in drawn[start : start + PHOTOS_AT_ONCE]])


def network_pixels(classifier: Classifier, photo: Path) -> np.ndarray:
    """Return a photo as the classifier's network sees it, uint8 (H, W, 3)."""
    try:
        return classifier.recipe.pixels(photo)
    except Exception as error:  # decoders raise what they like
        raise FieldguideError(f"{photo} cannot be read ({error}). Remove it and run 02 to 05 again.") from error


def quantised(source: bytes, batches: Iterable[np.ndarray]) -> bytes:
    """
    Return a model.onnx in eight bits: the same input, answer and metadata.

    The preparation of pixels and the softmax stay as they are: they hold no weights, and every digit of theirs counts.
    So do the layers that cut a picture to its thing (mask = "crop"): they calculate with places, in pixels.
    Weights use seven of the eight bits, for older processors add two products in sixteen. Raises ModelError if
    onnxruntime cannot do it.
    """
    from onnxruntime import quantization  # here: most projects do without

    proto = onnx.load_model_from_string(source)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    first = takewhile(lambda node: node.op_type not in WITH_WEIGHTS, proto.graph.node)
    left_out = [node.name for node in (*first, *(n for n in proto.graph.node if n.op_type == "Softmax"))]
    left_out += cropping_nodes(proto.graph)
    with TemporaryDirectory(prefix="fieldguide-") as folder, silenced():
        given, made = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        given.write_bytes(source)
        try:
            quantization.quantize_static(
                given,
                made,
                Batches(batches),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                nodes_to_exclude=left_out,
            )
            small = compact(neutral(onnx.load(made), metadata))
            onnx.checker.check_model(small, full_check=True)
        except FieldguideError:
            raise
        except Exception as error:  # each step of the quantiser raises kinds of its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"onnxruntime cannot write this network in eight bits ({reason[:200]})") from error
    return small.SerializeToString(deterministic=True)


def cropping_nodes(graph: onnx.GraphProto) -> list[str]:
    """
    Return the names of the nodes that find the thing and cut the picture to it; none where nothing is cut.

    Distances of places are PRelu's, which nothing else in our networks has. All that leads to one belongs to the cut,
    and all that follows, up to the network's own first layer: a convolution over several places.
    """
    if not any(value.name == "mask" for value in graph.output):
        return []
    measuring = [node for node in graph.node if node.op_type == "PRelu"]
    needed = {name for node in measuring for name in node.input}
    made, found = {name for node in measuring for name in node.output}, {node.name for node in measuring}
    for node in reversed(graph.node):
        if needed & set(node.output):
            found.add(node.name)
            needed |= set(node.input)
    for node in graph.node:
        sides = next((each.ints for each in node.attribute if each.name == "kernel_shape"), ())
        if made & set(node.input) and not (node.op_type == "Conv" and max(sides) > 1):
            found.add(node.name)
            made |= set(node.output)
    return sorted(found)


def compact(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Take out of an eight-bit network what takes space and says nothing: long names inside, and zero points of 0."""
    graph, kinds = proto.graph, (onnx.TensorProto.INT8, onnx.TensorProto.INT32)
    zeros = {t.name for t in graph.initializer if t.data_type in kinds and not onnx.numpy_helper.to_array(t).any()}
    for node in graph.node:
        node.ClearField("name")
        if node.op_type == "DequantizeLinear" and len(node.input) == 3 and node.input[2] in zeros:
            del node.input[2]
    used = {name for node in graph.node for name in node.input}
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    ends = [value.name for value in (*graph.input, *graph.output)]
    names = [*(t.name for t in constants), *(name for node in graph.node for name in node.output if name not in ends)]
    short = {name: f"{n:x}" for n, name in enumerate(names)} | {"": ""} | {name: name for name in ends}
    for tensor in constants:
        tensor.name = short[tensor.name]
    for node in graph.node:
        node.input[:], node.output[:] = ([short[name] for name in part] for part in (node.input, node.output))
    del graph.initializer[:]
    graph.initializer.extend(constants)
    return proto


def both_judged(dataset: Dataset, whole: Classifier, small: Classifier) -> dict:
    """Return how often two classifiers give one label, and how often each is right, on a data set's photos."""
    said = [np.array([answer.label for answer in each.stream(dataset.paths)]) for each in (whole, small)]
    same, labels = int((said[0] == said[1]).sum()), np.array(dataset.labels)
    right = [(answers == labels).astype(int) for answers in said]
    figures = paired_figures(*right, list(dataset.groups), seed=dataset.project.seed)
    kept = {key: figures[key] for key in ("difference", "gained", "lost", "p")}
    return {"agreement": wilson(same, len(dataset), groups=dataset.groups)} | kept


def objection(facts: Mapping) -> str:
    """
    Return why a small model is not kept, "" if it is: it must be smaller, and not be seen to be worse.

    >>> facts = {"share": 0.26, "difference": {"value": -0.02, "low": -0.05, "high": 0.0}, "gained": 0, "lost": 4}
    >>> objection(facts | {"p": 0.125})
    'on the validation set its accuracy is 2.0 points lower (p = 0.1), and 1 point is allowed'
    >>> objection(facts | {"difference": {"value": 0.0, "low": -0.01, "high": 0.01}, "lost": 0, "p": 1.0})
    ''
    """
    fall = -facts["difference"]["value"]
    told = f"on the validation set its accuracy is {100 * fall:.1f} points lower ({p_text(facts['p'])})"
    if facts["share"] >= 1:
        return "it would be no smaller than model.onnx"
    if fall > MOST_LOST:
        return f"{told}, and {100 * MOST_LOST:.0f} point is allowed"
    if facts["lost"] > facts["gained"] and facts["p"] < 1 - LEVEL:
        return f"{told}, which is no accident"
    return ""


def small_model_sentence(facts: Mapping) -> str:
    """
    Return in a sentence how small model.int8.onnx is and how it answers, or why there is none.

    >>> agreement = {"value": 1.0, "low": 0.93, "high": 1.0, "n": 54}
    >>> facts = {"bytes": {"model.onnx": 18_700_000, "model.int8.onnx": 4_900_000}, "share": 0.26, "why": ""}
    >>> difference = {"value": 0.0, "low": -0.02, "high": 0.02}
    >>> print(small_model_sentence(facts | {"agreement": agreement, "difference": difference, "p": 1.0}))
    model.int8.onnx has 4.9 MB, 26 % of model.onnx. On 54 photos of the validation set it gives the same label to \
100.0 % (95 % interval 93.0 % to 100.0 %); its accuracy differs by +0.0 points (95 % interval -2.0 to +2.0).
    >>> small_model_sentence({"why": "it would be no smaller than model.onnx"})
    'There is no model.int8.onnx: it would be no smaller than model.onnx.'
    """
    if facts["why"]:
        return f"There is no {INT8}: {facts['why']}."
    difference = facts["difference"]
    points = [100 * difference[key] for key in ("value", "low", "high") if difference[key] is not None]
    span = f" (95 % interval {points[1]:+.1f} to {points[2]:+.1f})" if len(points) == 3 else ""
    return (
        f"{INT8} has {facts['bytes'][INT8] / 1e6:.1f} MB, {rounded(facts['share'])} of {ONNX}. On "
        f"{counted(facts['agreement']['n'], 'photo')} of the validation set it gives the same label to "
        f"{percent(facts['agreement'])}; its accuracy differs by {points[0]:+.1f} points{span}."
    )
