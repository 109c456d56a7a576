"""The background alone: it rings where the ground tells the label, and not where only the thing does."""

import json

import numpy as np
import pytest
from conftest import picture_bytes
from mask_pictures import photo_and_mask
from PIL import Image

from utils.dataset import read_dataset
from utils.evaluate import background, background_line
from utils.evaluate.background import find_background, sampled_groups
from utils.evaluate.evaluation import _with_background
from utils.intervals import wilson
from utils.masks import DrawnMask, fit_masker, hiding, save_masker
from utils.masks.hiding import painted_over
from utils.project import Project
from utils.storage import content_id, write_whole
from utils.tables import SPLIT_COLUMNS, append_rows

SIZE = 96  # pixels


def drawn(seed, *, thing=False, ground=False):
    """Return a photo of a disc, and its mask; the label "dog" shows in the colour of the thing, or of the ground."""
    photo, mask = photo_and_mask(seed, (128, 96))
    pixels, inside = np.asarray(photo).astype(float), np.asarray(mask) > 0
    if thing:
        pixels[inside] = (40, 60, 220)
    if ground:
        pixels[~inside] *= (0.3, 0.6, 1.0)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), mask


@pytest.fixture(scope="module")
def masker(tmp_path_factory):
    """Return a masker that has learned discs of both colours on both grounds."""
    folder, masks = tmp_path_factory.mktemp("masks"), []
    for n in range(12):
        photo, mask = drawn(500 + n, thing=n % 2 == 1, ground=n % 4 > 1)
        photo.save(folder / f"{n}.png")
        mask.save(folder / f"m{n}.png")
        name = str(n)
        masks.append(DrawnMask(name, folder / f"{n}.png", folder / f"m{n}.png", "light", name, True, name))
    settings = {"name": "discs", "labels": {"a": ["a"], "b": ["b"]}, "size": SIZE}
    project = Project.model_validate(settings | {"data_dir": str(folder), "models_dir": str(folder)})
    return fit_masker(project, masks, folds=0)


@pytest.fixture
def discs(make_project, masker):
    """Return a function that makes a data set of 20 photos per label with the masker beside it."""

    def make(*, count=20, group=lambda n: str(n), **tells):
        project = make_project(size=SIZE)
        save_masker(project, masker)
        rows = []
        for k, label in enumerate(project.labels):
            for n in range(count):
                photo, _ = drawn(100 * k + n, **dict.fromkeys(tells, k == 1))
                data = picture_bytes(photo, quality=95)
                id = content_id(data)
                write_whole(project.images / label / f"{id}.jpg", data)
                rows.append({"id": id, "group": f"{label} {group(n)}", "side": ("train", "valid")[n % 2]})
        append_rows(project.table("split"), SPLIT_COLUMNS, rows)
        return read_dataset(project)

    return make


def background_of(dataset):
    """Return what 05 finds of the background."""
    return find_background(dataset, hiding(dataset.project))


def test_a_ground_that_tells_the_label_rings(discs):
    """The dogs' ground is bluish and the discs are alike: right without the disc, p below 0.05, and an alarm."""
    found = background_of(discs(ground=True))
    assert found["accuracy"]["value"] > 0.8 and found["majority"] == 0.5 and found["p"] < 0.05
    line = background_line({"background": found})
    assert line.startswith("Shortcut! With a box over the thing, the background alone gives the right label for ")
    assert "few days or places" in line and "\n" not in line


def test_a_thing_that_alone_tells_the_label_does_not_ring(discs):
    """Blue and red discs on the same ground: told by the whole photo, not without the disc."""
    found = background_of(discs(thing=True))
    assert found["whole"]["value"] > 0.9
    assert found["p"] > 0.05 and found["accuracy"]["value"] < 0.75
    assert background_line({"background": found}).startswith("No shortcut found. ")


def test_folds_keep_groups_whole_and_evidence_counts_groups(discs, monkeypatch):
    """A group is never judged by a head that saw another photo of it; twenty photos of two days are little evidence."""
    folds = []
    real = background.held_out_labels

    def spied(features, dataset, numbers):
        folds.append(
            {group: {f for f, g in zip(numbers, dataset.groups, strict=True) if g == group} for group in dataset.groups}
        )
        return real(features, dataset, numbers)

    monkeypatch.setattr(background, "held_out_labels", spied)
    found = background_of(discs(ground=True, group=lambda n: n % 2))
    assert all(len(own) == 1 for own in folds[0].values()) and len(folds[0]) == 4
    assert found["accuracy"]["high"] - found["accuracy"]["low"] > 0.3 and found["p"] > 0.05


