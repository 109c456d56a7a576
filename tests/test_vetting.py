"""What `utils.vetting` promises: our exports pass; a file that asks for anything else is refused, unrun, by name."""

import builtins
import copyreg
import ctypes
import functools
import importlib
import io
import operator
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from test_inference import make_learner

from utils import vetting
from utils.vetting import ModelError, UnsafeModel, vet, vet_pickle

LEARNER = b"cfastai.learner\nLearner\n)\x81"
REPOSITORY = Path(__file__).resolve().parents[1]


class Call:
    """Something whose unpickling calls a function."""

    def __init__(self, function, *args):
        self.reduced = (function, args)

    def __reduce__(self):
        return self.reduced


def archive(path: Path, data: bytes, *, records=(), compression=zipfile.ZIP_STORED) -> Path:
    """Write a pickle into an archive such as torch.save writes."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", data)
        for name, content in (("version", b"3\n"), *records):
            file.writestr(f"archive/{name}", content)
    return path


@pytest.fixture(scope="session")
def _learner(tmp_path_factory):
    return make_learner(tmp_path_factory.mktemp("vetting") / "images")


@pytest.fixture(scope="session")
def _export(_learner, tmp_path_factory) -> Path:
    """Return an export as stage 07 writes it."""
    from utils.export import save_learner

    path = tmp_path_factory.mktemp("export") / "export.pkl"
    save_learner(_learner, path)
    return path


def inner_pickle(path: Path) -> bytes:
    """Return the pickle inside a torch archive."""
    with zipfile.ZipFile(path) as file:
        return file.read(next(name for name in file.namelist() if name.endswith("data.pkl")))


def test_our_exports_pass(_export, _learner, tmp_path):
    """An export of stage 07 is accepted, and so is fastai's own with its pickle module set to pickle."""
    vet(_export)
    _learner.path = tmp_path
    _learner.export("plain.pkl", pickle_module=pickle)
    vet(tmp_path / "plain.pkl")


@pytest.mark.parametrize("arch", ["resnet50", "squeezenet1_1", "densenet121", "efficientnet_b0", "convnext_tiny"])
def test_other_networks_pass(arch, _learner, tmp_path):
    """The layers of torchvision's usual networks are known."""
    import torchvision
    from fastai.vision.learner import create_vision_model

    from utils.export import save_learner

    earlier = _learner.model
    _learner.model = create_vision_model(getattr(torchvision.models, arch), 2, pretrained=False)
    try:
        save_learner(_learner, tmp_path / "export.pkl")
    finally:
        _learner.model = earlier
    vet(tmp_path / "export.pkl")


