"""
Rounds: what each training answered when it was judged, and whether one is better than another.

Reads and writes models/<name>/rounds/<NNN>/predictions.csv and reads evaluation.json, for stages 05 and 07. Two rounds
are compared picture by picture under today's labels. So a corrected label counts for both, and pictures that are gone
drop out.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, FiniteFloat, ValidationError
from scipy.stats import binomtest, norm

from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.intervals import LEVEL, Figure, bootstrap, interval, mean_of, wilson
from utils.project import Project
from utils.storage import write_whole
from utils.tables import PREDICTION_COLUMNS, SIDES, csv_text, plain_text
from utils.words import SETS, counted, rounded

EVALUATION_FORM = 4  # of evaluation.json; a round judged in an older form is judged again
POWER = 0.8  # the chance to see a difference that is there, which "about 120 would do" promises
HARDLY = 100_000  # pictures; a difference that needs more than these is not worth proving


class _Entry(BaseModel):
    value: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None
    n: int


class _Verdict(BaseModel):
    right: int
    n: int
    guess: int
    better: bool
    pictures: int
    side: Literal["valid", "test"]


class _AnyForm(BaseModel):
    """What every version wrote into evaluation.json."""

    test: dict[str, _Entry]
    test_opened: int
    fingerprint: str


class _ThisForm(_AnyForm):
    verdict: _Verdict
    valid: dict[str, _Entry]
    temperature: _Entry
    labels: dict
    test_labels: dict
    confusion: dict
    confused: list
    reliability: dict
    shortcuts: dict
    settings: dict
    changed: str
    model: str


def stored_evaluation(project: Project) -> dict | None:
    """Return evaluation.json, whichever version wrote it; only 05 takes over what an older one counted."""
    path = project.models / "evaluation.json"
    try:
        evaluation = json.loads(path.read_text(encoding="utf-8"))
        this = isinstance(evaluation, dict) and evaluation.get("form") == EVALUATION_FORM
        (_ThisForm if this else _AnyForm).model_validate(evaluation, strict=True)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise FieldguideError(
            f"{path} was not written by 05, or was changed since. Delete it and run 05 again."
        ) from error
    except (ValueError, RecursionError) as error:
        raise FieldguideError(f"{path} is broken ({error}). Delete it and run 05 again.") from error
    return evaluation


def read_evaluation(project: Project) -> dict | None:
    """Return evaluation.json, or None; one of another version of Fieldguide is refused with a `FieldguideError`."""
    evaluation = stored_evaluation(project)
    if evaluation is not None and evaluation.get("form") != EVALUATION_FORM:
        raise FieldguideError(
            f"{project.models / 'evaluation.json'} is of another version of Fieldguide. Train again: run 04 and 05."
        )
    return evaluation


def round_numbers(project: Project) -> list[int]:
    """Return the numbers of the judged rounds, in order."""
    found = project.models.glob("rounds/*/predictions.csv")
    return sorted(int(path.parent.name) for path in found if path.parent.name.isdecimal())


def round_path(project: Project, number: int) -> Path:
    """Return where the predictions of a round are kept."""
    return project.models / "rounds" / f"{number:03}" / "predictions.csv"


def save_predictions(project: Project, predictions: pd.DataFrame, *, again: bool) -> None:
    """Write rounds/<NNN>/predictions.csv: the next number, or the last one if the same round is judged again."""
    last = max(round_numbers(project), default=0)
    text = csv_text(list(predictions.columns), predictions.to_dict("records"), header=True).encode("utf-8")
    before = round_path(project, last).read_bytes() if last else b""
    if before.startswith(text):
        return  # evaluation.json was lost, or the run was killed before it was written
    same = before and (again or text.startswith(before))  # the test set was opened: its rows follow
    write_whole(round_path(project, last if same else last + 1), text)


def rounds_opened(project: Project) -> int:
    """Return how many rounds hold predictions of the test set; a damaged file counts by what is left of it."""
    tables = (round_path(project, number).read_bytes() for number in round_numbers(project))
    return sum(any(line.split(b",")[1:2] == [b"test"] for line in table.splitlines()) for table in tables)


def read_predictions(project: Project, *, side: str = "valid", number: int | None = None) -> pd.DataFrame:
    """
    Return a round's predictions of one side: id, side, label, predicted, one column per label.

    By default those of the last round. The table is empty if that round was not judged on that side. A
    `FieldguideError` says if 05 has not run, there is no such round, or the file is damaged.
    """
    numbers = round_numbers(project)
    if not numbers:
        raise FieldguideError(f"There are no predictions in {project.models}. Run 05 first.")
    if number is not None and number not in numbers:
        raise FieldguideError(
            f"There is no round {number} in {project.models}. There are: {', '.join(map(str, numbers))}."
        )
    path = round_path(project, numbers[-1] if number is None else number)
    advice = "Delete it and run 05 again." if number in (None, numbers[-1]) else "Delete it: that round is lost."
    try:
        # An id of digits only must stay text, and a label may be called NA.
        table = pd.read_csv(path, dtype=dict.fromkeys(PREDICTION_COLUMNS, str), keep_default_na=False, encoding="utf-8")
        table = table.rename(columns=plain_text)
        for column in {"label", "predicted"} & set(table.columns):
            table[column] = table[column].map(plain_text)
        _check_predictions(table)
    except ValueError as error:
        raise FieldguideError(f"{path} is broken ({str(error).splitlines()[0]}). {advice}") from error
    return table[table.side == side].reset_index(drop=True)


def coded(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return a table of predictions as labels (N,), 0 ≤ label < K, and probabilities (N, K)."""
    vocab = list(predictions.columns[len(PREDICTION_COLUMNS) :])
    labels = np.array([vocab.index(label) for label in predictions.label], dtype=int)
    return labels, predictions[vocab].to_numpy(dtype=float)


