"""
Stage 08: what a program needs that uses the model. Load it, and give it pictures.

Reads an export.pkl or a model.onnx alone: labels, size and normalisation are taken from the file. Pictures are opened,
squished and cropped as they were for training, so that the answers agree with fastai's own. A model.onnx needs neither
fastai nor torch, only onnxruntime. With `pictures` and `vetting` this module stands alone: copy the three files into
another program, in a package or loose in a folder. The command line is `commands`:

    python -m utils.inference models/sea_life/model.onnx photo.jpg other.jpg --json
"""

import hashlib
import json
import math
import os
import re
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from . import vetting
from .vetting import ModelError, UnsafeModel, one_line

if "." in __package__:
    from ..pictures import LONGEST_SIDE, PictureError, open_picture, squish_and_crop
else:  # inference/ and pictures.py were copied loose into another program's folder
    from pictures import LONGEST_SIDE, PictureError, open_picture, squish_and_crop

__all__ = ["Classifier", "ModelError", "NoModel", "Prediction", "UnsafeModel", "load_classifier"]

BATCH_SIZE = 32  # pictures a step of the network; more gains nothing on a CPU
DECODERS = 16  # at most so many threads open pictures while the network works
LANES = 4  # at most so many parts of a batch go through onnxruntime at once
MAX_SIZE = 1024  # pixels, as project.toml allows; a file that asks for more would fill the memory
MAX_SIDE = 8192  # pixels that a picture is reduced to before it is squished; ours are 512
MAX_ONNX = 2**30  # bytes; a large network has a third of it
MAX_FIELDS = 200_000  # of an ONNX file; ours have some thousands
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # one letter and a colon is a disk of Windows
# An ONNX file is a protobuf message (onnx.proto); of its parts these are looked into, by the number of the field …
ONNX_START = b"\x08"  # field 1, a number: the format's version
INNER = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor"},
    "tensor": {},
}
# … and these are refused: no export of ours has them, and the last would have another file read.
ELSEWHERE = "weights that lie in another file"
REFUSED = {
    ("model", 20): "training steps",
    ("model", 25): "functions of its own",
    **dict.fromkeys([("attribute", 6), ("attribute", 11)], "loops or branches"),
    **dict.fromkeys([("graph", 15), ("attribute", 22), ("attribute", 23)], "sparse weights"),
    ("tensor", 13): ELSEWHERE,
}
HALF_A_LETTER = re.compile("[\ud800-\udfff]")  # which JSON lets through, and no file or folder takes
DOMAIN, LOCATION = ("node", 7), ("tensor", 14)  # who defined an operation; 0 where the weights lie in the file itself
ONE_BY_ONE = threading.Lock()  # a PIL image may be given twice, and two threads must not decode it at once


class NoModel(ModelError, FileNotFoundError):
    """There is no model file where one was looked for."""


@dataclass(frozen=True)
class Prediction:
    """
    What the model says of one picture.

    Attributes
    ----------
    label : str or None
        The most probable label; None where the model was asked to say when it is unsure, and is.
    probability : float or None
        The largest of the probabilities, a fraction.
    probabilities : mapping of K labels to floats, or None
        They sum to 1.
    error : str or None
        Why the picture could not be read; then the others are None.
    """

    label: str | None = None
    probability: float | None = None
    probabilities: Mapping[str, float] | None = None
    error: str | None = None

    def top(self, count: int = 3) -> list[tuple[str, float]]:
        """
        Return the `count` most probable labels with their probabilities, the most probable first.

        >>> Prediction("a", 0.7, {"b": 0.3, "a": 0.7}).top(1)
        [('a', 0.7)]
        """
        return sorted((self.probabilities or {}).items(), key=lambda item: -item[1])[:count]


