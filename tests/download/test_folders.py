"""Photos that are there already: what is taken of a folder, and what is said of the rest."""

from contextlib import suppress
from pathlib import Path

import pytest
from test_collect import files, interrupted, rows, saved
from test_fetch import picture

from utils.download import folder_pictures, folders, folders_table, kept_count, save_pictures
from utils.errors import FieldguideError
from utils.storage import content_id


@pytest.fixture
def project(make_project):
    return make_project()


@pytest.fixture
def folder(tmp_path):
    """A source folder with two labels and what does not belong there."""
    folder = tmp_path / "own photos"
    for label, seeds in {"cat": (1, 2, 3), "dog": (4, 5)}.items():
        (folder / label / "deeper").mkdir(parents=True)
        for seed in seeds:
            (folder / label / f"{seed}.jpg").write_bytes(picture(seed))
        (folder / label / "deeper" / "9.jpg").write_bytes(picture(9))
        (folder / label / ".hidden").write_bytes(b"x")
    (folder / "cat" / "2 copy.jpg").write_bytes(picture(2))
    (folder / "cat" / "notes.txt").write_bytes(b"three cats")
    return folder


def test_folder_is_copied_and_never_changed(project, folder):
    """Photos are copied from the folder, by label; the folder stays as it is; a second run adds nothing."""
    before = files(folder)
    found = saved(project, folder_pictures(folder, project.labels))
    assert files(folder) == before
    cats = {f"cat/{content_id(picture(n))}.jpg": picture(n) for n in (1, 2, 3)}
    dogs = {f"dog/{content_id(picture(n))}.jpg": picture(n) for n in (4, 5)}
    assert files(project.raw) == cats | dogs | {f"cat/{content_id(b'three cats')}.bin": b"three cats"}
    assert [(Path(row["url"]).name, row["status"]) for row in found] == [
        *(("1.jpg", "kept"), ("2%20copy.jpg", "kept"), ("2.jpg", "copy"), ("3.jpg", "kept"), ("notes.txt", "kept")),
        *(("4.jpg", "kept"), ("5.jpg", "kept")),
    ]
    assert kept_count(project, "cat") == 3
    state = files(project.data)
    assert saved(project, folder_pictures(folder, project.labels)) == []
    assert files(project.data) == state


def test_folder_limit_counts_contents(project, folder):
    """The limit is of distinct contents a label: a copy does not use it up."""
    names = [p.title for p in folder_pictures(folder, ["cat", "dog"], limit=2)]
    assert names == ["1.jpg", "2 copy.jpg", "4.jpg", "5.jpg"]
    assert [p.title for p in folder_pictures(folder, ["cat"], limit=3)] == ["1.jpg", "2 copy.jpg", "2.jpg", "3.jpg"]


def test_folder_names_are_matched_in_any_unicode_form(project, tmp_path):
    """A folder name typed on a Mac (letters and accents apart) is the same label."""
    (tmp_path / "e\u0301le\u0301phant").mkdir()
    (tmp_path / "e\u0301le\u0301phant" / "a.jpg").write_bytes(picture(1))
    (found,) = folder_pictures(tmp_path, ["\u00e9l\u00e9phant"])
    assert found.label == "\u00e9l\u00e9phant"


def test_folder_without_a_label_says_what_is_there(folder):
    """A missing or empty label folder is named, together with those that are there."""
    with pytest.raises(FieldguideError, match=r"no folder for the label 'cow'.*'cat', 'dog'"):
        list(folder_pictures(folder, ["cat", "cow"]))
    (folder / "cow" / "inner").mkdir(parents=True)
    with pytest.raises(FieldguideError, match=r"cow holds no files"):
        list(folder_pictures(folder, ["cow"]))
    with pytest.raises(FieldguideError, match=r"no folder .*nowhere"):
        list(folder_pictures(folder / "nowhere", ["cat"]))


