"""The editor of boxes in Voila and Notebook 7: what is drawn is on disk, and no key changes the notebook."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from drawn_boxes import fill_project
from playwright.sync_api import expect

from browser.pages import Notebook
from browser.project import write_notebook
from utils.boxes import read_boxes
from utils.project import Project

pytestmark = pytest.mark.browser
THEME = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name}).then(() => null)"
WIDE = "stage => stage.querySelector('rect')?.getBoundingClientRect().width > 20"
SETTINGS = 'name = "{name}"\ntask = "detect"\nsource = "photos"\nsize = 64\ndata_dir = "data"\n'
CODE = """
from utils.boxes import BoxEditor, ToLookAt, read_photos
from utils.project import Project

photos = read_photos(Project.load({path!r}))
looks = [ToLookAt(photo.id, "The model finds a ball that no box has.") for photo in photos if photo.boxes]
editor = BoxEditor(photos, looks)
editor
"""


@pytest.fixture
def boxed(servers, numbers):
    """A project with drawn boxes; both notebooks show its editor."""
    folder = servers.lab.folder / f"boxes-{next(numbers)}"
    (folder / "photos").mkdir(parents=True)
    path = folder / "project.toml"
    path.write_text(SETTINGS.format(name="shapes"), encoding="utf-8")
    project = Project.load(path)
    fill_project(project, 4)
    for name in ("page.ipynb", "boxes.ipynb"):
        write_notebook(servers.lab.folder / name, path, CODE)
    yield project
    write_notebook(servers.lab.folder / "page.ipynb", servers.lab.folder / "project.toml")


def drag(page, photo, start, end):
    """Drag on the photo from one place to another, in its pixels, as slowly as a hand: the widget draws in between."""
    box = photo.bounding_box()
    page.mouse.move(box["x"] + start[0], box["y"] + start[1])
    page.mouse.down()
    page.wait_for_timeout(100)
    page.mouse.move(box["x"] + end[0], box["y"] + end[1], steps=10)
    page.wait_for_timeout(100)
    page.mouse.up()


def test_a_box_that_is_drawn_is_on_disk(servers, boxed, page, screenshot):
    """A box drawn in Voila by the mouse and saved by Enter stands in boxes.csv, within a pixel; axe finds no fault."""
    before = read_boxes(boxed.table("boxes"))
    first = sorted(before)[0]
    page.goto(servers.voila.url, timeout=60_000)
    stage = page.get_by_role("application", name="Photo with boxes")
    stage.wait_for()
    photo = stage.locator("img")
    expect(stage.locator("rect").first).to_be_visible()
    expect(page.get_by_text("The model finds a ball that no box has.")).to_be_visible()
    drag(page, photo, (4, 4), (24, 14))
    screenshot(page, "box-editor")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Saved: ")).to_be_visible()
    added = read_boxes(boxed.table("boxes"))[first][-1]
    assert added.by == "person"
    for corner, wanted in zip(added.corners, (4 / 160, 4 / 120, 24 / 160, 14 / 120), strict=True):
        assert abs(corner - wanted) < 1.5 / 120
    assert read_boxes(boxed.table("boxes"))[first][:-1] == before[first]
    assert [found["id"] for found in Axe().run(page, context=".fieldguide-boxes").response["violations"]] == []


def test_keys_of_the_editor_change_no_cell(servers, boxed, page):
    """In Notebook 7 the keys that move and delete boxes leave the notebook's cells as they are."""
    notebook = Notebook(page, servers.lab, "boxes.ipynb", at="notebooks")
    notebook.run_all()
    stage = page.get_by_role("application", name="Photo with boxes")
    stage.wait_for()
    before = notebook.cells()
    photo = stage.locator("img").bounding_box()
    page.mouse.click(photo["x"] + 2, photo["y"] + 2)
    for key in "abcdxwsdd":
        page.keyboard.press(key)
    assert notebook.cells() == before


def test_boxes_are_seen_while_the_page_changes(servers, boxed, page):
    """The theme changes just when the photo comes: its boxes have a size all the same."""
    notebook = Notebook(page, servers.lab, "boxes.ipynb")
    for n in range(3):
        notebook.run_all()
        stage = page.get_by_role("application", name="Photo with boxes")
        stage.wait_for()
        page.evaluate(THEME, ("JupyterLab Dark", "JupyterLab Light")[n % 2])
        page.wait_for_function(WIDE, arg=stage.element_handle())
    page.evaluate(THEME, "JupyterLab Light")
