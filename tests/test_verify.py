"""02: what is kept, what is set aside and why; hands are welcome; nothing is done twice."""

import pytest
from conftest import draw_picture, picture_bytes, put_raw, tree
from PIL import Image

from utils import verify
from utils.files import FieldguideError, read_rows
from utils.pictures import open_picture
from utils.project import PICTURES_COLUMNS, REJECTED_COLUMNS
from utils.verify import verify_images


def reasons(project):
    """Return id → reason of everything set aside."""
    return {row["id"]: row["reason"] for row in read_rows(project.table("rejected"), REJECTED_COLUMNS)}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>", "not a picture"),
        (picture_bytes(draw_picture(1))[:1000], "truncated"),
        (picture_bytes(Image.new("RGB", (1, 1))), "too small"),
        (picture_bytes(draw_picture(1, size=(63, 200))), "too small: 63×200"),
        (picture_bytes(draw_picture(1, size=(700, 100))), "extreme aspect"),
        (picture_bytes(Image.new("RGB", (200, 200), "teal")), "one flat colour"),
    ],
)
def test_junk_is_set_aside_with_its_reason(make_project, fill_raw, data, reason):
    """Each kind of junk gets its reason in rejected.csv, and no training copy."""
    project = make_project()
    fill_raw(project, 2)
    id = put_raw(project, "cat", data, "bin")
    report = verify_images(project)
    assert reason in reasons(project)[id]
    assert (report.added, report.set_aside) == (4, 1)
    assert id not in project.pictures()


def test_the_training_copy_is_rgb_upright_and_at_most_512(make_project, fill_raw):
    """A large transparent PNG ends as a JPEG of 512 pixels; raw/ keeps its bytes."""
    project = make_project()
    fill_raw(project, 1)
    before = tree(project.raw)
    id = put_raw(project, "cat", picture_bytes(draw_picture(9, size=(1500, 900)).convert("RGBA"), "PNG"), "png")
    verify_images(project)
    with Image.open(project.images / "cat" / f"{id}.jpg") as copy:
        assert (copy.format, copy.mode, copy.size) == ("JPEG", "RGB", (512, 307))
    assert before.items() <= tree(project.raw).items()


def test_the_same_picture_under_two_labels_is_kept_under_neither(make_project, fill_raw):
    """Both are new, so nobody can tell which label is right."""
    project = make_project()
    fill_raw(project, 2)
    data = picture_bytes(draw_picture(77))
    id = put_raw(project, "cat", data)
    put_raw(project, "dog", data)
    verify_images(project)
    assert id not in project.pictures()
    assert [row["label"] for row in read_rows(project.table("rejected"), REJECTED_COLUMNS)] == ["cat", "dog"]


def test_only_the_newcomer_is_set_aside_when_a_known_picture_comes_again(make_project, fill_raw):
    """Found again under another label, the picture stays where it was accepted."""
    project = make_project()
    id = fill_raw(project, 2)["cat"][0]
    verify_images(project)
    put_raw(project, "dog", next(project.raw.glob(f"cat/{id}.*")).read_bytes())
    verify_images(project)
    assert project.pictures()[id].parent.name == "cat"
    assert "already under 'cat'" in reasons(project)[id]


def test_what_a_person_removed_or_moved_does_not_come_back(make_project, fill_raw):
    """A second run leaves a deleted picture deleted and a moved one where it was moved to."""
    project = make_project()
    ids = fill_raw(project, 3)["cat"]
    verify_images(project)
    (project.images / "cat" / f"{ids[0]}.jpg").unlink()
    (project.images / "cat" / f"{ids[1]}.jpg").rename(project.images / "dog" / f"{ids[1]}.jpg")
    before = tree(project.images)
    report = verify_images(project)
    assert (report.added, tree(project.images)) == (0, before)


def test_a_photo_dropped_into_a_label_folder_is_taken_in(make_project, fill_raw):
    """It gets an id and a training copy; its own bytes move to raw/."""
    project = make_project()
    fill_raw(project, 2)
    verify_images(project)
    data = picture_bytes(draw_picture(500, size=(900, 600)), "PNG")
    (project.images / "dog" / "my dog.PNG").write_bytes(data)
    (project.images / "dog" / "broken.jpg").write_bytes(b"\xff\xd8 no")
    report = verify_images(project)
    assert (report.added, report.set_aside) == (1, 1)
    assert data in tree(project.raw / "dog").values() and b"\xff\xd8 no" in tree(project.raw / "dog").values()
    assert len(project.pictures()) == 5
    assert all(open_picture(path).width <= 512 for path in project.pictures().values())


def test_a_run_killed_in_the_middle_ends_like_one_that_was_not(make_project, fill_raw, monkeypatch, tmp_path):
    """Stopped between the copies and their rows, the next run completes the same tables and files."""
    killed, whole = make_project(name="killed"), make_project(name="whole")
    for project in (killed, whole):
        fill_raw(project, 6)
        put_raw(project, "cat", b"junk", "bin")
    real = verify.append_rows

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "BATCH", 3)
    monkeypatch.setattr(verify, "append_rows", stop)
    with pytest.raises(KeyboardInterrupt):
        verify_images(killed)
    monkeypatch.setattr(verify, "append_rows", real)
    verify_images(killed)
    verify_images(whole)
    assert tree(killed.data) == tree(whole.data)


def test_a_label_without_a_readable_picture_is_named(make_project, fill_raw):
    """The sentence names the label, what was wrong with its files, and what to do."""
    project = make_project()
    fill_raw(project, 2)
    for path in (project.raw / "dog").iterdir():
        path.write_bytes(b"<html>")
    with pytest.raises(FieldguideError, match=r"'dog' has no picture to learn from \(2 × not a picture.*01"):
        verify_images(project)


def test_an_empty_project_says_to_gather_first(make_project):
    """Before 01 there is nothing to verify, and the sentence says so."""
    with pytest.raises(FieldguideError, match="nothing was gathered"):
        verify_images(make_project())


def test_dark_and_blurry_pictures_are_kept_with_a_warning(make_project, fill_raw):
    """They open, so they stay; the table says what is dubious."""
    project = make_project()
    fill_raw(project, 2)
    dark = put_raw(project, "cat", picture_bytes(draw_picture(3).point(lambda value: value // 12)))
    verify_images(project)
    rows = {row["id"]: row["warnings"] for row in read_rows(project.table("pictures"), PICTURES_COLUMNS)}
    assert "dark" in rows[dark].split() and dark in project.pictures()