@dataclass(frozen=True)
class Recipe:
    """
    How a picture becomes the network's input, as it did in training's validation.

    Attributes
    ----------
    longest_side : int
        Pixels: larger pictures are reduced to it first.
    size, extra : int
        Pixels: squish to (size + extra)², cut the middle size².
    """

    longest_side: int
    size: int
    extra: int

    def pixels(self, picture) -> np.ndarray:
        """Return a picture, whatever `open_picture` takes, as uint8 of shape (size, size, 3)."""
        image = open_picture(picture, longest_side=self.longest_side)
        return np.asarray(squish_and_crop(image, self.size, extra=self.extra))


@dataclass(frozen=True)
class TorchNetwork:
    """The network of an export.pkl: uint8 pixels (N, size, size, 3) in, probabilities (N, K) out."""

    module: object  # torch.nn.Module, not named here: torch is imported only to load such a file
    mean: tuple[float, ...]  # of three colours, of values scaled to 0…1
    std: tuple[float, ...]
    device: str
    lanes: int = 1  # torch spreads a batch over the processors by itself

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        import torch

        # By default a GPU rounds factors to 10 bits (TF32): its answers would not be those of other machines.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            batch = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() / 255  # (N, 3, size, size)
            mean, std = (torch.tensor(stat, device=self.device).view(3, 1, 1) for stat in (self.mean, self.std))
            return self.module((batch - mean) / std).double().softmax(dim=1).cpu().numpy()  # (N, K)


@dataclass(frozen=True)
class OnnxNetwork:
    """The network of a model.onnx, which normalises by itself: the same in and out as `TorchNetwork`."""

    session: object  # onnxruntime.InferenceSession
    lanes: int
    device: str = "cpu"

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return self.session.run(["probabilities"], {"pixels": pixels})[0]


