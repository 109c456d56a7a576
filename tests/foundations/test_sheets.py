"""Contact sheets: how a notebook shows them."""

from conftest import draw_picture
from IPython.core.formatters import DisplayFormatter

from utils.sheets import contact_sheet


def test_a_notebook_stores_a_sheet_once():
    """As JPEG; Pillow's images come as PNG too, which weighs six times as much."""
    formats, _ = DisplayFormatter().format(contact_sheet([draw_picture(1), draw_picture(2)]))
    assert sorted(formats) == ["image/jpeg", "text/plain"]


def test_a_caption_may_have_two_lines():
    """Each line gets its own room below the pictures, also under those whose caption has one."""
    photos = [draw_picture(1), draw_picture(2)]
    one, two = (contact_sheet(photos, ["a", caption]) for caption in ("b", "b\nc"))
    assert two.height - one.height == 16
    assert min(two.crop((0, one.height, *two.size)).convert("L").get_flattened_data()) < 100
