"""04, the quick model: a linear head in seconds, exported as a whole network, and the measure of a long training."""

from dataclasses import replace

import numpy as np
import pytest
import small_set
import torch
from fastai.vision.all import load_learner
from small_set import fill, quick_learner, train

from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.evaluate import evaluate_round, predict_side
from utils.export import save_learner
from utils.heads import fit_head
from utils.inference import load_classifier
from utils.project import HEAD_SIZE
from utils.seeing import feature_pixels
from utils.tables import read_rows
from utils.train import (
    compared_sentence,
    head_options,
    image_dataloaders,
    keep_quick_model,
    learner_as_04,
    learning_rates,
    load_trained,
    make_learner,
    overfitting_sentence,
    quick_model,
    quick_sentence,
    training_loss,
    training_status,
)
from utils.train.record import asked_settings, changed_sentence

ready, plain = small_set.ready, small_set.plain
STANDS = "The model stands: pictures, split and settings are those that it was trained with."


def head_learner(dataset, quick):
    """Return the learner that 04 makes of a quick model."""
    options = {"loss_func": training_loss(dataset), **head_options(dataset, quick)}
    return make_learner(dataset.project, image_dataloaders(dataset), pretrained=True, **options)


@pytest.fixture
def head_only(make_project):
    """The data set of a project whose model is a head alone."""
    return fill(make_project(train="head"))


def test_a_head_alone_names_the_packaged_network(make_project):
    """Whatever the file asks for beside ``train = "head"``; the other settings stay."""
    project = make_project(train="head", arch="resnet50", weights="none", size=64, seed=7)
    assert (project.arch, project.weights, project.size) == ("efficientnet_lite0", "imagenet", 224)
    assert project.seed == 7


def test_it_learns_from_the_training_set_and_is_judged_on_the_validation_set(ready):
    """The verdict is of the six validation pictures; the labels of the others do not matter to it."""
    quick = quick_model(ready)
    assert (quick.n, quick.verdict["n"], quick.verdict["guess"]) == (6, 6, 3)
    assert quick.accuracy > 0.8
    told = quick_sentence(quick)
    assert told.startswith("The quick model took ") and f"Right for {quick.verdict['right']} of 6 photos" in told
    train_only = replace(
        ready,
        labels=tuple("cat" if side == "test" else label for label, side in zip(ready.labels, ready.sides, strict=True)),
    )
    assert np.array_equal(quick_model(train_only).head.weight, quick.head.weight)


def test_the_strength_is_chosen_inside_the_training_set(ready):
    """Other validation labels change the verdict and nothing of the head."""
    flipped = replace(
        ready,
        labels=tuple(
            {"cat": "dog", "dog": "cat"}[label] if side == "valid" else label
            for label, side in zip(ready.labels, ready.sides, strict=True)
        ),
    )
    one, other = quick_model(ready), quick_model(flipped)
    assert one.strength == other.strength and np.array_equal(one.head.weight, other.head.weight)
    assert other.verdict["right"] == 6 - one.verdict["right"]


def test_it_is_kept_as_a_whole_network(head_only):
    """Its round stands, is loaded and judged as any other, and its answers are the head's on the features."""
    quick = quick_model(head_only)
    learn = head_learner(head_only, quick)
    keep_quick_model(head_only, learn, quick)
    assert training_status(head_only) == STANDS
    loaded = load_trained(head_only)
    assert loaded.record.changed == "" and loaded.record == learn.record
    settings = loaded.record.settings
    assert {name: settings[name] for name in ("train", "arch", "size", "head")} == {
        "train": "head",
        "arch": "efficientnet_lite0",
        "size": 224,
        "head": "linear",
    }
    assert overfitting_sentence(loaded.record.history) == "The head alone was fitted: that takes no epochs."
    assert compared_sentence(quick, loaded.record) == 'This is the quick model: train = "head".'
    (row,) = read_rows(head_only.project.models / "history.csv", tuple(loaded.record.history[0]))
    assert (row["phase"], float(row["accuracy"])) == ("head", pytest.approx(quick.accuracy, abs=1e-6))
    said = predict_side(head_only, loaded, "valid")
    expected = quick.head.probabilities(features_of(head_only.on("valid").paths))
    assert said[["cat", "dog"]].to_numpy(dtype=float) == pytest.approx(expected, abs=5e-3)  # kept in half precision
    assert evaluate_round(head_only, loaded)["verdict"]["right"] == quick.verdict["right"]


def features_of(paths):
    """Return what the packaged network sees, computed anew."""
    from utils.backbone import packaged_body
    from utils.seeing import network_features

    pixels = torch.from_numpy(np.stack([feature_pixels(path, HEAD_SIZE) for path in paths]))
    return network_features(packaged_body(), pixels).numpy()


