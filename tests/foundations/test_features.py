"""What the packaged network sees: computed once, kept whole, and the same for a picture alone and among others."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import draw_picture
from fastai.vision.all import PILImage, RandomResizedCrop
from PIL import Image

from utils import features, seeing
from utils.backbone import RESAMPLE, packaged_body
from utils.dataset import Dataset, read_dataset
from utils.features import FEATURES_NAME, picture_features
from utils.project import FEATURE_SIZE, REPOSITORY
from utils.seeing import feature_pixels, folded, network_features


@pytest.fixture
def dataset(make_project) -> Dataset:
    """A data set of 20 drawn pictures, more than go through the network at once."""
    project = make_project()
    for n in range(20):
        folder = project.images / ("cat", "dog")[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        draw_picture(n, size=((160, 120), (90, 140))[n % 3 == 0]).save(folder / f"{n:016x}.jpg")
    return read_dataset(project)


@pytest.fixture
def opened(monkeypatch) -> list:
    """The paths that are opened from now on."""
    paths = []
    real = seeing.feature_pixels
    monkeypatch.setattr(seeing, "feature_pixels", lambda path, size: paths.append(path) or real(path, size))
    return paths


def test_each_picture_is_looked_at_once(dataset, opened):
    """The second call opens nothing and returns the same; a new picture is looked at, and nothing else."""
    first = picture_features(dataset)
    assert first.shape == (20, 1280) and np.isfinite(first).all()
    assert sorted(opened) == sorted(dataset.paths)
    opened.clear()
    again = picture_features(read_dataset(dataset.project))
    assert opened == []
    assert np.array_equal(again, first)
    new = dataset.project.images / "cat" / "ffffffffffffffff.jpg"
    draw_picture(99).save(new)
    assert len(picture_features(read_dataset(dataset.project))) == 21 and opened == [new]


def test_a_pictures_features_do_not_depend_on_the_others(dataset):
    """All together, and each alone: the same numbers."""
    together = picture_features(dataset)
    alone = [next(seeing.seen_by_network([path])) for path in dataset.paths[-3:]]
    assert together[-3:] == pytest.approx(np.concatenate(alone), abs=3e-3)  # kept in half precision


def test_the_network_gets_the_picture_as_validation_does(dataset):
    """The pixels are those of fastai's RandomResizedCrop for validation, with bicubic reduction."""
    crop = RandomResizedCrop(FEATURE_SIZE, resamples=(RESAMPLE, Image.Resampling.NEAREST))
    for path in dataset.paths[:4]:
        theirs = crop(PILImage.create(path), split_idx=1)
        assert np.array_equal(feature_pixels(path), np.asarray(theirs))


def test_folding_the_normalisation_changes_nothing(dataset):
    """The quick network gives what the plain one gives."""
    pixels = torch.from_numpy(np.stack([feature_pixels(path) for path in dataset.paths[:3]]))
    plain, quick = packaged_body(), folded(packaged_body())
    assert sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in quick.modules()) == 0
    assert network_features(quick, pixels).numpy() == pytest.approx(network_features(plain, pixels).numpy(), abs=1e-3)


def test_a_changed_file_is_looked_at_again(dataset, opened):
    """Another size of the file under the same id; what is gone since does no harm."""
    picture_features(dataset)
    opened.clear()
    draw_picture(77, size=(300, 200)).save(dataset.paths[0])
    dataset.paths[1].unlink()
    found = picture_features(dataset)  # as it was read before
    assert opened == [dataset.paths[0]]
    assert np.isnan(found[1]).all() and np.isfinite(found[[0, *range(2, 20)]]).all()


def test_an_unreadable_picture_has_no_features(dataset):
    """It is tried again at each call, as its file may be mended; the others are kept."""
    dataset.paths[0].write_bytes(b"no picture")
    for _ in range(2):
        found = picture_features(dataset)
        assert np.isnan(found[0]).all() and np.isfinite(found[1:]).all()


def test_a_run_that_is_killed_goes_on(dataset, opened, monkeypatch):
    """What was kept before is not looked at again."""
    monkeypatch.setattr(features, "KEPT_TOGETHER", 16)
    keep, calls = features._keep, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        keep(*args)

    monkeypatch.setattr(features, "_keep", killed)
    with pytest.raises(KeyboardInterrupt):
        picture_features(dataset)
    opened.clear()
    assert np.isfinite(picture_features(dataset)).all()
    assert sorted(opened) == sorted(dataset.paths[16:])


def test_broken_files_are_computed_anew(dataset, opened):
    """Cut short, of another form, or holding objects instead of numbers: removed, and nothing in it is unpickled."""
    whole = picture_features(dataset)
    folder = dataset.project.data / "features" / FEATURES_NAME
    (kept,) = folder.iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    np.savez(folder / "objects.npz", ids=np.array([{}], dtype=object), sizes=np.zeros(1), features=np.zeros((1, 1280)))
    np.savez(folder / "narrow.npz", ids=np.array(["a"]), sizes=np.zeros(1, int), features=np.zeros((1, 3), np.float16))
    opened.clear()
    assert np.array_equal(picture_features(dataset), whole)
    assert len(opened) == 20
    assert [path.name for path in folder.iterdir()] == [kept.name]


def test_features_of_another_network_or_size_are_not_taken(dataset, opened, monkeypatch):
    """Network, size and form are in the folder's name; both sizes stay."""
    first = picture_features(dataset)
    larger = picture_features(dataset, size=160)
    assert len(opened) == 40 and not np.allclose(first, larger, atol=0.1)
    assert np.array_equal(picture_features(dataset), first) and len(opened) == 40
    monkeypatch.setattr(features, "PACKAGED_SHA256", "another")
    picture_features(dataset)
    assert len(opened) == 60


def test_no_pictures_have_no_features(dataset):
    """An empty table, and no folder."""
    none = replace(dataset).where(lambda picture: False)
    assert picture_features(none).shape == (0, 1280)
    assert not (dataset.project.data / "features").exists()


def test_stages_that_only_compare_pictures_start_without_torch():
    """It would cost 02, 03 and 06 three seconds and 600 MB before their first cell is done."""
    code = "import sys, utils.download, utils.verify, utils.split, utils.clean; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
