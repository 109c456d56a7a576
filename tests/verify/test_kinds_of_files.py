"""What becomes of every kind of file that people have in a folder of photos: kept, set aside or left out, and why."""

import io
import zipfile

import numpy as np
import pytest
from conftest import draw_picture, picture_bytes
from drawn_heic import heic
from PIL import Image

from utils.dataset import read_dataset
from utils.download import read_places, take_photos
from utils.project import Project
from utils.tables import REJECTED_COLUMNS, SOURCES_COLUMNS, read_rows
from utils.verify import verify_images
from utils.verify.verdicts import kind

KEPT, NO_PICTURE = "kept", "set aside: not a picture"
Drawn = tuple[bytes, str]


def photo(seed: int, mode: str = "RGB", size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Return a drawn picture of a mode."""
    return draw_picture(seed, size=size).convert(mode)


def deep(seed: int) -> Image.Image:
    """Return a picture of 16-bit grey."""
    return Image.fromarray(np.asarray(photo(seed, "L")).astype(np.uint16) * 256)


def several(seed: int, format: str) -> bytes:
    """Return a file of three different frames or pages."""
    first, *others = (photo(seed + n) for n in range(3))
    return picture_bytes(first, format, save_all=True, append_images=others)


def turned(seed: int) -> bytes:
    """Return a JPEG whose record says that the camera was held upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture_bytes(photo(seed), exif=exif)


def packed(name: str) -> bytes:
    """Return a ZIP of one file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "x")
    return buffer.getvalue()


def kinds() -> dict[str, Drawn]:
    """Return file name → its bytes, and what becomes of it."""
    kept = {
        **{f"a.{suffix}": picture_bytes(photo(n)) for n, suffix in enumerate(("jpg", "jpeg", "JPG", "jpe", "jfif"))},
        **{f"{mode} in jpeg.jpg": picture_bytes(photo(20 + n, mode)) for n, mode in enumerate(("L", "CMYK"))},
        "progressive.jpg": picture_bytes(photo(25), progressive=True),
        "turned.jpg": turned(26),
        "no ending": picture_bytes(photo(27)),
        "wrong ending.png": picture_bytes(photo(28)),
        "own ending.abc": picture_bytes(photo(29), "PNG"),
        "two frames.mpo": picture_bytes(photo(30), "MPO", save_all=True, append_images=[photo(31)]),
        **{f"{mode}.png": picture_bytes(photo(40 + n, mode), "PNG") for n, mode in enumerate(("L", "LA", "P", "RGBA"))},
        "one bit.png": picture_bytes(photo(46, "1"), "PNG"),
        "16 bits.png": picture_bytes(deep(47), "PNG"),
        "still.gif": picture_bytes(photo(48, "P"), "GIF"),
        "lossy.webp": picture_bytes(photo(49), "WEBP"),
        "lossless.webp": picture_bytes(photo(50), "WEBP", lossless=True),
        "glass.webp": picture_bytes(photo(51, "RGBA"), "WEBP"),
        "a.bmp": picture_bytes(photo(52), "BMP"),
        "a.dib": picture_bytes(photo(53), "BMP"),
        "plain.tif": picture_bytes(photo(54), "TIFF"),
        "lzw.tiff": picture_bytes(photo(55), "TIFF", compression="tiff_lzw"),
        "cmyk.tif": picture_bytes(photo(56, "CMYK"), "TIFF"),
        "16 bits.tif": picture_bytes(deep(57), "TIFF"),
        "a.avif": picture_bytes(photo(58), "AVIF"),
        "a.heic": heic(photo(59, size=(64, 48))),
    }
    small = {"a.heic": "set aside: too small"}  # as drawn here
    aside = {
        "moving.gif": (several(60, "GIF"), "set aside: animated or many pages"),
        "moving.webp": (several(63, "WEBP"), "set aside: animated or many pages"),
        "pages.tif": (several(66, "TIFF"), "set aside: animated or many pages"),
        "cut.jpg": (picture_bytes(photo(70))[:2000], "set aside: truncated or broken inside"),
        "cut.png": (picture_bytes(photo(71), "PNG")[:9000], "set aside: truncated or broken inside"),
        "empty.jpg": (b"", "set aside: empty file"),
        "page.jpg": (b"<!doctype html><html><body>404</body></html>", NO_PICTURE),
        "words.jpg": (b"not a photo at all, only words", NO_PICTURE),
        "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NO_PICTURE),
        "paper.jpg": (b"%PDF-1.7 and more", NO_PICTURE),
        "packed.jpg": (packed("a.txt"), NO_PICTURE),
        "small.jpg": (picture_bytes(photo(72, size=(40, 40))), "set aside: too small"),
        "long.jpg": (picture_bytes(photo(73, size=(700, 100))), "set aside: extreme aspect"),
        "flat.jpg": (picture_bytes(Image.new("RGB", (160, 120), "teal")), "set aside: one flat colour"),
        "pointer.jpg": (
            b"version https://git-lfs.github.com/spec/v1\nsize 9\n",
            "not taken: a pointer of Git LFS, not the photo",
        ),
    }
    left = {
        **{f"film.{suffix}": "clip" for suffix in ("mov", "mts", "wmv")},
        **{f"a.{suffix}": "sidecar" for suffix in ("aae", "xmp", "thm", "pp3")},
        **{f"notes.{suffix}": "text or table" for suffix in ("csv", "txt", "json", "docx", "pdf", "html", "xlsx")},
        **{f"old.{suffix}": "archive" for suffix in ("zip", "rar", "7z", "tar")},
        **{f"a.{suffix}": "camera raw file" for suffix in ("cr2", "nef", "dng")},  # a.jpg lies beside them
        **dict.fromkeys(("Thumbs.db", "desktop.ini", ".DS_Store", "._a.jpg"), "system file"),
        ".b.jpg.icloud": "photo that lies in iCloud only",
        **{f"other.{suffix}": "other file" for suffix in ("exe", "psd", "ico", "svg", "db")},
    }
    found = {name: (data, small.get(name, KEPT)) for name, data in kept.items()} | aside
    return found | {name: (b"\x00\x01 some bytes", f"left out: {why}") for name, why in left.items()}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """What became of each file: name → words."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "photos" / "dog").mkdir(parents=True)
    (folder / "photos" / "dog" / "dog.jpg").write_bytes(picture_bytes(photo(900)))
    (folder / "photos" / "cat").mkdir()
    for name, (data, _) in kinds().items():
        (folder / "photos" / "cat" / name).write_bytes(data)
    (folder / "project.toml").write_text('name = "kinds"\nsource = "photos"\ndata_dir = "data"\n')
    project = Project.load(folder / "project.toml")
    (source,) = read_places(project)
    take_photos(project, source)
    verify_images(project)
    words = {path.name: f"left out: {why}" for why, path in source.passed}
    inside = {picture.id for picture in read_dataset(project)}
    reasons = {row["id"]: kind(row["reason"]) for row in read_rows(project.table("rejected"), REJECTED_COLUMNS)}
    for row in read_rows(project.table("sources"), SOURCES_COLUMNS):
        if row["id"] in inside:
            words[row["title"]] = KEPT
        else:
            words[row["title"]] = (
                f"set aside: {reasons[row['id']]}" if row["id"] else f"not taken: {kind(row['reason'])}"
            )
    return words


def test_there_are_at_least_60_kinds():
    assert len(kinds()) >= 60


@pytest.mark.parametrize("name", kinds())
def test_each_kind_ends_as_the_table_says(ended, name):
    """Nothing is left out without a word."""
    assert ended[name].startswith(kinds()[name][1])
