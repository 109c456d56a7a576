"""
Stage 07: turn the trained learner into files that others can use.

Reads the learner, evaluation.json and the pictures held out; writes export.pkl and card.json into models/<name>.
The export is a plain pickle that names classes and functions of fastai and torch and nothing of this repository,
of this machine or of the training, so that fastai alone loads it, on another Python version and another system.
It is put in place only when `vetting` accepts it and `inference` gives the answers that fastai itself gives.
"""

import copyreg
import io
import json
import pickle
import platform
import random
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePath
from types import SimpleNamespace

import numpy as np
import torch
from fastai.callback.core import TrainEvalCallback
from fastai.learner import CastToTensor, Learner, load_learner
from fastai.vision.augment import RandTransform
from fasttransform import Pipeline

from utils.files import FieldguideError, file_hash, make_folder, write_whole, writing
from utils.inference import Prediction, load_classifier
from utils.project import Project
from utils.rounds import read_evaluation
from utils.vetting import ModelError, vet

AGREEMENT = 1e-3  # the largest difference of a probability between fastai's answers and ours
PACKAGES = ("fastai", "torch", "torchvision", "numpy", "Pillow")
TABLES = ("split", "corrections")  # what, beside the settings, made this model what it is


@dataclass(frozen=True)
class Export:
    """
    What stage 07 wrote.

    Attributes
    ----------
    model, card_file : Path
        export.pkl and card.json.
    backup : Path or None
        Where the earlier, different export.pkl is kept.
    card : dict
        What card.json holds.
    checked : int
        Pictures on which fastai's answers and ours were compared.
    """

    model: Path
    card_file: Path
    backup: Path | None
    card: dict
    checked: int


