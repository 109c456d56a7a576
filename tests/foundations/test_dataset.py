"""The data set: one frozen table, read once, that says of a picture what the disk says."""

import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from conftest import draw_picture, picture_bytes
from four_pictures import make_four, put
from watching import watched

from utils.dataset import Dataset, Picture, read_dataset, round_fingerprint
from utils.download import read_folder, save_pictures, source_pictures
from utils.errors import FieldguideError
from utils.ledger import Ledger, save_flag
from utils.project import REPOSITORY
from utils.tables import SOURCES_COLUMNS, SPLIT_COLUMNS, append_rows, write_table
from utils.verify import verify_images


@pytest.fixture
def project(tmp_path):
    return make_four(tmp_path)


def give_sides(project, **sides):
    """Write split.csv: id → side, b in the group of a."""
    rows = [{"id": id, "group": "a" if id == "b" else id, "side": side} for id, side in sides.items()]
    write_table(project.table("split"), SPLIT_COLUMNS, rows)


def test_the_columns_are_sorted_by_id(project):
    """The folder is the label, split.csv gives group and side; what it tells of absent pictures is kept beside."""
    give_sides(project, a="train", b="valid", zz="test")
    put(project.images / "собака" / "0.jpg", "first by its id, last by its label")
    dataset = read_dataset(project)
    assert dataset.ids == ("0", "a", "b", "c", "d")
    assert dataset.labels == ("собака", "cat", "cat", "собака", "собака") and dataset.codes == (2, 1, 1, 2, 2)
    assert dataset.paths == tuple(
        project.images / label / f"{id}.jpg" for id, label in zip(dataset.ids, dataset.labels, strict=True)
    )
    assert dataset.groups == ("0", "a", "a", "c", "d") and dataset.sides == (None, "train", "valid", None, None)
    assert dataset.split["zz"] == ("zz", "test")


def test_hidden_and_other_files_are_left_out(project):
    """Only files named <id>.jpg are pictures: no hidden file, no other kind, no folder of such a name."""
    for name in (".hidden.jpg", "notes.txt", "e.png"):
        put(project.images / "cat" / name, "")
    (project.images / "cat" / "folder.jpg").mkdir()
    assert read_dataset(project).ids == ("a", "b", "c", "d")


def test_labels_that_left_the_project_are_left_out(project):
    """Their folders stay as they are, and no picture of them is in the data set."""
    put(project.images / "not a label" / "f.jpg", "")
    smaller = project.model_copy(update={"labels": {"bird": [], "собака": []}})
    assert read_dataset(project).ids == ("a", "b", "c", "d") and read_dataset(smaller).ids == ("c", "d")


def test_the_disk_is_read_once(project):
    """One listing per label and one reading of split.csv; asking for rows, sides and the fingerprint reads nothing."""
    give_sides(project, a="train", b="valid")
    with watched() as seen:
        dataset = read_dataset(project)
        assert dataset.on("train").fingerprint != dataset.fingerprint and dataset["a"].side == "train"
        near = {path: n for path, n in seen.items() if path.startswith(str(project.data))}
    folders = [str(project.images / label) for label in project.labels if (project.images / label).is_dir()]
    assert near == dict.fromkeys([*folders, str(project.table("split"))], 1)


def test_a_picture_is_a_row(project):
    """By id, in a loop, and counted."""
    give_sides(project, a="train", b="valid", zz="test")
    dataset = read_dataset(project)
    assert dataset["b"] == Picture("b", project.images / "cat" / "b.jpg", "cat", "a", "valid")
    assert "b" in dataset and "zz" not in dataset and len(dataset) == 4
    assert [picture.id for picture in dataset] == list(dataset.ids)
    assert repr(dataset) == "<Dataset 't' of 4 pictures>"


def test_a_part_of_a_data_set_is_one(project):
    """By side, label or any wish, in the same order, with every column; the whole stays as it is."""
    give_sides(project, a="train", b="valid", c="train", d="test")
    dataset = read_dataset(project)
    assert dataset.on("train").ids == ("a", "c") and dataset.on("valid", "test").ids == ("b", "d")
    assert dataset.of("cat").ids == ("a", "b") and dataset.of("cat").on("valid")["b"] == dataset["b"]
    assert dataset.where(lambda picture: picture.group == "a").labels == ("cat", "cat")
    other = dataset.with_split({"a": ("g", "test")})
    assert (other.groups, other.sides) == (("g", "b", "c", "d"), ("test", None, None, None))
    assert dataset == read_dataset(project)
    with pytest.raises(FrozenInstanceError):
        dataset.sides = ()
    assert len(Dataset.COLUMNS) == len(fields(Picture))


def test_a_picture_under_two_labels_is_refused(project):
    """Nobody can know which label is meant: both are named."""
    put(project.images / "bird" / "a.jpg", "another")
    with pytest.raises(FieldguideError, match=r"a\.jpg lies under two labels: 'bird' and 'cat'.*Remove one"):
        read_dataset(project)


def test_an_unknown_side_is_refused(project):
    """A table edited by hand: the value, the picture and what to do."""
    give_sides(project, a="trian")
    with pytest.raises(FieldguideError, match=r"split\.csv says 'trian' for picture a.*Correct that line"):
        read_dataset(project)


