"""
Stage 08: the classifier that a program loads from a file and gives pictures to.

Reads an export.pkl (`pickle_file`) or a model.onnx (`onnx_file`) alone: labels, size and normalisation come from the
file. Pictures are opened, squished and cropped as they were for training, so that the answers agree with fastai's.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from .gallery import GALLERY, Gallery, Nearest, read_gallery
from .given import at_hand, each_of
from .onnx_file import is_onnx, read_onnx
from .pickle_file import read_pickle
from .recipe import Recipe
from .streaming import BATCH_SIZE, model_path, prepared, require_batch, streamed, tried
from .vetting import ModelError, in_one_line


@dataclass(frozen=True)
class Prediction:
    """What the model says of one picture; one that could not be read has only an error."""

    label: str | None = None  # the most probable; None if the model was asked to say when it is unsure, and is
    probability: float | None = None  # the largest, a fraction
    probabilities: Mapping[str, float] | None = None  # K labels → fractions that sum to 1
    error: str | None = None  # why the picture could not be read

    def top(self, count: int = 3) -> list[tuple[str, float]]:
        """
        Return the `count` most probable labels with their probabilities, the most probable first.

        >>> Prediction("a", 0.7, {"b": 0.3, "a": 0.7}).top(1)
        [('a', 0.7)]
        """
        return sorted((self.probabilities or {}).items(), key=lambda item: -item[1])[:count]


@dataclass(frozen=True, repr=False)
class Classifier:
    """
    A trained model, ready for pictures; `load_classifier` makes it.

    It can be handed to other processes, by multiprocessing or joblib. There the same bytes are vetted and loaded again.
    Start them with "spawn": a forked process can use neither the GPU nor the threads of the one that it came from.
    """

    labels: tuple[str, ...]  # K, in the order of the network's outputs
    recipe: Recipe  # how pictures are prepared
    threshold: float | None  # the probability below which the model counts as unsure; None if none is known
    # From uint8 pixels (N, H, W, 3) to probabilities (N, K); as many calls at once as it has ``lanes``.
    network: Callable[[np.ndarray], np.ndarray] = field(compare=False)
    cores: int | None = field(default=None, compare=False)  # as many as it was lent; None for all of the machine

    def __repr__(self) -> str:
        shown = ", ".join(self.labels[:6]) + (f" and {len(self.labels) - 6} more" if len(self.labels) > 6 else "")
        unsure = "" if self.threshold is None else f", unsure below {self.threshold:.2f}"
        return f"<Classifier of {in_one_line(shown)}: {self.recipe.size_shown} pixels, {self.device}{unsure}>"

    @property
    def device(self) -> str:
        """Where the network runs: "cuda" for an export.pkl on a computer with such a GPU, else "cpu"."""
        return self.network.device

    @property
    def finds(self) -> bool:
        """Whether `mask` tells where the thing is."""
        return self.network.finds

    def predict(self, images, *, unknown: bool = False, bgr: bool = False, tta: bool = False) -> list[Prediction]:
        """
        Return a prediction for each of N pictures, in their order.

        `images` is one picture, or an iterable of them such as a list. A picture is a path, the bytes of a file, a file
        opened with "rb", an upload (of ipywidgets, streamlit, Flask and the like), a ``data:`` URI, a PIL image, an
        array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a tensor of torch, which may also have its colours
        first. Arrays and tensors hold uint8, or fractions from 0 to 1. Their colours are RGB; with `bgr`, in the order
        of OpenCV.

        With `unknown`, a picture whose best probability lies below the model's threshold gets the label None; a model
        without one raises ModelError. What cannot be pictures, such as a dict or a table, raises TypeError.

        With `tta` (test-time augmentation) the network also sees the mirror image of each picture, and the answer is
        the mean of both probabilities. That takes twice as long; notebook 05 measures whether it helps. A model trained
        without mirrored pictures (do_flip = false) raises ModelError. The threshold was chosen without it: with both,
        a few more pictures may get the label None.
        """
        return list(self.stream(images, unknown=unknown, bgr=bgr, tta=tta))

    def stream(
        self, images, *, batch_size: int = BATCH_SIZE, unknown: bool = False, bgr: bool = False, tta: bool = False
    ) -> Iterator[Prediction]:
        """
        Return an iterator over a prediction for each picture, in their order, made as they are asked for.

        The network sees `batch_size` pictures per step, and fewer only at the end or where pictures cannot be read.
        `images` may be endless: one batch for each of the network's lanes, and one more, are taken ahead. Threads open
        them while the network works, so an array must not change until its prediction is there; an open file is read
        when it is taken, and left where it was. A picture that cannot be read becomes a prediction with an `error` and
        does not stop the others. If `images` itself fails, the pictures before are judged first, and then its exception
        is raised.
        """
        require_batch(batch_size)
        if unknown and self.threshold is None:
            raise ModelError(
                "This model has no threshold below which it is unsure. Export it again with notebook 07, which says "
                "whether one can be fitted, and keep card.json beside an export.pkl; or ask without unknown=True."
            )
        if tta and self.recipe.mirrored is False:
            raise ModelError(
                "This model was trained without mirrored pictures (do_flip = false), so left and right may matter to "
                "it, and it is not asked about mirror images. Ask without tta=True (--tta)."
            )
        ask = self.mirrored_too if tta else self.probabilities
        prepare = partial(prepared, bgr=bgr, pixels=self.recipe.pixels)
        judge = partial(self._judged, threshold=self.threshold if unknown else 0.0, ask=ask)
        return streamed(iter(each_of(images)), batch_size, self.network.lanes, prepare, judge, lent=self.cores)

    def mask(self, picture, *, bgr: bool = False) -> np.ndarray | None:
        """
        Return how much each place of a picture is the thing: float32 (H, W), from 0 to 1; from 0.5 on it is.

        It spans the whole picture, squished to the size at which the network works; the edges that the network does not
        see are 0. None where the network does not find the thing first (mask = "none"), and for an export.pkl: the
        model.onnx beside it says it. `picture` is one, as for `predict`. Raises ModelError if it cannot be read.
        """
        if not self.finds:
            return None
        pixels = prepared(at_hand(picture), bgr, self.recipe.pixels)
        if isinstance(pixels, str):
            raise ModelError(f"The picture cannot be read: {pixels}.")
        (found,) = self.network.masks(pixels[None])
        if found.ndim != 2 or not (found >= 0).all() or not (found <= 1).all():
            raise ModelError("the network's mask is not one number from 0 to 1 for each place")
        return self.recipe.whole(found)

    @cached_property
    def gallery(self) -> Gallery:
        """The known photos in gallery.safetensors beside this model.onnx; ModelError says why there are none."""
        if not self.network.describes:
            raise ModelError(
                "This model compares no photos. A model.onnx that was exported with individuals = true in the project "
                "file does; an export.pkl does not."
            )
        path = Path(self.network.path).with_name(GALLERY)
        return read_gallery(path, hashlib.sha256(self.network.data).hexdigest(), self.labels)

    def nearest(self, images, k: int = 5, *, bgr: bool = False) -> list[Nearest]:
        """
        Return for each of N pictures the `k` individuals that are most alike, each by its nearest known photo.

        `images` is as for `predict`. It takes a model.onnx of single animals and the gallery.safetensors beside it.
        Raises ModelError if there is no such file, or it is of another model.
        """
        gallery, found = self.gallery, []
        for picture in each_of(images):
            pixels = prepared(at_hand(picture), bgr, self.recipe.pixels)
            if isinstance(pixels, str):
                found.append(Nearest(error=pixels))
            else:
                found += gallery.nearest(self.network.features(pixels[None]), k)
        return found

    def _judged(self, batch: Sequence[np.ndarray | str], threshold: float, ask: Callable) -> list[Prediction]:
        """Return predictions for a batch of pixels, or of reasons why there are none."""
        readable = [pixels for pixels in batch if not isinstance(pixels, str)]
        rows = iter(ask(np.stack(readable)) if readable else ())
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

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Return probabilities of shape (N, K), each row summing to 1, or refuse what the network gave instead."""
        rows = np.asarray(self.network(pixels), dtype=np.float64)
        expected = (len(pixels), len(self.labels))
        if rows.shape != expected:
            raise ModelError(
                f"the network gives numbers of shape {rows.shape}, expected {expected}, one for each label"
            )
        sums = rows.sum(axis=1, keepdims=True)
        if not ((rows >= 0).all() and (abs(sums - 1) < 1e-3).all()):  # also false for NaN
            raise ModelError("the network's outputs are not probabilities: fractions that sum to 1")
        return rows / sums

    def mirrored_too(self, pixels: np.ndarray) -> np.ndarray:
        """Return the mean (N, K) of the probabilities of pictures as they are and of their mirror images."""
        mirrored = np.ascontiguousarray(pixels[:, :, ::-1])  # torch takes no array that runs backwards
        return (self.probabilities(pixels) + self.probabilities(mirrored)) / 2


