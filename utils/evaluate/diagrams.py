"""
Diagrams of stage 05: better than guessing or not, and how far the probabilities can be believed.

Draws what evaluation.json holds; writes nothing.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure as Canvas
from PIL import Image

from utils.intervals import luck
from utils.sheets import figure_picture
from utils.words import SETS, between

RIGHT, WRONG, GUESSED = "#0072b2", "#e69f00", "#bbbbbb"  # every kind of eyesight tells them apart (Okabe and Ito)


def verdict_picture(verdict: Mapping) -> Image.Image:
    """Return the verdict as a picture, above what guessing gets; the dotted line is what it gets with `luck`."""
    right, n, guess, most = verdict["right"], verdict["n"], verdict["guess"], luck(verdict)
    canvas = Canvas(figsize=(9, 2.2), layout="constrained")
    axes = canvas.subplots()
    rows = [f"guessing: {guess:,} right", f"this model: {right:,} right, {n - right:,} wrong"]
    axes.barh(rows[:1], [guess], color=GUESSED, height=0.6)
    axes.barh(rows[1:], [right], color=RIGHT, height=0.6, label="right")
    axes.barh(rows[1:], [n - right], left=[right], color=WRONG, height=0.6, label="wrong")
    axes.hlines(0, guess, most, color="black", linewidth=1.5)
    axes.axvline(most, color="black", linestyle=":", label=f"guessing with luck: up to {most:,}")
    axes.set(xlim=(0, n), xlabel=f"photos of the {SETS[verdict['side']]}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    canvas.legend(loc="outside upper right", frameon=False, ncols=3)
    return figure_picture(canvas)


def reliability_diagram(evaluation: Mapping) -> Image.Image:
    """Return how often the model is right (with 95 % intervals) at each confidence, before and after scaling."""
    canvas = Canvas(figsize=(9, 4.4), layout="constrained")
    value, low, high = (evaluation["temperature"][key] for key in ("value", "low", "high"))
    span = between(low, high, "{:.2f}".format)
    temperature = "no scaling" if value is None else f"after scaling (temperature {value:.2f}{span and f', {span}'})"
    titles = {"before": "before scaling", "after": temperature}
    for axes, (name, title) in zip(canvas.subplots(1, 2, sharey=True), titles.items(), strict=True):
        bins = evaluation["reliability"][name]
        confidence = [b["sure"] for b in bins]
        right, low, high = ([b["right"][key] for b in bins] for key in ("value", "low", "high"))
        axes.plot([0, 1], [0, 1], color="#999999", linestyle=":", label="as confident as right")
        if bins:
            ends = np.clip([np.subtract(right, low), np.subtract(high, right)], 0, 1)
            axes.errorbar(confidence, right, yerr=ends, fmt="o", color=RIGHT, capsize=3)
        for b in bins:  # below the points, in the middle of the bin: points may stand close together
            place = (b["from"] + b["to"]) / 2, -0.12
            axes.annotate(f"{b['right']['n']:,}", place, ha="center", fontsize=8)
        axes.set(title=title, xlabel="confidence (just above: how many pictures)", xlim=(0, 1.04))
        axes.set(ylim=(-0.15, 1.04), yticks=np.linspace(0, 1, 6))
        axes.grid(alpha=0.3)
    canvas.axes[0].set_ylabel("how often it was right")
    canvas.legend(*canvas.axes[0].get_legend_handles_labels(), loc="outside lower center", frameon=False)
    return figure_picture(canvas)