def hostile(sentinel: Path) -> dict[str, tuple[bytes, str]]:
    """Return hostile pickles by kind, each with what the refusal must name; run, most would make `sentinel`."""
    command = f'"{sys.executable}" -c "open({str(sentinel)!r}, \'w\')"'
    code = f"open({str(sentinel)!r}, 'w')"
    text = b"X" + len(command.encode()).to_bytes(4, "little") + command.encode()

    def dumped(function, *args, protocol=2) -> bytes:
        return pickle.dumps(Call(function, *args), protocol)

    def learner_with(state: bytes) -> bytes:
        """Return a learner with one attribute more, whose value `state` pushes."""
        return b"\x80\x02" + LEARNER + b"}X\x01\x00\x00\x00a" + state + b"sb."

    def called(name: str, args: bytes) -> bytes:
        return b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n" + args + b"R."

    relu = b"ctorch.nn.modules.activation\nReLU\n)\x81"
    return {
        "os.system": (dumped(os.system, command), f"{os.name}.system"),
        "os.system, protocol 4": (dumped(os.system, command, protocol=4), f"{os.name}.system"),
        "os.system, protocol 0": (dumped(os.system, command, protocol=0), f"{os.name}.system"),
        "eval": (dumped(eval, code), "builtins.eval"),
        "exec": (dumped(exec, code), "builtins.exec"),
        "open": (dumped(open, str(sentinel), "w"), "io.open"),
        "subprocess": (dumped(subprocess.Popen, command.split()), "subprocess.Popen"),
        "import": (dumped(importlib.import_module, "antigravity"), "importlib.import_module"),
        "__import__": (dumped(__import__, "os"), "builtins.__import__"),
        "ctypes": (dumped(ctypes.CDLL, "libc.so.6"), "ctypes.CDLL"),
        "pathlib write": (dumped(Path.write_text, sentinel, "x"), "getattr(pathlib.Path, 'write_text')"),
        "attrgetter": (dumped(operator.attrgetter, "system"), "operator.attrgetter"),
        "methodcaller": (dumped(operator.methodcaller, "write_text", "x"), "operator.methodcaller"),
        "torch.load": (called("torch.serialization load", b"(" + text + b"t"), "torch.serialization.load"),
        "torch.hub": (called("torch.hub load", b"(" + text + b"t"), "torch.hub.load"),
        "fastai load": (called("fastai.learner load_learner", b"(" + text + b"t"), "fastai.learner.load_learner"),
        "numpy load": (called("numpy load", b"(" + text + b"t"), "numpy.load"),
        "getattr to globals": (
            called("__builtin__ getattr", b"(cfastai.imports\nnoop\nX\x0b\x00\x00\x00__globals__t"),
            "getattr(fastai.imports.noop, '__globals__')",
        ),
        "getattr of a class": (
            called("__builtin__ getattr", b"(cpathlib\nPath\nX\x0a\x00\x00\x00write_textt"),
            "getattr(pathlib.Path, 'write_text')",
        ),
        "getattr of a new object": (
            called("__builtin__ getattr", b"(" + LEARNER + b"X\x06\x00\x00\x00exportt"),
            "getattr(fastai.learner.Learner, 'export')",
        ),
        "partial of os.system": (dumped(functools.partial, os.system, command), f"{os.name}.system"),
        "partial of an allowed name": (
            called("functools partial", b"(c__builtin__\nprint\nt"),
            "functools.partial(builtins.print)",
        ),
        "partial changed by its state": (
            b"\x80\x02cfunctools\npartial\n(cfastai.vision.augment\nflip_mat\ntR(c__builtin__\nprint\n)}Ntb.",
            "functools.partial",
        ),
        "reduce": (
            called("__builtin__ reduce", b"(c__builtin__\nprint\n(X\x01\x00\x00\x00aX\x01\x00\x00\x00btt"),
            "functools.reduce(builtins.print",
        ),
        "reduce kept for later": (
            learner_with(b"c__builtin__\nreduce\n"),
            "functools.reduce to be called later",
        ),
        "a name kept as a value": (learner_with(b"cshutil\nrmtree\n"), "shutil.rmtree"),
        "attributes of a path": (
            b"\x80\x02cpathlib\nPath\n)R}X\x01\x00\x00\x00aNsb.",
            "attributes of pathlib.Path",
        ),
        "getattr kept by a memo": (
            b"\x80\x02c__builtin__\ngetattr\nq\x000" + learner_with(b"h\x00")[2:],
            "builtins.getattr to be called later",
        ),
        "STACK_GLOBAL by memo": (
            b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93" + text + b"\x85R.",
            "os.system",
        ),
        "dotted name": (b"\x80\x04\x8c\x07pathlib\x8c\x0fPath.write_text\x93.", "pathlib.Path.write_text"),
        "dotted name that ends in an allowed one": (b"\x80\x04\x8c\x03PIL\x8c\x0bImage.Image\x93.", "PIL.Image.Image"),
        "INST": (b"(" + text + b"ios\nsystem\n.", "os.system"),
        "OBJ": (b"(cpathlib\nPath\n" + text + b"o.", "OBJ"),
        "extension registry": (b"\x80\x02\x82\xf0" + text + b"\x85R.", "extension registry"),
        "NEWOBJ of a callable": (b"\x80\x02c__builtin__\ngetattr\n)\x81.", "builtins.getattr (NEWOBJ)"),
        "attributes of a class": (
            b"\x80\x02cfastai.learner\nLearner\n}X\x05\x00\x00\x00modelNsb.",
            "attributes of fastai.learner.Learner",
        ),
        "__class__ of an object": (
            b"\x80\x02" + LEARNER + b"}X\x09\x00\x00\x00__class__cpathlib\nPath\nsb.",
            "__class__",
        ),
        "function as a layer's forward": (
            learner_with(relu + b"}X\x07\x00\x00\x00forwardc__builtin__\nprint\nsb"),
            "forward to builtins.print",
        ),
        "function as a layer": (
            learner_with(relu + b"}X\x08\x00\x00\x00_modules}X\x01\x00\x00\x000c__builtin__\nprint\nssb"),
            "builtins.print, no layer",
        ),
        "layer changed after its use": (
            learner_with(relu + b"}X\x08\x00\x00\x00_modules}q\x01sbh\x01X\x01\x00\x00\x000c__builtin__\nprint\ns0"),
            "builtins.print, no layer",
        ),
        "function as the network": (
            b"\x80\x02" + LEARNER + b"}X\x05\x00\x00\x00modelc__builtin__\nprint\nsb.",
            "its network is builtins.print",
        ),
        "numpy object": (called("numpy dtype", b"(X\x01\x00\x00\x00O\x89\x88t"), "numpy.dtype('O'"),
        "storage of another kind": (
            b"\x80\x02(X\x07\x00\x00\x00storagecpathlib\nPath\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ.",
            "pathlib.Path",
        ),
    }


