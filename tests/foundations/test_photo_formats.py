"""Photos of phones and cameras: HEIC, AVIF, JPEG XL, files of several JPEGs, and raw files by their previews."""

import builtins
import struct
import subprocess
import sys

import numpy as np
import pytest
from conftest import draw_picture, picture_bytes
from drawn_heic import heic
from PIL import Image
from test_large_pictures import tiff

from utils.pictures import PictureError, header, open_picture, open_with_facts
from utils.pictures.plugins import jxl_size
from utils.project import REPOSITORY

ROTATED = {6: Image.Transpose.ROTATE_270, 3: Image.Transpose.ROTATE_180}


def blocks() -> Image.Image:
    """Return a picture of blocks of colours, 80×48 pixels."""
    image = Image.new("RGB", (80, 48), (200, 60, 60))
    image.paste((20, 200, 40), (0, 0, 32, 16))
    image.paste((30, 30, 220), (48, 32, 80, 48))
    return image


def turned_exif(stored: int) -> bytes:
    """Return an EXIF record of a turned camera, without a name in front."""
    exif = Image.Exif()
    exif[0x0112] = stored
    return exif.tobytes().removeprefix(b"Exif\0\0")


def differs(opened, expected) -> int:
    """Return by how many levels two pictures differ at most."""
    return int(np.abs(np.asarray(opened).astype(int) - np.asarray(expected)).max())


def test_a_heic_photo_opens_and_is_turned_once():
    """By the box that says how it is shown; the EXIF record, which phones write too, does not turn it again."""
    assert differs(open_picture(heic(blocks())), blocks()) <= 3
    upright = blocks().transpose(Image.Transpose.ROTATE_270)
    assert differs(open_picture(heic(blocks(), turns=3, exif=turned_exif(6))), upright) <= 3
    assert header(heic(blocks())) == ("heic", 80, 48)
    with pytest.raises(PictureError):
        open_picture(heic(blocks())[:-2000])


@pytest.mark.parametrize("stored", [6, 3])
def test_an_avif_photo_is_turned_once(stored):
    """As its EXIF record says."""
    data = picture_bytes(blocks(), "AVIF", quality=95, exif=turned_exif(stored))
    assert np.abs(np.asarray(open_picture(data)).astype(int) - blocks().transpose(ROTATED[stored])).mean() < 6


@pytest.mark.parametrize("stored", [1, 6])
def test_a_jpeg_xl_photo_opens_where_its_plugin_is_installed(stored):
    """It is turned once, as its EXIF record says; its size is known without decoding."""
    pytest.importorskip("pillow_jxl")
    for size in ((80, 48), (64, 64), (801, 333), (300, 200)):
        image = draw_picture(3, size=size)
        for options in ({}, {"use_container": True}):
            data = picture_bytes(image, "JXL", lossless=True, exif=turned_exif(stored), **options)
            assert differs(open_picture(data), image.transpose(ROTATED[6]) if stored == 6 else image) == 0
            assert jxl_size(data) == size and header(data) == ("jxl", *size)


def test_a_jpeg_xl_file_of_too_many_pixels_is_refused_undecoded():
    """Its first bits say how large it is; the plug-in is not even imported."""
    bits = f"{(1 << 18) - 1:018b}{2:02b}{1:03b}"  # the width is the height, one of 18 bits
    size = int(f"{bits[20:]}{bits[:18]}{bits[18:20]}0", 2).to_bytes(3, "little")
    assert jxl_size(b"\xff\x0a" + size) == (262_144, 262_144)
    with pytest.raises(PictureError, match="too many pixels: 262144×262144, more than 40 million"):
        open_picture(b"\xff\x0a" + size)


@pytest.mark.parametrize(
    ("data", "module", "words"),
    [
        (heic(blocks()), "pi_heif", "pip install pi-heif, or save it as JPEG"),
        (b"\xff\x0a\x0f\0\0", "pillow_jxl", "pip install pillow-jxl-plugin, or save it as JPEG"),
    ],
)
def test_a_plugin_that_is_not_installed_is_named(monkeypatch, data, module, words):
    """With what to install, or to do otherwise."""
    real = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] == module:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PictureError, match=words):
        open_picture(data)


