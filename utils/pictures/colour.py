"""
Colours of any kind as sRGB: what a picture's own colour profile says of them.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert to sRGB from the picture's own colour profile; a broken profile counts as none, as browsers do."""
    transform = srgb_transform(profile, image.mode)
    try:
        return transform.apply(image) if transform else image
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image


@lru_cache(maxsize=8)  # most photos carry one of a few profiles, and preparing one costs as much as decoding
def srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the way from a colour profile to sRGB, None where it is broken, of another kind of colours, or no way."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        return None if mode == "RGB" and _changes_nothing(transform) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Return whether no colour moves by over one of 255 levels: as most photos', the profile then is sRGB itself."""
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(18, -1, 3)  # all their mixtures
    moved = np.asarray(transform.apply(Image.fromarray(colours))).astype(int) - colours
    return int(np.abs(moved).max()) <= 1
