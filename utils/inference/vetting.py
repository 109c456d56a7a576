"""
Is this model file safe to load? Answered by reading it, without running any of it.

A pickle is a program: loading one may run any command. This module reads only the opcodes of the pickle inside an
export.pkl, in milliseconds and before torch is imported, and makes symbols where the unpickler would make objects.
Whatever our own exports do not do is refused: another opcode, name or call, and every attribute that is not of the
kind in `SHAPES`. Allowed names alone are not enough: fastai and plum call what lies in their objects' attributes, and
read type annotations, which Python evaluates, from plain text.

Needs the standard library alone. The module can be given to ``torch.load`` as its ``pickle_module``: then the very
bytes that are unpickled are vetted.
"""

import io
import math
import os
import pickle
import pickletools
import re
import struct
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

MAX_PICKLE = 8 * 2**20  # bytes of the pickle itself; ours have about 70 thousand, and 20 for each training picture
MAX_STEPS = 500_000  # opcodes; ours have about 17 thousand, and 4 for each training picture
MAX_TABLE = 2**21  # bytes of the archive's table of contents; ours have about 75 for each tensor
MAX_GIVEN = 100  # items of a container that a call copies; ours have at most 6
MAX_DEPTH = 30  # layers within layers; ours are at most 10 deep
MAX_TOLD = 300  # letters of a message about a file; names in it can be long
WIDTHS = {"torch.FloatStorage": 4, "torch.LongStorage": 8}  # bytes of a tensor's number
FIRST_HEADER = b"PK\x03\x04"
# The archive's end as torch.save writes it, whatever the size: a zip64 record, its locator, and the classic record.
ARCHIVE_END = struct.Struct("<4sQHHLLQQQQ 4sLQL 4sHHHHLLH")
PICKLE_STARTS = (b"\x80", b"c", b"(")  # the opcodes PROTO, GLOBAL and MARK
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number with which torch began files before 1.6
# The records that torch.save writes. "constants.pkl" is not among them: torch would take the file for TorchScript.
RECORD = re.compile(
    r"data\.pkl|byteorder|version|\.format_version|\.storage_alignment|data/[0-9]+|\.data/serialization_id"
)


class ModelError(ValueError):
    """This file cannot be used as a model; the message says why."""


class UnsafeModel(ModelError):
    """This model file asks for something that our exports never do; the message names it."""


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that the pickle names."""

    name: str


@dataclass(eq=False, slots=True)
class Made:
    """
    Something the pickle would make: a "tuple", "list", "dict" or "storage", or the result of calling `by`.

    `held` are its items or the arguments of the call; of a dict every (key, value) ever put in, so that overwriting
    hides nothing. `fits` keeps what was found out about them: a file can mention one list a million times.
    """

    by: str
    held: Sequence = ()
    state: object = None
    fits: dict | None = None


Kind = Callable[[object], bool]


def plain(value) -> bool:
    """Return whether a value is text, a number or None, or a tuple or list of such."""
    if isinstance(value, Made):
        return value.by in ("tuple", "list") and _holds(value, plain)
    return not isinstance(value, Name)


def of(kind: type) -> Kind:
    """Return the kind of the values of one type of Python."""
    return lambda value: type(value) is kind


def named(*names: str) -> Kind:
    """Return the kind of these classes and functions themselves."""
    return lambda value: isinstance(value, Name) and value.name in names


def made(*names: str) -> Kind:
    """Return the kind of what calling these gives."""
    return lambda value: isinstance(value, Made) and value.by in names


def like(pattern: str) -> Kind:
    """Return the kind of texts that match a pattern."""
    return lambda value: type(value) is str and re.fullmatch(pattern, value) is not None


def either(*kinds: Kind) -> Kind:
    """Return the kind of values that are of one of these kinds."""
    return lambda value: any(kind(value) for kind in kinds)


def holding(by: str, kind: Kind) -> Kind:
    """Return the kind of containers `by` which hold only values of a kind."""
    return lambda value: isinstance(value, Made) and value.by == by and _holds(value, kind)


def few(by: str, kind: Kind) -> Kind:
    """Return the kind of short containers: many calls that copy one long list would fill the memory."""
    every = holding(by, kind)
    return lambda value: every(value) and len(value.held) <= MAX_GIVEN


def row(by: str, *kinds: Kind) -> Kind:
    """Return the kind of containers or calls `by` with one item of each of these kinds, in this order."""
    return lambda value: (
        isinstance(value, Made)
        and value.by == by
        and len(value.held) == len(kinds)
        and all(kind(item) for kind, item in zip(kinds, value.held, strict=True))
    )


def pairs(key: Kind, value: Kind) -> Kind:
    """Return the kind of dicts of such keys and values."""
    return holding("dict", lambda pair: key(pair[0]) and value(pair[1]))


def several(kind: Kind) -> Kind:
    """Return the kind of fastcore's lists of values of a kind."""
    items = holding("list", kind)
    state = holding("dict", lambda pair: pair[0] == "items" and items(pair[1]))
    return lambda value: isinstance(value, Made) and value.by == LIST and (value.state is None or state(value.state))


