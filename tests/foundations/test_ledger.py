"""The ledger: no decision is lost, nothing is overwritten, and every move can be taken back."""

import errno
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import tree
from four_pictures import corrections, make_four, place_of, places
from watching import watched

from utils.errors import FieldguideError
from utils.ledger import moves as ledger_module
from utils.ledger.flags import read_review, save_flag, save_flags
from utils.ledger.moves import DELETED, RESTORED, Ledger, Outcome
from utils.storage import locked
from utils.tables import CORRECTION_COLUMNS, read_rows


class Killed(BaseException):
    """Stands for a kill in the middle of a step; no `except Exception` may catch it."""


@pytest.fixture
def project(tmp_path):
    return make_four(tmp_path)


def stop():
    raise Killed


def kill_after_rename(monkeypatch) -> None:
    """Let the ledger stop once a file was renamed, as a kill there would; test_ledger_machine kills for real."""
    real = ledger_module._rename

    def killed(*args):
        real(*args)
        raise Killed

    monkeypatch.setattr(ledger_module, "_rename", killed)


# --- apply -------------------------------------------------------------------------------------------------------


def test_apply_moves_logs_and_clears(project):
    """Flags are carried out, logged with what the model said, and gone; "Keep" stays."""
    save_flags(project, {"a": "собака", "b": "Delete", "c": "Keep"})
    outcomes = Ledger(project).apply({"a": ("bird", 0.75)})
    assert [Outcome("a", "cat", "собака", True), Outcome("b", "cat", DELETED, True)] == outcomes
    assert sorted(places(project)) == [
        "images/собака/a.jpg",
        "images/собака/c.jpg",
        "images/собака/d.jpg",
        "trash/cat/b.jpg",
    ]
    rows = read_rows(project.table("corrections"), CORRECTION_COLUMNS)
    assert [(row["id"], row["predicted"], row["probability"]) for row in rows] == [
        ("a", "bird", "0.7500"),
        ("b", "", ""),
    ]
    assert read_review(project) == {"c": "Keep"}
    assert not (project.data / "pending.json").exists()


def test_a_flag_set_and_applied_opens_the_review_twice(project):
    """Once to store it, once to apply it: at 10,000 flags each reading takes time that a person waits for."""
    save_flags(project, {"a": "Keep", "b": "Keep", "c": "Keep"})
    with watched() as seen:
        save_flag(project, "d", "Delete")
        assert [outcome.done for outcome in Ledger(project).apply()] == [True]
    assert seen[str(project.table("review"))] == 2
    assert read_review(project) == {"a": "Keep", "b": "Keep", "c": "Keep"}


def test_a_flag_edited_while_pictures_move_is_kept(project, monkeypatch):
    """An editor knows no lock: what it saved into review.csv while an apply was at work is not written over."""
    save_flags(project, {"a": "собака", "b": "Keep"})
    rename = ledger_module._rename

    def edited(*places):
        with project.table("review").open("a") as review:
            review.write("c,Delete,x\n")
        rename(*places)

    monkeypatch.setattr(ledger_module, "_rename", edited)
    Ledger(project).apply()
    assert read_review(project) == {"b": "Keep", "c": "Delete"}


def test_apply_twice_does_nothing_more(project):
    """A second apply finds nothing to do."""
    save_flags(project, {"a": "собака", "b": "Delete"})
    Ledger(project).apply()
    before = places(project), corrections(project)
    assert Ledger(project).apply() == []
    assert before == (places(project), corrections(project))


@pytest.mark.parametrize(("choice", "target"), [("собака", "images/собака/a.jpg"), ("Delete", "trash/cat/a.jpg")])
@pytest.mark.parametrize("content", ["picture a", "another"])
def test_a_taken_name_is_never_overwritten(project, choice, target, content):
    """Where the name is taken, by the same bytes or others, both files and the flag stay, and the reason is told."""
    save_flag(project, "a", choice)
    (project.data / target).parent.mkdir(parents=True, exist_ok=True)
    (project.data / target).write_text(content)
    before = places(project)
    (outcome,) = Ledger(project).apply()
    assert not outcome.done
    assert outcome.reason
    assert before == places(project)
    assert {"a": choice} == read_review(project)
    assert corrections(project) == []


def test_a_picture_moved_by_hand_is_moved_on_from_there(project):
    """A choice applies to where the picture is now."""
    save_flags(project, {"a": "собака", "b": "bird"})
    (project.images / "bird").mkdir()
    for id in ("a", "b"):
        (project.images / "cat" / f"{id}.jpg").rename(project.images / "bird" / f"{id}.jpg")
    assert [Outcome("a", "bird", "собака", True)] == Ledger(project).apply()
    assert read_review(project) == {"b": "Keep"}


