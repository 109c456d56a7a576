"""The offline sample keeps its promises: determinism, counts, and faults that are what they are called."""

from collections import Counter
from io import BytesIO
from itertools import combinations

import imagehash
import pandas as pd
import pytest
from conftest import tree
from PIL import Image, UnidentifiedImageError

from sample import (
    BROKEN,
    FAULTS,
    LABELS,
    SamplePicture,
    accuracy_against_truth,
    faults_caught,
    gathered_sample,
    near_duplicates_together,
    read_truth,
    sample_pictures,
    save_sample,
    write_truth,
    wrong_labels_found,
)
from utils.dataset import read_dataset
from utils.download import save_pictures
from utils.project import Project
from utils.storage import content_id
from utils.tables import SOURCES_COLUMNS, read_rows
from utils.verify import verify_images

PER_LABEL = 12


@pytest.fixture(scope="module")
def pictures():
    return list(sample_pictures(LABELS, per_label=PER_LABEL, seed=7))


@pytest.fixture(scope="module")
def by_name(pictures):
    return {picture.name: picture for picture in pictures}


def with_fault(pictures, *faults):
    return [picture for picture in pictures if picture.fault in faults]


def phash(picture):
    return imagehash.phash(Image.open(BytesIO(picture.data)))


def test_same_seed_same_records():
    """Two runs, and two orders of the labels, give the same records, byte for byte."""
    first = list(sample_pictures(LABELS, per_label=2, seed=7))
    assert first == list(sample_pictures(LABELS[::-1], per_label=2, seed=7))


def test_subset_keeps_bytes(by_name):
    """A picture without fault does not depend on which other labels, or how many pictures, are drawn."""
    for picture in sample_pictures(["tilapia"], per_label=4, seed=7):
        if by_name[picture.name].fault == "" == picture.fault:
            assert by_name[picture.name] == picture


def test_other_seed_other_bytes(by_name):
    """Another seed draws other pictures under the same names."""
    for picture in sample_pictures(["tilapia"], per_label=2, seed=8):
        assert by_name[picture.name].data != picture.data


def test_lazy():
    """The first picture comes before the rest is drawn: a huge sample costs nothing until it is walked."""
    assert next(sample_pictures(LABELS, per_label=500)).name == "penaeus monodon/000.jpg"


def test_counts(pictures):
    """At 12 a label: 12 good pictures under each, one fault of each kind on top, names unique."""
    good = Counter(picture.label for picture in with_fault(pictures, "", "wrong label"))
    assert dict.fromkeys(LABELS, PER_LABEL) == good
    extras = Counter(picture.fault for picture in pictures) - Counter({"": 99, "wrong label": 99})
    assert dict.fromkeys(FAULTS[1:], 1) == extras
    assert len(pictures) == len({picture.name for picture in pictures})


@pytest.mark.parametrize("per_label", [1, 3, 6])
def test_small_samples(per_label):
    """Any number from 1 on works, with fewer faults."""
    good = with_fault(list(sample_pictures(LABELS, per_label=per_label)), "", "wrong label")
    assert per_label * len(LABELS) == len(good)


def test_wrong_labels(pictures):
    """6 % of the good pictures, rounded, are filed under a label that they do not show; all others under their own."""
    wrong = with_fault(pictures, "wrong label")
    assert round(0.06 * PER_LABEL * len(LABELS)) == len(wrong)
    assert all(picture.true_label != picture.label and picture.true_label in LABELS for picture in wrong)
    assert all(picture.true_label == picture.label for picture in with_fault(pictures, ""))


def test_good_pictures_open(pictures):
    """Every good picture is an RGB JPEG with sides of at least 64 pixels."""
    for picture in with_fault(pictures, "", "wrong label"):
        image = Image.open(BytesIO(picture.data))
        image.load()
        assert (image.format, image.mode) == ("JPEG", "RGB") and min(image.size) >= 64


def test_broken_have_no_label(pictures):
    """A broken file shows nothing: its true label is empty."""
    assert {""} == {picture.true_label for picture in with_fault(pictures, *BROKEN)}


@pytest.mark.parametrize("fault", ["empty", "html", "not a picture"])
def test_not_pictures(pictures, fault):
    """Pillow does not recognise empty files, error pages and other bytes."""
    for picture in with_fault(pictures, fault):
        with pytest.raises(UnidentifiedImageError):
            Image.open(BytesIO(picture.data))
        assert (picture.data == b"") == (fault == "empty")
        assert (b"<html>" in picture.data) == (fault == "html")


def test_truncated(pictures):
    """A truncated file opens as a JPEG and then fails to load."""
    for picture in with_fault(pictures, "truncated"):
        image = Image.open(BytesIO(picture.data))
        with pytest.raises(OSError, match="truncated"):
            image.load()


