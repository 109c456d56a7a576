"""
Stage 05: how good is it, on which labels, and where does it err?

Reads the trained learner, images/ and split.csv; writes evaluation.json and rounds/<NNN>/predictions.csv. Every
figure has a 95 % interval and the number of pictures behind it (`scores`); the rounds are kept and compared by
`rounds`; what the files alone give away is asked by `shortcuts`; `explain` draws.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from utils.errors import FieldguideError
from utils.evaluate.rounds import FORM, WORDS, coded, rounds_opened, save_round
from utils.evaluate.rounds import read_evaluation as read_evaluation
from utils.evaluate.rounds import read_predictions as read_predictions
from utils.evaluate.scores import LEAST, cross_fitted, label_scores, reliability, scale, scorecard, temperature_figure
from utils.evaluate.shortcuts import find_shortcuts
from utils.intervals import Figure, figure, wilson
from utils.project import Project
from utils.storage import file_hash, write_whole


def predict_side(project: Project, learn, side: str) -> pd.DataFrame:
    """
    Return the learner's predictions for one side, through the validation transforms.

    Returns
    -------
    DataFrame
        A row a picture, sorted by id: id, side, label, predicted, then the probability of each label.

    Raises
    ------
    FieldguideError
        If no picture stands on the side, one cannot be read, or the answers are no numbers.
    """
    sides = project.sides()
    paths = {id: path for id, path in project.pictures().items() if sides.get(id) == side}
    if not paths:
        raise FieldguideError(f"No picture stands on the {side} side of {project.name!r}. {NO_SIDE[side]}")
    try:
        probs = learn.get_preds(dl=learn.dls.test_dl(list(paths.values())))[0].double().numpy()  # (N, K)
    except FileNotFoundError as error:
        raise FieldguideError(
            f"A picture was moved or deleted while it was judged ({_last_line(error)}). Run 04 and 05 again."
        ) from error
    except OSError as error:
        if error.errno is not None:  # of the system, not of a picture
            raise
        raise FieldguideError(
            f"A picture of the {side} side cannot be read ({_last_line(error)}). Remove it from {project.images}, and "
            "run 04 and 05 again."
        ) from error
    if not np.isfinite(probs).all():
        raise FieldguideError("The model answers with something that is no number: its training failed. Run 04 again.")
    vocab = list(learn.dls.vocab)
    table = pd.DataFrame(probs / probs.sum(1, keepdims=True), columns=vocab)
    table.insert(0, "predicted", [vocab[k] for k in probs.argmax(1)])
    table.insert(0, "label", [path.parent.name for path in paths.values()])
    table.insert(0, "side", side)
    table.insert(0, "id", list(paths))
    return table


def _last_line(error: Exception) -> str:
    """Return the last line of an error, which says what happened where a loader's worker tells its whole story."""
    return (str(error).splitlines() or [type(error).__name__])[-1]


NO_SIDE = {
    "valid": "Run 03 first.",
    "test": "Write test = 0.1 in the project file before a split is drawn, or go on without: open_test=False.",
}


def evaluate_round(project: Project, learn, *, open_test: bool = False) -> dict:
    """
    Judge the learner on the valid side (and on the test side if asked), save and return evaluation.json.

    A round that was judged before stands as it is. Opening the test side is counted: a test side that is looked
    at after each change no longer tells how good a model is on pictures that nobody chose it by.

    Returns
    -------
    dict
        ``valid``, ``test`` (empty while it is shut): figures of `scorecard`; ``labels``, ``test_labels``: those of
        each label; ``confusion``: label → predicted → count, of valid; ``confused``: `confused_pairs` of valid;
        ``temperature``: fitted on valid; ``reliability``: before and after scaling, a row a bin; ``shortcuts``;
        ``test_opened``; ``fingerprint`` and ``model`` say what was judged.

    Raises
    ------
    FieldguideError
        If pictures were moved or deleted since the learner was made, or what `predict_side` raises.

    Notes
    -----
    The temperature is fitted on the valid side. ``calibration_error_scaled`` of that side is therefore taken from
    five folds, each scaled by the temperature of the others; the test side is scaled by that of the whole valid side.
    """
    earlier = read_evaluation(project) or {}
    learner = project.models / "learner.pth"
    now = {"fingerprint": project.fingerprint(), "model": file_hash(learner) if learner.exists() else ""}
    if learn.dls.fingerprint != now["fingerprint"]:
        raise FieldguideError("Pictures, split or settings changed since this model was trained. Run 03 and 04 again.")
    stands = {key: earlier.get(key) for key in now} == now
    was_open = stands and bool(earlier["test"])
    if stands and earlier.get("form") == FORM and (was_open or not open_test):
        return earlier
    valid = predict_side(project, learn, "valid")
    test = predict_side(project, learn, "test") if open_test or was_open else valid[:0]
    evaluation = {**judged(project, valid, test), "shortcuts": find_shortcuts(project), **now}
    save_round(project, pd.concat([valid, test]), again=stands)
    counted = earlier.get("test_opened", 0) + (open_test and not was_open)
    evaluation["test_opened"] = max(counted, rounds_opened(project))  # evaluation.json may have been deleted
    write_whole(
        project.models / "evaluation.json", json.dumps(evaluation, indent=1, ensure_ascii=False, allow_nan=False)
    )
    return evaluation


