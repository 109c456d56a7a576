"""What a person says of boxes: kept, taken back, and whole after a kill."""

import pytest
from drawn_boxes import fill_project
from test_boxes_table import DETECT

from utils.boxes import Box, BoxLedger, read_boxes, read_photos
from utils.boxes.corrections import BoxesChanged
from utils.errors import FieldguideError
from utils.tables import BOX_CORRECTION_COLUMNS, read_rows


@pytest.fixture
def project(make_project):
    project = make_project(**DETECT)
    fill_project(project, 6)
    return project


def boxes_of(project):
    return read_boxes(project.table("boxes"))


def test_saves_are_taken_back_in_turn(project):
    """Two saves of two photos, two undos: boxes.csv holds the same bytes again, and nothing is left to undo."""
    before, start = project.table("boxes").read_bytes(), boxes_of(project)
    ledger, (first, second) = BoxLedger(project), sorted(start)[:2]
    ledger.save(first, start[first], ())
    ledger.save(second, start[second], (*start[second], Box("ball", 0, 0, 0.2, 0.2, (), "person")))
    assert first not in boxes_of(project) and len(boxes_of(project)[second]) == len(start[second]) + 1
    assert (ledger.undo(), ledger.undo(), ledger.undo()) == (second, first, None)
    assert project.table("boxes").read_bytes() == before
    assert list(ledger.corrections()["kind"]) == ["saved", "saved", "undone", "undone"]


def test_boxes_that_are_right_are_remembered(project):
    """A photo saved as it was counts as looked at, until its boxes change or the save is taken back."""
    ledger, start = BoxLedger(project), boxes_of(project)
    id = min(start)
    assert ledger.save(id, start[id], start[id]) is False
    assert ledger.looked_at() == {id}
    ledger.undo()
    assert ledger.looked_at() == set()


def test_boxes_that_changed_elsewhere_are_not_overwritten(project):
    """Two windows on one photo: the second save is refused, and boxes.csv keeps the first."""
    ledger, start = BoxLedger(project), boxes_of(project)
    id = min(start)
    ledger.save(id, start[id], ())
    with pytest.raises(BoxesChanged, match=id):
        ledger.save(id, start[id], start[id][:1])
    assert id not in boxes_of(project)


def test_a_box_without_area_is_refused(project):
    """What cannot be a box is refused before anything is written."""
    start = boxes_of(project)
    with pytest.raises(FieldguideError, match="without area"):
        BoxLedger(project).save(min(start), start[min(start)], [Box("ball", 0.5, 0, 0.5, 1)])
    assert not project.table("box_corrections").exists()


@pytest.mark.parametrize("next_is", ["a save", "3_train"])
def test_a_run_killed_after_its_row_is_completed(project, next_is):
    """The row was written and boxes.csv not yet: the next save completes it, and so does whoever reads the photos."""
    ledger, start = BoxLedger(project), boxes_of(project)
    old, (first, second) = project.table("boxes").read_bytes(), sorted(start)[:2]
    ledger.save(first, start[first], ())
    project.table("boxes").write_bytes(old)  # as the kill would have left it
    (project.data / "box_pending").write_text("")
    if next_is == "a save":
        ledger.save(second, start[second], start[second])
    else:
        assert first not in read_photos(project).boxes
    assert first not in boxes_of(project) and second in boxes_of(project)


def test_what_a_hand_put_back_stays(project):
    """Nobody was killed: boxes.csv as it was before, restored by hand, is what the person wants."""
    ledger, start = BoxLedger(project), boxes_of(project)
    old, (first, second) = project.table("boxes").read_bytes(), sorted(start)[:2]
    ledger.save(first, start[first], ())
    project.table("boxes").write_bytes(old)
    ledger.save(second, start[second], start[second])
    assert boxes_of(project)[first] == start[first]


def test_an_undo_whose_save_is_gone_takes_back_nothing_else(project):
    """A line of the log that was deleted by hand does not make the next undo take back another photo's save."""
    ledger, start = BoxLedger(project), boxes_of(project)
    first, second = sorted(start)[:2]
    ledger.save(second, start[second], ())
    ledger.save(first, start[first], ())
    ledger.undo()
    lines = ledger.table.read_text(encoding="utf-8").splitlines(keepends=True)
    ledger.table.write_text("".join([*lines[:2], lines[3]]), encoding="utf-8")  # without the save of `first`
    assert ledger.undo() == second and boxes_of(project) == start


def test_a_torn_row_is_no_correction(project):
    """A kill in the middle of a row: the row is cut off, the photo keeps its boxes and the next save stands."""
    ledger, start = BoxLedger(project), boxes_of(project)
    id = min(start)
    ledger.save(id, start[id], start[id])
    table = project.table("box_corrections")
    table.write_bytes(table.read_bytes() + b'2026-01-01T00:00:00,abc,"[[')
    ledger.save(id, start[id], ())
    assert [row["id"] for row in read_rows(table, BOX_CORRECTION_COLUMNS)] == [id, id]
    assert id not in boxes_of(project)
