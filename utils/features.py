"""
What a network's body makes of pictures: one row of numbers per picture, for simple models and distances.

Foundation of `heads` (06) and of 07's "unknown". Reads pictures through the validation transforms; writes nothing.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from fastai.vision.all import Learner, default_device, imagenet_stats
from tqdm.auto import tqdm

from utils.pictures import open_picture, squish_and_crop

BODY_BATCH = 32  # pictures at once through the frozen body
VALIDATION_EXTRA = 0.14  # RandomResizedCrop's val_xtra: the share at the edges that validation cuts off


def learned_features(learn: Learner, paths: Sequence[Path]) -> np.ndarray:
    """Return the features of N pictures, through the validation transforms, in a learner's body: float array (N, F)."""
    body = learn.model[0].eval()
    features = []
    with torch.inference_mode():
        for (batch,) in tqdm(learn.dls.test_dl(list(paths)), desc="features", unit="batch"):
            features.append(body(batch).mean((2, 3)).float().cpu().numpy())  # (B, F)
    return np.concatenate(features)


def frozen_features(body: torch.nn.Module, paths: Sequence[Path], *, size: int) -> np.ndarray:
    """Return the body's features of N pictures, prepared as for validation, averaged over each: float array (N, F)."""
    device = default_device()
    body = body.to(device).eval()
    mean, std = (torch.tensor(stat, device=device).view(1, 3, 1, 1) for stat in imagenet_stats)
    features = []
    with torch.inference_mode():
        for start in tqdm(range(0, len(paths), BODY_BATCH), desc="features", unit="batch"):
            pixels = [_body_pixels(path, size) for path in paths[start : start + BODY_BATCH]]
            batch = torch.from_numpy(np.stack(pixels)).to(device).permute(0, 3, 1, 2) / 255  # (B, 3, size, size)
            features.append(body((batch - mean) / std).mean((2, 3)).cpu().numpy())  # (B, F)
    return np.concatenate(features)


def _body_pixels(path: Path, size: int) -> np.ndarray:
    """Return one picture as the model sees it: uint8 (size, size, 3)."""
    extra = math.ceil(size * VALIDATION_EXTRA / 8) * 8
    return np.asarray(squish_and_crop(open_picture(path), size, extra=extra))
