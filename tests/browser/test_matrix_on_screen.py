"""05's matrix with a cleaner below it, in JupyterLab: a number shows the photos behind it."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from browser.conftest import Desk, second_cleaner
from browser.project import ANT, MARKUP
from browser.test_cleaner_on_screen import THEME
from utils.ledger import read_review

pytestmark = pytest.mark.browser

MATRIX = """
from IPython.display import display

answers = np.full((len(ids), 3), np.nan)
for id, answer in {"ant-00": 0, "ant-01": 0, "ant-02": 1, "both-00": 0, "both-01": 1}.items():
    answers[ids.index(id)] = np.eye(3)[answer] * 0.6 + 0.1 + np.eye(3)[answer] * 0.01 * (id == "ant-01")
shown = ImageClassifierCleaner(project=project, dataset=dataset, probs=answers, max_n=12, height=96, width=128)
display(shown.matrix(), shown)
"""


@pytest.fixture
def crossed(desk) -> Desk:
    """A second cleaner below the first, and a matrix above it."""
    with second_cleaner(desk, MATRIX) as below:
        yield below


def test_a_number_of_the_matrix_shows_its_photos(crossed, screenshot):
    """By mouse or by arrows and Enter; a key decides there, and the way back leads to the number before."""
    page, grid = crossed.page, crossed.grid
    matrix = page.get_by_role("region", name="The matrix", exact=True)
    assert matrix.get_by_role("button").all_inner_texts() == ["1", "1", "2", "1"]
    matrix.get_by_role("button", name=f"2 photos of {ANT} taken for {MARKUP}").click()
    expect(matrix.get_by_role("status")).to_contain_text("2 pictures shown in the cleaner below")
    grid.settle()
    assert grid.shown() == ["ant-01", "ant-00"]
    screenshot(page, "matrix")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(matrix.get_by_role("status")).to_contain_text("1 picture shown")
    grid.settle()
    assert grid.shown() == ["ant-02"]
    grid.card("ant-02").locator("img").click()
    grid.press("d")
    grid.expect_choice("ant-02", "Delete")
    assert read_review(crossed.project) == {"ant-02": "Delete"}
    grid.root.get_by_role("button", name="Back to").click()
    grid.settle()
    assert grid.shown() == ["ant-01", "ant-00"]


def test_after_a_restart_a_number_says_what_to_run(crossed):
    """The old page tells it at the next press; the cells run again show the photos."""
    page, number = crossed.page, f"2 photos of {ANT} taken for {MARKUP}"
    matrix = page.get_by_role("region", name="The matrix", exact=True)
    crossed.notebook.restart()
    matrix.get_by_role("button", name=number).click()
    expect(matrix.get_by_role("status")).to_contain_text("The kernel is gone. To go on, run all cells above")
    crossed.notebook.run_all()
    matrix.get_by_role("button", name=number).click()
    expect(matrix.get_by_role("status")).to_contain_text("2 pictures shown")


@pytest.mark.long
def test_the_matrix_breaks_no_rule_of_axe_and_fits_a_telephone(crossed, screenshot):
    """In light and dark; a table that is wider than the window scrolls in its own box."""
    page, found = crossed.page, {}
    matrix = page.get_by_role("region", name="The matrix", exact=True)
    try:
        for theme in ("JupyterLab Light", "JupyterLab Dark"):
            page.evaluate(THEME, theme)
            page.wait_for_function(
                "light => document.body.dataset.jpThemeLight === light", arg=str(theme.endswith("Light")).lower()
            )
            page.locator("#jupyterlab-splash").wait_for(state="detached")
            screenshot(page, f"matrix-{theme[11:]}")
            violations = Axe().run(page, context=".fieldguide-matrix").response["violations"]
            found |= {each["id"]: each["nodes"][0]["html"] for each in violations}
        page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
        page.set_viewport_size({"width": 390, "height": 844})
        matrix.scroll_into_view_if_needed()
        screenshot(page, "matrix-390")
        assert found == {} and matrix.evaluate("root => root.scrollWidth <= root.clientWidth")
    finally:
        page.set_viewport_size({"width": 1280, "height": 1300})
        page.evaluate(THEME, "JupyterLab Light")
        page.wait_for_function("light => document.body.dataset.jpThemeLight === light", arg="true")
