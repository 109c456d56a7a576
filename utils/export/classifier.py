"""
Stage 07: turn the trained learner into files that others can use.

Reads the learner, evaluation.json, the last round's predictions, out_of_fold.csv and the photos; writes export.pkl,
model.onnx, ATTRIBUTION.csv, MODEL_CARD.md, README.md and card.json into models/<name>, all of them or none. `formats`
writes the two models, `quantised` a small one for who asks, `gallery` the known photos of single animals; `threshold`
and `unseen` find when to say "unknown", `facts` and `modelcard` the words. Files are put in place (`placing`) only if
vetting accepts the pickle, and if fastai and both files agree (`agreement`).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from utils.averaging import model_hash, networks_in
from utils.dataset import Dataset, read_dataset, round_fingerprint, seeded_rank
from utils.errors import FieldguideError
from utils.evaluate import coded, read_evaluation, read_predictions, round_numbers, scale
from utils.export.agreement import fastai_predictor, require_agreement, require_agreement_on_awkward
from utils.export.attribution import attribution
from utils.export.facts import make_card
from utils.export.formats import save_learner, save_onnx
from utils.export.gallery import save_gallery
from utils.export.modelcard import model_card
from utils.export.placing import CARD, INT8, MODEL, MODEL_CARD, ONNX, SOURCES, put_in_place, workshop
from utils.export.quantised import small_model, small_model_sentence
from utils.export.staging import earlier_card, onnx_made_before, stage_words
from utils.export.threshold import Answers, certify_threshold
from utils.export.unseen import unseen_labels
from utils.features import picture_features
from utils.inference import GALLERY, Classifier, ModelError, load_classifier
from utils.project import Project
from utils.storage import file_hash, locked, write_whole
from utils.tables import OUT_OF_FOLD_COLUMNS, PREDICTION_COLUMNS, each_row
from utils.train import read_checkpoint

TABLES = ("split", "corrections")  # beside the settings, they made this model what it is
MOST_LOOKED_AT = 3000  # photos, of all labels, that `unseen` looks at: a minute or two
LEAST_LOOKED_AT = 10  # of each label and side
AGAIN = "Run 04 and 05 again, then this notebook."
WRITER = 3  # of model.onnx: raise it when `save_onnx` writes the same learner differently, so that no old file stays


@dataclass(frozen=True)
class Export:
    """What stage 07 wrote, and on how many photos it compared the answers."""

    model: Path  # export.pkl
    onnx: Path  # model.onnx
    words: Path  # MODEL_CARD.md
    card_file: Path  # card.json
    backup: Path | None  # the folder in which the earlier, different set is kept
    card: dict  # what card.json holds
    checked: int  # held-out photos shown to both files
    by_fastai: int  # those shown to fastai too: upright 8-bit RGB of at most 512 pixels, as 02 makes them
    awkward: int  # drawn awkward files shown to both files


def export_classifier(dataset: Dataset, learn) -> Export:
    """
    Export a learner that `load_trained` returned as a set of files in models/<name>; the learner is left as it is.

    An earlier, different set is kept whole in exports/<NNN>. Exported again, the same model rewrites nothing. What a
    person added to README.md stays as long as our words do; the licence in its front matter stays in any case.

    Raises FieldguideError, and leaves the set as it was, if the evaluation is of another model or data set, the learner
    cannot become a safe file, two answers to a photo differ, photos are moved, or another program exports meanwhile.
    """
    project, evaluation = dataset.project, current_evaluation(dataset, learn)
    held_out = dataset.on("valid", "test").paths
    if not len(dataset.on("valid")):
        raise FieldguideError("The validation set is empty, so nothing can check the export. Run 03, 04 and 05.")
    temperature = evaluation["temperature"]["value"] or 1.0  # None if nothing could be fitted
    with locked(project.models), workshop(project.models) as staged:
        pickled = _pickled(learn, staged / MODEL, temperature, dataset.records.bits)
        earlier = earlier_card(project.models)
        unknown = _certified(dataset, temperature)
        unknown["unseen"] = _unseen_before(earlier, staged / MODEL, evaluation, unknown) or _asked_of_unseen(
            dataset, unknown
        )
        metadata = _metadata(project, pickled, unknown)
        if (made_before := onnx_made_before(earlier, project.models / ONNX, staged / MODEL, metadata)) is not None:
            write_whole(staged / ONNX, made_before)
        else:
            how = {"temperature": temperature, "features": project.individuals}
            save_onnx(learn, staged / ONNX, **how, metadata=metadata)
        onnx = _vetted(staged / ONNX)
        by_fastai = require_agreement(fastai_predictor(staged / MODEL), pickled, onnx, held_out)
        awkward = require_agreement_on_awkward(pickled, onnx)
        small = small_model(dataset, staged) if project.int8 else None
        models = [path for name in (ONNX, INT8) if (path := staged / name).exists()]
        shown = save_gallery(dataset, onnx, staged / GALLERY, models) if project.individuals else None
        facts = {"temperature": temperature, "unknown": unknown, "int8": small, "gallery": shown}
        card = _in_words(dataset, staged, evaluation, earlier, **facts)
        current_evaluation(read_dataset(project), learn)  # again: someone may have cleaned or trained meanwhile
        backup = put_in_place(staged, project.models)
    places = (project.models / name for name in (MODEL, ONNX, MODEL_CARD, CARD))
    return Export(*places, backup, card, len(held_out), by_fastai, awkward)


def current_evaluation(dataset: Dataset, learn) -> dict:
    """Return evaluation.json, or refuse one that did not judge this learner on today's photos, labels and sides."""
    project, evaluation, record = dataset.project, read_evaluation(dataset.project), getattr(learn, "record", None)
    if record is None:
        raise FieldguideError("This learner has no record of its training. Take the one that load_trained returns.")
    if evaluation is None:
        raise FieldguideError(f"There is no {project.models / 'evaluation.json'}. Run 04 and 05 first.")
    if evaluation.get("fingerprint") != round_fingerprint(dataset, record.settings):
        raise FieldguideError(f"Photos, labels, sides or settings changed since the last training. {AGAIN}")
    if tuple(map(str, learn.dls.vocab)) != tuple(project.labels):
        raise FieldguideError(
            f"The learner knows the labels {', '.join(map(str, learn.dls.vocab))}, the project "
            f"{', '.join(project.labels)}. {AGAIN}"
        )
    if (trained := model_hash(project)) and evaluation.get("model") != trained:
        raise FieldguideError("The model was trained again since it was judged. Run 05, then this notebook.")
    networks = networks_in(learn.model)
    if len(networks) != project.ensemble or not all(map(_holds_what_was_kept, networks, project.networks)):
        raise FieldguideError(  # a notebook that stayed open still holds the weights of before
            "This learner is not the model that 05 judged: it was trained again since it was loaded here. Run this "
            "notebook again from its first cell."
        )
    return evaluation


