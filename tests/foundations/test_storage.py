"""Files whole or not at all; logs that survive a kill and a hand."""

import csv
import errno
import os
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils import storage as files
from utils import tables
from utils.errors import FieldguideError, WriteError
from utils.storage import writing
from utils.tables import append_rows, read_rows, write_table

COLUMNS = ("id", "text")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    """An error in the middle keeps what was there, and no temporary file."""
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), writing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("table.csv", "old")]


def test_a_full_disk_is_said_in_one_sentence(tmp_path, monkeypatch):
    """ENOSPC becomes a sentence with the path and the advice, and half a row is not left behind."""
    path = tmp_path / "log.csv"
    append_rows(path, COLUMNS, [{"id": "1", "text": "a"}])
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(WriteError, match=r"log\.csv: the disk is full\. Free some space"):
        append_rows(path, COLUMNS, [{"id": "2", "text": "b"}])
    with pytest.raises(WriteError, match="the disk is full"):
        write_table(tmp_path / "other.csv", COLUMNS, [])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["log.csv"]


def test_a_folder_that_cannot_be_made_is_said_in_one_sentence(tmp_path):
    """A file where a folder should be gives the path and what to do."""
    (tmp_path / "data").write_text("")
    with pytest.raises(WriteError, match="Cannot write"):
        write_table(tmp_path / "data" / "x" / "t.csv", COLUMNS, [])


FORMULAS = ["=1+1", "+1+1", "-1", "@SUM(A1)", "＝1", "ants;=1", "ants\t=1", " =1", '"=1"', ';"=1', "ants;; +1", "'=1"]


@given(st.text(alphabet="=+-@＝;\t'\" a1.e,\n\r", max_size=8))
@settings(deadline=None)
def test_a_guard_can_be_undone(text):
    """Whatever a text begins with, also the guard's own apostrophe: guarded and read, it is the same text."""
    assert tables.plain_text(tables.guarded(text)) == text


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_begins_like_a_formula(tmp_path, text):
    """Opened with commas, semicolons or tabs between its cells, no cell of a table is one that a spreadsheet runs."""
    path, columns = tmp_path / "log.csv", ("id", text)
    append_rows(path, columns, [{"id": "1", text: text}])
    append_rows(path, columns, [{"id": "2", text: text}])
    for separator in ",;\t":
        with path.open(encoding="utf-8", newline="") as file:
            cells = [cell for row in csv.reader(file, delimiter=separator) for cell in row]
        assert [cell for cell in cells if cell.strip(' "')[:1] in tuple("=+-@＝")] == []
    assert read_rows(path, columns) == [{"id": "1", text: text}, {"id": "2", text: text}]


def test_an_older_table_is_read_as_it_is(tmp_path):
    """A table written without guards gives its formulas back, and takes new rows with guards; numbers stay numbers."""
    path = tmp_path / "log.csv"
    path.write_text("id,text\n1,=1+1\n2,'t was\n3,-0.5\n", encoding="utf-8")
    append_rows(path, COLUMNS, [{"id": "4", "text": "=1+1"}, {"id": "5", "text": -0.5}])
    assert [row["text"] for row in read_rows(path, COLUMNS)] == ["=1+1", "'t was", "-0.5", "=1+1", "-0.5"]
    assert path.read_text(encoding="utf-8").endswith("4,'=1+1\n5,-0.5\n")


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=30)), max_size=8))
@settings(deadline=None)
def test_a_log_gives_back_its_rows(tmp_path_factory, rows):
    """Any text comes back, line breaks as spaces: a row is one physical line."""
    path = tmp_path_factory.mktemp("log") / "log.csv"
    rows = [{"id": f"{n}", "text": text} for n, (_, text) in enumerate(rows)]
    for row in rows:
        append_rows(path, COLUMNS, [row])
    encodable = [row | {"text": row["text"].encode("utf-8", "replace").decode("utf-8")} for row in rows]
    expected = [row | {"text": tables.LINE_BREAKS.sub(" ", row["text"])} for row in encodable]
    assert read_rows(path, COLUMNS) == expected