def kinds() -> list[str]:
    return sorted(hostile(Path("sentinel")))


@pytest.mark.parametrize("kind", kinds())
def test_hostile_files_are_refused_unrun(kind, tmp_path):
    """A hostile file is refused with the name of what was found, and nothing in it has run."""
    sentinel = tmp_path / "sentinel"
    data, found = hostile(sentinel)[kind]
    with pytest.raises(UnsafeModel) as refusal:
        vet(archive(tmp_path / "export.pkl", data))
    assert found in str(refusal.value)
    assert str(tmp_path / "export.pkl") in str(refusal.value)
    assert not sentinel.exists()


@pytest.mark.parametrize("kind", ["os.system", "eval", "STACK_GLOBAL by memo", "INST"])
def test_these_files_do_bite(kind, tmp_path):
    """Unpickled without vetting, hostile files do run: the tests above are of real attacks."""
    sentinel = tmp_path / "sentinel"
    pickle.loads(hostile(sentinel)[kind][0])
    assert sentinel.exists()


def test_an_attack_hidden_in_our_export_is_refused(_export, tmp_path):
    """The pickle of a true export with a call before its end is refused."""
    sentinel = tmp_path / "sentinel"
    data = inner_pickle(_export)
    attack = pickle.dumps(Call(os.system, f"touch {sentinel}"), 2)[2:-1]
    with pytest.raises(UnsafeModel, match="system"):
        vet(archive(tmp_path / "export.pkl", data[:-1] + attack + b"0."))
    assert not sentinel.exists()


def test_the_extension_registry_is_refused_where_it_is_filled(tmp_path):
    """A number of the extension registry is refused even where this process knows it."""
    copyreg.add_extension("os", "system", 240)
    try:
        with pytest.raises(UnsafeModel, match="extension registry"):
            vet(archive(tmp_path / "export.pkl", hostile(tmp_path / "sentinel")["extension registry"][0]))
    finally:
        copyreg.remove_extension("os", "system", 240)
    assert not (tmp_path / "sentinel").exists()


def test_fastais_default_export_is_refused(_learner, tmp_path):
    """What learn.export() writes by default holds bytecode; the refusal names cloudpickle."""
    _learner.path = tmp_path
    _learner.export("default.pkl")
    with pytest.raises(UnsafeModel, match="cloudpickle"):
        vet(tmp_path / "default.pkl")


