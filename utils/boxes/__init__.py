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
from utils.boxes.photos import (
    BoxedPhoto,
    Photos,
    read_photos,
)

__all__ = [
    "BOX_COLOURS",
    "Box",
    "BoxEditor",
    "BoxLedger",
    "BoxedPhoto",
    "Photos",
    "ToLookAt",
    "box_sheet",
    "draw_boxes",
    "read_boxes",
    "read_photos",
    "write_boxes",
]
