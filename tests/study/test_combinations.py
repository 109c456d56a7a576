"""What a study tries: the section [study], and the combinations of its values."""

import pytest
import torch

from utils.errors import FieldguideError
from utils.masks import Masker, save_masker
from utils.masks.network import MAP_LEVELS
from utils.project import PACKAGED, Project
from utils.study import settings
from utils.study.settings import settings_of
from utils.study.study import read_study

LABELS = '[labels]\ncat = ["x"]\ndog = ["y"]\n'


def load(folder, study, top=""):
    """Load a project file with a section [study]."""
    path = folder / "pets.toml"
    path.write_text(f'name = "pets"\narch = "squeezenet1_1"\nweights = "none"\n{top}[study]\n{study}\n{LABELS}')
    return Project.load(path)


@pytest.mark.parametrize(
    ("study", "told"),
    [
        ("size = 128", "write the values of size as a list: size = [128]"),
        ("sise = [128]", "sise is not a setting of training; did you mean size?"),
        ("images_per_label = [5, 9]", "images_per_label is not a setting of training; write one of train, arch"),
        ("size = [64, 64]", "size has a value twice: [64, 64]. Remove one of the two"),
        ("size = []", "write the values of size as a list"),
        ("size = [64, 20]", "study.size.1 (line 5): 20 is outside of 32 to 1024 pixels"),
        ('arch = ["ResNet18"]', """study.arch.0 = 'ResNet18' (line 5): did you mean "resnet18"?"""),
        ("augment = [{ mult = 9.0 }]", "study.augment.0.mult = 9.0 (line 5): it must be less than or equal to 5"),
        ("seeds = 0\nsize = [64]", "seeds = 0. Write a whole number from 1 to 100"),
        ('minutes = "10"\nsize = [64]', "minutes = '10'. Write a number above 0"),
        ("race = 1\nsize = [64]", "race = 1. Write true or false"),
        ("seeds = 5", "it names no setting to try"),
    ],
)
def test_a_wrong_section_is_refused_in_words(tmp_path, study, told):
    """The file, the key, the value, what to do; before anything trains."""
    with pytest.raises(FieldguideError) as refused:
        load(tmp_path, study)
    assert told in str(refused.value)


def test_every_combination_is_tried_once(tmp_path):
    """Two values by three are six settings, each a project with these values, named by what varies."""
    tried = settings_of(load(tmp_path, "size = [64, 96]\nepochs = [1, 2, 3]\nbatch_size = [8]"))
    assert len({s.id for s in tried}) == len(tried) == 6
    assert tried[1].name == "size 64, epochs 2"
    assert {(s.project.size, s.project.epochs, s.project.batch_size) for s in tried} == {
        (size, epochs, 8) for size in (64, 96) for epochs in (1, 2, 3)
    }


def test_a_head_knows_no_epochs(tmp_path):
    """Combinations that its training does not tell apart are one setting; its size is the study's."""
    tried = settings_of(load(tmp_path, 'train = ["head", "all"]\nepochs = [1, 2]\nsize = [64]'))
    assert [s.name for s in tried] == ["train head", "train all, epochs 1", "train all, epochs 2"]
    assert [s.project.size for s in tried] == [64, 64, 64]


def test_a_head_has_no_fourth_channel(tmp_path):
    """Where mask and train vary, a head is tried with each way but "channel"; another masker is another setting."""
    top = f'arch = "{PACKAGED}"\nmodels_dir = "{tmp_path.as_posix()}"\n'
    study = 'train = ["head"]\nmask = ["none", "crop", "channel", "paint"]\nsize = [64]'
    path = tmp_path / "pets.toml"
    path.write_text(f'name = "pets"\n{top}[study]\n{study}\n{LABELS}')
    tried = settings_of(Project.load(path))
    assert [s.name for s in tried] == ["mask none", "mask crop", "mask paint"]
    head = {level: torch.zeros(1, 1, 1, 1) for level in map(str, MAP_LEVELS)} | {"bias": torch.zeros(1)}
    save_masker(Project.load(path), Masker((64, 64), head, (), (), 2, "0123"))
    again = settings_of(Project.load(path))
    assert [one.id == other.id for one, other in zip(tried, again, strict=True)] == [True, False, False]