def test_bare_and_legacy_pickles_are_refused(tmp_path):
    """A pickle outside an archive, and torch's old format, are refused; what they name is told."""
    import torch

    data = pickle.dumps(Call(builtins.eval, "1"), 2)
    (tmp_path / "bare.pkl").write_bytes(data)
    with pytest.raises(UnsafeModel, match=r"bare pickle.*builtins\.eval"):
        vet(tmp_path / "bare.pkl")
    torch.save({"a": 1}, tmp_path / "old.pkl", _use_new_zipfile_serialization=False)
    with pytest.raises(UnsafeModel, match="old format"):
        vet(tmp_path / "old.pkl")


def test_strange_archives_are_refused(_export, tmp_path):
    """A second pickle, an unknown record, compression, a prefix or a suffix: torch.save writes none of these."""
    data = inner_pickle(_export)
    path = tmp_path / "export.pkl"
    for records, words in [
        ([("constants.pkl", b"\x80\x02].")], "constants.pkl"),
        ([("code/model.py", b"import os")], "code/model.py"),
        ([("../version", b"")], "never writes"),
        ([("data/0.zip", b"PK")], "data/0.zip"),
    ]:
        with pytest.raises(UnsafeModel, match=words):
            vet(archive(path, data, records=records))
    with pytest.raises(UnsafeModel, match="zip bomb"):
        vet(archive(path, data, records=[("data/0", bytes(10**7))], compression=zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(archive(path, data), "a") as file:
        file.writestr("other/data.pkl", b"\x80\x02].")
    with pytest.raises(UnsafeModel, match="2 pickles in 2 folders"):
        vet(path)
    whole = archive(path, data).read_bytes()
    path.write_bytes(whole + b"more")
    with pytest.raises(ModelError, match="added at its end"):
        vet(path)


def test_two_records_of_one_name_are_refused(_export, tmp_path):
    """Two records of one name could be read differently by Python and by torch."""
    path = archive(tmp_path / "export.pkl", inner_pickle(_export))
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("archive/version", b"4")
    with pytest.raises(UnsafeModel, match="not one"):
        vet(path)


def test_too_much_to_unpack_is_refused(_export, tmp_path, monkeypatch):
    """An archive larger than any model is refused by its directory, before a record is read."""
    monkeypatch.setattr(vetting, "MAX_BYTES", 1000)
    with pytest.raises(UnsafeModel, match="zip bomb"):
        vet(_export)


def test_damaged_files_are_told_apart(_export, tmp_path):
    """Cut files, empty ones, pictures and pickles of other things get a clear word, and are not called unsafe."""
    path, whole = tmp_path / "export.pkl", _export.read_bytes()
    for content, words in [
        (whole[: len(whole) // 2], "cut short"),
        (whole[:10], "cut short"),
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n", "no torch archive"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ModelError, match=words) as refusal:
            vet(path)
        assert not isinstance(refusal.value, UnsafeModel)
    for data, words in [
        (inner_pickle(_export)[:-500], "damaged"),
        (b"\x80\x02}.", "holds dict, not a fastai learner"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"t.", "damaged"),
    ]:
        with pytest.raises(ModelError, match=words):
            vet(archive(path, data))
    with pytest.raises(FileNotFoundError):
        vet(tmp_path / "none.pkl")


def test_any_cut_or_flip_is_answered_by_a_model_error(_export):
    """A damaged pickle never raises anything but ModelError."""
    data = inner_pickle(_export)
    for place in range(0, 3000, 37):
        for bad in (data[:place], data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 : 3000]):
            with pytest.raises(ModelError):
                vet_pickle(bad)


def test_the_bytes_read_are_the_bytes_vetted(tmp_path):
    """The unpickler given to torch vets what it is about to read, whatever the file was a moment before."""
    sentinel = tmp_path / "sentinel"
    with pytest.raises(UnsafeModel, match="system"):
        vetting.Unpickler(io.BytesIO(hostile(sentinel)["os.system"][0])).load()
    assert not sentinel.exists()


def test_vetting_imports_nothing_but_the_standard_library(_export):
    """Vetting a file imports neither torch nor fastai nor numpy."""
    code = (
        "import sys; sys.path.insert(0, 'utils'); import vetting; vetting.vet(sys.argv[1]); "
        "print(sorted({'torch', 'fastai', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, _export], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
