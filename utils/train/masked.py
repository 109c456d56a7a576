"""
Stage 04, mask = "channel": a network that makes the mask of its picture itself, as a fourth channel beside R, G and B.

Reads models/<name>/masker.safetensors (03a). The masker stands in front of the first convolution, inside the one
network: pictures alone go in, after augmentation, so mask and picture are always moved alike. Its numbers are buffers,
which no training changes. All layers are torch's and fastai's own.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from fastai.layers import Cat
from fastai.torch_core import no_random
from torch import nn

from utils.backbone import STEP
from utils.errors import FieldguideError
from utils.masks import masker_network, read_masker
from utils.pictures import size_text
from utils.sections import as_setting, multiples


def mask_front(path: Path, sides: tuple[int, int], stats) -> Cat:
    """
    Return the layer that puts the mask before a picture's colours: (B, 3, H, W) to (B, 4, H, W).

    `path` is the masker's file, `sides` are the pictures' height and width, `stats` the mean and spread by which they
    are normalised. Raises FieldguideError if 03a made no masker for pictures of this size, or no masker can be.
    """
    masker = read_masker(path)
    if masker is None:
        raise FieldguideError(
            f'mask = "channel" needs a masker, and there is none in {path.parent}. Write mask_source into the '
            'project file and run 03a first; or set mask = "none".'
        )
    if masker.size != sides:
        raise FieldguideError(
            f"The masker {path} is for pictures of {size_text(masker.size)} pixels, and the project file asks for "
            f"{size_text(sides)}. Run 03a again."
        )
    if any(side % STEP for side in sides):
        raise FieldguideError(
            f'mask = "channel" takes multiples of {STEP}: set size = {as_setting(multiples(sides, STEP))} in the '
            "project file, and run 03a again."
        )
    network = masker_network(masker.head, tuple(map(tuple, stats)))
    return Cat([nn.Sequential(network, nn.Sigmoid()), nn.Identity()])


def with_mask(make: Callable[[bool], nn.Module], front: Cat, sides: tuple[int, int]) -> Callable:
    """
    Return a function that makes a network with the mask as a fourth channel; `make` gives it bare, pretrained or not.

    Raises FieldguideError if the network does not take pictures of this height and width then.
    """

    def network(pretrained: bool = False) -> nn.Module:
        model = make(pretrained)
        _put_before(model, deepcopy(front))
        return model

    try:
        with no_random(), torch.no_grad():
            network().eval()(torch.zeros(1, 3, *sides))
    except Exception as error:  # each network fails in its own way
        raise FieldguideError(
            'mask = "channel" does not work with this arch: a mask cannot be put before its first layer. Write another '
            'arch, such as resnet18, or set mask = "none".'
        ) from error
    return network


def _put_before(model: nn.Module, front: Cat) -> None:
    """Put the front before a network's first convolution, or the padding before that, and widen the convolution."""
    name, first = next((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d))
    # By fastai's default a new channel weighs 0, and the first layer hardly learns: the mask would not count.
    weight = first.weight.detach()
    first.weight = nn.Parameter(torch.cat([weight.mean(1, keepdim=True), weight], 1))
    first.in_channels += 1
    parent, _, last = name.rpartition(".")
    siblings = list(model.get_submodule(parent).named_children())
    place = [key for key, _ in siblings].index(last)
    if place and isinstance(siblings[place - 1][1], nn.ZeroPad2d):
        last, first = siblings[place - 1]
    setattr(model.get_submodule(parent), last, nn.Sequential(front, first))


def mask_front_of(model: nn.Module) -> Cat | None:
    """Return the front that a network has, or None."""
    return next(
        (layer for layer in model.modules() if isinstance(layer, Cat) and isinstance(layer[-1], nn.Identity)), None
    )
