"""What `utils.app` promises: photos in, labels out, a sentence where something is wrong, and no way to fool it."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser.app_project import (
    COLOURS,
    GREY,
    SVG,
    WARM,
    WHALES,
    animation,
    card_of,
    known_whales,
    photo,
    red_on_grey,
    save_model,
    write_project,
)
from drawn_detector import save_detector, things
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from utils.app import page as app
from utils.app.page import LARGEST, PART, ClassifierPage, find_models
from utils.export import card_in_words
from utils.inference.classifier import load_classifier
from utils.pictures.outlines import OUTLINE
from utils.project import Project

ASKED = {"view": "v1", "serial": 1}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A project with a model of its own, and another model beside it."""
    folder = tmp_path_factory.mktemp("app")
    path = write_project(folder)
    save_model(folder / "models" / "colours", "colours", COLOURS)
    save_model(folder / "models" / "another", "another", WARM, threshold=None, card=False)
    return Project.load(path)


@pytest.fixture
def page(project) -> ClassifierPage:
    return ClassifierPage(project)


def part(page: ClassifierPage, content, *, size: int, at: int, **details) -> tuple[dict, list[bytes]]:
    """Send one part of a photo."""
    return page.answer({"ask": "part", "size": size, "at": at, **ASKED, **details}, [memoryview(content)])


def send(page: ClassifierPage, content: bytes) -> tuple[dict, list[bytes]]:
    """Send a photo as the browser does, and return the last answer."""
    for at in range(0, max(len(content), 1), PART):
        message, buffers = part(page, content[at : at + PART], size=len(content), at=at)
        if message["tell"] != "more":
            assert at + PART >= len(content)
            return message, buffers
    raise AssertionError("no result came")


def kept(page: ClassifierPage) -> int:
    """Return how many bytes of a photo the page holds."""
    return len(page._upload.content) if page._upload else 0


# --- photos --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", [*COLOURS.values(), GREY], ids=str)
def test_the_page_says_what_predict_says(page, colour):
    """Label, probability and the three most probable labels are the classifier's own; None where it is not sure."""
    content = photo(colour)
    (wanted,) = page.classifier.predict(content, unknown=True)
    message, _ = send(page, content)
    assert (message["label"], message["probability"]) == (wanted.label, wanted.probability)
    assert [tuple(pair) for pair in message["top"]] == wanted.top(3)
    assert (wanted.label is None) == (colour == GREY)


def test_a_model_without_a_threshold_is_always_sure(page):
    """Where no threshold was fitted, every photo gets a label."""
    page.answer({"ask": "model", "model": "another", **ASKED})
    assert page.classifier.threshold is None
    assert send(page, photo(GREY))[0]["label"] in WARM


def test_a_thumbnail_comes_with_the_result(page):
    """A JPEG of at most 160 pixels, upright, whatever the photo is."""
    sideways = Image.Exif()
    sideways[0x0112] = 6
    _, (jpeg,) = send(page, photo(size=(900, 300), exif=sideways))
    with Image.open(io.BytesIO(jpeg)) as image:
        assert (image.format, image.size) == ("JPEG", (53, 160))


def test_a_photo_of_many_parts_is_put_together(page):
    """Parts of a photo give what the photo in one piece gives; between photos nothing is kept."""
    content = photo(COLOURS["green"], size=(1200, 1000), format="BMP")
    assert len(content) > 3 * PART
    message, _ = send(page, content)
    assert message["probability"] == page.classifier.predict(content)[0].probability
    assert kept(page) == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"a letter", "text"),
        (SVG, "drawing of shapes"),
        (animation(), "animated"),
        (photo()[:3000], "truncated"),
    ],
    ids=["empty", "text", "svg", "gif", "cut"],
)
def test_a_broken_photo_has_a_reason_and_no_thumbnail(page, content, reason):
    """What cannot be read is told why, in the words of predict, and the next photo is judged."""
    message, buffers = send(page, content)
    assert message["tell"] == "result" and reason in message["error"] and buffers == []
    assert message["error"] == page.classifier.predict(content)[0].error
    assert send(page, photo())[0]["label"] == "red"