def _holds(value: Made, kind: Kind) -> bool:
    """Return whether a container holds only values of a kind. The answer is kept; what holds itself does not fit."""
    value.fits = value.fits or {}
    if kind not in value.fits:
        value.fits[kind] = False
        value.fits[kind] = all(map(kind, value.held))
    return value.fits[kind]


def _name_table(table: str) -> frozenset[str]:
    """Return the full names in words "module:name,name"."""
    words = (word.partition(":") for word in table.split())
    return frozenset(f"{module}.{name}" for module, _, names in words for name in names.split(","))


# Parts of a network. They may hold numbers, tensors and further layers, never a function: see "layer" in `SHAPES`.
# Those of timm are needed only by networks of timm: where it is not installed, their names lead nowhere.
LAYERS = _name_table("""
    fastai.layers:AdaptiveConcatPool2d,Cat,Flatten,MergeLayer,ProdLayer,SelfAttention,SequentialEx
    torch.nn.modules.activation:GELU,Hardsigmoid,Hardswish,PReLU,ReLU,ReLU6,Sigmoid,SiLU
    torch.nn.modules.batchnorm:BatchNorm1d,BatchNorm2d torch.nn.modules.container:ModuleList,Sequential
    torch.nn.modules.conv:Conv1d,Conv2d torch.nn.modules.dropout:Dropout torch.nn.modules.flatten:Flatten,Unflatten
    torch.nn.modules.linear:Identity,Linear
    torch.nn.modules.loss:CrossEntropyLoss torch.nn.modules.normalization:LayerNorm torch.nn.modules.padding:ZeroPad2d
    torch.nn.modules.pooling:AdaptiveAvgPool2d,AdaptiveMaxPool2d,AvgPool2d,MaxPool1d,MaxPool2d
    torch.nn.modules.upsampling:Upsample
    torchvision.models.convnext:CNBlock,LayerNorm2d torchvision.models.densenet:_DenseBlock,_DenseLayer,_Transition
    torchvision.models.efficientnet:FusedMBConv,MBConv torchvision.models.mobilenetv2:InvertedResidual
    torchvision.models.mobilenetv3:InvertedResidual torchvision.models.shufflenetv2:InvertedResidual
    torchvision.models.regnet:AnyStage,BottleneckTransform,ResBottleneckBlock,SimpleStemIN
    torchvision.models.resnet:BasicBlock,Bottleneck torchvision.models.squeezenet:Fire
    torchvision.models.swin_transformer:PatchMerging,PatchMergingV2,ShiftedWindowAttention,ShiftedWindowAttentionV2
    torchvision.models.swin_transformer:SwinTransformerBlock,SwinTransformerBlockV2
    torchvision.ops.misc:Conv2dNormActivation,MLP,Permute,SqueezeExcitation
    torchvision.ops.stochastic_depth:StochasticDepth
    timm.layers.activations:GELU,GELUTanh,QuickGELU,Sigmoid timm.layers.adaptive_avgmax_pool:SelectAdaptivePool2d
    timm.layers.attention:Attention timm.layers.attention2d:MultiQueryAttention2d
    timm.layers.attention_pool:AttentionPoolLatent timm.layers.blur_pool:BlurPool2d
    timm.layers.classifier:ClassifierHead,NormMlpClassifierHead
    timm.layers.conv2d_same:Conv2dSame timm.layers.conv_bn_act:ConvNormAct timm.layers.diff_attention:DiffAttention
    timm.layers.eca:EcaModule timm.layers.evo_norm:EvoNorm2dS0 timm.layers.global_context:GlobalContext
    timm.layers.grn:GlobalResponseNorm timm.layers.layer_scale:LayerScale,LayerScale2d
    timm.layers.mixed_conv2d:MixedConv2d timm.layers.mlp:ConvMlp,GlobalResponseNormMlp,GluMlp,Mlp,SwiGLU
    timm.layers.norm:GroupNorm,LayerNorm,LayerNorm2d,RmsNorm,RmsNorm2d,SimpleNorm2d
    timm.layers.norm_act:BatchNormAct2d,GroupNormAct,LayerNormAct2d timm.layers.patch_embed:PatchEmbed
    timm.layers.squeeze_excite:SEModule
    timm.models._efficientnet_blocks:ConvBnAct,DepthwiseSeparableConv,EdgeResidual
    timm.models._efficientnet_blocks:InvertedResidual,MobileAttention,SqueezeExcite
    timm.models._efficientnet_blocks:UniversalInvertedResidual timm.models.convnext:ConvNeXt,ConvNeXtBlock,ConvNeXtStage
    timm.models.efficientnet:EfficientNet
    timm.models.hgnet:ClassifierHead,ConvBNAct,EseModule,HighPerfGpuBlock,HighPerfGpuNet
    timm.models.hgnet:HighPerfGpuStage,LearnableAffineBlock,LightConvBNAct,StemV1,StemV2
    timm.models.mobilenetv3:MobileNetV3 timm.models.regnet:Bottleneck,PreBottleneck,RegNet,RegStage
    timm.models.repvit:ConvNorm,RepVggDw,RepViTBlock,RepVit,RepVitClassifier,RepVitDownsample,RepVitMlp
    timm.models.repvit:RepVitStage,RepVitStem timm.models.resnet:BasicBlock,Bottleneck,ResNet
    timm.models.vision_transformer:Block,DiffParallelScalingBlock,ParallelScalingBlock
    timm.models.vision_transformer:ParallelThingsBlock,ResPostBlock,VisionTransformer
""")
LEARNER, LOADER = "fastai.learner.Learner", "fastai.data.core.TfmdDL"
DATASETS, LISTS = "fastai.data.core.Datasets", "fastai.data.core.TfmdLists"
LOSS, LIST, FASTUPLE = "fastai.losses.CrossEntropyLossFlat", "fastcore.foundation.L", "fastcore.basics.fastuple"
METHOD, METHODS, SIGNATURE = "plum._method.Method", "plum._method.MethodList", "plum._signature.Signature"
ORDERED, TENSOR = "collections.OrderedDict", "torch._utils._rebuild_tensor_v2"
TRANSFORMS = _name_table("""
    fastai.data.transforms:Categorize,IntToFloatTensor,Normalize,ToTensor fasttransform.transform:Transform
    fastai.vision.augment:CropPad,RandomResizedCrop,Resize
""")
# Named, and neither called nor made while loading: what fastai calls with a picture or a path, and the classes by which
# it tells them apart.
NAMED_ONLY = _name_table("""
    PIL.Image:Image _operator:or_ builtins:bytes,float,int,print,str,tuple inspect:_empty numpy:ndarray
    fastai.data.load:_wif fastai.data.transforms:parent_label fastai.imports:noop fastai.optimizer:Adam
    fastai.torch_core:TensorCategory,TensorImage,trainable_params fastai.vision.core:PILImage
    pathlib:Path,PosixPath,WindowsPath plum._util:Missing torch:FloatStorage,LongStorage,Tensor typing:Any
""")


