"""
Stage 04, a network that finds the thing itself: 03a's masker, and what is done with its mask, before the first layer.

Pictures alone go in, after augmentation, so mask and picture are always moved alike.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
from fastai.torch_core import no_random
from torch import nn

from utils.errors import FieldguideError
from utils.masks import mask_way


def with_mask(make: Callable[[bool], nn.Module], front: nn.Module, sides: tuple[int, int]) -> Callable:
    """
    Return a function that makes a network with a front that finds the thing; `make` gives it bare, pretrained or not.

    Raises FieldguideError if the network does not take pictures of this height and width then.
    """

    def network(pretrained: bool = False) -> nn.Module:
        model = make(pretrained)
        _put_before(
            model, deepcopy(front).to(next(model.parameters()).device)
        )  # none, if only the layers are asked for
        return model

    try:
        with no_random(), torch.no_grad():
            network().eval()(torch.zeros(1, 3, *sides))
    except Exception as error:  # each network fails in its own way
        raise FieldguideError(
            f'mask = "{mask_way(front)}" does not work with this arch: a mask cannot be put before its first layer. '
            'Write another arch, such as resnet18, or set mask = "none".'
        ) from error
    return network


def _put_before(model: nn.Module, front: nn.Module) -> None:
    """Put the front before a network's first convolution, or the padding before that; widen it for a fourth channel."""
    name, first = next((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d))
    if mask_way(front) == "channel":
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
