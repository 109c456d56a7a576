"""Open Images: its tables in every form that we know, as files and as streams."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from standin_host import picture, serving

from utils.boxes import Box, read_boxes, read_open_images, read_photos, streams, take_boxed_photos
from utils.boxes.open_images import class_names, subclasses
from utils.errors import FieldguideError
from utils.tables import GIVEN_COLUMNS, SOURCES_COLUMNS, read_rows

SAMPLES = Path(__file__).parents[3] / "shared" / "photos" / "openimages_samples"
CLASSES = "/m/019jd,Boat\n/m/01btn,Barge\n/m/0ph39,Canoe\n/m/084zz,Whale\n"
BOX_HEAD = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)
IMAGE_HEAD = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,OriginalSize,OriginalMD5,"
    "Thumbnail300KURL,Rotation"
)
BOXES = """a1,xclick,/m/019jd,1,0.1,0.3,0.2,0.6,0,1,0,0,0
a1,xclick,/m/084zz,1,0.5,0.6,0.5,0.6,0,0,0,0,0
a2,xclick,/m/019jd,1,0.1,0.3,0.2,0.6,1,0,1,0,0
a2,xclick,/m/01btn,1,0.6,0.9,0.2,0.6,0,0,0,0,0
a3,xclick,/m/019jd,1,0.1,0.3,0.2,0.6,0,0,0,1,0
a4,xclick,/m/019jd,1,0.1,0.3,0.2,0.6,0,0,0,0,0
a5,xclick,/m/019jd,1,0.1,1.3,0.2,0.6,0,0,0,0,0
a5,xclick,/m/019jd,1,0.4,0.4,0.2,0.6,0,0,0,0,0
a6,xclick,/m/019jd,1,0.1,0.3,0.2,0.6,0,0,0,0,0
"""
CLASS_BELOW = {"LabelName": "/m/019jd", "Subcategory": [{"LabelName": "/m/01btn"}, {"LabelName": "/m/0ph39"}]}
HIERARCHY = {
    "LabelName": "/m/0bl9f",
    "Subcategory": [CLASS_BELOW, {"LabelName": "/m/084zz", "Part": [{"LabelName": "x"}]}],
}


def image_rows(url="https://example.org", title='"Harbour, \nearly"'):
    """Return the image table: a2 is turned, a4 is gone, a6 has no row; a1 has a title with a comma and a line break."""
    more = "https://a.org/{0},https://cc.org/by,https://a.org/ann,Ann,{1},10,{2},,{3}"
    md5 = base64.b64encode(hashlib.md5(picture(1)).digest()).decode()
    return (
        f"a1,train,{url}/photo/1/a,{more.format(1, title, md5, '0.0')}\n"
        f"a2,train,{url}/photo/2/a,{more.format(2, 'Two', '', '90.0')}\n"
        f"a3,train,{url}/photo/3/a,{more.format(3, 'Three', '', '0.0')}\n"
        f"a4,train,{url}/photo/4/a,{more.format(4, 'Four', '', '')}\n"
        f"a5,test,{url}/photo/5/a,{more.format(5, 'Five', '', '0.0')}\n"
        f"zz,train,{url}/photo/9/a,{more.format(9, 'Other', '', '0.0')}\n"
    )


def other_order(text):
    """Return a table with its columns in another order: the last one first."""
    lines = [line.split(",") for line in text.splitlines()]
    return "".join(",".join([line[-1], *line[:-1]]) + "\n" for line in lines)


def in_quotes(text):
    """Return a table with each field in quotes."""
    return "".join(",".join(f'"{cell}"' for cell in line.split(",")) + "\n" for line in text.splitlines())


@pytest.fixture
def boats(make_project, tmp_path):
    """Return a function that writes the tables and makes their project; keywords are texts of tables, or settings."""

    def make(labels=("Boat",), hosts=(), **more):
        texts = {"classes": CLASSES, "boxes": f"{BOX_HEAD}\n{BOXES}", "images": f"{IMAGE_HEAD}\n{image_rows()}"}
        texts |= {"hierarchy": json.dumps(HIERARCHY)}
        section = {}
        for name, text in texts.items():
            section[name] = str(tmp_path / f"{name}.csv")
            (tmp_path / f"{name}.csv").write_text(more.pop(name, text), encoding="utf-8")
        section |= more
        labels = {label: [] for label in labels}
        return make_project(
            task="detect", source="open_images", labels=labels, size=64, allowed_hosts=list(hosts), open_images=section
        )

    return make


def boxes_of(source):
    """Return the last part but one of each address → its boxes."""
    return {photo.address.split("/")[-2]: photo.boxes for photo in source.photos}


def test_one_class_of_the_tables(boats):
    """Boxes, flags, the turn of a2, side, author, licence and title come along; what is left out is told."""
    source = read_open_images(boats())
    found = boxes_of(source)
    assert sorted(found) == ["1", "2", "5"] and source.counts == {"Boat": 3}
    assert found["1"] == (Box("Boat", 0.1, 0.2, 0.3, 0.6),) and found["1"][0].flags == ("truncated",)
    assert found["2"] == (Box("Boat", 0.2, 0.7, 0.6, 0.9),) and found["2"][0].flags == ("group", "occluded")
    assert found["5"] == (Box("Boat", 0.1, 0.2, 1.0, 0.6),)
    first, second, fifth = source.photos
    assert first.given == {
        "side": "train",
        "creator": "Ann",
        "license": "https://cc.org/by",
        "page_url": "https://a.org/1",
    }
    assert first.title == "Harbour,  early" and len(first.md5) == 24
    assert (second.rotation, fifth.given["side"]) == (90, "test")
    told = " ".join(source.remarks)
    for part in (
        "3 photos can be fetched",
        "Left out: 1 photo gone from Flickr when the table was made (no Rotation), such as a4",
        "Left out: 1 photo with boxes and without a row in the image tables, such as a6",
        "Left out: 1 box around drawings",
        "1 box cut off at the edge",
        "Left out: 1 box without area",
    ):
        assert part in told


@pytest.mark.parametrize(
    "other",
    [
        {"classes": f"LabelName,DisplayName\n{CLASSES}"},
        {"classes": f"id,name\n{CLASSES}"},
        {"classes": other_order(f"id,name\n{CLASSES}")},
        {"classes": other_order(CLASSES)},
        {"boxes": other_order(f"{BOX_HEAD}\n{BOXES}")},
        {"boxes": f"{BOX_HEAD},XClick1X\n" + BOXES.replace("\n", ",0.5\n")},
        {"boxes": f"\ufeff{BOX_HEAD}\r\n" + BOXES.replace("\n", "\r\n")},
        {"boxes": f"{BOX_HEAD}\n{BOXES}".rstrip("\n")},
        {"images": other_order(f"{IMAGE_HEAD}\n{image_rows(title='One')}")},
        {"boxes": in_quotes(f"{BOX_HEAD}\n{BOXES}"), "images": in_quotes(f"{IMAGE_HEAD}\n{image_rows(title='One')}")},
        {"boxes": f"{BOX_HEAD},XMin\n" + re.sub(r"(?m)^(.*?,.*?,.*?,.*?,)(.*?)(,.*)$", r"\1\2\3,\2", BOXES)},
    ],
)
def test_tables_of_other_releases_say_the_same(boats, other):
    """Headers or none, other orders, more columns, Windows' line ends and no last line break change nothing."""
    assert boxes_of(read_open_images(boats(**other))) == boxes_of(read_open_images(boats()))


