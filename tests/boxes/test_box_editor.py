"""The editor of boxes, as a browser talks to it: what it shows, what it saves, where it goes next."""

import pytest
from drawn_boxes import fill_project
from test_boxes_table import DETECT

from utils.boxes import Box, BoxEditor, ToLookAt, read_boxes, read_photos
from utils.errors import FieldguideError


@pytest.fixture
def photos(make_project):
    project = make_project(**DETECT)
    fill_project(project, 6)
    return read_photos(project)


def boxes_of(photos, id):
    return read_boxes(photos.project.table("boxes")).get(id, ())


def with_boxes(photos):
    return [photo.id for photo in photos if photo.boxes]


def test_untouched_boxes_keep_every_digit(photos):
    """A photo that is saved as it was shown has the same file, although the widget counts in pixels."""
    before = photos.project.table("boxes").read_bytes()
    editor = BoxEditor(photos)
    while editor.shown:
        editor.save()
    assert photos.project.table("boxes").read_bytes() == before
    assert editor.next_step().startswith("Every photo was looked at")


def test_a_drawn_box_is_saved_as_a_fraction(photos):
    """Drawn from 16, 12 to 80, 60 on a photo of 160 × 120 pixels: a tenth to a half, by a person."""
    id = with_boxes(photos)[0]
    editor = BoxEditor(photos, [ToLookAt(id)])
    drawn = {"x": 80, "y": 60, "width": -64, "height": -48, "label": "block"}  # as a drag to the left and up leaves it
    editor.boxes.bboxes = [drawn]
    editor.save()
    assert boxes_of(photos, id) == (Box("block", 0.1, 0.1, 0.5, 0.5),)
    assert boxes_of(photos, id)[0].by == "person"


def test_a_click_leaves_no_box(photos):
    """The widget makes a box of no area of a click: it is left out, and that is told."""
    id = with_boxes(photos)[0]
    editor = BoxEditor(photos, [ToLookAt(id)])
    editor.boxes.bboxes = [*editor.boxes.bboxes, {"x": 5, "y": 5, "width": 0, "height": 0, "label": "ball"}]
    editor.save()
    assert boxes_of(photos, id) == photos[id].boxes
    assert "without area" in editor._told.value


def test_the_models_boxes_are_only_offered(photos):
    """Saving without taking them leaves them out; taken, one replaces the loose box of the same thing."""
    id = with_boxes(photos)[0]
    old = photos[id].boxes[0]
    loose = Box(old.label, old.left, old.top, old.right, min(1.0, old.bottom + 0.05), (), "model")
    editor = BoxEditor(photos, [ToLookAt(id, "a loose box", (loose,))])
    assert f"{old.label} (model)" in [shown["label"] for shown in editor.boxes.bboxes]
    editor.save()
    assert boxes_of(photos, id) == photos[id].boxes
    editor.undo()
    assert editor.shown.id == id
    editor.take()
    editor.save()
    assert sorted(boxes_of(photos, id)) == sorted([*photos[id].boxes[1:], loose])


def test_flags_survive_a_move(make_project):
    """A box moved by ten pixels keeps its other flags; the tick beside the photo sets and clears that of a group."""
    project = make_project(**DETECT)
    fill_project(project, 2)
    table = project.table("boxes")
    table.write_text(table.read_text(encoding="utf-8").replace(",,given", ",group occluded,given"), encoding="utf-8")
    photos = read_photos(project)
    id = with_boxes(photos)[0]
    editor = BoxEditor(photos, [ToLookAt(id)])
    first, *rest = editor.boxes.bboxes
    assert first["group"] is True
    editor.boxes.bboxes = [{**first, "x": first["x"] - 1, "group": False}, *rest]
    editor.save()
    assert boxes_of(photos, id)[0].flags == ("occluded",)


def test_a_new_kernel_goes_on_where_the_last_one_stopped(photos):
    """Photos that were saved do not come again; those that were skipped do, at the end."""
    looks = [ToLookAt(photo.id) for photo in photos]
    editor = BoxEditor(photos, looks)
    editor.skip()
    editor.save()
    assert BoxEditor(photos, looks).shown.id == looks[0].id
    assert BoxEditor(photos, looks).next_step().startswith("5 photos")


def test_a_second_window_is_told(photos):
    """Boxes saved in another window meanwhile are shown, not overwritten."""
    id = with_boxes(photos)[0]
    first, second = (BoxEditor(photos, [ToLookAt(id)]) for _ in range(2))
    first.boxes.bboxes = []
    first.save()
    second.boxes.bboxes = second.boxes.bboxes[:1]
    second.save()
    assert "changed elsewhere" in second._told.value and second.boxes.bboxes == []
    assert boxes_of(photos, id) == ()


@pytest.mark.parametrize("bad", [{}, {"x": "a"}, {"x": 1, "y": 1, "width": 5, "height": 5, "label": "dragon"}])
def test_what_is_no_box_is_left_out(photos, bad):
    """A message from a browser is not believed: what is no box, or has an unknown label, is left out."""
    id = with_boxes(photos)[0]
    editor = BoxEditor(photos, [ToLookAt(id)])
    editor.boxes.bboxes = [*editor.boxes.bboxes, bad]
    editor.save()
    assert boxes_of(photos, id) == photos[id].boxes


def test_boxes_of_other_labels_stay(make_project):
    """A label that left the project file is not shown; saving a photo leaves its boxes in boxes.csv."""
    project = make_project(**DETECT | {"labels": {"ball": []}})
    fill_project(project, 6)
    photos, every = read_photos(project), read_boxes(project.table("boxes"))
    id = next(id for id, own in every.items() if {box.label for box in own} == {"ball", "block"})
    editor = BoxEditor(photos, [ToLookAt(id)])
    assert {shown["label"] for shown in editor.boxes.bboxes} == {"ball"}
    editor.boxes.bboxes = []
    editor.save()
    assert [box.label for box in boxes_of(photos, id)] == [box.label for box in every[id] if box.label == "block"]


def test_a_photo_that_cannot_be_opened_cannot_be_saved(photos):
    """It was deleted meanwhile: nothing is shown in its place, Save does nothing, and Skip goes on."""
    first, second = with_boxes(photos)[:2]
    photos[first].path.unlink()
    editor = BoxEditor(photos, [ToLookAt(first), ToLookAt(second)])
    assert editor._save.disabled and editor.boxes.bboxes == [] and "press Skip" in editor._told.value
    editor.skip()
    assert editor.shown.id == second and not editor._save.disabled and editor.boxes.bboxes


def test_a_photo_that_is_gone_is_named(photos):
    """An id without a photo is refused at once."""
    with pytest.raises(FieldguideError, match="no photo nowhere"):
        BoxEditor(photos, [ToLookAt("nowhere")])
