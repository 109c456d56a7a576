"""A size of two numbers, height and width: training keeps its shape, validation and every export show the same."""

import json

import numpy as np
import onnxruntime
import pytest
import small_set
from fastai.learner import load_learner
from fastai.vision.all import PILImage, RandomResizedCrop
from small_set import fill, killed, quick_learner, train

from utils.evaluate.heatmaps import heat_maps
from utils.export.formats import save_learner, save_onnx
from utils.inference import load_classifier
from utils.inference.vetting import vet
from utils.pictures import margins, open_picture, squish_and_crop
from utils.train import architecture, image_dataloaders, load_trained, read_checkpoint, training_status
from utils.train.record import asked_settings, changed_sentence
from utils.train.schedule import learning_rates

ready, plain = small_set.ready, small_set.plain
SIZE = [32, 64]  # height, width


@pytest.fixture
def wide(make_project):
    """Return the data set of a project whose network sees pictures twice as wide as high."""
    return fill(make_project(size=SIZE))


def test_training_crops_have_the_shape_that_is_asked_for(make_project):
    """Of 200 crops from a photo of that shape none is more than a third wider or narrower, and none is a square."""
    crop = next(step for step in image_dataloaders(fill(make_project(size=SIZE))).train.after_item.fs)
    assert isinstance(crop, RandomResizedCrop)
    photo, shapes = PILImage.create(np.zeros((200, 400, 3), dtype=np.uint8)), []
    for _ in range(200):
        assert crop(photo, split_idx=0).shape == (32, 64)
        shapes.append(crop.cp_size[0] / crop.cp_size[1])
    assert 1.45 < min(shapes) < 1.7 and 2.3 < max(shapes) < 2.75


def test_one_number_is_cut_as_it_always_was(ready):
    """The recipe of a square is to the letter the text that stands in models trained before: they stay current."""
    assert asked_settings(ready)["item_tfms"] == [
        "RandomResizedCrop -- {'size': (32, 32), 'min_scale': 0.6, 'ratio': (0.75, 1.3333333333333333), 'resamples': "
        "(<Resampling.BILINEAR: 2>, <Resampling.NEAREST: 0>), 'val_xtra': 0.14, 'max_scale': 1.0, 'p': 1.0}",
        "ToTensor(enc:2,dec:0)",
    ]
    assert asked_settings(ready)["size"] == 32


def test_validation_cuts_each_side_in_proportion(wide):
    """Twelve hundredths of either side are cut off; the pixels are those of the one preparation for prediction."""
    below, beside = margins(SIZE)
    assert (below, beside) == (4, 8)
    batch = image_dataloaders(wide).valid.one_batch()[0]
    assert batch.shape[1:] == (3, 32, 64)
    dls = image_dataloaders(wide)
    pixels = dls.valid.after_batch.decode((batch,))[0].permute(0, 2, 3, 1).round()
    for path, seen in zip(wide.on("valid").paths, pixels.numpy(), strict=False):
        ours = np.asarray(squish_and_crop(open_picture(path), SIZE, extra=margins(SIZE)))
        assert np.abs(ours.astype(int) - (255 * seen if seen.max() <= 1 else seen)).max() <= 2


def test_it_travels_from_the_record_to_every_export(wide, tmp_path):
    """Record, checkpoint, pickle, ONNX file, fastai's own loading and the heat maps agree on 32 × 64."""
    learn = quick_learner(wide)
    train(wide, learn=learn, **learning_rates(wide.project))
    assert learn.record.changed == "" and learn.record.settings["size"] == SIZE
    assert json.loads(json.dumps(learn.record.settings)) == learn.record.settings
    assert training_status(wide).startswith("The model stands")
    loaded = load_trained(wide)

    save_learner(loaded, tmp_path / "export.pkl", bits=12)
    vet(tmp_path / "export.pkl")
    classifier = load_classifier(tmp_path / "export.pkl")
    assert (classifier.recipe.size, classifier.recipe.extra, classifier.recipe.bits) == ((32, 64), (4, 8), 12)
    assert "32 × 64 pixels" in repr(classifier)
    recipe = {"longest_side": 512, "size": SIZE, "extra": [4, 8]}
    metadata = {"labels": '["cat", "dog"]', "recipe": json.dumps(recipe)}
    save_onnx(loaded, tmp_path / "model.onnx", metadata=metadata)
    session = onnxruntime.InferenceSession((tmp_path / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["N", 32, 64, 3]

    paths, theirs = list(wide.on("valid").paths), load_learner(tmp_path / "export.pkl")
    with theirs.no_bar():
        expected = theirs.get_preds(dl=theirs.dls.test_dl(paths, num_workers=0))[0].numpy()
    for path in ("export.pkl", "model.onnx"):
        told = [list(p.probabilities.values()) for p in load_classifier(tmp_path / path).predict(paths)]
        assert np.abs(np.array(told) - expected).max() < 1e-4

    shown, heat = heat_maps(loaded, paths)
    assert shown.shape == (len(paths), 32, 64, 3) and heat.shape[2] > heat.shape[1]


def test_a_stopped_training_of_two_numbers_goes_on(wide, capsys):
    """The second run trains only what was missing, and ends with the record that it would have had."""
    rates = learning_rates(wide.project)
    killed(wide, 6, **rates)
    train(wide, **rates)
    assert "goes on from epoch 1 of 1" in capsys.readouterr().out
    assert read_checkpoint(wide.project)["settings"]["size"] == SIZE


def test_a_change_of_size_is_told_as_height_and_width(wide):
    """The sentence has both numbers as people write them."""
    asked = asked_settings(wide)
    told = changed_sentence(asked | {"size": 48}, asked)
    assert told == "Cells of 04 were changed: it trained with size = 48 instead of 32 × 64."


@pytest.mark.parametrize("size", [[96, 100], [100, 96]])
def test_each_side_has_its_multiple(make_project, size):
    """Of the packaged network one side alone may be off; the advice keeps the other."""
    with pytest.warns(UserWarning, match=r"is not a multiple of 32.* Set size = 96 in the project file"):
        architecture(make_project(arch="efficientnet_lite0", size=size))
    with pytest.warns(UserWarning, match=r"size = \[100, 200\] is not .* Set size = \[96, 192\] in"):
        architecture(make_project(arch="efficientnet_lite0", size=[100, 200]))


def test_fastais_own_wide_crop_is_read_too(tmp_path, wide):
    """A DataBlock of one's own may hold RandomResizedCrop alone, which adds the same pixels to both sides."""
    learn = quick_learner(wide)
    for loader in learn.dls.loaders:
        loader.after_item.fs[:] = [RandomResizedCrop((32, 64)), loader.after_item.fs[-1]]
    save_learner(learn, tmp_path / "export.pkl")
    classifier, path = load_classifier(tmp_path / "export.pkl"), wide.paths[0]
    assert (classifier.recipe.size, classifier.recipe.extra) == ((32, 64), 16)
    seen = RandomResizedCrop((32, 64))(PILImage.create(path), split_idx=1)
    assert np.array_equal(classifier.recipe.pixels(path), np.asarray(seen)) and seen.size == (64, 32)
