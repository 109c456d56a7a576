"""Which runs come next: rounds of seeds, and who drops out."""

import numpy as np
import pytest

from utils.study.racing import DROPPED, FAILING, leader_of, standing
from utils.study.runs import TrainingRun
from utils.study.settings import Setting

SEEDS = (1, 2, 3, 4)
PHOTOS = 60
GROUPS = {seed: tuple(map(str, range(PHOTOS))) for seed in SEEDS}


@pytest.fixture
def settings(make_project):
    """Return three settings."""
    return [Setting(name, {"size": name}, make_project()) for name in ("good", "fair", "poor")]


def run(name, seed, share, status="done"):
    """Return a run that names a share of the photos rightly, the first ones."""
    right = np.arange(PHOTOS) < share * PHOTOS
    return TrainingRun(name, seed, name, status, "it broke", accuracy=right.mean(), judged="v", right=right)


def found(settings, shares, seeds):
    """Return the runs of these seeds."""
    return {(s.id, seed): run(s.id, seed, shares[s.id]) for s in settings for seed in seeds}


def test_all_settings_train_with_one_seed_before_the_next(settings):
    """What is due is the rest of the first round that is not complete."""
    runs = found(settings, {"good": 0.9, "fair": 0.9, "poor": 0.5}, SEEDS[:1])
    del runs["fair", 1]
    now = standing(settings, SEEDS, runs, GROUPS)
    assert [(s.id, seed) for s, seed in now.due] == [("fair", 1)]
    assert now.left == 10


def test_one_seed_drops_nobody_two_do(settings):
    """After the second round the setting that is far behind is out, with its reason; the near one goes on."""
    shares = {"good": 0.9, "fair": 0.88, "poor": 0.3}
    assert not standing(settings, SEEDS, found(settings, shares, SEEDS[:1]), GROUPS).out
    now = standing(settings, SEEDS, found(settings, shares, SEEDS[:2]), GROUPS)
    assert {id: state for id, (state, _) in now.out.items()} == {"poor": DROPPED}
    assert now.out["poor"][1] == "60.0 points behind “size good” after 2 seeds"
    assert [(s.id, seed) for s, seed in now.due] == [("good", 3), ("fair", 3)]
    assert now.leader == "good"


def test_runs_of_later_seeds_are_not_to_do_again(settings):
    """A setting that joins a study finds the others done: only its own runs are left."""
    runs = found(settings[:2], {"good": 0.9, "fair": 0.9}, SEEDS)
    now = standing(settings, SEEDS, runs, GROUPS)
    assert ([(s.id, seed) for s, seed in now.due], now.left) == ([("poor", 1)], 4)


def test_without_a_race_every_seed_is_due(settings):
    """With race = false the full grid is trained."""
    runs = found(settings, {"good": 0.9, "fair": 0.9, "poor": 0.3}, SEEDS[:2])
    now = standing(settings, SEEDS, runs, GROUPS, race=False)
    assert (len(now.due), now.left, now.out) == (3, 6, {})


def test_the_last_one_left_needs_no_more_seeds(settings):
    """Nobody is left to compare it with."""
    runs = found(settings, {"good": 0.9, "fair": 0.2, "poor": 0.3}, SEEDS[:2])
    now = standing(settings, SEEDS, runs, GROUPS)
    assert (now.left, now.leader, len(now.out)) == (0, "good", 2)


def test_a_setting_that_fails_is_out_with_its_reason(settings):
    """It does not train with further seeds, and does not lead."""
    runs = found(settings, dict.fromkeys(("good", "fair", "poor"), 0.9), SEEDS[:1])
    runs["good", 1] = run("good", 1, 1.0, status="failed")
    now = standing(settings, SEEDS, runs, GROUPS)
    assert now.out == {"good": (FAILING, "it broke")}
    assert [s.id for s, _ in now.due] == ["fair", "poor"]
    assert leader_of(settings[1:], SEEDS[:1], runs) == "fair"
