"""ensemble = 2: networks trained one after another and averaged; killed and gone on; one file of each kind."""

import json

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import small_set
import torch
from fastai.learner import load_learner
from mask_pictures import add_photo, write_pairs
from small_set import SIDES, fill, killed, quick_learner, train, weights
from test_run import runner  # noqa: F401

from utils.averaging import averaged, model_hash, networks_in, networks_of
from utils.dataset import read_dataset, round_fingerprint
from utils.errors import FieldguideError
from utils.evaluate import evaluate_round, heat_strip
from utils.evaluate.ensembles import ensemble_figures, ensemble_sentence
from utils.evaluate.individuals import CaughtFeatures
from utils.export.classifier import checked_sentence, current_evaluation, export_classifier
from utils.export.formats import save_learner, save_onnx
from utils.inference.vetting import vet
from utils.masks import masker_for, take_masks
from utils.project import Project, ProjectError
from utils.train import load_trained, loaders, preparation, training_status
from utils.train.callbacks import LiveCurve
from utils.train.schedule import learning_rates

pytestmark = pytest.mark.long

plain = small_set.plain
AS_ASKED = {"base_lr": 1e-2, "lr_mult": 10}


def train_all(dataset):
    """Train every network as the cells of 04 do; return their learners."""
    learners = [quick_learner(network) for network in networks_of(dataset)]
    for network, learn in zip(networks_of(dataset), learners, strict=True):
        train(network, learn=learn, **AS_ASKED)
    return learners


