"""Heat maps against a network whose reasons are known and against autograd's own; diagrams that draw what is stored."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import draw_picture
from fastai.data.all import CategoryBlock, DataBlock, IndexSplitter, Normalize, parent_label
from fastai.vision.all import (
    ImageBlock,
    Learner,
    RandomResizedCrop,
    accuracy,
    imagenet_stats,
    no_random,
    resnet18,
    vision_learner,
)
from PIL import Image, ImageDraw
from torch import nn

from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.evaluate.diagrams import reliability_diagram, verdict_picture
from utils.evaluate.heatmaps import heat_maps, heat_strip, overlay
from utils.pictures import jpeg_bytes, open_picture, squish_and_crop
from utils.storage import write_whole


@pytest.fixture
def ready(make_project):
    """Return the data set of a project of 64 px with twelve training copies a label."""
    project = make_project(size=64)
    for n, label in enumerate(project.labels):
        for k in range(12):
            data = jpeg_bytes(draw_picture(100 * n + k, colour="navy"))
            write_whole(project.images / label / f"{label}{k:02}.jpg", data)
    return read_dataset(project)


def loaders(dataset):
    """Return DataLoaders with 04's transforms; every fourth picture validates."""
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_y=parent_label,
        splitter=IndexSplitter(range(0, len(dataset), 4)),
        item_tfms=RandomResizedCrop(64, min_scale=0.6),
        batch_tfms=Normalize.from_stats(*imagenet_stats),
    )
    return block.dataloaders(list(dataset.paths), bs=4, num_workers=0)


class Redness(nn.Module):
    """Body: how red each of 8×8 places is (channel 0), and how blue (channel 1)."""

    def forward(self, x):
        """(B, 3, 64, 64) → (B, 2, 8, 8)."""
        red, green, blue = x[:, :1], x[:, 1:2], x[:, 2:]
        return nn.functional.avg_pool2d(torch.cat([red - green - blue, blue - red - green], 1), 8).relu()


def with_body(dataset, body):
    """Return a learner whose label cat is the body's channel 0, and dog its channel 1."""
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False))
    head[2].weight.data = torch.eye(2)
    return Learner(loaders(dataset), nn.Sequential(body, head), metrics=accuracy)


