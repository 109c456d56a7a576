#!/usr/bin/env bash
# fastai: vision_learner of a shufflenet trains on one convolution; the rest of the network is thrown away, without a word.
#
# fastai cuts a network that it does not list before its last direct child whose name holds "Pool". In torchvision's
# shufflenet that is the max pooling after the first convolution; the mean at the end is a call in forward(), not a layer.
# So the body is conv1 alone: 696 numbers. The learner trains, predicts and exports like any other.
#
# Seen with fastai 2.8.12, torch 2.14.1, torchvision 0.29.1 (create_body is what vision_learner calls):
#   shufflenet_v2_x1_0: 696 of 1253604 numbers before the classifier are kept
#   resnet18: 11176512 of 11176512 numbers before the classifier are kept
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fastai==2.8.12 torch==2.14.1 torchvision==0.29.1
"$folder/venv/bin/python" -W ignore - <<'PY'
import torchvision
from fastai.vision.all import create_body


def numbers(layers):
    return sum(p.numel() for layer in layers for p in layer.parameters())


kept = {}
for name in ("shufflenet_v2_x1_0", "resnet18"):
    network = getattr(torchvision.models, name)(weights=None)
    *before, classifier = network.children()
    kept[name] = numbers([create_body(network, pretrained=False)]), numbers(before)
    print(f"{name}: {kept[name][0]} of {kept[name][1]} numbers before the classifier are kept")
assert kept["shufflenet_v2_x1_0"][0] == 696, "the behaviour has changed"
assert kept["resnet18"][0] == kept["resnet18"][1], "the behaviour has changed"
PY