def _holds_what_was_kept(network: torch.nn.Module, project: Project) -> bool:
    """Return whether a network has the weights of its learner.pth, if there is one."""
    kept, weights = (read_checkpoint(project) or {}).get("model"), network.state_dict()
    return not kept or (
        kept.keys() == weights.keys() and all(torch.equal(weights[name].cpu(), kept[name]) for name in kept)
    )


def _certified(dataset: Dataset, temperature: float) -> dict:
    """Return what `certify_threshold` finds in the last round's predictions of the validation set."""
    project, valid = dataset.project, dataset.on("valid")
    table = read_predictions(project, side="valid") if round_numbers(project) else None
    columns = [*PREDICTION_COLUMNS, *project.labels]
    if table is None or sorted(table.id) != list(valid.ids) or list(table.columns) != columns:
        raise FieldguideError(
            f"The last round in {project.models / 'rounds'} is not of the photos in the validation set. "
            f"Delete {project.models / 'evaluation.json'} and run 05 again."
        )
    labels, probs = coded(table)  # (N,), (N, K)
    answers = {"groups": [dataset[id].group for id in table.id], "others": out_of_fold_answers(dataset)}
    return certify_threshold(labels, scale(probs, temperature), **answers, seed=project.seed)


def out_of_fold_answers(dataset: Dataset) -> Answers | None:
    """Return 06's answers to the training set, even old ones, under today's labels; None if there is nothing usable."""
    train, path = dataset.on("train"), dataset.project.models / "out_of_fold.csv"
    vocab, codes = list(dataset.project.labels), dict(zip(train.ids, train.codes, strict=True))
    try:
        rows = [row for row in each_row(path, (*OUT_OF_FOLD_COLUMNS, *vocab)) if row["id"] in train]
        probs = np.array([[float(row[label]) for label in vocab] for row in rows]).reshape(-1, len(vocab))
    except (FieldguideError, ValueError):  # of other labels, or changed by hand
        return None
    judged = np.isfinite(probs).all(1)  # a photo that could not be read has no answer
    ids = [row["id"] for row, there in zip(rows, judged, strict=True) if there]
    return ([codes[id] for id in ids], probs[judged], [train[id].group for id in ids]) if ids else None


def _unseen_before(earlier: Mapping, model: Path, evaluation: Mapping, unknown: Mapping) -> dict | None:
    """Return what the card of the same model says of unseen labels: finding it out takes a while."""
    known = earlier.get("unknown", {})
    same = (
        earlier.get("sha256", {}).get(MODEL) == file_hash(model)
        and earlier.get("fingerprint") == evaluation["fingerprint"]
        and known.get("threshold") == unknown["threshold"]
        and "unknown" in known.get("unseen", {})
    )
    return known["unseen"] if same else None