def known(value) -> bool:
    """Return whether a value is one of `NAMED_ONLY`, a number or None, or holds such. Text may be evaluated: never."""
    if isinstance(value, tuple):  # a dict's key and value; numbers as keys could be chosen to have one hash
        return either(kept, types)(value[0]) and known(value[1])
    if not isinstance(value, Made):
        return kept(value) if isinstance(value, Name) else not isinstance(value, str)
    return (value.by in ("dict", "list", "tuple") and _holds(value, known)) or created(value) or union(value)


def rebuilt(value) -> bool:
    """Return whether a tensor has no more numbers than its storage: with steps of 0, one would become a million."""
    fits = row(TENSOR, made("storage"), whole, size, size, of(bool), made(ORDERED))
    return fits(value) and math.prod(value.held[2].held) <= value.held[0].held[-1]


text, whole, nothing, kept = of(str), of(int), of(type(None)), named(*NAMED_ONLY)
size, types, device = few("tuple", whole), few("tuple", kept), like("(cpu|cuda|mps|xpu)(:[0-9]+)?")
created = row("builtins.getattr", named("fastai.vision.core.PILImage"), like("create"))
bound = row("builtins.getattr", made(DATASETS, LISTS), like("dataloaders"))
union = row("functools.reduce", named("_operator.or_"), types)
chance = row("tuple", whole, holding("tuple", whole), nothing)  # of a random generator; Python 2's would format text
# What may be called while loading, each with the kinds of its arguments.
CALLS: dict[str, Kind] = {
    name: row(name, *kinds)
    for name, kinds in {
        "PIL.Image.Resampling": (whole,),
        "builtins.set": (few("list", text),),
        ORDERED: (),
        "inspect.Parameter": (text, made("inspect._ParameterKind")),
        "inspect.Signature": (few("tuple", made("inspect.Parameter")),),
        "inspect._ParameterKind": (whole,),
        "pathlib.Path": (like("[.]"),),
        "random.Random": (),
        "torch._utils._rebuild_parameter": (made(TENSOR), of(bool), made(ORDERED)),
        "torch.device": (device,),
        # a tensor's numbers, in a record of their own
        "storage": (like("storage"), named(*WIDTHS), like("[0-9]+"), device, whole),
    }.items()
} | {"builtins.getattr": either(created, bound), "functools.reduce": union, TENSOR: rebuilt}

