"""
A fixed camera: one view links most pictures, so likeness cannot tell which belong together.

Its pictures are cut into blocks that follow each other in time or number, label by label, so that every label can stand
on every side. The last picture of a block and the first of the next are as alike as two within a block.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
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
BLOCK = "block-"  # how the names of blocks begin: a later run must tell them from groups
KNOWN_FOR = 0.9  # share of a camera's pictures of which time or number must be known


def fixed_cameras(
    verdicts: Verdicts,
    pictures: Dataset,
    captured: np.ndarray,
    told: Collection[int],
    earlier: Mapping[str, str],
) -> list[list[int]]:
    """
    Return the positions of each fixed camera's pictures. Those in `told` are left out: group_by says where they belong.

    Cameras must have taken most pictures: a video of one animal among other photos stays together. But a camera whose
    pictures an earlier split (`earlier`: id → group) cut into blocks stays one, however many photos came since.
    """
    cut = {n for n, id in enumerate(pictures.ids) if earlier.get(id, "").startswith(BLOCK)}
    pairs, said = verdicts.known()
    chosen = np.isin(said, (SAME_PICTURE, FIXED_VIEW)) & ~np.isin(pairs, sorted(told)).any(axis=1)
    pairs, said, count = pairs[chosen], said[chosen], len(captured)
    parts, most = _parts(joined(count, [pairs]), least=3), (count - len(told)) / 2
    if sum(map(len, parts)) <= most and not cut:
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
    if sum(map(len, cameras)) > most:
        return cameras
    return [part for part in cameras if cut.intersection(part)]


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
    frames: np.ndarray,
) -> dict[str, str]:
    """
    Return id → block of each camera's pictures, label by label; without an order each frame stands alone.

    Versions of one frame, which `frames` (M, 2) links, share its block: the one that a version had before, if any.
    """
    blocks, ids = {}, pictures.ids
    frame = joined(len(pictures), [frames])
    for members in cameras:
        order, keys = in_order(captured, pictures.names, members)
        key_of, versions = dict(zip(members, keys, strict=True)), defaultdict(list)
        for n in members:
            versions[frame[n]].append(n)
        # Of a frame's versions the camera's own has the shortest name. It stands for all of them.
        firsts = {min(same, key=lambda n: (len(pictures.names[n]), n)): same for same in versions.values()}
        known, rows = {}, defaultdict(list)
        for n in sorted(firsts, key=lambda n: (key_of[n], n)):
            rows[pictures.labels[n]].append(ids[n])
            if before := [earlier[ids[m]] for m in firsts[n] if ids[m] in earlier]:
                known[ids[n]] = earlier.get(ids[n], min(before))
        found = {}
        for row in rows.values():
            length = block_length(len(row), (pictures.project.valid, pictures.project.test)) if order else 1
            found |= blocks_of(row, known, length)
        for n, same in firsts.items():
            blocks |= {ids[m]: earlier.get(ids[m], found[ids[n]]) for m in same}
    return blocks


def same_frames(
    names: Sequence[str], captured: np.ndarray, cameras: Sequence[Sequence[int]], same: np.ndarray
) -> np.ndarray:
    """
    Return which pairs of one picture (`same`, positions (M, 2)) are versions of one frame of a fixed camera.

    Two empty frames are one picture as well. So versions must also have one time, or, where a time is not known, one
    name but for what is added to it, as in "cam_0003.jpg" and "cam_0003 (1).jpg".
    """
    place = np.full(len(names), -1)
    for n, members in enumerate(cameras):
        place[members] = n
    first, second = same.T
    within = same[(place[first] >= 0) & (place[first] == place[second])]
    one = [
        one_frame_by_name(names[a], names[b]) if np.isnan(captured[[a, b]]).any() else captured[a] == captured[b]
        for a, b in within.tolist()
    ]
    return within[np.array(one, dtype=bool)]


def one_frame_by_name(name: str, other: str) -> bool:
    """
    Return whether two file names have the same numbers, or one is the other with an addition.

    What is added in front holds no number: "3_1.jpg" is not "1.jpg".

    >>> one_frame_by_name("cam_0003.jpg", "small_0003.jpg"), one_frame_by_name("cam_0003.jpg", "cam_0003 (1).jpg")
    (True, True)
    >>> one_frame_by_name("cam_0003 (1).jpg", "cam_0004 (1).jpg"), one_frame_by_name("a.jpg", "a (1).jpg")
    (False, False)
    """
    short, long = sorted((each.rpartition(".")[0] or each for each in (name, other)), key=len)
    numbers = [[int(digits) for digits in re.findall(r"\d{1,15}", stem)] for stem in (short, long)]
    added = re.search(rf"^(\D*[\W_])?{re.escape(short)}(?![^\W_])", long)
    return bool(numbers[0]) and (numbers[0] == numbers[1] or added is not None)


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
            names |= dict.fromkeys(part, before if before and before == after else BLOCK + min(part))
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