@dataclass(frozen=True, repr=False)
class Classifier:
    """
    A trained model, ready for pictures; `load_classifier` makes it.

    Attributes
    ----------
    labels : tuple of K str
        In the order of the network's outputs.
    recipe : Recipe
        How pictures are prepared.
    threshold : float or None
        The probability below which the model counts as unsure; None where none is known.
    network : callable
        From uint8 pixels (N, size, size, 3) to probabilities (N, K).
    """

    labels: tuple[str, ...]
    recipe: Recipe
    threshold: float | None
    network: Callable[[np.ndarray], np.ndarray] = field(compare=False)

    def __repr__(self) -> str:
        shown = ", ".join(self.labels[:6]) + (f" and {len(self.labels) - 6} more" if len(self.labels) > 6 else "")
        unsure = "" if self.threshold is None else f", unsure below {self.threshold:.2f}"
        return f"<Classifier of {one_line(shown)}: {self.recipe.size} pixels, {self.device}{unsure}>"

    @property
    def device(self) -> str:
        """Where the network runs: "cuda" for an export.pkl where there is such a GPU, else "cpu"."""
        return self.network.device

    def predict(self, images, *, unknown: bool = False) -> list[Prediction]:
        """
        Return a prediction for each of N pictures, in their order.

        Parameters
        ----------
        images : iterable of pictures, or one picture
            Paths, the bytes of files, PIL images, or uint8 arrays of shape (H, W), (H, W, 3) or (H, W, 4). One array
            of shape (N, H, W, 3) is N pictures.
        unknown : bool
            Whether a picture whose best probability lies below the model's threshold gets the label None.

        Raises
        ------
        ModelError
            If `unknown` is asked of a model without a threshold.
        """
        return list(self.stream(images, unknown=unknown))

    def stream(self, images, *, batch_size: int = BATCH_SIZE, unknown: bool = False) -> Iterator[Prediction]:
        """
        Return an iterator over a prediction for each picture, in their order, made as they are asked for.

        `images` may be endless: no more than two batches are taken ahead, and opened in threads while the network
        works; so an array must not change until its prediction is there. A picture that cannot be read becomes a
        prediction with an `error` and does not stop the others. Where `images` itself fails, the pictures before are
        judged first, and then its exception is raised.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}: a batch holds at least one picture.")
        if unknown and self.threshold is None:
            raise ModelError(
                "This model has no threshold below which it is unsure. Export it again with notebook 07, which fits "
                "one on the valid side, and keep card.json beside an export.pkl; or ask without unknown=True."
            )
        return self._streamed(iter(_several(images)), batch_size, self.threshold if unknown else 0.0)

    def _streamed(self, source: Iterator, batch_size: int, threshold: float) -> Iterator[Prediction]:
        """Yield predictions, whose label is None where its probability is below `threshold`."""
        threads, abreast = min(DECODERS, cores()), min(self.network.lanes, batch_size)
        part = -(-batch_size // (2 * abreast))  # pictures; so few that at the end nobody waits long
        pool = ThreadPoolExecutor(threads, thread_name_prefix="pictures")
        judges = ThreadPoolExecutor(abreast, thread_name_prefix="pictures judged")
        waiting: deque[Future] = deque()
        in_memory: deque[Future] = deque()
        judged: deque[Future] = deque()
        failure = None
        try:
            while True:
                while len(waiting) < part and failure is None:
                    try:
                        picture = next(source)
                    except Exception as error:  # StopIteration among them: the end is one reason to stop of many
                        failure = error
                        break
                    waiting.append(pool.submit(_prepared, picture, self.recipe))
                    if not isinstance(picture, (str, os.PathLike)):
                        in_memory.append(waiting[-1])
                    if len(in_memory) > 2 * threads:  # photos weigh a hundred times what is made of them
                        in_memory.popleft().result()
                if batch := [waiting.popleft().result() for _ in range(len(waiting))]:
                    judged.append(judges.submit(self._judged, batch, threshold))
                elif not judged:
                    break
                if len(judged) > abreast or not batch:
                    yield from judged.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            judges.shutdown(wait=True, cancel_futures=True)
        if not isinstance(failure, StopIteration):
            raise failure

    def _judged(self, batch: list[np.ndarray | str], threshold: float) -> list[Prediction]:
        """Return predictions for a batch of pixels, or of the reasons why there are none."""
        readable = [pixels for pixels in batch if not isinstance(pixels, str)]
        rows = iter(self._probabilities(np.stack(readable)) if readable else ())
        return [
            Prediction(error=pixels) if isinstance(pixels, str) else self._prediction(next(rows), threshold)
            for pixels in batch
        ]

    def _prediction(self, row: np.ndarray, threshold: float) -> Prediction:
        """Return K probabilities as a prediction."""
        best = int(row.argmax())
        probability = float(row[best])
        label = self.labels[best] if probability >= threshold else None
        return Prediction(label, probability, dict(zip(self.labels, row.tolist(), strict=True)))

    def _probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Return probabilities of shape (N, K), each row summing to 1, or refuse what the network gave instead."""
        rows = np.asarray(self.network(pixels), dtype=np.float64)
        expected = (len(pixels), len(self.labels))
        if rows.shape != expected:
            raise ModelError(
                f"the network gives numbers of shape {rows.shape}, expected {expected}, one for each label"
            )
        sums = rows.sum(axis=1, keepdims=True)
        if not ((rows >= 0).all() and (abs(sums - 1) < 1e-3).all()):  # false also for what is no number
            raise ModelError("the network's outputs are no probabilities: fractions that sum to 1")
        return rows / sums


