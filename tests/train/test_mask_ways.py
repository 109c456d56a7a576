"""mask = "crop", "channel", "paint": one network that finds the thing; it trains, is kept, exported, vetted as any."""

from dataclasses import replace

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
from utils.evaluate.heatmaps import heat_maps
from utils.export.formats import save_learner, save_onnx
from utils.export.quantised import quantised
from utils.inference.vetting import vet
from utils.masks import mask_front, mask_scorer, masker_file, masker_for, masker_id, take_masks
from utils.masks.crop import crop_layers
from utils.project import Project, ProjectError
from utils.seeing import mask_front_of
from utils.train import (
    architecture,
    head_features,
    head_options,
    image_dataloaders,
    keep_quick_model,
    load_trained,
    make_learner,
    preparation,
    quick_model,
    training_loss,
)
from utils.train.networks import weights_id
from utils.train.record import asked_settings
from utils.train.schedule import learning_rates

pytestmark = pytest.mark.long

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


def on_a_ground(left, top, right, bottom):
    """Return a picture in which one rectangle is the thing, as normalised colours; red says where, green which row."""
    height, width = SIZE
    pixels = torch.zeros(1, 3, height, width)
    pixels[0, 0, top:bottom, left:right] = 1
    pixels[0, 1], pixels[0, 2] = torch.arange(height)[:, None] / height, torch.arange(width) / width
    return pixels


class RedIsTheThing(torch.nn.Module):
    """Scores (B, 1, h, w) of a masker that is always right."""

    def forward(self, pixels):
        return torch.nn.functional.avg_pool2d(pixels[:, :1], 4) * 20 - 10


@pytest.mark.parametrize("box", [(32, 16, 64, 40), (0, 0, 96, 64), (0, 48, 12, 64), (88, 0, 96, 4)])
def test_the_crop_is_the_box_and_8_percent(box):
    """As grid_sample cuts it: the box, 8 % wider on each side, and no further than the picture."""
    left, top, right, bottom = box
    height, width = SIZE
    pixels = on_a_ground(*box)
    made = crop_layers(RedIsTheThing(), SIZE)(pixels)
    wide, high = (0.08 * side for side in (right - left, bottom - top))
    x = (max(0, left - wide) / width, min(width, right + wide) / width)
    y = (max(0, top - high) / height, min(height, bottom + high) / height)
    theta = torch.tensor([[[x[1] - x[0], 0, sum(x) - 1], [0, y[1] - y[0], sum(y) - 1]]])
    grid = torch.nn.functional.affine_grid(theta, pixels.shape, align_corners=False)
    wanted = torch.nn.functional.grid_sample(pixels, grid, align_corners=False, padding_mode="border")
    assert made.shape == pixels.shape
    torch.testing.assert_close(made[:, 1:], wanted[:, 1:], atol=0.4 / min(SIZE), rtol=0)


