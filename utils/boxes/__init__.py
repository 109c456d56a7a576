"""
Notebooks 1_tables and 2_photos: photos and the boxes in them, from tables and files; and a person who mends them.

What needs large libraries is imported when it is first asked for: a table of gigabytes is read without them.
"""

from importlib import import_module

from utils.boxes.box import (
    CORNER_DIGITS,
    CORNER_NAMES,
    FROM_MODEL,
    GROUP,
    Box,
    as_fraction,
    box_problem,
    corner_array,
    read_boxes,
    write_boxes,
)
from utils.boxes.open_images import read_open_images
from utils.boxes.photos import BoxedPhoto, Photos, read_photos
from utils.boxes.source import BoxSource, SourcePhoto

LATER = {
    "COPY_SIDE": "taking",  # name → the part that holds it
    "BOX_COLOURS": "drawing",
    "BoxEditor": "editor",
    "BoxLedger": "corrections",
    "SplitPhotos": "sides",
    "ToLookAt": "editor",
    "box_sheet": "drawing",
    "box_sizes_figure": "overview",
    "boxed_photos_table": "taking",
    "boxes_overview": "overview",
    "draw_boxes": "drawing",
    "read_box_folder": "folder",
    "read_box_sources": "overview",
    "sides_table": "sides",
    "split_photos": "sides",
    "take_boxed_photos": "taking",
    "write_box_files": "writing",
}
__all__ = [
    "BoxedPhoto",
    "Photos",
    "read_photos",
    "read_open_images",
    "BoxSource",
    "SourcePhoto",
    "Box",
    "CORNER_DIGITS",
    "CORNER_NAMES",
    "FROM_MODEL",
    "GROUP",
    "as_fraction",
    "box_problem",
    "corner_array",
    "read_boxes",
    "write_boxes",
    *LATER,
]


def __getattr__(name: str):
    """Import the part that holds a name."""
    if name in LATER:
        return getattr(import_module(f"utils.boxes.{LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
