"""
Masks, layers whose numbers are calculated, not learned.
"""

import torch
from torch import nn

SHARP = 4.0  # times the scores: a place is the thing or not, and few are half of it


def convolution(weight: torch.Tensor, bias: torch.Tensor | None = None, *, groups: int = 1) -> nn.Module:
    """Return a convolution with these weights: (K, C, 1) for rows of numbers, (K, C, 1, 1) for pictures."""
    kind = nn.Conv1d if weight.ndim == 3 else nn.Conv2d
    layer = kind(weight.shape[1] * groups, weight.shape[0], 1, groups=groups, bias=bias is not None)
    return _with_numbers(layer, weight, bias)


def linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Linear:
    """Return a linear layer with these weights, (K, C)."""
    return _with_numbers(nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None), weight, bias)


def sharpening() -> nn.Module:
    """Return the layer after which the Sigmoid of scores (B, 1, h, w) is 0 or 1 almost everywhere."""
    return convolution(torch.full((1, 1, 1, 1), SHARP))


def _with_numbers(layer: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    """Put copies of numbers into a layer, and return it."""
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def untrainable(network: nn.Module) -> nn.Module:
    """Turn the parameters of a network into buffers, which no optimizer finds, and return it."""
    for module in network.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, value.detach().clone())
    return network