def test_settings_choose(boats):
    """Subclasses stand under the label above them, groups can be left out, depictions taken."""
    below = read_open_images(boats(subclasses=True))
    assert [len(own) for own in boxes_of(below).values()] == [1, 2, 1] and below.counts == {"Boat": 4}
    assert any("“Barge” and “Canoe”" in remark for remark in below.remarks)
    own = read_open_images(boats(labels=("Barge", "Boat"), subclasses=True))
    assert own.counts == {"Boat": 3, "Barge": 1}
    assert sorted(boxes_of(read_open_images(boats(groups="leave out")))) == ["1", "5"]
    assert sorted(boxes_of(read_open_images(boats(depictions=True)))) == ["1", "2", "3", "5"]


def test_without_flags_or_rotation(boats):
    """An older release lacks columns: that is said, and nothing is made up."""
    head, *rows = f"{BOX_HEAD}\n{BOXES}".splitlines()
    short = "".join(",".join(line.split(",")[:8]) + "\n" for line in [head, *rows])
    rows = f"{IMAGE_HEAD}\n{image_rows(title='One')}".splitlines()
    images = "".join(line.rpartition(",")[0] + "\n" for line in rows)
    source = read_open_images(boats(boxes=short, images=images))
    told = " ".join(source.remarks)
    assert "no column for “depiction”, “group”" in told and "no column Rotation" in told
    assert all(not box.flags for photo in source.photos for box in photo.boxes)


