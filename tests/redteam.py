"""
Hostile model files for tests/inference/test_vetting.py, each with what its refusal must name.

They are only bytes, and most would create a file if they ran. The pickles are written opcode by opcode, so that one can
name what this machine or this version of Python does not have.
"""

import struct
import sys
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from utils.inference import vetting

LEARNER, RELU, FUNCTION = "fastai.learner.Learner", "torch.nn.modules.activation.ReLU", "plum._function.Function"
TRANSFORM, RESOLVER, METHOD = "fasttransform.transform.Transform", "plum._resolver.Resolver", "plum._method.Method"
LOADER, PIPELINE, LIST = "fastai.data.core.TfmdDL", "fasttransform.transform.Pipeline", "fastcore.foundation.L"
ORDERED, MANY = "collections.OrderedDict", 101  # more items than a call is given
NONE, TRUE, EMPTY_LIST, EMPTY_DICT = b"N", b"\x88", b"]", b"}"


def name(full: str) -> bytes:
    """Return the opcodes that push a class or function."""
    module, _, last = full.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<L", len(data)) + data


def row(*items: bytes) -> bytes:
    """Return the opcodes that push a tuple."""
    return b"(" + b"".join(items) + b"t"


def series(*items: bytes) -> bytes:
    """Return the opcodes that push a list."""
    return b"](" + b"".join(items) + b"e"


def table(items: Mapping[str, bytes]) -> bytes:
    """Return the opcodes that push a dict."""
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def call(full: str, *args: bytes) -> bytes:
    return name(full) + row(*args) + b"R"


def thing(full: str, **attributes: bytes) -> bytes:
    """Return the opcodes that push an object with these attributes."""
    return name(full) + b")\x81" + table(attributes) + b"b"


def slotted(full: str, **attributes: bytes) -> bytes:
    """Return the opcodes that push an object with slots."""
    return name(full) + b")\x81" + row(NONE, table(attributes)) + b"b"


def pickled(value: bytes, protocol: int = 2) -> bytes:
    return bytes([0x80, protocol]) + value + b"."


def learner(**attributes: bytes) -> bytes:
    return pickled(thing(LEARNER, **attributes))


def transform(**function: bytes) -> bytes:
    """Return a transform whose function holds what plum needs, with the given parts replaced."""
    usual = {"_cache": EMPTY_DICT, "_pending": EMPTY_LIST, "_resolved": EMPTY_LIST, "_owner": NONE, "_owner_name": NONE}
    return thing(TRANSFORM, encodes=thing(FUNCTION, **(usual | function)))


def resolver(*methods: bytes) -> bytes:
    listed = name("plum._method.MethodList") + b")\x81" + (b"(" + b"".join(methods) + b"e" if methods else b"")
    return thing(RESOLVER, function_name=text("a"), methods=listed, is_faithful=TRUE, warn_redefinition=TRUE)


def deleting() -> bytes:
    """Return a transform that deletes the picture it is given, because plum falls back on a method of the owner."""
    unlink = thing(TRANSFORM, __name__=text("unlink"))
    return transform(_f=unlink, _owner=name("pathlib.PosixPath"), __qualname__=text("a"), _resolver=resolver())


def evaluating(code: str) -> bytes:
    """Return a transform that evaluates text at its first call: plum looks up the type annotation."""
    signature = slotted(
        "plum._signature.Signature", types=row(text(code)), varargs=name("plum._util.Missing"), is_faithful=TRUE
    )
    noop = name("fastai.imports.noop")
    method = slotted(
        METHOD, function_name=text("a"), implementation=noop, signature=signature, return_type=name("typing.Any")
    )
    return transform(_f=noop, _resolver=resolver(method))


def storage(count: int, *, kind: str = "torch.FloatStorage", key: str = "0", device: str = "cpu") -> bytes:
    """Return the opcodes that push a tensor's numbers, `count` below 256."""
    return row(text("storage"), name(kind), text(key), text(device), b"K" + bytes([count])) + b"Q"


