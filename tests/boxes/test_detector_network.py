"""The detectors: torchvision's own answers, the part that is exported, labels, ignored boxes, and names."""

import pytest
import torch
from drawn_boxes import telling_much

from utils.detect.loading import BoxPictures
from utils.detect.network import LEAST_SCORE, MOST_BOXES, build_detector, decided, raw_outputs
from utils.errors import FieldguideError
from utils.export.difference import box_disagreement
from utils.inference import Detection, FoundBox
from utils.project import Project

DETECT = {"name": "things", "task": "detect", "source": "photos", "size": 96, "weights": "none"}
OTHERS = ("fasterrcnn_mobilenet_v3_large_320_fpn", "retinanet_resnet50_fpn", "ssdlite320_mobilenet_v3_large")

ONE_STAGE = ("fcos_resnet50_fpn", "retinanet_resnet50_fpn", "ssdlite320_mobilenet_v3_large")


def project_of(**settings) -> Project:
    return Project.model_validate(DETECT | settings)


def pixels_of(count: int = 2, size: int = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def target(boxes, labels, ignored=()) -> dict:
    given = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    hidden = torch.tensor(ignored, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": given, "labels": torch.tensor(labels, dtype=torch.int64), "ignored": hidden}


def as_fractions(found: dict, size: int = 96) -> Detection:
    """Return the boxes of one picture as an exported detector tells them."""
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), (found["boxes"] / size).tolist(), strict=True)
    return Detection(tuple(FoundBox(str(label), score, *box, (size, size)) for label, score, box in rows))


@pytest.fixture(scope="module")
def fcos():
    return build_detector(project_of(weights="imagenet"), ("cat", "dog")).eval()


def test_fcos_answers_as_torchvisions_own(fcos):
    """Our shorter way through FCOS, which neither resizes nor copies, gives the boxes of torchvision's forward."""
    pixels = pixels_of()
    with torch.no_grad():
        ours, theirs = fcos(pixels), fcos.network(list(pixels.permute(0, 3, 1, 2) / 255))
    for mine, other in zip(ours, theirs, strict=True):
        assert len(mine["boxes"]) > 0
        torch.testing.assert_close(mine["boxes"], other["boxes"], atol=1e-3, rtol=0)
        assert torch.equal(mine["labels"], other["labels"])


@pytest.mark.parametrize("name", ["fcos", *ONE_STAGE])
def test_the_exported_part_and_plain_suppression_give_the_same_boxes(name, fcos):
    """`raw_outputs` and `decided` find just the boxes that the network itself finds."""
    detector = fcos if name == "fcos" else telling_much(build_detector(project_of(detector=name), ("cat", "dog")))
    pixels, overlap = pixels_of(), detector.network.nms_thresh
    with torch.no_grad():
        whole = detector(pixels)
        parts = [decided(*one, overlap) for one in zip(*raw_outputs(detector, pixels), strict=True)]
    rules = {"least": LEAST_SCORE, "overlap": overlap, "most": MOST_BOXES, "within": 1e-4}
    for mine, other in zip(whole, parts, strict=True):
        assert len(mine["boxes"]) > (0 if name == "fcos" else 50) and len(mine["scores"].unique()) > 5
        assert box_disagreement(as_fractions(mine), as_fractions(other), **rules) == ""


def test_a_pretrained_backbone_keeps_its_normalisation(fcos):
    """A training step moves no running mean of the backbone; validation losses move nothing at all."""
    before = {name: value.clone() for name, value in fcos.state_dict().items() if "running" in name}
    fcos.train()
    fcos(pixels_of(), [target([[10, 10, 60, 60]], [0]), target([], [])])
    fcos.eval()
    assert all(torch.equal(value, before[name]) for name, value in fcos.state_dict().items() if name in before)


@pytest.mark.parametrize("name", ["fcos", "retinanet_resnet50_fpn"])
def test_a_group_box_is_no_negative(name):
    """The classification loss is lower where places inside a group box do not count; a thing inside it still does."""
    detector = build_detector(project_of(detector=name), ("cat", "dog")).eval()
    assert detector.ignores
    alone, grouped = target([], []), target([], [], [[0, 0, 96, 96]])
    thing, both = target([[10, 10, 60, 60]], [1]), target([[10, 10, 60, 60]], [1], [[0, 0, 96, 96]])
    with torch.no_grad():
        losses = [detector(pixels_of(1), [one])[0]["classification"].item() for one in (alone, grouped, thing, both)]
    assert losses[0] > 0 and losses[1] == pytest.approx(0, abs=1e-6)
    assert 0 < losses[3] < losses[2]