def test_a_table_cut_short_is_told_and_not_kept(boats):
    """A torn last row is left out, and the next run reads the table anew."""
    whole = f"{BOX_HEAD}\n{BOXES}"
    project = boats(boxes=whole[: whole.index("a5,xclick") + 26])
    source = read_open_images(project)
    assert sorted(boxes_of(source)) == ["1", "2"] and any("cut short" in remark for remark in source.remarks)
    assert any("cut short" in remark for remark in read_open_images(project).remarks)


def test_another_table_is_refused(boats):
    """Tables that were exchanged, a class that is none, and a list that is none: each says what to correct."""
    with pytest.raises(FieldguideError, match="has no column LabelName; it begins with 'ImageID,Subset"):
        read_open_images(boats(boxes=f"{IMAGE_HEAD}\n{image_rows()}"))
    with pytest.raises(FieldguideError, match=r"no class 'boat'\. Is it “Boat”"):
        read_open_images(boats(labels=("boat",)))
    with pytest.raises(FieldguideError, match=r"boxes.csv is compressed\. Unpack it"):
        read_open_images(boats(boxes="PK\x03\x04…"))
    with pytest.raises(FieldguideError, match="names no class of Open Images"):
        read_open_images(boats(classes="a,b\nc,d\n"))
    with pytest.raises(FieldguideError, match="cannot be read: No such file"):
        read_open_images(
            boats().model_copy(update={"open_images": dict.fromkeys(("classes", "boxes", "images"), "/no")})
        )
    with pytest.raises(FieldguideError, match="does not name its table images"):
        read_open_images(boats().model_copy(update={"open_images": {"classes": "x", "boxes": "x"}}))
    with pytest.raises(FieldguideError, match="cannot be read as JSON"):
        read_open_images(boats(subclasses=True, hierarchy="["))


def test_only_photos_in_a_list_of_addresses(boats, tmp_path):
    """A list for Google's Storage Transfer chooses by the address; another file is refused."""
    (tmp_path / "list.tsv").write_text("TsvHttpData-1.0\nhttps://example.org/photo/5/a\t10\tabc==\n", encoding="utf-8")
    source = read_open_images(boats(addresses=[str(tmp_path / "list.tsv")]))
    assert sorted(boxes_of(source)) == ["5"] and "2 photos whose address is in none of the lists" in " ".join(
        source.remarks
    )
    (tmp_path / "list.tsv").write_text("https://example.org/photo/5/a\n", encoding="utf-8")
    with pytest.raises(FieldguideError, match="is not a list of addresses"):
        read_open_images(boats(addresses=[str(tmp_path / "list.tsv")]))


def test_a_hierarchy_of_a_stranger():
    """Parts are no subclasses, what is no node is passed over, and 100,000 levels end in no overflow."""
    labels = {"/m/019jd": "Boat"}
    assert subclasses(json.dumps(HIERARCHY).encode(), labels) == dict.fromkeys(
        ("/m/019jd", "/m/01btn", "/m/0ph39"), "Boat"
    )
    assert subclasses(b'{"Subcategory": [3, null, {"LabelName": "/m/019jd", "Subcategory": 7}]}', labels) == labels
    with pytest.raises(FieldguideError):
        subclasses(b'{"Subcategory": [' * 100_000, labels)
    assert class_names(b'/m/1,"Boat, small"\n', "x") == {"/m/1": "Boat, small"}


