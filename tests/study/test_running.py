"""Runs: one whole row each, in whatever way a study is stopped; no picture of the test set is read."""

import json
import multiprocessing
import os
import random
import re
import signal
import time
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import small_set
from small_set import fill
from tqdm.notebook import tqdm_notebook as notebook_tqdm

from utils.dataset import read_dataset
from utils.errors import FieldguideError, WriteError
from utils.study import read_study, runs, study, training
from utils.study.runs import RUN_DONE, RUN_FAILED, TrainingRun, add_run, claimed, read_runs
from utils.study.training import run_setting, with_sides
from utils.train import recipe

plain = small_set.plain


@pytest.fixture
def ready(make_project):
    """Return the project of a small study: two sizes of squeezenet, two seeds."""
    project = make_project(study={"size": [32, 48], "seeds": 2})
    fill(project)
    return project


@pytest.fixture
def quick(monkeypatch):
    """Let a run take no time: its answers are drawn by setting and seed."""

    def drawn(pool, setting, seed, **_):
        valid = with_sides(pool, seed).on("valid")
        right = np.random.default_rng([seed, setting.project.size]).random(len(valid)) < 0.8
        judged = runs.judged_id(valid.ids)
        figures = {"accuracy": right.mean(), "valid_loss": 0.5, "seconds": 1.0}
        return TrainingRun(setting.id, seed, setting.name, RUN_DONE, judged=judged, right=right, **figures)

    monkeypatch.setattr(study, "run_setting", drawn)


def test_a_study_trains_every_setting_with_every_seed(ready, capsys):
    """One row each, with which photos were right, in the order of the validation set; a second call trains nothing."""
    found = read_study(ready)
    found.run()
    rows = read_runs(found.folder)
    assert set(rows) == {(s.id, seed) for s in found.settings for seed in (42, 43)}
    for (_, seed), run in rows.items():
        assert run.status == RUN_DONE and len(run.right) == len(with_sides(found.pool, seed).on("valid"))
        assert run.accuracy == pytest.approx(run.right.mean()) and [row["epoch"] for row in run.history] == [0, 1]
    before = (found.folder / "runs.csv").read_bytes()
    found.run()
    assert (found.folder / "runs.csv").read_bytes() == before
    assert "The study is complete." in capsys.readouterr().out


def test_a_run_is_the_recipe_of_04_with_that_setting(ready, monkeypatch):
    """Its accuracy is that of the best epoch, and the same again to the last photo."""
    found = read_study(ready)
    one, again = (run_setting(found.pool, found.settings[1], 43) for _ in range(2))
    seeds = []
    monkeypatch.setattr(training, "train_as_04", lambda dataset: seeds.append(dataset.project.seed))
    run_setting(found.pool, found.settings[1], 43)
    assert seeds == [43]  # the first weights and the order of batches are the seed's, too
    best = min(one.history, key=lambda row: row["valid_loss"])
    assert one.accuracy == pytest.approx(best["accuracy"])
    assert (one.right.tolist(), one.valid_loss) == (again.right.tolist(), again.valid_loss)


def test_settings_share_sides_that_each_seed_draws_anew(ready):
    """Every picture of the training and the validation set, none of the test set; groups stay together."""
    found = read_study(ready)
    sides = {seed: dict(zip(found.pool.ids, with_sides(found.pool, seed).sides, strict=True)) for seed in (1, 2)}
    assert sides[1] != sides[2] and sides[1].keys() == sides[2].keys()
    dataset = read_dataset(ready)
    assert sides[1].keys() == set(dataset.on("train", "valid").ids)
    threes = {p.id: (f"{p.label} {n // 3}", p.side) for n, p in enumerate(sorted(dataset, key=lambda p: p.label))}
    of_groups = defaultdict(set)
    for picture in with_sides(dataset.with_split(threes).on("train", "valid"), 5):
        of_groups[picture.group].add(picture.side)
    assert len(of_groups) == 8 and all(len(found) == 1 for found in of_groups.values())


def test_the_test_set_is_never_read(ready):
    """Its pictures may be gone altogether."""
    for path in read_dataset(ready).on("test").paths:
        path.write_bytes(b"no picture")
    found = read_study(ready)
    assert run_setting(found.pool, found.settings[0], 42).status == RUN_DONE
    assert "test" not in {picture.side for picture in found.pool}


def test_ctrl_c_stops_and_the_next_call_goes_on(ready, quick, monkeypatch, capsys):
    """The run under way is lost, those before are kept, and it counts as no death."""
    found, train, left = read_study(ready), study.run_setting, [2]

    def stopping(*args, **options):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return train(*args, **options)

    monkeypatch.setattr(study, "run_setting", stopping)
    found.run()
    assert "Stopped." in capsys.readouterr().out
    assert len(read_runs(found.folder)) == 2
    assert not list(found.folder.glob("under_way/*.begun"))
    monkeypatch.setattr(study, "run_setting", train)
    found.run()
    assert len(read_runs(found.folder)) == 4


