"""04, pictures in memory: the same figures, decoded once, shared by processes, refused where they do not fit."""

import gc
import os
import weakref

import numpy as np
import pandas as pd
import pytest
import small_set
import torch
from fastai.callback.core import Callback
from fastai.vision import core
from fastai.vision.all import Normalize, PILImage, Resize, TensorImage, Transform
from small_set import figures, quick_learner, stop_at, train, weights

from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.train import cache, image_dataloaders, load_trained, loaders, training_callbacks, training_status
from utils.train.cache import SharedArrays, give_back, keep_in_memory
from utils.train.loaders import image_block

ready, plain = small_set.ready, small_set.plain
TRAIN, VALID = 16, 6  # pictures of the small set
IN_MEMORY = {"cache": "memory", "augment": {"max_rotate": 20.0, "greyscale": 0.5}}


@pytest.fixture
def kept(ready, make_project):
    """Return the same data set in a project that keeps pictures in memory."""
    return read_dataset(make_project(**IN_MEMORY))


@pytest.fixture
def decoded(monkeypatch):
    """Return a list that grows by the name of each file that fastai decodes in this process."""
    names, load = [], core.load_image
    monkeypatch.setattr(core, "load_image", lambda path, **how: names.append(path.name) or load(path, **how))
    return names


class Away(Callback):
    """After the first epoch take the pictures away, and put them back at the end."""

    def __init__(self, folder):
        self.folder, self.hidden = folder, folder.with_name("hidden")

    def after_epoch(self):
        if self.folder.exists():
            self.folder.rename(self.hidden)

    def bring_back(self):
        self.hidden.rename(self.folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_figures_and_weights_are_the_same_to_the_last_digit(kept, make_project, monkeypatch, workers):
    """Also with processes that load pictures; from the second epoch on the files are not even there."""
    monkeypatch.setattr(loaders, "worker_count", lambda: workers)
    without = read_dataset(make_project(**IN_MEMORY | {"cache": "none"}))
    learn, other = quick_learner(kept), quick_learner(without)
    expected = train(without, 2, learn=other, save=False)
    away = Away(kept.project.images)
    learn.add_cb(away)
    history = train(kept, 2, learn=learn, save=False)
    away.bring_back()
    pd.testing.assert_frame_equal(figures(history), figures(expected))
    assert torch.equal(weights(learn), weights(other))


def test_each_picture_is_decoded_once(kept, decoded):
    """Three epochs take no more than one pass over both sets, and a look at the first picture of each."""
    learn = quick_learner(kept)
    decoded.clear()
    train(kept, 2, learn=learn, save=False)
    assert len(decoded) == TRAIN + VALID + 2 and len(set(decoded)) == TRAIN + VALID


def test_the_memory_is_given_back(kept, monkeypatch):
    """After the training nothing of it is left, and the loaders decode pictures as before."""
    pieces, make = [], cache.mmap

    def noted(*size):
        piece = make(*size)
        pieces.append(weakref.ref(piece))
        return piece

    monkeypatch.setattr(cache, "mmap", noted)
    learn = quick_learner(kept)
    train(kept, learn=learn, base_lr=1e-2, lr_mult=10)
    gc.collect()
    assert [piece() for piece in pieces] == [None, None]
    assert "create_item" not in vars(learn.dls.train) and "do_item" not in vars(learn.dls.valid)
    assert training_status(kept).startswith("The model stands") and load_trained(kept).record.changed == ""


def test_the_loaders_give_what_they_gave_before(ready):
    """Training items before the crop, and whole validation items: types, pixels and labels."""
    plain, dls = image_dataloaders(ready), image_dataloaders(ready)
    keep_in_memory(dls)
    plain.valid.before_iter()
    for n in range(TRAIN):
        (ours, label), (theirs, same) = dls.train.create_item(n), plain.train.create_item(n)
        assert type(ours) is type(theirs) and np.array_equal(np.asarray(ours), np.asarray(theirs)) and label == same
    for n in range(VALID):
        (ours, label), (theirs, same) = dls.valid.do_item(n), plain.valid.do_item(n)
        assert type(ours) is type(theirs) and torch.equal(ours, theirs) and label == same
    new = dls.test_dl(list(ready.on("test").paths), num_workers=0).one_batch()[0]
    assert torch.equal(new, plain.test_dl(list(ready.on("test").paths), num_workers=0).one_batch()[0])
    give_back(dls)
    assert torch.equal(dls.valid.one_batch()[0], plain.valid.one_batch()[0])


def test_processes_share_the_memory():
    """What a child writes the parent reads; arrays of several shapes lie side by side."""
    arrays = SharedArrays([(2, 3, 3), (4, 4), (1, 1, 3)])
    if (child := os.fork()) == 0:
        for n in range(3):
            arrays[n][:] = n + 1
        os._exit(0)
    os.waitpid(child, 0)
    assert [arrays[n].shape for n in range(3)] == [(2, 3, 3), (4, 4), (1, 1, 3)]
    assert [set(arrays[n].flat) for n in range(3)] == [{1}, {2}, {3}]


def test_pictures_that_do_not_fit_are_refused_with_the_numbers(kept, monkeypatch):
    """Before anything is decoded or trained: what they need, what is free, what to do."""
    needed = sum(np.prod(PILImage.create(path).shape) * 3 for path in kept.on("train").paths) + VALID * 3 * 32 * 32
    monkeypatch.setattr(cache, "free_memory", lambda: 2 * needed - 2)
    monkeypatch.setattr(cache, "GIGABYTE", needed / 3.1)
    learn = quick_learner(kept)
    told = r"needs 3\.1 GB for 22 pictures\. Of the 6\.2 GB that are free, at most 50% may hold pictures\. Set cache ="
    with pytest.raises(FieldguideError, match=told):
        train(kept, learn=learn)
    assert "create_item" not in vars(learn.dls.train)
    monkeypatch.setattr(cache, "free_memory", lambda: 2 * needed)
    train(kept, learn=learn)


class Fractions(Transform):
    """Make pixels fractions, as a DataBlock of one's own might."""

    order = 20  # after ToTensor

    def encodes(self, pixels: TensorImage):
        return pixels.float() / 255


def test_a_block_that_opens_something_else_is_refused(kept):
    """Pictures of 16 bits or numbers that were calculated would not come back as they were."""
    block = image_block(kept.project)
    block = block.new(item_tfms=[Resize(32), Fractions()], batch_tfms=Normalize.from_stats([0.1] * 3, [0.1] * 3))
    with pytest.raises(FieldguideError, match="8 bits per channel, and the DataBlock of 04 makes something else"):
        train(kept, learn=quick_learner(kept, block))


def test_a_stopped_training_goes_on_and_keeps_its_pictures(kept, make_project, decoded):
    """The same DataLoaders decode nothing again, and a round that stands decodes nothing at all."""
    expected = train(read_dataset(make_project(**IN_MEMORY | {"cache": "none"})), 2, save=False)
    learn = quick_learner(kept)
    stop = stop_at(learn, 6)
    with pytest.raises(KeyboardInterrupt):
        train(kept, 2, learn=learn)
    stop.remove()
    decoded.clear()
    pd.testing.assert_frame_equal(figures(train(kept, 2, learn=learn)), figures(expected))
    train(kept, 2, learn=learn)
    assert set(decoded) == {"card.png"}  # how pictures reach the network is kept with a round


def test_a_spoilt_picture_is_named(kept):
    """As without memory: one sentence with the file and what to do."""
    learn = quick_learner(kept)
    path = learn.dls.train_ds.items[3]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FieldguideError, match=rf"^1 picture cannot be read, .*{path.name} among them"):
        train(kept, learn=learn)


def test_the_word_none_keeps_nothing(ready):
    """By default no callback of it is given."""
    assert "Cache" not in {type(cb).__name__ for cb in training_callbacks(ready)}