def test_it_is_asked_once_for_each_masker(discs, masker, monkeypatch):
    """What stands in evaluation.json stays as it is until the masker changes; without a masker nothing is looked at."""
    dataset = discs(ground=True, count=6)
    boxes = hiding(dataset.project)
    shortcuts = _with_background(dataset, {"facts": {}}, boxes)
    assert json.loads(json.dumps(shortcuts)) == shortcuts
    monkeypatch.setattr(background, "hidden_features", lambda *given: pytest.fail("looked again"))
    assert _with_background(dataset, shortcuts, boxes) == shortcuts
    with pytest.raises(pytest.fail.Exception):
        _with_background(dataset, shortcuts | {"background": shortcuts["background"] | {"masker": "another"}}, boxes)
    (dataset.project.models / "masker.safetensors").unlink()
    assert hiding(dataset.project) is None and _with_background(dataset, shortcuts, None) == shortcuts
    assert _with_background(dataset, {"facts": {}}, None) == {"facts": {}}
    assert background_line({"facts": {}}).startswith("What the background tells was not looked at")


def test_too_few_photos_are_said_to_be_too_few(discs):
    """Two photos give no folds; the line says so."""
    found = background_of(discs(ground=True, count=1))
    assert found["accuracy"]["value"] is None
    assert "too few photos" in background_line({"background": found})


@pytest.mark.parametrize(
    ("p", "majority", "start"),
    [(0.01, 0.14, "Shortcut! "), (0.01, 0.38, "Hardly a shortcut. "), (0.06, 0.14, "No shortcut found. ")],
)
def test_the_line_tells_guessing_and_the_whole_photo(p, majority, start):
    """42 of 100 without the thing: an alarm by its p and by how much guessing gets, and all figures are told."""
    found = {"accuracy": wilson(42, 100), "whole": wilson(71, 100), "majority": majority, "p": p, "left_out": 3}
    line = background_line({"background": found})
    assert line.startswith(start) and "42 % (95 % interval " in line and "of 100 pictures" in line
    assert f"most frequent label: {round(100 * majority)} %" in line and "with the thing: 71 %" in line
    assert "nothing else: 3)" in line


def test_the_box_is_a_little_wider_than_the_mask_and_has_the_mean_colour_outside():
    """A mask of 50 × 25 pixels: 2 and 4 more on each side, in the colour around; the rest stays as it was."""
    image = Image.new("RGB", (100, 100), (10, 20, 30))
    image.paste((200, 0, 0), (20, 40, 70, 65))
    mask = np.zeros((100, 100), dtype=bool)
    mask[40:65, 20:70] = True
    image.putpixel((15, 50), (255, 255, 255))
    image.putpixel((16, 50), (255, 255, 255))
    painted = np.asarray(painted_over(image, mask))
    expected = np.asarray(image)[np.pad(np.zeros((29, 58), bool), ((38, 33), (16, 26)), constant_values=True)].mean(0)
    np.testing.assert_array_equal(painted[38:67, 16:74], np.broadcast_to(expected.round(), (29, 58, 3)))
    assert tuple(painted[50, 15]) == (255, 255, 255)


def test_a_mask_that_finds_nothing_or_leaves_nothing_gives_no_photo():
    """Nothing can be hidden, or nothing else is to be seen."""
    image = Image.new("RGB", (20, 10))
    assert painted_over(image, np.zeros((10, 20), bool)) is None
    assert painted_over(image, np.ones((10, 20), bool)) is None


def test_groups_are_sampled_whole(discs):
    """Of six photos in groups of two, at most three are one group; the draw is the seed's."""
    dataset = discs(count=6, group=lambda n: n // 2)
    chosen = sampled_groups(dataset, most=3)
    assert len(chosen) == 2 and len(set(chosen.groups)) == 1
    assert sampled_groups(dataset, most=100).ids == dataset.ids
