"""06, ranking: worst first, out of fold, kept while nothing changed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from utils.project import Project
from utils.suspects import fold_of, out_of_fold, rank_suspects


def noisy_labels(n=400, k=3, share=0.08, seed=0, hardness=(1.0, 1.0, 1.0)):
    """Return given labels, probabilities and which labels are wrong; `hardness` blurs a label's pictures."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + 3.0 * np.eye(k)[true] * np.asarray(hardness)[true][:, None]
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = rng.random(n) < share
    given_labels = np.where(wrong, (true + rng.integers(1, k, n)) % k, true)
    return given_labels, probs, wrong


def precision_of(order, wrong):
    """Return the average precision of an order of suspects."""
    scores = np.empty(len(order))
    scores[order] = -np.arange(len(order))
    return average_precision_score(wrong, scores)


@pytest.mark.parametrize("hardness", [(1.0, 1.0, 1.0), (1.6, 1.0, 0.5)])
def test_wrong_labels_rank_at_least_as_well_as_by_loss(hardness):
    """Over ten draws the mean average precision is no worse than the plain loss's; better with a hard label."""
    ours, theirs = [], []
    for seed in range(10):
        labels, probs, wrong = noisy_labels(seed=seed, hardness=hardness)
        loss = -np.log(probs[np.arange(len(labels)), labels])
        ours.append(precision_of(rank_suspects(labels, probs), wrong))
        theirs.append(precision_of(np.argsort(-loss, kind="stable"), wrong))
    assert np.mean(ours) >= np.mean(theirs) + (0.01 if len(set(hardness)) > 1 else -0.01)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(0, 30), st.integers(2, 5))
def test_the_ranking_is_a_permutation(seed, n, k):
    """Every picture stands in the list once, whatever the labels and probabilities."""
    rng = np.random.default_rng(seed)
    order = rank_suspects(rng.integers(0, k, n), rng.dirichlet(np.ones(k), n).reshape(n, k))
    assert sorted(order.tolist()) == list(range(n))


def test_probabilities_of_another_shape_are_refused():
    """The message gives both shapes."""
    with pytest.raises(ValueError, match=r"2 labels and probabilities of shape \(3, 2\)"):
        rank_suspects([0, 1], np.ones((3, 2)) / 2)


def test_near_copies_stand_in_one_fold():
    """A model that saw a copy of a picture did see the picture."""
    labels = ["a", "b"] * 30
    groups = [n // 4 for n in range(60)]
    folds = fold_of(labels, groups, seed=1)
    assert set(folds) == {0, 1, 2}
    assert all(len({folds[n] for n in range(60) if groups[n] == g}) == 1 for g in set(groups))


class Stub:
    """A learner that answers with what it was trained on: 1 for the first label if it has seen the picture."""

    def __init__(self, seen: set[str]):
        self.seen = seen
        self.dls = self

    def test_dl(self, paths):
        return paths

    def no_bar(self):
        import contextlib

        return contextlib.nullcontext()

    def get_preds(self, dl):
        return torch.tensor([[1.0, 0.0] if path.stem in self.seen else [0.25, 0.75] for path in dl]), None


def test_no_picture_is_judged_by_a_model_that_saw_it(make_project, fill_raw):
    """Each fold's model judges only what was held out, and the result is kept until labels change."""
    from utils.verify import verify_images

    project: Project = make_project()
    fill_raw(project, 6)
    verify_images(project)
    calls = []

    def train_fold(sides):
        calls.append(sides)
        return Stub({id for id, side in sides.items() if side == "train"})

    probs = out_of_fold(project, body=None, train_fold=train_fold)
    assert probs.tolist() == [[0.25, 0.75]] * 12
    assert len(calls) == 3
    assert out_of_fold(project, body=None, train_fold=train_fold).tolist() == probs.tolist()
    assert len(calls) == 3
    path = next(iter(project.pictures().values()))
    path.rename(project.images / ("dog" if path.parent.name == "cat" else "cat") / path.name)
    out_of_fold(project, body=None, train_fold=train_fold)
    assert len(calls) == 6


def test_frozen_features_tell_colours_apart(make_project, fill_raw):
    """With a body, logistic regression on its features judges the folds; red and blue pictures are told apart."""
    from utils.verify import verify_images

    project = make_project()
    fill_raw(project, 12)
    verify_images(project)
    torch.manual_seed(0)
    body = torch.nn.Conv2d(3, 16, 3, stride=4)
    probs = out_of_fold(project, body=body, train_fold=None)
    labels = np.array([list(project.labels).index(path.parent.name) for path in project.pictures().values()])
    assert probs.shape == (24, 2)
    assert np.allclose(probs.sum(1), 1)
    assert (probs.argmax(1) == labels).mean() > 0.8
