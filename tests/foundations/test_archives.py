"""ZIPs of photos: what is unpacked, what is refused, and what a kill leaves."""

import stat
import zipfile

import pytest

from utils import archives
from utils.archives import open_zip, unpack_zip
from utils.errors import FieldguideError
from utils.places import labels_in


def zipped(path, files, **how):
    """Write a ZIP of name → bytes."""
    with zipfile.ZipFile(path, "w", **how) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def lying(folder):
    """Return the files below a folder, by their path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_zip_is_unpacked_once(tmp_path, monkeypatch):
    """A second call returns the same folder; a changed ZIP is unpacked anew."""
    path = zipped(tmp_path / "photos.zip", {"ants/1.jpg": b"1", "bees/2.jpg": b"2", "__MACOSX/._1.jpg": b"x"})
    folder, told = unpack_zip(path, tmp_path / "cache")
    assert (lying(folder), told) == ({"ants/1.jpg": b"1", "bees/2.jpg": b"2"}, [])
    monkeypatch.setattr(archives, "open_zip", None)
    assert unpack_zip(path, tmp_path / "cache") == (folder, [])
    monkeypatch.undo()
    zipped(path, {"ants/3.jpg": b"3"})
    again, _ = unpack_zip(path, tmp_path / "cache")
    assert lying(again) == {"ants/3.jpg": b"3"} and not folder.exists()


def test_nothing_leads_out_of_the_folder(tmp_path):
    """Names that climb, whole paths, links and second files of one name are left out, and counted."""
    link = zipfile.ZipInfo("ants/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    names = ["../../out.jpg", "/out.jpg", "C:\\out.jpg", "ants\\..\\..\\out.jpg", link, "ants\\1.jpg"]
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
        archive.writestr("ants/1.jpg", b"second")
    folder, told = unpack_zip(path, tmp_path / "a" / "cache")
    assert lying(folder) == {"ants/1.jpg": b"x"}
    assert [line.partition(" (")[0] for line in told] == [
        "Left out of photos.zip: 1 × a link",
        "Left out of photos.zip: 4 × a name that leads out of the folder",
        "Left out of photos.zip: 1 × a second file of one name",
    ]
    assert sorted(each.name for each in tmp_path.rglob("*out*")) == []


def test_what_cannot_be_unpacked_is_refused(tmp_path, monkeypatch):
    """No ZIP, one cut short, one that unpacks to far more than photos do, too many files, a full disk."""
    path = zipped(tmp_path / "photos.zip", {"ants/1.jpg": bytes(200_000)}, compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(archives, "HARMLESS", 100_000)
    with pytest.raises(FieldguideError, match=r"photos\.zip has \d+ bytes and would unpack to 200,000: no photos"):
        open_zip(path)
    monkeypatch.undo()
    monkeypatch.setattr(archives, "SPARE", 10**18)
    with pytest.raises(FieldguideError, match=r"unpacks to 0\.0 GB, and .* free\. Free some space"):
        unpack_zip(path, tmp_path / "cache")
    monkeypatch.setattr(archives, "MOST_FILES", 0)
    with pytest.raises(FieldguideError, match="holds 1 files, more than 0"):
        open_zip(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FieldguideError, match=r"is no ZIP, or was cut short .*unpacked by hand"):
        open_zip(path)


def test_a_password_is_told(tmp_path):
    """The flag in the directory suffices; no password is asked for."""
    path = zipped(tmp_path / "photos.zip", {"ants/1.jpg": b"1"})
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FieldguideError, match=r"is locked with a password\. Unpack it by hand"):
        unpack_zip(path, tmp_path / "cache")


def test_a_damaged_file_is_left_out(tmp_path):
    """The others are taken."""
    path = zipped(tmp_path / "photos.zip", {"ants/1.jpg": b"first photo", "ants/2.jpg": b"second photo"})
    path.write_bytes(path.read_bytes().replace(b"first photo", b"fiRst photo"))
    folder, told = unpack_zip(path, tmp_path / "cache")
    assert list(lying(folder)) == ["ants/2.jpg"]
    assert told == ["Left out of photos.zip: 1 × a damaged file, or one packed in a way unknown here (ants/1.jpg)."]


def test_a_killed_run_is_made_good(tmp_path, monkeypatch):
    """What it had unpacked is not taken for whole."""
    path = zipped(tmp_path / "photos.zip", {f"ants/{n}.jpg": b"x" for n in range(5)})
    real, calls = archives._unpacked, []

    def killed(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(archives, "_unpacked", killed)
    with pytest.raises(KeyboardInterrupt):
        unpack_zip(path, tmp_path / "cache")
    monkeypatch.undo()
    folder, _ = unpack_zip(path, tmp_path / "cache")
    assert len(lying(folder)) == 5
    assert sorted(each.name for each in folder.parent.iterdir()) == [folder.name, f"{folder.name}.txt"]


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        (["ants/1.jpg", "bees/2.jpg"], ["ants", "bees"]),
        (["insects/ants/1.jpg", "insects/bees/2.jpg", "__MACOSX/insects/ants/._1.jpg"], ["ants", "bees"]),
        (["set/train/ants/1.jpg", "set/train/bees/2.jpg", "set/val/ants/3.jpg"], ["ants", "bees"]),
        (["set/images/1.jpg", "set/images/2.jpg", "set/labels.csv"], ["ant", "bee"]),
        (["ants/1.jpg"], ["ants"]),
        (["ants\\1.jpg", "bees\\2.jpg"], ["ants", "bees"]),
    ],
)
def test_the_labels_of_a_zip_are_known_before_it_is_unpacked(tmp_path, files, labels):
    """Folders, also in one that holds them all; a ready split; a table."""
    table = b"file,label\n1.jpg,ant\n2.jpg,bee\n"
    path = zipped(tmp_path / "photos.zip", {name: table if name.endswith(".csv") else b"x" for name in files})
    assert labels_in(path) == labels
    assert sorted(each.name for each in tmp_path.iterdir()) == ["photos.zip"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_damage_in_any_packing_is_left_out(tmp_path, method):
    """Each library says so in its own way."""
    path = zipped(
        tmp_path / "photos.zip", {"ants/1.jpg": bytes(range(256)) * 40, "ants/2.jpg": b"2"}, compression=method
    )
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(bytes(data))
    folder, told = unpack_zip(path, tmp_path / "cache")
    assert list(lying(folder)) == ["ants/2.jpg"] and "1 × a damaged file" in told[0]


def test_names_that_no_file_can_have_are_left_out(tmp_path):
    """Too long, or of a folder and a file at once."""
    path = zipped(tmp_path / "photos.zip", {f"{'x' * 300}.jpg": b"1", "a": b"2", "a/b.jpg": b"3", "c.jpg": b"4"})
    folder, told = unpack_zip(path, tmp_path / "cache")
    assert sorted(lying(folder)) == ["a", "c.jpg"]
    assert [line.partition(" (")[0] for line in told] == [
        "Left out of photos.zip: 1 × a name that this system does not take",
        "Left out of photos.zip: 1 × a second file of one name",
    ]
