"""
Stage 07, second part: how sure the model must be to name a label, and how well that catches what it never saw.

Works on labels, probabilities and features alone; what it finds goes into card.json and model.onnx. The threshold is
the lowest at which few enough of the labels named are wrong, counted as if the next picture were named and wrong too.
Without that one mistake more a small side flatters itself: after ten pictures without an error the eleventh may well
be one.

Source: selective classification (Geifman and El-Yaniv 2017). Their bound holds in 95 of 100 projects, but asks for 59
pictures without one error where this asks for 19, and most valid sides would never reach it; the mistake added here
keeps the share in the mean over projects (conformal risk control, Angelopoulos et al. 2024).
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure as Drawing
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from utils.evaluate import auc_measure
from utils.intervals import bootstrap, figure, interval, wilson

CURVE = 100  # thresholds at most on the curve
LEFT_OUT = 20  # labels at most that are left out in turn: 1,000 would take hours and hardly move the mean
TAUGHT = 2000  # pictures at most that a stand-in for the model learns from, as many of each label
SLACK = 1e-9  # of a picture: 2 wrong of 40 are 5 %, whatever the last digit of a product says

OPTIMISTIC = (
    "Optimistic: the network learned its features with every label, the one left out among them, so it spots a label "
    "that is truly new less often than this."
)
HONEST = (
    "The features are those of the pretrained network: no picture of this project has shaped them, though it may have "
    "seen such things in ImageNet."
)


def fit_threshold(
    labels: Sequence[int], probs: np.ndarray, *, groups: Sequence, target: float = 0.05, seed: int = 42
) -> dict:
    """
    Return the lowest threshold that keeps the share of wrong labels to `target`, and what it costs.

    A picture whose best probability lies below the threshold is called unknown. Where naming every picture is good
    enough, the threshold is 0. Where none keeps the promise, it is the one that comes nearest.

    Parameters
    ----------
    labels : int array (N,)
        True labels of held-out pictures, 0 ≤ label < K.
    probs : float array (N, K)
        Their probabilities as the exported model gives them, after the temperature.
    groups : sequence of N
        Near-duplicates share a group. They are right or wrong together, so one of each group is drawn, and counts for all.
    target : float
        Share of the labels named that may be wrong, in (0, 1).
    seed : int
        Decides which one is drawn; the order of the pictures does not.

    Returns
    -------
    dict
        ``threshold`` (None where nothing can be said), ``target_error``, ``reached``, ``error`` (of the pictures named,
        the share that is wrong) and ``coverage`` (the share named), both with Wilson's interval and counted on the
        pictures that chose the threshold, near-duplicates once; ``curve``: threshold, coverage and error, at most 100
        times, from naming all to naming few. Where the target is not reached, ``why`` says what is in the way.

    Raises
    ------
    ValueError
        If shapes do not match, a probability is no number, or the target is no share.

    Notes
    -----
    The threshold lies midway between the last picture named and the first that is not, so that two ways to run a
    network which differ in the seventh digit name the same ones.

    Examples
    --------
    >>> sure = np.linspace(0.51, 1.0, 50)
    >>> found = fit_threshold([1] * 4 + [0] * 46, np.column_stack([sure, 1 - sure]), groups=range(50))
    >>> round(found["threshold"], 3), found["error"]["value"], found["coverage"]["value"]
    (0.535, 0.021277, 0.94)
    """
    labels, probs, groups = np.asarray(labels), np.asarray(probs, dtype=float), np.asarray(groups)
    if probs.ndim != 2 or not len(labels) == len(groups) == len(probs):
        raise ValueError(
            f"{len(labels)} labels, {len(groups)} groups, probabilities {probs.shape}: expected N and (N, K)"
        )
    if not 0 < target < 1:
        raise ValueError(f"target = {target}: the share that may be wrong lies between 0 and 1, such as 0.05")
    if not np.isfinite(probs).all():
        raise ValueError("a probability is no number, so none can be a threshold: train again (04)")
    if len(np.unique(groups)) < 2:
        why = "one picture, or one group of near-duplicates, does not tell how the next one fares"
        return _entry(None, target, why, np.empty(0), np.empty(0, dtype=bool))
    sure, wrong = probs.max(1), probs.argmax(1) != labels
    drawn = _one_of_each(groups, sure, wrong, seed)
    sure, wrong = sure[drawn], wrong[drawn]
    if wrong.all():
        return _entry(None, target, f"none of {len(sure)} held-out pictures is named rightly", sure, wrong)
    thresholds, named, mistakes = _candidates(sure, wrong)
    good = np.flatnonzero(mistakes + 1 <= target * (named + 1) + SLACK)
    best = good[0] if len(good) else ((mistakes + 1) / (named + 1)).argmin()
    why = "" if len(good) else _too_few(int(named[best]), int(mistakes[best]), target)
    return _entry(float(thresholds[best]), target, why, sure, wrong)


def _one_of_each(groups: np.ndarray, sure: np.ndarray, wrong: np.ndarray, seed: int) -> np.ndarray:
    """Return the places (G,) of one picture of each group, drawn from its members as they are sorted by sureness."""
    _, codes = np.unique(groups, return_inverse=True)
    order = np.lexsort((wrong, sure, codes))
    _, first, counts = np.unique(codes[order], return_index=True, return_counts=True)
    return order[first + (np.random.default_rng(seed).random(len(first)) * counts).astype(int)]


def _candidates(sure: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the thresholds that make a difference, from 0 upwards, and how many pictures each names, and wrongly."""
    order = np.argsort(sure, kind="stable")
    values, first = np.unique(sure[order], return_index=True)  # where each value begins
    middles = (values[:-1] + values[1:]) / 2
    middles = np.where(middles > values[:-1], middles, values[1:])  # nothing lies between neighbouring numbers
    return np.append(0.0, middles), len(sure) - first, wrong[order][::-1].cumsum()[::-1][first]


