"""
Stage 07: turn the trained learner into files that others can use.

Reads the learner, evaluation.json, the last round's predictions and the pictures held out; writes export.pkl,
model.onnx, ATTRIBUTION.csv, MODEL_CARD.md, README.md and card.json into models/<name>, all of them or none. `portable`
writes the two models, `abstain` finds when they had better say "unknown", `card` the words. They are put in place only
when `vetting` accepts the pickle, and when fastai and both files, through `inference`, give the same answers. card.json
comes last and names the others' SHA-256: a set that a kill tore apart is known by it, and put right by the next run.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from fastai.learner import load_learner
from PIL import Image
from tqdm.auto import tqdm

from utils.errors import FieldguideError
from utils.evaluate import WORDS as BEFORE_LABELS
from utils.evaluate import coded, read_evaluation, read_predictions, round_numbers, scale
from utils.export.attribution import attribution
from utils.export.awkward import awkward_pictures
from utils.export.card import make_card, read_card
from utils.export.formats import save_learner, save_onnx
from utils.export.modelcard import capitalised, model_card, with_licence
from utils.export.unknown import fit_threshold, unseen_labels
from utils.features import frozen_features, learned_features
from utils.inference import Classifier, ModelError, Prediction, load_classifier
from utils.pictures import LONGEST_SIDE, ORIENTATION, PictureError
from utils.project import Project
from utils.storage import explained, file_hash, locked, make_folder, sync_folder, write_whole
from utils.train import pretrained_body, read_checkpoint

AGREEMENT = 1e-3  # the largest difference of a probability between fastai's answers and ours
MODEL, ONNX, SOURCES, README, WORDS, CARD = FILES = (
    "export.pkl",
    "model.onnx",
    "ATTRIBUTION.csv",
    "README.md",  # the words of MODEL_CARD.md once more, for the Hub shows no other name; a person may add to them
    "MODEL_CARD.md",
    "card.json",
)
TABLES = ("split", "corrections")  # what, beside the settings, made this model what it is
STAGED = ".export"  # the folder, in models/<name>, in which a set is made; what a killed run left there is removed
KEPT = "exports"  # the folder of earlier sets
FEATURES = 3000  # pictures, of all labels, from which is told how well a label never seen is spotted: a minute or two
LEAST_FEATURES = 10  # of each label and side


@dataclass(frozen=True)
class Export:
    """
    What stage 07 wrote.

    Attributes
    ----------
    model, onnx, words, card_file : Path
        export.pkl, model.onnx, MODEL_CARD.md and card.json.
    backup : Path or None
        The folder in which the earlier, different set is kept.
    card : dict
        What card.json holds.
    checked : int
        Held-out pictures on which the answers of both files were compared.
    by_fastai : int
        Those of them that fastai was asked about too: upright 8-bit RGB of at most 512 pixels, as 02 makes them.
    awkward : int
        Drawn awkward files on which the answers of both files were compared.
    """

    model: Path
    onnx: Path
    words: Path
    card_file: Path
    backup: Path | None
    card: dict
    checked: int
    by_fastai: int
    awkward: int


def export_classifier(
    project: Project, learn, *, evaluation: Mapping | None = None, target_error: float = 0.05
) -> Export:
    """
    Export a trained learner as a set of files in models/<name>.

    An earlier, different set is kept whole in exports/<NNN>. Exported again, the same model rewrites nothing. What a
    person added to README.md stays as long as its words do; the licence in its front matter stays in any case.

    Parameters
    ----------
    project : Project
    learn : fastai Learner
        As stage 04 makes it; it is left as it is.
    evaluation : mapping, optional
        What evaluation.json holds; by default it is read.
    target_error : float
        Share of the labels named that may be wrong where the model may say "unknown", in (0, 1).

    Raises
    ------
    FieldguideError
        If the last evaluation is of other labels, settings or sides, or of another model; if the learner holds
        something that a safe file cannot; if the answers differ on a picture; if pictures are moved meanwhile; or if
        another program is exporting. The set is then as it was.
    """
    if not 0 < target_error < 1:
        raise FieldguideError(f"target_error = {target_error}: expected a share between 0 and 1, such as 0.05.")
    evaluation = _current(project, read_evaluation(project) if evaluation is None else evaluation)
    if tuple(map(str, learn.dls.vocab)) != tuple(project.labels):
        raise FieldguideError(
            f"The learner knows the labels {', '.join(map(str, learn.dls.vocab))}, the project "
            f"{', '.join(project.labels)}. Run 04 and 05 again."
        )
    _require_judged(project, learn)
    sides, pictures = project.sides(), project.pictures()
    held_out = [path for id, path in pictures.items() if sides.get(id) in ("valid", "test")]
    if "valid" not in sides.values():
        raise FieldguideError("No picture is on the valid side, so nothing can check the export. Run 03, 04 and 05.")
    temperature = evaluation.get("temperature", {}).get("value")
    temperature = 1.0 if temperature is None else temperature
    with locked(project.models), _workshop(project.models) as staged:
        pickled = _pickled(learn, staged / MODEL, temperature)
        unknown = _threshold(project, temperature, target_error)
        earlier = _earlier_card(project.models)
        unknown["unseen"] = _remembered(earlier, staged / MODEL, evaluation, target_error) or _unseen(
            project, learn, target_error
        )
        save_onnx(learn, staged / ONNX, temperature=temperature, metadata=_metadata(project, pickled, unknown))
        onnx = load_classifier(staged / ONNX)
        by_fastai = _agreeing(fastai_predictor(staged / MODEL), pickled, onnx, held_out)
        awkward = _agreeing_on_awkward(pickled, onnx)
        card = _described(project, staged, evaluation, earlier, temperature=temperature, unknown=unknown)
        _current(project, evaluation)  # once more: who cleans or trains meanwhile would tear words and model apart
        backup = put_in_place(staged, project.models)
    places = (project.models / name for name in (MODEL, ONNX, WORDS, CARD))
    return Export(*places, backup, card, len(held_out), by_fastai, awkward)


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


def _require_judged(project: Project, learn) -> None:
    """Refuse a learner of other weights than learner.pth: a notebook that stayed open still holds those of before."""
    kept, weights = (read_checkpoint(project) or {}).get("model"), learn.model.state_dict()
    if kept and not (
        kept.keys() == weights.keys() and all(torch.equal(weights[name].cpu(), kept[name]) for name in kept)
    ):
        raise FieldguideError(
            "This learner is not the model that 05 judged: it was trained again since it was loaded here. Run this "
            "notebook again from its first cell."
        )


# ---------------------------------------------------------------------------------------------------------------
# When to say "unknown"
# ---------------------------------------------------------------------------------------------------------------


def _threshold(project: Project, temperature: float, target: float) -> dict:
    """Return what `fit_threshold` finds in the last round's predictions of the valid side."""
    table = read_predictions(project, side="valid") if round_numbers(project) else None
    vocab = list(project.labels)
    ids = [id for id, side in project.sides().items() if side == "valid"]
    if table is None or sorted(table.id) != ids or list(table.columns[len(BEFORE_LABELS) :]) != vocab:
        raise FieldguideError(
            f"The last round in {project.models / 'rounds'} is not of the pictures that stand on the valid side. "
            f"Delete {project.models / 'evaluation.json'} and run 05 again."
        )
    labels, probs = coded(table)  # (N,), (N, K)
    probs = scale(probs, temperature)
    return fit_threshold(labels, probs, groups=project.groups(table.id), target=target, seed=project.seed)


