"""
Is this model file safe to load? Answered by reading it, without running any of it.

A pickle is a program: loading one may run any command. This module reads only the opcodes of the pickle inside an
export.pkl, in milliseconds and before torch is imported, on a machine of symbols: it follows which names the file
asks for and what it would do with them, and refuses whatever our own exports do not do. Names are allowed one by
one; the few that could reach others (``getattr``, ``partial``, ``reduce`` …) only with the arguments seen in ours.

Standard library alone, so that it can be copied into another program together with `inference` and `pictures`.
The module can be given to ``torch.load`` as its ``pickle_module``: then the very bytes that are unpickled are vetted.
"""

import io
import os
import pickle
import pickletools
import re
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

MAX_BYTES = 4 * 2**30  # of all records; a large network has well under one gigabyte of weights
MAX_PICKLE = 64 * 2**20  # bytes of the pickle itself; ours have about 70 thousand
LOCAL_HEADER, LAST_HEADER = b"PK\x03\x04", b"PK\x05\x06"
PICKLE_STARTS = (b"\x80", b"c", b"(")  # the opcodes PROTO, GLOBAL and MARK
LAST_BYTES = 22  # the length of an archive's last header, when no comment follows it
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number with which torch began files before 1.6
# The records that torch.save writes. "constants.pkl" is not among them: torch would take the file for TorchScript.
RECORD = re.compile(
    r"data\.pkl|byteorder|version|\.format_version|\.storage_alignment|data/\d+|\.data/serialization_id"
)
DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")
NUMBER_TYPE = re.compile(r"[<>=|]?[fiub][1248]")


def _names(table: str) -> frozenset[str]:
    """Return the full names in lines of "module: name name …"."""
    lines = (line.split(":") for line in table.strip().splitlines())
    return frozenset(f"{module.strip()}.{name}" for module, names in lines for name in names.split())


# Parts of a network. What they hold may be numbers, tensors and further layers, never a function: see `_vet_layer`.
LAYERS = _names("""
    fastai.layers: AdaptiveConcatPool2d Flatten
    torch.nn.modules.activation: GELU Hardsigmoid Hardswish ReLU ReLU6 Sigmoid SiLU
    torch.nn.modules.batchnorm: BatchNorm1d BatchNorm2d
    torch.nn.modules.container: Sequential
    torch.nn.modules.conv: Conv2d
    torch.nn.modules.dropout: Dropout
    torch.nn.modules.linear: Identity Linear
    torch.nn.modules.normalization: LayerNorm
    torch.nn.modules.pooling: AdaptiveAvgPool2d AdaptiveMaxPool2d AvgPool2d MaxPool2d
    torchvision.models.convnext: CNBlock LayerNorm2d
    torchvision.models.densenet: _DenseBlock _DenseLayer _Transition
    torchvision.models.efficientnet: FusedMBConv MBConv
    torchvision.models.mobilenetv3: InvertedResidual
    torchvision.models.regnet: AnyStage BottleneckTransform ResBottleneckBlock SimpleStemIN
    torchvision.models.resnet: BasicBlock Bottleneck
    torchvision.models.squeezenet: Fire
    torchvision.models.swin_transformer: PatchMerging ShiftedWindowAttention SwinTransformerBlock
    torchvision.ops.misc: Conv2dNormActivation MLP Permute SqueezeExcitation
    torchvision.ops.stochastic_depth: StochasticDepth
""")
# Everything else that is made without a call of its own and filled with attributes.
OBJECTS = _names("""
    fastai.callback.core: TrainEvalCallback
    fastai.callback.progress: ProgressCallback
    fastai.data.core: DataLoaders Datasets TfmdDL TfmdLists
    fastai.data.load: _FakeLoader
    fastai.data.transforms: Categorize CategoryMap IntToFloatTensor Normalize ToTensor
    fastai.learner: AvgLoss AvgMetric AvgSmoothLoss CastToTensor Learner Recorder
    fastai.losses: CrossEntropyLossFlat
    fastai.vision.augment: Brightness Flip RandomResizedCrop _BrightnessLogit _ContrastLogit _WarpCoord
    fastcore.basics: fastuple
    fastcore.foundation: L
    fasttransform.transform: Pipeline Transform
    plum._function: Function
    plum._method: Method MethodList
    plum._resolver: Resolver
    plum._signature: Signature
    torch.nn.modules.loss: CrossEntropyLoss
""")
# Named, kept as a value, and neither called nor made while loading.
MENTIONED = _names("""
    PIL.Image: Image
    builtins: bytes float int print str tuple
    fastai.data.transforms: parent_label
    fastai.imports: noop
    fastai.metrics: accuracy
    fastai.optimizer: Adam
    fastai.torch_core: TensorBase TensorCategory TensorImage trainable_params
    fastai.vision.augment: flip_mat rotate_mat zoom_mat
    fastai.vision.core: PILImage
    fastai.data.load: _wif
    fastai.vision.learner: _alexnet_split _densenet_split _resnet_split _squeezenet_split _vgg_split default_split
    inspect: _empty
    numpy: ndarray
    _operator: or_
    pathlib: WindowsPath
    plum._util: Missing
    torch: BFloat16Storage BoolStorage DoubleStorage FloatStorage HalfStorage IntStorage LongStorage Tensor
    torchvision.models.resnet: resnet18 resnet34 resnet50
    typing: Any
""")
CLASS_ATTRIBUTES = {("fastai.torch_core.TensorImage", "lighting"), ("fastai.vision.core.PILImage", "create")}
OBJECT_ATTRIBUTES = {("fastai.data.core.Datasets", "dataloaders"), ("fastai.data.core.TfmdLists", "dataloaders")}
PARTIAL_TARGETS = _names("fastai.vision.augment: flip_mat rotate_mat zoom_mat")
TENSORS = _names("fastai.torch_core: TensorBase TensorCategory TensorImage")
STORAGES = frozenset(name for name in MENTIONED if name.endswith("Storage"))
# Attributes between double underscores that dataclass-like objects of fastai and plum carry; no other may be set.
DUNDERS = {"__annotations__", "__doc__", "__module__", "__name__", "__qualname__", "__signature__", "__wrapped__"}


