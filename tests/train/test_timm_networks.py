"""The networks of timm: named, cut and prepared for as timm itself says; what cannot be had is told in a sentence."""

import pytest
import safetensors.torch
import torch
from fastai.vision.learner import create_vision_model
from PIL import Image

from utils.errors import FieldguideError
from utils.train import architecture, download_weights, preparation, timm_networks
from utils.train.timm_networks import FAMILIES

timm = pytest.importorskip("timm", reason="needs requirements-optional.txt")

# A network of each family, and the kinds whose last layer stands behind the pooling.
NETWORKS = (
    *("test_convnext", "test_efficientnet", "hgnetv2_b0", "mobilenetv3_small_050", "mobilenetv4_conv_small_035"),
    *("regnetx_002", "repvit_m0_9", "resnet10t", "test_vit", "test_vit3"),
)


def body_of(project, *, pretrained=False):
    """Return the body of the network that fastai makes for a project."""
    return create_vision_model(architecture(project), 2, pretrained=pretrained)[0]


def count(network) -> int:
    """Return how many numbers a network learns."""
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_but_the_classifier_is_cut_off(make_project, name):
    """fastai's own cut drops the widening layers of mobilenetv3, mobilenetv4 and hgnetv2."""
    fixed = {"img_size": 64} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    whole = timm.create_model(name, **fixed)
    body = body_of(make_project(arch=f"timm/{name}", size=64))
    assert count(body) == count(whole) - count(whole.get_classifier())


def test_every_family_has_a_network_that_is_tried():
    """The networks above are of each family that is taken."""
    taken = {family for family in FAMILIES if set(NETWORKS) & set(timm.list_models(module=family))}
    assert taken == set(FAMILIES)


def test_the_maps_are_timms_own(make_project):
    """The body gives what timm gives without pooling, the widening layer included: 1024 channels, not 288."""
    body = body_of(make_project(arch="timm/mobilenetv3_small_050", size=64)).eval()
    whole = timm.create_model("mobilenetv3_small_050").eval()
    whole.load_state_dict(body[0].state_dict(), strict=False)
    picture = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        maps = whole.forward_features(picture)
        expected = whole.act2(whole.norm_head(whole.conv_head(maps)))
        assert torch.equal(body(picture), expected)
    assert (maps.shape[1], expected.shape[1]) == (288, 1024)


def test_a_vision_transformer_pools_in_its_own_way(make_project):
    """Its body gives the numbers that timm's classifier would read, as a map of one place."""
    body = body_of(make_project(arch="timm/test_vit", size=64)).eval()
    whole = timm.create_model("test_vit", img_size=64).eval()
    whole.load_state_dict(body[0].state_dict(), strict=False)
    picture = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = whole.forward_head(whole.forward_features(picture), pre_logits=True)
        assert torch.allclose(body(picture)[:, :, 0, 0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "resample", "mean", "spread"),
    [
        ("resnet18.a1_in1k", Image.Resampling.BICUBIC, 0.485, 0.229),
        ("resnet18.tv_in1k", Image.Resampling.BILINEAR, 0.485, 0.229),
        ("vit_tiny_patch16_224", Image.Resampling.BICUBIC, 0.5, 0.5),
    ],
)
def test_a_network_says_what_it_wants_of_pictures(make_project, name, resample, mean, spread):
    """Colours and interpolation are those of timm's recipe, which may differ between the weights of one network."""
    wants = preparation(make_project(arch=f"timm/{name}"))
    assert wants.resamples == (resample, Image.Resampling.NEAREST)
    assert (wants.stats[0][0], wants.stats[1][0]) == (mean, spread)


def test_patches_that_do_not_fill_the_picture_are_told(make_project):
    """A vision transformer takes multiples of its patches, the other networks any size."""
    with pytest.raises(FieldguideError, match=r"size = 100 is not a multiple of 16.* Set size = 96\.$"):
        architecture(make_project(arch="timm/vit_tiny_patch16_224", size=100))
    assert architecture(make_project(arch="timm/vit_tiny_patch16_224", size=96)).__name__ == "timm/vit_tiny_patch16_224"
    assert architecture(make_project(arch="timm/resnet10t", size=100)).__name__ == "timm/resnet10t"


