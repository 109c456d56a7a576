"""
Stage 03a: masks, which say where in a photo the thing is, and the masker, a small network that learns to make them.

Masks come from a folder, or are painted. Those of the project's own photos lie in data/<name>/masks/; a folder may
bring photos of its own, which train the masker and are never classified. The masker is a set of scores on the packaged
network's maps of several levels, enlarged and added (Long, Shelhamer and Darrell 2015), fitted in seconds.
"""

from utils.masks.front import mask_front, mask_scorer, mask_way
from utils.masks.hiding import hiding
from utils.masks.masker import (
    MASKER_FILE,
    Masker,
    fit_masker,
    masker_file,
    masker_for,
    masker_id,
    overlap,
    read_masker,
    save_masker,
)
from utils.masks.network import masker_network
from utils.masks.painting import MaskPainter, painting_wanted
from utils.masks.showing import (
    masks_sentence,
    outline_sheet,
    overlap_figure,
    quality_sentence,
    refused_table,
    worst_sheet,
)
from utils.masks.source import DrawnMask, Masks, take_masks

__all__ = [
    "MASKER_FILE",
    "DrawnMask",
    "MaskPainter",
    "Masker",
    "Masks",
    "fit_masker",
    "hiding",
    "mask_front",
    "mask_scorer",
    "mask_way",
    "masker_file",
    "masker_for",
    "masker_id",
    "masker_network",
    "masks_sentence",
    "outline_sheet",
    "overlap",
    "overlap_figure",
    "painting_wanted",
    "quality_sentence",
    "read_masker",
    "refused_table",
    "save_masker",
    "take_masks",
    "worst_sheet",
]