def test_importing_registers_nothing_and_opening_a_heic_neither():
    """Other programs' Pillow stays as it was: it knows no HEIC through us."""
    code = (
        "import sys; sys.path.insert(0, 'tests'); from PIL import Image; Image.init(); before = set(Image.OPEN)\n"
        "from utils.pictures import open_picture; assert not {'pi_heif', 'pillow_jxl', 'rawpy'} & set(sys.modules)\n"
        "from drawn_heic import heic; open_picture(heic(Image.new('RGB', (16, 16)))); assert set(Image.OPEN) == before"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_of_several_jpegs_in_a_file_the_first_is_the_photo():
    """As cameras write them with a preview, and phones with a map of brightness; it is reduced while it is decoded."""
    photo = draw_picture(3, size=(1200, 900))
    data = picture_bytes(photo, "MPO", save_all=True, append_images=[draw_picture(4, size=(300, 200))])
    assert differs(open_picture(data), open_picture(picture_bytes(photo))) == 0
    opened = open_with_facts(data, longest_side=100)
    assert (opened.width, opened.remarks) == (1200, ()) and header(data) == ("jpg", 1200, 900)


def raw_file(preview: tuple[int, int], sensor: tuple[int, int], stored: int = 1, exif: bytes = b"") -> bytes:
    """Return a camera's raw file as far as it can be read without its pixels: a preview of a size, and their size."""
    inside = picture_bytes(draw_picture(3, size=preview), quality=95, **({"exif": exif} if exif else {}))

    def pages(at: int) -> bytes:
        small = [(254, 4, 1, 1), (256, 4, 1, 160), (257, 4, 1, 120), (274, 4, 1, stored)]
        small += [(513, 4, 1, at), (514, 4, 1, len(inside))]
        full = [(254, 4, 1, 0), (256, 4, 1, sensor[0]), (257, 4, 1, sensor[1]), (262, 4, 1, 32803)]
        return tiff(small, [*full, (273, 4, 1, 8), (279, 4, 1, 4)])

    return pages(len(pages(0))) + inside


@pytest.mark.parametrize(("preview", "sensor"), [((1024, 680), (6000, 4000)), ((640, 424), (1280, 848))])
def test_a_raw_file_is_its_preview_where_that_is_large_enough(preview, sensor):
    """1024 pixels, or half of the sensor's; the remark says so."""
    data = raw_file(preview, sensor)
    opened = open_with_facts(data)
    assert opened.image.size == (opened.width, opened.height) == preview and opened.remarks == ("raw-preview",)
    assert differs(opened.image, open_picture(picture_bytes(draw_picture(3, size=preview), quality=95))) == 0
    assert header(data) == ("raw", *preview)


def test_a_raw_files_preview_is_turned_as_the_camera_was_held():
    """As the file says, once: also where the preview says it too."""
    expected = (680, 1024)
    assert open_picture(raw_file((1024, 680), (6000, 4000), stored=6)).size == expected
    assert open_picture(raw_file((1024, 680), (6000, 4000), stored=6, exif=turned_exif(6))).size == expected


@pytest.mark.parametrize(
    "data",
    [
        raw_file((320, 212), (6000, 4000)),
        b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom",
        b"FUJIFILMCCD-RAW " + bytes(100),
        b"IIRO\x08\0\0\0" + bytes(100),
        b"IIU\0\x08\0\0\0" + bytes(100),
    ],
    ids=["a small preview", "CR3", "RAF", "ORF", "RW2"],
)
def test_a_raw_file_without_a_large_preview_says_what_to_do(monkeypatch, data):
    """It is called what it is, and no video or animation."""
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(PictureError, match=r"a camera's raw file without a preview.*export it as JPEG"):
        open_picture(data, longest_side=512)


def mosaic(colour: tuple[int, int, int], size: tuple[int, int] = (64, 48)) -> bytes:
    """Return a whole raw file (DNG) without a preview: a colour in all shades, behind a filter of three."""
    width, height = size
    values = np.empty((height, width), np.uint16)
    for n, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        values[row::2, column::2] = np.linspace(0, colour[(0, 1, 1, 2)[n]], width // 2)

    def pages(at: int) -> bytes:
        entries = [(254, 4, 1, 0), (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1)]
        entries += [(262, 3, 1, 32803), (271, 2, 4, 0x0041), (272, 2, 4, 0x0042), (273, 4, 1, at), (274, 3, 1, 1)]
        entries += [(277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, values.nbytes), (33421, 3, 2, 0x00020002)]
        neutral = at + values.nbytes + 72
        entries += [(33422, 1, 4, 0x02010100), (50706, 1, 4, 0x00000401), (50708, 2, 4, 0x0043), (50714, 3, 1, 0)]
        return tiff([*entries, (50717, 4, 1, 65535), (50721, 10, 9, at + values.nbytes), (50728, 5, 3, neutral)])

    matrix = (3.2404542, -1.5371385, -0.4985314, -0.9692660, 1.8760108, 0.0415560, 0.0556434, -0.2040259, 1.0572252)
    signed = b"".join(struct.pack("<ii", round(10_000 * number), 10_000) for number in matrix)
    return pages(len(pages(0))) + values.tobytes() + signed + struct.pack("<6I", *[1] * 6)


def test_a_raw_file_without_a_preview_is_developed_where_rawpy_is_installed():
    """A red one is red."""
    pytest.importorskip("rawpy")
    opened = open_with_facts(mosaic((40_000, 6_000, 6_000)), longest_side=512)
    red, green, blue = np.asarray(opened.image).reshape(-1, 3).mean(0)
    assert red > 1.5 * green and red > 1.5 * blue
