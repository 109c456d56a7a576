"""
Boxes drawn on photos, one colour for each kind: what is there, what a detector found, what it missed, what is wrong.

Notebooks 2_photos to 5_mend show them alike.
"""

from collections.abc import Iterable, Mapping, Sequence

from PIL import Image, ImageDraw

from utils.boxes.box import GROUP, Box
from utils.pictures import OWN_BITS, PictureError, open_picture
from utils.sheets import contact_sheet

# Colours that people of every colour vision tell apart (Okabe and Ito 2008), by what a box is.
BOX_COLOURS = {"true": (86, 180, 233), "found": (240, 228, 66), "missed": (213, 94, 0), "wrong": (204, 121, 167)}
BOX_COLOURS["ignored"] = (160, 160, 160)  # neither a thing to find nor a place without one
NAME_HEIGHT = 12  # pixels, of what is written into a box
LINE_EDGE = (0, 0, 0)  # on both sides of a line, so that it is seen on any ground
LINE = 1 / 200  # of the longer side: how thick a line is, and two pixels at least
DASH = 4  # times that: the parts of a dashed line, and what is left out between them


def draw_boxes(
    image: Image.Image, boxes: Sequence[Box] | Mapping[str, Iterable[Box]], *, named: bool = False
) -> Image.Image:
    """
    Return a copy of an RGB picture with boxes drawn on it.

    `boxes` are those that are there, or a mapping of kind (a key of `BOX_COLOURS`) to boxes: later kinds are drawn over
    earlier ones. A box around many things at once is dashed. With `named` its label stands in each, at the top, and in
    one that was found, at the bottom, with its score.
    """
    drawn = image.copy()
    pen, thick = ImageDraw.Draw(drawn), max(2, round(LINE * max(image.size)))
    for kind, own in (boxes if isinstance(boxes, Mapping) else {"true": boxes}).items():
        for box in own:
            _draw_box(pen, box, image.size, thick, BOX_COLOURS[kind])
            if named:
                _name_box(pen, box, image.size, thick, BOX_COLOURS[kind])
    return drawn


def box_sheet(
    pairs: Iterable[tuple],
    *,
    columns: int = 6,
    side: int = 160,
    captions: Iterable[str] | None = None,
    named: bool = False,
) -> Image.Image:
    """
    Return one image of N photos in a grid, each with its boxes, and a caption below it where there are captions.

    Each of `pairs` is a photo (a path, or what else `open_picture` takes) and its boxes. `draw_boxes` takes these, and
    `named`.
    There are `columns` photos per row; the longest side of each has `side` pixels. A grey card with the reason replaces
    a photo that cannot be read.
    """
    shown = []
    for picture, boxes in pairs:
        try:
            small = open_picture(picture, longest_side=side, first_frame=True, bits=OWN_BITS)
        except (PictureError, OSError):
            shown.append(picture)  # the sheet says why it cannot be read
        else:
            shown.append(draw_boxes(small, boxes, named=named))
    return contact_sheet(shown, captions or (), columns=columns, side=side)


def _name_box(pen: ImageDraw.ImageDraw, box: Box, size: tuple[int, int], thick: int, colour: tuple) -> None:
    """Write label and score into a box."""
    score = getattr(box, "score", None)
    left, y = box.left * size[0] + thick + 1, box.top * size[1] + thick
    if score is not None:
        y = max(0, box.bottom * size[1] - thick - NAME_HEIGHT - 2)
    text = box.label if score is None else f"{box.label} {score:.2f}"
    pen.text((left, y), text, fill=colour, font_size=NAME_HEIGHT, stroke_width=2, stroke_fill=LINE_EDGE)


def _draw_box(pen: ImageDraw.ImageDraw, box: Box, size: tuple[int, int], thick: int, colour: tuple) -> None:
    """Draw one box, its line inside of it."""
    width, height = size
    left, top = (min(round(corner * side), side - 1) for corner, side in zip(box.corners[:2], size, strict=True))
    right, bottom = max(left, round(box.right * width) - 1), max(top, round(box.bottom * height) - 1)
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=LINE_EDGE)
    inner = (left + thick, top + thick, right - thick, bottom - thick)
    if inner[0] <= inner[2] and inner[1] <= inner[3]:
        pen.rectangle(inner, outline=LINE_EDGE)
    pen.rectangle((left, top, right, bottom), outline=colour, width=thick)
    if GROUP in box.flags:
        step = DASH * thick
        for start in range(left + step, right, 2 * step):
            for y in (top, bottom - thick + 1):
                pen.rectangle((start, y, min(start + step, right), y + thick - 1), fill=LINE_EDGE)
        for start in range(top + step, bottom, 2 * step):
            for x in (left, right - thick + 1):
                pen.rectangle((x, start, x + thick - 1, min(start + step, bottom)), fill=LINE_EDGE)
