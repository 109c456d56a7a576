"""More like this, and the map: what a person sees and does, in JupyterLab and on a Voila page."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from browser.conftest import PAGE, Desk, second_cleaner
from browser.pages import Grid
from browser.project import ANT, CODE, MARKUP, NAUGHTY, write_notebook
from browser.test_cleaner_on_screen import OUTSIDE, ROWS, THEME
from utils.ledger import read_review

pytestmark = pytest.mark.browser

MAPPED = """
from IPython.display import display

rng = np.random.default_rng(1)
kinds = [label in ("ant",) for label in dataset.labels]
features = rng.normal(size=(len(ids), 20)) * 0.4 + 4 * np.array(kinds)[:, None] * (np.arange(20) < 10) + 1
looks = {id: n for n, id in enumerate(ids)}
features[looks["ant-03"]] = features[looks["both-02"]] + 0.01  # filed as ant, looks like the others
features[looks["broken"]] = np.nan
mapped = ImageClassifierCleaner(project=project, dataset=dataset, probs=probs, suspects=suspects, features=features,
                                max_n=12, height=96, width=128)
display(mapped.map(), mapped)
"""
POINTS = """map => {
    const paper = map.querySelector('canvas');
    const pixels = paper.getContext('2d').getImageData(0, 0, paper.width, paper.height).data;
    return pixels.some(value => value > 0);
}"""  # whether anything is drawn


@pytest.fixture
def mapped(desk) -> Desk:
    """A second cleaner below the first, with features, and its map above it."""
    with second_cleaner(desk, MAPPED) as below:
        yield below


def map_of(page):
    """Return the map on a page, once it is drawn."""
    found = page.get_by_role("region", name="The map", exact=True)
    found.scroll_into_view_if_needed()
    expect(found.get_by_role("button", name=ANT)).to_be_visible()
    page.wait_for_function(POINTS, arg=found.element_handle())
    return found


def whole(found):
    """Return the corners of a map's canvas, a little inside, as a way around all points."""
    box = found.locator("canvas").bounding_box()
    left, top, right, bottom = box["x"] + 3, box["y"] + 3, box["x"] + box["width"] - 3, box["y"] + box["height"] - 3
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def draw_around(page, corners, *, shift: bool = False) -> None:
    if shift:
        page.keyboard.down("Shift")
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in [*corners[1:], corners[0]]:
        page.mouse.move(*corner, steps=3)
    page.mouse.up()
    if shift:
        page.keyboard.up("Shift")


def test_m_shows_the_look_alikes_and_b_goes_back(mapped, screenshot):
    """d on a wrong picture offers what looks like it; m shows it, several are moved at once, b leads back."""
    grid = mapped.grid
    grid.choose("Sort", "File name")
    grid.focus("ant-03")
    before = grid.shown()
    grid.press("1")
    expect(grid.alert.first).to_contain_text("1 picture looks like ant-03.jpg: m shows it.")
    expect(grid.card("ant-04")).to_be_focused()
    screenshot(mapped.page, "offered")
    grid.press("m")
    grid.settle()
    expect(grid.cards.first).to_have_attribute("data-key", "ant-03")
    expect(grid.card("ant-03")).to_be_focused()
    expect(grid.root.get_by_role("combobox", name="List", exact=True)).to_have_value("Like ant-03.jpg")
    assert grid.shown()[1] == "both-02"
    screenshot(mapped.page, "alike")
    grid.press("ArrowRight", "Space", "ArrowRight", "Space", "k")
    grid.expect_choice("both-02", "Keep")
    assert len(read_review(mapped.project)) == 3 and read_review(mapped.project)["ant-03"] == MARKUP
    grid.press("b")
    grid.settle()
    assert grid.shown() == before
    expect(grid.card("ant-04")).to_be_focused()
    grid.card("ant-05").get_by_role("button", name="More like this").click()
    grid.settle()
    expect(grid.card("ant-05")).to_be_focused()
    grid.root.get_by_role("button", name="Back to all pictures").click()
    grid.settle()
    expect(grid.card("ant-05")).to_be_focused()
    grid.press("z", "m")
    expect(grid.root.get_by_role("dialog")).to_be_hidden()
    expect(grid.cards.first).to_have_attribute("data-key", "ant-05")