def test_many_photos_leave_nothing_behind(page):
    """A photo is gone from the kernel when its result is out: neither it nor its name is kept."""
    before = set(vars(page))
    for seed in range(30):
        send(page, photo(seed=seed))
    assert kept(page) == 0 and set(vars(page)) == before


# --- hostile messages ----------------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
WORDS = st.sampled_from(["hello", "part", "stop", "model", "colours", "v1", "../another", "/etc/passwd", ""])
NUMBERS = st.sampled_from([0, 1, 3, -1, PART, LARGEST, LARGEST + 1, 2**70, 0.0, True])
REQUESTS = st.dictionaries(
    st.sampled_from(["ask", "size", "at", "view", "serial", "model", "name"]), WORDS | NUMBERS | ANYTHING
)
BUFFERS = st.lists(
    st.binary(max_size=5) | st.none() | st.integers() | st.builds(lambda: memoryview(np.zeros((2, 3)))), max_size=2
)


@given(st.lists(st.tuples(REQUESTS | ANYTHING, BUFFERS | st.none()), max_size=8))
def test_no_message_raises_or_fills_the_memory(project, messages):
    """Whatever comes, in whatever order, is answered with a message that travels, and little is kept."""
    page = _shared(project)
    for content, buffers in messages:
        answer, _ = page.answer(content, buffers)
        json.dumps(answer, allow_nan=False)
        assert answer["tell"] in ("alert", "more", "model", "result", "stopped")
        assert kept(page) < 100
    page.answer({"ask": "model", "model": "colours", **ASKED})
    assert send(page, photo())[0]["label"] == "red"


def _shared(project, pages=[]) -> ClassifierPage:  # noqa: B006 one page for all examples: what it remembers counts
    return pages[0] if pages else pages.append(ClassifierPage(project)) or pages[0]


@pytest.mark.parametrize(
    ("size", "at", "content"),
    [
        (10, 5, b"12345"),  # the beginning never came
        (10, 1, b"12345"),  # a gap, and bytes twice
        (9, 4, b"1234"),  # another size than before
        (10, 4, b"1234567"),  # more than there should be
        (10, 4, b""),  # nothing, for ever
        (10, -6, b"1234"),
        (10, 4.0, b"1234"),
        (10, None, b"1234"),
    ],
)
def test_parts_in_disorder_are_refused_and_dropped(page, size, at, content):
    """A part that does not follow the one before ends that photo; a new one begins cleanly."""
    if at != 5:
        assert part(page, b"1234", size=10, at=0)[0]["tell"] == "more"
    message, _ = part(page, content, size=size, at=at)
    assert message["tell"] == "alert" and "disorder" in message["alert"]
    assert kept(page) == 0
    assert send(page, photo())[0]["label"] == "red"


def test_a_part_of_another_view_is_refused(page):
    """Two views of one page do not mix their photos."""
    part(page, b"1234", size=8, at=0)
    assert part(page, b"5678", size=8, at=4, view="v2")[0]["tell"] == "alert"


@pytest.mark.parametrize("size", [-1, LARGEST + 1, 2**80, "10", None, 1.5, True, [10]], ids=str)
def test_a_size_that_is_none_is_refused(page, size):
    """More than 50 MB, or no number of bytes at all."""
    message, _ = part(page, b"1234", size=size, at=0)
    assert message["tell"] == "alert" and "50 MB" in message["alert"]
    assert kept(page) == 0


def test_a_part_larger_than_a_message_is_refused(page):
    """A part is at most a megabyte, whatever size was said."""
    assert part(page, bytes(PART), size=LARGEST, at=0)[0]["tell"] == "more"
    assert part(page, bytes(PART + 1), size=LARGEST, at=PART)[0]["tell"] == "alert"
    assert kept(page) == 0


