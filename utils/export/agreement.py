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
from utils.inference import Classifier, Prediction
from utils.pictures import LONGEST_SIDE, ORIENTATION

AGREEMENT = 1e-3  # the largest difference of a probability between fastai's answers and ours


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


def disagreement(one: Prediction, other: Prediction, *, within: float = AGREEMENT) -> str:
    """
    Return in what two answers differ, "" if they are the same.

    Probabilities are the same if they differ by at most `within`, errors when they have the same words. Labels must be the same too,
    unless both are so nearly equal in probability (by less than twice that) that the last digits decide.

    >>> disagreement(Prediction("a", 0.9, {"a": 0.9, "b": 0.1}), Prediction("a", 0.8, {"a": 0.8, "b": 0.2}))
    "the probability of 'a' is 0.9000 and 0.8000"
    >>> disagreement(Prediction("a", 0.5002, {"a": 0.5002, "b": 0.4998}), Prediction("b", 0.5, {"a": 0.5, "b": 0.5}))
    ''
    """
    if one.error or other.error:
        return "" if one.error == other.error else f"{one.error or one.label!r} and {other.error or other.label!r}"
    if list(one.probabilities) != list(other.probabilities):
        return f"the labels are {', '.join(one.probabilities)} and {', '.join(other.probabilities)}"
    for label, probability in one.probabilities.items():
        if not abs(probability - other.probabilities[label]) <= within:  # NaN differs from all
            return f"the probability of {label!r} is {probability:.4f} and {other.probabilities[label]:.4f}"
    for answer, label in ((one, other.label), (other, one.label)):
        if answer.probabilities[label] < max(answer.probabilities.values()) - 2 * within:
            return f"the labels are {one.label!r} and {other.label!r}"
    return ""


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
