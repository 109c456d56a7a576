"""The mask painter in Notebook 7, JupyterLab and Voila: what is painted is on disk, also if the kernel dies."""

import os
import signal

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import draw_picture, picture_bytes
from PIL import Image
from playwright.sync_api import expect

from browser.conftest import PAGE
from browser.pages import Notebook, watched
from browser.project import write_notebook
from utils.project import Project
from utils.storage import content_id, write_whole
from utils.tables import SPLIT_COLUMNS, write_table

pytestmark = pytest.mark.browser
PHOTO = (320, 240)  # width and height
SIZE = 24  # of the brush, at first
CODE = """
import os

from utils.dataset import read_dataset
from utils.masks import MaskPainter
from utils.project import Project

painter = MaskPainter(read_dataset(Project.load({path!r})))
painter
"""
MASK = """canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]
    .filter((_, n) => n % 4 === 3).map(alpha => alpha === 90 || alpha === 255 ? 1 : 0)"""
THEME = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name}).then(() => null)"


class Painter:
    """The painter on a page."""

    def __init__(self, page):
        self.page = page
        self.root = page.get_by_role("region", name="Mask painter", exact=True)
        self.stage = self.root.get_by_role("application")
        self.status, self.alert = self.root.get_by_role("status"), self.root.get_by_role("alert")

    def wait(self) -> None:
        expect(self.stage).to_have_attribute("aria-busy", "false")

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where on the screen a place of the photo is, when it fits."""
        box = self.stage.evaluate(
            "at => { const b = at.getBoundingClientRect(); return [b.left + at.clientLeft, b.top + at.clientTop, "
            "at.clientWidth, at.clientHeight]; }"
        )
        scale = min(box[2] / PHOTO[0], box[3] / PHOTO[1])
        left, top = box[0] + (box[2] - scale * PHOTO[0]) / 2, box[1] + (box[3] - scale * PHOTO[1]) / 2
        return left + scale * x, top + scale * y

    def paint(self, *points) -> None:
        """Press at the first place, move to the others, and let go."""
        self.page.mouse.move(*self.place(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.place(*point), steps=4)
        self.page.mouse.up()

    def mask(self) -> np.ndarray:
        """Return the mask that the page shows."""
        return np.reshape(self.root.locator("canvas").evaluate(MASK), PHOTO[::-1]) > 0

    def expect_saved(self) -> None:
        expect(self.status).to_contain_text("Saved")
        expect(self.status).not_to_contain_text("Not saved")


@pytest.fixture
def photos(servers, numbers) -> Project:
    """A project of three photos of its own, with a notebook that shows the painter."""
    folder = servers.lab.folder / f"paint-{next(numbers)}"
    keys = ('name = "masks"', 'data_dir = "data"', 'models_dir = "data"', 'mask_source = "paint"', "[labels]")
    write_whole(folder / "project.toml", "\n".join([*keys, 'ant = ["x"]', 'bee = ["y"]', ""]))
    project, rows = Project.load(folder / "project.toml"), []
    for n, side in enumerate(("train", "train", "valid")):
        data = picture_bytes(draw_picture(n, size=PHOTO))
        rows.append({"id": content_id(data), "group": content_id(data), "side": side})
        write_whole(project.images / "ant" / f"{content_id(data)}.jpg", data)
    write_table(project.table("split"), SPLIT_COLUMNS, rows)
    write_notebook(folder / "paint.ipynb", folder / "project.toml", CODE)
    return project


def drawn(project: Project) -> dict[str, np.ndarray]:
    """Return the masks on disk by id."""
    masks = {}
    for path in sorted((project.data / "masks").glob("[0-9a-f]*.png")):
        with Image.open(path) as image:
            masks[path.stem] = np.asarray(image) > 0
    return masks


def line(points) -> np.ndarray:
    """Return what a brush covers that goes straight from a place to another."""
    (ax, ay), (bx, by) = points
    y, x = np.indices(PHOTO[::-1]) + 0.5
    along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2), 0, 1)
    return np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay)) <= SIZE / 2


def broken_rules(page) -> list[str]:
    """Return the rules of axe-core that the painter breaks, each with the first place."""
    found = Axe().run(page, context=".fieldguide-painter").response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:120]}" for each in found]


@pytest.fixture
def shown(servers, photos, page):
    """Return a function that opens the painter in JupyterLab or Notebook 7, and returns it with its notebook."""

    def show(at: str) -> tuple[Notebook, Painter]:
        page.set_viewport_size({"width": 1366, "height": 1000})
        notebook = Notebook(page, servers.lab, f"{photos.data.parents[1].name}/paint.ipynb", at=at)
        notebook.run_all()
        painter = Painter(page)
        painter.wait()
        painter.stage.scroll_into_view_if_needed()
        return notebook, painter

    return show


def paint_first(painter: Painter, project: Project) -> tuple[str, np.ndarray]:
    """Paint a straight line, and return the photo's id and its mask on disk, which is that line."""
    ends = (60, 80), (200, 80)
    painter.paint(*ends)
    painter.expect_saved()
    ((id, mask),) = drawn(project).items()
    assert np.count_nonzero(mask != line(ends)) < 30  # the mouse knows whole pixels of the screen
    np.testing.assert_array_equal(painter.mask(), mask)
    return id, mask


def paint_more(painter: Painter) -> np.ndarray:
    """Paint a polygon and erase across the line while the kernel is silent, and return the mask that is shown."""
    painter.page.keyboard.press("l")
    for corner in ((150, 100), (280, 110), (220, 220)):
        painter.page.mouse.click(*painter.place(*corner))
    painter.page.keyboard.press("Enter")
    painter.page.keyboard.press("e")
    painter.paint((100, 60), (110, 120))
    expect(painter.status).to_contain_text("Saving")
    mask = painter.mask()
    assert mask[120, 220] and mask[80, 70] and not mask[80, 105]
    return mask


