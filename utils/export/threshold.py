"""
Stage 07: how confident the model must be to name a photo, and what is certified of the names it then gives.

A threshold that is tested on the photos that chose it flatters itself (benchmarks/threshold.py). So two estimates of
the error choose it, and the worse one counts; the validation set only tests it. Out-of-fold answers (06) say how often
the most confident share of the training set is named wrongly. They come from other models, so they certify nothing.
The second estimate is the exported model's own confidence in the validation set, without any label.

The test: one share is chosen for 20 % wrong, one within it for 10 %, one within that for 5 %. The exact binomial test
(Clopper and Pearson 1934) at 90 % confidence takes them in this order and stops at the first failure (fixed-sequence
testing in Learn then Test, Angelopoulos et al. 2021). So at most one project in ten gets a promise that is broken. The
best epoch and the temperature were chosen on the validation set too; that flatters it a little.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure as Drawing
from PIL import Image
from scipy.stats import beta, binom

from utils.intervals import figure, wilson
from utils.sheets import figure_picture, without_formulas
from utils.words import share

TARGETS = (0.2, 0.1, 0.05)  # of the names given, the share that may be wrong; the smallest that passes is certified
CONFIDENCE = 0.9
LIKELY = 0.9  # choose the largest share of photos that passes with this chance
HOPE = 0.5  # test nothing that will rather fail: what passes against the odds has mostly been lucky
POINTS = 100  # on the curve at most

Answers = tuple[Sequence[int], np.ndarray, Sequence]  # labels (N,), probabilities (N, K), groups (N,)


def certify_threshold(
    labels: Sequence[int], probs: np.ndarray, *, groups: Sequence, others: Answers | None = None, seed: int = 42
) -> dict:
    """
    Return the threshold below which the model says "unknown", and the error that is certified above it.

    `labels`, int array (N,), and `probs`, float array (N, K), are of the validation set: the truth, and what the model
    gives after the temperature. Of each of the N `groups` of near-duplicates one photo, drawn by the seed, counts for
    all. `others` are out-of-fold answers to other photos.

    The dict holds ``threshold`` (None if nothing is certified, 0 if every photo may be named), ``target_error`` (the
    share that is certified), ``reached``, ``confidence``, ``bound`` (the upper end for the share that is wrong, at that
    confidence), ``chosen_by`` ("out of fold" or "validation"); ``error`` and ``coverage`` in the validation set,
    near-duplicates once, with 95 % intervals; ``curve``: threshold, coverage and error from naming all to naming few;
    ``why``: what stands in the way of the next target. A threshold lies midway between two confidences, lest the
    seventh digit decide.

    >>> sure = np.linspace(0.51, 1.0, 50)
    >>> found = certify_threshold([1] * 4 + [0] * 46, np.column_stack([sure, 1 - sure]), groups=range(50))
    >>> round(found["threshold"], 3), found["target_error"], found["error"]["value"]
    (0.895, 0.2, 0.0)
    """
    sure, wrong = _each_group_once(labels, probs, groups, seed)
    entry = {"threshold": None, "target_error": None, "reached": False, "confidence": CONFIDENCE, "bound": None}
    entry["chosen_by"] = "validation" if others is None else "out of fold"
    if not len(sure):
        none = figure(None, None, None, 0, why="there are no validation photos")
        return entry | {"error": none, "coverage": none, "curve": [], "why": none["why"]}
    thresholds, named, mistakes = _steps(sure, wrong)
    expected = np.cumsum(1 - np.sort(sure)[::-1])[named - 1] / named
    if others is not None:
        expected = np.maximum(expected, _share_wrong(*_each_group_once(*others, seed), named / len(sure)))
    chosen, why = None, ""
    for target in TARGETS:
        place, chance = _choice(named, expected, target, first=chosen or 0)
        promise, count = f"“at most {share(target)} wrong”", len(sure)
        if count < (needed := int(np.ceil(np.log(1 - CONFIDENCE) / np.log(1 - target)))):
            why = f"{promise} takes {needed} validation photos without a mistake, and there are only {count}"
        elif chance < HOPE:
            who = "out-of-fold answers and " * (others is not None) + "its own confidences"
            why = f"going by {who}, the test for {promise} would probably fail with {count} validation photos"
        elif binom.cdf(mistakes[place], named[place], target) > 1 - CONFIDENCE:
            verb = "is" if mistakes[place] == 1 else "are"
            told = f"{mistakes[place]} of the {named[place]} most confident photos {verb} wrong"
            why = f"{promise} cannot be certified: {told}"
        else:
            chosen = place
            entry |= {"threshold": float(thresholds[place]), "target_error": target, "reached": True}
            continue
        break
    if chosen is None:
        error = coverage = figure(None, None, None, len(sure), why=why)
    else:
        hits, count = int(mistakes[chosen]), int(named[chosen])
        entry["bound"] = round(float(beta.ppf(CONFIDENCE, hits + 1, count - hits)), 6)
        error, coverage = wilson(hits, count), wilson(count, len(sure))
    return entry | {
        "error": error,
        "coverage": coverage,
        "curve": _points(len(sure), thresholds, named, mistakes, chosen),
        "why": why,
    }


def _each_group_once(
    labels: Sequence[int], probs: np.ndarray, groups: Sequence, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the confidences and mistakes (G,) of one photo of each group, drawn from its members as sorted by both."""
    labels, probs, groups = np.asarray(labels), np.asarray(probs, dtype=float), np.asarray(groups)
    sure, wrong = probs.max(1, initial=0), probs.argmax(1) != labels if len(labels) else np.empty(0, dtype=bool)
    _, codes = np.unique(groups, return_inverse=True)
    order = np.lexsort((wrong, sure, codes))
    _, first, counts = np.unique(codes[order], return_index=True, return_counts=True)
    drawn = order[first + (np.random.default_rng(seed).random(len(first)) * counts).astype(int)]
    return sure[drawn], wrong[drawn]


