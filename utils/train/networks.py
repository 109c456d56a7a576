"""
Stage 04, the network: by its name in the project file, with its weights and what it wants of pictures.

Reads the packaged weights, a file that the project names, or torch's own cache, and writes there what it downloads.
fastai cuts networks into body and head. Whether it does so rightly is found out beforehand.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import safetensors.torch
import torch
import torchvision
from fastai.layers import Flatten
from fastai.vision.all import imagenet_stats, no_random
from fastai.vision.learner import _default_meta, create_body, create_vision_model, model_meta
from PIL import Image
from torch import nn

from utils import backbone
from utils.backbone import efficientnet_lite0
from utils.errors import FieldguideError
from utils.hub import hub_weights
from utils.masks import mask_front, masker_file
from utils.project import FEATURES, PACKAGED, TIMM, WEIGHTS, Project
from utils.sections import as_setting, multiples
from utils.storage import content_id, file_stamp
from utils.train.masked import with_mask
from utils.train.timm_networks import download_timm_weights, timm_network, timm_recipe

SIZES = (64, 128, 224, 512)  # pixels; the first that is enough for a network is advised
LEAST_BODY = 0.5  # of a network's numbers, those of the classifier aside: with fewer it was cut at the wrong place
SAME = 1e-4  # of scores: two ways to calculate differ in the last digits
OTHERS = "Write another one, such as resnet18, resnet34, resnet50 or efficientnet_lite0."


@dataclass(frozen=True)
class Preparation:
    """What a network wants of pictures."""

    stats: tuple[tuple[float, ...], tuple[float, ...]]  # mean and spread of three colours, of values in [0, 1]
    resamples: tuple[Image.Resampling, Image.Resampling]  # how fastai reduces pictures, and masks


def preparation(project: Project) -> Preparation:
    """Return what the project's network wants of pictures: its colours' mean and spread, and how to reduce."""
    arch = _named(project)
    if project.arch == PACKAGED:
        stats, resample = backbone.COLOURS, backbone.RESAMPLE
    elif project.arch.startswith(TIMM):
        recipe = timm_recipe(project.arch)
        stats, resample = (recipe.mean, recipe.std), Image.Resampling[recipe.interpolation.upper()]
    else:
        known = torchvision.models.get_model_weights(arch).__members__
        wanted = next(iter(known.values())).transforms() if known else None
        stats = (tuple(wanted.mean), tuple(wanted.std)) if wanted else tuple(map(tuple, imagenet_stats))
        resample = Image.Resampling[wanted.interpolation.name] if wanted else Image.Resampling.BILINEAR
    return Preparation(stats, (resample, Image.Resampling.NEAREST))


def architecture(project: Project) -> Callable:
    """
    Return the function that makes the project's network: torchvision's ``resnet18``, or ours of ``efficientnet_lite0``.

    If `weights` is a file, the function puts these into it. A network is refused that torchvision does not have, that
    cannot be cut into body and head, or for which pictures of `size` are too small.
    """
    arch = _named(project)
    # fastai asks torchvision in an old way for the networks that it doesn't list: nothing a person could put right.
    warnings.filterwarnings("ignore", message=".*deprecated since 0.13", module="torchvision.models._utils")
    _require_cut(arch, project)
    sides = project.height_width
    if project.arch == PACKAGED and any(side % backbone.STEP for side in sides):
        warnings.warn(
            f"size = {as_setting(sides)} is not a multiple of {backbone.STEP}, and {PACKAGED} sees such pictures "
            f"shifted. Set size = {as_setting(multiples(sides, backbone.STEP))} in the project file.",
            stacklevel=2,
        )
    if project.weights not in WEIGHTS:
        path = Path(project.weights)
        arch = _with_weights(arch, path, tuple(file_stamp(path)))
    if project.mask == "none":
        return arch
    masker = masker_file(project)
    return _with_front(arch, project.mask, masker, tuple(file_stamp(masker)), sides, preparation(project).stats)


def _named(project: Project) -> Callable:
    """Return the function that makes the network of this name, or refuse a name that nobody knows."""
    if project.arch == PACKAGED:
        return efficientnet_lite0
    if project.arch.startswith(TIMM):
        return timm_network(project.arch, project.height_width)
    if project.arch in torchvision.models.list_models(module=torchvision.models):
        return getattr(torchvision.models, project.arch)
    raise FieldguideError(
        f"arch = {project.arch!r} is not a model of torchvision {torchvision.__version__}. Write one such as resnet18, "
        f"resnet34, resnet50 or {PACKAGED}, or timm/NAME for a network of timm."
    )


def _require_cut(arch: Callable, project: Project) -> None:
    """Refuse a network that has no right cut, or is too deep for the project's pictures; teach fastai the right cut."""
    sides = project.height_width
    if (error := _failure(arch, sides)) is None:
        if _kept_share(arch) >= LEAST_BODY:
            return
    elif enough := next((larger for larger in _larger(sides) if _failure(arch, larger) is None), None):
        raise FieldguideError(
            f"size = {as_setting(sides)} is too small for arch = {project.arch!r}. Set size = {as_setting(enough)}, or "
            "write another arch, such as resnet18."
        ) from error
    if not _pools_last(arch):
        raise FieldguideError(
            f"arch = {project.arch!r} is a network that fastai's vision_learner cannot cut into body and head. {OTHERS}"
        ) from error
    # fastai ignores the argument `cut` of vision_learner. This table of its own is what it goes by.
    model_meta[arch] = {**_default_meta, "cut": -1}


