"""06 and 07, features: the same for a picture alone and among others, and the same from both kinds of body."""

import numpy as np
import pytest
import torch
from conftest import draw_picture

from utils.features import BODY_BATCH, frozen_features, learned_features
from utils.pictures import open_picture, squish_and_crop


@pytest.fixture
def paths(tmp_path):
    """Two more drawn pictures than go through a body at once, in two shapes."""
    for n in range(BODY_BATCH + 2):
        draw_picture(n, size=((160, 120), (90, 140))[n % 2]).save(tmp_path / f"{n:02}.png")
    return sorted(tmp_path.iterdir())


@pytest.fixture
def body():
    """A network of random filters."""
    torch.manual_seed(0)
    return torch.nn.Conv2d(3, 16, 3, stride=4)


def test_a_pictures_features_do_not_depend_on_its_batch(paths, body):
    """All together, in two batches, and each alone: the same numbers."""
    together = frozen_features(body, paths, size=32)
    alone = np.concatenate([frozen_features(body, [path], size=32) for path in paths[-4:]])
    assert together.shape == (BODY_BATCH + 2, 16)
    assert together[-4:] == pytest.approx(alone, abs=1e-6)


def test_the_body_gets_the_picture_as_validation_does(paths):
    """A body that changes nothing shows its input: squished to 40, the middle 32, scaled by ImageNet's mean and std."""
    found = frozen_features(torch.nn.Identity(), paths[:1], size=32)
    pixels = np.asarray(squish_and_crop(open_picture(paths[0]), 32, extra=8)) / 255
    scaled = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert found == pytest.approx(scaled.mean((0, 1))[None], abs=1e-5)


def test_a_learners_body_is_asked_through_its_own_transforms(paths, body):
    """`learned_features` averages over the picture what the first part of the model makes of each batch."""
    batches = torch.rand(4, 3, 8, 8).split(3)

    class Stub:
        model = torch.nn.Sequential(body, torch.nn.Flatten())

        @property
        def dls(self):
            return self

        def test_dl(self, items):
            assert items == paths
            return [(batch,) for batch in batches]

    expected = [body(picture[None]).mean((2, 3))[0].tolist() for batch in batches for picture in batch]
    assert learned_features(Stub(), paths) == pytest.approx(np.array(expected), abs=1e-6)
