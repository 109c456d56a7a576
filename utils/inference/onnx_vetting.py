"""
Is this ONNX file a plain network? Answered from its bytes, before onnxruntime gets them.

An ONNX file is a message of Google's protobuf format, described by onnx.proto. It holds numbers and arithmetic, not a
program. But it can name other files for onnxruntime to read, loop without end, or ask in a few bytes for more memory
than there is. Whatever our own exports never do is refused.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import count

import numpy as np

from .onnx_shapes import FEW, INT64, PICTURES, RULES, Result, Shape, Step, vet_memory
from .recipe import MAX_SIZE
from .vetting import ModelError, in_one_line

MAX_FIELDS = 200_000  # of the message; ours have some thousands
MAX_OPERATIONS = 20_000  # ours have up to a thousand, and four times as many in int8
MAX_ELEMENTS = 2**28  # numbers in one constant; those of a large network have a tenth of it together
MAX_NUMBER = 2**16  # in a step's settings, such as a stride; the largest of ours is a number of channels
MAX_RANK = 8  # dimensions of a constant, or numbers of a setting; ours have at most 6
VARINT, BYTES, FIXED = 0, 2, 5  # how the format writes a value: as long as it needs, with its length, in four bytes
NOT_ONNX = "it is not an ONNX file, or damaged"
CUT_SHORT = "it is cut short, or not an ONNX file"
# The parts of each message that are looked into, by the numbers of their fields …
INNER = {
    "model": (GRAPH := 7,),
    "graph": (STEPS := 1, CONSTANTS := 5, INPUTS := 11),
    "node": (ATTRIBUTES := 5,),
    "attribute": (ONE_TENSOR := 5, TENSORS := 10),
    "value": (VALUE_TYPE := 2,),
    "type": (TENSOR_TYPE := 1,),
    "tensor type": (TENSOR_SHAPE := 2,),
    "shape": (SIDES := 1,),
}
# … and those that are refused: our exports have none of them, and the last would have another file read.
ELSEWHERE = "weights that lie in another file"
REFUSED = {
    ("model", 20): "training steps",
    ("model", 25): "functions of its own",
    **dict.fromkeys([("attribute", 6), ("attribute", 11)], "loops or branches"),
    **dict.fromkeys([("graph", 15), ("attribute", 22), ("attribute", 23)], "sparse weights"),
    ("tensor", 13): ELSEWHERE,
}
DOMAIN, LOCATION = ("node", 7), ("tensor", 14)  # who defined an operation; 0 where the weights lie in the file itself
READS, MAKES, OPERATION = 1, 2, 4  # of a node: the names of what it reads and makes, and what it does
SETTING_NAME, SET_NUMBER, SET_WORD, SET_NUMBERS = 1, 3, 4, 8  # of an attribute
DIMS, ELEMENT_KIND, TENSOR_NAME = 1, 2, 8  # of a tensor …
FLOATS, WHOLE_NUMBERS, PACKED = 4, (5, 7), 9  # … and its numbers, in a list of their type or as they lie in memory
FLOAT = 1  # ONNX's number of the type that weights have
VALUE_NAME, SIDE_AT = 1, 1  # of an input, and of a side of its shape
BYTES_EACH = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1}  # of float, uint8, int8, int32, int64, truth value
Fields = Mapping[int, list[tuple[int, int | memoryview]]]  # of a message: by number, how each is written, its value


def vet_onnx(data: bytes) -> None:
    """Refuse an ONNX file that is not a plain network as 07 writes it, in one sentence that names what was found."""
    left = count(MAX_FIELDS, -1)
    steps: list[Step] = []
    known: dict[bytes, Result] = {}
    inputs: list[tuple[bytes, Shape]] = []
    for graph in _inner(_fields("model", memoryview(data), left), GRAPH):
        fields = _fields("graph", graph, left)
        if len(fields.get(STEPS, ())) > MAX_OPERATIONS:
            raise ModelError(f"it has more than {MAX_OPERATIONS:,} operations, more than any network here")
        steps += [_vetted_step(node, left) for node in _inner(fields, STEPS)]
        for tensor in _inner(fields, CONSTANTS):
            name, constant = _vetted_constant(_fields("tensor", tensor, left))
            known[name] = constant
        inputs += [_input(value, left) for value in _inner(fields, INPUTS)]
    if len(inputs) != 1:
        raise ModelError(f"it is a network of {len(inputs)} inputs, expected one: pixels")
    ((name, shape),) = inputs
    vet_memory(steps, known | {name: Result(shape)}, math.prod(shape[1:3]))


def _fields(part: str, message: memoryview, left: Iterator[int]) -> Fields:
    """Return the fields of a message, or refuse what no export of ours has; `left` counts down how many may come."""
    fields: dict[int, list] = {}
    for number, kind, value in message_fields(message):
        at = part, number
        if next(left) == 0:
            raise ModelError("it has more parts than any network here")
        if at in REFUSED or (at == LOCATION and value != 0):
            raise ModelError(f"it holds {REFUSED.get(at, ELSEWHERE)}, which exports of notebook 07 never do")
        if number in INNER.get(part, ()) and kind != BYTES:
            raise ModelError(NOT_ONNX)
        fields.setdefault(number, []).append((kind, value))
    return fields


def _inner(fields: Fields, number: int) -> list[memoryview]:
    """Return the messages in a field."""
    return [value for _, value in fields.get(number, ())]


def _vetted_step(message: memoryview, left: Iterator[int]) -> Step:
    """Return one step of a network, or refuse one that no export of ours has."""
    fields = _fields("node", message, left)
    settings = {}
    for attribute in _inner(fields, ATTRIBUTES):
        name, setting = _vetted_setting(_fields("attribute", attribute, left), left)
        settings[name] = setting
    for maker in _texts(fields, DOMAIN[1]):
        if maker not in (b"", b"ai.onnx"):
            raise ModelError(f"it needs an operation that is not ONNX's own, of {_shown_name(maker)}")
    names = _texts(fields, OPERATION)
    for name in names:
        if name.decode("utf-8", "replace") not in RULES:
            raise ModelError(f"it needs the operation {_shown_name(name)}, which exports of notebook 07 never have")
    if len(names) != 1 or len(settings) != len(fields.get(ATTRIBUTES, ())):
        raise ModelError(NOT_ONNX)
    return Step(names[0].decode(), _texts(fields, READS), _texts(fields, MAKES), settings)


def _vetted_setting(fields: Fields, left: Iterator[int]) -> tuple[str, list[int | bytes]]:
    """Return the name of a step's setting with its whole numbers or words; refuse numbers larger than any of ours."""
    tensors = [*_inner(fields, ONE_TENSOR), *_inner(fields, TENSORS)]
    for tensor in tensors:
        _vetted_constant(_fields("tensor", tensor, left))
    one, numbers, words = (
        _whole_numbers(fields, SET_NUMBER),
        _whole_numbers(fields, SET_NUMBERS),
        _texts(fields, SET_WORD),
    )
    for number in (*one, *numbers):
        if abs(number) > MAX_NUMBER:
            raise ModelError(
                f"it sets a step to {number:,}, which is beyond {MAX_NUMBER:,}: more than any network here"
            )
    names = _texts(fields, SETTING_NAME)
    # Written twice, a reader would take the last, or merge them into something else.
    if max(map(len, (names, one, words, _inner(fields, ONE_TENSOR)))) > 1 or len(names) != 1:
        raise ModelError(NOT_ONNX)
    return names[0].decode("utf-8", "replace"), one or numbers or words


