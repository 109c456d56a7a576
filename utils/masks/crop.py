"""
Masks, the crop: layers that cut a picture to the box of its mask, and enlarge what they cut to the picture's size.

All are torch's, torchvision's and fastai's own, like the masker itself: so one file holds masker, crop and classifier,
and loads wherever fastai is. No plain layer takes a picture and a box. But resampling is a product of two matrices that
both depend on the picture, and fastai's SelfAttention has one: each row that comes out attends to the rows around the
place where it is read. Columns follow in the same way, with the picture turned.
"""

from collections.abc import Sequence

import torch
from fastai.layers import Cat, MergeLayer, SelfAttention, SequentialEx
from torch import nn
from torchvision.ops.misc import Permute

from utils.masks.layers import convolution, linear, sharpening

BOX_MARGIN = 0.08  # of the box's side, on either side
NEARNESS = 4.0  # how soon a row's weight falls with its distance, by e⁻⁴ per row: nearly linear interpolation
FINEST = 4  # pixels of the picture for each place of the scores
TOP_OF_RELU6 = 6.0  # where ReLU6 clips
PLANES = 7  # R, G, B; for rows, then columns: where one is read, and its own number
COLOUR_PLANES = 3  # how many of them are colours
ROW_PLACES, COLUMN_PLACES = 3, 5  # which of them say where rows and columns are read


def crop_layers(scorer: nn.Module, sides: Sequence[int]) -> nn.Sequential:
    """
    Return layers that take pictures (B, 3, H, W) and give the same cut to the box of the thing, (B, 3, H, W).

    `scorer` gives scores (B, 1, H/4, W/4), above 0 for the thing; `sides` are H and W. The box is widened by 8 % on
    each side, and stays inside the picture. Where nothing is found, the picture stays whole.
    """
    height, width = sides
    boxes = nn.Sequential(_thing(scorer, sides), Cat([_read_at(sides, axis) for axis in (0, 1)]))
    colours = convolution(torch.eye(COLOUR_PLANES, PLANES)[..., None, None])
    # fastai shows a new network squares. Pictures of the right size pass unchanged.
    fitted = nn.AdaptiveAvgPool2d(tuple(sides))
    by_rows = fitted, Cat([nn.Identity(), boxes]), _swapping(), _resampling(width, height, ROW_PLACES)
    return nn.Sequential(*by_rows, _swapping(), _resampling(height, width, COLUMN_PLACES), colours)


def _thing(scorer: nn.Module, sides: Sequence[int]) -> nn.Sequential:
    """Return layers that give how much each place is the thing, from 0 to 1; where nothing is, all of it is."""
    found = nn.Sequential(scorer, sharpening(), nn.Sigmoid())
    most = nn.MaxPool2d(tuple(side // FINEST for side in sides))
    nothing = nn.Sequential(most, convolution(-torch.ones(1, 1, 1, 1), torch.ones(1)))
    return nn.Sequential(found, SequentialEx(nothing, MergeLayer()))


def _read_at(sides: Sequence[int], axis: int) -> nn.Sequential:
    """
    Return layers that turn how much each place is the thing into two planes (B, 2, H, W).

    One says where in the picture each row (axis 0) or column (axis 1) that comes out is read, the other is its number.
    The thing ends after as many places as have any of it at them or beyond: so a place that is half the thing moves the
    end by half a place, and what is rounded otherwise moves it by next to nothing.
    """
    length = sides[axis]
    count, across = length // FINEST, sides[1 - axis] // FINEST
    kernel, shape = ((1, across), (2, length, 1)) if axis == 0 else ((across, 1), (2, 1, length))
    from_start, to_end = (
        nn.Sequential(nn.ZeroPad2d((*pads, 0, 0)), nn.MaxPool1d(count, 1)) for pads in ((count - 1, 0), (0, count - 1))
    )
    far = 1 + BOX_MARGIN
    # Of a = 1 − begin and b = end: low = 1 − a − margin × (a + b − 1), high = b + margin × (a + b − 1).
    factors = torch.tensor([[-far, -BOX_MARGIN], [BOX_MARGIN, far]]).repeat_interleave(count, 1) / count
    box = linear(TOP_OF_RELU6 * factors, TOP_OF_RELU6 * torch.tensor([far, -BOX_MARGIN]))
    middles, numbers = (torch.arange(length) + 0.5) / length, torch.arange(length).float()
    reads = torch.stack([1 - middles, middles], 1) * length / TOP_OF_RELU6
    rows = linear(torch.cat([reads, torch.zeros(length, 2)]), torch.cat([torch.full((length,), -0.5), numbers]))
    return nn.Sequential(
        *(nn.MaxPool2d(kernel), nn.Flatten(2), Cat([from_start, to_end]), nn.Flatten(), box, nn.ReLU6()),
        *(rows, nn.Unflatten(1, shape), nn.Upsample(size=tuple(sides))),
    )


def _resampling(across: int, length: int, read: int) -> SequentialEx:
    """
    Return layers that take planes (B, 7, across, length), and put what stands at another place along the last axis.

    Plane `read` says at which, and the plane after it is the own number of each place. All rows of all planes become
    channels of one attention.
    """
    channels = PLANES * across
    attention = SelfAttention(8)  # its own layers are replaced
    own = _times(-1.0, plus=1.0), nn.ReLU()  # 1 for a place's own number, else 0
    attention.query = nn.Sequential(*_distances(channels, (read + 1) * across, length), *own, nn.Flatten(1, 2))
    near = _times(-NEARNESS)
    attention.key = nn.Sequential(*_distances(channels, read * across, length), near, nn.Flatten(1, 2))
    attention.value, attention.gamma = nn.Identity(), nn.Parameter(torch.tensor([-1.0]))
    # It adds its input, so what comes out is the input minus what is wanted.
    less = nn.Flatten(1, 2), attention, nn.Unflatten(1, (PLANES, across))
    return SequentialEx(*less, _times(-torch.eye(PLANES)), MergeLayer())


def _distances(channels: int, chosen: int, length: int) -> list[nn.Module]:
    """Return layers that give how far, up to 6, a channel's values are from 0, 1, 2 …: (B, 1, length, length)."""
    picked, ones = torch.zeros(1, channels, 1), torch.ones(length, 1, 1)
    picked[0, chosen] = 1
    apart = convolution(picked), convolution(ones, -torch.arange(length).float())
    # From 6 on all is equally far: exponents of more would be numbers so small that processors multiply them slowly.
    return [*apart, nn.Unflatten(1, (1, length)), nn.PReLU(init=-1.0), nn.ReLU6()]


def _times(factors: float | torch.Tensor, *, plus: float | None = None) -> nn.Module:
    """Return the layer that multiplies planes (B, K, H, W) by a number, or a matrix (K, K), and adds."""
    bias = None if plus is None else torch.tensor([plus])
    return convolution(torch.atleast_2d(torch.as_tensor(factors))[..., None, None], bias)


def _swapping() -> Permute:
    """Return a layer that swaps rows and columns."""
    return Permute([0, 1, 3, 2])
