"""
What a person decided about pictures: flags set, moves made, and the way back.

Foundation of every stage.
"""

from utils.ledger.flags import (
    DELETE,
    KEEP,
    now,
    read_choices,
    read_review,
    save_choices,
    save_flag,
    save_flags,
    store_flags,
)
from utils.ledger.moves import DELETED, RESTORED, Ledger, Outcome

__all__ = [
    "DELETE",
    "DELETED",
    "KEEP",
    "RESTORED",
    "Ledger",
    "Outcome",
    "now",
    "read_choices",
    "read_review",
    "save_choices",
    "save_flag",
    "save_flags",
    "store_flags",
]
