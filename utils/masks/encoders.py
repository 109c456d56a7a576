"""
Masks, the encoder: the pretrained network on whose maps the masker's scores stand.

The packaged one is there for everybody. VGG-19 is that of the first networks of this kind (Long, Shelhamer and Darrell
2015 had VGG-16); its weights, 550 MB, are downloaded once, and it takes ten times as long.
"""

import torch
import torchvision
from torch import nn

from utils.backbone import COLOURS, packaged_body
from utils.hub import hub_weights
from utils.project import PACKAGED
from utils.seeing import folded

VGG = "vgg19"
IMAGENET_COLOURS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what torchvision's networks want


def encoder_layers(encoder: str) -> tuple[list[nn.Module], tuple[tuple[float, ...], ...]]:
    """
    Return an encoder's layers, for judging, and the mean and spread of the colours that it wants.

    Raises FieldguideError if its weights cannot be had.
    """
    if encoder == PACKAGED:
        return list(folded(packaged_body())), COLOURS
    known = torchvision.models.VGG19_Weights.IMAGENET1K_V1
    path = hub_weights(known.url, whose=encoder, instead=f'Set mask_encoder = "{PACKAGED}"')
    weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    with torch.device("meta"):  # no random weights first
        features = torchvision.models.vgg19().features
    own = {name.removeprefix("features."): value for name, value in weights.items() if name.startswith("features.")}
    features.load_state_dict(own, assign=True)
    return list(features.eval()), IMAGENET_COLOURS