def _steps(sure: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the thresholds that make a difference, from 0 upwards, and how many photos each names, and wrongly."""
    order = np.argsort(sure, kind="stable")
    values, first = np.unique(sure[order], return_index=True)  # where each value begins
    middles = (values[:-1] + values[1:]) / 2
    middles = np.where(middles > values[:-1], middles, values[1:])  # nothing lies between neighbouring numbers
    return np.append(0.0, middles), len(sure) - first, wrong[order][::-1].cumsum()[::-1][first]


def _share_wrong(sure: np.ndarray, wrong: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return how often the most confident shares of other answers are wrong, with half a mistake more for luck."""
    mistakes = wrong[np.argsort(-sure, kind="stable")].cumsum()
    counts = np.maximum(1, np.round(shares * len(sure)).astype(int))
    return (mistakes[counts - 1] + 0.5) / (counts + 1)


def _choice(named: np.ndarray, expected: np.ndarray, target: float, *, first: int) -> tuple[int, float]:
    """Return the step, from `first` on, that names most photos and is likely to pass the test, and its chance."""
    allowed = binom.ppf(1 - CONFIDENCE, named, target)  # the mistakes with which a step passes
    allowed -= binom.cdf(allowed, named, target) > 1 - CONFIDENCE
    chances = np.where(allowed < 0, 0, binom.cdf(allowed, named, np.minimum(expected, 1)))
    chances[:first] = 0
    place = int((chances >= LIKELY).argmax() if (chances >= LIKELY).any() else chances.argmax())
    return place, float(chances[place])


def _points(
    count: int, thresholds: np.ndarray, named: np.ndarray, mistakes: np.ndarray, chosen: int | None
) -> list[dict]:
    """Return coverage and error at the thresholds that make a difference: at most `POINTS`, with the chosen one."""
    shown = {*np.linspace(0, len(named) - 1, min(len(named), POINTS - 1)).round().astype(int).tolist(), chosen} - {None}
    numbers = {"coverage": named / count, "error": mistakes / named}
    rounded = {name: column.round(6).tolist() for name, column in numbers.items()}
    return [{"threshold": float(thresholds[n])} | {name: rounded[name][n] for name in rounded} for n in sorted(shown)]


def threshold_sentence(unknown: Mapping) -> str:
    """
    Return in sentences when the model says "unknown" and what is certified, from the entry of card.json.

    >>> threshold_sentence({"threshold": None, "why": "there are no validation photos"})
    'It never says “unknown”: there are no validation photos. Go by the confidence that stands beside each label.'
    """
    if unknown["threshold"] is None:
        return f"It never says “unknown”: {unknown['why']}. Go by the confidence that stands beside each label."
    when = f"Asked to, it says “unknown” below a confidence of {unknown['threshold']:.2f}."
    error, coverage = unknown["error"], unknown["coverage"]
    told = (
        f"{when if unknown['threshold'] else 'It names every photo.'} Of the names it gives, at most "
        f"{share(unknown['target_error'])} are wrong (certified with {share(unknown['confidence'])} confidence, for "
        f"photos like these). In the validation set it names {share(coverage['value'])} of the photos, "
        f"{round(error['value'] * error['n'])} of {error['n']} wrongly. {CHOSEN_BY[unknown['chosen_by']]}"
    )
    return f"{told} Nothing stricter is certified: {unknown['why']}." if unknown["why"] else told


CHOSEN_BY = {
    "out of fold": "Out-of-fold answers (06) on the training set helped to choose the threshold; the validation set "
    "tested it.",
    "validation": "There are no out-of-fold answers (06), so the model's own confidences chose the threshold; the "
    "validation set tested it.",
}


def coverage_plot(unknown: Mapping) -> Image.Image:
    """Return how many of the names are wrong against how many photos get one, from the entry of card.json."""
    return figure_picture(coverage_drawing(unknown))


def coverage_drawing(unknown: Mapping) -> Drawing:
    """Return the drawing of `coverage_plot`."""
    drawing = Drawing(figsize=(6.5, 3.8), layout="constrained")
    axes, target = drawing.subplots(), unknown["target_error"]
    points = {key: [100 * point[key] for point in unknown["curve"]] for key in ("coverage", "error")}
    axes.plot(points["coverage"], points["error"], ".-", color="#0072b2", label="validation set")
    if target is None:
        axes.set_title(without_formulas(f"no threshold: {unknown['why']}"), fontsize=9, wrap=True)
    else:
        axes.axhline(100 * target, color="#999999", linestyle=":", label=f"certified: at most {share(target)} wrong")
        place = [[100 * unknown[key]["value"]] for key in points]
        name = f"threshold {unknown['threshold']:.2f}"
        axes.plot(*place, "s", markersize=11, markerfacecolor="none", color="#d55e00", label=name)
    axes.set(xlabel="photos that get a label, % (the others are called unknown)", ylabel="of these wrong, %")
    axes.set_xlim(0, 102)
    axes.grid(alpha=0.3)
    axes.legend()
    return drawing
