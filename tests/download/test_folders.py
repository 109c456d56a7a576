"""Photos that are there already: what is taken of a folder, and what is said of the rest."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import draw_picture, picture_bytes
from test_collect import files, interrupted, rows, saved
from test_fetch import picture

from utils.download import (
    folders,
    kept_count,
    places_report,
    read_folder,
    read_places,
    save_pictures,
    source_pictures,
    take_photos,
    taken_addresses,
)
from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import content_id


def folder_pictures(folder, labels, *, follow_links=False, **how):
    """Read the photos of a folder."""
    source = read_folder(folder, labels, follow_links=follow_links)
    return source_pictures(source, follow_links=follow_links, **how)


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
        (folder / label / "deeper" / "9.jpg").write_bytes(picture(90 + len(seeds)))
        (folder / label / ".hidden").write_bytes(b"x")
    (folder / "cat" / "2 copy.jpg").write_bytes(picture(2))
    (folder / "cat" / "notes.txt").write_bytes(b"three cats")
    return folder


def test_folder_is_copied_and_never_changed(project, folder):
    """Photos are copied from the folder, by label; the folder stays as it is; a second run adds nothing."""
    before = files(folder)
    found = saved(project, folder_pictures(folder, project.labels))
    assert files(folder) == before
    cats = {f"cat/{content_id(picture(n))}.jpg": picture(n) for n in (1, 2, 3, 93)}
    dogs = {f"dog/{content_id(picture(n))}.jpg": picture(n) for n in (4, 5, 92)}
    assert files(project.raw) == cats | dogs
    assert [(row["url"].partition("photos/")[2], row["status"]) for row in found] == [
        *(("cat/1.jpg", "kept"), ("cat/2%20copy.jpg", "kept"), ("cat/2.jpg", "copy"), ("cat/3.jpg", "kept")),
        *(("cat/deeper/9.jpg", "kept"), ("dog/4.jpg", "kept"), ("dog/5.jpg", "kept"), ("dog/deeper/9.jpg", "kept")),
    ]
    assert kept_count(project, "cat") == 4
    state = files(project.data)
    assert saved(project, folder_pictures(folder, project.labels)) == []
    assert files(project.data) == state


def test_folder_limit_counts_contents(folder):
    """The limit is of distinct contents a label: a copy does not use it up."""
    for limit in (1, 2, 3, 4):
        names = [p.title for p in folder_pictures(folder, ["cat"], limit=limit)]
        assert len({name.replace("2 copy", "2") for name in names}) == limit
    assert len(list(folder_pictures(folder, ["cat", "dog"], limit=3))) in (6, 7)


def test_a_limit_draws_from_all_with_the_seed(project, tmp_path):
    """Of four years every year is there; the seed decides, and photos that come later do not change what was taken."""
    for year in range(2021, 2025):
        for n in range(10):
            path = tmp_path / "photos" / "cat" / f"{year}-06-{n:02}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(10 * year + n))

    def drawn(seed: int, **how) -> list[str]:
        return [p.title for p in folder_pictures(tmp_path / "photos", ["cat"], limit=16, seed=seed, **how)]

    first = drawn(42)
    assert {name[:4] for name in first} == {"2021", "2022", "2023", "2024"}
    assert drawn(42) == first and set(drawn(7)) != set(first)
    save_pictures(project, folder_pictures(tmp_path / "photos", ["cat"], limit=16))
    for n in range(20):
        (tmp_path / "photos" / "cat" / f"later {n}.jpg").write_bytes(picture(500 + n))
    assert set(drawn(42, taken=taken_addresses(project))) == set(first) != set(drawn(42))


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
    (folder / "cow" / "notes.txt").write_bytes(b"none yet")
    passed = r"cow holds no photos. Passed over .*: 1 text or table \(cow/notes.txt\)"
    with pytest.raises(FieldguideError, match=passed):
        list(folder_pictures(folder, ["cat", "cow"]))
    with pytest.raises(FieldguideError, match=r"no folder .*nowhere"):
        list(folder_pictures(folder / "nowhere", ["cat"]))


def test_folder_tells_what_it_does_not_take(project, folder, tmp_path, monkeypatch):
    """Too large files and links out of the folder have a row with the reason, and stop nothing."""
    (tmp_path / "secret.jpg").write_bytes(picture(8))
    (folder / "dog" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "dog" / "inner link.jpg").symlink_to(folder / "dog" / "4.jpg")
    (folder / "dog" / "lost.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "dog" / "large.tif").write_bytes(b"x" * 100_001)
    monkeypatch.setattr(folders, "LARGEST_OWN_FILE", 100_000)
    found = saved(project, folder_pictures(folder, ["dog"]))
    assert {row["title"]: (row["status"], row["reason"]) for row in found} == {
        "4.jpg": ("kept", ""),
        "5.jpg": ("kept", ""),
        "9.jpg": ("kept", ""),
        "inner link.jpg": ("copy", f"exact copy of {content_id(picture(4))}"),
        "large.tif": ("failed", "larger than 0 MB"),
        "link.jpg": ("failed", "a link that leads out of the source folder; follow_links = true takes it"),
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
    monkeypatch.setattr(folders, "LARGEST_OWN_FILE", 100_000)
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
    assert [picture.title for picture in found] == ["4.jpg", "5.jpg", "9.jpg"]
    with pytest.raises(FieldguideError, match=r"no photos of any label.*'cat', 'cow', 'dog'"):
        list(folder_pictures(folder, ["bird", "cow"], complete=False))


def test_what_the_limit_leaves_out_is_told(project, folder, monkeypatch):
    """For each label, how many photos its folders hold and how many of them were taken."""
    project = project.model_copy(update={"source": ["sample", str(folder)], "images_per_label": 2})
    (folder / "unsorted").mkdir()
    (folder / "unsorted" / "a.jpg").write_bytes(picture(70))
    save_pictures(project, folder_pictures(folder, project.labels, limit=2))
    report = places_report(project)
    cats = report.table.loc["cat"].to_dict()
    assert cats["photos there"] == 5 and cats["taken"] in (2, 3)  # 3 with a copy
    assert report.table.loc["dog"].to_dict() == {"photos there": 3, "taken": 2}
    assert (
        report.remarks[0] == f"Passed over in {folder}: 2 system files (cat/.hidden), 1 text or table (cat/notes.txt)."
    )
    assert report.remarks[1] == f"Folders in {folder} that belong to no label, with their photos: unsorted (1)."
    monkeypatch.setattr("utils.listing.MOST_SEEN", 0)
    assert "with their photos: unsorted (1 and more)." in places_report(project).remarks[1]
    told = "dog: 1 more photo lies there. images_per_label = 2 takes no more of them; raise it to take them."
    assert report.remarks[-1] == told
    assert places_report(project.model_copy(update={"source": "sample"})).table.empty


def test_pointers_of_git_lfs_are_said(project, folder):
    """A text that stands for a photo is not copied; its row says how to get the photo."""
    (folder / "dog" / "4.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    found = saved(project, folder_pictures(folder, ["dog"]))
    assert found[0]["reason"] == "a pointer of Git LFS, not the photo: run git lfs pull where it lies"
    assert [row["title"] for row in found] == ["4.jpg", "5.jpg", "9.jpg"]


def test_a_label_in_another_case_is_asked_about(folder):
    """Its photos would be left out silently."""
    (folder / "Cat").mkdir() if not (folder / "Cat").exists() else pytest.skip("one folder on this system")
    with pytest.raises(FieldguideError, match=r"The folder .*Cat belongs to no label. Is it 'cat'\?"):
        list(folder_pictures(folder, ["cat", "dog"]))


def test_a_linked_label_is_taken_if_asked(folder, tmp_path):
    """Without follow_links the link is named with its target; with it, a link that leads back ends nothing."""
    (folder / "dog").rename(tmp_path / "store")
    (folder / "dog").symlink_to(tmp_path / "store")
    with pytest.raises(
        FieldguideError, match=r"dog is a link to .*store. To take its photos, write follow_links = true"
    ):
        list(folder_pictures(folder, ["cat", "dog"]))
    (tmp_path / "store" / "deeper" / "back").symlink_to(tmp_path / "store")
    found = list(folder_pictures(folder, ["dog"], follow_links=True))
    assert [(p.title, p.problem) for p in found] == [("4.jpg", ""), ("5.jpg", ""), ("9.jpg", "")]


def test_folder_names_that_cannot_be_labels_are_mapped(tmp_path):
    """Without [labels], and with a key that names the folder; the report says so once."""
    for n, name in enumerate(("Penaeus sp.", "ants ", 'Q. robur "x"')):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "a.jpg").write_bytes(picture(n))
    head = 'name = "p"\nsource = "photos"\n'
    for text in (head, head + '[labels]\n"Penaeus sp." = []\n"ants " = []\n\'Q. robur "x"\' = []\n'):
        (tmp_path / "project.toml").write_text(text)
        project = Project.load(tmp_path / "project.toml")
        assert list(project.labels) == ["Penaeus sp", "Q. robur 'x'", "ants"]
        assert len(list(folder_pictures(project.places[0], project.labels))) == 3
    (told,) = places_report(project).remarks
    assert told.startswith(
        "Some systems do not take every folder name. So the folder 'Penaeus sp.' is the label 'Penaeus"
    )


def test_only_01_needs_the_source(tmp_path, folder):
    """With its disk unplugged, a project without [labels] has those that were gathered; 01 says what is missing."""
    (tmp_path / "project.toml").write_text(f'name = "p"\nsource = "{folder.name}"\ndata_dir = "data"\n')
    project = Project.load(tmp_path / "project.toml")
    save_pictures(project, folder_pictures(folder, project.labels))
    folder.rename(tmp_path / "unplugged")
    assert Project.load(tmp_path / "project.toml") == project
    with pytest.raises(FieldguideError, match=r"source = .*own photos. is not there"):
        places_report(project)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
def test_names_that_are_not_utf8_are_drawn_too(project, folder):
    """A photo from an old disk, its name in Latin-1: with a limit as without."""
    path = os.fsencode(folder / "dog") + b"/K\xe4fer.jpg"
    Path(os.fsdecode(path)).write_bytes(picture(60))
    assert len(list(folder_pictures(folder, ["dog"], limit=4))) == len(list(folder_pictures(folder, ["dog"]))) == 4
    save_pictures(project, folder_pictures(folder, ["dog"], limit=4))
    assert kept_count(project, "dog") == 4


def test_links_that_lead_in_a_circle_are_counted(project, folder):
    """The photos beside them are taken."""
    (folder / "dog" / "a.jpg").symlink_to(folder / "dog" / "b.jpg")
    (folder / "dog" / "b.jpg").symlink_to(folder / "dog" / "a.jpg")
    assert [row["status"] for row in saved(project, folder_pictures(folder, ["dog"]))] == ["kept"] * 3
    (told,) = places_report(project.model_copy(update={"source": str(folder), "labels": {"dog": []}})).remarks[:1]
    assert "2 folders or links that cannot be read (dog/a.jpg)" in told


@pytest.mark.parametrize("root", ["photos", "my photos #1", "été"])
def test_addresses_are_those_of_the_paths(tmp_path, root):
    """However odd a file's name is, its address is the path's own, and leads back to the file."""
    names = ["a.jpg", "day 2/b c.jpg", "100%25.jpg", "ёж#1?.jpg", "e\u0301.jpg", os.fsdecode(b"\xff\xfe.jpg")]
    for name in names:
        path = tmp_path / root / "cat" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture_bytes(draw_picture(1)))
    source = read_folder(tmp_path / root, ["cat"])
    photos = source.photos["cat"]
    assert [photo.path for photo in photos] == sorted((tmp_path / root / "cat").rglob("*.jpg"))
    assert [source.address(photo) for photo in photos] == [photo.path.as_uri() for photo in photos]
    assert [source.file(source.address(photo)) for photo in photos] == [photo.file for photo in photos]
    assert source.file("https://example.org/cat/a.jpg") == source.file((tmp_path / "a.jpg").as_uri()) == ""


def test_a_report_on_what_was_listed_is_that_of_what_lies_there(make_project, tmp_path):
    """01 lists its sources once: the photos taken and those left are counted as by a second look."""
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for n in range(5):
            (tmp_path / "photos" / label / f"{n} é.jpg").write_bytes(picture_bytes(draw_picture(n)) + label.encode())
    project = make_project(source=str(tmp_path / "photos"), images_per_label=3)
    places = read_places(project)
    for place in places:
        take_photos(project, place)
    report = places_report(project, places)
    assert report.table.to_dict("index") == {label: {"photos there": 5, "taken": 3} for label in ("cat", "dog")}
    assert report.remarks == places_report(project).remarks and "2 more photos lie there" in report.remarks[0]
    take_photos(project, project.places[0])
    assert places_report(project).table.equals(report.table)
