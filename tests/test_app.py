"""What `utils.app` promises: photos in, labels out, and a sentence where something is wrong."""

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image
from test_inference import draw, make_learner

from utils.app import ClassifierPage, data_address, message_html, result_card_html, title_html
from utils.inference import Prediction

NAUGHTY = '<img src=x onerror="alert(1)">.jpg'


@pytest.fixture(scope="session")
def _model(tmp_path_factory) -> Path:
    from utils.export import save_learner

    folder = tmp_path_factory.mktemp("app")
    save_learner(make_learner(folder / "images", network="squeezenet1_1"), folder / "export.pkl")
    return folder / "export.pkl"


def photo(name: str, content: bytes) -> dict:
    """Return an uploaded photo as ipywidgets 8 hands it over."""
    facts = {"name": name, "type": "image/jpeg", "size": len(content), "last_modified": datetime.now(UTC)}
    return facts | {"content": memoryview(content)}


def test_a_card_shows_the_top_three():
    """The three most probable labels are shown, the most probable first, in text and as bars."""
    prediction = Prediction("d", 0.5, {"a": 0.1, "b": 0.15, "c": 0.25, "d": 0.5})
    card = result_card_html("photo.jpg", prediction, "data:x")
    shown = [card.index(f"<span>{label}</span><span>{percent} %") for label, percent in (("d", "50.0"), ("c", "25.0"))]
    assert shown == sorted(shown)
    assert "width:15.0%" in card
    assert "<span>a</span>" not in card


def test_the_answer_stands_out():
    """The most probable label, and no other, is in bold, also where the model knows a single one."""
    for probabilities in ({"a": 0.3, "b": 0.7}, {"b": 1.0}):
        card = result_card_html("photo.jpg", Prediction("b", probabilities["b"], probabilities), "")
        bold, *rest = card.split("font-weight:600")[1:]
        assert rest == [] and bold.index("<span>b</span>") < bold.find("<span>a</span>") % len(bold)


def test_names_labels_and_reasons_are_escaped():
    """A file name, a label or a reason is text on the page, never markup."""
    cards = (
        result_card_html(NAUGHTY, Prediction("<b>", 1.0, {"<b>": 1.0}), ""),
        result_card_html(NAUGHTY, Prediction(error="<script>"), '"><script>'),
        title_html(["<script>"]),
        message_html("<script>"),
    )
    for card in cards:
        assert "<script" not in card
        assert "<img src=x" not in card
    assert "&lt;img src=x" in cards[0]


def test_a_broken_file_is_named_with_its_reason():
    """The card of an unreadable file holds its name and the reason, and no bars."""
    card = result_card_html("holiday.jpg", Prediction(error="truncated"), "")
    assert "holiday.jpg" in card
    assert "Could not be read: truncated" in card
    assert "%</span>" not in card


def test_a_thumbnail_is_part_of_the_page():
    """A thumbnail travels in the page itself: no file of this computer is served."""
    assert data_address(Image.new("RGB", (8, 8))).startswith("data:image/jpeg;base64,/9j/")


def test_uploading_shows_a_card_a_photo(_model, tmp_path):
    """Choosing photos shows a card for each, in order; a broken one among them is named and not fatal."""
    page = ClassifierPage(_model)
    good = draw(tmp_path / "a.jpg", size=(80, 60)).read_bytes()
    page.upload.value = (photo("first.jpg", good), photo(NAUGHTY, good[:200]), photo("third.jpg", good))
    shown = page.results.value
    assert shown.count("fieldguide-card") == 3
    assert shown.index("first.jpg") < shown.index("Could not be read") < shown.index("third.jpg")
    assert shown.count("data:image/jpeg") == 2
    assert page.status.value == ""


def test_the_page_says_what_predict_says(_model, tmp_path):
    """The page shows the probability that the classifier gives."""
    page = ClassifierPage(_model)
    buffer = io.BytesIO()
    Image.open(draw(tmp_path / "a.jpg")).save(buffer, "JPEG")
    page.upload.value = (photo("a.jpg", buffer.getvalue()),)
    (prediction,) = page.classifier.predict([buffer.getvalue()])
    assert f"<span>{prediction.label}</span><span>{100 * prediction.probability:.1f} %" in page.results.value


def test_new_photos_take_the_place_of_old_ones(_model, tmp_path):
    """A second choice of photos replaces the first."""
    page = ClassifierPage(_model)
    content = draw(tmp_path / "a.jpg").read_bytes()
    page.upload.value = (photo("old.jpg", content),)
    page.upload.value = (photo("new.jpg", content),)
    assert "old.jpg" not in page.results.value
    assert "new.jpg" in page.results.value


def test_a_missing_model_names_the_notebook(tmp_path):
    """Without a model the page holds one sentence that says which notebook to run, and nothing to upload to."""
    page = ClassifierPage(tmp_path / "export.pkl")
    assert [type(child).__name__ for child in page.children] == ["HTML"]
    assert "07_export" in page.status.value


def test_an_unsafe_model_is_told_on_the_page(tmp_path):
    """A model that is refused is told in words, without a traceback."""
    (tmp_path / "export.pkl").write_bytes(b"\x80\x02cos\nsystem\n.")
    page = ClassifierPage(tmp_path / "export.pkl")
    assert "system" in page.status.value
    assert page.classifier is None
