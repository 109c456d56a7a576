"""
The packaged network at work: pictures as validation shows them, and what the network sees in them.

Foundation of `features`, which keeps what comes out.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm.auto import tqdm

from utils.backbone import COLOURS, RESAMPLE, packaged_body
from utils.graph import runtime_network
from utils.machine import in_threads
from utils.pictures import PictureError, height_and_width, margins, open_picture, squish_and_crop
from utils.project import FEATURE_SIZE, FEATURES

BATCH = 8  # pictures at once through the network, in each thread


def mask_front_of(model: nn.Module) -> nn.Module | None:
    """
    Return the layers in front of a network that find the thing, as utils.masks makes them, or None.

    They are the largest part that learns nothing and holds a convolution: layers that blur (timm's resnetblur) hold
    numbers and learn nothing, too.
    """
    fixed = (layer for layer in model.modules() if list(layer.children()) and not list(layer.parameters()))
    return next((layer for layer in fixed if any(isinstance(part, nn.Conv2d) for part in layer.modules())), None)


def seen_by_network(
    paths: Sequence[Path], size: int | Sequence[int] = FEATURE_SIZE, front: nn.Module | None = None
) -> Iterator[np.ndarray]:
    """
    Yield the features (B, 1280) of batches of pictures at `size` pixels, in order; NaN for one that cannot be read.

    `front` are layers before the network, which cut or paint its pictures.

    Each thread opens its pictures and runs the network on them, on one core: nothing waits for the slowest thread. Also
    where there is a GPU: so small a network takes longer to get there than to run (benchmarks/README.md).
    """
    network = packaged_network()
    network = nn.Sequential(front, network) if front else network
    height, width = height_and_width(size)
    batch = max(1, BATCH * FEATURE_SIZE**2 // (height * width))  # large pictures take memory on each core
    batches = [paths[start : start + batch] for start in range(0, len(paths), batch)]
    with one_thread_each(), tqdm(total=len(paths), desc="looking at pictures", unit="picture") as bar:
        for rows in in_threads(lambda batch: _batch_features(network, batch, size), batches):
            yield rows
            bar.update(len(rows))


def packaged_network() -> nn.Module:
    """Return the packaged network without its head, ready for judging: pixels (B, 3, H, W) to maps (B, 1280, h, w)."""
    network = folded(packaged_body())  # twice as quick in onnxruntime (benchmarks/README.md)
    return runtime_network(network) or network.to(memory_format=torch.channels_last)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let torch use one thread per caller: callers may be as many as cores, and sums are added up in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _batch_features(network: nn.Module, paths: Sequence[Path], size: int | Sequence[int]) -> np.ndarray:
    """Return the features (B, 1280) of one batch of pictures."""
    pixels = [feature_pixels(path, size) for path in paths]
    rows = np.full((len(paths), FEATURES), np.nan, dtype=np.float32)
    there = [n for n, one in enumerate(pixels) if one is not None]
    if there:
        rows[there] = network_features(network, torch.from_numpy(np.stack([pixels[n] for n in there]))).numpy()
    return rows


def network_features(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Return the features (B, 1280) of pixels, uint8 (B, H, W, 3)."""
    mean, std = (torch.tensor(stat).view(1, 3, 1, 1) for stat in COLOURS)
    with torch.inference_mode():
        images = pixels.permute(0, 3, 1, 2).float() / 255  # (B, 3, H, W), channels last in memory
        return network((images - mean) / std).mean((2, 3))


def feature_pixels(path: Path, size: int | Sequence[int] = FEATURE_SIZE) -> np.ndarray | None:
    """Return a picture as the network gets it, uint8 (H, W, 3); None if it cannot be read."""
    try:
        image = open_picture(path)
    except (PictureError, OSError):
        return None
    return image_pixels(image, size)


def image_pixels(image: Image.Image, size: int | Sequence[int] = FEATURE_SIZE) -> np.ndarray:
    """Return an open picture as the network gets it, uint8 (H, W, 3)."""
    return np.asarray(squish_and_crop(image, size, extra=margins(size), resample=RESAMPLE))


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