def _asked_of_unseen(dataset: Dataset, unknown: Mapping) -> dict:
    """Return how often a label that was never shown is called unknown, or why that cannot be told."""
    if not unknown["threshold"]:
        return {"why": "it never says “unknown”"}
    if len(dataset.project.labels) < 3:
        return {"why": "leaving one label out leaves a single one; it takes three labels"}
    sampled = sampled_pictures(dataset)
    features = picture_features(sampled)
    if (spoilt := np.isnan(features).any(1)).any():
        raise FieldguideError(f"{sampled.paths[spoilt.argmax()]} cannot be read. Run 02 to 05 again.")
    held_out = np.array(sampled.sides) == "valid"
    how = {"coverage": unknown["coverage"]["value"], "seed": dataset.project.seed}
    found = unseen_labels(features, sampled.labels, held_out, groups=sampled.groups, **how)
    every = len(dataset.on("train", "valid"))
    if "note" in found and len(sampled) < every:
        found["note"] += f" {len(sampled):,} of {every:,} photos were looked at, as many of each label."
    return found


def sampled_pictures(dataset: Dataset, *, most: int = MOST_LOOKED_AT) -> Dataset:
    """Return the photos that `unseen` looks at, never the test set: if too many, drawn by a seeded hash of the ids."""
    usable, seed = dataset.on("train", "valid"), dataset.project.seed
    if len(usable) <= most:
        return usable
    each = max(LEAST_LOOKED_AT, most // (2 * len(dataset.project.labels)))
    taken: dict[tuple[str, str], list[str]] = {}
    for id in sorted(usable.ids, key=lambda id: seeded_rank(seed, id)):
        taken.setdefault((usable[id].label, usable[id].side), []).append(id)
    kept = {id for ids in taken.values() for id in ids[:each]}
    return usable.where(lambda picture: picture.id in kept)


def _pickled(learn, path: Path, temperature: float, bits: int | None) -> Classifier:
    """Write export.pkl and return it as `load_classifier` loads it, or refuse what it would refuse."""
    save_learner(learn, path, temperature=temperature, bits=bits)
    return _vetted(path)


def _vetted(path: Path) -> Classifier:
    """Return a model file as `load_classifier` loads it, or refuse what it would refuse."""
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
    recipe = {name: fact for name, fact in asdict(classifier.recipe).items() if fact is not None}
    facts = {"labels": list(classifier.labels), "recipe": recipe}
    if unknown["threshold"] is not None:
        facts["threshold"] = unknown["threshold"]
    if project.individuals:
        facts["features"] = True  # so that an earlier file without them does not stand
    return {"name": project.name, "writer": str(WRITER)} | {
        key: json.dumps(fact, ensure_ascii=False) for key, fact in facts.items()
    }


def _in_words(
    dataset: Dataset, staged: Path, evaluation: Mapping, earlier: Mapping, *, unknown: Mapping, **facts
) -> dict:
    """Write ATTRIBUTION.csv, MODEL_CARD.md, README.md and card.json into the staged set; return the card."""
    project, (origins, licences) = dataset.project, attribution(dataset)
    write_whole(staged / SOURCES, origins)
    paths = {name: staged / name for name in (MODEL, ONNX, INT8, GALLERY, SOURCES) if (staged / name).exists()}
    paths |= {f"{name}.csv": project.table(name) for name in TABLES if project.table(name).exists()}
    sha256 = {name: file_hash(path) for name, path in paths.items()}
    card = make_card(dataset, evaluation, unknown=unknown, licences=licences, sha256=sha256, **facts)
    return stage_words(staged, project.models, card, model_card(card), earlier)


def checked_sentence(exported: Export) -> str:
    """Return in sentences what was compared before the files were put in place."""
    asked, others = exported.by_fastai, exported.checked - exported.by_fastai
    told = (
        f"Both files gave the same answer to all {exported.checked:,} held-out photos and to {exported.awkward} drawn "
        f"awkward ones. fastai itself gave it too, to {asked:,} of the held-out photos"
    )
    own = "others are not upright 8-bit RGB of at most 512 pixels, and fastai opens such files in its own way"
    words = [f"{told}; the {others:,} {own}." if others else f"{told}."]
    if several := exported.card.get("ensemble"):
        sizes = (f"{path.name} {path.stat().st_size / 1e6:.1f} MB" for path in (exported.model, exported.onnx))
        words.append(f"Both hold {several['networks']} networks: {', '.join(sizes)}.")
    if small := exported.card.get("int8"):
        words.append(small_model_sentence(small))
    return " ".join(words)
