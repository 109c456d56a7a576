"""One honest way to open a picture: every mode and format ends as upright 8-bit RGB."""

import numpy as np
import pytest
from conftest import draw_picture, picture_bytes
from PIL import Image

from utils.pictures import (
    MAX_PIXELS,
    PictureError,
    contact_sheet,
    extension,
    open_picture,
    open_with_size,
    squish_and_crop,
    thumbnail,
)


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path):
    """A 16-bit ramp keeps its shape; Pillow's own conversion turns nearly all of it white."""
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(80, 0)
    path = tmp_path / "deep.png"
    Image.fromarray(ramp).save(path)
    opened = np.asarray(open_picture(path))
    assert opened.shape == (80, 256, 3)
    assert np.abs(opened[0, :, 0].astype(int) - np.arange(256)).max() <= 1


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
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
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
    side = int(MAX_PIXELS**0.5) + 10
    with pytest.raises(PictureError, match="more than 80 million"):
        open_picture(picture_bytes(Image.new("1", (side, side)), "PNG"))


def test_paths_bytes_images_and_arrays_open_alike(tmp_path):
    """The four ways to hand over a picture give the same pixels."""
    image = draw_picture(3)
    path = tmp_path / "a.png"
    image.save(path)
    expected = np.asarray(image)
    for picture in (path, str(path), path.read_bytes(), image, expected):
        assert np.array_equal(np.asarray(open_picture(picture)), expected)


@pytest.mark.parametrize(
    "array", [np.zeros((5, 5), np.float32), np.zeros((5, 5, 2), np.uint8), np.zeros((0, 5), np.uint8)]
)
def test_an_array_that_leaves_colours_to_guessing_is_refused(array):
    """Floats, two channels and nothing at all are refused with type and shape."""
    with pytest.raises(PictureError, match="array"):
        open_picture(array)


def test_the_longest_side_is_bounded_and_never_enlarged():
    """1600×400 becomes 512×128; a smaller one stays."""
    assert open_picture(picture_bytes(draw_picture(1, size=(1600, 400))), longest_side=512).size == (512, 128)
    assert open_picture(draw_picture(1, size=(100, 90)), longest_side=512).size == (100, 90)


@pytest.mark.parametrize(("format", "expected"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif")])
def test_the_extension_is_that_of_the_real_format(format, expected):
    """The content decides, whatever a file was called."""
    assert extension(picture_bytes(draw_picture(1), format)) == expected


@pytest.mark.parametrize("size", [32, 96, 224])
@pytest.mark.parametrize("shape", [(500, 375), (120, 400), (33, 37)])
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
            assert thumbnail(data, 32).size == (32, 32)
    assert 0 < opened < 280


@pytest.mark.parametrize("call", ["open", "n_frames", "draft", "load", "convert"])
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
            patch.setattr(Image, "open", failing(kind))
        elif call == "n_frames":
            patch.setattr(JpegImagePlugin.JpegImageFile, "n_frames", property(failing(kind)), raising=False)
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
    image, size = open_with_size(picture_bytes(draw_picture(1, size=(1600, 400))), longest_side=64)
    assert (image.size, size) == ((64, 16), (1600, 400))
