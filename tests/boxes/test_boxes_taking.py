"""Photos taken from sources with boxes: copies, tables, boxes.csv, and what a second run leaves alone."""

import base64
import hashlib
import json
import subprocess
import sys

import pytest
from conftest import draw_picture, picture_bytes, tree
from drawn_boxes import draw_folder
from PIL import Image
from standin_host import serving

from utils.boxes import Box, BoxLedger, read_box_folder, read_boxes, read_photos, take_boxed_photos, taking, write_boxes
from utils.boxes.source import BoxSource, SourcePhoto, turned_box
from utils.boxes.taking import boxed_photos_table, chosen_photos
from utils.boxes.yolo import yolo_text, yolo_yaml
from utils.errors import FieldguideError
from utils.project import REPOSITORY
from utils.storage import content_id
from utils.tables import GIVEN_COLUMNS, PICTURES_COLUMNS, REJECTED_COLUMNS, SOURCES_COLUMNS, read_rows

LABELS = ["ball", "block"]


@pytest.fixture
def make(make_project, tmp_path):
    """Return a function that makes a project with a folder source; keywords are settings."""

    def make_with(**settings):
        return make_project(
            **{"task": "detect", "source": str(tmp_path / "photos"), "labels": {}, "size": 64} | settings
        )

    return make_with


def yolo_folder(folder, count):
    """Draw photos and YOLO files; return the boxes of each photo by its name."""
    boxes = draw_folder(folder, count)
    for name, own in boxes.items():
        (folder / f"{name}.txt").write_text(yolo_text(own, LABELS), encoding="utf-8")
    (folder / "data.yaml").write_text(yolo_yaml(LABELS), encoding="utf-8")
    return boxes


def take(project):
    """Read the folder of a project and take its photos; return the sentences."""
    return take_boxed_photos(project, [read_box_folder(project, project.places[0])])


def ids_of(project):
    """Return file name → id, from sources.csv."""
    return {row["title"]: row["id"] for row in read_rows(project.table("sources"), SOURCES_COLUMNS)}


def test_photos_and_boxes_are_where_the_contract_has_them(make, tmp_path):
    """raw/ as it came, images/ at most 640 pixels, rows without a label, boxes.csv; a second run changes nothing."""
    boxes = yolo_folder(tmp_path / "photos", 6)
    draw_picture(1, size=(1600, 1200)).save(tmp_path / "photos" / "large.jpg")
    (tmp_path / "photos" / "large.txt").write_text("0 .5 .5 .5 .5\n", encoding="utf-8")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    (tmp_path / "photos" / "broken.txt").write_text("", encoding="utf-8")
    project = make()
    told = take(project)
    ids = ids_of(project)
    assert told[0] == f"7 photos in {project.images}." and "1 photo rejected" in told[1]
    raw = {path.stem: path.read_bytes() for path in project.raw.iterdir()}
    assert raw[ids["0000.jpg"]] == (tmp_path / "photos" / "0000.jpg").read_bytes() and len(raw) == 8
    assert Image.open(project.images / f"{ids['large.jpg']}.jpg").size == (640, 480)
    assert [row["label"] for row in read_rows(project.table("pictures"), PICTURES_COLUMNS)] == [""] * 7
    assert [row["id"] for row in read_rows(project.table("rejected"), REJECTED_COLUMNS)] == [ids["broken.jpg"]]
    found = read_boxes(project.table("boxes"))
    assert found[ids["large.jpg"]] == (Box("ball", 0.25, 0.25, 0.75, 0.75),)
    for name, own in boxes.items():
        assert [box.label for box in found.get(ids[f"{name}.jpg"], ())] == [box.label for box in own]
    assert ids["0005.jpg"] not in found and len(read_photos(project)) == 7
    before = tree(project.data)
    take(project)
    assert tree(project.data) == before


def test_what_a_person_drew_stays(make, tmp_path):
    """
    Boxes that differ from those the source brought are a person's, also where all were taken away; a photo that nobody
    touched follows its source.
    """
    yolo_folder(tmp_path / "photos", 4)
    project = make()
    take(project)
    ids, boxes = ids_of(project), read_boxes(project.table("boxes"))
    mine = boxes | {ids["0000.jpg"]: (Box("ball", 0, 0, 0.5, 0.5, (), "person"),)}
    del mine[ids["0001.jpg"]]
    write_boxes(project.table("boxes"), mine)
    for name in ("0000", "0001", "0002"):
        (tmp_path / "photos" / f"{name}.txt").write_text("1 .5 .5 .2 .2\n", encoding="utf-8")
    told = take(project)
    after = read_boxes(project.table("boxes"))
    assert after == mine | {ids["0002.jpg"]: (Box("block", 0.4, 0.4, 0.6, 0.6),)}
    assert after[ids["0000.jpg"]][0].by == "person"
    assert told[-1] == "2 photos with other boxes in the source now keep those of your own."
    take(project)
    assert read_boxes(project.table("boxes")) == after


