"""A browser, a JupyterLab and a Voila for all these tests; for each test a project of its own and a cleaner on it."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

from browser.pages import Grid, Notebook, watched
from browser.project import draw_project, write_notebook
from browser.servers import Server, jupyter_lab, voila
from utils.project import REPOSITORY, Project

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage")  # fmt: skip
SCREENSHOTS = REPOSITORY / "build" / "screenshots"
LAB, PAGE = "clean.ipynb", "page.ipynb"  # one notebook, for JupyterLab and for Voila


@dataclass(frozen=True)
class Desk:
    """What lies before a person: the notebook in JupyterLab, the cleaner in it, and the project behind it."""

    notebook: Notebook
    grid: Grid
    project: Project

    @property
    def page(self) -> Page:
        return self.notebook.page


@dataclass(frozen=True)
class Servers:
    lab: Server
    voila: Server


def browser_program() -> str | None:
    """Return the path of a browser of the Chromium family, None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


# Of the package, not of the session: as long as Playwright runs, no other test could have an event loop of its own.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """A browser without a window; the tests are skipped where there is none."""
    found = browser_program()
    if not found:
        pytest.skip("no browser: install Debian's package chromium (or Google Chrome) to run these tests")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def servers(chromium, tmp_path_factory) -> Iterator[Servers]:
    """JupyterLab and Voila on one folder, started at the same time."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name in (LAB, PAGE):
        write_notebook(folder / name, folder / "project.toml")
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        starting = [pool.submit(stack.enter_context, server)
                    for server in (jupyter_lab(folder), voila(folder / PAGE))]  # fmt: skip
        yield Servers(*(start.result() for start in starting))


@pytest.fixture(scope="package")
def numbers() -> Iterator[int]:
    """One number after another, for the data folders of the projects."""
    return count()


@pytest.fixture
def project(servers, numbers) -> Project:
    """A new project behind the notebooks, so that no test sees what another one left."""
    return draw_project(servers.lab.folder, f"data-{next(numbers)}")


@pytest.fixture(scope="package")
def notebook(chromium, servers, numbers) -> Iterator[Notebook]:
    """The notebook, open in JupyterLab; one kernel for all tests, which re-run its cells."""
    page = chromium.new_context(viewport={"width": 1280, "height": 1300}).new_page()
    page.set_default_timeout(20_000)
    yield Notebook(page, servers.lab, LAB)
    page.context.close()


@pytest.fixture
def page(chromium) -> Iterator[Page]:
    """A page of its own, which must not report an error of ours."""
    page = chromium.new_context(viewport={"width": 1280, "height": 1300}).new_page()
    page.set_default_timeout(20_000)
    errors = watched(page)
    yield page
    page.context.close()
    assert errors == []


@pytest.fixture
def desk(notebook, project, errors) -> Desk:
    """The cleaner on a new project, all cells run; the page must not report an error of ours."""
    errors.clear()
    if [source for _, source in notebook.cells()] != notebook.sources:
        notebook.revert()  # after a test that failed halfway
    try:
        grid = notebook.run_all()
    except Error:  # the page or the kernel answers no more: one test must not take all that follow with it
        notebook.start_anew()
        grid = notebook.run_all()
        errors.clear()  # what JupyterLab says of the requests that were on their way
    grid.root.wait_for()
    yield Desk(notebook, grid, project)
    assert errors == []


@contextmanager
def second_cleaner(desk: Desk, source: str) -> Iterator[Desk]:
    """Yield the desk of a second cleaner, which the last cell shows; afterwards the notebook is as it was."""
    desk.notebook.write_last_cell(source)
    try:
        desk.notebook.run_all()
        below = Desk(desk.notebook, Grid(desk.page, 1), desk.project)
        below.grid.root.wait_for()
        below.grid.settle()
        yield below
    finally:
        desk.notebook.revert()


@pytest.fixture(scope="package")
def errors(notebook) -> list[str]:
    return watched(notebook.page)


@pytest.fixture
def screenshot():
    """Return a function that keeps a picture of the page under build/screenshots/, for people to look at."""

    def keep(page: Page, name: str) -> Path:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        page.screenshot(path=path)
        return path

    return keep
