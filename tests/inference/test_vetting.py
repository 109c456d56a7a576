"""What `utils.vetting` promises: our exports pass; a file that asks for anything else is refused, unrun, by name."""

import contextlib
import copyreg
import functools
import io
import os
import pickle
import pickletools
import random
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import redteam
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redteam import (
    NONE,
    archive,
    call,
    deleting,
    ended,
    enormous,
    evaluating,
    hostile,
    learner,
    name,
    pickled,
    row,
    storage,
    tensor,
    text,
)
from test_inference import make_learner

from utils.export.formats import save_learner
from utils.inference import vetting
from utils.inference.vetting import ModelError, UnsafeModel, vet, vet_pickle

REPOSITORY = Path(__file__).resolve().parents[2]
NETWORKS = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "mobilenet_v3_small"),
    *("regnet_y_400mf", "resnet34", "resnet50", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t"),
    "vgg11_bn",
)


class Call:
    """Something whose unpickling calls a function."""

    def __init__(self, function, *args):
        self.reduced = (function, args)

    def __reduce__(self):
        return self.reduced


@pytest.fixture(scope="session")
def _learner(tmp_path_factory):
    return make_learner(tmp_path_factory.mktemp("vetting") / "images")


@pytest.fixture(scope="session")
def _export(_learner, tmp_path_factory) -> Path:
    """Return an export as stage 07 writes it."""
    path = tmp_path_factory.mktemp("export") / "export.pkl"
    save_learner(_learner, path)
    return path


@pytest.fixture(scope="session")
def _pickle(_export) -> bytes:
    """Return the pickle inside an export."""
    with zipfile.ZipFile(_export) as file:
        return file.read("archive/data.pkl")


def test_our_exports_pass(_export):
    """An export of stage 07 is accepted."""
    vet(_export)


def test_fastais_plain_pickle_needs_trust(_learner, tmp_path):
    """What fastai exports without bytecode holds more than ours do: refused, with the name of what it is."""
    _learner.path = tmp_path
    _learner.export("plain.pkl", pickle_module=pickle)
    with pytest.raises(UnsafeModel, match=r"names _codecs\.encode"):
        vet(tmp_path / "plain.pkl")


@pytest.mark.parametrize("arch", NETWORKS)
def test_other_networks_pass(arch, _learner, tmp_path):
    """The layers of every kind of network that stage 04 takes are known."""
    import torchvision
    from fastai.vision.learner import create_vision_model

    earlier = _learner.model
    _learner.model = create_vision_model(getattr(torchvision.models, arch), 2, pretrained=False)
    try:
        save_learner(_learner, tmp_path / "export.pkl")
    finally:
        _learner.model = earlier
    vet(tmp_path / "export.pkl")


def test_class_weights_pass(_learner, tmp_path):
    """A loss with a weight for each label is a part of our exports, too."""
    import torch
    from fastai.losses import CrossEntropyLossFlat

    earlier = _learner.loss_func
    _learner.loss_func = CrossEntropyLossFlat(weight=torch.tensor([1.0, 2.0]))
    try:
        save_learner(_learner, tmp_path / "export.pkl")
    finally:
        _learner.loss_func = earlier
    vet(tmp_path / "export.pkl")


@pytest.mark.parametrize("kind", sorted(hostile(Path("mark"))))
def test_hostile_files_are_refused_unrun(kind, tmp_path):
    """A hostile file is refused with the name of what was found, and nothing in it has run."""
    mark = tmp_path / "mark"
    data, found = hostile(mark)[kind]
    with pytest.raises(UnsafeModel) as refusal:
        vet(archive(tmp_path / "export.pkl", data))
    assert found in str(refusal.value)
    assert str(tmp_path / "export.pkl") in str(refusal.value)
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 1000
    assert not mark.exists()


def test_the_red_team_is_large():
    """At least sixty kinds of attack are tried beside those that only name another function."""
    kinds = hostile(Path("mark"))
    assert len([kind for kind in kinds if kind.partition(":")[0] not in redteam.NAMED]) >= 60
    assert len(kinds) >= 150


@pytest.mark.parametrize(
    "kind",
    [
        *("commands: os.system", "commands: posix.system", "commands: subprocess.getoutput", "code: builtins.eval"),
        *("code: builtins.exec", "protocol 0", "protocol 4", "two words by memo", "INST"),
        *("Python 2's names", "Python 2's commands"),
    ],
)
def test_these_files_do_bite(kind, tmp_path):
    """Unpickled without vetting, hostile files do run: the tests above are of real attacks."""
    if sys.platform == "win32" and kind.endswith("posix.system"):
        pytest.skip("Windows has no posix")
    mark = tmp_path / "mark"
    pickle.loads(hostile(mark)[kind][0])
    assert mark.exists()