layer, tensor = made(*LAYERS), made(TENSOR, "torch._utils._rebuild_parameter")
callback = made("fastai.callback.core.TrainEvalCallback", "fastai.learner.CastToTensor")
transform = made(*TRANSFORMS)
# The kinds of attributes; that of an object made by a call is written as the name called.
ATTRIBUTE_KINDS: dict[str, Kind] = {
    "callback": callback,
    "callbacks": several(callback),
    "device": either(nothing, made("torch.device")),
    "known": known,
    "by_name": pairs(text, known),
    "layer": layer,
    "layers": pairs(text, either(nothing, layer)),
    "lists": several(made(LISTS)),
    "loaders": holding("list", made(LOADER)),
    "method": bound,
    "methods": holding(METHODS, made(METHOD)),
    "no_hooks": made(ORDERED),  # an empty one: `_Machine.put` puts nothing into it
    "nothing": nothing,
    "numbers": pairs(text, whole),
    "plain": plain,
    "resamplings": holding("tuple", made("PIL.Image.Resampling")),
    "rows": several(holding("list", whole)),
    "tensor": tensor,
    "tensors": pairs(text, either(nothing, tensor)),
    "texts": several(text),
    "transform": either(transform, several(transform)),
    "transforms": several(transform),
}


def _shapes(table: str) -> dict[str, dict[str, Kind]]:
    """Return the attributes that each object may have, from words "name attribute,attribute=kind …"."""
    shapes: dict[str, dict[str, Kind]] = {}
    for word in table.split():
        attributes, is_kind, kind = word.partition("=")
        if not is_kind:
            name = attributes
        shapes.setdefault(name, {}).update(
            dict.fromkeys(attributes.split(",") if is_kind else (), ATTRIBUTE_KINDS.get(kind) or made(kind))
        )
    return shapes


