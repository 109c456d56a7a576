#!/usr/bin/env bash
# onnx: cutting a model with onnx.utils.extract_model drops its metadata, labels included.
#
# Programs keep the class names and the preprocessing in metadata_props, as a file format for image classifiers has no other
# place for them. extract_model, the documented way to cut off a head or a softmax, writes a file without any: the checker
# passes, the model runs, and nobody can say which class is which.
#
# Seen with onnx 1.23.2, numpy 2.4.6:
#   before: {'labels': '["ant", "bee"]'}; after: {}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys

import onnx
from onnx import TensorProto, helper

folder = sys.argv[1]
inputs, scores, probs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("x", "scores", "probs"))
nodes = [helper.make_node("Relu", ["x"], ["scores"]), helper.make_node("Softmax", ["scores"], ["probs"])]
graph = helper.make_graph(nodes, "classifier", [inputs], [probs], value_info=[scores])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
helper.set_model_props(model, {"labels": '["ant", "bee"]'})
onnx.save(model, f"{folder}/whole.onnx")
onnx.utils.extract_model(f"{folder}/whole.onnx", f"{folder}/cut.onnx", ["x"], ["scores"])
before, after = ({p.key: p.value for p in onnx.load(f"{folder}/{name}.onnx").metadata_props} for name in ("whole", "cut"))
print(f"before: {before}; after: {after}")
assert before and after == {}, "the behaviour has changed"
PY
