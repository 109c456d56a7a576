"""
Near-duplicates: which pictures show the same photo, a burst or one video, and so belong on one side.

Reads pictures and pictures.csv; keeps what it learned in data/<name>/copies/. What the packaged network sees and the
perceptual hash tell which pictures to compare, and the pixels decide.
"""

from utils.copies.groups import Copies, find_copies
from utils.copies.hashes import PERCEPTUAL_HASH
from utils.copies.kept import one_thread_per_caller
from utils.copies.photos import same_photos
from utils.copies.pieces import HashSearch, same_picture, search_pieces, seen_picture, versions_of_one

__all__ = [
    "PERCEPTUAL_HASH",
    "Copies",
    "HashSearch",
    "find_copies",
    "one_thread_per_caller",
    "same_photos",
    "same_picture",
    "search_pieces",
    "seen_picture",
    "versions_of_one",
]
