"""The cleaner on a Voila page, in Notebook 7, and in two notebooks at once."""

import re

import pytest
from conftest import draw_picture, picture_bytes, put_raw
from playwright.sync_api import expect

from browser.conftest import PAGE
from browser.pages import Grid, Notebook
from browser.project import ANT, KANA, SORTER, files, write_notebook
from utils.ledger import read_review
from utils.storage import content_id, write_whole

pytestmark = [pytest.mark.browser, pytest.mark.long]


def test_in_voila_flags_are_stored_survive_a_reload_and_are_applied(servers, project, page, screenshot):
    """A reload gives a Voila page a new kernel: the flags come from disk, and Apply moves the files."""
    before = files(project.images)
    page.goto(servers.voila.url)
    grid = Grid(page)
    grid.root.wait_for()
    grid.show_all()
    grid.card("ant-00").get_by_role("button", name="Delete", exact=True).click()
    grid.expect_choice("ant-00", "Delete")
    grid.focus("ant-01")
    grid.press("3", "k")
    grid.expect_choice("ant-02", "Keep")
    flags = {"ant-00": "Delete", "ant-01": KANA, "ant-02": "Keep"}
    assert read_review(project) == flags
    screenshot(page, "voila")
    page.reload()
    grid.root.wait_for()
    grid.show_all()
    grid.expect_choice("ant-02", "Keep")
    assert grid.choices() == flags
    grid.button("Apply (2)").click()
    expect(grid.root).to_contain_text("Moved 1 to another label and 1 to the trash")
    assert files(project.trash) == {"ant-00": ANT}
    assert files(project.images) == {id: label for id, label in before.items() if id != "ant-00"} | {"ant-01": KANA}


def test_in_notebook_7_a_key_flags_a_picture(servers, project, page, screenshot):
    """The grid takes keys, and stores the flag. No key changes the notebook around it: x would cut the cell."""
    notebook = Notebook(page, servers.lab, "clean.ipynb", at="notebooks")
    grid = notebook.run_all()
    grid.show_all()
    before = notebook.cells()
    grid.focus("ant-00")
    for key in "abxvmyrii":
        page.keyboard.press(key)
    assert notebook.cells() == before
    grid.focus("ant-00")
    grid.press("d")
    grid.expect_choice("ant-00", "Delete")
    assert read_review(project) == {"ant-00": "Delete"}
    screenshot(page, "notebook-7")


def test_a_second_notebook_is_told_and_nothing_is_lost(desk, servers, page, screenshot):
    """Two notebooks flag pictures of one project: both flags are stored, and each is told of the other's."""
    desk.grid.show_all()
    page.goto(servers.voila.url)
    other = Grid(page)
    other.root.wait_for()
    other.show_all()
    desk.grid.focus("ant-00")
    desk.grid.press("d")
    desk.grid.expect_choice("ant-00", "Delete")
    other.focus("ant-01")
    other.press("k")
    other.expect_choice("ant-01", "Keep")
    expect(other.alert.filter(has_text="elsewhere")).to_be_visible()
    other.expect_choice("ant-00", "Delete")
    screenshot(page, "second-notebook")
    desk.grid.focus("ant-03")
    desk.grid.press("3")
    desk.grid.expect_choice("ant-03", KANA)
    expect(desk.grid.alert.filter(has_text="elsewhere")).to_be_visible()
    assert read_review(desk.project) == {"ant-00": "Delete", "ant-01": "Keep", "ant-03": KANA}
    other.button("Apply (1)").click()
    expect(other.alert.filter(has_text="Nothing was moved yet")).to_be_visible()
    expect(other.card("ant-03")).to_contain_text(f"→ {KANA}")
    assert files(desk.project.trash) == {}
    other.button("Apply (2)").click()
    expect(other.root).to_contain_text("Moved 1 to another label and 1 to the trash")
    desk.grid.button("Next page").click()
    expect(desk.grid.alert.filter(has_text="elsewhere")).to_be_visible()
    desk.grid.button("Previous page").click()
    expect(desk.grid.card("ant-00")).to_have_count(0)
    assert files(desk.project.trash) == {"ant-00": ANT}


