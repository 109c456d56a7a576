"""The mask painter in JupyterLab and Voila: what is painted is on disk, also when the kernel dies; and by finger."""

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


def test_what_is_painted_is_on_disk_also_when_the_kernel_dies(servers, photos, page, screenshot):
    """
    A stroke is stored where it was painted. Strokes that a dead kernel never saw are stored by the next, as the page
    shows them; undo goes back behind the kernel's death. Light and dark, no rule of axe-core is broken.
    """
    project = photos
    page.set_viewport_size({"width": 1366, "height": 1000})
    path = f"{project.data.parents[1].name}/paint.ipynb"
    notebook = Notebook(page, servers.lab, path)
    notebook.run_all()
    painter = Painter(page)
    painter.wait()
    painter.stage.scroll_into_view_if_needed()
    painter.paint((60, 80), (200, 80))
    painter.expect_saved()
    ((id, first),) = drawn(project).items()
    assert np.count_nonzero(first != line([(60, 80), (200, 80)])) < 30  # the mouse knows whole pixels of the screen
    np.testing.assert_array_equal(painter.mask(), first)
    # The kernel stops, strokes go on, and it dies.
    kernel = int(notebook.execute("print(os.getpid())"))
    os.kill(kernel, signal.SIGSTOP)
    page.keyboard.press("l")
    for corner in ((150, 100), (280, 110), (220, 220)):
        page.mouse.click(*painter.place(*corner))
    page.keyboard.press("Enter")
    page.keyboard.press("e")
    painter.paint((100, 60), (110, 120))
    expect(painter.status).to_contain_text("Saving")
    shown = painter.mask()
    assert shown[120, 220] and not shown[80, 105] and first[80, 105]
    os.kill(kernel, signal.SIGKILL)
    expect(painter.status).to_contain_text("Not saved: 2 strokes", timeout=30_000)
    page.get_by_role("dialog").get_by_role("button", name="Ok").click()  # JupyterLab's: the kernel appears to have died
    screenshot(page, "painter-kernel-gone")
    np.testing.assert_array_equal(drawn(project)[id], first)
    notebook.wait_until_idle()
    notebook.run_all()
    painter.wait()
    painter.root.get_by_label("Photos", exact=True).first.select_option("painted")
    painter.expect_saved()
    np.testing.assert_array_equal(drawn(project)[id], shown)
    painter.root.get_by_role("button", name=id).click()
    expect(painter.stage).to_have_attribute("aria-label", f"Photo to paint on: {id}.jpg, ant")
    painter.wait()
    np.testing.assert_array_equal(painter.mask(), shown)
    painter.stage.focus()
    for _ in range(2):
        page.keyboard.press("Control+z")
    painter.expect_saved()
    np.testing.assert_array_equal(drawn(project)[id], first)
    page.keyboard.press("Control+z")
    expect(painter.status).to_contain_text("No mask yet")
    painter.expect_saved()
    assert drawn(project) == {}
    page.keyboard.press("Control+Shift+z")
    painter.expect_saved()
    np.testing.assert_array_equal(drawn(project)[id], first)
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        page.evaluate(THEME, theme)
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        screenshot(page, f"painter-{theme.split()[1].lower()}")
        assert broken_rules(page) == []


@pytest.mark.long
def test_on_a_small_screen_a_finger_paints_and_two_move_the_photo(servers, photos, chromium, screenshot):
    """In Voila, 390 pixels wide. Two fingers leave no stroke; after a reload everything is there, and can be undone."""
    project, shown = photos, servers.lab.folder / PAGE
    own = shown.read_bytes()
    shown.write_bytes((project.data.parents[1] / "paint.ipynb").read_bytes())
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
        shown.write_bytes(own)
