"""
Near-duplicates: which pictures show the same photo, a burst or one video, and so belong on one side.

Reads pictures and pictures.csv; keeps what it learned in data/<name>/copies/. What the packaged network sees and the
perceptual hash tell which pictures to compare, and the pixels decide.
"""

from utils.copies.groups import Copies, find_copies
from utils.copies.photos import same_photos

__all__ = ["Copies", "find_copies", "same_photos"]