def tensor(numbers: bytes, *, size: bytes, steps: bytes) -> bytes:
    """Return the opcodes that push a tensor of one dimension."""
    return call("torch._utils._rebuild_tensor_v2", numbers, b"K\x00", row(size), row(steps), b"\x89", call(ORDERED))


# Functions that run, load, write, delete or fetch something, in any version of Python and of the libraries.
NAMED = {
    "commands": """
        os.system posix.system nt.system os.popen os.execv os.spawnl os.startfile subprocess.Popen
        subprocess.check_output subprocess.getoutput pty.spawn multiprocessing.util.spawnv_passfds
        asyncio.create_subprocess_shell""",
    "code": """
        builtins.eval builtins.exec builtins.compile builtins.__import__ importlib.import_module imp.load_source
        importlib._bootstrap._load runpy.run_path runpy._run_code code.interact codeop.compile_command pdb.run bdb.Bdb
        cProfile.run profile.run timeit.timeit trace.Trace doctest.debug_script types.CodeType types.FunctionType
        marshal.loads pickle.loads _pickle.loads shelve.open cloudpickle.cloudpickle._make_function
        dill._dill._create_function joblib.load numpy.load numpy.testing._private.utils.runstring numpy.f2py.compile
        typing.get_type_hints fastcore.xtras.exec_eval test.support.script_helper.assert_python_ok""",
    "torch": """
        torch.load torch.serialization.load torch.hub.load torch.hub.load_state_dict_from_url torch.jit.load
        torch.jit.unsupported_tensor_ops.execWrapper torch.package.PackageImporter torch._C.import_ir_module
        torch.utils.cpp_extension.load_inline torch.ops.load_library torch.storage._load_from_bytes
        torch.fx.graph_module.reduce_graph_module torch.utils._config_module.ConfigModule.load_config
        torch.multiprocessing.reductions.rebuild_storage_fd torch._utils._rebuild_wrapper_subclass
        fastai.learner.load_learner fastai.learner.load_model""",
    "timm": """
        timm.create_model timm.models._factory.create_model timm.models._hub.download_cached_file
        timm.models._hub.load_state_dict_from_hf timm.models._hub.load_custom_from_hf timm.models._hub.save_for_hf
        timm.models._helpers.load_state_dict timm.models._registry.model_entrypoint timm.models.resnet.resnet10t
        timm.layers.create_act.create_act_layer timm.layers.ml_decoder.MLDecoder timm.layers.format.Format""",
    "files": """
        io.open os.remove shutil.rmtree shutil.move shutil.unpack_archive tempfile.mkstemp sqlite3.connect ctypes.CDLL
        ctypes.util.find_library zipfile.ZipFile tarfile.open numpy.fromfile numpy.memmap linecache.getline""",
    "network": """
        urllib.request.urlopen urllib.request.urlretrieve socket.create_connection webbrowser.open smtplib.SMTP
        http.client.HTTPSConnection asyncio.run logging.config.fileConfig logging.config.listen pip.main
        pip._internal.cli.main.main requests.api.get fastdownload.core.download_url""",
    "reaching": """
        operator.attrgetter operator.itemgetter operator.methodcaller functools.partial functools.partialmethod
        inspect.getattr_static builtins.vars builtins.globals builtins.setattr builtins.delattr builtins.type
        builtins.object builtins.map sys.settrace sys.modules copyreg._reconstructor copyreg.add_extension
        types.SimpleNamespace types.MethodType weakref.ref gc.get_objects numpy.core.multiarray._reconstruct
        numpy.dtype fastcore.basics.AttrDict fastai.data.core.DataLoaders.from_dblock utils.inference.main""",
}


