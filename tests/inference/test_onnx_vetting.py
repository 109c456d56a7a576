"""Vetting a model.onnx: anything but a plain network is refused before onnxruntime gets its bytes."""

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_inference import colour_model, elsewhere

from utils.inference import ModelError, load_classifier, onnx_shapes, onnx_vetting
from utils.inference.onnx_shapes import PICTURES, RULES, Result, Step, vet_memory
from utils.inference.onnx_vetting import vet_onnx


def with_node(kind: str, *, domain: str = "", **attributes) -> onnx.ModelProto:
    """Return a colour model with one more operation."""
    model = colour_model()
    model.graph.node.append(helper.make_node(kind, ["pixels"], ["more"], domain=domain, **attributes))
    return model


def strange_models() -> dict[str, tuple[bytes, str]]:
    """Return ONNX files that no export of ours is: name → bytes and words of the refusal."""
    data = colour_model().SerializeToString()
    outside = {}
    for place in ("secret.bin", "../secret.bin", "/etc/passwd", "*/_ORT_MEM_ADDR_/*"):
        model = colour_model()
        elsewhere(model.graph.initializer[0], location=place)
        outside[f"external {place}"] = model, "another file"
    located = colour_model()
    located.graph.initializer[1].data_location = TensorProto.EXTERNAL
    constant = elsewhere(numpy_helper.from_array(np.zeros(4, dtype=np.float32)))
    branch = helper.make_graph([helper.make_node("Constant", [], ["x"], value=constant)], "branch", [], [])
    functions, training, sparse = colour_model(), colour_model(), colour_model()
    functions.functions.append(helper.make_function("own", "f", ["x"], ["y"], [], []))
    training.training_info.add()
    sparse.graph.sparse_initializer.add()
    renamed, other_input, extra_input, fixed = (colour_model() for _ in range(4))
    renamed.graph.node[0].input[0] = renamed.graph.input[0].name = "image"
    other_input.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    extra_input.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["N", 16, 16, 3]))
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    wide = colour_model()
    wide.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1025
    no_softmax = colour_model()
    no_softmax.graph.node[-1].op_type = "Relu"
    no_softmax.graph.node[-1].ClearField("attribute")
    newer = colour_model()
    newer.opset_import[0].version = 900
    built = outside | {
        "external without a place": (located, "another file"),
        "external constant": (with_node("Relu", value=constant), "another file"),
        "branches": (with_node("Relu", then_branch=branch), "loops or branches"),
        "functions": (functions, "functions of its own"),
        "training": (training, "training steps"),
        "sparse": (sparse, "sparse weights"),
        "another maker's operation": (with_node("Inverse", domain="com.microsoft"), "not ONNX's own"),
        "no such operation": (with_node("Frobnicate"), "needs the operation 'Frobnicate', which exports"),
        "an operation of others": (with_node("Loop"), "needs the operation 'Loop', which exports"),
        "a setting too large": (with_node("Relu", axis=2**16 + 1), "sets a step to 65,537, which is beyond 65,536"),
        "a setting too small": (with_node("Relu", pads=[1, -(2**16) - 1]), "sets a step to -65,537"),
        "newer opset": (newer, "onnxruntime .* cannot load it"),
        "another input": (renamed, "does not work"),
        "input of floats": (other_input, "does not work"),
        "two inputs": (extra_input, "a network of 2 inputs, expected one: pixels"),
        "an input of huge pictures": (wide, r"takes an input of 16 × 16 × 1,025 × 3, expected N"),
        "one picture at a time": (fixed, "does not work"),
        "another output": (colour_model(name="answers"), "does not work"),
        "scores": (no_softmax, "not probabilities"),
        "no numbers": (colour_model(scale=float("nan")), "not probabilities"),
    }
    raw = {
        "cut short": (data[:-5], "cut short"),
        "cut in its head": (data[:1], "cut short"),
        "empty": (b"", "a network of 0 inputs, expected one"),
        "text": (b"not a network\n", "not an ONNX file"),
        "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(50), "not an ONNX file"),
        "a web page": (b"<html></html>", "not an ONNX file"),
        "another message": (b"\x08\x01\x12\x03abc", "a network of 0 inputs"),
        "too many parts": (b"\x08\x01" * (onnx_vetting.MAX_FIELDS + 1), "more parts"),
    }
    return {name: (model.SerializeToString(), words) for name, (model, words) in built.items()} | raw