def test_code_in_an_annotation_does_bite(tmp_path):
    """A transform made of fastai's and plum's names alone runs text as code, when a picture comes."""
    mark = tmp_path / "mark"
    step = pickle.loads(pickled(evaluating(f"int if open({str(mark)!r}, 'w') else str")))
    assert not mark.exists()
    step(1)
    assert mark.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows makes no PosixPath")
def test_a_method_of_a_path_does_bite(tmp_path):
    """A transform made of fastai's and plum's names alone deletes the picture it is given."""
    picture = tmp_path / "photo.jpg"
    picture.write_bytes(b"")
    pickle.loads(pickled(deleting()))(picture)
    assert not picture.exists()


@pytest.mark.parametrize("kind", sorted(enormous()))
def test_no_file_keeps_a_reader_busy(kind):
    """A small file that describes something without end is refused within moments."""
    with pytest.raises(ModelError):
        vet_pickle(enormous()[kind])


def test_a_generator_of_chance_does_bite():
    """A state as Python 2 wrote it formats the text in it: a width of thousands of millions fills the memory."""
    with pytest.raises(TypeError) as refusal:
        pickle.loads(pickled(call("random.Random") + row(b"K\x02", row(text("%q")), NONE) + b"b"))
    assert "unsupported format character 'q'" in str(refusal.value.__cause__)


def test_a_tensor_larger_than_its_numbers_does_bite(tmp_path):
    """torch itself makes a tensor of a million million numbers out of one."""
    import torch

    data = pickled(tensor(storage(1), size=b"\x8a\x06\x00\x10\xa5\xd4\xe8\x00", steps=b"K\x00"))
    path = archive(tmp_path / "export.pkl", data, records=[("archive/data/0", bytes(4))])
    assert torch.load(path, weights_only=False).shape == (10**12,)


def test_a_record_of_another_length_is_refused(_pickle, tmp_path):
    """A tensor whose record is longer or shorter than told, or not there, is refused: torch may read beyond it."""
    for length in (11, 13, 0):
        records = [("archive/data/0", bytes(12)), ("archive/data/1", bytes(length))]
        with pytest.raises(UnsafeModel, match=rf"takes 3 numbers from a record of {length} bytes"):
            vet(archive(tmp_path / "export.pkl", _pickle, records=records))


def test_an_attack_hidden_in_our_export_is_refused(_pickle, tmp_path):
    """The pickle of a true export with a call before its end is refused."""
    mark = tmp_path / "mark"
    attack = pickle.dumps(Call(os.system, f"touch {mark}"), 2)[2:-1]
    with pytest.raises(UnsafeModel, match="system"):
        vet(archive(tmp_path / "export.pkl", _pickle[:-1] + attack + b"0."))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("what", "instead"),
    [
        (name("typing.Any"), text("print")),
        (name("fastai.imports.noop"), name("builtins.getattr")),
        (name("fastai.torch_core.trainable_params"), name("fastai.learner.Learner")),
        (text("create"), text("__init__")),
        (text("dataloaders"), text("__class__")),
        (text("encodes"), text("decodes")),
        (text("_owner_name"), text("__dict__")),
        (name("torch.FloatStorage"), name("torch.UntypedStorage")),
    ],
)
def test_our_export_with_one_word_changed_is_refused(what, instead, _pickle):
    """Each word in an export is looked at where it stands: another one there is refused."""
    assert what in _pickle
    vet_pickle(_pickle)
    with pytest.raises(UnsafeModel):
        vet_pickle(_pickle.replace(what, instead, 1))


def test_the_extension_registry_is_refused_where_it_is_filled(tmp_path):
    """A number of the extension registry is refused even where this process knows it."""
    copyreg.add_extension("os", "system", 240)
    try:
        with pytest.raises(UnsafeModel, match="extension registry"):
            vet(archive(tmp_path / "export.pkl", hostile(tmp_path / "mark")["extension registry"][0]))
    finally:
        copyreg.remove_extension("os", "system", 240)
    assert not (tmp_path / "mark").exists()


def test_look_alikes_are_no_names(tmp_path):
    """A name with letters that only look like those of an allowed one is refused."""
    for line in ("cfastai.lеarner\nLearner\n", "cfastai.learner\nLearner\u200b\n", "cfastai.learner\nLearner\r\n"):
        with pytest.raises(ModelError):
            vet_pickle(pickled(line.encode() + b")\x81"))


