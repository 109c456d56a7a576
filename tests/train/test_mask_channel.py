"""mask = "channel": one network that makes the mask itself; it trains, is kept, exported and vetted as any other."""

import numpy as np
import onnxruntime
import pytest
import torch
from fastai.layers import Cat
from fastai.learner import load_learner
from mask_pictures import add_photo, photo_and_mask, write_pairs
from small_set import SIDES, plain, quick_learner, train  # noqa: F401

from utils.dataset import read_dataset, round_fingerprint
from utils.errors import FieldguideError
from utils.export.formats import save_learner, save_onnx
from utils.inference.vetting import vet
from utils.masks import masker_for, take_masks
from utils.project import Project, ProjectError
from utils.train import architecture, load_trained, preparation
from utils.train.masked import mask_front_of
from utils.train.networks import weights_id
from utils.train.record import asked_settings
from utils.train.schedule import learning_rates

SIZE = [64, 96]


@pytest.fixture(scope="module")
def outlines(tmp_path_factory):
    """A folder of eight photos of discs with masks."""
    folder = tmp_path_factory.mktemp("outlines")
    write_pairs(folder, 8)
    return folder


@pytest.fixture
def masked(make_project, outlines):
    """Return a function that makes a data set of discs under two labels, and a masker for it."""

    def make(**settings):
        settings = {
            "arch": "resnet18",
            "size": SIZE,
            "mask": "channel",
            "mask_source": str(outlines),
            "batch_size": 8,
        } | settings
        project = make_project(**settings)
        for n, side in enumerate(SIDES):
            for k, label in enumerate(project.labels):
                add_photo(project, 100 + 2 * n + k, label, side=side)
        dataset = read_dataset(project)
        masker_for(project, take_masks(dataset).drawn)
        return dataset

    return make


def first_convolution(model):
    """Return the weights of the layer that takes mask, R, G and B."""
    return next(p for p in model.parameters() if p.ndim == 4)


@pytest.mark.parametrize(("arch", "weights"), [("resnet18", "none"), ("efficientnet_lite0", "imagenet")])
def test_the_mask_counts_and_the_masker_stays(masked, arch, weights):
    """After a training of all layers the mask's weights are as large as a colour's; the masker has not moved."""
    dataset = masked(arch=arch, weights=weights)
    learn = quick_learner(dataset)
    front = mask_front_of(learn.model)
    before = weights_id(front)
    train(dataset, 2, learn=learn)
    sizes = first_convolution(learn.model).detach().abs().mean((0, 2, 3))
    assert len(sizes) == 4 and sizes[0] >= 0.25 * sizes[1:].mean()
    assert weights_id(mask_front_of(learn.model)) == before
    assert {id(p) for group in learn.opt.param_lists for p in group}.isdisjoint(id(b) for b in front.buffers())


def test_the_front_gives_the_mask_and_the_colours(masked):
    """Four channels: how likely each pixel belongs to the thing, then the picture as it came, also in training."""
    dataset = masked()
    learn = quick_learner(dataset)
    front = mask_front_of(learn.model).train()
    wants, (height, width) = preparation(dataset.project), SIZE
    mean, std = (torch.tensor(stat).view(3, 1, 1) for stat in wants.stats)
    inside, outside = [], []
    for seed in range(50, 58):
        image, mask = (each.resize((width, height)) for each in photo_and_mask(seed))
        given = ((torch.tensor(np.array(image)).permute(2, 0, 1) / 255 - mean) / std)[None]
        made = front(given)
        assert made.shape == (1, 4, height, width) and torch.equal(made[:, 1:], given)
        drawn = torch.tensor(np.array(mask)) > 127
        inside.append(made[0, 0][drawn].mean().item())
        outside.append(made[0, 0][~drawn].mean().item())
    assert 0 <= np.mean(outside) < np.mean(inside) / 3 <= 1 / 3