def _remembered(earlier: Mapping, model: Path, evaluation: Mapping, target: float) -> dict | None:
    """Return how well unseen labels are spotted as the card of the same model says: finding it out takes a while."""
    unknown = earlier.get("unknown", {})
    same = (
        earlier.get("sha256", {}).get(MODEL) == file_hash(model)
        and earlier.get("fingerprint") == evaluation["fingerprint"]
        and unknown.get("target_error") == target
        and "unknown" in unknown.get("unseen", {})
    )
    return unknown["unseen"] if same else None


def _unseen(project: Project, learn, target: float) -> dict:
    """Return how well a label never seen is spotted, or why that cannot be told."""
    if len(project.labels) < 3:
        return {"why": "leaving one label out leaves a single one; it takes three labels"}
    sampled = sampled_pictures(project)
    ids, paths = list(sampled), list(sampled.values())
    sides = project.sides()
    try:
        body = pretrained_body(project)
        pretrained = body is not None
        features = frozen_features(body, paths, size=project.size) if pretrained else _own_features(learn, paths)
    except FieldguideError as error:  # the ImageNet weights are gone, and this machine cannot fetch them
        warnings.warn(str(error), stacklevel=3)  # it names folders of this computer, which are nothing for a card
        return {"why": "the ImageNet weights were not at hand"}
    except (PictureError, OSError) as error:
        raise FieldguideError(f"A picture in {project.images} cannot be read ({error}). Run 02 to 05 again.") from error
    found = unseen_labels(
        features,
        [path.parent.name for path in paths],
        np.array([sides[id] == "valid" for id in ids]),
        groups=project.groups(ids),
        target=target,
        seed=project.seed,
        optimistic=not pretrained,
    )
    every = sum(side != "test" for side in sides.values())
    if "note" in found and len(ids) < every:
        found["note"] += f" {len(ids):,} of {every:,} pictures were looked at, as many of each label."
    return found


