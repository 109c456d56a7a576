"""Intervals against textbooks, scipy and simulation; a verdict that luck alone does not earn."""

import numpy as np
import pytest
from scipy.stats import binomtest

from utils.intervals import bootstrap, figure, interval, luck, mean_of, verdict, wilson


def test_wilson_is_the_textbooks():
    """8 of 10: 0.490 to 0.943 (Wilson 1927, as in Brown, Cai and DasGupta 2001); none of none is open, and says why."""
    ends = wilson(8, 10)
    assert (round(ends["low"], 3), round(ends["high"], 3)) == (0.490, 0.943)
    assert wilson(0, 0, why="none") == {"value": None, "low": 0.0, "high": 1.0, "n": 0, "why": "none"}


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (3, 7), (123, 456)])
def test_wilson_is_scipys(hits, n):
    """Where no picture has a near-duplicate, to six digits."""
    ends = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert (wilson(hits, n)["low"], wilson(hits, n)["high"]) == (round(ends.low, 6), round(ends.high, 6))


def test_the_interval_of_a_share_holds_the_truth_where_there_are_near_duplicates():
    """Of 300 sets of 40 groups with one to five copies each, 92 to 98 in 100 intervals of accuracy hold the truth."""
    hits = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(40), rng.integers(1, 6, 40))
        right = (rng.random(40) < 0.8)[groups]
        found = wilson(int(right.sum()), len(right), groups=groups)
        hits += found["low"] <= 0.8 <= found["high"]
    assert 0.92 <= hits / 300 <= 0.98


def test_the_bootstrap_is_the_plain_one():
    """The interval of a mean is that of pictures drawn one by one, and the same each time."""
    values = np.random.default_rng(0).normal(size=50)
    measure = {"mean": mean_of(values)}
    value, draws = bootstrap(measure, np.arange(50), seed=1)["mean"]
    again = bootstrap(measure, np.arange(50), seed=1)["mean"][1]
    rng = np.random.default_rng(9)
    plain = [values[rng.integers(0, 50, 50)].mean() for _ in range(4000)]
    found = interval(value[0], draws[:, 0], n=50, groups=np.arange(50), top=None)
    assert (draws == again).all()
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.quantile(plain, [0.025, 0.975])), abs=0.04)


def test_the_bootstrap_of_few_groups_is_not_too_sure():
    """Of 300 sets of 12 values that lean to one side, more intervals hold the mean than plain ones; 90 in 100."""
    hits = plain = 0
    for seed in range(300):
        values = np.random.default_rng(seed).exponential(size=12)
        value, draws = bootstrap({"": mean_of(values)}, range(12), seed=seed)[""]
        found = interval(value[0], draws[:, 0], n=12, groups=range(12), top=None)
        low, high = np.quantile(draws, [0.025, 0.975])
        hits += found["low"] <= 1 <= found["high"]
        plain += low <= 1 <= high
    assert hits >= 270 and hits - plain >= 6


def test_two_groups_and_resamples_of_one_value_have_an_interval():
    """As wide as the resamples reach where two groups are all there is; the value where nothing varies."""
    found = interval(0.5, np.array([0.0, 0.5, 0.5, 1.0]), n=2, groups=range(2))
    assert (found["low"], found["high"]) == (0, 1)
    leaning = np.random.default_rng(0).exponential(size=1000)  # the end lies farther out where the draws lean
    assert interval(1.0, leaning, n=1000, groups=range(1000), top=None)["high"] > np.quantile(leaning, 0.985)
    assert interval(0.5, np.full(9, 0.5), n=9, groups=range(9)) == figure(0.5, 0.5, 0.5, 9)


def test_few_groups_of_many_copies_are_few():
    """Copies of one picture have no spread; with five groups of ten the ends are as far out as with five pictures."""
    draws = np.random.default_rng(0).normal(0.5, 0.1, size=1000)
    assert interval(0.5, draws, n=10, groups=["a"] * 10) == figure(
        0.5, None, None, 10, why="one picture, or one group of near-duplicates, has no spread"
    )
    copied = interval(0.5, draws, n=50, groups=np.repeat(np.arange(5), 10))
    assert copied == interval(0.5, draws, n=5, groups=range(5)) | {"n": 50}


