"""
Stage 09, what a person looks at: accuracy against each setting, all curves in one figure, accuracy against time.

Draws what runs.csv holds; writes nothing.
"""

import io
import re
from collections.abc import Sequence
from html import escape

import numpy as np
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter
from PIL import Image

from utils.pictures import shortened
from utils.sheets import figure_picture, without_formulas
from utils.study.comparing import accuracy_interval
from utils.study.settings import told
from utils.study.study import Study

BLUE, ORANGE, BARS = "#0072b2", "#d55e00", "#999999"  # every kind of eyesight tells them apart (Okabe and Ito)
CURVES = ["0072b2", "d55e00", "009e73", "cc79a7", "e69f00", "56b4e9", "000000"]
ACROSS = 3  # panels beside each other
PANEL = (4.3, 3.2)  # inches
LONGEST_TICK = 28  # characters on an axis
MOST_NAMED = 12  # settings whose names stand in a figure


def key_pictures(study: Study) -> Image.Image:
    """Return accuracy against the values of each key that the study varies: a dot per setting, and their mean."""
    runs = study.runs()
    found = {s.id: study.done(s, runs) for s in study.settings}
    shares = {id: accuracy_interval(done, study.groups) for id, done in found.items() if done}
    keys = list(dict.fromkeys(key for s in study.settings for key in s.values)) or ["settings"]
    rows = -(-len(keys) // ACROSS)
    figure = Figure(figsize=(PANEL[0] * min(len(keys), ACROSS), PANEL[1] * rows), layout="constrained")
    panels = figure.subplots(rows, min(len(keys), ACROSS), squeeze=False, sharey=True).flatten()
    for axes, key in zip(panels, keys, strict=False):
        groups: dict[str, list[str]] = {}
        for s in study.settings:
            if s.id in shares:
                groups.setdefault(told(s.values.get(key, "")) if key in s.values else "not read", []).append(s.id)
        for place, (_, ids) in enumerate(groups.items()):
            shift = np.linspace(-0.2, 0.2, len(ids)) if len(ids) > 1 else [0.0]
            for at, id in zip(shift, ids, strict=True):
                value, low, high = shares[id]
                axes.errorbar(
                    place + at, 100 * value, yerr=[[100 * (value - low)], [100 * (high - value)]], fmt="o",
                    color=BLUE, ecolor=BARS, capsize=2, markersize=4,
                )  # fmt: skip
            mean = np.mean([shares[id][0] for id in ids])
            axes.hlines(100 * mean, place - 0.35, place + 0.35, color=ORANGE, linewidth=2)
        names = [without_formulas(shortened(name, most=LONGEST_TICK)) for name in groups]
        axes.set_xticks(range(len(groups)), names, rotation=20 if max(map(len, names), default=0) > 8 else 0)
        axes.set(title=without_formulas(key), xlim=(-0.6, max(0.6, len(groups) - 0.4)))
        axes.grid(alpha=0.3, axis="y")
    for axes in panels[len(keys) :]:
        axes.set_axis_off()
    figure.supylabel("accuracy on the validation sets, %", fontsize=10)
    legend = [Line2D([], [], color=BLUE, marker="o", linestyle=""), Line2D([], [], color=ORANGE, linewidth=2)]
    names = ["a setting, with its 95 % interval over photos and seeds", "the mean of the settings with this value"]
    figure.legend(legend, names, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure_picture(figure)


def cost_picture(study: Study) -> Image.Image:
    """Return accuracy against the time of a run; the line joins the settings that no other beats in both."""
    runs = study.runs()
    points = []
    for setting in study.settings:
        if done := study.done(setting, runs):
            seconds = float(np.median([run.seconds for run in done]))
            points.append((seconds, *accuracy_interval(done, study.groups), setting.name))
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    front = pareto([(seconds, value) for seconds, value, *_ in points])
    for n, (seconds, value, low, high, _) in enumerate(points):
        ends = [[100 * (value - low)], [100 * (high - value)]]
        colour = ORANGE if n in front else BLUE
        axes.errorbar(seconds, 100 * value, yerr=ends, fmt="o", color=colour, ecolor=BARS, capsize=2)
    if front:
        best = [points[n] for n in front]
        axes.plot([p[0] for p in best], [100 * p[1] for p in best], color=ORANGE, label="none is quicker and better")
        for seconds, value, *_, name in best[:MOST_NAMED]:
            label = without_formulas(shortened(name, most=2 * LONGEST_TICK))
            axes.annotate(label, (seconds, 100 * value), xytext=(5, 5), textcoords="offset points", fontsize=8)
        figure.legend(loc="outside upper right", frameon=False)
    axes.set(xscale="log", xlabel="seconds per training", ylabel="accuracy on the validation sets, %")
    axes.margins(x=0.25)
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.grid(alpha=0.3)
    return figure_picture(figure)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """
    Return which of N points (cost, worth) no other beats in both, the cheapest first.

    >>> pareto([(1, 0.5), (2, 0.4), (3, 0.9)])
    [0, 2]
    """
    front: list[int] = []
    for n in sorted(range(len(points)), key=lambda n: (points[n][0], -points[n][1])):
        if not front or points[n][1] > points[front[-1]][1]:
            front.append(n)
    return front


def curves(study: Study) -> HTML:
    """Return losses and accuracy of all runs against epochs in one figure; a curve under the mouse tells its run."""
    runs, figure = study.runs(), Figure(figsize=(13, 4.4))
    figure.subplots_adjust(left=0.05, right=0.99, bottom=0.25, top=0.92, wspace=0.15)
    panels = figure.subplots(1, 3)
    told_of: dict[str, str] = {}
    colours: dict[str, str] = {}  # of the settings that have curves
    for setting in study.settings:
        for run in study.done(setting, runs):
            if not run.history:
                continue
            name, colour = f"run{len(told_of)}", f"#{CURVES[len(colours) % len(CURVES)]}"
            colour = colours.setdefault(setting.name, colour)
            best = f"{run.accuracy:.1%} at the best epoch"
            told_of[name] = f"{setting.name}, seed {run.seed}: {best}, {run.seconds:.0f} s"
            for axes, key in zip(panels, ("train_loss", "valid_loss", "accuracy"), strict=True):
                _curve(axes, run.history, key, f"{name}-{key}", colour)
    names = ("training loss", "validation loss", "accuracy on the validation set")
    for axes, name in zip(panels, names, strict=True):
        axes.set(title=name, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    if len(colours) <= len(CURVES):
        lines = [Line2D([], [], color=colour) for colour in colours.values()]
        figure.legend(lines, map(without_formulas, colours), loc="lower center", ncols=3, frameon=False, fontsize=8)
    if not told_of:
        panels[1].text(0.5, 0.5, "no run with epochs yet", ha="center", transform=panels[1].transAxes)
    return HTML(_with_titles(figure, told_of))


def _curve(axes: Axes, rows: Sequence[dict], key: str, id: str, colour: str) -> None:
    """Draw a figure of each epoch; a wide line that cannot be seen lies below, to be met by the mouse."""
    epochs, values = [row["epoch"] for row in rows], [row[key] for row in rows]
    axes.plot(epochs, values, color=colour, linewidth=9, alpha=0.001, gid=f"{id}-wide")
    axes.plot(epochs, values, color=colour, linewidth=1.3, marker="o", markersize=3, gid=f"{id}-line")


def _with_titles(figure: Figure, told_of: dict[str, str]) -> str:
    """Return a figure as SVG in which each curve has its name as a title, which browsers show under the mouse."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for name, text in told_of.items():
        title = f"<title>{escape(text)}</title>"
        svg = re.sub(rf'(<g id="{name}-\w+-(?:wide|line)")>', rf"\1 class='study-curve'>{title}", svg)
    style = "<style>.study-curve:hover path {stroke-width: 4; opacity: 1; stroke-opacity: 1}</style>"
    return f"{style}<div style='background: white; max-width: 1200px'>{svg}</div>"
