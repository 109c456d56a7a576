"""A trained detector becomes files for programs, only if torch and the file tell the same boxes."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from drawn_boxes import fill_project, telling_much
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, SSDHead

from utils.boxes import read_photos
from utils.detect.exporting import export_detector
from utils.detect.network import DECISIONS, BoxDetector, build_detector
from utils.errors import FieldguideError
from utils.export import detector as boxes_export
from utils.export import exported_sentence, read_card
from utils.export.awkward import awkward_pictures
from utils.export.difference import undecided
from utils.inference import Detection, FoundBox, load_detector
from utils.inference.onnx_file import OnnxNetwork
from utils.project import Project
from utils.storage import file_hash

DETECT = {"task": "detect", "source": "photos", "labels": {}, "arch": "resnet18", "size": 64}
FIGURE = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 12}
SIDE = {
    "figures": {"ap50": FIGURE, "ap": FIGURE | {"value": 0.5}, "mean_iou": FIGURE, "recall": FIGURE},
    "labels": {name: {"ap50": FIGURE, "recall": FIGURE, "precision": FIGURE, "n": 6} for name in ("ball", "block")},
}
VERDICT = {"photos": 5, "found": 8, "things": 10, "wrong": 2, "label": "", "threshold": 0.3, "side": "test"}
EVALUATION = {"form": 1, "task": "detect", "valid": SIDE, "test": SIDE, "test_opened": 1, "threshold": 0.3}
EVALUATION |= {"verdict": VERDICT, "settings": {"lr": 0.001, "plan": "00ff", "losses": [1, 2]}, "changed": ""}


def judged(photos, **changes) -> None:
    """Write evaluation.json as 4_test does, for the detector.pth that is there."""
    whole = EVALUATION | {"fingerprint": photos.fingerprint} | changes
    whole.setdefault("model", file_hash(photos.project.models / "detector.pth"))
    (photos.project.models / "evaluation.json").write_text(json.dumps(whole), encoding="utf-8")


def trained_detector(photos):
    """Return a detector whose weights are drawn so that it tells many boxes, and put its file where 3_train does."""
    detector = build_detector(photos.project, photos.labels, pretrained=False).eval()
    torch.nn.init.normal_(
        detector.network.head.classification_head.cls_logits.weight, std=0.5, generator=torch.Generator().manual_seed(1)
    )
    torch.nn.init.constant_(detector.network.head.classification_head.cls_logits.bias, -6.0)
    return kept(photos, detector)


def kept(photos, detector):
    """Put a detector's file where 3_train does, and return the detector with its record."""
    path = photos.project.models / "detector.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(detector.state_dict(), path)
    detector.record = {"data": photos.fingerprint, "file": file_hash(path)}
    return detector


def photos_in(folder):
    """Return a project of twelve drawn photos in a folder."""
    roots = {"data_dir": str(folder / "data"), "models_dir": str(folder / "models")}
    project = Project.model_validate({"name": "things", "weights": "none", **roots, **DETECT})
    fill_project(project, 12)
    return read_photos(project)


@pytest.fixture(scope="module")
def few_awkward_files():
    """Four of the drawn awkward files are enough here: others take seconds to open."""
    files = awkward_pictures()
    few = {name: files[name] for name in ("turned-6.jpg", "transparent.png", "cmyk.jpg", "one-pixel.png")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boxes_export, "awkward_pictures", lambda: few)
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory, few_awkward_files):
    """A project of twelve drawn photos whose detector was exported: the photos, the detector and the export."""
    photos = photos_in(tmp_path_factory.mktemp("things"))
    detector = trained_detector(photos)
    judged(photos)
    return photos, detector, export_detector(photos, detector)


@pytest.fixture(autouse=True)
def as_judged(exported):
    """Each test finds evaluation.json as 4_test wrote it."""
    judged(exported[0])


