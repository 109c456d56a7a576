"""
Stage 05: how good is it, on which labels, and where does it err?

Reads the trained learner, images/ and split.csv; writes evaluation.json and rounds/<NNN>/predictions.csv. Every
figure has a 95 % interval and the number of pictures behind it: scipy and scikit-learn compute them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from utils.files import FieldguideError, csv_text, file_hash, write_whole
from utils.project import Project

RESAMPLES = 1000  # of the bootstrap; the interval's ends then move by about a tenth of its width
LEVEL = 0.95


def predict_side(project: Project, learn, side: str) -> pd.DataFrame:
    """
    Return the learner's predictions for one side, through the validation transforms.

    Returns
    -------
    DataFrame
        A row a picture, sorted by id: id, side, label, predicted, then the probability of each label.
    """
    sides = project.sides()
    paths = {id: path for id, path in project.pictures().items() if sides.get(id) == side}
    if not paths:
        raise FieldguideError(f"No picture stands on the {side} side of {project.name!r}. Run 03 first.")
    dl = learn.dls.test_dl(list(paths.values()))
    probs = learn.get_preds(dl=dl)[0].double().numpy()  # (N, K)
    vocab = list(learn.dls.vocab)
    table = pd.DataFrame(probs / probs.sum(1, keepdims=True), columns=vocab)
    table.insert(0, "predicted", [vocab[k] for k in probs.argmax(1)])
    table.insert(0, "label", [path.parent.name for path in paths.values()])
    table.insert(0, "side", side)
    table.insert(0, "id", list(paths))
    return table


def scorecard(
    labels: Sequence[int], probs: np.ndarray, *, groups: Sequence | None = None, seed: int = 42
) -> dict[str, dict[str, float]]:
    """
    Return the figures of a classifier, each with its 95 % interval.

    Parameters
    ----------
    labels : int array (N,)
        True classes, 0 ≤ label < K.
    probs : float array (N, K)
        Probabilities; a row sums to 1.
    groups : sequence of N, optional
        Near-copies share a group and are drawn together in the bootstrap: they are no independent evidence.

    Returns
    -------
    dict
        ``accuracy`` (Wilson interval), ``balanced_accuracy``, ``macro_f1`` and ``log_loss`` (bootstrap by group),
        each ``{"value", "low", "high", "n"}``. All are fractions but log_loss, in nats.

    Examples
    --------
    >>> card = scorecard([0, 0, 1, 1], np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]))
    >>> card["accuracy"]["value"], card["accuracy"]["n"]
    (0.75, 4)
    """
    labels, probs = np.asarray(labels), np.asarray(probs, dtype=float)
    if len(labels) == 0 or probs.shape[0] != len(labels):
        raise ValueError(
            f"{len(labels)} labels and probabilities of shape {probs.shape}: expected (N,) and (N, K), N > 0"
        )
    predicted = probs.argmax(1)
    figures = {"accuracy": wilson(int((predicted == labels).sum()), len(labels))}
    _, codes = np.unique(np.arange(len(labels)) if groups is None else np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    rng = np.random.default_rng(seed)
    draws = [_figures(labels, probs, predicted)]
    for _ in range(RESAMPLES):
        chosen = np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])
        draws.append(_figures(labels[chosen], probs[chosen], predicted[chosen]))
    for name, values in zip(("balanced_accuracy", "macro_f1", "log_loss"), np.array(draws).T, strict=True):
        low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        figures[name] = _figure(values[0], low, high, len(labels))
    return figures


def _figures(labels: np.ndarray, probs: np.ndarray, predicted: np.ndarray) -> tuple[float, float, float]:
    """Return balanced accuracy, macro-F1 and log loss over the labels that occur; N is (N,), (N, K), (N,)."""
    K = probs.shape[1]
    counts = np.bincount(labels * K + predicted, minlength=K * K).reshape(K, K)  # rows true, columns predicted
    hits, true, said = counts.diagonal(), counts.sum(1), counts.sum(0)
    there = true > 0
    recall = hits[there] / true[there]
    f1 = 2 * hits[there] / (true[there] + said[there])
    certain = np.clip(probs[np.arange(len(labels)), labels], 1e-15, 1)
    return recall.mean(), f1.mean(), -np.log(certain).mean()


def _figure(value: float, low: float, high: float, n: int) -> dict[str, float]:
    """Return one entry of evaluation.json."""
    return {"value": round(float(value), 6), "low": round(float(low), 6), "high": round(float(high), 6), "n": int(n)}


def wilson(hits: int, n: int) -> dict[str, float]:
    """Return the share hits / n with its 95 % Wilson interval (Wilson 1927); n = 0 leaves everything open."""
    if n == 0:
        return {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    interval = binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return _figure(hits / n, interval.low, interval.high, n)


def label_scores(labels: Sequence[str], predicted: Sequence[str], vocab: Sequence[str]) -> dict[str, dict]:
    """
    Return precision, recall and F1 of each label, with n = pictures of it.

    Precision and recall have Wilson intervals; a label that was never predicted has no precision (None).
    """
    counts = confusion_matrix(labels, predicted, labels=list(vocab))
    _, _, f1, _ = precision_recall_fscore_support(labels, predicted, labels=list(vocab), zero_division=0)
    scores = {}
    for k, label in enumerate(vocab):
        hits, n, said = int(counts[k, k]), int(counts[k].sum()), int(counts[:, k].sum())
        scores[label] = {
            "precision": wilson(hits, said),
            "recall": wilson(hits, n),
            "f1": round(float(f1[k]), 6),
            "n": n,
        }
    return scores


def evaluate_round(project: Project, learn, *, open_test: bool = False) -> dict:
    """
    Judge the learner on the valid side (and on the test side if asked), save and return evaluation.json.

    A round that was judged before stands as it is. Opening the test side is counted: a test side that is looked
    at after each change no longer tells how good a model is on pictures that nobody chose it by.
    """
    earlier = read_evaluation(project) or {}
    learner = project.models / "learner.pth"
    now = {"fingerprint": project.fingerprint(), "model": file_hash(learner) if learner.exists() else ""}
    stands = {key: earlier.get(key) for key in now} == now
    if stands and (not open_test or earlier["test"]):
        return earlier
    vocab = list(learn.dls.vocab)
    groups = {id: group for id, (group, _) in project.split().items()}
    valid = predict_side(project, learn, "valid")
    tables, figures = [valid], {"test": {}}
    if open_test:
        tables.append(predict_side(project, learn, "test"))
        figures["test"] = _scored(tables[-1], vocab, groups, project.seed)
    evaluation = {
        "valid": _scored(valid, vocab, groups, project.seed),
        **figures,
        "labels": label_scores(valid.label, valid.predicted, vocab),
        "test_opened": earlier.get("test_opened", 0) + open_test,
        **now,
    }
    save_round(project, pd.concat(tables), again=stands)
    write_whole(project.models / "evaluation.json", json.dumps(evaluation, indent=1, ensure_ascii=False))
    return evaluation


def _scored(table: pd.DataFrame, vocab: list[str], groups: Mapping[str, str], seed: int) -> dict:
    """Return the scorecard of a table of predictions."""
    labels = [vocab.index(label) for label in table.label]
    return scorecard(labels, table[vocab].to_numpy(), groups=[groups[id] for id in table.id], seed=seed)


def save_round(project: Project, predictions: pd.DataFrame, *, again: bool) -> None:
    """Write rounds/<NNN>/predictions.csv: the next number, or the last one where the same round is judged again."""
    numbers = round_numbers(project)
    last = numbers[-1] if numbers else 0
    text = csv_text(list(predictions.columns), predictions.to_dict("records"), header=True)
    before = round_path(project, last)
    if before.exists() and before.read_text(encoding="utf-8") == text:
        return  # a run killed before evaluation.json was written
    write_whole(round_path(project, last if again else last + 1), text)


def round_numbers(project: Project) -> list[int]:
    """Return the numbers of the rounds that were judged, in order."""
    return sorted(int(path.parent.name) for path in project.models.glob("rounds/[0-9]*/predictions.csv"))


def round_path(project: Project, number: int) -> Path:
    """Return where the predictions of a round are kept."""
    return project.models / "rounds" / f"{number:03}" / "predictions.csv"


def read_evaluation(project: Project) -> dict | None:
    """Return evaluation.json, or None where there is none."""
    path = project.models / "evaluation.json"
    if not path.exists():
        return None
    try:
        evaluation = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FieldguideError(f"{path} is broken ({error}). Delete it and run 05 again.") from error
    if not isinstance(evaluation, dict) or {"valid", "test", "labels", "fingerprint"} - set(evaluation):
        raise FieldguideError(f"{path} is none that 05 wrote. Delete it and run 05 again.")
    return evaluation


def score_table(figures: Mapping[str, Mapping]) -> pd.DataFrame:
    """Return figures of evaluation.json as a table: value, the 95 % interval, n."""
    rows = {name: {"value": f["value"], "low": f["low"], "high": f["high"], "n": f["n"]} for name, f in figures.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename(columns={"low": "95 % from", "high": "to"}).round(3)


def label_table(scores: Mapping[str, Mapping]) -> pd.DataFrame:
    """Return the labels' precision, recall and F1 as a table."""
    rows = {
        label: {"precision": s["precision"]["value"], "recall": s["recall"]["value"], "f1": s["f1"], "n": s["n"]}
        for label, s in scores.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").round(3)


def read_predictions(project: Project, *, side: str = "valid") -> pd.DataFrame:
    """
    Return the last round's predictions of one side: id, side, label, predicted, then a column a label.

    Raises
    ------
    FieldguideError
        If 05 has not run, or the file is no longer the table it wrote.
    """
    numbers = round_numbers(project)
    if not numbers:
        raise FieldguideError(f"There are no predictions in {project.models}. Run 05 first.")
    path = round_path(project, numbers[-1])
    words = ("id", "side", "label", "predicted")  # an id of digits alone must stay text
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(words, str), keep_default_na=False)
        return table[table.side == side].reset_index(drop=True)
    except (ValueError, AttributeError) as error:
        raise FieldguideError(f"{path} is broken ({error}). Delete it and run 05 again.") from error


def worst_predictions(predictions: pd.DataFrame, *, count: int = 10) -> pd.DataFrame:
    """Return the pictures with the highest loss: file, label, predicted, its probability, loss (nats)."""
    probs = predictions.iloc[:, 4:]  # (N, K), behind id, side, label and predicted
    own = [row[label] for label, (_, row) in zip(predictions.label, probs.iterrows(), strict=True)]
    table = pd.DataFrame(
        {
            "file": predictions.label + "/" + predictions.id + ".jpg",
            "label": predictions.label,
            "predicted": predictions.predicted,
            "probability": probs.max(axis=1).round(3),
            "loss": (-np.log(np.clip(own, 1e-15, 1))).round(3),
        }
    )
    return table.sort_values("loss", ascending=False, kind="stable").head(count).reset_index(drop=True)
