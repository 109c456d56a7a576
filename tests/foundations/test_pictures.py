"""One honest way to open a picture: every mode and format ends as upright 8-bit RGB."""

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_picture, picture_bytes
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from utils.pictures import (
    PictureError,
    UnreadableError,
    jpeg_bytes,
    known_header,
    open_picture,
    open_with_facts,
    squish_and_crop,
)
from utils.pictures.colour import srgb_transform
from utils.pictures.formats import OPENERS
from utils.pictures.limits import MOST_PIXELS
from utils.sheets import contact_sheet, thumbnail

END = b"\xff\xd9"  # what closes a JPEG


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path):
    """A 16-bit ramp keeps its shape; Pillow's own conversion turns nearly all of it white."""
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(80, 0)
    path = tmp_path / "deep.png"
    Image.fromarray(ramp).save(path)
    opened = np.asarray(open_picture(path))
    assert opened.shape == (80, 256, 3)
    assert np.abs(opened[0, :, 0].astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize(("low", "high"), [(-0.5, 1), (-300, 1000), (-300, -100), (0, 1)])
def test_floating_grey_keeps_its_shape(low, high):
    """Values below 0 are not clipped to black: the ramp runs from the lowest to the highest."""
    ramp = np.linspace(low, high, 256, dtype=np.float32)[None].repeat(80, 0)
    opened = np.asarray(open_picture(picture_bytes(Image.fromarray(ramp), "TIFF")))
    assert np.abs(opened[0, :, 0].astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("value", [-3.0, 0.0])
def test_floating_grey_of_one_value_is_black(value):
    """Nothing is divided by zero."""
    even = Image.fromarray(np.full((70, 80), value, np.float32))
    assert open_picture(picture_bytes(even, "TIFF")).getextrema() == ((0, 0),) * 3


def test_scaling_goes_strip_by_strip(monkeypatch):
    """The result is the same in one strip as in many; a picture of 80 million pixels is never in memory as floats."""
    ramp = Image.fromarray(np.linspace(0, 65535, 9000).astype(np.uint16).reshape(90, 100))
    whole = np.asarray(open_picture(ramp))
    monkeypatch.setattr("utils.pictures.sizes.STRIP", 700)
    assert np.array_equal(np.asarray(open_picture(ramp)), whole)


def png16(values):
    """Return a 16-bit RGB PNG of an array (H, W, 3), which Pillow reads but does not write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff16(values, order):
    """Return a 16-bit TIFF, grey (H, W) or RGB (H, W, 3), in byte order "<" or ">"."""
    height, width, *samples = values.shape
    count = samples[0] if samples else 1
    data = values.astype(f"{order}u2").tobytes()
    tags = [(256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, 1), (262, 3, 2 if count == 3 else 1), (273, 4, 8)]
    tags += [(277, 3, count), (278, 4, height), (279, 4, len(data))]
    entries = b""
    bits = 8 + len(data)  # where the three depths of RGB lie, after the pixels
    for tag, kind, value in tags:
        if tag == 258 and count == 3:
            entries += struct.pack(f"{order}HHII", tag, 3, 3, bits)
        elif kind == 3:
            entries += struct.pack(f"{order}HHIHH", tag, kind, 1, value, 0)
        else:
            entries += struct.pack(f"{order}HHII", tag, kind, 1, value)
    depths = struct.pack(f"{order}HHH", 16, 16, 16)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, bits + len(depths))
    return head + data + depths + struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0"


@pytest.mark.parametrize("kind", ["png", "tiff <", "tiff >"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_of_either_byte_order_are_scaled(kind, channels):
    """A ramp over all 65,536 values ends as one over 256, in colour and in grey, in PNG and in TIFF."""
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(70, 0)
    values = np.stack([ramp, ramp[:, ::-1], ramp // 2], 2) if channels == 3 else ramp
    if kind == "png":
        data = png16(values) if channels == 3 else picture_bytes(Image.fromarray(values), "PNG")
    else:
        data = tiff16(values, kind[-1])
    opened = np.asarray(open_picture(data)).astype(int)
    expected = (values / 257).reshape(70, 256, -1)
    assert np.abs(opened - expected).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode):
    """What is transparent is white, not the hidden colour below it."""
    image = Image.new("RGBA", (100, 80), (200, 0, 0, 0))
    image.paste((0, 90, 0, 255), (0, 0, 50, 80))
    opened = open_picture(picture_bytes(image.convert(mode), "PNG"))
    assert opened.mode == "RGB"
    assert opened.getpixel((90, 40)) == (255, 255, 255)
    assert opened.getpixel((10, 40)) != (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    """All eight orientations end upright: the red corner is where the camera saw it."""
    upright = Image.new("RGB", (96, 64), "white")
    upright.paste("red", (0, 0, 32, 32))
    inverse = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM}
    inverse |= {5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90}
    inverse |= {7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}
    stored = upright.transpose(inverse[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_picture(picture_bytes(stored, "PNG", exif=exif))
    assert opened.size == (96, 64)
    assert opened.getpixel((5, 5)) == (255, 0, 0)
    assert opened.getpixel((90, 60)) == (255, 255, 255)


NOTE = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def with_note(format: str) -> bytes:
    """Return a picture whose XMP note says that it is turned, and whose EXIF record does not."""
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt("XML:com.adobe.xmp", NOTE.decode())
    options = {"PNG": {"pnginfo": notes}, "TIFF": {"tiffinfo": {700: NOTE}}}.get(format, {"xmp": NOTE})
    return picture_bytes(draw_picture(1), format, **options)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_a_turn_that_only_an_xmp_note_tells_is_left_alone(format):
    """Editors leave stale ones behind, and no browser heeds them. So a file opens, an image of Pillow's, and a copy."""
    data = with_note(format)
    with Image.open(BytesIO(data)) as image:
        assert open_picture(data).size == (160, 120) == draw_picture(1).size
        if format != "TIFF":  # which Pillow turns as it decodes
            assert image.getexif()[0x0112] == 6 and open_picture(image).size == (160, 120)


def test_cmyk_becomes_its_colour():
    """A CMYK red is red."""
    opened = open_picture(picture_bytes(Image.new("CMYK", (80, 80), (0, 255, 255, 0))))
    red, green, blue = opened.getpixel((40, 40))
    assert red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>403</html>", "not a picture"),
        (b"\n <!DOCTYPE HTML><svg>", r"web page \(HTML\)"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", r"not a picture.*SVG"),
        (b"<svg><script>alert(1)</script></svg>", r"not a picture.*SVG"),
        (b"<html><body><svg/></body></html>", r"not a picture.*HTML"),
        (b"%PDF-1.7 ...", "not a picture.*PDF"),
        (b"\0\0\0\x18ftypcrx ....", "raw file.*export it as JPEG"),
        (b"\0\0\0\x18ftypisom....", "not a picture but a video"),
        (b"PK\x03\x04....", "not a picture.*ZIP"),
        ('{"error": "zu viele Anfragen für heute"}'.encode(), "not a picture but text"),
        ("é".encode() * 600, "not a picture but text"),
        (b"\x93\x00\xfe", "not a picture in a format known here"),
        (picture_bytes(draw_picture(1))[:900], "truncated"),
        (picture_bytes(Image.new("RGB", (20, 20)), "GIF", save_all=True, append_images=[draw_picture(2)]), "animated"),
    ],
)
def test_what_is_no_picture_is_refused_with_its_reason(data, reason):
    """Broken, empty, foreign and animated files are errors that say which."""
    with pytest.raises(PictureError, match=reason):
        open_picture(data)


def test_a_bomb_is_refused_before_it_is_decoded():
    """A small file that claims many pixels is refused by its header."""
    side = int(MOST_PIXELS["PNG"] ** 0.5) + 10
    with pytest.raises(PictureError, match="more than 110 million"):
        open_picture(picture_bytes(Image.new("1", (side, side)), "PNG"))


def test_a_bomb_that_pillow_itself_refuses_is_told_by_its_pixels():
    """Beyond Pillow's own limit the reason names the size too, and the thumbnail is a card."""
    data = bytearray(picture_bytes(Image.new("1", (8, 8)), "PNG"))
    data[16:24] = struct.pack(">II", 20_000, 20_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(PictureError, match="too many pixels: 20000×20000, more than 110 million"):
        open_picture(bytes(data))
    assert thumbnail(bytes(data), 64).getpixel((60, 60)) == (200, 200, 200)


def test_a_profile_is_converted_to_srgb():
    """Colours of another space end as littleCMS has them in sRGB, in every file and mode that carries it."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    image = draw_picture(8)
    profile = bytearray(lab.tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")  # red and blue exchanged: a space of its own
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    profile = bytes(profile)
    expected = np.asarray(image)[..., ::-1].astype(int)
    for data in (picture_bytes(image, "PNG", icc_profile=profile), picture_bytes(image, "TIFF", icc_profile=profile)):
        assert np.abs(np.asarray(open_picture(data)).astype(int) - expected).max() <= 3
    few = image.quantize(200)
    opened = open_picture(picture_bytes(few, "PNG", icc_profile=profile))
    assert np.abs(np.asarray(opened).astype(int) - np.asarray(few.convert("RGB"))[..., ::-1]).max() <= 3


def test_a_profile_that_is_srgb_changes_nothing():
    """Where a profile moves no colour by more than a level, the pixels stay what they were, to the last digit."""
    image = draw_picture(3)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(open_picture(picture_bytes(image, "PNG", icc_profile=profile)), image)
    assert srgb_transform(profile, "RGB") is None  # not by a conversion that happens to round to the same


@pytest.mark.parametrize("profile", [b"no profile", b"\0" * 200])
def test_a_broken_profile_counts_as_none(profile):
    """The colours are those stored."""
    image = draw_picture(8)
    assert np.array_equal(open_picture(picture_bytes(image, "PNG", icc_profile=profile)), image)


def test_a_training_copy_carries_nothing_of_the_original_but_its_pixels():
    """EXIF, comment and profile stay behind: they tell of people and places."""
    exif = Image.Exif()
    exif[0x010F] = "maker"
    data = picture_bytes(draw_picture(2), exif=exif, comment=b"taken at home", icc_profile=b"none")
    copy = jpeg_bytes(open_picture(data))
    assert b"home" not in copy and b"maker" not in copy and b"ICC" not in copy


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_file_cut_short_is_refused(format, part):
    """Whatever the format, and wherever the download broke off."""
    data = picture_bytes(draw_picture(6, size=(400, 300)), format)
    assert open_picture(data).size == (400, 300)
    with pytest.raises(PictureError):
        open_picture(data[: int(part * len(data))])


@pytest.mark.parametrize("part", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("longest_side", [None, 100])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_cut_and_closed_is_told_by_the_rows_it_lacks(part, longest_side, mode):
    """Pillow opens it without a word and paints the rest grey; we say how much that is."""
    data = picture_bytes(draw_picture(6, size=(640, 480)).convert(mode), quality=95)
    assert open_with_facts(data, longest_side=longest_side).missing == 0
    opened = open_with_facts(data[: int(part * len(data))] + END, longest_side=longest_side)
    assert opened.missing == pytest.approx(1 - part, abs=0.15)


def test_a_picture_in_a_grey_frame_is_not_taken_for_an_unfinished_one():
    """Its first row is grey as well as its last."""
    image = Image.new("RGB", (300, 300), (128, 128, 128))
    image.paste(draw_picture(3), (70, 90))
    assert open_with_facts(picture_bytes(image)).missing == 0


def test_a_progressive_jpeg_cut_and_closed_is_coarse():
    """Its later scans are missing: it shows all of the picture, but coarsely. A whole one is not coarse."""
    data = picture_bytes(draw_picture(6, size=(640, 480)), quality=90, progressive=True)
    assert not open_with_facts(data).coarse
    for part in (0.3, 0.5, 0.7):  # before all components came, and before the last bits of all coefficients
        assert open_with_facts(data[: int(part * len(data))] + END).coarse


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame_when_asked(format):
    """Refused unasked; its thumbnail shows what it is."""
    first = draw_picture(2)
    data = picture_bytes(first, format, save_all=True, append_images=[draw_picture(3)])
    with pytest.raises(PictureError, match="animated or many pages"):
        open_picture(data)
    opened = open_picture(data, first_frame=True)
    assert opened.size == first.size and np.abs(np.asarray(opened).astype(int) - np.asarray(first)).mean() < 20
    assert thumbnail(data, 64).getpixel((63, 1)) != (200, 200, 200)


def test_a_named_pipe_is_refused_and_never_waited_for(tmp_path):
    """Nor is a folder with a picture's name opened."""
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    (tmp_path / "folder.jpg").mkdir()
    for path, reason in ((pipe, "no regular file"), (tmp_path / "folder.jpg", "a folder")):
        with pytest.raises(PictureError, match=reason):
            open_picture(path)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_file_that_the_system_withholds_is_told_apart(monkeypatch, tmp_path, error):
    """It says nothing of the picture, so whoever judges pictures can tell."""
    path = tmp_path / "a.jpg"
    path.write_bytes(picture_bytes(draw_picture(1)))

    def fail(*args, **options):
        raise error

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(UnreadableError, match=r"may not read|Input/output"):
        open_picture(path)


def test_the_result_is_the_callers_own(tmp_path):
    """Painting on it changes neither the image handed in nor a second opening."""
    image = draw_picture(1)
    before = image.tobytes()
    opened = open_picture(image)
    opened.paste("red", (0, 0, 50, 50))
    assert image.tobytes() == before and type(open_picture(picture_bytes(image))) is Image.Image


def test_reducing_in_two_steps_stays_near_lanczos_alone():
    """Above 40 dB on a picture full of detail; bilinear reaches 35."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 600, 3), dtype=np.uint8))
    image = Image.blend(draw_picture(4, size=(1800, 1200)), noise.resize((1800, 1200), Image.Resampling.BICUBIC), 0.3)
    for side in (900, 700, 512):
        opened = np.asarray(open_picture(image, longest_side=side)).astype(float)
        lanczos = np.asarray(image.resize((side, round(side / 1.5)), Image.Resampling.LANCZOS)).astype(float)
        assert 10 * np.log10(255**2 / np.mean((opened - lanczos) ** 2)) > 40


def test_a_jpeg_is_decoded_at_twice_the_size_that_is_kept():
    """Full of detail, it stays within 36 dB of Lanczos on the whole; decoded at the very size, it would reach 31."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 600, 3), dtype=np.uint8))
    data = picture_bytes(noise.resize((1800, 1200), Image.Resampling.BICUBIC), quality=95)
    opened = np.asarray(open_picture(data, longest_side=512)).astype(float)
    with Image.open(BytesIO(data)) as image:
        lanczos = np.asarray(image.resize((512, 341), Image.Resampling.LANCZOS)).astype(float)
    assert 10 * np.log10(255**2 / np.mean((opened - lanczos) ** 2)) > 33.5


def test_paths_bytes_images_and_arrays_open_alike(tmp_path):
    """The four ways to hand over a picture give the same pixels."""
    image = draw_picture(3)
    path = tmp_path / "a.png"
    image.save(path)
    expected = np.asarray(image)
    for picture in (path, str(path), path.read_bytes(), image, expected):
        assert np.array_equal(np.asarray(open_picture(picture)), expected)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((5, 5), np.float32), r"array of float32 and shape \(5, 5\)"),
        (np.zeros((5, 5, 2), np.uint8), r"array of uint8 and shape \(5, 5, 2\)"),
        (np.zeros((0, 5), np.uint8), "no pixels: 5×0"),
        (np.broadcast_to(np.uint8(0), (10_000, 9_000)), "too many pixels: 9000×10000, more than 80 million"),
    ],
)
def test_an_array_that_leaves_colours_to_guessing_is_refused(monkeypatch, array, words):
    """Floats and two channels are refused with type and shape; also too many pixels, uncopied, and none at all."""
    monkeypatch.setattr(Image, "fromarray", lambda array: pytest.fail("it was copied"))
    with pytest.raises(PictureError, match=words):
        open_picture(array)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"]
)
def test_an_image_of_any_mode_keeps_its_colour(mode):
    """A PIL image of one colour has that colour, within 3 levels, or its grey, in every mode that Pillow knows."""
    image = Image.new("RGB", (9, 9), (204, 102, 51) if mode not in ("1", "L", "LA", "La") else (255, 255, 255))
    by_way = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode, mode)
    opened = np.asarray(open_picture(image.convert(by_way).convert(mode))).astype(int)
    assert np.abs(opened - np.asarray(image)).max() <= 3


