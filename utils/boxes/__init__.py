"""
Finding things in photos: boxes from tables and files, a detector that learns them, and what its figures say.
"""

from utils.boxes.box import Box, read_boxes, write_boxes
from utils.boxes.drawing import BOX_COLOURS, box_sheet, draw_boxes
from utils.boxes.photos import BoxedPhoto, Photos, read_photos

__all__ = [
    "BOX_COLOURS",
    "Box",
    "BoxedPhoto",
    "Photos",
    "box_sheet",
    "draw_boxes",
    "read_boxes",
    "read_photos",
    "write_boxes",
]