def test_stop_drops_what_came(page):
    """Bytes of a photo that was not sent to its end do not stay."""
    part(page, bytes(PART), size=LARGEST, at=0)
    assert kept(page) == PART
    assert page.answer({"ask": "stop", **ASKED})[0]["tell"] == "stopped"
    assert kept(page) == 0


def test_a_name_is_never_looked_at(page, monkeypatch):
    """A path sent as a name, of a million characters or of a file that is there, opens nothing."""
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("a file was opened"))
    monkeypatch.setattr("builtins.open", lambda *_, **__: pytest.fail("a file was opened"))
    content = photo()
    for name in ("/etc/passwd", "x" * 10**6, "\ud800", None):
        message, _ = part(page, content, size=len(content), at=0, name=name, path=name, file=name)
        assert message["label"] == "red" and "name" not in message


@pytest.mark.parametrize("name", ["../colours", "/", "", None, "colours/model.onnx", ["colours"], "x" * 10**6])
def test_only_models_that_are_offered_are_opened(page, name):
    """A model is asked for by one of the names in the picker, never by a path; the one that is open stays."""
    message, _ = page.answer({"ask": "model", "model": name, **ASKED})
    assert message["tell"] == "alert" and len(message["alert"]) < 500
    assert page.model == "colours"


def test_an_answer_names_who_asked(page):
    """The view and the serial come back, unless they are what no page of ours sends."""
    assert page.answer({"ask": "stop", "view": "v1", "serial": 7})[0] == {"tell": "stopped", "view": "v1", "serial": 7}
    answer, _ = page.answer({"ask": "stop", "view": "v" * 10**6, "serial": 2**90})
    assert answer == {"tell": "stopped", "view": "", "serial": 0}


def test_what_a_classifier_raises_is_told(page, monkeypatch):
    """A failure of the model is a sentence on the page, and a number that is none does not break the connection."""
    monkeypatch.setattr(app, "judged", lambda *_: ({"tell": "result", "probability": float("nan")}, []))
    assert send(page, photo())[0]["tell"] == "alert"
    monkeypatch.setattr(app, "judged", lambda *_: 1 / 0)
    assert "ZeroDivisionError" in send(page, photo())[0]["alert"]


# --- models --------------------------------------------------------------------------------------------------------


def test_the_projects_own_model_comes_first(project):
    """Then the others by name; model.onnx before export.pkl; folders without a model are none."""
    root = project.models.parent
    (root / "animals").mkdir()
    (root / "animals" / "export.pkl").touch()
    (root / "colours" / "export.pkl").touch()
    (root / "untrained").mkdir()
    found = find_models(project)
    shutil.rmtree(root / "animals")
    (root / "colours" / "export.pkl").unlink()
    assert list(found) == ["colours", "animals", "another"]
    assert [path.name for path in found.values()] == ["model.onnx", "export.pkl", "model.onnx"]


def test_a_page_tells_what_it_offers(page, project):
    """Models, labels, limits of sending, and the card."""
    message, _ = page.answer({"ask": "hello", **ASKED})
    assert (message["models"], message["model"], message["problem"]) == (["colours", "another"], "colours", "")
    assert (message["labels"], message["largest"], message["part"]) == (list(COLOURS), 50 * 2**20, 2**20)
    told = dict(message["about"])
    assert told["It tells apart"] == ["red (120 pictures), green (120 pictures), blue (120 pictures)"]
    assert told["How often it is right"] == [
        "Of 60 photos kept apart until the end, it named 90 % rightly. For new photos like these, expect 81 % to 95 %."
    ]
    assert told["When it says “not sure”"] == [
        "When even its best label has less than 60 %.",
        "With 60 photos that it did not learn from, it was sure of 88 %, and wrong in 4 % of these.",
    ]
    assert message["verdict"] == "Right for 54 of 60 photos; guessing would get 20. That is better than guessing."
    assert told["Made"] == ["2026-11-21", "resnet18, at 32 pixels"]