def test_a_flag_without_a_picture_is_dropped(project):
    """Where the picture is nowhere, the flag goes and the reason is told."""
    save_flag(project, "a", "собака")
    (project.images / "cat" / "a.jpg").unlink()
    (outcome,) = Ledger(project).apply()
    assert "not in the training set" in outcome.reason
    assert read_review(project) == {}


def test_a_label_gone_from_the_project_is_refused(project):
    """A flag for a label that left the project file stays, with the reason, and blocks no other."""
    save_flags(project, {"a": "bird", "b": "собака"})
    smaller = project.model_copy(update={"labels": {"cat": ["cat"], "собака": ["собака"]}})
    outcomes = {outcome.id: outcome for outcome in Ledger(smaller).apply()}
    assert "'bird'" in outcomes["a"].reason
    assert outcomes["b"].done
    assert read_review(project) == {"a": "bird"}


def test_a_failed_rename_keeps_its_flag(project, monkeypatch):
    """A picture that the system will not move stays with its flag; the others are moved."""
    save_flags(project, {"a": "собака", "b": "собака"})
    rename = ledger_module._rename

    def stubborn(source, target):
        if source.stem == "a":
            raise PermissionError(f"cannot write {target}")
        rename(source, target)

    monkeypatch.setattr(ledger_module, "_rename", stubborn)
    outcomes = {outcome.id: outcome for outcome in Ledger(project).apply()}
    assert (outcomes["a"].done, outcomes["b"].done) == (False, True)
    assert read_review(project) == {"a": "собака"}
    assert corrections(project) == [("b", "cat", "собака")]


def test_raw_is_never_touched(project):
    """The bytes as they came stay where they are, whatever is decided."""
    before = tree(project.raw)
    save_flags(project, {"a": "Delete", "c": "bird"})
    Ledger(project).apply()
    assert before == tree(project.raw)


def test_a_read_only_folder_keeps_every_flag(project, monkeypatch):
    """Where no file can be renamed, each decision tells so, all flags stay, and nothing is left half done."""
    choices = {"a": "Delete", "c": "bird"}
    save_flags(project, choices)
    before, rename = places(project), Path.rename

    def refused(path, target):
        if path.suffix == ".jpg":
            raise OSError(errno.EROFS, "Read-only file system")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    outcomes = Ledger(project).apply()
    assert [outcome.done for outcome in outcomes] == [False, False]
    assert all("disk is read-only" in outcome.reason for outcome in outcomes)
    assert (before, choices) == (places(project), read_review(project))
    assert not (project.data / "pending.json").exists()


