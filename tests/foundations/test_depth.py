"""Values of 16 bits become 8 by one rule: the file's own tags, else what counts for the whole set."""

import struct
import zlib

import numpy as np
import pytest
from conftest import draw_picture, picture_bytes
from PIL import Image
from test_pictures import png16, tiff16

from utils.pictures import OWN_BITS, PictureError, bits_wanted, open_picture, open_with_facts
from utils.sheets import thumbnail

RAMP = np.linspace(0, 1, 256)[None].repeat(70, 0)


def ramp(bits: int) -> np.ndarray:
    """Return a ramp from 0 to the top of some bits, uint16 (70, 256)."""
    return (RAMP * (2**bits - 1)).round().astype(np.uint16)


def packed_12_bit_tiff(values: np.ndarray) -> bytes:
    """Return a TIFF whose values take 12 bits each, uint16 (H, W)."""
    height, width = values.shape
    first, second = values.reshape(-1, 2).T
    data = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8).tobytes()
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    tags += [(279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def noted(values: np.ndarray, bits: int) -> bytes:
    """Return a 16-bit grey PNG that notes how many bits its values have."""
    data, body = picture_bytes(Image.fromarray(values), "PNG"), b"sBIT" + bytes([bits])
    return data[:33] + struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


def is_full_ramp(picture, **options) -> bool:
    """Return whether a picture opens as the ramp over all 256 levels."""
    opened = np.asarray(open_picture(picture, **options)).astype(int)
    return opened.shape == (70, 256, 3) and np.abs(opened - np.arange(256)[None, :, None]).max() <= 1


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "image"])
def test_values_are_scaled_by_the_bits_of_their_set(bits, format):
    """A ramp over them ends as one over all levels, and a picture tells the bits that it needs."""
    image = Image.fromarray(ramp(bits))
    picture = image if format == "image" else picture_bytes(image, format)
    assert is_full_ramp(picture, bits=bits)
    assert open_with_facts(picture, bits=bits).bits == bits
    assert format == "image" or bits_wanted(picture) == bits


@pytest.mark.parametrize(
    "data",
    [
        packed_12_bit_tiff(ramp(12)),
        picture_bytes(Image.fromarray(ramp(12)), "TIFF", tiffinfo={281: 4095}),
        noted(ramp(12), 12),
    ],
    ids=["packed", "MaxSampleValue", "sBIT"],
)
def test_a_files_own_tags_come_before_the_set(data):
    """Whatever the set, such a file is read by what it says."""
    assert is_full_ramp(data) and is_full_ramp(data, bits=16) and is_full_ramp(data, bits=10)
    assert bits_wanted(data) == 12


def test_what_is_no_statement_about_bits_does_not_count():
    """A maximum that is only this picture's, one that is exceeded, and 12 bits that are spread over 16."""
    dark = np.minimum(ramp(12), 3877)
    assert bits_wanted(picture_bytes(Image.fromarray(dark // 8), "TIFF", tiffinfo={281: 484})) == 10
    assert is_full_ramp(picture_bytes(Image.fromarray(ramp(16)), "TIFF", tiffinfo={281: 4095}))
    spread = ramp(12) << 4 | ramp(12) >> 8
    assert is_full_ramp(noted(spread, 12)) and bits_wanted(noted(ramp(8) << 4, 12)) == 16


@pytest.mark.parametrize("bits", [None, 10, 12])
def test_a_brightest_value_of_255_or_256_makes_no_difference(bits):
    """Two pictures of one camera, one a level brighter, are as bright as each other."""
    means = [
        np.asarray(open_picture(Image.fromarray(np.minimum(ramp(10), top)), bits=bits)).mean() for top in (255, 256)
    ]
    assert abs(means[0] - means[1]) < 1


def test_a_picture_to_look_at_is_as_bright_as_its_own_values_allow():
    """On contact sheets and in the cleaner, where no set is known, a picture of 12 bits is not black."""
    assert is_full_ramp(Image.fromarray(ramp(12)), bits=OWN_BITS)
    assert np.asarray(thumbnail(picture_bytes(Image.fromarray(ramp(12)), "TIFF"))).mean() > 120


def test_a_value_beyond_the_sets_bits_is_refused():
    """It is never scaled by another rule without a word; the reason has the value and the most."""
    with pytest.raises(PictureError, match="too bright for 12 bits: a value of 16383, the most is 4095"):
        open_picture(Image.fromarray(ramp(14)), bits=12)


@pytest.mark.parametrize("bits", [12, 16])
def test_white_is_zero_is_turned_round(bits):
    """A TIFF whose 0 is white is shown so at any depth, as it is at 8 bits."""
    data = tiff16(2**bits - 1 - ramp(bits), "<")
    white_is_zero = data.replace(struct.pack("<HHIHH", 262, 3, 1, 1, 0), struct.pack("<HHIHH", 262, 3, 1, 0, 0))
    assert white_is_zero != data and is_full_ramp(white_is_zero, bits=bits)


def test_colours_of_16_bits_are_read_by_their_upper_8_and_said_so():
    """Colour, and grey with opacity; grey alone keeps all its bits."""
    values = np.stack([ramp(16)] * 3, 2)
    for data in (png16(values), tiff16(values, "<")):
        assert is_full_ramp(data) and open_with_facts(data).remarks == ("16-bit-colour",)
    for data in (picture_bytes(Image.fromarray(ramp(16)), "PNG"), picture_bytes(draw_picture(1), "TIFF")):
        assert open_with_facts(data).remarks == ()


def test_pictures_of_8_bits_want_none():
    """Nor do floating ones, and whole numbers below zero or beyond 16 bits, which no camera of 16 bits gives."""
    odd = [Image.fromarray(RAMP.astype(np.float32)), Image.fromarray(np.array([[-1, 5]], np.int32))]
    odd += [Image.fromarray(np.array([[0, 70_000]], np.int32)), draw_picture(1)]
    assert [bits_wanted(picture_bytes(image, "TIFF")) for image in odd] == [None] * 4