@pytest.mark.parametrize("name", strange_models())
def test_a_strange_onnx_file_is_refused(name, tmp_path):
    """What is no network as 07 writes it, damaged or hostile: one sentence that names the file and what was found."""
    data, words = strange_models()[name]
    (tmp_path / "secret.bin").write_bytes(np.zeros(400).tobytes())
    path = tmp_path / "models" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(data)
    (path.parent / "secret.bin").write_bytes(np.zeros(400).tobytes())
    with pytest.raises(ModelError, match=words) as refusal:
        load_classifier(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_the_parts_looked_into_are_those_of_onnx():
    """The numbers of the fields are the format's own, and no way to a tensor or an operation is left unwatched."""
    kinds = {"model": "ModelProto", "graph": "GraphProto", "node": "NodeProto", "attribute": "AttributeProto"}
    kinds["tensor"] = "TensorProto"
    looked_into = {"GraphProto", "NodeProto", "AttributeProto", "TensorProto", "SparseTensorProto", "FunctionProto"}
    looked_into |= {"TrainingInfoProto"}
    for part, kind in kinds.items():
        for described in getattr(onnx, kind).DESCRIPTOR.fields:
            leads_on = described.message_type is not None and described.message_type.name in looked_into
            watched = (
                described.number in onnx_vetting.INNER.get(part, ()) or (part, described.number) in onnx_vetting.REFUSED
            )
            assert leads_on <= watched, (part, described.name)
    names = {kind: {d.name: d.number for d in getattr(onnx, kind).DESCRIPTOR.fields} for kind in kinds.values()}
    assert ("node", names["NodeProto"]["domain"]) == onnx_vetting.DOMAIN
    assert ("tensor", names["TensorProto"]["data_location"]) == onnx_vetting.LOCATION
    assert ("tensor", names["TensorProto"]["external_data"]) in onnx_vetting.REFUSED


def test_numbers_of_unusual_length_hide_nothing(tmp_path):
    """A field's number or value written longer than needed is read as what it is, or refused."""
    model = colour_model()
    data = model.SerializeToString()
    tensor = model.graph.initializer[0].SerializeToString()
    for hidden in (b"\x70\x01", b"\xf0\x80\x80\x00\x81\x00", b"\x70\x81\x80\x80\x80\x10", b"\x72\x01\x01"):
        longer = TensorProto.FromString(tensor).SerializeToString() + hidden
        graph = b"\x2a" + bytes([len(longer)]) + longer  # GraphProto.initializer
        path = tmp_path / "model.onnx"
        path.write_bytes(data + b"\x3a" + bytes([len(graph)]) + graph)  # ModelProto.graph once more: merged by readers
        with pytest.raises(ModelError, match="another file"):
            load_classifier(path)


def refusal(model: onnx.ModelProto | bytes) -> str:
    """Return why a model is refused by vetting alone; "" if it is not."""
    try:
        vet_onnx(model if isinstance(model, bytes) else model.SerializeToString())
    except ModelError as error:
        return str(error)
    return ""


def test_a_plain_network_is_let_through():
    """The tests' own network, which each of the tests below changes in one point, is accepted."""
    assert refusal(colour_model()) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dims": [1000]}, "a constant has 1,000 numbers, and holds 2"),
        ({"dims": [1, 1]}, "a constant has 1 × 1 numbers, and holds 2"),
        ({"dims": [2**28 + 1]}, "a constant of 268,435,457 numbers, more than any"),
        ({"dims": [2**20, 2**20]}, "a constant of 1,048,576 × 1,048,576 numbers, more than any"),
        ({"dims": [-2]}, "a constant of -2 numbers, more than any"),
        ({"dims": [1] * 9}, "a constant of 1 × .* numbers, more than any"),
        ({"raw_data": b"12345678"}, "a constant has 2 numbers, and holds 1$"),
        ({"raw_data": b"1234567"}, r"a constant has 2 numbers, and holds 0\.875"),
        ({"int64_data": [1, 2]}, "a constant has 2 numbers, and holds 2"),  # in two ways
        ({"raw_data": b"", "int64_data": [1, 2]}, "a constant has 2 numbers, and holds 0"),
        ({"data_type": TensorProto.STRING}, "a constant of the type 8, which"),
        ({"data_type": TensorProto.DOUBLE}, "a constant of the type 11"),
        ({"data_type": 99}, "a constant of the type 99"),
    ],
)
def test_a_constant_holds_what_its_shape_says(change, words):
    """Another number of numbers, too many, or a type that no export has: refused, with both figures."""
    model = colour_model()
    tensor = model.graph.initializer[0]  # the axes 1 and 2
    for name, value in change.items():
        if isinstance(value, list):
            tensor.ClearField(name)
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)
    with pytest.raises(ModelError, match=words):
        vet_onnx(model.SerializeToString())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_constants_that_are_listed_are_counted(count):
    """Numbers may also stand in a list of their type, whole ones and fractions."""
    model = colour_model()
    axes, scale = model.graph.initializer
    for tensor, field, numbers in ((axes, "int64_data", [1, 2]), (scale, "float_data", [0.04])):
        tensor.ClearField("raw_data")
        getattr(tensor, field).extend(numbers)
    assert refusal(model) == ""
    axes.int64_data.extend([300] * count)
    assert f"has 2 numbers, and holds {2 + count}" in refusal(model)
    del axes.int64_data[2:]
    scale.float_data.extend([0.5] * count)
    assert f"has 1 numbers, and holds {1 + count}" in refusal(model)