def test_a_drive_that_cannot_sync_folders_will_do(project, monkeypatch):
    """Where the system syncs files and no folders, as on some network drives, files are moved all the same."""
    save_flags(project, {"a": "Delete", "c": "bird"})
    sync = os.fsync

    def files_only(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(handle)

    monkeypatch.setattr(os, "fsync", files_only)
    assert [outcome.done for outcome in Ledger(project).apply()] == [True, True]
    assert (place_of(project, "a"), place_of(project, "c")) == ("trash/cat/a.jpg", "images/bird/c.jpg")
    assert read_review(project) == {}


def test_another_writer_is_told(project, monkeypatch):
    """While another program holds the folder, nothing happens and the flags stay."""
    save_flag(project, "a", "собака")
    monkeypatch.setattr(ledger_module, "locked", lambda folder: locked(folder, wait=0.01))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(project.data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(FieldguideError, match="Another notebook"):
            Ledger(project).apply()
    finally:
        holder.communicate("\n")
    assert read_review(project) == {"a": "собака"}


HOLD = """
import sys
from pathlib import Path
from filelock import FileLock
with FileLock(Path(sys.argv[1]) / ".lock"):
    print("held", flush=True)
    sys.stdin.readline()
"""

# --- undo, restore, table ----------------------------------------------------------------------------------------


def test_undo_takes_back_the_last(project):
    """undo(n) goes back step by step; an undo is itself nothing to undo."""
    start = places(project)
    for id, choice in (("a", "собака"), ("b", "Delete"), ("a", "bird")):
        save_flag(project, id, choice)
        Ledger(project).apply()
    assert [Outcome("a", "bird", "собака", True)] == Ledger(project).undo()
    assert [Outcome("b", "cat", RESTORED, True), Outcome("a", "собака", "cat", True)] == Ledger(project).undo(2)
    assert start == places(project)
    assert Ledger(project).undo() == []
    assert len(corrections(project)) == 6


def test_a_correction_back_is_no_undo(project):
    """Moving a picture there and back by two decisions leaves two corrections to undo."""
    for choice in ("собака", "cat"):
        save_flag(project, "a", choice)
        Ledger(project).apply()
    Ledger(project).undo()
    assert place_of(project, "a") == "images/собака/a.jpg"


def test_undo_passes_over_what_hands_moved(project):
    """A picture moved by hand after its correction is left, and the correction before is taken back."""
    for id in ("a", "b"):
        save_flag(project, id, "собака")
        Ledger(project).apply()
    (project.images / "собака" / "b.jpg").rename(project.images / "cat" / "b.jpg")
    assert [outcome.done for outcome in Ledger(project).undo()] == [False, True]
    assert (place_of(project, "a"), place_of(project, "b")) == ("images/cat/a.jpg", "images/cat/b.jpg")


def test_undo_keeps_flags_not_applied(project):
    """A flag set after the correction outlives its undo."""
    save_flag(project, "a", "собака")
    Ledger(project).apply()
    save_flag(project, "a", "Delete")
    Ledger(project).undo()
    assert read_review(project) == {"a": "Delete"}


def test_undo_of_more_than_there_is_takes_back_all(project):
    """A picture that was moved twice goes back twice, in the right order; what does not exist is not missed."""
    start = places(project)
    for choices in ({"a": "bird", "b": "Delete"}, {"a": "собака", "c": "bird"}, {"a": "Delete"}):
        save_flags(project, choices)
        Ledger(project).apply()
    outcomes = Ledger(project).undo(1000)
    assert [(outcome.id, outcome.new) for outcome in outcomes if outcome.id == "a"] == [
        ("a", RESTORED),
        ("a", "bird"),
        ("a", "cat"),
    ]
    assert [outcome.done for outcome in outcomes] == [True] * 5
    assert start == places(project)


def test_what_was_restored_is_told_the_second_time(project):
    """An id given twice, or restored before, is brought back once."""
    save_flag(project, "a", "Delete")
    Ledger(project).apply()
    assert [Outcome("a", "cat", RESTORED, True)] == Ledger(project).restore(["a", "a.jpg"])
    assert [Outcome("a", "", RESTORED, False, "it is not in the trash")] == Ledger(project).restore(["a", "a"])


@pytest.mark.parametrize("n", [0, -1])
def test_undo_of_nothing_is_refused(project, n):
    """undo(0) is a mistake, and said to be one."""
    with pytest.raises(FieldguideError, match="1 or more"):
        Ledger(project).undo(n)


def test_restore_brings_back_to_the_label(project):
    """A picture from the trash returns to its label; one that is not there, or whose name is taken, is told."""
    save_flags(project, {"a": "Delete", "b": "Delete"})
    Ledger(project).apply()
    (project.images / "собака" / "b.jpg").write_text("dropped in by hand")
    outcomes = {outcome.id: outcome for outcome in Ledger(project).restore(["a.jpg", "b", "zz"])}
    assert Outcome("a", "cat", RESTORED, True) == outcomes["a"]
    assert "under 'собака' as well" in outcomes["b"].reason
    assert "not in the trash" in outcomes["zz"].reason
    assert {"images/cat/a.jpg", "trash/cat/b.jpg", "images/собака/b.jpg"} <= set(places(project))
    assert [Outcome("a", "cat", DELETED, True)] == Ledger(project).undo()


def test_table_tells_all(project):
    """The table lists what was applied, taken back, is waiting and was kept."""
    save_flags(project, {"a": "собака", "b": "Delete"})
    Ledger(project).apply({"a": ("собака", 0.9)})
    Ledger(project).undo()
    save_flags(project, {"c": "Keep", "d": "cat"})
    table = Ledger(project).table()
    assert list(table["state"]) == ["applied", "undone", "undo", "kept", "waiting"]
    assert [*CORRECTION_COLUMNS, "state"] == list(table.columns)
    assert table["probability"][0] == 0.9
    assert table["time"].is_monotonic_increasing
    assert len(Ledger(project.model_copy(update={"name": "empty"})).table()) == 0


# --- what a kill or an editor left -------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["review", "corrections"])
def test_a_row_without_a_line_break_is_not_lost(project, table):
    """A row that an editor left without its line break stops everything before a file moves or a row goes."""
    save_flags(project, {"a": "собака", "b": "Delete"})
    Ledger(project).apply()
    save_flags(project, {"c": "cat", "d": "Delete"})
    path = project.table(table)
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    before, there = path.read_bytes(), places(project)
    deeds = (Ledger(project).apply, Ledger(project).undo, lambda: Ledger(project).restore(["b"]))
    for deed in (*deeds, *[lambda: save_flag(project, "c", None)] * (table == "review")):
        with pytest.raises(FieldguideError, match=f"{table}.csv, line .*no line break"):
            deed()
        assert (path.read_bytes(), places(project)) == (before, there)


@pytest.mark.parametrize("back", ["cat", "bird"])
def test_a_move_reversed_by_hand_after_a_kill_is_not_repeated(project, monkeypatch, back):
    """What was moved just before a kill, and then moved away by hand, stays where the person put it."""
    save_flag(project, "a", "собака")
    time.sleep(0.02)  # a file system's clock may tick in steps of some milliseconds
    with monkeypatch.context() as patch:
        kill_after_rename(patch)
        with pytest.raises(Killed):
            Ledger(project).apply()
    time.sleep(0.02)
    (project.images / back).mkdir(exist_ok=True)
    (project.images / "собака" / "a.jpg").rename(project.images / back / "a.jpg")
    (outcome,) = Ledger(project).apply()
    assert "by hand" in outcome.reason
    assert f"images/{back}/a.jpg" == place_of(project, "a")
    assert (read_review(project), corrections(project)) == ({}, [])


def test_an_applied_move_reversed_by_hand_is_not_repeated(project):
    """Hands outrank what was applied: the next apply leaves the picture where it was put."""
    save_flag(project, "a", "собака")
    Ledger(project).apply()
    (project.images / "собака" / "a.jpg").rename(project.images / "cat" / "a.jpg")
    assert Ledger(project).apply() == []
    assert place_of(project, "a") == "images/cat/a.jpg"


def test_a_flag_set_after_a_kill_survives(project, monkeypatch):
    """Finishing an interrupted move drops the flag that asked for it, not one that was set since."""
    save_flag(project, "a", "собака")
    with monkeypatch.context() as patch:
        kill_after_rename(patch)
        with pytest.raises(Killed):
            Ledger(project).apply()
    save_flag(project, "a", "Delete")
    Ledger(project).undo()
    assert read_review(project) == {"a": "Delete"}
    assert place_of(project, "a") == "images/cat/a.jpg"


BROKEN = [
    '{"moves": [',
    "[]",
    '{"moves": [{"id": 7, "old": "cat"}], "flags": []}',
    '{"moves": [], "flags": [7]}',
    '{"moves": [{"id": "a", "old": "..", "new": "bird", "predicted": "", "probability": "", "time": "", "stamp": []}],'
    ' "flags": []}',
]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_record_is_told(project, text):
    """A pending record that cannot be read stops everything with what to do; no file moves."""
    save_flag(project, "a", "собака")
    (project.data / "pending.json").write_text(text)
    with pytest.raises(FieldguideError, match=r"pending\.json.*delete that file"):
        Ledger(project).apply()
    assert place_of(project, "a") == "images/cat/a.jpg"


@pytest.mark.parametrize("lost", [1, 2, 4, 20])
def test_a_row_torn_by_a_kill_is_written_again(project, monkeypatch, lost):
    """A row that lost its end, be it in its last field, is whole after the next call, and no person has to mend it."""
    save_flag(project, "a", "собака")
    with monkeypatch.context() as patch:
        patch.setattr(ledger_module.Review, "change", lambda self, gone=(), new=(): stop() if gone else None)
        with pytest.raises(Killed):
            Ledger(project).apply({"a": ("bird", 0.75)})
    path = project.table("corrections")
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    Ledger(project).apply()
    assert whole == path.read_bytes()
    assert read_review(project) == {}


def test_a_spreadsheet_may_have_saved_the_corrections(project):
    """A mark in front and other line ends change nothing; other columns and semicolons are told, and nothing moves."""
    save_flag(project, "a", "собака")
    Ledger(project).apply()
    path = project.table("corrections")
    text = path.read_text()
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert [Outcome("a", "собака", "cat", True)] == Ledger(project).undo()
    assert list(Ledger(project).table()["state"]) == ["undone", "undo"]
    for broken, part in ((text.replace(",", ";"), "semicolons"), ("note," + text, "begins with 'note,time")):
        path.write_text(broken)
        for deed in (Ledger(project).undo, Ledger(project).table):
            with pytest.raises(FieldguideError, match=part):
                deed()
    assert place_of(project, "a") == "images/cat/a.jpg"


def test_an_edited_table_moves_nothing_outside(project):
    """A label in corrections.csv that leads out of the data folder is refused."""
    outside = project.data.parent / "outside"
    outside.mkdir()
    (outside / "e.jpg").write_text("not ours")
    project.table("corrections").write_text("time,id,old,new,predicted,probability\nx,e,cat,../../outside,,\n")
    assert [outcome.done for outcome in Ledger(project).undo()] == [False]
    assert (outside / "e.jpg").read_text() == "not ours"