def test_the_file_tells_the_boxes_of_torch(exported):
    """On photos that the export did not compare, too: the same labels, probabilities and corners."""
    require_torchs_boxes(load_detector(exported[0].project.models / "model.onnx"), *exported[:2])


def require_torchs_boxes(ours, photos, detector) -> None:
    """See that a loaded file tells of all photos just the boxes that torch tells, and many of them."""
    for photo, found in zip(photos, ours.predict([each.path for each in photos], threshold=0.05), strict=True):
        square = ours.recipe.square(photo.path)
        with torch.inference_mode():
            (theirs,) = detector(torch.from_numpy(square.pixels.copy())[None])
        corners = square.place.out_of(theirs["boxes"].numpy().astype(float)).tolist()
        rows = zip(theirs["labels"].tolist(), theirs["scores"].tolist(), corners, strict=True)
        size = (found.width, found.height)
        torchs = Detection(tuple(FoundBox(ours.labels[n], score, *box, size) for n, score, box in rows), *size)
        assert len(found.boxes) == len(torchs.boxes) > 3
        rules = {"least": 0.05, "overlap": detector.network.nms_thresh, "most": 100, "within": 1e-4}
        again = partial(undecided, ours, photo.path, 0.05)
        assert boxes_export.box_disagreement(torchs, found, **rules, candidates=again) == ""


class SmallMaps(torch.nn.Module):
    """In place of a backbone: two maps of 16 channels, at strides 8 and 16."""

    out_channels = 16

    def __init__(self):
        super().__init__()
        self.near, self.far = torch.nn.Conv2d(3, 16, 8, 8), torch.nn.Conv2d(16, 16, 2, 2)

    def forward(self, x):
        near = self.near(x).relu()
        return {"0": near, "1": self.far(near).relu()}


def small_network(kind: str) -> torch.nn.Module:
    """Return a network of torchvision for two labels, as `build_detector` sets it, but on `SmallMaps`."""
    if kind == "ssd":
        head = SSDHead([16, 16], [4, 4], 3)
        return SSD(SmallMaps(), DefaultBoxGenerator([[2], [2]]), (64, 64), 3, head=head, **DECISIONS)
    anchors = AnchorGenerator(((16,), (32,)), ((0.5, 1.0, 2.0),) * 2)
    return RetinaNet(SmallMaps(), 2, min_size=64, max_size=64, anchor_generator=anchors, **DECISIONS)


