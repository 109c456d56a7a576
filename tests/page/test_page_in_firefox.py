"""The page in Firefox, whose decoders round otherwise in a few places: it works, and says the same of a photo."""

import io

import numpy as np
import pytest
from PIL import Image

from page.firefox import firefox
from page.odd_pictures import exact_pictures, refused_files, wide_pictures
from utils.page import served
from utils.page.asking import asked

pytestmark = [pytest.mark.browser, pytest.mark.long]

BRIEFLY = "new Promise((settle) => setTimeout(settle, 50))"
STARTED = f"""async () => {{
    const said = () => document.getElementById("alert").textContent;
    while (!document.body.dataset.ready && !said()) await {BRIEFLY};
    return [said(), document.getElementById("engine").textContent, Boolean(navigator.serviceWorker.controller)];
}}"""
WORKING = ["", "The model runs on the processor (WebAssembly, one thread).", True]
JPEG = b"\xff\xd8"
BLOCKS = 4  # levels of 255, where blocks are averaged instead of a draft
CLOSE = 5e-3  # of a probability, of a model that is sharper than a trained one
# Firefox lays transparent pictures on white, and brings AVIF's colours to RGB, by a rounding of its own: levels of 255.
ROUNDED = {"drawn.avif": 2, "transparent.png": 1, "transparent-grey.png": 1, "grey-transparent-noise.png": 1}
ROUNDED |= {"transparent-noise.png": 1, "transparent-noise.webp": 1}
CUT = ("upright.jpg", "large-progressive.jpg", "noise.png", "noise.bmp", "one-frame.gif", "noise.webp", "drawn.avif")


@pytest.fixture(scope="module")
def window(colours):
    """A window of Firefox with the page, and the page's classifier."""
    with firefox() as window, served(colours[0]) as address:
        if window is None:
            pytest.skip("no Firefox: install Debian's package firefox-esr (or Firefox) to run these tests")
        window.goto(address)
        assert window.evaluate(STARTED) == WORKING
        yield window


def is_drafted(data: bytes, longest_side: int) -> bool:
    """Return whether Python decodes a file at a fraction of its size; Firefox decodes all, and blocks are averaged."""
    return data.startswith(JPEG) and min(Image.open(io.BytesIO(data)).size) >= 4 * longest_side


def test_pictures_reach_the_network_byte_for_byte(window, colours):
    """Any format, turn, depth and size: the very bytes that Python prepares, but for what Firefox rounds otherwise."""
    recipe, other = colours[1].recipe, {}
    for name, data in exact_pictures().items():
        if is_drafted(data, recipe.longest_side):
            continue
        answer = asked(window, name, data)
        seen, wanted = np.frombuffer(answer.input, np.uint8), recipe.pixels(data).ravel()
        most = answer.error or int(abs(seen.astype(int) - wanted).max())
        if answer.error or most > ROUNDED.get(name, 0):
            other[name] = most
    assert other == {}


def test_drafts_and_wide_colours_are_close(window, colours):
    """Large JPEGs, also turned ones, and Display P3: the same label, and probabilities that hardly differ."""
    large = {name: data for name, data in exact_pictures().items() if is_drafted(data, colours[1].recipe.longest_side)}
    assert len(large) == 10
    pictures = large | wide_pictures()
    for (name, data), ours in zip(pictures.items(), colours[1].predict(pictures.values()), strict=True):
        answer = asked(window, name, data)
        seen, wanted = np.frombuffer(answer.input, np.uint8), colours[1].recipe.pixels(data).ravel()
        assert abs(seen.astype(int) - wanted).max() <= BLOCKS, name
        assert answer.probabilities == pytest.approx(list(ours.probabilities.values()), abs=CLOSE), name
        assert list(ours.probabilities)[int(np.argmax(answer.probabilities))] == ours.label, name


def test_what_is_refused_elsewhere_is_refused_here(window, colours):
    """Cut, animated or no picture at all: an error that begins as Python's does."""
    files = refused_files()
    for (name, data), ours in zip(files.items(), colours[1].predict(files.values()), strict=True):
        answer = asked(window, name, data)
        assert answer.error, name
        assert ours.error.startswith(answer.error.partition(" in a format")[0]), (name, ours.error, answer.error)


@pytest.mark.parametrize("name", CUT)
def test_half_a_file_is_refused(window, name):
    """Firefox itself decodes what there is and leaves the rest grey or empty; that is not a photo to judge."""
    data = exact_pictures()[name]
    assert asked(window, name, data[: len(data) // 2]).error == "truncated or broken inside"


def test_it_opens_without_a_network_the_second_time(window, colours):
    """What the first visit loaded is kept: the page starts and judges while its server is gone."""
    with served(colours[0]) as address:
        window.goto(address)
        assert window.evaluate(STARTED) == WORKING
    window.goto(address)
    assert window.evaluate(STARTED) == WORKING
    assert asked(window, "noise.png", exact_pictures()["noise.png"]).error is None
