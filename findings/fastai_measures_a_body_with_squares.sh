#!/usr/bin/env bash
# fastai: a network that takes pictures of one shape only cannot get a head, and the error speaks of 2048×2048.
#
# create_vision_model shows the body a square of 32 pixels to find out how many channels come out. If that fails for any
# reason, it tries 64, 128 … up to 2048, and drops every error but the last. A network for pictures of 64×96 is never
# shown one, whatever size the pictures have, and who reads the message looks for a size that nobody asked for.
#
# Seen with fastai 2.8.12, torch 2.14.1, torchvision 0.29.1:
#   shown: 32×32, 64×64, 128×128, 256×256, 512×512, 1024×1024, 2048×2048
#   RuntimeError: this network takes 64×96, not 2048×2048
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fastai==2.8.12 torch==2.14.1 torchvision==0.29.1
"$folder/venv/bin/python" -W ignore - <<'PY'
from fastai.vision.learner import create_vision_model
from torch import nn

shown = []


class TakesOneShape(nn.Module):
    def forward(self, pictures):
        shown.append("×".join(map(str, pictures.shape[2:])))
        if shown[-1] != "64×96":
            raise RuntimeError(f"this network takes 64×96, not {shown[-1]}")
        return pictures


def arch(pretrained=False):
    layers = TakesOneShape(), nn.Conv2d(3, 8, 3), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


try:
    create_vision_model(arch, 2, pretrained=False)
    told = "a head was made"
except RuntimeError as error:
    told = f"RuntimeError: {error}"
print("shown:", ", ".join(shown))
print(told)
assert "64×96" not in shown and told.endswith("not 2048×2048"), "the behaviour has changed"
PY