@pytest.fixture
def sorter(servers, make_project, fill_raw, tmp_path):
    """A project with a photo without a label and one set aside, and the page that shows it as 02 does."""
    project = make_project()
    fill_raw(project, 2)
    put_raw(project, "cat", picture_bytes(draw_picture(501, size=(40, 40))))
    loose = picture_bytes(draw_picture(502))
    write_whole(project.unsorted / f"{content_id(loose)}.jpg", loose)
    lines = [f'{key} = "{getattr(project, key)}"' for key in ("name", "data_dir", "models_dir")]
    (tmp_path / "project.toml").write_text("\n".join([*lines, "[labels]", 'cat = ["x"]', 'dog = ["y"]']))
    page = servers.lab.folder / PAGE
    write_notebook(page, tmp_path / "project.toml", SORTER)
    yield project, content_id(loose)
    write_notebook(page, servers.lab.folder / "project.toml")


def test_in_02_what_is_outside_comes_in_by_keys_and_buttons(servers, sorter, page, screenshot):
    """A photo gets its label by its number; one that was set aside is taken back."""
    project, loose = sorter
    page.goto(servers.voila.url)
    grid = Grid(page)
    grid.root.wait_for()
    expect(grid.cards).to_have_count(1)
    grid.focus(loose)
    grid.press("k")
    expect(grid.alert.first).to_contain_text("Which label?")
    screenshot(page, "sorter")
    grid.press("2")
    expect(grid.card(loose)).to_contain_text("→ dog")
    expect(grid.root).to_contain_text("1 photo came into the training set.", timeout=10_000)
    assert (project.images / "dog" / f"{loose}.jpg").exists()
    grid.choose("List", "Set aside: too small")
    expect(grid.cards).to_have_count(1)
    (small,) = grid.shown()
    grid.focus(small)
    grid.press("d")
    expect(grid.alert.first).to_contain_text("there is nothing to delete")
    grid.card(small).get_by_role("button", name="Take back", exact=True).click()
    expect(grid.root).to_contain_text("Took back 1 picture.")
    assert (project.images / "cat" / f"{small}.jpg").exists()


@pytest.mark.long
def test_in_02_proposals_are_accepted_and_corrected_by_single_keys(servers, sorter, page, screenshot):
    """Enter accepts a proposal, a number corrects it, u takes that back, Shift + Enter accepts the page."""
    project, _ = sorter
    put = {}
    for n, (label, colour) in enumerate([("cat", (200, 40, 30)), ("dog", (30, 60, 210))] * 5):
        data = picture_bytes(draw_picture(600 + n, colour=colour))
        put[content_id(data)] = label
        write_whole(project.unsorted / f"{content_id(data)}.jpg", data)
    page.set_viewport_size({"width": 1366, "height": 768})
    page.goto(servers.voila.url)
    grid = Grid(page)
    grid.root.wait_for()
    grid.settle()
    expect(grid.cards.first).to_contain_text("Looks like")
    screenshot(page, "unsorted")
    shown = grid.shown()
    said = {key: grid.card(key).locator(".fg-proposed").get_attribute("data-choice") for key in shown}
    grid.focus(shown[0])
    grid.press("Enter")
    expect(grid.card(shown[0])).to_have_attribute("data-choice", said[shown[0]])
    expect(grid.card(shown[1])).to_be_focused()
    other = "1" if said[shown[1]] == "dog" else "2"
    grid.press(other)
    expect(grid.card(shown[1])).to_have_attribute("data-choice", "cat" if other == "1" else "dog")
    grid.press("u")
    expect(grid.card(shown[1])).to_have_attribute("data-choice", "")
    grid.press("z")
    expect(grid.root.get_by_role("dialog")).to_be_visible()
    grid.press("Escape")
    grid.press("Shift+Enter")
    for key in shown:
        expect(grid.card(key)).to_have_attribute("data-choice", re.compile("cat|dog"))
    assert grid.shown() == shown
    screenshot(page, "unsorted-accepted")
    filed = {path.stem for path in project.raw.glob("*/*")}
    assert filed >= set(shown)
    grid.press("Enter")
    expect(grid.card(shown[0])).to_have_count(0)
    expect(grid.cards.first).to_be_focused()
    expect(grid.root).to_contain_text("came into the training set.", timeout=12_000)
    assert {path.stem for path in project.images.glob("*/*.jpg")} >= set(shown)
