"""
Whether two pictures are the same one changed, one view with other content, one scene, or different.

Points that look alike are matched, directly and mirrored. RANSAC (Fischler and Bolles 1981) finds the shift, turn
and zoom on which most of them agree. The first picture is laid over the second with it, and the pixels decide. For
pictures with too few points, the eight ways to turn and mirror a whole picture are tried too.
"""

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from utils.copies.points import THUMB

# The same picture; a fixed camera's view, in which something else stands; a scene from elsewhere, as in a burst.
DIFFERENT, SAME_PICTURE, FIXED_VIEW, SAME_SCENE = range(4)
RATIO = 0.8  # of the distances to the nearest and the second nearest point (Lowe)
# Points that must agree. Of a smooth picture with few points it is this part of them, but never fewer than four.
INLIERS, FEWEST_INLIERS, INLIER_PART = 10, 4, 0.25
REACH = 4.0  # pixels within which they agree
ZOOM = 4.0  # most by which one picture may be larger than the other
LOCAL, WHOLE = 0.85, 0.8  # correlations in the same picture: the median of small windows, and of all pixels
WINDOW_SIDE = 15  # pixels, of 160
STRUCTURE = 4.0  # levels of 255 by which a window's pixels must vary to be compared
OVERLAP = 0.3  # share of the smaller picture that both must show
LIKE = 0.8  # correlation of tiny versions from which a whole picture, turned or mirrored, is laid over another
# √area of the largest part that differs in the same picture, as a share of the shorter side: laid as it is, or moved.
BLOB, MOVED_BLOB = 0.06, 0.12
DIFFERENCE = 20  # levels from which a pixel differs
GREYISH = 3.0  # levels by which the colours of a grey picture differ at most, on average
LUMA = np.float32([0.299, 0.587, 0.114])
CORNER = 0.16  # of its area counts, where a part touches the edge of a picture that was moved
BORDER = 0.12  # share of the shorter side at the edges where a part may differ: a date, a logo
STILL = 0.02  # share of the picture by which a fixed camera moves at most
SCENE_LOCAL = 0.5  # local correlation from which it is one scene
PLACES = np.arange(THUMB**2).reshape(THUMB, THUMB)
# Where the pixels of a tiny picture stand once it is turned by n % 4 quarters, and from 4 on mirrored.
TURNED = [np.rot90(PLACES, n % 4)[:, :: -1 if n >= 4 else 1].ravel() for n in range(8)]
DESCRIPTOR = np.arange(128).reshape(4, 4, 8)
MIRRORED = DESCRIPTOR[::-1][..., -np.arange(8) % 8].ravel()  # where the numbers of a mirrored point's descriptor stand

Alignment = tuple[int, bool, np.ndarray | None]  # quarter turns, then mirrored, then moved: (2, 3); None: stretched


def compared(first: np.void, second: np.void, pixels: Callable) -> int:
    """
    Return DIFFERENT, SAME_PICTURE, FIXED_VIEW or SAME_SCENE for two rows of `POINTS_ROW`.

    `pixels(0)` and `pixels(1)` return their pixels, uint8 (h, w, 3), or None. They are asked only if points agree.
    """
    best = DIFFERENT
    for turns, mirrored, matrix in alignments(first, second):
        if best != DIFFERENT and (turns or mirrored):
            break  # what shows one scene as it is shows it no better turned
        one, other = pixels(0), pixels(1)
        if one is None or other is None:
            return DIFFERENT
        one = np.rot90(one, turns)
        one = one[:, ::-1] if mirrored else one
        found = laid_over(np.ascontiguousarray(one), other, matrix, as_it_is=not turns and not mirrored)
        if found == SAME_PICTURE:
            return SAME_PICTURE
        best = FIXED_VIEW if FIXED_VIEW in (found, best) else max(best, found)
    return best


def alignments(first: np.void, second: np.void) -> Iterator[Alignment]:
    """Yield the ways in which the first picture may lie over the second, the cheapest to find first."""
    likeness = whole_likeness(first["thumb"], second["thumb"])
    if likeness[0] >= LIKE:
        yield 0, False, None
    for mirrored in (False, True):
        if (matrix := agreed(first, second, mirrored)) is not None:
            yield 0, mirrored, matrix
    for n in np.flatnonzero(likeness[1:] >= LIKE) + 1:
        yield int(n % 4), bool(n >= 4), None


