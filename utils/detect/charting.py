"""
3_train and 4_test, what a person sees: the curves of a training, and how precision falls as more is found.

Reads and writes nothing: functions take rows and figures, and return pictures and tables.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from utils.boxes import Box, Photos, box_sheet, draw_boxes
from utils.detect.loading import is_ignored
from utils.sheets import contact_sheet, figure_picture, png_bytes, without_formulas

SIDE_LINES = {"train": "-", "valid": "--"}
PART_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by everybody


def box_chart(rows: Sequence[Mapping], *, title: str = "") -> bytes:
    """
    Return as a PNG how the loss, its parts, mean IoU and AP50 went from epoch to epoch; the epoch kept is marked.

    `rows` are those of box_history.csv so far. Solid lines are the training set, dashed ones the validation set.
    """
    figure = Figure(figsize=(13, 3.6))
    figure.subplots_adjust(left=0.04, right=0.985, bottom=0.14, top=0.84, wspace=0.16)
    whole, parts, found = figure.subplots(1, 3)
    epochs, best = [row["epoch"] for row in rows], best_epoch(rows)
    for side, line in SIDE_LINES.items():
        named = "training" if side == "train" else "validation"
        whole.plot(epochs, [row[f"{side}_loss"] for row in rows], f"o{line}", label=named, color=PART_COLOURS[0])
        for part, colour in zip(loss_parts(rows), PART_COLOURS, strict=False):
            label = part.replace("_", " ") if side == "train" else None
            parts.plot(epochs, [row[f"{side}_{part}"] for row in rows], f".{line}", label=label, color=colour)
    for name, told, colour in (("ap50", "AP50", PART_COLOURS[1]), ("mean_iou", "mean IoU", PART_COLOURS[2])):
        found.plot(epochs, [row[name] for row in rows], "s--", label=told, color=colour)
    found.set_ylim(0, 1.02)
    titles = "loss (lower is better)", "its parts (dashed: validation)", "on the validation set (higher is better)"
    for axes, name in zip((whole, parts, found), titles, strict=True):
        if best is not None:
            axes.axvline(best, color="#999999", linewidth=1, linestyle=":")
        axes.set(title=name, xlabel="epoch", xlim=(-0.3, max(1, len(rows) - 1) + 0.3))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.suptitle(without_formulas(title))
    return png_bytes(figure)


def loss_parts(rows: Sequence[Mapping]) -> list[str]:
    """
    Return the names of the parts of a detector's loss, which box_history.csv has for training and validation.

    >>> loss_parts([{"train_loss": 2.0, "train_centerness": 1.0, "valid_centerness": 1.1}])
    ['centerness']
    """
    return [
        name.removeprefix("train_") for name in (rows or [{}])[0] if name.startswith("train_") and name != "train_loss"
    ]


def epoch_rank(row: Mapping) -> tuple[float, float]:
    """Return by what the best epoch is chosen: AP50 on the validation set; of equals, the lower validation loss."""
    ap50, loss = row["ap50"], row["valid_loss"]
    return (ap50 if math.isfinite(ap50) else -1.0), (-loss if math.isfinite(loss) else -math.inf)


def best_epoch(rows: Sequence[Mapping]) -> int | None:
    """
    Return the epoch that is kept, of equals the first; None before there is one.

    >>> best_epoch([{"epoch": 0, "ap50": 0.8, "valid_loss": 2.0}, {"epoch": 1, "ap50": 0.8, "valid_loss": 1.5}])
    1
    """
    best = max(rows, key=epoch_rank, default=None)
    return None if best is None else best["epoch"]


def box_history_table(rows: Sequence[Mapping]):
    """Return the rows of box_history.csv as a table to show, with the epoch that is kept marked."""
    best = best_epoch(rows)
    style = pd.DataFrame(rows).style.hide(axis="index").format({"lr": "{:.1e}", "seconds": "{:.1f}"}, precision=3)
    mark = "background-color: #ffe08a; color: black"
    return style.apply(lambda row: [mark if row["epoch"] == best else ""] * len(row), axis=1)


def precision_recall_picture(curve: Mapping, point: Mapping | None = None) -> Image.Image:
    """
    Return precision against recall at an overlap of .5, with its 95 % band; `point` is where the threshold lies.

    `curve` holds "recall", "precision", "low" and "high", each a list of R numbers; `point` "recall" and "precision".
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    recall = np.asarray(curve["recall"], float)
    axes.fill_between(recall, curve["low"], curve["high"], color=PART_COLOURS[0], alpha=0.2, label="95 % interval")
    axes.plot(recall, curve["precision"], color=PART_COLOURS[0], label="precision at each recall")
    if point and point["recall"] is not None and point["precision"] is not None:
        axes.plot([point["recall"]], [point["precision"]], "o", color=PART_COLOURS[1], label="at the threshold")
    axes.set(xlabel="recall: share of the things that are found", ylabel="precision: share of the boxes that are right")
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02), title="The more is found, the more is wrong (overlap ≥ .5)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    return figure_picture(figure)


def worst_sheet_of(photos: Photos, worst: pd.DataFrame, found: Mapping, threshold: float) -> Image.Image:
    """Return the worst photos of 4_test with their boxes and those found there from a score on, three per row."""
    pairs = []
    for photo in (photos[id] for id in worst["id"]):
        ignored = [box for box in photo.boxes if is_ignored(box)]
        kinds = {"true": [box for box in photo.boxes if box not in ignored], "ignored": ignored}
        pairs.append((photo.path, kinds | {"found": [box for box in found[photo.id] if box.score >= threshold]}))
    captions = [f"{id}\n{kinds}" for id, kinds in zip(worst["id"], worst["kinds"], strict=True)]
    return box_sheet(pairs, captions=captions, columns=3, side=320, named=True)


def batch_sheet(loader, *, count: int = 8) -> Image.Image:
    """Return the first pictures of a loader as the network sees them, with their boxes; ignored ones are grey."""
    pictures = []
    for n in range(min(count, len(loader.dataset))):
        pixels, target = loader.dataset[loader.epoch, n]
        kinds = {"ignored": target["ignored"], "true": target["boxes"]}
        boxes = {kind: [Box("", *box) for box in (own / len(pixels)).tolist()] for kind, own in kinds.items()}
        pictures.append(draw_boxes(Image.fromarray(pixels.numpy()), boxes))
    return contact_sheet(pictures, columns=4, side=224)
