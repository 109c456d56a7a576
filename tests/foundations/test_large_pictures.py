"""Large photos are opened in little memory, and files that announce hours of work are refused before any of it."""

import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import draw_picture, picture_bytes
from PIL import Image, PngImagePlugin

from utils.pictures import PictureError, is_training_copy, known_header, open_picture, open_with_facts, opening


def test_a_jpeg_of_190_megapixels_is_reduced_while_it_is_decoded():
    """Pillow refuses it unseen. At full size it is too large for us too."""
    data = picture_bytes(Image.linear_gradient("L").resize((19_000, 10_000)), quality=50)
    opened = open_with_facts(data, longest_side=64)
    assert (opened.image.size, opened.width, opened.height) == ((64, 34), 19_000, 10_000)
    assert known_header(data) == ("jpg", 19_000, 10_000)
    with pytest.raises(PictureError, match="too many pixels: 19000×10000, more than 80 million"):
        open_picture(data)


def test_an_own_file_has_a_limit_in_bytes(monkeypatch, tmp_path):
    """It is refused by its size, unread."""
    path = tmp_path / "a.png"
    draw_picture(1).save(path)
    monkeypatch.setattr("utils.pictures.limits.LARGEST_OWN_FILE", 1_000)
    for picture in (path, path.read_bytes()):
        with pytest.raises(PictureError, match="larger than 0 MB"):
            open_picture(picture)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1", "CMYK", "I;16"])
def test_a_large_picture_is_converted_strip_by_strip(monkeypatch, mode):
    """The result is that of converting all of it at once, within a few levels where one pixel is reduced from many."""
    image = draw_picture(4, size=(900, 700))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode in ("RGBA", "LA"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        image = image.convert(mode)
    else:
        image = image.quantize(60) if mode == "P" else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = picture_bytes(image, "TIFF" if mode == "CMYK" else "PNG", exif=exif)
    whole = np.asarray(open_picture(data, longest_side=100)).astype(int)
    monkeypatch.setattr("utils.pictures.limits.LARGE_SHARE", 0)
    monkeypatch.setattr("utils.pictures.sizes.STRIP", 10_000)
    opened = np.asarray(open_picture(data, longest_side=100)).astype(int)
    assert opened.shape == whole.shape == (100, 78, 3)
    assert np.abs(opened - whole).mean() < (3 if mode == "1" else 1)  # black and white is full of edges


def test_one_large_picture_at_a_time(monkeypatch):
    """However many threads open pictures, memory holds one large one; small ones do not wait."""
    inside, most, lock, real = 0, {}, threading.Lock(), opening._rgb

    def watched(image, *rest):
        nonlocal inside
        with lock:
            inside += 1
            most[image.size] = max(most.get(image.size, 0), inside)
        time.sleep(0.05)
        with lock:
            inside -= 1
        return real(image, *rest)

    monkeypatch.setattr(opening, "_rgb", watched)
    monkeypatch.setattr("utils.pictures.limits.LARGE_SHARE", 100 * 100 / 110_000_000)
    for side in (99, 101):
        data = picture_bytes(draw_picture(1, size=(side, side)), "PNG")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(open_picture, [data] * 4))
    assert most[101, 101] == 1 < most[99, 99]


def chunk(name: bytes, body: bytes = b"") -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def tiff(*pages: list[tuple[int, int, int, int]], after: int = 0) -> bytes:
    """Return a TIFF of pages with entries (tag, type, count, value); the last one leads to the place `after`."""
    data, at = b"II*\0\x08\0\0\0", 8
    for number, entries in enumerate(pages, start=1):
        at += 2 + 12 * len(entries) + 4
        body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
        data += struct.pack("<H", len(entries)) + body + struct.pack("<I", at if number < len(pages) else after)
    return data