def test_an_offer_ends_with_the_next_step(mapped):
    """Once the focus was moved, m is for the picture in focus again."""
    grid = mapped.grid
    grid.choose("Sort", "File name")
    grid.focus("ant-03")
    grid.press("d")
    expect(grid.alert.first).to_contain_text("m shows it")
    grid.press("ArrowRight")
    expect(grid.alert.first).to_have_text("")
    grid.press("m")
    grid.settle()
    expect(grid.cards.first).to_have_attribute("data-key", "ant-05")


def test_without_features_there_is_no_button_and_no_key(desk):
    """The cards have no such button, the help does not name the key, and the key does nothing."""
    desk.grid.show_all()
    expect(desk.grid.root.get_by_role("button", name="More like this")).to_have_count(0)
    expect(desk.grid.root.locator("dt").filter(has_text="m, b")).to_have_count(0)
    desk.grid.focus("ant-00")
    desk.grid.press("m")
    expect(desk.grid.card("ant-00")).to_be_focused()
    expect(desk.grid.root.get_by_role("button", name="Back to")).to_have_count(0)


def test_the_lasso_fills_the_grid(mapped, screenshot):
    """Shift + drag and the button show what was drawn around; Enter what is in view; points are found by keys."""
    page, grid, found = mapped.page, mapped.grid, map_of(mapped.page)
    draw_around(page, whole(found), shift=True)
    grid.expect_status("Page 1 of 4, 40 pictures")
    expect(found.get_by_role("status")).to_contain_text("40 pictures shown in the cleaner")
    expect(grid.root.get_by_role("combobox", name="List", exact=True)).to_have_value("From the map")
    left, right = whole(found)[0], whole(found)[1]
    middle = ((left[0] + right[0]) / 2, left[1])
    found.get_by_role("button", name="Lasso").click()
    draw_around(page, [left, middle, (middle[0], whole(found)[2][1]), whole(found)[3]])
    expect(grid.status.filter(has_text="40 pictures")).to_have_count(0)
    some = int(grid.status.inner_text().split(" of ")[-1].split(", ")[1].split()[0])
    assert 0 < some < 40
    found.locator("canvas").focus()
    page.keyboard.press("ArrowRight")
    expect(found.get_by_role("status")).to_contain_text("Folder: ")
    first = found.get_by_role("status").inner_text()
    page.keyboard.press("ArrowRight")
    expect(found.get_by_role("status")).not_to_have_text(first)
    expect(found.locator(".fg-tip img")).to_be_visible()
    pointed = found.get_by_role("status").inner_text().split(".jpg")[0]
    screenshot(page, "map")
    page.keyboard.press("Enter")
    grid.expect_status("Page 1 of 4, 40 pictures")
    page.keyboard.press("+")  # around that point, so it stays in view, and others leave it
    page.keyboard.press("+")
    page.keyboard.press("+")
    page.keyboard.press("Enter")
    expect(grid.status.filter(has_text="40 pictures")).to_have_count(0)
    assert f"{pointed}" in grid.shown()
    grid.button("Back to all pictures").click()
    grid.expect_status("Page 1 of 4, 41 pictures")
    assert page.evaluate("() => window.hacked") is None


def test_a_choice_colours_its_point(mapped):
    """Moved pictures have their new label's colour, deleted ones leave the map: the legend counts them."""
    found, grid = map_of(mapped.page), mapped.grid
    expect(found.get_by_role("button", name=f"{ANT} 14")).to_be_visible()
    grid.choose("Sort", "File name")
    grid.focus(NAUGHTY)
    grid.press("d", "1")
    expect(found.get_by_role("button", name=f"{ANT} 12")).to_be_visible()
    expect(found.get_by_role("button", name=f"{MARKUP} 14")).to_be_visible()


def test_after_a_restart_the_map_says_what_to_run(mapped):
    """At the next press; the cells run again show the map, whose choices are kept."""
    page, found = mapped.page, map_of(mapped.page)
    mapped.notebook.restart()
    found.get_by_role("button", name="Show these").click()
    expect(found.get_by_role("status")).to_contain_text("The kernel is gone. To go on, run all cells above")
    mapped.notebook.run_all()
    map_of(page).get_by_role("button", name="Show these").click()
    expect(found.get_by_role("status")).to_contain_text("40 pictures shown")


