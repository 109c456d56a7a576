"""Flags: on disk when they are set, never lost, and from any spreadsheet."""

import unicodedata

import pytest
from four_pictures import make_four, put

from utils.errors import FieldguideError
from utils.ledger import flags as review
from utils.ledger.flags import labels_of, read_choices, read_review, save_choices, save_flag, save_flags
from utils.ledger.moves import Ledger
from utils.storage import locked


@pytest.fixture
def project(tmp_path):
    return make_four(tmp_path)


def test_a_flag_is_on_disk_when_it_is_set(project):
    """A flag is readable by another process as soon as save_flag returns; the last one of an id counts."""
    save_flag(project, "a", "собака")
    save_flag(project, "b", "Delete")
    save_flag(project, "a", "Keep")
    assert read_review(project) == {"a": "Keep", "b": "Delete"}
    assert project.table("review").read_text().startswith("id,choice,time\na,собака,")


def test_own_label_is_kept(project):
    """Choosing the label a picture has already is looking at it and keeping it."""
    save_flag(project, "a", "cat")
    assert read_review(project) == {"a": "Keep"}


def test_a_flag_taken_back_is_gone(project):
    """None takes the flag back, and leaves the others."""
    save_flags(project, {"a": "собака", "b": "Delete"})
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
    (project.images / "собака" / "a.jpg").write_text("another")
    with pytest.raises(FieldguideError, match="'cat' and 'собака'"):
        save_flag(project, "a", "Delete")


def test_choices_come_from_a_csv(project, tmp_path):
    """A CSV of ids or file names and choices is merged; wrong lines are returned with the reason, not fatal."""
    path = tmp_path / "choices.csv"
    path.write_text("\ufeffid;who;choice\ncat/a.jpg;me;собака\nb;me;<Delete>\nzz;me;Keep\nc;me;fish\nd;me;keep\n")
    refused = save_choices(project, path)
    assert read_review(project) == {"a": "собака", "b": "Delete", "d": "Keep"}
    assert sorted(refused) == ["c", "zz"]
    assert "fish" in refused["c"]


def test_choices_may_come_from_any_spreadsheet(project, tmp_path):
    """Tabs separate too, and the two columns may be spelled in capitals."""
    path = put(tmp_path / "choices.csv", "Who\tID\tChoice\nme\ta\tсобака\n")
    assert read_choices(path) == {"a": "собака"}


def test_choices_that_are_no_csv_are_told(tmp_path):
    """A field larger than CSV allows, and bytes that are no UTF-8, say so in a sentence."""
    for data in (b"id,choice\na," + b"x" * 200_000, b"id,choice\na,\xf1\n"):
        path = tmp_path / "choices.csv"
        path.write_bytes(data)
        with pytest.raises(FieldguideError, match="Save them as CSV in UTF-8"):
            read_choices(path)


def test_a_choice_is_the_same_in_either_form_of_unicode(project):
    """A label typed with combining marks is the label of the project, which is written without."""
    labels = {"морський": ["m"], "cat": ["c"]}
    project = project.model_copy(update={"labels": labels})
    save_flag(project, "a", unicodedata.normalize("NFD", "морський"))
    assert read_review(project) == {"a": "морський"}


@pytest.mark.parametrize("id", ["x" * 300, "ж" * 126, "\udcff", "x\ny", ".a"])
def test_an_id_that_is_no_file_name_refuses_only_itself(project, id):
    """A name that no file or table can hold is refused with its value; the other flags are stored."""
    assert list(save_flags(project, {id: "Keep", "a": "Keep", "b": "Delete"})) == [id]
    assert read_review(project) == {"a": "Keep", "b": "Delete"}


def test_many_pictures_are_found_as_few_are(project, monkeypatch):
    """Whether files are looked for one by one or folders are read, the labels are the same."""
    put(project.images / "bird" / "a.jpg", "namesake")
    put(project.images / "bird" / "e.png", "no picture of the set")
    ids = ["a", "b", "c", "e", "zz"]
    few = labels_of(project.images, project.labels, ids)
    monkeypatch.setattr(review, "FEW_FILES", 0)
    assert (
        few == labels_of(project.images, project.labels, ids) == {"a": ["bird", "cat"], "b": ["cat"], "c": ["собака"]}
    )


def test_a_spreadsheet_may_have_saved_the_flags(project):
    """A mark in front and other line ends change nothing; other columns and semicolons are told, not overwritten."""
    save_flags(project, {"a": "собака", "b": "Delete"})
    path = project.table("review")
    text = path.read_text()
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    save_flag(project, "c", "Keep")
    assert read_review(project) == {"a": "собака", "b": "Delete", "c": "Keep"}
    for broken, part in ((text.replace(",", ";"), "semicolons"), ("note," + text, "begins with 'note,id")):
        path.write_text(broken)
        for deed in (lambda: save_flags(project, {"a": None, "c": "Keep"}), Ledger(project).apply):
            with pytest.raises(FieldguideError, match=part):
                deed()
        assert broken == path.read_text()


def test_a_flag_that_cannot_be_stored_is_told(project, monkeypatch):
    """While another program holds the folder for long, the flag is refused in a sentence, and none is lost."""
    save_flag(project, "a", "собака")
    monkeypatch.setattr(review, "locked", lambda folder: locked(folder, wait=0.01))
    with locked(project.data), pytest.raises(FieldguideError, match="Another notebook"):
        save_flag(project, "b", "Delete")
    assert read_review(project) == {"a": "собака"}


def test_choices_are_merged_once(project):
    """A merged file gets the next free number, and so neither redoes what was undone nor beats a newer flag."""
    path = project.table("choices")
    path.write_text("id,choice\na,собака\nzz,Keep\n")
    (project.data / "choices.001.csv").write_text("an older one")
    assert list(save_choices(project, path)) == ["zz"]
    assert not path.exists()
    assert (project.data / "choices.001.csv").read_text() == "an older one"
    assert (project.data / "choices.002.csv").read_text() == "id,choice\na,собака\nzz,Keep\n"
    assert read_review(project) == {"a": "собака"}


def test_a_guarded_choice_is_the_label(tmp_path):
    """A label copied from a table of ours, where an apostrophe guards it from a spreadsheet, is that label."""
    path = tmp_path / "choices.csv"
    path.write_text("id;choice\na;'=ants\nb;'s dogs\n", encoding="utf-8")
    assert read_choices(path) == {"a": "=ants", "b": "'s dogs"}


def test_choices_that_cannot_be_read_keep_their_name(project):
    """Only what was merged is put aside."""
    path = project.table("choices")
    path.write_text("name,choice\na,Keep\n")
    with pytest.raises(FieldguideError):
        save_choices(project, path)
    assert sorted(project.data.glob("choices*")) == [path]


@pytest.mark.parametrize("text", ["", "name,choice\na,Keep\n"])
def test_a_csv_without_the_columns_is_refused(tmp_path, text):
    """A file that is no table of choices is refused with what is expected."""
    path = tmp_path / "choices.csv"
    path.write_text(text)
    with pytest.raises(FieldguideError, match="must name the columns id and choice"):
        read_choices(path)


def test_a_flag_alone_is_one_row_at_the_end(project):
    """Flagging one picture of many does not write the others again: a person presses keys faster than a disk."""
    save_flags(project, {"a": "bird", "b": "Delete"})
    before = project.table("review").read_bytes()
    save_flag(project, "c", "Keep")
    assert project.table("review").read_bytes().startswith(before + b"c,Keep,")