def hostile(mark: Path) -> dict[str, tuple[bytes, str]]:
    """Return hostile pickles by kind, each with what the refusal must name. Many would create the file `mark`."""
    command = f"\"{sys.executable}\" -c \"open(r'{mark}', 'w')\""
    code = f"open({str(mark)!r}, 'w')"
    arguments = {"builtins.eval": code, "builtins.exec": code, "pickle.loads": code}
    found: dict[str, tuple[bytes, str]] = {}
    for group, names in NAMED.items():
        for full in names.split():
            found[f"{group}: {full}"] = pickled(call(full, text(arguments.get(full, command)))), f"names {full}"
    memo = b"\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93"  # both words kept, dropped, and fetched again
    short = lambda word: b"\x8c" + bytes([len(word)]) + word.encode()  # noqa: E731
    noop, path, relu = name("fastai.imports.noop"), name("pathlib.Path"), thing(RELU)
    attacks = {
        "protocol 0": (b"cos\nsystem\n(" + text(command) + b"tR.", "os.system"),
        "protocol 4": (pickled(short("os") + short("system") + b"\x93" + text(command) + b"\x85R", 4), "os.system"),
        "Python 2's names": (pickled(call("__builtin__.eval", text(code))), "builtins.eval"),
        "Python 2's commands": (pickled(call("commands.getoutput", text(command))), "subprocess.getoutput"),
        "two words by memo": (pickled(memo.replace(b"0", b"") + text(command) + b"\x85R", 4), "os.system"),
        "INST": (b"(" + text(command) + b"ios\nsystem\n.", "os.system"),
        "INST after text": (b"(S'" + command.replace("'", '"').encode() + b"'\nios\nsystem\n.", "os.system"),
        "OBJ": (pickled(b"(" + path + text("a") + b"o"), "OBJ"),
        "NEWOBJ_EX": (pickled(path + b")}\x92"), "NEWOBJ_EX"),
        "extension registry": (pickled(b"\x82\xf0" + text(command) + b"\x85R"), "extension registry"),
        "extension registry, large": (
            pickled(b"\x84\xf0\x00\x00\x00" + text(command) + b"\x85R"),
            "extension registry",
        ),
        "name as text id": (b"\x80\x02Pos.system\n.", "PERSID"),
        "out-of-band buffer": (pickled(b"\x97"), "NEXT_BUFFER"),
        "bytes that can change": (pickled(b"\x96" + struct.pack("<Q", 3) + b"abc"), "BYTEARRAY8"),
        "copied top": (pickled(path + b"2"), "DUP"),
        "dropped after its making": (pickled(path + b"0"), "POP"),
        "another protocol half way": (b"\x80\x02]q\x00\x80\x04.", "PROTO"),
        "a second pickle": (learner() + pickled(call("os.system", text(command))), "leaves something over"),
        "something left over": (pickled(noop + thing(LEARNER)), "leaves something over"),
        "a memo of a thousand million": (pickled(b"]r\xff\xff\xff\x3b"), "BINPUT as torch.save never does"),
        "a memo overwritten": (pickled(noop + b"q\x00" + path + b"q\x00"), "BINPUT as torch.save never does"),
        "dotted name": (pickled(name("pathlib.Path").replace(b"Path", b"Path.write_text")), "pathlib:Path.write_text"),
        "dotted name like an allowed one": (b"\x80\x02cPIL\nImage.Image\n.", "PIL:Image.Image"),
        "escapes in a name": (b"\x80\x02cfastai.learner\nL\\x65arner\n)\x81.", "uses GLOBAL"),
        "module with a space": (b"\x80\x02cos system\nx\n.", "os.system x"),
        "getattr to globals": (pickled(call("builtins.getattr", noop, text("__globals__"))), "noop, '__globals__'"),
        "getattr of a class": (pickled(call("builtins.getattr", path, text("write_text"))), "Path, 'write_text'"),
        "getattr of an object": (
            pickled(call("builtins.getattr", thing(LEARNER), text("export"))),
            "getattr(fastai.learner.Learner, 'export')",
        ),
        "getattr with a default": (
            pickled(call("builtins.getattr", name("fastai.vision.core.PILImage"), text("create"), noop)),
            "PILImage, 'create', fastai.imports.noop",
        ),
        "getattr kept for later": (learner(logger=name("builtins.getattr")), "builtins.getattr"),
        "getattr in a list": (
            learner(dls=thing(LOADER, _types=series(name("builtins.getattr")))),
            "sets fastai.data.core.TfmdDL._types",
        ),
        "reduce of print": (
            pickled(call("functools.reduce", name("builtins.print"), row(text("a"), text("b")))),
            "functools.reduce(builtins.print",
        ),
        "a call of an object": (pickled(thing(LEARNER) + b")R"), "calls fastai.learner.Learner"),
        "a call of a class": (pickled(name(LEARNER) + b")R"), "calls fastai.learner.Learner"),
        "a call of text": (pickled(text("eval") + b")R"), "calls 'eval'"),
        "path elsewhere": (pickled(call("pathlib.Path", text("/etc/passwd"))), "pathlib.Path('/etc/passwd')"),
        "NEWOBJ of a function": (pickled(name("builtins.getattr") + b")\x81"), "makes builtins.getattr"),
        "NEWOBJ with arguments": (pickled(name(LEARNER) + row(noop) + b"\x81"), "makes fastai.learner.Learner"),
        "attributes of a class": (pickled(name(LEARNER) + table({"predict": noop}) + b"b"), "attributes of fastai"),
        "attributes of a path": (pickled(call("pathlib.Path", text(".")) + b"}b"), "attributes of pathlib.Path"),
        "items put into a class": (pickled(name(LEARNER) + noop + b"a"), "puts items into fastai"),
        "items put into an object": (pickled(thing(LEARNER) + text("a") + noop + b"s"), "puts items into fastai"),
        "hooks of a tensor": (
            pickled(call(ORDERED) + b"K\x00" + noop + b"s"),
            "puts items into collections.OrderedDict",
        ),
        "a state twice": (pickled(thing(LEARNER) + b"}b"), "twice"),
        "one state for two": (pickled(row(b"}q\x00", *[name(RELU) + b")\x81h\x00b"] * 2)), "fills another object"),
        "numbers of another kind": (
            pickled(storage(1, kind="pathlib.Path")),
            "storage('storage', pathlib.Path",
        ),
        "numbers from elsewhere": (pickled(storage(1, key="../0")), "'../0'"),
        "numbers to elsewhere": (pickled(storage(1, device="hpu:/x")), "'hpu:/x'"),
        "numbers beyond their record": (
            learner(model=thing(RELU, _buffers=table({"a": tensor(storage(100), size=b"K\x01", steps=b"K\x01")}))),
            "takes 100 numbers from a record of 0 bytes",
        ),
        "numbers told a million times": (
            pickled(tensor(storage(0), size=b"J\x40\x42\x0f\x00", steps=b"K\x00")),
            "calls torch._utils._rebuild_tensor_v2(storage",
        ),
        "text that a generator of chance formats": (
            learner(
                dls=thing(LOADER, rng=call("random.Random") + row(b"K\x02", row(text("%2000000000d")), NONE) + b"b")
            ),
            "fills random.Random with tuple",
        ),
        "keys of one hash": (
            learner(dls=thing(LOADER, _types=b"}(" + b"K\x00N" + b"\x8a\x08" + b"\xff" * 7 + b"\x1fNu")),
            "TfmdDL._types to dict",
        ),
        "a key of a tuple of numbers": (
            learner(dls=thing(LOADER, _types=b"}" + row(b"K\x00") + b"Ns")),
            "TfmdDL._types to dict",
        ),
        "a union of dicts": (
            pickled(call("functools.reduce", name("_operator.or_"), row(EMPTY_DICT, EMPTY_DICT))),
            "functools.reduce(_operator.or_, tuple",
        ),
        "a union of many": (
            pickled(call("functools.reduce", name("_operator.or_"), row(*[path] * MANY))),
            "functools.reduce(_operator.or_, tuple",
        ),
        "a set of many": (pickled(call("builtins.set", series(*[text("a")] * MANY))), "calls builtins.set(list)"),
        "a signature of many": (
            pickled(
                call(
                    "inspect.Signature",
                    row(*[call("inspect.Parameter", text("a"), call("inspect._ParameterKind", b"K\x01"))] * MANY),
                )
            ),
            "calls inspect.Signature(tuple)",
        ),
        "a size of many": (
            pickled(name("fastcore.basics.fastuple") + row(row(*[b"K\x01"] * MANY)) + b"\x81"),
            "makes fastcore.basics.fastuple",
        ),
        "an order to the terminal": (learner(**{"a\x1b[2J\n\u202e": NONE}), "Learner.a\\x1b[2J \\u202e to None"),
        "a name that fills the screen": (b"\x80\x02cos\n" + b"x" * 100_000 + b"\n.", "names os.xxx"),
        "class of an object": (learner(__class__=path), "Learner.__class__ to pathlib.Path"),
        "another way to predict": (learner(get_preds=noop), "Learner.get_preds to fastai.imports.noop"),
        "another way to look up": (learner(_default=text("opt_func")), "Learner._default to 'opt_func'"),
        "a function as the network": (learner(model=name("builtins.print")), "Learner.model to builtins.print"),
        "a learner as the network": (learner(model=thing(LEARNER)), "Learner.model to fastai.learner.Learner"),
        "a function as a layer": (
            learner(model=thing(RELU, _modules=table({"0": noop}))),
            "ReLU._modules to dict",
        ),
        "a function as a layer's forward": (learner(model=thing(RELU, forward=noop)), "ReLU.forward to fastai"),
        "a function in a layer's tuple": (learner(model=thing(RELU, a=row(row(noop)))), "ReLU.a to tuple"),
        "a layer as a layer's forward": (learner(model=thing(RELU, forward=relu)), "ReLU.forward to torch.nn"),
        "a hook of a layer": (
            learner(model=thing(RELU, _forward_hooks=table({"0": noop}))),
            "ReLU._forward_hooks to dict",
        ),
        "a layer in itself": (
            learner(model=name(RELU) + b")\x81q\x00" + table({"_modules": table({"0": b"h\x00"})}) + b"b"),
            "ReLU in two places",
        ),
        "a list changed after it was used": (
            pickled(b"]q\x00" + name("builtins.set") + b"h\x00\x85R" + b"h\x00" + noop + b"a"),
            "changes a list",
        ),
        "a layer filled after its use": (
            learner(model=name(RELU) + b")\x81}q\x00b", lr=b"h\x00" + text("forward") + noop + b"s"),
            "ReLU.forward",
        ),
        "code in an annotation": (learner(dls=evaluating(code)), "Signature.types to tuple"),
        "a module in an annotation": (learner(dls=evaluating("antigravity.x")), "Signature.types to tuple"),
        "code in a function's annotations": (
            learner(dls=transform(__annotations__=table({"x": text(code)}))),
            "Function.__annotations__ to dict",
        ),
        "code in an object's annotations": (
            learner(dls=thing(TRANSFORM, __annotations__=table({"x": text(code)}))),
            "Transform.__annotations__ to dict",
        ),
        "a method of a path": (learner(dls=deleting()), "Transform.__name__ to 'unlink'"),
        "an owner of a function": (learner(dls=transform(_owner=path)), "Function._owner to pathlib.Path"),
        "an owner by its name": (learner(dls=transform(_owner_name=text("os"))), "Function._owner_name to 'os'"),
        "another function of a transform": (learner(dls=thing(TRANSFORM, encodes=noop)), "Transform.encodes to fastai"),
        "another step": (
            learner(dls=thing(PIPELINE, fs=thing(LIST, items=series(thing(LEARNER))))),
            "Pipeline.fs to fastcore.foundation.L",
        ),
        "a list that is none": (
            learner(dls=thing(PIPELINE, fs=thing(LIST, items=thing(LEARNER)))),
            "Pipeline.fs to fastcore.foundation.L",
        ),
        "a list with more": (
            learner(dls=thing(PIPELINE, fs=thing(LIST, items=EMPTY_LIST, map=noop))),
            "Pipeline.fs to fastcore.foundation.L",
        ),
        "numbers that answer": (
            learner(dls=thing("fastai.data.transforms.Normalize", mean=thing(LIST, flatten=noop))),
            "Normalize.mean to fastcore.foundation.L",
        ),
        "labels that are no text": (
            learner(dls=thing("fastai.data.transforms.CategoryMap", items=thing(LIST, items=series(noop)))),
            "CategoryMap.items",
        ),
        "a loss that decodes": (
            learner(loss_func=thing("fastai.losses.CrossEntropyLossFlat", decodes=noop)),
            "CrossEntropyLossFlat.decodes",
        ),
        "a callback's event": (
            learner(train_eval=thing("fastai.callback.core.TrainEvalCallback", before_fit=noop)),
            "TrainEvalCallback.before_fit",
        ),
        "a loader's step": (learner(dls=thing(LOADER, create_batch=noop)), "TfmdDL.create_batch"),
        "state that is no dict": (pickled(name(LEARNER) + b")\x81" + row(NONE, EMPTY_DICT) + b"b"), "fills fastai"),
    }
    return found | attacks