@given(st.data())
@settings(deadline=None)
def test_a_torn_last_line_is_dropped_and_then_overwritten(tmp_path_factory, data):
    """A log cut anywhere reads as its whole rows; a new row is not glued to a torn one, and cuts no whole one off."""
    path = tmp_path_factory.mktemp("log") / "log.csv"
    rows = [{"id": str(n), "text": f"tilapia, {n}"} for n in range(4)]
    append_rows(path, COLUMNS, rows)
    whole = path.read_bytes()
    header = whole.index(b"\n") + 1
    cut = data.draw(st.integers(header, len(whole)))
    path.write_bytes(whole[:cut])
    left = whole[:cut].count(b"\n") - 1
    if whole[header:cut].split(b"\n")[-1].decode() in [f"{left},", f'{left},"tilapia, {left}"']:
        with pytest.warns(UserWarning, match=rf"log\.csv, line {left + 2}: .*no line break"):
            assert read_rows(path, COLUMNS) == rows[:left]
        with pytest.raises(FieldguideError, match=rf"log\.csv, line {left + 2}: .*no line break"):
            append_rows(path, COLUMNS, [{"id": "new", "text": "x"}])
        assert path.read_bytes() == whole[:cut]
        return
    with warnings.catch_warnings(action="error"):
        assert read_rows(path, COLUMNS) == rows[:left]
    append_rows(path, COLUMNS, [{"id": "new", "text": "x"}])
    assert read_rows(path, COLUMNS) == [*rows[:left], {"id": "new", "text": "x"}]


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_line_torn_inside_a_character_is_dropped(tmp_path, cut):
    """A kill may leave half of a letter that is no ASCII: the whole rows are read all the same."""
    path = tmp_path / "log.csv"
    append_rows(path, COLUMNS, [{"id": "1", "text": "ё"}])
    with path.open("ab") as log:
        log.write("2,ёё"[: cut + 1].encode()[:-1] if cut > 1 else "ё".encode()[:1])
    with warnings.catch_warnings(action="ignore"):
        assert read_rows(path, COLUMNS) == [{"id": "1", "text": "ё"}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,text\n1,a\n", "begins with 'name,text'"),
        ("id,text\n1,a\n2\n", "line 3: 1 fields"),
        ("id;text\n1;a\n", "semicolons between its columns"),
    ],
)
def test_a_table_broken_by_hand_is_named_with_its_line(tmp_path, text, says):
    """A wrong header or row is an error that says where, never a silent loss."""
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(FieldguideError, match=says):
        read_rows(path, COLUMNS)


@pytest.mark.parametrize("text", ["id", "id;te"])
def test_rows_are_never_written_without_a_header(tmp_path, text):
    """A first line that is torn is refused by append_rows as by read_rows, and stays."""
    path = tmp_path / "log.csv"
    path.write_text(text)
    for use in (lambda: append_rows(path, COLUMNS, [{"id": "1", "text": "a"}]), lambda: read_rows(path, COLUMNS)):
        with pytest.raises(FieldguideError, match=rf"log\.csv begins with '{text}'"):
            use()
        assert path.read_text() == text


def test_rows_are_not_appended_under_another_header(tmp_path):
    """A log whose header was damaged by hand is refused before anything is added to it, and stays."""
    path = tmp_path / "log.csv"
    path.write_text("id,tekst\n1,a\n")
    with pytest.raises(FieldguideError, match=r"log\.csv begins with 'id,tekst'"):
        append_rows(path, COLUMNS, [{"id": "2", "text": "b"}])
    assert path.read_text() == "id,tekst\n1,a\n"


def test_a_header_without_a_line_break_is_no_torn_row(tmp_path):
    """A table that an editor left as a bare header reads as empty, with a warning, and keeps its header."""
    path = tmp_path / "log.csv"
    path.write_text("id,text")
    with pytest.warns(UserWarning, match=r"line 1: .*no line break"):
        assert read_rows(path, COLUMNS) == []
    with pytest.raises(FieldguideError, match=r"line 1: .*no line break"):
        append_rows(path, COLUMNS, [{"id": "1", "text": "a"}])
    assert path.read_text() == "id,text"


def test_an_empty_file_is_an_empty_table(tmp_path):
    """Reading and appending agree that a file of no bytes is a table that has not begun."""
    path = tmp_path / "log.csv"
    path.touch()
    assert read_rows(path, COLUMNS) == []
    append_rows(path, COLUMNS, [{"id": "1", "text": "a"}])
    assert read_rows(path, COLUMNS) == [{"id": "1", "text": "a"}]


def test_two_writers_cannot_work_at_once(tmp_path):
    """The second is told who holds the folder, and that nothing is lost."""
    with (
        files.locked(tmp_path),
        pytest.raises(FieldguideError, match="Another notebook or program is working on"),
        files.locked(tmp_path, wait=0.1),
    ):
        pass


def test_an_error_shows_as_one_sentence_in_a_notebook():
    """IPython is given the message alone, without a traceback."""
    assert FieldguideError("Do this.")._render_traceback_() == ["FieldguideError: Do this."]


def test_a_shelf_puts_files_in_their_places_together(tmp_path):
    """Before it settles nothing has its name; afterwards everything has, in whatever folder."""
    shelf = files.Shelf()
    shelf.add(tmp_path / "a" / "1.jpg", b"1")
    shelf.add(tmp_path / "b" / "2.jpg", b"2")
    assert not list(tmp_path.glob("*/[!.]*"))
    shelf.settle()
    shelf.settle()
    found = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.glob("*/*")}
    assert found == {"a/1.jpg": b"1", "b/2.jpg": b"2"}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_shelf_that_cannot_settle_leaves_no_temporary_files(tmp_path, monkeypatch, call):
    """What got its name keeps it, the rest is removed; the sentence names the file."""
    shelf = files.Shelf()
    for n in range(3):
        shelf.add(tmp_path / f"{n}.jpg", b"x")
    real, left = {"fsync": files.os.fsync, "replace": files.Path.replace}[call], [2]

    def second(*args):
        left[0] -= 1
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr({"fsync": files.os, "replace": files.Path}[call], call, second)
    with pytest.raises(WriteError, match=r"[012]\.jpg: the disk is full"):
        shelf.settle()
    assert sorted(path.name for path in tmp_path.iterdir()) == ([] if call == "fsync" else ["0.jpg"])


