"""
Notebooks 1_tables and 2_photos: photos and the boxes in them, from tables and files; and a person who mends them.
"""

from utils.boxes.box import (
    CORNER_DIGITS,
    CORNER_NAMES,
    GROUP,
    Box,
    as_fraction,
    box_problem,
    corner_array,
    read_boxes,
    write_boxes,
)
from utils.boxes.corrections import (
    BoxLedger,
)
from utils.boxes.drawing import (
    BOX_COLOURS,
    box_sheet,
    draw_boxes,
)
from utils.boxes.editor import (
    BoxEditor,
    ToLookAt,
)
from utils.boxes.folder import (
    read_box_folder,
)
from utils.boxes.open_images import (
    read_open_images,
)
from utils.boxes.overview import (
    box_sizes_figure,
    boxes_overview,
    read_box_sources,
)
from utils.boxes.photos import (
    BoxedPhoto,
    Photos,
    read_photos,
)
from utils.boxes.sides import (
    SplitPhotos,
    sides_table,
    split_photos,
)
from utils.boxes.source import (
    BoxSource,
    SourcePhoto,
)
from utils.boxes.taking import (
    boxed_photos_table,
    take_boxed_photos,
)
from utils.boxes.writing import (
    write_box_files,
)

__all__ = [
    "BOX_COLOURS",
    "CORNER_DIGITS",
    "CORNER_NAMES",
    "GROUP",
    "Box",
    "BoxEditor",
    "BoxLedger",
    "BoxSource",
    "BoxedPhoto",
    "Photos",
    "SourcePhoto",
    "SplitPhotos",
    "ToLookAt",
    "as_fraction",
    "box_problem",
    "box_sheet",
    "box_sizes_figure",
    "boxed_photos_table",
    "boxes_overview",
    "corner_array",
    "draw_boxes",
    "read_box_folder",
    "read_box_sources",
    "read_boxes",
    "read_open_images",
    "read_photos",
    "sides_table",
    "split_photos",
    "take_boxed_photos",
    "write_box_files",
    "write_boxes",
]
