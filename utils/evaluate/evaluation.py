"""
Stage 05: how good is it, on which labels, and where does it err?

Reads the trained learner and the pictures; writes evaluation.json and rounds/<NNN>/predictions.csv. Every figure has a
95 % interval and the number of pictures behind it (`scores`). `rounds` keeps and compares the rounds, `shortcuts` asks
what the files alone give away, `marks` what one label's pictures have at their edges, `individuals` which known animal
has the nearest photo, `diagrams` and `heatmaps` draw.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from utils.averaging import model_hash
from utils.dataset import Dataset, round_fingerprint
from utils.errors import FieldguideError
from utils.evaluate.background import find_background
from utils.evaluate.ensembles import CaughtScores, ensemble_figures
from utils.evaluate.individuals import CaughtFeatures, individual_figures
from utils.evaluate.marks import find_marks
from utils.evaluate.mirroring import mirrored_batches, mirroring_gain, trained_mirrored
from utils.evaluate.rounds import (
    EVALUATION_FORM,
    coded,
    read_predictions,
    rounds_opened,
    save_predictions,
    stored_evaluation,
)
from utils.evaluate.scores import LEAST, cross_fitted, label_scores, reliability, scale, scorecard, temperature_figure
from utils.evaluate.shortcuts import find_shortcuts
from utils.intervals import figure, verdict, wilson
from utils.storage import write_whole
from utils.tables import PREDICTION_COLUMNS
from utils.words import SETS, percent

short = partial(percent, told="", digits=0)  # a figure in a cell of a table, such as 85 % (70 % to 93 %)
IF_EMPTY = {
    "valid": "Run 03 first.",
    "test": "Write test = 0.1 in the project file before a split is drawn, or go on without: open_test=False.",
}


def predict_side(dataset: Dataset, learn, side: str, *, cbs: Sequence = ()) -> pd.DataFrame:
    """
    Return the learner's predictions for one side, through the validation transforms and the callbacks `cbs`.

    One row per picture, sorted by id: id, side, label, predicted, then the probability of each label. A
    `FieldguideError` says if no picture is on that side, one cannot be read, or the answers are not numbers.
    """
    project, pictures = dataset.project, dataset.on(side)
    if not pictures:
        raise FieldguideError(f"The {SETS[side]} of {project.name!r} is empty. {IF_EMPTY[side]}")
    try:
        probs = learn.get_preds(dl=learn.dls.test_dl(list(pictures.paths)), cbs=list(cbs))[0].double().numpy()  # (N, K)
    except OSError as error:
        # Where a worker of the loader fails, its whole story comes as one error; the last line says what happened.
        told = (str(error).splitlines() or [type(error).__name__])[-1]
        if isinstance(error, FileNotFoundError):
            raise FieldguideError(
                f"A picture was moved or deleted while it was judged ({told}). Run 04 and 05 again."
            ) from error
        if error.errno is not None:  # of the system, not of a picture
            raise
        raise FieldguideError(
            f"A picture of the {SETS[side]} cannot be read ({told}). Remove it from {project.images}, and run 04 and "
            "05 again."
        ) from error
    if not np.isfinite(probs).all():
        raise FieldguideError("The model answers with something other than numbers: its training failed. Run 04 again.")
    vocab = list(learn.dls.vocab)
    said = [vocab[k] for k in probs.argmax(1)]
    facts = pd.DataFrame({"id": pictures.ids, "side": side, "label": pictures.labels, "predicted": said})
    return facts.join(pd.DataFrame(probs / probs.sum(1, keepdims=True), columns=vocab))


def evaluate_round(dataset: Dataset, learn, *, open_test: bool = False, hiding=None) -> dict:
    """
    Judge the learner on the validation set (and on the test set if asked), save and return evaluation.json.

    A round that was judged before stands as it is. Openings of the test set are counted: if it is looked at after each
    change, it no longer tells how good a model is on pictures that nobody chose it by.

    `learn.record` says what training really used; with `hiding` of utils.masks the background is looked at alone.
    models/README.md lists the keys of the dict; its ``verdict`` is about the ``side`` test if that is open, else valid.
    The temperature is fitted on the validation set. So that set's ``calibration_error_scaled`` comes from five folds,
    each scaled by the temperature of the others. Raises FieldguideError if pictures, labels or sides changed since the
    training.
    """
    project, record = dataset.project, learn.record
    earlier = stored_evaluation(project) or {}
    now = {"fingerprint": record.fingerprint, "model": model_hash(project)}
    if round_fingerprint(dataset, record.settings) != record.fingerprint:
        raise FieldguideError("Pictures, labels or sides changed since this model was trained. Run 03 and 04 again.")
    stands = {key: earlier.get(key) for key in now} == now
    was_open = stands and bool(earlier["test"])
    if stands and earlier.get("form") == EVALUATION_FORM and (was_open or not open_test):
        evaluation = earlier | {"changed": record.changed}
        if "marks" not in earlier["shortcuts"]:  # an earlier version did not look for them
            evaluation["shortcuts"] = {**earlier["shortcuts"], "marks": find_marks(dataset)}
        evaluation["shortcuts"] = _with_background(dataset, evaluation["shortcuts"], hiding)
        if "mirrored" not in earlier:
            evaluation["mirrored"] = _mirrored(dataset, learn, read_predictions(project, side="valid"))
        if project.individuals and "individuals" not in earlier:
            tables = {side: read_predictions(project, side=side) for side in ("valid", "test")}
            evaluation["individuals"] = _individuals(dataset, learn, tables)
    else:
        if several := project.ensemble > 1:
            with CaughtScores(learn) as caught:
                valid = predict_side(dataset, learn, "valid")
        else:
            valid = predict_side(dataset, learn, "valid")
        test = predict_side(dataset, learn, "test") if open_test or was_open else valid[:0]
        told = {"settings": dict(record.settings), "changed": record.changed}
        shortcuts = {**find_shortcuts(dataset), "marks": find_marks(dataset)}
        told["shortcuts"] = _with_background(dataset, shortcuts, hiding)
        told["mirrored"] = _mirrored(dataset, learn, valid)
        if several:
            told["ensemble"] = ensemble_figures(dataset, valid, caught.rows())
        if project.individuals:
            told["individuals"] = _individuals(dataset, learn, {"valid": valid, "test": test})
        evaluation = {"form": EVALUATION_FORM, **round_figures(dataset, valid, test), **told, **now}
        save_predictions(project, pd.concat([valid, test]), again=stands)
        counted = earlier.get("test_opened", 0) + (open_test and not was_open)
        evaluation["test_opened"] = max(counted, rounds_opened(project))  # evaluation.json may have been deleted
    if evaluation != earlier:
        text = json.dumps(evaluation, indent=1, ensure_ascii=False, allow_nan=False)
        write_whole(project.models / "evaluation.json", text)
    return evaluation


def _with_background(dataset: Dataset, shortcuts: Mapping, hiding) -> dict:
    """Return the shortcuts with what the background alone tells, where a masker can hide the thing."""
    background = find_background(dataset, hiding, shortcuts.get("background"))
    return {**shortcuts, "background": background} if background else dict(shortcuts)


def _mirrored(dataset: Dataset, learn, valid: pd.DataFrame) -> dict:
    """Return what a second look at each validation photo, mirrored, gains; or why that was not measured."""
    if not trained_mirrored(learn.dls):
        return {"why": "training never showed mirrored photos (do_flip = false), so left and right may matter"}
    mirrored = predict_side(dataset, learn, "valid", cbs=[mirrored_batches()])
    return mirroring_gain(dataset, valid, mirrored, seed=dataset.project.seed)


def _individuals(dataset: Dataset, learn, predictions: Mapping[str, pd.DataFrame]) -> dict:
    """Return how well the nearest training photos tell individuals, on each side that has predictions."""
    judged = {side: table for side, table in predictions.items() if len(table)}
    features: dict[str, np.ndarray] = {}
    for side in ("train", *judged):
        with CaughtFeatures(learn) as caught:
            table = predict_side(dataset, learn, side)
        features |= dict(zip(table.id, caught.rows(), strict=True))
    return individual_figures(dataset, features, judged)


def round_figures(dataset: Dataset, valid: pd.DataFrame, test: pd.DataFrame) -> dict:
    """Return all figures that predictions give; `test` is empty while the test set stays closed."""
    seed, vocab = dataset.project.seed, list(valid.columns[len(PREDICTION_COLUMNS) :])
    groups, test_groups = ([dataset[id].group for id in table.id] for table in (valid, test))
    labels, probs = coded(valid)
    temperature = temperature_figure(labels, probs, groups=groups, seed=seed)
    scaled = cross_fitted(labels, probs, groups=groups, seed=seed)
    figures = {"valid": scorecard(labels, probs, groups=groups, scaled=scaled, seed=seed), "test": {}}
    why = temperature.get("why", "") if temperature["value"] is None else "no other group of pictures can judge it"
    if scaled is None:
        figures["valid"]["calibration_error_scaled"] = figure(None, None, None, len(valid), why=why)
    if len(test):
        true, answers = coded(test)
        cooled = None if temperature["value"] is None else scale(answers, temperature["value"])
        figures["test"] = scorecard(true, answers, groups=test_groups, scaled=cooled, seed=seed)
        if cooled is None:
            figures["test"]["calibration_error_scaled"] = figure(None, None, None, len(test), why=why)
    side, judged, its_groups = ("test", test, test_groups) if len(test) else ("valid", valid, groups)
    tested = label_scores(test.label, test.predicted, vocab, groups=test_groups, seed=seed) if len(test) else {}
    counts = confusion_matrix(valid.label, valid.predicted, labels=vocab).tolist()
    return {
        "verdict": {**verdict(judged.label, judged.predicted, groups=its_groups), "side": side},
        **figures,
        "labels": label_scores(valid.label, valid.predicted, vocab, groups=groups, seed=seed),
        "test_labels": tested,
        "confusion": {label: dict(zip(vocab, row, strict=True)) for label, row in zip(vocab, counts, strict=True)},
        "confused": confused_pairs(valid, groups=groups),
        "temperature": temperature,
        "reliability": {
            "before": reliability(labels, probs, groups=groups),
            "after": [] if scaled is None else reliability(labels, scaled, groups=groups),
        },
    }


def score_table(figures: Mapping[str, Mapping]) -> pd.DataFrame:
    """Return figures of evaluation.json as a table: value, the 95 % interval, n, and why one is missing."""
    rows = {name: {key: f[key] for key in ("value", "low", "high", "n")} for name, f in figures.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "n"])
    table = table.astype(dict.fromkeys(("value", "low", "high"), float)).round(3)
    if reasons := {name: f["why"] for name, f in figures.items() if "why" in f}:
        table["why"] = pd.Series(reasons).reindex(table.index, fill_value="")
    return table.rename(columns={"low": "95 % from", "high": "to"})


def label_table(scores: Mapping[str, Mapping]) -> pd.DataFrame:
    """Return the labels' precision, recall and F1, each with its 95 % interval, as a table of texts."""
    names = ("precision", "recall", "f1")
    rows = {label: {name: short(s[name]) for name in names} | {"n": s["n"]} for label, s in scores.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*names, "n"])