def test_its_export_is_safe_and_says_the_same_as_fastai(head_only, tmp_path):
    """Vetting lets it through, and the bicubic reduction travels with it."""
    quick = quick_model(head_only)
    learn = head_learner(head_only, quick)
    save_learner(learn, tmp_path / "export.pkl")
    ours, path = load_classifier(tmp_path / "export.pkl"), head_only.paths[0]
    assert ours.recipe.resample == "bicubic"
    theirs = load_learner(tmp_path / "export.pkl")
    with theirs.no_bar():
        expected = theirs.predict(path)[2].tolist()
    assert list(ours.predict(path)[0].probabilities.values()) == pytest.approx(expected, abs=1e-5)


def test_a_head_is_fitted_anew_when_pictures_change(head_only):
    """A round of other pictures does not stand."""
    quick = quick_model(head_only)
    keep_quick_model(head_only, head_learner(head_only, quick), quick)
    gone = head_only.on("train").paths[0]
    gone.unlink()
    changed = read_dataset(head_only.project)
    assert training_status(changed).startswith("Pictures, labels, split or settings changed")
    quick = quick_model(changed)
    learn = head_learner(changed, quick)
    keep_quick_model(changed, learn, quick)
    assert training_status(changed) == STANDS
    assert torch.equal(load_trained(changed).model[1][2].weight, learn.model[1][2].weight)


def test_the_packaged_network_begins_with_the_quick_models_head(make_project):
    """With all layers to train, and for no other network or weights."""
    dataset = fill(make_project(arch="efficientnet_lite0", weights="imagenet", size=224))
    quick = quick_model(dataset)
    learn = head_learner(dataset, quick)
    assert learn.model[1][2].weight.detach().numpy() == pytest.approx(quick.head.weight, rel=1e-6)
    assert asked_settings(dataset)["head"] == "linear"
    for settings in ({"arch": "resnet18"}, {"arch": "efficientnet_lite0", "weights": "none"}):
        assert head_options(read_dataset(make_project(**settings)), quick) == {}


def test_a_training_at_another_size_begins_with_a_head_for_that_size(make_project):
    """Before it learns, the learner says of the training set what a head says that was fitted to its own features."""
    dataset = fill(make_project(arch="efficientnet_lite0", weights="imagenet", size=64))
    quick, train = quick_model(dataset), dataset.on("train")
    learn = head_learner(dataset, quick)
    loader = learn.dls.test_dl(list(train.paths))
    with torch.no_grad(), learn.no_bar():
        said = learn.get_preds(dl=loader)[0].numpy()
        seen = torch.cat([learn.model[0].eval()(batch[0]).mean((2, 3)) for batch in loader]).numpy()
    fitted = fit_head(seen, np.array(train.codes), 2, strength=quick.strength)
    assert said == pytest.approx(fitted.probabilities(seen), abs=2e-3)  # kept features have 11 bits
    assert not np.allclose(said, quick.head.probabilities(seen), atol=0.02)


def test_the_strength_of_the_head_that_a_training_began_with_is_recorded(make_project):
    """It decides the first weights of the packaged network: with another one in the project file the round is stale."""
    project = make_project(arch="efficientnet_lite0", weights="imagenet", size=32, batch_size=4, strength=0.01)
    dataset = fill(project)
    learn = learner_as_04(dataset)
    train(dataset, learn=learn, **learning_rates(project))
    record = learn.record
    other = dataset.project.model_copy(update={"strength": 1.0})
    assert (record.changed, record.settings["strength"]) == ("", 0.01)
    assert changed_sentence(record.settings, asked_settings(read_dataset(other))) != ""
    assert asked_settings(read_dataset(project.model_copy(update={"strength": 0.0}))).get("strength") is None


@pytest.mark.parametrize(("accuracy", "gained"), [(1.0, True), (0.5, False)])
def test_a_training_is_compared_with_the_quick_model(ready, accuracy, gained):
    """Where it is no better, the sentence says what to do."""
    quick = replace(quick_model(ready), accuracy=5 / 6)
    learn = quick_learner(ready)
    train(ready, learn=learn, base_lr=1e-2, lr_mult=10)
    record = replace(learn.record, history=[row | {"accuracy": accuracy} for row in learn.record.history])
    told = compared_sentence(quick, record)
    assert told.startswith(
        f"Of 6 photos in the validation set the trained model names {round(6 * accuracy)} rightly, the "
    )
    assert ('set train = "head"' in told) is not gained


def test_empty_sides_are_told(make_project, fill_raw):
    """Before 03 there is nothing to learn from."""
    dataset = fill(make_project())
    with pytest.raises(FieldguideError, match=r"set of 'pets' is empty\. Run 02 and 03"):
        quick_model(dataset.on("train"))
