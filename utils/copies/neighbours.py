"""
Which pictures are worth comparing: the nearest by what the packaged network sees, by hash, and in time or number.
"""

import numpy as np
import torch

NEIGHBOURS = 5  # per picture
AT_ONCE = 2**25  # similarities in memory: 128 MB


def feature_neighbours(features: np.ndarray, most: int = NEIGHBOURS) -> np.ndarray:
    """
    Return pairs of positions (M, 2), the smaller first: of N pictures each with the `most` nearest by cosine.

    `features` is float32 (N, D). A row of NaN, a picture that could not be read, is no one's neighbour. The search is
    exact. It goes by blocks of rows, so that memory grows with N and not with its square.
    """
    places = np.flatnonzero(~np.isnan(features).any(axis=1))
    most = min(most, len(places) - 1)
    if most < 1:
        return np.empty((0, 2), dtype=np.int64)
    unit = torch.nn.functional.normalize(torch.from_numpy(features[places]), dim=1)
    rows, found = max(1, AT_ONCE // len(places)), []
    for start in range(0, len(places), rows):
        like = unit[start : start + rows] @ unit.T
        own = torch.arange(len(like))
        like[own, start + own] = -2.0
        near = like.topk(most, dim=1).indices.numpy()
        found.append(np.stack([np.repeat(start + own.numpy(), most), near.ravel()], axis=1))
    return np.unique(np.sort(places[np.concatenate(found)], axis=1), axis=0)


def following(order: np.ndarray, values: np.ndarray, gap: float, ahead: int = 2) -> np.ndarray:
    """
    Return pairs of positions (M, 2) that follow each other within `gap`, in an order of ascending values.

    With two `ahead`, one blurred frame does not break a sequence.
    """
    steps = [(order[:-step], order[step:]) for step in range(1, ahead + 1) if len(order) > step]
    near = [np.stack([a, b], axis=1)[values[b] - values[a] <= gap] for a, b in steps]
    return np.sort(np.concatenate([np.empty((0, 2), dtype=np.int64), *near]), axis=1)
