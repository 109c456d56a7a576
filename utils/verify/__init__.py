"""
Stage 02: open every file for real; keep what is a picture, reject the rest with a reason, show what stands out.
"""

from utils.verify.byhand import take_back
from utils.verify.contradictions import find_contradictions
from utils.verify.depths import bits_of_set
from utils.verify.judging import verify_images
from utils.verify.oddities import find_oddities
from utils.verify.opening import in_batches, judged_in_order, judged_picture, keep
from utils.verify.sorting import picture_grid
from utils.verify.verdicts import Tables

__all__ = [
    "Tables",
    "bits_of_set",
    "find_contradictions",
    "find_oddities",
    "in_batches",
    "judged_in_order",
    "judged_picture",
    "keep",
    "picture_grid",
    "take_back",
    "verify_images",
]
