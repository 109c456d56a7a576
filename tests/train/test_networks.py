"""The networks: those that fastai can cut are taken, the others told in a sentence; weights come from torch's cache."""

import pytest
import torch
import torchvision

from utils.errors import FieldguideError
from utils.train.networks import architecture, download_weights, imagenet_weights


def test_without_network_or_cache_the_weights_say_the_way_out(make_project, tmp_path, monkeypatch):
    """No download and no copy on disk: one sentence with the address, the place and the switch."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def no_network(*args, **kwargs):
        raise OSError("Temporary failure in name resolution")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(FieldguideError, match=r'resnet18-f37072fd\.pth to .*weights = "none"'):
        download_weights(make_project(weights="imagenet"))


def test_weights_come_from_torchs_own_cache(make_project, tmp_path, monkeypatch):
    """A copy in the cache is used as it is, for the learner and for the frozen body."""
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    network = torchvision.models.resnet18(weights=None)
    torch.save(network.state_dict(), folder / "resnet18-f37072fd.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    project = make_project(weights="imagenet")
    assert download_weights(project) is True
    (folder / "resnet18-f37072fd.pth").write_bytes(b"cut short")
    with pytest.raises(FieldguideError, match=r"resnet18-f37072fd\.pth are broken\. Delete that file"):
        download_weights(project)


def test_an_unknown_architecture_is_named(make_project):
    """A misspelt arch gives torchvision's version and examples."""
    with pytest.raises(FieldguideError, match="'resnet19' is not a model of torchvision"):
        architecture(make_project(arch="resnet19"))


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "densenet121", "convnext_tiny", "regnet_y_400mf", "swin_t"])
def test_networks_that_fastai_can_cut_are_taken(make_project, arch):
    """By torchvision's name."""
    assert architecture(make_project(arch=arch)).__name__ == arch


@pytest.mark.parametrize("arch", ["vit_b_16", "mobilenet_v2", "mnasnet0_5", "inception_v3", "googlenet", "maxvit_t"])
def test_networks_that_fastai_cannot_cut_are_refused_at_once(make_project, arch):
    """Vision transformers and those without pooling, whatever the size; no random number is used up."""
    state = torch.get_rng_state()
    with pytest.raises(FieldguideError, match=rf"^arch = '{arch}' is a network that fastai's .* Write another"):
        architecture(make_project(arch=arch))
    assert torch.equal(torch.get_rng_state(), state)


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
