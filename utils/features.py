"""
What the packaged network sees in pictures: one row of numbers per picture, computed once and kept.

Foundation of `heads`, of the quick model in 04 and of 07's "unknown". Reads pictures as validation does: squished, and
the middle cut out. Keeps the numbers in data/<name>/features/, in files of at most 512 pictures, each written whole:
a run that is killed loses at most the last one. A picture counts as known by its id and the size of its file. The
network itself runs in `seeing`.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.dataset import Dataset
from utils.project import FEATURE_SIZE, FEATURES, PACKAGED, PACKAGED_SHA256
from utils.storage import MINUTE, content_id, remove_leftovers, write_whole

FEATURES_FORM = 1  # of the files, and of how a picture reaches the network
KEPT_TOGETHER = 512  # pictures per file
LONGEST_FILE = 8 * 2**20  # bytes; ours have 1.4 million


@dataclass(frozen=True)
class Front:
    """What pictures pass before the network."""

    name: str  # changes with its numbers; part of a folder's name
    layers: object  # torch.nn.Module; not named here, as 02 and 03 start without torch


def features_name(size: int | Sequence[int], front: Front | None = None) -> str:
    """Return what names the features of pictures at `size` pixels: network, weights, size, form, and what is before."""
    pixels = size if isinstance(size, int) else "x".join(map(str, size))
    before = f"-{front.name}" if front else ""
    return f"{PACKAGED}-{PACKAGED_SHA256[:8]}-{pixels}px-{FEATURES_FORM}{before}"


FEATURES_NAME = features_name(FEATURE_SIZE)


def picture_features(
    dataset: Dataset, *, size: int | Sequence[int] = FEATURE_SIZE, front: Front | None = None
) -> np.ndarray:
    """
    Return what the packaged network sees in N pictures, reduced to `size` pixels: float32 array (N, 1280).

    `size` is one number, or height and width; `front` goes before the network. Those known already are read, the others
    computed and kept. A picture that cannot be read has NaN.
    """
    folder = dataset.project.data / "features" / features_name(size, front)
    sizes = np.array([file_size(path) for path in dataset.paths], dtype=np.int64)
    found = np.full((len(dataset), FEATURES), np.nan, dtype=np.float32)
    known = np.zeros(len(dataset), dtype=bool)
    for ids, of_files, rows in _kept(folder):
        places = np.array([dataset.position.get(id, -1) for id in ids.tolist()], dtype=np.int64)
        same = (places >= 0) & (sizes[places] == of_files)
        found[places[same]], known[places[same]] = rows[same], True
    missing = np.flatnonzero(~known & (sizes >= 0))
    if len(missing):
        from utils.seeing import seen_by_network  # loads torch: 3 s and 600 MB that 02 and 03 can start without

        start = 0
        for rows in _in_files(seen_by_network([dataset.paths[n] for n in missing], size, front and front.layers)):
            places = missing[start : start + len(rows)]
            start += len(rows)
            found[places] = rows.astype(np.float16)  # as it is kept: this call and the next give the same
            readable = places[~np.isnan(rows).any(1)]
            _keep(folder, [dataset.ids[n] for n in readable], sizes[readable], found[readable])
    return found


def file_size(path: Path) -> int:
    """Return the size of a file in bytes; -1 if it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _kept(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield ids (M,), sizes in bytes (M,) and features (M, 1280) of each whole file; a broken one is removed."""
    remove_leftovers(folder, below=False, older=MINUTE)
    for path in sorted(folder.glob("*.npz")):
        try:
            if path.stat().st_size > LONGEST_FILE:
                raise ValueError("too large")
            with np.load(path, allow_pickle=False) as arrays:
                ids, sizes, rows = (arrays[name] for name in ("ids", "sizes", "features"))
            whole = ids.dtype.kind == "U" and sizes.dtype == np.int64 and rows.dtype == np.float16
            if not (whole and ids.shape == sizes.shape and rows.shape == (len(ids), FEATURES)):
                raise ValueError("another form")
        except FileNotFoundError:  # another notebook removed it
            continue
        except Exception:  # numpy and zipfile raise what they like; everything here can be computed anew
            path.unlink(missing_ok=True)
            continue
        yield ids, sizes, rows


def _keep(folder: Path, ids: Sequence[str], sizes: np.ndarray, rows: np.ndarray) -> None:
    """Write one file, named by its content: two notebooks that compute the same write the same."""
    if len(ids):
        buffer = io.BytesIO()
        np.savez(buffer, ids=np.array(ids, dtype=str), sizes=sizes, features=rows.astype(np.float16))
        write_whole(folder / f"{content_id(buffer.getvalue())}.npz", buffer.getvalue())


def _in_files(batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield batches of rows joined to as many as one file holds."""
    waiting: list[np.ndarray] = []
    with closing(batches):
        for rows in batches:
            waiting.append(rows)
            if sum(map(len, waiting)) >= KEPT_TOGETHER:
                yield np.concatenate(waiting)
                waiting = []
        if waiting:
            yield np.concatenate(waiting)