def swipe(found) -> None:
    """Move a finger up the middle of a map by 100 pixels."""
    page, box = found.page, found.locator("canvas").bounding_box()
    touch = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    screen = page.context.new_cdp_session(page)
    screen.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [touch]})
    for _ in range(10):
        touch["y"] -= 10
        screen.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [touch]})
        page.wait_for_timeout(20)
    screen.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_timeout(300)
    screen.detach()


def test_the_page_scrolls_over_the_whole_map(mapped):
    """By finger and wheel, while all of it is in view; enlarged, a finger moves the map. A right drag never does."""
    page, found = mapped.page, map_of(mapped.page)
    canvas = found.locator("canvas")
    found.evaluate("map => map.scrollIntoView({block: 'end'})")
    at_first = found.bounding_box()["y"]
    swipe(found)
    after_finger = found.bounding_box()["y"]
    canvas.hover()
    page.mouse.wheel(0, 40)
    page.wait_for_timeout(300)
    after_wheel = found.bounding_box()["y"]
    assert at_first - after_finger > 50 and after_finger - after_wheel > 20
    found.get_by_role("button", name="Zoom in").click()
    canvas.hover()
    page.keyboard.press("Escape")
    enlarged = canvas.screenshot()
    page.mouse.down(button="right")
    page.mouse.move(600, 400, steps=4)
    page.mouse.up(button="right")
    page.keyboard.press("Escape")
    page.mouse.move(1, 1)
    assert canvas.screenshot() == enlarged
    swipe(found)
    assert found.bounding_box()["y"] == after_wheel and canvas.screenshot() != enlarged


@pytest.mark.long
def test_in_voila_the_lasso_fills_the_grid(servers, project, page, screenshot):
    """A Voila page draws the map and takes keys and lasso; a picture deleted meanwhile is shown as missing."""
    notebook = servers.lab.folder / PAGE
    cell = "\n".join([CODE.rsplit("cleaner = ", 1)[0], MAPPED.replace("{", "{{").replace("}", "}}")])
    write_notebook(notebook, servers.lab.folder / "project.toml", cell)
    try:
        page.goto(servers.voila.url)
        found, grid = map_of(page), Grid(page)
    finally:
        write_notebook(notebook, servers.lab.folder / "project.toml")
    (project.images / ANT / "ant-00.jpg").unlink()
    found.locator("canvas").focus()
    page.keyboard.press("Enter")
    grid.expect_status("40 pictures")
    screenshot(page, "map-voila")
    draw_around(page, whole(found), shift=True)
    expect(found.get_by_role("status")).to_contain_text("40 pictures shown in the cleaner")
    grid.choose("Sort", "File name")
    expect(grid.card("ant-00").locator(".fg-broken")).to_be_visible()


@pytest.mark.long
def test_the_map_is_usable_by_everyone(mapped, screenshot):
    """axe finds nothing in light or dark; at 390 pixels nothing sticks out; at 1366 the toolbar is one row."""
    page, found = mapped.page, map_of(mapped.page)
    mapped.grid.cards.first.focus()
    mapped.grid.press("m")
    expect(mapped.grid.root.get_by_role("button", name="Back to all pictures")).to_be_visible()
    broken = {}
    try:
        for theme in ("JupyterLab Light", "JupyterLab Dark"):
            page.evaluate(THEME, theme)
            page.locator("#jupyterlab-splash").wait_for(state="detached")
            page.wait_for_timeout(500)
            for context in (".fieldguide-map", ".fieldguide-cleaner"):
                violations = Axe().run(page, context=context).response["violations"]
                broken |= {
                    f"{theme}, {each['id']}": each["nodes"][0]["html"][:100]
                    for each in violations
                    if each["id"] != "landmark-unique"  # this page has two cleaners
                }
            found.scroll_into_view_if_needed()
            screenshot(page, "map-" + theme.split()[1].lower())
    finally:
        page.evaluate(THEME, "JupyterLab Light")
    try:
        page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(1000)
        found.evaluate("map => map.scrollIntoView({block: 'start'})")
        screenshot(page, "map-390")
        outside = found.evaluate(OUTSIDE)
        page.evaluate("() => window.jupyterapp.shell.expandLeft()")
        page.set_viewport_size({"width": 1366, "height": 768})
        page.wait_for_timeout(1000)
        screenshot(page, "back-1366")
        rows = mapped.grid.root.evaluate(ROWS)
    finally:
        page.set_viewport_size({"width": 1280, "height": 1300})
    assert (broken, outside, rows) == ({}, [], 1)
