"""Masks from a folder: which are taken, which are refused and why, and what is never overwritten."""

import numpy as np
import pytest
from conftest import tree
from mask_pictures import add_photo, photo_and_mask, with_photos, write_pairs
from PIL import Image

from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.masks import masks_sentence, refused_table, take_masks
from utils.project import Project, ProjectError


@pytest.fixture
def source(tmp_path):
    """The folder that `mask_source` names."""
    return tmp_path / "outlines"


@pytest.fixture
def project(make_project, source):
    """A project with a source of masks."""
    source.mkdir()
    return make_project(mask_source=str(source))


def save_mask(folder, name, mask, **options):
    """Write a mask under a name."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    mask.save(path, **options)
    return path


def values_of(path):
    """Return a mask file's numbers."""
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)


def test_masks_of_own_photos_are_copied_under_their_ids(project, source):
    """By own name, by label and own name, and by id; 0 and 255, of the photo's size; nothing else is written."""
    dataset, ids = with_photos(project, 3)
    for n, name in enumerate(("IMG_0.png", "dog/IMG_1.png", f"{ids[2]}.png")):
        save_mask(source, name, photo_and_mask(n)[1])
    before = tree(source)
    taken = take_masks(dataset)
    assert (taken.copied, len(taken.drawn), taken.refused) == (3, 3, ())
    found = {path.stem: values_of(path) for path in (project.data / "masks").iterdir()}
    assert found.keys() == set(ids) and tree(source) == before
    for n, id in enumerate(ids):
        np.testing.assert_array_equal(found[id], np.asarray(photo_and_mask(n)[1]))


def test_a_mask_that_is_there_is_never_overwritten(project, source):
    """What lies in masks/ is a person's: the source has another, and is not taken."""
    dataset, ids = with_photos(project, 1)
    own = save_mask(project.data / "masks", f"{ids[0]}.png", photo_and_mask(9)[1])
    kept = own.read_bytes()
    save_mask(source, "IMG_0.png", photo_and_mask(0)[1])
    taken = take_masks(dataset)
    assert (taken.copied, len(taken.drawn)) == (0, 1) and own.read_bytes() == kept


def test_dark_things_and_soft_edges(make_project, source):
    """In a JPEG of a dark thing, what is below 128 is the thing: stored as 255, without values between."""
    source.mkdir()
    project = make_project(mask_source=str(source), mask_thing="dark")
    dataset, ids = with_photos(project, 1)
    _, mask = photo_and_mask(0)
    dark = Image.fromarray(255 - np.asarray(mask)).convert("RGB")
    path = save_mask(source, "IMG_0.jpg", dark, quality=60)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2
    take_masks(dataset)
    stored = values_of(project.data / "masks" / f"{ids[0]}.png")
    assert set(np.unique(stored)) == {0, 255}
    assert np.mean(stored == np.asarray(mask)) > 0.995


def test_a_larger_mask_of_the_same_shape_is_scaled(project, source):
    """Masks drawn on the photo before 02 reduced it fit: each pixel is that which is nearest, none is mixed."""
    dataset, ids = with_photos(project, 1)
    large = Image.fromarray(np.random.default_rng(0).choice(np.uint8([0, 255]), (360, 480)))
    save_mask(source, "IMG_0.png", large)
    assert take_masks(dataset).refused == ()
    nearest = np.asarray(large)[1::3, 1::3]
    np.testing.assert_array_equal(values_of(project.data / "masks" / f"{ids[0]}.png"), nearest)


