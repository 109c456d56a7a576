"""Networks of timm as files: vetted, of one answer with fastai, and told where timm is missing."""

import dataclasses
import json
import pickle
import sys
from pathlib import Path
from types import FunctionType

import pytest
import torch
from fastai.vision.learner import create_vision_model
from redteam import archive, call, learner, name, pickled, text, thing
from test_inference import draw, make_learner

from utils.export.agreement import fastai_predictor
from utils.export.formats import save_learner, save_onnx
from utils.inference import ModelError, UnsafeModel, load_classifier
from utils.inference.vetting import LAYERS, vet
from utils.storage import file_hash
from utils.train import architecture
from utils.train.timm_networks import timm_body, timm_network

pytestmark = pytest.mark.long

timm = pytest.importorskip("timm", reason="needs requirements-optional.txt")

SAME = 1e-4  # of a probability
NETWORKS = ("mobilenetv3_small_050", "test_vit")  # a widening layer behind the pooling; no map to pool
# Networks that together hold every layer of timm that vetting knows.
HOLDING_ALL = (
    *(
        "aimv2_large_patch14_224",
        "convnext_atto_rms",
        "convnext_tiny_hnf",
        "convnext_zepto_rms",
        "convnextv2_atto",
        "test_convnext",
    ),
    *("efficientnet_blur_b0", "efficientnet_es", "efficientnet_lite0", "mixnet_s"),
    *("gc_efficientnetv2_rw_t", "test_efficientnet_evos", "test_efficientnet_gn", "test_efficientnet_ln"),
    *("hgnet_tiny", "hgnetv2_b0", "mobilenetv3_small_050", "mobilenetv4_conv_blur_medium"),
    *("mobilenetv4_hybrid_medium", "tf_mobilenetv3_small_minimal_100"),
    *("regnetx_002", "regnety_040_sgn", "regnetv_040", "repvit_m0_9"),
    *("ecaresnet26t", "resnet10t", "resnet50_gn", "resnetblur18", "seresnet18", "test_convnext3"),
    *("test_vit", "test_vit2", "test_vit3", "vit_base_patch16_18x2_224", "vit_base_patch16_clip_quickgelu_224"),
    *("vit_base_patch16_rpn_224", "vit_base_patch16_siglip_gap_224", "vit_base_patch16_xp_224"),
    *("vit_dlittle_patch16_reg1_gap_256", "vit_dpwee_patch16_reg1_gap_256", "vit_giant_patch14_dinov2"),
)
RUNNING = {"eval", "exec", "compile", "open", "__import__", "import_module", "load", "system", "download"}


@pytest.fixture(scope="module")
def _learner(tmp_path_factory):
    return make_learner(tmp_path_factory.mktemp("timm") / "images", network="squeezenet1_1")


@pytest.fixture
def of_timm(_learner, make_project, monkeypatch):
    """Return a function that gives a learner a network of timm, untrained, for this test only."""

    def replace(network: str):
        torch.manual_seed(1)
        arch = architecture(make_project(arch=f"timm/{network}", size=64))
        monkeypatch.setattr(_learner, "model", create_vision_model(arch, 2, pretrained=False))
        return _learner

    return replace


@pytest.fixture
def exported(of_timm, tmp_path) -> Path:
    """Return an export.pkl with a network of timm."""
    save_learner(of_timm("mobilenetv3_small_050"), tmp_path / "export.pkl")
    return tmp_path / "export.pkl"


@pytest.mark.parametrize("network", NETWORKS)
def test_both_files_answer_as_fastai_does(of_timm, tmp_path, network):
    """export.pkl passes the vetting, and fastai, export.pkl and model.onnx agree on drawn pictures."""
    learn = of_timm(network)
    save_learner(learn, tmp_path / "export.pkl", temperature=0.2)
    pickled = load_classifier(tmp_path / "export.pkl")
    metadata = {"labels": '["cat", "dog"]', "recipe": json.dumps(dataclasses.asdict(pickled.recipe))}
    save_onnx(learn, tmp_path / "model.onnx", temperature=0.2, metadata=metadata)
    photos = [draw(tmp_path / f"{n}.png", size=(200, 90 + n), seed=n) for n in range(4)]
    ask = fastai_predictor(tmp_path / "export.pkl")
    rows = [pickled.predict(photos), load_classifier(tmp_path / "model.onnx").predict(photos), map(ask, photos)]
    ours, onnx, theirs = ([answer.probabilities["cat"] for answer in row] for row in rows)
    assert ours == pytest.approx(theirs, abs=SAME)
    assert onnx == pytest.approx(theirs, abs=SAME)
    assert len({round(probability, 5) for probability in theirs}) > 1


