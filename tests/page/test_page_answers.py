"""The page gives the answers of `load_classifier`: the same network input, probabilities and refusals."""

import numpy as np
import pytest
from PIL import Image

from page.odd_pictures import DISPLAY_P3, exact_pictures, file_of, noise, refused_files, wide_pictures
from utils.inference.recipe import Recipe

pytestmark = pytest.mark.browser


def test_pictures_reach_the_network_byte_for_byte(shared):
    """Any format, turn, transparency, depth and size without a profile: the very bytes that Python prepares."""
    other = {}
    for name, data in exact_pictures().items():
        answer = shared.judge(name, data)
        wanted = shared.classifier.recipe.pixels(data)
        if answer.error or answer.input != wanted.tobytes():
            seen = np.frombuffer(answer.input, np.uint8)
            other[name] = answer.error or int(abs(seen.astype(int) - wanted.ravel()).max())
    assert other == {}


def test_equal_inputs_have_equal_probabilities(shared):
    """What model.onnx gives in Python, the page gives, but for the rounding of a model that is very sure."""
    pictures = exact_pictures()
    for answer, ours in zip(
        [shared.judge(name, data) for name, data in pictures.items()],
        shared.classifier.predict(pictures.values()),
        strict=True,
    ):
        assert answer.probabilities == pytest.approx(list(ours.probabilities.values()), abs=1e-5)


def test_wide_colours_are_brought_to_srgb_within_a_level(shared):
    """Display P3, as a profile or by its number: no value of the network's input differs by more than 2 of 255."""
    for name, data in wide_pictures().items():
        wanted = shared.classifier.recipe.pixels(data).ravel().astype(int)
        seen = np.frombuffer(shared.judge(name, data).input, np.uint8)
        assert abs(seen - wanted).max() <= 2, name


def test_a_wide_gamut_profile_is_not_ignored(shared):
    """The same values with and without a profile of Display P3 are different colours, and reach the network so."""
    coloured = noise(300, 401, 3)
    inputs = [
        shared.judge("p3.png", file_of(coloured, "PNG", **how)).input for how in ({}, {"icc_profile": DISPLAY_P3})
    ]
    assert abs(np.subtract(*(np.frombuffer(each, np.uint8).astype(int) for each in inputs))).max() > 8


def test_what_python_refuses_the_page_refuses_with_the_same_words(shared):
    """Cut, animated or no picture at all: an error that begins as Python's does."""
    for name, data in refused_files().items():
        (ours,) = shared.classifier.predict([data])
        answer = shared.judge(name, data)
        assert answer.error, name
        assert ours.error.startswith(answer.error.partition(" in a format")[0]), (name, ours.error, answer.error)


def test_a_tiff_is_said_to_be_for_other_programs(shared):
    """Browsers cannot decode it: a sentence says what to do."""
    data = file_of(Image.new("RGB", (40, 30), "tomato"), "TIFF")
    assert shared.judge("scan.tif", data).error == "TIFF files cannot be read by browsers; save it as JPEG or PNG"


@pytest.mark.parametrize(
    "recipe",
    [Recipe(512, (48, 96), (6, 14), "bicubic"), Recipe(300, 64, 0, "bilinear", bits=12), Recipe(512, 40, 8)],
    ids=["height and width, bicubic", "12 bits", "square"],
)
def test_each_recipe_is_followed(shared, recipe):
    """Size, margin, filter and bits of the model's own recipe decide, not those of one model."""
    deep = Image.fromarray(np.random.default_rng(2).integers(0, 4096, (90, 120)).astype(np.uint16))
    pictures = {"deep.png": file_of(deep, "PNG"), "photo.jpg": exact_pictures()["noise.webp"]}
    facts = {"longest_side": recipe.longest_side, "resample": recipe.resample, "bits": recipe.bits}
    size, extra = recipe.height_width, recipe.extra
    facts |= {"size": list(size), "extra": [extra, extra] if isinstance(extra, int) else list(extra)}
    for name, data in pictures.items():
        seen = shared.page.evaluate(PREPARE, [list(data), facts])
        assert bytes(seen) == recipe.pixels(data).tobytes(), name


PREPARE = """async ([bytes, recipe]) => {
    const { prepared } = await import(new URL("pictures.js", location.href).href);
    return [...(await prepared(new Blob([new Uint8Array(bytes)]), recipe)).input.data];
}"""


def test_values_too_bright_for_the_models_bits_are_refused(shared):
    """A 16-bit picture in a model of 12 bits: the same sentence as Python's."""
    deep = file_of(Image.fromarray(np.full((30, 40), 5000, np.uint16)), "PNG")
    recipe = {"longest_side": 512, "size": [32, 32], "extra": [8, 8], "resample": "bilinear", "bits": 12}
    with pytest.raises(Exception, match="too bright for 12 bits: a value of 5000, the most is 4095"):
        shared.page.evaluate(PREPARE, [list(deep), recipe])
