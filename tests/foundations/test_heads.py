"""Every picture judged by a model that never saw it; the judgement is kept while nothing changed."""

import os
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from utils import heads
from utils.dataset import Dataset, read_dataset
from utils.errors import FieldguideError
from utils.heads import Judgement, fit_head, fold_of, judge_pictures, relative_distances
from utils.project import Project
from utils.tables import SPLIT_COLUMNS, write_table
from utils.verify import verify_images


@pytest.fixture
def ready(make_project, fill_raw) -> Dataset:
    """The data set of a project of 12 pictures with a split."""
    project = make_project()
    fill_raw(project, 6)
    return ready_dataset(project)


def ready_dataset(project: Project, groups=()) -> Dataset:
    """Run 02, write a split in which each picture but those in `groups` (id → group) stands alone, and read it."""
    verify_images(project)
    groups = dict(groups)
    sides = ("train", "valid", "test", "train")
    rows = [
        {"id": id, "group": groups.get(id, id), "side": sides[n % 4]} for n, id in enumerate(read_dataset(project).ids)
    ]
    write_table(project.table("split"), SPLIT_COLUMNS, rows)
    return read_dataset(project)


@pytest.fixture
def calls(monkeypatch):
    """The codes that each head is fitted to from now on."""
    seen = []
    real = heads.fit_head

    def fit(features, codes, k, **how):
        seen.append(codes)
        return real(features, codes, k, **how)

    monkeypatch.setattr(heads, "fit_head", fit)
    return seen


def test_no_picture_is_judged_by_a_head_that_saw_it(ready, monkeypatch):
    """A judge that knows its pictures by heart says 1 for those; of the pictures held out none is among them."""
    fitted, judged_by = [], []

    class ByHeart:
        def __init__(self, features):
            self.known = {row.tobytes() for row in features}

        def probabilities(self, held):
            judged_by.append([row.tobytes() in self.known for row in held])
            return np.tile([0.25, 0.75], (len(held), 1))

    monkeypatch.setattr(heads, "fit_head", lambda features, *_, **__: fitted.append(1) or ByHeart(features))
    judged = judge_pictures(ready)
    assert (judged.ids, judged.labels, judged.distances.shape) == (ready.ids, ready.labels, (12,))
    assert judged.probs.tolist() == [[0.25, 0.75]] * 12
    # Each picture is judged by two heads of its fold, and doubted or not by one for each of the other four folds.
    assert sum(map(len, judged_by)) == 12 * (2 + 4) and not any(map(any, judged_by))
    assert len(fitted) == 2 * 5 + 10


def test_what_is_filed_wrongly_in_a_fold_changes_nothing_for_its_judge():
    """With all labels of a fold exchanged, its pictures are judged as before: neither head nor doubts saw them."""
    rng = np.random.default_rng(0)
    codes, folds = rng.integers(0, 3, 60), np.arange(60) % 5
    features = rng.normal(size=(60, 100))
    changed = np.where(folds == 1, (codes + 1) % 3, codes)
    before, after = (heads.out_of_fold(features, labels, 3, folds) for labels in (codes, changed))
    assert before[folds == 1].tolist() == after[folds == 1].tolist()
    assert before[folds == 2].tolist() != after[folds == 2].tolist()


def test_a_doubted_picture_does_not_mislead_the_second_head():
    """Two labels far apart, one picture in ten filed wrongly: no wrong one teaches, and the right label gains."""
    rng = np.random.default_rng(0)
    true, folds = np.arange(200) % 2, rng.permutation(np.arange(200) % 5)
    codes = np.where(np.arange(200) % 20 < 2, 1 - true, true)
    features = rng.normal(size=(200, 100)) + 2 * true[:, None]
    assert (heads._undoubted(features, codes, 2, folds) == (folds != np.arange(5)[:, None]) & (codes == true)).all()
    plain = np.empty((200, 2))
    for fold in range(5):
        held = folds == fold
        head = fit_head(features[~held], codes[~held], 2, strength=heads.JUDGE_STRENGTH)
        plain[held] = head.probabilities(features[held])
    ours = heads.out_of_fold(features, codes, 2, folds)
    assert (ours[np.arange(200), true] > plain[np.arange(200), true]).all()


def test_a_label_that_every_head_doubts_keeps_half_of_its_pictures():
    """Filed at random, all pictures of a label may be doubted: at least half of them teach all the same."""
    rng = np.random.default_rng(1)
    codes, folds = np.repeat([0, 1], [80, 10]), np.arange(90) % 5
    kept = heads._undoubted(rng.normal(size=(90, 4)), codes, 2, folds)
    for fold in range(5):
        assert (kept[fold] & (codes == 1)).sum() == ((folds != fold) & (codes == 1)).sum() / 2


