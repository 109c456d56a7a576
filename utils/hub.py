"""
Weights that torchvision's networks have on the web: found in torch's own cache, or downloaded there, and checked.

Foundation of masks and training. The name of each file ends with the first digits of its SHA-256.
"""

import hashlib
from http.client import HTTPException
from pathlib import Path

import torch

from utils.errors import FieldguideError
from utils.storage import make_folder


def hub_weights(url: str, *, whose: str, instead: str, learned: str = "ImageNet") -> Path:
    """
    Return where the weights at an address lie on this machine.

    Raises FieldguideError if they cannot be had, or are not those that the name promises; `instead` is the way out, and
    `learned` the photos that they know.
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    sha256_begins = cached.stem.rpartition("-")[2]
    if not cached.exists():
        make_folder(cached.parent)
        try:
            torch.hub.download_url_to_file(url, str(cached), hash_prefix=sha256_begins)
        except (OSError, HTTPException, RuntimeError) as error:
            raise FieldguideError(
                f"The {learned} weights of {whose} could not be downloaded ({error}). {instead} in the project file, "
                "which needs no download; or connect to the internet (or, if the disk is full, free some space) and "
                f"run this again; or copy {url} to {cached}."
            ) from error
    with cached.open("rb") as file:
        digits = hashlib.file_digest(file, "sha256").hexdigest()
    if not digits.startswith(sha256_begins):
        raise FieldguideError(
            f"The weights in {cached} are not those that the name promises: their SHA-256 begins {digits[:8]}, not "
            f"{sha256_begins}. Delete that file and run this again."
        )
    return cached
