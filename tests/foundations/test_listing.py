"""What lies in a folder: photos, and what is passed over and counted."""

import os

import pytest
from conftest import draw_picture, picture_bytes

from utils.errors import FieldguideError
from utils.listing import label_folders, list_photos, passed_sentence


def test_each_kind_of_file_is_told(tmp_path):
    """By name, and by the first bytes where the name says nothing; nothing is left out without being counted."""
    data = picture_bytes(draw_picture(1))
    photos = ["IMG_1.JPG", "a.jpeg", "b.png", "c.heic", "deep/er/d.webp", "lone.CR2", "no suffix", "odd.jpg_original"]
    kinds = {
        "IMG_1.CR2": "camera raw file",
        "IMG_1.MOV": "clip",
        "IMG_1.xmp": "sidecar",
        "IMG_1.AAE": "sidecar",
        "notes.txt": "text or table",
        "labels.csv": "text or table",
        "photos.zip": "archive",
        "unknown.bin": "other file",
        "Thumbs.db": "system file",
        "desktop.ini": "system file",
        ".DS_Store": "system file",
        "._IMG_1.JPG": "system file",
        ".IMG_2.HEIC.icloud": "photo that lies in iCloud only",
        "__MACOSX": "system file",
        "@eaDir": "system file",
    }
    for name in photos:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for name in kinds:
        if name in ("__MACOSX", "@eaDir"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "inside.jpg").write_bytes(data)
        else:
            (tmp_path / name).write_bytes(b"x" * 100)
    found = list_photos(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found.photos] == sorted(photos)
    assert {path.name: kind for kind, path in found.passed} == kinds


def test_what_was_passed_over_is_counted_by_kind(tmp_path):
    """The most frequent kind first, each with an example."""
    for n in range(3):
        (tmp_path / f"IMG_{n}.xmp").write_bytes(b"x")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    told = passed_sentence(tmp_path, list_photos(tmp_path).passed)
    assert told == f"Passed over in {tmp_path}: 3 sidecars (IMG_0.xmp), 1 system file (Thumbs.db)."
    assert passed_sentence(tmp_path, ()) == ""


def test_links_and_loops_end(tmp_path):
    """A linked folder is counted; followed, it is entered once, and a link that leads back is counted."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.jpg").write_bytes(picture_bytes(draw_picture(1)))
    (tmp_path / "store" / "back").symlink_to(tmp_path / "store")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "store")
    assert list_photos(tmp_path / "photos").passed == (("link to a folder", tmp_path / "photos" / "more"),)
    followed = list_photos(tmp_path / "photos", follow_links=True)
    assert [path.name for path in followed.photos] == ["a.jpg"]
    assert [(kind, path.name) for kind, path in followed.passed] == [("link to a folder", "back")]


def test_a_link_to_itself_is_counted(tmp_path):
    """It is neither a file nor a folder, and ends nothing."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "a.jpg").write_bytes(b"x")
    found = list_photos(tmp_path)
    assert [path.name for path in found.photos] == ["a.jpg"]
    assert [(kind, path.name) for kind, path in found.passed] == [("folder or link that cannot be read", "loop")]


def test_two_names_of_one_label_are_refused(tmp_path):
    """Two kinds of thing would become one label."""
    for name in ("ants*", "ants?"):
        (tmp_path / name).mkdir()
    with pytest.raises(FieldguideError, match=r"'ants\*' and 'ants\?' .* would both be the label 'ants-'"):
        label_folders(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are of Unix")
def test_a_pipe_is_not_opened(tmp_path):
    """Reading it would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    assert [kind for kind, _ in list_photos(tmp_path).passed] == ["other file"]


def test_a_closed_folder_is_counted(tmp_path, monkeypatch):
    """Others go on."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"x")
    real = os.scandir

    def refusing(place):
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(place)

    monkeypatch.setattr(os, "scandir", refusing)
    found = list_photos(tmp_path)
    assert [path.name for path in found.photos] == ["a.jpg"]
    assert [kind for kind, _ in found.passed] == ["folder or link that cannot be read"]