def test_fastais_default_export_is_refused(_learner, tmp_path):
    """What learn.export() writes by default holds bytecode; the refusal names cloudpickle."""
    _learner.path = tmp_path
    _learner.export("default.pkl")
    with pytest.raises(UnsafeModel, match="cloudpickle"):
        vet(tmp_path / "default.pkl")


def test_bare_and_legacy_pickles_are_refused(tmp_path):
    """A pickle outside an archive, and torch's old formats, are refused; what they name is told."""
    import tarfile

    import torch

    for protocol in (0, 2, 4):
        (tmp_path / "bare.pkl").write_bytes(pickle.dumps(Call(eval, "1"), protocol))
        with pytest.raises(UnsafeModel, match=r"bare pickle.*builtins\.eval"):
            vet(tmp_path / "bare.pkl")
    torch.save({"a": 1}, tmp_path / "old.pkl", _use_new_zipfile_serialization=False)
    with pytest.raises(UnsafeModel, match="old format"):
        vet(tmp_path / "old.pkl")
    with tarfile.open(tmp_path / "tar.pkl", "w") as file:
        file.add(tmp_path / "bare.pkl", "pickle")
    with pytest.raises(ModelError, match="not a torch archive"):
        vet(tmp_path / "tar.pkl")


@pytest.mark.parametrize(
    "record",
    [
        *(
            "archive/constants.pkl",
            "archive/code/model.py",
            "archive/../version",
            "archive/data/0.zip",
            "archive/DATA.PKL",
        ),
        *("archive/data/٣", "archive/constants.pkl\0x", "archive/data/7\0/../constants.pkl", "archive\\constants.pkl"),
        *("archive/data/nested/export.pkl", "/etc/passwd", "archive/.data/extra"),
    ],
)
def test_records_of_another_name_are_refused(record, _pickle, tmp_path):
    """A record that torch.save never writes is refused: another pickle, code, an archive in the archive."""
    plain = "archive/" + "n" * (len(record.encode()) - 8)  # zipfile would write some of the names otherwise
    path = archive(tmp_path / "export.pkl", _pickle, records=[(plain, b"\x80\x02].")])
    path.write_bytes(path.read_bytes().replace(plain.encode(), record.encode()))
    with pytest.raises(UnsafeModel, match=r"which torch\.save never writes"):
        vet(path)


