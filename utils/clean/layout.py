"""
Where pictures lie on the map: near those that look like them.

Keeps the places beside the features they were computed from, in data/<name>/features/map.npz, written whole. The idea
is t-SNE (van der Maaten and Hinton 2008) on the principal axes, begun at the first two of them, as Kobak and Berens
(Nature Communications 2019) advise; openTSNE computes it.
"""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.clean.live import principal_axes
from utils.machine import usable_cores
from utils.storage import write_whole

LAYOUT_FORM = 1  # of the file, and of how places are computed
LAYOUT_AXES = 50  # principal axes that t-SNE sees
PERPLEXITY = 30  # pictures, about, that count as near one
ROUGH, FINE = 60, 190  # rounds; 100 and 250 lower what t-SNE minimises by 1 % and take 1.7 times as long
SPREAD = 1e-4  # standard deviation of the places that t-SNE begins with
WORTH_CORES = 2000  # pictures, from which several cores are quicker than one
INTERVALS = 10  # at least, along a side of the grid of forces; 50, the default, take 2 s for 12 points
FEWEST_FOR_TSNE = 10  # pictures that t-SNE can arrange; fewer lie along their two principal axes
LARGEST_LAYOUT = 2**28  # bytes of a file that we read, packed or not; a million pictures take 16 million


def kept_layout(folder: Path, ids: Sequence[str], features: np.ndarray) -> np.ndarray:
    """
    Return places in the unit square, float32 (N, 2), as `picture_layout` does, read from `folder` if they are known.

    Pictures that were moved or taken out since leave the others where they were. If one is new, or half of them are
    gone, all are computed anew. A file that is broken or not ours is written anew.
    """
    path = folder / "map.npz"
    known = ~np.isnan(features).any(1)
    keys = np.array([_row_key(id, row) for id, row in zip(ids, features, strict=True)], dtype=np.uint64)
    kept_keys, kept_places = _read_layout(path)
    order = np.argsort(kept_keys, kind="stable")
    at = order[np.searchsorted(kept_keys[order], keys[known]).clip(max=len(order) - 1)] if len(order) else order
    if len(at) and 2 * len(at) >= len(order) and (kept_keys[at] == keys[known]).all():
        places = np.full((len(ids), 2), np.nan, dtype=np.float32)
        places[known] = kept_places[at]
        return places
    places = picture_layout(features)
    if known.any():
        buffer = io.BytesIO()
        np.savez(buffer, form=LAYOUT_FORM, keys=keys[known], places=places[known])
        write_whole(path, buffer.getvalue())
    return places


def _row_key(id: str, row: np.ndarray) -> int:
    """Return a number that stands for a picture and what is known of how it looks."""
    told = id.encode("utf-8", "surrogatepass") + b"\0" + row.tobytes()  # a file's name need not be valid text
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest())


def _read_layout(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return keys (M,) and places (M, 2) as they were kept; none of them if there is no such file, whole and ours."""
    try:
        if path.stat().st_size > LARGEST_LAYOUT:
            raise ValueError("too large")
        with np.load(path, allow_pickle=False) as arrays:
            if sum(part.file_size for part in arrays.zip.infolist()) > LARGEST_LAYOUT:
                raise ValueError("too large once unpacked")
            form, keys, places = (arrays[name] for name in ("form", "keys", "places"))
        ours = (form.shape, keys.dtype, places.dtype, places.shape) == ((), np.uint64, np.float32, (len(keys), 2))
        if not (ours and form == LAYOUT_FORM and ((places >= 0) & (places <= 1)).all()):
            raise ValueError("another form")
    except Exception:  # numpy and zipfile raise what they like; everything here can be computed anew
        return np.zeros(0, np.uint64), np.zeros((0, 2), np.float32)
    return keys, places


def picture_layout(features: np.ndarray) -> np.ndarray:
    """
    Return places in the unit square, float32 (N, 2), of pictures by their features (N, F): alike ones lie together.

    The same features give the same places, on one machine. A picture that nothing is known of has NaN.
    """
    places = np.full((len(features), 2), np.nan, dtype=np.float32)
    known = np.flatnonzero(~np.isnan(features).any(1))
    if len(known):
        axes = principal_axes(features[known], LAYOUT_AXES)[:, -2::-1].astype(np.float64)  # the largest first
        axes = np.pad(axes, ((0, 0), (0, max(0, 2 - axes.shape[1]))))
        places[known] = _in_unit_square(_arranged_by_tsne(axes) if len(known) >= FEWEST_FOR_TSNE else axes[:, :2])
    return places


def _arranged_by_tsne(axes: np.ndarray) -> np.ndarray:
    """Return places (M, 2) of pictures by their principal axes (M, D)."""
    from openTSNE import TSNEEmbedding, affinity  # seconds, which a cleaner without a map need not wait

    cores = usable_cores() if len(axes) >= WORTH_CORES else 1  # else threads wait for each other longer than they work
    near = affinity.PerplexityBasedNN(
        axes, perplexity=min(PERPLEXITY, (len(axes) - 1) / 3), method="exact", n_jobs=cores, random_state=0
    )
    begin = axes[:, :2] / max(axes[:, 0].std(), 1e-9) * SPREAD
    # Never all at one place: openTSNE 1.0 then brings the process down.
    begin += np.random.default_rng(0).normal(scale=SPREAD / 100, size=begin.shape)
    embedding = TSNEEmbedding(
        begin, near, negative_gradient_method="fft", min_num_intervals=INTERVALS, n_jobs=cores, random_state=0
    )
    embedding.optimize(ROUGH, exaggeration=12, momentum=0.5, inplace=True)
    embedding.optimize(FINE, exaggeration=1, momentum=0.8, inplace=True)
    return np.asarray(embedding)


def _in_unit_square(places: np.ndarray) -> np.ndarray:
    """Return places moved and scaled, both ways alike, to lie around the middle of the unit square."""
    low, high = places.min(0), places.max(0)
    return ((places - (low + high) / 2) / max(float((high - low).max()), 1e-9) * 0.98 + 0.5).clip(0, 1)
