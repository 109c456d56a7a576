"""The page of a detector: Python's own boxes, drawn on the visitor's photo, on every screen."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser.conftest import SCREENSHOTS
from drawn_detector import LABELS, detector_card, save_detector, things
from PIL import Image

from page.conftest import Visit, visited
from page.odd_pictures import exact_pictures, file_of
from page.test_page_visits import ORANGE, broken_rules
from utils.errors import FieldguideError
from utils.export import page as page_export
from utils.export.awkward import awkward_pictures
from utils.export.boxpage import require_boxes_of_page, told_by_page
from utils.export.difference import box_disagreement
from utils.export.page import write_files
from utils.inference import Detector, load_detector
from utils.inference.commands import main as find_command
from utils.inference.suppression import suppressed
from utils.page import served
from utils.page.asking import open_page
from utils.project import Project

pytestmark = pytest.mark.browser

SUPPRESS = """async ([boxes, scores, rules]) => {
    const { strongest } = await import(new URL("boxes.js", location.href).href);
    const told = strongest(Float32Array.from(boxes.flat()), Float32Array.from(scores.flat()), rules);
    return told.map(({ label, at }) => [at, label]);
}"""
SQUARE = """async ([bytes, size]) => {
    const { prepared } = await import(new URL("pictures.js", location.href).href);
    const recipe = { longest_side: 512, size: [size, size], resample: "bilinear", bits: null };
    const { input } = await prepared(new Blob([new Uint8Array(bytes)]), recipe);
    return [...input.data];
}"""


@pytest.fixture(scope="module")
def page_of_things(runtime, tmp_path_factory) -> tuple[Path, Detector]:
    """The page of a detector of red and blue things, and the detector."""
    folder = tmp_path_factory.mktemp("page")
    model = save_detector(folder / "model" / "model.onnx")
    card = detector_card(model, told="It finds 9 of 10 things.", threshold=0.6)
    (folder / "model" / "card.json").write_text(json.dumps(card), encoding="utf-8")
    (folder / "page").mkdir()
    detector = load_detector(model)
    project = Project.model_validate({"name": "things", "task": "detect", "source": "photos", "size": 64})
    write_files(folder / "page", project, model, detector, runtime)
    return folder / "page", detector


@pytest.fixture(scope="module")
def address_of_things(page_of_things) -> Iterator[str]:
    """The address under which that page is served."""
    with served(page_of_things[0]) as address:
        yield address


@pytest.fixture(scope="module")
def finder(chromium, address_of_things, page_of_things) -> Iterator[Visit]:
    """That page, open once for the tests that only ask it."""
    with visited(chromium, address_of_things, *page_of_things) as visit:
        open_page(visit.page, address_of_things)
        yield visit


@pytest.fixture
def visit(chromium, address_of_things, page_of_things) -> Iterator[Visit]:
    """That page in a window of its own, whose policy nothing breaks."""
    with visited(chromium, address_of_things, *page_of_things) as visit:
        open_page(visit.page, address_of_things)
        yield visit
        assert not [line for line in visit.said if "Content Security Policy" in line], visit.said


def scene(size=(320, 200), *, seed: int = 0, format: str = "JPEG") -> bytes:
    """Return a photo with a ball and a block, as the bytes of a file."""
    return file_of(things(size, seed=seed), format)


def test_the_boxes_are_pythons(finder):
    """Of photos of every shape and kind: the same boxes, labels and probabilities, within a thousandth."""
    drawn = {
        f"{seed}.jpg": scene(size, seed=seed) for seed, size in enumerate([(320, 200), (90, 300), (64, 64), (7, 5)])
    }
    drawn |= {"large.jpg": scene((2400, 1500))} | dict(list(exact_pictures().items())[:8])
    detector, told = finder.classifier, 0
    rules = {"least": detector.threshold, "overlap": detector.recipe.overlap, "most": detector.recipe.most}
    for (name, data), ours in zip(drawn.items(), detector.predict(drawn.values()), strict=True):
        theirs = told_by_page(finder.judge(name, data), detector.labels, (ours.width, ours.height))
        assert box_disagreement(theirs, ours, **rules) == "", name
        told += len(ours.boxes)
    assert told > 8


@pytest.mark.parametrize("size", [(120, 75), (50, 160), (31, 31), (4, 150), (200, 1)])
def test_the_square_is_pythons_byte_for_byte(finder, size):
    """What the network sees of a photo of any shape, enlarged or reduced, with grey around it."""
    data = file_of(Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)), "PNG")
    for side in (64, 96):
        wanted = finder.classifier.recipe.__class__(512, side, 0.6, 100).square(data).pixels
        assert bytes(finder.page.evaluate(SQUARE, [list(data), side])) == wanted.tobytes()


def test_suppression_is_pythons(finder):
    """Ties, boxes without area and overlaps at the limit: the same places and labels in the same order."""
    for seed in range(12):
        draw = np.random.default_rng(seed)
        corner = draw.integers(0, 12, (60, 2))
        boxes = np.concatenate([corner, corner + draw.integers(0, 9, (60, 2))], 1).astype(np.float32)
        scores = draw.choice(np.array([0.1, 0.3, 0.5, 0.9], np.float32), (60, 2))
        rules = {"least": 0.3, "overlap": 0.5, "most": 30}
        places, labels = np.nonzero(scores >= np.float32(0.3))
        kept = suppressed(boxes[places], scores[places, labels], labels, overlap=0.5, most=30)
        wanted = np.stack([places[kept], labels[kept]], 1).tolist()
        found = finder.page.evaluate(SUPPRESS, [boxes.tolist(), scores.tolist(), rules | {"labels": 2}])
        assert found == wanted, seed


def test_boxes_are_drawn_and_listed(visit):
    """On the photo orange boxes around each thing, beside it what they are, in the same order with numbers."""
    visit.choose(("things.jpg", scene((640, 400))), ("empty.png", file_of(Image.new("RGB", (60, 40), "grey"), "PNG")))
    (ours, _) = visit.classifier.predict([scene((640, 400)), Image.new("RGB", (60, 40), "grey")])
    rows = [row.text_content() for row in visit.page.locator("#cards > li").first.locator(".found li").all()]
    assert rows == [f"{box.label}{100 * box.probability:.1f}\u00a0%" for box in ours.boxes]
    corners = np.array([box.corners for box in ours.boxes])
    around = [*corners[:, :2].min(0), *corners[:, 2:].max(0)]
    assert visit.page.evaluate(ORANGE, "#cards canvas") == pytest.approx(around, abs=0.03)
    assert visit.page.locator("#cards .unsure").text_content() == "Nothing found"
    counts = {label: sum(box.label == label for box in ours.boxes) for label in LABELS}
    told = ", ".join(f"{n} {label}" for label, n in sorted(counts.items(), key=lambda each: (-each[1], each[0])))
    assert visit.text("#summary") == f"2 photos: {told}, nothing found in 1."
    visit.page.click("#cards button.thumbnail >> nth=0")
    visit.page.wait_for_selector("#larger[open]")
    assert visit.page.evaluate(ORANGE, "#larger-picture") == pytest.approx(around, abs=0.02)


def test_the_page_says_what_it_finds_and_how_well(visit):
    """The title asks where the things are; verdict and card stand as in the files beside the model."""
    assert visit.page.title() == "Where is “ball” or “block” in the photo?"
    assert visit.text("#verdict") == "How good is this model? It finds 9 of 10 things."
    about = visit.text("#about-lines")
    assert "It findsball (120 boxes), block (120 boxes)" in about
    assert "Average precision (AP50) in photos kept apart until the end: 86 %" in about


def test_the_table_is_the_one_of_the_command_line(visit, tmp_path):
    """Save as CSV gives the rows of `python -m utils.inference … --csv`: a row per box, nothing, and an error."""
    photos = {
        "things.jpg": scene(),
        "=empty.png": file_of(Image.new("RGB", (60, 40)), "PNG"),
        "broken.jpg": scene()[:900],
    }
    for name, data in photos.items():
        (tmp_path / name).write_bytes(data)
    visit.choose(*photos.items())
    with visit.page.expect_download() as download:
        visit.page.click("#save")
    model, paths = str(visit.folder / "model.onnx"), [str(tmp_path / name) for name in photos]
    find_command([model, *paths, "--csv", str(tmp_path / "table.csv")])
    ours, theirs = (
        list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
        for path in (download.value.path(), tmp_path / "table.csv")
    )
    assert [row["file"] for row in ours][-2:] == ["./=empty.png", "broken.jpg"] and ours[-1]["error"]
    assert [list(row) for row in ours] == [list(row) for row in theirs]
    assert [row["label"] for row in ours] == [row["label"] for row in theirs] and len(ours) > 3
    for name in ("probability", "left", "top", "right", "bottom"):
        values = [[float(row[name] or 0) for row in rows] for rows in (ours, theirs)]
        assert values[0] == pytest.approx(values[1], abs=1e-4)


@pytest.mark.parametrize(("width", "scheme"), [(1366, "light"), (390, "dark")])
def test_it_fits_every_screen_and_axe_finds_nothing(camera, address_of_things, page_of_things, width, scheme):
    """With boxes, nothing found, an error, the live view and the dialog: no rule of axe-core is broken."""
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 844 if width < 500 else 768}}
    with visited(camera, address_of_things, *page_of_things, **options) as visit:
        open_page(visit.page, address_of_things)
        nothing = file_of(Image.new("RGB", (60, 40), "grey"), "PNG")
        visit.choose(("things.jpg", scene((640, 400))), ("none.jpg", b"text"), ("grey.png", nothing))
        visit.choose(("tall.jpg", scene((300, 520))))
        visit.page.click("#live")
        visit.page.wait_for_selector("#seen:not(:empty)")
        assert broken_rules(visit.page) == []
        visit.page.click("#stop-live")
        visit.page.screenshot(path=SCREENSHOTS / f"page-finds-{width}-{scheme}.png", full_page=True)
        visit.page.click("#cards button.thumbnail >> nth=0")
        visit.page.wait_for_selector("#larger[open]")
        assert broken_rules(visit.page) == []
        visit.page.screenshot(path=SCREENSHOTS / f"page-finds-larger-{width}-{scheme}.png")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_page_that_finds_other_boxes_is_refused(finder):
    """A corner that is off by a hundredth: no page is written, and the photo and the difference are named."""
    data = scene()
    answer = finder.judge("a.jpg", data)
    require_boxes_of_page(finder.classifier, {"a.jpg": data}, [answer], {"a.jpg": 1e-3})
    boxes = [{**answer.boxes[0], "left": answer.boxes[0]["left"] + 0.01}, *answer.boxes[1:]]
    with pytest.raises(FieldguideError, match=r"disagree on a.jpg: .* differs by 0\.01.* No page was written"):
        require_boxes_of_page(
            finder.classifier, {"a.jpg": data}, [answer.__class__(None, None, b"", None, boxes)], {"a.jpg": 1e-3}
        )


def test_another_model_in_its_place_is_not_used(chromium, page_of_things, tmp_path):
    """Where the browser's numbers are not Python's, the page says so instead of drawing boxes."""
    folder = tmp_path / "page"
    shutil.copytree(page_of_things[0], folder)
    facts = json.loads((folder / "page.json").read_text())
    facts["probe"]["scores"][0][0] += 0.01
    (folder / "page.json").write_text(json.dumps(facts))
    with (
        served(folder) as address,
        visited(chromium, address, folder, page_of_things[1]) as visit,
        pytest.raises(FieldguideError, match="answers otherwise than it did when this page was made"),
    ):
        open_page(visit.page, address)


def test_make_page_writes_the_page_of_a_project(runtime, make_project, monkeypatch):
    """A browser finds model.onnx's boxes in held-out photos and drawn files first; the page holds what it needs."""
    project = make_project(name="things", task="detect", source="photos", size=64, labels={})
    save_detector(project.models / "model.onnx")
    project.images.mkdir(parents=True)
    rows = []
    for n, side in enumerate(("train", "valid", "test")):
        things(seed=n).save(project.images / f"{n:016x}.jpg")
        rows.append(f"{n:016x},{n},{side}\n")
    project.table("split").write_text("id,group,side\n" + "".join(rows), encoding="utf-8")
    drawn = awkward_pictures()
    few = {name: drawn[name] for name in ("turned-6.jpg", "wide-gamut.jpg", "grey-16-bit.tif", "animated.gif")}
    monkeypatch.setattr(page_export, "awkward_pictures", lambda: few)
    page = page_export.write_page(project)
    facts = json.loads((page.folder / "page.json").read_text())
    assert (page.asked, facts["task"], facts["labels"]) == (6, "detect", list(LABELS))
    assert {"index.html", "boxes.js", "model.onnx"} <= set(facts["files"])
    assert page_export.write_page(project) == page  # it stands
