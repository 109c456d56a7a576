"""A network of plain layers in onnxruntime gives what torch gives."""

import sys

import pytest
import torch
from torch import nn

from utils import seeing
from utils.backbone import packaged_body
from utils.graph import RuntimeNetwork, as_onnx, runtime_network
from utils.seeing import folded, network_features, packaged_network


def pixels(height: int = 64, width: int = 96, count: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=torch.manual_seed(0))


def test_the_packaged_network_sees_the_same_in_onnxruntime():
    """Its maps are torch's, for pictures of any size and batches of any length."""
    network = folded(packaged_body())
    quick = packaged_network()
    assert isinstance(quick, RuntimeNetwork)
    for images in (pixels(), pixels(128, 128, 1), pixels(75, 100)):  # 75 and 100 are not multiples of 32
        theirs = network_features(network, images)
        assert (network_features(quick, images) - theirs).abs().max() < 1e-4 < theirs.max()


def test_padding_on_one_side_pads_that_side():
    """Left, right, top and bottom each: as torch does."""
    for sides in ((1, 0, 0, 0), (0, 2, 0, 0), (0, 0, 3, 0), (0, 0, 0, 4)):
        network = nn.Sequential(nn.ZeroPad2d(sides), nn.Conv2d(3, 2, 1), nn.ReLU6()).eval()
        images = 10 * torch.randn(1, 3, 5, 5, generator=torch.manual_seed(1))
        with torch.inference_mode():
            torch.testing.assert_close(runtime_network(network)(images), network(images))


def test_without_onnxruntime_torch_looks(monkeypatch):
    """The same numbers, only slower."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # importing it fails
    slow = seeing.packaged_network()
    assert not isinstance(slow, RuntimeNetwork)
    monkeypatch.undo()
    difference = network_features(slow, pixels()) - network_features(packaged_network(), pixels())
    assert difference.abs().max() < 1e-4


def test_a_layer_that_is_not_known_is_named():
    """Nothing is left out of a graph in silence."""
    with pytest.raises(TypeError, match="cannot write this layer as ONNX: GELU"):
        as_onnx(nn.Sequential(nn.ReLU6(), nn.GELU()))
    for other in ({"dilation": 2}, {"padding_mode": "reflect"}, {"padding": "same"}, {"bias": False}):
        with pytest.raises(TypeError, match="cannot write this layer as ONNX: Conv2d"):
            as_onnx(nn.Sequential(nn.Conv2d(3, 2, 3, **other)))
