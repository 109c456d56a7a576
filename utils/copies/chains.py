"""
From links to groups: what is joined, where a chain is cut, and what a group is called.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from utils.copies.geometry import SAME_PICTURE
from utils.copies.verdicts import Verdicts

# Links may chain: a picture, its left half, what overlaps that, and so on. Few pictures do no harm. Many would take up
# a label, and the first has nothing in common with the last. So a longer chain is cut into stars: a picture with all
# that are the same as it.
LONGEST_CHAIN = 50  # pictures


def joined(count: int, links: Sequence[np.ndarray]) -> np.ndarray:
    """
    Return for each of N positions the smallest that it is linked to, directly or through others: (N,).

    >>> joined(5, [np.array([[0, 3]]), np.array([[3, 4]])]).tolist()
    [0, 1, 2, 0, 0]
    """
    pairs = np.concatenate(links)
    graph = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, first, component = np.unique(
        connected_components(graph, directed=False)[1], return_index=True, return_inverse=True
    )
    return first[component]


def stars(links: np.ndarray, count: int, verdicts: Verdicts) -> np.ndarray:
    """Return links (M, 2) of the same pictures, with chains of more than `LONGEST_CHAIN` pictures cut into stars."""
    roots = joined(count, [links])
    sizes = np.bincount(roots, minlength=count)
    long = sizes[roots] > LONGEST_CHAIN
    kept = [links[~long[links[:, 0]]]]
    beside: dict[int, set[int]] = defaultdict(set)
    for a, b in links[long[links[:, 0]]].tolist():
        beside[a].add(b)
        beside[b].add(a)
    for root in np.flatnonzero(sizes > LONGEST_CHAIN):
        left = set(np.flatnonzero(roots == root).tolist())
        while left:
            centre = max(left, key=lambda n: (len(beside[n]), -n))
            star, asked, fresh = set(), {centre}, beside[centre] & left
            while fresh := sorted(fresh - asked):
                asked |= set(fresh)
                pairs = np.sort([[centre, n] for n in fresh], axis=1)
                same = np.array(fresh)[verdicts.of(pairs) == SAME_PICTURE].tolist()
                star |= set(same)
                fresh = {other for n in same for other in beside[n]} & left
            left -= star | {centre}
            kept.append(np.array([(centre, n) for n in sorted(star)], dtype=np.int64).reshape(-1, 2))
    return np.concatenate(kept)


def name_groups(ids: Sequence[str], roots: Sequence[int], earlier: Mapping[str, str]) -> dict[str, str]:
    """Return id → group name: an earlier name of a member where there is one, else the smallest id."""
    members: dict[int, list[str]] = defaultdict(list)
    for id, root in zip(ids, roots, strict=True):
        members[root].append(id)
    groups = {}
    for same in members.values():
        name = min([earlier[id] for id in same if id in earlier] or same)
        groups.update(dict.fromkeys(same, name))
    return dict(sorted(groups.items()))
