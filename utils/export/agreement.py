"""
Stage 07, the gate: fastai, export.pkl and model.onnx must give the same answers, or nothing is exported.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fastai.learner import load_learner
from PIL import Image
from tqdm.auto import tqdm

from utils.errors import FieldguideError
from utils.export.awkward import awkward_pictures
from utils.export.difference import disagreement
from utils.inference import Classifier, Prediction
from utils.pictures import LONGEST_SIDE, ORIENTATION


def require_agreement(
    predict: Callable[[Path], Prediction], pickled: Classifier, onnx: Classifier, photos: Sequence[Path]
) -> int:
    """Refuse files that answer otherwise than fastai, or than each other; return how often fastai was asked."""
    asked = 0
    bar = tqdm(photos, desc="export.pkl, model.onnx and fastai asked about held-out photos", unit="photo")
    for photo, ours, other in zip(bar, pickled.stream(photos), onnx.stream(photos), strict=True):
        if error := ours.error or other.error:
            raise FieldguideError(f"{photo} cannot be read ({error}). Remove it and run 02 to 05 again.")
        _require_same(photo, {"export.pkl": ours, "model.onnx": other})
        if is_plain(photo):
            theirs, asked = predict(photo), asked + 1
            _require_same(photo, {"fastai's own predict": theirs, "export.pkl": ours})
            _require_same(photo, {"fastai's own predict": theirs, "model.onnx": other})
    return asked


def require_agreement_on_awkward(pickled: Classifier, onnx: Classifier) -> int:
    """Refuse files that answer differently to a drawn awkward file; return how many there are."""
    files = awkward_pictures()
    answers = zip(files, pickled.stream(files.values()), onnx.stream(files.values()), strict=True)
    for name, ours, other in answers:
        _require_same(f"the drawn picture {name}", {"export.pkl": ours, "model.onnx": other})
    return len(files)


def _require_same(photo: Path | str, answers: Mapping[str, Prediction]) -> None:
    """Refuse two different answers to one photo."""
    (first, one), (second, other) = answers.items()
    if found := disagreement(one, other):
        advice = "If this photo was changed by hand, remove it and run 02 to 05 again; otherwise please report it."
        raise FieldguideError(
            f"{first} and {second} disagree on {photo}: {found}. Nothing was exported. "
            + (advice if isinstance(photo, Path) else "Please report it, with the kind of network.")
        )


def fastai_predictor(path: Path) -> Callable[[Path], Prediction]:
    """Return a function that asks fastai's own ``load_learner(path).predict`` about a file and gives a `Prediction`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickles being unsafe: this one was written and vetted just now
        learner = load_learner(path)

    def predict(photo: Path) -> Prediction:
        with learner.no_bar(), learner.no_logging():
            label, _, row = learner.predict(photo)
        probabilities = dict(zip(map(str, learner.dls.vocab), row.double().tolist(), strict=True))
        return Prediction(str(label), max(probabilities.values()), probabilities)

    return predict


def is_plain(photo: Path) -> bool:
    """Return whether fastai opens a file as `open_picture` does: upright 8-bit RGB, at most 512 pixels, no profile."""
    with Image.open(photo) as image:
        special = {"icc_profile", "transparency"} & set(image.info) or getattr(image, "is_animated", False)
        upright = image.getexif().get(ORIENTATION, 1) == 1
        return upright and not special and image.mode == "RGB" and max(image.size) <= LONGEST_SIDE