@pytest.mark.parametrize(("kind", "overlap"), [("ssd", 0.45), ("retinanet", 0.5)])
def test_another_one_stage_network_becomes_such_a_file(few_awkward_files, tmp_path, kind, overlap):
    """torchvision's SSD and RetinaNet, each with its own anchors, scores and overlap."""
    photos = photos_in(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        detector = BoxDetector(small_network(kind), kind, photos.labels, 64).eval()
        for weights in detector.network.head.classification_head.parameters():
            torch.nn.init.normal_(weights, std=0.12)  # keeps the spread from layer to layer: scores differ
    export = exported_as_judged(photos, detector)
    assert load_detector(export.onnx).recipe.overlap == overlap


def test_too_small_pictures_are_said():
    """Pictures that leave no place on a map: the size and what to set."""
    with pytest.raises(FieldguideError, match=r"size = 4 is too small for this detector.*Set size = 320"):
        BoxDetector(small_network("ssd"), "ssd", ("ball", "block"), 4)


def exported_as_judged(photos, detector):
    """Export a detector as 4_test does, and see that the file tells torch's boxes."""
    kept(photos, detector)
    judged(photos)
    export = export_detector(photos, detector)
    require_torchs_boxes(load_detector(export.onnx), photos, detector)
    return export


@pytest.mark.long
def test_ssdlite_becomes_such_a_file(few_awkward_files, tmp_path):
    """Whole, as a project file names it."""
    photos = photos_in(tmp_path)
    project = photos.project.model_copy(update={"detector": "ssdlite320_mobilenet_v3_large"})
    exported_as_judged(photos, telling_much(build_detector(project, photos.labels, pretrained=False)))


def test_any_number_of_photos_goes_in_at_once(exported):
    """The batch is free; metadata say all that a program must know, and nothing of this machine."""
    photos, _, export = exported
    ours = load_detector(export.onnx)
    assert [ours.raw(np.zeros((n, 64, 64, 3), np.uint8))[0].shape[0] for n in (1, 3)] == [1, 3]
    assert (ours.labels, ours.threshold, ours.recipe.overlap, ours.recipe.longest_side) == (
        ("ball", "block"),
        0.3,
        0.6,
        640,
    )
    assert str(photos.project.models_dir).encode() not in export.onnx.read_bytes()


def test_the_card_says_what_it_is_and_how_good(exported):
    """card.json is read as any card; the words hold verdict, figures, counts, licences and how to use it."""
    photos, _, export = exported
    card = read_card(export.onnx)
    boxes = sum(len(photo.boxes) for photo in photos)
    assert (card["task"], card["labels"], card["threshold"]) == ("detect", ["ball", "block"], 0.3)
    assert sum(sum(own.values()) for own in card["counts"].values()) == boxes
    assert set(card["sha256"]) == {
        *("model.onnx", "ATTRIBUTION.csv", "detector.pth", "split.csv", "boxes.csv"),
        "MODEL_CARD.md",
    }
    words = export.words.read_text()
    wanted = (
        "> Of 10 boxes in 5 held-out photos it finds 8 (AP50",
        "It finds “ball” and “block” in photos",
        "| overlap of each thing with its box, mean (IoU) | 80.0 % (70.0 % to 90.0 %) |",
        "| block | 6 | 80.0 % (70.0 % to 90.0 %)",
        "| plan | 00ff |",
        "load_detector",
        "pipeline_tag: object-detection",
        "The licence of 12 of its 12 photos is unknown",
        f"with {boxes} boxes",
    )
    assert [text for text in wanted if text not in words] == []
    assert (photos.project.models / "ATTRIBUTION.csv").read_text().count("\n") == 13


def test_exported_again_nothing_changes(exported):
    """The same detector rewrites no file; the sentence counts what was compared."""
    photos, detector, export = exported
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in photos.project.models.glob("[!.]*")}
    again = export_detector(photos, detector)
    after = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in photos.project.models.glob("[!.]*")}
    assert (again.backup, after) == (None, before)
    assert "held-out photos and 4 drawn awkward ones" in exported_sentence(export) and export.boxes > 100


def test_another_figure_keeps_the_earlier_set(exported):
    """Files that change are kept whole in exports/001 first."""
    photos, detector, _ = exported
    before = (photos.project.models / "MODEL_CARD.md").read_text()
    judged(photos, verdict=VERDICT | {"found": 9})
    changed = export_detector(photos, detector)
    assert (changed.backup / "MODEL_CARD.md").read_text() == before != changed.words.read_text()
    assert "it finds 8" in json.loads((changed.backup / "card.json").read_text())["told"]
    judged(photos)
    export_detector(photos, detector)


def test_a_file_that_tells_other_boxes_is_refused(exported, monkeypatch):
    """Boxes moved by a hundredth, and nothing is put in place: the refusal names the photo and the difference."""
    photos, detector, _ = exported
    card = (photos.project.models / "card.json").read_bytes()
    real = OnnxNetwork.boxes
    monkeypatch.setattr(
        OnnxNetwork, "boxes", lambda self, pixels: (real(self, pixels)[0] * 0.95, real(self, pixels)[1])
    )
    with pytest.raises(
        FieldguideError, match=r"torch and model.onnx disagree on .*: .* differs by 0\.0[0-9]+\. Nothing"
    ):
        export_detector(photos, detector)
    assert (photos.project.models / "card.json").read_bytes() == card
    assert not (photos.project.models / ".export").exists()