def test_the_fingerprint_follows_pictures_labels_and_sides(project):
    """Moving a picture to another label or side, or taking it away, makes a trained model stale; a group does not."""
    give_sides(project, a="train", b="valid", c="train")
    prints = [read_dataset(project).fingerprint]
    give_sides(project, a="valid", b="valid", c="train")
    prints.append(read_dataset(project).fingerprint)
    (project.images / "cat" / "a.jpg").rename(project.images / "собака" / "a.jpg")
    prints.append(read_dataset(project).fingerprint)
    (project.images / "собака" / "d.jpg").unlink()
    prints.append(read_dataset(project).fingerprint)
    two_labels = project.model_copy(update={"labels": {"cat": [], "собака": []}})
    prints.append(read_dataset(two_labels).fingerprint)
    assert len(set(prints)) == 5
    rows = [{"id": id, "group": "g", "side": side} for id, side in (("a", "valid"), ("b", "valid"), ("c", "train"))]
    write_table(project.table("split"), SPLIT_COLUMNS, rows)
    assert read_dataset(project).fingerprint == prints[3]


def test_a_round_is_of_pictures_and_of_settings(project):
    """Another seed, another setting or another picture is another round; the order of the settings is not."""
    dataset = read_dataset(project)
    settings = {"seed": 42, "epochs": 4, "augment": {"max_rotate": 20.0}}
    first = round_fingerprint(dataset, settings)
    assert round_fingerprint(dataset, dict(reversed(settings.items()))) == first
    others = [settings | {"seed": 43}, settings | {"epochs": 3}, settings | {"augment": {}}, {}]
    prints = [round_fingerprint(dataset, other) for other in others] + [round_fingerprint(dataset.of("cat"), settings)]
    assert len({first, *prints}) == 6 and all(len(print) == 16 for print in prints)


def test_names_are_those_a_person_gave(make_project, tmp_path):
    """A photo from a folder, one that the web had too, one dropped into images/; also after it was moved to a label."""
    project = make_project(source=[str(tmp_path / "photos"), "duckduckgo"])
    names = ("IMG 1.jpg", "Ёж, 2.jpg", "web.jpg", "hand.jpg")
    drawn = {name: picture_bytes(draw_picture(n)) for n, name in enumerate(names)}
    for name, label in (("IMG 1.jpg", "cat"), ("Ёж, 2.jpg", "dog"), ("web.jpg", "dog")):
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / label / name).write_bytes(drawn[name])
    photos = {picture.title: picture for picture in source_pictures(read_folder(tmp_path / "photos", project.labels))}
    web = {"engine": "duckduckgo", "title": "A title of a page", "url": "https://example.com/1.jpg"}
    save_pictures(project, [replace(photos["web.jpg"], **web)])
    save_pictures(project, source_pictures(read_folder(tmp_path / "photos", project.labels)))
    (project.images / "cat").mkdir(parents=True)
    (project.images / "cat" / "hand.jpg").write_bytes(drawn["hand.jpg"])
    verify_images(project)
    dataset = read_dataset(project)
    moved = dataset.ids[dataset.names.index("IMG 1.jpg")]
    save_flag(project, moved, "dog")
    Ledger(project).apply()
    with watched() as seen:
        dataset = read_dataset(project)
        assert seen[str(project.table("sources"))] == 0
        named = dict(zip(dataset.names, dataset.labels, strict=True))
        assert named == {"IMG 1.jpg": "dog", "Ёж, 2.jpg": "dog", "web.jpg": "dog", "hand.jpg": "cat"}
        assert dataset.of("cat").names == ("hand.jpg",)
        assert seen[str(project.table("sources"))] == 1


def test_a_file_in_two_folders_has_the_name_it_has_under_its_label(project):
    """Of a photo that came under two labels and was taken back under one, the name there counts."""
    rows = [("a", "bird", "x.jpg"), ("a", "cat", "y.jpg"), ("b", "bird", "z.jpg"), ("", "cat", "broken.jpg")]
    rows = [{"id": id, "label": label, "title": title, "engine": "folder"} for id, label, title in rows]
    append_rows(project.table("sources"), SOURCES_COLUMNS, rows)
    assert read_dataset(project).names == ("y.jpg", "z.jpg", "", "")


def test_a_picture_is_called_by_its_own_name_first(project):
    """Its giver's name, then its id; a picture from the web is called as before, and its page's title is no name."""
    rows = [{"id": "a", "label": "cat", "engine": "folder", "title": "IMG 1.jpg"}]
    rows += [{"id": "b", "label": "cat", "engine": "ddgs", "title": "A page"}]
    append_rows(project.table("sources"), SOURCES_COLUMNS, rows)
    records, (a, b) = read_dataset(project).records, (project.images / "cat" / f"{id}.jpg" for id in "ab")
    assert (records.told(a), records.told(b)) == ("IMG 1.jpg (a)", "b.jpg")
    assert (records.caption(a), records.caption(b)) == ("IMG 1.jpg\na", "b")
    assert (records.caption(a, "cat"), records.caption(b, "cat")) == ("IMG 1.jpg\ncat", "cat")
    assert records.told(project.raw / "dog" / "a.png") == "IMG 1.jpg (a)"


ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
from utils.dataset import read_dataset
from utils.project import Project
from utils.storage import written
project = Project.load(sys.argv[2])
print(project.data, len(read_dataset(project)), written(project.data, project.table("split")))
"""


def test_utils_may_be_imported_from_any_working_directory(tmp_path):
    """Another directory changes no path: a project's data lie in the repository's data folder by default."""
    path = put(tmp_path / "p.toml", 'name = "nobody has this"\n[labels]\ncat = ["cat"]\ndog = ["dog"]\n')
    command = [sys.executable, "-c", ELSEWHERE, str(REPOSITORY), path.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"{REPOSITORY / 'data' / 'nobody has this'} 0 Nothing was written.\n", done.stderr
    assert [found.name for found in tmp_path.iterdir()] == ["p.toml"]
