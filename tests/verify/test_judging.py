"""02: what is kept, what is rejected and why; hands are welcome; nothing is done twice."""

import contextlib
import errno
import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_picture, picture_bytes, put_raw, tree
from PIL import Image, ImageDraw, ImageFilter, TiffImagePlugin

from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.pictures import UnreadableError, open_picture
from utils.storage import content_id
from utils.tables import PICTURES_COLUMNS, REJECTED_COLUMNS, SOURCES_COLUMNS, append_rows, read_rows
from utils.verify import byhand, opening, take_back, verdicts, verify_images
from utils.verify.sorting import outside_pictures


def put_under_both(project, data, extension="jpg"):
    """Put one file into raw/ under "cat" and under "dog", and return its id."""
    put_raw(project, "dog", data, extension)
    return put_raw(project, "cat", data, extension)


def pictures(project):
    """Return id → path of the training set as it lies there now."""
    return {picture.id: picture.path for picture in read_dataset(project)}


def reasons(project):
    """Return id → reason of everything rejected."""
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
def test_junk_is_rejected_with_its_reason(make_project, fill_raw, data, reason):
    """Each kind of junk gets its reason in rejected.csv, and no training copy."""
    project = make_project()
    fill_raw(project, 2)
    id = put_raw(project, "cat", data, "bin")
    report = verify_images(project)
    assert reason in reasons(project)[id]
    assert (report.added, report.rejected) == (4, 1)
    assert id not in pictures(project)


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
    id = put_under_both(project, picture_bytes(draw_picture(77)))
    verify_images(project)
    assert id not in pictures(project)
    assert [row["label"] for row in read_rows(project.table("rejected"), REJECTED_COLUMNS)] == ["cat", "dog"]


def test_only_the_newcomer_is_rejected_when_a_known_picture_comes_again(make_project, fill_raw):
    """Found again under another label, the picture stays where it was accepted."""
    project = make_project()
    id = fill_raw(project, 2)["cat"][0]
    verify_images(project)
    put_raw(project, "dog", next(project.raw.glob(f"cat/{id}.*")).read_bytes())
    verify_images(project)
    assert pictures(project)[id].parent.name == "cat"
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
    assert (report.added, report.rejected) == (1, 1)
    assert data in tree(project.raw / "dog").values() and b"\xff\xd8 no" in tree(project.raw / "dog").values()
    assert len(pictures(project)) == 5
    assert all(open_picture(path).width <= 512 for path in pictures(project).values())


def test_the_name_of_a_dropped_photo_is_kept(make_project, fill_raw):
    """In sources.csv, once, with its size: "IMG 2041 pond 3.png" may be all that is known of where it is from."""
    project = make_project()
    fill_raw(project, 2)
    data = picture_bytes(draw_picture(500, size=(900, 600)), "PNG")
    for _ in range(2):
        (project.images / "dog").mkdir(parents=True, exist_ok=True)
        (project.images / "dog" / "IMG 2041 pond 3.png").write_bytes(data)
        (project.images / "dog" / "broken.jpg").write_bytes(b"junk")
        verify_images(project)
    broken, good = sorted(
        read_rows(project.table("sources"), SOURCES_COLUMNS), key=lambda row: row["title"], reverse=True
    )
    assert (good["id"], good["label"], good["title"]) == (content_id(data), "dog", "IMG 2041 pond 3.png")
    assert (good["engine"], good["status"], good["license"], good["url"]) == ("hand", "kept", "unknown", "")
    assert (good["bytes"], good["width"], good["height"]) == (str(len(data)), "900", "600")
    assert good["fetched_at"].endswith("+00:00")
    assert (broken["title"], broken["width"], broken["bytes"]) == ("broken.jpg", "", "4")


def test_what_is_plainly_no_picture_is_left_where_it_lies(make_project, fill_raw):
    """Notes beside the photos are nobody's junk: they stay, unnoted, and a remark names one."""
    project = make_project()
    fill_raw(project, 2)
    verify_images(project)
    before = tree(project.data)
    (project.images / "dog" / "notes.txt").write_text("pond 3")
    report = verify_images(project)
    assert (report.added, report.rejected) == (0, 0)
    (remark,) = [remark for remark in report.remarks if "no picture format" in remark]
    assert str(Path("dog") / "notes.txt") in remark
    assert tree(project.data) == before | {str(Path("images") / "dog" / "notes.txt"): b"pond 3"}


