#!/usr/bin/env bash
# onnxruntime: the first session of a process decides for all later ones, and for numpy, what becomes of tiny numbers.
#
# Numbers below 1.2e-38 (denormals) are multiplied slowly: a matrix product with the tails of a softmax took 50 times as
# long here. The option session.set_denormal_as_zero makes them 0. It is an option of a session. But what counts is the
# first session of the process: a second one that asks for the opposite gets what the first one asked for. And it holds
# for whatever else the thread calculates, numpy's arithmetic included.
#
# Seen with onnxruntime 1.31.1, onnx 1.23.2, numpy 2.4.6:
#   asked for 0, then 1: the sessions give 1e-41 and 1e-41, numpy 1e-41; 18 and 19 ms
#   asked for 1, then 0: the sessions give 0 and 0, numpy 0; 0.4 and 0.4 ms
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cat > "$folder/try.py" <<'PY'
import sys
import time
from statistics import median

import numpy as np
import onnxruntime
from onnx import TensorProto, helper


def session(nodes, shapes, result, asked):
    def value(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    inputs = [value(name, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, [value("y", result)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.set_denormal_as_zero", asked)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def product(asked):
    node = helper.make_node("Mul", ["a", "b"], ["y"])
    one = session([node], {"a": [1], "b": [1]}, [1], asked)
    return one.run(None, {"a": np.array([1e-38], "f4"), "b": np.array([1e-3], "f4")})[0].item()


def milliseconds(asked):
    nodes = [helper.make_node("Softmax", ["z"], ["w"], axis=0), helper.make_node("MatMul", ["x", "w"], ["y"])]
    one = session(nodes, {"z": [128, 128], "x": [1792, 128]}, [1792, 128], asked)
    far = -4 * abs(np.arange(128)[:, None] - np.arange(128)).astype("f4")
    x, spent = np.random.default_rng(0).random((1792, 128), dtype="f4"), []
    for _ in range(10):
        began = time.perf_counter()
        one.run(None, {"z": far, "x": x})
        spent.append(1000 * (time.perf_counter() - began))
    return f"{median(spent):.2g}"


first, second = sys.argv[1:]
given = [product(first), product(second), (np.array([1e-38], "f4") * np.array([1e-3], "f4")).item()]
times = [milliseconds(asked) for asked in (first, second)]
words = [f"{value:.0e}" if value else "0" for value in given]
print(
    f"asked for {first}, then {second}: the sessions give {words[0]} and {words[1]}, numpy {words[2]}; "
    f"{' and '.join(times)} ms"
)
assert words == (["0"] * 3 if first == "1" else ["1e-41"] * 3), "the behaviour has changed"
PY
"$folder/venv/bin/python" "$folder/try.py" 0 1
"$folder/venv/bin/python" "$folder/try.py" 1 0