def confused_pairs(predictions: pd.DataFrame, *, groups: Sequence) -> list[dict]:
    """Return which labels are taken for which, most often first: label, predicted, share of the label's pictures."""
    groups, rows = np.asarray(groups), []
    wrong = predictions[predictions.label != predictions.predicted]
    pairs = wrong.groupby(["label", "predicted"]).size().sort_values(ascending=False, kind="stable")
    for (label, predicted), hits in pairs.items():
        own = (predictions.label == label).to_numpy()
        share = wilson(int(hits), int(own.sum()), groups=groups[own])
        rows.append({"label": label, "predicted": predicted, "pictures": int(hits), "share": share})
    return rows


def pair_table(pairs: Sequence[Mapping], *, count: int = 10) -> pd.DataFrame:
    """Return the first of `confused_pairs` as a table of texts."""
    rows = [{**pair, "of": pair["share"]["n"], "share": short(pair["share"])} for pair in pairs[:count]]
    return pd.DataFrame(rows, columns=["label", "predicted", "pictures", "of", "share"])


def worst_predictions(predictions: pd.DataFrame, dataset: Dataset | None = None, *, count: int = 10) -> pd.DataFrame:
    """
    Return the pictures with the highest loss: file, label, predicted, its probability, loss (nats).

    With the `dataset`, the first column, "own name", tells what their files were called, if a person gave any.
    """
    labels, probs = coded(predictions)  # (N,), (N, K)
    table = predictions[["label", "predicted"]].assign(
        probability=probs.max(axis=1).round(3),
        loss=(-np.log(np.clip(probs[np.arange(len(labels)), labels], LEAST, 1))).round(3),
    )
    table.insert(0, "file", predictions.label + "/" + predictions.id + ".jpg")
    worst = table.sort_values("loss", ascending=False, kind="stable").head(count).reset_index(drop=True)
    names = [dataset.records.own_name(Path(file)) for file in worst.file] if dataset else []
    if any(names):
        worst.insert(0, "own name", names)
    return worst