def field(number: int, content: bytes) -> bytes:
    """Return a short field of a protobuf message."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def test_what_is_written_twice_is_refused():
    """A reader takes the last of two names or types, and merges two tensors: neither is one of ours."""
    data = colour_model().SerializeToString()
    tensor = numpy_helper.from_array(np.array([1], dtype=np.float32)).SerializeToString()
    value = field(1, b"value") + field(5, tensor)
    relu = field(1, b"pixels") + field(2, b"more") + field(4, b"Relu")
    kind = helper.make_tensor("t", TensorProto.FLOAT, [1], [0.0]).SerializeToString() + b"\x10\x01"
    once = [field(1, relu + field(5, value)), field(5, kind[:-2])]
    twice = [
        field(1, relu + field(5, value + field(5, tensor))),
        field(1, relu + field(5, value + field(1, b"other"))),
        field(1, relu + field(5, value) * 2),
        field(1, relu + field(4, b"Relu")),
        field(5, kind),
    ]
    assert [refusal(data + field(7, part)) for part in once] == ["", ""]
    assert [bool(refusal(data + field(7, part))) for part in twice] == [True] * 5


def test_the_number_of_operations_is_bounded(monkeypatch):
    """One operation more than allowed is refused; as many as allowed are not."""
    monkeypatch.setattr(onnx_vetting, "MAX_OPERATIONS", 4)
    assert refusal(colour_model()) == ""
    assert "more than 4 operations" in refusal(with_node("Relu"))


def test_metadata_of_another_encoding_is_refused(tmp_path):
    """Bytes that are no UTF-8 end in a sentence, not in an error of Python's."""
    data = colour_model(note="abcdefg").SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data.replace(b"abcdefg", b"\xff\xfe\xfdabcd"))
    with pytest.raises(ModelError, match=r"model\.onnx is not a model .*(UTF-8|cannot load)"):
        load_classifier(path)


