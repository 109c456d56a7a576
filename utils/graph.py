"""
A network of torch's plain layers in onnxruntime: what only judges pictures is twice as quick there on a processor.

Foundation of `seeing`. Writes the few kinds of layers of the packaged network as ONNX, in memory and in milliseconds;
torch's own exporter takes five seconds for it. Models that people keep are written by `export`.
"""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual

GRAPH_OPSET, GRAPH_VERSION = 21, 10  # which every onnxruntime from 1.20 on reads
PIXELS, MAPS = ("B", 3, "H", "W"), ("B", None, None, None)


class RuntimeNetwork(nn.Module):
    """A network in onnxruntime, called as torch's: pixels (B, 3, H, W) to maps (B, C, h, w), on one core per caller."""

    def __init__(self, model: onnx.ModelProto):
        import onnxruntime  # not needed to write the graph, and not always installed

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4  # exceptions alone say what is wrong
        data, where = model.SerializeToString(), ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(data, options, providers=where)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        (maps,) = self.session.run(None, {"pixels": pixels.numpy(force=True)})
        return torch.from_numpy(maps)


def runtime_network(network: nn.Module) -> RuntimeNetwork | None:
    """Return a network (see `as_onnx`) in onnxruntime, None where that is not installed or cannot be loaded."""
    try:
        return RuntimeNetwork(as_onnx(network))
    except ImportError:
        return None


def as_onnx(network: nn.Module) -> onnx.ModelProto:
    """
    Return as ONNX a network of convolutions, paddings, ReLU6 and inverted residual blocks (see `seeing.folded`).

    Raises TypeError for any other layer.
    """
    nodes: list[onnx.NodeProto] = []
    numbers: list[onnx.TensorProto] = []

    def stored(values: np.ndarray) -> str:
        numbers.append(numpy_helper.from_array(values, f"n{len(numbers)}"))
        return numbers[-1].name

    def result(kind: str, *inputs: str, **how) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"r{len(nodes)}"], **how))
        return nodes[-1].output[0]

    def after(layer: nn.Module, name: str) -> str:
        """Add the nodes of a layer behind the result `name`; return the name of its own result."""
        match layer:
            case nn.Sequential():
                for part in layer:
                    name = after(part, name)
                return name
            case InvertedResidual(use_res_connect=True):
                return result("Add", name, after(layer.conv, name))
            case nn.ZeroPad2d():
                left, right, top, bottom = layer.padding
                return result("Pad", name, stored(np.array([0, 0, top, left, 0, 0, bottom, right])))
            case nn.Conv2d(dilation=(1, 1), padding_mode="zeros", padding=(int(), int()), bias=nn.Parameter()):
                weights = [stored(each.detach().numpy()) for each in (layer.weight, layer.bias)]
                how = {"group": layer.groups, "strides": layer.stride, "pads": layer.padding * 2}
                return result("Conv", name, *weights, **how)
            case nn.ReLU6():
                return result("Clip", name, *(stored(np.float32(bound)) for bound in (0, 6)))
        raise TypeError(f"cannot write this layer as ONNX: {layer}")

    last = after(network, "pixels")
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
            for name, shape in (("pixels", PIXELS), (last, MAPS))]  # fmt: skip
    graph = helper.make_graph(nodes, "judging", *ends, initializer=numbers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", GRAPH_OPSET)], ir_version=GRAPH_VERSION)
