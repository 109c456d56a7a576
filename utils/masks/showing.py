"""
Masks, what a notebook shows: sentences, and sheets of photos with outlines.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from PIL import Image

from utils.dataset import Dataset, seeded_rank
from utils.intervals import bootstrap, interval, mean_of
from utils.masks.masker import Masker, found_mask, picture_maps
from utils.masks.network import level_stages
from utils.masks.reading import MaskError, read_photo
from utils.masks.source import DrawnMask, Masks
from utils.pictures import outlined
from utils.seeing import one_thread_each
from utils.sheets import contact_sheet
from utils.words import counted, share

DRAWN, FOUND = (0, 114, 178), (230, 159, 0)  # blue and orange, which nearly everybody can tell apart
SHEET_SIDE = 224  # pixels, of a photo on a sheet
SHOWN_FROM = 10  # masks; with fewer a masker is a guess


def masks_sentence(masks: Masks, *, wanted: bool) -> str:
    """Return how many masks there are; `wanted`: whether the project file asks for masks."""
    if not (wanted or masks.drawn or masks.refused):
        return (
            "There is nothing to do: the project file has no mask_source, and there is no mask in masks/. Go on with "
            '04_train. To paint masks here, write mask_source = "paint" into the project file and run this again.'
        )
    if not (masks.drawn or masks.refused):
        return "There is no mask yet. Paint some at the end of this notebook, then run it again."
    train = sum(mask.trains for mask in masks.drawn)
    told = (
        f"{counted(len(masks.drawn), 'mask')} can be used: {train} to train, {len(masks.drawn) - train} only to judge"
    )
    told += f"; {masks.copied} of them new in masks/." if masks.copied else "."
    if not masks.enough:
        told += " A masker learns from 2 different photos of the training set at least: paint more below."
    if masks.refused:
        told += f" Not used: {len(masks.refused)}, each with its reason below."
    return told


def refused_table(masks: Masks) -> pd.DataFrame:
    """Return which files were not used and why, one row per reason, with up to three of their names."""
    rows = []
    for reason, count in masks.reasons.most_common():
        names = [name for name, why in masks.refused if why == reason]
        rows.append({"why": reason, "files": count, "such as": ", ".join(names[:3])})
    return pd.DataFrame(rows, columns=["why", "files", "such as"])


def overlap_figure(masker: Masker, seed: int = 0) -> dict:
    """Return the mean IoU on masks that were held out, with its 95 % interval; near-duplicates count as one draw."""
    groups = [one.group for one in masker.judged]
    value, draws = bootstrap({"iou": mean_of(np.array([one.iou for one in masker.judged]))}, groups, seed=seed)["iou"]
    return interval(value[0], draws[:, 0], n=len(groups), groups=groups)


def quality_sentence(masker: Masker) -> str:
    """Return how good a masker is, in words."""
    figure = overlap_figure(masker)
    ends = f" (95 % interval {figure['low']:.3f} to {figure['high']:.3f})" if figure["low"] is not None else ""
    few = f" With fewer than {SHOWN_FROM} masks to learn from, draw more." if masker.masks < SHOWN_FROM else ""
    return (
        f"Mean IoU {figure['value']:.3f}{ends} on {counted(figure['n'], 'mask')}, each held out from the masker that "
        f"found it. 1 is the same outline, 0 no overlap. The masker learned from {counted(masker.masks, 'mask')}.{few}"
    )


def worst_sheet(masker: Masker, drawn: Sequence[DrawnMask], *, most: int = 6) -> Image.Image:
    """Return the photos whose held-out mask was found worst: the person's outline in blue, the masker's in orange."""
    known, stages = {mask.content: mask for mask in drawn}, level_stages(masker.encoder)
    pictures, captions = [], []
    for one in sorted(masker.judged, key=lambda one: (one.iou, one.name))[:most]:
        head = masker.head if one.fold < 0 else masker.folds[one.fold]
        image, mask = known[one.content].read()
        with one_thread_each():
            found = found_mask(picture_maps(stages, image, masker.size), head, image.size)
        pictures.append(with_outlines(image, {DRAWN: mask, FOUND: found}))
        captions.append(f"{one.name}\nIoU {one.iou:.2f}")
    return contact_sheet(pictures, captions, columns=3, side=SHEET_SIDE)


def outline_sheet(masker: Masker, dataset: Dataset, *, most: int = 24) -> Image.Image:
    """Return pictures of a data set, chosen by its seed, with the masker's outlines; below, how much it covers."""
    ranked = sorted(dataset, key=lambda picture: seeded_rank(dataset.project.seed, picture.id))[:most]
    stages, pictures, captions = level_stages(masker.encoder), [], []
    for picture in sorted(ranked, key=lambda picture: (picture.label, picture.id)):
        try:
            image, _ = read_photo(picture.path)
        except MaskError as error:
            pictures.append(picture.path)
            captions.append(f"{picture.label}\n{error}")
            continue
        with one_thread_each():
            found = found_mask(picture_maps(stages, image, masker.size), masker.head, image.size)
        pictures.append(with_outlines(image, {FOUND: found}))
        captions.append(f"{picture.label}\n{share(float(found.mean()))} of the photo")
    return contact_sheet(pictures, captions, columns=6, side=SHEET_SIDE // 4 * 3)


def with_outlines(image: Image.Image, masks: dict[tuple[int, int, int], np.ndarray]) -> Image.Image:
    """Return a photo, reduced for a sheet, with the outline of each mask, bool (H, W), in its colour."""
    small = image.copy()
    small.thumbnail((SHEET_SIDE, SHEET_SIDE))
    for colour, mask in masks.items():
        small = outlined(small, mask, colour)
    return small