def _too_few(named: int, mistakes: int, target: float) -> str:
    """Return the sentence that says why the nearest threshold does not reach the target."""
    wanted = int(np.ceil((mistakes + 1) / target - 1 - SLACK))
    return (
        f"no threshold can promise {100 * target:g} %: the best one names {named} of the held-out pictures, "
        f"{mistakes or 'none'} of them wrongly, and with no more wrong it would take {wanted}"
    )


def _entry(threshold: float | None, target: float, why: str, sure: np.ndarray, wrong: np.ndarray) -> dict:
    """Return what the card says of a threshold; an empty `why` is a target that is reached."""
    if threshold is None:
        error = coverage = figure(None, None, None, len(sure), why=why)
    else:
        named = sure >= threshold
        error = wilson(int(wrong[named].sum()), int(named.sum()))
        coverage = wilson(int(named.sum()), len(named))
    entry = {"threshold": threshold, "target_error": target, "reached": not why, "error": error, "coverage": coverage}
    return entry | {"curve": _curve(sure, wrong, threshold)} | ({"why": why} if why else {})


def _curve(sure: np.ndarray, wrong: np.ndarray, chosen: float | None) -> list[dict]:
    """Return coverage and error at the thresholds that make a difference: at most `CURVE`, with the chosen one."""
    if not len(sure):
        return []
    thresholds, named, mistakes = _candidates(sure, wrong)
    steps = np.linspace(named[0], named[-1], CURVE - 1)
    shown = set(np.abs(named[:, None] - steps).argmin(0).tolist() if len(named) > CURVE else range(len(named)))
    shown |= set(np.flatnonzero(thresholds == chosen).tolist())
    return [
        {
            "threshold": float(thresholds[n]),
            "coverage": round(float(named[n] / len(sure)), 6),
            "error": round(float(mistakes[n] / named[n]), 6),
        }
        for n in sorted(shown)
    ]


# ---------------------------------------------------------------------------------------------------------------
# A label that the model was never shown
# ---------------------------------------------------------------------------------------------------------------