@pytest.mark.parametrize("writes", range(3))
def test_a_kill_between_the_tables_makes_no_box_a_persons(make, tmp_path, monkeypatch, writes):
    """
    Killed before, between or after its writes, a run is completed: a photo that nobody touched follows its source
    again, and one that a person changed before or after the kill stays.
    """
    source = yolo_folder(tmp_path / "photos", 4)
    project = make()
    take(project)
    ids = ids_of(project)

    def draw(name):
        changed = read_boxes(project.table("boxes")) | {ids[name]: (Box("ball", 0, 0, 0.5, 0.5, (), "person"),)}
        write_boxes(project.table("boxes"), changed)

    def label(line):
        for name in source:
            (tmp_path / "photos" / f"{name}.txt").write_text(line, encoding="utf-8")

    draw("0000.jpg")
    label("1 .5 .5 .2 .2\n")
    done = []

    def killed(path, boxes):
        if writes:
            write_boxes(path, boxes)
            done.append(path)
        if len(done) == writes:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(taking, "write_boxes", killed)
        take(project)
    draw("0001.jpg")
    label("0 .5 .5 .6 .6\n")
    take(project)
    after = read_boxes(project.table("boxes"))
    assert [after[ids[f"000{n}.jpg"]][0].by for n in range(4)] == ["person", "person", "given", "given"]
    assert after[ids["0002.jpg"]] == after[ids["0003.jpg"]] == (Box("ball", 0.2, 0.2, 0.8, 0.8),)
    assert not project.table("given_pending").exists()


def test_boxes_that_were_found_right_stay_and_lost_ones_come_back(make, tmp_path):
    """A photo that a person saved as right keeps its boxes; if boxes.csv is gone, all come back from the source."""
    yolo_folder(tmp_path / "photos", 3)
    project = make()
    take(project)
    ids, first = ids_of(project), read_boxes(project.table("boxes"))
    right = ids["0000.jpg"]
    BoxLedger(project).save(right, first[right], first[right])
    for name in ("0000", "0001"):
        (tmp_path / "photos" / f"{name}.txt").write_text("1 .5 .5 .2 .2\n", encoding="utf-8")
    take(project)
    after = read_boxes(project.table("boxes"))
    assert after[right] == first[right] and after[ids["0001.jpg"]] == (Box("block", 0.4, 0.4, 0.6, 0.6),)
    project.table("boxes").unlink()
    take(project)
    assert set(read_boxes(project.table("boxes"))) == set(after)


def test_one_photo_under_two_names_is_one(make, tmp_path):
    """Two files of the same bytes: one photo; of their boxes, those of one thing count once."""
    folder = tmp_path / "photos"
    draw_folder(folder, 1)
    (folder / "again.jpg").write_bytes((folder / "0000.jpg").read_bytes())
    (folder / "0000.txt").write_text("0 .5 .5 .4 .4\n", encoding="utf-8")
    (folder / "again.txt").write_text("0 .51 .5 .4 .4\n1 .5 .5 .4 .4\n0 .2 .2 .1 .1\n", encoding="utf-8")
    (folder / "data.yaml").write_text(yolo_yaml(LABELS), encoding="utf-8")
    project = make()
    told = take(project)
    (own,) = read_boxes(project.table("boxes")).values()
    assert [box.label for box in own] == ["ball", "block", "ball"] and len(list(project.images.iterdir())) == 1
    assert told[-1] == "1 photo there more than once, as the same file: their boxes were joined."


def test_as_many_photos_per_label_as_asked_for(make, tmp_path):
    """images_per_label caps each label, in the seed's order; more asked for later adds, and takes nothing back."""
    yolo_folder(tmp_path / "photos", 24)
    project = make(images_per_label=3)
    take(project)
    photos = read_photos(project)
    counts = {label: sum(label in {box.label for box in p.boxes} for p in photos) for label in LABELS}
    assert min(counts.values()) == 3 and sum(not p.boxes for p in photos) == 3
    first = set(photos.dataset.ids)
    take(project)
    assert set(read_photos(project).dataset.ids) == first
    take(make(images_per_label=5))
    assert first < set(read_photos(project).dataset.ids)
    other = make(images_per_label=3, seed=1, data_dir=str(tmp_path / "other"))
    take(other)
    assert set(read_photos(other).dataset.ids) != first