def test_a_key_that_changes_nothing_is_refused(tmp_path):
    """A study of epochs with heads alone would compare a setting with itself."""
    with pytest.raises(FieldguideError, match="varies epochs, which changes nothing here: a head reads train, size"):
        settings_of(load(tmp_path, "epochs = [1, 2]", top='train = "head"\n'))


def test_a_head_of_224_pixels_is_not_one_of_128(tmp_path):
    """The ids of runs at each size are those that studies have stored: a run never stands for another size."""
    tried = settings_of(load(tmp_path, 'train = ["head", "all"]\nsize = [128, 224]'))
    assert [(s.name, s.project.size) for s in tried] == [
        (f"train {train}, size {size}", size) for train in ("head", "all") for size in (128, 224)
    ]
    assert [s.id for s in tried[:2]] == ["1a01be4b14d27568", "116ce36d04213237"]
    (alone,) = settings_of(load(tmp_path, 'train = ["head"]'))
    assert (alone.id, alone.project.size) == ("116ce36d04213237", 224)


def test_what_a_head_reads_is_told_where_the_study_alone_asks_for_one(tmp_path):
    """The project trains all layers; the advice names the line that stands in the file."""
    with pytest.raises(FieldguideError, match=r"a head reads train, .*strength, mask\. Remove the line"):
        settings_of(load(tmp_path, 'train = ["head"]\nepochs = [1, 2]'))
    with pytest.raises(FieldguideError, match=r"Remove the line augment_search = …"):
        settings_of(load(tmp_path, 'train = ["head"]\naugment_search = true'))


def test_strength_counts_where_a_training_begins_with_a_head(tmp_path):
    """The packaged network's fine-tuning begins with the quick model's head, another network's with none."""
    strengths = 'train = ["all"]\nstrength = [0.01, 1.0]'
    packaged = load(tmp_path, strengths).model_copy(update={"arch": PACKAGED, "weights": "imagenet"})
    assert [s.name for s in settings_of(packaged)] == ["strength 0.01", "strength 1.0"]
    with pytest.raises(FieldguideError, match="varies strength, which changes nothing here"):
        settings_of(load(tmp_path, strengths))


def test_a_network_that_is_not_there_is_refused_before_training(tmp_path):
    """Not after an hour of others."""
    with pytest.raises(FieldguideError, match="arch = 'resnet19' is not a model of torchvision"):
        settings_of(load(tmp_path, 'arch = ["squeezenet1_1", "resnet19"]'))


def test_a_setting_keeps_its_id_when_the_study_grows(tmp_path):
    """Runs that are done count for a larger study, too."""
    few = settings_of(load(tmp_path, "size = [64, 96]"))
    more = settings_of(load(tmp_path, "size = [48, 96, 64]\nepochs = [4]\nseeds = 9"))
    assert {s.id for s in few} < {s.id for s in more}


def test_a_key_of_a_later_version_changes_no_id(tmp_path, monkeypatch):
    """As long as it stands at its default."""
    project = load(tmp_path, "size = [64, 96]")
    with_all = [setting.id for setting in settings_of(project)]
    monkeypatch.setattr(settings, "STUDIED", tuple(key for key in settings.STUDIED if key != "patience"))
    assert [setting.id for setting in settings_of(project)] == with_all


def test_too_many_combinations_are_told_with_their_time(tmp_path):
    """Nobody waits for a plan of a hundred million runs."""
    values = ", ".join(map(str, range(32, 132)))
    with pytest.raises(FieldguideError, match=r"1,000,000 combinations. With 3 seeds and a minute each .* 2,083 days"):
        read_study(load(tmp_path, f"size = [{values}]\nepochs = [{values}]\nbatch_size = [{values}]"))


def test_no_section_is_told_with_an_example(make_project):
    """Who opens 09 first reads what to write."""
    with pytest.raises(FieldguideError, match=r"no section \[study\].*\n\n    \[study\]\n    size = \[128, 224\]"):
        read_study(make_project())