def test_where_the_loss_cannot_ignore_groups_are_grey(make_project):
    """For faster R-CNN and SSD what only a group box covers is painted grey; a thing in it stays."""
    from drawn_boxes import fill_project

    from utils.boxes import Box, read_boxes, read_photos, write_boxes

    project = make_project(task="detect", source="photos", labels={}, arch="efficientnet_lite0", size=64)
    fill_project(project, 6)
    boxes = read_boxes(project.table("boxes"))
    id = min(boxes)
    write_boxes(project.table("boxes"), boxes | {id: (boxes[id][0], Box("ball", 0, 0, 1, 1, ("group",)))})
    photos = read_photos(project)
    plain, hidden = BoxPictures(photos), BoxPictures(photos, hide=True)
    place = [photo.id for photo in photos].index(id)
    (seen, told), (grey, _) = plain[0, place], hidden[0, place]
    left, top, right, bottom = told["boxes"][0].round().int().tolist()
    middle = slice(top + 2, bottom - 2), slice(left + 2, right - 2)
    assert len(told["boxes"]) == 1 and len(told["ignored"]) == 1
    assert (grey == 127).all(-1).float().mean() > 0.5 > (seen == 127).all(-1).float().mean()
    assert (grey[middle].int() - seen[middle].int()).abs().max() <= 2


@pytest.mark.parametrize("name", OTHERS)
def test_torchvisions_detectors_count_labels_as_we_do(name):
    """Labels go in and come out as 0 to K − 1, whatever the network counts from; losses are told in evaluation, too."""
    detector = build_detector(project_of(detector=name), ("cat", "dog")).eval()
    with torch.no_grad():
        losses, found = detector(pixels_of(), [target([[10, 10, 60, 60]], [1]), target([], [])])
    assert all(torch.isfinite(loss) for loss in losses.values())
    labels = torch.cat([one["labels"] for one in found])
    assert set(labels.tolist()) <= {0, 1}
    assert not any(layer.training for layer in detector.modules())


def test_every_place_begins_where_it_can_learn():
    """FCOS cuts distances off at 0, where no gradient comes back: a new head begins above it at every place."""
    detector = build_detector(project_of(weights="imagenet", seed=3), ("cat",)).eval()
    with torch.no_grad():
        _, outputs = detector.maps_and_outputs(pixels_of())
    assert (outputs["bbox_regression"] > 1).all()


def test_the_seed_draws_the_head():
    """Two builds begin alike; another seed begins otherwise."""
    first, again, other = (build_detector(project_of(seed=seed), ("cat",)).state_dict() for seed in (1, 1, 2))
    name = "network.head.classification_head.cls_logits.weight"
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])


def test_weights_that_cannot_be_had_name_the_way_on(monkeypatch, tmp_path):
    """Without a network connection the error names the detector, and the one that needs no download."""

    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    project = project_of(detector="ssdlite320_mobilenet_v3_large", weights="imagenet")
    with pytest.raises(FieldguideError, match=r'COCO weights of ssdlite320.*Set detector = "fcos"'):
        build_detector(project, ("cat",))


def test_coco_weights_stay_and_the_head_is_new(monkeypatch, tmp_path):
    """Weights that lie in torch's cache are taken; the last layer is that of our labels."""
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large as ssdlite

    from utils.detect import network

    theirs = ssdlite(weights=None, weights_backbone=None).state_dict()
    url = "https://download.pytorch.org/models/ssdlite320_mobilenet_v3_large_coco-a79551df.pth"
    path = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    torch.save(theirs, path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(network, "hub_weights", lambda *_, **__: path)  # it knows the real file by its SHA-256
    project = project_of(detector="ssdlite320_mobilenet_v3_large", weights="imagenet")
    ours = build_detector(project, ("cat",)).network.state_dict()
    other = [name for name in theirs if not torch.equal(theirs[name], ours.get(name, torch.zeros(0)))]
    assert other and all("classification_head.module_list" in name and ".1." in name for name in other)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"arch": "vit_b_16"}, "cannot cut"),
        ({"detector": "retinanet_resnet50_fpn", "weights": "mine.pth"}, "brings its own weights"),
    ],
)
def test_what_cannot_be_built_is_said(settings, says):
    """A backbone without maps of three sizes, and weights that a detector does not take."""
    with pytest.raises(FieldguideError, match=says):
        build_detector(project_of(**settings), ("cat",), pretrained="weights" in settings)
