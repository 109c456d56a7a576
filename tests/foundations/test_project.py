"""project.toml: what is accepted, and what each refusal says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.names import unsafe_name
from utils.project import REPOSITORY, Project, ProjectError

LABELS = '\n[labels]\ncat = ["cat photo"]\ndog = ["dog photo"]\n'


def load(tmp_path, text):
    """Write a project file and load it."""
    path = tmp_path / "project.toml"
    path.write_text(text, encoding="utf-8")
    return Project.load(path)


def test_defaults_are_the_documented_ones(tmp_path):
    """A name and labels suffice; every other key has the default that the design gives."""
    project = load(tmp_path, 'name = "pets"' + LABELS)
    assert (project.source, project.images_per_label, project.seed) == ("duckduckgo", 150, 42)
    assert (project.valid, project.test, project.arch, project.weights) == (0.2, 0.1, "resnet18", "imagenet")
    assert (project.size, project.epochs, project.batch_size) == (224, 4, 32)
    assert (project.data, project.models) == (REPOSITORY / "data" / "pets", REPOSITORY / "models" / "pets")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epochs = 4" + LABELS, ["name", "add it"]),
        ('name = "pets"\nepochz = 4' + LABELS, ["epochz", "4", "unknown", "did you mean epochs?"]),
        ('name = "pets"\nepochs = "4"' + LABELS, ["epochs", "'4'", "whole number"]),
        ('name = "pets"\nepochs = true' + LABELS, ["epochs", "True", "whole number"]),
        ('name = "pets"\nvalid = 20' + LABELS, ["valid", "20", "less than 1"]),
        ('name = "pets"\nvalid = 0.6\ntest = 0.5' + LABELS, ["0.6", "0.5", "no pictures to train on"]),
        ('name = "pets"\nweights = "coco"' + LABELS, ["weights", "'coco'", "'imagenet' or 'none'", ".pth file"]),
        ('name = "pets"\nsource = 3' + LABELS, ["source", "3", "list"]),
        ('name = "pets"\nsource = []' + LABELS, ["source", "folder"]),
        ('name = "../pets"' + LABELS, ["name", "../pets", "folder name"]),
        ('name = "pets"', ["[labels]", "missing"]),
        ('name = "pets"\n[labels]\ncat = ["cat"]', ["only 'cat'", "two labels"]),
        ('name = "pets"\n[labels]\ncat = "cat"\ndog = ["dog"]', ["labels.cat", "'cat'", "list"]),
        ('name = "pets"\n[labels]\ncat = []\ndog = ["dog"]', ["'cat'", "no search"]),
        ('name = "pets"\n[labels]\ncat = [" "]\ndog = ["dog"]', ["'cat'", "empty search"]),
        ('name = "pets"\n[labels]\n".." = ["cat"]\ndog = ["dog"]', ["'..'", "folder name"]),
        ('name = "pets"\n[labels]\nCON = ["cat"]\ndog = ["dog"]', ["'CON'", "Windows"]),
        ('name = "pets"\n[labels]\n"a/b" = ["cat"]\ndog = ["dog"]', ["'a/b'", "folder name"]),
        ('name = "pets"\n[labels]\nDog = ["cat"]\ndog = ["dog"]', ["'Dog'", "'dog'", "one folder"]),
        *[
            (f'name = "pets"\n[labels]\n{label} = ["cat"]\ndog = ["dog"]', [f"'{label}'", "tables", "Choose another"])
            for label in ("id", "Side", "label", "predicted", "fingerprint", "ALL")
        ],
        ('name = "pets"\n[labels]\nKeep = ["cat"]\ndog = ["dog"]', ["'Keep'", "cleaner"]),
        (f'name = "pets"\n[labels]\ncat = ["{"x" * 600}"]\ndog = ["dog"]', ["600 characters", "499"]),
        (
            'name = "pets"\n[labels]\ncat = ["a  Pet"]\ndog = ["dog", "a pet"]',
            ["'cat'", "'dog'", "same search 'a pet'"],
        ),
        ('name = "pets"\nsource = ["sample", "duckduckgo"]' + LABELS, ["sample", "do not mix"]),
        ('name = "pets"\nbroken' + LABELS, ["line 2", "broken", "name = value"]),
        ('name = "pets"\nsource = "nowhere"', ["nowhere", "is not there"]),
        ('name = "pets"\nhonour_noai = "no"' + LABELS, ["honour_noai", "'no'", "true or false"]),
        ('name = "pets"\nallowed_hosts = "nas.local"' + LABELS, ["allowed_hosts", "'nas.local'", "list"]),
        ('name = "pets"\nallowed_hosts = ["http://nas.local"]' + LABELS, ["'http://nas.local'", "without http://"]),
        ('name = "pets"\nallowed_hosts = ["nas:80000"]' + LABELS, ["'nas:80000'", '"nas.local:8080"']),
        (
            'name = "pets"\nlicense = "Public"' + LABELS,
            ["license", "did you mean license in the section [filters]?", "photos of your own"],
        ),
        ('name = "pets"\n[filters]\nlicence = "Public"' + LABELS, ["filters.licence", "did you mean license?"]),
        ('name = "pets"\n[filters]\nlicense = "free"' + LABELS, ["filters.license", "'free'", "'ModifyCommercially'"]),
        ('name = "pets"\n[filters]\nregion = "Peru"' + LABELS, ["filters.region", "'Peru'", "uk-en"]),
        ('name = "pets"\nschedule = "cosine"' + LABELS, ["schedule", "'cosine'", "'cyclic'"]),
        ('name = "pets"\naugment = "weak"' + LABELS, ["augment = 'weak'", "section of its own: [augment]"]),
        ('name = "pets"\n[augment]\nmax_rot = 20' + LABELS, ["augment.max_rot", "did you mean max_rotate?"]),
        ('name = "pets"\n[augment]\ngreyscale = 20' + LABELS, ["augment.greyscale = 20", "less than or equal to 1"]),
        ('name = "pets"\nmax_rotate = 20' + LABELS, ["did you mean max_rotate in the section [augment]?"]),
        ('name = "pets"\narch = "timm/../x"' + LABELS, ["arch = 'timm/../x'", "timm/NAME"]),
        ('name = "pets"\narch = "hf-hub:a/b"' + LABELS, ["arch = 'hf-hub:a/b'", "timm/NAME"]),
        ('name = "pets"\npatience = -1' + LABELS, ["patience = -1"]),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path, text, says):
    """The refusal names the file, the key, the value and what is wrong with it."""
    with pytest.raises(ProjectError) as refusal:
        load(tmp_path, text)
    assert "project.toml" in str(refusal.value)
    assert [part for part in says if part not in str(refusal.value)] == []


def test_photos_straight_in_the_source_are_told_where_to_go(tmp_path):
    """A folder source without subfolders has no labels: the refusal names the folders to make, not searches."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "IMG_1.jpg").write_bytes(b"")
    with pytest.raises(ProjectError) as refusal:
        load(tmp_path, 'name = "birds"\nsource = "photos"')
    assert f"{tmp_path / 'photos'}/<label>/" in str(refusal.value)
    assert "tilapia" not in str(refusal.value)


