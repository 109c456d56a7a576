"""
Stage 03: decide, once, which pictures train the model and which judge it.

Reads the folders of images/ and the hashes in pictures.csv; writes split.csv. Groups of near-duplicates are ranked by
a seeded hash of their name instead of shuffled by position, so that the sides are the same on every machine and a
newcomer moves nobody.
"""

import hashlib
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd

from utils.copies import _codes, _hashes, linked
from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import locked, write_whole
from utils.tables import REJECTED_COLUMNS, SIDES, SPLIT_COLUMNS, append_rows, read_rows


class LabelTooSmall(FieldguideError):
    """A label has too few pictures to stand on every side."""


def assign_sides(
    groups: Mapping[str, Hashable],
    labels: Mapping[str, str],
    *,
    valid: float = 0.2,
    test: float = 0.1,
    seed: int = 42,
    known: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """
    Assign each of N pictures to ``"train"``, ``"valid"`` or ``"test"``, near-duplicates together.

    Within a label the groups are ranked by ``sha256(f"{seed}:{group}")``; the first fill the test side, the next
    the valid side, the rest train. The result depends on ids, groups and seed alone, never on order. A group of
    several labels counts for its most frequent one.

    Parameters
    ----------
    groups : mapping of ids to group names
        Pictures that are copies of each other share a group.
    labels : mapping of N ids to K labels
        An id of `groups` that has no label is absent now: it gets no side, but the one it has in `known` counts for
        its group.
    valid, test : float
        Fractions (not percent) of each label, in [0, 1), together below 1.
    seed : int
        Another seed draws another split.
    known : mapping of ids to sides, optional
        An earlier split: these pictures keep their side, and newcomers join their group's.

    Returns
    -------
    dict of id to side, sorted by id, for the ids with group and label
        Left out are newcomers whose group already stands on two sides: on either they would leak.

    Raises
    ------
    LabelTooSmall
        If a label that `known` does not know has too few groups to stand on every side. A known label that has
        shrunk is a warning.

    Examples
    --------
    >>> ids = {f"{n:02}": f"{n:02}" for n in range(10)}
    >>> sides = assign_sides(ids, dict.fromkeys(ids, "cat"), valid=0.2, test=0.1)
    >>> sorted(sides.values())
    ['test', 'train', 'train', 'train', 'train', 'train', 'train', 'train', 'valid', 'valid']
    """
    if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise ValueError(f"valid = {valid} and test = {test} must be fractions in [0, 1) that stay below 1 together")
    if missing := sorted(set(groups) - set(labels) - set(known or {})):
        raise ValueError(f"picture {missing[0]} has a group but no label")
    known = {id: side for id, side in (known or {}).items() if id in groups}
    here = sorted(id for id in groups if id in labels)
    members: dict[Hashable, list[str]] = defaultdict(list)
    for id in sorted(groups):
        members[groups[id]].append(id)

    sides = dict(known)
    of_labels: dict[str, list[str]] = defaultdict(list)
    for id in here:
        of_labels[labels[id]].append(id)
    new_groups: dict[str, list[list[str]]] = {label: [] for label in sorted(of_labels)}
    for ids in members.values():
        taken = {known[id] for id in ids if id in known}
        if len(taken) == 1:
            sides.update(dict.fromkeys(ids, taken.pop()))
        elif not taken:
            new_groups[_majority(labels[id] for id in ids)].append(ids)

    wanted = {"test": test, "valid": valid}
    for label, waiting in new_groups.items():
        of_label = of_labels[label]
        goals = {side: _goal(len(of_label), fraction) for side, fraction in wanted.items()}
        have = Counter(sides[id] for id in of_label if id in sides)
        waiting.sort(key=lambda ids: hashlib.sha256(f"{seed}:{groups[ids[0]]}".encode()).digest())
        for ids in waiting:
            side = next((side for side in wanted if have[side] + len(ids) / 2 <= goals[side]), "train")
            sides.update(dict.fromkeys(ids, side))
            have[side] += sum(labels[id] == label for id in ids)
        _check_label(label, have, goals, first_time=not any(id in known for id in of_label))
    return {id: sides[id] for id in here if id in sides}


def _majority(labels) -> str:
    """Return the most frequent label, the first in the alphabet of equals."""
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


def _goal(count: int, fraction: float) -> int:
    """Return how many of `count` pictures a side should hold: at least one where the fraction asks for any."""
    return max(1, round(count * fraction)) if fraction else 0


def _check_label(label: str, have: Counter, goals: Mapping[str, int], *, first_time: bool) -> None:
    """Refuse a label that misses a side; only warn where cleaning made it so."""
    missing = [side for side in SIDES if not have[side] and (side == "train" or goals[side])]
    if not missing:
        return
    count = "1 picture" if sum(have.values()) == 1 else f"{sum(have.values())} pictures"
    sentence = (
        f"Label {label!r} has {count} and none for {' and '.join(missing)}. Gather more of it "
        "(near-duplicates count as one), or lower valid and test in the project file."
    )
    if first_time:
        raise LabelTooSmall(sentence)
    warnings.warn(sentence, stacklevel=3)


def save_split(project: Project, groups: Mapping[str, str], sides: Mapping[str, str]) -> int:
    """
    Append the pictures that split.csv does not know yet, and return how many these were.

    Newcomers without a side (see `assign_sides`) are written to rejected.csv.
    """
    with locked(project.data):
        known = project.split()
        if not known:
            settings = {"seed": project.seed, "valid": project.valid, "test": project.test}
            write_whole(project.data / "split.json", json.dumps(settings))
        new = [{"id": id, "group": groups[id], "side": side} for id, side in sides.items() if id not in known]
        append_rows(project.table("split"), SPLIT_COLUMNS, new)
        noted = {row["id"] for row in read_rows(project.table("rejected"), REJECTED_COLUMNS) if row["stage"] == "split"}
        pictures = project.pictures()
        bridges = [
            {
                "id": id,
                "label": pictures[id].parent.name,
                "stage": "split",
                "reason": "near-duplicate of pictures on two sides",
            }
            for id in groups
            if id in pictures and id not in sides and id not in noted
        ]
        append_rows(project.table("rejected"), REJECTED_COLUMNS, bridges)
    return len(new)


def changed_settings(project: Project) -> str:
    """Return a sentence if seed or fractions are not those that made split.csv, or unknown, else an empty text."""
    made_with = project.data / "split.json"
    if not made_with.exists():
        return ""
    try:
        old = json.loads(made_with.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        old = None
    if not isinstance(old, dict):
        return (
            f"{made_with} cannot be read, so it is not known which settings drew the split. Delete that file; the "
            "split stays as it is."
        )
    new = {"seed": project.seed, "valid": project.valid, "test": project.test}
    if changes := [f"{key} {old.get(key)} → {new[key]}" for key in new if old.get(key) != new[key]]:
        return (
            f"The split was drawn with other settings ({', '.join(changes)}) and stays as it is: a picture never "
            f"changes side. To draw anew, move {project.table('split')} and {made_with.name} away and run 03 again."
        )
    return ""


def leak_warning(project: Project) -> str:
    """Return a sentence if near-duplicates of the training set stand on different sides, else an empty text."""
    sides, hashes = project.sides(), _hashes(project)
    ids = sorted(id for id in sides if id in hashes)
    originals = [ids[root] for root in linked(_codes(project, ids, hashes))]
    apart = [(first, id) for first, id in zip(originals, ids, strict=True) if sides[first] != sides[id]]
    if not apart:
        return ""
    (first, second), n = apart[0], len({first for first, _ in apart})
    stand = "group of near-duplicates stands" if n == 1 else "groups of near-duplicates stand"
    return (
        f"{n} {stand} on different sides, such as {first} ({sides[first]}) and {second} ({sides[second]}): the figures "
        "of 05 flatter the model. Keep one of each group, and delete the others in 06 or by hand."
    )


def split_counts(project: Project) -> pd.DataFrame:
    """Return the number of pictures a label and side, with totals; "none" are those without a side."""
    sides = project.sides()
    rows = [(path.parent.name, sides.get(id, "none")) for id, path in project.pictures().items()]
    table = pd.DataFrame(rows, columns=["label", "side"])
    table = pd.crosstab(table.label, table.side)
    table["all"] = table.sum(axis=1)
    total = pd.DataFrame([table.sum()], index=["all"])  # beside a label of that name, not over it
    table = pd.concat([table, total]).rename_axis(index="label", columns="side")
    return table[[side for side in (*SIDES, "none", "all") if side in table]].astype(int)


def naive_leaks(groups: Mapping[str, str], *, valid: float, seed: int) -> int:
    """Return how many valid pictures of a plain random split would have a near-duplicate among those that train."""
    ids = sorted(groups)
    order = np.random.default_rng(seed).permutation(len(ids))
    cut = round(valid * len(ids))
    train = {groups[ids[n]] for n in order[cut:]}
    return sum(groups[ids[n]] in train for n in order[:cut])