def test_no_run_begins_that_would_end_too_late(ready, quick, capsys):
    """Runs take a second here, by what their rows say: half a second is too little, and no time at all begins none."""
    found = read_study(ready)
    found.run(minutes=0)
    assert "The time is over." in capsys.readouterr().out and not read_runs(found.folder)
    found.run(minutes=1 / 120)
    assert len(read_runs(found.folder)) == 1  # nobody knew how long the first takes
    assert "The time left is too short for “size 48”, 2 seconds. study.run() goes on." in capsys.readouterr().out
    found.run(minutes=1 / 120)
    assert "A run of “size 48” takes about 2 seconds: allow more minutes." in capsys.readouterr().out


def test_a_failure_is_a_row_with_its_reason(ready, quick, monkeypatch):
    """The others go on; with retry it is trained again, and the last row counts."""
    found, train = read_study(ready), study.run_setting
    monkeypatch.setattr(study, "run_setting", lambda pool, s, seed, **_: run_setting(pool, s, seed))
    monkeypatch.setattr(
        training, "train_as_04", lambda dataset: (_ for _ in ()).throw(RuntimeError("can't allocate memory"))
    )
    found.run()
    rows = read_runs(found.folder)
    assert {run.status for run in rows.values()} == {RUN_FAILED} and len(rows) == 2  # they train with no second seed
    assert {run.reason for run in rows.values()} == {"can't allocate memory"}
    assert "failed: can't allocate memory" in found.table().data["state"].tolist()
    monkeypatch.setattr(study, "run_setting", train)
    found.run()
    assert len(read_runs(found.folder)) == 2
    found.run(retry=True)
    assert {run.status for run in read_runs(found.folder).values()} == {RUN_DONE}
    assert len(read_runs(found.folder)) == 4


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_picture_that_was_moved_is_no_result(ready, when, monkeypatch):
    """Whether before a run or in it: it is told with what to do, and no setting has failed."""
    found = read_study(ready)
    gone = found.pool.paths[0]

    def train(_):
        gone.unlink()
        raise FileNotFoundError(gone)

    monkeypatch.setattr(training, "train_as_04", train)
    if when == "before":
        gone.unlink()
        monkeypatch.setattr(training, "train_as_04", lambda _: pytest.fail("it trained without a picture"))
    with pytest.raises(FieldguideError, match=f"{gone.name} was moved or deleted .* Run this notebook from the top"):
        found.run()
    assert not found.runs() and not list(found.folder.glob("under_way/*.begun"))


def test_a_training_that_diverges_is_a_row_without_the_advice_of_04(ready, monkeypatch):
    """A study keeps no epoch and runs no notebook again: the row names loss, rate and optimizer alone."""
    found, make = read_study(ready), recipe.learner_as_04

    def diverging(dataset):
        learn = make(dataset)
        learn.loss_func = lambda out, targets: (out * float("nan")).sum()
        return learn

    monkeypatch.setattr(recipe, "learner_as_04", diverging)
    run = run_setting(found.pool, found.settings[0], 42)
    assert run.status == RUN_FAILED
    assert re.fullmatch(r"The loss of epoch 0 is not a number \(learning rate \S+, optimizer adam\)\.", run.reason)


def test_the_bar_of_a_notebook_has_its_full_width(ready, quick, monkeypatch):
    """It begins before the number of runs is known, and tells the time to go that the plan tells."""
    bars = []

    class Bar(notebook_tqdm):
        def __init__(self, *args, **how):
            super().__init__(*args, **how)
            bars.append(self)

    monkeypatch.setattr(study, "tqdm", Bar)
    found, train = read_study(ready), study.run_setting
    told = []
    monkeypatch.setattr(study, "run_setting", lambda *args, **how: told.append(str(bars[0])) or train(*args, **how))
    found.run()
    _, bar, _ = bars[0].container.children
    assert (bar.max, bar.value, bar.layout.width) == (4, 4, None)
    assert told[-1].endswith("3 of 4 runs, about 1 second to go")


def test_a_full_disk_is_no_result(ready, quick, monkeypatch):
    """It is told, and the run stays to do: no row, no death."""
    found = read_study(ready)
    monkeypatch.setattr(study, "run_setting", run_setting)
    monkeypatch.setattr(training, "train_as_04", lambda _: (_ for _ in ()).throw(WriteError("the disk is full")))
    with pytest.raises(WriteError, match="the disk is full"):
        found.run()
    assert not found.runs() and not list(found.folder.glob("under_way/*.begun"))


