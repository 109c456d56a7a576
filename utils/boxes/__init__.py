"""
Finding things in photos: boxes from tables and files, a detector that learns them, and what its figures say.
"""

from utils.boxes.box import Box, read_boxes, write_boxes
from utils.boxes.photos import BoxedPhoto, Photos, read_photos

__all__ = ["Box", "BoxedPhoto", "Photos", "read_boxes", "read_photos", "write_boxes"]
