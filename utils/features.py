"""
What the packaged network sees in pictures: one row of numbers per picture, computed once and kept.

Foundation of `heads`, of the quick model in 04 and of 07's "unknown". Reads pictures as validation does: squished, and
the middle cut out. Keeps the numbers in data/<name>/features/, in files of at most 512 pictures, each written whole:
a run that is killed loses at most the last one. A picture counts as known by its id and the size of its file.
"""

import io
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm.auto import tqdm

from utils.backbone import COLOURS, FEATURES, RESAMPLE, WEIGHTS_SHA256, packaged_body
from utils.dataset import Dataset
from utils.pictures import PictureError, open_picture, squish_and_crop
from utils.project import FEATURE_SIZE, PACKAGED
from utils.storage import content_id, write_whole

CUT_OFF = 0.14  # RandomResizedCrop's val_xtra: the share at the edges that validation cuts off
FEATURES_FORM = 1  # of the files, and of how a picture reaches the network
FEATURES_NAME = f"{PACKAGED}-{WEIGHTS_SHA256[:8]}-{FEATURE_SIZE}px-{FEATURES_FORM}"
BATCH = 16  # pictures at once through the network, in each thread
KEPT_TOGETHER = 512  # pictures per file
LONGEST_FILE = 8 * 2**20  # bytes; ours have 1.4 million


def picture_features(dataset: Dataset) -> np.ndarray:
    """
    Return what the packaged network sees in N pictures: float32 array (N, 1280).

    Those known already are read, the others computed and kept. A picture that cannot be read has NaN.
    """
    folder = dataset.project.data / "features" / FEATURES_NAME
    sizes = np.array([file_size(path) for path in dataset.paths], dtype=np.int64)
    found = np.full((len(dataset), FEATURES), np.nan, dtype=np.float32)
    known = np.zeros(len(dataset), dtype=bool)
    for ids, of_files, rows in _kept(folder):
        places = np.array([dataset.position.get(id, -1) for id in ids.tolist()], dtype=np.int64)
        same = (places >= 0) & (sizes[places] == of_files)
        found[places[same]], known[places[same]] = rows[same], True
    missing = np.flatnonzero(~known & (sizes >= 0))
    if len(missing):
        start = 0
        for rows in _in_files(seen_by_network([dataset.paths[n] for n in missing])):
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


def seen_by_network(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """
    Yield the features (B, 1280) of batches of pictures, in order; NaN for one that cannot be read.

    Each thread opens its pictures and runs the network on them, on one core: nothing waits for the slowest thread. Also
    where there is a GPU: so small a network takes longer to get there than to run (benchmarks/README.md).
    """
    network = folded(packaged_body()).to(memory_format=torch.channels_last)
    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    with _one_thread_each(), tqdm(total=len(paths), desc="looking at pictures", unit="picture") as bar:
        pool = ThreadPoolExecutor(usable_cores(), thread_name_prefix="features")
        try:
            for rows in pool.map(lambda batch: _batch_features(network, batch), batches):
                yield rows
                bar.update(len(rows))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let torch use one thread per caller: the callers are as many as there are cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _batch_features(network: nn.Module, paths: Sequence[Path]) -> np.ndarray:
    """Return the features (B, 1280) of one batch of pictures."""
    pixels = [feature_pixels(path) for path in paths]
    rows = np.full((len(paths), FEATURES), np.nan, dtype=np.float32)
    there = [n for n, one in enumerate(pixels) if one is not None]
    if there:
        rows[there] = network_features(network, torch.from_numpy(np.stack([pixels[n] for n in there]))).numpy()
    return rows


def network_features(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Return the features (B, 1280) of pixels, uint8 (B, size, size, 3)."""
    mean, std = (torch.tensor(stat).view(1, 3, 1, 1) for stat in COLOURS)
    with torch.inference_mode():
        images = pixels.permute(0, 3, 1, 2).float() / 255  # (B, 3, size, size), channels last in memory
        return network((images - mean) / std).mean((2, 3))


def feature_pixels(path: Path) -> np.ndarray | None:
    """Return a picture as the network gets it, uint8 (128, 128, 3); None if it cannot be read."""
    try:
        image = open_picture(path)
    except (PictureError, OSError):
        return None
    extra = math.ceil(FEATURE_SIZE * CUT_OFF / 8) * 8
    return np.asarray(squish_and_crop(image, FEATURE_SIZE, extra=extra, resample=RESAMPLE))


def folded(module: nn.Module) -> nn.Module:
    """Return a network for judging with each normalisation folded into the convolution before it, which is quicker."""
    module.eval()
    layers: list[nn.Module] = []
    for name, layer in module.named_children():
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
        elif list(layer.children()):
            setattr(module, name, folded(layer))
            layers.append(getattr(module, name))
        else:
            layers.append(layer)
    return nn.Sequential(*layers) if isinstance(module, nn.Sequential) else module
