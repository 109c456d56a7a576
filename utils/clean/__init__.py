"""
Stage 06: find the pictures that are filed wrongly, look at them, relabel or delete.
"""

from utils.clean.applying import apply_choices
from utils.clean.cleaner import ImageClassifierCleaner
from utils.clean.grid import Grid
from utils.clean.proposals import Proposals
from utils.clean.session import Cleaning, Outside
from utils.clean.suspects import (
    RIGHT_UNSURE,
    Suspect,
    confused_suspects,
    find_suspects,
    judges_sentence,
    rank_suspects,
)
from utils.ledger import Ledger

__all__ = [
    "RIGHT_UNSURE",
    "Cleaning",
    "Grid",
    "ImageClassifierCleaner",
    "Ledger",
    "Outside",
    "Proposals",
    "Suspect",
    "apply_choices",
    "confused_suspects",
    "find_suspects",
    "judges_sentence",
    "rank_suspects",
]