def test_a_judgement_is_kept_until_something_that_matters_changes(ready, calls):
    """Another patience, size or network to train changes nothing; another label, group or seed does."""

    def asked(dataset=ready, **settings) -> int:
        changed = replace(dataset, project=ready.project.model_copy(update=settings))
        before = len(calls)
        judge_pictures(changed)
        return len(calls) - before

    assert (asked(), asked(), asked(patience=3, size=64, epochs=2, arch="resnet34")) == (20, 0, 0)
    assert (asked(seed=7), asked(seed=7)) == (20, 0)
    assert asked(replace(ready, groups=("a", "a", *ready.groups[2:])), seed=7) == 20
    path = ready.paths[0]
    path.rename(ready.project.images / ("dog" if path.parent.name == "cat" else "cat") / path.name)
    assert asked(read_dataset(ready.project)) == 20


def test_what_a_killed_run_left_is_removed(ready):
    """Half-written files older than a minute, of features and of judgements, are gone; another notebook's stay."""
    judge_pictures(ready)
    folders = [ready.project.models, *(ready.project.data / "features").iterdir()]
    old = [folder / f".{'0a' * 8}.part.csv" for folder in folders]
    new = [folder / f".{'0b' * 8}.part.csv" for folder in folders]
    for path in old + new:
        path.touch()
        os.utime(path, (time.time() - 61 * (path in old),) * 2)
    judge_pictures(ready)
    assert [path.exists() for path in old + new] == [False] * len(old) + [True] * len(new) and len(folders) == 2


def test_the_judges_are_compared_with_guessing():
    """By hand: 6 groups, 4 of the larger label; the judges are right for 5, and near-duplicates count once."""
    labels, groups = tuple("aaaaabb"), tuple("1123456")
    said = [0, 0, 0, 0, 0, 1, 0]
    judged = Judgement(tuple("1234567"), labels, groups, ("a", "b"), np.eye(2)[said], np.ones(7))
    assert judged.verdict.items() >= {"right": 5, "n": 6, "guess": 4, "p": 0.351166, "better": False}.items()
    unjudged = replace(judged, probs=np.where(np.arange(7)[:, None] == 6, np.nan, judged.probs))
    assert (unjudged.verdict["right"], unjudged.verdict["n"]) == (5, 5)


def test_a_memory_without_distances_is_made_anew(ready):
    """out_of_fold.csv as it was before it had distances is recognised by its header, and replaced."""
    kept = ready.project.models / "out_of_fold.csv"
    kept.parent.mkdir(parents=True)
    kept.write_text("id,fingerprint,cat,dog\n" + "".join(f"{id},{ready.fingerprint},0.5,0.5\n" for id in ready.ids))
    assert judge_pictures(ready).probs.tolist() != [[0.5, 0.5]] * 12
    assert kept.read_text().startswith("id,fingerprint,distance,cat,dog\n")


def test_heads_on_the_features_tell_colours_apart(make_project, fill_raw):
    """Red and blue pictures are told apart, and the labels are those of the folders."""
    project = make_project()
    fill_raw(project, 12)
    dataset = ready_dataset(project)
    judged = judge_pictures(dataset)
    assert judged.probs.shape == (24, 2)
    assert np.allclose(judged.probs.sum(1), 1)
    assert (judged.probs.argmax(1) == dataset.codes).mean() > 0.9


def test_the_memory_gives_back_exactly_what_was_found(ready, monkeypatch):
    """The first call and the second return the same numbers, to the last digit."""
    first = judge_pictures(ready)
    monkeypatch.setattr(heads, "fit_head", None)
    second = judge_pictures(ready)
    assert (first.probs.tolist(), first.distances.tolist()) == (second.probs.tolist(), second.distances.tolist())


def test_an_unreadable_picture_is_named_and_holds_nothing_up(ready, calls):
    """It has NaN, trains no judge, and is judged as soon as it can be read again."""
    id, path = ready.ids[0], ready.paths[0]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=rf"1 picture cannot be read .*{path.parent.name}/{id}\.jpg: truncated"):
        judged = judge_pictures(ready)
    assert np.isnan(judged.probs[0]).all() and np.isnan(judged.distances[0])
    assert not np.isnan(judged.probs[1:]).any()
    assert max(map(len, calls)) < 11  # of the other 11, some are held out
    with pytest.warns(UserWarning, match="1 picture cannot be read"):
        judge_pictures(ready)
    assert len(calls) == 20
    path.write_bytes(whole)
    assert not np.isnan(judge_pictures(ready).probs).any()


def test_without_a_split_each_picture_stands_alone_and_a_warning_says_so(make_project, fill_raw):
    """06 before 03: judged, with a sentence on what that costs."""
    project = make_project()
    fill_raw(project, 6)
    verify_images(project)
    with pytest.warns(UserWarning, match=r"12 pictures not in split\.csv yet.*Run 03"):
        assert len(judge_pictures(read_dataset(project)).probs) == 12


@pytest.mark.parametrize("count", [0, 6])
def test_no_pictures_or_one_label_are_refused(make_project, fill_raw, count):
    """There is nothing to compare, and the sentence says what to do."""
    project = make_project()
    if count:
        fill_raw(project, count)
        verify_images(project)
        for path in (project.images / "dog").iterdir():
            path.unlink()
    with pytest.raises(FieldguideError, match="All 6 pictures are filed under 'cat'" if count else "Run 01 and 02"):
        judge_pictures(read_dataset(project))