def unseen_labels(
    features: np.ndarray,
    labels: Sequence,
    held_out: np.ndarray,
    *,
    groups: Sequence,
    target: float = 0.05,
    seed: int = 42,
    optimistic: bool,
) -> dict:
    """
    Return how often a label that was never shown is called unknown: each label is left out in turn.

    A stand-in for the model, a logistic regression, learns the other labels from the pictures that are not held out;
    its threshold is fitted on their held-out pictures. The held-out pictures of the label left out should lie below it.

    Parameters
    ----------
    features : float array (N, D)
        Of a network's body, see `features`.
    labels : sequence of N labels
    held_out : bool array (N,)
        Which pictures the stand-in does not learn from.
    groups : sequence of N
        Near-duplicates share a group, and a group stands on one side.
    target : float
        As in `fit_threshold`.
    seed : int
        Chooses labels where there are more than 20, and pictures to learn from where there are more than 2,000.
    optimistic : bool
        Whether the body was trained with these labels. It then tells the label left out from the others too well.

    Returns
    -------
    dict
        ``unknown``: share of the pictures of labels left out that are called unknown; ``labels``: the same for each
        label; ``false_alarms``: share of the other labels' pictures that are called unknown, too; ``auc``: of two
        pictures, one of the label left out and one not, how often the model is less sure of the former (the mean over
        labels, bootstrap by group); ``optimistic``, and ``note``, which says what to make of it. Where nothing can be
        said, ``{"why": …}``.
    """
    features, labels, groups = np.asarray(features, dtype=float), np.asarray(labels), np.asarray(groups)
    held_out = np.asarray(held_out, dtype=bool)
    if features.ndim != 2 or not len(features) == len(labels) == len(held_out) == len(groups):
        raise ValueError(
            f"features {features.shape}, {len(labels)} labels, {len(held_out)} sides and {len(groups)} groups: "
            "expected (N, D) and N of each"
        )
    names, vocab = np.unique(labels), np.intersect1d(labels[held_out], labels[~held_out])
    if len(vocab) < 3:
        return {"why": f"{len(vocab)} labels have pictures on both sides: with one left out, it takes two others"}
    there = np.isin(labels, vocab)
    features, groups, codes = features[there], groups[there], np.searchsorted(vocab, labels[there])
    held_out = held_out[there]
    rng = np.random.default_rng(seed)
    left = np.sort(rng.permutation(len(vocab))[:LEFT_OUT])
    taught = _a_share_of_each(codes, np.flatnonzero(~held_out), rng)
    judged, held, own = features[held_out], groups[held_out], codes[held_out]
    sure, unknown = np.empty((len(left), len(own))), np.empty((len(left), len(own)), dtype=bool)
    for n, label in enumerate(left):
        others = taught[codes[taught] != label]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        probs = model.fit(features[others], codes[others]).predict_proba(judged)  # (H, K - 1)
        known = own != label
        place = np.searchsorted(model.classes_, own[known])
        threshold = fit_threshold(place, probs[known], groups=held[known], target=target, seed=seed)["threshold"]
        sure[n], unknown[n] = probs.max(1), probs.max(1) < (threshold or 0.0)
    return _found(vocab, left, own, held, sure, unknown, seed=seed) | {
        "optimistic": optimistic,
        "note": " ".join([OPTIMISTIC if optimistic else HONEST, *_shortened(names, vocab, left, taught, held_out)]),
    }