def test_weights_that_cannot_be_had_are_told_before_any_run(make_project, monkeypatch):
    """Else every setting would be a row that failed."""
    project = make_project(study={"size": [32, 48]}, arch="squeezenet1_1", weights="imagenet")
    fill(project)
    found = read_study(project)
    monkeypatch.setattr(study, "download_weights", lambda _: (_ for _ in ()).throw(FieldguideError("no network")))
    with pytest.raises(FieldguideError, match="no network"):
        found.run()
    assert not found.runs()


def test_a_run_that_ends_the_process_again_and_again_is_a_row(ready, quick):
    """After the third death of the notebook in the middle of a run, it is told and not begun a fourth time."""
    found = read_study(ready)
    key = found.settings[0].id, 42
    for _ in range(3):
        child = multiprocessing.get_context("fork").Process(target=die_in, args=(found.folder, key))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    found.run()
    run = read_runs(found.folder)[key]
    assert run.status == RUN_FAILED and "ended 3 times in the middle of this run" in run.reason


def die_in(folder, key):
    """Hold a run's lock, and be killed."""
    with claimed(folder, key):
        os.kill(os.getpid(), signal.SIGKILL)


def test_two_notebooks_share_a_study(ready, quick, monkeypatch):
    """Four runs by two processes: four rows, none twice, and both ended."""
    found, train = read_study(ready), study.run_setting
    monkeypatch.setattr(study, "WAIT", 0.05)
    context = multiprocessing.get_context("fork")
    trained = context.Value("i", 0)

    def counting(*args, **how):
        with trained.get_lock():
            trained.value += 1
        time.sleep(0.1)
        return train(*args, **how)

    monkeypatch.setattr(study, "run_setting", counting)
    both = [context.Process(target=found.run) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert ([one.exitcode for one in both], trained.value) == ([0, 0], 4)
    lines = (found.folder / "runs.csv").read_text().splitlines()
    assert len(lines) == 5 and len(read_runs(found.folder)) == 4


def test_killed_at_any_moment_nothing_is_lost_or_doubled(ready, quick, monkeypatch):
    """A study that is killed five times in the middle of its work still ends with one row per setting and seed."""
    found, train = (
        read_study(ready.model_copy(update={"study": ready.study | {"seeds": 8, "race": False}})),
        study.run_setting,
    )
    monkeypatch.setattr(study, "run_setting", lambda *args, **how: time.sleep(0.02) or train(*args, **how))
    moments, kept = random.Random(7), 0
    for _ in range(5):
        child = multiprocessing.get_context("fork").Process(target=found.run)
        child.start()
        time.sleep(moments.uniform(0.05, 0.15))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert len(read_runs(found.folder)) >= kept
        kept = len(read_runs(found.folder))
    found.run()
    lines = (found.folder / "runs.csv").read_text().splitlines()
    assert len(lines) == 17 and {run.status for run in read_runs(found.folder).values()} == {RUN_DONE}


@pytest.mark.filterwarnings("error", "ignore::pytest.PytestUnraisableExceptionWarning")  # those of earlier tests
def test_a_row_torn_by_a_kill_is_trained_again(ready, quick):
    """Half a line at the end of the table is cut off, and that run is done anew."""
    found = read_study(ready)
    found.run()
    path = found.folder / "runs.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    found.run()
    assert len(read_runs(found.folder)) == 4 and path.read_bytes().count(b"\n") == 5


def test_a_second_row_of_a_run_is_never_written(ready, quick):
    """Who comes late finds the row, and leaves it as it is."""
    found = read_study(ready)
    run = study.run_setting(found.pool, found.settings[0], 42)
    add_run(found.folder, run)
    add_run(found.folder, replace(run, seconds=99.0))
    assert [row.seconds for row in read_runs(found.folder).values()] == [1.0]


def test_other_pictures_begin_another_study(ready, quick):
    """The old one stays; a picture that leaves the test set changes nothing."""
    found = read_study(ready)
    found.run()
    read_dataset(ready).on("test").paths[0].unlink()
    assert read_study(ready).folder == found.folder
    read_dataset(ready).on("train").paths[0].unlink()
    other = read_study(ready)
    assert other.folder != found.folder and not other.runs() and len(found.runs()) == 4


def test_a_row_that_nobody_can_read_is_told(ready, quick):
    """File, setting, seed, what to do."""
    found = read_study(ready)
    found.run()
    path = found.folder / "runs.csv"
    path.write_text(path.read_text().replace(",done,", ",finished,", 1))
    with pytest.raises(Exception, match=r"runs.csv: the row of setting .* seed '42' cannot be read .*Delete that line"):
        found.plan()


def test_history_is_kept_as_json(ready):
    """The curves of a run can be drawn later."""
    found = read_study(ready)
    run = run_setting(found.pool, found.settings[0], 42)
    add_run(found.folder, run)
    kept = read_runs(found.folder)[run.key]
    assert kept.history == run.history == json.loads(json.dumps(run.history))
