"""What `utils.export.formats` promises: two files that any program loads, with the temperature inside and no more."""

import json
import logging
import pickle
import pickletools
import warnings
import zipfile
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision
from fastai.layers import Flatten
from fastai.learner import load_learner
from fastai.vision.learner import create_vision_model
from test_inference import draw, make_learner, run

from utils.backbone import efficientnet_lite0
from utils.errors import FieldguideError
from utils.export.formats import OPSET, cooled_network, save_learner, save_onnx
from utils.inference.vetting import vet

SIZE = 64
COOL = 3.0  # a temperature at which the untrained network's answers differ well between pictures


@pytest.fixture(scope="module")
def _learner(tmp_path_factory):
    return make_learner(tmp_path_factory.mktemp("portable") / "images", network="squeezenet1_1")  # small files


@pytest.fixture
def small(_learner, monkeypatch):
    """Return a function that gives the learner another network, for this test only."""

    def replace(*layers):
        torch.manual_seed(1)
        monkeypatch.setattr(_learner, "model", torch.nn.Sequential(*[layer() for layer in layers]).eval())
        return _learner

    return replace


def tiny_layers(*last, colours: int = 3, labels: int = 2):
    """Return the layers of the least network there is: a few features of a picture, and a score per label."""
    flat = [lambda: torch.nn.Conv2d(colours, 8, 8, stride=8), lambda: torch.nn.AdaptiveAvgPool2d(1), Flatten]
    return (*flat, lambda: torch.nn.Linear(8, labels), *last)


