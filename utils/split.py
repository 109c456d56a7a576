"""
Stage 03: decide, once, which pictures train the model and which judge it.

Reads the folders of images/ and the hashes in pictures.csv; writes split.csv. Groups of near-copies are ranked by
a seeded hash of their name instead of shuffled by position, so that the sides are the same on every machine and a
newcomer moves nobody.
"""

import hashlib
import json
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from utils.files import FieldguideError, append_rows, locked, read_rows, write_whole
from utils.project import PICTURES_COLUMNS, REJECTED_COLUMNS, SIDES, SPLIT_COLUMNS, Project

# Bits of 64 in which the perceptual hashes of near-copies may differ. Of 300 real photos, 96 to 100 % are within 10 of
# themselves cropped by 4 % (71 to 87 % within 6); of 321,201 pairs of 802 photos, five that are no copies are too.
NEAR = 10
HASH = re.compile(r"[0-9a-fA-F]{16}")
CANDIDATES = 2_000_000  # pairs looked at together: 100 MB or so


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
    Assign each of N pictures to ``"train"``, ``"valid"`` or ``"test"``, near-copies together.

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
        "(near-copies count as one), or lower valid and test in the project file."
    )
    if first_time:
        raise LabelTooSmall(sentence)
    warnings.warn(sentence, stacklevel=3)


def near_copy_groups(project: Project) -> dict[str, str]:
    """
    Return id → group: pictures whose perceptual hashes nearly agree share a group.

    Beside the training set these are the pictures of split.csv that are absent now, in the trash or under a label
    that left the project file: they may come back to their side, so a newcomer that resembles one belongs there.
    A group is named after its first id in split.csv, else after its smallest id, so that names last.

    Raises
    ------
    FieldguideError
        If 02 has not seen a picture yet, a label has none, or a hash in pictures.csv is spoilt.
    """
    hashes = _hashes(project)
    pictures = project.pictures()
    ids = list(pictures)
    if unseen := [id for id in ids if id not in hashes]:
        raise FieldguideError(f"{len(unseen)} pictures are new to 02, {unseen[0]} among them. Run 02 first.")
    if not ids:
        raise FieldguideError(f"There are no pictures in {project.images}. Run 01 and 02 first.")
    filled = {path.parent.name for path in pictures.values()}
    if empty := [label for label in project.labels if label not in filled]:
        raise FieldguideError(
            f"Label {empty[0]!r} has no pictures in {project.images / empty[0]}, so nothing can be learnt of it. Run "
            "02 again: its first remark says why, and what to do. Or remove the label from the project file."
        )
    earlier = {id: group for id, (group, _) in project.split().items()}
    ids = sorted({*ids, *(id for id in earlier if id in hashes)})
    return name_groups(ids, linked(_codes(project, ids, hashes)), earlier)


