"""
A fixed camera: one view links most pictures, so likeness cannot tell which belong together.

Its pictures are cut into blocks that follow each other in time or number, label by label, so that every label can stand
on every side. The last picture of a block and the first of the next are as alike as two within a block.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from utils.copies.chains import joined
from utils.copies.geometry import FIXED_VIEW, SAME_PICTURE
from utils.copies.sequences import numbered
from utils.copies.verdicts import Verdicts
from utils.dataset import Dataset
from utils.words import counted

CAMERA = 20  # pictures of one view, at least; together more than half of all
OTHER_CONTENT = 1 / 3  # share of them that a view with other content links: the same picture saved again has none
# Of one camera: its pictures' nearest may be among their own label. So one picture of each part is compared.
COMPARED_PARTS = 12
BLOCKS = 10  # per label, at least
KNOWN_FOR = 0.9  # share of a camera's pictures of which time or number must be known


def fixed_cameras(verdicts: Verdicts, captured: np.ndarray, places: Sequence[int]) -> list[list[int]]:
    """Return the pictures, positions among `places`, of each fixed camera; none if these are not most pictures."""
    pairs, said = verdicts.known()
    chosen = np.isin(pairs, places).all(axis=1) & np.isin(said, (SAME_PICTURE, FIXED_VIEW))
    pairs, said, count = pairs[chosen], said[chosen], len(captured)
    parts = _parts(joined(count, [pairs]), least=3)
    if sum(map(len, parts)) * 2 <= len(places):
        return []
    degree = np.bincount(pairs.ravel(), minlength=count)
    centres = [max(part, key=lambda n: (degree[n], -n)) for part in parts[:COMPARED_PARTS]]
    across = np.sort(np.array(list(combinations(centres, 2)), dtype=np.int64).reshape(-1, 2), axis=1)
    linked = across[np.isin(verdicts.of(across), (SAME_PICTURE, FIXED_VIEW))]
    other = set(pairs[said == FIXED_VIEW].ravel().tolist())
    cameras = [
        part
        for part in _parts(joined(count, [pairs, linked]), least=CAMERA)
        if sum(n in other for n in part) >= OTHER_CONTENT * len(part) or _at_many_times(captured[part])
    ]
    return cameras if sum(map(len, cameras)) * 2 > len(places) else []


def _parts(roots: np.ndarray, *, least: int) -> list[list[int]]:
    """Return the members of each component, the largest first."""
    members: dict[int, list[int]] = defaultdict(list)
    for n, root in enumerate(roots.tolist()):
        members[root].append(n)
    return sorted((part for part in members.values() if len(part) >= least), key=lambda part: (-len(part), part))


def _at_many_times(captured: np.ndarray) -> bool:
    """Return whether photos were taken at different times, unlike copies of one."""
    known = captured[~np.isnan(captured)]
    return len(known) >= KNOWN_FOR * len(captured) and 2 * len(np.unique(known)) > len(captured)


def camera_blocks(
    pictures: Dataset,
    cameras: Sequence[Sequence[int]],
    captured: np.ndarray,
    earlier: Mapping[str, str],
    same: np.ndarray,
) -> dict[str, str]:
    """
    Return id → block of each camera's pictures, label by label; without an order each stands alone.

    Versions of one frame share its block. They are pairs of `same` (M, 2), which show one picture, and have one time or
    one number.
    """
    blocks = {}
    for members in cameras:
        frame = frames_of(captured, pictures.names, same[np.isin(same, members).all(axis=1)])
        order, keys = in_order(captured, pictures.names, members)
        rows: dict[str, list[str]] = defaultdict(list)
        for _, n in sorted(zip(keys, members, strict=True)):
            if frame[n] == n:
                rows[pictures.labels[n]].append(pictures.ids[n])
        for ids in rows.values():
            length = block_length(len(ids), (pictures.project.valid, pictures.project.test)) if order else 1
            blocks |= blocks_of(ids, earlier, length)
        for n in members:
            blocks[pictures.ids[n]] = earlier.get(pictures.ids[n], blocks[pictures.ids[frame[n]]])
    return blocks


def frames_of(captured: np.ndarray, names: Sequence[str], same: np.ndarray) -> np.ndarray:
    """Return for each of N pictures the first that is the same frame: one picture, and of one time or number."""
    first, second = same.T
    numbers = np.array([found[-1] if (found := numbered(name)) else -1 for name in names], dtype=np.int64)
    one = (captured[first] == captured[second]) | ((numbers[first] == numbers[second]) & (numbers[first] >= 0))
    return joined(len(names), [same[one]])


def in_order(captured: np.ndarray, names: Sequence[str], members: Sequence[int]) -> tuple[str, list[tuple]]:
    """Return by what a camera's pictures can be put in order ("time", "number" or ""), and a key to sort each by."""
    times = captured[list(members)]
    if np.isfinite(times).mean() >= KNOWN_FOR:
        return "time", [(np.isnan(time), float(np.nan_to_num(time))) for time in times]
    numbers = [numbered(names[n]) for n in members]
    if sum(found is not None for found in numbers) >= KNOWN_FOR * len(members):
        return "number", [(found is None, *(found or ("", "", 0))) for found in numbers]
    return "", [(n,) for n in members]


def blocks_of(ids: Sequence[str], earlier: Mapping[str, str], length: int) -> dict[str, str]:
    """
    Return id → block for a label's pictures in their order, `length` in each.

    A picture with an earlier group keeps it. Newcomers between two pictures of one group join it; others make blocks of
    their own. So what comes later moves no block that has a side.
    """
    names, run, before = {}, [], None
    for id in [*ids, None]:
        if id is not None and id not in earlier:
            run.append(id)
            continue
        after = earlier.get(id)
        for start in range(0, len(run), length):
            part = run[start : start + length]
            names |= dict.fromkeys(part, before if before and before == after else min(part))
        run, before = [], after
        if id is not None:
            names[id] = after
    return names


def block_length(count: int, fractions: Sequence[float]) -> int:
    """Return how many of a label's pictures make a block, so that each side can have one."""
    blocks = max(BLOCKS, *(round(1 / fraction) for fraction in fractions if fraction))
    return max(1, round(count / blocks))


def told_cameras(
    pictures: Dataset, cameras: Sequence[Sequence[int]], captured: np.ndarray, groups: Mapping[str, str]
) -> str:
    """Return that there are fixed cameras, and how their pictures are split, in sentences; "" if there are none."""
    told = []
    for members in cameras:
        order, _ = in_order(captured, pictures.names, members)
        blocks = len({groups[pictures.ids[n]] for n in members})
        how = (
            f"They are split into {counted(blocks, 'block')} that follow each other in {order}, not by likeness"
            if order
            else "Neither the time nor a number in the name is known, so each is split as a picture of its own"
        )
        told.append(f"A fixed camera: {len(members):,} of {counted(len(pictures))} show one view. {how}.")
    return " ".join(told)
