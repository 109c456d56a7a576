"""A TIFF of several directories: the photo among smaller versions is found, and a document of pages refused."""

import struct

import numpy as np
import pytest
from conftest import draw_picture, picture_bytes
from PIL import Image

from utils.pictures import PictureError, open_picture

PHOTO, SMALL, MASK = draw_picture(3, size=(640, 480)), draw_picture(3, size=(160, 120)), Image.new("L", (640, 480))
PAGE = draw_picture(4, size=(600, 450))


def tiff(*pages: tuple[Image.Image, dict[int, int]], below: bool = False) -> bytes:
    """Return a TIFF of uncompressed pages with further tags; with `below`, the last hangs below the first."""
    data, places = bytearray(b"II*\0\0\0\0\0"), []
    following = len(pages) - below
    for number in reversed(range(len(pages))):
        image, more = pages[number]
        pixels = len(data)
        data += image.tobytes()
        bands = len(image.getbands())
        data += b"\0" * (len(data) % 2)
        depths = len(data)
        data += struct.pack("<HHH", 8, 8, 8)
        tags = {
            256: image.width,
            257: image.height,
            258: 8,
            259: 1,
            262: 2 if bands == 3 else 1,
            273: pixels,
            277: bands,
        }
        tags |= {278: image.height, 279: len(image.tobytes())} | more
        if number == 0 and below:
            tags[330] = places[0]
        entries = b"".join(
            struct.pack("<HHII", 258, 3, 3, depths)
            if (tag, bands) == (258, 3)
            else struct.pack("<HHII", tag, 4, 1, value)
            for tag, value in sorted(tags.items())
        )
        place = len(data)
        after = places[-1] if number + 1 < following else 0
        data += struct.pack("<H", len(tags)) + entries + struct.pack("<I", after)
        places.append(place)
    struct.pack_into("<I", data, 4, places[-1])
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        tiff((SMALL, {254: 1}), (PHOTO, {})),
        tiff((PHOTO, {}), (SMALL, {254: 1})),
        tiff((SMALL, {255: 2}), (PHOTO, {255: 1})),
        tiff((SMALL, {}), (PHOTO, {})),
        tiff((PHOTO, {}), (SMALL, {}), (draw_picture(3, size=(80, 60)), {})),
        tiff((PHOTO, {}), (MASK, {254: 4})),
        tiff((SMALL, {254: 1}), (PHOTO, {254: 0}), below=True),
        tiff((SMALL, {}), (PHOTO, {}), below=True),
    ],
    ids=["thumbnail first", "photo first", "old tag", "no tag", "pyramid", "mask", "below", "below, no tag"],
)
@pytest.mark.parametrize("first_frame", [False, True])
def test_the_full_size_photo_counts(data, first_frame):
    """Wherever the smaller versions stand: its pixels are what opens, without a word about pages."""
    assert np.array_equal(open_picture(data, first_frame=first_frame), PHOTO)


def test_a_photo_below_its_thumbnail_is_turned_as_that_says():
    """A camera notes once how it was held. A photo that says so itself is turned by its own."""
    turned = tiff((SMALL, {254: 1, 274: 6}), (PHOTO, {254: 0}), below=True)
    assert np.array_equal(open_picture(turned), PHOTO.transpose(Image.Transpose.ROTATE_270))
    own = tiff((SMALL, {254: 1, 274: 6}), (PHOTO, {254: 0, 274: 3}), below=True)
    assert np.array_equal(open_picture(own), PHOTO.transpose(Image.Transpose.ROTATE_180))


@pytest.mark.parametrize("other", [PAGE, draw_picture(5, size=(300, 100)), draw_picture(5, size=(640, 480))])
def test_a_document_of_pages_is_refused(other):
    """Pages of the same size, or of another shape, are no thumbnails; asked for, the first page is taken."""
    data = tiff((PHOTO, {}), (other, {}))
    with pytest.raises(PictureError, match="animated or many pages"):
        open_picture(data)
    assert np.array_equal(open_picture(data, first_frame=True), PHOTO)


def test_a_large_tiff_may_have_its_photo_behind_the_thumbnail():
    """In the 64-bit kind of TIFF too."""
    data = picture_bytes(SMALL, "TIFF", big_tiff=True, save_all=True, append_images=[PHOTO])
    assert np.array_equal(open_picture(data), PHOTO)