def _own_features(learn, paths: Sequence[Path]) -> np.ndarray:
    """Return the features (N, F) of the learner's own body, and leave the learner in the mode it was in."""
    training = learn.model.training
    try:
        return learned_features(learn, paths)
    finally:
        learn.model.train(training)


def sampled_pictures(project: Project, *, most: int = FEATURES) -> dict[str, Path]:
    """
    Return the pictures that a question about features is put to, id → path, sorted by id.

    All of the train and valid sides, or where they are more than `most`, as many of each label and side, drawn by a
    seeded hash of the ids. The test side is left alone.
    """
    each = max(LEAST_FEATURES, most // (2 * len(project.labels)))
    pictures, sides = project.pictures(), project.sides()
    taken: dict[tuple[str, str], list[str]] = {}
    for id in sorted(sides, key=lambda id: hashlib.sha256(f"{project.seed}:{id}".encode()).digest()):
        if sides[id] != "test":
            taken.setdefault((pictures[id].parent.name, sides[id]), []).append(id)
    if sum(map(len, taken.values())) > most:
        taken = {key: ids[:each] for key, ids in taken.items()}
    return {id: pictures[id] for id in sorted(id for ids in taken.values() for id in ids)}


def checked_sentence(exported: Export) -> str:
    """Return in sentences what was compared before the files were put in place."""
    asked, others = exported.by_fastai, exported.checked - exported.by_fastai
    told = (
        f"Both files gave the same answer to all {exported.checked:,} held-out pictures, and to {exported.awkward} "
        "awkward ones drawn for the purpose. fastai itself "
    )
    if not others:
        return f"{told}gave it too, to all that were held out."
    rest = "what is no upright 8-bit RGB of at most 512 pixels it opens in its own way."
    return f"{told}{f'gave it too, to {asked:,} of those held out' if asked else 'was not asked'}: {rest}"


def threshold_sentence(unknown: Mapping) -> str:
    """
    Return in a sentence when the model says "unknown", from the entry of card.json.

    >>> threshold_sentence({"threshold": None, "why": "there are too few pictures"})
    'It cannot say "unknown": there are too few pictures.'
    """
    if unknown["threshold"] is None:
        return f'It cannot say "unknown": {unknown["why"]}.'
    coverage, error = unknown["coverage"], unknown["error"]
    told = (
        f'Asked to, it says "unknown" below a probability of {unknown["threshold"]:.2f}. On the valid side '
        f"{coverage['value']:.0%} of the pictures then get a label, and {error['value']:.1%} of these a wrong one."
    )
    if unknown["threshold"] == 0:
        told = f"Every picture gets a label, and on the valid side {error['value']:.1%} get a wrong one."
    return told if unknown["reached"] else f"{told} {capitalised(unknown['why'])}."


def unseen_sentence(unseen: Mapping) -> str:
    """
    Return in a sentence how well the model spots a label that it never saw, from the entry of card.json.

    >>> unseen_sentence({"why": "it takes three labels"})
    'How well it spots what it never saw cannot be told: it takes three labels.'
    """
    if "why" in unseen:
        return f"How well it spots what it never saw cannot be told: {unseen['why'].rstrip('.')}."
    caught, alarms = unseen["unknown"]["value"], unseen["false_alarms"]["value"]
    return (
        f'With each label left out in turn, {caught:.0%} of its pictures were called "unknown", and {alarms:.0%} of '
        f"the others' too. {unseen['note']}"
    )


# ---------------------------------------------------------------------------------------------------------------
# The two models, and whether they agree
# ---------------------------------------------------------------------------------------------------------------


def _pickled(learn, path: Path, temperature: float) -> Classifier:
    """Write export.pkl and return it as `load_classifier` loads it, or refuse what it would refuse."""
    save_learner(learn, path, temperature=temperature)
    try:
        return load_classifier(path)
    except ModelError as error:
        reason = str(error).partition(": ")[2].partition(". ")[0] or str(error)
        raise FieldguideError(
            f"This learner cannot become a file that is safe to load: {reason}. Train it with the transforms and the "
            "kinds of network that stage 04 offers, such as resnet18, resnet34 or resnet50."
        ) from error


def _metadata(project: Project, classifier: Classifier, unknown: Mapping) -> dict[str, str]:
    """Return what model.onnx says of itself: everything that a program needs to use it."""
    facts = {"labels": list(classifier.labels), "recipe": asdict(classifier.recipe)}
    if unknown["threshold"] is not None:
        facts["threshold"] = unknown["threshold"]
    return {"name": project.name} | {key: json.dumps(fact, ensure_ascii=False) for key, fact in facts.items()}


def _agreeing(
    predict: Callable[[Path], Prediction], pickled: Classifier, onnx: Classifier, pictures: Sequence[Path]
) -> int:
    """Refuse files that answer otherwise than fastai, or than each other; return how often fastai was asked."""
    asked = 0
    bar = tqdm(pictures, desc="export.pkl, model.onnx and fastai asked about held-out pictures", unit="picture")
    for picture, ours, other in zip(bar, pickled.stream(pictures), onnx.stream(pictures), strict=True):
        if error := ours.error or other.error:
            raise FieldguideError(f"{picture} cannot be read ({error}). Remove it and run 02 to 05 again.")
        _require_same(picture, {"export.pkl": ours, "model.onnx": other})
        if is_plain(picture):
            theirs, asked = predict(picture), asked + 1
            _require_same(picture, {"fastai's own predict": theirs, "export.pkl": ours})
            _require_same(picture, {"fastai's own predict": theirs, "model.onnx": other})
    return asked


def _agreeing_on_awkward(pickled: Classifier, onnx: Classifier) -> int:
    """Refuse files that answer differently to a drawn awkward picture; return how many there are."""
    files = awkward_pictures()
    answers = zip(files, pickled.stream(files.values()), onnx.stream(files.values()), strict=True)
    for name, ours, other in answers:
        _require_same(f"the drawn picture {name}", {"export.pkl": ours, "model.onnx": other})
    return len(files)


def _require_same(picture: Path | str, answers: Mapping[str, Prediction]) -> None:
    """Refuse two answers to one picture that are not the same."""
    (first, one), (second, other) = answers.items()
    if found := disagreement(one, other):
        advice = "If this picture was changed by hand, remove it and run 02 to 05 again; otherwise please report it."
        raise FieldguideError(
            f"{first} and {second} disagree on {picture}: {found}. Nothing was exported. "
            + (advice if isinstance(picture, Path) else "Please report it, with the kind of network.")
        )


def disagreement(one: Prediction, other: Prediction) -> str:
    """
    Return in what two answers differ, "" where they are the same.

    Probabilities are the same within `AGREEMENT`, errors when they have the same words. Labels must be the same too,
    unless both are so nearly equal in probability (within twice `AGREEMENT`) that the last digits decide.

    Examples
    --------
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
        if not abs(probability - other.probabilities[label]) <= AGREEMENT:  # not a number differs from all
            return f"the probability of {label!r} is {probability:.4f} and {other.probabilities[label]:.4f}"
    for answer, label in ((one, other.label), (other, one.label)):
        if answer.probabilities[label] < max(answer.probabilities.values()) - 2 * AGREEMENT:
            return f"the labels are {one.label!r} and {other.label!r}"
    return ""


def fastai_predictor(path: Path) -> Callable[[Path], Prediction]:
    """Return a function that asks fastai's own ``load_learner(path).predict`` about a file and gives a `Prediction`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickles being unsafe: this one was written and vetted just now
        learner = load_learner(path)

    def predict(picture: Path) -> Prediction:
        with learner.no_bar(), learner.no_logging():
            label, _, row = learner.predict(picture)
        probabilities = dict(zip(map(str, learner.dls.vocab), row.double().tolist(), strict=True))
        return Prediction(str(label), max(probabilities.values()), probabilities)

    return predict


def is_plain(picture: Path) -> bool:
    """
    Return whether fastai opens a file as `open_picture` does: upright 8-bit RGB of at most 512 pixels.

    So 02 makes every training copy. What a person put into images/ may have a colour profile, transparency or a
    camera's turn, which fastai ignores: there it is no judge of ours.
    """
    with Image.open(picture) as image:
        special = {"icc_profile", "transparency"} & set(image.info) or getattr(image, "is_animated", False)
        upright = image.getexif().get(ORIENTATION, 1) == 1
        return upright and not special and image.mode == "RGB" and max(image.size) <= LONGEST_SIDE


# ---------------------------------------------------------------------------------------------------------------
# Words, and all files in their places
# ---------------------------------------------------------------------------------------------------------------


def _described(
    project: Project, staged: Path, evaluation: Mapping, earlier: Mapping, *, temperature: float, unknown: Mapping
) -> dict:
    """Write ATTRIBUTION.csv, MODEL_CARD.md and card.json into the staged set; return the card."""
    origins = attribution(project)
    write_whole(staged / SOURCES, origins.text)
    paths = {name: staged / name for name in (MODEL, ONNX, SOURCES)}
    paths |= {f"{name}.csv": project.table(name) for name in TABLES if project.table(name).exists()}
    sha256 = {name: file_hash(path) for name, path in paths.items()}
    facts = {"temperature": temperature, "unknown": unknown, "licences": origins.licences, "sha256": sha256}
    card = make_card(project, evaluation, **facts)
    words = model_card(card)
    write_whole(staged / WORDS, words)
    write_whole(staged / README, with_licence(words, _text(project.models / README)))
    card["sha256"][WORDS] = file_hash(staged / WORDS)
    if {**earlier, "created": card["created"]} == card:
        card["created"] = earlier.get("created", card["created"])  # the same model exported again is no newer
    write_whole(staged / CARD, json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return card


def _text(path: Path) -> str:
    """Return what a file says, "" where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _earlier_card(folder: Path) -> dict:
    """Return the card that is there; one that is none, or that no one can read, is about to be replaced."""
    try:
        return read_card(folder)
    except FieldguideError:
        return {}


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """Yield an empty folder inside `folder` to make a set in; it is gone afterwards."""
    staged = folder / STAGED
    with explained(staged):
        if staged.exists():  # a run was killed
            shutil.rmtree(staged)
        staged.mkdir()
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def put_in_place(staged: Path, folder: Path) -> Path | None:
    """
    Move a staged set of files into `folder`, card.json last; return where the earlier, different set is kept.

    Killed at any moment, this leaves the earlier set, or files that are not those whose SHA-256 the card names; then
    the earlier set is in exports/<NNN> already. Files that are the same stay as they are, and with MODEL_CARD.md the
    README.md, to which a person may have added.
    """
    new = [name for name in FILES if _digest(staged / name) != _digest(folder / name)]
    if README in new and WORDS not in new and (folder / README).exists():
        new.remove(README)
    backup = _kept_aside(staged, folder, [name for name in new if (folder / name).exists()])
    sync_folder(staged)
    for name in new:
        with explained(folder / name):
            (staged / name).replace(folder / name)
    sync_folder(folder)
    return backup


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, "" where there is none."""
    return file_hash(path) if path.exists() else ""


def _kept_aside(staged: Path, folder: Path, lost: Sequence[str]) -> Path | None:
    """Copy the set to the next free number if files in it are to be lost that the last one lacks; return where."""
    if not lost:
        return None
    kept = make_folder(folder / KEPT)
    numbers = sorted(int(path.name) for path in kept.iterdir() if path.name.isdecimal() and path.is_dir())
    last = kept / f"{numbers[-1]:03}" if numbers else None
    if last and all(_digest(last / name) == _digest(folder / name) for name in lost):
        return last  # by a run that was killed before it had put the whole new set in place
    backup, copies = kept / f"{numbers[-1] + 1 if numbers else 1:03}", staged / KEPT
    with explained(backup):
        copies.mkdir()
        for name in FILES:
            if (folder / name).exists():
                with (folder / name).open("rb") as source, (copies / name).open("wb") as copy:
                    shutil.copyfileobj(source, copy)
                    copy.flush()
                    os.fsync(copy.fileno())
        sync_folder(copies)
        copies.rename(backup)
        sync_folder(kept)
    return backup