def test_folder_tells_what_it_does_not_take(project, folder, tmp_path, monkeypatch):
    """Too large files and links out of the folder have a row with the reason, and stop nothing."""
    (tmp_path / "secret.jpg").write_bytes(picture(8))
    (folder / "dog" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "dog" / "inner link.jpg").symlink_to(folder / "dog" / "4.jpg")
    (folder / "dog" / "lost.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "dog" / "large.tif").write_bytes(b"x" * 100_001)
    monkeypatch.setattr(folders, "LARGEST_FILE", 100_000)
    found = saved(project, folder_pictures(folder, ["dog"]))
    assert {row["title"]: (row["status"], row["reason"]) for row in found} == {
        "4.jpg": ("kept", ""),
        "5.jpg": ("kept", ""),
        "inner link.jpg": ("copy", f"exact copy of {content_id(picture(4))}"),
        "large.tif": ("failed", "larger than 0 MB"),
        "link.jpg": ("failed", "a link that leads out of the source folder"),
        "lost.jpg": ("failed", "not a file, or a link that leads nowhere"),
    }


@pytest.mark.parametrize("at", range(0, 8, 2))
def test_killed_saving_is_completed(project, folder, monkeypatch, tmp_path, at):
    """Killed between a file and its row, and run again, it ends where an unbroken run ends: no copies of itself."""
    whole = project.model_copy(update={"data_dir": str(tmp_path / "whole")})
    save_pictures(whole, folder_pictures(folder, whole.labels))
    with suppress(pytest.fail.Exception):  # the last row was reached: nothing was left to interrupt
        interrupted(monkeypatch, lambda: save_pictures(project, folder_pictures(folder, project.labels)), at=at)
    save_pictures(project, folder_pictures(folder, project.labels))
    assert rows(project) == rows(whole)
    assert files(project.raw) == files(whole.raw)


def test_a_photo_put_right_at_the_same_path_is_taken(project, folder, monkeypatch):
    """What failed, or was half copied, is read again; the unchanged failure has one row, not one for each run."""
    (folder / "dog" / "4.jpg").write_bytes(picture(4)[:500])
    monkeypatch.setattr(folders, "LARGEST_FILE", 100_000)
    (folder / "dog" / "large.jpg").write_bytes(b"x" * 100_001)
    save_pictures(project, folder_pictures(folder, ["dog"]))
    assert saved(project, folder_pictures(folder, ["dog"])) == []
    (folder / "dog" / "4.jpg").write_bytes(picture(4))
    (folder / "dog" / "large.jpg").write_bytes(picture(6))
    found = saved(project, folder_pictures(folder, ["dog"]))
    assert [(row["title"], row["status"]) for row in found] == [("4.jpg", "kept"), ("large.jpg", "kept")]
    assert {content_id(picture(n)) for n in (4, 6)} <= {Path(name).stem for name in files(project.raw)}
    assert saved(project, folder_pictures(folder, ["dog"])) == []


def test_beside_other_sources_a_folder_may_lack_labels(folder):
    """A missing or empty label folder is passed over; one with none of the labels is still refused."""
    (folder / "cow" / "inner").mkdir(parents=True)
    found = folder_pictures(folder, ["bird", "cow", "dog"], complete=False)
    assert [picture.title for picture in found] == ["4.jpg", "5.jpg"]
    with pytest.raises(FieldguideError, match=r"no photos of any label.*'cat', 'cow', 'dog'"):
        list(folder_pictures(folder, ["bird", "cow"], complete=False))


def test_what_the_limit_leaves_out_is_told(project, folder):
    """For each label, how many photos its folders hold and how many of them were taken."""
    project = project.model_copy(update={"source": ["sample", str(folder)]})
    save_pictures(project, folder_pictures(folder, project.labels, limit=2))
    table = folders_table(project)
    assert table.to_dict("index") == {
        "cat": {"files in the folders": 5, "taken": 2},
        "dog": {"files in the folders": 2, "taken": 2},
    }
    assert folders_table(project.model_copy(update={"source": "sample"})).empty
