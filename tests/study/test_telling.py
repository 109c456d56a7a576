"""What a person is told and shown: sentences, pictures, and the project file of the best settings."""

import re
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from small_set import fill

from utils.errors import FieldguideError
from utils.project import Project
from utils.study import conclusions, cost_picture, curves, key_pictures, read_study, save_winner
from utils.study.conclusions import value_pairs
from utils.study.runs import RUN_DONE, RUN_FAILED, TrainingRun, add_run
from utils.study.training import with_sides

TOML = """# my birds
name = "birds"
size = 64              # pixels
epochs = 1
arch = "squeezenet1_1"
weights = "none"
data_dir = "data"
models_dir = "models"

[study]
{study}

[labels]
cat = ["cat photo"]    # a remark
dog = ["dog photo"]
"""
TWO = "size = [32, 64]\nepochs = [1, 2]\nseeds = 4"


@pytest.fixture
def study_of(tmp_path):
    """Return a function that makes a study of 60 pictures per label, with runs of the accuracies that are given."""

    def make(text, share, *, train_share=lambda values: 1.0, top=""):
        path = tmp_path / "birds.toml"
        path.write_text(f"{top}\n{TOML.format(study=text)}")
        project = Project.load(path)
        fill(project)
        found = read_study(project)
        for n, setting in enumerate(found.settings):
            for seed in found.seeds:
                valid = with_sides(found.pool, seed).on("valid")
                right = np.array([int(id, 16) % 997 / 997 for id in valid.ids]) < share(setting.values)
                figures = {
                    "accuracy": right.mean(),
                    "seconds": float(n + 1),
                    "train_accuracy": train_share(setting.values),
                }
                rows = [{"epoch": e, "train_loss": 1 / (e + 1), "valid_loss": 1.0, "accuracy": 0.5} for e in range(2)]
                run = TrainingRun(setting.id, seed, setting.name, RUN_DONE, history=rows, judged=str(seed), right=right)
                add_run(found.folder, type(run)(**vars(run) | figures))
        return found

    return make


def test_values_of_a_key_are_compared_on_runs_that_differ_in_it_alone(study_of):
    """The better size is named with points and an interval; epochs that change nothing cannot be told apart."""
    told = conclusions(study_of(TWO, lambda values: 1.0 if values["size"] == 64 else 0.0))
    assert "In the lead: size 64, epochs 1, right for 100.0 %" in told
    assert re.search(r"^size: 64 is better than 32 by 100\.0 points \(\d+\.\d to \d+\.\d\)\.$", told, flags=re.M)
    assert "epochs: 1 and 2 cannot be told apart: 0.0 points" in told
    assert "corrected for 2 comparisons (Holm)" in told


def test_what_came_with_a_value_is_not_its_worth(study_of):
    """Two settings that differ in two keys say nothing of either."""
    found = study_of(TWO, lambda _: 1.0)
    ids = {setting.name: setting.id for setting in found.settings}
    apart = {
        key: run for key, run in found.runs().items() if key[0] in (ids["size 32, epochs 1"], ids["size 64, epochs 2"])
    }
    assert len(apart) == 8 and value_pairs(found.settings, apart, found.groups) == {}
    assert len(value_pairs(found.settings, found.runs(), found.groups)) == 2


def test_how_many_seeds_would_do_is_told(study_of):
    """A difference that is not shown yet comes with the seeds that would show it, if it stays."""
    told = conclusions(study_of("size = [32, 64]\nseeds = 2", lambda values: 0.9 if values["size"] == 64 else 0.6))
    assert re.search(r"cannot be told apart: .* About \d+ more seeds? would do, if the difference stays\.", told)


def test_just_enough_augmentation(study_of):
    """The most of which the network still learns its training pictures, among those that are not worse."""
    shares = {"standard": 1.0, "strong": 0.99, "none": 0.7}
    text = 'augment = ["standard", "strong", { mult = 5.0 }]\nseeds = 2'
    found = study_of(
        text, lambda _: 0.9, train_share=lambda v: shares.get(v["augment"] if isinstance(v["augment"], str) else "none")
    )
    told = conclusions(found)
    assert "standard 100.0 %, strong 99.0 %, { mult = 5.0 } 70.0 %. Just enough is strong:" in told