@pytest.fixture(scope="module")
def _trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble")
    settings = {"name": "pets", "labels": {"cat": ["cat photo"], "dog": ["dog photo"]}, "weights": "none"}
    settings |= {"data_dir": str(folder / "data"), "models_dir": str(folder / "models"), "ensemble": 2}
    settings |= {"arch": "squeezenet1_1", "size": 96, "epochs": 1, "batch_size": 4}
    dataset = fill(Project.model_validate(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loaders, "worker_count", lambda: 0)
        patch.setattr(LiveCurve, "draw", lambda _: None)
        return dataset, train_all(dataset)


@pytest.fixture
def two(_trained):
    """Return the data set of a project that averages two trained networks; tests that only read share it."""
    return _trained[0]


def scores_of(model, learn, dataset):
    """Return a network's scores (N, K) of the validation set."""
    model.eval()
    with torch.no_grad():
        batch = learn.dls.test_dl(list(dataset.on("valid").paths), num_workers=0).one_batch()[0]
        return model(torch.Tensor(batch)).numpy()


def test_the_average_is_the_mean_of_the_scores(two, _trained):
    """load_trained gives the mean of what the two networks say; they differ, and each is as 04 left it."""
    learners, learn = _trained[1], load_trained(two)
    singles = np.stack([scores_of(each.model, each, two) for each in learners])
    np.testing.assert_allclose(scores_of(learn.model, learn, two), singles.mean(0), rtol=1e-5, atol=1e-6)
    assert np.abs(singles[0] - singles[1]).max() > 1e-3
    assert [each.record.settings["seed"] for each in learners] == [42, 43]
    settings = learn.record.settings
    assert settings == learners[0].record.settings | {"ensemble": 2, "seeds": [42, 43]}
    assert (learn.record.fingerprint, learn.record.changed) == (round_fingerprint(two, settings), "")
    assert training_status(two).endswith("It is an average of 2 networks.")


def test_the_mean_of_three_draws_no_random_numbers():
    """Counted by hand; what is random goes on as if nothing had been made."""
    networks, state = [torch.nn.Linear(2, 2) for _ in range(3)], torch.get_rng_state()
    model = averaged(networks, 2)
    assert torch.equal(torch.get_rng_state(), state)
    for n, network in enumerate(networks):
        network.weight.data, network.bias.data = torch.eye(2) * n, torch.tensor([3.0, 0.0])
    torch.testing.assert_close(model(torch.tensor([[6.0, 1.0]])), torch.tensor([[9.0, 1.0]]))
    assert networks_in(model) == networks and networks_in(networks[0]) == [networks[0]]


def test_one_network_is_trained_as_ever(make_project):
    """The first of two has the settings, the fingerprint and the weights of a project without the key."""
    alone, first = fill(make_project()), networks_of(fill(make_project(ensemble=2)))[0]
    assert first.project == alone.project and alone.project.networks == [alone.project]
    learn = quick_learner(alone)
    train(alone, learn=learn, **AS_ASKED)
    both = make_project(ensemble=2)
    assert training_status(read_dataset(both)).startswith("Network 2 of 2. There is no model yet")
    again = quick_learner(first)
    train(first, learn=again, **AS_ASKED)
    assert weights_equal(learn, again) and learn.record == again.record
    assert "ensemble" not in load_trained(alone).record.settings


def weights_equal(one, other):
    """Return whether two learners have the same weights to the last digit."""
    return torch.equal(weights(one), weights(other))


def test_killed_in_the_second_network_it_goes_on(make_project, tmp_path):
    """The same digits as without a stop; the first network is not trained again."""
    whole = fill(make_project(ensemble=2))
    expected = weights_of(train_all(whole))
    stopped = fill(make_project(ensemble=2, models_dir=str(tmp_path / "others")))
    first, second = networks_of(stopped)
    train(first, **AS_ASKED)
    written = (first.project.network / "learner.pth").stat().st_mtime_ns
    killed(second, 6, **AS_ASKED)
    assert training_status(stopped).startswith("Network 2 of 2. A training was stopped.")
    with pytest.raises(FieldguideError, match=r"no trained model in .*2\. Run 04 first"):
        load_trained(stopped)
    assert weights_of(train_all(stopped)) == expected
    assert (first.project.network / "learner.pth").stat().st_mtime_ns == written
    assert not (second.project.network / "resume.pth").exists()
    assert torch.equal(weights(load_trained(stopped)), weights(load_trained(whole)))


def weights_of(learners):
    """Return the weights of several learners as lists of numbers."""
    return [weights(learn).tolist() for learn in learners]


def test_fewer_networks_train_nothing_anew(two):
    """Going from two to one, the first network is the model; the other file stays."""
    one = read_dataset(two.project.model_copy(update={"ensemble": 1}))
    assert training_status(one).startswith("The model stands")
    assert weights(load_trained(one)).shape == weights(quick_learner(one)).shape
    assert (two.project.models / "ensemble" / "2" / "learner.pth").exists()
    assert len({model_hash(one.project), model_hash(two.project), ""}) == 3


def test_networks_of_different_cells_are_not_averaged(make_project):
    """A cell of 04 that was changed for one network alone: said before, and refused by 05."""
    two = fill(make_project(ensemble=2))
    first, second = networks_of(two)
    train(first, **AS_ASKED)
    train(second, freeze_epochs=0, **AS_ASKED)
    assert training_status(two) == "Network 2 was trained by other cells than the first: it is trained again now."
    with pytest.raises(FieldguideError, match="Network 2 was trained by other cells of 04 than the first"):
        load_trained(two)


def test_05_and_07_judge_and_export_the_average(make_project, tmp_path):
    """One evaluation, one export.pkl, one model.onnx under the same checks; the card tells what it is."""
    dataset = fill(make_project(ensemble=2, individuals=True))
    learners = train_all(dataset)
    learn = load_trained(dataset)
    evaluation = evaluate_round(dataset, learn)
    found = evaluation["ensemble"]
    assert found["networks"] == 2 and found["accuracy"]["average"] == evaluation["valid"]["accuracy"]["value"]
    assert found["log_loss"]["average"] == pytest.approx(evaluation["valid"]["log_loss"]["value"], abs=1e-5)
    losses = [min(each.record.history, key=lambda row: row["valid_loss"])["valid_loss"] for each in learners]
    assert found["log_loss"]["each"] == pytest.approx(losses, abs=1e-4)
    exported = export_classifier(dataset, learn)
    vet(exported.model)
    assert "Both hold 2 networks: export.pkl" in checked_sentence(exported)
    assert exported.model.stat().st_size > 1.9 * (dataset.project.models / "learner.pth").stat().st_size / 2
    assert exported.card["ensemble"] == found and exported.card["settings"]["seeds"] == [42, 43]
    words = exported.words.read_text(encoding="utf-8")
    assert "It is an average of 2 networks" in words and ensemble_sentence(found).split(":")[0] in words
    train(networks_of(dataset)[1], 2, **AS_ASKED)
    with pytest.raises(FieldguideError, match="trained again since it was judged"):
        current_evaluation(dataset, learn)


def test_the_files_of_masked_networks_agree(make_project, tmp_path):
    """Each network finds the thing with a masker of its own; fastai, export.pkl and model.onnx agree."""
    pairs = tmp_path / "outlines"
    write_pairs(pairs, 8)
    how = {"mask": "channel", "mask_source": str(pairs), "size": [64, 96], "arch": "resnet18", "class_weights": True}
    project = make_project(ensemble=2, patience=1, batch_size=8, cache="memory", **how)
    for n, side in enumerate(SIDES):
        for k, label in enumerate(project.labels):
            add_photo(project, 100 + 2 * n + k, label, side=side)
    dataset = read_dataset(project)
    masker_for(project, take_masks(dataset).drawn)
    for network in networks_of(dataset):
        train(network, **learning_rates(project))
    learn = load_trained(dataset)
    assert learn.record.changed == ""
    save_learner(learn, tmp_path / "export.pkl", temperature=2.0)
    vet(tmp_path / "export.pkl")
    save_onnx(learn, tmp_path / "model.onnx", temperature=2.0, metadata={})
    wanted = torch.softmax(torch.tensor(scores_of(learn.model, learn, dataset)) / 2, 1).numpy()
    loaded = load_learner(tmp_path / "export.pkl")
    paths = list(dataset.on("valid").paths)
    given = loaded.get_preds(dl=loaded.dls.test_dl(paths, num_workers=0))[0].numpy()
    mean, std = (torch.tensor(stat).view(1, 3, 1, 1) for stat in preparation(project).stats)
    batch = torch.Tensor(learn.dls.test_dl(paths, num_workers=0).one_batch()[0])
    pixels = ((batch * std + mean) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    answered, mask = session.run(["probabilities", "mask"], {"pixels": np.ascontiguousarray(pixels)})
    assert np.ptp(wanted) > 0 and mask.shape == (len(paths), 16, 24)
    np.testing.assert_allclose(given, wanted, atol=1e-4)
    np.testing.assert_allclose(answered, wanted, atol=1e-3)


def test_heat_maps_are_the_first_networks_and_features_are_all(two):
    """The strip is drawn from the first network; the features that rank individuals are those of both."""
    learn, file = load_trained(two), two.on("valid").paths[0]
    table = pd.DataFrame({"file": [f"{file.parent.name}/{file.name}"], "predicted": ["cat"], "label": ["dog"]})
    strips = [
        heat_strip(two, each, table.assign(probability=0.5))
        for each in (learn, load_trained(networks_of(two)[0]), load_trained(networks_of(two)[1]))
    ]
    assert strips[0] == strips[1] != strips[2]
    rows = []
    for each in (learn, *(load_trained(network) for network in networks_of(two))):
        with CaughtFeatures(each) as caught:
            each.get_preds(dl=each.dls.test_dl([file], num_workers=0))
        rows.append(caught.rows()[0])
    np.testing.assert_allclose(rows[0], np.concatenate(rows[1:]) / np.sqrt(2), atol=1e-5)


def test_the_worth_is_counted_photo_by_photo(make_project):
    """Four photos and two networks, by hand; near-duplicates are drawn together."""
    dataset = fill(make_project())
    ids = sorted(dataset.on("valid").ids)[:4]
    probs = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
    told = pd.DataFrame({"id": ids, "side": "valid", "label": ["cat", "cat", "dog", "dog"], "predicted": "cat"})
    valid = told.join(pd.DataFrame(probs, columns=["cat", "dog"]))
    # The first network is right for two, the second for three, their average for three.
    single = np.log(
        np.array([[[0.8, 0.2], [0.8, 0.2]], [[0.4, 0.6], [0.7, 0.3]], [[0.3, 0.7], [0.3, 0.7]], [[0.9, 0.1]] * 2])
    )
    found = ensemble_figures(dataset, valid, single)
    assert (found["networks"], found["accuracy"]["average"], found["accuracy"]["each"]) == (2, 0.75, [0.5, 0.75])
    over_one, over_first = found["accuracy"]["over_one"], found["accuracy"]["over_first"]
    assert (over_one["value"], over_first["value"], over_one["n"]) == (0.125, 0.25, 4)
    assert over_one["low"] <= 0.125 <= over_one["high"]
    assert found["log_loss"]["over_first"]["value"] == pytest.approx((np.log(0.4) - np.log(0.6)) / 4, abs=1e-6)
    assert found["log_loss"]["over_one"]["value"] == pytest.approx((np.log(0.4 * 0.7) / 2 - np.log(0.6)) / 4, abs=1e-6)
    assert ensemble_sentence(found).startswith(
        "The average of 2 networks is right for 75.0 % of 4 photos of the validation set, one of them in the mean for "
        "62.5 %: +12.5 points (95 % interval "
    )


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ((-0.02, 0.2), "-2.0 to +20.0, not shown to help"),
        ((0.02, 0.2), "+2.0 to +20.0, it helps"),
        ((-0.3, -0.1), "-30.0 to -10.0, it harms"),
    ],
)
def test_the_interval_says_whether_it_helps(ends, told):
    """A higher accuracy helps; so does a lower log loss."""
    gain = {"value": sum(ends) / 2, "low": ends[0], "high": ends[1], "n": 40}
    loss = {"value": -sum(ends) / 2, "low": -ends[1], "high": -ends[0], "n": 40}
    facts = {"average": 0.9, "each": [0.85, 0.75]}
    found = {"networks": 2, "accuracy": facts | {"over_one": gain, "over_first": gain}}
    said = ensemble_sentence(found | {"log_loss": facts | {"over_one": loss, "over_first": loss}})
    words = told.rpartition(", ")[2]
    assert f"one of them in the mean for 80.0 %: {100 * gain['value']:+.1f} points (95 % interval {told})." in said
    assert f"Log loss (0 is perfect): 0.900, of one 0.800: {loss['value']:+.3f} (95 % interval " in said
    assert said.count(words) == 4