def test_what_is_painted_is_on_disk(shown, photos, screenshot):
    """
    In Notebook 7: what is seen at once is what is stored, pixel by pixel; undo and redo change it on disk. The keys
    do nothing to the notebook, which sees them first: x would cut the cell. No rule of axe-core is broken.
    """
    notebook, painter = shown("notebooks")
    before, press = notebook.cells(), painter.page.keyboard.press
    id, first = paint_first(painter, photos)
    kernel = int(notebook.execute("print(os.getpid())"))
    os.kill(kernel, signal.SIGSTOP)
    try:
        second = paint_more(painter)
    finally:
        os.kill(kernel, signal.SIGCONT)
    painter.expect_saved()
    for keys, expected in (((), second), (("Control+z",) * 2, first), (("Control+Shift+z",) * 2, second)):
        for key in keys:
            press(key)
        painter.expect_saved()
        np.testing.assert_array_equal(drawn(photos)[id], expected)
        np.testing.assert_array_equal(painter.mask(), expected)
    screenshot(painter.page, "painter-notebook-7")
    assert broken_rules(painter.page) == []
    button, menu = painter.root.get_by_role("button", name="Box (x)"), painter.root.get_by_role("combobox")
    for place in (painter.stage, button, menu, painter.root.get_by_role("slider"), painter.root.locator("summary")):
        place.focus()
        for key in "abxvmyrddii":
            press(key)
        assert notebook.cells() == before, place


@pytest.mark.long
def test_a_kernel_that_dies_takes_no_stroke_with_it(shown, photos, page, screenshot):
    """
    In JupyterLab: strokes that a dead kernel never saw are stored by the next, as the page shows them, and undo goes
    back behind its death. Light and dark, no rule of axe-core is broken.
    """
    notebook, painter = shown("lab/tree")
    id, first = paint_first(painter, photos)
    kernel = int(notebook.execute("print(os.getpid())"))
    os.kill(kernel, signal.SIGSTOP)
    second = paint_more(painter)
    os.kill(kernel, signal.SIGKILL)
    expect(painter.status).to_contain_text("Not saved: 2 strokes", timeout=30_000)
    page.get_by_role("dialog").get_by_role("button", name="Ok").click()  # JupyterLab's: the kernel appears to have died
    screenshot(page, "painter-kernel-gone")
    np.testing.assert_array_equal(drawn(photos)[id], first)
    notebook.wait_until_idle()
    notebook.run_all()
    painter.wait()
    painter.root.get_by_label("Photos", exact=True).first.select_option("painted")
    painter.expect_saved()
    np.testing.assert_array_equal(drawn(photos)[id], second)
    painter.root.get_by_role("button", name=id).click()
    expect(painter.stage).to_have_attribute("aria-label", f"Photo to paint on: {id}.jpg, ant")
    painter.wait()
    np.testing.assert_array_equal(painter.mask(), second)
    painter.stage.focus()
    for _ in range(3):
        page.keyboard.press("Control+z")
    expect(painter.status).to_contain_text("No mask yet")
    painter.expect_saved()
    assert drawn(photos) == {}
    page.keyboard.press("Control+Shift+z")
    painter.expect_saved()
    np.testing.assert_array_equal(drawn(photos)[id], first)
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        page.evaluate(THEME, theme)
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        screenshot(page, f"painter-{theme.split()[1].lower()}")
        assert broken_rules(page) == []


@pytest.mark.long
def test_on_a_small_screen_a_finger_paints_and_two_move_the_photo(servers, photos, chromium, screenshot):
    """In Voila, 390 pixels wide. Two fingers leave no stroke; after a reload everything is there, and can be undone."""
    project, place = photos, servers.lab.folder / PAGE
    own = place.read_bytes()
    place.write_bytes((project.data.parents[1] / "paint.ipynb").read_bytes())
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    errors, fingers = watched(page), context.new_cdp_session(page)

    def touch(*steps) -> None:
        """Put fingers down at the places of the first step, move them to those of the others, and lift them."""
        for n, places in enumerate(steps):
            points = [{"x": x, "y": y, "id": k} for k, (x, y) in enumerate(painter.place(*place) for place in places)]
            kind = "touchMove" if n else "touchStart"
            fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    try:
        page.goto(servers.voila.url)
        painter = Painter(page)
        painter.stage.wait_for(timeout=60_000)
        painter.wait()
        painter.stage.scroll_into_view_if_needed()
        touch([(60, 80)], [(100, 80)], [(200, 80)])
        painter.expect_saved()
        ((id, first),) = drawn(project).items()
        assert np.count_nonzero(first != line([(60, 80), (200, 80)])) < 30
        before = painter.root.locator("canvas").bounding_box()
        touch([(140, 120), (180, 120)], [(120, 120), (200, 120)], [(80, 120), (240, 120)])
        assert painter.root.locator("canvas").bounding_box()["width"] > 2 * before["width"]
        np.testing.assert_array_equal(painter.mask(), first)
        screenshot(page, "painter-touch")
        assert broken_rules(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.reload()
        painter.stage.wait_for(timeout=60_000)
        painter.root.get_by_label("Photos", exact=True).first.select_option("painted")
        expect(painter.stage).to_have_attribute("aria-label", f"Photo to paint on: {id}.jpg, ant")
        painter.wait()
        np.testing.assert_array_equal(painter.mask(), first)
        painter.root.get_by_role("button", name="Undo").tap()
        expect(painter.status).to_contain_text("No mask yet")
        painter.expect_saved()
        assert drawn(project) == {} and errors == []
    finally:
        context.close()
        place.write_bytes(own)