class ModelError(ValueError):
    """A file that cannot be used as a model; the message says why."""


class UnsafeModel(ModelError):
    """A model file that asks for something which our exports never do; the message names it."""


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names."""

    name: str


@dataclass(eq=False)
class Made:
    """
    Something the pickle would make: a list, a dict, or the result of calling `by` with `args`.

    Whatever is ever put into it stays in `held` (a dict's as pairs): overwriting hides nothing.
    """

    by: str
    args: tuple = ()
    held: list = field(default_factory=list)
    states: list = field(default_factory=list)


def is_plain(value, depth: int = 4) -> bool:
    """Return whether a value is text, a number or None, or a tuple or list of such."""
    if isinstance(value, Made) and value.by == "list":
        value = tuple(value.held)
    if isinstance(value, tuple):
        return depth > 0 and all(is_plain(item, depth - 1) for item in value)
    return value is None or isinstance(value, (str, bytes, bool, int, float))


def _made_by(value, *names: str) -> bool:
    return isinstance(value, Made) and value.by in names


def _is_attribute(args: tuple) -> bool:
    match args:
        case (Name(name), str(attribute)):
            return (name, attribute) in CLASS_ATTRIBUTES
        case (Made(by=by), str(attribute)):
            return (by, attribute) in OBJECT_ATTRIBUTES
    return False


def _is_union_of_types(args: tuple) -> bool:
    match args:
        case (Name("_operator.or_"), tuple(types)):
            return all(isinstance(kind, Name) for kind in types)
    return False


def _is_storage(value) -> bool:
    return _made_by(value, "storage")


def _is_tensor_parts(args) -> bool:
    match args:
        case (storage, int(), tuple(size), tuple(stride), bool(), hooks):
            return _is_storage(storage) and is_plain(size) and is_plain(stride) and _made_by(hooks, ORDERED)
    return False


def _is_typed_tensor(args: tuple) -> bool:
    match args:
        case (Name("torch._utils._rebuild_tensor_v2"), Name(kind), parts, None):
            return kind in TENSORS and _is_tensor_parts(parts)
    return False


def _is_parameter(args: tuple) -> bool:
    return len(args) == 3 and _made_by(args[0], TENSOR) and isinstance(args[1], bool) and _made_by(args[2], ORDERED)


def _is_number_type(args: tuple) -> bool:
    return len(args) == 3 and isinstance(args[0], str) and bool(NUMBER_TYPE.fullmatch(args[0])) and is_plain(args[1:])


def _is_number(args: tuple) -> bool:
    return (
        len(args) == 2
        and _made_by(args[0], "numpy.dtype")
        and (isinstance(args[1], bytes) or _made_by(args[1], "_codecs.encode"))
    )


def _is_device(args: tuple) -> bool:
    return bool(args) and isinstance(args[0], str) and bool(DEVICE.fullmatch(args[0])) and is_plain(args[1:])


def _is_kind(args: tuple) -> bool:
    return len(args) == 1 and type(args[0]) is int


ORDERED = "collections.OrderedDict"
TENSOR = "torch._utils._rebuild_tensor_v2"
# What may be called while loading, each with the test of its arguments.
CALLS: dict[str, Callable[[tuple], bool]] = {
    "PIL.Image.Resampling": _is_kind,
    "_codecs.encode": lambda args: len(args) == 2 and isinstance(args[0], str) and args[1] == "latin1",
    "builtins.getattr": _is_attribute,
    "builtins.set": lambda args: len(args) == 1 and _made_by(args[0], "list") and is_plain(args[0]),
    ORDERED: lambda args: args == (),
    "functools.partial": lambda args: len(args) == 1 and _names_one_of(args[0], PARTIAL_TARGETS),
    "functools.reduce": _is_union_of_types,
    "inspect.Parameter": lambda args: (
        len(args) == 2 and isinstance(args[0], str) and _made_by(args[1], "inspect._ParameterKind")
    ),
    "inspect.Signature": lambda args: (
        len(args) == 1 and isinstance(args[0], tuple) and all(_made_by(a, "inspect.Parameter") for a in args[0])
    ),
    "inspect._ParameterKind": _is_kind,
    "numpy._core.multiarray.scalar": _is_number,
    "numpy.core.multiarray.scalar": _is_number,  # its name before numpy 2
    "numpy.dtype": _is_number_type,
    "pathlib.Path": is_plain,
    "pathlib.PosixPath": is_plain,
    "random.Random": lambda args: args == (),
    "torch._tensor._rebuild_from_type_v2": _is_typed_tensor,
    "torch._utils._rebuild_parameter": _is_parameter,
    TENSOR: _is_tensor_parts,
    "torch.Size": lambda args: len(args) == 1 and is_plain(args),
    "torch.device": _is_device,
}
# The results of these calls may be filled with a state; each with the test of that state.
STATES: dict[str, Callable[[object], bool]] = {
    "functools.partial": lambda state: (
        isinstance(state, tuple)
        and len(state) == 4
        and _names_one_of(state[0], PARTIAL_TARGETS)
        and state[1] == ()
        and _made_by(state[2], "dict")
        and state[3] is None
    ),
    "inspect.Parameter": lambda state: _has_keys(state, {"_annotation", "_default"}),
    "inspect.Signature": lambda state: _has_keys(state, {"_return_annotation"}),
    "numpy.dtype": lambda state: is_plain(state) and state[0] == 3 and state[2:] == (None, None, None, -1, -1, 0),
    "random.Random": is_plain,
}
# May be called as above, but never kept as a value, where a later call could hand them other arguments.
NEVER_KEPT = {
    *("builtins.getattr", "functools.partial", "functools.reduce", "torch._tensor._rebuild_from_type_v2"),
    *("_codecs.encode", "numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar"),
}
ALLOWED = LAYERS | OBJECTS | MENTIONED | set(CALLS)
MODULES_STATE = "_modules"  # where a torch module keeps its layers


def _names_one_of(value, names: Iterable[str]) -> bool:
    return isinstance(value, Name) and value.name in names


def _has_keys(state, keys: set[str]) -> bool:
    return state_is_dict(state) and all(key in keys for key, _ in _pairs(state))


def state_is_dict(state) -> bool:
    """Return whether a state is a dict, so that it fills an object's attributes."""
    return _made_by(state, "dict")


def _pairs(made: Made) -> Iterator[tuple]:
    """Yield everything that was ever put into a dict, as key and value."""
    return iter(made.held)


class _Machine:
    """Follows a pickle's opcodes with symbols in place of objects; refuses at the first thing not allowed."""

    def __init__(self) -> None:
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.protocol = 0
        self.filled: list[Made] = []

    def run(self, data: bytes) -> Made:
        """Follow `data` to its end and return what it would make."""
        for opcode, arg, _ in pickletools.genops(data):
            self.step(opcode.name, arg)
        for made in self.filled:  # at the end, for what a dict holds may be added after it was used as a state
            for state in made.states:
                _vet_state(made, state)
        return self.stack.pop()

    def step(self, opcode: str, arg) -> None:
        """Follow one opcode."""
        stack = self.stack
        match opcode:
            case "PROTO":
                self.protocol = arg
            case "FRAME" | "STOP":
                pass
            case "GLOBAL":
                self.push_name(*arg.split(" ", 1))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                if not isinstance(name, str) or not isinstance(module, str):
                    raise UnsafeModel("it computes a name instead of writing it (STACK_GLOBAL)")
                self.push_name(module, name)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[arg] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[arg])
            case "MARK":
                self.marks.append(len(stack))
            case "POP":
                if self.marks and self.marks[-1] == len(stack):
                    self.marks.pop()
                else:
                    stack.pop()
            case "POP_MARK":
                self.since_mark()
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(kept(self.since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode[-1])
                stack[-size:] = [kept(stack[-size:])]
            case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET":
                stack.append(Made(opcode.removeprefix("EMPTY_").lower()))
            case "LIST":
                stack.append(Made("list", held=list(kept(self.since_mark()))))
            case "DICT":
                stack.append(Made("dict", held=_paired(self.since_mark())))
            case "APPEND":
                self.put("APPEND", [stack.pop()], "list", "plum._method.MethodList")
            case "APPENDS":
                self.put("APPENDS", self.since_mark(), "list", "plum._method.MethodList")
            case "ADDITEMS":
                self.put("ADDITEMS", self.since_mark(), "set")
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self.put("SETITEM", _paired([key, value]), "dict", ORDERED)
            case "SETITEMS":
                self.put("SETITEMS", _paired(self.since_mark()), "dict", ORDERED)
            case "REDUCE":
                args, callee = stack.pop(), stack.pop()
                stack.append(_call(callee, args))
            case "NEWOBJ":
                args, kind = stack.pop(), stack.pop()
                stack.append(_new(kind, args))
            case "BUILD":
                (state,) = kept([stack.pop()])
                self.fill(stack[-1], state)
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode == "NEWTRUE")
            case "EXT1" | "EXT2" | "EXT4":
                raise UnsafeModel(f"it asks for entry {arg} of the extension registry ({opcode})")
            case "INST":
                raise UnsafeModel(f"it calls {arg.replace(' ', '.')} (INST)")
            case _ if opcode in PLAIN:
                stack.append(arg)
            case _:
                culprit = next((item.name for item in reversed(stack) if isinstance(item, Name)), "an object")
                raise UnsafeModel(f"it makes {culprit} in a way our exports never do ({opcode})")

    def push_name(self, module: str, name: str) -> None:
        """Push the class or function that the unpickler would look up, or refuse it."""
        if self.protocol < 3:  # there the unpickler translates the names of Python 2
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f"{module}.{name}"
        if full not in ALLOWED or "." in name:  # a dotted name is looked up from attribute to attribute
            raise UnsafeModel(f"it names {full}")
        self.stack.append(Name(full))

    def since_mark(self) -> list:
        """Pop and return everything above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def put(self, opcode: str, items: list, *kinds: str) -> None:
        """Put items into the list, set or dict on top of the stack."""
        target = self.stack[-1]
        if not _made_by(target, *kinds):
            raise UnsafeModel(f"it puts items into {described(target)} ({opcode})")
        target.held.extend(kept(items))

    def fill(self, target, state) -> None:
        """Give an object its state; a class or function must never be given one, for that would change it."""
        if not isinstance(target, Made) or target.by not in LAYERS | OBJECTS | set(STATES):
            raise UnsafeModel(f"it sets attributes of {described(target)} (BUILD)")
        target.states.append(state)
        if target.by in STATES and not STATES[target.by](state):
            raise UnsafeModel(f"it gives {target.by} a state that our exports never give")
        self.filled.append(target)


# Opcodes that push their own argument.
PLAIN = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}


def described(value) -> str:
    """Return a few words for what lies on the stack."""
    if isinstance(value, Name):
        return value.name
    return value.by if isinstance(value, Made) else type(value).__name__


def kept(items: Iterable) -> tuple:
    """Return `items`, which the pickle keeps as values, or refuse those that must only be called."""
    items = tuple(items)
    for item in items:
        for part in item if isinstance(item, tuple) else (item,):
            if isinstance(part, Name) and part.name in NEVER_KEPT:
                raise UnsafeModel(f"it keeps {part.name} to be called later")
    return items


def _paired(items: list) -> list[tuple]:
    """Return keys and values as pairs."""
    items = kept(items)
    return list(zip(items[::2], items[1::2], strict=True))


def _call(callee, args) -> Made:
    """Return the result of a call that our exports make, or refuse it."""
    if not isinstance(callee, Name):
        raise UnsafeModel(f"it calls {described(callee)}, which is no plain function")
    if callee.name not in CALLS:
        raise UnsafeModel(f"it calls {callee.name}")
    if not isinstance(args, tuple) or not CALLS[callee.name](args):
        words = ", ".join(repr(a)[:60] if is_plain(a) else described(a) for a in args) if args else ""
        raise UnsafeModel(f"it calls {callee.name}({words})")
    return Made(callee.name, args)


def _new(kind, args) -> Made:
    """Return a new object of an allowed class, made without calling its ``__init__``."""
    if not isinstance(kind, Name) or kind.name not in LAYERS | OBJECTS:
        raise UnsafeModel(f"it makes {described(kind)} (NEWOBJ)")
    if args != () and not (kind.name == "fastcore.basics.fastuple" and is_plain(args)):
        raise UnsafeModel(f"it makes {kind.name} with arguments that our exports never give")
    return Made(kind.name, args)


def _storage(key) -> Made:
    """Return the numbers of a tensor, which lie in a record of their own."""
    match key:
        case ("storage", Name(kind), str(record), str(device), int()):
            if kind in STORAGES and record.isdecimal() and DEVICE.fullmatch(device):
                return Made("storage")
    raise UnsafeModel(f"it fetches {describe_key(key)} in place of a tensor's numbers (BINPERSID)")


def describe_key(key) -> str:
    """Return a few words for what stands where a record's key should."""
    return repr(key)[:80] if is_plain(key) else " ".join(map(described, key)) if isinstance(key, tuple) else "an object"