@pytest.fixture(scope="module")
def _pickled(_learner, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pickled") / "export.pkl"
    save_learner(_learner, path, temperature=COOL)
    return path


@pytest.fixture(scope="module")
def _onnx(_learner, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    save_onnx(_learner, path, temperature=COOL, metadata={"labels": '["кот", "собака"]', "name": "a\nb"})
    return path


def pixels(count: int, *, size: int = SIZE) -> np.ndarray:
    """Return pictures of soft noise: uint8 (count, size, size, 3)."""
    small = np.random.default_rng(3).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return small.repeat(size // 4, axis=1).repeat(size // 4, axis=2)


def expected(learn, pictures: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities (N, K) that a learner's network gives at a temperature, computed step by step."""
    mean, std = (torch.tensor(stat).view(3, 1, 1) for stat in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        return (learn.model.cpu().eval()((images - mean) / std) / temperature).softmax(1).numpy()


def answers(path: Path, pictures: np.ndarray) -> np.ndarray:
    """Return what onnxruntime alone says."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"pixels": pictures})[0]


def globals_of(path: Path) -> set[str]:
    """Return the names that a pickle asks for, as "module name"."""
    with zipfile.ZipFile(path) as file:
        data = file.read("archive/data.pkl")
    return {arg for op, arg, _ in pickletools.genops(data) if op.name == "GLOBAL"}


# ---------------------------------------------------------------------------------------------------------------
# export.pkl
# ---------------------------------------------------------------------------------------------------------------


def test_the_pickle_holds_names_of_libraries_only(_pickled, tmp_path):
    """The pickle names nothing of this repository or of cloudpickle, and holds no path of this machine."""
    with zipfile.ZipFile(_pickled) as file:
        data = file.read("archive/data.pkl")
    texts = [arg for _, arg, _ in pickletools.genops(data) if isinstance(arg, str)]
    modules = {name.split(".")[0].split(" ")[0] for name in globals_of(_pickled)}
    assert not {"utils", "cloudpickle", "__main__", "test_inference"} & modules
    assert [text for text in texts if text.startswith("/") or str(tmp_path.parent) in text] == []


def test_paths_become_the_readers_own_kind(_learner, _pickled, tmp_path, monkeypatch):
    """Our file makes no PosixPath, which fails on Windows; the check would see one, as in fastai's own export."""
    theirs = tmp_path / "theirs.pkl"
    _learner.path = tmp_path
    _learner.export(theirs.name, pickle_module=pickle)

    def refused(*_):
        raise NotImplementedError("cannot instantiate this path on your system")

    monkeypatch.setattr(type(Path()), "__new__", refused)
    options = {"map_location": "cpu", "pickle_module": pickle, "weights_only": False}
    with pytest.raises(NotImplementedError):
        torch.load(str(theirs), **options)
    assert isinstance(torch.load(str(_pickled), **options).path, Path)


def test_the_learner_is_left_as_it_was(_learner, tmp_path):
    """After both files the learner has its weights, dataloaders, callbacks, optimizer and mode, and trains on."""
    _learner.create_opt()
    _learner.model.train()

    def state():
        kept = (id(_learner.dls), id(_learner.opt), list(_learner.cbs), _learner.path, len(_learner.dls.train_ds))
        return *kept, _learner.model.training, [weight.sum().item() for weight in _learner.model.parameters()]

    before = state()
    save_learner(_learner, tmp_path / "export.pkl", temperature=2.0)
    save_onnx(_learner, tmp_path / "model.onnx", temperature=2.0, metadata={})
    assert state() == before
    weights = deepcopy(_learner.model.state_dict())
    with _learner.no_bar(), _learner.no_logging():
        _learner.fit(1)
        assert len(_learner.get_preds()[0]) == 4
    _learner.model.load_state_dict(weights)  # other tests know it untrained


def test_callbacks_of_training_stay_out(_learner, tmp_path):
    """A callback that no file could name is no hindrance: callbacks are left out of the export."""
    from fastai.callback.core import Callback

    class Local(Callback):
        pass

    _learner.add_cb(Local())
    try:
        save_learner(_learner, tmp_path / "export.pkl")
        vet(tmp_path / "export.pkl")
        assert any(isinstance(callback, Local) for callback in _learner.cbs)
    finally:
        _learner.remove_cb(Local)


def test_the_same_learner_gives_the_same_bytes(_learner, _pickled, _onnx, tmp_path):
    """Written again, both files are the same to the byte, whatever pictures the learner saw in between."""
    _learner.dls.train.one_batch()
    save_learner(_learner, tmp_path / "export.pkl", temperature=COOL)
    save_onnx(_learner, tmp_path / "model.onnx", temperature=COOL, metadata=metadata_of(onnx.load(_onnx)))
    assert (tmp_path / "export.pkl").read_bytes() == _pickled.read_bytes()
    assert (tmp_path / "model.onnx").read_bytes() == _onnx.read_bytes()


def test_the_pictures_of_the_training_stay_out(_learner, _pickled):
    """The file holds no picture's place in any side, so it does not grow with them; the learner keeps its own."""
    for loader in load_learner(_pickled).dls.loaders:
        assert [(len(items), list(map(list, items.splits))) for items in loader.dataset.tls] == [(0, [[], []])] * 2
    assert [sum(map(len, items.splits)) for items in _learner.dls.train_ds.tls] == [12, 12]


def test_what_only_training_draws_stays_out(_learner, tmp_path):
    """Steps of ours and of fastai that no picture to be judged goes through are not named; the learner keeps them."""
    from fastai.vision.augment import Dihedral

    from utils.train.augment import Dehaze, Greyscale

    before = [loader.after_batch.fs for loader in _learner.dls.loaders]
    _learner.dls.add_tfms([Greyscale(0.5), Dehaze(0.1), Dihedral(p=1.0)], "after_batch")
    try:
        save_learner(_learner, tmp_path / "export.pkl")
        vet(tmp_path / "export.pkl")
        names = {name.partition(" ")[2] for name in globals_of(tmp_path / "export.pkl")}
        assert names & {"Greyscale", "Dehaze", "Dihedral", "Flip", "Brightness"} == set()
        assert "Normalize" in names
        kept = [type(step).__name__ for step in _learner.dls.train.after_batch.fs]
        assert {"Greyscale", "Dehaze", "Dihedral", "Flip", "Brightness", "Normalize"} <= set(kept)
    finally:
        for loader, steps in zip(_learner.dls.loaders, before, strict=True):
            loader.after_batch.fs = steps


def test_another_process_of_fastai_alone_reads_it(_learner, _pickled, tmp_path):
    """fastai alone, in a folder without this repository, loads the file and predicts."""
    picture = draw(tmp_path / "photo.png", seed=5)
    code = (
        "import sys; from fastai.learner import load_learner; learn = load_learner(sys.argv[1]); "
        "print(learn.predict(sys.argv[2])[2].tolist(), type(learn.path).__name__, sep='|')"
    )
    output = run("-c", code, _pickled, picture, cwd=tmp_path).stdout.decode().split("\n")[-2]
    row, kind = output.split("|")
    _, _, here = quiet_learner(_pickled).predict(picture)
    assert (json.loads(row), kind) == (pytest.approx(here.tolist(), abs=1e-6), type(Path()).__name__)


def quiet_learner(path: Path):
    """Return what fastai's own load_learner loads, without its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_learner(path)


# ---------------------------------------------------------------------------------------------------------------
# The temperature
# ---------------------------------------------------------------------------------------------------------------


def test_the_temperature_is_in_both_files(_learner, _pickled, _onnx):
    """fastai's own network and onnxruntime give the softmax of the scores divided by the temperature."""
    pictures = pixels(5)
    wanted = expected(_learner, pictures, COOL)
    loaded = quiet_learner(_pickled)
    assert np.ptp(wanted[:, 0]) > 0.02  # they differ between pictures, so agreement means something
    assert np.abs(wanted - expected(_learner, pictures, 1.0)).max() > 0.02
    assert expected(loaded, pictures, 1.0) == pytest.approx(wanted, abs=1e-6)
    assert answers(_onnx, pictures) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(_learner, tmp_path, temperature):
    """Only a number above 0 divides scores; nothing is written otherwise, and the message says what to do."""
    for save in (save_learner, lambda *args, **kwargs: save_onnx(*args, **kwargs, metadata={})):
        with pytest.raises(FieldguideError, match=r"expected a number above 0.*run 05 again"):
            save(_learner, tmp_path / "file", temperature=temperature)
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_a_last_linear_layer_takes_no_temperature(small, tmp_path):
    """Where the scores go through something else at the end, dividing weights is not dividing scores: refused."""
    learn = small(*tiny_layers(torch.nn.ReLU))
    with pytest.raises(FieldguideError, match=r"ends with ReLU.*temperature 2 cannot"):
        save_learner(learn, tmp_path / "export.pkl", temperature=2.0)
    save_learner(learn, tmp_path / "export.pkl", temperature=1.0)  # nothing to fold in
    vet(tmp_path / "export.pkl")


def test_a_last_layer_without_bias_takes_the_temperature(small):
    """Weights alone are divided where there is no bias."""
    learn = small(*tiny_layers()[:-1], lambda: torch.nn.Linear(8, 2, bias=False))
    pictures = torch.rand(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        scores, cooled = learn.model(pictures), cooled_network(learn, 4.0)(pictures)
    assert (cooled * 4.0).numpy() == pytest.approx(scores.numpy(), abs=1e-6)


# ---------------------------------------------------------------------------------------------------------------
# model.onnx
# ---------------------------------------------------------------------------------------------------------------


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def test_the_file_alone_is_enough(_onnx):
    """Checked in full; uint8 pictures of any number in, probabilities out; metadata as given; weights inside."""
    model = onnx.load(_onnx)
    onnx.checker.check_model(model, full_check=True)
    (given,), (got,) = model.graph.input, model.graph.output
    kinds = [value.type.tensor_type.elem_type for value in (given, got)]
    shapes = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in (given, got)]
    assert (given.name, got.name) == ("pixels", "probabilities")
    assert kinds == [onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT]
    assert shapes == [["N", SIZE, SIZE, 3], ["N", 2]]
    assert metadata_of(model) == {"labels": '["кот", "собака"]', "name": "a\nb"}
    assert [weight.name for weight in model.graph.initializer if weight.data_location] == []
    for count in (1, 2, 7):
        assert answers(_onnx, pixels(count)).sum(1).tolist() == pytest.approx([1.0] * count, abs=1e-6)


def test_every_admitted_onnxruntime_runs_it(_onnx):
    """Opset 21 and file format 10 are what onnxruntime 1.20 knows, the oldest that requirements.txt admits."""
    model = onnx.load(_onnx)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    assert (OPSET, model.ir_version <= 10, len(model.functions)) == (21, True, 0)


def test_nothing_in_the_file_tells_of_this_machine(_onnx):
    """No stack trace, path, version or note of the exporter stays in the file."""
    data = _onnx.read_bytes()
    words = (str(Path.home()), str(Path(torch.__file__).parents[1]), "site-packages", ".py", "stack_trace", "pkg.torch")
    assert [word for word in (*words, torch.__version__, str(_onnx.parent)) if word.encode() in data] == []
    graph = onnx.load(_onnx).graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        assert (list(part.metadata_props), part.doc_string) == ([], "")


def test_the_exporter_is_silent(small, tmp_path, capfd, caplog):
    """Nothing is printed, warned or logged, and logging is as it was afterwards."""
    with warnings.catch_warnings(record=True) as told, caplog.at_level(logging.INFO):
        warnings.simplefilter("always")
        save_onnx(small(*tiny_layers()), tmp_path / "model.onnx", metadata={})
    assert (list(told), capfd.readouterr(), caplog.records) == ([], ("", ""), [])
    assert logging.root.manager.disable == 0


@pytest.mark.parametrize(
    ("network", "size", "temperature"), [(torchvision.models.resnet18, 96, 5.0), (efficientnet_lite0, 64, 0.1)]
)
def test_other_programs_answer_the_same(tmp_path, network, size, temperature):
    """Of one picture and of several, onnxruntime and OpenCV make of the file what torch makes of the network."""
    learn = make_learner(tmp_path / "images", labels=("a", "b", "c"), size=size, network="squeezenet1_1")
    torch.manual_seed(2)
    learn.model = create_vision_model(network, 3, pretrained=network is efficientnet_lite0)  # its file is at hand
    save_onnx(learn, tmp_path / "model.onnx", temperature=temperature, metadata={})
    for count in (1, 3):
        pictures = pixels(count, size=size)
        wanted = expected(learn, pictures, temperature)
        assert count == 1 or np.ptp(wanted, axis=0).max() > 0.02
        by_opencv = cv2.dnn.readNetFromONNX(str(tmp_path / "model.onnx"))
        by_opencv.setInput(pictures)
        assert answers(tmp_path / "model.onnx", pictures) == pytest.approx(wanted, abs=1e-5)
        assert by_opencv.forward() == pytest.approx(wanted, abs=1e-5)


def test_the_file_says_no_shape_that_is_not_so(_onnx):
    """Inside, the exporter names the number of pictures otherwise than at the ends, which strict readers refuse."""
    model = onnx.load(_onnx)
    assert list(model.graph.value_info) == []
    inner = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.value_info
    assert len(inner) == len(model.graph.node) - 1


def test_no_pooling_is_written_in_pieces(small, tmp_path):
    """Also behind a layer that leaves numbers in another order in memory, pooling is one operation."""

    class Turned(torch.nn.Module):
        def forward(self, maps):
            return maps.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)

    first, *others = tiny_layers()
    pooling = (torch.nn.MaxPool2d, lambda: torch.nn.AvgPool2d(2))
    for layers in ((first, *others), (first, lambda: pooling[0](2), *others), (first, Turned, pooling[1], *others)):
        save_onnx(small(*layers), tmp_path / "model.onnx", metadata={})
        kinds = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
        assert {"Shape", "Gather", "Range", "Expand"} & kinds == set()


def test_a_learner_that_does_not_normalise_is_exported_so(small, tmp_path, monkeypatch):
    """Without Normalize the pixels come to the network as fractions of 255."""
    learn = small(*tiny_layers())
    pipeline = learn.dls.loaders[-1].after_batch
    monkeypatch.setattr(pipeline, "fs", [step for step in pipeline.fs if type(step).__name__ != "Normalize"])
    save_onnx(learn, tmp_path / "model.onnx", metadata={})
    pictures = pixels(2)
    with torch.inference_mode():
        wanted = learn.model(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255).softmax(1).numpy()
    assert answers(tmp_path / "model.onnx", pictures) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (tiny_layers(colours=4), "fails on pictures of 64 pixels in 3 colours"),
        (tiny_layers(labels=5), r"shape \(2, 5\), expected \(2, 2\): a score for each of 2 labels"),
    ],
    ids=["four colours", "five scores"],
)
def test_a_network_of_another_kind_is_refused(small, tmp_path, layers, words):
    """What takes other pictures, or gives other answers, is refused in a sentence, and nothing is written."""
    with pytest.raises(FieldguideError, match=words):
        save_onnx(small(*layers), tmp_path / "model.onnx", metadata={})
    assert list(tmp_path.iterdir()) == []


def test_a_learner_of_another_kind_is_refused(small, tmp_path, monkeypatch):
    """One that gives several labels, or prepares pictures otherwise than 04, is refused in a sentence."""
    learn = small(*tiny_layers())
    loader = learn.dls.loaders[-1]
    with monkeypatch.context() as patch:
        patch.setattr(loader.after_item, "fs", [s for s in loader.after_item.fs if "Crop" not in type(s).__name__])
        with pytest.raises(FieldguideError, match="does not bring pictures to one size"):
            save_onnx(learn, tmp_path / "model.onnx", metadata={})
    with monkeypatch.context() as patch:
        for pipeline in loader.dataset.tfms:
            patch.setattr(pipeline, "fs", [s for s in pipeline.fs if type(s).__name__ != "Categorize"])
        with pytest.raises(FieldguideError, match="one label each"):
            save_onnx(learn, tmp_path / "model.onnx", metadata={})
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_onnx_has_no_words_for_is_told(small, tmp_path):
    """Where the exporter fails, its first line and the way out are told, not its pages."""

    class Branching(torch.nn.Module):
        def forward(self, scores):
            return scores if scores.sum() > 0 else -scores

    with pytest.raises(FieldguideError, match=r"cannot be written as ONNX .*such as resnet18") as refusal:
        save_onnx(small(*tiny_layers(Branching)), tmp_path / "model.onnx", metadata={})
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []
