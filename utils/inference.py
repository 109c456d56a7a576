"""
Stage 08: what a program needs that uses the model. Load it, and give it pictures.

Reads an export.pkl alone: labels, size and normalisation are taken from the file. Pictures are opened, squished
and cropped as they were for training, so that the answers agree with fastai's own. With `pictures` and `vetting`
this module stands alone: copy the three files into another program, in a package or loose in a folder.

    python -m utils.inference models/sea_life/export.pkl photo.jpg other.jpg --json
"""

import argparse
import json
import math
import os
import re
import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

if __package__:
    from . import vetting
    from .pictures import LONGEST_SIDE, open_picture, squish_and_crop
    from .vetting import ModelError, UnsafeModel
else:  # copied loose into another program's folder, the three files find each other by their bare names
    import vetting
    from pictures import LONGEST_SIDE, open_picture, squish_and_crop
    from vetting import ModelError, UnsafeModel

__all__ = ["Classifier", "ModelError", "NoModel", "Prediction", "UnsafeModel", "load_classifier"]

BATCH_SIZE = 32  # pictures a step of the network; more gains nothing on a CPU
DECODERS = min(4, os.cpu_count() or 1)  # threads that open pictures while the network works
MAX_SIZE = 4096  # pixels; a file that asks for more would fill the memory
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
UNUSABLE, UNREAD = 1, 2  # exit codes: no such model, some picture could not be read


class NoModel(ModelError, FileNotFoundError):
    """There is no model file where one was looked for."""


@dataclass(frozen=True)
class Prediction:
    """
    What the model says of one picture.

    Attributes
    ----------
    label : str or None
        The most probable label.
    probability : float or None
        Its probability, a fraction.
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
    How a picture becomes the network's input, as the learner's own validation transforms do it.

    Attributes
    ----------
    size, extra : int
        Pixels: squish to (size + extra)², cut the middle size².
    mean, std : tuple of 3 floats
        Of values scaled to 0…1.
    """

    size: int
    extra: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def pixels(self, picture) -> np.ndarray:
        """Return a picture, whatever `open_picture` takes, as uint8 of shape (size, size, 3)."""
        image = open_picture(picture, longest_side=LONGEST_SIDE)
        return np.asarray(squish_and_crop(image, self.size, extra=self.extra))


@dataclass(frozen=True)
class Classifier:
    """
    A trained model, ready for pictures; `load_classifier` makes it.

    Attributes
    ----------
    labels : tuple of K str
        In the order of the network's outputs.
    recipe : Recipe
        How pictures are prepared.
    device : str
        "cuda" where there is such a GPU, else "cpu".
    """

    labels: tuple[str, ...]
    recipe: Recipe
    device: str
    network: object = field(repr=False)  # torch.nn.Module, not named here: torch is imported only to load a model

    def predict(self, images) -> list[Prediction]:
        """
        Return a prediction for each of N pictures, in their order.

        Parameters
        ----------
        images : iterable of pictures, or one picture
            Paths, the bytes of files, PIL images, or uint8 arrays of shape (H, W), (H, W, 3) or (H, W, 4).
        """
        return list(self.stream(images))

    def stream(self, images, *, batch_size: int = BATCH_SIZE) -> Iterator[Prediction]:
        """
        Yield a prediction for each picture, in their order, as they are asked for.

        `images` may be endless: no more than two batches are opened ahead, in threads, while the network works.
        A picture that cannot be read becomes a prediction with an `error` and does not stop the others.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}: a batch holds at least one picture.")
        source = iter(_several(images))
        pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="pictures")
        waiting: deque = deque()
        try:
            while True:
                while len(waiting) < 2 * batch_size and (picture := next(source, _END)) is not _END:
                    waiting.append(pool.submit(_prepared, picture, self.recipe))
                batch = [waiting.popleft().result() for _ in range(min(batch_size, len(waiting)))]
                if not batch:
                    return
                yield from self._judged(batch)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _judged(self, batch: list[np.ndarray | str]) -> list[Prediction]:
        """Return predictions for a batch of pixels, or of the reasons why there are none."""
        readable = [pixels for pixels in batch if not isinstance(pixels, str)]
        rows = iter(self._probabilities(np.stack(readable)) if readable else ())
        return [
            Prediction(error=pixels) if isinstance(pixels, str) else self._prediction(next(rows)) for pixels in batch
        ]

    def _prediction(self, row: np.ndarray) -> Prediction:
        """Return K probabilities as a prediction."""
        best = int(row.argmax())
        probabilities = dict(zip(self.labels, row.tolist(), strict=True))
        return Prediction(self.labels[best], probabilities[self.labels[best]], probabilities)

    def _probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Return probabilities of shape (N, K) for uint8 pixels of shape (N, size, size, 3)."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() / 255  # (N, 3, size, size)
            mean = torch.tensor(self.recipe.mean, device=self.device).view(3, 1, 1)
            std = torch.tensor(self.recipe.std, device=self.device).view(3, 1, 1)
            scores = self.network((batch - mean) / std)  # (N, K)
            return scores.double().softmax(dim=1).cpu().numpy()


_END = object()


def _several(images) -> Iterable:
    """Return one picture alone as a list of it: a path must not be taken apart into its letters."""
    alone = isinstance(images, (str, bytes, os.PathLike, Image.Image))
    return [images] if alone or (isinstance(images, np.ndarray) and images.ndim < 4) else images


def _prepared(picture, recipe: Recipe) -> np.ndarray | str:
    """Return a picture's pixels, or the reason why it has none."""
    try:
        return recipe.pixels(picture)
    except Exception as error:  # decoders raise what they like on broken bytes; none of it may stop the others
        return str(error) or type(error).__name__


def load_classifier(path: str | os.PathLike, *, trusted: bool = False) -> Classifier:
    """
    Load a model exported by stage 07.

    Parameters
    ----------
    path : path of an export.pkl
    trusted : bool
        A model file is a program. By default the file is vetted first, and refused if it asks for anything that
        our exports never ask for. True loads any file: only for one whose maker you know and trust.

    Raises
    ------
    NoModel
        If there is no such file.
    UnsafeModel
        If the file was refused; the message names what was found.
    ModelError
        If it is something else than a classifier of pictures, or damaged.
    """
    if ADDRESS.match(str(path)):
        raise ModelError(f"{path} is an address, not a file. Download the model, and name the file on this computer.")
    path = Path(path)
    if path.is_dir():
        raise ModelError(f"{path} is a folder, not a model. Name the file in it, such as {path / 'export.pkl'}.")
    if not path.exists():
        raise NoModel(f"There is no model {path}. Make one with the notebooks 01 to 07, or name another file.")
    if not trusted:
        vetting.vet(path)
    learner = _unpickled(path, trusted=trusted)
    labels, recipe = _described(learner, path)
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Classifier(labels, recipe, device, learner.model.to(device).eval())


def _unpickled(path: Path, *, trusted: bool):
    """Return what the file holds; the bytes are vetted once more as they are read, unless trusted."""
    import pickle

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles being unsafe: that is what vetting is for
            return torch.load(
                path, map_location="cpu", pickle_module=pickle if trusted else vetting, weights_only=False
            )
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # unpickling raises whatever the objects inside do
        raise ModelError(
            f"{path} cannot be loaded ({type(error).__name__}: {str(error)[:200]}). It is damaged, or was made with "
            "other versions of fastai and torch: card.json beside it names them."
        ) from error


def _described(learner, path: Path) -> tuple[tuple[str, ...], Recipe]:
    """Return the labels and the recipe that a learner's own transforms hold, or say why it is of another kind."""
    try:
        loader = learner.dls.loaders[-1]
        categories = [t for pipeline in loader.dataset.tfms for t in pipeline.fs if type(t).__name__ == "Categorize"]
        of_pictures = {type(t).__name__: t for t in loader.after_item.fs}
        of_batches = {type(t).__name__: t for t in loader.after_batch.fs if _judging(t)}
        if len(categories) != 1:
            raise ModelError(f"{path} does not sort pictures into one label each, so it cannot be used here.")
        labels = tuple(categories[0].vocab)
        if not all(isinstance(label, str) for label in labels):
            raise ModelError(f"{path} has labels that are no text, so it cannot be used here.")
        crop = of_pictures.pop("RandomResizedCrop", None)
        if crop is None or set(of_pictures) != {"ToTensor"} or crop.size[0] != crop.size[1]:
            raise ModelError(
                f"{path} prepares pictures in another way than stage 04 does (RandomResizedCrop to a square), so its "
                "answers would be wrong here. Use fastai's load_learner for it."
            )
        normalize = of_batches.pop("Normalize", None)
        of_batches.pop("IntToFloatTensor", None)
        if of_batches:
            raise ModelError(
                f"{path} changes pictures by {', '.join(of_batches)} before judging them, which is not known here. "
                "Use fastai's load_learner for it."
            )
        mean, std = (_numbers(normalize.mean), _numbers(normalize.std)) if normalize else ((0.0,) * 3, (1.0,) * 3)
        size, beyond = int(crop.size[0]), float(crop.val_xtra)
        if not (0 < size <= MAX_SIZE and 0 <= beyond <= 1 and len(mean) == len(std) == 3):
            raise ModelError(f"{path} wants pictures of {size} pixels in {len(mean)} colours, which is not used here.")
        return labels, Recipe(size, math.ceil(size * beyond / 8) * 8, mean, std)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ModelError(f"{path} holds no classifier of pictures as stage 07 exports it ({error}).") from error


def _judging(transform) -> bool:
    """Return whether a transform of batches changes pictures that are judged, not only those trained on."""
    # Turning, zooming and warping are also called for judging, but then leave a picture as it is, unless they resize.
    return transform.split_idx != 0 and (not hasattr(transform, "aff_fs") or transform.size is not None)


def _numbers(tensor) -> tuple[float, ...]:
    """Return a tensor of one number a channel as floats."""
    return tuple(tensor.flatten().tolist())


def _line(file: str, prediction: Prediction) -> str:
    """Return a prediction as one line for people: file, label and probability between tabs."""
    file = re.sub(r"[\t\r\n]", " ", file)
    if prediction.error:
        return f"{file}\terror\t{' '.join(prediction.error.split())}"
    return f"{file}\t{prediction.label}\t{prediction.probability:.4f}"


def _json_line(file: str, prediction: Prediction) -> str:
    """Return a prediction as one line for programs: a JSON object."""
    if prediction.error:
        return json.dumps({"file": file, "error": prediction.error})
    facts = {"label": prediction.label, "probability": prediction.probability}
    return json.dumps({"file": file, **facts, "probabilities": prediction.probabilities})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 1 for a model that cannot be used, or 2 if a picture could not be read."""
    parser = argparse.ArgumentParser(prog="python -m utils.inference", description="Say what photos show.")
    parser.add_argument("model", metavar="MODEL", help="an export.pkl")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="a photo")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    try:
        classifier = load_classifier(options.model)
    except (ModelError, OSError) as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    line, failed = _json_line if options.json else _line, False
    for file, prediction in zip(options.images, classifier.stream(options.images), strict=True):
        print(line(file, prediction), flush=True)
        failed |= prediction.error is not None
    return UNREAD if failed else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal cannot show
    sys.exit(main())