def enormous() -> dict[str, bytes]:
    """Return small pickles by kind that never end for a reader who follows every reference."""
    fetched = [b"h" + bytes([n]) for n in range(61)]
    kept = [b"q" + bytes([n]) for n in range(61)]
    layers = [name(RELU) + b")\x81" + kept[0]] + [
        name(RELU) + b")\x81" + kept[n + 1] + table({"_modules": table({"0": fetched[n], "1": fetched[n]})}) + b"b"
        for n in range(50)
    ]
    nested = name(RELU) + b")\x81"
    for _ in range(50):
        nested = thing(RELU, _modules=table({"0": nested}))
    mentions = b"".join([name(RELU) + b")\x81" + table({"a": b"h\x00"}) + b"b"] * 5000)
    return {
        "twofold tuples": learner(
            lr=thing(
                RELU, a=row(b")" + kept[0], *[f * 2 + b"\x86" + k for f, k in zip(fetched, kept[1:], strict=False)])
            )
        ),
        "wide tuples": learner(lr=row(b")" + kept[0], *[row(fetched[n] * 1000) + kept[n + 1] for n in range(6)])),
        "twofold layers": learner(model=thing(RELU, _modules=table({str(n): layer for n, layer in enumerate(layers)}))),
        "nested layers": learner(model=nested),
        "one list in many places": learner(lr=row(b"](" + b"K\x00" * 50_000 + b"e" + kept[0], mentions)),
        "nested tuples": learner(lr=b")" + b"\x85" * 100_000),
        "nested lists": learner(lr=b"]" * 100_000 + b"a" * 99_999),
        "a list in itself": learner(lr=b"]q\x00h\x00a"),
        "many steps": learner(lr=row(b"N" * 500_000)),
        "many marks": pickled(b"(" * 500_000),
        "a long number": learner(lr=b"\x8b\xff\xff\xff\x7f"),
        "a long text": learner(lr=b"X\xff\xff\xff\xff"),
    }


def archive(path: Path, data: bytes, *, records=(), compression: int = zipfile.ZIP_STORED, end: bool = True) -> Path:
    """Write a pickle into an archive like those of torch.save; `records` are (name, content)."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("archive/data.pkl", data)
        for record, content in (("archive/version", b"3\n"), *records):
            file.writestr(record, content)
    path.write_bytes(ended(buffer.getvalue()) if end else buffer.getvalue())
    return path


def ended(content: bytes) -> bytes:
    """Return an archive made by Python, with the ending that torch writes."""
    _, _, _, count, _, size, place, _ = struct.unpack("<4s4H2LH", content[-22:])
    length = len(content) - 22 + vetting.ARCHIVE_END.size
    return content[:-22] + vetting.ARCHIVE_END.pack(
        *(b"PK\6\6", 44, 798, 45, 0, 0, count, count, size, place),
        *(b"PK\6\7", 0, length - vetting.ARCHIVE_END.size, 1),
        *(b"PK\5\6", 0, 0, count, count, size, place, 0),
    )