def test_a_network_that_decides_inside_is_said_to_stay(exported):
    """faster R-CNN cannot become such a file: no file changes, and a sentence says why and what to do."""
    photos, detector, _ = exported
    before = (photos.project.models / "card.json").read_bytes()
    project = photos.project.model_copy(update={"detector": "fasterrcnn_mobilenet_v3_large_320_fpn"})
    other = build_detector(project, photos.labels, pretrained=False)
    other.record = detector.record
    export = export_detector(photos, other)
    said = exported_sentence(export)
    assert export.onnx is None and (photos.project.models / "card.json").read_bytes() == before
    assert "No model.onnx was written: fasterrcnn_mobilenet_v3_large_320_fpn decides inside" in said
    assert "detector.pth" in said and "or a detector of one stage" in said


def test_a_network_of_other_operations_is_said_to_stay(exported, monkeypatch):
    """Where torch's exporter fails, its first line stands in the sentence."""
    photos, detector, _ = exported

    def fails(*_):
        raise RuntimeError("no such operation\nsecond line")

    monkeypatch.setattr(boxes_export, "onnx_bytes", fails)
    monkeypatch.setattr(boxes_export, "onnx_made_before", lambda *_: None)
    export = export_detector(photos, detector)
    said = exported_sentence(export)
    assert (
        "as ONNX (no such operation). " in said and f"{photos.project.models / 'model.onnx'} is of an earlier" in said
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "0" * 64}, "trained again since it was judged. Run 4_test again"),
        ({"fingerprint": "0" * 16}, "changed since the training. Run 3_train and 4_test again"),
        (None, "There is no .*evaluation.json. Run 4_test"),
    ],
)
def test_what_was_not_judged_is_not_exported(exported, changes, words):
    """Another detector.pth, other photos or no evaluation: one sentence says what to run again."""
    photos, detector, _ = exported
    judged(photos, **(changes or {}))
    if changes is None:
        (photos.project.models / "evaluation.json").unlink()
    with pytest.raises(FieldguideError, match=words):
        export_detector(photos, detector)


def test_boxes_differ_only_where_digits_do_not_decide():
    """At the threshold, at the overlap and behind a box that is at either, one answer may have a box more."""
    size = (100, 100)
    rules = {"least": 0.05, "overlap": 0.5, "most": 100}
    sure = FoundBox("a", 0.9, 0.0, 0.0, 0.5, 0.5, size)
    faint = FoundBox("a", 0.0504, 0.6, 0.6, 0.9, 0.9, size)
    half = FoundBox("a", 0.5, 0.0, 0.0, 0.5, 0.2502, size)  # overlaps `sure` by 0.5004
    other = FoundBox("b", 0.5, 0.0, 0.0, 0.5, 0.2502, size)
    behind = FoundBox("a", 0.4, 0.0, 0.0, 0.5, 0.24, size)  # would be dropped by `half`
    for extra in ((faint,), (half,), ()):
        assert boxes_export.box_disagreement(Detection((sure,)), Detection((sure, *extra)), **rules) == ""
    assert boxes_export.box_disagreement(Detection((sure, half)), Detection((sure, behind)), **rules) == ""
    first = FoundBox("a", 0.9002, 0.0, 0.1, 0.5, 0.55, size)  # as probable as `sure`, and on the same thing
    swapped = {"candidates": lambda: (sure, first)}
    assert boxes_export.box_disagreement(Detection((sure,)), Detection((first,)), **rules, **swapped) == ""
    for known in ((first,), ()):  # the network does not give `sure` at all: it was not dropped, but is another box
        moved = {"candidates": lambda known=known: known}
        told = boxes_export.box_disagreement(Detection((sure,)), Detection((first,)), **rules, **moved)
        assert "differs by 0.1" in told
    for extra in (other, behind):
        assert "only one finds" in boxes_export.box_disagreement(Detection((sure,)), Detection((sure, extra)), **rules)
