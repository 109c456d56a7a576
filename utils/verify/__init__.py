"""
Stage 02: open every file for real; keep what is a picture, reject the rest with a reason.
"""

from utils.verify.judging import rejected_paths, report_of, take_back, verify_images

__all__ = ["rejected_paths", "report_of", "take_back", "verify_images"]