def test_without_timm_the_command_is_told(make_project, monkeypatch):
    """timm is not needed by anything else."""
    monkeypatch.setattr(timm_networks, "find_spec", lambda name: None)
    for ask in (architecture, preparation, download_weights):
        with pytest.raises(FieldguideError, match=r"'timm/resnet10d' needs timm.* pip install timm$"):
            ask(make_project(arch="timm/resnet10d", weights="imagenet"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mobilnetv3_small_050", r"not a network of timm .* such as timm/mobilenetv3_small_050"),
        ("qqqq", r"not a network of timm .* such as timm/resnet18\.$"),
        (
            "resnet10t.nonsense",
            r"weights that timm .* does not know\. Write timm/resnet10t, timm/resnet10t\.c3_in1k\.$",
        ),
        ("efficientvit_b0", r"cannot be exported here.* vision_transformer\.$"),
        ("efficientnet_cc_b0_4e", r"cannot be exported here\. Write another"),
    ],
)
def test_names_that_cannot_be_taken_are_told(make_project, name, told):
    """Misspelt names bring near ones, unknown weights the known ones, other families ours."""
    with pytest.raises(FieldguideError, match=told):
        architecture(make_project(arch=f"timm/{name}"))


def failing(*args, **kwargs):
    """Fail as the hub's client does where there is no network."""
    raise OSError("We couldn't connect to 'https://huggingface.co'\nsecond line")


def test_without_network_the_weights_say_the_way_out(make_project, monkeypatch):
    """One sentence, which names the network that needs no download."""
    monkeypatch.setattr("timm.models._builder.load_pretrained", failing)
    with pytest.raises(FieldguideError, match=r"of timm/resnet10t .*couldn't connect.*arch = \"efficientnet_lite0\""):
        download_weights(make_project(arch="timm/resnet10t", weights="imagenet"))


def test_weights_that_do_not_exist_are_told_unasked(make_project, monkeypatch):
    """timm knows networks that nobody trained; nothing is downloaded for those."""
    monkeypatch.setattr("timm.models._builder.load_pretrained", None)
    with pytest.raises(FieldguideError, match=r"no pretrained weights for arch = 'timm/mnasnet_050'.*\"none\""):
        download_weights(make_project(arch="timm/mnasnet_050", weights="imagenet"))


def test_the_weights_come_through_timm(make_project, monkeypatch):
    """What timm loads stands in fastai's network, and no random number is used up."""
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda model, **_: model.conv1[0].weight.data.fill_(7))
    project = make_project(arch="timm/resnet10t", weights="imagenet")
    state = torch.get_rng_state()
    assert download_weights(project) is True
    assert torch.equal(torch.get_rng_state(), state)
    assert (body_of(project, pretrained=True)[0].conv1[0].weight == 7).all()
    assert not (body_of(project)[0].conv1[0].weight == 7).any()


@pytest.mark.parametrize(("name", "classifier"), [("repvit_m0_9", "head."), ("test_vit", "head.")])
def test_weights_of_ones_own(make_project, tmp_path, name, classifier):
    """A file as timm writes it fits; the classifiers, of repvit two, may know other labels or be missing."""
    size = {"img_size": 64} if name == "test_vit" else {}
    state = timm.create_model(name, num_classes=7, **size).state_dict()
    path = tmp_path / "own.safetensors"
    safetensors.torch.save_file(state, path)
    project = make_project(arch=f"timm/{name}", size=64, weights=str(path))
    kept = body_of(project, pretrained=True)[0].state_dict()
    assert {key for key, value in kept.items() if torch.equal(value, state[key])} == kept.keys()
    assert {key.startswith(classifier) for key in state.keys() - kept.keys()} == {True}
    missing = next(key for key in state if not key.startswith(classifier))
    safetensors.torch.save_file({key: value for key, value in state.items() if key != missing}, path)
    with pytest.raises(FieldguideError, match=rf"does not fit arch = 'timm/{name}': 1 of its parts differ, first "):
        architecture(project)