@pytest.fixture
def no_wait(monkeypatch):
    """Try again at once, and read little at a time."""
    monkeypatch.setattr(streams, "FIRST_WAIT", 0)
    monkeypatch.setattr(streams, "PART_READ", 100)


def test_tables_come_as_streams_and_once(boats, no_wait):
    """
    From addresses, over connections that break: the same photos. What was kept is read the next time, and no table of
    boxes or photos is asked for again. Then the photos come, with authors and MD5 checked.
    """
    with serving() as host:
        tables = {
            "boxes": f"{BOX_HEAD}\n{BOXES}" + "z9,xclick,/m/084zz,1,0,1,0,1,0,0,0,0,0\n" * 300,
            "classes": CLASSES,
        }
        tables["images"] = f"{IMAGE_HEAD}\n{image_rows(host.url)}"
        host.server.tables = {name: text.encode() for name, text in tables.items()}
        places = {name: f"{host.url}/table_that_breaks/{name}" for name in ("boxes", "images")}
        places |= {"classes": f"{host.url}/table/classes"}
        project = boats(hosts=[host.name]).model_copy(update={"open_images": places})
        source = read_open_images(project)
        assert sorted(boxes_of(source)) == ["1", "2", "5"]
        assert host.asked.count("/table_that_breaks/boxes") == 4
        parts = [head["Range"] for path, head in zip(host.asked, host.heads, strict=True) if "Range" in head]
        assert len(parts) == 6 and "bytes=0-" not in parts  # three times each, where it broke
        before = len(host.asked)
        assert read_open_images(project) == source and len(host.asked) == before + 1  # the class table is small
        take_boxed_photos(project, [source])
    assert len(read_photos(project)) == 3 and len(read_boxes(project.table("boxes"))) == 3
    assert {row["creator"] for row in read_rows(project.table("given"), GIVEN_COLUMNS)} == {"Ann"}
    rows = read_rows(project.table("sources"), SOURCES_COLUMNS)
    assert {row["license"] for row in rows} == {"https://cc.org/by"} and {row["status"] for row in rows} == {"kept"}


def test_addresses_that_give_no_table(boats, no_wait):
    """Not https, private, absent, or broken off for good: each is told."""
    with serving() as host:
        host.server.tables = {"classes": CLASSES.encode()}
        project = boats(hosts=[host.name])

        def read(place):
            update = {"open_images": {"classes": place, "boxes": "x", "images": "x"}}
            read_open_images(project.model_copy(update=update))

        for place in ("https://example.org:x/a.csv", "https://[/a.csv"):
            with pytest.raises(FieldguideError, match="is not a valid address"):
                read(place)
        for place in ("http://example.org/a.csv", "https://localhost/a.csv", "ftp://example.org/a.csv"):
            with pytest.raises(FieldguideError, match="is not an https address of a public host"):
                read(place)
        with pytest.raises(FieldguideError, match=r"answers 404\. Correct that address"):
            read(f"{host.url}/nothing")
        with pytest.raises(FieldguideError, match=r"cannot be read: .*Check the connection"):
            read(f"{host.url}/status/503")


@pytest.mark.skipif(not SAMPLES.exists(), reason="needs the excerpts of the tables in shared/photos")
def test_the_official_tables_have_these_columns(make_project):
    """The first rows of the official tables are read: the class Container has no box there, and that is said."""
    tables = {"classes": "class-descriptions-boxable.SAMPLE.csv", "boxes": "oidv6-train-annotations-bbox.SAMPLE.csv"}
    tables |= {"images": "train-images-boxable-with-rotation.SAMPLE.csv"}
    section = {name: str(SAMPLES / file) for name, file in tables.items()}
    project = make_project(task="detect", source="open_images", labels={"Container": []}, size=64, open_images=section)
    with pytest.raises(FieldguideError, match="have no box of “Container”"):
        read_open_images(project)
