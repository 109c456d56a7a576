"""Boxes drawn on photos and sheets."""

import numpy as np
from drawn_boxes import draw_folder
from PIL import Image

from utils.boxes import BOX_COLOURS, Box, box_sheet, draw_boxes
from utils.detect import ScoredBox

GREY = Image.new("RGB", (100, 80), (120, 120, 120))


def pixels_of(image: Image.Image, kind: str) -> set[tuple[int, int]]:
    """Return the pixels (x, y) that have the colour of a kind of box."""
    rows, columns = np.nonzero((np.asarray(image) == BOX_COLOURS[kind]).all(axis=2))
    return set(zip(columns.tolist(), rows.tolist(), strict=True))


def test_a_line_lies_where_the_box_ends():
    """The outermost pixels of the colour are the first and last of the box; the picture that came stays as it was."""
    drawn = draw_boxes(GREY, [Box("cat", 0.1, 0.25, 0.5, 0.75)])
    found = pixels_of(drawn, "true")
    assert {x for x, _ in found} == set(range(10, 50)) and {y for _, y in found} == set(range(20, 60))
    assert GREY.getextrema() == ((120, 120),) * 3


def test_kinds_have_colours_and_groups_are_dashed():
    """What was found has another colour; a box around many things has gaps."""
    plain = draw_boxes(GREY, {"true": [Box("cat", 0, 0, 0.5, 1)], "found": [Box("cat", 0.6, 0.2, 1, 0.8)]})
    assert len(pixels_of(plain, "true")) == 50 * 80 - 46 * 76 and len(pixels_of(plain, "found")) == 40 * 48 - 36 * 44
    dashed = draw_boxes(GREY, [Box("cat", 0, 0, 0.5, 1, ("group",))])
    assert 0.4 < len(pixels_of(dashed, "true")) / len(pixels_of(plain, "true")) < 0.7


def test_names_stand_in_their_boxes():
    """With `named` the label of a box is written at its top, with its score at its bottom; without, nothing is."""
    for box, kind, rows in (
        (Box("cat", 0.1, 0.1, 0.9, 0.9), "true", range(10, 40)),
        (ScoredBox("cat", 0.1, 0.1, 0.9, 0.9, score=0.5), "found", range(40, 70)),
    ):
        named = draw_boxes(GREY, {kind: [box]}, named=True)
        added = pixels_of(named, kind) - pixels_of(draw_boxes(GREY, {kind: [box]}), kind)
        assert added and {y for _, y in added} <= set(rows)


def test_a_sheet_shows_what_cannot_be_read(tmp_path):
    """A broken file is a grey card, the others carry their boxes."""
    boxes = draw_folder(tmp_path, 2)
    (tmp_path / "0001.jpg").write_bytes(b"no photo")
    sheet = box_sheet([(tmp_path / f"{name}.jpg", own) for name, own in boxes.items()], captions=["a", "b"])
    assert sheet.size == (2 * 166 + 6, 160 + 16 + 12)
    assert pixels_of(sheet.crop((0, 0, 170, 172)), "true") and not pixels_of(sheet.crop((172, 0, 338, 172)), "true")