BAD = {
    "another shape": (Image.new("L", (120, 160)), "its size is 120×160, its photo's 160×120"),
    "colour": (photo_and_mask(0)[0], "it is in colour"),
    "empty": (Image.new("L", (160, 120)), "nothing of it is the thing: its values are 0 to 0"),
    "full": (Image.new("L", (160, 120), 255), "all of it is the thing: its values are 255 to 255"),
    "0 and 1": (Image.fromarray((np.asarray(photo_and_mask(0)[1]) > 0).astype(np.uint8)), "its values are 0 to 1"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_mask_that_cannot_be_is_told_and_not_used(project, source, kind):
    """Another shape, colours, nothing or everything: a reason with the values, no file, and the others are taken."""
    dataset, _ = with_photos(project, 2)
    image, told = BAD[kind]
    save_mask(source, "IMG_0.png", image)
    save_mask(source, "IMG_1.png", photo_and_mask(1)[1])
    taken = take_masks(dataset)
    ((name, reason),) = taken.refused
    assert name == "IMG_0.png" and told in reason
    assert (taken.copied, len(taken.drawn)) == (1, 1)
    assert refused_table(taken).values.tolist() == [[reason, 1, "IMG_0.png"]]
    assert "Not used: 1" in masks_sentence(taken, wanted=True)


def test_a_file_that_is_no_picture_is_told(project, source):
    """Bytes of something else under a picture's name are a reason, not an error."""
    dataset, _ = with_photos(project, 1)
    (source / "IMG_0.png").write_bytes(b"<html>")
    ((_, reason),) = take_masks(dataset).refused
    assert reason.startswith("it cannot be read")


def test_masks_and_photos_without_each_other_are_counted(project, source):
    """Of images/ and masks/: what has no partner, and a second file of the same name."""
    write_pairs(source, 3)
    (source / "masks" / "0.png").rename(source / "masks" / "7.png")
    save_mask(source, "masks/1.jpg", photo_and_mask(1)[1])
    taken = take_masks(read_dataset(project))
    assert [mask.name for mask in taken.drawn] == ["1.jpg", "2.jpg"]
    assert taken.refused == (
        ("images/0.jpg", "a photo without a mask"),
        ("masks/1.png", "another mask has the same photo"),
        ("masks/7.png", "it has no photo"),
    )


def test_photos_that_the_source_brings_are_not_classified(project, source):
    """They are used where they lie: no file of the project is written, and the data set does not grow."""
    write_pairs(source, 3)
    with_photos(project, 2)
    before = tree(project.data)
    taken = take_masks(read_dataset(project))
    assert (len(taken.drawn), taken.copied, tree(project.data)) == (3, 0, before)


def test_a_mask_of_a_photo_that_is_gone_is_counted(project):
    """masks/<id>.png of a photo that left the project is told, and stays."""
    dataset, _ = with_photos(project, 1)
    path = save_mask(project.data / "masks", "0123456789abcdef.png", photo_and_mask(0)[1])
    assert take_masks(dataset).refused == (("masks/0123456789abcdef.png", "its photo is no longer in the project"),)
    assert path.exists()


def test_one_name_for_two_photos_needs_a_folder(project, source):
    """IMG_1.jpg of two labels: the bare name is refused, dog/IMG_1.png is taken."""
    add_photo(project, 1, "cat", name="IMG_1.jpg")
    id = add_photo(project, 2, "dog", name="IMG_1.jpg")
    dataset = read_dataset(project)
    save_mask(source, "IMG_1.png", photo_and_mask(1)[1])
    save_mask(source, "dog/IMG_1.png", photo_and_mask(2)[1])
    ((name, reason),) = take_masks(dataset).refused
    assert name == "IMG_1.png" and "that of 2 photos" in reason
    assert [path.stem for path in (project.data / "masks").iterdir()] == [id]


def test_photos_of_validation_and_test_set_do_not_train(project, source):
    """Their masks only judge; so does a brought photo that is one of them, byte by byte."""
    sides = ("train", "valid", "test")
    ids = [add_photo(project, n, "cat", side=side) for n, side in enumerate(sides)]
    for n, id in enumerate(ids):
        save_mask(project.data / "masks", f"{id}.png", photo_and_mask(n)[1])
    copy = add_photo(project, 5, "dog", side="valid")
    (source / "images").mkdir()
    (source / "images" / "a.jpg").write_bytes((project.images / "dog" / f"{copy}.jpg").read_bytes())
    save_mask(source, "masks/a.png", photo_and_mask(5)[1])
    trains = {mask.name: mask.trains for mask in take_masks(read_dataset(project)).drawn}
    told = {f"IMG_{n}.jpg ({id})": side == "train" for n, (id, side) in enumerate(zip(ids, sides, strict=True))}
    assert trains == told | {"a.jpg": False}


def test_a_second_call_writes_nothing(project, source):
    """Everything is there already."""
    dataset, _ = with_photos(project, 2)
    save_mask(source, "IMG_0.png", photo_and_mask(0)[1])
    first = take_masks(dataset)
    before = tree(project.data)
    second = take_masks(dataset)
    assert (first.copied, second.copied) == (1, 0)
    assert second.drawn == first.drawn and tree(project.data) == before


def test_without_a_source_there_is_nothing_to_do(make_project):
    """One sentence, and masks that lie in masks/ are used all the same."""
    project = make_project()
    dataset, ids = with_photos(project, 1)
    assert masks_sentence(take_masks(dataset), wanted=False).startswith("There is nothing to do")
    save_mask(project.data / "masks", f"{ids[0]}.png", photo_and_mask(0)[1])
    assert masks_sentence(take_masks(dataset), wanted=False).startswith("1 mask can be used")


@pytest.mark.parametrize("place", ["nowhere", "data/pets/masks", "data"])
def test_a_source_that_cannot_be_is_refused(make_project, tmp_path, place):
    """A folder that is not there, one of the project's own, and one that holds it."""
    (tmp_path / "data" / "pets" / "masks").mkdir(parents=True)
    project = make_project(mask_source=str(tmp_path / place))
    with pytest.raises(FieldguideError, match="mask_source = "):
        take_masks(read_dataset(project))


def test_the_key_counts_from_the_project_file(tmp_path):
    """A relative mask_source lies beside the project file, and mask_thing is one of two words."""
    text = 'name = "a"\nmask_source = "outlines"\nmask_thing = "{}"\n[labels]\na = ["a"]\nb = ["b"]\n'
    path = tmp_path / "project.toml"
    path.write_text(text.format("dark"), encoding="utf-8")
    assert Project.load(path).mask_source == str(tmp_path / "outlines")
    path.write_text(text.format("drak"), encoding="utf-8")
    with pytest.raises(ProjectError, match='did you mean "dark"'):
        Project.load(path)
