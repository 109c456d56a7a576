"""The ledger: no decision is lost, nothing is overwritten, and a kill at any moment leaves nothing half done."""

import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from utils import ledger as ledger_module
from utils.files import FieldguideError, locked, read_rows
from utils.ledger import (
    CORRECTION_COLUMNS,
    DELETED,
    RESTORED,
    Ledger,
    Outcome,
    read_choices,
    read_review,
    save_choices,
    save_flag,
    save_flags,
)
from utils.project import Project

STEPS = ("_write_pending", "_rename", "_log", "_drop_flags", "_clear_pending")
LABELS = ("bird", "cat", "dog")
IDS = ("a", "b", "c", "d")


class Killed(BaseException):
    """Stands for a kill in the middle of a step; no `except Exception` may catch it."""


def make_project(folder: Path) -> Project:
    """Return a project of three labels with the pictures a, b under cat and c, d under dog."""
    project = Project.model_validate(
        {
            "name": "t",
            "labels": {label: [label] for label in LABELS},
            "data_dir": str(folder / "data"),
            "models_dir": str(folder / "models"),
        }
    )
    for id, label in {"a": "cat", "b": "cat", "c": "dog", "d": "dog"}.items():
        path = project.images / label / f"{id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"picture {id}".encode())
    return project


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


def places(project: Project) -> dict[str, str]:
    """Return where each picture lies: "images/cat/a.jpg" → its bytes."""
    return {
        path.relative_to(project.data).as_posix(): path.read_text()
        for root in (project.images, project.trash)
        for path in sorted(root.rglob("*.jpg"))
    }


def corrections(project: Project) -> list[tuple[str, str, str]]:
    rows = read_rows(project.table("corrections"), CORRECTION_COLUMNS)
    return [(row["id"], row["old"], row["new"]) for row in rows]


def place_of(project: Project, id: str) -> str:
    return next(place for place in places(project) if place.endswith(f"/{id}.jpg"))


# --- flags -------------------------------------------------------------------------------------------------------


def test_a_flag_is_on_disk_when_it_is_set(project):
    """A flag is readable by another process as soon as save_flag returns; the last one of an id counts."""
    save_flag(project, "a", "dog")
    save_flag(project, "b", "Delete")
    save_flag(project, "a", "Keep")
    assert read_review(project) == {"a": "Keep", "b": "Delete"}
    assert project.table("review").read_text().startswith("id,choice,time\na,dog,")


def test_own_label_is_kept(project):
    """Choosing the label a picture has already is looking at it and keeping it."""
    save_flag(project, "a", "cat")
    assert read_review(project) == {"a": "Keep"}


def test_a_flag_taken_back_is_gone(project):
    """None takes the flag back, and leaves the others."""
    save_flags(project, {"a": "dog", "b": "Delete"})
    save_flag(project, "a", None)
    assert read_review(project) == {"b": "Delete"}


@pytest.mark.parametrize(
    ("id", "choice", "part"),
    [
        ("zz", "Keep", "not in the training set"),
        ("../cat/a", "Keep", "not in the training set"),
        ("", "Keep", "not in the training set"),
        ("a", "fish", "'fish' is no choice"),
        ("a", "", "'' is no choice"),
    ],
)
def test_a_wrong_flag_is_refused(project, id, choice, part):
    """An unknown picture or choice is refused with its value, and nothing is stored."""
    with pytest.raises(FieldguideError, match=part):
        save_flag(project, id, choice)
    assert read_review(project) == {}


def test_a_picture_under_two_labels_is_refused(project):
    """Nobody can know which of two files of one name is meant."""
    (project.images / "dog" / "a.jpg").write_text("another")
    with pytest.raises(FieldguideError, match="'cat' and 'dog'"):
        save_flag(project, "a", "Delete")


def test_choices_come_from_a_csv(project, tmp_path):
    """A CSV of ids or file names and choices is merged; wrong lines are returned with the reason, not fatal."""
    path = tmp_path / "choices.csv"
    path.write_text("\ufeffid;who;choice\ncat/a.jpg;me;dog\nb;me;<Delete>\nzz;me;Keep\nc;me;fish\nd;me;keep\n")
    refused = save_choices(project, path)
    assert read_review(project) == {"a": "dog", "b": "Delete", "d": "Keep"}
    assert sorted(refused) == ["c", "zz"]
    assert "fish" in refused["c"]