def whole_likeness(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the correlation (8,) of a tiny picture, turned by n % 4 quarters and from 4 on mirrored, with another."""
    one, other = first.astype(np.float32), second.astype(np.float32)
    one -= one.mean()
    other -= other.mean()
    versions = np.stack([one.ravel()[order] for order in TURNED])
    return versions @ other.ravel() / max(float(np.sqrt((one**2).sum() * (other**2).sum())), 1.0)


def agreed(first: np.void, second: np.void, mirrored: bool) -> np.ndarray | None:
    """Return the shift, turn and zoom (2, 3) of the first picture on which its points and the second's agree."""
    n, m = int(first["count"]), int(second["count"])
    needed = min(INLIERS, max(FEWEST_INLIERS, round(INLIER_PART * min(n, m))))
    if min(n, m) < FEWEST_INLIERS:
        return None
    own, others = first["descriptors"][:n].astype(np.float32), second["descriptors"][:m].astype(np.float32)
    places = first["places"][:n]
    if mirrored:
        own, places = own[:, MIRRORED], np.float32([first["width"] - 1, 0]) + places * np.float32([-1, 1])
    distances = (own**2).sum(1)[:, None] + (others**2).sum(1) - 2 * own @ others.T  # squared
    rows, nearest = np.arange(n), distances.argmin(1)
    least = distances[rows, nearest]
    distances[rows, nearest] = np.inf
    good = np.flatnonzero(least < RATIO**2 * distances.min(1))
    good = good[np.unique(nearest[good], return_index=True)[1]]  # else many on one would agree by shrinking to it
    if len(good) < needed:
        return None
    matrix, inliers = cv2.estimateAffinePartial2D(
        places[good], second["places"][nearest[good]], ransacReprojThreshold=REACH, maxIters=1000
    )
    if matrix is None or inliers.sum() < needed or not 1 / ZOOM <= zoom_of(matrix) <= ZOOM:
        return None
    return matrix


def zoom_of(matrix: np.ndarray) -> float:
    """Return by how much a shift, turn and zoom enlarges."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def laid_over(one: np.ndarray, other: np.ndarray, matrix: np.ndarray | None, *, as_it_is: bool) -> int:
    """
    Lay a picture over another, both uint8 (h, w, 3), and return what they are.

    `as_it_is`: it was neither mirrored nor turned by quarters, so that both may come from one camera.
    """
    (h1, w1), (h2, w2) = one.shape[:2], other.shape[:2]
    moved = matrix is not None
    if not moved:
        matrix = np.float64([[w2 / w1, 0, 0], [0, h2 / h1, 0]])
    zoom = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    soft = cv2.GaussianBlur(one, (0, 0), max(1.5, 1.5 / zoom))
    laid = cv2.warpAffine(soft, matrix, (w2, h2)).astype(np.float32)
    seen = cv2.warpAffine(np.full((h1, w1), 255, np.uint8), matrix, (w2, h2), flags=cv2.INTER_NEAREST) > 0
    other = cv2.GaussianBlur(other, (0, 0), 1.5 * max(1.0, zoom)).astype(np.float32)
    if seen.sum() < OVERLAP * min(h1 * w1 * zoom**2, h2 * w2):
        return DIFFERENT
    laid, other, seen = (each[::2, ::2] for each in (laid, other, seen))  # they are soft: a quarter tells as much
    local, whole = correlations(laid @ LUMA, other @ LUMA, seen)
    still = as_it_is and is_still(matrix, w1, h1, w2, h2)
    largest = BLOB if still else MOVED_BLOB
    if local >= LOCAL and whole >= WHOLE and differing_part(laid, other, seen, still=still) < largest:
        return SAME_PICTURE
    if not as_it_is or local < SCENE_LOCAL:
        return DIFFERENT
    return FIXED_VIEW if still else SAME_SCENE if moved else DIFFERENT


def is_still(matrix: np.ndarray, w1: int, h1: int, w2: int, h2: int) -> bool:
    """Return whether the corners of a picture come to lie on those of the other, as a fixed camera's do."""
    corners = np.float64([[0, 0, 1], [w1, 0, 1], [0, h1, 1], [w1, h1, 1]])
    wanted = np.float64([[0, 0], [w2, 0], [0, h2], [w2, h2]])
    return bool(np.abs(corners @ matrix.T - wanted).max() <= STILL * max(w2, h2))


def correlations(laid: np.ndarray, other: np.ndarray, seen: np.ndarray) -> tuple[float, float]:
    """Return the median correlation of small windows that show structure, and that of all pixels but the worst."""
    size = (WINDOW_SIDE, WINDOW_SIDE)
    share = cv2.blur(seen.astype(np.float32), size)
    a, b = cv2.blur(laid, size), cv2.blur(other, size)
    aa, bb = cv2.blur(laid * laid, size) - a * a, cv2.blur(other * other, size) - b * b
    ab = cv2.blur(laid * other, size) - a * b
    with_structure = (share > 0.99) & (np.maximum(aa, bb) > STRUCTURE**2)
    if with_structure.sum() < WINDOW_SIDE**2:
        return 0.0, 0.0
    local = ab[with_structure] / np.sqrt(np.maximum(aa[with_structure] * bb[with_structure], 1e-3))
    # A turned picture has black corners, which are not part of it. So we leave out the worst fifth of the windows.
    kept = with_structure.copy()
    kept[with_structure] = local >= np.quantile(local, 0.2)
    return float(np.median(local)), float(np.corrcoef(laid[kept], other[kept])[0, 1])


def differing_part(laid: np.ndarray, other: np.ndarray, seen: np.ndarray, *, still: bool) -> float:
    """
    Return √area of the largest part in which two aligned pictures differ, as a share of the shorter side.

    `laid` and `other` are float32 (h, w, 3). Where one of them is grey, only the brightness counts. A mark in a corner
    does not count. If the picture is not `still`, what touches the edge counts for less: turning it brings in corners.
    """
    if min(np.ptp(picture, axis=2).mean() for picture in (laid, other)) < GREYISH:
        laid, other = (picture @ LUMA for picture in (laid, other))
    pairs = zip(np.atleast_3d(laid).transpose(2, 0, 1), np.atleast_3d(other).transpose(2, 0, 1), strict=True)
    differs = np.logical_or.reduce([np.abs(gap_between(a, b, seen)) > DIFFERENCE for a, b in pairs]) & seen
    differs = cv2.morphologyEx(differs.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    side, (height, width) = min(differs.shape), differs.shape
    _, _, parts, _ = cv2.connectedComponentsWithStats(differs)
    edge, largest = BORDER * side, 0
    for left, top, wide, high, area in parts[1:].tolist():
        in_border = left + wide <= edge or top + high <= edge or left >= width - edge or top >= height - edge
        touches = left == 0 or top == 0 or left + wide == width or top + high == height
        counts = 0 if still and in_border else CORNER if touches and not still else 1
        largest = max(largest, counts * area)
    return float(np.sqrt(largest)) / side


def gap_between(laid: np.ndarray, other: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return by how many levels each pixel differs once both pictures, float32 (h, w), are equally bright."""
    clear = seen & (laid > 5) & (laid < 250) & (other > 5) & (other < 250)
    gain, offset = 1.0, 0.0
    x, y = laid[clear][::4], other[clear][::4]
    if len(x) and x.std() > y.std():
        laid, other, x, y = other, laid, y, x  # what was cut off at white can be foretold, not the other way round
    for _ in range(3):  # the brightness of one against the other, from where they do not differ
        if len(x) < WINDOW_SIDE:
            break
        gain, offset = line_through(x, y)
        gap = np.abs(gain * x + offset - y)
        close = gap <= max(DIFFERENCE / 2, float(np.quantile(gap, 0.8)))
        x, y = x[close], y[close]
    lit = gain * laid + offset
    gap = np.clip(lit, 0, 255) - other
    # A pixel that one picture shows as white or black may have been anything beyond.
    gap[((laid >= 250) & (other > lit)) | ((laid <= 5) & (other < lit))] = 0
    return gap


def line_through(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return gain and offset of the line that predicts y from x best."""
    x0, y0 = float(x.mean()), float(y.mean())
    gain = float(((x - x0) * (y - y0)).sum() / max(float(((x - x0) ** 2).sum()), 1e-6))
    return gain, y0 - gain * x0
