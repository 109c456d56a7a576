"""
Stage 08: the detector that a program loads from a file and gives pictures to: what is in them, and where.

Reads a model.onnx of a project that finds things (task = "detect"), alone: labels, size and threshold come from the
file. Pictures are opened and put into a square as in training. The network gives boxes and scores for every place of
it; `suppression` picks those that are told.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from .classifier import Classifier, load_classifier
from .given import each_of
from .onnx_file import DETECT, OnnxNetwork, is_onnx, naming, onnx_facts, onnx_task
from .recipe import BoxRecipe, Squared, checked_box_recipe, checked_labels, checked_threshold
from .streaming import BATCH_SIZE, model_path, prepared, require_batch, streamed, tried
from .suppression import strongest
from .vetting import ModelError, in_one_line


@dataclass(frozen=True)
class FoundBox:
    """A thing that was found: what, how surely, and where, its corners as fractions of the upright picture."""

    label: str
    probability: float
    left: float
    top: float
    right: float
    bottom: float
    picture: tuple[int, int] = field(repr=False)  # width and height of the upright picture, in pixels

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom, as fractions."""
        return self.left, self.top, self.right, self.bottom

    @property
    def pixels(self) -> tuple[int, int, int, int]:
        """
        Left, top, right, bottom in pixels of the upright picture, as Pillow's ``crop`` takes them; never empty.

        >>> FoundBox("cat", 0.9, 0.25, 0.5, 0.5, 1.0, (400, 300)).pixels
        (100, 150, 200, 300)
        """
        width, height = self.picture
        left, top = min(round(self.left * width), width - 1), min(round(self.top * height), height - 1)
        return left, top, max(left + 1, round(self.right * width)), max(top + 1, round(self.bottom * height))


@dataclass(frozen=True)
class Detection:
    """What was found in one picture, the most probable first; one that could not be read has only an error."""

    boxes: tuple[FoundBox, ...] = ()
    width: int | None = None  # of the upright picture, in pixels
    height: int | None = None
    error: str | None = None  # why the picture could not be read


@dataclass(frozen=True, repr=False)
class Detector:
    """
    A trained detector, ready for pictures; `load_detector` makes it.

    It can be handed to other processes as a `Classifier` can.
    """

    labels: tuple[str, ...]  # K, in the order of the network's scores
    recipe: BoxRecipe  # how pictures are prepared, and boxes picked
    threshold: float  # boxes below this probability are left out, unless another is asked for
    network: OnnxNetwork = field(compare=False)

    def __repr__(self) -> str:
        shown = in_one_line(", ".join(self.labels[:6]) + (" …" if len(self.labels) > 6 else ""))
        return f"<Detector of {shown}: {self.recipe.size} pixels, {self.device}, from {self.threshold:.2f}>"

    @property
    def device(self) -> str:
        """Where the network runs: "cpu"."""
        return self.network.device

    def predict(self, images, *, threshold: float | None = None, bgr: bool = False) -> list[Detection]:
        """
        Return a detection for each of N pictures, in their order.

        `images` and `bgr` are as for `Classifier.predict`. Boxes have at least the probability `threshold`, by default
        the model's own, at which notebook 4_test found most with fewest mistakes.
        """
        return list(self.stream(images, threshold=threshold, bgr=bgr))

    def stream(
        self, images, *, batch_size: int = BATCH_SIZE, threshold: float | None = None, bgr: bool = False
    ) -> Iterator[Detection]:
        """Return an iterator over a detection for each picture, made as `Classifier.stream` makes predictions."""
        require_batch(batch_size)
        least = self.threshold if threshold is None else threshold
        if not 0 <= least <= 1:  # also NaN
            raise ValueError(f"threshold = {threshold}: a probability lies between 0 and 1.")
        prepare = partial(prepared, bgr=bgr, pixels=self.recipe.square)
        judge = partial(self._judged, least=least)
        return streamed(iter(each_of(images)), batch_size, self.network.lanes, prepare, judge)

    def _judged(self, batch: Sequence[Squared | str], least: float) -> list[Detection]:
        """Return detections for a batch of squared pictures, or of reasons why there are none."""
        squares = [each.pixels for each in batch if not isinstance(each, str)]
        rows = zip(*self.raw(np.stack(squares)), strict=True) if squares else iter(())
        return [
            Detection(error=each) if isinstance(each, str) else self._detection(each, *next(rows), least)
            for each in batch
        ]

    def _detection(self, squared: Squared, boxes: np.ndarray, scores: np.ndarray, least: float) -> Detection:
        """Return what is told of one picture, of boxes (A, 4) and scores (A, K)."""
        rules = {"overlap": self.recipe.overlap, "most": self.recipe.most}
        kept, probabilities, labels = strongest(boxes, scores, least=least, **rules)
        corners, size = squared.place.out_of(kept.astype(np.float64)), (squared.width, squared.height)
        return Detection(
            tuple(
                FoundBox(self.labels[label], float(probability), *map(float, box), size)
                for box, probability, label in zip(corners, probabilities, labels, strict=True)
            ),
            *size,
        )

    def raw(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Return all boxes (N, A, 4), in pixels of the square, and scores (N, A, K) for pixels uint8 (N, S, S, 3).

        Raises ModelError if the network gives anything else.
        """
        boxes, scores = self.network.boxes(pixels)
        for name, array, last in (("boxes", boxes, 4), ("scores", scores, len(self.labels))):
            expected = (len(pixels), *boxes.shape[1:2], last)
            if array.shape != expected:
                raise ModelError(f"its {name} have the shape {array.shape}, expected {expected}")
            if not np.isfinite(array).all():
                raise ModelError(f"its {name} are not all numbers")
        if not ((scores >= 0).all() and (scores <= 1).all()):
            raise ModelError("its scores are not probabilities: fractions from 0 to 1")
        return boxes, scores


def load_detector(path: str | os.PathLike) -> Detector:
    """
    Load a model.onnx that finds things in photos, and have it look at grey pictures to see that it works.

    Raises NoModel if there is no such file; ModelError if it is not such a model, or damaged, or does what no export of
    ours does, or onnxruntime is not installed.
    """
    path = model_path(path)
    if not is_onnx(path):
        raise ModelError(f"{path} is not a model.onnx. load_detector reads such files alone.")
    facts, network = onnx_facts(path)
    with naming(path):
        if facts["task"] != DETECT:
            raise ModelError("it tells photos apart and finds no boxes; load it with load_classifier")
        if (threshold := checked_threshold(facts["threshold"])) is None:
            raise ModelError("its threshold is missing")
        detector = Detector(checked_labels(facts["labels"]), checked_box_recipe(facts["recipe"]), threshold, network)
    with tried(path, "notebook 4_test"):
        size = detector.recipe.size
        detector.raw(np.full((3, size, size, 3), 128, dtype=np.uint8))
    return detector


def load_model(path: str | os.PathLike, *, trusted: bool = False) -> Classifier | Detector:
    """Load a model of either kind: what the file says of itself decides. Raises what the two loaders raise."""
    detects = is_detector(path)
    return load_detector(path) if detects else load_classifier(path, trusted=trusted)


def is_detector(path: str | os.PathLike) -> bool:
    """Return whether a file says that it finds things in photos; nothing in it is run."""
    try:
        path = model_path(path)
        return is_onnx(path) and onnx_task(path) == DETECT
    except (ModelError, OSError):
        return False  # whoever loads it says what is wrong
