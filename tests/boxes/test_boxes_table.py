"""boxes.csv and the photos of a project that finds things."""

import pytest
from drawn_boxes import fill_project

from utils.boxes import Box, read_boxes, read_photos, write_boxes
from utils.errors import FieldguideError

DETECT = {"task": "detect", "source": "photos", "labels": {}, "arch": "efficientnet_lite0", "size": 64}


def test_boxes_come_back_as_they_were_written(tmp_path):
    """A label with a comma, flags and seven digits survive the file."""
    boxes = {
        "b": (Box("sea, urchin", 1 / 3, 0, 0.5, 1, ("group", "occluded"), "person"),),
        "a": (Box("x", 0, 0, 1, 1),),
    }
    write_boxes(tmp_path / "boxes.csv", boxes)
    back = read_boxes(tmp_path / "boxes.csv")
    assert list(back) == ["a", "b"]
    assert back["b"] == (Box("sea, urchin", 0.3333333, 0, 0.5, 1),)
    assert (back["b"][0].flags, back["b"][0].by) == (("group", "occluded"), "person")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a,cat,0.1,0.1,0.1,0.5,,given", "without area"),
        ("a,cat,0.1,0.1,1.5,0.5,,given", "reaches out"),
        ("a,cat,nan,0.1,0.5,0.5,,given", "not a number"),
        ("a,cat,left,0.1,0.5,0.5,,given", "could not convert"),
        ("a,cat,0.1,0.1,0.5,0.5,blurred,given", "unknown flag 'blurred'"),
        ("a,,0.1,0.1,0.5,0.5,,given", "a label that cannot be one"),
        ("a,(nothing),0.1,0.1,0.5,0.5,,given", "a label that cannot be one"),
    ],
)
def test_a_spoilt_row_is_named(tmp_path, row, says):
    """What cannot be a box is refused with the file, the picture and what is wrong."""
    (tmp_path / "boxes.csv").write_text(f"id,label,left,top,right,bottom,flags,by\n{row}\n", encoding="utf-8")
    with pytest.raises(FieldguideError, match=rf"picture a: .*{says}"):
        read_boxes(tmp_path / "boxes.csv")


def test_photos_without_boxes_are_there(make_project):
    """A photo without a box is one of the photos; its group of strata is that of nothing."""
    project = make_project(**DETECT)
    fill_project(project, 12)
    photos = read_photos(project)
    assert photos.labels == ("ball", "block")
    assert len(photos) == 12 and sum(not photo.boxes for photo in photos) == 2
    assert {"(nothing)", "ball", "block"} == set(photos.dataset.labels)
    assert len(photos.on("test")) == 2 and len(photos.on("valid")) == 3


def test_the_fingerprint_knows_a_moved_corner(make_project):
    """One corner moved by a millionth, and the data are others."""
    project = make_project(**DETECT)
    fill_project(project, 4)
    before, boxes = read_photos(project).fingerprint, read_boxes(project.table("boxes"))
    id = min(boxes)
    first, *rest = boxes[id]
    moved = Box(first.label, round(first.left - 1e-6, 7), *first.corners[1:])
    write_boxes(project.table("boxes"), boxes | {id: (moved, *rest)})
    assert read_photos(project).fingerprint != before
