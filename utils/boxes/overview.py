"""
1_tables: which photos and boxes the sources hold, and how large the things are.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from utils.boxes.box import GROUP, Box
from utils.boxes.folder import read_box_folder
from utils.boxes.open_images import read_open_images
from utils.boxes.photos import NO_BOX
from utils.boxes.source import BoxSource
from utils.project import Project
from utils.settling import OPEN_IMAGES
from utils.sheets import figure_picture, without_formulas

SMALL_THING = 16  # pixels of the network's picture: the finest map of a detector has one place per 8
MOST_LABELS_DRAWN = 6
SIZE_BINS = 40


def read_box_sources(project: Project) -> list[BoxSource]:
    """List the photos and boxes of all sources of a project; see `read_box_folder` and `read_open_images`."""
    return [
        read_open_images(project) if source == OPEN_IMAGES else read_box_folder(project, Path(source))
        for source in project.sources
    ]


def boxes_overview(sources: Iterable[BoxSource]) -> pd.DataFrame:
    """
    Return one row per label: photos, boxes, those around many things, and the median side of a box.

    The side is the square root of a box's area, in percent of the photo's. The last row is of photos without a thing.
    """
    photos, groups, sides = Counter(), Counter(), defaultdict(list)
    for photo in (photo for source in sources for photo in source.photos):
        photos.update({box.label for box in photo.boxes} or {NO_BOX})
        for box in photo.boxes:
            sides[box.label].append(math.sqrt(box.area))
            groups[box.label] += GROUP in box.flags
    rows = {
        label: {
            "photos": photos[label],
            "boxes": len(sides[label]),
            "around many": groups[label],
            "median side, %": round(100 * median(sides[label])) if sides[label] else None,
        }
        for label in sorted(photos, key=lambda label: (label == NO_BOX, label))
    }
    return pd.DataFrame.from_dict(rows, orient="index").astype({"median side, %": "Int64"})


def box_sizes_figure(boxes: Iterable[Box], *, size: int) -> Image.Image:
    """
    Return a histogram of the sides of boxes, one line per label, those of the most boxes.

    The side is the square root of a box's area, in percent of the photo's. A vertical line shows which things have
    fewer than 16 pixels in a picture of `size` pixels: few detectors find those.
    """
    sides = defaultdict(list)
    for box in boxes:
        sides[box.label].append(100 * math.sqrt(box.area))
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    for label in sorted(sides, key=lambda label: (-len(sides[label]), label))[:MOST_LABELS_DRAWN]:
        axes.hist(sides[label], bins=SIZE_BINS, range=(0, 100), histtype="step", label=without_formulas(label))
    axes.axvline(100 * SMALL_THING / size, color="0.5", linestyle=":", label=f"{SMALL_THING} of {size} pixels")
    axes.set(xlabel="side of a box, % of the photo", ylabel="boxes", xlim=(0, 100))
    axes.legend(frameon=False, fontsize=8)
    return figure_picture(figure)
