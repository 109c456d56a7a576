"""
Reading a model.onnx: the bytes are vetted, then onnxruntime gets them. Needs neither torch nor onnx.

`onnx_vetting` says what is refused, and `onnx_shapes` how much memory a network may take.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .onnx_vetting import message_fields, vet_onnx
from .recipe import Recipe, checked_labels, checked_recipe, checked_threshold
from .vetting import FIRST_HEADER, ModelError, in_one_line

LANES = 4  # at most so many batches go through onnxruntime at once
MAX_ONNX = 2**30  # bytes; a large network has a third of it
ONNX_START = b"\x08"  # field 1, a number: the format's version
CLASSIFY, DETECT = "classify", "detect"  # what a file is for; one that does not say it tells photos apart
METADATA_FACTS = {
    "labels": None,
    "recipe": None,
    "threshold": None,
    "task": CLASSIFY,
}  # of the metadata, if they are missing
METADATA, KEY, VALUE = 14, 1, 2  # fields of ONNX's messages


@dataclass(frozen=True)
class OnnxNetwork:
    """
    The network of a model.onnx: uint8 pixels (N, H, W, 3) in, probabilities (N, K) out.

    Pickled for another process, it takes its file's bytes along, and they are vetted there: the answers stay the same,
    also where another file has come to its path.
    """

    session: object  # onnxruntime.InferenceSession, which cannot be pickled
    lanes: int
    path: str = field(compare=False)  # for messages
    data: bytes = field(repr=False, compare=False)
    lent: int | None = field(default=None, compare=False)  # processors, where they are fewer than the machine's
    device: str = "cpu"

    def __reduce__(self):
        return onnx_network, (self.path, self.data, self.lent)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return self.session.run(["probabilities"], {"pixels": pixels})[0]

    @property
    def finds(self) -> bool:
        """Whether the network finds the thing before it tells which one it is."""
        return any(output.name == "mask" for output in self.session.get_outputs())

    @property
    def describes(self) -> bool:
        """Whether the network gives features, by which photos are compared."""
        return any(output.name == "features" for output in self.session.get_outputs())

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Return what the network makes of N pictures before it tells which one it is: (N, D)."""
        return self.session.run(["features"], {"pixels": pixels})[0]

    def boxes(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return all boxes (N, A, 4) and scores (N, A, K) of N pictures, of a network that finds things in them."""
        boxes, scores = self.session.run(["boxes", "scores"], {"pixels": pixels})
        return boxes, scores

    def masks(self, pixels: np.ndarray) -> np.ndarray:
        """Return how much each place of N pictures is the thing: (N, h, w), from 0 to 1."""
        return self.session.run(["mask"], {"pixels": pixels})[0]


def cores(lent: int | None = None) -> int:
    """Return how many processors this program may use: as many as it was lent, else all that the system grants."""
    if lent:
        return lent
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lanes(lent: int | None = None) -> int:
    """Return how many batches go through onnxruntime at once: a single one would wait for its slowest thread."""
    return min(LANES, cores(lent))


def is_onnx(path: Path) -> bool:
    """Return whether a file begins as ONNX does; if it begins as neither kind of model, its name decides."""
    with path.open("rb") as file:
        start = file.read(len(FIRST_HEADER))
    return start[:1] == ONNX_START or (path.suffix.lower() == ".onnx" and start != FIRST_HEADER)


def read_onnx(path: Path, *, lent: int | None = None) -> tuple[tuple[str, ...], Recipe, float | None, OnnxNetwork]:
    """Return labels, recipe, threshold and network of a model.onnx that tells photos apart."""
    facts, network = onnx_facts(path, lent=lent)
    with naming(path):
        if facts["task"] == DETECT:
            raise ModelError("it finds things in photos; load it with load_detector")
        labels, recipe = checked_labels(facts["labels"]), checked_recipe(facts["recipe"])
        return labels, recipe, checked_threshold(facts["threshold"]), network


def onnx_facts(path: Path, *, lent: int | None = None) -> tuple[dict, OnnxNetwork]:
    """Return what a model.onnx says of itself, unchecked, by the names in `METADATA_FACTS`; and its network, vetted."""
    if path.stat().st_size > MAX_ONNX:
        raise ModelError(f"{path} is larger than {MAX_ONNX // 2**20} MB, more than any network here.")
    network = onnx_network(str(path), path.read_bytes(), lent)
    with naming(path):
        try:
            metadata = network.session.get_modelmeta().custom_metadata_map
            facts = {
                name: json.loads(metadata[name]) if name in metadata else METADATA_FACTS[name]
                for name in METADATA_FACTS
            }
        except UnicodeDecodeError:
            raise ModelError("its metadata is not UTF-8, as ONNX wants it") from None
        except (ValueError, RecursionError):
            raise ModelError("its metadata (labels, recipe, threshold) is not JSON") from None
    return facts, network


def onnx_task(path: Path) -> str:
    """Return what a model.onnx says it is for, read from its bytes alone; raises ModelError if they are damaged."""
    task = json.dumps(CLASSIFY).encode()
    for number, _, value in message_fields(memoryview(path.read_bytes()) if path.stat().st_size <= MAX_ONNX else b""):
        if number == METADATA and isinstance(value, memoryview):
            entry = {part: bytes(held) for part, _, held in message_fields(value) if isinstance(held, memoryview)}
            task = entry.get(VALUE, b"") if entry.get(KEY) == b"task" else task
    return DETECT if task == json.dumps(DETECT).encode() else CLASSIFY


def onnx_network(path: str, data: bytes, lent: int | None = None) -> OnnxNetwork:
    """Return the network of a model.onnx, whose bytes are vetted here; `path` is where they came from."""
    with naming(path):
        vet_onnx(data)
        return OnnxNetwork(runtime_session(data, lent), lanes(lent), path, data, lent)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Say in a refusal which file it is about."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{path} is not a model that can be used here: {error}.") from error.__cause__


def runtime_session(data: bytes, lent: int | None = None):
    """Return onnxruntime's session of a vetted file, which keeps to the processors that it was lent."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            "onnxruntime, which reads it, is not installed: pip install onnxruntime; or load the export.pkl"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # exceptions alone say what is wrong
    # By default onnxruntime ties each thread to a processor and lets waiting threads spin. Both would slow the threads
    # that open pictures. Naming the number of threads avoids the first.
    options.intra_op_num_threads = max(1, cores(lent) // lanes(lent))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen kinds
        raise ModelError(f"onnxruntime {onnxruntime.__version__} cannot load it ({in_one_line(error)})") from error