def test_a_photo_in_the_trash_does_not_come_back(make, tmp_path):
    """What a person took out stays out, also if pictures.csv was lost."""
    yolo_folder(tmp_path / "photos", 3)
    project = make()
    take(project)
    id = ids_of(project)["0000.jpg"]
    project.trash.mkdir()
    (project.images / f"{id}.jpg").rename(project.trash / f"{id}.jpg")
    project.table("pictures").unlink()
    take(project)
    assert id not in read_photos(project).dataset and len(read_photos(project)) == 2


KILLED = """
import json, os, sys
from pathlib import Path
from tests.killing import kill_at
from utils.boxes import read_box_folder, take_boxed_photos
from utils.project import Project
for line in sys.stdin:
    asked = json.loads(line)
    project = Project.model_validate(asked["project"])
    if os.fork() == 0:
        kill_at(asked["step"], 5, project.data)
        take_boxed_photos(project, [read_box_folder(project, project.places[0])])
        os._exit(0)
    print(json.dumps(os.WIFSIGNALED(os.wait()[1])), flush=True)
"""


def test_a_killed_run_is_completed(make, tmp_path):
    """Killed at any of many steps and begun again, the folder ends as after one run."""
    yolo_folder(tmp_path / "photos", 5)
    whole = make()
    take(whole)
    steps = [*range(1, 80, 10)]
    asked = [make(data_dir=str(tmp_path / f"killed{step}")) for step in steps]
    lines = [json.dumps({"project": p.model_dump(), "step": s}) for p, s in zip(asked, steps, strict=True)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED], input="\n".join(lines), text=True, capture_output=True, cwd=REPOSITORY
    )
    killed = list(map(json.loads, done.stdout.split()))
    assert len(killed) == len(steps) and sum(killed) >= 5, done.stderr
    wanted = {
        name: data for name, data in tree(whole.data).items() if name not in ("sources.csv", "copies.csv", ".lock")
    }
    for project in asked:
        take(project)
        found = tree(project.data)
        rows = read_rows(project.table("sources"), SOURCES_COLUMNS)
        assert {row["id"] for row in rows} == {path.stem for path in whole.raw.iterdir()}
        assert {name: found[name] for name in wanted} == wanted and ".part" not in " ".join(found)


def web_source(project, host, *photos):
    """Return a source of addresses below a host; a photo is a path and fields of `SourcePhoto`."""
    found = [
        SourcePhoto(f"{host.url}/{path}", **{"boxes": (Box("boat", 0.25, 0.25, 0.5, 0.5),), **more})
        for path, more in photos
    ]
    return BoxSource("Open Images", "Open Images", tuple(found), names=("boat",))


def test_what_is_gone_is_told_from_failures(make):
    """404, 410 and Flickr's placeholder are gone; other answers are failures; each is asked for once."""
    with serving() as host:
        project = make(source="open_images", labels={"boat": []}, allowed_hosts=[host.name])
        given = {
            "creator": "Ann",
            "license": "https://creativecommons.org/licenses/by/2.0/",
            "page_url": "https://a.org/1",
        }
        paths = [("photo/1/a.jpg", {"title": "Harbour", "given": given}), ("status/404", {}), ("status/410", {})]
        paths += [("to_placeholder", {}), ("status/403", {}), ("photo/2/a.jpg", {"md5": "c29tZXRoaW5nIGVsc2UhIQ=="})]
        source = web_source(project, host, *paths)
        told = take_boxed_photos(project, [source])
        asked = len(host.asked)
        take_boxed_photos(project, [source])
        assert len(host.asked) == asked
    assert "3 photos gone from the web." in told and any(
        "could not be taken" in line and "403" in line for line in told
    )
    assert any("MD5" in line for line in told)
    table = boxed_photos_table(project, [source])
    assert table.loc["boat"].to_dict() == {"failed": 1, "gone": 3, "rejected": 1, "taken": 1}
    (row,) = [row for row in read_rows(project.table("sources"), SOURCES_COLUMNS) if row["title"] == "Harbour"]
    assert (row["license"], row["page_url"], row["label"]) == (given["license"], given["page_url"], "")
    assert read_rows(project.table("given"), GIVEN_COLUMNS)[0]["creator"] == "Ann"