def test_every_layer_of_timm_is_met_and_known():
    """The networks above hold just the layers of timm that vetting allows: none is missing, none is there in vain."""
    met = set()
    for network in HOLDING_ALL:
        size = 224 if timm.get_pretrained_cfg(network).fixed_input_size else 64
        with torch.device("meta"):
            made = timm_body(timm_network(f"timm/{network}", (size, size))())
        met |= {f"{type(layer).__module__}.{type(layer).__qualname__}" for layer in made.modules()}
    assert {layer for layer in met if layer.startswith("timm.")} == {x for x in LAYERS if x.startswith("timm.")}
    assert met - LAYERS == set()


def test_what_vetting_allows_of_timm_are_layers_that_run_nothing():
    """Each name is a class of layers, defined where it is named, whose methods name nothing that runs or loads."""
    for full in sorted(layer for layer in LAYERS if layer.startswith("timm.")):
        module, _, last = full.rpartition(".")
        assert module.startswith(("timm.layers.", "timm.models."))
        kind = getattr(sys.modules[module], last)
        assert isinstance(kind, type) and issubclass(kind, torch.nn.Module) and kind.__module__ == module
        own = [each for each in kind.__mro__ if each.__module__.startswith("timm.")]
        methods = [value for each in own for value in vars(each).values() if isinstance(value, FunctionType)]
        called = {word for method in methods for word in method.__code__.co_names}
        assert methods and called & RUNNING == set(), full
        assert not {"__setstate__", "__reduce__", "__reduce_ex__", "__getattr__"} & {
            k for each in own for k in vars(each)
        }


def test_a_download_by_timm_does_bite_and_is_refused(tmp_path, monkeypatch):
    """timm's own function fetches what a pickle names, unasked; under vetting it is refused by its name."""
    source, cache = tmp_path / "payload.bin", tmp_path / "hub"
    source.write_bytes(b"harmless")
    monkeypatch.setattr("timm.models._hub.get_dir", lambda: str(cache))
    data = pickled(call("timm.models._hub.download_cached_file", text(source.as_uri())))
    with pytest.raises(UnsafeModel, match=r"names timm\.models\._hub\.download_cached_file"):
        vet(archive(tmp_path / "export.pkl", data))
    assert not cache.exists()
    pickle.loads(data)
    assert (cache / "checkpoints" / "payload.bin").read_bytes() == b"harmless"


@pytest.mark.parametrize("function", ["timm.models._hub.download_cached_file", "timm.create_model", "builtins.eval"])
def test_a_layer_of_timm_holds_no_function(tmp_path, function):
    """An allowed layer whose attribute is a function is refused: it would run at the first picture."""
    squeeze = thing("timm.layers.squeeze_excite.SEModule", gate=name(function))
    with pytest.raises(UnsafeModel, match=rf"names {function}"):
        vet(archive(tmp_path / "export.pkl", learner(model=squeeze)))
    known = thing("timm.layers.squeeze_excite.SEModule", gate=name("fastai.imports.noop"))
    with pytest.raises(UnsafeModel, match=r"sets timm\.layers\.squeeze_excite\.SEModule\.gate to fastai"):
        vet(archive(tmp_path / "export.pkl", learner(model=known)))


@pytest.mark.parametrize(
    ("versions", "command"),
    [
        ({"timm": "1.0.31"}, "pip install timm==1.0.31."),
        ({"timm": "1; rm -r /"}, "pip install timm."),
        ([1], "pip install timm."),
        (None, "pip install timm."),
    ],
)
def test_where_timm_is_missing_the_command_is_told(exported, monkeypatch, versions, command):
    """With the version that card.json names, if that is a version; onnxruntime alone reads model.onnx."""
    if versions is not None:
        card = {"sha256": {"export.pkl": file_hash(exported)}, "versions": versions}
        exported.with_name("card.json").write_text(json.dumps(card))
    for module in [module for module in sys.modules if module.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "timm", None)
    vet(exported)
    with pytest.raises(ModelError) as told:
        load_classifier(exported)
    assert f"{exported} needs timm, which is not installed: {command} The model.onnx beside it" in str(told.value)


def test_the_learner_keeps_timms_notes(of_timm, tmp_path):
    """What an export leaves out of the network is left out of a copy."""
    learn = of_timm("test_vit")
    save_learner(learn, tmp_path / "export.pkl")
    assert learn.model[0][0].pretrained_cfg["architecture"] == "test_vit"
