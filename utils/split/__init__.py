"""
Stage 03: decide, once, which pictures train the model and which judge it.
"""

from utils.split.sides import (
    LabelTooSmall,
    assign_sides,
    changed_settings,
    given_sentence,
    leak_warning,
    leaking_pairs,
    naive_leaks,
    save_split,
    split_counts,
)

__all__ = [
    "LabelTooSmall",
    "assign_sides",
    "changed_settings",
    "given_sentence",
    "leak_warning",
    "leaking_pairs",
    "naive_leaks",
    "save_split",
    "split_counts",
]