def test_what_is_no_file_is_told_and_never_opened(make_project, fill_raw):
    """Pipes, sockets, folders and links to nowhere in images/ are counted and left; opening a pipe would wait."""
    project = make_project()
    fill_raw(project, 2)
    cat = project.images / "cat"
    (cat / "day 2").mkdir(parents=True)
    (cat / "day 2" / "a.jpg").write_bytes(picture_bytes(draw_picture(70)))
    os.mkfifo(cat / "pipe.jpg")
    (cat / "gone.jpg").symlink_to(cat / "nowhere.jpg")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(cat):
        listener.bind("socket.jpg")
    report = verify_images(project)
    assert (report.added, report.rejected) == (4, 0)
    (remark,) = [remark for remark in report.remarks if "no file" in remark]
    assert remark.startswith("4 entries in") and str(Path("cat") / "day 2") in remark
    assert {"day 2", "pipe.jpg", "gone.jpg", "socket.jpg"} <= {path.name for path in cat.iterdir()}
    assert len(read_dataset(project)) == 4


@pytest.mark.parametrize("when", ["read", "judged", "rescued"])
def test_a_photo_that_is_still_being_copied_is_not_lost(make_project, fill_raw, monkeypatch, when):
    """Half of a photo is there when 02 looks, the rest comes while it reads or judges: it stays, and is taken next."""
    project, data = make_project(), picture_bytes(draw_picture(71))
    small = put_raw(project, "cat", ASIDE["small"])
    fill_raw(project, 2)
    verify_images(project)
    name = f"{small}.jpg" if when == "rescued" else "bird.jpg"
    path = project.images / "cat" / name
    half = len(data) - len(data) // 9
    path.write_bytes(ASIDE["small"] if when == "rescued" else data[:half])

    def come(real):
        def and_more(*args, **options):
            result = real(*args, **options)
            path.write_bytes(data)
            return result

        return and_more

    with monkeypatch.context() as patch:
        name = {"read": "_bytes_of", "judged": "judged_in_order", "rescued": "judge"}[when]
        patch.setattr(byhand, name, come(getattr(byhand, name)))
        report = verify_images(project)
    (remark,) = [remark for remark in report.remarks if "changed while 02 read" in remark]
    assert remark.startswith("1 file in") and str(Path("cat") / path.name) in remark
    assert path.read_bytes() == data
    report = verify_images(project)
    if when != "rescued":
        assert report.added == 1 and content_id(data) in read_dataset(project) and not path.exists()
        assert (project.raw / "cat" / f"{content_id(data)}.jpg").read_bytes() == data


def test_no_file_is_judged_twice(make_project, fill_raw, monkeypatch):
    """Gathered, dropped, rescued or taken back: one decoding each."""
    project = make_project()
    fill_raw(project, 2)
    small = put_raw(project, "cat", ASIDE["small"])
    narrow = put_raw(project, "cat", ASIDE["narrow"])
    judged, real = [], opening.judge
    for part in (opening, byhand):
        monkeypatch.setattr(part, "judge", lambda path, **options: judged.append(path) or real(path, **options))
    verify_images(project)
    assert len(judged) == 6
    (project.images / "cat" / f"{small}.jpg").write_bytes(ASIDE["small"])
    (project.images / "cat" / "new.png").write_bytes(picture_bytes(draw_picture(88), "PNG"))
    assert verify_images(project).added == 2 and len(judged) == 8
    assert take_back(project, narrow).added == 1 and len(judged) == 9


