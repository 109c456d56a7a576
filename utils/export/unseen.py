"""
Stage 07: does the model say "unknown" to a label that it was never shown?

Works on features (see `utils.features`) and labels; the result goes into card.json. Each label is left out in turn. A
stand-in for the model, a logistic regression, learns the others. Its threshold names as large a share of the photos
whose labels it knows as the model's own threshold does. The photos of the label left out should lie below it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from utils.heads import JUDGE_STRENGTH, fit_head
from utils.intervals import wilson
from utils.words import share

LEFT_OUT = 20  # labels at most that are left out in turn: 1,000 would take hours and hardly move the mean
NOTE = (
    "The features are those of a network pretrained on ImageNet: no photo of this project has shaped them, though it "
    "may have seen such things there."
)


def unseen_labels(
    features: np.ndarray,
    labels: Sequence,
    held_out: np.ndarray,
    *,
    groups: Sequence,
    coverage: float,
    seed: int = 42,
) -> dict:
    """
    Return how often photos of a label that was never shown are called unknown.

    `features`, float array (N, D), come from a pretrained network. The stand-in does not learn from the photos
    `held_out`, bool array (N,). Near-duplicates share a group. `coverage` is the share of photos, in (0, 1], that the
    model names.

    The dict holds ``unknown``: the share of the photos of labels left out that are called unknown; ``labels``: the same
    for each label; ``false_alarms``: the share of known labels that is called unknown too; ``note``: what to make of
    it. If nothing can be said, it is ``{"why": …}``.
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
    caught = np.zeros(len(own), dtype=bool)  # what the stand-in that never saw a photo's label calls unknown
    shares = {}
    for label in left:
        new, others = own == label, taught != label
        head = fit_head(features[~held_out][others], taught[others], len(vocab), strength=JUDGE_STRENGTH)
        sure = head.probabilities(judged).max(1)  # (H,)
        caught[new] = sure[new] < np.quantile(sure[~new], 1 - coverage)
        shares[str(vocab[label])] = wilson(int(caught[new].sum()), int(new.sum()), groups=groups[new])
    tested = np.isin(own, left)
    note = [NOTE]
    if len(vocab) < len(names):
        note.append(f"{len(names) - len(vocab)} of {len(names)} labels have photos in one set only and were left out.")
    if len(left) < len(vocab):
        note.append(f"{len(left)} of {len(vocab)} labels, drawn by the seed, were left out in turn.")
    return {
        "unknown": wilson(int(caught[tested].sum()), int(tested.sum()), groups=groups[tested]),
        "labels": shares,
        "false_alarms": round(1 - coverage, 6),
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
    return (
        f"With each label left out in turn, {share(unseen['unknown']['value'])} of its photos were called “unknown”, "
        f"and {share(unseen['false_alarms'])} of the photos whose labels were known. {unseen['note']}"
    )
