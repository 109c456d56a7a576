"""
Stage 03: decide, once, which pictures train the model and which judge it.

Takes a data set and its groups of near-duplicates; writes split.csv. The groups are ranked by a seeded hash of their
name instead of shuffled by position: the sides are the same on every machine, and a newcomer moves nobody.
"""

import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from utils.dataset import Dataset, read_split, seeded_rank
from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import file_stamp, locked, remove_leftovers, write_whole
from utils.tables import REJECTED_COLUMNS, SIDES, SPLIT_COLUMNS, append_rows, each_row
from utils.words import SETS, capitalised, counted, listed


class LabelTooSmall(FieldguideError):
    """A label has too few groups of pictures to stand on every side."""


def assign_sides(
    groups: Mapping[str, Hashable],
    labels: Mapping[str, str],
    *,
    valid: float = 0.2,
    test: float = 0.1,
    seed: int = 42,
    known: Mapping[str, str] | None = None,
    given: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """
    Assign each of N pictures to ``"train"``, ``"valid"`` or ``"test"``, near-duplicates together.

    Within a label the groups are ranked by ``sha256(f"{seed}:{group}")``. The first fill the test set, the next the
    validation set, the rest train. The result depends on ids, groups and seed alone, never on order. A group of
    several labels counts for its most frequent one.

    `groups` maps ids to group names, which near-duplicates share; `labels` maps N ids to K labels. An id without a
    label is absent now: it gets no side, but its side in `known` counts for its group. `valid` and `test` are fractions
    (not percent) of each label, in [0, 1), together below 1. `known` is an earlier split, id → side: these pictures
    keep their side, and newcomers join their group's. `given` is a ready split of the source, id → side: it decides for
    newcomers, whatever their group. A side that it lacks is drawn from its training set.

    The result, sorted by id, holds the ids with group and label. Newcomers whose group already stands on two sides are
    left out: on either they would leak. Raises LabelTooSmall if a label that is new to `known` would miss a side; a
    known label that has shrunk is a warning.

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
    given = {id: side for id, side in (given or {}).items() if id in labels}
    brought = set(given.values())  # also for pictures of earlier runs: a newcomer is drawn for no side that has these
    drawn = {side for side, share in (("test", test), ("valid", valid)) if share} - brought
    given = {id: side for id, side in given.items() if id not in known}
    members: dict[Hashable, list[str]] = defaultdict(list)
    of_labels: dict[str, list[str]] = defaultdict(list)
    for id in sorted(groups):
        members[groups[id]].append(id)
        if id in labels:
            of_labels[labels[id]].append(id)

    sides = dict(known) | {id: side for id, side in given.items() if side != "train" or not drawn}
    waiting: dict[str, list[list[str]]] = {label: [] for label in sorted(of_labels)}
    for ids in members.values():
        taken = {sides[id] for id in ids if id in sides}
        if len(taken) == 1:
            side = taken.pop()
            for id in (id for id in ids if id not in sides):
                joins = side in drawn and given.get(id) == "train"  # to a set that was drawn from the training set
                sides[id] = side if joins else given.get(id, side)
        elif not taken:
            waiting[_majority([labels[id] for id in ids])].append(ids)
        else:
            sides.update({id: given[id] for id in ids if id in given and id not in sides})

    plans = {}
    for label, new in waiting.items():
        new.sort(key=lambda ids: seeded_rank(seed, groups[ids[0]]))
        have = Counter(sides[id] for id in of_labels[label] if id in sides)
        sizes = [(len(ids), sum(labels[id] == label for id in ids)) for ids in new]
        closed = [brought - {"train"} if any(id in given for id in ids) else set() for ids in new]
        plans[label] = plan = Plan(len(of_labels[label]), have, sizes, closed)
        for ids, side in zip(new, plan.sides(valid, test), strict=True):
            sides.update(dict.fromkeys(ids, side))
    seen = {labels[id] for id in known if id in labels}
    _check_plans(plans, valid, test, seen=seen, given={labels[id] for id in given})
    return {id: sides[id] for id in sorted(groups) if id in labels and id in sides}


@dataclass(frozen=True)
class Plan:
    """What one label has to place."""

    count: int  # all its pictures
    have: Counter  # side → its pictures there already
    waiting: Sequence[tuple[int, int]]  # the groups without a side, ranked: all their pictures, those of this label
    closed: Sequence[Collection[str]]  # for each of them, the sides that a ready split keeps from them

    def goals(self, valid: float, test: float) -> dict[str, int]:
        """Return how many pictures each judging side should hold: at least one if its fraction is above 0."""
        wanted = {"test": test, "valid": valid}
        return {side: max(1, round(self.count * share)) for side, share in wanted.items() if share}

    def sides(self, valid: float, test: float) -> list[str]:
        """Return a side per waiting group: the first where at least half of it still has room, else train."""
        have, goals, sides = Counter(self.have), self.goals(valid, test), []
        for (whole, own), closed in zip(self.waiting, self.closed, strict=True):
            open_to = (side for side in goals if side not in closed and have[side] + whole / 2 <= goals[side])
            sides.append(next(open_to, "train"))
            have[sides[-1]] += own
        return sides

    def missing(self, valid: float, test: float) -> list[str]:
        """Return the sides that this label would miss."""
        there = {*self.have, *self.sides(valid, test)}
        return [side for side in SIDES if side not in there and side in ("train", *self.goals(valid, test))]


def _majority(labels: Sequence[str]) -> str:
    """Return the most frequent label, of equals the first in the alphabet."""
    counts = Counter(labels) if len(labels) > 1 else {labels[0]: 1}
    return min(counts, key=lambda label: (-counts[label], label))


def _check_plans(plans: Mapping[str, Plan], valid: float, test: float, *, seen: set[str], given: set[str]) -> None:
    """Refuse labels that miss a side the first time; only warn if cleaning made one so."""
    short = {label: missing for label, plan in plans.items() if (missing := plan.missing(valid, test))}
    more = "gather other photos of it: near-duplicates, and what else shares a group, stay together."
    told = {}
    for label, sides in short.items():
        count, groups = plans[label].count, len(plans[label].waiting)
        few = f" in {counted(groups, 'group')}" if label not in seen and 0 < groups < count else ""
        none = " and ".join(f"the {SETS[side]}" for side in sides)
        told[label] = f"Label {label!r} has {counted(count)}{few}, and none for {none}."
    for label in short.keys() & seen:
        warnings.warn(f"{told[label]} {capitalised(more)}", stacklevel=3)
    if new := [label for label in short if label not in seen]:
        also = f" The same is true of {listed(new[1:])}." if new[1:] else ""
        others = [label for label in plans if label not in seen and label not in new]
        fractions = _fitting_fractions([plans[label] for label in new + others], valid, test)
        advice = f"Set {fractions} in the project file, or {more}" if fractions else capitalised(more)
        if new[0] in given:
            advice = (
                "Its source was split before, and gives it none there. use_given_split = false in the project file "
                "draws another split."
            )
        raise LabelTooSmall(f"{told[new[0]]}{also} {advice}")


def _fitting_fractions(plans: Sequence[Plan], valid: float, test: float) -> str:
    """Return the fractions nearest to the present ones that give every label every side; "" if there are none."""
    steps = [n / 100 for n in range(100)]
    pairs = [(v, t) for v, t in product({valid, *steps[1:]}, {test, *steps}) if v + t < 1]
    # A test set is given up only if nothing else helps.
    pairs.sort(key=lambda pair: (bool(test) and not pair[1], abs(pair[0] - valid) + abs(pair[1] - test), pair))
    for v, t in pairs:
        if not any(plan.missing(v, t) for plan in plans):
            changes = [f"{key} = {new:g}" for key, old, new in (("valid", valid, v), ("test", test, t)) if old != new]
            return " and ".join(changes) + (" (no test set)" if test and not t else "")
    return ""


def save_split(dataset: Dataset, groups: Mapping[str, str], sides: Mapping[str, str]) -> Dataset:
    """
    Append the pictures that split.csv does not know yet, and return the data set with the groups and sides of the file.

    Newcomers without a side (see `assign_sides`) are written to rejected.csv. Where another notebook added to split.csv
    since the data set was read, nothing is added: `sides` does not know of those pictures, so that near-duplicates
    could come to stand on two sides.
    """
    project, table = dataset.project, dataset.project.table("split")
    with locked(project.data):
        remove_leftovers(project.data, below=False)
        known = dataset.split if file_stamp(table) == dataset.stamp else read_split(project)
        new = {id: (groups[id], side) for id, side in sides.items() if id not in known}
        if new and known.keys() - dataset.split.keys():
            raise FieldguideError(
                f"Another notebook added pictures to {table} while this one was at work. Run this notebook again from "
                "its first cell; nothing is lost."
            )
        if not known:
            write_whole(project.data / "split.json", json.dumps(_settings(project)))
        rows = [{"id": id, "group": group, "side": side} for id, (group, side) in new.items()]
        append_rows(table, SPLIT_COLUMNS, rows)
        dataset = dataset.with_split({**known, **new}, file_stamp(table))
        if bridges := [id for id in dataset.ids if id not in dataset.split and id in groups]:
            rejected = project.table("rejected")
            noted = {row["id"] for row in each_row(rejected, REJECTED_COLUMNS) if row["stage"] == "split"}
            why = {"stage": "split", "reason": "near-duplicate of pictures on two sides"}
            new_rows = [{"id": id, "label": dataset[id].label} | why for id in bridges if id not in noted]
            append_rows(rejected, REJECTED_COLUMNS, new_rows)
    return dataset


def _settings(project: Project) -> dict:
    """Return the settings that decide how a split is drawn."""
    names = ("seed", "valid", "test", "group_by", "use_given_split")
    return {name: getattr(project, name) for name in names}


def changed_settings(project: Project) -> str:
    """Return a sentence if the settings are not those that made split.csv, or unknown, else an empty text."""
    made_with, old = project.data / "split.json", None
    if not made_with.exists():
        return ""
    with suppress(OSError, ValueError):
        old = json.loads(made_with.read_text(encoding="utf-8"))
    if not isinstance(old, dict):
        return (
            f"{made_with} cannot be read, so it is not known which settings drew the split. Delete that file; the "
            "split stays as it is."
        )
    old, new = {"group_by": "", "use_given_split": True} | old, _settings(project)
    if changes := [f"{key} {old.get(key)!r} → {new[key]!r}" for key in new if old.get(key) != new[key]]:
        return (
            f"The split was drawn with other settings ({', '.join(changes)}) and stays as it is: a picture never "
            f"changes side. To draw anew, move {project.table('split')} and {made_with.name} away and run 03 again."
        )
    return ""


def given_sentence(dataset: Dataset) -> str:
    """Return how far the sides are those of a split that the source brought along, or an empty text."""
    given = dataset.given_sides
    if not given:
        return ""
    as_given = sum(dataset[id].side == side for id, side in given.items())
    told = f"{counted(as_given)} {'stands' if as_given == 1 else 'stand'} where the source's own split has them."
    if moved := len(given) - as_given:
        told += (
            f" {counted(moved)} {'does' if moved == 1 else 'do'} not: drawn for a set that the source lacks, or before "
            "its split was known."
        )
    return told


def leaking_pairs(dataset: Dataset, links: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs of ids among `links`, pictures that belong together, that stand on different sides; sorted."""
    sided = {id: side for id, side in zip(dataset.ids, dataset.sides, strict=True) if side}
    return sorted(pair for pair in links if len({sided.get(id) for id in pair} - {None}) == 2)


def leak_warning(dataset: Dataset, links: Sequence[tuple[str, str]]) -> str:
    """Return a sentence if pictures that belong together (`links`) stand on different sides, else an empty text."""
    apart = leaking_pairs(dataset, links)
    if not apart:
        return ""
    sided = dict(zip(dataset.ids, dataset.sides, strict=True))
    (first, second), n = apart[0], len({dataset[first].group for first, _ in apart})
    names = [" ".join(filter(None, [dataset.records.own_name(dataset[id].path), id])) for id in apart[0]]
    stand = f"{counted(n, 'group')} of pictures that belong together {'stands' if n == 1 else 'stand'}"
    return (
        f"{stand} on different sides, such as {names[0]} ({sided[first]}) and {names[1]} ({sided[second]}): the "
        "figures of 05 flatter the model. Of versions of one photo keep one, and delete the others in 06 or by hand. "
        f"Or draw anew: {'write use_given_split = false, ' if dataset.given_sides else ''}move "
        f"{dataset.project.table('split')} and split.json away and run 03 again."
    )


def split_counts(dataset: Dataset) -> pd.DataFrame:
    """Return the number of pictures per label and side, with totals; "none" are those without a side."""
    sides = [side or "none" for side in dataset.sides]
    table = pd.crosstab(pd.Series(dataset.labels, dtype=str), pd.Series(sides, dtype=str))
    table["all"] = table.sum(axis=1)
    total = pd.DataFrame([table.sum()], index=["all"])  # beside a label of that name, not over it
    table = pd.concat([table, total]).rename_axis(index="label", columns="side")
    return table[[side for side in (*SIDES, "none", "all") if side in table]].astype(int)


def naive_leaks(groups: Mapping[str, str], *, valid: float, seed: int) -> int:
    """Return how many validation pictures of a plain random split would share a group with the training set."""
    ids = sorted(groups)
    order = np.random.default_rng(seed).permutation(len(ids))
    cut = round(valid * len(ids))
    train = {groups[ids[n]] for n in order[cut:]}
    return sum(groups[ids[n]] in train for n in order[:cut])