def _check_predictions(table: pd.DataFrame) -> None:
    """Raise ValueError unless a table holds predictions, each picture once, with probabilities from 0 to 1."""
    vocab = list(table.columns[len(PREDICTION_COLUMNS) :])
    if tuple(table.columns[: len(PREDICTION_COLUMNS)]) != PREDICTION_COLUMNS or len(vocab) < 2:
        raise ValueError(f"its columns are {', '.join(map(str, table.columns))[:80]}")
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError("it has lines with more fields than columns")
    if len(doubled := table.id[table.id.duplicated()]):
        raise ValueError(f"picture {doubled.iloc[0]} is in it twice")
    for column, allowed in (("side", SIDES), ("label", vocab), ("predicted", vocab)):
        if len(other := table[column][~table[column].isin(allowed)]):
            raise ValueError(f"{column} {str(other.iloc[0])[:40]!r} is none of {', '.join(allowed)[:80]}")
    for label in vocab:
        if not pd.api.types.is_numeric_dtype(table[label]) or not table[label].between(0, 1).all():
            raise ValueError(f"the column {label!r} holds something other than probabilities")


@dataclass(frozen=True)
class Comparison:
    """
    Two rounds on the same n pictures of one side, under today's labels.

    `before` and `after` are shares right with their intervals, `difference` is after − before, as fractions. `gained`
    and `lost` count groups of near-duplicates of which the later round has more, or fewer, right; `p` is that of
    McNemar's exact test. `needed` pictures would show the same difference in 80 of 100 cases; None if there is none.
    """

    earlier: int
    later: int
    side: str
    n: int
    before: Figure
    after: Figure
    difference: Figure
    gained: int
    lost: int
    p: float
    needed: int | None

    @property
    def sentence(self) -> str:
        """The result in words."""
        if not self.n:
            return f"Rounds {self.earlier} and {self.later} have no judged picture in common: nothing can be compared."
        rounds = (
            f"On the same {counted(self.n, 'photo')} of the {SETS[self.side]} round {self.later} is right for "
            f"{rounded(self.after['value'], 1)}, round {self.earlier} for {rounded(self.before['value'], 1)}"
        )
        if self.needed is None:
            return f"{rounds}: no difference to be seen, {p_text(self.p)}."
        if self.p < 1 - LEVEL:
            points, low, high = (100 * self.difference[key] for key in ("value", "low", "high"))
            word, span = "better" if points > 0 else "worse", f"95 % interval {low:+.1f} to {high:+.1f}"
            return f"{rounds}: {word} by {abs(points):.1f} points ({span}), {p_text(self.p)}."
        enough = f"about {self.needed:,} would do" if self.needed <= HARDLY else f"even {HARDLY:,} would hardly do"
        return f"{rounds}, {p_text(self.p)}: not enough photos to tell; {enough}."


