"""
Thumbnails, contact sheets, and matplotlib's figures as pictures.
"""

import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import matplotlib
from PIL import Image, ImageDraw

from utils.pictures import OWN_BITS, WHITE, PictureError, open_picture, shortened
from utils.words import counted


def thumbnail(picture, side: int = 128) -> Image.Image:
    """Return a small copy of a picture (its first frame), or a grey card with the reason where it cannot be read."""
    try:
        return open_picture(picture, longest_side=side, first_frame=True, bits=OWN_BITS)
    except (PictureError, OSError) as error:
        card = Image.new("RGB", (side, side), (200, 200, 200))
        ImageDraw.Draw(card).multiline_text((6, 6), textwrap.fill(str(error), max(1, side // 7)), fill=(60, 60, 60))
        return card


def contact_sheet(
    pictures: Sequence, captions: Iterable[str] = (), *, columns: int = 8, side: int = 112
) -> Image.Image:
    """
    Return one image of N pictures in a grid, each with an optional caption below it.

    There are `columns` pictures per row; the longest side of each has `side` pixels. A caption may have several
    lines; a long line keeps its beginning and its end. A grey card with the reason replaces a picture that cannot be
    read.
    """
    captions = list(captions)
    text_height = 16 * max((caption.count("\n") + 1 for caption in captions), default=0)
    columns = max(1, min(columns, len(pictures)))
    rows = max(1, -(-len(pictures) // columns))
    gap = 6
    sheet = Image.new("RGB", (columns * (side + gap) + gap, rows * (side + text_height + gap) + gap), WHITE)
    draw = ImageDraw.Draw(sheet)
    for n, picture in enumerate(pictures):
        small = thumbnail(picture, side)
        left = gap + (n % columns) * (side + gap)
        top = gap + (n // columns) * (side + text_height + gap)
        sheet.paste(small, (left + (side - small.width) // 2, top + (side - small.height) // 2))
        if n < len(captions):
            caption = "\n".join(shortened(line, most=side // 7) for line in captions[n].split("\n"))
            draw.text((left, top + side + 1), caption, fill=(40, 40, 40), font_size=11)
    sheet._repr_png_ = None  # or a notebook stores it twice, as JPEG and as PNG, which is six times as large
    return sheet


def shown(pictures: Sequence, most: int) -> str:
    """
    Return how many pictures there are, and how many a sheet shows where it cannot show all.

    >>> shown(range(3), 96), shown(range(1500), 480)
    ('3 pictures', '1,500 pictures, the first 480 shown')
    """
    return counted(len(pictures)) + (f", the first {most} shown" if len(pictures) > most else "")


def png_bytes(figure) -> bytes:
    """Return a figure of matplotlib as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def figure_picture(figure) -> Image.Image:
    """Return a figure of matplotlib as a picture: of the bare figure a notebook shows only the name."""
    return Image.open(io.BytesIO(png_bytes(figure)))


def without_formulas(text: str) -> str:
    """
    Return a text for a figure of matplotlib, which takes what stands between two ``$`` for a formula.

    >>> without_formulas("US$ or A$")
    'US\\\\$ or A\\\\$'
    """
    return text.replace("$", r"\$")


@contextmanager
def labels_as_written() -> Iterator[None]:
    """Within this context, figures that fastai draws show labels letter by letter, also with two ``$`` in them."""
    with matplotlib.rc_context({"text.parse_math": False}):
        yield