def test_choices_are_merged_once(project):
    """A merged file gets the next free number, and so neither redoes what was undone nor beats a newer flag."""
    path = project.table("choices")
    path.write_text("id,choice\na,dog\nzz,Keep\n")
    (project.data / "choices.001.csv").write_text("an older one")
    assert list(save_choices(project, path)) == ["zz"]
    assert not path.exists()
    assert (project.data / "choices.001.csv").read_text() == "an older one"
    assert (project.data / "choices.002.csv").read_text() == "id,choice\na,dog\nzz,Keep\n"
    assert read_review(project) == {"a": "dog"}


def test_choices_that_cannot_be_read_keep_their_name(project):
    """Only what was merged is put aside."""
    path = project.table("choices")
    path.write_text("name,choice\na,Keep\n")
    with pytest.raises(FieldguideError):
        save_choices(project, path)
    assert sorted(project.data.glob("choices*")) == [path]


@pytest.mark.parametrize("table", ["review", "corrections"])
def test_a_row_without_a_line_break_is_not_lost(project, table):
    """A row that an editor left without its line break stops everything before a file moves or a row goes."""
    save_flags(project, {"a": "dog", "b": "Delete"})
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


@pytest.mark.parametrize("text", ["", "name,choice\na,Keep\n"])
def test_a_csv_without_the_columns_is_refused(tmp_path, text):
    """A file that is no table of choices is refused with what is expected."""
    path = tmp_path / "choices.csv"
    path.write_text(text)
    with pytest.raises(FieldguideError, match="must name the columns id and choice"):
        read_choices(path)


# --- apply -------------------------------------------------------------------------------------------------------


def test_apply_moves_logs_and_clears(project):
    """Flags are carried out, logged with what the model said, and gone; "Keep" stays."""
    save_flags(project, {"a": "dog", "b": "Delete", "c": "Keep"})
    outcomes = Ledger(project).apply({"a": ("bird", 0.75)})
    assert [Outcome("a", "cat", "dog", True), Outcome("b", "cat", DELETED, True)] == outcomes
    assert sorted(places(project)) == ["images/dog/a.jpg", "images/dog/c.jpg", "images/dog/d.jpg", "trash/cat/b.jpg"]
    rows = read_rows(project.table("corrections"), CORRECTION_COLUMNS)
    assert [(row["id"], row["predicted"], row["probability"]) for row in rows] == [
        ("a", "bird", "0.7500"),
        ("b", "", ""),
    ]
    assert read_review(project) == {"c": "Keep"}
    assert not (project.data / "pending.json").exists()


def test_apply_twice_does_nothing_more(project):
    """A second apply finds nothing to do."""
    save_flags(project, {"a": "dog", "b": "Delete"})
    Ledger(project).apply()
    before = places(project), corrections(project)
    assert Ledger(project).apply() == []
    assert before == (places(project), corrections(project))


@pytest.mark.parametrize(("choice", "target"), [("dog", "images/dog/a.jpg"), ("Delete", "trash/cat/a.jpg")])
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
    save_flags(project, {"a": "dog", "b": "bird"})
    (project.images / "bird").mkdir()
    for id in ("a", "b"):
        (project.images / "cat" / f"{id}.jpg").rename(project.images / "bird" / f"{id}.jpg")
    assert [Outcome("a", "bird", "dog", True)] == Ledger(project).apply()
    assert read_review(project) == {"b": "Keep"}


def test_a_flag_without_a_picture_is_dropped(project):
    """Where the picture is nowhere, the flag goes and the reason is told."""
    save_flag(project, "a", "dog")
    (project.images / "cat" / "a.jpg").unlink()
    (outcome,) = Ledger(project).apply()
    assert "not in the training set" in outcome.reason
    assert read_review(project) == {}


def test_a_label_gone_from_the_project_is_refused(project):
    """A flag for a label that left the project file stays, with the reason, and blocks no other."""
    save_flags(project, {"a": "bird", "b": "dog"})
    smaller = project.model_copy(update={"labels": {"cat": ["cat"], "dog": ["dog"]}})
    outcomes = {outcome.id: outcome for outcome in Ledger(smaller).apply()}
    assert "'bird'" in outcomes["a"].reason
    assert outcomes["b"].done
    assert read_review(project) == {"a": "bird"}


def test_a_failed_rename_keeps_its_flag(project, monkeypatch):
    """A picture that the system will not move stays with its flag; the others are moved."""
    save_flags(project, {"a": "dog", "b": "dog"})
    rename = ledger_module._rename

    def stubborn(source, target):
        if source.stem == "a":
            raise PermissionError(f"cannot write {target}")
        rename(source, target)

    monkeypatch.setattr(ledger_module, "_rename", stubborn)
    outcomes = {outcome.id: outcome for outcome in Ledger(project).apply()}
    assert (outcomes["a"].done, outcomes["b"].done) == (False, True)
    assert read_review(project) == {"a": "dog"}
    assert corrections(project) == [("b", "cat", "dog")]


