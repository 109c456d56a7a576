"""04, the pictures: what `augment` asks for happens, to training pictures alone, by torch's seed."""

import numpy as np
import pytest
import torch
from fastai.vision.all import PILImage, Saturation, TensorCategory, TensorImage, aug_transforms

from utils.errors import FieldguideError
from utils.train.augment import Dehaze, Denoise, Greyscale, TurnHue, augmentation, crops


def batch(count=8, side=48, seed=0):
    """Return a batch of random pictures."""
    return TensorImage(torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)))


def texts(steps):
    """Return steps as their recipes name them."""
    return [str(step) for step in steps]


def test_standard_is_fastais_own(make_project):
    """Without a word on it, 04 trains as the course does."""
    assert texts(augmentation(make_project())) == texts(aug_transforms())


def test_strong_turns_lights_and_zooms_further(make_project):
    """The word stands for twice fastai's turning and lighting, and a closer zoom."""
    assert texts(augmentation(make_project(augment="strong"))) == texts(aug_transforms(mult=2.0, max_zoom=1.3))


def test_a_table_names_fastais_parameters_and_our_steps(make_project):
    """Parameters go to aug_transforms, shares make steps; a share of 0 makes none."""
    table = {"max_rotate": 45.0, "do_flip": False, "denoise": 0.25, "greyscale": 0.0}
    steps = augmentation(make_project(augment=table))
    assert texts(steps[:-1]) == texts(aug_transforms(max_rotate=45.0, do_flip=False))
    assert (type(steps[-1]), steps[-1].share) == (Denoise, 0.25)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"min_zoom": 1.5}, r"min_zoom = 1\.5 above max_zoom = 1\.1"),
        ({"max_lighting": 0.5, "mult": 2.0}, r"max_lighting × mult = 1, which leaves black pictures"),
    ],
)
def test_parameters_that_fail_in_the_first_batch_are_refused(make_project, table, says):
    """fastai takes them, and fails or trains on pictures of no number."""
    with pytest.raises(FieldguideError, match=says):
        augmentation(make_project(augment=table))


@pytest.mark.parametrize("step", [Greyscale, Denoise, Dehaze])
def test_a_share_of_the_training_pictures_is_changed_by_the_seed(step):
    """About the share, each picture on its own; the same ones by the same seed; the labels are left alone."""
    x, y = batch(count=400, side=8), TensorCategory(torch.zeros(400, dtype=torch.long))
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        runs.append(step(0.3)((x, y), split_idx=0))
    changed = (runs[0][0] != x).flatten(1).any(1)
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], y)
    assert 90 <= int(changed.sum()) <= 150
    assert type(runs[0][0]) is TensorImage


@pytest.mark.parametrize("step", [Greyscale, Denoise, Dehaze])
def test_pictures_that_judge_stay_as_they_are(step):
    """On the validation set nothing is changed, and no random number is used up."""
    x = batch()
    state = torch.get_rng_state()
    assert torch.equal(step(1.0)(x, split_idx=1), x)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("step", [Greyscale, Denoise, Dehaze])
def test_the_batch_given_is_not_written_to(step):
    """A step returns new pictures, with values in [0, 1] as before."""
    x = batch()
    before = x.clone()
    after = step(1.0)(x, split_idx=0)
    assert torch.equal(x, before) and not torch.equal(after, before)
    assert float(after.min()) >= 0 and float(after.max()) <= 1


def test_greyscale_leaves_one_luminance():
    """Red, green and blue are equal afterwards: 0.2989 R + 0.587 G + 0.114 B."""
    x = TensorImage(torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4).clone())
    after = Greyscale(1.0)(x, split_idx=0).as_subclass(torch.Tensor)
    assert after.flatten().tolist() == pytest.approx([0.2989 + 0.587 / 2] * 48, abs=1e-4)


def test_denoise_smooths_a_single_dot_over_nine_pixels():
    """The dot's light is spread over 3×3 pixels and none of it is lost."""
    x = torch.zeros(1, 3, 7, 7)
    x[..., 3, 3] = 1
    after = Denoise(1.0)(TensorImage(x), split_idx=0).as_subclass(torch.Tensor)
    assert (after[0, 0] > 0).sum() == 9
    assert float(after[0, 0].sum()) == pytest.approx(1, abs=1e-5)


def test_dehaze_brings_a_hazy_picture_nearer_to_the_clear_one():
    """Haze that thickens from left to right is taken away again, by more than half of the difference."""
    clear = batch(count=2, side=64, seed=1).as_subclass(torch.Tensor) ** 2
    air = torch.tensor([0.8, 0.85, 0.9]).view(1, 3, 1, 1)
    seen = torch.linspace(1, 0.02, 64).view(1, 1, 1, 64)
    hazy = clear * seen + air * (1 - seen)
    after = Dehaze(1.0)(TensorImage(hazy), split_idx=0).as_subclass(torch.Tensor)
    near = slice(None, 48)  # farther off hardly any light from the things is left
    assert float((after - clear)[..., near].abs().mean()) < 0.5 * float((hazy - clear)[..., near].abs().mean())


