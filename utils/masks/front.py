"""
Masks, what is done with them: layers that go before a classifier and find the thing, from the picture alone.

Reads models/<name>/masker.safetensors (03a). The layers' numbers are buffers, which no training changes. All are
torch's, torchvision's and fastai's own.
"""

from pathlib import Path

from fastai.layers import Cat, ProdLayer, SequentialEx
from fastai.torch_core import no_random
from torch import nn

from utils.backbone import STEP
from utils.errors import FieldguideError
from utils.masks.crop import crop_layers
from utils.masks.layers import sharpening, untrainable
from utils.masks.masker import read_masker
from utils.masks.network import masker_network
from utils.pictures import size_text
from utils.sections import as_setting, multiples

MASK_WAYS = {nn.Sequential: "crop", Cat: "channel", SequentialEx: "paint"}  # the kind of layer that each is


def mask_front(way: str, path: Path, sides: tuple[int, int], stats) -> nn.Module:
    """
    Return the layers that go before a network: pictures (B, 3, H, W) to what it sees of them.

    With "crop" that is the box of the thing, with "paint" the picture with its background at the mean colour, which is
    grey, and with "channel" the mask before the colours, (B, 4, H, W).

    `path` is the masker's file, `sides` are the pictures' height and width, `stats` the mean and spread by which they
    are normalised. Raises FieldguideError if 03a made no masker for pictures of this size, or no masker can be.
    """
    masker = read_masker(path)
    if masker is None:
        raise FieldguideError(
            f'mask = "{way}" needs a masker, and there is none in {path.parent}. Write mask_source into the '
            'project file and run 03a first; or set mask = "none".'
        )
    if masker.size != sides:
        raise FieldguideError(
            f"The masker {path} is for pictures of {size_text(masker.size)} pixels, and the project file asks for "
            f"{size_text(sides)}. Run 03a again."
        )
    if any(side % STEP for side in sides):
        raise FieldguideError(
            f'mask = "{way}" takes multiples of {STEP}: set size = {as_setting(multiples(sides, STEP))} in the '
            "project file, and run 03a again."
        )
    network = masker_network(masker.head, tuple(map(tuple, stats)), masker.encoder)
    with no_random():
        if way == "crop":
            front = crop_layers(network[:-1], sides)
        elif way == "paint":
            # Of normalised colours, the mean is 0.
            front = SequentialEx(network, sharpening(), nn.Sigmoid(), ProdLayer())
        else:
            front = Cat([nn.Sequential(network, nn.Sigmoid()), nn.Identity()])
    return untrainable(front)


def mask_scorer(front: nn.Module) -> nn.Module:
    """Return the layer of a front that gives the masker's scores (B, 1, H/4, W/4): above 0 is the thing."""
    chains = (layer for layer in front.modules() if isinstance(layer, nn.Sequential))
    return next(layer for layer in chains if isinstance(layer[0], nn.Conv2d))[2]


def mask_way(front: nn.Module) -> str:
    """Return what a front does with the mask: "crop", "channel" or "paint"."""
    return MASK_WAYS[type(front)]