def judged(project: Project, valid: pd.DataFrame, test: pd.DataFrame) -> dict:
    """Return all figures that predictions give; an empty `test` is a side that stays shut."""
    vocab = list(valid.columns[len(WORDS) :])
    groups, test_groups = (project.groups(table.id) for table in (valid, test))
    labels, probs = coded(valid)
    temperature = temperature_figure(labels, probs, groups=groups, seed=project.seed)
    scaled = cross_fitted(labels, probs, groups=groups, seed=project.seed)
    figures = {"valid": scorecard(labels, probs, groups=groups, scaled=scaled, seed=project.seed), "test": {}}
    if scaled is None:
        why = temperature.get("why") or "one picture, or one group of near-duplicates, cannot be judged by others"
        figures["valid"]["calibration_error_scaled"] = figure(None, None, None, len(labels), why=why)
    if len(test):
        true, answers = coded(test)
        cooled = None if temperature["value"] is None else scale(answers, temperature["value"])
        figures["test"] = scorecard(true, answers, groups=test_groups, scaled=cooled, seed=project.seed)
        if cooled is None:
            figures["test"]["calibration_error_scaled"] = figure(None, None, None, len(true), why=temperature["why"])
    counts = confusion_matrix(valid.label, valid.predicted, labels=vocab).tolist()
    return {
        "form": FORM,
        **figures,
        "labels": label_scores(valid.label, valid.predicted, vocab, groups=groups, seed=project.seed),
        "test_labels": label_scores(test.label, test.predicted, vocab, groups=test_groups, seed=project.seed)
        if len(test)
        else {},
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
    rows = {label: {name: with_interval(s[name]) for name in names} | {"n": s["n"]} for label, s in scores.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*names, "n"])


def with_interval(entry: Figure) -> str:
    """
    Return a figure as text, or why it is missing.

    >>> with_interval({"value": 0.8512, "low": 0.7, "high": 0.93, "n": 20})
    '0.85 (0.70 to 0.93)'
    """
    if entry["value"] is None:
        return f"– ({entry['why']})"
    if entry["low"] is None:
        return f"{entry['value']:.2f}"
    return f"{entry['value']:.2f} ({entry['low']:.2f} to {entry['high']:.2f})"


def confused_pairs(predictions: pd.DataFrame, *, groups: Sequence) -> list[dict]:
    """
    Return which labels are taken for which, most often first: label, predicted, share of the label's pictures.

    Parameters
    ----------
    groups : sequence of N
        Near-duplicates share a group, as in `scorecard`.
    """
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
    rows = [{**pair, "of": pair["share"]["n"], "share": with_interval(pair["share"])} for pair in pairs[:count]]
    return pd.DataFrame(rows, columns=["label", "predicted", "pictures", "of", "share"])


def worst_predictions(predictions: pd.DataFrame, *, count: int = 10) -> pd.DataFrame:
    """Return the pictures with the highest loss: file, label, predicted, its probability, loss (nats)."""
    labels, probs = coded(predictions)  # (N,), (N, K)
    table = pd.DataFrame(
        {
            "file": predictions.label + "/" + predictions.id + ".jpg",
            "label": predictions.label,
            "predicted": predictions.predicted,
            "probability": probs.max(axis=1).round(3),
            "loss": (-np.log(np.clip(probs[np.arange(len(labels)), labels], LEAST, 1))).round(3),
        }
    )
    return table.sort_values("loss", ascending=False, kind="stable").head(count).reset_index(drop=True)
