"""The page on a graphics card that the browser imitates: the same answers; one that calculates wrongly is not used."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from browser.app_project import COLOURS, photo
from browser.conftest import FLAGS, browser_program
from playwright.sync_api import Browser

from page.conftest import Visit, visited
from utils.page.asking import open_page

pytestmark = [pytest.mark.browser, pytest.mark.long]

IMITATED = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan,WebGPU")
BLUE = photo(COLOURS["blue"])

# The line of network.js that runs the network.
RUN = 'const run = ({ data }) => session.run({ pixels: new ort.Tensor("uint8", data, [1, height, width, 3]) });'


@pytest.fixture(scope="module")
def with_graphics(chromium) -> Iterator[Browser]:
    """A browser that imitates a graphics card; the tests are skipped where it cannot."""
    flags = [flag for flag in FLAGS if flag != "--disable-gpu"]
    browser = chromium.browser_type.launch(executable_path=browser_program(), args=[*flags, *IMITATED])
    yield browser
    browser.close()


@contextmanager
def opened(browser: Browser, address: str, colours, *changes: tuple[str, str]) -> Iterator[Visit]:
    """Yield the open page, whose network.js has texts exchanged."""
    with visited(browser, address, *colours, service_workers="block") as visit:
        script = (colours[0] / "network.js").read_text(encoding="utf-8")
        for old, new in changes:
            assert old in script
            script = script.replace(old, new)
        answer = {"body": script, "content_type": "text/javascript"}
        visit.page.context.route("**/network.js", lambda route: route.fulfill(**answer))
        open_page(visit.page, address)
        if not visit.page.evaluate("navigator.gpu?.requestAdapter().then(Boolean)"):
            pytest.skip("this browser imitates no graphics card")
        yield visit


IMITATION = ("isFallbackAdapter", "isNoRealAdapter")  # so that the imitated card counts as one


def test_a_graphics_card_gives_the_same_answers(with_graphics, address, colours):
    """WebGPU is used where there is a card, the page says so, and the probabilities are model.onnx's."""
    with opened(with_graphics, address, colours, IMITATION) as visit:
        assert visit.text("#engine") == "The model runs on the graphics card (WebGPU)."
        (ours,) = visit.classifier.predict([BLUE])
        assert visit.judge("blue.jpg", BLUE).probabilities == pytest.approx(list(ours.probabilities.values()), abs=1e-3)


def test_a_card_that_calculates_wrongly_is_not_used(with_graphics, address, colours):
    """Its answer to the drawn picture differs from Python's: the page goes on with WebAssembly, and is right."""
    wrong = (RUN, f'{RUN[:-1]}.then((told) => (engine === "webgpu" && told.probabilities.data.reverse(), told));')
    with opened(with_graphics, address, colours, IMITATION, wrong) as visit:
        assert visit.text("#engine").startswith("The model runs on the processor (WebAssembly")
        (ours,) = visit.classifier.predict([BLUE])
        assert visit.judge("blue.jpg", BLUE).probabilities == pytest.approx(list(ours.probabilities.values()), abs=1e-5)


def test_a_card_that_is_taken_away_is_no_end(with_graphics, address, colours):
    """It fails while photos are judged: the page goes on with WebAssembly, and says so."""
    count = "(globalThis.times = (globalThis.times ?? 0) + 1) > 2"
    lost = (RUN, RUN.replace("=> ", f'=> engine === "webgpu" && {count} ? Promise.reject(new Error("lost")) : ', 1))
    with opened(with_graphics, address, colours, IMITATION, lost) as visit:
        (ours,) = visit.classifier.predict([BLUE])
        for _ in range(2):
            said = visit.judge("blue.jpg", BLUE).probabilities
            assert said == pytest.approx(list(ours.probabilities.values()), abs=1e-3)
        assert visit.text("#engine").startswith("The model runs on the processor (WebAssembly")


def test_a_card_that_the_browser_imitates_is_not_used(with_graphics, address, colours):
    """It would be slower than WebAssembly."""
    with opened(with_graphics, address, colours) as visit:
        assert visit.text("#engine").startswith("The model runs on the processor (WebAssembly")
