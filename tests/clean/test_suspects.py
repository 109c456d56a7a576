"""06, ranking: worst first, and five lists with reasons."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from conftest import draw_picture, picture_bytes, put_raw
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import KFold
from test_heads import ready_dataset

from utils.clean.suspects import (
    COPIES,
    LEAST_UNSURE,
    RIGHT_UNSURE,
    UNLIKE,
    WRONG_SURE,
    WRONG_UNSURE,
    calibrated,
    confused_suspects,
    find_suspects,
    judges_sentence,
    list_suspects,
    rank_suspects,
)
from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.heads import Judgement, judge_pictures


def noisy_labels(n, k, *, share, hard, direction, seed):
    """
    Return given labels (N,), probabilities (N, K) and which labels are wrong.

    `hard` spreads how far the labels stand out from 0.4 to 1.6; `direction` is "any", "next" (a wrong picture always
    stands in the next label), or "one" (only every other label loses pictures).
    """
    rng = np.random.default_rng(seed)
    true = rng.integers(0, k, n)
    height = (2.2 + 0.7 * np.log(k)) * (np.linspace(1.6, 0.4, k) if hard else np.ones(k))
    logits = rng.normal(size=(n, k)) + height[true][:, None] * np.eye(k)[true]
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = rng.random(n) < (2 * share * (true % 2 == 0) if direction == "one" else share)
    wrong[np.flatnonzero(true % 2 == 0)[0]] = True
    step = rng.integers(1, k, n) if direction == "any" else 1
    return np.where(wrong, (true + step) % k, true), probs, wrong


def learned_labels(n, k, *, share, hard, direction, seed):
    """The same from points in 20 dimensions, judged out of fold by a regression that learned the wrong labels too."""
    rng = np.random.default_rng(seed)
    labels, _, wrong = noisy_labels(n, k, share=share, hard=hard, direction=direction, seed=seed)
    true = np.where(wrong, (labels - 1) % k, labels)
    spread = np.linspace(0.6, 1.6, k) if hard else np.ones(k)
    points = rng.normal(size=(k, 20))[true] + rng.normal(size=(n, 20)) * spread[true][:, None]
    probs = np.zeros((n, k))
    for train, held in KFold(3, shuffle=True, random_state=seed).split(points):
        model = LogisticRegression(C=0.1).fit(points[train], labels[train])
        probs[np.ix_(held, model.classes_)] = model.predict_proba(points[held])
    return labels, probs, wrong


def gains(draw, *, seeds, **case):
    """Return the average precisions of the plain loss and of ours over some draws: float array (S, 2)."""
    found = []
    for seed in range(seeds):
        labels, probs, wrong = draw(seed=seed, **case)
        loss = -np.log(np.maximum(probs[np.arange(len(labels)), labels], 1e-300))
        place = np.empty(len(labels))
        place[rank_suspects(labels, probs)] = -np.arange(len(labels))
        found.append([average_precision_score(wrong, loss), average_precision_score(wrong, place)])
    return np.array(found)


@pytest.mark.parametrize("direction", ["any", "next", "one"])
@pytest.mark.parametrize("hard", [False, True], ids=["alike", "hard and easy"])
def test_wrong_labels_rank_at_least_as_well_as_by_loss(hard, direction):
    """Judged out of fold, with few labels or many: on average better than by loss, and in no case clearly worse."""
    cases = [
        gains(partial(learned_labels, n, k), seeds=6, share=share, hard=hard, direction=direction).mean(0)
        for k, n in ((2, 60), (3, 300), (10, 150), (20, 300))
        for share in (0.05, 0.2)
    ]
    loss, ours = np.array(cases).T
    assert ours.mean() > loss.mean()
    assert (ours - loss).min() >= -0.02  # one picture of 60 that changes places with a wrong one moves as much


def test_labels_that_are_named_too_rarely_are_made_up_for():
    """By hand: labels given twice and once, summing to 2.4 and 0.6, so the factors are 7 / 7.4 and 6 / 5.6."""
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [np.nan, np.nan]])
    found = calibrated(np.array([0, 0, 1, 1]), probs)
    odds = found[:3, 0] / found[:3, 1]
    factor = (7 / 7.4) / (6 / 5.6)
    assert odds == pytest.approx([9 * factor, 4 * factor, 7 / 3 * factor])
    assert found[:3].sum(1) == pytest.approx(1) and np.isnan(found[3]).all()


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(0, 30), st.integers(2, 5))
def test_the_ranking_is_a_permutation(seed, n, k):
    """Every picture stands in the list once, whatever the labels and probabilities."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(k), n).reshape(n, k).round(1)
    order = rank_suspects(rng.integers(0, k, n), probs)
    assert sorted(order.tolist()) == list(range(n))