def test_two_rows_of_one_address_are_one_photo(make):
    """Their boxes are joined; a photo's address is asked for once."""
    with serving() as host:
        project = make(source="open_images", labels={"boat": []}, allowed_hosts=[host.name])
        other = {"boxes": (Box("boat", 0.6, 0.6, 0.9, 0.9), Box("boat", 0.25, 0.25, 0.5, 0.51))}
        take_boxed_photos(project, [web_source(project, host, ("photo/1/a.jpg", {}), ("photo/1/a.jpg", other))])
        assert len(host.asked) == 1
    (own,) = read_boxes(project.table("boxes")).values()
    assert own == (Box("boat", 0.25, 0.25, 0.5, 0.5), Box("boat", 0.6, 0.6, 0.9, 0.9))


def test_others_are_asked_for_in_place_of_what_failed(make):
    """Three photos are wanted: where addresses give none, and bytes are not the table's, the next ones are tried."""
    with serving() as host:
        project = make(source="open_images", labels={"boat": []}, allowed_hosts=[host.name], images_per_label=3)
        paths = [(f"nothing{n}", {}) for n in range(4)] + [(f"photo/{n}/a.jpg", {}) for n in range(1, 9)]
        paths += [(f"photo/{n}/a.jpg", {"md5": "bm90IHRoZXNlIGJ5dGVz"}) for n in range(20, 24)]
        take_boxed_photos(project, [web_source(project, host, *paths)])
        assert len(read_photos(project)) == 3 and len(host.asked) < len(paths)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("told_twice", [False, True])
def test_a_rotation_turns_picture_and_box(make, tmp_path, rotation, told_twice):
    """However a photo is stored, the box ends on the red thing; EXIF saying the same turns it only once."""
    scene = Image.new("RGB", (160, 120), "white")
    scene.paste("red", (20, 30, 60, 100))
    stored = scene.rotate(-rotation, expand=True)
    red = Image.eval(stored.getchannel("G"), lambda value: 255 - value).getbbox()
    number = {0: 1, 90: 8, 180: 3, 270: 6}[rotation]
    exif = Image.Exif()
    exif[0x0112] = number if told_twice else 1
    data = picture_bytes(stored, "PNG", exif=exif)
    (tmp_path / "a.png").write_bytes(data)
    sizes = (*stored.size, *stored.size)
    box = turned_box(Box("boat", *(value / side for value, side in zip(red, sizes, strict=True))), number)
    md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
    photo = SourcePhoto((tmp_path / "a.png").as_uri(), (box,), tmp_path / "a.png", rotation=rotation, md5=md5)
    project = make(source="open_images", labels={"boat": []})
    take_boxed_photos(project, [BoxSource("Open Images", "Open Images", (photo,), root=tmp_path)])
    (found,) = read_photos(project)
    image = Image.open(found.path).convert("RGB")
    assert image.size == (160, 120)
    place = Image.eval(image.getchannel("G"), lambda value: 255 * (value < 128)).getbbox()
    corners = [corner * side for corner, side in zip(found.boxes[0].corners, (160, 120) * 2, strict=True)]
    assert corners == pytest.approx(place, abs=1.01)


def test_two_turns_that_differ_are_refused(make, tmp_path):
    """If the EXIF record turns a photo one way and the table another, nobody knows where its boxes are."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.jpg").write_bytes(picture_bytes(draw_picture(1), exif=exif))
    photo = SourcePhoto((tmp_path / "a.jpg").as_uri(), (), tmp_path / "a.jpg", rotation=90)
    project = make(source="open_images", labels={"boat": []})
    with pytest.raises(FieldguideError, match="turned one way by its EXIF record and another way"):
        take_boxed_photos(project, [BoxSource("Open Images", "Open Images", (photo,), root=tmp_path)])


def test_each_side_of_a_ready_split_has_its_share():
    """Of 30 training and 10 validation photos, a cap of 8 takes 6 and 2."""
    box = (Box("boat", 0, 0, 1, 1),)
    photos = [SourcePhoto(f"x:{n}", box, given={"side": "train" if n < 30 else "valid"}) for n in range(40)]
    chosen = chosen_photos(photos, 8, 42)
    assert sorted(photo.given["side"] for photo in chosen) == ["train"] * 6 + ["valid"] * 2


def test_the_id_is_that_of_the_bytes(make, tmp_path):
    """A file that changed is a new photo; the first one stays, as originals do."""
    yolo_folder(tmp_path / "photos", 2)
    project = make()
    take(project)
    data = picture_bytes(draw_picture(77))
    (tmp_path / "photos" / "0000.jpg").write_bytes(data)
    take(project)
    assert content_id(data) in read_photos(project).dataset and len(read_photos(project)) == 3
