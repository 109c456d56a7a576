"""
Stage 07, the two model files: export.pkl for fastai, model.onnx for programs without fastai and torch.

Made of a learner, which stays as it is. The pickle names classes and functions of fastai and torch and nothing of this
repository, this machine or the training. So fastai alone loads it, on any system and Python version. The ONNX file
takes pixels and gives probabilities; its metadata hold what else a program must know. The temperature found in stage 05
is folded into the last layer of both.
"""

import copyreg
import io
import logging
import math
import pickle
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from enum import Enum
from pathlib import Path, PurePath
from types import SimpleNamespace

import onnx
import torch
from fastai.callback.core import TrainEvalCallback
from fastai.learner import CastToTensor, Learner
from fastai.vision.augment import RandomResizedCrop, RandTransform, Resize
from fastcore.foundation import L
from fasttransform import Pipeline
from torch.nn.functional import normalize

from utils.errors import FieldguideError
from utils.evaluate import feature_layers, trained_mirrored
from utils.masks import mask_scorer
from utils.pictures import size_text
from utils.seeing import mask_front_of
from utils.storage import write_whole

OPSET = 21  # the newest that every onnxruntime which requirements.txt admits (from 1.20) runs; torch writes up to 23
EXAMPLES = 2  # pictures shown to the exporter; of one alone it would take N for a constant
CHANNELS = 3
POOLING = (torch.nn.AvgPool2d, torch.nn.AdaptiveAvgPool2d, torch.nn.MaxPool2d, torch.nn.AdaptiveMaxPool2d)
LAST_PICTURE = {"orig_sz", "cp_size", "final_size", "tl"}  # what RandomResizedCrop remembers of the last picture
# What timm notes in a network of where it comes from and how it was made.
NOTES_OF_TIMM = {"pretrained_cfg", "default_cfg", "pretrained_model_args", "feature_info", "_model_args", "_traits"}
OTHER_NETWORKS = "Train it with a kind of network that stage 04 offers, such as resnet18, resnet34 or resnet50."


def _write_path(path: PurePath) -> tuple:
    """Write a path as pathlib.Path, which every system can read, unlike PosixPath."""
    return Path, (path.as_posix(),)


class NeutralPickler(pickle.Pickler):
    """Python's own pickler, but a path read on another system becomes that system's kind of path."""

    dispatch_table = copyreg.dispatch_table.copy() | {type(Path()): _write_path}


PLAIN = SimpleNamespace(Pickler=NeutralPickler, __name__="pickle")  # the part of a pickle module that torch.save uses


def save_learner(learn, path: Path, *, temperature: float = 1.0, bits: int | None = None) -> None:
    """
    Write what predicting needs of a learner to `path`, as a plain pickle that ``load_learner`` reads.

    A second learner is made around a copy of the network and empty dataloaders. So the first stays as it is, and
    optimizer, metrics, callbacks and the place of the photos stay out. The same network gives the same bytes.

    ``learn.export()`` pickles with cloudpickle. Its bytecode crashes another Python version, and it takes along every
    callback, the folder's path and the state of a random generator. `bits` of 16-bit pictures, and whether training
    mirrored pictures, become notes of the step that crops, which fastai does not read. Raises FieldguideError if the
    learner holds something that no other program could name, or the temperature cannot be folded in.
    """
    mirrored = trained_mirrored(learn.dls)
    loaders = deepcopy(learn.dls.new_empty()).cpu()
    loaders.path = Path()
    for loader in loaders.loaders:
        loader.rng = random.Random(0)  # its state would differ at each export, and says nothing
        for items in loader.dataset.tls:
            items.splits = L([], [])  # which pictures trained and which judged; it grows with their number
        for step in loader.after_item.fs:
            for name in LAST_PICTURE & set(vars(step)):
                delattr(step, name)
            if isinstance(step, RandomResizedCrop | Resize):
                step.mirrored = mirrored
                if bits:
                    step.bits = bits
        # Only training draws these; some are ours, and other programs know no such names. One with a size resizes.
        lasting = [t for t in loader.after_batch.fs if not isinstance(t, RandTransform) or getattr(t, "size", None)]
        loader.after_batch = Pipeline(lasting, split_idx=loader.after_batch.split_idx)
    light = Learner(
        loaders,
        cooled_network(learn, temperature),
        loss_func=learn.loss_func,
        cbs=[TrainEvalCallback(), CastToTensor()],
        default_cbs=False,
        path=Path(),
    )
    try:
        buffer = io.BytesIO()  # torch.save on a full disk would raise a RuntimeError of its own
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(light, buffer, pickle_module=PLAIN, pickle_protocol=2)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise FieldguideError(
            f"The learner cannot be exported: {error}. Give fastai only functions that can be imported: no lambda, "
            "and none defined in a notebook."
        ) from error
    write_whole(path, buffer.getvalue())


