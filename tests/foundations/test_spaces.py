"""Colours that a file names by numbers are shown as a browser shows them."""

import struct
import zlib

import numpy as np
import pytest
from conftest import draw_picture, picture_bytes
from drawn_heic import heic
from PIL import Image

from utils.pictures import open_picture, open_with_facts

COLOUR = (200, 60, 60)
EVEN = Image.new("RGB", (48, 48), COLOUR)


def png(**chunks: bytes) -> bytes:
    """Return a PNG of one colour with further chunks."""
    data = picture_bytes(EVEN, "PNG")
    for name, body in chunks.items():
        named = name.encode() + body
        data = data[:33] + struct.pack(">I", len(body)) + named + struct.pack(">I", zlib.crc32(named)) + data[33:]
    return data


def avif(primaries: int, transfer: int) -> bytes:
    """Return an AVIF file of one colour that says its colours are others."""
    data = picture_bytes(EVEN, "AVIF", quality=100, subsampling="4:4:4")
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


def shown(data: bytes) -> np.ndarray:
    """Return the mean colour of a picture as it opens."""
    return np.asarray(open_picture(data)).reshape(-1, 3).mean(0)


# What Chromium shows, for the first three; HLG's reference white is three quarters of its levels.
@pytest.mark.parametrize(
    ("numbers", "expected"),
    [((12, 13), (217, 42, 52)), ((9, 16), (255, 0, 0)), ((1, 8), (229, 133, 133)), ((1, 13), COLOUR), ((2, 2), COLOUR)],
)
def test_colours_named_by_numbers_are_converted(numbers, expected):
    """Display P3, HDR (PQ) and linear light, in PNG, AVIF and HEIC; sRGB and nothing in particular stay as they are."""
    assert shown(png(cICP=bytes([*numbers, 0, 1]))) == pytest.approx(expected, abs=2)
    assert shown(avif(*numbers)) == pytest.approx(expected, abs=5)
    assert shown(heic(EVEN, colours=(*numbers, 6))) == pytest.approx(expected, abs=5)


def test_hdr_is_said_and_its_white_is_white():
    """White paper, at 58 % of PQ's levels and 75 % of HLG's, becomes white, and half its light grey."""
    for transfer, white in ((16, 148), (18, 191)):
        data = picture_bytes(Image.new("RGB", (20, 20), (white,) * 3), "PNG")
        body = b"cICP" + bytes([9, transfer, 0, 1])
        data = data[:33] + struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]
        assert shown(data) == pytest.approx((254,) * 3, abs=3)
        assert open_with_facts(data).remarks == ("hdr",)
    assert open_with_facts(png(cICP=bytes([12, 13, 0, 1]))).remarks == ()


def test_a_png_of_another_gamma_is_converted():
    """Linear light, also with primaries of its own; the usual 1/2.2, and what says sRGB besides, change nothing."""
    linear, usual = struct.pack(">I", 100_000), struct.pack(">I", 45_455)
    p3 = struct.pack(">8I", 31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000)
    assert shown(png(gAMA=linear)) == pytest.approx((229, 133, 133), abs=1)
    assert shown(png(gAMA=usual)) == pytest.approx(COLOUR) == shown(png(gAMA=linear, sRGB=b"\0"))
    assert shown(png(gAMA=usual, cHRM=p3)) == pytest.approx((217, 42, 52), abs=1)
    assert open_with_facts(png(gAMA=usual)).remarks == ()


def test_numbers_that_are_not_known_are_said():
    """The colours stay, with a remark."""
    opened = open_with_facts(png(cICP=bytes([77, 78, 0, 1])))
    assert opened.remarks == ("unknown-colours",)
    assert np.asarray(opened.image)[0, 0] == pytest.approx(COLOUR, abs=1)


def test_it_goes_strip_by_strip(monkeypatch):
    """In one strip as in many."""
    data = picture_bytes(draw_picture(3), "AVIF")
    at = data.index(b"colrnclx") + 8
    data = data[:at] + struct.pack(">HH", 12, 13) + data[at + 4 :]
    whole = open_picture(data)
    monkeypatch.setattr("utils.pictures.sizes.STRIP", 700)
    assert np.array_equal(open_picture(data), whole)


@pytest.mark.parametrize(
    ("points", "gamma"),
    [
        ([0] * 4, 45455),
        ([0] * 8, 45455),
        ([31270, 32900] * 4, 45455),
        (None, 1),
        ([31270, 32900, 0, 0, 0, 100_000, 100_000, 0], 10**9),
    ],
)
def test_colours_that_cannot_be_are_ignored(points, gamma):
    """A PNG whose chunks name no triangle of primaries, or an absurd gamma, is shown as it is."""
    chunks = {"gAMA": struct.pack(">I", gamma)} | ({"cHRM": struct.pack(f">{len(points)}I", *points)} if points else {})
    assert shown(png(**chunks)) == pytest.approx(COLOUR, abs=1)
