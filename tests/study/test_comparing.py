"""What differences are worth: estimates against simulations, Holm against a textbook example."""

import numpy as np
import pytest

from utils.study.comparing import Estimate, contrasts, estimate, paired
from utils.study.runs import TrainingRun


def runs(rights, *, judged="v"):
    """Return a run per row of answers, seeds 0, 1, …"""
    return [TrainingRun("a", n, "a", "done", judged=judged, right=np.array(row, bool)) for n, row in enumerate(rights)]


def test_equal_settings_seldom_differ():
    """Of 400 pairs that are equal in truth, with noise of photos and seeds, about one in twenty is called different."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(400):
        values, groups = {}, {}
        for seed in range(3):
            ids = rng.permutation(150)[:40]
            shift, chance = rng.normal(0, 0.02), rng.random(40)
            up, down = 0.04 + shift / 2, 0.04 - shift / 2
            values[seed] = np.where(chance < up, 1.0, np.where(chance < up + down, -1.0, 0.0))
            groups[seed] = [str(id) for id in ids]
        found += estimate(values, groups).p < 0.05
    assert found <= 32  # 8 %; binom(400, 0.05) exceeds it once in a hundred


def test_seeds_that_disagree_widen_the_interval():
    """The same photos gained in all, once evenly over two seeds and once in one of them alone: that is less certain."""
    even = estimate({0: np.tile([1.0, 0], 20), 1: np.tile([1.0, 0], 20)}, {0: range(40), 1: range(40, 80)})
    odd = estimate({0: np.ones(40), 1: np.zeros(40)}, {0: range(40), 1: range(40, 80)})
    assert even.value == odd.value == 0.5
    assert odd.error > 2 * even.error


def test_near_duplicates_are_one_piece_of_evidence():
    """Ten versions of four photos tell as little as four photos."""
    values = np.repeat([1.0, 0.0, 1.0, 0.0], 10)
    many = estimate({0: values}, {0: range(40)})
    few = estimate({0: values}, {0: np.repeat(range(4), 10)})
    alone = estimate({0: values[::10]}, {0: range(4)})
    assert few.error == pytest.approx(alone.error)
    assert few.error > 2 * many.error


def test_few_photos_that_all_agree_prove_nothing():
    """Three of three photos better is no proof, though their variance is nought."""
    assert estimate({0: np.ones(3)}, {0: "abc"}).p > 0.05


def test_holms_procedure():
    """With p of .01, .04, .03 and .005 among four, Holm (1979) rejects .005 and .01 alone at 5 %."""
    wanted = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    from scipy.stats import norm

    pairs = {(name, "x"): Estimate(float(norm.isf(p / 2)), 1.0, 10**9, 0.0, 3, 2) for name, p in wanted.items()}
    assert [each.p for each in pairs.values()] == pytest.approx(list(wanted.values()))
    found = contrasts(pairs)
    assert [(each.better, each.differs) for each in found] == [("d", True), ("a", True), ("c", False), ("b", False)]
    assert all((each.interval[0] > 0) == each.differs for each in found)


def test_only_runs_of_the_same_validation_set_are_paired():
    """Seeds are compared where both settings judged the very same photos; else there is nothing to say."""
    groups = {0: "abcd", 1: "abcd"}
    gain = paired(runs([[1, 1, 1, 0], [1, 1, 0, 0]]), runs([[1, 0, 0, 0], [1, 1, 0, 1]]), groups)
    assert (gain.value, gain.seeds) == (pytest.approx(0.125), 2)
    assert paired(runs([[1, 1]]), runs([[1, 0]], judged="other"), {0: "ab"}) is None