def test_leftovers_are_ours_alone(tmp_path):
    """Only names that a killed run leaves are removed, also below; other programs' hidden files stay."""
    shelf = files.Shelf()
    for folder in (tmp_path, tmp_path / "raw"):
        shelf.add(folder / "1.jpg", b"x")
        (folder / ".download.part").touch()
        (folder / "0123456789abcdef.part.jpg").touch()
    assert files.remove_leftovers(tmp_path, below=False) == 1
    assert files.remove_leftovers(tmp_path) == 1
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 4


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("id,text\n1,a\n", "id,text\n1,a\n"),
        ("id,text\n1,a\n2,b", "id,text\n1,a\n"),
        ("id,text\n1,a\n2", "id,text\n1,a\n"),
        ("\ufeffid,text\r\n1,a\r\n2", "\ufeffid,text\r\n1,a\r\n"),
        ("id,text", "id,text\n"),
        ("id,te", "id,te"),
        ("name,text\n1", "name,text\n1"),
        ("", ""),
    ],
)
def test_mending_a_log(tmp_path, text, mended):
    """A last line without a line break goes, a header without one gets it, and no strange file is touched."""
    path = tmp_path / "log.csv"
    path.write_bytes(text.encode())
    tables.mend_log(path, COLUMNS)
    assert path.read_bytes().decode() == mended


@pytest.mark.parametrize("length", [10, 8_191, 8_192, 8_193, 30_000])
def test_a_torn_line_of_any_length(tmp_path, length):
    """The last line break is found however far from the end it is."""
    path = tmp_path / "log.csv"
    append_rows(path, COLUMNS, [{"id": "1", "text": "b" * length}])
    with path.open("a") as log:
        log.write("2" * length)
    append_rows(path, COLUMNS, [{"id": "3", "text": "c"}])
    assert [row["id"] for row in read_rows(path, COLUMNS)] == ["1", "3"]


def test_a_quote_does_not_reach_into_the_next_row(tmp_path):
    """A row is one line: a quote that is not closed is an error of that line, and swallows no other."""
    path = tmp_path / "log.csv"
    path.write_text('id,text\n1,a\n2,"b\n3,c"\n')
    with pytest.raises(FieldguideError, match=r"log\.csv, line 3: .*Repair or delete that line"):
        read_rows(path, COLUMNS)


def test_a_field_of_any_length_is_read(tmp_path):
    """A table holds what it holds: csv's own limit of a field stops no reading, and stays as it was for others."""
    path, limit = tmp_path / "log.csv", csv.field_size_limit()
    long = {"id": "1", "text": "x" * (2 * limit)}
    append_rows(path, COLUMNS, [long, {"id": "2", "text": "b"}])
    assert read_rows(path, COLUMNS) == [long, {"id": "2", "text": "b"}]
    path.write_bytes(path.read_bytes().removesuffix(b"\n") + long["text"].encode())
    with pytest.warns(UserWarning, match="line 3: the last line has no line break"):
        assert read_rows(path, COLUMNS) == [long]
    assert csv.field_size_limit() == limit


def test_only_what_this_run_wrote_is_said_to_be_written(tmp_path):
    """Files and folders that are new, as seen from the repository's root; what stands from before is told apart."""
    root, old = files.Path(files.__file__).parents[1], 1_600_000_000
    (tmp_path / "table.csv").touch()
    (tmp_path / "raw" / "cat").mkdir(parents=True)
    assert files.written(tmp_path / "table.csv", tmp_path / "gone") == f"Written: {tmp_path}/table.csv"
    os.utime(tmp_path / "table.csv", (old, old))
    os.utime(tmp_path / "raw", (old, old))  # the folder in it is new: a picture came
    told = files.written(tmp_path / "table.csv", tmp_path / "raw")
    assert told == f"Written: {tmp_path}/raw. Unchanged: {tmp_path}/table.csv"
    assert files.written(root / "LICENSE", since=9e9) == "Unchanged: LICENSE"
    assert files.written(tmp_path / "nothing") == "Nothing was written."


def test_a_file_that_is_being_written_is_no_leftover(tmp_path):
    """Another notebook's temporary file stays where only older ones are looked for."""
    young, old = (tmp_path / f".{digit * 16}.part.pth" for digit in "ab")
    for path in (young, old):
        path.touch()
    os.utime(old, (1, 1))
    assert files.remove_leftovers(tmp_path, older=3600) == 1
    assert young.exists() and not old.exists()