def test_near_duplicates_stand_in_one_fold():
    """A model that saw a copy of a picture did see the picture."""
    labels = ["a", "b"] * 30
    groups = [n // 4 for n in range(60)]
    folds = fold_of(labels, groups, seed=1)
    assert set(folds) == {0, 1, 2, 3, 4}
    assert all(len({folds[n] for n in range(60) if groups[n] == g}) == 1 for g in set(groups))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12)), min_size=3, max_size=60), st.integers(0, 9))
def test_folds_are_made_of_whatever_there_is(pictures, seed):
    """Labels of one picture, or of one group: folds without a gap, groups whole, no warning; or a sentence."""
    labels, groups = zip(*pictures, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            folds = fold_of(labels, groups, seed=seed)
        except FieldguideError:
            assert len(set(groups)) < 3 or len(set(labels)) == len(labels)
            return
    assert sorted(set(folds)) == list(range(folds.max() + 1)) and 1 <= folds.max() <= 4
    assert all(len({f for f, g in zip(folds, groups, strict=True) if g == group}) == 1 for group in set(groups))


def test_a_thousand_labels_of_two_pictures_are_folded():
    """Two folds, each with one picture of every label."""
    labels = [n // 2 for n in range(2000)]
    folds = fold_of(labels, range(2000), seed=3)
    assert folds.reshape(1000, 2).sum(1).tolist() == [1] * 1000


@pytest.mark.parametrize("copies", [1, 3])
def test_a_label_of_one_picture_is_judged_too(make_project, fill_raw, copies):
    """A label of one picture, or of near-duplicates of one: its judge never saw the label, and says the other one."""
    project = make_project()
    fill_raw(project, 8)
    verify_images(project)
    for path in sorted((project.images / "dog").iterdir())[copies:]:
        path.unlink()
    dogs = read_dataset(project).of("dog").ids
    judged = judge_pictures(ready_dataset(project, groups=dict.fromkeys(dogs, "one")))
    dogs = np.array(judged.labels) == "dog"
    assert judged.probs[dogs].tolist() == [[1.0, 0.0]] * copies
    assert np.isfinite(judged.distances).all()


def test_distances_count_in_what_is_usual_for_the_nearest_label():
    """By hand: centres 0 and 100, usual distances 2 and 8 (each own one without itself: 1 × 2, 4 × 2)."""
    seen = np.array([[-1.0], [1.0], [96.0], [104.0]])
    found = relative_distances(seen, np.array([5, 5, 9, 9]), np.array([[3.0], [116.0], [100.0]]))
    assert found.round(9).tolist() == [1.5, 2.0, 0.0]


def test_a_picture_is_not_among_those_that_make_its_centre():
    """Leaving each out by hand gives the same usual distance as the formula."""
    rng = np.random.default_rng(0)
    seen, held = rng.normal(size=(7, 4)), rng.normal(size=(3, 4)) * 3
    scaled = (seen - seen.mean(0)) / seen.std(0)
    usual = np.median([np.linalg.norm(scaled[n] - np.delete(scaled, n, 0).mean(0)) for n in range(7)])
    expected = np.linalg.norm((held - seen.mean(0)) / seen.std(0) - scaled.mean(0), axis=1) / usual
    assert relative_distances(seen, np.zeros(7, dtype=int), held) == pytest.approx(expected)


@pytest.mark.parametrize("labels", [3, 2])
def test_a_head_is_scikit_learns_logistic_regression(labels):
    """One linear layer on unscaled features gives the scaled regression's probabilities; unseen labels get none."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, labels, 60)
    seen, held = (rng.normal(size=(n, 5)) * [1, 10, 0.1, 1, 1] + 3 for n in (60, 9))
    seen[:, 0] += codes
    head = fit_head(seen, codes, 4, strength=0.5)
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=0.5)).fit(seen, codes).predict_proba(held)
    assert head.probabilities(held)[:, :labels] == pytest.approx(expected, abs=1e-4)
    assert (head.probabilities(held)[:, labels:] < 1e-9).all()


def test_a_head_that_saw_one_label_names_it():
    """There is nothing to tell apart, and no error."""
    head = fit_head(np.ones((4, 3)), np.full(4, 2), 3, strength=1.0)
    assert head.probabilities(np.zeros((2, 3))).round(9).tolist() == [[0, 0, 1]] * 2


def test_a_label_that_stands_in_one_fold_is_not_doubted():
    """No head outside the fold knows the label: that says nothing against its pictures."""
    rng = np.random.default_rng(2)
    codes, folds = np.repeat([0, 1, 2], [30, 30, 10]), np.arange(70) % 5
    folds[codes == 2] = 3
    features = rng.normal(size=(70, 100)) + 2 * np.eye(100)[codes]
    kept = heads._undoubted(features, codes, 3, folds)
    assert kept[:, codes == 2].sum(1).tolist() == [10, 10, 10, 0, 10]
