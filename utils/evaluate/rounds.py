"""
Rounds: what each training that was judged said, and whether one is better than another.

Reads and writes models/<name>/rounds/<NNN>/predictions.csv and reads evaluation.json, for stages 05 and 07. Two rounds
are compared picture by picture under today's labels: what cleaning put right counts for both, and pictures no longer
there drop out.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm

from utils.errors import FieldguideError
from utils.intervals import LEVEL, Figure, bootstrap, interval, wilson
from utils.project import Project
from utils.storage import write_whole
from utils.tables import SIDES, csv_text

FORM = 3  # of evaluation.json; a round judged in an older form is judged again
# What other stages read of it, whichever form it has, and what this form adds.
KINDS = {"valid": dict, "test": dict, "labels": dict, "fingerprint": str, "test_opened": int}
ADDED = {
    **dict.fromkeys(("test_labels", "confusion", "temperature", "reliability", "shortcuts"), dict),
    **{"confused": list, "model": str},
}
WORDS = ("id", "side", "label", "predicted")  # columns of predictions.csv before those of the labels
POWER = 0.8  # the chance to see a difference that is there, which "about 120 would do" promises
HARDLY = 100_000  # pictures; who needs more than these has no difference worth proving


def read_evaluation(project: Project) -> dict | None:
    """
    Return evaluation.json, or None where there is none; one of an older form has fewer figures.

    Raises
    ------
    FieldguideError
        If the file is no longer what 05 wrote.
    """
    path = project.models / "evaluation.json"
    try:
        evaluation = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FieldguideError(f"{path} is broken ({error}). Delete it and run 05 again.") from error
    if not _is_evaluation(evaluation):
        raise FieldguideError(f"{path} is none that 05 wrote. Delete it and run 05 again.")
    return evaluation


def _is_evaluation(facts) -> bool:
    """Return whether facts out of a file have what is read of an evaluation."""
    if not isinstance(facts, dict):
        return False
    kinds = KINDS | (ADDED if facts.get("form") == FORM else {})
    if not all(isinstance(facts.get(key), kind) for key, kind in kinds.items()):
        return False
    figures = [*facts["valid"].values(), *facts["test"].values()]
    return "accuracy" in facts["valid"] and all(map(_is_figure, figures))


def _is_figure(entry) -> bool:
    """Return whether something is a figure as `scores.figure` makes it: numbers or None, and n."""
    if not isinstance(entry, dict) or not isinstance(entry.get("n"), int):
        return False
    ends = [entry.get(key, "missing") for key in ("value", "low", "high")]
    return all(end is None or (isinstance(end, int | float) and math.isfinite(end)) for end in ends)


def round_numbers(project: Project) -> list[int]:
    """Return the numbers of the rounds that were judged, in order."""
    found = project.models.glob("rounds/*/predictions.csv")
    return sorted(int(path.parent.name) for path in found if path.parent.name.isdecimal())


def round_path(project: Project, number: int) -> Path:
    """Return where the predictions of a round are kept."""
    return project.models / "rounds" / f"{number:03}" / "predictions.csv"


def save_round(project: Project, predictions: pd.DataFrame, *, again: bool) -> None:
    """Write rounds/<NNN>/predictions.csv: the next number, or the last one where the same round is judged again."""
    last = max(round_numbers(project), default=0)
    text = csv_text(list(predictions.columns), predictions.to_dict("records"), header=True).encode("utf-8")
    before = round_path(project, last).read_bytes() if last else b""
    if before.startswith(text):
        return  # a run killed before evaluation.json was written, or that file lost since
    same = before and (again or text.startswith(before))  # the test side was opened, and stands behind valid
    write_whole(round_path(project, last if same else last + 1), text)


def rounds_opened(project: Project) -> int:
    """Return how many rounds hold predictions of the test side; a file that hands broke counts by what is left."""
    tables = (round_path(project, number).read_bytes() for number in round_numbers(project))
    return sum(any(line.split(b",")[1:2] == [b"test"] for line in table.splitlines()) for table in tables)


def read_predictions(project: Project, *, side: str = "valid", number: int | None = None) -> pd.DataFrame:
    """
    Return a round's predictions of one side, by default the last round's: id, side, label, predicted, a column a label.

    The table is empty where that round was not judged on that side.

    Raises
    ------
    FieldguideError
        If 05 has not run, there is no such round, or the file is no longer the table it wrote.
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
        # An id of digits alone must stay text, and a label may be called NA.
        table = pd.read_csv(path, dtype=dict.fromkeys(WORDS, str), keep_default_na=False, encoding="utf-8")
        _check_predictions(table)
    except ValueError as error:
        raise FieldguideError(f"{path} is broken ({str(error).splitlines()[0]}). {advice}") from error
    return table[table.side == side].reset_index(drop=True)


