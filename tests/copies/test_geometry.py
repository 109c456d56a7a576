"""Two pictures: the same one changed, one view with other content, or different."""

from itertools import combinations

import numpy as np
import pytest
from conftest import draw_picture, picture_bytes
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from utils.copies.geometry import DIFFERENT, FIXED_VIEW, SAME_PICTURE, SAME_SCENE, compared
from utils.copies.points import points_row, seen_pixels

SIZE = (400, 300)


@pytest.fixture
def verdict(tmp_path):
    """Return a function that compares two images, saved as training copies are."""

    def compare(first: Image.Image, second: Image.Image) -> int:
        rows, paths = [], [tmp_path / "first.jpg", tmp_path / "second.jpg"]
        for path, image in zip(paths, (first, second), strict=True):
            path.write_bytes(picture_bytes(image, quality=92))
            rows.append(points_row({"id": path}, {"id": 1}, {}, "id")[0])
        return compared(*rows, lambda n: seen_pixels(paths[n]))

    return compare


def cut(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Return a part of an image; the edges are shares of its sides."""
    width, height = image.size
    return image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


def with_disc(image: Image.Image, share: float, at: tuple[float, float] = (0.6, 0.4)) -> Image.Image:
    """Return an image with a grey disc; its diameter is a share of the shorter side."""
    image, radius = image.copy(), share * min(image.size) / 2
    x, y = (place * side for place, side in zip(at, image.size, strict=True))
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=(90, 90, 90))
    return image


def dated(image: Image.Image) -> Image.Image:
    """Return an image with a white label in its lower right corner."""
    image, (width, height) = image.copy(), image.size
    ImageDraw.Draw(image).rectangle((0.7 * width, 0.9 * height, width, height), fill="white")
    return image


def noisy(image: Image.Image) -> Image.Image:
    """Return an image with noise of 15 levels."""
    noise = np.random.default_rng(0).normal(0, 15, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


CHANGES = {
    "as it is": lambda image: image,
    "mirrored": ImageOps.mirror,
    "upside down": lambda image: image.rotate(180),
    "turned by a quarter": lambda image: image.rotate(90, expand=True),
    "turned by a quarter and mirrored": lambda image: ImageOps.mirror(image.rotate(90, expand=True)),
    "mirrored and cropped": lambda image: ImageOps.mirror(cut(image, 0.08, 0.06, 1, 0.95)),
    "turned by 15°": lambda image: image.rotate(15),
    "cropped": lambda image: cut(image, 0.08, 0.06, 1, 0.95),
    "zoomed": lambda image: cut(image, 0.05, 0.05, 0.95, 0.95).resize(image.size),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "noisy": noisy,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.4),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "with a date": dated,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_same_picture_changed_is_found(verdict, change):
    """Of 4 pictures each is known again, whichever of the two comes first."""
    for seed in range(900, 904):
        image = draw_picture(seed, size=SIZE)
        assert verdict(image, change(image)) == SAME_PICTURE == verdict(change(image), image), seed


def test_what_is_cut_off_at_white_differs_in_nothing(verdict):
    """A grainy picture made much brighter is still the same, whichever of the two comes first."""
    for seed in range(4):
        grain = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        image = Image.blend(draw_picture(seed, size=SIZE), Image.fromarray(grain), 0.3)
        brighter = ImageEnhance.Brightness(image).enhance(1.4)
        assert verdict(image, brighter) == SAME_PICTURE == verdict(brighter, image)


def test_a_shared_part_makes_no_same_picture(verdict):
    """Two pictures with one grainy stamp: the points of the stamp agree, the rest does not."""
    stamp = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).resize((120, 120))
    first, second = (draw_picture(seed, size=SIZE) for seed in (1, 2))
    for image in (first, second):
        image.paste(stamp, (140, 90))
    assert verdict(first, second) == DIFFERENT


def test_different_pictures_are_different(verdict):
    """Of 45 pairs of pictures with one shape in one colour none is the same, mirrored or turned."""
    images = [draw_picture(seed, size=SIZE) for seed in range(10)]
    assert {verdict(*pair) for pair in combinations(images, 2)} == {DIFFERENT}


@pytest.mark.parametrize("share", [0.15, 0.2, 0.3, 0.45])
def test_another_thing_in_one_view_is_another_picture(verdict, share):
    """A disc of 15 % of the shorter side and more tells two pictures of a fixed camera apart."""
    for seed in range(900, 904):
        image = draw_picture(seed, size=SIZE)
        assert verdict(image, with_disc(image, share)) == FIXED_VIEW == verdict(with_disc(image, share), image)


def test_a_moved_thing_is_another_picture(verdict):
    """The same disc in another place, and in another light."""
    image = draw_picture(900, size=SIZE)
    first, second = (with_disc(image, 0.25, at) for at in ((0.3, 0.3), (0.7, 0.6)))
    assert verdict(first, ImageEnhance.Brightness(second).enhance(1.2)) == FIXED_VIEW


def test_a_scene_seen_from_elsewhere_is_neither_the_picture_nor_a_fixed_view(verdict):
    """Two overlapping parts of a wide scene with a thing that moved: a burst may join them, nothing else."""
    scene = draw_picture(901, size=(800, 600))
    first, second = with_disc(scene, 0.3, (0.45, 0.45)), with_disc(scene, 0.3, (0.6, 0.6))
    found = verdict(cut(first, 0, 0, 0.9, 0.9), cut(second, 0.07, 0.07, 0.97, 0.97))
    assert found in (SAME_SCENE, DIFFERENT)


def test_a_picture_of_one_colour_is_like_no_other(verdict):
    """Nothing in it can be recognised, so nothing is claimed."""
    plain = Image.new("RGB", SIZE, "grey")
    assert verdict(plain, plain) == DIFFERENT == verdict(plain, draw_picture(900, size=SIZE))
