"""Sharpness, placeholders and the size of labels: measured alike for pictures of any size and contrast."""

import imagehash
import numpy as np
import pytest
from conftest import draw_picture, picture_bytes
from PIL import Image, ImageDraw, ImageFilter

from utils.pictures import LONGEST_SIDE, open_with_facts
from utils.verify import verify_images
from utils.verify.quality import (
    BLURRY,
    grey_reduction,
    is_drawn,
    perceptual_hash,
    quality_warnings,
    served_by_many,
    sharpness,
    useless,
)
from utils.verify.report import label_remarks


def scene(size=(512, 384)):
    """Return a picture full of edges: overlapping shapes of many greys and sizes."""
    rng = np.random.default_rng(5)
    image = Image.new("RGB", (2048, 1536), "grey")
    draw = ImageDraw.Draw(image)
    for _ in range(900):
        left, top = rng.integers(0, (2000, 1500))
        wide, high = rng.integers(20, 160, 2)
        shape = draw.ellipse if rng.integers(2) else draw.rectangle
        shape((left, top, left + wide, top + high), fill=tuple(int(level) for level in rng.integers(20, 235, 3)))
    return image.resize(size, Image.Resampling.LANCZOS)


def measured(image):
    """Return an image's sharpness as 02 measures it."""
    opened = open_with_facts(image, longest_side=LONGEST_SIDE)
    return sharpness(np.asarray(grey_reduction(opened.image)))


def test_a_sharp_scene_is_told_from_a_blurred_one():
    """Blurred by five pixels of a training copy it is blurry; as it is, it is far from that."""
    assert measured(scene()) > 0.6
    assert measured(scene().filter(ImageFilter.GaussianBlur(5))) < BLURRY


@pytest.mark.parametrize(("step", "expected"), [(20, ["blurry"]), (28, ["blurry"]), (30, []), (40, [])])
def test_an_edge_is_blurry_below_29_hundredths_of_its_contrast(step, expected):
    """In tiles of 32 pixels that rise and fall by 100 grey levels, the steepest step is so many levels."""
    rise = np.minimum(80 + step * np.arange(32), 180).astype(np.uint8)
    grey = np.tile(np.concatenate([rise, rise[::-1]]), (192, 4))
    assert sharpness(grey) == step / 100
    assert quality_warnings(grey, 512, 384) == expected


@pytest.mark.parametrize("size", [(2048, 1536), (1024, 768), (512, 384)])
def test_sharpness_does_not_depend_on_the_size_of_the_file(size):
    """The same view, stored larger, is as sharp; blurred in proportion, as blurred."""
    blur = ImageFilter.GaussianBlur(5 * size[0] / 512)
    assert measured(scene(size)) == pytest.approx(measured(scene()), abs=0.08)
    assert measured(scene(size).filter(blur)) == pytest.approx(
        measured(scene().filter(ImageFilter.GaussianBlur(5))), abs=0.03
    )


@pytest.mark.parametrize("contrast", [1, 0.5, 0.2])
def test_a_pale_picture_is_not_taken_for_a_blurred_one(contrast):
    """Fog and murky water take contrast, not sharpness."""
    pale = scene().point(lambda level: 110 + contrast * (level - 110))
    assert measured(pale) == pytest.approx(measured(scene()), abs=0.15)
    assert measured(pale.filter(ImageFilter.GaussianBlur(5))) < BLURRY


def test_a_sharp_animal_before_a_blurred_ground_is_sharp():
    """The sharpest parts count; a sixth of the picture will do."""
    image = scene().filter(ImageFilter.GaussianBlur(9))
    image.paste(scene().crop((160, 120, 340, 300)), (160, 120))
    assert measured(image) > BLURRY


def test_a_mark_in_a_corner_does_not_save_a_blurred_picture():
    """A photographer's name, or the camera's date, is not what the picture shows."""
    image = scene().filter(ImageFilter.GaussianBlur(9))
    ImageDraw.Draw(image).text((10, 350), "2024-05-01", fill="white", font_size=20)
    assert measured(image) < BLURRY


def test_an_even_ramp_is_blurry_and_a_picture_without_contrast_not_judged():
    """There is no edge in the one; of the other nothing can be said."""
    assert sharpness(np.arange(256, dtype=np.uint8)[None].repeat(192, 0)) < BLURRY
    assert sharpness(np.full((192, 256), 90, np.uint8)) == 1
    assert sharpness(np.zeros((1, 1), np.uint8)) == 1


def test_the_90th_percentile_of_the_parts_counts():
    """Between two tiles it lies where numpy has it."""
    grey = np.full((640, 32), 200, np.uint8)  # 20 tiles of 32 pixels, each with two steps that make up 100 levels
    for n in range(20):
        grey[32 * n : 32 * n + 32, :8], grey[32 * n : 32 * n + 32, 8:16] = 100, 100 + 5 * n
    shares = [max(5 * n, 100 - 5 * n) / 100 for n in range(20)]
    assert sharpness(grey) == pytest.approx(np.percentile(shares, 90))


def test_steps_down_count_as_steps_up():
    """A picture and its negative are as sharp as each other: no difference wraps around."""
    grey = np.asarray(grey_reduction(scene()))
    assert sharpness(255 - grey) == sharpness(grey)