def test_no_card_is_said(page):
    """A model without a card is used; that nothing is known of its quality stands where the card would."""
    message, _ = page.answer({"ask": "model", "model": "another", **ASKED})
    headings = dict(message["about"])
    assert message["verdict"] == ""
    assert headings["It tells apart"] == ["warm, cold"] and "no " in headings["No card"][0]


def test_a_card_of_another_file_is_not_shown(tmp_path):
    """Figures of another model would be taken for this one's."""
    path = save_model(tmp_path / "m", "m", COLOURS)
    facts = card_of("m", list(COLOURS), "0" * 64, threshold=None)
    path.with_name("card.json").write_text(json.dumps(facts))
    verdict, lines = app.about(path, load_classifier(path))
    headings = dict(lines)
    assert verdict == ""
    assert "describes another file" in headings["No card"][0] and "How often it is right" not in headings


def test_figures_that_are_missing_are_said_to_be():
    """A card without figures tells so, and makes none up."""
    told = dict(card_in_words({"labels": ["a"], "unknown": {"threshold": None, "why": "too few photos"}}))
    assert told == {
        "It tells apart": ["a"],
        "How often it is right": ["That was not measured."],
        "When it says “not sure”": ["Never: it gives every photo a label. Go by its confidence.", "too few photos"],
    }


def test_without_a_model_the_page_names_the_notebook(tmp_path):
    """No model yet: one sentence, nothing to choose photos for."""
    page = ClassifierPage(Project.load(write_project(tmp_path)))
    message, _ = page.answer({"ask": "hello", **ASKED})
    assert "07_export" in message["problem"] and message["models"] == []
    assert "07_export" in send(page, photo())[0]["alert"]


def test_a_model_that_is_refused_is_told_on_the_page(tmp_path):
    """A hostile or damaged model is told in words, and another one can be picked."""
    path = write_project(tmp_path)
    save_model(tmp_path / "models" / "good", "good", COLOURS)
    (tmp_path / "models" / "colours").mkdir()
    (tmp_path / "models" / "colours" / "export.pkl").write_bytes(b"\x80\x02cos\nsystem\n.")
    page = ClassifierPage(Project.load(path))
    assert "system" in page.problem and page.classifier is None and list(page.models) == ["colours", "good"]
    assert page.answer({"ask": "model", "model": "good", **ASKED})[0]["problem"] == ""
    (tmp_path / "models" / "good" / "model.onnx").write_bytes(b"no model")
    assert page.answer({"ask": "model", "model": "good", **ASKED})[0]["problem"] != ""


def test_a_broken_project_is_told_on_the_page(tmp_path, monkeypatch):
    """What is wrong with the project file stands on the page, with the key."""
    path = write_project(tmp_path)
    path.write_text(path.read_text() + "\n[colour]\n")
    monkeypatch.setenv("PROJECT", os.fspath(path))
    assert "colour" in ClassifierPage().problem


def test_the_outline_of_the_thing_is_on_the_thumbnail(tmp_path):
    """Where the model finds the thing, the picture comes with an orange line along its border, and the page is told."""
    path = write_project(tmp_path)
    save_model(tmp_path / "models" / "colours", "colours", COLOURS, finds=True)
    page = ClassifierPage(Project.load(path))
    assert page.answer({"ask": "hello", **ASKED})[0]["finds"] is True
    _, (jpeg,) = send(page, red_on_grey())
    seen = np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)
    height, width = seen.shape[:2]
    orange = (abs(seen - np.array(OUTLINE)).sum(2) < 120).nonzero()
    for places, side in zip(orange, (height, width), strict=True):
        assert (places.min() / side, places.max() / side) == pytest.approx((0.25, 0.75), abs=0.04)


def test_a_model_that_finds_nothing_says_so(page):
    """No outline is drawn, and the page is told of none."""
    assert page.answer({"ask": "hello", **ASKED})[0]["finds"] is False
    _, (jpeg,) = send(page, red_on_grey())
    seen = np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)
    assert (abs(seen - np.array(OUTLINE)).sum(2) < 120).sum() == 0