def _a_share_of_each(codes: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return which of the pictures at `places` the stand-in learns from: as many of each label, `TAUGHT` at most."""
    drawn = rng.permutation(places)
    drawn = drawn[np.argsort(codes[drawn], kind="stable")]
    _, first, counts = np.unique(codes[drawn], return_index=True, return_counts=True)
    turn = np.arange(len(drawn)) - np.repeat(first, counts)  # the label's first picture, its second, …
    return np.sort(drawn[np.argsort(turn, kind="stable")[: max(TAUGHT, len(first))]])


def _found(
    vocab: np.ndarray,
    left: np.ndarray,
    own: np.ndarray,
    groups: np.ndarray,
    sure: np.ndarray,
    unknown: np.ndarray,
    *,
    seed: int,
) -> dict:
    """Return the figures of L labels left out, from how sure the stand-ins were and what they called unknown (L, H)."""
    new = own == left[:, None]  # (L, H)
    turn = np.where(new.any(0), new.argmax(0), -1)  # when a picture's label was left out; -1 is never
    tested = turn >= 0
    caught = unknown[turn, np.arange(len(own))]
    shares = {
        str(vocab[label]): wilson(int(unknown[n, new[n]].sum()), int(new[n].sum()), groups=groups[new[n]])
        for n, label in enumerate(left)
    }
    # A seen picture is judged each time that another label is left out; it is one picture all the same.
    seen = np.broadcast_to(groups, new.shape)[~new]
    alarms = wilson(int(unknown[~new].sum()), int((~new).sum()), groups=seen) | {"n": len(own)}
    values, draws = bootstrap({"auc": auc_measure(turn, 1 - sure.T)}, groups, seed=seed)["auc"]
    return {
        "unknown": wilson(int(caught[tested].sum()), int(tested.sum()), groups=groups[tested]),
        "labels": shares,
        "false_alarms": alarms,
        "auc": interval(values[0], draws[:, 0], n=len(own), groups=groups),
    }


def _shortened(
    names: np.ndarray, vocab: np.ndarray, left: np.ndarray, taught: np.ndarray, held_out: np.ndarray
) -> list[str]:
    """Return what was left aside, for want of pictures or to save time, in sentences."""
    said = []
    if len(vocab) < len(names):
        said.append(f"{len(names) - len(vocab)} of {len(names)} labels stand on one side only and were left aside.")
    if len(left) < len(vocab):
        said.append(f"{len(left)} of {len(vocab)} labels were left out in turn, drawn by the seed.")
    if len(taught) < (~held_out).sum():
        said.append(f"The stand-in learned from {len(taught):,} of {(~held_out).sum():,} pictures.")
    return said


# ---------------------------------------------------------------------------------------------------------------
# The picture
# ---------------------------------------------------------------------------------------------------------------


def coverage_plot(unknown: Mapping) -> Image.Image:
    """
    Return how many of the labels named are wrong against how many pictures get one, from the sure to the unsure.

    Parameters
    ----------
    unknown : mapping
        As `fit_threshold` makes it, and card.json holds it.
    """
    buffer = io.BytesIO()  # a notebook shows a picture, and of a bare figure only its name
    _drawn(unknown).savefig(buffer, format="png", dpi=90)
    return Image.open(buffer)


def _drawn(unknown: Mapping) -> Drawing:
    """Return the drawing of `coverage_plot`."""
    drawing = Drawing(figsize=(6.5, 3.8), layout="constrained")
    axes = drawing.subplots()
    target, curve = 100 * unknown["target_error"], unknown["curve"]
    shares, errors = ([100 * point[key] for point in curve] for key in ("coverage", "error"))
    axes.plot(shares, errors, ".-", color="#0072b2", label="held-out pictures")
    axes.axhline(target, color="#999999", linestyle=":", label=f"target: {target:g} % wrong")
    if unknown["threshold"] is None:
        axes.set_title(f"no threshold: {unknown['why']}", fontsize=9, wrap=True)
    else:
        coverage, error = (100 * unknown[key]["value"] for key in ("coverage", "error"))
        doubt = "" if unknown["reached"] else " (cannot promise the target)"
        name = f"threshold {unknown['threshold']:.2f}{doubt}"
        axes.plot([coverage], [error], "s", markersize=11, markerfacecolor="none", color="#d55e00", label=name)
        low, high = (100 * unknown["error"][key] for key in ("low", "high"))
        span = f"{error:.1f} % of these a wrong one (95 %: {low:.1f} to {high:.1f} %)"
        axes.set_title(f"{coverage:.0f} % of pictures get a label, {span}", fontsize=10)
    axes.set(xlabel="pictures that get a label, % (the others are called unknown)", ylabel="of these wrong, %")
    axes.set_xlim(0, 102)
    axes.set_ylim(bottom=min(0, -0.03 * max([target, *errors])))
    axes.grid(alpha=0.3)
    axes.legend()
    return drawing
