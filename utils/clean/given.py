"""
What a `Cleaning` is given: checked, and put into the form that it works with.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from utils.clean.suspects import Suspect
from utils.dataset import Records
from utils.errors import FieldguideError
from utils.project import Project


def own_names(paths: Sequence[Path], project: Project | None) -> list[str]:
    """Return what pictures are called. Where sources.csv is broken, those are the files' names; the grid says why."""
    try:
        return list(map(Records(project).told, paths)) if project else [path.name for path in paths]
    except (FieldguideError, OSError):
        return [path.name for path in paths]


def checked_probs(probs, n: int, k: int) -> np.ndarray:
    probs = np.asarray(probs, dtype=float)
    if probs.shape != (n, k):
        raise FieldguideError(
            f"probs has the shape {probs.shape}; expected {(n, k)}: one row per picture and one column per label. "
            "If pictures were added or moved since it was made, run the cells above again."
        )
    return probs


def checked_features(features, n: int, outside: int) -> np.ndarray:
    """Return features (N, F) with a row of NaN for each picture from outside."""
    features = np.asarray(features, dtype=np.float32)
    if features.ndim != 2 or len(features) != n:
        raise FieldguideError(
            f"features has the shape {features.shape}; expected ({n}, …): one row per picture. If pictures were added "
            "or moved since it was made, run the cells above again."
        )
    return np.pad(features, ((0, outside), (0, 0)), constant_values=np.nan)


def listed_suspects(suspects: Iterable[Suspect], n: int) -> tuple[dict[str, list[int]], dict[str, dict[int, str]]]:
    """Return each list's positions, and its reasons by position; lists stand in the order in which they first occur."""
    reasons: dict[str, dict[int, str]] = {}
    for suspect in suspects:
        if not 0 <= suspect.position < n:
            raise FieldguideError(
                f"suspects holds {suspect.position}, but there are {n} pictures, 0 to {n - 1}. Find them again."
            )
        reasons.setdefault(suspect.list, {}).setdefault(int(suspect.position), suspect.reason)
    return {name: list(found) for name, found in reasons.items()}, reasons