def test_a_doubtful_place_moves_the_box_a_little():
    """Beside the thing, a place that is half of it moves the end by half a place: no jump where rounding decides."""
    ends = []
    for doubt in (0.0, 0.25, 0.5, 0.75, 1.0):
        sure = torch.full((1, 1, SIZE[0] // 4, SIZE[1] // 4), -20.0)
        sure[0, 0, 4:10, 6:12] = 20.0
        sure[0, 0, 5, 12] = torch.logit(torch.tensor(doubt), eps=1e-9) / 4  # the crop's own sharpening takes it times 4
        pixels = on_a_ground(0, 0, 0, 0)
        scorer = torch.nn.Identity()
        scorer.forward = lambda _, sure=sure: sure
        ends.append((crop_layers(scorer, SIZE)(pixels)[0, 2, 0, -1] * SIZE[1]).item())
    steps = np.diff(ends)
    assert ends[-1] - ends[0] == pytest.approx(4 * 1.08, abs=0.3) and steps.max() < 1.5 * steps.min()


def test_two_things_are_in_one_box_and_none_leaves_the_picture_whole():
    """The box holds both; without any, and with one that touches every border, nothing is cut."""
    both = on_a_ground(8, 8, 24, 24)
    both[0, 0, 40:56, 60:88] = 1
    crop = crop_layers(RedIsTheThing(), SIZE)
    columns = crop(both)[0, 2, 0] * SIZE[1]
    # The middles of the outermost columns, counted from that of the first: half a column less on both sides.
    assert abs(columns[0] - (8 - 0.08 * 80)) < 0.5 and abs(columns[-1] - (88 + 0.08 * 80 - 1)) < 0.5
    for whole in (on_a_ground(0, 0, 0, 0), on_a_ground(0, 0, 96, 64)):
        torch.testing.assert_close(crop(whole), whole, atol=0.01, rtol=0)


def test_paint_leaves_the_thing_and_greys_the_rest(masked):
    """Where the masker is sure, the thing keeps its colours and the ground has the mean colour."""
    project = masked(mask="paint").project
    wants, (height, width) = preparation(project), SIZE
    mean, std = (torch.tensor(stat).view(3, 1, 1) for stat in wants.stats)
    front = mask_front("paint", project.models / "masker.safetensors", tuple(SIZE), wants.stats)
    photo = photo_and_mask(50)[0].resize((width, height))
    given = ((torch.tensor(np.array(photo)).permute(2, 0, 1) / 255 - mean) / std)[None]
    made, sure = front(given), torch.sigmoid(4 * front.layers[0](given))
    assert sure.max() > 0.9 and sure.min() < 0.1 and ((sure > 0.1) & (sure < 0.9)).float().mean() < 0.1
    torch.testing.assert_close(made, given * sure)


def test_heat_maps_lie_on_what_was_cut_out(masked):
    """With "crop" the pictures beside the heat are the crops: the map's places are theirs."""
    dataset = masked(mask="crop")
    learn = quick_learner(dataset)
    shown, _ = heat_maps(learn, list(dataset.on("valid").paths))
    front = mask_front_of(learn.model)
    (batch,) = learn.dls.test_dl(list(dataset.on("valid").paths), num_workers=0).one_batch()
    mean, std = (torch.tensor(stat).view(3, 1, 1) for stat in preparation(dataset.project).stats)
    cut = ((front(torch.Tensor(batch)) * std + mean) * 255).clamp(0, 255)
    whole = ((torch.Tensor(batch) * std + mean) * 255).clamp(0, 255)
    told = torch.tensor(shown).permute(0, 3, 1, 2).float()
    assert (told - cut).abs().mean() < 1 < (told - whole).abs().mean()


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


@pytest.mark.parametrize(
    ("way", "arch", "weights"),
    [
        *((way, "resnet18", "none") for way in ("crop", "channel", "paint")),
        ("crop", "efficientnet_lite0", "imagenet"),
    ],
)
def test_the_files_agree_and_are_vetted(masked, tmp_path, way, arch, weights):
    """A photo alone goes in: fastai, export.pkl and model.onnx give the same probabilities; nobody draws."""
    dataset = masked(mask=way, arch=arch, weights=weights)
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
    answered, mask = session.run(["probabilities", "mask"], {"pixels": np.ascontiguousarray(pixels)})
    scores = mask_scorer(mask_front_of(learn.model))
    found = []
    scores.register_forward_hook(lambda layer, given, made: found.append(made.sigmoid()[:, 0]))
    learn.model.eval()(torch.Tensor(batch))
    np.testing.assert_allclose(mask, found[0].detach().numpy(), atol=1e-3)
    assert np.ptp(wanted) > 0
    np.testing.assert_allclose(pickled, wanted, atol=1e-3)
    np.testing.assert_allclose(answered, wanted, atol=1e-3)


@pytest.mark.parametrize("way", ["crop", "channel"])
def test_a_round_stands_until_the_masker_changes(masked, way):
    """The record tells the masker's numbers; the round is loaded again, and another masker makes it out of date."""
    dataset = masked(mask=way)
    learn = quick_learner(dataset)
    train(dataset, 1, learn=learn, **learning_rates(dataset.project))
    settings = learn.record.settings
    assert settings["mask"] == asked_settings(dataset)["mask"] and settings["mask"].startswith(f"{way} ")
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


def test_a_head_takes_no_fourth_channel(tmp_path):
    """train = "head" with mask = "channel": the project file is refused, with what to do."""
    path = tmp_path / "project.toml"
    path.write_text('name = "a"\ntrain = "head"\nmask = "channel"\n[labels]\na = ["a"]\nb = ["b"]\n', encoding="utf-8")
    with pytest.raises(ProjectError, match=r'mask = "channel" goes with train = "all" only.*"crop" or "paint"'):
        Project.load(path)


def test_a_head_sees_what_is_cut_out(masked):
    """train = "head" with mask = "crop": fitted to crops, and the network that is kept gives the head's answers."""
    dataset = masked(train="head", mask="crop", arch="efficientnet_lite0", weights="imagenet")
    quick = quick_model(dataset)
    unmasked = replace(dataset, project=dataset.project.model_copy(update={"mask": "none"}))
    assert not np.array_equal(head_features(dataset, size=224), head_features(unmasked, size=224))
    options = {"loss_func": training_loss(dataset), **head_options(dataset, quick)}
    learn = make_learner(dataset.project, image_dataloaders(dataset), pretrained=True, **options)
    keep_quick_model(dataset, learn, quick)
    assert learn.record.settings["mask"].startswith("crop ") and learn.record.changed == ""
    kept = load_trained(dataset)
    valid = dataset.on("valid")
    probs = kept.get_preds(dl=kept.dls.test_dl(list(valid.paths), num_workers=0))[0].numpy()
    wanted = quick.head.probabilities(head_features(valid, size=224))
    np.testing.assert_allclose(probs, wanted, atol=2e-3)  # features are kept with half the digits
    masker_for(dataset.project, take_masks(dataset).drawn[1:])
    with pytest.raises(FieldguideError, match="settings changed since the model was trained"):
        load_trained(dataset)


def test_a_study_has_a_masker_for_each_size(masked):
    """[study] with masks at another size: 03a fits one for it, and the project's own stays."""
    study = {"mask": ["none", "crop"], "size": [SIZE, [96, 96]]}
    dataset = masked(study=study)
    own, other = (dataset.project.model_copy(update={"size": size}) for size in study["size"])
    assert [masker_file(each).name for each in (own, other)] == ["masker.safetensors", "masker-96x96.safetensors"]
    assert masker_id(own) != masker_id(other) and mask_front_of(architecture(other)(False)) is not None


class Blur(torch.nn.Module):
    """A layer as in timm's resnetblur18: its numbers are given, not learned."""

    def __init__(self):
        super().__init__()
        self.register_buffer("filter", torch.ones(3, 1, 3, 3) / 9)

    def forward(self, x):
        """(B, 3, H, W) → the same, blurred."""
        return torch.nn.functional.conv2d(x, self.filter, padding=1, groups=3)


def test_layers_that_only_blur_are_no_mask():
    """A network of its own kind may hold numbers that it does not learn: it is taken for what it is, without a mask."""
    blurs = torch.nn.Sequential(torch.nn.MaxPool2d(3, 1, 1), Blur())
    assert mask_front_of(torch.nn.Sequential(blurs, torch.nn.Conv2d(3, 2, 1))) is None


def test_in_eight_bits_the_cut_stays_exact(masked, tmp_path):
    """With "crop", model.int8.onnx cuts where model.onnx does: the masks are the same, and the answers near."""
    dataset = masked(mask="crop")
    learn = quick_learner(dataset)
    save_onnx(learn, tmp_path / "model.onnx", metadata={})
    images = [photo_and_mask(seed)[0].resize(SIZE[::-1]) for seed in range(60, 72)]
    pixels = np.stack([np.array(image) for image in images])
    source = (tmp_path / "model.onnx").read_bytes()
    probs, masks = ([], [])
    for data in (source, quantised(source, [pixels])):
        session = onnxruntime.InferenceSession(data)
        told = session.run(["probabilities", "mask"], {"pixels": pixels})
        probs.append(told[0])
        masks.append(told[1])
    assert masks[1] == pytest.approx(masks[0], abs=0.01)  # a step of eight bits
    assert probs[1] == pytest.approx(probs[0], abs=0.05)