def test_what_a_collection_may_ask_and_reach(tmp_path):
    """Filters, allowed hosts and the noai switch are read; hosts in the form that addresses are compared in."""
    text = 'name = "pets"\nallowed_hosts = ["NAS.local", "[::1]", "Lab:8080", "[::1]:81"]\nhonour_noai = false\n'
    text += '[filters]\nlicense = "Public"\n'
    project = load(tmp_path, text + 'type = "photo"\nregion = "uk-en"' + LABELS)
    assert (project.allowed_hosts, project.honour_noai) == (["nas.local", "::1", "lab:8080", "[::1]:81"], False)
    assert project.filters == {"license": "Public", "type": "photo", "region": "uk-en"}
    plain = load(tmp_path, 'name = "pets"' + LABELS)
    assert (plain.allowed_hosts, plain.honour_noai, plain.filters) == ([], True, {})


def test_how_a_training_goes(tmp_path):
    """Schedule, augmentation by word or table, class weights and patience are read."""
    plain = load(tmp_path, 'name = "pets"' + LABELS)
    assert (plain.schedule, plain.augment, plain.class_weights, plain.patience) == ("one-cycle", "standard", False, 0)
    table = load(tmp_path, 'name = "pets"\n[augment]\nmax_rotate = 20\nflip_vert = true' + LABELS)
    assert table.augment == {"max_rotate": 20.0, "flip_vert": True}
    words = 'schedule = "smooth"\naugment = "strong"\nclass_weights = true\npatience = 3'
    other = load(tmp_path, f'name = "pets"\n{words}' + LABELS)
    assert (other.schedule, other.augment, other.class_weights, other.patience) == ("smooth", "strong", True, 3)