def _vet_state(made: Made, state) -> None:
    """Refuse attributes that would change how an allowed object behaves."""
    if made.by in STATES:
        if not STATES[made.by](state):
            raise UnsafeModel(f"it gives {made.by} a state that our exports never give")
        return
    parts = state if isinstance(state, tuple) and made.by.startswith("plum.") else (state,)  # (None, slots)
    for part in parts:
        if part is None:
            continue
        if not state_is_dict(part):
            raise UnsafeModel(f"it gives {made.by} a state that is no dict")
        for key, value in _pairs(part):
            if not isinstance(key, str) or (key.startswith("__") and key not in DUNDERS):
                raise UnsafeModel(f"it sets {made.by}.{key if isinstance(key, str) else described(key)}")
            if made.by in LAYERS:
                _vet_layer(made, key, value)
            if made.by == LEARNER and key == "model" and not _made_by(value, *LAYERS):
                raise UnsafeModel(f"its network is {described(value)}, no layer known here")


def _vet_layer(layer: Made, key: str, value) -> None:
    """Refuse a function among a layer's attributes: it would run at the first prediction."""
    if key == MODULES_STATE:
        if not _made_by(value, "dict", ORDERED):
            raise UnsafeModel(f"the layers of {layer.by} are {described(value)}")
        for name, inner in _pairs(value):
            if not isinstance(name, str) or not (inner is None or _made_by(inner, *LAYERS)):
                raise UnsafeModel(f"{layer.by} holds {described(inner)}, no layer known here")
        return
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, tuple):
            waiting.extend(item)
        elif isinstance(item, Name):
            raise UnsafeModel(f"it sets {layer.by}.{key} to {item.name}")
        elif isinstance(item, Made) and id(item) not in seen:
            seen.add(id(item))
            if item.by not in LAYER_DATA:
                raise UnsafeModel(f"it sets {layer.by}.{key} to {item.by}")
            if key.endswith("_hooks") and item.held:
                raise UnsafeModel(f"{layer.by} holds {key}, which run at each prediction")
            waiting.extend(item.held)


