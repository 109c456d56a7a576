"""
Near-duplicates: which pictures show the same photo, and so belong together.

Foundation of every stage. Compares the perceptual hashes in pictures.csv.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.words import counted

# Bits of 64 in which the perceptual hashes of near-duplicates may differ. Of 300 real photos, 96 to 100 % are within 10
# of themselves cropped by 4 % (71 to 87 % within 6). So are 5 of the 321,201 pairs that 802 different photos make.
NEAR = 10
PERCEPTUAL_HASH = re.compile(r"[0-9a-fA-F]{16}")
CANDIDATES = 2_000_000  # pairs compared at a time: about 100 MB


def near_duplicate_groups(dataset: Dataset) -> dict[str, str]:
    """
    Return id → group: pictures whose perceptual hashes nearly agree share a group.

    Besides the data set these are the pictures of split.csv that are absent now, in the trash or under a label that
    left the project file. They may come back to their side, so a newcomer that resembles one belongs there too.
    A group is named after its first id in split.csv, else after its smallest id, so that names last.
    """
    project, hashes = dataset.project, dataset.records.hashes
    if unseen := [id for id in dataset.ids if id not in hashes]:
        pictures = "1 picture is" if len(unseen) == 1 else f"{counted(len(unseen))} are"
        raise FieldguideError(f"{pictures} new to 02, such as {unseen[0]}. Run 02 first.")
    if not dataset.ids:
        raise FieldguideError(f"There are no pictures in {project.images}. Run 01 and 02 first.")
    if empty := sorted(set(project.labels) - set(dataset.labels)):
        raise FieldguideError(
            f"Label {empty[0]!r} has no pictures in {project.images / empty[0]}, so the model cannot learn it. Run 02 "
            "again: its first remark says why, and what to do. Or remove the label from the project file."
        )
    ids = sorted({*dataset.ids, *(id for id in dataset.split if id in hashes)})
    return name_groups(ids, linked(hash_codes(dataset, ids)), {id: group for id, (group, _) in dataset.split.items()})


def hash_codes(dataset: Dataset, ids: Sequence[str]) -> np.ndarray:
    """Return the hashes of N ids as a uint64 array (N,), or name one that is none: a table edited by hand."""
    hashes = dataset.records.hashes
    if spoilt := [id for id in ids if not PERCEPTUAL_HASH.fullmatch(hashes[id])]:
        raise FieldguideError(
            f"{dataset.project.table('pictures')} says {hashes[spoilt[0]][:40]!r} in the column hash of picture "
            f"{spoilt[0]}, expected 16 hex digits. Delete that line and run 02 again: it makes it anew."
        )
    return np.array([int(hashes[id], 16) for id in ids], dtype=np.uint64)


def near_pairs(codes: np.ndarray, *, near: int = NEAR) -> Iterator[np.ndarray]:
    """
    Yield pairs of positions whose 64-bit codes differ in at most `near` bits, the smaller first, as int arrays (M, 2).

    Two codes within 10 bits differ in at most 2 bits in one of their first three bands of 16 bits, or else in at most
    1 bit in the last (pigeonhole). So for each band only codes with so near a band are compared: of random codes one
    pair in 500. A pair may come more than once. (Multi-index hashing: Norouzi, Punjani and Fleet 2012.)
    Each of the N codes (uint64) comes at most once: a thousand equal ones would make a million pairs.
    """
    for low in range(0, 64, 16):
        most = (near - low // 16) // 4  # bits
        flips = [sum(1 << bit for bit in bits) for n in range(most + 1) for bits in combinations(range(16), n)]
        band = (codes >> np.uint64(low) & np.uint64(0xFFFF)).astype(np.int64)
        order = np.argsort(band, kind="stable")
        sizes = np.bincount(band, minlength=2**16)
        starts = np.cumsum(sizes) - sizes  # where each band's codes begin in `order`
        for flip in flips:
            other = band ^ flip
            counts = sizes[other] * (other >= band)  # each two bands once
            for part in np.array_split(np.flatnonzero(counts), counts.sum() // CANDIDATES + 1):
                first = np.repeat(part, counts[part])
                begins = starts[other[part]] - np.cumsum(counts[part]) + counts[part]
                second = order[np.arange(len(first)) + np.repeat(begins, counts[part])]
                close = (np.bitwise_count(codes[first] ^ codes[second]) <= near) & (first != second)
                if close.any():
                    yield np.sort(np.stack([first[close], second[close]], axis=1), axis=1)


def linked(codes: np.ndarray) -> list[int]:
    """
    Return for each of N codes the first position that it is near to, directly or through others.

    >>> linked(np.array([0, 2**40 - 1, 1, 3], dtype=np.uint64))
    [0, 1, 0, 0]
    """
    distinct, own = np.unique(codes, return_inverse=True)
    links, size = [np.empty((0, 2), dtype=np.int64)], 0
    for pairs in near_pairs(distinct):
        links.append(pairs)
        size += len(pairs)
        if size > CANDIDATES:  # thousands that are all near to each other: keep only what links them
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
        name = min([earlier[id] for id in same if id in earlier] or same)
        groups.update(dict.fromkeys(same, name))
    return dict(sorted(groups.items()))