SIZE = [(256, 3, 1, 64), (257, 3, 1, 64)]
PNG, JPEG = picture_bytes(draw_picture(1), "PNG"), picture_bytes(draw_picture(1), progressive=True)
GIF = picture_bytes(draw_picture(1), "GIF")
EMPTY_GIF = b"GIF89a\x09\0\x09\0\0\0\0"
WIDE = JPEG.replace(b"\xff\xc2\x00\x11\x08\x00\x78\x00\xa0", b"\xff\xc2\x00\x11\x08\xff\x00\xff\x00")
ASKING = {
    "segments": (JPEG[:2] + b"\xff\xfe\x00\x02" * 2001 + JPEG[2:], "2,001 segments"),
    "EXIF records": (JPEG[:2] + b"\xff\xe1\x00\x08Exif\0\0" * 17 + JPEG[2:], "17 EXIF records"),
    "scans": (WIDE, r"pixels in \d scans"),
    "notes of a PNG": (PNG[:33] + chunk(b"tEXt", b"a\0b") * 1001 + PNG[33:], "1,001 notes"),
    "profiles of a PNG": (PNG[:33] + chunk(b"iCCP", b"a\0\0" + zlib.compress(b"")) * 2 + PNG[33:], "2 colour profiles"),
    "chunks of a PNG": (PNG[:33] + chunk(b"IDAT") * 200_001 + PNG[33:], "200,001 chunks"),
    "frames of a WebP": (b"RIFF\0\0\0\0WEBP" + (b"ANMF" + bytes(4)) * 1001, "1,001 frames"),
    "comments of a GIF": (GIF[:-1] + (b"!\xfe" + (b"\xff" + b"a" * 255) * 4000 + b"\0"), "bytes of notes"),
    "junk in a GIF": (EMPTY_GIF + bytes(1_000_002), "bytes of notes"),
    "pieces of a GIF": (EMPTY_GIF + b"," + bytes(8) + b"\0\x08" + b"\x01a" * 2_000_001, "2,000,001 pieces"),
    "pages that go in a circle": (tiff(SIZE, SIZE, after=8), "lead back"),
    "pages of a TIFF": (tiff(*[SIZE] * 101), "over 100 pages"),
    "entries of a TIFF": (tiff([(300 + n, 3, 1, 1) for n in range(501)]), "501 entries"),
    "notes of a TIFF": (tiff([*SIZE, (700, 1, 65_000_000, 8)]), "over 64 million bytes"),
    "strips of a TIFF": (tiff([*SIZE, (273, 3, 200_001, 8)]), "200,001 strips"),
    "pixels of its strips": (tiff([(256, 3, 1, 20_000), (257, 3, 1, 20_000), (273, 4, 9, 8)]), "pixels in strips"),
    "runs of a BMP": (b"BM" + bytes(28) + b"\x01\0\0\0" + bytes(5_000_000), "bytes in runs"),
}


@pytest.mark.parametrize("kind", ASKING)
def test_a_file_that_announces_more_work_than_a_photo_is_refused_unopened(monkeypatch, kind):
    """Its structure is counted; Pillow never sees it, be it for the header, for opening, or as a training copy."""
    data, words = ASKING[kind]
    monkeypatch.setattr("utils.pictures.formats.OPENERS", {})
    with pytest.raises(PictureError, match=words):
        open_picture(data, longest_side=512, first_frame=True)
    assert known_header(data) == ("bin", "", "") and not is_training_copy(data)


def test_photos_with_large_notes_and_a_depth_map_are_taken():
    """A JPEG of 300 segments, a TIFF of 64 pages asked for its first, and a PNG with ten notes open."""
    many = JPEG[:2] + b"\xff\xe1\x00\x08http:/" * 300 + JPEG[2:]
    notes = PngImagePlugin.PngInfo()
    for n in range(10):
        notes.add_text(f"note {n}", "text")
    pages = picture_bytes(draw_picture(1), "TIFF", save_all=True, append_images=[draw_picture(2)] * 63)
    for data in (many, picture_bytes(draw_picture(1), "PNG", pnginfo=notes), pages):
        assert open_picture(data, first_frame=True).size == (160, 120)