LEARNER = "fastai.learner.Learner"
LAYER_DATA = {
    *("list", "dict", "set", "builtins.set", ORDERED, "torch.Size", "torch.device"),
    *(TENSOR, "torch._utils._rebuild_parameter", "torch._tensor._rebuild_from_type_v2"),
}


def vet_pickle(data: bytes) -> None:
    """
    Refuse the pickle `data` of an exported model unless it does only what our exports do.

    Raises
    ------
    UnsafeModel
        Naming the first thing found that our exports never do.
    ModelError
        If it is no whole pickle, or one of something else than a fastai learner.
    """
    try:
        made = _Machine().run(data)
    except ModelError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ModelError(f"its pickle is cut short or damaged ({error})") from error
    if not _made_by(made, LEARNER):
        raise ModelError(f"it holds {described(made)}, not a fastai learner")


def vet(path: str | os.PathLike) -> None:
    """
    Refuse the model file at `path` unless it is as safe as our own exports; nothing in it is run.

    Raises
    ------
    UnsafeModel
        If it asks for anything that our exports never ask for; the message names it.
    ModelError
        If it is no whole export of a fastai learner.
    FileNotFoundError
        If there is no such file.
    """
    path = Path(path)
    try:
        vet_pickle(_read_pickle(path))
    except UnsafeModel as error:
        raise UnsafeModel(
            f"{path} is not loaded: {error}. Exports of this project never do that, so the file could run any command "
            "on this computer. If you know who made it and trust them, load it with trusted=True."
        ) from error.__cause__
    except ModelError as error:
        raise ModelError(
            f"{path} is not a model that can be used here: {error}. Name an export.pkl, and copy it again if it came "
            "from elsewhere."
        ) from error.__cause__