def test_one_strong_rival_weighs_more_than_many_weak_ones():
    """Two pictures as sure of their label: the one that another label fits comes before the one that none fits."""
    probs = np.array([[0.2, *[0.1] * 8], [0.2, 0.8, *[0.0] * 7]])
    assert rank_suspects([0, 0], probs).tolist() == [1, 0]


def test_the_given_label_weighs_more_than_its_rival():
    """A label that hardly fits stands before one that fits twice as well, though only this one has a strong rival."""
    probs = np.array([[0.15, *[0.85 / 9] * 9], [0.3, 0.65, *[0.05 / 8] * 8]])
    assert rank_suspects([0, 0], probs).tolist() == [0, 1]


def test_the_ranking_makes_up_for_labels_that_are_named_too_rarely():
    """By hand: 0.55 becomes 0.513, and the 0.52 of the rarer label, which sum to 3.2 instead of 4, become 0.557."""
    given = [0.9] * 7 + [0.55]
    probs = np.array([[p, 1 - p] for p in given] + [[0.48, 0.52]] * 4)
    assert rank_suspects([0] * 8 + [1] * 4, probs)[:5].tolist() == [7, 8, 9, 10, 11]


def test_pictures_that_nobody_judged_come_last():
    """A row of NaN changes nothing for the others."""
    probs = np.array([[np.nan, np.nan], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    assert rank_suspects([0, 0, 0, 1], probs).tolist() == [2, 3, 1, 0]
    assert calibrated(np.array([0, 0, 0, 1]), probs)[1:].tolist() == calibrated(np.array([0, 0, 1]), probs[1:]).tolist()


@pytest.mark.parametrize(("labels", "said"), [([0, 1], r"shape \(3, 2\)"), ([0, 1, 2], "labels from 0 to 2")])
def test_probabilities_of_another_shape_are_refused(labels, said):
    """The message gives both shapes."""
    with pytest.raises(ValueError, match=said):
        rank_suspects(labels, np.ones((3, 2)) / 2)


def listed(found, name):
    """Return the positions in one list."""
    return [suspect.position for suspect in found if suspect.list == name]


def test_predictions_are_wrong_or_right_and_sure_or_unsure():
    """Each list by hand: at 2 to 1 another label is probably right, at 11 to 9 possibly."""
    probs = np.array([[0.9, 0.1]] * 4 + [[0.25, 0.5], [0.45, 0.55], [0.1, 0.9], [0.1, 0.9], [0.45, 0.55]])
    found = list_suspects([0] * 6 + [1] * 3, probs, vocab=["ant", "bee"], names=[f"{n}.jpg" for n in range(9)])
    assert listed(found, WRONG_SURE) == [4]
    assert listed(found, WRONG_UNSURE) == [5]
    assert listed(found, RIGHT_UNSURE) == [8]
    assert len(found) == 3
    assert [suspect.reason for suspect in found] == [
        "Folder: ant. Model: bee (50 %).",
        "Folder: ant. Model: bee (55 %).",
        "Folder: bee. Model: bee (55 %). Next: ant (45 %).",
    ]
    assert [suspect.figure for suspect in found] == [0.5, 0.55, 0.55]


def test_every_wrong_prediction_is_listed_and_doubts_are_bounded():
    """Of 1,000 pictures that a model knows nothing about: all wrong ones, and a tenth of doubts."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(4, 50.0), 1000)
    labels = rng.integers(0, 4, 1000)
    found = list_suspects(labels, probs, vocab="abcd")
    wrong = set(np.flatnonzero(probs.argmax(1) != labels).tolist())
    assert {*listed(found, WRONG_SURE), *listed(found, WRONG_UNSURE)} == wrong
    assert len(listed(found, RIGHT_UNSURE)) == 100
    few = list_suspects(labels[:200], probs[:200], vocab="abcd")
    assert len(listed(few, RIGHT_UNSURE)) == LEAST_UNSURE


def test_within_a_list_the_worst_comes_first_and_lists_keep_their_order():
    """Each list is in the order of the ranking; the five stand in one order."""
    rng = np.random.default_rng(1)
    labels, probs, _ = noisy_labels(300, 3, share=0.1, hard=True, direction="any", seed=0)
    rank = {n: r for r, n in enumerate(rank_suspects(labels, probs).tolist())}
    found = list_suspects(labels, probs, vocab="abc", distances=rng.normal(1, 0.1, 300) + (np.arange(300) == 7) * 9)
    for name in (WRONG_SURE, WRONG_UNSURE, RIGHT_UNSURE):
        places = [rank[n] for n in listed(found, name)]
        assert len(places) > 1 and places == sorted(places)
    assert list(dict.fromkeys(s.list for s in found)) == [WRONG_SURE, WRONG_UNSURE, RIGHT_UNSURE, UNLIKE]


def test_near_duplicates_under_two_labels_name_each_other():
    """Three frames of ants and one filed as bee: the one and the nearest to it."""
    probs = np.array([[0.9, 0.1]] * 4 + [[0.1, 0.9]] * 2)
    found = list_suspects(
        [0, 0, 0, 1, 1, 1],
        np.where(np.arange(6)[:, None] == 3, 1 - probs, probs),
        vocab=["ant", "bee"],
        names=["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"],
        groups=["g", "g", "g", "g", "e", "e"],
        hashes=[0b1111, 0b11, 0b1, 0b0, None, 7],
    )
    copies = [(s.position, s.reason, s.figure) for s in found if s.list == COPIES]
    assert copies == [
        (2, "Its near-duplicate d.jpg is in the folder bee.", 1.0),
        (3, "Its near-duplicate c.jpg is in the folder ant.", 1.0),
    ]


def test_near_duplicates_without_hashes_are_still_named():
    """Also where pictures.csv no longer knows a picture."""
    found = list_suspects([0, 1], np.eye(2), vocab=["ant", "bee"], groups=["g", "g"], names=["a.jpg", "b.jpg"])
    assert [s.reason for s in found] == [
        "Its near-duplicate b.jpg is in the folder bee.",
        "Its near-duplicate a.jpg is in the folder ant.",
    ]


def test_a_picture_far_from_every_label_is_listed_with_its_distance():
    """By hand: median 1, deviations 0.1, so the limit is 1.5; of a label of few pictures, all tell."""
    distances = np.array([0.9, 1.0, 1.1] * 5 + [1.6, 3.0, np.nan])
    labels = [0] * 16 + [1, 0]
    found = list_suspects(labels, np.eye(2)[labels], vocab=["ant", "bee"], distances=distances)
    assert [(s.position, s.list, s.figure) for s in found] == [(16, UNLIKE, 3.0), (15, UNLIKE, 1.6)]
    assert found[1].reason == "1.6 times as far from every label as usual. For ant, up to 1.5 times is normal."


def test_the_only_picture_of_a_label_says_that_no_model_saw_another():
    """A prediction that could not have been right is told apart from one that is wrong."""
    probs = np.array([[0.9, 0.1, 0.0]] * 3 + [[0.1, 0.9, 0.0]] * 3 + [[0.2, 0.8, 0.0]])
    found = list_suspects([0, 0, 0, 1, 1, 1, 2], probs, vocab=["ant", "bee", "cow"])
    assert [(s.position, s.reason) for s in found] == [
        (6, "Folder: cow. Model: bee (80 %). The model has seen no other cow.")
    ]


def test_nobody_judged_means_no_suspect():
    """Rows of NaN stand in no list of predictions or distances, and figures are numbers always."""
    probs = np.full((3, 2), np.nan)
    assert list_suspects([0, 1, 1], probs, vocab="ab", distances=np.full(3, np.nan)) == []


def test_a_thousand_labels_are_listed():
    """2,000 pictures of 1,000 labels, ten of them wrong, are found first."""
    labels = np.arange(2000) // 2
    probs = np.full((2000, 1000), 1e-4)
    probs[np.arange(2000), labels] = 0.9
    wrong = list(range(0, 200, 20))
    probs[wrong] = np.roll(probs[wrong], 5, axis=1)
    found = list_suspects(labels, probs, vocab=[f"l{n}" for n in range(1000)])
    assert sorted(s.position for s in found) == wrong


def test_suspects_of_a_project(make_project, fill_raw):
    """A blue cat, a copy under another label and noise without an animal each stand in their list."""
    project = make_project()
    ids = fill_raw(project, 20)
    blue = put_raw(project, "cat", picture_bytes(draw_picture(5000, colour="navy")))
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    strange = put_raw(project, "dog", picture_bytes(Image.fromarray(noise)))
    one = ids["cat"][0]
    other = put_raw(project, "dog", picture_bytes(Image.open(project.raw / "cat" / f"{one}.jpg"), quality=60))
    apart = {ids["cat"][1]: "a burst", ids["dog"][1]: "a burst"}  # of one group, and not one photo
    dataset = ready_dataset(project, groups={one: "same", other: "same"} | apart)
    ids = dataset.ids
    judged = judge_pictures(dataset)
    assert judged.verdict["better"]
    found = find_suspects(dataset, judged)
    lists = {s.list: [ids[n] for n in listed(found, s.list)] for s in found}
    assert blue in lists.get(WRONG_SURE, []) + lists.get(WRONG_UNSURE, [])
    assert set(lists[COPIES]) == {one, other}
    assert strange in lists[UNLIKE]
    (project.images / "cat" / f"{blue}.jpg").rename(project.images / "dog" / f"{blue}.jpg")
    with pytest.raises(FieldguideError, match="moved, removed or added since"):
        find_suspects(read_dataset(project), judged)


def test_judges_no_better_than_guessing_make_no_list(make_project, fill_raw):
    """At 7 of 12, where guessing gets 6, no picture is listed, and the sentence sends the reader to 02."""
    project = make_project()
    fill_raw(project, 6)
    dataset = ready_dataset(project)
    right = np.arange(12) < 7
    probs = np.eye(2)[[code if good else 1 - code for code, good in zip(dataset.codes, right, strict=True)]]
    judged = Judgement(dataset.ids, dataset.labels, dataset.groups, ("cat", "dog"), probs, np.ones(12))
    assert find_suspects(dataset, judged) == []
    told = judges_sentence(judged.verdict)
    assert told.startswith(
        "The judges agree with the folder for 7 of 12 photos; guessing would get 6. On so few photos"
    )
    assert "So there is no list of suspects. Look at the contact sheets of 02" in told
    sure = Judgement(
        dataset.ids, dataset.labels, dataset.groups, ("cat", "dog"), np.eye(2)[list(dataset.codes)], np.ones(12)
    )
    assert "no list" not in judges_sentence(sure.verdict) and sure.verdict["better"]


def test_each_cell_of_the_matrix_of_05_is_a_list(make_project, fill_raw):
    """Beside the diagonal, the largest cell first and the most confident first in it, under the folders of today."""
    project = make_project()
    fill_raw(project, 4)
    dataset = ready_dataset(project)
    cats, dogs = dataset.of("cat").ids, dataset.of("dog").ids
    said = {
        cats[0]: ("cat", 0.9),
        dogs[0]: ("cat", 0.6),
        dogs[1]: ("cat", 0.8),
        cats[1]: ("dog", 0.7),
        "gone": ("dog", 1),
    }
    rows = [{"id": id, "label": "", "predicted": label, label: p} for id, (label, p) in said.items()]
    found = confused_suspects(dataset, pd.DataFrame(rows))
    assert [(dataset.ids[each.position], each.list, each.reason) for each in found] == [
        (dogs[1], "05: dog taken for cat", "Folder: dog. Model of 05: cat (80 %)."),
        (dogs[0], "05: dog taken for cat", "Folder: dog. Model of 05: cat (60 %)."),
        (cats[1], "05: cat taken for dog", "Folder: cat. Model of 05: dog (70 %)."),
    ]