def test_a_run_killed_in_the_middle_ends_like_one_that_was_not(make_project, fill_raw, monkeypatch, tmp_path):
    """Stopped between the copies and their rows, the next run completes the same tables and files."""
    killed, whole = make_project(name="killed"), make_project(name="whole")
    for project in (killed, whole):
        fill_raw(project, 6)
        put_raw(project, "cat", b"junk", "bin")

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(opening, "AT_A_TIME", 3)
    with monkeypatch.context() as patch:
        patch.setattr(verdicts, "append_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            verify_images(killed)
    verify_images(killed)
    verify_images(whole)
    assert tree(killed.data) == tree(whole.data)


def test_a_label_without_a_readable_picture_is_named(make_project, fill_raw):
    """The sentence names the label, what was wrong with its files, and what to do."""
    project = make_project()
    fill_raw(project, 2)
    for path in (project.raw / "dog").iterdir():
        path.write_bytes(b"<html>")
    remark = verify_images(project).remarks[0]
    assert re.match(
        r"Label 'dog' has no picture to learn from \(2 × not a picture but a web page\).*images_per_label", remark
    )
    place = str(project.images / "dog")
    assert place in remark and remark.replace(place, "").count("01") == 1


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
    assert "dark" in rows[dark].split() and dark in pictures(project)


def test_no_content_of_a_file_stops_the_others(make_project, fill_raw, monkeypatch):
    """A decoder that raises what Pillow never promised sets one file aside, and the rest goes on."""
    project = make_project()
    fill_raw(project, 2)
    id = put_raw(project, "cat", picture_bytes(draw_picture(5), "TIFF"), "tif")

    def missing(image):
        raise TypeError("Missing dimensions")

    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load", missing)
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
    assert pictures(project)[ids[0]] == project.images / "dog" / copy.name
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
    assert (report.added, report.rejected) == (0, 1)
    assert pictures(project)[id].parent.name == "cat" and "already under 'cat'" in reasons(project)[id]
    assert not (project.images / "dog" / "again.jpg").exists()


def test_a_photo_dropped_once_more_under_its_label_changes_nothing(make_project, fill_raw):
    """It is there already: the dropped file goes, its name is noted, and nothing counts as rejected."""
    project = make_project()
    id = fill_raw(project, 2)["cat"][0]
    verify_images(project)
    before = tree(project.data)
    (project.images / "cat" / "again.jpg").write_bytes((project.raw / "cat" / f"{id}.jpg").read_bytes())
    report = verify_images(project)
    assert (report.added, report.rejected, len(report.rejections)) == (0, 0, 0)
    sources = {name: data for name, data in tree(project.data).items() if name == "sources.csv"}
    assert tree(project.data) == before | sources and names(project) == [("cat", "again.jpg", "kept", "hand", "")]


@pytest.mark.parametrize("at", ["write_whole", "names", "append_rows", "unlink"])
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
        places = {"names": (byhand, "append_rows"), "append_rows": (verdicts, at), "unlink": (Path, at)}
        patch.setattr(*places.get(at, (byhand, at)), stop)
        with pytest.raises(KeyboardInterrupt):
            verify_images(killed)
    verify_images(killed)
    verify_images(whole)
    assert tree(killed.images) == tree(whole.images) and len(tree(whole.images)) == 5
    assert sorted(recorded(killed)) == sorted(recorded(whole))
    assert reasons(killed) == reasons(whole)
    assert names(killed) == names(whole) and len(names(whole)) == 3


def names(project):
    """Return what sources.csv notes of dropped photos, sorted: label, name, status and where from."""
    rows = read_rows(project.table("sources"), SOURCES_COLUMNS)
    return sorted((row["label"], row["title"], row["status"], row["engine"], row["url"]) for row in rows)


@pytest.mark.parametrize("size", [(160, 120), (900, 700)])
def test_a_picture_rescued_from_two_labels_by_hand_is_accepted(make_project, fill_raw, size):
    """Copied from raw/ to one label, it gets its row there and is a training copy whatever its size was."""
    project = make_project()
    fill_raw(project, 2)
    data = picture_bytes(draw_picture(77, size=size))
    id = put_under_both(project, data)
    verify_images(project)
    (project.images / "cat" / f"{id}.jpg").write_bytes(data)
    assert verify_images(project).added == 1
    (row,) = [row for row in read_rows(project.table("pictures"), PICTURES_COLUMNS) if row["id"] == id]
    assert (row["label"], row["width"]) == ("cat", str(size[0])) and len(row["hash"]) == 16
    assert open_picture(pictures(project)[id]).width <= 512
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
        patch.setattr(verdicts, "append_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            verify_images(project)
    (project.images / "cat" / f"{id}.jpg").rename(project.images / "dog" / f"{id}.jpg")
    verify_images(project)
    assert pictures(project)[id].parent.name == "dog" and recorded(project).count(id) == 1


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
        (folder / ".0123456789abcdef.part.jpg").write_bytes(b"half")
    verify_images(project)
    assert list(project.data.rglob("*.part*")) == []


# --- What is rejected, and what is not -------------------------------------------------------------------------------


def notice(text="NO IMAGE"):
    """Return what sites serve in place of a picture: letters on an even ground."""
    image = Image.new("RGB", (400, 300), (235, 235, 235))
    ImageDraw.Draw(image).text((60, 120), text, fill=(120, 120, 120), font_size=50)
    return picture_bytes(image, "PNG")


def note_sources(project, id, urls):
    """Append a row to sources.csv for each address that a picture came from."""
    rows = [
        {"id": id, "label": "cat", "url": url, "status": "kept" if n == 0 else "copy"} for n, url in enumerate(urls)
    ]
    append_rows(project.table("sources"), SOURCES_COLUMNS, rows)


THREE = ("https://a.example.com/1", "https://b.example.org/2", "https://c.example.co.uk/3")


def test_a_drawing_that_three_unrelated_sites_serve_is_a_placeholder(make_project, fill_raw):
    """The reason counts the sites; under two labels it is a placeholder all the same."""
    project = make_project()
    fill_raw(project, 2)
    id = put_under_both(project, notice(), "png")
    note_sources(project, id, THREE)
    report = verify_images(project)
    assert set(report.rejections.reason) == {"a placeholder: 3 unrelated sites serve it"}
    assert list(report.rejections.label) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("data", "urls"),
    [
        (notice(), (*THREE[:2], "https://z.example.org/other")),
        (notice(), ("file:///a/1", "sample:b", "")),
        (picture_bytes(draw_picture(77)), THREE),
    ],
)
def test_what_few_sites_serve_or_is_a_photo_is_no_placeholder(make_project, fill_raw, data, urls):
    """Two hosts of one site count once, folders not at all, and a photo that many sites show stays."""
    project = make_project()
    fill_raw(project, 2)
    id = put_raw(project, "cat", data)
    note_sources(project, id, urls)
    assert verify_images(project).rejected == 0 and id in pictures(project)


def test_a_jpeg_cut_and_closed_is_rejected_and_a_coarse_one_warned_of(make_project, fill_raw):
    """The one lacks its lower part, the other only details."""
    project = make_project()
    fill_raw(project, 2)
    whole = picture_bytes(draw_picture(6, size=(640, 480)), quality=95)
    cut = put_raw(project, "cat", whole[: len(whole) // 2] + b"\xff\xd9")
    whole = picture_bytes(draw_picture(7, size=(640, 480)), quality=95, progressive=True)
    coarse = put_raw(project, "cat", whole[: len(whole) // 3] + b"\xff\xd9")
    report = verify_images(project)
    assert re.fullmatch(r"truncated: [4-6]\d% of its rows are missing at the bottom", reasons(project)[cut])
    assert report.dubious["unfinished"] == [project.images / "cat" / f"{coarse}.jpg"]


def test_a_jpeg_without_its_end_marker_is_kept_with_a_remark(make_project, fill_raw):
    """Its training copy is that of the whole file, and also a copy of its own that a person put there is replaced."""
    project, whole = make_project(), picture_bytes(draw_picture(40, size=(900, 700)))
    fill_raw(project, 1)
    id, full = put_raw(project, "cat", whole[:-2]), put_raw(project, "cat", whole)
    verify_images(project)
    copies = [(project.images / "cat" / f"{name}.jpg").read_bytes() for name in (id, full)]
    warnings = {row["id"]: row["warnings"] for row in read_rows(project.table("pictures"), PICTURES_COLUMNS)}
    assert copies[0] == copies[1] and (warnings[id], warnings[full]) == ("no-end-marker", "")


def test_near_duplicates_are_not_rejected(make_project, fill_raw):
    """Encoded anew, made smaller and cropped a little: 03 keeps them together by their hashes."""
    project = make_project()
    fill_raw(project, 2)
    image = draw_picture(90, size=(640, 480))
    near = [image, image.resize((320, 240)), image.crop((8, 6, 632, 474))]
    ids = [put_raw(project, "cat", picture_bytes(one, quality=70)) for one in near]
    assert verify_images(project).rejected == 0
    rows = {row["id"]: int(row["hash"], 16) for row in read_rows(project.table("pictures"), PICTURES_COLUMNS)}
    assert max((rows[ids[0]] ^ rows[id]).bit_count() for id in ids) <= 6


# --- Taking back ------------------------------------------------------------------------------------------------------

FRAMES = picture_bytes(draw_picture(2), "GIF", save_all=True, append_images=[draw_picture(3)])
ASIDE = {
    "animated": FRAMES,
    "small": picture_bytes(draw_picture(1, size=(50, 60))),
    "narrow": picture_bytes(draw_picture(1, size=(700, 100))),
    "flat": picture_bytes(Image.new("RGB", (200, 200), "teal")),
    "cut": picture_bytes(draw_picture(6, size=(640, 480)), quality=95)[:20_000] + b"\xff\xd9",
    "placeholder": notice(),
}


@pytest.fixture
def with_aside(make_project, fill_raw):
    """Return a project after 02 that has a picture of every kind of `ASIDE` rejected, and their ids by kind."""
    project = make_project()
    fill_raw(project, 2)
    ids = {kind: put_raw(project, "cat", data) for kind, data in ASIDE.items()}
    note_sources(project, ids["placeholder"], THREE)
    assert verify_images(project).rejected == len(ASIDE)
    return project, ids


@pytest.mark.parametrize("kind", ASIDE)
def test_what_was_rejected_can_be_taken_back(with_aside, kind):
    """It has its copy and row, counts as rejected no more, and stays when 02 is run again."""
    project, ids = with_aside
    report = take_back(project, ids[kind])
    assert (report.added, list(report.counts["rejected"])) == (1, [len(ASIDE) - 1, 0])
    assert ids[kind] not in set(report.rejections.id)
    with Image.open(pictures(project)[ids[kind]]) as copy:
        assert (copy.format, copy.mode) == ("JPEG", "RGB")
    state = tree(project.data)
    assert verify_images(project).added == 0 and take_back(project, [ids[kind]]).added == 0
    assert tree(project.data) == state


def test_of_an_animation_the_first_frame_is_taken_back(with_aside):
    """Asked for, it is a picture like any other."""
    project, ids = with_aside
    take_back(project, [ids["animated"]])
    copy = np.asarray(open_picture(pictures(project)[ids["animated"]])).astype(int)
    assert np.abs(copy - np.asarray(draw_picture(2))).mean() < 20 < np.abs(copy - np.asarray(draw_picture(3))).mean()


def test_one_that_cannot_be_decoded_is_refused_and_nothing_is_half_done(with_aside):
    """The sentence names id and reason, and the others were not taken back either."""
    project, ids = with_aside
    broken = put_raw(project, "dog", picture_bytes(draw_picture(9))[:900])
    verify_images(project)
    state = tree(project.data)
    with pytest.raises(FieldguideError, match=rf"{broken} cannot be taken back: truncated"):
        take_back(project, [ids["flat"], broken, ids["small"]])
    with pytest.raises(FieldguideError, match=r"02 rejected no picture '0123456789abcdef'"):
        take_back(project, [ids["flat"], "0123456789abcdef"])
    assert tree(project.data) == state


def test_a_picture_of_two_labels_needs_its_label_said(make_project, fill_raw):
    """Then it stands there, and is rejected under neither."""
    project = make_project()
    fill_raw(project, 2)
    id = put_under_both(project, picture_bytes(draw_picture(77)))
    verify_images(project)
    with pytest.raises(FieldguideError, match=r"came under 'cat' and 'dog'. Say which"):
        take_back(project, [id])
    with pytest.raises(FieldguideError, match="'cow' is no label"):
        take_back(project, [id], label="cow")
    report = take_back(project, [id], label="dog")
    assert pictures(project)[id].parent.name == "dog" and len(report.rejections) == 0
    state = tree(project.data)
    verify_images(project)
    assert tree(project.data) == state


def test_a_newcomer_can_be_taken_back_once_the_known_one_is_gone(make_project, fill_raw):
    """Accepted as cat, found again as dog, deleted by hand as cat: as dog it comes when asked."""
    project = make_project()
    id = fill_raw(project, 2)["cat"][0]
    verify_images(project)
    put_raw(project, "dog", (project.raw / "cat" / f"{id}.jpg").read_bytes())
    assert len(verify_images(project).rejections) == 1
    with pytest.raises(FieldguideError, match=rf"{id} lies under 'cat' already: move that file, .*, to .*dog"):
        take_back(project, [id])
    pictures(project)[id].unlink()
    report = take_back(project, [id])
    assert pictures(project)[id].parent.name == "dog" and (report.added, len(report.rejections)) == (1, 0)
    state = tree(project.data)
    verify_images(project)
    assert tree(project.data) == state


@pytest.mark.parametrize("at", ["settle", "append_rows"])
@pytest.mark.parametrize("next_run", ["verify", "take_back"])
def test_taking_back_can_be_killed(with_aside, monkeypatch, at, next_run):
    """Stopped before the copies or before their rows, either call completes it or leaves it undone, whole."""
    project, ids = with_aside

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(verdicts if at == "append_rows" else opening.Shelf, at, stop)
        with pytest.raises(KeyboardInterrupt):
            take_back(project, ids.values())
    report = verify_images(project) if next_run == "verify" else take_back(project, ids.values())
    done = len(ids) if (at, next_run) != ("settle", "verify") else 0
    assert report.added == done and len(report.rejections) == len(ids) - done
    assert len(pictures(project)) == 4 + done and len(recorded(project)) == 4 + done
    assert len(list(project.raw.rglob("*.*"))) == 4 + len(ids) and list(project.data.rglob("*.part*")) == []


@pytest.mark.parametrize("lost", [True, False])
def test_what_was_deleted_in_06_does_not_come_back(make_project, fill_raw, lost):
    """Even when pictures.csv is gone: the row is made anew, the copy stays in the trash until it is restored there."""
    project = make_project()
    id, *_ = fill_raw(project, 3)["cat"]
    verify_images(project)
    (project.trash / "cat").mkdir(parents=True)
    pictures(project)[id].rename(project.trash / "cat" / f"{id}.jpg")
    if lost:
        project.table("pictures").unlink()
    report = verify_images(project)
    assert report.added == 5 * lost and id not in pictures(project) and recorded(project).count(id) == 1
    put_raw(project, "dog", (project.raw / "cat" / f"{id}.jpg").read_bytes())
    verify_images(project)
    state = tree(project.data)
    with pytest.raises(FieldguideError, match=rf"{id} was deleted in 06 and lies in .*trash.*restore it there"):
        take_back(project, [id])
    assert tree(project.data) == state


def test_a_placeholder_put_back_by_hand_stays(with_aside):
    """Who copies it from raw/ to the label folder asks for it as well."""
    project, ids = with_aside
    (project.images / "dog" / f"{ids['small']}.jpg").write_bytes(ASIDE["small"])
    report = verify_images(project)
    assert report.added == 1 and ids["small"] not in set(report.rejections.id)


# --- What the report says ---------------------------------------------------------------------------------------------


def test_what_is_rejected_is_counted_by_its_reason(with_aside):
    """The most frequent first; what was taken back is not among them."""
    project, ids = with_aside
    take_back(project, ids["flat"])
    told = verify_images(project).reasons
    expected = ["a placeholder", "animated or many pages", "extreme aspect", "too small", "truncated"]
    assert sorted(told.reason) == expected and list(told.pictures) == sorted(told.pictures, reverse=True)


def test_what_03_rejected_is_no_matter_of_02(with_aside):
    """A bridge between two sides is in the training set: neither shown, nor counted, nor to be taken back."""
    project, ids = with_aside
    id = next(iter(pictures(project)))
    bridge = {"id": id, "label": "cat", "stage": "split", "reason": "near-duplicate of pictures on two sides"}
    append_rows(project.table("rejected"), REJECTED_COLUMNS, [bridge])
    report = verify_images(project)
    assert set(report.rejections.id) == set(ids.values()) and list(report.counts["rejected"]) == [len(ASIDE), 0]
    assert outside_pictures(project, read_dataset(project)).keys() == set(ids.values())
    with pytest.raises(FieldguideError, match=f"02 rejected no picture '{id}'"):
        take_back(project, id)


def test_a_label_whose_pictures_were_removed_says_so(make_project, fill_raw):
    """Accepted and deleted since, they are not "nothing gathered"."""
    project = make_project()
    fill_raw(project, 2)
    verify_images(project)
    for path in (project.images / "dog").iterdir():
        path.unlink()
    put_raw(project, "dog", picture_bytes(draw_picture(1, size=(63, 200))))
    put_raw(project, "dog", picture_bytes(draw_picture(1, size=(200, 62))))
    remark = verify_images(project).remarks[0]
    assert "Label 'dog' has no picture" in remark
    assert "(2 were accepted and have been removed or moved since; 2 × too small)" in remark


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("duckduckgo", "raise images_per_label"),
        ("/my/photos", "add photos to /my/photos"),
        ("sample", "these: put photos"),
    ],
)
def test_what_brings_more_pictures_depends_on_the_source(make_project, fill_raw, source, says):
    """Nobody is told to change a search where none is made."""
    project = make_project(source=source)
    fill_raw(project, 2)
    for path in (project.raw / "dog").iterdir():
        path.write_bytes(b"<html>")
    remark = verify_images(project).remarks[0]
    assert says in remark and ("search" in remark) == (source == "duckduckgo")


def test_a_label_that_was_renamed_is_told_to_rename_its_folder(make_project, fill_raw):
    """One sentence with the count; done so, everything is there under the new name."""
    old = make_project(labels={"tilapa": ["t"], "dog": ["d"]})
    fill_raw(old, 3)
    verify_images(old)
    project = make_project(labels={"tilapia": ["t"], "dog": ["d"]})
    for path in (project.raw / "tilapa").iterdir():
        put_raw(project, "tilapia", path.read_bytes())
    (remark,) = [each for each in verify_images(project).remarks if "'tilapa' is no label any more" in each]
    assert "its folder holds 3 of the pictures gathered for 'tilapia'" in remark
    assert f"rename {project.images / 'tilapa'} to {project.images / 'tilapia'}" in remark
    (project.images / "tilapa").rename(project.images / "tilapia")
    report = verify_images(project)
    assert report.counts["pictures"].to_dict() == {"tilapia": 3, "dog": 3}
    assert len(report.rejections) == 0 and not [each for each in report.remarks if "tilapa" in each]


def test_searches_that_find_the_same_pictures_are_named(make_project, fill_raw):
    """Once most of a label came under another one too."""
    project = make_project()
    fill_raw(project, 2)
    assert not [remark for remark in verify_images(project).remarks if "find the same pictures" in remark]
    for k in range(3):
        for label in project.labels:
            put_raw(project, label, picture_bytes(draw_picture(5000 + k)))
    (remark,) = [remark for remark in verify_images(project).remarks if "find the same pictures" in remark]
    assert "(3 of 5 for 'cat', 3 of 5 for 'dog')" in remark and "searches of 'cat' and 'dog'" in remark


def test_photos_in_two_folders_are_counted(make_project, fill_raw):
    """Where nothing is searched, nobody is told to change a search: how many lie where, and how to take them back."""
    project = make_project(source="/my/photos")
    fill_raw(project, 6)
    for label in project.labels:
        put_raw(project, label, picture_bytes(draw_picture(5000)))
    (remark,) = [remark for remark in verify_images(project).remarks if "several folders" in remark]
    assert remark.startswith("1 photo lies in several folders, 'cat' and 'dog', and so counts for none.")
    assert "search" not in remark and "choose it in the grid" in remark


def test_warnings_are_told_by_kind_and_where_the_picture_lies_now(make_project, fill_raw):
    """After a move by hand too, the paths lead to the pictures; all of one kind together, sorted."""
    project = make_project()
    fill_raw(project, 2)
    dark = put_raw(project, "cat", picture_bytes(draw_picture(3).point(lambda value: value // 12)))
    strip = put_raw(project, "cat", picture_bytes(draw_picture(5, size=(700, 200))))
    blurred = draw_picture(4, size=(500, 400)).filter(ImageFilter.GaussianBlur(12))
    blurred = put_raw(project, "dog", picture_bytes(blurred))
    verify_images(project)
    (project.images / "cat" / f"{strip}.jpg").rename(project.images / "dog" / f"{strip}.jpg")
    report = verify_images(project)
    assert report.dubious["narrow"] == [project.images / "dog" / f"{strip}.jpg"]
    assert report.dubious["dark"] == [project.images / "cat" / f"{dark}.jpg"]
    assert project.images / "dog" / f"{blurred}.jpg" in report.dubious["blurry"]


def test_files_that_01_did_not_put_into_raw_are_named_and_left_alone(make_project, fill_raw, tmp_path):
    """A pipe is not waited for, a link not followed, a folder not opened, and an odd name is no id."""
    project = make_project()
    fill_raw(project, 2)
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(picture_bytes(draw_picture(60)))
    os.mkfifo(project.raw / "cat" / "0123456789abcdef.jpg")
    (project.raw / "cat" / "1123456789abcdef.jpg").symlink_to(secret)
    (project.raw / "cat" / "2123456789abcdef.jpg").mkdir()
    (project.raw / "cat" / "holiday.jpg").write_bytes(picture_bytes(draw_picture(61)))
    report = verify_images(project)
    assert (report.added, report.rejected) == (4, 0)
    (remark,) = [remark for remark in report.remarks if "did not come from 01" in remark]
    assert remark.startswith("4 entries in") and str(Path("cat") / "0123456789abcdef.jpg") in remark


# --- Where the system fails -------------------------------------------------------------------------------------------


def written_to(path):
    """Do what another program does that writes to a file."""
    os.utime(path, (1, 1))


def withheld(path):
    """Do what the system does with a file that this account may not read."""
    raise UnreadableError("this account may not read the file")


@pytest.mark.parametrize(
    ("happens", "told"), [(withheld, "this account may not read"), (written_to, "it changed while it was read)")]
)
def test_a_file_that_cannot_be_judged_is_named_and_tried_again(make_project, fill_raw, monkeypatch, happens, told):
    """Without permission, or while somebody writes to it: it is not rejected, and the next run takes it."""
    project = make_project()
    id = fill_raw(project, 2)["cat"][0]
    real = opening.open_with_facts

    def opened(path, **options):
        if path.stem == id:
            happens(path)
        return real(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(opening, "open_with_facts", opened)
        report = verify_images(project)
    assert (report.added, report.rejected) == (3, 0)
    assert [remark for remark in report.remarks if f"cat/{id} ({told}" in remark]
    assert verify_images(project).added == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_in_the_middle_loses_nothing(make_project, fill_raw, monkeypatch, number):
    """The sentence says what to do; what was judged until then is kept, and the next run does the rest."""
    full, whole = make_project(name="full"), make_project(name="whole")
    for project in (full, whole):
        fill_raw(project, 8)
    synced, left = os.fsync, [14]

    def failing(handle):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(number, os.strerror(number))
        return synced(handle)

    monkeypatch.setattr(opening, "AT_A_TIME", 4)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(FieldguideError, match=r"the disk is full|read-only"):
            verify_images(full)
    assert 0 < len(recorded(full)) < 16 and len(recorded(full)) == len(pictures(full))
    verify_images(full)
    verify_images(whole)
    assert tree(full.data) == tree(whole.data)


def test_a_folder_where_a_copy_belongs_is_named(make_project, fill_raw):
    """Nothing is noted that has no copy."""
    project = make_project()
    id = fill_raw(project, 2)["cat"][0]
    (project.images / "cat" / f"{id}.jpg").mkdir(parents=True)
    with pytest.raises(FieldguideError, match=rf"Cannot write .*{id}\.jpg"):
        verify_images(project)
    assert id not in recorded(project)


def test_gathered_files_are_listed_by_label_and_name(make_project, fill_raw):
    """Whatever order the file system has, rows come in the same one on each machine."""
    project = make_project()
    fill_raw(project, 20)
    folders = [sorted((project.raw / label).iterdir()) for label in project.labels]
    assert verdicts.raw_files(project) == [path for folder in folders for path in folder]


def test_few_pictures_are_judged_ahead_of_the_writing(make_project, fill_raw, monkeypatch):
    """However slow the disk, what waits in memory does not grow with the number of pictures."""
    project = make_project()
    fill_raw(project, 30)
    judged, real = [], opening.judge
    monkeypatch.setattr(opening, "judge", lambda path, **options: judged.append(path) or real(path, **options))
    paths = verdicts.raw_files(project)
    results = opening.judged_in_order(paths)
    first = next(results)
    assert first.id == paths[0].stem and len(judged) <= opening.AT_A_TIME + 1
    assert [first.id, *(each.id for each in results)] == [path.stem for path in paths]


def test_the_same_bytes_under_two_extensions_are_one_picture(make_project, fill_raw):
    """One copy and one row."""
    project = make_project()
    id = fill_raw(project, 2)["cat"][0]
    (project.raw / "cat" / f"{id}.jpeg").write_bytes((project.raw / "cat" / f"{id}.jpg").read_bytes())
    verify_images(project)
    assert recorded(project).count(id) == 1


def test_what_lies_elsewhere_is_not_taken_back_in_silence(make_project, fill_raw):
    """Taken back as one of two labels, a picture is moved to the other by hand, and that is said."""
    project = make_project()
    fill_raw(project, 3)
    id = put_under_both(project, picture_bytes(draw_picture(77)))
    verify_images(project)
    assert take_back(project, id, label="dog").added == 1
    with pytest.raises(FieldguideError, match="lies under 'dog' already: move that file"):
        take_back(project, id, label="cat")


@pytest.mark.parametrize("lost", [False, True])
def test_what_a_person_deleted_stays_deleted(make_project, fill_raw, lost):
    """A picture in the trash comes back neither by itself, also where pictures.csv was lost, nor by take_back."""
    project = make_project()
    fill_raw(project, 3)
    id = put_raw(project, "cat", picture_bytes(draw_picture(78, size=(100, 50))))
    verify_images(project)
    take_back(project, id)
    (project.trash / "cat").mkdir(parents=True)
    (project.images / "cat" / f"{id}.jpg").rename(project.trash / "cat" / f"{id}.jpg")
    if lost:
        project.table("pictures").unlink()
        project.table("rejected").rename(project.data / "elsewhere.csv")
    verify_images(project)
    assert id not in pictures(project)
    if lost:
        (project.data / "elsewhere.csv").replace(project.table("rejected"))
    with pytest.raises(FieldguideError, match="was deleted in 06"):
        take_back(project, id)