def test_a_search_for_augmentation_tries_five_amounts(study_of):
    """Where all of them are learned and none is worse, the one with the lowest training accuracy is just enough."""
    found = study_of(
        "augment_search = true\nseeds = 2",
        lambda _: 0.9,
        train_share=lambda v: 0.98 if v["augment"] == "strong" else 1.0,
    )
    assert [s.values["augment"] for s in found.settings][2:4] == ["standard", "strong"] and len(found.settings) == 5
    assert "Just enough is strong:" in conclusions(found)


def test_nothing_is_concluded_before_the_first_run(study_of, tmp_path):
    """It says how to begin; pictures and table are empty, and no error."""
    found = study_of(TWO, lambda _: 1.0)
    (found.folder / "runs.csv").unlink()
    assert conclusions(found) == "No run is done yet: study.run() begins."
    assert key_pictures(found).width > cost_picture(found).height > 0 and "no run with epochs" in curves(found).data
    assert found.table().data["state"].tolist() == ["to do"] * 4
    with pytest.raises(FieldguideError, match="No run is done yet"):
        save_winner(found, source=tmp_path / "birds.toml")


def test_why_nobody_leads_is_told(study_of, tmp_path):
    """In the middle of the first round, and where every setting failed, it does not say that no run is done."""
    found = study_of("size = [32, 64]\nseeds = 2", lambda _: 1.0)
    first, second = (run for (_, seed), run in found.runs().items() if seed == 42)
    path = found.folder / "runs.csv"
    path.unlink()
    add_run(found.folder, first)
    assert conclusions(found).startswith("No setting leads before all have trained once: 1 of 2 have.")
    path.unlink()
    for run in (first, second):
        add_run(found.folder, replace(run, status=RUN_FAILED, reason="it broke"))
    assert conclusions(found).startswith("Every setting failed: study.table() says why. study.run(retry=True)")
    with pytest.raises(FieldguideError, match="Every setting failed"):
        save_winner(found, source=tmp_path / "birds.toml")


def test_a_setting_that_failed_is_named(study_of):
    """It is compared with nothing, so that a sentence of its own says so."""
    found = study_of("size = [32, 64]\nseeds = 2", lambda _: 1.0)
    runs = list(found.runs().values())
    (found.folder / "runs.csv").unlink()
    for run in runs:
        add_run(found.folder, replace(run, status=RUN_FAILED) if run.settings == "size 32" else run)
    assert "Failed, and not compared: size 32. study.table() says why." in conclusions(found)


def test_runs_from_before_augment_was_studied(study_of):
    """They have no accuracy on the training set: the sentence leaves them out, and never says "nan"."""
    text = 'augment = ["standard", "strong"]\nseeds = 2'
    found = study_of(text, lambda _: 0.9, train_share=lambda v: float("nan") if v["augment"] == "standard" else 0.99)
    told = conclusions(found)
    assert "training pictures: strong 99.0 %. Just enough is strong:" in told and "nan" not in told


def test_the_time_to_go_is_that_of_the_runs_to_do(study_of):
    """Of four settings that take 1, 2, 3 and 4 seconds the slower two are left in the last round."""
    found = study_of(TWO, lambda _: 1.0)
    runs = found.runs()
    left = {(found.settings[n].id, found.seeds[-1]) for n in (2, 3)}
    assert "2 to do (about 7 seconds" in found.outlook({key: run for key, run in runs.items() if key not in left})


def test_every_curve_names_its_run(study_of):
    """Three figures of each run, drawn twice, carry its setting and seed as a title, with markup made harmless."""
    shown = curves(study_of(TWO, lambda _: 1.0)).data
    titles = re.findall(r"<title>(.*?)</title>", shown)
    assert len(titles) == 16 * 3 * 2 and titles[0].startswith("size 32, epochs 1, seed 42: ")
    assert "<?xml" not in shown and shown.count("<svg") == 1