def _input(message: memoryview, left: Iterator[int]) -> tuple[bytes, Shape]:
    """Return the name and shape of what a network takes, for a batch of pictures."""
    fields = _fields("value", message, left)
    kinds = [_fields("type", each, left) for each in _inner(fields, VALUE_TYPE)]
    tensors = [_fields("tensor type", each, left) for kind in kinds for each in _inner(kind, TENSOR_TYPE)]
    shapes = [_fields("shape", each, left) for tensor in tensors for each in _inner(tensor, TENSOR_SHAPE)]
    sides = [_whole_numbers(_fields("side", each, left), SIDE_AT) for shape in shapes for each in _inner(shape, SIDES)]
    names = _texts(fields, VALUE_NAME)
    shape = tuple((side or [PICTURES])[-1] for side in sides)
    if len(names) != 1 or len(shapes) != 1 or len(shape) != 4 or any(not 0 < side <= MAX_SIZE for side in shape):
        told = " × ".join(f"{side:,}" for side in shape[:MAX_RANK]) or "no shape"
        raise ModelError(f"it takes an input of {told}, expected N × height × width × 3 of at most {MAX_SIZE:,} pixels")
    return names[0], (PICTURES, *shape[1:])


def _vetted_constant(fields: Fields) -> tuple[bytes, Result]:
    """Return name, shape and a few numbers of a constant; refuse one too large, or whose numbers are not there."""
    shape = _whole_numbers(fields, DIMS)
    told = " × ".join(f"{side:,}" for side in shape[:MAX_RANK]) or "1"
    if len(shape) > MAX_RANK or any(not 0 <= side <= MAX_ELEMENTS for side in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise ModelError(f"it holds a constant of {told} numbers, more than any network here")
    kinds = _whole_numbers(fields, ELEMENT_KIND)
    if len(kinds) != 1 or kinds[0] not in BYTES_EACH:
        raise ModelError(
            f"it holds a constant of the type {str(kinds)[1:40].rstrip(']')}, which exports of notebook 07 never have"
        )
    (kind,), size = kinds, math.prod(shape)
    listed = sum(_how_many(field, *value) for field in (FLOATS, *WHOLE_NUMBERS) for value in fields.get(field, ()))
    packed = _texts(fields, PACKED) if size <= FEW else [value for _, value in fields.get(PACKED, ())]
    held = len(packed[0]) / BYTES_EACH[kind] if packed else listed
    if held != size or len(packed) > 1 or (packed and listed):
        raise ModelError(f"it says that a constant has {told} numbers, and holds {held:,g}")
    numbers = None
    if size <= FEW and kind == INT64:
        known = np.frombuffer(packed[0], "<i8") if packed else _whole_numbers(fields, *WHOLE_NUMBERS, most=FEW)
        numbers = np.array(known, dtype=np.int64).reshape(shape)
    few = packed and size <= MAX_RANK and kind == FLOAT
    factors = np.frombuffer(packed[0], "<f4").astype(float) if few else None
    return b"".join(_texts(fields, TENSOR_NAME)[-1:]), Result(tuple(shape), numbers, factors)


def _how_many(field: int, kind: int, value: int | memoryview) -> int:
    """Return how many numbers of a constant a value of a field holds."""
    if kind == BYTES and field == FLOATS:
        return len(value) // 4
    if kind == BYTES:
        return np.count_nonzero(np.frombuffer(value, np.uint8) < 128)  # the last byte of a number is below 128
    if kind != (FIXED if field == FLOATS else VARINT):
        raise ModelError(NOT_ONNX)
    return 1


def _whole_numbers(fields: Fields, *numbers: int, most: int = MAX_RANK) -> list[int]:
    """Return the few whole numbers of some fields, each written on its own or several in a row."""
    found: list[int] = []
    for kind, value in (each for number in numbers for each in fields.get(number, ())):
        if kind == VARINT:
            found.append(value)
        elif kind == BYTES and len(value) <= 10 * most:
            at = 0
            while at < len(value):
                each, at = _varint(value, at)
                found.append(each)
        else:
            raise ModelError(NOT_ONNX)
    found = [each & (2**64 - 1) for each in found]
    return [each - 2**64 if each >= 2**63 else each for each in found]  # the first of 64 bits is the sign


def _texts(fields: Fields, number: int) -> list[bytes]:
    """Return the texts of a field of a message."""
    if any(kind != BYTES for kind, _ in fields.get(number, ())):
        raise ModelError(NOT_ONNX)
    return [bytes(value) for _, value in fields.get(number, ())]


def _shown_name(name: bytes) -> str:
    """Return a name out of the file as it may be shown."""
    return repr(in_one_line(name[:60].decode("utf-8", "replace")))


def message_fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield the fields of a protobuf message: the number of each, how it is written, and its value, an int or bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if not 0 < number < 2**29 or kind not in (0, 1, 2, 5):
            raise ModelError(NOT_ONNX)
        if kind == VARINT:
            value, at = _varint(message, at)
        else:
            length, at = _varint(message, at) if kind == BYTES else ({1: 8, 5: 4}[kind], at)
            value, at = message[at : at + length], at + length
            if at > len(message):
                raise ModelError(CUT_SHORT)
        yield number, kind, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the number written at a place, seven bits per byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte, at = message[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ModelError(CUT_SHORT)