def cooled_network(learn, temperature: float) -> torch.nn.Module:
    """Return a copy of a learner's network, for judging on the CPU, whose scores are divided by `temperature`."""
    if not (isinstance(temperature, int | float) and 0 < temperature < math.inf):
        raise FieldguideError(
            f"The temperature is {temperature}, expected a number above 0. Delete evaluation.json and run 05 again."
        )
    network = bared(deepcopy(learn.model).cpu().eval())
    if temperature == 1:
        return network
    last = [layer for layer in network.modules() if not list(layer.children())][-1]
    if not isinstance(last, torch.nn.Linear):
        raise FieldguideError(
            f"The network ends with {type(last).__name__}, not with a linear layer, so the temperature {temperature:g} "
            f"cannot be folded into it. {OTHER_NETWORKS}"
        )
    with torch.no_grad():
        last.weight /= temperature
        if last.bias is not None:
            last.bias /= temperature
    return network


def bared(network: torch.nn.Module) -> torch.nn.Module:
    """Take out of timm's layers what only its tools read, make its enumerations plain text, and return the network."""
    for layer in network.modules():
        if type(layer).__module__.startswith("timm."):
            kept = {name: value for name, value in vars(layer).items() if name not in NOTES_OF_TIMM}
            plain = {
                name: value.value for name, value in kept.items() if isinstance(value, str) and isinstance(value, Enum)
            }
            layer.__dict__ = kept | plain
    return network


