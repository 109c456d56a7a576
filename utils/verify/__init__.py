"""
Stage 02: open every file for real; keep what is a picture, reject the rest with a reason.
"""

from utils.verify.byhand import take_back
from utils.verify.judging import verify_images
from utils.verify.report import rejected_paths

__all__ = ["rejected_paths", "take_back", "verify_images"]
