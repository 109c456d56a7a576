"""Strokes: which pixels they cover, compared with slow sums over every pixel, and what of a message is refused."""

import math

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from utils.masks.strokes import Stroke, StrokeError, drawn_over, inside_polygon, read_stroke, under_brush

SIZE = (60, 40)  # width and height of the photo
SHAPE = SIZE[::-1]
MIDDLES = [(x + 0.5, y + 0.5) for y in range(SIZE[1]) for x in range(SIZE[0])]


def distance(place, one, other):
    """Return how far a place is from the line between two others."""
    (x, y), (ax, ay), (bx, by) = place, one, other
    length = math.dist(one, other)
    along = min(max(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length**2, 0), 1) if length else 0
    return math.dist(place, (ax + along * (bx - ax), ay + along * (by - ay)))


@pytest.mark.parametrize("seed", range(4))
def test_a_brush_covers_what_is_as_near_as_half_its_size(seed):
    """Every pixel whose middle is that near to one of the lines between the points, and no other."""
    rng = np.random.default_rng(seed)
    points = [tuple(map(float, rng.uniform((-9, -9), (69, 49)).round(2))) for _ in range(1 + 3 * seed)]
    across = float(rng.uniform(1, 20))
    lines = list(zip(points, [*points[1:], points[-1]], strict=True))
    expected = [min(distance(place, *line) for line in lines) <= across / 2 for place in MIDDLES]
    np.testing.assert_array_equal(under_brush(points, across, SHAPE), np.reshape(expected, SHAPE))


@pytest.mark.parametrize("seed", range(4))
def test_a_polygon_covers_what_is_inside(seed):
    """Also where corners of a star lie outside the photo: the places that matplotlib finds inside."""
    rng = np.random.default_rng(seed)
    turns = np.sort(rng.uniform(0, 2 * np.pi, 11))
    far = rng.uniform(4, 34, 11)
    points = [(float(30 + r * np.cos(t)), float(20 + r * np.sin(t))) for t, r in zip(turns, far, strict=True)]
    expected = Outline(points).contains_points(MIDDLES).reshape(SHAPE)
    assert expected.any()
    np.testing.assert_array_equal(inside_polygon(points, SHAPE), expected)


def test_strokes_add_take_away_and_replace():
    """Brush and polygon add, the eraser takes away; GrabCut adds its mask, the masker's replaces all."""
    mask, other = np.zeros((2, 3), bool), np.array([[True, False, False], [True, True, True]])
    dot = Stroke("brush", "a", 1, ((1.5, 0.5),))
    mask = drawn_over(mask, dot, None)
    assert mask.astype(int).tolist() == [[0, 1, 0], [0, 0, 0]]
    whole = drawn_over(mask, Stroke("polygon", "b", points=((0, 0), (3, 0), (3, 2), (0, 2))), None)
    assert whole.all()
    assert drawn_over(whole, Stroke("erase", "c", 1, ((1.5, 0.5),)), None).astype(int).tolist() == [
        [1, 0, 1],
        [1, 1, 1],
    ]
    assert drawn_over(mask, Stroke("grabcut", "d"), lambda stroke: other).astype(int).tolist() == [[1, 1, 0], [1, 1, 1]]
    assert drawn_over(mask, Stroke("masker", "e"), lambda stroke: other).tolist() == other.tolist()
    assert not drawn_over(mask, Stroke("clear", "f"), None).any()


GOOD = {"do": "brush", "token": "v1-1", "size": 10, "points": [[1, 2], [3.456, 4]]}
BAD = {
    "another verb": {"do": "delete"},
    "a mask from a file": {"do": "found"},
    "no verb": {"do": None},
    "no token": {"token": None},
    "a path as token": {"token": "../../x"},
    "an endless token": {"token": "v" * 61},
    "no size": {"size": None},
    "a size of true": {"size": True},
    "too large a brush": {"size": 401},
    "a brush of nothing": {"size": 0},
    "a size that is no number": {"size": float("nan")},
    "no points": {"points": []},
    "points as text": {"points": "1 2"},
    "too many points": {"points": [[1, 2]] * 5001},
    "a point of three": {"points": [[1, 2, 3]]},
    "a point of text": {"points": [["1", "2"]]},
    "a point at infinity": {"points": [[1, float("inf")]]},
    "a point of lists": {"points": [[[1], 2]]},
    "a point far outside": {"points": [[1, 81]]},
    "two corners": {"do": "polygon"},
    "a box of three corners": {"do": "grabcut", "points": [[1, 1], [30, 30], [5, 5]]},
    "a box of no size": {"do": "grabcut", "points": [[1, 1], [30, 5]]},
    "a box outside": {"do": "grabcut", "points": [[-50, 1], [2, 39]]},
}


@pytest.mark.parametrize("kind", BAD)
def test_a_stroke_that_makes_no_sense_is_refused(kind):
    """With a sentence; the same message without that fault is taken."""
    assert read_stroke(GOOD, SIZE) == Stroke("brush", "v1-1", 10.0, ((1.0, 2.0), (3.46, 4.0)))
    with pytest.raises(StrokeError, match=r"\.$"):
        read_stroke(GOOD | BAD[kind], SIZE)