def compare_rounds(dataset: Dataset, earlier: int | None = None, later: int | None = None) -> Comparison | None:
    """
    Compare two rounds on the pictures that both judged: of the test set if both opened it, else of the validation set.

    By default the last round and the one before; None if there is none before. McNemar's exact test looks at the
    pictures that only one of the rounds has right: a fair coin would give each round half of them. A group of
    near-duplicates counts once, for the round that has more of it right.
    """
    project = dataset.project
    numbers = round_numbers(project)
    later = later if later is not None else numbers[-1] if numbers else None
    earlier = earlier if earlier is not None else max((n for n in numbers if later and n < later), default=None)
    if earlier is None:
        return None
    for side in ("test", "valid"):
        tables = [read_predictions(project, side=side, number=number) for number in (earlier, later)]
        answers = [dict(zip(table.id, table.predicted, strict=True)) for table in tables]
        if shared := [picture for picture in dataset if all(picture.id in their for their in answers)]:
            break
    right = [np.array([their[p.id] == p.label for p in shared], dtype=int) for their in answers]
    groups = [picture.group for picture in shared]
    return Comparison(earlier, later, side, len(shared), **paired_figures(*right, groups, seed=project.seed))


def paired_figures(before: np.ndarray, after: np.ndarray, groups: list[str], *, seed: int) -> dict:
    """Return the figures of a `Comparison` from who was right, 0 or 1, each (N,)."""
    n, change = len(before), after - before
    shares = (wilson(int(right.sum()), n, groups=groups) for right in (before, after))
    figures = dict(zip(("before", "after"), shares, strict=True))
    if not n:
        return figures | {"difference": wilson(0, 0), "gained": 0, "lost": 0, "p": 1.0, "needed": None}
    _, codes = np.unique(groups, return_inverse=True)
    net = np.bincount(codes, weights=change)  # per group
    gained, lost = int((net > 0).sum()), int((net < 0).sum())
    # If one large group decides, groups and pictures may point to different rounds: then nothing is to be seen.
    needed = pictures_needed(gained, lost, len(net)) if change.sum() * (gained - lost) > 0 else None
    return figures | {
        "difference": paired_difference(change, groups, seed=seed),
        "gained": gained,
        "lost": lost,
        "p": float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
        "needed": None if needed is None else int(float(f"{needed * n / len(net):.2g}")),  # "about 120"
    }


def paired_difference(change: np.ndarray, groups: list[str], *, seed: int) -> Figure:
    """Return the mean of what each picture gains, (N,), with its 95 % interval by group."""
    value, draws = bootstrap({"": mean_of(change)}, groups, seed=seed)[""]
    difference = interval(value[0], draws[:, 0], n=len(change), groups=groups, top=None)
    if not change.any() and difference["high"]:  # what may have been missed either way
        difference["low"] = -difference["high"]
    return difference


def pictures_needed(gained: int, lost: int, n: int) -> float | None:
    """
    Return how many pictures show such a difference, at 5 %, in 80 of 100 cases; None if there is no difference.

    With a share ψ of pictures that only one round has right, and a difference d of the two shares,
    n = (z₀.₉₇₅ √ψ + z₀.₈ √(ψ − d²))² / d² (Miettinen 1968; Connor 1987, Biometrics 43:207).

    >>> round(pictures_needed(20, 10, 100))
    233
    """
    if gained == lost:
        return None
    share, d = (gained + lost) / n, abs(gained - lost) / n
    z = norm.ppf((1 + LEVEL) / 2) * math.sqrt(share) + norm.ppf(POWER) * math.sqrt(share - d * d)
    return float((z / d) ** 2)


def p_text(p: float) -> str:
    """
    Return a p-value as part of a sentence.

    >>> p_text(0.0412), p_text(0.052), p_text(1e-9)
    ('p = 0.04', 'p = 0.052', 'p < 0.001')
    """
    digits = 2 if 0.045 <= p < 0.055 else 1  # on which side of 0.05 it lies must be seen
    return f"p = {p:.{digits}g}" if p >= 0.001 else "p < 0.001"


def round_sentence(dataset: Dataset) -> str:
    """Return in one sentence whether the last round is better than the one before, on the same pictures."""
    comparison = compare_rounds(dataset)
    if comparison is None:
        return "This is the first round: there is no other to compare it with."
    return comparison.sentence
