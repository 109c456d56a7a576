"""Individuals: ranked by their nearest photo, never by one of their own group; figures that an oracle confirms."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import draw_picture, picture_bytes
from fastai.vision.all import no_random
from sklearn.metrics import label_ranking_average_precision_score, top_k_accuracy_score
from sklearn.metrics.pairwise import cosine_similarity

from utils.dataset import read_dataset, round_fingerprint
from utils.errors import FieldguideError
from utils.evaluate import evaluate_round, individual_sentence, individual_table, read_evaluation, shortcuts
from utils.evaluate.individuals import (
    CaughtFeatures,
    individual_figures,
    nearest_of_each,
    of_length_1,
    places_of,
    ranking_figures,
)
from utils.evaluate.rounds import read_predictions
from utils.storage import content_id, write_whole
from utils.tables import SPLIT_COLUMNS, append_rows
from utils.train import make_learner
from utils.train.loaders import image_dataloaders


def drawn(n=40, m=60, k=7, d=5, seed=0):
    """Return drawn features (N, D) and (M, D) of length 1, and codes of both."""
    rng = np.random.default_rng(seed)
    asked, known = (of_length_1(rng.normal(size=(count, d))) for count in (n, m))
    return asked, known, rng.integers(0, k, n), np.r_[np.arange(k), rng.integers(0, k, m - k)]


def test_map5_of_a_ranking_by_hand():
    """Places 1, 2, 5 and 6: a first place in 1 of 4, among five in 3 of 4, MAP@5 (1 + 1/2 + 1/5 + 0) / 4."""
    figures = ranking_figures(np.array([1.0, 2, 5, 6]), groups=list("abcd"), seed=1)
    assert {name: figure["value"] for name, figure in figures.items()} == {"top1": 0.25, "top5": 0.75, "map5": 0.425}
    for figure in figures.values():
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1 and figure["n"] == 4


def test_top_and_map_are_those_of_scikit_learn():
    """With five individuals nothing lies beyond the fifth place: MAP@5 is the mean reciprocal place of all."""
    rng = np.random.default_rng(3)
    scores, right = rng.normal(size=(80, 5)), rng.integers(0, 5, 80)
    figures = ranking_figures(places_of(scores, right), groups=range(80), seed=1)
    assert figures["map5"]["value"] == round(label_ranking_average_precision_score(np.eye(5)[right], scores), 6)
    scores, right = rng.normal(size=(80, 12)), rng.integers(0, 12, 80)
    figures = ranking_figures(places_of(scores, right), groups=range(80), seed=1)
    for name, k in (("top1", 1), ("top5", 5)):
        assert figures[name]["value"] == round(top_k_accuracy_score(right, scores, k=k, labels=range(12)), 6)


def test_each_individual_is_as_near_as_its_nearest_photo():
    """Blocks and sorted codes give what a loop over all pairs gives."""
    asked, known, _, codes = drawn(n=300)
    found = nearest_of_each(asked, known, codes, 8, groups=range(300), known_groups=range(300, 360))
    pairs = cosine_similarity(asked, known)
    for k in range(7):
        np.testing.assert_allclose(found[:, k], pairs[:, codes == k].max(1), atol=1e-12)
    assert np.isneginf(found[:, 7]).all()  # nobody has a photo of that one


def test_a_photo_is_never_compared_with_its_own_group():
    """The very same photo of its own group does not count; the right one then has no place, and gets nothing."""
    photos = of_length_1(np.array([[1.0, 0], [0, 1.0]]))
    how = {"groups": ["day 1"], "known_groups": ["day 1", "day 2"]}
    found = nearest_of_each(photos[:1], photos, np.array([0, 1]), 2, **how)
    assert np.isneginf(found[0, 0]) and found[0, 1] == 0
    assert places_of(found, [0]).tolist() == [np.inf]
    found = nearest_of_each(photos[:1], photos, np.array([0, 1]), 2, **how | {"groups": ["day 3"]})
    assert places_of(found, [0]).tolist() == [1]


def test_intervals_count_groups_and_not_photos():
    """Forty photos of four sightings tell less than forty sightings."""
    places = np.repeat([1.0, 1, 7, 1], 10)
    wide, narrow = (
        ranking_figures(places, groups=groups, seed=1)["top1"] for groups in (np.arange(40) // 10, np.arange(40))
    )
    assert wide["high"] - wide["low"] > narrow["high"] - narrow["low"] + 0.2


def test_guessing_names_the_most_photographed_first(make_project):
    """Three training photos of one, one of the other: a photo of the other is in the second place, which MAP halves."""
    project = make_project(individuals=True)
    dataset = whales(project, {"cat": 4, "dog": 2}, judged={"cat": 1, "dog": 1})
    features = {id: np.eye(6)[n] for n, id in enumerate(dataset.ids)}
    table = predictions(dataset.on("valid"), right=1.0)
    found = individual_figures(dataset, features, {"valid": table})
    assert (found["individuals"], found["photos"]) == (2, 4)
    assert found["valid"]["guessing"]["map5"]["value"] == 0.75
    assert found["valid"]["softmax"]["top1"]["value"] == 1


def test_what_the_head_gets_is_caught(make_project):
    """fastai's head and a linear one: the pooled maps of the body, each of length 1, in the pictures' order."""
    project = make_project(individuals=True, arch="resnet18")
    dataset = whales(project, {"cat": 6, "dog": 6}, judged={"cat": 2, "dog": 2})
    learn = untrained(dataset)
    paths = list(dataset.paths)
    with learn.no_bar(), CaughtFeatures(learn) as caught:
        learn.get_preds(dl=learn.dls.test_dl(paths))
    with torch.no_grad():
        maps = learn.model[0].eval()(torch.cat([x for (x,) in learn.dls.test_dl(paths)]))
    both = torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], 1).numpy()
    np.testing.assert_allclose(caught.rows(), of_length_1(both), atol=1e-5)
    with learn.no_bar():
        learn.get_preds(dl=learn.dls.test_dl(paths))
    assert len(caught.rows()) == len(paths)  # nothing is caught once the context has ended


def test_a_network_without_a_head_is_refused():
    """A sentence, before anything is judged."""
    with pytest.raises(FieldguideError, match="no head that learned"):
        CaughtFeatures(SimpleNamespace(model=torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1), torch.nn.Flatten())))


def test_05_keeps_the_figures_and_adds_them_to_a_round_that_stands(make_project, monkeypatch):
    """Judged without the key, then with it: the same round gains the figures; the second time nothing is judged."""
    monkeypatch.setattr(shortcuts, "PERMUTATIONS", 3)
    project = make_project()
    dataset = whales(project, {"cat": 8, "dog": 8}, judged={"cat": 3, "dog": 3})
    learn = untrained(dataset)
    settings = {"arch": "squeezenet1_1"}
    learn.record = SimpleNamespace(
        fingerprint=round_fingerprint(dataset, settings), settings=settings, changed="", history=[]
    )
    with learn.no_bar():
        before = evaluate_round(dataset, learn)
        assert "individuals" not in before
        dataset = read_dataset(project.model_copy(update={"individuals": True}))
        found = evaluate_round(dataset, learn)
    assert {name: found[name] for name in before} == before
    assert read_evaluation(project)["individuals"] == json.loads(json.dumps(found["individuals"]))
    side = found["individuals"]["valid"]
    assert side["softmax"]["top1"]["value"] == found["valid"]["accuracy"]["value"]
    assert side["nearest"]["top5"]["value"] == 1  # of two individuals
    monkeypatch.setattr("utils.evaluate.evaluation.predict_side", lambda *given, **how: pytest.fail("judged again"))
    assert evaluate_round(dataset, learn) == found
    assert len(read_predictions(project)) == 6


def test_the_sentence_says_what_a_new_individual_is():
    """It tells how often the nearest photo is right, and on which set; top-5 only where it can fail."""
    figures = ranking_figures(np.array([1.0, 1, 3, 9]), groups=range(4), seed=1)
    found = {"individuals": 9, "photos": 40, "valid": dict.fromkeys(("nearest", "softmax", "guessing"), figures)}
    told = individual_sentence(found)
    assert told.startswith("Of 4 photos of the validation set, the nearest of 40 known photos shows the right")
    assert "for 50 % (95 % interval " in told and "It is among the 5 nearest individuals for 75 %" in told
    assert "A new individual has no label of its own" in told
    assert "among" not in individual_sentence(found | {"individuals": 5})
    assert individual_sentence(None) == ""
    table = individual_table(found)
    assert list(table.columns) == ["the first is right", "among the first 5", "MAP@5"] and len(table) == 3
    assert table.loc["validation set: by the nearest known photo", "MAP@5"].startswith("58 % (")


def whales(project, counts, *, judged):
    """Put drawn photos into a project, as 01 to 03 would: the first of each label are of the validation set."""
    rows = []
    for k, (label, count) in enumerate(counts.items()):
        for n in range(count):
            data = picture_bytes(draw_picture(100 * k + n, colour=("tomato", "navy")[k]))
            id = content_id(data)
            write_whole(project.images / label / f"{id}.jpg", data)
            rows.append({"id": id, "group": id, "side": "valid" if n < judged[label] else "train"})
    append_rows(project.table("split"), SPLIT_COLUMNS, rows)
    return read_dataset(project)


def predictions(dataset, *, right):
    """Return a table of predictions that give the right label this probability."""
    vocab = list(dataset.project.labels)
    rows = [
        {"id": picture.id, "side": picture.side, "label": picture.label, "predicted": picture.label}
        | {label: right if label == picture.label else 1 - right for label in vocab}
        for picture in dataset
    ]
    return pd.DataFrame(rows)


def untrained(dataset):
    """Return 04's learner with the weights that it begins with."""
    with no_random(1):
        return make_learner(dataset.project, image_dataloaders(dataset), pretrained=False)
