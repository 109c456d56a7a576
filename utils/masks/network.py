"""
Masks, the network: scores on the packaged network's maps of three levels, enlarged and added.

The packaged network, or another encoder, stays as it is, its normalisations folded into its convolutions. So nothing
here depends on whether a network trains or judges. All layers are torch's, torchvision's and fastai's own: a file that
holds them loads wherever fastai is.
"""

from collections.abc import Mapping, Sequence

import torch
from fastai.layers import Cat
from fastai.torch_core import no_random
from torch import nn
from torch.nn.functional import conv2d, interpolate

from utils.masks.encoders import encoder_layers
from utils.masks.layers import convolution, untrainable
from utils.project import PACKAGED

MAP_LEVELS = 4, 8, 16  # pixels of the picture for each place of a map; a fourth, 32, made masks worse and slower
LOOKED_AT = 64  # pixels of the side of a picture that shows where each level ends
BIAS = "bias"
Scorer = Mapping[str, torch.Tensor]  # the level, as text → weights (1, C, 1, 1); "bias" → (1,)


def enlarged(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return maps (B, C, h, w) as (B, C, *size)."""
    return interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def level_stages(encoder: str = PACKAGED) -> list[nn.Sequential]:
    """Return an encoder in three parts, each of which ends with the last map of its level; no more of it."""
    layers, colours = encoder_layers(encoder)
    layers, ends = [_recoloured(((0.0,) * 3, (1.0,) * 3), colours), *layers], {}
    with torch.no_grad():
        maps = torch.zeros(1, 3, LOOKED_AT, LOOKED_AT)
        for n, layer in enumerate(layers):
            maps = layer(maps)
            ends[LOOKED_AT // maps.shape[-1]] = n + 1
    starts = 0, *(ends[level] for level in MAP_LEVELS[:-1])
    return [nn.Sequential(*layers[start : ends[level]]) for start, level in zip(starts, MAP_LEVELS, strict=True)]


def level_maps(stages: Sequence[nn.Module], pixels: torch.Tensor) -> list[torch.Tensor]:
    """Return what each part makes of pixels (B, 3, H, W) in [0, 1]: three maps (B, C, h, w)."""
    maps = [pixels]
    with torch.no_grad():
        for stage in stages:
            maps.append(stage(maps[-1]))
    return maps[1:]


def scores(maps: Sequence[torch.Tensor], head: Scorer) -> torch.Tensor:
    """Return the scores (B, 1, h, w) on maps of three levels, at the finest: above 0 means the thing."""
    finest = maps[0].shape[2:]
    found = [conv2d(each, head[str(level)]) for level, each in zip(MAP_LEVELS, maps, strict=True)]
    return sum(enlarged(each, finest) for each in found) + head[BIAS]


def masker_network(head: Scorer, colours=((0.0,) * 3, (1.0,) * 3), encoder: str = PACKAGED) -> nn.Sequential:
    """
    Return the masker as one network: pictures (B, 3, H, W) to scores (B, 1, H, W); H and W are multiples of 32.

    `colours` are the mean and spread by which the values of pictures, from 0 to 1, were normalised; by default they
    were not. Its numbers are buffers, not parameters: no optimizer finds them, so no training changes them.
    """
    with no_random():  # torch draws numbers for each layer, which are replaced: nobody else's draw may move by that
        branches = None
        for level, stage in reversed(list(zip(MAP_LEVELS, level_stages(encoder), strict=True))):
            score = nn.Sequential(convolution(head[str(level)]), _enlarging(level // MAP_LEVELS[0]))
            branches = nn.Sequential(stage, score if branches is None else Cat([score, branches]))
        added = convolution(torch.ones(1, len(MAP_LEVELS), 1, 1), head[BIAS])
        network = nn.Sequential(
            _recoloured(colours, ((0.0,) * 3, (1.0,) * 3)), branches, added, _enlarging(MAP_LEVELS[0])
        )
    return untrainable(network).eval()


def _recoloured(given, wanted) -> nn.Conv2d:
    """Return the layer that turns colours with one mean and spread into those with another."""
    (mean, std), (own_mean, own_std) = torch.tensor(given), torch.tensor(wanted)
    # Without groups: by its shape, fastai finds out how many colours a network takes.
    return convolution(torch.diag(std / own_std).view(3, 3, 1, 1), (mean - own_mean) / own_std)


def _enlarging(times: int) -> nn.Upsample:
    """Return the layer that makes maps so many times as high and wide."""
    return nn.Upsample(scale_factor=float(times), mode="bilinear", align_corners=False)