def test_a_head_is_no_ensemble(tmp_path):
    """train = "head" with ensemble: the project file is refused, with what to do; so are 0 and 10 networks."""
    path, labels = tmp_path / "project.toml", '[labels]\na = ["a"]\nb = ["b"]\n'
    path.write_text(f'name = "a"\ntrain = "head"\nensemble = 3\n{labels}', encoding="utf-8")
    with pytest.raises(ProjectError, match='ensemble = 3 goes with train = "all" only'):
        Project.load(path)
    for wrong in ("0", "10", '"3"'):
        path.write_text(f'name = "a"\nensemble = {wrong}\n{labels}', encoding="utf-8")
        with pytest.raises(ProjectError, match="ensemble"):
            Project.load(path)


def test_the_seeds_go_on_from_the_projects(make_project):
    """42, 43, 44; the largest seed is followed by 0."""
    assert [each.seed for each in make_project(ensemble=3).networks] == [42, 43, 44]
    assert [each.seed for each in make_project(ensemble=2, seed=2**32 - 1).networks] == [2**32 - 1, 0]
    folders = [each.network.relative_to(each.models).as_posix() for each in make_project(ensemble=3).networks]
    assert folders == [".", "ensemble/2", "ensemble/3"]


def test_a_changed_number_makes_the_verdict_stale(runner, two):  # noqa: F811
    """make run names the key; without it, and with the same, nothing is said."""
    settings = load_trained(two).record.settings
    three, one = (two.project.model_copy(update={"ensemble": n}) for n in (3, 1))
    assert "ensemble" not in runner.changed_keys(two.project, settings)
    assert "ensemble" in runner.changed_keys(three, settings) and "ensemble" in runner.changed_keys(one, settings)
    assert json.loads(json.dumps(settings)) == settings
