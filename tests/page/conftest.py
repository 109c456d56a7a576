"""A browser, and the page of a model that knows colours, served to it; without the runtime these tests are skipped."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser.app_project import COLOURS, save_model
from browser.conftest import FLAGS, browser_program, chromium  # noqa: F401
from playwright.sync_api import Browser, Page

from utils.export.page import write_files
from utils.inference import Classifier, load_classifier
from utils.page import cached_runtime, served
from utils.page.asking import PageAnswer, asked, open_page
from utils.project import Project

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")

UNTIL_KEPT = """async () => {
    const facts = await (await fetch("page.json")).json();
    const lasting = [...facts.runtime.wasm, `${facts.model.file}?${facts.model.sha256}`];
    const store = (await caches.keys()).find((name) => name.endsWith(facts.version));
    for (let tries = 0; tries < 400; tries += 1) {
        const found = await Promise.all(lasting.map((address) => caches.match(address, { cacheName: store })));
        if (found.every(Boolean)) return;
        await new Promise((go) => setTimeout(go, 50));
    }
    throw new Error("not kept");
}"""


@dataclass(frozen=True)
class Visit:
    """The page, open in a browser, and what the browser said and asked for meanwhile."""

    page: Page
    address: str
    folder: Path
    classifier: Classifier
    said: list[str] = field(default_factory=list)  # warnings and errors of the console, broken rules among them
    requests: list[str] = field(default_factory=list)

    def judge(self, name: str, content: bytes) -> PageAnswer:
        return asked(self.page, name, content)

    def choose(self, *files) -> None:
        """Choose photos, (name, bytes) or paths, and wait until all are judged."""
        given = [
            {"name": file[0], "mimeType": "image/jpeg", "buffer": file[1]} if isinstance(file, tuple) else str(file)
            for file in files
        ]
        before = self.page.locator("#cards > li").count()
        self.page.set_input_files("#photos", given)
        self.page.locator("#cards > li").nth(before + len(files) - 1).wait_for(timeout=120_000, state="attached")
        self.page.wait_for_selector("#judging", state="hidden")

    def wait_until_kept(self) -> None:
        """Wait until the model and what it runs on are kept for a visit without a network."""
        self.page.evaluate(UNTIL_KEPT)

    def text(self, selector: str) -> str:
        return self.page.text_content(selector) or ""

    def of(self, kind: str) -> list[str]:
        """Return the paths of the requests whose path holds a text."""
        return [path for each in self.requests if kind in (path := urlsplit(each).path)]


@pytest.fixture(scope="package")
def runtime() -> dict[str, Path]:
    """What the page runs on, from the cache."""
    found = cached_runtime()
    if found is None:
        pytest.skip("what the page runs on is not cached: type `python -m utils.page` to fetch it")
    return found


@pytest.fixture(scope="package")
def make_page(runtime, tmp_path_factory):
    """Return a function that writes the page of a drawn model into a folder, and returns that and the classifier."""

    def make(colours=COLOURS, *, threshold: float | None = 0.6, finds=False, knows=()) -> tuple[Path, Classifier]:
        folder = tmp_path_factory.mktemp("page")
        model = save_model(folder / "model", "colours", colours, threshold=threshold, finds=finds, knows=knows)
        classifier = load_classifier(model)
        project = Project(name="colours", labels={"one": ["one"], "two": ["two"]})  # the model has its own
        (folder / "page").mkdir()
        write_files(folder / "page", project, model, classifier, runtime)
        return folder / "page", classifier

    return make


@pytest.fixture(scope="package")
def colours(make_page) -> tuple[Path, Classifier]:
    """The page of a model that tells red, green and blue apart."""
    return make_page()


@pytest.fixture(scope="package")
def address(colours) -> Iterator[str]:
    """The address under which that page is served, without special headers, as a static host does."""
    with served(colours[0]) as address:
        yield address


@pytest.fixture(scope="module")
def shared(chromium, address, colours) -> Iterator[Visit]:  # noqa: F811
    """That page, open once for all tests of a module that leave it as it is."""
    with visited(chromium, address, *colours) as visit:
        open_page(visit.page, address)
        yield visit


@pytest.fixture
def visit(chromium, address, colours) -> Iterator[Visit]:  # noqa: F811
    """That page, open in a new window that nobody has used before."""
    with visited(chromium, address, *colours) as visit:
        open_page(visit.page, address)
        yield visit
        assert not [line for line in visit.said if "Content Security Policy" in line], visit.said
        assert {urlsplit(each).netloc for each in visit.requests} == {urlsplit(address).netloc}, visit.requests


@pytest.fixture(scope="package")
def camera(chromium) -> Iterator[Browser]:  # noqa: F811
    """A browser with a drawn camera, which it lets every page use."""
    chosen = chromium.browser_type.launch(executable_path=browser_program(), args=[*FLAGS, *CAMERA])
    yield chosen
    chosen.close()


@pytest.fixture
def camera_visit(camera, address, colours) -> Iterator[Visit]:
    """The page in the browser with a camera."""
    with visited(camera, address, *colours) as visit:
        open_page(visit.page, address)
        yield visit


@contextmanager
def visited(browser, address: str, folder: Path, classifier: Classifier, **options) -> Iterator[Visit]:
    """Yield a `Visit` in a window of its own, which has not opened the page yet."""
    context = browser.new_context(**options)
    visit = Visit(context.new_page(), address, folder, classifier)
    context.on("request", lambda request: request.url.startswith("http") and visit.requests.append(request.url))
    context.on("console", lambda message: message.type in ("warning", "error") and visit.said.append(message.text))
    try:
        yield visit
    finally:
        context.close()
