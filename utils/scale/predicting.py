"""
The job of predicting: the label that a model gives each picture, as `python -m utils.inference` gives it.

The model's bytes travel to the machines, so its file need lie on one of them only, and may change meanwhile.
"""

import argparse
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from utils.errors import FieldguideError
from utils.inference import is_detector, load_classifier


@dataclass(frozen=True)
class Predicting:
    """A model and its bytes."""

    name: str  # model.onnx or export.pkl
    data: bytes = field(repr=False)
    sha256: str
    columns = pa.schema([("label", pa.string()), ("probability", pa.float64()), ("model_sha256", pa.string())])

    @property
    def facts(self) -> dict[str, str]:
        """What made the rows."""
        return {"task": "predict", "model_sha256": self.sha256}

    def worker(self, cores: int) -> Callable[[Iterator], Iterator[Mapping]]:
        """Return what predicts, on so many processors; the model is vetted and loaded here."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self.name
            path.write_bytes(self.data)
            classifier = load_classifier(path, cores=cores)

        def judge(pictures: Iterator) -> Iterator[Mapping]:
            for found in classifier.stream(pictures):
                row = {"label": found.label, "probability": found.probability, "error": found.error}
                yield row | {"model_sha256": self.sha256}

        return judge


def predicting(options: argparse.Namespace) -> Predicting:
    """Return the job with the model that the options name, which is vetted and tried here before anything starts."""
    path = Path(options.model)
    if is_detector(path):
        raise FieldguideError(f"{path} finds things in photos. Name a model that tells photos apart.")
    load_classifier(path)
    data = path.read_bytes()
    return Predicting(path.name, data, hashlib.sha256(data).hexdigest())
