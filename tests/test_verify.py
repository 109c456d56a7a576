"""02: what is kept, what is set aside and why; hands are welcome; nothing is done twice."""

from pathlib import Path

import pytest
from conftest import draw_picture, picture_bytes, put_raw, tree
from PIL import Image, TiffImagePlugin

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


def test_no_content_of_a_file_stops_the_others(make_project, fill_raw, monkeypatch):
    """A decoder that raises what Pillow never promised sets one file aside, and the rest goes on."""
    project = make_project()
    fill_raw(project, 2)
    id = put_raw(project, "cat", picture_bytes(draw_picture(5), "TIFF"), "tif")

    def missing(image):
        raise TypeError("Missing dimensions")

    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "n_frames", property(missing))
    assert verify_images(project).added == 4
    assert "Missing dimensions" in reasons(project)[id]


@pytest.mark.parametrize("before", ["deleted", "in the trash", "rejected"])
def test_a_photo_dropped_back_is_taken_in_again(make_project, fill_raw, before):
    """What lies there by hand outranks the tables: copy and row are there, and nothing vanishes."""
    project = make_project()
    ids = fill_raw(project, 3)["cat"]
    if before == "rejected":
        put_raw(project, "dog", next(project.raw.glob(f"cat/{ids[0]}.*")).read_bytes())
    verify_images(project)
    copy = project.images / "cat" / f"{ids[0]}.jpg"
    if before == "in the trash":
        (project.trash / "cat").mkdir(parents=True)
        copy.rename(project.trash / "cat" / copy.name)
    else:
        copy.unlink(missing_ok=True)
    dropped = project.images / "dog" / "my photo.jpg"
    dropped.write_bytes((project.raw / "cat" / copy.name).read_bytes())
    assert verify_images(project).added == 1
    assert project.pictures()[ids[0]] == project.images / "dog" / copy.name
    assert recorded(project).count(ids[0]) == 1 and not dropped.exists()
    state = tree(project.data)
    verify_images(project)
    assert tree(project.data) == state


def recorded(project):
    """Return the ids of pictures.csv, in order."""
    return [row["id"] for row in read_rows(project.table("pictures"), PICTURES_COLUMNS)]


def test_a_photo_dropped_that_is_there_already_is_reported(make_project, fill_raw):
    """Its one training copy stays where it lies, and rejected.csv says where that is."""
    project = make_project()
    id = fill_raw(project, 2)["cat"][0]
    verify_images(project)
    data = (project.raw / "cat" / f"{id}.jpg").read_bytes()
    (project.images / "dog" / "again.jpg").write_bytes(data)
    report = verify_images(project)
    assert (report.added, report.set_aside) == (0, 1)
    assert project.pictures()[id].parent.name == "cat" and "already under 'cat'" in reasons(project)[id]
    assert not (project.images / "dog" / "again.jpg").exists()


@pytest.mark.parametrize("at", ["write_whole", "append_rows", "unlink"])
def test_taking_in_a_dropped_photo_can_be_killed(make_project, fill_raw, monkeypatch, at):
    """Stopped before the copy, the row or the removal of the dropped file, the next run ends the same."""
    killed, whole = make_project(name="killed"), make_project(name="whole")
    for project in (killed, whole):
        id = fill_raw(project, 2)["cat"][0]
        verify_images(project)
        (project.images / "cat" / f"{id}.jpg").unlink()
        for label, data in (("cat", (project.raw / "cat" / f"{id}.jpg").read_bytes()), ("dog", b"junk")):
            (project.images / label / "mine.jpg").write_bytes(data)
        (project.images / "dog" / "new.png").write_bytes(picture_bytes(draw_picture(88), "PNG"))

    def stop(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(verify if at != "unlink" else Path, at, stop)
        with pytest.raises(KeyboardInterrupt):
            verify_images(killed)
    verify_images(killed)
    verify_images(whole)
    assert tree(killed.images) == tree(whole.images) and len(tree(whole.images)) == 5
    assert sorted(recorded(killed)) == sorted(recorded(whole))
    assert reasons(killed) == reasons(whole)


@pytest.mark.parametrize("size", [(160, 120), (900, 700)])
def test_a_picture_rescued_from_two_labels_by_hand_is_accepted(make_project, fill_raw, size):
    """Copied from raw/ to one label, it gets its row there and is a training copy whatever its size was."""
    project = make_project()
    fill_raw(project, 2)
    data = picture_bytes(draw_picture(77, size=size))
    id = put_raw(project, "cat", data)
    put_raw(project, "dog", data)
    verify_images(project)
    (project.images / "cat" / f"{id}.jpg").write_bytes(data)
    assert verify_images(project).added == 1
    (row,) = [row for row in read_rows(project.table("pictures"), PICTURES_COLUMNS) if row["id"] == id]
    assert (row["label"], row["width"]) == ("cat", str(size[0])) and len(row["hash"]) == 16
    assert open_picture(project.pictures()[id]).width <= 512
    state = tree(project.data)
    assert verify_images(project).added == 0
    assert tree(project.data) == state


def test_a_copy_moved_between_a_kill_and_its_row_stays_where_it_is(make_project, fill_raw, monkeypatch):
    """The next run notes the row alone: no second copy under the old label."""
    project = make_project()
    id = fill_raw(project, 2)["cat"][0]

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(verify, "append_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            verify_images(project)
    (project.images / "cat" / f"{id}.jpg").rename(project.images / "dog" / f"{id}.jpg")
    verify_images(project)
    assert project.pictures()[id].parent.name == "dog" and recorded(project).count(id) == 1


def test_found_again_it_is_said_to_lie_where_it_lies_now(make_project, fill_raw):
    """After a move by hand, the reason names the folder that the picture is in."""
    project = make_project()
    id = fill_raw(project, 2)["cat"][0]
    verify_images(project)
    (project.images / "cat" / f"{id}.jpg").rename(project.images / "dog" / f"{id}.jpg")
    put_raw(project, "dog", (project.raw / "cat" / f"{id}.jpg").read_bytes())
    verify_images(project)
    assert "already under 'dog'" in reasons(project)[id]


def test_a_photo_that_may_not_be_read_is_named(make_project, fill_raw, monkeypatch):
    """A dropped file without permission is a sentence with its path, not a traceback."""
    project = make_project()
    fill_raw(project, 2)
    verify_images(project)
    (project.images / "cat" / "mine.jpg").write_bytes(b"x")
    read = Path.read_bytes

    def refused(path):
        if path.name == "mine.jpg":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(FieldguideError, match=r"Cannot read .*mine\.jpg.*permission"):
        verify_images(project)


def test_what_a_killed_run_left_half_written_is_removed(make_project, fill_raw):
    """Temporary files go wherever they lie in the data folder."""
    project = make_project()
    fill_raw(project, 2)
    for folder in (project.data, project.raw / "cat", project.data / "trash" / "dog"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".0123.part.jpg").write_bytes(b"half")
    verify_images(project)
    assert list(project.data.rglob("*.part*")) == []