def test_the_heat_is_where_the_reason_is(ready, tmp_path):
    """A network for which red means cat and blue means dog looks at the red and at the blue square."""
    image = Image.new("RGB", (400, 400), "black")
    draw = ImageDraw.Draw(image)
    draw.rectangle((60, 60, 110, 110), fill="red")
    draw.rectangle((250, 290, 330, 340), fill="blue")
    image.save(tmp_path / "a.jpg", quality=95)
    learn = with_body(ready, Redness())
    for label, (x, y) in {"cat": (85, 85), "dog": (290, 315)}.items():
        shown, heat = heat_maps(learn, [tmp_path / "a.jpg"], labels=[label])
        assert (shown.shape, heat.shape) == ((1, 64, 64, 3), (1, 8, 8))
        row, column = np.unravel_index(heat[0].argmax(), (8, 8))
        # The transforms make 80 pixels of the side and cut off eight at each edge.
        assert (column, row) == (int((x / 400 * 80 - 8) // 8), int((y / 400 * 80 - 8) // 8))
        assert heat.max() == 1.0 and heat.min() == 0.0


def test_the_heat_is_autograds_own(ready):
    """For a resnet18 the maps are those that the gradient through the whole network gives, picture by picture."""
    with no_random(0):
        learn = vision_learner(loaders(ready), resnet18, pretrained=False)
    paths = list(ready.paths)[:19]  # several batches
    labels = [("cat", "dog", "dog")[n % 3] for n in range(19)]
    before = {name: value.clone() for name, value in learn.model.state_dict().items()}
    _, heat = heat_maps(learn, paths, labels=labels)
    assert all(torch.equal(value, before[name]) for name, value in learn.model.state_dict().items())
    for n, path in enumerate(paths):
        x = learn.dls.test_dl([path], num_workers=0).one_batch()[0].as_subclass(torch.Tensor)
        maps = learn.model[0](x)
        maps.retain_grad()
        learn.model[1](maps)[0, list(learn.dls.vocab).index(labels[n])].backward()
        cam = (maps.grad.mean((2, 3), keepdim=True) * maps).sum(1)[0].relu().detach().numpy()
        assert heat[n] == pytest.approx(cam / max(cam.max(), 1e-30), abs=1e-4)


def test_what_is_shown_is_what_the_network_sees(ready):
    """The pictures under the maps are the validation transform's own, in their order, to a grey level or two."""
    paths = list(ready.paths)[:6]
    shown, _ = heat_maps(with_body(ready, Redness()), paths)
    expected = [np.asarray(squish_and_crop(open_picture(path), 64, extra=16)) for path in paths]
    assert np.abs(shown.astype(int) - np.stack(expected).astype(int)).max() <= 2


def test_without_labels_the_networks_own_are_taken(ready):
    """What it says of each picture is what is explained."""
    learn = with_body(ready, Redness())
    paths = list(ready.paths)[:6]
    said = learn.get_preds(dl=learn.dls.test_dl(paths))[0].argmax(1)
    own = heat_maps(learn, paths)[1]
    assert (own == heat_maps(learn, paths, labels=[learn.dls.vocab[k] for k in said])[1]).all()


class Flat(nn.Module):
    """Body of a vision transformer's kind: features without places."""

    def forward(self, x):
        """(B, 3, 64, 64) → (B, 5, 16)."""
        return x.flatten(1)[:, :80].reshape(-1, 5, 16)


def test_a_network_without_places_says_so(ready):
    """Features without a map, and a network that is no body and head, are named, and what to train instead."""
    paths = list(ready.paths)[:1]
    with pytest.raises(FieldguideError, match=r"ends in 5×16 numbers and not in a map of places.*resnet18"):
        heat_maps(with_body(ready, Flat()), paths)
    with pytest.raises(FieldguideError, match="not made of a body and a head"):
        heat_maps(Learner(loaders(ready), nn.Flatten(), metrics=accuracy), paths)


def test_a_picture_that_is_gone_is_named(ready):
    """Deleted between the table and the strip."""
    path = ready.paths[0]
    path.unlink()
    with pytest.raises(FieldguideError, match=r"no longer there\. Run 04 and 05 again"):
        heat_maps(with_body(ready, Redness()), [path])


def test_the_strip_has_three_rows(ready):
    """Picture, map for what was said, map for its own label: three rows of as many columns; none for no picture."""
    paths = list(ready.paths)[:2]
    table = pd.DataFrame({"file": [f"{p.parent.name}/{p.name}" for p in paths], "label": ["cat", "cat"]})
    table["predicted"], table["probability"] = "dog", 0.9
    strip = heat_strip(ready, with_body(ready, Redness()), table, side=100)
    assert strip.size == (2 * 106 + 6, 3 * 122 + 6)
    assert heat_strip(ready, with_body(ready, Redness()), table[:0]).width < 200


def test_a_cold_map_leaves_the_picture_as_it_is():
    """No heat, no colour; full heat covers about half."""
    picture = draw_picture(0, size=(40, 30))
    assert overlay(picture, np.zeros((4, 4))).tobytes() == picture.tobytes()
    hot = np.asarray(overlay(Image.new("RGB", (8, 8)), np.ones((2, 2))), dtype=int)
    assert hot.shape == (8, 8, 3) and 100 < hot[0, 0, 0] < 160


@pytest.mark.parametrize("temperature", [1.4, None])
def test_the_diagram_draws_with_and_without_a_temperature(temperature):
    """Bins before, and none after where nothing could be fitted."""
    right = {"value": 0.5, "low": 0.1, "high": 0.9, "n": 2}
    bins = [{"from": 0.5, "to": 0.6, "sure": 0.55, "right": right}]
    stored = {"before": bins, "after": bins if temperature else []}
    fitted = {"value": temperature, "low": None, "high": None}
    assert reliability_diagram({"temperature": fitted, "reliability": stored}).size == (810, 396)


@pytest.mark.parametrize(("right", "n", "guess"), [(23, 36, 18), (0, 1, 1), (4, 4, 4), (5050, 10_000, 5_000)])
def test_the_verdict_has_a_picture(right, n, guess):
    """As wide for one photo as for many; what is right is blue, from the left."""
    picture = verdict_picture({"right": right, "n": n, "guess": guess, "side": "test"}).convert("RGB")
    blue, orange = ((np.asarray(picture)[80] == colour).all(1).sum() for colour in ((0, 114, 178), (230, 159, 0)))
    assert picture.size == (810, 198)
    assert blue / (blue + orange) == pytest.approx(right / n, abs=0.02)
