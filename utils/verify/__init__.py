"""
Stage 02: open every file for real; keep what is a picture, reject the rest with a reason, show what stands out.
"""

from utils.verify.byhand import take_back
from utils.verify.contradictions import find_contradictions
from utils.verify.judging import verify_images
from utils.verify.oddities import find_oddities
from utils.verify.sorting import picture_grid

__all__ = ["find_contradictions", "find_oddities", "picture_grid", "take_back", "verify_images"]