def export_classifier(project: Project, learn, *, evaluation: Mapping | None = None) -> Export:
    """
    Export a trained learner as export.pkl and card.json in models/<name>.

    Parameters
    ----------
    project : Project
    learn : fastai Learner
        As stage 04 makes it; it is left as it is.
    evaluation : mapping, optional
        What evaluation.json holds; by default it is read.

    Raises
    ------
    FieldguideError
        If the last evaluation is of other labels, settings or sides; if the learner holds something that a safe
        file cannot; or if our answers and fastai's differ on a held-out picture. export.pkl is then as it was.
    """
    evaluation = _current(project, read_evaluation(project) if evaluation is None else evaluation)
    if tuple(map(str, learn.dls.vocab)) != tuple(project.labels):
        raise FieldguideError(
            f"The learner knows the labels {', '.join(map(str, learn.dls.vocab))}, the project "
            f"{', '.join(project.labels)}. Run 04 and 05 again."
        )
    pictures, sides = project.pictures(), project.sides()
    held_out = [path for id, path in pictures.items() if sides.get(id) == "valid"]
    if not held_out:
        raise FieldguideError("No picture is on the valid side, so nothing can check the export. Run 03, 04 and 05.")
    model = project.models / "export.pkl"
    make_folder(project.models)
    with writing(model) as temporary:
        save_learner(learn, temporary)
        _accepted(temporary)
        _agreeing(temporary, held_out)
        sha256 = file_hash(temporary)
        backup = _kept_aside(model, sha256)
    card = _card(project, evaluation, sha256)
    card_file = project.models / "card.json"
    earlier = read_card(card_file) if card_file.exists() else {}
    if {**earlier, "created": card["created"]} == card:
        card = earlier  # the same model exported again is no newer
    else:
        write_whole(card_file, json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return Export(model, card_file, backup, card, len(held_out))


def read_card(path: str | Path) -> dict:
    """Return what a model's card.json holds; `path` is the file, or the folder or the model it lies beside."""
    path = Path(path)
    card = path / "card.json" if path.is_dir() else path.with_name("card.json")
    advice = "Run 07 first: it writes the card together with the model."
    try:
        facts = json.loads(card.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FieldguideError(f"There is no {card}. {advice}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FieldguideError(f"{card} is not readable JSON ({error}). Remove it. {advice}") from None
    if not isinstance(facts, dict):
        raise FieldguideError(f"{card} holds {type(facts).__name__}, not the facts expected. Remove it. {advice}")
    return facts


def _current(project: Project, evaluation: Mapping | None) -> Mapping:
    """Return the evaluation if it is of the labels, sides and settings of now, and of the model that is there now."""
    if evaluation is None:
        raise FieldguideError(f"There is no {project.models / 'evaluation.json'}. Run 04 and 05 first.")
    if evaluation.get("fingerprint") != project.fingerprint():
        raise FieldguideError(
            "Labels, sides or settings changed since the last training, so its figures are not of this model. "
            "Run 04 and 05 again, then this notebook."
        )
    learner = project.models / "learner.pth"
    if learner.exists() and evaluation.get("model") != file_hash(learner):
        raise FieldguideError("The model was trained again since it was judged. Run 05, then this notebook.")
    return evaluation


def _write_path(path: PurePath) -> tuple:
    """Return how a path is written: as pathlib.Path, which every system can read, unlike PosixPath."""
    return Path, (path.as_posix(),)


class NeutralPickler(pickle.Pickler):
    """Python's own pickler, but a path read on another system becomes that system's kind of path."""

    dispatch_table = copyreg.dispatch_table.copy() | {type(Path()): _write_path}


PLAIN = SimpleNamespace(Pickler=NeutralPickler, __name__="pickle")  # the part of a pickle module that torch.save uses


def save_learner(learn, path: Path) -> None:
    """
    Write what predicting needs of a learner to `path`, as a plain pickle that ``load_learner`` reads.

    A second learner is made around a copy of the network and empty dataloaders: so the one given stays as it is,
    and optimizer, metrics, callbacks and the place of the pictures stay out. The same network gives the same bytes.

    Notes
    -----
    ``learn.export()`` pickles with cloudpickle, whose bytecode crashes another Python version, and it takes along
    every callback, the folder's path and the state of a random generator.
    """
    loaders = deepcopy(learn.dls.new_empty()).cpu()
    loaders.path = Path()
    for loader in loaders.loaders:
        loader.rng = random.Random(0)  # its state would differ at each export, and says nothing
        # Only training draws these; some are ours, and other programs know no such names. One with a size resizes.
        lasting = [t for t in loader.after_batch.fs if not isinstance(t, RandTransform) or getattr(t, "size", None)]
        loader.after_batch = Pipeline(lasting, split_idx=loader.after_batch.split_idx)
    needed = [TrainEvalCallback(), CastToTensor()]
    light = Learner(
        loaders,
        deepcopy(learn.model).cpu().eval(),
        loss_func=learn.loss_func,
        cbs=needed,
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
    path.write_bytes(buffer.getvalue())


def _accepted(path: Path) -> None:
    """Refuse an export that `load_classifier` would refuse."""
    try:
        vet(path)
    except ModelError as error:
        reason = str(error).partition(": ")[2].partition(". ")[0]
        raise FieldguideError(
            f"This learner cannot become a file that is safe to load: {reason}. Train it with the transforms and the "
            "kinds of network that stage 04 offers, such as resnet18, resnet34 or resnet50."
        ) from error


def _agreeing(path: Path, pictures: Sequence[Path]) -> None:
    """Refuse an export for which fastai's answers and ours differ on any of the pictures."""
    ours = load_classifier(path).predict(pictures)
    theirs = fastai_probabilities(path, pictures)
    for picture, mine, row in zip(pictures, ours, theirs, strict=True):
        difference = _difference(mine, row)
        if difference is None or difference > AGREEMENT:
            found = mine.error or f"their probabilities differ by {difference:.4f}"
            raise FieldguideError(
                f"fastai and utils.inference disagree on {picture}: {found}. Nothing was exported. If this picture "
                "was changed by hand, remove it and run 02 to 05 again; otherwise please report it."
            )


def _difference(mine: Prediction, row: np.ndarray) -> float | None:
    """Return the largest difference between two answers of K probabilities, or None where ours is an error."""
    return None if mine.error else float(np.abs(np.array(list(mine.probabilities.values())) - row).max())


def fastai_probabilities(path: Path, pictures: Sequence[Path]) -> np.ndarray:
    """Return fastai's own probabilities, of shape (N, K), for the model file at `path`, as its predict does it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickles being unsafe: this one was written and vetted just now
        learner = load_learner(path)
    loader = learner.dls.test_dl(list(pictures), num_workers=0)
    probabilities, _ = learner.get_preds(dl=loader)
    return probabilities.double().numpy()


def _kept_aside(model: Path, sha256: str) -> Path | None:
    """Copy an earlier, different export to the next free number; return where."""
    if not model.exists() or file_hash(model) == sha256:
        return None
    taken = [int(found[1]) for path in model.parent.iterdir() if (found := _BACKUP.fullmatch(path.name))]
    backup = model.with_name(f"export.{max(taken, default=0) + 1:03d}.pkl")
    with writing(backup) as temporary:
        shutil.copyfile(model, temporary)
    return backup


_BACKUP = re.compile(r"export\.(\d{3,})\.pkl")


def _card(project: Project, evaluation: Mapping, sha256: str) -> dict:
    """Return the facts of card.json."""
    sides = project.sides()
    counts = {label: Counter() for label in project.labels}
    for id, path in project.pictures().items():
        if id in sides:
            counts[path.parent.name][sides[id]] += 1
    tables = {f"{name}.csv": project.table(name) for name in TABLES}
    return {
        "name": project.name,
        "labels": list(project.labels),
        "counts": {label: dict(sorted(by_side.items())) for label, by_side in counts.items()},
        "valid": evaluation.get("valid", {}),
        "test": evaluation.get("test", {}),
        "seed": project.seed,
        "arch": project.arch,
        "weights": project.weights,
        "size": project.size,
        "epochs": project.epochs,
        "versions": {"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        "sha256": {"export.pkl": sha256} | {name: file_hash(path) for name, path in tables.items() if path.exists()},
        "fingerprint": evaluation["fingerprint"],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
