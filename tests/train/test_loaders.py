"""04, the pictures: the split that was decided is the one that trains, and what cannot train is named beforehand."""

import pytest
import small_set
import torch
from conftest import draw_picture, picture_bytes
from fastai.vision.all import PILImage

from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.train import loaders
from utils.train.loaders import image_block, image_dataloaders, training_loss, validation_view

ready, plain = small_set.ready, small_set.plain
SPOILT = [lambda data: b"", lambda data: b"<html>", lambda data: data[: len(data) // 2]]


def test_the_sides_of_the_loaders_are_those_of_the_split(ready):
    """Each picture trains or judges as split.csv says; the test set does neither."""
    dls = image_dataloaders(ready, image_block(ready.project))
    got = {path.stem: "train" for path in dls.train_ds.items} | {path.stem: "valid" for path in dls.valid_ds.items}
    assert got == {picture.id: picture.side for picture in ready if picture.side != "test"}
    assert list(dls.vocab) == ["cat", "dog"]


def test_other_sides_can_be_given_for_a_fold(ready):
    """Cross-validation uses the same loaders with sides of its own; a picture without a side is left out."""
    sides = {id: "valid" if n % 3 == 0 else "train" for n, id in enumerate(ready.ids[1:])}
    dls = image_dataloaders(ready, sides=sides)
    assert {path.stem for path in dls.valid_ds.items} == set(ready.ids[1::3])
    assert len(dls.train_ds) + len(dls.valid_ds) == 2 * len(small_set.SIDES) - 1


def test_without_a_split_the_loaders_say_which_notebook_to_run(ready):
    """Before 03 no picture has a side."""
    ready.project.table("split").unlink()
    with pytest.raises(FieldguideError, match=r"training set of 'pets' is empty\. Run 02 and 03 first"):
        image_dataloaders(read_dataset(ready.project))


def test_a_picture_without_a_side_stops_the_training(ready):
    """New pictures need 03 first, else the model would pass for one that knows them."""
    (ready.project.images / "cat" / f"{'0' * 16}.jpg").write_bytes(picture_bytes(draw_picture(7777)))
    with pytest.raises(FieldguideError, match=r"1 picture without a side, 0{16} among them\. Run 03 first"):
        image_dataloaders(read_dataset(ready.project))


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_cannot_be_read_is_said_before_a_batch_is_made(ready, spoil):
    """04 shows a batch first: a picture cut short would end there in a traceback that does not name it."""
    path = ready.on("valid").paths[-1]
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(FieldguideError, match=rf"^1 picture cannot be read, .*{path.name}.*run 04 again"):
        image_dataloaders(ready)


def test_what_is_not_a_jpeg_or_has_more_behind_its_end_is_read(ready):
    """A person may put a picture of their own in a picture's place: what opens, trains."""
    first, second, *_ = ready.on("train").paths
    first.write_bytes(first.read_bytes() + b"more")
    PILImage.create(second).save(second, "PNG")
    assert len(image_dataloaders(ready).train_ds) == 16


@pytest.mark.parametrize("left", [1, 0])
def test_a_label_with_nothing_to_learn_from_is_named(ready, left):
    """One training picture of a label, or all pictures in the other one: said before anything is trained."""
    for path in ready.on("train").of("cat").paths[left:]:
        path.rename(ready.project.images / "dog" / path.name)
    with pytest.raises(
        FieldguideError, match=rf"^Nothing can be learned of cat \({left} in the training set\): 2 pictures are the"
    ):
        image_dataloaders(read_dataset(ready.project))


def test_class_weights_are_those_counted_by_hand(ready, make_project):
    """4 cats and 8 dogs train: N / (K · n) = 12 / 8 and 12 / 16; without the switch there are no weights."""
    for path in ready.on("train").of("cat").paths[4:]:
        path.unlink()
    project = make_project(class_weights=True)
    assert training_loss(read_dataset(project)).func.weight.tolist() == pytest.approx([12 / 8, 12 / 16])
    assert training_loss(ready).func.weight is None


def test_the_view_tells_datablocks_apart_that_judge_differently(ready, make_project):
    """Another size or normalisation shows; another augmentation does not: validation pictures never meet it."""
    view = validation_view(image_dataloaders(ready))
    state = torch.get_rng_state()
    blocks = [image_block(make_project(**other)) for other in ({"augment": "strong"}, {"size": 48})]
    plain = loaders.image_block(ready.project)
    plain.batch_tfms = plain.batch_tfms[:-1]
    strong, large, bare = (validation_view(image_dataloaders(ready, block)) for block in (*blocks, plain))
    assert torch.equal(view, strong) and view.shape == (3, 32, 32) and large.shape == (3, 48, 48)
    assert float((view - bare).abs().max()) > 0.5
    assert torch.equal(torch.get_rng_state(), state)
