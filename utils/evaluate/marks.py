"""
The shortcut alarm inside the picture: does one label carry a mark, such as a date, a logo, a ruler or a frame?

Reads images/, for stage 05. A mark shows the same fine structure at the same place in many photos. What photos show by
themselves has no fixed place, so the mean of its fine structure over many photos fades. Four folds of five make a
template: what one label has more of than the others. A photo of the fifth fold carries the mark if it fits the template
much better in place than shifted. So grounds that differ between labels ring no alarm. That a mark is what stays in the
mean is how watermarks are removed (Dekel et al. 2017).
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image
from scipy.stats import hypergeom
from sklearn.model_selection import StratifiedKFold

from utils.dataset import Dataset
from utils.evaluate.shortcuts import TREE_FOLDS, colours_of, sampled
from utils.intervals import LEVEL, wilson
from utils.pictures import PictureError, open_picture
from utils.sheets import contact_sheet
from utils.words import counted

MOST_LOOKED_INTO = 1000  # pictures
DEPTH, ALONG = 48, 192  # pixels of a view: a quarter of the squished picture, and its whole side
NEARBY = 5  # pixels: a colour counts against the mean around it
SOFT = 6.0  # levels: beyond, a stronger edge counts little more, so that no single photo rules the mean
OPPONENT = np.array([[1 / 3, 0.5, 0.25], [1 / 3, -0.5, 0.25], [1 / 3, 0, -0.5]], dtype=np.float32)  # light, red, yellow
KEPT = 400  # of a template's numbers: a mark is small
EVERYWHERE = 100.0  # added to the variance, so that a place that is the same in all pictures has no weight
FITS = 5.0  # standard deviations better in place than shifted; 3 of 10,560 fits of 420 unmarked photos reach it
# Rows and columns: so far that no mark meets itself.
SHIFTS = np.array([(5 + 7 * n % 38, 7 + 53 * n % 178) for n in range(32)])
SHOWN_WITH = 6  # photos shown with the mark, and as many without
CORNERS = ("upper left corner", "upper right corner", "lower left corner", "lower right corner")
# Of each view: its edge, and the corners where it begins and ends. Four are strips of the squished picture. Four are
# counted in pixels from a corner: there a camera's date stays in place whatever the shape of the picture.
VIEWS = (
    ("upper edge", CORNERS[0], CORNERS[1]),
    ("lower edge", CORNERS[2], CORNERS[3]),
    ("left edge", CORNERS[0], CORNERS[2]),
    ("right edge", CORNERS[1], CORNERS[3]),
    ("upper edge", CORNERS[0], "upper edge"),
    ("upper edge", "upper edge", CORNERS[1]),
    ("lower edge", CORNERS[2], "lower edge"),
    ("lower edge", "lower edge", CORNERS[3]),
)
CROPS = {  # place → left, upper, right and lower end, as fractions
    **{"upper edge": (0, 0, 1, 0.25), "lower edge": (0, 0.75, 1, 1)},
    **{"left edge": (0, 0, 0.25, 1), "right edge": (0.75, 0, 1, 1)},
    **{CORNERS[0]: (0, 0, 0.5, 0.4), CORNERS[1]: (0.5, 0, 1, 0.4)},
    **{CORNERS[2]: (0, 0.6, 0.5, 1), CORNERS[3]: (0.5, 0.6, 1, 1)},
}
NOT_LOOKED_FOR = (
    "Not looked for: marks in the middle, marks that move about, and marks that few photos of a label have."
)


def find_marks(dataset: Dataset) -> dict:
    """
    Return which labels of the training and validation sets carry a mark at a corner or an edge.

    The dict holds ``pictures``: how many were looked into, near-duplicates counted once; ``found``: one dict per marked
    label, the surest first, with ``label``, ``place``, ``own`` and ``others`` (figures: the share of the label's photos
    that carry it, and of all others), ``p`` (corrected for the number of labels and places), and ids for `mark_sheet`.
    With too few pictures, ``why`` says so.
    """
    sample = sampled(dataset, most=MOST_LOOKED_INTO)
    views = [None if (pixels := colours_of(path)) is None else edge_structure(pixels) for path in sample.paths]
    read = [n for n, each in enumerate(views) if each is not None]
    labels = [sample.labels[n] for n in read]
    counts = Counter(labels)
    tests, smallest = len(counts) * len(VIEWS), min(counts.values(), default=0)
    surest = [hypergeom.pmf(count, len(labels), count, count) for count in counts.values()]
    if len(counts) < 2 or smallest < 2 or tests * min(surest) >= 1 - LEVEL:
        return {"pictures": len(read), "found": [], "why": "too few pictures to look for marks"}
    folds = StratifiedKFold(min(TREE_FOLDS, smallest), shuffle=True, random_state=dataset.project.seed)
    helds = [held for _, held in folds.split(labels, labels)]
    best: dict[str, dict] = {}
    for n, names in enumerate(VIEWS):
        structure = np.stack([views[k][n] for k in read]).reshape(len(read), -1).astype(np.float32)
        for label in sorted(counts):
            own = np.array([each == label for each in labels])
            fits, template = fits_of(structure, own, helds)
            mark = _mark(fits > FITS, own, tests)
            if mark["p"] < min(1 - LEVEL, best.get(label, mark | {"p": 1})["p"]):
                order = np.argsort(-fits, kind="stable")
                chosen = {"with": order[own[order]][:SHOWN_WITH], "without": order[~own[order]][: -SHOWN_WITH - 1 : -1]}
                ids = {key: [sample.ids[read[k]] for k in each] for key, each in chosen.items()}
                best[label] = {"label": label, "place": place_of(template, names), **mark, **ids}
    return {"pictures": len(read), "found": sorted(best.values(), key=lambda mark: mark["p"])}


def edge_structure(pixels: np.ndarray) -> np.ndarray:
    """
    Return the fine structure of a picture, uint8 (H, W, 3), near its edges: int8 (8, 48, 192, 3).

    Each view is a strip along an edge. Each number says how much a pixel's light, red or yellow differs from the mean
    around it.
    """
    squished = cv2.resize(pixels, (ALONG, ALONG), interpolation=cv2.INTER_AREA)
    turned = squished.transpose(1, 0, 2)
    views = [squished[:DEPTH], squished[-DEPTH:], turned[:DEPTH], turned[-DEPTH:]]
    half = [max(1, round(side / 2)) for side in pixels.shape[1::-1]]  # width, height
    reduced = cv2.resize(pixels, half, interpolation=cv2.INTER_AREA)
    lacks = [max(0, DEPTH - half[1]), max(0, ALONG - half[0])]
    for ends in ((0, 0), (0, 1), (1, 0), (1, 1)):  # at the upper or lower, at the left or right end
        padding = [(lack, 0) if end else (0, lack) for end, lack in zip(ends, lacks, strict=True)]
        whole = np.pad(reduced, [*padding, (0, 0)], mode="edge")
        views.append(whole[-DEPTH if ends[0] else 0 :, -ALONG if ends[1] else 0 :][:DEPTH, :ALONG])
    flat = [np.ascontiguousarray(view, dtype=np.float32) @ OPPONENT for view in views]
    fine = np.stack([view - cv2.blur(view, (NEARBY, NEARBY)) for view in flat])
    return (127 * fine / (np.abs(fine) + SOFT)).astype(np.int8)


def fits_of(structure: np.ndarray, own: np.ndarray, helds: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """
    Return how much better N pictures fit a template of other pictures in place than shifted, and the sum of templates.

    `structure` (N, 48 · 192 · 3) is one view; `own` (N,) says which pictures have the label; `helds` are the folds'
    positions. Fits (N,) are standard deviations of the shifted fits; the sum of templates is (48, 192, 3).
    """
    fits, whole = np.zeros(len(structure)), np.zeros(structure.shape[1])
    spread = np.sqrt(np.einsum("nd,nd->d", structure, structure) / len(structure) + EVERYWHERE)
    sides = np.stack([own, ~own]).astype(np.float32)  # (2, N)
    counts, sums = sides.sum(1, keepdims=True), sides @ structure
    for held in helds:
        judged, their = structure[held], sides[:, held]
        mine, rest = (sums - their @ judged) / (counts - their.sum(1, keepdims=True))
        gap = (mine - rest) / spread
        at = np.sort(np.argpartition(-np.abs(gap), KEPT)[:KEPT])
        row, column, colour = np.unravel_index(at, (DEPTH, ALONG, 3))
        moves = np.vstack([[(0, 0)], SHIFTS])
        rows, columns = (row + moves[:, :1]) % DEPTH, (column + moves[:, 1:]) % ALONG
        places = (rows * ALONG + columns) * 3 + colour  # (1 + shifts, KEPT)
        there = judged[:, places] @ gap[at]  # (held, 1 + shifts)
        fits[held] = (there[:, 0] - there[:, 1:].mean(1)) / np.maximum(there[:, 1:].std(1), 1e-6)
        whole[at] += gap[at]
    return fits, whole.reshape(DEPTH, ALONG, 3)


def _mark(carries: np.ndarray, own: np.ndarray, tests: int) -> dict:
    """Return the shares of a label's N pictures and of the others that carry a mark, and Fisher's p, corrected."""
    mine, all_that_do = int((carries & own).sum()), int(carries.sum())
    p = hypergeom.sf(mine - 1, len(own), int(own.sum()), all_that_do)
    shares = {"own": wilson(mine, int(own.sum())), "others": wilson(all_that_do - mine, int((~own).sum()))}
    return {**shares, "p": min(1.0, float(f"{tests * p:.6g}"))}


def place_of(template: np.ndarray, names: Sequence[str]) -> str:
    """Return where along its view a template (48, 192, 3) has most of its weight: a corner, or the whole edge."""
    weight = np.abs(template).sum((0, 2))
    third = ALONG // 3
    parts = {names[1]: weight[:third].sum(), names[2]: weight[-third:].sum()}
    most = max(parts, key=parts.get)
    return most if parts[most] > weight.sum() / 2 else names[0]


def mark_line(found: Mapping) -> str:
    """Return in one line which marks `find_marks` found under ``marks``, and what was not looked for."""
    marks = found.get("marks")
    if marks is None:
        return "No mark was looked for: an earlier version of Fieldguide judged this round. Run 05 again."
    if "why" in marks:
        return f"No mark was looked for: {marks['why']}."
    if not marks["found"]:
        return f"No mark found at the corners and edges of {counted(marks['pictures'], 'photo')}. {NOT_LOOKED_FOR}"
    told = [
        f"Something alike at the {mark['place']}: {_hits(mark['own']):,} of {counted(mark['own']['n'], 'photo')} of "
        f"“{mark['label']}” have it, {_hits(mark['others']):,} of {mark['others']['n']:,} others."
        for mark in marks["found"]
    ]
    return f"Shortcut! {' '.join(told)} A date, a logo, a frame, the same ground? {NOT_LOOKED_FOR}"


def _hits(share: Mapping) -> int:
    """Return how many photos a share counts."""
    return round(share["value"] * share["n"])


def mark_sheet(dataset: Dataset, found: Mapping, *, side: int = 160) -> Image.Image | None:
    """Return, per mark, its place in photos of the label, and in as many others; None if there is no mark."""
    crops, captions, marks = [], [], found.get("marks", {}).get("found", ())
    for mark in marks:
        for key in ("with", "without"):
            ids = [id for id in mark[key] if id in dataset][:SHOWN_WITH]
            crops += [_crop(dataset, id, CROPS[mark["place"]]) for id in ids]
            captions += [dataset.records.caption(dataset[id].path, dataset[id].label) for id in ids]
            blank = SHOWN_WITH - len(ids)  # so that the next ones begin a row
            crops += [Image.new("RGB", (side, side), "white")] * blank
            captions += [""] * blank
    return contact_sheet(crops, captions, columns=SHOWN_WITH, side=side) if crops else None


def _crop(dataset: Dataset, id: str, ends: Sequence[float]) -> Image.Image:
    """Return one place of a photo; a grey card where it cannot be read."""
    try:
        image = open_picture(dataset[id].path)
    except (PictureError, OSError):
        return Image.new("RGB", (8, 8), (200, 200, 200))
    return image.crop([round(end * size) for end, size in zip(ends, image.size * 2, strict=True)])