def near_pairs(codes: np.ndarray, *, near: int = NEAR) -> Iterator[np.ndarray]:
    """
    Yield pairs of positions whose 64-bit codes differ in at most `near` bits, the smaller first, as int arrays (M, 2).

    Two codes within n bits differ in at most n // 4 bits in one of their four bands of 16 bits (pigeonhole), so for
    each band only the codes are compared whose band is so near: of random codes one in 500, not all with all. A pair
    may come more than once. (Multi-index hashing: Norouzi, Punjani and Fleet 2012.)

    Parameters
    ----------
    codes : uint64 array (N,)
        Each at most once, lest a thousand equal ones make a million pairs.
    """
    flips = [sum(1 << bit for bit in bits) for n in range(near // 4 + 1) for bits in combinations(range(16), n)]
    for low in range(0, 64, 16):
        band = (codes >> np.uint64(low) & np.uint64(0xFFFF)).astype(np.int64)
        order = np.argsort(band, kind="stable")
        starts = np.searchsorted(band[order], np.arange(2**16 + 1))  # where each band's codes begin in `order`
        for flip in flips:
            other = band ^ flip
            counts = np.where(other >= band, starts[other + 1] - starts[other], 0)  # each two bands once
            for part in np.array_split(np.arange(len(codes)), counts.sum() // CANDIDATES + 1):
                first = np.repeat(part, counts[part])
                begins = starts[other[part]] - np.cumsum(counts[part]) + counts[part]
                second = order[np.arange(len(first)) + np.repeat(begins, counts[part])]
                close = (np.bitwise_count(codes[first] ^ codes[second]) <= near) & (first != second)
                if close.any():
                    yield np.sort(np.stack([first[close], second[close]], axis=1), axis=1)


def linked(codes: np.ndarray) -> list[int]:
    """
    Return for each of N codes the first position that it is near to, directly or in steps.

    >>> linked(np.array([0, 2**40 - 1, 1, 3], dtype=np.uint64))
    [0, 1, 0, 0]
    """
    distinct, own = np.unique(codes, return_inverse=True)
    links, size = [np.empty((0, 2), dtype=np.int64)], 0
    for pairs in near_pairs(distinct):
        links.append(pairs)
        size += len(pairs)
        if size > CANDIDATES:  # of thousands that are all near to each other, what links them is enough
            links, size = [_spanning(links, len(distinct))], 0
    roots = _spanning(links, len(distinct))[own, 1]
    first = np.full(len(codes), len(codes))
    np.minimum.at(first, roots, np.arange(len(codes)))
    return first[roots].tolist()


def _spanning(links: list[np.ndarray], count: int) -> np.ndarray:
    """Return `count` pairs (M, 2) that link the same positions as `links` do: each with the first of its component."""
    pairs = np.concatenate(links)
    graph = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, first, component = np.unique(
        connected_components(graph, directed=False)[1], return_index=True, return_inverse=True
    )
    return np.stack([np.arange(count), first[component]], axis=1)


def name_groups(ids: list[str], roots: list[int], earlier: Mapping[str, str]) -> dict[str, str]:
    """Return id → group name: an earlier name of a member where there is one, else the smallest id."""
    members: dict[int, list[str]] = defaultdict(list)
    for id, root in zip(ids, roots, strict=True):
        members[root].append(id)
    groups = {}
    for same in members.values():
        name = min((earlier[id] for id in same if id in earlier), default=min(same))
        groups.update(dict.fromkeys(same, name))
    return dict(sorted(groups.items()))


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
                "reason": "near-copy of pictures on two sides",
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
    """Return a sentence if near-copies of the training set stand on different sides, else an empty text."""
    sides, hashes = project.sides(), _hashes(project)
    ids = sorted(id for id in sides if id in hashes)
    originals = [ids[root] for root in linked(_codes(project, ids, hashes))]
    apart = [(first, id) for first, id in zip(originals, ids, strict=True) if sides[first] != sides[id]]
    if not apart:
        return ""
    (first, second), n = apart[0], len({first for first, _ in apart})
    stand = "group of near-copies stands" if n == 1 else "groups of near-copies stand"
    return (
        f"{n} {stand} on different sides, such as {first} ({sides[first]}) and {second} ({sides[second]}): the figures "
        "of 05 flatter the model. Keep one of each group, and delete the others in 06 or by hand."
    )


def _hashes(project: Project) -> dict[str, str]:
    """Return id → perceptual hash (16 hex digits) of every picture ever accepted."""
    return {row["id"]: row["hash"] for row in read_rows(project.table("pictures"), PICTURES_COLUMNS)}


def _codes(project: Project, ids: Sequence[str], hashes: Mapping[str, str]) -> np.ndarray:
    """Return the hashes of N ids as a uint64 array (N,), or say which is none: a table edited by hand."""
    if spoilt := [id for id in ids if not HASH.fullmatch(hashes[id])]:
        raise FieldguideError(
            f"{project.table('pictures')} says {hashes[spoilt[0]][:40]!r} in the column hash of picture {spoilt[0]}, "
            "expected 16 hex digits. Delete that line and run 02 again: it makes it anew."
        )
    return np.array([int(hashes[id], 16) for id in ids], dtype=np.uint64)


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
    """Return how many valid pictures of a plain random split would have a near-copy among those that train."""
    ids = sorted(groups)
    order = np.random.default_rng(seed).permutation(len(ids))
    cut = round(valid * len(ids))
    train = {groups[ids[n]] for n in order[cut:]}
    return sum(groups[ids[n]] in train for n in order[:cut])