@pytest.mark.parametrize("method", ["read_text", "iterdir"])
def test_what_may_not_be_read_is_a_sentence(tmp_path, monkeypatch, method):
    """A project file or source folder that this account may not read is named, with what to do."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "project.toml").write_text('name = "birds"\nsource = "photos"')

    def denied(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(f"pathlib.Path.{method}", denied)
    with pytest.raises(ProjectError, match=r"project\.toml.*Permission denied.*read"):
        Project.load(tmp_path / "project.toml")


def test_the_words_of_source_are_known_however_they_are_written(tmp_path):
    """ "DuckDuckGo" is the search, and no folder of that name."""
    assert load(tmp_path, 'name = "pets"\nsource = "DuckDuckGo"' + LABELS).source == "duckduckgo"


def test_a_missing_file_says_where_to_copy_one_from(tmp_path):
    """Without a project file the message names the path and the gallery."""
    with pytest.raises(FileNotFoundError, match=r"nothing\.toml.*projects"):
        Project.load(tmp_path / "nothing.toml")


def test_a_relative_PROJECT_counts_from_the_repository(tmp_path, monkeypatch):
    """A kernel's working directory is the notebook's; PROJECT must mean the same file there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROJECT", "projects/animals.toml")
    assert len(Project.load().labels) == 10


def test_relative_paths_count_from_the_project_file(tmp_path):
    """A folder source and the two roots are relative to the file that names them."""
    for label in ("wren", "robin"):
        (tmp_path / "photos" / label).mkdir(parents=True)
    project = load(tmp_path, 'name = "birds"\nsource = "photos"\ndata_dir = "d"\nmodels_dir = "m"')
    assert project.places == (tmp_path / "photos",)
    assert (project.data, project.models) == (tmp_path / "d" / "birds", tmp_path / "m" / "birds")
    assert list(project.labels) == ["robin", "wren"]
    assert load(tmp_path, 'name = "birds"\nsource = "photos"\n[labels]').labels == project.labels


def test_labels_may_be_in_any_script(tmp_path):
    """Cyrillic, Chinese and joined emoji are labels like any other, in one Unicode form."""
    project = load(tmp_path, 'name = "п"\n[labels]\n"морской огурец" = ["x"]\n"海参" = ["y"]\n"👩‍🔬é" = ["z"]\n')
    assert set(project.labels) == {"морской огурец", "海参", "👩‍🔬é"}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "projects").glob("*.toml")), ids=lambda path: path.stem)
def test_every_project_of_the_gallery_loads(path, tmp_path):
    """What people copy from is valid (own_photos needs the folder that it names)."""
    copy = tmp_path / path.name
    copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    for label in ("robin", "wren"):
        (tmp_path / "photos" / label).mkdir(parents=True)
    project = Project.load(copy)
    assert project.task == "detect" or len(project.labels) >= 2  # one label is enough to find, or those of the boxes


@given(st.text(max_size=40))
def test_a_safe_name_is_one_path_part(name):
    """Whatever passes can be joined to a folder without leaving it."""
    if unsafe_name(name) is None:
        assert "/" not in name and "\\" not in name and name not in ("", ".", "..") and "\x00" not in name