def cores() -> int:
    """Return how many processors this program may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lanes() -> int:
    """
    Return how many parts of a batch go through onnxruntime side by side, each on its share of the processors.

    Where all work on one part, each step of the network waits for the slowest, who shares with those opening pictures.
    """
    return min(LANES, cores())


def _several(images) -> Iterable:
    """Return one picture alone as a list of it: a path must not be taken apart into its letters."""
    alone = isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image))
    if alone or (isinstance(images, np.ndarray) and images.ndim < 4 and images.dtype.kind in "biufc"):
        return [images]
    if not isinstance(images, Iterable):
        raise TypeError(f"{images!r:.80} is no picture, and no iterable of pictures such as a list of paths.")
    return images


def _prepared(picture, recipe: Recipe) -> np.ndarray | str:
    """Return a picture's pixels, or the reason why it has none."""
    try:
        if isinstance(picture, str) and ADDRESS.match(picture):
            raise PictureError(f"{picture} is an address, not a file; download the picture first")
        if isinstance(picture, Image.Image):
            with ONE_BY_ONE:
                return recipe.pixels(picture)
        return recipe.pixels(bytes(picture) if isinstance(picture, (bytearray, memoryview)) else picture)
    except Exception as error:  # decoders raise what they like on broken bytes; none of it may stop the others
        return str(error) or type(error).__name__


def load_classifier(path: str | os.PathLike, *, trusted: bool = False) -> Classifier:
    """
    Load a model exported by stage 07, and have it judge a grey picture to see that it works.

    Parameters
    ----------
    path : path of an export.pkl or a model.onnx; which of them it is, its content says
    trusted : bool
        An export.pkl is a program. By default the file is vetted first, and refused if it asks for anything that
        our exports never ask for. True loads any file: only for one whose maker you know and trust. A model.onnx holds
        numbers and arithmetic alone; it is checked in either case.

    Raises
    ------
    NoModel
        If there is no such file.
    UnsafeModel
        If the file was refused; the message names what was found.
    ModelError
        If it is something else than a classifier of pictures, or damaged, or what reads it is not installed.
    """
    if ADDRESS.match(str(path)):
        raise ModelError(f"{path} is an address, not a file. Download the model, and name the file on this computer.")
    path = Path(path)
    if path.is_dir():
        raise ModelError(f"{path} is a folder, not a model. Name the file in it, such as {path / 'model.onnx'}.")
    if not path.exists():
        raise NoModel(f"There is no model {path}. Make one with the notebooks 01 to 07, or name another file.")
    if not path.is_file():
        raise ModelError(f"{path} is no regular file, so it is no model.")
    classifier = _from_onnx(path) if _is_onnx(path) else _from_pickle(path, trusted=trusted)
    try:
        classifier._probabilities(np.full((3, *[classifier.recipe.size] * 2, 3), 128, dtype=np.uint8))
    except Exception as error:  # a network that does not fit its labels or size fails in ways of its own
        raise ModelError(
            f"{path} does not work: {one_line(error)}. It was not made by notebook 07, or there is too little memory."
        ) from error
    return classifier


def _is_onnx(path: Path) -> bool:
    """Return whether a file begins as ONNX does; where it begins as neither kind of model, its name decides."""
    with path.open("rb") as file:
        start = file.read(len(vetting.FIRST_HEADER))
    return start[:1] == ONNX_START or (path.suffix.lower() == ".onnx" and start != vetting.FIRST_HEADER)


def _from_onnx(path: Path) -> Classifier:
    """Return the classifier in a model.onnx, whose bytes are vetted before onnxruntime sees them."""
    if path.stat().st_size > MAX_ONNX:
        raise ModelError(f"{path} is larger than {MAX_ONNX // 2**20} MB, more than any network here.")
    data = path.read_bytes()
    try:
        _vet_onnx(data)
        session = _session(data)
        labels, recipe, threshold = _from_metadata(session.get_modelmeta().custom_metadata_map)
    except ModelError as error:
        raise ModelError(f"{path} is not a model that can be used here: {error}.") from error.__cause__
    return Classifier(labels, recipe, threshold, OnnxNetwork(session, lanes()))


