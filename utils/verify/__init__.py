"""
Stage 02: open every file for real; keep what is a picture, reject the rest with a reason, show what stands out.
"""

from utils.verify.byhand import take_back
from utils.verify.contradictions import find_contradictions
from utils.verify.judging import verify_images
from utils.verify.oddities import find_oddities
from utils.verify.report import rejected_paths

__all__ = ["find_contradictions", "find_oddities", "rejected_paths", "take_back", "verify_images"]
