"""The masker: what it finds, how it is judged, and that it is the same network wherever it runs."""

import numpy as np
import pytest
import torch
import torchvision
from conftest import tree
from mask_pictures import add_photo, photo_and_mask, write_pairs

from utils.backbone import RESAMPLE
from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.masks import (
    fit_masker,
    masker_for,
    masker_network,
    outline_sheet,
    overlap,
    quality_sentence,
    read_masker,
    take_masks,
    worst_sheet,
)
from utils.masks.masker import found_mask, picture_maps
from utils.masks.network import level_maps, level_stages, scores

SIZE = [96, 128]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder of eight photos with masks."""
    folder = tmp_path_factory.mktemp("outlines")
    write_pairs(folder, 8)
    return folder


@pytest.fixture
def project(make_project, source):
    """A project whose masks come from `source`."""
    return make_project(mask_source=str(source), size=SIZE)


def test_eight_masks_teach_it_a_disc(project):
    """Each mask is found by a masker that never saw it: better than half, where the best rectangle gets π/4 at most."""
    masker = masker_for(project, take_masks(read_dataset(project)).drawn)
    assert masker.masks == len(masker.judged) == 8
    assert np.mean([one.iou for one in masker.judged]) > 0.8
    assert "on 8 masks, each held out" in quality_sentence(masker) and "draw more" in quality_sentence(masker)


def test_overlap_counts_pixels():
    """Of a shared 1 and a whole 4, a quarter; two empty masks are the same."""
    one, other = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    assert overlap(one, other) == 1.0
    one[0, :3], other[0, 2:] = True, True
    assert overlap(one, other) == 0.25


def test_the_same_masks_give_the_same_bytes(project, make_project, source, tmp_path):
    """In another folder, fitted anew; and a second call on the same masks writes nothing."""
    drawn = take_masks(read_dataset(project)).drawn
    masker_for(project, drawn)
    first = (project.models / "masker.safetensors").read_bytes()
    other = make_project(mask_source=str(source), size=SIZE, models_dir=str(tmp_path / "other"))
    masker_for(other, drawn)
    assert (other.models / "masker.safetensors").read_bytes() == first
    stamp = (project.models / "masker.safetensors").stat().st_mtime_ns
    masker_for(project, drawn)
    assert (project.models / "masker.safetensors").stat().st_mtime_ns == stamp


def test_another_mask_fits_it_anew(project):
    """One mask fewer, and the kept masker no longer counts."""
    drawn = take_masks(read_dataset(project)).drawn
    assert masker_for(project, drawn).drawn != masker_for(project, drawn[1:]).drawn
    assert read_masker(project.models / "masker.safetensors").masks == 7


def test_near_duplicates_never_judge_each_other(make_project):
    """Photos of one group stand in one fold, so that none is found by a masker that saw its copy."""
    project = make_project(size=SIZE)
    for n in range(6):
        id = add_photo(project, n, "cat", group=f"pair {n // 2}")
        (project.data / "masks").mkdir(exist_ok=True)
        photo_and_mask(n)[1].save(project.data / "masks" / f"{id}.png")
    masker = fit_masker(project, take_masks(read_dataset(project)).drawn)
    folds = {group: {one.fold for one in masker.judged if one.group == group} for group in ("pair 0", "pair 1")}
    assert all(len(found) == 1 for found in folds.values()) and len(masker.folds) == 3


def test_a_fold_is_judged_by_a_masker_that_learned_from_the_others(project):
    """Its weights are those of a masker that was given the other masks alone."""
    drawn = take_masks(read_dataset(project)).drawn
    masker = fit_masker(project, drawn)
    left_out = {one.content for one in masker.judged if one.fold == 1}
    others = fit_masker(project, [mask for mask in drawn if mask.content not in left_out], folds=0)
    assert 0 < len(left_out) < 8 and others.judged == ()
    assert all(torch.equal(masker.folds[1][name], others.head[name]) for name in others.head)


def test_its_probabilities_add_up_to_what_the_masks_cover(project):
    """As of every logistic regression whose constant is free, if the standardisation is folded in rightly."""
    drawn = take_masks(read_dataset(project)).drawn
    head, stages, found, covered = fit_masker(project, drawn, folds=0).head, level_stages(), [], []
    for mask in drawn:
        image, there = mask.read()
        found.append(scores(picture_maps(stages, image, SIZE), head).sigmoid().mean().item())
        covered.append(there.mean())
    assert np.mean(found) == pytest.approx(np.mean(covered), abs=0.005)


def test_masks_of_the_validation_set_judge_the_kept_masker(make_project, source):
    """They are judged and not learned from: without them the kept masker has the same weights."""
    project = make_project(mask_source=str(source), size=SIZE)
    alone = fit_masker(project, take_masks(read_dataset(project)).drawn)
    id = add_photo(project, 20, "cat", side="valid")
    (project.data / "masks").mkdir()
    photo_and_mask(20)[1].save(project.data / "masks" / f"{id}.png")
    both = fit_masker(project, take_masks(read_dataset(project)).drawn)
    assert {one.fold for one in both.judged if one.name.startswith("IMG_20")} == {-1} and len(both.judged) == 9
    assert all(torch.equal(alone.head[name], both.head[name]) for name in alone.head)


@pytest.mark.parametrize("size", [SIZE, [64, 64]])
def test_the_network_gives_the_scores_that_were_fitted(project, size):
    """As one network of plain layers, on pictures normalised for another network: the masks that `found_mask` gives."""
    project = project.model_copy(update={"size": size})
    masker = fit_masker(project, take_masks(read_dataset(project)).drawn)
    image = photo_and_mask(30)[0]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    network = masker_network(masker.head, (mean.flatten().tolist(), std.flatten().tolist()))
    pixels = torch.tensor(np.asarray(image.resize(size[::-1], RESAMPLE))).permute(2, 0, 1)[None] / 255
    given = network.train()((pixels - mean) / std)  # as in a training: nothing in it depends on that
    maps = picture_maps(level_stages(), image, size)
    wanted = found_mask(maps, masker.head, tuple(size[::-1]))
    assert given.shape == (1, 1, *size) and np.mean((given[0, 0] > 0).numpy() != wanted) < 0.001


def test_no_training_can_change_the_network(project):
    """Its numbers are buffers: an optimizer gets none of them, and they are saved all the same."""
    network = masker_network(fit_masker(project, take_masks(read_dataset(project)).drawn).head)
    assert list(network.parameters()) == [] and len(network.state_dict()) > 50
    own = {type(layer).__module__.split(".")[0] for layer in network.modules()}
    assert own == {"torch", "torchvision", "fastai"}


def test_one_mask_is_too_few(project):
    """Nobody could judge what learned from it."""
    with pytest.raises(FieldguideError, match="1 photo with a mask can train a masker, and it takes 2 at least"):
        fit_masker(project, take_masks(read_dataset(project)).drawn[:1])


@pytest.mark.parametrize("data", [b"", b"{}", b"\x08" + b"\0" * 7 + b'{"a":1} '])
def test_a_file_that_is_no_masker_is_refused(project, data):
    """With the file's name, and what to do."""
    project.models.mkdir(parents=True)
    (project.models / "masker.safetensors").write_bytes(data)
    with pytest.raises(FieldguideError, match=r"is not a masker .* Delete it and run 03a again"):
        read_masker(project.models / "masker.safetensors")