@pytest.mark.parametrize(("arch", "weights"), [("resnet18", "none"), ("efficientnet_lite0", "imagenet")])
def test_the_files_agree_and_are_vetted(masked, tmp_path, arch, weights):
    """A photo alone goes in: fastai, export.pkl and model.onnx give the same probabilities; nobody draws."""
    dataset = masked(arch=arch, weights=weights)
    learn = quick_learner(dataset)
    train(dataset, 1, learn=learn, save=False)
    save_learner(learn, tmp_path / "export.pkl")
    vet(tmp_path / "export.pkl")
    save_onnx(learn, tmp_path / "model.onnx", metadata={})
    paths = dataset.on("valid").paths
    wanted = learn.get_preds(dl=learn.dls.test_dl(list(paths), num_workers=0))[0].numpy()
    loaded = load_learner(tmp_path / "export.pkl")
    pickled = loaded.get_preds(dl=loaded.dls.test_dl(list(paths), num_workers=0))[0].numpy()
    with torch.no_grad():
        batch = learn.dls.test_dl(list(paths), num_workers=0).one_batch()[0]
        stats = preparation(dataset.project).stats
        mean, std = (torch.tensor(stat).view(1, 3, 1, 1) for stat in stats)
        pixels = ((torch.Tensor(batch) * std + mean) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (answered,) = session.run(None, {"pixels": np.ascontiguousarray(pixels)})
    assert np.ptp(wanted) > 0
    np.testing.assert_allclose(pickled, wanted, atol=1e-3)
    np.testing.assert_allclose(answered, wanted, atol=1e-3)


def test_a_round_stands_until_the_masker_changes(masked):
    """The record tells the masker's numbers; the round is loaded again, and another masker makes it out of date."""
    dataset = masked()
    learn = quick_learner(dataset)
    train(dataset, 1, learn=learn, **learning_rates(dataset.project))
    settings = learn.record.settings
    assert settings["mask"] == asked_settings(dataset)["mask"] and settings["mask"].startswith("channel ")
    assert (learn.record.changed, settings["n_in"], settings["initial_weights"]) == ("", 3, "seeded")
    assert learn.record.fingerprint == round_fingerprint(dataset, settings)
    kept = load_trained(dataset)
    assert weights_id(kept.model) == weights_id(learn.model)
    masker_for(dataset.project, take_masks(dataset).drawn[1:])
    with pytest.raises(FieldguideError, match="settings changed since the model was trained"):
        load_trained(dataset)


def test_without_the_key_nothing_changes(masked):
    """With a masker there and mask = "none", the network has three channels and the record no word of a mask."""
    dataset = masked(mask="none")
    learn = quick_learner(dataset)
    assert first_convolution(learn.model).shape[1] == 3 and not [m for m in learn.model.modules() if type(m) is Cat]
    assert "mask" not in asked_settings(dataset)


def test_without_a_masker_it_says_so(make_project):
    """No masker, and one for another size: a sentence that names 03a."""
    with pytest.raises(FieldguideError, match=r'mask = "channel" needs a masker.*run 03a first'):
        architecture(make_project(arch="resnet18", size=SIZE, mask="channel"))


def test_a_masker_for_another_size_is_refused(masked):
    """It was fitted to maps of 64×96 pixels."""
    project = masked().project.model_copy(update={"size": 96})
    with pytest.raises(FieldguideError, match="Run 03a again"):
        architecture(project)


def test_a_size_that_is_no_multiple_of_32_is_refused(masked):
    """The masker's coarse maps would not lie on its fine ones; the nearest size is told."""
    with pytest.raises(FieldguideError, match=r"takes multiples of 32: set size = \[64, 96\]"):
        architecture(masked(size=[70, 96]).project)


def test_a_head_has_no_mask(tmp_path):
    """train = "head" stands on a network that sees no mask: the project file is refused, with what to do."""
    path = tmp_path / "project.toml"
    path.write_text('name = "a"\ntrain = "head"\nmask = "channel"\n[labels]\na = ["a"]\nb = ["b"]\n', encoding="utf-8")
    with pytest.raises(ProjectError, match='mask = "channel" goes with train = "all" only'):
        Project.load(path)