def test_tiny_and_flat(pictures):
    """A tiny picture is one pixel; a flat one is larger and, but for compression, of one colour."""
    for picture in with_fault(pictures, "tiny"):
        assert Image.open(BytesIO(picture.data)).size == (1, 1)
    for picture in with_fault(pictures, "flat"):
        image = Image.open(BytesIO(picture.data))
        assert min(image.size) >= 64
        assert all(high - low <= 2 for low, high in image.getextrema())


def test_exact_copies(pictures, by_name):
    """An exact copy has the bytes of the picture that it names, under the same label or, as its fault says, another."""
    for picture in with_fault(pictures, "exact copy", "copy under another label"):
        original = by_name[picture.of]
        assert original.data == picture.data
        assert original.true_label == picture.true_label
        assert (original.label == picture.label) == (picture.fault == "exact copy")


def test_copies_are_the_only_equal_files(pictures):
    """No two files are equal, but for the planted copies."""
    others = [picture.data for picture in pictures if "copy" not in picture.fault or picture.fault == "near-copy"]
    assert len(others) == len(set(others))


def test_near_duplicates(pictures, by_name):
    """A near-duplicate has other bytes than its original and nearly the same perceptual hash."""
    pairs = [(picture, by_name[picture.of]) for picture in with_fault(pictures, "near-copy")]
    for copy, original in pairs:
        assert (original.label, original.true_label) == (copy.label, copy.true_label)
        assert original.data != copy.data
        assert phash(original) - phash(copy) <= 8


def test_originals_differ(pictures):
    """Different pictures are no near-duplicates of each other: their hashes lie far apart."""
    hashes = [phash(picture) for picture in with_fault(pictures, "", "wrong label")]
    assert min(a - b for a, b in combinations(hashes, 2)) > 8


@pytest.mark.parametrize("labels", [["tilapia", "unicorn"], ["unicorn"]])
def test_unknown_label(labels):
    """A label that cannot be drawn is refused at once, by name, with those that can."""
    with pytest.raises(ValueError, match=r"unicorn.*penaeus monodon.*sea cucumber.*tilapia"):
        sample_pictures(labels)


def test_nothing_asked():
    """Fewer than one picture a label is refused, with the number."""
    with pytest.raises(ValueError, match="0"):
        sample_pictures(LABELS, per_label=0)


def test_the_truth_of_two_samples_is_kept_together(tmp_path):
    """Each copy's `of` leads to the picture that it was made from, in whichever sample; nothing is there twice."""
    labels = {label: [] for label in LABELS}
    folders = {"data_dir": str(tmp_path / "data"), "models_dir": str(tmp_path / "models")}
    project = Project.model_validate({"name": "t", "labels": labels, "source": "sample", **folders})
    samples = [list(sample_pictures(LABELS, per_label=10, seed=seed)) for seed in (1, 2)]
    for drawn in (*samples, samples[0]):
        write_truth(project, drawn)
    truth = read_truth(project)
    assert len(truth) == len(set(truth.url)) == len({(p.name, p.data) for drawn in samples for p in drawn})
    planted = {(p.id, p.true_label, p.fault) for p in truth.itertuples()}
    assert planted == {(content_id(p.data), p.true_label, p.fault) for drawn in samples for p in drawn}

    groups, near = {}, 0
    for number, drawn in enumerate(samples):
        named = {picture.name: picture for picture in drawn}
        for copy in with_fault(drawn, "near-copy"):
            near += 1
            groups[content_id(copy.data)] = groups[content_id(named[copy.of].data)] = f"{number} {copy.of}"
    counts = near_duplicates_together(project, groups).iloc[0].to_dict()
    assert counts == {"planted": near, "both in the training set": near, "in one group": near} and near >= 2


def test_accuracy_against_the_truth_has_an_interval(tmp_path):
    """Of four pictures, one in the wrong folder, the folders say 3 of 4 and the pictures 4 of 4, within Wilson."""
    folders = {"data_dir": str(tmp_path / "data"), "models_dir": str(tmp_path / "models")}
    project = Project.model_validate({"name": "t", "labels": {"cat": [], "dog": []}, "source": "sample", **folders})
    shows = ["cat", "cat", "dog", "dog"]
    drawn = [SamplePicture(f"{n}.jpg", "cat", label, "", bytes([n])) for n, label in enumerate(shows)]
    write_truth(project, drawn)
    said = pd.DataFrame({"id": [content_id(p.data) for p in drawn], "label": ["cat", "cat", "cat", "dog"]})
    table = accuracy_against_truth(project, said.assign(predicted=shows))
    assert table["accuracy against"].tolist() == [0.75, 1.0]
    assert table["95 % from"].tolist() == [0.301, 0.51]  # Wilson's for 3 and 4 of 4
    assert table["to"].tolist() == [0.954, 1.0]
    assert table.n.tolist() == [4, 4]