def test_strange_archives_are_refused(_pickle, tmp_path):
    """A second folder, compression, the same bytes twice, a prefix or a suffix: torch.save writes none of these."""
    path = tmp_path / "export.pkl"
    with pytest.raises(UnsafeModel, match="zip bomb"):
        vet(archive(path, _pickle, records=[("archive/data/0", bytes(10**7))], compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(UnsafeModel, match="2 folders"):
        vet(archive(path, _pickle, records=[("other/data.pkl", b"\x80\x02].")]))
    with pytest.raises(UnsafeModel, match=r"not written by torch\.save"):
        vet(archive(path, _pickle, end=False))
    whole = archive(path, _pickle).read_bytes()
    for content, words in [(whole + b"more", "added at its end"), (b"PK\3\4" + whole, "two ways")]:
        path.write_bytes(content)
        with pytest.raises(ModelError, match=words):
            vet(path)


def test_two_tables_of_contents_are_refused(_export, _pickle, tmp_path):
    """An archive in which torch would find another table of contents than Python does is refused."""
    path = tmp_path / "export.pkl"
    with zipfile.ZipFile(_export) as file:
        records = [(record, file.read(record)) for record in file.namelist() if "/data/" in record]
    records.append(("archive/constants.pkl", b"\x80\x02]."))
    hidden = archive(path, _pickle, records=records, end=False).read_bytes()
    shown = io.BytesIO(hidden)
    with zipfile.ZipFile(shown, "a") as file:
        del file.NameToInfo["archive/constants.pkl"]
        file.filelist.pop()
        file._didModify = True
    whole = bytearray(ended(shown.getvalue()))
    path.write_bytes(whole)
    vet(path)  # what no table names, neither reader finds
    place = len(whole) - vetting.ARCHIVE_END.size
    for offset in (24, 32, 40, 48, 64, 86, 88, 92):  # counts, sizes and places in each of the three parts
        changed = whole.copy()
        changed[place + offset] ^= 1
        path.write_bytes(changed)
        with pytest.raises(UnsafeModel, match="two ways"):
            vet(path)


def test_records_that_share_bytes_are_refused(_pickle, tmp_path):
    """Many records that are one and the same place in the file would fill the memory: refused."""
    path = archive(tmp_path / "export.pkl", _pickle, records=[(f"archive/data/{n}", bytes(1000)) for n in range(9)])
    content = path.read_bytes()
    for n in range(9):
        at = content.rindex(f"archive/data/{n}".encode()) - 46
        content = content[: at + 20] + struct.pack("<LL", 10**6, 10**6) + content[at + 28 :]
    path.write_bytes(content)
    with pytest.raises(UnsafeModel, match="zip bomb"):
        vet(path)


def test_a_million_records_are_refused_unread(tmp_path):
    """A table of contents larger than that of any model is refused before it is read."""
    path = archive(tmp_path / "export.pkl", b"\x80\x02].", end=False)
    content = path.read_bytes()[:-22]
    place = content.index(b"PK\1\2")
    entry = content[place : content.index(b"PK\1\2", place + 1)]
    table = entry * 60_000
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 60_000, 60_000, len(table), place, 0)
    path.write_bytes(ended(content[:place] + table + tail))
    with pytest.raises(UnsafeModel, match="bytes of contents"):
        vet(path)


def test_two_records_of_one_name_are_refused(_pickle, tmp_path):
    """Two records of one name could be read differently by Python and by torch."""
    with pytest.warns(UserWarning, match="Duplicate"):
        path = archive(tmp_path / "export.pkl", _pickle, records=[("archive/version", b"4")])
    with pytest.raises(UnsafeModel, match="two records of one name"):
        vet(path)


def test_a_pickle_larger_than_any_is_refused(_export, tmp_path, monkeypatch):
    """A pickle larger than that of any model is refused by the table of contents, before it is read."""
    monkeypatch.setattr(vetting, "MAX_PICKLE", 1000)
    with pytest.raises(UnsafeModel, match="more than that of any model"):
        vet(_export)


def test_damaged_files_are_told_apart(_export, _pickle, tmp_path):
    """Cut files, empty ones, pictures and pickles of other things get a clear word, and are not called unsafe."""
    path, whole = tmp_path / "export.pkl", _export.read_bytes()
    for content, words in [
        (whole[: len(whole) // 2], "cut short"),
        (whole[:10], "cut short"),
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n", "not a torch archive"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ModelError, match=words) as refusal:
            vet(path)
        assert not isinstance(refusal.value, UnsafeModel)
    for data, words in [
        (_pickle[:-500], "damaged"),
        (b"\x80\x02}.", "holds dict, not a fastai learner"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02t.", "damaged"),
        (learner(), "a learner with 0 networks"),
    ]:
        with pytest.raises(ModelError, match=words) as refusal:
            vet(archive(path, data))
        assert not isinstance(refusal.value, UnsafeModel)
    with pytest.raises(FileNotFoundError):
        vet(tmp_path / "none.pkl")


class Recording(pickle.Unpickler):
    """Python's own unpickler, which notes the names it is asked for and gives harmless things in their place."""

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data))
        self.names: set[str] = set()

    def find_class(self, module: str, name: str):
        self.names.add(f"{module} {name}")
        return Harmless

    def persistent_load(self, key):
        return Harmless()


class Harmless(dict):
    """Takes any argument, any state and any item."""

    def __new__(cls, *_):
        return super().__new__(cls)

    def __init__(self, *_):
        super().__init__()

    __hash__ = object.__hash__

    def __setstate__(self, state):
        pass

    def append(self, item):
        pass

    extend = append


def asked_for(data: bytes) -> set[str]:
    """Return the names that unpickling `data` looks up until it ends or fails."""
    reader = Recording(data)
    with contextlib.suppress(Exception):
        reader.load()
    return {vetting._full_name(full) for full in reader.names}


def test_no_flip_of_an_export_reaches_another_name(_pickle):
    """An export with bytes changed, added or removed is refused by a ModelError, or asks for allowed names alone."""
    chance = random.Random(0)
    accepted = 0
    for _ in range(150):
        data = bytearray(_pickle)
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(2, len(data))
            match chance.randrange(3):
                case 0:
                    data[place] ^= 1 << chance.randrange(8)
                case 1:
                    data.insert(place, chance.randrange(256))
                case 2:
                    del data[place]
        try:
            vet_pickle(bytes(data))
        except ModelError:
            continue
        accepted += 1
        assert asked_for(bytes(data)) <= vetting.ALLOWED
    assert accepted > 0  # a label's letter may be another: nothing is proved if all are refused


PARTS = st.one_of(
    st.sampled_from(sorted(opcode.code.encode("latin1") for opcode in pickletools.opcodes)),
    st.sampled_from(sorted(vetting.ALLOWED)).map(name),
    st.sampled_from(["os.system", "builtins.eval", "pathlib.Path.home", "posix.system"]).map(name),
    st.sampled_from(["os", "system", "a", "_modules", "forward"]).map(text),
    st.sampled_from([b"h\x00", b"h\x01", b"q\x00", b"K\x01", b"\x8c\x02os", b"\x8c\x06system", b"\x93", b"tR", b")R"]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(parts=st.lists(PARTS, min_size=1, max_size=8), place=st.integers(0, 10**9))
def test_no_splice_reaches_another_name(_pickle, parts, place):
    """Opcodes spliced into an export are refused, or the real unpickler asks for no name that is not allowed."""
    places = starts(_pickle)
    at = places[place % len(places)]
    data = _pickle[:at] + b"".join(parts) + _pickle[at:]
    try:
        vet_pickle(data)
    except ModelError:
        return
    assert asked_for(data) <= vetting.ALLOWED


@functools.cache
def starts(data: bytes) -> list[int]:
    """Return where a pickle's opcodes begin."""
    return [place for _, _, place in pickletools.genops(data)]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(parts=st.lists(PARTS, max_size=30), protocol=st.sampled_from([2, 2, 2, 0, 4]))
def test_nothing_but_a_model_error(parts, protocol):
    """Whatever the opcodes, the answer is a ModelError, as none of them makes a whole learner by chance."""
    with pytest.raises(ModelError):
        vet_pickle(pickled(b"".join(parts), protocol))


def test_any_cut_is_answered_by_a_model_error(_pickle):
    """A pickle cut short never raises anything but ModelError."""
    for place in range(0, 3000, 37):
        with pytest.raises(ModelError):
            vet_pickle(_pickle[:place])


def test_the_bytes_read_are_the_bytes_vetted(tmp_path):
    """The unpickler given to torch vets what it is about to read, whatever the file was a moment before."""
    mark = tmp_path / "mark"
    with pytest.raises(UnsafeModel, match="system"):
        vetting.Unpickler(io.BytesIO(hostile(mark)["protocol 4"][0])).load()
    assert not mark.exists()


def test_torch_reads_only_what_was_vetted(_export, tmp_path, monkeypatch):
    """torch.load makes its one unpickler of this module's, and gives it the record that was vetted."""
    import torch

    read = []
    monkeypatch.setattr(vetting, "vet_pickle", read.append)
    torch.load(_export, map_location="cpu", pickle_module=vetting, weights_only=False)
    monkeypatch.undo()
    with zipfile.ZipFile(_export) as file:
        assert read == [file.read("archive/data.pkl")]
    torch.save({"a": 1}, tmp_path / "old.pkl", _use_new_zipfile_serialization=False)
    with pytest.raises(UnsafeModel, match="old format"):
        torch.load(tmp_path / "old.pkl", pickle_module=vetting, weights_only=False)


def test_vetting_imports_nothing_but_the_standard_library(_export):
    """Vetting a file imports neither torch nor fastai nor numpy."""
    code = (
        "import sys; sys.path.insert(0, 'utils/inference'); import vetting; vetting.vet(sys.argv[1]); "
        "print(sorted({'torch', 'fastai', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, _export], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def interpreter(version: str) -> str | None:
    """Return a Python of this version that runs, or None."""
    beside = sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/python{version}"))
    for program in filter(None, [shutil.which(f"python{version}"), *beside]):
        if subprocess.run([program, "-c", ""], capture_output=True).returncode == 0:
            return str(program)
    return None


@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_another_python_judges_alike(version, _export, tmp_path):
    """Another version of Python, with nothing installed, accepts this one's export and refuses every hostile file."""
    program = interpreter(version)
    if program is None:
        pytest.skip(f"no Python {version} on this machine")
    kinds = hostile(tmp_path / "mark")
    files = [archive(tmp_path / f"{n}.pkl", data) for n, (data, _) in enumerate(kinds.values())]
    code = (
        "import sys; sys.path.insert(0, 'utils/inference'); import vetting; vetting.vet(sys.argv[1])\n"
        "for path in sys.argv[2:]:\n"
        "    try:\n        vetting.vet(path)\n        print('accepted', path)\n"
        "    except vetting.UnsafeModel as error:\n        print(ascii(str(error)))"
    )
    done = subprocess.run(
        [program, "-c", code, _export, *files], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert [
        found for (_, found), answer in zip(kinds.values(), answers, strict=True) if ascii(found)[1:-1] not in answer
    ] == []
    assert not (tmp_path / "mark").exists()