@pytest.mark.parametrize("size", [(512, 384), (384, 512), (512, 90), (300, 201), (64, 64)])
def test_the_perceptual_hash_is_that_of_imagehash(size):
    """Hashes of any shape and size stay comparable with those that the package gave earlier: at most 2 bits differ."""
    for picture in (scene(size), draw_picture(3, size=size)):
        grey = grey_reduction(picture)
        ours = perceptual_hash(grey)
        assert len(ours) == 16 and imagehash.hex_to_hash(ours) - imagehash.phash(grey) <= 2


@pytest.mark.parametrize(
    ("level", "size", "expected"),
    [
        (20, (512, 384), ["dark"]),
        (235, (512, 384), ["bright"]),
        (100, (127, 90), ["tiny"]),
        (100, (900, 290), ["narrow"]),
        (100, (900, 300), []),
    ],
)
def test_each_warning_has_its_limit(level, size, expected):
    """Mean grey level, longest side, and longer to shorter side."""
    assert quality_warnings(np.full((192, 256), level, np.uint8), *size) == expected


def letters(format, **options):
    """Return a notice of letters on an even ground, as it comes out of a file of that format."""
    image = Image.new("RGB", (500, 375), "white")
    ImageDraw.Draw(image).text((40, 150), "no longer available", fill=(90, 90, 90), font_size=44)
    return open_with_facts(picture_bytes(image, format, **options)).image


@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("GIF", {}), ("WEBP", {"lossless": True})])
def test_a_notice_is_drawn(format, options):
    """Letters step from colour to colour at once."""
    assert is_drawn(letters(format, **options))
    assert is_drawn(Image.new("RGB", (100, 100), "teal"))


@pytest.mark.parametrize("ground", ["white", "black", (128, 128, 128)])
def test_a_photo_is_not_drawn_even_cut_out_on_an_even_ground(ground):
    """What was photographed is full of small steps, in colour and in grey."""
    noise = np.random.default_rng(2).normal(0, 6, (384, 512, 3))
    photo = Image.fromarray((np.asarray(draw_picture(4, size=(512, 384))) * 0.8 + 25 + noise).clip(0, 255).astype("u1"))
    assert not is_drawn(photo)
    mask = Image.new("L", photo.size)
    ImageDraw.Draw(mask).ellipse((180, 130, 330, 260), fill=255)
    for image in (photo, photo.convert("L").convert("RGB")):
        cut = Image.new("RGB", photo.size, ground)
        cut.paste(image, mask=mask)
        assert not is_drawn(open_with_facts(picture_bytes(cut, quality=85)).image)


def test_many_sites_are_three_that_are_unrelated():
    """Counted over all labels and states; what was not fetched has no id."""
    urls = {
        "a": ["https://1.x.com", "https://2.y.com", "https://3.z.com", "https://4.z.com"],
        "b": ["https://1.x.com", "https://2.x.com", "https://3.y.com"],
        "": ["https://1.x.com", "https://2.y.com", "https://3.z.com"],
    }
    assert served_by_many({"id": id, "url": url} for id, found in urls.items() for url in found) == {"a": 3}


def test_the_reason_says_what_is_wrong_first():
    """A flat colour that many sites serve is one flat colour; a notice that they serve is a placeholder."""
    for image, sites, expected in (
        (Image.new("RGB", (200, 200), "teal"), 4, "one flat colour"),
        (letters("PNG"), 4, "a placeholder: 4 unrelated sites serve it"),
        (letters("PNG"), 0, ""),
    ):
        opened = open_with_facts(image)
        assert useless(opened, grey_reduction(opened.image), sites=sites) == expected


def test_colours_of_one_grey_are_not_flat():
    """Red beside a green of the same grey level is a picture."""
    image = Image.new("RGB", (200, 200), (200, 50, 50))
    image.paste((50, 127, 50), (0, 0, 100, 200))
    opened = open_with_facts(image)
    low, high = grey_reduction(opened.image).getextrema()
    assert high - low <= 3 and useless(opened, grey_reduction(opened.image)) == ""


def test_labels_that_are_small_or_uneven_are_named_with_what_to_do():
    """With their numbers; even and large ones, or none at all, give no sentence."""
    assert label_remarks({"cat": 40, "dog": 120}, sides=3, more="Do this.") == []
    assert label_remarks({}, sides=3, more="Do this.") == []
    counts = {"cat": 2, "cow": 29, "dog": 121, "hen": 3}
    none, few, uneven = label_remarks(counts, sides=3, more="Do this.")
    assert none.startswith("Label 'cat' has 2 pictures, and 03 needs 3") and none.endswith(" Do this.")
    assert few.startswith("'cow' has 29, 'hen' has 3 pictures; below 30") and few.endswith(" Do this.")
    assert uneven.startswith("Label 'dog' has 60.5 times as many pictures as 'cat' (121 to 2)")


def test_single_animals_have_few_photos_by_nature(make_project, fill_raw):
    """With individuals = true 02 warns below 5 photos of a label, not below 30."""
    project = make_project(individuals=True)
    fill_raw(project, 5)
    assert verify_images(project).remarks == []
    ids = fill_raw(project.model_copy(update={"name": "fewer"}), 4)
    (remark,) = verify_images(project.model_copy(update={"name": "fewer"})).remarks
    assert remark.startswith("'cat' has 4, 'dog' has 4 pictures; below 5, luck") and len(ids["cat"]) == 4
