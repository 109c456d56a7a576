"""
Stage 04, what a person sees: the curves while it trains, the schedule before, and the table afterwards.

Reads and writes nothing: functions take the rows of history.csv and return pictures, tables and sentences.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from PIL import Image

from utils.sheets import figure_picture, png_bytes, without_formulas

TRAIN, VALID, GREY = "#0072b2", "#d55e00", "#999999"
MARGIN = 0.3, 0.04  # epochs to the left and right of the curves, at least, and as a share of all
ROOM = 1.5  # powers of ten above the highest rate, for the names of the lines
CLEAR_RISE = 1.05  # a validation loss this many times its lowest is no chance of few pictures


def training_curve(rows: Sequence[Mapping], rates: np.ndarray, *, title: str = "") -> bytes:
    """
    Return losses, accuracy and learning rate against epochs as a PNG; the best epoch is marked.

    `rows` are those of history.csv so far; `rates`, float array (N, 2), the rates of first layers and head in each
    batch, not a number where layers are frozen.
    """
    figure = Figure(figsize=(13, 3.4))  # margins by hand: matplotlib's layouts take longer than the drawing
    figure.subplots_adjust(left=0.04, right=0.985, bottom=0.15, top=0.83, wspace=0.16)
    losses, share, rate = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in rows]
    losses.plot(epochs, [row["train_loss"] for row in rows], "o-", label="training", color=TRAIN)
    losses.plot(epochs, [row["valid_loss"] for row in rows], "s--", label="validation", color=VALID)
    share.plot(epochs, [row["accuracy"] for row in rows], "s--", color=VALID, label="validation")
    share.set_ylim(0, 1.02)
    best, margin = best_row(rows), max(MARGIN[0], MARGIN[1] * len(rows))
    for axes, name in ((losses, "loss (lower is better)"), (share, "accuracy on the validation set")):
        if best is not None:
            axes.axvline(best["epoch"], color=GREY, linewidth=1, linestyle=":", label="best epoch")
        axes.set(title=name, xlabel=epoch_label(rows), xlim=(-margin, max(1, len(rows) - 1) + margin))
        axes.legend()
    _draw_rates(rate, rates, np.arange(len(rates)) / max(1, len(rates)) * len(rows))
    rate.set(title="learning rate", xlabel="epochs done", xlim=(0, max(1, len(rows))))
    for axes in (losses, share, rate):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    figure.suptitle(without_formulas(title))
    return png_bytes(figure)


def epoch_label(rows: Sequence[Mapping]) -> str:
    """
    Return the name of an axis of epochs, which says how many of them are frozen.

    >>> epoch_label([{"phase": "frozen"}, {"phase": "unfrozen"}]), epoch_label([{"phase": "unfrozen"}])
    ('epoch (0 is the frozen one)', 'epoch')
    """
    frozen = sum(row["phase"] == "frozen" for row in rows)
    if frozen > 1:
        return f"epoch (0 to {frozen - 1} are the frozen ones)"
    return "epoch (0 is the frozen one)" if frozen else "epoch"


def schedule_picture(schedule: str, rates: np.ndarray) -> Image.Image:
    """Return the planned rates (see `schedule.planned_rates`) of head and first layers against steps."""
    figure = Figure(figsize=(6.5, 2.8), layout="constrained")
    axes = figure.subplots()
    _draw_rates(axes, rates, np.arange(len(rates)))
    axes.set(title=f"schedule {schedule!r}, as it will run", xlabel="step (a batch each)", ylabel="learning rate")
    axes.grid(alpha=0.3)
    return figure_picture(figure)


def _draw_rates(axes: Axes, rates: np.ndarray, positions: np.ndarray) -> None:
    """Draw the rates (N, 2) of the first layers and the head on a scale of powers of ten."""
    mark = "." if len(rates) == 1 else ""  # of one point no line can be drawn
    axes.plot(positions, rates[:, 1], mark, linestyle="-", color=VALID, label="head")
    axes.plot(positions, rates[:, 0], mark, linestyle="--", color=TRAIN, label="first layers")
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(NullFormatter())  # names of marks between powers of ten are long and touch
    if known := [rate for rate in rates.flat if rate > 0]:
        highest = math.ceil(math.log10(max(known)))
        axes.set_ylim(10 ** math.floor(math.log10(min(known))), 10 ** (highest + ROOM))
    axes.legend(loc="upper center", ncols=2)


def best_row(rows: Sequence[Mapping]) -> Mapping | None:
    """Return the row of the lowest validation loss, the first of equals; None where no loss is a number."""
    known = [row for row in rows if math.isfinite(row["valid_loss"])]
    return min(known, key=lambda row: row["valid_loss"], default=None)


def remark(row: Mapping, best: Mapping | None) -> str:
    """Say of an epoch in plain words how it compares with the best one."""
    if row is best:
        return "the best: its weights are kept"
    if best is None or row["epoch"] < best["epoch"] or not _overfits(row, best):
        return ""
    return f"overfitting: training improved since epoch {best['epoch']}, validation worsened"


def _overfits(row: Mapping, kept: Mapping) -> bool:
    """Return whether a later epoch does better in training than the best one, and clearly worse in validation."""
    return row["train_loss"] < kept["train_loss"] and row["valid_loss"] >= CLEAR_RISE * kept["valid_loss"]


def overfitting_sentence(rows: Sequence[Mapping]) -> str:
    """
    Say whether the network began to learn by heart, and at which epoch.

    It did if after the best epoch the training loss fell further while the validation loss ended at least 5 % higher.
    On few validation pictures either can happen by chance.
    """
    kept, last = best_row(rows), rows[-1]
    if last["phase"] == "head":
        return "The head alone was fitted: that takes no epochs."
    if kept is None:
        return "No epoch has a validation loss that is a number."
    best = kept["epoch"]
    if kept is last:
        return f"The last epoch, {best}, is the best: no overfitting yet, and more epochs may help."
    falls = f"the training loss went from {kept['train_loss']:.2f} to {last['train_loss']:.2f}"
    rises = f"the validation loss from {kept['valid_loss']:.2f} to {last['valid_loss']:.2f}"
    if _overfits(last, kept):
        return (
            f"Overfitting from epoch {best + 1} on: {falls}, {rises}. Epoch {best} is kept. More pictures, or "
            'augment = "strong", hold it off.'
        )
    return f"Epoch {best} is kept. Since then {falls}, {rises}: no clear overfitting."


def history_table(rows: Sequence[Mapping]):
    """Return the rows of history.csv as a table to show, with a remark per epoch and the kept one marked."""
    best = best_row(rows)
    table = pd.DataFrame(rows).assign(remark=[remark(row, best) for row in rows])
    style = table.style.hide(axis="index").highlight_min("valid_loss", color="#ffe08a")
    return style.format({"lr": "{:.1e}", "seconds": "{:.1f}"}, precision=3)