def _vet_onnx(data: bytes) -> None:
    """Refuse an ONNX file that would have other files read, or that is no plain network."""
    waiting = [("model", memoryview(data))]
    fields = 0
    while waiting:
        part, message = waiting.pop()
        for number, value in _fields(message):
            fields += 1
            at = part, number
            if fields > MAX_FIELDS:
                raise ModelError("it has more parts than any network here")
            if at in REFUSED or (at == LOCATION and value != 0):
                raise ModelError(f"it holds {REFUSED.get(at, ELSEWHERE)}, which exports of notebook 07 never do")
            if (number in INNER[part] or at == DOMAIN) and isinstance(value, int):
                raise ModelError("it is no ONNX file, or damaged")
            if at == DOMAIN and bytes(value) not in (b"", b"ai.onnx"):
                raise ModelError(f"it needs an operation that is not ONNX's own, of {bytes(value[:60])!r}")
            if number in INNER[part]:
                waiting.append((INNER[part][number], value))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a protobuf message: the number of each, and its value, an int or bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if not 0 < number < 2**29 or kind not in (0, 1, 2, 5):
            raise ModelError("it is no ONNX file, or damaged")
        if kind == 0:
            value, at = _varint(message, at)
        else:
            length, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = message[at : at + length], at + length
            if at > len(message):
                raise ModelError("it is cut short, or no ONNX file")
        yield number, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the number written at a place, seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte, at = message[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ModelError("it is cut short, or no ONNX file")


def _session(data: bytes):
    """Return onnxruntime's session of a vetted file."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            "onnxruntime, which reads it, is not installed: pip install onnxruntime; or load the export.pkl"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is told by exceptions, and by them alone
    # A number, for by default each thread is bound to a processor; and waiting threads sleep instead of spinning: both
    # would take from the threads that open pictures.
    options.intra_op_num_threads = max(1, cores() // lanes())
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen kinds
        raise ModelError(f"onnxruntime {onnxruntime.__version__} cannot load it ({one_line(error)})") from error


def _from_metadata(metadata: Mapping[str, str]) -> tuple[tuple[str, ...], Recipe, float | None]:
    """Return labels, recipe and threshold from the texts that a model.onnx carries, or refuse what they say."""
    try:
        labels, recipe, threshold = (json.loads(metadata.get(key, "null")) for key in ("labels", "recipe", "threshold"))
    except (ValueError, RecursionError):
        raise ModelError("its metadata (labels, recipe, threshold) is no JSON") from None
    return _labels(labels), _recipe(recipe), _fraction(threshold)


def _labels(labels) -> tuple[str, ...]:
    """Return labels, or refuse what is no list of different texts."""
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels) or not labels:
        raise ModelError("its labels are missing, or no list of texts")
    for label, times in Counter(labels).items():
        if times > 1 or HALF_A_LETTER.search(label):
            raise ModelError(f"its label {label[:80]!r} is there twice, or no whole text")
    return tuple(labels)


def _recipe(facts) -> Recipe:
    """Return a recipe from numbers of pixels, or refuse those of no use."""
    names = ("longest_side", "size", "extra")
    if not isinstance(facts, dict) or any(type(facts.get(name)) is not int for name in names):
        raise ModelError(f"its recipe does not say {', '.join(names)} in whole pixels")
    recipe = Recipe(*(facts[name] for name in names))
    if not (0 < recipe.size <= MAX_SIZE and 0 <= recipe.extra <= recipe.size and 0 < recipe.longest_side <= MAX_SIDE):
        raise ModelError(f"its recipe asks for pictures of a size that is not used here ({str(facts)[:100]})")
    return recipe


def _fraction(threshold) -> float | None:
    """Return a threshold, or refuse one that is no fraction."""
    if threshold is not None and (type(threshold) not in (int, float) or not 0 <= threshold <= 1):
        raise ModelError(f"its threshold is {str(threshold)[:40]}, expected a fraction between 0 and 1")
    return threshold


def _from_pickle(path: Path, *, trusted: bool) -> Classifier:
    """Return the classifier in an export.pkl, which is vetted unless trusted."""
    if not trusted:
        vetting.vet(path)
    learner = _unpickled(path, trusted=trusted)
    try:
        labels, recipe, network = _described(learner)
    except ModelError as error:
        raise ModelError(f"{path} cannot be used here: {error}.") from error.__cause__
    except Exception as error:  # parts that are missing, or others than were asked for, fail in ways of their own
        raise ModelError(
            f"{path} holds no classifier of pictures as stage 07 exports it, or one too large for this computer "
            f"({one_line(error)})."
        ) from error
    return Classifier(labels, recipe, _threshold_beside(path), network)


def _threshold_beside(path: Path) -> float | None:
    """Return the threshold in the card.json beside an export.pkl, None unless that card is of this very file."""
    try:
        card = json.loads(path.with_name("card.json").read_text(encoding="utf-8"))
        with path.open("rb") as file:
            of_this_file = hashlib.file_digest(file, "sha256").hexdigest() in card["sha256"].values()
        return _fraction(card["unknown"]["threshold"]) if of_this_file else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # without a card, or with a broken one, the model predicts as well, only not "unknown"


def _unpickled(path: Path, *, trusted: bool):
    """Return what the file holds; the bytes are vetted once more as they are read, unless trusted."""
    import pickle

    try:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles being unsafe: that is what vetting is for
            return torch.load(
                path, map_location="cpu", pickle_module=pickle if trusted else vetting, weights_only=False
            )
    except (ModelError, MemoryError):
        raise
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{path} needs {error.name}, which is not installed: pip install fastai. The model.onnx beside it needs "
            "onnxruntime alone."
        ) from error
    except Exception as error:  # unpickling raises whatever the objects inside do
        raise ModelError(
            f"{path} cannot be loaded ({type(error).__name__}: {one_line(error)}). It is damaged, or was made with "
            "other versions of fastai and torch: card.json beside it names them."
        ) from error


def _described(learner) -> tuple[tuple[str, ...], Recipe, TorchNetwork]:
    """Return labels, recipe and network from a learner's own transforms, or say why it is of another kind."""
    import torch

    loader = learner.dls.loaders[-1]
    categories = [t for pipeline in loader.dataset.tfms for t in pipeline.fs if type(t).__name__ == "Categorize"]
    of_pictures = {type(t).__name__: t for t in loader.after_item.fs}
    of_batches = {type(t).__name__: t for t in loader.after_batch.fs if _judging(t)}
    if len(categories) != 1:
        raise ModelError("it does not sort pictures into one label each")
    crop = of_pictures.pop("RandomResizedCrop", None)
    if crop is None or set(of_pictures) != {"ToTensor"} or crop.size[0] != crop.size[1]:
        raise ModelError(
            "it prepares pictures in another way than stage 04 does (RandomResizedCrop to a square), so its answers "
            "would be wrong; use fastai's load_learner"
        )
    normalize = of_batches.pop("Normalize", None)
    of_batches.pop("IntToFloatTensor", None)
    if of_batches:
        raise ModelError(
            f"it changes pictures by {', '.join(of_batches)} before judging them; use fastai's load_learner"
        )
    mean, std = (_numbers(normalize.mean), _numbers(normalize.std)) if normalize else ((0.0,) * 3, (1.0,) * 3)
    size, beyond = int(crop.size[0]), float(crop.val_xtra)
    if not (0 < size <= MAX_SIZE and 0 <= beyond <= 1 and len(mean) == len(std) == 3):
        raise ModelError(f"it wants pictures of {size} pixels in {len(mean)} colours")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = TorchNetwork(learner.model.to(device).eval(), mean, std, device)
    return _labels(list(categories[0].vocab)), Recipe(LONGEST_SIDE, size, math.ceil(size * beyond / 8) * 8), network


def _judging(transform) -> bool:
    """Return whether a transform of batches changes pictures that are judged, not only those trained on."""
    # Turning, zooming and warping are also called for judging, but then leave a picture as it is, unless they resize.
    return transform.split_idx != 0 and (not hasattr(transform, "aff_fs") or transform.size is not None)


def _numbers(tensor) -> tuple[float, ...]:
    """Return a tensor of one number a channel as floats."""
    return tuple(tensor.flatten().tolist())
