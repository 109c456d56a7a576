"""The order that follows a person's decisions, and how many wrong labels it says are left."""

import numpy as np
import pytest

from utils.clean.live import AT_LATEST, EACH_TIME, LEAST_DECIDED, STRENGTH, LiveOrder, left_out_scores, principal_axes


def drawn(n: int = 120, k: int = 3, share: float = 0.1, seed: int = 0, spread: float = 1.0):
    """Return features (N, 40) of K clouds, given labels (N,), and the true ones: a share is given another label."""
    rng = np.random.default_rng(seed)
    true = np.arange(n) % k
    features = 0.7 * rng.normal(size=(k, 40))[true] + spread * rng.normal(size=(n, 40))
    given = true.copy()
    wrong = rng.choice(n, round(share * n), replace=False)
    given[wrong] = (true[wrong] + rng.integers(1, k, len(wrong))) % k
    return features.astype(np.float32), given, true


def decide(order: LiveOrder, given: np.ndarray, true: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Put right the first `count` pictures, one by one as they come; return codes (N,) and what is decided (N,)."""
    codes, decided = given.copy(), np.zeros(len(given), dtype=bool)
    for _ in range(count):
        order.learn(codes.copy(), decided.copy(), now=True)
        first = order.arranged(range(len(given)))[0]
        codes[first], decided[first] = true[first], True
    order.learn(codes, decided, now=True)
    return codes, decided


def test_each_score_is_that_of_a_head_fitted_without_the_picture():
    """The closed form gives what one fit per picture gives, the picture left out."""
    features, codes, _ = drawn(40)
    axes, use = principal_axes(features), np.linspace(0.1, 2, 40)
    weights = use * (use.sum() / 3 / np.bincount(codes, use, 3))[codes]
    expected = []
    for n in range(40):
        rest = np.arange(40) != n
        weighted = (axes[rest] * weights[rest, None]).T.astype(float)
        penalty = STRENGTH * np.eye(axes.shape[1])
        expected.append(axes[n] @ np.linalg.solve(weighted @ axes[rest] + penalty, weighted @ np.eye(3)[codes[rest]]))
    np.testing.assert_allclose(left_out_scores(axes, codes, use, 3), expected, atol=2e-3)


def test_what_was_decided_brings_its_like_to_the_front():
    """Of eight alike pictures under a label, five were moved: the other three, not suspicious before, come next."""
    features, given, _ = drawn(120, 2, share=0)
    alike = np.flatnonzero(given == 0)[:8]
    features[alike] = features[alike[0]] + 0.3 * np.random.default_rng(1).normal(size=(8, 40))
    order = LiveOrder(features, given)
    order.learn(given, np.zeros(120, dtype=bool), now=True)
    before = [order.arranged(range(120)).index(n) for n in alike]
    order.learn(np.where(np.isin(range(120), alike[:5]), 1, given), np.isin(range(120), alike[:5]), now=True)
    after = [order.arranged(range(120)).index(n) for n in alike[5:]]
    assert min(before) > 20 and max(after) < 5


def test_the_order_is_that_of_the_decisions_however_they_came():
    """Taken back, a decision leaves no trace; the same decisions in another order give the same order."""
    features, given, true = drawn()
    order, fresh = LiveOrder(features, given), LiveOrder(features, given)
    fresh.learn(given, np.zeros(120, dtype=bool), now=True)
    first = fresh.arranged(range(120))
    codes, decided = decide(order, given, true, 30)
    fresh.learn(codes, decided, now=True)
    assert fresh.arranged(range(120)) == order.arranged(range(120)) != first
    order.learn(given, np.zeros(120, dtype=bool), now=True)
    assert order.arranged(range(120)) == first


def test_the_range_of_what_is_left_holds_the_truth():
    """Of drawn sets that are cleaned halfway, the range holds the number in most, and is not wide."""
    held, widths = [], []
    for seed in range(20):
        features, given, true = drawn(seed=seed, spread=1.3)
        order = LiveOrder(features, given)
        _, decided = decide(order, given, true, 30)
        left = int(((given != true) & ~decided).sum())
        held.append(order.left.low <= left <= order.left.high)
        widths.append(order.left.high - order.left.low)
    assert np.mean(held) >= 0.85 and np.mean(widths) < 12


def test_nothing_is_said_of_what_is_left_before_enough_is_decided():
    """One picture before, the line tells only what was found, and there is no advice."""
    features, given, true = drawn()
    order = LiveOrder(features, given)
    state = decide(order, given, true, LEAST_DECIDED - 1)
    assert order.left is None and order.advice() == "" and "left" not in order.told(*state)
    state = decide(order, given, true, LEAST_DECIDED)
    found = int((state[0] != given).sum())
    assert order.told(*state).startswith(
        f"Since you began: {found} wrong labels found, about {order.left.about} left ("
    )


def test_when_to_stop_follows_from_the_range():
    """At first one should go on; with every picture looked at, nothing is left and one may stop."""
    features, given, true = drawn()
    order = LiveOrder(features, given)
    decide(order, given, true, LEAST_DECIDED)
    assert order.advice().startswith("Go on looking: probably ")
    order.learn(true, np.ones(120, dtype=bool), now=True)
    assert order.advice() == "You can stop: probably at most 0 of 120 labels are still wrong."


def test_pictures_without_features_keep_their_places():
    """Half of the rows are missing: these stand where they stood, and the others are ordered among themselves."""
    features, given, true = drawn()
    features[::2] = np.nan
    order = LiveOrder(features, given)
    decide(order, given[1::2].repeat(2), true[1::2].repeat(2), 0)
    order.learn(given, np.zeros(120, dtype=bool), now=True)
    places = order.arranged(range(120))
    assert places[::2] == list(range(0, 120, 2)) and sorted(places) == list(range(120)) != places


@pytest.mark.parametrize("known", [0, 1, 120])
def test_all_out_one_of_a_label_a_new_label_and_hardly_any_features(known):
    """Whatever was decided, every picture has its place and the numbers are finite; none of this raises."""
    features, given, _ = drawn()
    features[known:], given[7] = np.nan, 9  # alone in its label
    order, every = LiveOrder(features, given), np.ones(120, dtype=bool)
    half = np.arange(120) < 60
    for codes, decided in (
        (given, ~every),
        (np.where(half, 11, given), half),
        (np.full(120, -1), every),
        (np.where(half, -1, 11), every),
        (np.zeros(120, dtype=int), every),
    ):
        order.learn(codes, decided, now=True)
        assert sorted(order.arranged(range(120))) == list(range(120))
        assert np.isfinite(order.trust[:known]).all()


def test_a_thousand_labels_are_ordered():
    """With 1,000 labels of two pictures each, the two that were swapped come first."""
    rng = np.random.default_rng(0)
    true = np.arange(2000) % 1000
    features, given = rng.normal(size=(1000, 64))[true] + 0.1 * rng.normal(size=(2000, 64)), true.copy()
    given[[3, 500]] = given[[500, 3]]
    order = LiveOrder(features, given)
    order.learn(given, np.zeros(2000, dtype=bool), now=True)
    assert {3, 500} <= set(order.arranged(range(2000))[:4])


def test_many_pictures_are_ordered_after_a_few_decisions():
    """Beyond some thousand pictures the head waits for ten decisions, or until a page is asked for."""
    count = EACH_TIME + 1
    given = np.arange(count) % 2
    order = LiveOrder(np.random.default_rng(0).normal(size=(count, 4)) + given[:, None], given)
    order.learn(given, np.zeros(count, dtype=bool), now=False)
    for decisions, now, changes in (
        (AT_LATEST - 1, False, False),
        (AT_LATEST, False, True),
        (AT_LATEST + 1, True, True),
    ):
        before = order.trust.copy()
        order.learn(given, np.arange(count) < decisions, now=now)
        assert (order.trust != before).any() == changes
