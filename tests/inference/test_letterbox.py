"""A picture in a square, and back."""

import numpy as np
from PIL import Image

from utils.pictures import letterboxed


def test_a_box_comes_back_from_the_square():
    """A white block keeps its box: fractions of the picture, pixels of the square, fractions again."""
    picture = Image.new("RGB", (400, 200))
    picture.paste((255, 255, 255), (100, 50, 300, 150))
    square, place = letterboxed(picture, 100)
    rows, columns = np.nonzero(square[25:75].min(axis=2) > 200)
    inside = place.into(np.array([[0.25, 0.25, 0.75, 0.75]]))
    assert inside.tolist() == [[25, 37.5, 75, 62.5]]
    assert (columns.min(), columns.max() + 1) == (25, 75) and (rows.min(), rows.max() + 1) == (
        13,
        37,
    )  # bilinear: 12.5 and 37.5 are half white
    assert place.out_of(inside).tolist() == [[0.25, 0.25, 0.75, 0.75]]
    assert (square[:25] == 127).all() and (square[75:] == 127).all()
