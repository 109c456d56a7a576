"""
Finding things in photos: boxes from tables and files, a detector that learns them, and what its figures say.
"""

from utils.boxes.box import (
    Box,
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
from utils.boxes.photos import (
    BoxedPhoto,
    Photos,
    read_photos,
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
    "Box",
    "BoxEditor",
    "BoxLedger",
    "BoxSource",
    "BoxedPhoto",
    "Photos",
    "SourcePhoto",
    "ToLookAt",
    "box_sheet",
    "boxed_photos_table",
    "draw_boxes",
    "read_box_folder",
    "read_boxes",
    "read_photos",
    "take_boxed_photos",
    "write_box_files",
    "write_boxes",
]