def test_raw_is_never_touched(project):
    """The bytes as they came stay where they are, whatever is decided."""
    raw = project.raw / "cat" / "a.png"
    raw.parent.mkdir(parents=True)
    raw.write_text("raw")
    save_flag(project, "a", "Delete")
    Ledger(project).apply()
    assert [path.read_text() for path in sorted(project.raw.rglob("*.*"))] == ["raw"]


def test_another_writer_is_told(project, monkeypatch):
    """While another program holds the folder, nothing happens and the flags stay."""
    save_flag(project, "a", "dog")
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
    assert read_review(project) == {"a": "dog"}


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
    for id, choice in (("a", "dog"), ("b", "Delete"), ("a", "bird")):
        save_flag(project, id, choice)
        Ledger(project).apply()
    assert [Outcome("a", "bird", "dog", True)] == Ledger(project).undo()
    assert [Outcome("b", "cat", RESTORED, True), Outcome("a", "dog", "cat", True)] == Ledger(project).undo(2)
    assert start == places(project)
    assert Ledger(project).undo() == []
    assert len(corrections(project)) == 6


def test_a_correction_back_is_no_undo(project):
    """Moving a picture there and back by two decisions leaves two corrections to undo."""
    for choice in ("dog", "cat"):
        save_flag(project, "a", choice)
        Ledger(project).apply()
    Ledger(project).undo()
    assert place_of(project, "a") == "images/dog/a.jpg"


def test_undo_passes_over_what_hands_moved(project):
    """A picture moved by hand after its correction is left, and the correction before is taken back."""
    for id in ("a", "b"):
        save_flag(project, id, "dog")
        Ledger(project).apply()
    (project.images / "dog" / "b.jpg").rename(project.images / "cat" / "b.jpg")
    assert [outcome.done for outcome in Ledger(project).undo()] == [False, True]
    assert (place_of(project, "a"), place_of(project, "b")) == ("images/cat/a.jpg", "images/cat/b.jpg")


def test_undo_keeps_flags_not_applied(project):
    """A flag set after the correction outlives its undo."""
    save_flag(project, "a", "dog")
    Ledger(project).apply()
    save_flag(project, "a", "Delete")
    Ledger(project).undo()
    assert read_review(project) == {"a": "Delete"}


@pytest.mark.parametrize("n", [0, -1])
def test_undo_of_nothing_is_refused(project, n):
    """undo(0) is a mistake, and said to be one."""
    with pytest.raises(FieldguideError, match="1 or more"):
        Ledger(project).undo(n)


def test_restore_brings_back_to_the_label(project):
    """A picture from the trash returns to its label; one that is not there, or whose name is taken, is told."""
    save_flags(project, {"a": "Delete", "b": "Delete"})
    Ledger(project).apply()
    (project.images / "dog" / "b.jpg").write_text("dropped in by hand")
    outcomes = {outcome.id: outcome for outcome in Ledger(project).restore(["a.jpg", "b", "zz"])}
    assert Outcome("a", "cat", RESTORED, True) == outcomes["a"]
    assert "under 'dog' as well" in outcomes["b"].reason
    assert "not in the trash" in outcomes["zz"].reason
    assert {"images/cat/a.jpg", "trash/cat/b.jpg", "images/dog/b.jpg"} <= set(places(project))
    assert [Outcome("a", "cat", DELETED, True)] == Ledger(project).undo()


def test_table_tells_all(project):
    """The table lists what was applied, taken back, is waiting and was kept."""
    save_flags(project, {"a": "dog", "b": "Delete"})
    Ledger(project).apply({"a": ("dog", 0.9)})
    Ledger(project).undo()
    save_flags(project, {"c": "Keep", "d": "cat"})
    table = Ledger(project).table()
    assert list(table["state"]) == ["applied", "undone", "undo", "kept", "waiting"]
    assert [*CORRECTION_COLUMNS, "state"] == list(table.columns)
    assert table["probability"][0] == 0.9
    assert table["time"].is_monotonic_increasing
    assert len(Ledger(project.model_copy(update={"name": "empty"})).table()) == 0


# --- kills -------------------------------------------------------------------------------------------------------


