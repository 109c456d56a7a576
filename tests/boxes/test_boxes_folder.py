"""Folders with VOC, YOLO or COCO files: what is read, mended, and left out with a sentence."""

import json
import shutil

import pytest
from conftest import draw_picture
from drawn_boxes import draw_folder, fill_project
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from utils.boxes import Box, read_box_folder, read_photos, write_box_files, write_boxes
from utils.boxes.coco import coco_text
from utils.boxes.finder import PhotoIndex
from utils.boxes.folder import FORMATS, _source_photo
from utils.boxes.source import BoxNotes
from utils.boxes.voc import voc_text
from utils.boxes.yolo import yolo_text, yolo_yaml
from utils.errors import FieldguideError

VOC = """<annotation><filename>{name}.jpg</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>
{objects}</annotation>"""
OBJECT = """<object><name>{label}</name><truncated>1</truncated><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>
<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""


@pytest.fixture
def folder(tmp_path):
    """Return a folder for photos."""
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


@pytest.fixture
def read(make_project, folder):
    """Return a function that reads the folder for a project; keywords are settings."""

    def read_with(**settings):
        settings = {"task": "detect", "source": str(folder), "labels": {}, "size": 64} | settings
        return read_box_folder(make_project(**settings), folder)

    return read_with


def put_voc(folder, name, *things, size=(160, 120), photo=True):
    """Put a photo of 160×120 and its XML into a folder; a thing is a label and four corners in pixels."""
    if photo:
        draw_picture(len(name)).save(folder / f"{name}.jpg")
    objects = "".join(OBJECT.format(label=label, box=box) for label, *box in things)
    (folder / f"{name}.xml").write_text(VOC.format(name=name, size=size, objects=objects), encoding="utf-8")


def told(source, words):
    """Return the one remark that holds some words."""
    (found,) = [remark for remark in source.remarks if words in remark]
    return found


@pytest.mark.parametrize("kind", ["VOC", "YOLO", "COCO"])
def test_what_is_written_is_read_again(kind, make_project, folder, read):
    """Photos, boxes within a millionth, empty photos, sides and the flags that the format knows come back."""
    project = make_project(task="detect", source=str(folder), labels={}, size=64)
    fill_project(project, 12)
    first = read_photos(project)
    flagged = {
        id: tuple(Box(b.label, *b.corners, ("group", "truncated")) for b in own) for id, own in first.boxes.items()
    }
    write_boxes(project.table("boxes"), flagged)
    photos = read_photos(project)
    folder.rmdir()
    write_box_files(photos, folder, kind)
    back = read()
    assert (back.format, len(back.photos), back.names) == (kind, 12, ("ball", "block"))
    assert {photo.path.stem: photo.given["side"] for photo in back.photos} == {p.id: p.side for p in photos}
    found = {photo.path.stem: photo.boxes for photo in back.photos}
    for photo in photos:
        assert [box.label for box in found[photo.id]] == [box.label for box in photo.boxes]
        for mine, its in zip(found[photo.id], photo.boxes, strict=True):
            assert mine.corners == pytest.approx(its.corners, abs=1e-6)
            kept = {"VOC": ("truncated",), "YOLO": (), "COCO": ("group", "truncated")}[kind]
            assert mine.flags == kept


corner = st.floats(0, 0.98, allow_nan=False)


@pytest.mark.parametrize("kind", ["VOC", "YOLO", "COCO"])
@given(left=corner, top=corner, width=st.floats(1e-4, 1), height=st.floats(1e-4, 1))
def test_any_box_comes_back(kind, tmp_path_factory, left, top, width, height):
    """Whatever box boxes.csv can hold, each format brings it back within a millionth."""

    place = tmp_path_factory.getbasetemp() / f"any-{kind}"
    place.mkdir(exist_ok=True)
    if not (photo := place / "a.png").exists():
        Image.new("RGB", (333, 77)).save(photo)
        (place / "data.yaml").write_text(yolo_yaml(["cat"]), encoding="utf-8")
    corners = [round(value, 7) for value in (left, top, min(1, left + width), min(1, top + height))]
    box = Box("cat", *corners)
    texts = {"VOC": ("a.xml", voc_text("a.png", (333, 77), [box])), "YOLO": ("a.txt", yolo_text([box], ["cat"]))}
    texts["COCO"] = "a.json", coco_text([("a.png", (333, 77), [box])], ["cat"])
    name, text = texts[kind]
    (place / name).write_text(text, encoding="utf-8")
    notes, index = BoxNotes(), PhotoIndex(place, [photo])
    (said,), _ = FORMATS[kind](place, [place / name, place / "data.yaml"], index, notes)
    (back,) = _source_photo(said, index, {}, notes).boxes
    assert back.corners == pytest.approx(box.corners, abs=1e-6) and notes.sentences() == ()


def test_boxes_that_are_none_are_counted(folder, read):
    """Cut off at the edge, outside, without area, doubled, not a number: each kind has a sentence with its number."""
    put_voc(folder, "a", ("cat", 10, 10, 60, 60), ("cat", 10, 10, 60, 60), ("cat", 100, 60, 200, 110))
    put_voc(folder, "bb", ("cat", 5, 5, 5, 50), ("cat", 170, 10, 200, 60), ("cat", "x", 1, 2, 3), ("cat", 1, 1, 9, 9))
    source = read()
    first, second = (photo.boxes for photo in source.photos)
    assert [box.corners for box in first] == [(0.0625, 0.0833333, 0.375, 0.5), (0.625, 0.5, 1, 0.9166667)]
    assert len(second) == 1
    assert first[0].flags == ("truncated",)
    assert told(source, "there twice") == "Left out: 1 box there twice, such as cat in a.jpg."
    assert told(source, "cut off") == "1 box cut off at the edge of the photo, such as cat in a.jpg."
    assert told(source, "outside") == "Left out: 1 box outside of its photo, such as cat in bb.jpg."
    assert told(source, "without area").startswith("Left out: 1 box without area")
    assert told(source, "not a number").startswith("Left out: 1 box with a corner that is not a number")


def test_an_empty_file_says_that_nothing_is_there(folder, read):
    """A photo whose XML has no object is a photo without a thing; one without XML is left out, and so is its like."""
    put_voc(folder, "a", ("cat", 10, 10, 60, 60))
    put_voc(folder, "empty")
    put_voc(folder, "lonely", ("cat", 1, 1, 9, 9), photo=False)
    draw_picture(9).save(folder / "unknown.jpg")
    source = read()
    assert [(photo.title, len(photo.boxes)) for photo in source.photos] == [("a.jpg", 1), ("empty.jpg", 0)]
    assert "1 photo of which no VOC file says" in told(source, "unknown.jpg")
    assert told(source, "lonely.xml") == "Left out: 1 XML file with no photo of that name, such as lonely.xml."


BOXED = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [16, 12, 32, 24]}
IMAGE = {"id": 1, "file_name": "a.jpg", "width": 160, "height": 120}
CAT = {"id": 1, "name": "cat"}


@pytest.mark.parametrize(
    ("images", "annotations", "categories", "words"),
    [
        ([IMAGE], [BOXED | {"bbox": [10**400, 1, 2, 2]}], [CAT], "not a number"),
        ([IMAGE | {"height": 10**400}], [BOXED | {"image_id": 1.0}], [CAT], "no size"),
        ([IMAGE, IMAGE | {"file_name": "b.jpg"}], [BOXED], [CAT], "two photos of a JSON file have"),
        ([IMAGE, IMAGE | {"id": 9, "width": 80, "height": 60}], [BOXED], [CAT], "with another size"),
        ([IMAGE], [BOXED], [CAT, CAT | {"name": "dog"}], "unknown label"),
        ([IMAGE], [BOXED], [CAT | {"name": None}], "unknown label"),
    ],
)
def test_coco_that_contradicts_itself(folder, read, images, annotations, categories, words):
    """Numbers that several things have, sizes that differ, numbers beyond all bounds: told, and the others are read."""
    for name in ("a", "b", "good"):
        draw_picture(len(name)).save(folder / f"{name}.jpg")
    good = {"images": [IMAGE | {"id": 7, "file_name": "good.jpg"}], "annotations": [BOXED | {"image_id": 7}]}
    (folder / "good.json").write_text(json.dumps(good | {"categories": [CAT]}), encoding="utf-8")
    said = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "odd.json").write_text(json.dumps(said), encoding="utf-8")
    source = read()
    assert told(source, words)
    found = {photo.title: photo.boxes for photo in source.photos}
    assert found["good.jpg"] == (Box("cat", 0.1, 0.1, 0.3, 0.3),) and "b.jpg" not in found
    assert {box.corners for own in found.values() for box in own} == {(0.1, 0.1, 0.3, 0.3)}


def test_yolo_of_a_stranger(folder, read):
    """Names that unfold to gigabytes, a number of 400 digits, links that lead nowhere: told or passed over, quickly."""
    draw_folder(folder, 2)
    for name in ("Twin", "twin"):
        draw_picture(3).save(folder / f"{name}.jpg")
        (folder / f"{name}.txt").write_text(f"{int(name == 'twin')} .5 .5 .2 .2\n", encoding="utf-8")
    if len(list(folder.glob("?win.jpg"))) < 2:
        pytest.skip("this disk makes no difference of case")
    many = "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    (folder / "data.yaml").write_text(f"a0: &a0 [x]\n{many}names: [no, dog, *a11]\n", encoding="utf-8")
    (folder / "0000.txt").write_text(f"{'9' * 400} .5 .5 .2 .2\n", encoding="utf-8")
    (folder / "0001.txt").write_bytes(b"\xef\xbb\xbf0 .5 .5 .2 .2\r\n2 .5 .5 .3 .3\r\n1 nan .5 .2 inf\r\n")
    for name in ("gone.txt", "gone.xml", "gone.json", "classes.txt", "train.txt"):
        (folder / name).symlink_to(folder / "nothing")
    source = read()
    labels = {photo.title: [box.label for box in photo.boxes] for photo in source.photos}
    assert labels == {"0001.jpg": ["no"], "Twin.jpg": ["no"], "twin.jpg": ["dog"]}
    assert "0000.txt" in told(source, "lines of numbers") and "number 2" in told(source, "unknown label")


def test_a_folder_without_a_usable_box_says_why(folder, read):
    """All boxes are left out: the refusal tells for which reason."""
    put_voc(folder, "a", ("cat", 5, 5, 5, 50))
    with pytest.raises(FieldguideError, match=r"no box in any .* that can be used\. Left out: 1 box without area"):
        read()


def test_xml_with_entities_is_refused(folder, read):
    """A file that would expand, or read another file, is left out; the others are read."""
    put_voc(folder, "a", ("cat", 10, 10, 60, 60))
    put_voc(folder, "evil")
    text = (folder / "evil.xml").read_text(encoding="utf-8")
    secret = folder.parent / "secret"
    secret.write_text("cat", encoding="utf-8")
    entity = f'<!DOCTYPE a [<!ENTITY e SYSTEM "{secret.as_uri()}">]>'
    (folder / "evil.xml").write_text(entity + text.replace("evil.jpg", "&e;"), encoding="utf-8")
    (folder / "torn.xml").write_text(text[:50], encoding="utf-8")
    source = read()
    assert [photo.title for photo in source.photos] == ["a.jpg"]
    assert "with entities" in told(source, "evil.xml") and "cannot be read as XML" in told(source, "torn.xml")


@pytest.mark.parametrize("stored", range(1, 9))
@pytest.mark.parametrize("upright", [True, False])
def test_a_box_stays_on_the_thing_however_the_photo_is_stored(folder, read, stored, upright):
    """
    The size in the file says whether boxes are for the upright photo or for what is stored; both end on the thing.
    By half a turn and mirroring the size does not change, and the photo counts as upright.
    """
    scene = Image.new("RGB", (160, 120), "white")
    scene.paste("red", (20, 30, 60, 100))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transposition that undoes EXIF's number
    image = scene.transpose(Image.Transpose(back[stored])) if stored > 1 else scene
    exif = Image.Exif()
    exif[0x0112] = stored
    image.save(folder / "a.png", exif=exif)
    box, size = (20, 30, 60, 100), (160, 120)
    if not upright and stored >= 5:
        red = Image.eval(image.getchannel("G"), lambda value: 255 - value)
        box, size = red.getbbox(), image.size
    put_voc(folder, "a", ("thing", *box), size=size, photo=False)
    source = read()
    (photo,) = source.photos
    assert photo.boxes[0].corners == pytest.approx((20 / 160, 30 / 120, 60 / 160, 100 / 120), abs=1e-6)
    if stored in (2, 3, 4):
        assert "turned by its EXIF record" in told(source, "a.png")
    if stored >= 5 and not upright:
        assert "for the photo as it is stored" in told(source, "a.png")


def test_a_size_that_is_not_the_photos(folder, read):
    """Of the same shape the boxes move along; of another shape the photo is left out, with both sizes."""
    put_voc(folder, "a", ("cat", 20, 20, 120, 120), size=(320, 240))
    put_voc(folder, "bb", ("cat", 1, 1, 9, 9), size=(160, 200))
    put_voc(folder, "ccc", ("cat", 0, 0, 80, 60), size=(0, 0))
    source = read()
    first, third = source.photos
    assert first.boxes[0].corners == (0.0625, 0.0833333, 0.375, 0.5) and third.boxes[0].corners == (0, 0, 0.5, 0.5)
    assert "bb.jpg (160×200 said, 160×120 found)" in told(source, "another shape")
    assert "1 photo of another size" in told(source, "a.jpg") and "no size" in told(source, "ccc.jpg")


def test_yolo_trees_names_and_odd_lines(folder, read):
    """train/images with train/labels, names in data.yaml, outlines, wrong numbers, an empty file, a file alone."""
    for side in ("train", "valid"):
        (folder / side / "labels").mkdir(parents=True)
        draw_folder(folder / side / "images", 3)
    (folder / "data.yaml").write_text("names: {0: cat, 1: 'sea dog'}\n", encoding="utf-8")
    lines = "1 0.5 0.5 0.2 0.2\n0 .1 .1 .3 .1 .3 .4\n7 .5 .5 .1 .1\n0 0.5\n"
    (folder / "train" / "labels" / "0000.txt").write_text(lines, encoding="utf-8")
    (folder / "train" / "labels" / "0001.txt").write_text("", encoding="utf-8")
    (folder / "train" / "labels" / "gone.txt").write_text("0 .5 .5 .1 .1\n", encoding="utf-8")
    (folder / "valid" / "labels" / "0000.txt").write_text("0 .5 .5 .1 .1\n", encoding="utf-8")
    source = read()
    assert source.format == "YOLO" and source.names == ("cat", "sea dog")
    kept = {photo.title: (photo.given["side"], photo.boxes) for photo in source.photos}
    assert {name: side for name, (side, _) in kept.items()} == {
        "train/images/0000.jpg": "train",
        "train/images/0001.jpg": "train",
        "valid/images/0000.jpg": "valid",
    }
    assert [box.corners for box in kept["train/images/0000.jpg"][1]] == [(0.4, 0.4, 0.6, 0.6), (0.1, 0.1, 0.3, 0.4)]
    assert kept["train/images/0001.jpg"][1] == ()
    assert "number 7 in" in told(source, "unknown label") and "'0 0.5'" in told(source, "another number of values")
    assert "gone.txt" in told(source, "no photo of that name") and "3 photos" in told(source, "no YOLO file says")


def test_yolo_without_names_says_what_to_write(folder, read):
    """Numbers alone name nothing."""
    draw_folder(folder, 1)
    (folder / "0000.txt").write_text("0 .5 .5 .1 .1\n", encoding="utf-8")
    with pytest.raises(FieldguideError, match=r"no names for their labels. Put data.yaml, or classes.txt"):
        read()
    (folder / "classes.txt").write_text("cat\n", encoding="utf-8")
    assert read().counts == {"cat": 1}


def test_coco_of_a_stranger(folder, read):
    """Crowds are groups; unknown categories, photos that are not there, annotations without a box are counted."""
    draw_folder(folder / "images", 3)
    said = {
        "images": [{"id": n, "file_name": f"{n:04}.jpg", "width": 160, "height": 120} for n in range(2)],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [
            {"image_id": 0, "category_id": 3, "bbox": [16, 12, 32, 24], "iscrowd": 1},
            {"image_id": 0, "category_id": 4, "bbox": [16, 12, 32, 24]},
            {"image_id": 0, "category_id": 3},
            {"image_id": 9, "category_id": 3, "bbox": [16, 12, 32, 24]},
        ],
    }
    said["images"].append({"id": 5, "file_name": "../../etc/passwd", "width": 1, "height": 1})
    (folder / "all.json").write_text(json.dumps(said), encoding="utf-8")
    (folder / "deep.json").write_text("[" * 100_000, encoding="utf-8")
    (folder / "other.json").write_text('{"images": 3}', encoding="utf-8")
    source = read()
    assert [(photo.title, len(photo.boxes)) for photo in source.photos] == [("0000.jpg", 1), ("0001.jpg", 0)]
    assert source.photos[0].boxes[0].flags == ("group",) and source.photos[0].boxes[0].corners == (0.1, 0.1, 0.3, 0.3)
    for words in ("unknown label", "without a box", "does not list", "passwd", "deep.json", "0002.jpg"):
        assert told(source, words).startswith("Left out: 1 ")


def test_labels_are_chosen_and_spelt(folder, read):
    """Boxes of other labels are counted; photos of these alone have nothing to find; another case is refused."""
    put_voc(folder, "a", ("cat", 10, 10, 60, 60), ("dog", 20, 20, 60, 60))
    put_voc(folder, "bb", ("dog", 10, 10, 60, 60))
    source = read(labels={"cat": []})
    assert [len(photo.boxes) for photo in source.photos] == [1, 0] and source.counts == {"cat": 1}
    assert "dog (2)" in told(source, "leaves out")
    with pytest.raises(FieldguideError, match=r"label 'cat', which is none .* Is it 'Cat'\?"):
        read(labels={"Cat": []})
    with pytest.raises(FieldguideError, match=r"no box of 'fox'. Its labels: cat \(1\), dog \(2\)"):
        read(labels={"fox": []})


def test_what_a_person_changed_is_not_overwritten(make_project, tmp_path):
    """A folder of an earlier run is replaced; one with a file of somebody's own, or a changed one, stays as it is."""
    project = make_project(task="detect", source=str(tmp_path), labels={}, size=64)
    fill_project(project, 3)
    photos, target = read_photos(project), tmp_path / "out"
    write_box_files(photos, target, "YOLO")
    assert "3 photos (train 1, valid 1, test 1)" in write_box_files(photos, target, "VOC")[0]
    assert sorted(path.name for path in target.iterdir()) == ["Annotations", "ImageSets", "JPEGImages", "contents.json"]
    (target / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FieldguideError, match=r"holds mine.txt, which was not written by this"):
        write_box_files(photos, target, "YOLO")
    (target / "mine.txt").unlink()
    (next((target / "Annotations").iterdir())).write_text("<mine/>", encoding="utf-8")
    with pytest.raises(FieldguideError, match=r"holds Annotations/\w+.xml, which"):
        write_box_files(photos, target, "YOLO")
    assert sorted(path.name for path in tmp_path.iterdir() if ".part" in path.name) == []


def test_a_format_tells_what_it_cannot_hold(make_project, tmp_path):
    """YOLO has no flags: which were lost is said, and what becomes of a box around many."""
    project = make_project(task="detect", source=str(tmp_path), labels={}, size=64)
    fill_project(project, 2)
    boxes = {id: (Box("ball", 0, 0, 1, 1, ("group",)),) for id in read_photos(project).dataset.ids}
    write_boxes(project.table("boxes"), boxes)
    *_, lost = write_box_files(read_photos(project), tmp_path / "out", "YOLO")
    assert lost == "YOLO has no place for the flags group (2 boxes). A box around many things is a plain box there."


def test_a_zip_is_a_folder(make_project, tmp_path, folder):
    """A ZIP of photos and boxes is unpacked once, and read as the folder would be."""
    put_voc(folder, "a", ("cat", 10, 10, 60, 60))
    packed = shutil.make_archive(str(tmp_path / "photos"), "zip", folder)
    project = make_project(task="detect", source=packed, labels={}, size=64)
    source = read_box_folder(project, project.places[0])
    assert source.counts == {"cat": 1} and source.photos[0].path.is_relative_to(project.data / "cache")