def test_the_sheets_show_both_outlines(project):
    """The worst six with a blue and an orange line, the project's own with the masker's; no file is written."""
    for n in range(3):
        add_photo(project, 40 + n, "dog")
    dataset = read_dataset(project)
    drawn = take_masks(dataset).drawn
    masker = fit_masker(project, drawn)
    before = tree(project.data)
    worst, own = (np.asarray(sheet) for sheet in (worst_sheet(masker, drawn), outline_sheet(masker, dataset)))
    blue, orange = ((0, 114, 178), (230, 159, 0))
    assert (worst == blue).all(2).any() and (worst == orange).all(2).any()
    assert (own == orange).all(2).any() and not (own == blue).all(2).any()
    assert tree(project.data) == before and not project.models.exists()


@pytest.fixture
def vgg_weights(monkeypatch, tmp_path):
    """A file in the place of VGG-19's weights: random numbers, as large as theirs need to be for maps to differ."""
    torch.manual_seed(0)
    features = torchvision.models.vgg19(weights=None).features
    path = tmp_path / "vgg19-0.pth"
    torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, path)
    monkeypatch.setattr("utils.masks.encoders.hub_weights", lambda *args, **options: path)
    return features.eval()


def test_vgg19_can_carry_the_scores(project, vgg_weights):
    """Its last maps at 4, 8 and 16 pixels a place, of colours as torchvision wants them; the file says which it is."""
    stages = level_stages("vgg19")
    pixels = torch.rand(1, 3, 64, 96)
    mean, std = (torch.tensor(stat).view(1, 3, 1, 1) for stat in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for made, last in zip(level_maps(stages, pixels), (18, 27, 36), strict=True):
        with torch.no_grad():
            wanted = vgg_weights[:last]((pixels - mean) / std)
        torch.testing.assert_close(made, wanted, atol=1e-4, rtol=1e-3)
    own = project.model_copy(update={"mask_encoder": "vgg19"})
    drawn = take_masks(read_dataset(project)).drawn
    kept = masker_for(own, drawn)
    assert read_masker(own.models / "masker.safetensors").encoder == kept.encoder == "vgg19"
    assert masker_for(project, drawn).encoder == "efficientnet_lite0"  # another encoder is another masker
