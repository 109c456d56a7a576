#!/usr/bin/env bash
# torch.onnx: a network whose input was permuted from (N, H, W, 3) averages by Gather instead of one operation.
#
# A model that takes pictures as cameras and browsers give them begins with permute(0, 3, 1, 2). The convolutions keep that
# order in memory (channels last), and AdaptiveAvgPool2d(1) behind them is exported as arithmetic with indices: Range, Mul,
# Add, Gather. The numbers are the same, but smaller runtimes (OpenCV 4's dnn among them) do not read such a file. With
# .contiguous() after the permute, the same network is one ReduceMean. Max pooling is written well in both cases.
#
# Seen with torch 2.14.1, onnx 1.23.2, onnxscript 0.7.2:
#   permuted: 14 operations (Add, Cast, Conv, Gather, Mul, Range, ReduceMean, Reshape, Shape, Squeeze, Transpose, Unsqueeze)
#   permuted and made contiguous: 4 operations (Cast, Conv, ReduceMean, Transpose)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 onnx==1.23.2 onnxscript==0.7.2
"$folder/venv/bin/python" -W ignore - <<'PY'
import logging

import torch

logging.disable(logging.CRITICAL)


class Pooled(torch.nn.Module):
    def __init__(self, contiguous):
        super().__init__()
        self.contiguous = contiguous
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1))

    def forward(self, pixels):
        pictures = pixels.permute(0, 3, 1, 2).float()
        return self.layers(pictures.contiguous() if self.contiguous else pictures)


def operations(contiguous):
    example = (torch.zeros(2, 32, 32, 3, dtype=torch.uint8),)
    batch = ({0: torch.export.Dim.DYNAMIC},)
    options = {"dynamo": True, "opset_version": 21, "dynamic_shapes": batch, "verbose": False}
    program = torch.onnx.export(Pooled(contiguous).eval(), example, **options)
    return [node.op_type for node in program.model_proto.graph.node]


found = {contiguous: operations(contiguous) for contiguous in (False, True)}
for contiguous, names in found.items():
    what = "permuted and made contiguous" if contiguous else "permuted"
    print(f"{what}: {len(names)} operations ({', '.join(sorted(set(names)))})")
assert "Gather" in found[False] and "Gather" not in found[True], "the behaviour has changed"
PY