@pytest.fixture(scope="module")
def verified(pictures, tmp_path_factory):
    """The project of `pictures` after 01 and 02."""
    folder = tmp_path_factory.mktemp("sample")
    folders = {"data_dir": str(folder / "data"), "models_dir": str(folder / "models")}
    labels = {label: [] for label in LABELS}
    project = Project.model_validate({"name": "t", "labels": labels, "source": "sample", **folders})
    write_truth(project, pictures)
    save_pictures(project, gathered_sample(pictures))
    verify_images(project)
    return project


def test_the_sample_is_kept_with_its_faults(verified, pictures):
    """Byte for byte, each file under its label, the broken and the empty ones too; each has a row."""
    files = {(path.parent.name, path.read_bytes()) for path in verified.raw.glob("*/*")}
    assert files == {(picture.label, picture.data) for picture in pictures}
    assert len(list(verified.raw.glob("*/e3b0c44298fc1c14.bin"))) == 1  # the empty one
    rows = read_rows(verified.table("sources"), SOURCES_COLUMNS)
    assert len(rows) == len(pictures) and {row["license"] for row in rows} == {"CC0-1.0 (drawn)"}


def test_another_sample_adds_its_pictures(make_project):
    """A larger sample or another seed draws what is new and asks for nothing twice."""
    labels = {"tilapia": [], "sea cucumber": []}

    def gather(per_label, seed):
        project = make_project(labels=labels, source="sample", images_per_label=per_label, seed=seed)
        assert save_sample(project)
        return project, list(sample_pictures(labels, per_label=per_label, seed=seed))

    every = [gather(2, 1)[1], gather(3, 1)[1], gather(2, 2)[1]]
    project, _ = gather(2, 1)
    there = {(path.parent.name, path.read_bytes()) for path in project.raw.glob("*/*")}
    assert there == {(picture.label, picture.data) for drawn in every for picture in drawn}
    urls = {row["url"] for row in read_rows(project.table("sources"), SOURCES_COLUMNS)}
    assert urls == set(read_truth(project).url) and len(urls) == 10
    rows = read_rows(project.table("sources"), SOURCES_COLUMNS)
    assert len(rows) == len({picture.url for drawn in every for picture in drawn})


def test_a_sample_that_is_there_is_not_drawn_again(make_project, monkeypatch):
    """The second run reads two tables; with a row missing, another setting or changed code, it draws."""
    project = make_project(labels={"tilapia": [], "sea cucumber": []}, source="sample", images_per_label=2)
    assert save_sample(project)
    state, raw = tree(project.data), tree(project.raw)
    with monkeypatch.context() as patched:
        patched.setattr("sample.filing.sample_pictures", None)  # calling it would fail
        assert not save_sample(project) and tree(project.data) == state
    lines = project.table("sources").read_bytes().splitlines(keepends=True)
    project.table("sources").write_bytes(b"".join(lines[:-1]))
    assert save_sample(project) and tree(project.raw) == raw  # its row has another time, and nothing else is new
    with monkeypatch.context() as patched:
        patched.setattr("sample.filing._asked", lambda project: {"code": "another"})
        assert save_sample(project)


def test_every_planted_fault_is_caught(verified):
    """Broken files, exact copies and pictures of two labels, as 01 and 02 noted them; near-duplicates stay."""
    table = faults_caught(verified)
    planted = dict.fromkeys((*BROKEN, "exact copy", "copy under another label"), 1)
    assert table.planted.to_dict() == table.caught.to_dict() == planted | {"all": len(planted)}


def test_wrong_labels_are_counted_where_the_pictures_lie_now(verified, pictures):
    """Of W wrong labels, those among the first W and 2 W suspects; one that a person put right counts no more."""
    dataset = read_dataset(verified)
    wrong = [content_id(picture.data) for picture in with_fault(pictures, "wrong label")]
    wrong = [id for id in wrong if id in dataset]
    right = [id for id in dataset.ids if id not in wrong]
    suspects = [wrong[0], *right[: len(wrong)], *wrong[1:]]
    table = wrong_labels_found(dataset, suspects)
    assert table.values.tolist() == [[len(wrong), len(wrong), 1], [2 * len(wrong), len(wrong), len(wrong)]]
    shows = {content_id(picture.data): picture.true_label for picture in pictures}
    path = dataset[wrong[0]].path
    path.rename(verified.images / shows[wrong[0]] / path.name)
    assert len(wrong) == 2 and wrong_labels_found(read_dataset(verified), wrong).values.tolist() == [
        [1, 1, 0],
        [2, 1, 1],
    ]