@pytest.fixture
def whales(tmp_path) -> ClassifierPage:
    """A page with a model of seven individuals, each known from two photos of its colour."""
    path = write_project(tmp_path)
    save_model(tmp_path / "models" / "colours", "colours", WHALES, knows=known_whales())
    return ClassifierPage(Project.load(path))


def test_the_nearest_known_photos_come_with_the_answer(whales):
    """Five individuals, the most alike first, each once, with a JPEG each after the photo's own."""
    assert whales.answer({"ask": "hello", **ASKED})[0]["known"] == {"shown": True, "problem": ""}
    content = photo(WHALES["Bo"], seed=5)
    message, buffers = send(whales, content)
    (wanted,) = whales.classifier.nearest([content])
    assert message["nearest"] == [[known.label, known.similarity] for known in wanted.individuals]
    names = [name for name, _ in message["nearest"]]
    assert names[0] == "Bo" and len(set(names)) == len(names) == 5
    assert [alike for _, alike in message["nearest"]] == sorted((a for _, a in message["nearest"]), reverse=True)
    assert len(buffers) == 6 and buffers[1:] == [known.thumbnail for known in wanted.individuals]


def test_a_photo_that_cannot_be_read_has_no_neighbours(whales):
    """Its reason is told, and no picture comes."""
    message, buffers = send(whales, b"no photo")
    assert message["error"] and message["nearest"] == [] and buffers == []


def test_a_broken_gallery_is_told_and_photos_are_judged(whales):
    """The page says why no known photos are shown; the answers are as ever."""
    whales.models["colours"].with_name("gallery.safetensors").write_bytes(b"broken")
    known = whales.answer({"ask": "model", "model": "colours", **ASKED})[0]["known"]
    assert known["shown"] is False
    assert known["problem"].startswith("The known photos cannot be shown. ") and "notebook 07" in known["problem"]
    message, buffers = send(whales, photo(WHALES["Dot"]))
    assert message["label"] == "Dot" and message["nearest"] == [] and len(buffers) == 1


def test_a_model_of_kinds_shows_no_known_photos(page):
    """Nothing is said of them, and none come."""
    assert page.answer({"ask": "hello", **ASKED})[0]["known"] == {"shown": False, "problem": ""}
    message, buffers = send(page, photo())
    assert message["nearest"] == [] and len(buffers) == 1


@pytest.fixture
def finder(tmp_path) -> ClassifierPage:
    """A page whose own model finds red and blue things."""
    project = Project.load(write_project(tmp_path, name="things"))
    save_detector(project.models / "model.onnx")
    return ClassifierPage(project)


def test_what_a_detector_finds_comes_with_the_photo(finder):
    """The boxes of `predict`, in fractions, and the photo without them, for the browser draws them."""
    buffer = io.BytesIO()
    things((900, 600)).save(buffer, "PNG")
    message, (jpeg,) = send(finder, buffer.getvalue())
    (ours,) = finder.classifier.predict([buffer.getvalue()])
    assert message["boxes"] == [[box.label, box.probability, *box.corners] for box in ours.boxes] != []
    assert (message["error"], Image.open(io.BytesIO(jpeg)).size) == (None, (640, 427))
    told, _ = finder.answer({"ask": "hello", **ASKED})
    assert (told["detects"], told["finds"], told["labels"]) == (True, False, ["ball", "block"])
    assert told["heading"] == "Where is “ball” or “block” in the photo?"
    message, buffers = send(finder, b"a letter")
    assert (message["boxes"], buffers) == ([], []) and message["error"]


def test_without_a_detector_its_notebooks_are_named(tmp_path):
    """A project that finds things has other notebooks than one that tells photos apart."""
    settings = {"name": "boats", "task": "detect", "source": "photos", "models_dir": str(tmp_path)}
    assert "4_test makes it" in ClassifierPage(Project.model_validate(settings)).problem