def test_the_longest_side_is_bounded_and_never_enlarged():
    """1600×400 becomes 512×128; a smaller one stays."""
    assert open_picture(picture_bytes(draw_picture(1, size=(1600, 400))), longest_side=512).size == (512, 128)
    assert open_picture(draw_picture(1, size=(100, 90)), longest_side=512).size == (100, 90)


@pytest.mark.parametrize(("format", "expected"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif")])
def test_the_extension_is_that_of_the_real_format(format, expected):
    """The content decides, whatever a file was called."""
    assert known_header(picture_bytes(draw_picture(1), format))[0] == expected


@pytest.mark.parametrize("size", [32, 96, 224])
@pytest.mark.parametrize("shape", [(500, 375), (120, 400), (33, 37), (512, 51), (20, 15)])
def test_squish_and_crop_is_what_fastai_does_at_validation(size, shape):
    """The one preparation used for prediction gives fastai's validation pixels exactly."""
    import math

    from fastai.vision.augment import RandomResizedCrop
    from fastai.vision.core import PILImage

    image = draw_picture(5, size=shape)
    fastais = RandomResizedCrop(size)(PILImage.create(np.asarray(image)), split_idx=1)
    ours = squish_and_crop(image, size, extra=math.ceil(size * 0.14 / 8) * 8)
    assert np.array_equal(np.asarray(ours), np.asarray(fastais))


def test_a_contact_sheet_shows_a_card_for_a_broken_picture():
    """A picture that cannot be read takes a grey place and stops nothing."""
    sheet = contact_sheet([draw_picture(1), b"broken", draw_picture(2)], ["a", "b", "c"], columns=3, side=64)
    assert sheet.size == (3 * 70 + 6, 86 + 6)
    assert thumbnail(b"broken", 64).getpixel((60, 60)) == (200, 200, 200)


def mutants(count=40):
    """Yield `count` seeded mutations of a picture in each format: bytes changed, cut out, doubled, cut off."""
    rng = np.random.default_rng(11)
    image = draw_picture(4, size=(48, 40))
    for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP"):
        whole = picture_bytes(image, format)
        for n in range(count):
            data = bytearray(whole)
            head = min(len(data), 400) if n % 2 else len(data)  # parsers are weakest in the header
            for place in rng.integers(0, head, int(rng.integers(1, 12))):
                data[place] = rng.choice([0, 255, int(rng.integers(256))])
            at = int(rng.integers(0, len(data)))
            if n % 5 == 0:
                del data[at : at + int(rng.integers(1, 40))]
            elif n % 5 == 1:
                data[at:at] = data[at : at + 30]
            elif n % 5 == 2:
                del data[at:]
            yield bytes(data)


@pytest.mark.filterwarnings("ignore")
def test_a_mutated_file_is_a_picture_or_refused_and_nothing_else(tmp_path):
    """Whatever the bytes: an RGB image or PictureError; a thumbnail always."""
    opened = 0
    for data in mutants():
        try:
            opened += open_picture(data, longest_side=32).mode == "RGB"
        except PictureError:
            assert max(thumbnail(data, 32).size) <= 32
    assert 0 < opened < 280


@pytest.mark.parametrize("call", ["open", "is_animated", "draft", "load", "convert"])
@pytest.mark.parametrize("error", [RuntimeError, TypeError, AssertionError, MemoryError])
def test_whatever_the_decoder_raises_becomes_a_reason(monkeypatch, call, error):
    """No error of Pillow's gets out, whichever step it comes from; an interruption does."""
    from PIL import JpegImagePlugin

    def failing(kind):
        def fail(*args, **options):
            raise kind("odd")

        return fail

    def break_with(patch, kind):
        if call == "open":
            patch.setitem(OPENERS, "JPEG", failing(kind))
        elif call == "is_animated":
            patch.setattr(JpegImagePlugin.JpegImageFile, "is_animated", property(failing(kind)), raising=False)
        else:
            patch.setattr(Image.Image if call == "convert" else JpegImagePlugin.JpegImageFile, call, failing(kind))

    data = picture_bytes(draw_picture(1).convert("L"))
    with monkeypatch.context() as patch:
        break_with(patch, error)
        with pytest.raises(PictureError):
            open_picture(data, longest_side=64)
        thumbnail(data, 64)
    with monkeypatch.context() as patch:
        break_with(patch, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            open_picture(data, longest_side=64)


def test_the_size_of_the_original_comes_with_the_picture():
    """Reduced by the decoder or afterwards, the size told is that of the file."""
    opened = open_with_facts(picture_bytes(draw_picture(1, size=(1600, 400))), longest_side=64)
    assert (opened.image.size, opened.width, opened.height) == ((64, 16), 1600, 400)


def test_the_pages_of_a_file_are_not_counted(monkeypatch):
    """Whether there is a second page is asked without counting them: with a hostile TIFF that takes minutes."""
    pages = [draw_picture(n) for n in range(3)]
    data = picture_bytes(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    with monkeypatch.context() as patch:
        patch.setattr(TiffImagePlugin.TiffImageFile, "n_frames", property(lambda image: pytest.fail("counted")))
        with pytest.raises(PictureError, match="animated or many pages"):
            open_picture(data)
        assert open_picture(data, first_frame=True).size == pages[0].size


@pytest.mark.parametrize("behind", [b"", bytes(4096)])
@pytest.mark.parametrize("longest_side", [None, 100])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_a_jpeg_that_lacks_nothing_but_its_end_marker_opens_as_the_whole_file(options, longest_side, behind):
    """Cheap cameras write such files. The remark says so, and the pixels are those of the whole file."""
    image = draw_picture(5, size=(641, 483))
    image.paste((128, 128, 128), (0, 440, 641, 483))  # the grey of undecoded rows, at the bottom
    whole = picture_bytes(image, quality=95, **options)
    opened = open_with_facts(whole[:-2] + behind, longest_side=longest_side)
    assert (opened.remarks, opened.missing, opened.coarse) == (("no-end-marker",), 0, False)
    assert np.array_equal(opened.image, open_picture(whole, longest_side=longest_side))
    assert open_with_facts(whole).remarks == ()


@pytest.mark.parametrize("longest_side", [None, 60])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_a_jpeg_that_lacks_more_than_its_end_marker_is_refused(options, longest_side):
    """Be it a few bytes, a whole scan, or half of all."""
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    whole = picture_bytes(Image.fromarray(noise), quality=95, **options)
    scans = whole[: whole.rindex(b"\xff\xda")] if "progressive" in options else whole[: len(whole) // 3]
    for cut in (whole[:-12], whole[: len(whole) // 2], scans):
        with pytest.raises(PictureError, match="truncated"):
            open_picture(cut, longest_side=longest_side)


def test_a_grey_footer_is_no_missing_end():
    """A picture whose last rows are the very grey of undecoded ones is whole; the same file cut short is not."""
    image = draw_picture(5, size=(320, 240))
    image.paste((128, 128, 128), (0, 192, 320, 240))
    whole = picture_bytes(image, quality=95)
    assert open_with_facts(whole).missing == 0.0
    assert open_with_facts(whole[: len(whole) // 2] + b"\xff\xd9").missing > 0.2


@pytest.mark.parametrize("behind", [b"", b"junk \xff\xd9 junk"])
@pytest.mark.parametrize("longest_side", [None, 100])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_a_grey_footer_is_told_from_a_missing_end_in_any_jpeg(options, longest_side, behind):
    """Of an odd size, decoded smaller, with junk behind its end: the footer is whole, the file cut short is not."""
    image = draw_picture(5, size=(641, 483))
    cut = picture_bytes(image, quality=95, **options)
    image.paste((128, 128, 128), (0, 440, 641, 483))
    whole = picture_bytes(image, quality=95, **options)
    assert open_with_facts(whole + behind, longest_side=longest_side).missing == 0
    part = 0.7 if "progressive" not in options else 0.05  # the first scan of it shows all rows
    assert open_with_facts(cut[: int(part * len(cut))] + END + behind, longest_side=longest_side).missing > 0.1


def test_large_notes_inside_a_png_are_no_harm():
    """A PNG that carries two megabytes of compressed text, as photo editors write it, opens."""
    notes = PngImagePlugin.PngInfo()
    notes.add_text("XML:com.adobe.xmp", "x" * 2_000_000, zip=True)
    assert open_picture(picture_bytes(draw_picture(6), "PNG", pnginfo=notes)).size == (160, 120)
