"""
Stage 07: does the model say "unknown" to a label that it was never shown?

Works on features (see `utils.features`) and labels; the result goes into card.json. Each label is left out in turn. A
stand-in for the model, a logistic regression, learns the others. Its threshold names as large a share of the photos
whose labels it knows as the model's own threshold does. The photos of the label left out should lie below it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from utils.evaluate import auc_measure
from utils.intervals import bootstrap, interval, wilson

LEFT_OUT = 20  # labels at most that are left out in turn: 1,000 would take hours and hardly move the mean
OPTIMISTIC = (
    "Optimistic: the network learned its features with every label, the one left out among them. It will call a truly "
    "new label unknown less often than this."
)
HONEST = (
    "The features are those of the pretrained network: no photo of this project has shaped them, though it may have "
    "seen such things in ImageNet."
)


def unseen_labels(
    features: np.ndarray,
    labels: Sequence,
    held_out: np.ndarray,
    *,
    groups: Sequence,
    coverage: float,
    seed: int = 42,
    optimistic: bool,
) -> dict:
    """
    Return how often photos of a label that was never shown are called unknown.

    Parameters
    ----------
    features : float array (N, D)
        Of a network's body.
    labels : sequence of N labels
    held_out : bool array (N,)
        Photos that the stand-in does not learn from.
    groups : sequence of N
        Near-duplicates share a group, and a group is held out as a whole or not.
    coverage : float
        The share of photos that the model names, in (0, 1].
    seed : int
        Chooses labels if there are more than 20.
    optimistic : bool
        Whether the body was trained with these labels. It then tells the label left out from the others too well.

    Returns
    -------
    dict
        ``unknown``: the share of the photos of labels left out that are called unknown; ``labels``: the same for each
        label; ``false_alarms``: the share of the other labels' photos that are called unknown too; ``auc``: of two
        photos, one of the label left out and one not, how often the model is less confident of the former (the mean
        over labels, bootstrap by group); ``optimistic``, and ``note``, which says what to make of it. If nothing can
        be said, ``{"why": …}``.
    """
    features, labels, groups = np.asarray(features, dtype=float), np.asarray(labels), np.asarray(groups)
    held_out = np.asarray(held_out, dtype=bool)
    names, vocab = np.unique(labels), np.intersect1d(labels[held_out], labels[~held_out])
    if len(vocab) < 3:
        return {"why": f"{len(vocab)} labels have photos in both sets: with one left out, it takes two others"}
    there = np.isin(labels, vocab)
    features, groups, codes = features[there], groups[there], np.searchsorted(vocab, labels[there])
    held_out = held_out[there]
    left = np.sort(np.random.default_rng(seed).permutation(len(vocab))[:LEFT_OUT])
    groups, own, taught, judged = groups[held_out], codes[held_out], codes[~held_out], features[held_out]  # (H,), …
    sure = np.empty((len(left), len(own)))  # (L, H)
    unknown = np.empty((len(left), len(own)), dtype=bool)
    for n, label in enumerate(left):
        others = features[~held_out][taught != label]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        sure[n] = model.fit(others, taught[taught != label]).predict_proba(judged).max(1)
        unknown[n] = sure[n] < np.quantile(sure[n][own != label], 1 - coverage)
    new = own == left[:, None]  # (L, H)
    turn = np.where(new.any(0), new.argmax(0), -1)  # when a photo's label was left out; -1 is never
    tested = turn >= 0
    caught = unknown[turn, np.arange(len(own))]
    shares = {
        str(vocab[label]): wilson(int(unknown[n, new[n]].sum()), int(new[n].sum()), groups=groups[new[n]])
        for n, label in enumerate(left)
    }
    # A photo is judged each time that another label is left out; it is one photo all the same.
    seen = np.broadcast_to(groups, new.shape)[~new]
    alarms = wilson(int(unknown[~new].sum()), int((~new).sum()), groups=seen) | {"n": len(own)}
    values, draws = bootstrap({"auc": auc_measure(turn, 1 - sure.T)}, groups, seed=seed)["auc"]
    note = [OPTIMISTIC if optimistic else HONEST]
    if len(vocab) < len(names):
        note.append(f"{len(names) - len(vocab)} of {len(names)} labels have photos in one set only and were left out.")
    if len(left) < len(vocab):
        note.append(f"{len(left)} of {len(vocab)} labels, drawn by the seed, were left out in turn.")
    return {
        "unknown": wilson(int(caught[tested].sum()), int(tested.sum()), groups=groups[tested]),
        "labels": shares,
        "false_alarms": alarms,
        "auc": interval(values[0], draws[:, 0], n=len(own), groups=groups),
        "optimistic": optimistic,
        "note": " ".join(note),
    }


def unseen_sentence(unseen: Mapping) -> str:
    """
    Return in sentences what the model says to a label that it never saw, from the entry of card.json.

    >>> unseen_sentence({"why": "it takes three labels"})
    'What it says to a label that it never saw was not measured: it takes three labels.'
    """
    if "why" in unseen:
        return f"What it says to a label that it never saw was not measured: {unseen['why'].rstrip('.')}."
    caught, alarms = unseen["unknown"]["value"], unseen["false_alarms"]["value"]
    return (
        f"With each label left out in turn, {caught:.0%} of its photos were called “unknown”, and {alarms:.0%} of the "
        f"photos whose labels were known. {unseen['note']}"
    )