def test_dehaze_leaves_a_clear_picture_alone():
    """Where something in every patch is black, there is no haze to take away."""
    clear = batch(count=2, side=64).as_subclass(torch.Tensor).clone()
    clear[..., ::2, ::2] = 0
    after = Dehaze(1.0)(TensorImage(clear), split_idx=0).as_subclass(torch.Tensor)
    assert torch.allclose(after, clear, atol=1e-6)


def shares_and_shapes(project, photo=(400, 400), draws=300):
    """Return the share of a photo's area and the shape, width to height, of so many training crops."""
    crop, picture, found = crops(project)[0], PILImage.create(np.zeros((*photo, 3), dtype=np.uint8)), []
    for _ in range(draws):
        crop(picture, split_idx=0)
        width, height = crop.cp_size
        found.append((width * height / (photo[0] * photo[1]), width / height))
    return np.array(found).T


def test_a_crop_shows_the_least_share_that_is_asked_for(make_project):
    """0.6 of the area by default; with crop = 0.2 also a fifth, and with 1.0 and no stretch all of it."""
    for table, low, high in (({"mult": 1.0}, 0.59, 0.65), ({"crop": 0.2}, 0.19, 0.3)):
        shares, _ = shares_and_shapes(make_project(augment=table))
        assert low <= shares.min() <= high and shares.max() > 0.9
    shares, shapes = shares_and_shapes(make_project(augment={"crop": 1.0, "stretch": 1.0}))
    assert (shares == 1).all() and (shapes == 1).all()


@pytest.mark.parametrize(("size", "shape"), [(32, 1), ([32, 64], 2)])
def test_a_crop_is_stretched_as_far_as_is_asked_for(make_project, size, shape):
    """A third wider or narrower than `size` by default; with stretch = 1 never, with 2 up to twice."""
    for table, most in (({"crop": 0.1}, 4 / 3), ({"crop": 0.1, "stretch": 1.0}, 1), ({"crop": 0.1, "stretch": 2.0}, 2)):
        _, shapes = shares_and_shapes(make_project(size=size, augment=table), photo=(400, 400 * shape))
        stretches = np.maximum(shapes / shape, shape / shapes)
        assert stretches.max() <= most * 1.02 and stretches.max() >= 1 + 0.9 * (most - 1)


def test_what_is_not_asked_for_stays_as_it_was(make_project):
    """A table without the four keys gives the transforms, to the letter, of models that were trained before."""
    before = texts(crops(make_project())), texts(augmentation(make_project(augment={"max_rotate": 5.0})))
    same = make_project(augment={"max_rotate": 5.0, "crop": 0.6, "max_hue": 0.0, "max_saturation": 0})
    assert (texts(crops(same)), texts(augmentation(same))) == before


def test_colours_are_fastais_and_as_strong_as_asked_for(make_project):
    """They come after fastai's other steps; the recipe of a training names their amounts."""
    table = {"max_saturation": 0.4, "max_hue": 0.1, "p_lighting": 0.5, "denoise": 0.1}
    steps = augmentation(make_project(augment=table))
    assert [type(step) for step in steps[-3:]] == [Saturation, TurnHue, Denoise]
    assert "'max_lighting': 0.4" in str(steps[-3])
    assert "'max_hue': 0.1" in str(steps[-2])


@pytest.mark.parametrize("key", ["max_saturation", "max_hue"])
def test_a_share_of_the_training_pictures_changes_its_colour(make_project, key):
    """About the share of p_lighting; grey and black pictures and those that judge stay as they are."""
    step = augmentation(make_project(augment={key: 0.3, "p_lighting": 0.5}))[-1]
    red = TensorImage(torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1).expand(400, 3, 4, 4).clone())
    torch.manual_seed(0)
    changed = (step(red.clone(), split_idx=0) - red).as_subclass(torch.Tensor).abs().flatten(1).amax(1) > 1e-4
    assert 160 <= int(changed.sum()) <= 240
    assert torch.equal(step(red, split_idx=1), red)
    grey = TensorImage(torch.linspace(0, 1, 8).view(8, 1, 1, 1).expand(8, 3, 4, 4).clone())
    assert torch.allclose(step(grey.clone(), split_idx=0), grey, atol=1e-5)


def test_hue_turns_no_further_than_asked(make_project):
    """With 0.1 red turns by a tenth of the circle at most: to a blue or green part of at most 0.67 of the red one."""
    step = augmentation(make_project(augment={"max_hue": 0.1, "p_lighting": 1.0}))[-1]
    red = TensorImage(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(500, 3, 2, 2).clone())
    colours = step(red, split_idx=0).as_subclass(torch.Tensor)[..., 0, 0]
    assert torch.equal(colours[:, 0], torch.ones(500))
    green, blue = colours[:, 1].max(), colours[:, 2].max()
    assert 0.5 < float(green) <= 0.67 and 0.5 < float(blue) <= 0.61
