"""04, pictures on the GPU: the crops that fastai draws, decoded once, the same after a stop. A CPU stands in for it."""

import random

import numpy as np
import pandas as pd
import pytest
import small_set
import torch
from fastai.vision import core
from fastai.vision.all import (
    CategoryBlock,
    DataBlock,
    FlipItem,
    ImageBlock,
    Normalize,
    PILImage,
    PILImageBW,
    RandomResizedCrop,
    Resize,
    parent_label,
)
from small_set import figures, quick_learner, stop_at, train, weights

from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.train import gpu_cache, image_dataloaders, load_trained, loaders
from utils.train.gpu_cache import keep_on_gpu
from utils.train.loaders import image_block

ready, plain = small_set.ready, small_set.plain
TRAIN, VALID = 16, 6  # pictures of the small set
ON_GPU = {"cache": "gpu", "augment": {"max_rotate": 20.0, "greyscale": 0.5}}


@pytest.fixture
def stand_in(monkeypatch):
    """Let the CPU be the GPU, with memory enough."""
    monkeypatch.setattr(gpu_cache, "GPUS", ("cpu",))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 10**9))


@pytest.fixture
def kept(ready, make_project, stand_in):
    """Return the small set in a project that keeps its pictures on the GPU."""
    return read_dataset(make_project(**ON_GPU))


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"size": [32, 48]},
        {"augment": {"crop": 0.2, "stretch": 1.0}},
        {"arch": "efficientnet_lite0", "size": 96},  # resamples by cubes, and enlarges here
    ],
)
def test_pictures_are_those_of_the_processor_but_for_one_level(ready, make_project, stand_in, how):
    """The same draws give the same crops; training pictures differ by a level of 255 at most, others not at all."""
    dls = image_dataloaders(read_dataset(make_project(**ON_GPU | how)))
    dls.train.before_iter()
    random.seed(1)
    expected = [dls.train.do_item(n) for n in range(dls.train.n)]
    dls.valid.before_iter()
    judged = [dls.valid.do_item(n) for n in range(dls.valid.n)]
    keep_on_gpu(dls)
    random.seed(1)
    found = [dls.train.do_item(n) for n in range(dls.train.n)]
    for (picture, label), (other, its) in zip(found, expected, strict=True):
        assert (type(picture), picture.shape, picture.dtype, label) == (type(other), other.shape, other.dtype, its)
        assert (picture.short() - other.short()).abs().max() <= 1
    for n, (other, its) in enumerate(judged):
        picture, label = dls.valid.do_item(n)
        assert torch.equal(picture, other) and label == its


@pytest.mark.parametrize("workers", [0, 2])
def test_each_picture_is_decoded_once_and_all_is_given_back(kept, monkeypatch, workers):
    """Also where processes loaded pictures: while they lie on the GPU none does, afterwards they do as before."""
    monkeypatch.setattr(loaders, "worker_count", lambda: workers)
    learn, names, load = quick_learner(kept), [], core.load_image
    monkeypatch.setattr(core, "load_image", lambda path, **how: names.append(path.name) or load(path, **how))
    train(kept, 3, learn=learn, save=False)
    counts = pd.Series(names).value_counts()
    assert (len(counts), counts.sum()) == (TRAIN + VALID, TRAIN + VALID + 2)  # and a look at the first of each set
    assert [loader.fake_l.num_workers for loader in learn.dls.loaders] == [workers] * 2
    assert not {"do_item", "create_item"} & {*vars(learn.dls.train), *vars(learn.dls.valid)}


def test_a_stopped_training_ends_with_the_same_weights(kept):
    """As one that was not stopped, also with other DataLoaders, as after a restart."""
    learn = quick_learner(kept)
    expected = train(kept, 2, learn=learn, save=False)
    stopped = quick_learner(kept)
    stop_at(stopped, 6)
    with pytest.raises(KeyboardInterrupt):
        train(kept, 2, learn=stopped)
    other = quick_learner(kept)
    pd.testing.assert_frame_equal(figures(train(kept, 2, learn=other)), figures(expected))
    assert torch.equal(weights(other), weights(learn))
    assert torch.equal(weights(load_trained(kept)), weights(other))


def test_without_a_gpu_it_is_refused(ready, make_project):
    """One sentence with the device and what to write instead."""
    dataset = read_dataset(make_project(**ON_GPU))
    with pytest.raises(FieldguideError, match=r"this trains on the device 'cpu'\. Set cache = \"memory\" in the"):
        train(dataset, learn=quick_learner(dataset))


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([Resize(32)], "has Resize\\."),
        ([RandomResizedCrop(32), FlipItem()], "has FlipItem\\."),
        ([RandomResizedCrop(32, resamples=(0, 0))], "has RandomResizedCrop with NEAREST\\."),
    ],
)
def test_a_block_that_crops_in_another_way_is_refused(kept, steps, told):
    """What stands in the DataBlock is what the network sees, or it is said."""
    block = image_block(kept.project).new(item_tfms=steps, batch_tfms=Normalize.from_stats([0.1] * 3, [0.1] * 3))
    with pytest.raises(FieldguideError, match=told):
        train(kept, learn=quick_learner(kept, block))


def test_grey_pictures_are_sent_to_the_memory(kept):
    """Which takes them."""
    blocks = ImageBlock(PILImageBW), CategoryBlock(vocab=list(kept.project.labels))
    block = DataBlock(blocks, get_y=parent_label, item_tfms=RandomResizedCrop(32))
    with pytest.raises(FieldguideError, match=r'keeps colour pictures of 8 bits .* Set cache = "memory"'):
        train(kept, learn=quick_learner(kept, block))


def test_pictures_that_the_gpu_cannot_hold_are_refused_with_the_numbers(kept, monkeypatch):
    """Before anything is decoded; a byte more, and they lie there, where no other process reaches them."""
    monkeypatch.setattr(loaders, "worker_count", lambda: 2)
    learn = quick_learner(kept)
    needed = sum(np.prod(PILImage.create(path).shape) * 3 for path in kept.on("train").paths)
    needed += learn.dls.valid.n * 3 * 32 * 32
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * needed - 2, 0))
    with pytest.raises(FieldguideError, match=r'cache = "gpu" needs .* that are free on the GPU, at most 50 % may'):
        train(kept, learn=learn)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * needed, 0))
    keep_on_gpu(learn.dls)
    assert [loader.fake_l.num_workers for loader in learn.dls.loaders] == [0, 0]
