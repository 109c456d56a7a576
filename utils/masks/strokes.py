"""
Masks, strokes: what a person draws, as numbers, and which pixels it covers.

A place is given in pixels of the photo, from its upper left corner; the middle of the first pixel is at (0.5, 0.5). A
stroke covers a pixel if it covers its middle. paint.js covers by the same sums, so that the browser shows at once what
is stored.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from utils.errors import FieldguideError

BRUSH, ERASE, POLYGON, CLEAR = "brush", "erase", "polygon", "clear"
MASKER, GRABCUT, WAS_THERE = "masker", "grabcut", "found"  # suggested by either, or there before; each in a file
UNDO, REDO, SKIP = "undo", "redo", "skip"  # lead from one state to another
ASKED = (BRUSH, ERASE, POLYGON, CLEAR, MASKER, GRABCUT, UNDO, REDO, SKIP)
THINNEST, WIDEST = 1, 400  # pixels across a brush
LONGEST_STROKE = 5000
LEAST_BOX = 8  # pixels
TOKEN = re.compile(r"[A-Za-z0-9-]{1,60}")
Point = tuple[float, float]


class StrokeError(FieldguideError):
    """A stroke that cannot be stored, however often it is sent."""


@dataclass(frozen=True)
class Stroke:
    """One thing that a person did to a mask."""

    do: str
    token: str  # given by the browser: what comes twice is stored once
    size: float = 0.0  # pixels across, of brush and eraser
    points: tuple[Point, ...] = ()  # of a box, two opposite corners
    file: str = ""  # hex digits that name the file of a mask that it brings


def read_stroke(request: Mapping, size: tuple[int, int]) -> Stroke:
    """Return what a message from the browser asks for on a photo of this width and height, or raise StrokeError."""
    do, token, across = (request.get(name) for name in ("do", "token", "size"))
    if not isinstance(do, str) or do not in ASKED:
        raise StrokeError("The page asked for something that is not offered. Reload the browser's page.")
    if not isinstance(token, str) or not TOKEN.fullmatch(token):
        raise StrokeError("A stroke came without its name. Reload the browser's page.")
    if do not in (BRUSH, ERASE, POLYGON, GRABCUT):
        return Stroke(do, token)
    points = _read_points(request.get("points"), size)
    if do in (BRUSH, ERASE):
        if not _is_number(across) or not THINNEST <= across <= WIDEST:
            raise StrokeError(f"A brush has {THINNEST} to {WIDEST} pixels. Choose another size.")
        return Stroke(do, token, round(float(across), 2), points)
    if do == POLYGON and len(points) < 3:
        raise StrokeError("A polygon needs 3 corners at least.")
    if do == GRABCUT and (len(points) != 2 or min(box_inside(points, size)[2:]) < LEAST_BOX):
        raise StrokeError(f"Drag a larger box: it must hold {LEAST_BOX}×{LEAST_BOX} pixels of the photo at least.")
    return Stroke(do, token, points=points)


def _read_points(given, size: tuple[int, int]) -> tuple[Point, ...]:
    """Return places that a message names, to a hundredth of a pixel; they may lie outside, but not far."""
    if not isinstance(given, list) or not 1 <= len(given) <= LONGEST_STROKE:
        raise StrokeError(f"A stroke has 1 to {LONGEST_STROKE:,} points.")
    points = []
    for point in given:
        if not isinstance(point, list) or len(point) != 2 or not all(map(_is_number, point)):
            raise StrokeError("A point of a stroke is not two numbers.")
        if not all(-side <= value <= 2 * side for value, side in zip(point, size, strict=True)):
            raise StrokeError(f"A point of a stroke lies far outside of the photo of {size[0]}×{size[1]} pixels.")
        points.append((round(float(point[0]), 2), round(float(point[1]), 2)))
    return tuple(points)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def box_inside(points: Sequence[Point], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """
    Return the part of a box that is inside of a photo, in whole pixels: left, top, width and height.

    >>> box_inside([(30.2, 8), (-5, 2.9)], (20, 40))
    (0, 2, 20, 6)
    """
    ends = []
    for values, side in zip(zip(*points, strict=True), size, strict=True):
        ends.append((min(max(math.floor(min(values)), 0), side), min(max(math.ceil(max(values)), 0), side)))
    (left, right), (top, bottom) = ends
    return left, top, right - left, bottom - top


def drawn_over(mask: np.ndarray, stroke: Stroke, layer: Callable[[Stroke], np.ndarray]) -> np.ndarray:
    """Return a mask, bool (H, W), after a stroke; `layer` returns the mask that a stroke brings."""
    if stroke.do == CLEAR:
        return np.zeros_like(mask)
    if stroke.do in (WAS_THERE, MASKER):
        return layer(stroke)
    if stroke.do == GRABCUT:
        return mask | layer(stroke)
    if stroke.do == POLYGON:
        return mask | inside_polygon(stroke.points, mask.shape)
    covered = under_brush(stroke.points, stroke.size, mask.shape)
    return mask | covered if stroke.do == BRUSH else mask & ~covered


def under_brush(points: Sequence[Point], across: float, shape: tuple[int, int]) -> np.ndarray:
    """
    Return which pixels of a mask (H, W) a round brush covers on its way from point to point.

    >>> under_brush([(1.5, 0.5), (3.5, 0.5)], 1, (2, 5)).astype(int)
    array([[0, 1, 1, 1, 0],
           [0, 0, 0, 0, 0]])
    """
    covered, radius = np.zeros(shape, bool), across / 2
    for (ax, ay), (bx, by) in zip(points, [*points[1:], points[-1]], strict=True):
        left, right = max(0, math.floor(min(ax, bx) - radius)), min(shape[1], math.ceil(max(ax, bx) + radius))
        top, bottom = max(0, math.floor(min(ay, by) - radius)), min(shape[0], math.ceil(max(ay, by) + radius))
        if left >= right or top >= bottom:
            continue
        x, y = np.arange(left, right)[None] + 0.5 - ax, np.arange(top, bottom)[:, None] + 0.5 - ay
        dx, dy = bx - ax, by - ay
        length = dx * dx + dy * dy
        along = np.clip((x * dx + y * dy) / length, 0, 1) if length else 0.0
        x, y = x - along * dx, y - along * dy
        covered[top:bottom, left:right] |= x * x + y * y <= radius * radius
    return covered


def inside_polygon(points: Sequence[Point], shape: tuple[int, int]) -> np.ndarray:
    """
    Return which pixels of a mask (H, W) a polygon covers: those from which a line leaves it an odd number of times.

    >>> inside_polygon([(1, 0), (3, 0), (3, 2), (1, 2)], (3, 4)).astype(int)
    array([[0, 1, 1, 0],
           [0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    inside, x, y = np.zeros(shape, bool), np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5
    for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]], strict=True):
        rows = (ay <= y) != (by <= y)
        if rows.any():
            crossing = ax + (y[rows] - ay) * (bx - ax) / (by - ay)
            inside[rows] ^= x[None] < crossing[:, None]
    return inside
