"""
Stage 06: find the pictures that are filed wrongly, look at them, relabel or delete.
"""

from utils.clean.cleaner import ImageClassifierCleaner
from utils.clean.session import summary
from utils.clean.suspects import RIGHT_UNSURE, Suspect, find_suspects, rank_suspects
from utils.ledger import Ledger

__all__ = [
    "RIGHT_UNSURE",
    "ImageClassifierCleaner",
    "Ledger",
    "Suspect",
    "find_suspects",
    "rank_suspects",
    "summary",
]