def coded(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return a table of predictions as labels (N,), 0 ≤ label < K, and probabilities (N, K)."""
    vocab = list(predictions.columns[len(WORDS) :])
    labels = np.array([vocab.index(label) for label in predictions.label], dtype=int)
    return labels, predictions[vocab].to_numpy(dtype=float)


def _check_predictions(table: pd.DataFrame) -> None:
    """Raise ValueError unless a table is one of predictions, each picture once, with probabilities from 0 to 1."""
    vocab = list(table.columns[len(WORDS) :])
    if tuple(table.columns[: len(WORDS)]) != WORDS or len(vocab) < 2:
        raise ValueError(f"its columns are {', '.join(map(str, table.columns))[:80]}")
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError("it has lines with more fields than columns")
    if len(doubled := table.id[table.id.duplicated()]):
        raise ValueError(f"picture {doubled.iloc[0]} stands in it twice")
    for column, allowed in (("side", SIDES), ("label", vocab), ("predicted", vocab)):
        if len(other := table[column][~table[column].isin(allowed)]):
            raise ValueError(f"{column} {str(other.iloc[0])[:40]!r} is none of {', '.join(allowed)[:80]}")
    for label in vocab:
        if not pd.api.types.is_numeric_dtype(table[label]) or not table[label].between(0, 1).all():
            raise ValueError(f"the column {label!r} holds something that is no probability")


# ---------------------------------------------------------------------------------------------------------------
# Is the later round better?
# ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """
    Two rounds on the same n pictures of one side, under today's labels.

    `before` and `after` are shares right with their intervals, `difference` is after − before, as fractions. `gained`
    and `lost` count groups of near-duplicates that the later round has more, or fewer, of right; `p` is McNemar's exact
    one. `needed` is how many pictures would show the same difference in 80 of 100 cases: None where there is none.
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
        """What came of it, in words."""
        if not self.n:
            return (
                f"Rounds {self.earlier} and {self.later} were judged on no picture in common: nothing can be compared."
            )
        points = 100 * self.difference["value"]
        rounds = (
            f"Round {self.later} is right on {self.after['value']:.1%} of the {self.n} {self.side} pictures that round "
            f"{self.earlier} was judged on too, against {self.before['value']:.1%}"
        )
        if self.p < 1 - LEVEL and self.needed is not None:
            low, high = (100 * self.difference[end] for end in ("low", "high"))
            span = f"95 % interval {low:+.1f} to {high:+.1f}"
            word = "better" if points > 0 else "worse"
            return f"{rounds}: {word} by {abs(points):.1f} points ({span}), {p_text(self.p)}."
        if self.needed is None:
            return f"{rounds}: no difference to be seen, {p_text(self.p)}."
        enough = f"about {self.needed:,} would do" if self.needed <= HARDLY else f"even {HARDLY:,} would hardly do"
        return f"{rounds}, {p_text(self.p)}: not enough pictures to tell; {enough}."


def compare_rounds(project: Project, earlier: int | None = None, later: int | None = None) -> Comparison | None:
    """
    Compare two rounds on the pictures that both were judged on: of the test side if both opened it, else of valid.

    Parameters
    ----------
    earlier, later : int, optional
        Numbers of rounds; by default the last one, and the one before `later`.

    Returns
    -------
    Comparison, or None where there is no earlier round

    Notes
    -----
    McNemar's exact test asks whether the pictures that only one of the rounds has right are shared out as by a coin. A
    group of near-duplicates counts once in it, by which round has more of the group right.
    """
    numbers = round_numbers(project)
    later = later if later is not None else numbers[-1] if numbers else None
    earlier = earlier if earlier is not None else max((n for n in numbers if later and n < later), default=None)
    if earlier is None:
        return None
    labels = {id: path.parent.name for id, path in project.pictures().items()}
    for side in ("test", "valid"):
        tables = [read_predictions(project, side=side, number=number) for number in (earlier, later)]
        answers = [dict(zip(table.id, table.predicted, strict=True)) for table in tables]
        if ids := sorted(labels.keys() & answers[0].keys() & answers[1].keys()):
            break
    right = np.array([[their[id] == labels[id] for id in ids] for their in answers], dtype=int).reshape(2, -1)
    compared = _compared(right[0], right[1], project.groups(ids), seed=project.seed)
    return Comparison(earlier, later, side, len(ids), **compared)


def _compared(before: np.ndarray, after: np.ndarray, groups: list[str], *, seed: int) -> dict:
    """Return the figures of a `Comparison` from who was right, 0 or 1, each (N,)."""
    n, change = len(before), after - before
    figures = {
        name: wilson(int(right.sum()), n, groups=groups) for name, right in (("before", before), ("after", after))
    }
    if not n:
        return figures | {"difference": wilson(0, 0), "gained": 0, "lost": 0, "p": 1.0, "needed": None}
    _, codes = np.unique(groups, return_inverse=True)
    net = np.bincount(codes, weights=change)  # of each group
    gained, lost = int((net > 0).sum()), int((net < 0).sum())
    value, draws = bootstrap({"": lambda w: (w @ change / w.sum(1))[:, None]}, groups, seed=seed)[""]
    difference = interval(value[0], draws[:, 0], n=n, groups=groups, top=None)
    if not change.any() and difference["high"]:  # what might have been missed either way
        difference["low"] = -difference["high"]
    # Groups and pictures may point to different rounds, where one large group decides: then nothing is to be seen.
    needed = pictures_needed(gained, lost, len(net)) if change.sum() * (gained - lost) > 0 else None
    return figures | {
        "difference": difference,
        "gained": gained,
        "lost": lost,
        "p": mcnemar(gained, lost),
        "needed": None if needed is None else _two_digits(needed * n / len(net)),
    }


def mcnemar(gained: int, lost: int) -> float:
    """
    Return the p-value of McNemar's exact test, two-sided, from the two counts of pictures that only one has right.

    >>> mcnemar(9, 1)
    0.021484375
    """
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def pictures_needed(gained: int, lost: int, n: int) -> float | None:
    """
    Return how many pictures show such a difference, at 5 %, in 80 of 100 cases; None where there is none.

    Notes
    -----
    With a share ψ of pictures that only one round has right, and a difference d of the two shares,
    n = (z₀.₉₇₅ √ψ + z₀.₈ √(ψ − d²))² / d² (Miettinen 1968; Connor 1987, Biometrics 43:207).

    Examples
    --------
    >>> round(pictures_needed(20, 10, 100))
    233
    """
    if gained == lost:
        return None
    share, d = (gained + lost) / n, abs(gained - lost) / n
    z = norm.ppf((1 + LEVEL) / 2) * math.sqrt(share) + norm.ppf(POWER) * math.sqrt(share - d * d)
    return float((z / d) ** 2)


def _two_digits(number: float) -> int:
    """Return a number rounded up to two digits: more would promise an exactness that is not there."""
    step = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / step) * step


def p_text(p: float) -> str:
    """
    Return a p-value as it is written in a sentence.

    >>> p_text(0.0412), p_text(0.052), p_text(1e-9)
    ('p = 0.04', 'p = 0.052', 'p < 0.001')
    """
    digits = 2 if 0.045 <= p < 0.055 else 1  # on which side of 0.05 it lies must be seen
    return f"p = {p:.{digits}g}" if p >= 0.001 else "p < 0.001"


def round_sentence(project: Project) -> str:
    """Return in one sentence whether the last round is better than the one before, on the same pictures."""
    comparison = compare_rounds(project)
    if comparison is None:
        return "This is the first round: there is none to compare it with."
    return comparison.sentence