def kill_at(monkeypatch, step: str, when: str) -> None:
    """Make a step of the ledger raise before or after its work, as a kill there would leave things."""
    real = getattr(ledger_module, step)

    def killed(*args):
        if when == "after":
            real(*args)
        raise Killed(step)

    monkeypatch.setattr(ledger_module, step, killed)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("deed", ["apply", "undo", "restore"])
def test_a_kill_leaves_nothing_half_done(project, monkeypatch, deed, step, when):
    """After a kill at any step, the next call ends where an undisturbed one would: once, and nothing twice."""
    if deed != "apply":
        save_flag(project, "a", "Delete")
        Ledger(project).apply()
    else:
        save_flags(project, {"a": "Delete", "c": "bird"})
    act = {"apply": lambda: Ledger(project).apply(), "undo": lambda: Ledger(project).undo()}.get(
        deed, lambda: Ledger(project).restore(["a"])
    )
    with monkeypatch.context() as patch:
        kill_at(patch, step, when)
        with pytest.raises(Killed):
            act()
    outcomes = act()
    expected = {
        "apply": ({"trash/cat/a.jpg", "images/bird/c.jpg"}, [("a", "cat", DELETED), ("c", "dog", "bird")]),
    }.get(deed, ({"images/cat/a.jpg"}, [("a", "cat", DELETED), ("a", "cat", RESTORED)]))
    assert expected[0] <= set(places(project))
    assert expected[1] == sorted(corrections(project))
    assert read_review(project) == {}
    assert not (project.data / "pending.json").exists()
    assert len(places(project)) == 4
    assert outcomes or (step, when) == ("_clear_pending", "after")


@pytest.mark.parametrize("step", STEPS)
def test_sigkill_in_a_child(project, step):
    """A process killed for real at a step leaves what the next apply completes."""
    save_flags(project, {"a": "Delete", "c": "bird"})
    child = subprocess.run(
        [sys.executable, "-c", CHILD, project.model_dump_json(), step], cwd=Path(__file__).parents[1]
    )
    assert child.returncode == -signal.SIGKILL
    Ledger(project).apply()
    assert {"trash/cat/a.jpg", "images/bird/c.jpg"} <= set(places(project))
    assert sorted(corrections(project)) == [("a", "cat", DELETED), ("c", "dog", "bird")]
    assert read_review(project) == {}


CHILD = """
import os, signal, sys
from utils import ledger
from utils.project import Project
setattr(ledger, sys.argv[2], lambda *args: os.kill(os.getpid(), signal.SIGKILL))
ledger.Ledger(Project.model_validate_json(sys.argv[1])).apply()
"""


@pytest.mark.parametrize("back", ["cat", "bird"])
def test_a_move_reversed_by_hand_after_a_kill_is_not_repeated(project, monkeypatch, back):
    """What was moved just before a kill, and then moved away by hand, stays where the person put it."""
    save_flag(project, "a", "dog")
    time.sleep(0.02)  # a file system's clock may tick in steps of some milliseconds
    with monkeypatch.context() as patch:
        kill_at(patch, "_rename", "after")
        with pytest.raises(Killed):
            Ledger(project).apply()
    time.sleep(0.02)
    (project.images / back).mkdir(exist_ok=True)
    (project.images / "dog" / "a.jpg").rename(project.images / back / "a.jpg")
    (outcome,) = Ledger(project).apply()
    assert "by hand" in outcome.reason
    assert f"images/{back}/a.jpg" == place_of(project, "a")
    assert (read_review(project), corrections(project)) == ({}, [])


def test_an_applied_move_reversed_by_hand_is_not_repeated(project):
    """Hands outrank what was applied: the next apply leaves the picture where it was put."""
    save_flag(project, "a", "dog")
    Ledger(project).apply()
    (project.images / "dog" / "a.jpg").rename(project.images / "cat" / "a.jpg")
    assert Ledger(project).apply() == []
    assert place_of(project, "a") == "images/cat/a.jpg"


def test_a_flag_set_after_a_kill_survives(project, monkeypatch):
    """Finishing an interrupted move drops the flag that asked for it, not one that was set since."""
    save_flag(project, "a", "dog")
    with monkeypatch.context() as patch:
        kill_at(patch, "_rename", "after")
        with pytest.raises(Killed):
            Ledger(project).apply()
    save_flag(project, "a", "Delete")
    Ledger(project).undo()
    assert read_review(project) == {"a": "Delete"}
    assert place_of(project, "a") == "images/cat/a.jpg"


def test_a_broken_record_is_told(project):
    """A pending record that cannot be read stops everything with what to do; no file moves."""
    save_flag(project, "a", "dog")
    (project.data / "pending.json").write_text('{"moves": [')
    with pytest.raises(FieldguideError, match=r"pending\.json"):
        Ledger(project).apply()
    assert place_of(project, "a") == "images/cat/a.jpg"


