"""
How much memory and work will this network need? Answered from the shapes of its steps, before any of them is run.

A few bytes can ask for all the memory there is: a constant made as large as another says, a sum of a column and a row,
a join of a result with itself, again and again. A few more can ask for days of work, which onnxruntime already does
while it loads the file: products of large constants. So the shape of every result is found here by the rules of ONNX. A
step whose result has no known shape is refused.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .vetting import ModelError

Shape = tuple[int, ...]
PICTURES = 16  # in the batch whose shapes are found
MOST_PER_PIXEL = 512  # numbers that a network holds at once for each pixel of its input; vgg's hold 128
MOST_WORK_PER_PIXEL = 4_000_000  # products or numbers to work out for it; vgg's take 400,000, ViT-L 1,700,000
LEAST_PIXELS = 224**2  # smaller inputs are counted as this
INT64 = 7  # ONNX's number of the type that shapes have
FEW = 1000  # numbers of a result that is worked out, for it may say a shape


@dataclass(frozen=True)
class Result:
    """What is known of one result of a step: its shape, and its whole numbers where they may say a shape."""

    shape: Shape
    numbers: np.ndarray | None = None  # of 64 bits: shorter ones would begin again from below
    # Of a constant of a few fractions, by which sides may grow.
    factors: np.ndarray | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Step:
    """One operation of a network: its name, the names of what it reads and makes, and its settings."""

    name: str
    reads: list[bytes]
    makes: list[bytes]
    settings: dict[str, list[int | bytes]] = field(default_factory=dict)  # whole numbers and words alone


def vet_memory(steps: Sequence[Step], known: Mapping[bytes, Result], pixels: int) -> None:
    """
    Refuse a network that holds more numbers at once, or works out more, than any of ours.

    `known` are its input of so many `pixels`, for a batch of `PICTURES`, and its constants, by name.
    """
    known = dict(known)
    last = {name: at for at, step in enumerate(steps) for name in (*step.makes, *step.reads)}
    counted = PICTURES * max(pixels, LEAST_PIXELS)
    most, alive, work = counted * MOST_PER_PIXEL, 0, 0
    sizes: dict[bytes, int] = {}
    for at, step in enumerate(steps):
        try:
            given = [known[name] if name else None for name in step.reads]
            made = _step_results(step, given)
            work += _work(step, given, made)
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError):
            raise ModelError(f"the shape of what its step {step.name} makes cannot be told beforehand") from None
        for name, result in zip(step.makes, made, strict=False):
            known[name], sizes[name] = result, math.prod(result.shape)
            alive += sizes[name]
        if alive > most:
            raise ModelError(f"it would hold more than {most:,} numbers at once, as no network here does")
        if work > counted * MOST_WORK_PER_PIXEL:
            told = f"{counted * MOST_WORK_PER_PIXEL:,}"
            raise ModelError(f"it would work out more than {told} products, as no network here does")
        alive -= sum(sizes.pop(name, 0) for name in {*step.reads, *step.makes} if last[name] == at)


def _step_results(step: Step, given: list[Result | None]) -> list[Result]:
    """Return what a step makes of what it is given."""
    shapes = RULES[step.name](step.settings, *given)
    shapes = shapes if isinstance(shapes, list) else [shapes] * len(step.makes)
    if any(side < 0 for shape in shapes for side in shape) or len(shapes) < len(step.makes):
        raise ValueError("a side has at least 0 numbers")
    if step.name == "Shape":
        return [Result(shapes[0], np.array(_part(given[0].shape, step.settings), dtype=np.int64))]
    if step.name in WORKED_OUT and math.prod(shapes[0]) <= FEW:
        numbers = [result.numbers if result else None for result in given]
        if all(each is not None for each in numbers):
            found = WORKED_OUT[step.name](step.settings, *numbers)
            return [Result(shapes[0], None if found is None else found.reshape(shapes[0]))]
    return [Result(shape) for shape in shapes]


def _work(step: Step, given: list[Result | None], made: list[Result]) -> int:
    """Return how many products or numbers a step works out, or how many it reads, if these are more."""
    each = 1  # for one number of its result
    if step.name == "Conv":
        each = math.prod(given[1].shape[1:])
    elif step.name == "MatMul":
        each = given[0].shape[-1]
    elif step.name == "Gemm":
        each = given[0].shape[1 - _one(step.settings, "transA", 0)]
    elif step.name in ("AveragePool", "MaxPool"):
        each = math.prod(step.settings["kernel_shape"])
    read = (math.prod(result.shape) for result in given if result)
    return max(each * sum(math.prod(result.shape) for result in made), *read, 0)


def _one(settings: Mapping, name: str, usual: int) -> int:
    """Return a setting that is one number."""
    return settings.get(name, [usual])[0]


def _same(settings: Mapping, x: Result, *others: Result | None) -> Shape:
    return x.shape


def _broadcast(settings: Mapping, *given: Result) -> Shape:
    return np.broadcast_shapes(*(result.shape for result in given))


def _conv_shape(settings: Mapping, x: Result, weights: Result, *bias: Result | None) -> Shape:
    return (x.shape[0], weights.shape[0], *_windows(settings, x.shape[2:], weights.shape[2:]))


def _pool_shape(settings: Mapping, x: Result) -> Shape:
    return (*x.shape[:2], *_windows(settings, x.shape[2:], settings["kernel_shape"]))


def _windows(settings: Mapping, sides: Shape, kernel: Sequence[int]) -> Shape:
    """Return how many windows of a kernel there are along each side."""
    if settings.get("auto_pad", [b"NOTSET"]) != [b"NOTSET"]:
        raise ValueError("no export of ours pads like this")
    count, ceil = len(sides), _one(settings, "ceil_mode", 0)
    pads = settings.get("pads", [0] * 2 * count)
    steps, gaps = (settings.get(name, [1] * count) for name in ("strides", "dilations"))
    counts = []
    for side, size, step, gap, before, after in zip(sides, kernel, steps, gaps, pads, pads[count:], strict=False):
        room = side + before + after - gap * (size - 1) - 1
        windows = (-(-room // step) if ceil else room // step) + 1
        counts.append(windows - (ceil and (windows - 1) * step >= side + before))  # one that begins beyond is left out
    if len(counts) != count:
        raise ValueError("a kernel has as many sides as what it goes over")
    return tuple(counts)


def _multiplied(settings: Mapping, a: Result, b: Result) -> Shape:
    (*more, m, _), (*others, _, n) = a.shape, b.shape
    return (*np.broadcast_shapes(tuple(more), tuple(others)), m, n)


def _gemm(settings: Mapping, a: Result, b: Result, *bias: Result | None) -> Shape:
    return a.shape[_one(settings, "transA", 0)], b.shape[1 - _one(settings, "transB", 0)]


def _reduced(settings: Mapping, x: Result, axes: Result | None = None) -> Shape:
    count = len(x.shape)
    chosen = settings.get("axes", range(count)) if axes is None else axes.numbers.tolist()
    gone = {axis % count for axis in chosen}
    if _one(settings, "keepdims", 1):
        return tuple(1 if axis in gone else side for axis, side in enumerate(x.shape))
    return tuple(side for axis, side in enumerate(x.shape) if axis not in gone)


def _transposed(settings: Mapping, x: Result) -> Shape:
    return tuple(x.shape[axis] for axis in settings.get("perm", range(len(x.shape))[::-1]))


def _reshaped(settings: Mapping, x: Result, wanted: Result) -> Shape:
    sides = wanted.numbers.tolist()
    if not _one(settings, "allowzero", 0):
        sides = [x.shape[axis] if side == 0 else side for axis, side in enumerate(sides)]
    rest = math.prod(side for side in sides if side != -1)
    shape = tuple(math.prod(x.shape) // rest if side == -1 else side for side in sides)
    if math.prod(shape) != math.prod(x.shape):
        raise ValueError("another shape has as many numbers")
    return shape


def _squeezed(settings: Mapping, x: Result, axes: Result | None = None) -> Shape:
    if axes is None:
        return tuple(side for side in x.shape if side != 1)
    gone = {axis % len(x.shape) for axis in axes.numbers.tolist()}
    return tuple(side for axis, side in enumerate(x.shape) if axis not in gone)


def _unsqueezed(settings: Mapping, x: Result, axes: Result) -> Shape:
    count = len(x.shape) + axes.numbers.size
    new, sides = {axis % count for axis in axes.numbers.ravel().tolist()}, iter(x.shape)
    return tuple(1 if axis in new else next(sides) for axis in range(count))


def _concatenated(settings: Mapping, *given: Result) -> Shape:
    shape, axis = list(given[0].shape), settings["axis"][0]
    shape[axis] = sum(result.shape[axis] for result in given)
    return tuple(shape)


def _split_shapes(settings: Mapping, x: Result, sizes: Result | None = None) -> list[Shape]:
    axis = _one(settings, "axis", 0) % len(x.shape)
    if sizes is None:
        count = settings["num_outputs"][0]
        each = -(-x.shape[axis] // count)
        parts = [min(each, x.shape[axis] - each * n) for n in range(count)]
    else:
        parts = sizes.numbers.tolist()
    return [(*x.shape[:axis], part, *x.shape[axis + 1 :]) for part in parts]


def _slices(count: int, starts, ends, axes=None, steps=None) -> tuple[slice, ...]:
    """Return the slices along `count` axes that a step asks for."""
    slices = [slice(None)] * count
    axes = range(len(starts)) if axes is None else axes.tolist()
    steps = [1] * len(starts) if steps is None else steps.tolist()
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), axes, steps, strict=True):
        slices[axis] = slice(start, end, step)
    return tuple(slices)


def _sliced(settings: Mapping, x: Result, *places: Result | None) -> Shape:
    slices = _slices(len(x.shape), *(place and place.numbers for place in places))
    return tuple(len(range(*each.indices(side))) for each, side in zip(slices, x.shape, strict=True))


def _gather_shape(settings: Mapping, x: Result, places: Result) -> Shape:
    axis = _one(settings, "axis", 0) % len(x.shape)
    return (*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])


def _gathered_by_place(settings: Mapping, x: Result, places: Result) -> Shape:
    if _one(settings, "batch_dims", 0):
        raise ValueError("no export of ours does this")
    return (*places.shape[:-1], *x.shape[places.shape[-1] :])


def _padded(settings: Mapping, x: Result, pads: Result, value=None, axes: Result | None = None) -> Shape:
    count, widths = len(x.shape), pads.numbers.tolist()
    chosen = range(count) if axes is None else [axis % count for axis in axes.numbers.tolist()]
    shape = list(x.shape)
    for n, axis in enumerate(chosen):
        shape[axis] += widths[n] + widths[n + len(chosen)]
    return tuple(shape)


def _expanded(settings: Mapping, x: Result, wanted: Result) -> Shape:
    return np.broadcast_shapes(x.shape, tuple(wanted.numbers.tolist()))


def _resized(settings: Mapping, x: Result, area: Result | None, factors: Result | None, wanted=None) -> Shape:
    if (area and math.prod(area.shape)) or "axes" in settings:
        raise ValueError("exports of ours name every side")
    if settings.get("keep_aspect_ratio_policy", [b"stretch"]) != [b"stretch"] or bool(factors) == bool(wanted):
        raise ValueError("exports of ours name sides or factors")
    if wanted:
        sides = wanted.numbers.tolist()
    else:
        sides = [math.floor(side * by) for side, by in zip(x.shape, factors.factors.tolist(), strict=True)]
    if len(sides) != len(x.shape):
        raise ValueError("a picture keeps its number of sides")
    return tuple(sides)


def _filled(settings: Mapping, wanted: Result) -> Shape:
    return tuple(wanted.numbers.tolist())


def _counted_up(settings: Mapping, start: Result, end: Result, step: Result) -> Shape:
    return (len(range(*(int(result.numbers.item()) for result in (start, end, step)))),)


def _part(shape: Shape, settings: Mapping) -> Shape:
    """Return the part of a shape that a step asks for."""
    return shape[_one(settings, "start", 0) : _one(settings, "end", len(shape))]


def _of_pixels(settings: Mapping, x: Result) -> Shape:
    return (*x.shape[:2], *(1 for _ in x.shape[2:]))


RULES: dict[str, Callable[..., Shape | list[Shape]]] = {
    **dict.fromkeys(("Cast", "Clip", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu"), _same),
    **dict.fromkeys(("Log", "Neg", "Not", "Reciprocal", "Relu", "Sigmoid", "Softmax", "Softplus", "Sqrt"), _same),
    **dict.fromkeys(("Tanh", "BatchNormalization", "GroupNormalization", "InstanceNormalization"), _same),
    **dict.fromkeys(("LayerNormalization", "ScatterND", "QuantizeLinear", "DequantizeLinear"), _same),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu", "Equal", "Where"), _broadcast),
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2"), _reduced),
    **dict.fromkeys(("AveragePool", "MaxPool"), _pool_shape),
    "GlobalAveragePool": _of_pixels,
    "Conv": _conv_shape,
    "MatMul": _multiplied,
    "Gemm": _gemm,
    "Transpose": _transposed,
    "Reshape": _reshaped,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
    "Concat": _concatenated,
    "Split": _split_shapes,
    "Slice": _sliced,
    "Gather": _gather_shape,
    "GatherND": _gathered_by_place,
    "Pad": _padded,
    "Expand": _expanded,
    "Resize": _resized,
    "ConstantOfShape": _filled,
    "Range": _counted_up,
    "Shape": lambda settings, x: (len(_part(x.shape, settings)),),
}
# Steps that a shape may be worked out with, on whole numbers.
WORKED_OUT: dict[str, Callable[..., np.ndarray]] = {
    **dict.fromkeys(("Identity", "Reshape", "Squeeze", "Unsqueeze"), lambda settings, x, *_: x),
    "Cast": lambda settings, x: x if settings["to"] == [INT64] else None,  # others may not hold it
    "Add": lambda settings, a, b: a + b,
    "Sub": lambda settings, a, b: a - b,
    "Mul": lambda settings, a, b: a * b,
    "Concat": lambda settings, *given: np.concatenate(given, axis=settings["axis"][0]),
    "Gather": lambda settings, x, places: np.take(x, places, axis=_one(settings, "axis", 0)),
    "Slice": lambda settings, x, *places: x[_slices(x.ndim, *places)],
}