def _read_pickle(path: Path) -> bytes:
    """Return the one pickle in a torch archive, whose every record must be one that torch writes."""
    with path.open("rb") as file:
        start = file.read(len(LOCAL_HEADER))
        if start != LOCAL_HEADER:
            raise _not_an_archive(start + file.read(MAX_PICKLE))
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LAST_BYTES))
        if file.read(len(LAST_HEADER)) != LAST_HEADER:
            # Python and torch both look there first, so that both see the same archive.
            raise ModelError("it is cut short, or something was added at its end")
        try:
            with zipfile.ZipFile(file) as archive:
                _vet_records(archive.infolist())
                return archive.read(next(info for info in archive.infolist() if info.filename.endswith("/data.pkl")))
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise ModelError(f"its archive is damaged ({error})") from error


def _vet_records(records: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive that holds anything but the records of one ``torch.save``, stored as they are."""
    folders = {info.filename.partition("/")[0] for info in records}
    names = [info.filename.partition("/")[2] for info in records]
    for name in names:
        if not RECORD.fullmatch(name):
            raise UnsafeModel(f"its archive holds {name[:80]!r}, which torch.save never writes")
    if len(folders) != 1 or names.count("data.pkl") != 1 or len(set(names)) != len(names):
        raise UnsafeModel(f"its archive holds {names.count('data.pkl')} pickles in {len(folders)} folders, not one")
    if min(info.header_offset for info in records) != 0:
        raise UnsafeModel("its archive begins with something else")
    if any(info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size for info in records):
        raise UnsafeModel("its archive holds compressed records, which torch.save never writes (a zip bomb?)")
    if (
        sum(info.file_size for info in records) > MAX_BYTES
        or max(info.file_size for info, name in zip(records, names, strict=True) if name == "data.pkl") > MAX_PICKLE
    ):
        raise UnsafeModel("its archive would unpack to more than any model here (a zip bomb?)")


def _not_an_archive(start: bytes) -> ModelError:
    """Return what to say of a file that is no torch archive; a bare pickle's names are told."""
    if not start:
        return ModelError("it is empty")
    found = ""
    if start[:1] in PICKLE_STARTS:
        try:
            _Machine().run(start.removeprefix(LEGACY_START))
        except UnsafeModel as error:
            found = f", and {error}"
        except Exception:  # not a whole pickle; it is refused either way
            found = ""
    if start.startswith(LEGACY_START):
        return UnsafeModel(f"it is in torch's old format, before 1.6{found}")
    if start.startswith(b"\x80") or found:
        return UnsafeModel(f"it is a bare pickle, no torch archive{found}")
    return ModelError("it is no torch archive")


class Unpickler(pickle.Unpickler):
    """An unpickler that vets the very bytes it is about to read; ``torch.load`` makes one from ``pickle_module``."""

    def __init__(self, file, **options) -> None:
        data = file.read()
        vet_pickle(data)
        super().__init__(io.BytesIO(data), **options)


def load(file, **options):
    """Refuse: torch calls this only for its old format, which holds several pickles in a row."""
    raise UnsafeModel("it is in torch's old format, before 1.6")
