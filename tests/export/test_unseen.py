"""07: what the model says to a label that it was never shown."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from utils.export.unseen import LEFT_OUT, unseen_labels, unseen_sentence


def clusters(K, count, *, apart=3.0, seed=0):
    """Return features (N, 6) about K centres, their labels, and every third picture held out."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(K, 6)) * apart
    codes = np.repeat(np.arange(K), count)
    return (
        centres[codes] + rng.normal(size=(K * count, 6)),
        np.char.add("l", codes.astype(str)),
        np.arange(K * count) % 3 == 0,
    )


def test_each_label_left_out_is_judged_by_a_model_of_the_others():
    """Against scikit-learn in a plain loop: the shares called unknown."""
    features, labels, held = clusters(4, 45, apart=1)
    found = unseen_labels(features, labels, held, groups=range(180), coverage=0.8, seed=1)
    shares = {}
    for label in ("l0", "l1", "l2", "l3"):
        taught, judged = (labels != label) & ~held, (labels != label) & held
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        model.fit(features[taught], labels[taught])
        seen, new = (model.predict_proba(features[some]) for some in (judged, (labels == label) & held))
        threshold = np.quantile(seen.max(1), 0.2)  # names four in five of the others
        shares[label] = (new.max(1) < threshold).mean()
    assert {label: entry["value"] for label, entry in found["labels"].items()} == pytest.approx(shares, abs=1e-6)
    assert 0 < np.mean(list(shares.values())) < 1
    assert found["unknown"]["value"] == pytest.approx(np.mean(list(shares.values())), abs=1e-6)
    assert (found["unknown"]["n"], found["false_alarms"]) == (60, 0.2)


def test_the_note_says_what_the_features_know():
    """No photo shaped them, but ImageNet may have held such things; everything can be written as JSON."""
    features, labels, held = clusters(3, 12)
    found = unseen_labels(features, labels, held, groups=range(36), coverage=0.8, seed=1)
    assert "no photo of this project has shaped them" in found["note"] and "ImageNet" in found["note"]
    json.dumps(found, allow_nan=False)


def test_pictures_in_another_order_and_copies_in_a_group_change_little():
    """Order does not matter, and intervals know that copies are no evidence."""
    features, labels, held = clusters(3, 30, apart=1)
    settings = {"coverage": 0.8, "seed": 1}
    first = unseen_labels(features, labels, held, groups=range(90), **settings)
    order = np.random.default_rng(3).permutation(90)
    other = unseen_labels(features[order], labels[order], held[order], groups=order, **settings)
    for key in ("unknown", "labels"):
        assert other[key] == first[key]
    judged = np.r_[np.arange(90), np.flatnonzero(held), np.flatnonzero(held)]
    copied = unseen_labels(features[judged], labels[judged], held[judged], groups=judged, **settings)
    assert copied["unknown"]["n"] == 3 * first["unknown"]["n"]
    assert copied["unknown"]["low"] == pytest.approx(first["unknown"]["low"], abs=1e-5)
    lows = [[one["labels"][label]["low"] for label in ("l0", "l1", "l2")] for one in (first, copied)]
    assert lows[1] == pytest.approx(lows[0], abs=1e-5)


@pytest.mark.parametrize(("kept", "count"), [(["l0", "l1"], 2), (["l0"], 1), ([], 0)])
def test_fewer_than_three_labels_say_why(kept, count):
    """With one left out, a single label would remain, which nothing can be taken for."""
    features, labels, held = clusters(3, 12)
    some = np.isin(labels, kept)
    found = unseen_labels(features[some], labels[some], held[some], groups=labels[some], coverage=0.8, seed=1)
    assert list(found) == ["why"] and found["why"].startswith(f"{count} label")


def test_a_label_on_one_side_only_is_left_aside_and_named():
    """A label without held-out pictures cannot be asked about; the others are judged without it."""
    features, labels, held = clusters(4, 12)
    held[labels == "l2"] = False
    found = unseen_labels(features, labels, held, groups=range(48), coverage=0.8, seed=1)
    assert list(found["labels"]) == ["l0", "l1", "l3"]
    assert "1 of 4 labels have photos in one set only" in found["note"]


def test_of_many_labels_some_are_left_out():
    """Of 30 labels 20 are drawn by the seed, and it is said."""
    features, labels, held = clusters(30, 9)
    found, again, other = (
        unseen_labels(features, labels, held, groups=range(270), coverage=0.8, seed=seed) for seed in (1, 1, 2)
    )
    assert found == again and list(found["labels"]) != list(other["labels"])
    assert len(found["labels"]) == LEFT_OUT
    assert "20 of 30 labels, drawn by the seed, were left out in turn" in found["note"]


def test_what_was_found_is_told_in_a_sentence():
    """The share called unknown beside that of the photos whose labels were known."""
    unseen = {"unknown": {"value": 0.6}, "false_alarms": 0.1, "note": "Optimistic."}
    assert unseen_sentence(unseen) == (
        "With each label left out in turn, 60 % of its photos were called “unknown”, and 10 % of the photos whose "
        "labels were known. Optimistic."
    )