def test_an_edited_table_moves_nothing_outside(project):
    """A label in corrections.csv that leads out of the data folder is refused."""
    outside = project.data.parent / "outside"
    outside.mkdir()
    (outside / "e.jpg").write_text("not ours")
    project.table("corrections").write_text("time,id,old,new,predicted,probability\nx,e,cat,../../outside,,\n")
    assert [outcome.done for outcome in Ledger(project).undo()] == [False]
    assert (outside / "e.jpg").read_text() == "not ours"


# --- any order of events -----------------------------------------------------------------------------------------


class Events(RuleBasedStateMachine):
    """Flags, applies, undos, restores, hand moves and kills in any order, on four pictures and three labels."""

    @initialize()
    def start(self):
        self.folder = tempfile.TemporaryDirectory()
        self.project = make_project(Path(self.folder.name))
        self.contents = Counter(places(self.project).values())
        self.killed = False

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @rule(id=st.sampled_from(IDS), choice=st.sampled_from([*LABELS, "Keep", "Delete", None]))
    def flag(self, id, choice):
        before = read_review(self.project)
        refused = save_flags(self.project, {id: choice})
        expected = {key: value for key, value in before.items() if key != id}
        if choice and not refused:
            own = any(place == f"images/{choice}/{id}.jpg" for place in places(self.project))
            expected[id] = "Keep" if own else choice
        if not refused:
            assert expected == read_review(self.project)

    @rule()
    def apply(self):
        """Undisturbed, every flag ends as done, or is told with a reason."""
        flags = read_review(self.project)
        outcomes = {outcome.id: outcome for outcome in Ledger(self.project).apply()}
        where = places(self.project)
        for id, choice in flags.items():
            if id in outcomes and not outcomes[id].done:
                assert outcomes[id].reason
            elif choice == "Delete":
                assert not any(f"images/{label}/{id}.jpg" in where for label in LABELS) or self.killed
            elif choice != "Keep" and not self.killed:
                assert f"images/{choice}/{id}.jpg" in where
        self.killed = False

    @rule(ids=st.sets(st.sampled_from(IDS), min_size=1), choice=st.sampled_from(["Delete", *LABELS]))
    def flag_and_apply(self, ids, choice):
        save_flags(self.project, dict.fromkeys(sorted(ids), choice))
        self.apply()

    @rule(n=st.integers(1, 3))
    def undo(self, n):
        Ledger(self.project).undo(n)
        self.killed = False

    @rule(ids=st.sets(st.sampled_from(IDS)))
    def restore(self, ids):
        Ledger(self.project).restore(sorted(ids))
        self.killed = False

    @rule(
        deed=st.sampled_from(["apply", "undo", "restore"]),
        step=st.sampled_from(STEPS),
        when=st.sampled_from(["before", "after"]),
    )
    def kill(self, deed, step, when):
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, step, when)
            try:
                ledger = Ledger(self.project)
                {"apply": ledger.apply, "undo": ledger.undo, "restore": lambda: ledger.restore(IDS)}[deed]()
            except Killed:
                self.killed = True

    @rule(place=st.integers(0, 9), label=st.sampled_from(LABELS), root=st.sampled_from(["images", "trash"]))
    def move_by_hand(self, place, label, root):
        ours = sorted(places(self.project))
        source = self.project.data / ours[place % len(ours)]
        target = self.project.data / root / label / source.name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)

    @precondition(lambda self: sum(self.contents.values()) < 8)
    @rule(place=st.integers(0, 9), root=st.sampled_from(["images", "trash"]))
    def put_a_namesake_in_the_way(self, place, root):
        """Take the very name that deleting or restoring a picture would need."""
        ours = sorted(places(self.project))
        _, label, name = ours[place % len(ours)].split("/")
        target = self.project.data / root / label / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            content = f"namesake {sum(self.contents.values())}"
            target.write_text(content)
            self.contents[content] += 1

    @invariant()
    def every_picture_is_there(self):
        """Nothing is lost, doubled or overwritten, whatever happened."""
        if hasattr(self, "project"):
            assert self.contents == Counter(places(self.project).values())

    @invariant()
    def the_record_is_gone_unless_killed(self):
        """Only a kill leaves a pending record."""
        if hasattr(self, "project") and not self.killed:
            assert not (self.project.data / "pending.json").exists()


TestAnyOrder = Events.TestCase
TestAnyOrder.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