# The attributes that objects may be filled with. "layer" is every layer: it may have further ones that are plain.
SHAPES = _shapes("""
    layer
        _modules=layers _parameters,_buffers=tensors _non_persistent_buffers_set=builtins.set __annotations__=by_name
        _forward_hooks,_forward_hooks_with_kwargs,_forward_hooks_always_called,_forward_pre_hooks=no_hooks
        _forward_pre_hooks_with_kwargs,_backward_hooks,_backward_pre_hooks,_state_dict_hooks=no_hooks
        _state_dict_pre_hooks,_load_state_dict_pre_hooks,_load_state_dict_post_hooks=no_hooks
    fastai.losses.CrossEntropyLossFlat
        axis,flatten,floatify,is_2d,training,reduction,ignore_index,label_smoothing,__module__,__doc__=plain
        func,__wrapped__=torch.nn.modules.loss.CrossEntropyLoss _is_full_backward_hook=nothing
    fastai.learner.Learner
        lr,model_dir,wd,wd_bn_bias,train_bn,moms,default_cbs,training,create_mbar,opt,n_epoch=plain model=layer
        dls=fastai.data.core.DataLoaders loss_func=fastai.losses.CrossEntropyLossFlat opt_func,logger,splitter=known
        _metrics,cbs=callbacks train_eval,cast_to_tensor=callback path=pathlib.Path
    fastai.callback.core.TrainEvalCallback learn=fastai.learner.Learner
    fastai.learner.CastToTensor learn=fastai.learner.Learner
    fastai.data.core.DataLoaders loaders=loaders path=pathlib.Path _device=device
    fastai.data.core.TfmdDL
        bs,shuffle,drop_last,indexed,n,pin_memory,timeout,num_workers,offs,_n_inp=plain rng=random.Random
        after_item,before_batch,after_batch=fasttransform.transform.Pipeline dataset=fastai.data.core.Datasets
        _device=device _types=known fake_l=fastai.data.load._FakeLoader
    fastai.data.load._FakeLoader
        pin_memory_device,pin_memory,num_workers,timeout,persistent_workers=plain worker_init_fn=known
        dataset=fastai.data.load._FakeLoader default,d=fastai.data.core.TfmdDL
    fastai.data.core.Datasets n_inp=plain dataloaders=method tls=lists
    fastai.data.core.TfmdLists
        items,split_idx=plain dataloaders=method splits=rows types=known tfms=fasttransform.transform.Pipeline
    fasttransform.transform.Pipeline
        split_idx,default=plain fs=transforms
        categorize,crop_pad,int_to_float_tensor,normalize,random_resized_crop,resize,to_tensor,transform=transform
    fastai.vision.augment.RandomResizedCrop
        min_scale,ratio,val_xtra,max_scale,p,split_idx,order,cp_size,tl,bits,mirrored=plain
        __signature__=inspect.Signature
        size,orig_sz,final_size=fastcore.basics.fastuple resamples=resamplings mode,mode_mask=PIL.Image.Resampling
    fastai.vision.augment.CropPad
        size=fastcore.basics.fastuple pad_mode,split_idx,order=plain __signature__=inspect.Signature
    fastai.vision.augment.Resize size=fastcore.basics.fastuple method,pad_mode,p,split_idx,order,bits,mirrored=plain
        resamples=resamplings mode,mode_mask=PIL.Image.Resampling __signature__=inspect.Signature
    fastai.data.transforms.ToTensor split_idx,order=plain __signature__=inspect.Signature
    fastai.data.transforms.IntToFloatTensor div,div_mask=plain __signature__=inspect.Signature
    fastai.data.transforms.Normalize axes=plain mean,std=tensor __signature__=inspect.Signature
    fastai.data.transforms.Categorize
        sort,add_na,c=plain vocab=fastai.data.transforms.CategoryMap __signature__=inspect.Signature
    fastai.data.transforms.CategoryMap items=texts o2i=numbers
    fasttransform.transform.Transform
        split_idx,order,_name=plain input_types=known encodes=plum._function.Function __signature__=inspect.Signature
    plum._function.Function
        __module__,__name__,__qualname__,_doc,_warn_redefinition=plain _owner_name,_owner=nothing
        _f,__wrapped__,_cache,_pending,_resolved=known __annotations__=by_name _resolver=plum._resolver.Resolver
    plum._resolver.Resolver function_name,is_faithful,warn_redefinition=plain methods=methods
    plum._method.Method
        function_name=plain implementation,return_type=known signature=plum._signature.Signature
    plum._signature.Signature precedence,is_faithful=plain types,varargs=known
    inspect.Parameter _annotation,_default=known
    inspect.Signature _return_annotation=known
""")
LAYER = SHAPES.pop("layer")
SHAPES[LOSS] = LAYER | SHAPES[LOSS]
MADE_EMPTY = LAYERS | (SHAPES.keys() - CALLS.keys()) | {LIST, METHODS}
FILLED = LAYERS | SHAPES.keys() | {LIST, "random.Random"}
ALLOWED = MADE_EMPTY | NAMED_ONLY | CALLS.keys() | {FASTUPLE}
OUR_PACKAGES = {name.partition(".")[0] for name in ALLOWED}