def load_classifier(path: str | os.PathLike, *, trusted: bool = False, cores: int | None = None) -> Classifier:
    """
    Load a model exported by stage 07, and have it judge grey pictures to see that it works.

    `path` leads to an export.pkl or a model.onnx; the file's content says which. An export.pkl is a program. By default
    it is vetted first, and refused if it asks for anything that our exports never ask for. ``trusted=True`` loads any
    file: only for one whose maker you know and trust. A model.onnx holds numbers and arithmetic alone; it is checked in
    either case. `cores` is the number of processors that it keeps to, by default all that this program may use: a
    cluster lends some of a machine's, and the machine does not tell.

    Raises NoModel if there is no such file; UnsafeModel if it was refused, and names what was found; ModelError if it
    is not a classifier of pictures, or damaged, or what reads it is not installed.
    """
    if cores is not None and cores < 1:
        raise ValueError(f"cores = {cores}: a model needs at least one processor.")
    path = model_path(path)
    parts = read_onnx(path, lent=cores) if is_onnx(path) else read_pickle(path, trusted=trusted, lent=cores)
    classifier = Classifier(*parts, cores)
    with tried(path, "notebook 07"):
        classifier.probabilities(np.full((3, *classifier.recipe.height_width, 3), 128, dtype=np.uint8))
    return classifier
