"""
Stage 04, the network: torchvision's, by name, and its ImageNet weights.

Reads torch's own cache and writes there what it downloads. torchvision makes the networks and fastai cuts them. Whether
that works is found out beforehand, without weights.
"""

import warnings
from collections.abc import Callable
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path

import torch
import torchvision
from fastai.vision.all import create_body, no_random
from fastai.vision.learner import _default_meta, create_vision_model, model_meta

from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import content_id, make_folder

SIZES = (64, 128, 224, 512)  # pixels; the first that is enough for a network is advised


def architecture(project: Project) -> Callable:
    """
    Return the torchvision function of the project's `arch`, such as ``resnet18``.

    A network is refused that torchvision does not have, that fastai can't cut into body and head, or for which
    pictures of `size` are too small.
    """
    if project.arch not in torchvision.models.list_models(module=torchvision.models):
        raise FieldguideError(
            f"arch = {project.arch!r} is not a model of torchvision {torchvision.__version__}. Write one such as "
            "resnet18, resnet34 or resnet50."
        )
    arch = getattr(torchvision.models, project.arch)
    # fastai asks torchvision in an old way for the networks that it doesn't list: nothing a person could put right.
    warnings.filterwarnings("ignore", message=".*deprecated since 0.13", module="torchvision.models._utils")
    if (error := _failure(arch, project.size)) is None:
        return arch
    if project.size < SIZES[-1] and _failure(arch, SIZES[-1]) is None:
        enough = next(size for size in SIZES if size > project.size and _failure(arch, size) is None)
        raise FieldguideError(
            f"size = {project.size} is too small for arch = {project.arch!r}. Set size = {enough}, or write another "
            "arch, such as resnet18."
        ) from error
    raise FieldguideError(
        f"arch = {project.arch!r} is a network that fastai's vision_learner cannot cut into body and head. Write "
        "another one, such as resnet18, resnet34 or resnet50."
    ) from error


def _failure(arch: Callable, size: int) -> Exception | None:
    """Return what fastai fails with when it makes the network and shows it pictures of `size`, or None."""
    try:
        with no_random(), torch.device("meta"), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            create_vision_model(arch, 2, pretrained=False)(torch.zeros(2, 3, size, size))
    except Exception as error:  # each network fails in its own way
        return None if "meta tensor" in str(error) else error  # regnet's cannot be made without numbers
    return None


def imagenet_weights(arch: Callable) -> torchvision.models.WeightsEnum:
    """Return the ImageNet weights that ``vision_learner`` takes for a network: not always torchvision's best."""
    known = torchvision.models.get_model_weights(arch).__members__
    name = model_meta.get(arch, {}).get("weights", "IMAGENET1K_V1")
    if name not in known:
        raise FieldguideError(
            f"torchvision has no ImageNet weights {name} for arch = {arch.__name__!r}. Write another arch, such as "
            'resnet50, or set weights = "none" in the project file to train from scratch.'
        )
    return known[name]


def download_weights(project: Project) -> bool:
    """Make sure that the ImageNet weights are on this machine; return whether the project wants them."""
    if project.weights == "none":
        return False
    url = imagenet_weights(architecture(project)).url
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not cached.exists():
        make_folder(cached.parent)
        sha256_begins = cached.stem.rpartition("-")[2]
        try:
            torch.hub.download_url_to_file(url, str(cached), hash_prefix=sha256_begins)
        except (OSError, HTTPException, RuntimeError) as error:
            raise FieldguideError(
                f"The ImageNet weights of {project.arch} could not be downloaded ({error}). Connect to the internet "
                f"(or, if the disk is full, free some space) and run this again; or copy {url} to {cached}; or set "
                'weights = "none" in the project file to train from scratch.'
            ) from error
    try:
        torch.load(cached, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds on a broken file, and advises to trust it
        raise FieldguideError(f"The weights in {cached} are broken. Delete that file and run this again.") from error
    return True


def pretrained_body(project: Project) -> torch.nn.Module | None:
    """Return the network of `arch` with ImageNet weights and without its head, or None with ``weights = "none"``."""
    if not download_weights(project):
        return None
    arch = architecture(project)
    return create_body(arch(weights=imagenet_weights(arch)), cut=model_meta.get(arch, {}).get("cut"))


@lru_cache(maxsize=16)
def network_facts(arch: Callable, labels: int) -> tuple[str, tuple[int, ...]]:
    """Return what 04's network is: 16 hex digits of its layers, and how many numbers each group of layers has."""
    try:
        with no_random(), torch.device("meta"):
            network = create_vision_model(arch, labels, pretrained=False)
    except NotImplementedError:  # regnet's cannot be made without numbers
        with no_random():
            network = create_vision_model(arch, labels, pretrained=False)
    groups = model_meta.get(arch, _default_meta)["split"](network)
    return content_id(repr(network).encode()), tuple(sum(p.numel() for p in group) for group in groups)


@lru_cache(maxsize=16)
def seeded_start(*, arch: str, weights: str, seed: int, labels: int) -> str:
    """Return the `weights_id` of the network that 04 begins with."""
    with no_random(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return weights_id(create_vision_model(getattr(torchvision.models, arch), labels, pretrained=weights != "none"))


def weights_id(network: torch.nn.Module) -> str:
    """Return 16 hex digits that change with any weight."""
    return content_id(b"".join(value.cpu().numpy().tobytes() for value in network.state_dict().values()))