class _Machine:
    """Follows a pickle's opcodes with symbols in place of objects; refuses at the first that our exports never use."""

    def __init__(self) -> None:
        self.stack: list = []
        self.below: list[list] = []  # the stacks beneath the marks
        self.memo: list = []
        self.filled: list[Made] = []
        self.storages: list[Made] = []

    def run(self, data: bytes):
        """Follow `data` to its end and return what it would make."""
        for count, (opcode, arg, place) in enumerate(pickletools.genops(data)):
            if count == MAX_STEPS:
                raise UnsafeModel(f"its pickle takes more than {MAX_STEPS} steps, more than any model here")
            # pickletools undoes escapes in names, the unpickler does not
            known = opcode.name != "GLOBAL" or data.startswith(f"c{arg.replace(' ', chr(10))}\n".encode(), place)
            if (opcode.name == "PROTO") != (count == 0) or not known or not self.step(opcode.name, arg):
                raise UnsafeModel(_names_asked(data) or f"its pickle uses {opcode.name} as torch.save never does")
        found = self.stack.pop()
        if place != len(data) - 1 or self.stack or self.below:
            raise UnsafeModel("its pickle leaves something over")
        for filled in self.filled:  # at the end, for what a dict holds may be added after it was used as a state
            _vet_state(filled)
        return found

    def step(self, opcode: str, arg) -> bool:
        """Follow one opcode; return whether our exports use it so."""
        stack = self.stack
        match opcode:
            case "PROTO":
                return arg == 2
            case "GLOBAL":
                stack.append(Name(_full_name(arg)))
                return stack[-1].name in ALLOWED
            case "BINPUT" | "LONG_BINPUT":
                self.memo.append(stack[-1])
                return arg == len(self.memo) - 1  # the unpickler would make room for any number
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[arg])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(arg)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode == "NEWTRUE")
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "EMPTY_TUPLE":
                stack.append(Made("tuple"))
            case "TUPLE":
                items = self.since_mark()
                self.stack.append(Made("tuple", items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(opcode[-1]))]
                stack.append(Made("tuple", items[::-1]))
            case "EMPTY_LIST" | "EMPTY_DICT":
                stack.append(Made(opcode.removeprefix("EMPTY_").lower(), []))
            case "APPEND":
                self.put([stack.pop()], "list", METHODS)
            case "APPENDS":
                self.put(self.since_mark(), "list", METHODS)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self.put([(key, value)], "dict")
            case "SETITEMS":
                items = self.since_mark()
                self.put(list(zip(items[::2], items[1::2], strict=True)), "dict")
            case "REDUCE":
                args, callee = stack.pop(), stack.pop()
                stack.append(_called(callee, args))
            case "NEWOBJ":
                args, kind = stack.pop(), stack.pop()
                stack.append(_new(kind, args))
            case "BUILD":
                state = stack.pop()
                self.fill(stack[-1], state)
            case "BINPERSID":
                stack.append(_called(Name("storage"), stack.pop()))
                self.storages.append(stack[-1])
            case "STOP":
                pass
            case _:
                return False
        return True

    def since_mark(self) -> list:
        """Pop and return everything above the last mark."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def put(self, items: list, *kinds: str) -> None:
        """Put items into the list or dict on top of the stack."""
        target = self.stack[-1]
        if not isinstance(target, Made) or target.by not in kinds:
            raise UnsafeModel(f"it puts items into {described(target)}")
        if target.fits:
            raise UnsafeModel(f"it changes a {target.by} after a call was made with it")
        target.held.extend(items)

    def fill(self, target, state) -> None:
        """Give an object its state, once; a class or function must never be given one, for that would change it."""
        if not isinstance(target, Made) or target.by not in FILLED:
            raise UnsafeModel(f"it sets attributes of {described(target)}")
        if target.by in (METHOD, SIGNATURE):  # their state is a pair of None and a dict
            if not row("tuple", nothing, made("dict"))(state):
                raise UnsafeModel(f"it fills {target.by} with {described(state)}")
            state = state.held[1]
        if target.state is not None or (isinstance(state, Made) and state.state is not None):
            raise UnsafeModel(f"it fills {described(target)} twice, or with what fills another object")
        target.state = state
        if isinstance(state, Made):
            state.state = target
        self.filled.append(target)


def _full_name(words: str) -> str:
    """Return the full name of the module and name in `words`, as the unpickler translates those of Python 2."""
    module, _, name = words.partition(" ")
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}:{name}" if "." in name else f"{module}.{name}"


def _names_asked(data: bytes) -> str:
    """Return what a refused pickle names and ours never do; if possible, of packages that ours never use."""
    names, words, memo = [], [], {}
    with suppress(ValueError, IndexError):  # what is cut short is told as far as it goes
        for opcode, arg, _ in islice(pickletools.genops(data), MAX_STEPS):
            if opcode.name in ("GLOBAL", "INST"):
                names.append(_full_name(arg))
            elif opcode.name == "STACK_GLOBAL":
                names.append(_full_name(" ".join(words[-2:])))
            elif opcode.name.startswith("EXT"):
                names.append(f"entry {arg} of the extension registry")
            elif isinstance(arg, str):
                words.append(arg)
            elif "GET" in opcode.name:
                words.append(memo.get(arg, ""))
            elif "PUT" in opcode.name or opcode.name == "MEMOIZE":
                memo[len(memo) if arg is None else arg] = words[-1] if words else ""
    names = [name for name in dict.fromkeys(names) if name not in ALLOWED]
    foreign = [name for name in names if name.partition(".")[0] not in OUR_PACKAGES]
    return f"it names {', '.join((foreign or names)[:4])}" if names else ""


def described(value) -> str:
    """Return a few words for a value, to be read in a refusal."""
    if isinstance(value, Name):
        return value.name
    if not isinstance(value, Made):
        return repr(value[:60] if isinstance(value, str) else value)
    if value.by not in CALLS:
        return value.by
    words = (described(item) if not isinstance(item, Made) else item.by for item in value.held[:5])
    return f"{value.by}({', '.join(words)})"


def _called(callee, args) -> Made:
    """Return the result of a call that our exports make, or refuse it."""
    if not isinstance(callee, Name) or not isinstance(args, Made) or args.by != "tuple":
        raise UnsafeModel(f"it calls {described(callee)}, which is not a plain function")
    result = Made(callee.name, args.held)
    if callee.name not in CALLS or not CALLS[callee.name](result):
        raise UnsafeModel(f"it calls {described(result)}")
    return result


def _new(kind, args) -> Made:
    """Return a new object of an allowed class, made without calling its ``__init__``."""
    if isinstance(kind, Name) and isinstance(args, Made) and args.by == "tuple":
        if kind.name in MADE_EMPTY and not args.held:
            return Made(kind.name, [])
        if kind.name == FASTUPLE and row("tuple", size)(args):
            return Made(kind.name, args.held)
    raise UnsafeModel(f"it makes {described(kind)} in a way our exports never do")


def _vet_state(filled: Made) -> None:
    """Refuse attributes that our exports never set, or not to a value of this kind: they would change behaviour."""
    state = filled.state
    if filled.by == "random.Random" and chance(state):
        return
    if not isinstance(state, Made) or state.by != "dict":
        raise UnsafeModel(f"it fills {filled.by} with {described(state)}")
    if filled.by == LIST:
        return  # `several` looks into it, where it is used
    shape = LAYER if filled.by in LAYERS else SHAPES[filled.by]
    for key, value in state.held:
        kind = shape.get(key) if type(key) is str else None
        if kind is None and filled.by in LAYERS and type(key) is str and not key.startswith("__"):
            kind = plain  # a function among a layer's attributes would run at the first prediction
        if kind is None or not kind(value):
            raise UnsafeModel(
                f"it sets {filled.by}.{key if type(key) is str else described(key)} to {described(value)}"
            )


def _vet_network(learner: Made) -> None:
    """Refuse a network whose layers are not a tree: a short file could describe one without end."""
    level = [value for key, value in learner.state.held if key == "model"]
    if len(level) != 1:
        raise ModelError(f"it is a learner with {len(level)} networks")
    seen: set[int] = set()
    for _ in range(MAX_DEPTH):
        for layer in level:
            if id(layer) in seen:
                raise UnsafeModel(f"its network holds one {layer.by} in two places")
            seen.add(id(layer))
        states = [layer.state.held for layer in level if layer.state]
        modules = [value for state in states for key, value in state if key == "_modules"]
        level = [inner for module in modules for _, inner in module.held if inner is not None]
        if not level:
            return
    raise UnsafeModel(f"its network has layers in layers, more than {MAX_DEPTH} deep")


def vet_pickle(data: bytes, records: Mapping[str, int] | None = None) -> None:
    """
    Refuse the pickle `data` unless it does only what our exports do; raises what `vet` raises.

    With `records`, the sizes in bytes of the archive's records by name, each tensor must match its record.
    """
    if len(data) > MAX_PICKLE:
        raise UnsafeModel(f"its pickle has {len(data)} bytes, more than that of any model here")
    try:
        machine = _Machine()
        found = machine.run(data)
        if not isinstance(found, Made) or found.by != LEARNER or found.state is None:
            raise ModelError(f"it holds {described(found)}, not a fastai learner")
        _vet_network(found)
        for _, kind, key, _, count in (storage.held for storage in machine.storages if records is not None):
            if records.get(f"data/{key}", 0) != count * WIDTHS[kind.name]:  # older versions of torch read beyond it
                raise UnsafeModel(f"it takes {count} numbers from a record of {records.get(f'data/{key}', 0)} bytes")
    except ModelError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ModelError(f"its pickle is cut short or damaged ({error})") from error


def vet(path: str | os.PathLike, data: bytes | None = None) -> None:
    """
    Refuse the model file at `path` unless it is as safe as our own exports; nothing in it is run.

    With `data`, these bytes are vetted, and `path` only says where they came from. Raises UnsafeModel if it asks for
    anything that our exports never ask for, and names it; ModelError if it is not a whole export of a fastai learner;
    FileNotFoundError if there is no such file.
    """
    path = Path(path)
    try:
        vet_pickle(*_read_archive(path if data is None else io.BytesIO(data)))
    except UnsafeModel as error:
        raise UnsafeModel(
            f"{path} is not loaded: {in_one_line(error)}. Exports of this project never do that, so the file could run "
            "any command on this computer. If you know who made it and trust them, load it with trusted=True."
        ) from error.__cause__
    except ModelError as error:
        raise ModelError(
            f"{path} is not a model that can be used here: {in_one_line(error)}. Name an export.pkl, and copy it again "
            "if it came from elsewhere."
        ) from error.__cause__


def in_one_line(error: Exception | str) -> str:
    """Return a message as part of a sentence: short, on one line, and with nothing that a terminal would obey."""
    words = " ".join(str(error).split()) or type(error).__name__
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words[:MAX_TOLD]).rstrip(".")


def _read_archive(source: Path | io.BytesIO) -> tuple[bytes, dict[str, int]]:
    """Return the one pickle in a torch archive and the size of each record; refuse records that torch never writes."""
    with source.open("rb") if isinstance(source, Path) else source as file:
        start = file.read(len(FIRST_HEADER))
        if start != FIRST_HEADER:
            raise _not_an_archive(start + file.read(MAX_PICKLE))
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - ARCHIVE_END.size))
        _vet_end(file.read(), length)
        try:
            with zipfile.ZipFile(file) as archive:
                records = archive.infolist()
                sizes = _sizes(records, length)
                return archive.read(records[list(sizes).index("data.pkl")]), sizes
        except ModelError:
            raise
        except Exception as error:  # zipfile raises what it likes on broken bytes
            raise ModelError(f"its archive is damaged ({error})") from error


def _vet_end(end: bytes, length: int) -> None:
    """Refuse an archive of `length` bytes that could have two tables of contents: one for Python, one for torch."""
    if end[-22:-18] != b"PK\x05\x06":
        raise ModelError("it is cut short, or something was added at its end")
    count, place = int.from_bytes(end[32:40], "little"), int.from_bytes(end[48:56], "little")
    table = length - ARCHIVE_END.size - place
    short = (min(count, 0xFFFF), min(count, 0xFFFF), min(table, 0xFFFFFFFF), min(place, 0xFFFFFFFF))
    made_by = struct.unpack_from("<HH", end, 12)
    if table < 0 or end != ARCHIVE_END.pack(
        *(b"PK\x06\x06", 44, *made_by, 0, 0, count, count, table, place),
        *(b"PK\x06\x07", 0, length - ARCHIVE_END.size, 1),
        *(b"PK\x05\x06", 0, 0, *short, 0),
    ):
        raise UnsafeModel("its archive was not written by torch.save: its end may be read in two ways")
    if table > MAX_TABLE:
        raise UnsafeModel(f"its archive has {table} bytes of contents, more than any model here")


def _sizes(records: list[zipfile.ZipInfo], length: int) -> dict[str, int]:
    """Return the size of each record by name; refuse what ``torch.save`` never writes, or compresses."""
    sizes, folders = {}, set()
    for info in records:
        # Python alters names that hold a zero byte or an extra field; torch goes by what the table of contents says.
        folder, _, name = info.orig_filename.partition("/")
        if not RECORD.fullmatch(name):
            raise UnsafeModel(f"its archive holds {name[:80]!r}, which torch.save never writes")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise UnsafeModel("its archive holds compressed records, which torch.save never writes (a zip bomb?)")
        sizes[name] = info.file_size
        folders.add(folder)
    if len(folders) != 1 or "data.pkl" not in sizes or len(sizes) != len(records):
        raise UnsafeModel(f"its archive has {len(folders)} folders, or two records of one name, or no pickle")
    if sum(sizes.values()) > length:
        raise UnsafeModel("its archive would unpack to more than it holds (a zip bomb?)")
    if sizes["data.pkl"] > MAX_PICKLE:
        raise UnsafeModel(f"its pickle has {sizes['data.pkl']} bytes, more than that of any model here")
    return sizes


def _not_an_archive(start: bytes) -> ModelError:
    """Return the refusal of a file that is not a torch archive; it tells a bare pickle's names."""
    if not start:
        return ModelError("it is empty")
    if start[:1] not in PICKLE_STARTS:
        return ModelError("it is not a torch archive")
    old = start.startswith(LEGACY_START)
    found = _names_asked(start.removeprefix(LEGACY_START))
    if not old and not found and start[:1] != b"\x80":
        return ModelError("it is not a torch archive")
    kind = "in torch's old format, before 1.6" if old else "a bare pickle, not a torch archive"
    return UnsafeModel(f"it is {kind}{', and ' if found else ''}{found}")


class Unpickler(pickle.Unpickler):
    """An unpickler that vets the very bytes it is about to read; ``torch.load`` makes one from ``pickle_module``."""

    def __init__(self, file, **options) -> None:
        data = file.read()
        vet_pickle(data)
        super().__init__(io.BytesIO(data), **options)


def load(file, **options):
    """Refuse: torch calls this only for its old format, which holds several pickles in a row."""
    raise UnsafeModel("it is in torch's old format, before 1.6")