def test_the_winner_becomes_a_project_file_beside_yours(study_of, tmp_path):
    """Its settings are in, [study] is out, remarks and the rest stay; yours is untouched; nothing is overwritten."""
    found = study_of(TWO, lambda values: values["size"] / 64 if values["epochs"] == 2 else 0.0)
    before = (tmp_path / "birds.toml").read_bytes()
    told = save_winner(found, source=tmp_path / "birds.toml")
    best = tmp_path / "birds_best.toml"
    text = best.read_text()
    assert str(best) in told and "# my birds" in text and "# a remark" in text
    settings = tomllib.loads(text)
    assert (settings["size"], settings["epochs"]) == (64, 2) and "study" not in settings
    assert Project.load(best).models == found.project.models
    assert (tmp_path / "birds.toml").read_bytes() == before
    with pytest.raises(FieldguideError, match="is there already, and is not overwritten"):
        save_winner(found, source=tmp_path / "birds.toml")


def test_a_setting_that_stood_nowhere_goes_above_the_sections(study_of, tmp_path):
    """A table for [augment] becomes a section, a word a key; in another folder the paths stay those of the project."""
    found = study_of('augment = [{ mult = 0.5 }, "strong"]', lambda values: float(values["augment"] == "strong"))
    (tmp_path / "other").mkdir()
    save_winner(found, tmp_path / "other" / "b.toml", source=tmp_path / "birds.toml")
    best = Project.load(tmp_path / "other" / "b.toml")
    assert (best.augment, best.data) == ("strong", found.project.data)


def test_a_file_of_weights_is_found_from_another_folder(study_of, tmp_path):
    """A relative path counts from the project file, so the winner elsewhere names the whole path."""
    found = study_of("size = [32, 64]", lambda values: float(values["size"] == 64))
    weights = tmp_path / "own.pth"
    settings = [replace(s, project=s.project.model_copy(update={"weights": str(weights)})) for s in found.settings]
    text = (tmp_path / "birds.toml").read_text().replace('weights = "none"', 'weights = "own.pth"')
    (tmp_path / "birds.toml").write_text(text)
    (tmp_path / "other").mkdir()
    save_winner(replace(found, settings=tuple(settings)), tmp_path / "other" / "b.toml", source=tmp_path / "birds.toml")
    assert Project.load(tmp_path / "other" / "b.toml").weights == str(weights)


def test_a_head_of_other_pixels_becomes_a_training_of_all_layers(study_of, tmp_path):
    """A head by itself stands on 224 pixels, so the file says train = "all" at the size that won, as is told."""
    text = 'train = ["head"]\nsize = [64, 96]'
    found = study_of(text, lambda values: float(values["size"] == 96))
    told = save_winner(found, source=tmp_path / "birds.toml")
    best = Project.load(tmp_path / "birds_best.toml")
    assert (best.train, best.size, best.arch) == ("all", 96, "efficientnet_lite0")
    assert 'So the file says train = "all" with that size: it is not the setting that led.' in told


def test_all_layers_that_won_in_a_project_of_a_head_train_as_they_did(study_of, tmp_path):
    """Network and size of the file did not count while it said train = "head"; those that trained do."""
    found = study_of('train = ["head", "all"]', lambda v: float(v["train"] == "all"), top='train = "head"')
    save_winner(found, source=tmp_path / "birds.toml")
    best = Project.load(tmp_path / "birds_best.toml")
    assert (best.train, best.arch, best.weights, best.size) == ("all", "efficientnet_lite0", "imagenet", 224)


def test_many_settings_are_told_with_their_time(study_of):
    """The plan of 1,200 settings says how long they would take, and shows the first fifty."""
    found = study_of("size = [32, 64]", lambda _: 1.0)
    many = read_study(found.project.model_copy(update={"study": found.project.study | {
        "size": list(range(32, 72)), "epochs": list(range(1, 31))}}))  # fmt: skip
    assert "1,200 settings × 3 seeds = 3,600 runs" in many.outlook()
    assert "vary two or three keys first" in many.outlook() and len(many.table().data) == 50
