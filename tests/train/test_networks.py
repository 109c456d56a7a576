"""The networks: those that fastai can cut are taken, the others told in a sentence; weights come from torch's cache."""

import hashlib
import io
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
import torchvision
from fastai.vision.learner import create_vision_model
from PIL import Image

from utils.backbone import efficientnet_lite0
from utils.errors import FieldguideError
from utils.train import networks
from utils.train.networks import architecture, download_weights, imagenet_weights, preparation


def test_without_network_or_cache_the_weights_say_the_way_out(make_project, tmp_path, monkeypatch):
    """No download and no copy on disk: one sentence with the address, the place and the switch."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def no_network(*args, **kwargs):
        raise OSError("Temporary failure in name resolution")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(FieldguideError, match=r'Set arch = "efficientnet_lite0".*resnet18-f37072fd\.pth to '):
        download_weights(make_project(arch="resnet18", weights="imagenet"))


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Return a function that puts weights into torch's cache under the name of resnet18's, with digits of their own."""
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def put(state: dict, digits: str = "") -> Path:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        path = folder / f"resnet18-{digits or hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth"
        path.write_bytes(buffer.getvalue())
        url = f"https://download.pytorch.org/models/{path.name}"
        monkeypatch.setattr(networks, "imagenet_weights", lambda arch: SimpleNamespace(url=url))
        return path

    return put


def test_weights_come_from_torchs_own_cache(make_project, cached):
    """A copy in the cache is used as it is, if it is the one that its name promises."""
    cached(torchvision.models.resnet18(weights=None).state_dict())
    assert download_weights(make_project(weights="imagenet")) is True


def test_a_file_with_another_content_than_its_name_promises_is_refused(make_project, cached):
    """The name holds the first digits of the SHA-256; whatever else is in the cache is not believed."""
    path = cached({}, digits="f37072fd")
    with pytest.raises(FieldguideError, match=r"f37072fd\.pth are not those that the name promises.* Delete that file"):
        download_weights(make_project(weights="imagenet"))
    assert path.exists()


def test_the_packaged_network_needs_no_download(make_project, monkeypatch):
    """Neither the hub nor torch's cache is asked."""
    monkeypatch.setattr(torch.hub, "get_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    project = make_project(arch="efficientnet_lite0", weights="imagenet")
    assert download_weights(project) is True
    assert architecture(project) is efficientnet_lite0


@pytest.mark.parametrize(
    ("arch", "resample", "mean"),
    [
        ("resnet18", Image.Resampling.BILINEAR, 0.485),
        ("efficientnet_b0", Image.Resampling.BICUBIC, 0.485),
        ("efficientnet_lite0", Image.Resampling.BICUBIC, 127 / 255),
    ],
)
def test_a_network_says_what_it_wants_of_pictures(make_project, arch, resample, mean):
    """Its own reduction and colours, as its makers trained it."""
    wants = preparation(make_project(arch=arch))
    assert wants.resamples == (resample, Image.Resampling.NEAREST)
    assert wants.stats[0][0] == pytest.approx(mean)


def test_a_size_between_its_steps_is_told(make_project):
    """Of the packaged network alone: its padding fits multiples of 32."""
    with pytest.warns(UserWarning, match="size = 100 is not a multiple of 32.* Set size = 96"):
        architecture(make_project(arch="efficientnet_lite0", size=100))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        architecture(make_project(arch="efficientnet_lite0", size=96))
        architecture(make_project(size=100))


@pytest.mark.parametrize("kind", [".pth", ".safetensors"])
@pytest.mark.parametrize("arch", ["resnet18", "squeezenet1_1", "efficientnet_lite0"])
def test_weights_of_ones_own(make_project, tmp_path, arch, kind):
    """A file's weights go into the network that fastai makes; the last layer may know other labels."""
    own = efficientnet_lite0() if arch == "efficientnet_lite0" else getattr(torchvision.models, arch)(weights=None)
    last = list(own.state_dict())[-2:]
    state = {name: value for name, value in own.state_dict().items() if name not in last}
    path = tmp_path / f"own{kind}"
    safetensors.torch.save_file(state, path) if kind == ".safetensors" else torch.save({"state_dict": state}, path)
    project = make_project(arch=arch, weights=str(path))
    assert download_weights(project) is True
    body = create_vision_model(architecture(project), 2, pretrained=True)[0]
    first = next(iter(state.values()))
    assert torch.equal(next(body.parameters()), first)
    assert not torch.equal(next(create_vision_model(architecture(project), 2, pretrained=False)[0].parameters()), first)


def test_weights_of_another_network_name_the_first_parts_that_differ(make_project, tmp_path):
    """Which, how many, and what was expected."""
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "other.pth")
    with pytest.raises(
        FieldguideError, match=r"other\.pth' does not fit arch = 'resnet18': \d+ of its parts differ, first "
    ):
        architecture(make_project(arch="resnet18", weights=str(tmp_path / "other.pth")))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("gone.pth", None, "is no file"),
        ("text.pth", b"hello", "cannot be read"),
        ("a.safetensors", b"{", "cannot be read"),
    ],
)
def test_files_that_are_no_weights_are_told(make_project, tmp_path, name, content, told):
    """One sentence, whatever the library raises."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FieldguideError, match=told):
        architecture(make_project(weights=str(tmp_path / name)))


def test_a_file_of_weights_runs_nothing(make_project, tmp_path):
    """A pickle that names a function is refused as it is read."""
    torch.save({"weight": print}, tmp_path / "strange.pth")
    with pytest.raises(FieldguideError, match="cannot be read as weights"):
        architecture(make_project(weights=str(tmp_path / "strange.pth")))


def test_an_unknown_architecture_is_named(make_project):
    """A misspelt arch gives torchvision's version and examples."""
    with pytest.raises(FieldguideError, match="'resnet19' is not a model of torchvision"):
        architecture(make_project(arch="resnet19"))


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "densenet121", "convnext_tiny", "regnet_y_400mf", "swin_t"])
def test_networks_that_fastai_can_cut_are_taken(make_project, arch):
    """By torchvision's name."""
    assert architecture(make_project(arch=arch)).__name__ == arch