def _larger(sides: tuple[int, int]) -> list[tuple[int, int]]:
    """Return larger sizes to advise: where a side is smaller than one in `SIZES`, it becomes that."""
    wider = [tuple(max(side, size) for side in sides) for size in SIZES]
    return [size for size in wider if size != sides]


def _without_numbers(make: Callable[[], nn.Module]) -> nn.Module:
    """Return what `make` makes, without numbers where that can be: it costs nothing."""
    with no_random(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                return make()
        except NotImplementedError:  # regnet's cannot be made without numbers
            return make()


@lru_cache(maxsize=64)
def _failure(arch: Callable, size: tuple[int, int]) -> Exception | None:
    """Return what fastai fails with when it makes the network and shows it pictures of a height and width, or None."""
    try:
        with no_random(), torch.device("meta"), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            create_vision_model(arch, 2, pretrained=False)(torch.zeros(2, 3, *size))
    except Exception as error:  # each network fails in its own way
        return None if "meta tensor" in str(error) else error  # regnet's cannot be made without numbers
    return None


@lru_cache(maxsize=64)
def _kept_share(arch: Callable) -> float:
    """Return how much of a network, its last part (the classifier) aside, fastai keeps as its body: 1 is all of it."""
    whole = _without_numbers(partial(_untrained, arch))
    numbers = sum(p.numel() for layer in list(whole.children())[:-1] for p in layer.parameters())
    body = create_body(whole, pretrained=False, cut=model_meta.get(arch, _default_meta)["cut"])
    return sum(p.numel() for p in body.parameters()) / numbers


@lru_cache(maxsize=64)
def _pools_last(arch: Callable, size: int = 64) -> bool:
    """Return whether a network is its layers one after the other, a mean over places, and its last layer."""
    try:
        with no_random(), torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = arch(weights=None).eval()
            *layers, last = whole.children()
            picture = torch.rand(1, 3, size, size)
            maps = nn.Sequential(*layers)(picture)
            return maps.ndim == 4 and torch.allclose(last(maps.mean((2, 3))), whole(picture), atol=SAME)
    except Exception:  # each network fails in its own way
        return False


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
    """Make sure that the pretrained weights are on this machine; return whether the project wants any."""
    if project.weights == "none":
        return False
    if project.weights not in WEIGHTS:
        architecture(project)  # reads the file, and compares it with the network
        return True
    if project.arch == PACKAGED:
        backbone.packaged_weights()
        return True
    if project.arch.startswith(TIMM):
        download_timm_weights(project.arch, _named(project))
        return True
    hub_weights(imagenet_weights(_named(project)).url, whose=project.arch, instead=f'Set arch = "{PACKAGED}"')
    return True


@lru_cache(maxsize=4)
def _with_weights(arch: Callable, path: Path, stamp: tuple[int, ...]) -> Callable:
    """Return a function that makes a network, if pretrained with a file's weights; a new file has another `stamp`."""
    weights = fitting_weights(arch, path)

    def network(pretrained: bool = False) -> nn.Module:
        model = _untrained(arch)
        if pretrained:
            model.load_state_dict(weights, strict=False)  # all but the last layer, which fastai replaces
        return model

    return _called_as(arch, network)


@lru_cache(maxsize=4)
def _with_front(arch: Callable, way: str, masker: Path, stamp: tuple[int, ...], sides, stats) -> Callable:
    """Return a function that makes a network which finds the thing first; a new masker has another `stamp`."""

    def bare(pretrained: bool) -> nn.Module:
        if not pretrained:
            return _untrained(arch)
        return arch(weights=imagenet_weights(arch)) if _of_torchvision(arch) else arch(pretrained=True)

    return _called_as(arch, with_mask(bare, mask_front(way, masker, sides, stats), sides))


def asked_front(project: Project) -> nn.Module:
    """Return the layers that find the thing in the project's network."""
    return mask_front(project.mask, masker_file(project), project.height_width, preparation(project).stats)


def _called_as(arch: Callable, network: Callable) -> Callable:
    """Let fastai take a function for another's network, whose weights `pretrained` asks for, and return it."""
    network.__name__ = arch.__name__
    meta = model_meta.get(arch, _default_meta)
    model_meta[network] = {key: value for key, value in meta.items() if key != "weights"}
    return network


def _of_torchvision(arch: Callable) -> bool:
    """Return whether a function is torchvision's own: it takes `weights`, the others `pretrained`."""
    return arch.__module__.startswith("torchvision.")


def _untrained(arch: Callable) -> nn.Module:
    """Return a network with random numbers."""
    return arch(weights=None) if _of_torchvision(arch) else arch(pretrained=False)


def fitting_weights(arch: Callable, path: Path) -> dict[str, torch.Tensor]:
    """
    Return the weights in a .safetensors or .pth file, or refuse those of another network; nothing in it can run.

    The last layer may be missing or have another number of labels: it is not used.
    """
    model = _untrained(arch)
    found, wanted = read_weights(path), model.state_dict()
    unused = _classifier(model, {**wanted, **found})
    wrong = [
        f"{name} ({_shape(found.get(name))} instead of {_shape(wanted.get(name))})"
        for name in dict.fromkeys([*wanted, *found])
        if name not in unused and _shape(found.get(name)) != _shape(wanted.get(name))
    ]
    if wrong:
        raise FieldguideError(
            f"weights = {str(path)!r} does not fit arch = {arch.__name__!r}: {len(wrong)} of its parts differ, first "
            f"{', '.join(wrong[:3])}. Name the network that these weights were made for."
        )
    return {name: value for name, value in found.items() if name not in unused}


def _classifier(model: nn.Module, names: Iterable[str]) -> set[str]:
    """Return the names of the numbers in a network's last layer, which fastai replaces."""
    if hasattr(model, "pretrained_cfg"):  # timm says it: some have two, a transformer made for features has none
        told = model.pretrained_cfg["classifier"] or ()
        lasts = (told,) if isinstance(told, str) else tuple(told)
    else:
        kinds = nn.Linear, nn.Conv2d  # squeezenet's is a convolution
        lasts = ([name for name, layer in model.named_modules() if isinstance(layer, kinds)][-1],)
    return {name for name in names if name.rpartition(".")[0] in lasts}


def _shape(value: torch.Tensor | None) -> str:
    """Return the shape of a tensor in words."""
    return "nothing" if value is None else "×".join(map(str, value.shape)) or "a number"


def read_weights(path: Path) -> Mapping[str, torch.Tensor]:
    """Return the tensors in a .safetensors or .pth file by name; nothing in it can run."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
        found = next((found[key] for key in ("state_dict", "model") if isinstance(found.get(key), dict)), found)
        if not found or not all(isinstance(value, torch.Tensor) for value in found.values()):
            raise ValueError("it holds something other than tensors")
        return found
    except FileNotFoundError:
        raise FieldguideError(f"weights = {str(path)!r} is no file. Correct it in the project file.") from None
    except Exception as error:  # both libraries raise many kinds on a broken file, and torch advises to trust it
        raise FieldguideError(
            f"weights = {str(path)!r} cannot be read as weights ({(str(error).splitlines() or ['broken'])[0][:120]}). "
            "Name a .safetensors or .pth file that holds a network's state_dict."
        ) from error


def linear_head(labels: int) -> nn.Sequential:
    """Return a head for the packaged network: pooling and one linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), Flatten(), nn.Linear(FEATURES, labels))


@lru_cache(maxsize=16)
def network_facts(arch: Callable, labels: int, *, linear: bool) -> tuple[str, tuple[int, ...]]:
    """Return what 04's network is: 16 hex digits of its layers, and how many numbers each group of layers has."""
    options = {"custom_head": linear_head(labels), "init": None} if linear else {}
    network = _without_numbers(partial(create_vision_model, arch, labels, pretrained=False, **options))
    groups = model_meta.get(arch, _default_meta)["split"](network)
    return content_id(repr(network).encode()), tuple(sum(p.numel() for p in group) for group in groups)


@lru_cache(maxsize=16)
def seeded_start(arch: Callable, *, pretrained: bool, seed: int, labels: int) -> str:
    """Return the `weights_id` of the network that 04 begins with."""
    with no_random(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return weights_id(create_vision_model(arch, labels, pretrained=pretrained))


def weights_id(network: torch.nn.Module) -> str:
    """Return 16 hex digits that change with any weight."""
    return content_id(b"".join(value.cpu().numpy().tobytes() for value in network.state_dict().values()))
