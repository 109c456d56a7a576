"""
What belongs together by when it was taken, by the number in its file name, or because the person says so.

The pictures of a burst, and the frames of a video, follow each other in time or number and show one scene.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from utils.copies.neighbours import following
from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.words import counted

LONGEST_PAUSE = 600.0  # seconds within which pictures of one scene are one sequence
SKIPPED = 3  # the same in numbers
ALIKE = 30  # pictures with one time: more than a camera takes in a second, so the clock stood still
NUMBER = re.compile(r"(.*?)(\d{1,15})(\D*)", re.DOTALL)


def numbered(name: str) -> tuple[str, str, int] | None:
    """
    Return what stands before and after the last number of a file name, and the number.

    >>> numbered("cam1_0007.jpg"), numbered("heron.jpg")
    (('cam1_', '', 7), None)
    """
    found = NUMBER.fullmatch(name.rpartition(".")[0] or name)
    return (found[1], found[3], int(found[2])) if found else None


def true_times(captured: np.ndarray) -> np.ndarray:
    """Return capture times (N,) in seconds with NaN for those that too many pictures share to be true."""
    _, place, counts = np.unique(captured, return_inverse=True, return_counts=True)
    return np.where(counts[place] > ALIKE, np.nan, captured)


def sequence_pairs(captured: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return pairs of positions (M, 2) that follow each other in time, or in the number of names that else agree."""
    known = np.flatnonzero(~np.isnan(captured))
    pairs = [following(known[np.argsort(captured[known], kind="stable")], captured, LONGEST_PAUSE)]
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    numbers = np.zeros(len(names))
    for n, found in enumerate(map(numbered, names)):
        if found:
            numbers[n] = found[2]
            rows[found[:2]].append(n)
    for places in rows.values():
        order = np.array(places)
        pairs.append(following(order[np.argsort(numbers[order], kind="stable")], numbers, SKIPPED))
    return np.unique(np.concatenate(pairs), axis=0)


def group_keys(dataset: Dataset) -> tuple[dict[str, str], str]:
    """
    Return id → group as a table of photos or `group_by` names it, and a remark where there is none for some.

    A table's group counts before `group_by`, which may name the table's column itself. Refuses an expression that
    matches nothing, and groups that put all pictures into one: the split drawn would stay.
    """
    pattern, keys = dataset.project.group_by, dict(dataset.given_groups)
    if not pattern and not keys:
        return {}, ""
    told = (
        f"group_by = {pattern!r}"
        if len(keys) < len(dataset) and pattern
        else "What the source calls a group (a table's column, or a clip)"
    )
    for id, place in zip(dataset.ids, dataset.places, strict=True) if pattern else ():
        if place and id not in keys and (found := re.search(pattern, place)):
            keys[id] = next((text for text in found.groups() if text), found[0])
    if not keys:
        seen = next((place for place in dataset.places if place), "")
        such = f", such as {seen!r}" if seen else ": no picture came from a folder of yours"
        raise FieldguideError(f"{told} matches no file name{such}. Correct it, or remove it.")
    if len(keys) == len(dataset) > 1 and len(set(keys.values())) == 1:
        raise FieldguideError(
            f"{told} puts all {counted(len(dataset))} into one group, {next(iter(keys.values()))!r}, so nothing could "
            "be split. Put the part that tells the groups apart into brackets, or take the groups out."
        )
    left = len(dataset) - len(keys)
    groups = f"puts {counted(len(keys))} into {counted(len(set(keys.values())), 'group')}."
    return keys, f"{'group_by' if pattern else 'The table'} {groups}" + (
        f" It matches no name of {counted(left)}." if left else ""
    )