def test_the_verdict_is_scipys():
    """Right, guess and p of drawn sets agree with a count and scipy's exact one-sided binomial test."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 36, 400):
        labels, said = rng.integers(0, 3, n), rng.integers(0, 3, n)
        found = verdict(labels, said)
        right, guess = int((labels == said).sum()), int(np.bincount(labels).max())
        expected = binomtest(right, n, guess / n, alternative="greater").pvalue
        assert (found["right"], found["n"], found["guess"], found["pictures"]) == (right, n, guess, n)
        assert found["p"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("right", "p", "better"), [(3, 42 / 64, False), (5, 7 / 64, False), (6, 1 / 64, True)])
def test_the_verdict_is_the_hand_counted_one(right, p, better):
    """Six coins: all heads is 1 case of 64, five or more are 7, three or more 42."""
    labels = ["ant", "bee"] * 3
    said = [*labels[:right], *["wasp"] * (6 - right)]
    counted = {"right": right, "n": 6, "guess": 3, "pictures": 6}
    assert verdict(labels, said) == counted | {"p": round(p, 6), "better": better}


def test_guessing_is_the_most_frequent_label_of_these_pictures():
    """Nine ants and one bee: nine are guessed, whatever the model says; one label alone can only be guessed."""
    found = verdict(["ant"] * 9 + ["bee"], ["bee"] * 10)
    assert (found["right"], found["guess"], found["p"], found["better"]) == (1, 9, 1.0, False)
    assert verdict(["ant"] * 30, ["ant"] * 30)["better"] is False


def test_near_duplicates_count_once_in_the_verdict():
    """Twelve copies of one picture, all right, are one right picture; the first of a group stands for it."""
    labels, said = ["ant"] * 12 + ["bee", "ant", "bee"], ["ant"] * 12 + ["ant", "ant", "bee"]
    groups = ["x"] * 12 + ["a", "b", "c"]
    once = verdict(labels, said, groups=groups)
    assert once == verdict(labels[11:], said[11:]) | {"pictures": 15}
    mixed = verdict(["bee", "ant", "ant"], ["bee", "bee", "bee"], groups=["x", "x", "x"])  # filed under two labels
    assert (mixed["right"], mixed["n"], mixed["guess"]) == (1, 1, 1)


def guessers(rng, labels, groups):
    """Return what four guessers say of pictures that they do not look at; the last says the same of near-duplicates."""
    n, share = len(labels), np.bincount(labels, minlength=3) / len(labels)
    alike = rng.choice(3, size=groups.max() + 1, p=share)[groups]
    return np.zeros(n, dtype=int), rng.integers(0, 3, n), rng.choice(3, size=n, p=share), alike


@pytest.mark.parametrize("labels", [np.arange(40) % 2, np.arange(40) % 3, np.repeat([0, 1, 2], [24, 8, 8])])
def test_a_guesser_is_seldom_called_better(labels):
    """In at most 5 of 100 drawn sets with near-duplicates; were each of these counted, luck would pass more often."""
    better, fooled = np.zeros(4), 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(40), rng.integers(1, 9, 40))
        said = guessers(rng, labels[groups], groups)
        better += [verdict(labels[groups], each, groups=groups)["better"] for each in said]
        fooled += verdict(labels[groups], said[3])["better"]
    assert (better <= 50).all()
    assert fooled > 50 or np.bincount(labels).max() > 20  # a label so frequent is hard to beat by luck


def test_a_good_model_is_called_better():
    """Right for 80 in 100 pictures of three labels: told from guessing in 95 of 100 sets of 40."""
    rng, told = np.random.default_rng(0), 0
    for _ in range(200):
        labels = rng.integers(0, 3, 40)
        said = np.where(rng.random(40) < 0.8, labels, (labels + 1) % 3)
        told += verdict(labels, said)["better"]
    assert told >= 190


@pytest.mark.parametrize(("n", "guess"), [(36, 18), (36, 12), (200, 70), (5, 3), (1, 1)])
def test_luck_is_where_better_begins(n, guess):
    """With as many right as luck gives no model is better; with one more it is."""
    labels = np.repeat([0, 1, 2], [guess, (n - guess + 1) // 2, (n - guess) // 2])
    most = luck({"n": n, "guess": guess})

    def said(right):
        return np.where(np.arange(n) < right, labels, 9)

    assert verdict(labels, said(most))["guess"] == guess
    assert not verdict(labels, said(most))["better"]
    assert most == n or verdict(labels, said(most + 1))["better"]


def test_a_verdict_needs_a_picture():
    """Nothing judged is an error, not a verdict."""
    with pytest.raises(ValueError, match="no picture was judged"):
        verdict([], [])