# ---------------------------------------------------------------------------------------------------------------
# Memory
# ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def _little(monkeypatch):
    """Allow a network no more than 3,000 numbers at once."""
    monkeypatch.setattr(onnx_shapes, "MOST_PER_PIXEL", 3000 // PICTURES)
    monkeypatch.setattr(onnx_shapes, "LEAST_PIXELS", 1)


def numbers(*values: int) -> Result:
    return Result((len(values),), np.array(values))


GROWING = {
    "a shape that is asked for": [Step("Expand", [b"x", b"wide"], [b"y"])],
    "a constant of a shape": [Step("ConstantOfShape", [b"wide"], [b"y"])],
    "a row and a column": [Step("Add", [b"row", b"column"], [b"y"])],
    "a product": [Step("MatMul", [b"column", b"row"], [b"y"])],
    "joined with itself": [
        Step("Concat", [b"x"] * 2, [b"a"], {"axis": [1]}),
        *(Step("Concat", [before] * 3, [after], {"axis": [1]}) for before, after in ((b"a", b"b"), (b"b", b"c"))),
        *(Step("Concat", [before] * 3, [after], {"axis": [1]}) for before, after in ((b"c", b"d"), (b"d", b"e"))),
    ],
    "a wide edge": [Step("Pad", [b"x", b"edges"], [b"y"])],
    "many rows of one": [Step("Gather", [b"row", b"places"], [b"y"], {"axis": [0]})],
    "windows on an edge": [Step("MaxPool", [b"maps"], [b"y"], {"kernel_shape": [1, 1], "pads": [30, 30, 30, 30]})],
    "no end of sides": [Step("ConstantOfShape", [b"sides"], [b"y"])],
    "a larger picture": [Step("Resize", [b"maps", b"", b"", b"large"], [b"y"])],
    "a picture made larger": [Step("Resize", [b"maps", b"", b"factors"], [b"y"])],
    "numbers of a range": [Step("Range", [b"zero", b"end", b"one"], [b"y"])],
    "many at once": [Step("Relu", [b"row"], [name]) for name in (b"a", b"b", b"c", b"d")]
    + [Step("Concat", [b"a", b"b", b"c", b"d"], [b"y"], {"axis": [0]})],
}
KNOWN = {
    b"x": Result((PICTURES, 4)),
    b"row": Result((1, 700)),
    b"column": Result((700, 1)),
    b"maps": Result((PICTURES, 1, 4, 4)),
    b"factors": Result((4,), factors=np.array([1.0, 1, 1e4, 1e4])),
    b"wide": numbers(100, PICTURES, 4),
    b"large": numbers(PICTURES, 1, 40, 40),
    b"sides": numbers(*[2**62] * 900),
    b"edges": numbers(400, 0, 400, 0),
    b"places": Result((9,), np.zeros(9, dtype=int)),
    b"zero": Result((), np.array(0)),
    b"one": Result((), np.array(1)),
    b"end": Result((), np.array(5000)),
}


@pytest.mark.parametrize("how", GROWING)
def test_steps_that_grow_are_refused(how, _little):
    """However a few bytes may ask for much memory, what the step makes is counted before it is run."""
    with pytest.raises(ModelError, match=r"would hold more than [\d,]+ numbers at once"):
        vet_memory(GROWING[how], KNOWN, 1)


MAPS, ROWS, TALL = Result((PICTURES, 2, 6, 6)), Result((3, 5)), Result((5, 7))
WORK = {  # a step, what it is given, and its work counted by hand: numbers of the result, times products for each
    "MatMul": (Step("MatMul", [b"a", b"b"], [b"y"]), [ROWS, TALL], 3 * 7 * 5),
    "Gemm": (Step("Gemm", [b"a", b"b"], [b"y"], {"transA": [1]}), [Result((5, 3)), TALL], 3 * 7 * 5),
    "Conv": (Step("Conv", [b"a", b"b"], [b"y"]), [MAPS, Result((4, 2, 3, 3))], PICTURES * 4 * 4 * 4 * 2 * 3 * 3),
    "MaxPool": (Step("MaxPool", [b"a"], [b"y"], {"kernel_shape": [3, 3]}), [MAPS], PICTURES * 2 * 4 * 4 * 3 * 3),
    "ReduceMean": (Step("ReduceMean", [b"a"], [b"y"]), [MAPS], PICTURES * 2 * 6 * 6),
}


@pytest.mark.parametrize("name", WORK)
def test_more_work_than_any_network_has_is_refused(name, monkeypatch):
    """A small file that asks for days of work, which onnxruntime would do while it loads: refused before."""
    step, given, work = WORK[name]
    known = dict(zip((b"a", b"b"), given, strict=False))
    monkeypatch.setattr(onnx_shapes, "LEAST_PIXELS", 1)
    monkeypatch.setattr(onnx_shapes, "MOST_WORK_PER_PIXEL", 3 * work / PICTURES)
    vet_memory([step] * 3, known, 1)
    with pytest.raises(ModelError, match=r"would work out more than [\d,.]+ products"):
        vet_memory([step] * 4, known, 1)


def test_what_is_no_longer_read_is_not_counted(_little):
    """A long row of steps holds two results at once, however many there are."""
    names = [b"row", *(f"n{n}".encode() for n in range(100))]
    steps = [Step("Relu", [before], [after]) for before, after in pairwise(names)]
    vet_memory(steps, KNOWN, 1)
    kept = [*steps, *(Step("Add", [b"n5", name], [b"z"]) for name in names[6:20])]
    with pytest.raises(ModelError, match="numbers at once"):
        vet_memory(kept, KNOWN, 1)


@pytest.mark.parametrize(
    "step",
    [
        Step("Reshape", [b"x", b"row"], [b"y"]),  # a shape that comes out of fractions
        Step("Reshape", [b"x", b"wide"], [b"y"]),  # another number of numbers
        Step("Add", [b"x", b"row"], [b"y"]),
        Step("Relu", [b"later"], [b"y"]),
        Step("Concat", [b"x", b"x"], [b"y"], {"axis": [7]}),
        Step("MaxPool", [b"maps"], [b"y"], {"kernel_shape": [9, 9]}),
        Step("MaxPool", [b"maps"], [b"y"], {"kernel_shape": [2, 2], "strides": [0, 0]}),
        Step("MaxPool", [b"maps"], [b"y"], {"kernel_shape": [2, 2], "auto_pad": [b"SAME_UPPER"]}),
        Step("Split", [b"x"], [b"y", b"z", b"w"], {"axis": [1], "num_outputs": [2]}),
    ],
    ids=lambda step: step.name,
)
def test_a_shape_that_cannot_be_told_is_refused(step):
    """If the shape of a result cannot be predicted, the file is refused, and the step named."""
    with pytest.raises(ModelError, match=f"the shape of what its step {step.name} makes cannot be told"):
        vet_memory([step], KNOWN, 1)


def made_by(name: str, given: list, settings: dict, answers: int) -> list[tuple[int, ...]]:
    """Return the shapes that onnx's own inference finds for a step; a list among the given is a constant of numbers."""
    inputs, constants = [], []
    for n, each in enumerate(given):
        if isinstance(each, list):
            constants.append(numpy_helper.from_array(np.array(each, dtype=np.int64), f"i{n}"))
        elif each is not None:
            inputs.append(helper.make_tensor_value_info(f"i{n}", TensorProto.FLOAT, each))
    places = ["" if each is None else f"i{n}" for n, each in enumerate(given)]
    outputs = [f"o{n}" for n in range(answers)]
    node = helper.make_node(name, places, outputs, **settings)
    graph = helper.make_graph([node], "g", inputs, [helper.make_empty_tensor_value_info(o) for o in outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    found = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph.output
    return [tuple(side.dim_value for side in value.type.tensor_type.shape.dim) for value in found]


CASES = [
    ("Relu", [(2, 3)], {}),
    ("Clip", [(2, 3), None, ()], {}),
    ("Softmax", [(2, 3)], {"axis": 1}),
    ("Add", [(2, 1, 4), (3, 1)], {}),
    ("Where", [(2, 1), (2, 4), (1, 4)], {}),
    ("MatMul", [(5, 1, 2, 3), (4, 3, 6)], {}),
    ("Gemm", [(3, 2), (5, 3), (5,)], {"transA": 1, "transB": 1}),
    (
        "Conv",
        [(2, 6, 17, 12), (8, 3, 3, 5)],
        {"group": 2, "pads": [1, 2, 0, 1], "strides": [2, 3], "dilations": [2, 1]},
    ),
    ("Conv", [(2, 6, 7, 7), (8, 6, 1, 1), (8,)], {"auto_pad": "NOTSET"}),
    ("MaxPool", [(2, 6, 13, 14)], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", [(2, 6, 13, 14)], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 0]}),
    ("GlobalAveragePool", [(2, 6, 13, 14)], {}),
    ("ReduceMean", [(2, 6, 5, 4), [-1, 2]], {}),
    ("ReduceMax", [(2, 6, 5, 4), [1]], {"keepdims": 0}),
    ("ReduceL2", [(2, 6)], {}),
    ("Transpose", [(2, 6, 5)], {"perm": [2, 0, 1]}),
    ("Transpose", [(2, 6, 5)], {}),
    ("Reshape", [(2, 6, 5), [0, -1]], {}),
    ("Reshape", [(2, 6, 5), [3, 4, 5]], {"allowzero": 1}),
    ("Squeeze", [(1, 6, 1), [-1]], {}),
    ("Squeeze", [(1, 6, 1)], {}),
    ("Unsqueeze", [(6, 5), [0, -1]], {}),
    ("Concat", [(2, 6, 5), (2, 1, 5)], {"axis": -2}),
    ("Slice", [(9, 8, 7), [2, -3], [2**62, -1], [0, 2]], {}),
    ("Slice", [(9, 8), [8], [-(2**62)], [0], [-2]], {}),
    ("Slice", [(9, 8), [1], [8], [-1], [3]], {}),
    ("Gather", [(9, 8, 7), [[0, 1, 2], [3, 4, 5]]], {"axis": -2}),
    ("GatherND", [(9, 8, 7), [[0, 1], [3, 4], [5, 6]]], {}),
    ("Pad", [(2, 3, 4), [1, 0, 2, 0, 0, 1]], {}),
    ("Pad", [(2, 3, 4), [1, 2], None, [-1]], {}),
    ("Expand", [(2, 1, 4), [5, 1, 3, 1]], {}),
    ("Resize", [(2, 3, 4, 5), None, None, [2, 3, 9, 7]], {"mode": "cubic", "keep_aspect_ratio_policy": "stretch"}),
    ("ConstantOfShape", [[2, 5]], {}),
    ("Shape", [(2, 3, 4, 5)], {"start": 1, "end": -1}),
    ("Split", [(2, 7), [3, 4]], {"axis": 1}),
    ("Split", [(2, 7)], {"axis": -1, "num_outputs": 3}),
]


@pytest.mark.parametrize("factors", [[1.0, 1, 2, 4], [1.0, 1, 0.5, 0.75]])
def test_a_picture_grows_by_its_factors(factors):
    """As the masker's maps do: onnx's own inference finds the same shape."""
    given = [Result((2, 3, 8, 5)), None, Result((4,), factors=np.array(factors))]
    (made,) = onnx_shapes._step_results(Step("Resize", [], [b"o"]), given)
    step = helper.make_node("Resize", ["x", "", "by"], ["o"])
    weights = [numpy_helper.from_array(np.array(factors, np.float32), "by")]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, given[0].shape)
    graph = helper.make_graph([step], "g", [x], [helper.make_empty_tensor_value_info("o")], weights)
    model = onnx.shape_inference.infer_shapes(helper.make_model(graph), strict_mode=True)
    sides = model.graph.output[0].type.tensor_type.shape.dim
    assert made.shape == tuple(side.dim_value for side in sides)


@pytest.mark.parametrize("broken", [[1.0, 1, np.nan, 1], [1.0, 1, np.inf, 1], [1.0, 1, -2, 1], [1.0, 2]])
def test_factors_that_make_no_picture_are_refused(broken):
    """No number, without end, below 0, or too few."""
    known = {b"maps": Result((PICTURES, 1, 4, 4)), b"by": Result((len(broken),), factors=np.array(broken))}
    with pytest.raises(ModelError, match="the shape of what its step Resize makes cannot be told beforehand"):
        vet_memory([Step("Resize", [b"maps", b"", b"by"], [b"y"])], known, 16)


@pytest.mark.parametrize(("name", "given", "settings"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)])
def test_shapes_are_those_of_onnx(name, given, settings):
    """For each rule, onnx's own inference finds the same shape."""
    answers = settings.get("num_outputs", 1 + (name == "Split"))
    listed = {key: value if isinstance(value, list) else [value] for key, value in settings.items()}
    listed = {key: [v.encode() if isinstance(v, str) else v for v in value] for key, value in listed.items()}
    results = [
        None if each is None else Result(np.shape(each), np.array(each)) if isinstance(each, list) else Result(each)
        for each in given
    ]
    made = onnx_shapes._step_results(Step(name, [], [b"o"] * answers, listed), results)
    assert [result.shape for result in made] == made_by(name, given, settings, answers)


def test_a_last_window_that_begins_beyond_the_edge_is_left_out():
    """As onnxruntime and torch do: seven numbers with an edge of one have four windows of two, not five."""
    settings = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": [1]}
    made = onnx_shapes._step_results(Step("MaxPool", [], [b"o"], settings), [Result((2, 6, 7, 8))])
    assert made[0].shape == (2, 6, 4, 5)


def test_shapes_are_worked_out_as_numpy_does():
    """A shape taken apart, calculated with and put together again is known, as transformers need it."""
    steps = [
        Step("Shape", [b"maps"], [b"s"]),
        Step("Slice", [b"s", b"from", b"to"], [b"n"]),
        Step("Gather", [b"s", b"places"], [b"p"]),
        Step("Mul", [b"n", b"n"], [b"nn"]),
        Step("Concat", [b"n", b"nn", b"minus"], [b"wanted"], {"axis": [0]}),
        Step("Expand", [b"one", b"nn"], [b"e"]),
        Step("Reshape", [b"maps", b"back"], [b"r"]),
    ]
    known = KNOWN | {b"from": numbers(2), b"to": numbers(3), b"minus": numbers(-1), b"back": numbers(0, -1)}
    results = dict(known)
    for step in steps:
        results[step.makes[0]] = onnx_shapes._step_results(step, [results[name] for name in step.reads])[0]
    assert results[b"wanted"].numbers.tolist() == [4, 16, -1]
    assert results[b"p"].numbers.tolist() == [PICTURES] * 9
    assert (results[b"e"].shape, results[b"r"].shape) == ((16,), (PICTURES, 16))


@pytest.mark.parametrize("kind", [kind for kind in onnx_vetting.BYTES_EACH if kind != TensorProto.INT64])
def test_only_numbers_of_64_bits_say_a_shape(kind):
    """Shorter ones would begin again from below, as 300 in eight bits is 44: with them a shape counts as unknown."""
    cast = onnx_shapes._step_results(Step("Cast", [b"wide"], [b"y"], {"to": [kind]}), [KNOWN[b"wide"]])
    assert cast == [Result((3,))]
    value = numpy_helper.from_array(np.ones(2, helper.tensor_dtype_to_np_dtype(kind)), "t").SerializeToString()
    name, constant = onnx_vetting._vetted_constant(
        onnx_vetting._fields("tensor", memoryview(value), iter(range(1, 100)))
    )
    assert (name, constant) == (b"t", Result((2,)))


def test_every_operation_has_its_case():
    """The operations allowed are ONNX's own, and each rule but the plainest is tried above."""
    assert {name for name in RULES if not onnx.defs.has(name)} == set()
    tried = {RULES[name] for name, *_ in CASES}
    assert {name for name, rule in RULES.items() if rule not in tried} == {"Range"}  # its numbers are no list