def _contiguous(layer: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Have a layer read what lies in order in memory: else pooling is written in operations that few programs know."""
    return tuple(value.contiguous() for value in given)


class FromPixels(torch.nn.Module):
    """
    A network with everything around it: uint8 pixels (N, H, W, 3) in, probabilities (N, K) out.

    Where the network finds the thing itself, the mask comes out too: (N, H/4, W/4), from 0 to 1. With `features`, so do
    these, (N, D): what the head makes its scores of. `names` are those of all that comes out.
    """

    def __init__(self, network: torch.nn.Module, mean: torch.Tensor, std: torch.Tensor, *, features: bool = False):
        super().__init__()
        self.network = network
        for layer in network.modules():
            if isinstance(layer, POOLING):
                layer.register_forward_pre_hook(_contiguous)
        front = mask_front_of(network)
        self.scorer = mask_scorer(front) if front else None
        self.judging = feature_layers(network) if features else []
        extras = {"mask": self.scorer, "features": self.judging}
        self.names = ["probabilities", *(name for name, layer in extras.items() if layer)]
        self.register_buffer("mean", mean.view(CHANNELS, 1, 1))
        self.register_buffer("std", std.view(CHANNELS, 1, 1))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        images = pixels.permute(0, 3, 1, 2).contiguous().float() / 255  # (N, 3, H, W)
        found, listening = {}, []
        if self.scorer:
            listen = self.scorer.register_forward_hook
            listening.append(listen(lambda layer, given, scores: found.update(mask=scores.sigmoid()[:, 0])))
        seen: list[torch.Tensor] = []
        for layer in self.judging:
            listening.append(layer.register_forward_pre_hook(lambda layer, given: seen.append(given[0].flatten(1))))
        found["probabilities"] = self.network((images - self.mean) / self.std).softmax(1)  # (N, K)
        for each in listening:
            each.remove()
        if seen:  # those of several networks count alike
            found["features"] = seen[0] if len(seen) == 1 else torch.cat([normalize(rows) for rows in seen], 1)
        return tuple(found[name] for name in self.names)


def save_onnx(
    learn, path: Path, *, temperature: float = 1.0, features: bool = False, metadata: Mapping[str, str]
) -> None:
    """
    Write a learner's network to `path` as an ONNX file that takes pixels and gives probabilities.

    One input ``pixels``, uint8 (N, H, W, 3) in RGB; the output ``probabilities``, float32 (N, K), and where the network
    finds the thing itself also ``mask``, float32 (N, H/4, W/4), how much each place is the thing; with
    `features` also ``features``, float32 (N, D), by which photos are compared; N is free.
    Normalisation, network, weights and softmax are inside. The same network gives the same bytes, and nothing in them
    tells of this machine. `metadata` becomes the file's ``metadata_props``. Raises FieldguideError if the learner does
    not sort three-colour photos into one label each, or ONNX cannot express its network.
    """
    (height, width), mean, std = _preparation(learn)
    model = FromPixels(cooled_network(learn, temperature).float(), mean, std, features=features).eval()
    example = torch.zeros(EXAMPLES, height, width, CHANNELS, dtype=torch.uint8)
    _require_answers(model, example, len(learn.dls.vocab))
    try:
        data = onnx_bytes(model, example, model.names, metadata)
    except Exception as error:  # each step of the exporter raises kinds of its own
        reason = first_line(error)
        raise FieldguideError(f"This network cannot be written as ONNX ({reason}). {OTHER_NETWORKS}") from error
    write_whole(path, data)


def onnx_bytes(
    model: torch.nn.Module, example: torch.Tensor, names: Sequence[str], metadata: Mapping[str, str]
) -> bytes:
    """
    Return a network as the bytes of an ONNX file: uint8 pixels (N, H, W, 3) in, outputs of these names out, N free.

    The same network gives the same bytes. Raises whatever the exporter raises; `first_line` says it in a sentence.
    """
    with silenced():
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=list(names),
            dynamic_shapes={"pixels": {0: torch.export.Dim.DYNAMIC}},
            external_data=False,
            verbose=False,
        )
        proto = neutral(program.model_proto, metadata)
        onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString(deterministic=True)


def first_line(error: Exception) -> str:
    """Return the first line of what an exception says, at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@contextmanager
def silenced() -> Iterator[None]:
    """Keep what a library prints, warns and logs from the notebook: it is meant for the library's makers."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _preparation(learn) -> tuple[tuple[int, int], torch.Tensor, torch.Tensor]:
    """Return height and width in pixels, mean and standard deviation of three colours, that a learner judges with."""
    loader = learn.dls.loaders[-1]
    kinds = [type(t).__name__ for pipeline in getattr(loader.dataset, "tfms", ()) for t in pipeline.fs]
    if kinds.count("Categorize") != 1:
        raise FieldguideError(
            "This learner does not sort pictures into one label each, so it cannot become a model.onnx. Make it as 04 "
            "does, with ImageBlock and CategoryBlock."
        )
    crops = [t for t in loader.after_item.fs if type(t).__name__ in ("RandomResizedCrop", "CropPad")]
    if not crops:
        raise FieldguideError(
            "This learner does not bring pictures to one size by RandomResizedCrop or CropPad as 04 does, so it cannot "
            "become a model.onnx. Make it as 04 does."
        )
    width, height = map(int, crops[-1].size)
    normalize = next((t for t in loader.after_batch.fs if type(t).__name__ == "Normalize"), None)
    mean, std = (normalize.mean, normalize.std) if normalize else (torch.zeros(CHANNELS), torch.ones(CHANNELS))
    mean, std = (torch.as_tensor(stat).detach().flatten().float().cpu() for stat in (mean, std))
    if len(mean) != CHANNELS or len(std) != CHANNELS:
        raise FieldguideError(
            f"This learner normalises {len(mean)} colours, and pictures have {CHANNELS} (red, green, blue) here. Make "
            "it as 04 does."
        )
    return (height, width), mean.as_subclass(torch.Tensor), std.as_subclass(torch.Tensor)


def _require_answers(model: FromPixels, example: torch.Tensor, K: int) -> None:
    """Refuse a network that does not give K scores for a picture of three colours."""
    try:
        with torch.inference_mode():
            shape = tuple(model(example)[0].shape)
    except (RuntimeError, IndexError) as error:
        raise FieldguideError(
            f"The network fails on pictures of {size_text(example.shape[1:3])} pixels in {CHANNELS} colours "
            f"({first_line(error)}). {OTHER_NETWORKS}"
        ) from error
    if shape != (len(example), K):
        raise FieldguideError(
            f"The network answers {len(example)} pictures with the shape {shape}, expected {(len(example), K)}: a "
            f"score for each of {K} labels. {OTHER_NETWORKS}"
        )


def neutral(proto: onnx.ModelProto, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Take out what the exporter notes of this machine's files and versions, and put in our metadata."""
    graph = proto.graph
    graph.ClearField("value_info")  # inner shapes, with a name of their own for N: tract and the quantiser stumble
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    proto.ClearField("producer_version")
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.helper.set_model_props(proto, dict(metadata))
    return proto