@pytest.mark.parametrize("arch", ["vit_b_16", "inception_v3", "googlenet", "maxvit_t"])
def test_networks_that_fastai_cannot_cut_are_refused_at_once(make_project, arch):
    """Vision transformers and those without pooling, whatever the size; no random number is used up."""
    state = torch.get_rng_state()
    with pytest.raises(FieldguideError, match=rf"^arch = '{arch}' is a network that fastai's .* Write another"):
        architecture(make_project(arch=arch))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("arch", ["shufflenet_v2_x0_5", "mobilenet_v2", "mnasnet0_5"])
def test_a_network_that_fastai_cuts_wrongly_is_cut_rightly(make_project, arch):
    """fastai alone keeps 696 numbers of shufflenet's 2 million, or finds no place: now all but the last layer stays."""
    made = architecture(make_project(arch=arch))
    body = create_vision_model(made, 2, pretrained=False)[0]
    whole = made(weights=None)
    last = sum(p.numel() for p in list(whole.children())[-1].parameters())
    numbers = [sum(p.numel() for p in network.parameters()) for network in (body, whole)]
    assert numbers[0] == numbers[1] - last


def test_a_network_too_deep_for_the_pictures_says_which_size_would_do(make_project):
    """Of 32 pixels alexnet leaves nothing; 64 are enough."""
    with pytest.raises(FieldguideError, match=r"^size = 32 is too small for arch = 'alexnet'\. Set size = 64, or"):
        architecture(make_project(arch="alexnet"))
    assert architecture(make_project(arch="alexnet", size=64)) is torchvision.models.alexnet


def test_the_weights_are_those_that_fastai_takes(make_project):
    """torchvision's best for the networks that fastai knows, the first ones for all others."""
    models = torchvision.models
    assert imagenet_weights(models.resnet50) == models.ResNet50_Weights.IMAGENET1K_V2
    assert imagenet_weights(models.mobilenet_v3_large) == models.MobileNet_V3_Large_Weights.IMAGENET1K_V1


def test_a_network_without_such_weights_is_named(make_project):
    """torchvision has one that was trained on other pictures only."""
    with pytest.raises(FieldguideError, match=r"no ImageNet weights .* 'regnet_y_128gf'.*weights = \"none\""):
        download_weights(make_project(arch="regnet_y_128gf", weights="imagenet"))
