"""The cleaner in JupyterLab: whatever a person does with mouse and keys, the files on disk say the same."""

import os
import signal

import pytest
from playwright.sync_api import expect

from browser.pages import Grid, watched
from browser.project import ANT, BROKEN, KANA, LEARNING, MARKUP, NAUGHTY, SURE, UNSURE, corrections, files
from utils.dataset import read_split
from utils.ledger import Ledger, read_review, save_flags

pytestmark = pytest.mark.browser
CORNER = {"x": 4, "y": 4}  # of a card, beside its picture and its buttons
IMPATIENT = """button => {
    const patient = window.setTimeout;
    window.setTimeout = (action, delay) => patient(action, delay / 1000);
    button.click();
    window.setTimeout = patient;
}"""  # a click after which the ten seconds until a silent kernel is reported pass at once
FIRST_PAGE = [NAUGHTY, *(f"ant-{n:02}" for n in range(11))]  # by file name, twelve a page


# --- flags, by mouse and by keys ---------------------------------------------------------------------------------


def test_flags_set_with_the_mouse_are_on_disk(desk):
    """A click on Keep, Delete or another label is shown on that card alone, and stored under that id."""
    desk.grid.show_all()
    for key, button, choice in (
        ("ant-00", "Keep", "Keep"),
        ("ant-02", "Delete", "Delete"),
        ("ant-04", f"3 {KANA}", KANA),
    ):
        desk.grid.card(key).get_by_role("button", name=button, exact=True).click()
        desk.grid.expect_choice(key, choice)
    expected = {"ant-00": "Keep", "ant-02": "Delete", "ant-04": KANA}
    assert read_review(desk.project) == expected
    assert desk.grid.choices() == expected
    desk.grid.expect_status("3 of 41 looked at: 1 to keep, 1 to delete, 1 to move")


def test_flags_set_with_keys_are_on_disk(desk):
    """k keeps, d deletes, a number moves; each time the next card takes the focus, and u takes the last flag back."""
    desk.grid.show_all()
    desk.grid.focus("ant-00")
    for key, pressed, choice, after in (
        ("ant-00", "k", "Keep", "ant-01"),
        ("ant-01", "d", "Delete", "ant-02"),
        ("ant-02", "1", MARKUP, "ant-03"),
        ("ant-03", "3", KANA, "ant-04"),
        ("ant-04", "d", "Delete", "ant-05"),
    ):
        desk.grid.press(pressed)
        desk.grid.expect_choice(key, choice)
        expect(desk.grid.card(after)).to_be_focused()
    desk.grid.press("u")
    desk.grid.expect_choice("ant-04", "")
    assert read_review(desk.project) == {"ant-00": "Keep", "ant-01": "Delete", "ant-02": MARKUP, "ant-03": KANA}


def test_keys_pressed_in_haste_reach_the_pictures_they_were_meant_for(desk):
    """Keys faster than the kernel answers, a page turn among them, flag one picture after the other, none twice."""
    desk.grid.show_all()
    desk.grid.focus("ant-08")
    desk.grid.press("k", "d", "3", "n")
    desk.grid.expect_status("Page 2 of 4")
    desk.grid.expect_status("3 of 41 looked at")
    assert read_review(desk.project) == {"ant-08": "Keep", "ant-09": "Delete", "ant-10": KANA}


def test_after_the_last_picture_a_key_decides_nothing(desk):
    """The focus has nowhere to go: the key meant for the next picture must not change the choice for this one."""
    desk.grid.show_all()
    last = desk.grid.shown()[-1]
    desk.grid.focus(last)
    desk.grid.press("k", "d")
    expect(desk.grid.alert.filter(has_text="the last picture of this page")).to_be_visible()
    desk.grid.press("u")
    desk.grid.expect_status("0 of 41 looked at")
    desk.grid.press("k", "ArrowLeft", "ArrowRight", "d")
    desk.grid.expect_choice(last, "Delete")
    assert read_review(desk.project) == {last: "Delete"}


def test_while_a_page_is_on_its_way_a_key_decides_nothing(desk):
    """A key that follows n before the new page is there flags no picture of the page that is left."""
    desk.grid.show_all()
    desk.grid.focus("ant-00")
    with desk.notebook.kernel_at_work(silent=True):
        desk.grid.press("n", "d")
        expect(desk.grid.alert.filter(has_text="is being turned")).to_be_visible()
    desk.grid.expect_status("Page 2 of 4")
    first = desk.grid.shown()[0]
    desk.grid.press("k")
    desk.grid.expect_choice(first, "Keep")
    assert read_review(desk.project) == {first: "Keep"}


def test_on_a_page_that_nobody_asked_for_a_key_decides_nothing(desk):
    """Where files moved elsewhere, the answer to a flag is another page: the next key waits until it was looked at."""
    desk.grid.show_all()
    save_flags(desk.project, {"ant-00": "Delete"})
    Ledger(desk.project).apply()
    desk.grid.focus("ant-05")
    desk.grid.press("k")
    desk.grid.expect_status("1 of 40 looked at")
    desk.grid.press("d")
    expect(desk.grid.alert.filter(has_text="The page has changed")).to_be_visible()
    desk.grid.press("ArrowRight", "d")
    desk.grid.expect_choice("ant-01", "Delete")
    assert read_review(desk.project) == {"ant-05": "Keep", "ant-01": "Delete"}


def test_a_key_held_down_decides_once(desk):
    """The keyboard repeats a key that is held; only the first time is a decision, by a letter or by a button."""
    desk.grid.show_all()
    desk.grid.focus("ant-00")
    for key in ("d", "d", "d"):
        desk.page.keyboard.down(key)
    desk.page.keyboard.up("d")
    desk.grid.button("Keep").focus()
    for key in ("Enter", "Enter", "Enter"):
        desk.page.keyboard.down(key)
    desk.page.keyboard.up("Enter")
    desk.grid.expect_choice("ant-01", "Keep")
    desk.notebook.execute("")
    assert read_review(desk.project) == {"ant-00": "Delete", "ant-01": "Keep"}


def test_the_number_keys_work_where_digits_need_shift(desk):
    """On a French keyboard the third key of the upper row says a quotation mark, and means the third label."""
    desk.grid.show_all()
    desk.grid.focus("ant-00").dispatch_event("keydown", {"key": '"', "code": "Digit3", "bubbles": True})
    desk.grid.expect_choice("ant-00", KANA)
    assert read_review(desk.project) == {"ant-00": KANA}


def test_a_pictures_own_label_is_keep(desk):
    """The number of the label that a picture has already means Keep, not a move."""
    desk.grid.show_all()
    desk.grid.focus("ant-00")
    desk.grid.press("2")
    desk.grid.expect_choice("ant-00", "Keep")
    assert read_review(desk.project) == {"ant-00": "Keep"}


def test_arrows_home_and_end_move_the_focus(desk):
    """The arrows go from card to card, along a row and to the row below and back, Home and End to first and last."""
    desk.grid.show_all()
    desk.grid.focus(FIRST_PAGE[0])
    for pressed, place in (
        ("ArrowRight", 1),
        ("ArrowLeft", 0),
        ("ArrowLeft", 0),
        ("End", 11),
        ("ArrowRight", 11),
        ("Home", 0),
    ):
        desk.grid.press(pressed)
        expect(desk.grid.card(FIRST_PAGE[place])).to_be_focused()
    tops = desk.grid.cards.evaluate_all("cards => cards.map(card => Math.round(card.getBoundingClientRect().top))")
    row = tops.count(tops[0])
    assert 1 < row < 12
    for pressed, place in (("ArrowRight", 1), ("ArrowDown", 1 + row), ("ArrowUp", 1)):
        desk.grid.press(pressed)
        expect(desk.grid.card(FIRST_PAGE[place])).to_be_focused()


def test_tab_leads_into_the_pictures_once(desk):
    """From the menus, Tab reaches one card; from there the arrows lead on."""
    desk.grid.show_all()
    desk.grid.root.get_by_role("combobox", name="Sort", exact=True).focus()
    focused = desk.grid.list.locator("[role=gridcell]:focus")
    for _ in range(15):
        desk.grid.press("Tab")
        if focused.count():
            break
    expect(focused).to_have_attribute("data-key", FIRST_PAGE[0])
    expect(desk.grid.list.locator('[role=gridcell][tabindex="0"]')).to_have_count(1)


# --- several at once ---------------------------------------------------------------------------------------------


def selected(grid) -> list[str]:
    return [key for key in grid.shown() if grid.card(key).get_attribute("aria-selected") == "true"]


def test_several_are_selected_with_keys_and_decided_at_once(desk):
    """Space and Shift with arrows select; one key decides for all of them; one u takes all back."""
    desk.grid.show_all()
    desk.grid.focus("ant-00")
    desk.grid.press("Space", "ArrowRight", "ArrowRight", "Space", "Shift+ArrowRight")
    expect(desk.grid.card("ant-03")).to_have_attribute("aria-selected", "true")
    assert selected(desk.grid) == ["ant-00", "ant-02", "ant-03"]
    desk.grid.press("d")
    desk.grid.expect_status("3 of 41 looked at: 0 to keep, 3 to delete, 0 to move")
    assert read_review(desk.project) == dict.fromkeys(["ant-00", "ant-02", "ant-03"], "Delete")
    desk.grid.press("u")
    desk.grid.expect_status("0 of 41 looked at")
    assert read_review(desk.project) == {}


def test_a_range_is_selected_with_the_mouse_and_moved(desk):
    """Shift and a click select from the last card to this one, Ctrl and a click takes one out; Move moves the rest."""
    desk.grid.show_all()
    desk.grid.card("ant-01").click(position=CORNER)
    desk.grid.card("ant-04").click(position=CORNER, modifiers=["Shift"])
    desk.grid.card("ant-02").click(position=CORNER, modifiers=["ControlOrMeta"])
    expect(desk.grid.card("ant-02")).to_have_attribute("aria-selected", "false")
    assert selected(desk.grid) == ["ant-01", "ant-03", "ant-04"]
    desk.grid.root.get_by_label("Move to", exact=True).click()
    desk.page.keyboard.type(KANA)
    desk.grid.button("Move").click()
    desk.grid.expect_status("3 of 41 looked at: 0 to keep, 0 to delete, 3 to move")
    assert read_review(desk.project) == dict.fromkeys(["ant-01", "ant-03", "ant-04"], KANA)


def test_a_whole_page_is_decided_at_once(desk):
    """Ctrl+A, or the button, selects the page and nothing beyond; Escape lets go; Undo is one step."""
    desk.grid.show_all()
    desk.grid.focus("ant-03")
    desk.grid.press("Control+a")
    expect(desk.grid.list.locator('[aria-selected="true"]')).to_have_count(12)
    desk.grid.press("Escape")
    expect(desk.grid.list.locator('[aria-selected="true"]')).to_have_count(0)
    desk.grid.button("Select all on this page").click()
    desk.grid.button("Keep").click()
    desk.grid.expect_status("12 of 41 looked at: 12 to keep")
    assert read_review(desk.project) == dict.fromkeys(FIRST_PAGE, "Keep")
    desk.grid.button("Undo last choice").click()
    desk.grid.expect_status("0 of 41 looked at")
    assert read_review(desk.project) == {}


def test_a_decision_for_one_card_leaves_the_others_selected(desk):
    """The button on a card is for that card; what else is selected stays so."""
    desk.grid.show_all()
    desk.grid.focus("ant-00")
    desk.grid.press("Space", "Shift+ArrowRight", "Shift+ArrowRight")
    desk.grid.card("ant-01").get_by_role("button", name="Delete", exact=True).click()
    desk.grid.expect_choice("ant-01", "Delete")
    assert selected(desk.grid) == ["ant-00", "ant-02"]
    assert read_review(desk.project) == {"ant-01": "Delete"}


def test_a_label_that_does_not_exist_is_not_moved_to(desk):
    """A name typed wrongly into Move to is refused in words, and nothing is flagged."""
    desk.grid.show_all()
    desk.grid.focus("ant-00")
    desk.grid.root.get_by_label("Move to", exact=True).click()
    desk.page.keyboard.type("antt")
    desk.grid.button("Move").click()
    expect(desk.grid.alert.filter(has_text="antt")).to_be_visible()
    assert read_review(desk.project) == {}


# --- which pictures are shown ------------------------------------------------------------------------------------


def test_the_first_list_of_suspects_is_shown_first(desk):
    """A person begins with the worst suspects, worst first, each with its reason."""
    desk.grid.expect_cards("kana-03", "ant-05", "both-01", "ant-02", BROKEN)
    expect(desk.grid.root.get_by_role("combobox", name="List", exact=True).locator("option:checked")).to_have_text(
        f"{SURE} (5)"
    )
    expect(desk.grid.card("ant-05")).to_contain_text("because of ant-05 & <i>more</i>")
    desk.grid.choose("List", UNSURE)
    desk.grid.expect_cards("ant-06", "kana-04", "ant-05")


def test_flags_survive_every_switch(desk):
    """Lists, labels, sides, filters and sorts are switched and switched back: the flags are those that were set."""
    desk.grid.show_all()
    desk.grid.focus("ant-05")
    desk.grid.press("d", "3")
    desk.grid.expect_choice("ant-06", KANA)
    for menu, away, back in (
        ("List", SURE, "All pictures"),
        ("Label", KANA, "All labels"),
        ("Set", "Test set", "All sets"),
        ("Show", "Decided", "All"),
        ("Sort", "Worst first", "File name"),
    ):
        desk.grid.choose(menu, away)
        if menu in ("List", "Show"):
            desk.grid.expect_choice("ant-05", "Delete")
        if menu == "Label":
            desk.grid.expect_cards(*(key for key in desk.grid.shown() if key.startswith("kana-")))
            assert desk.grid.choices() == {}
        desk.grid.choose(menu, back)
        desk.grid.expect_status("Page 1 of 4, 41 pictures")
        desk.grid.expect_choice("ant-05", "Delete")
        desk.grid.expect_choice("ant-06", KANA)
    assert read_review(desk.project) == {"ant-05": "Delete", "ant-06": KANA}


def test_decided_and_undecided_are_told_apart(desk):
    """Kept is not the same as not looked at: Show lists the one or the other."""
    desk.grid.show_all()
    desk.grid.card("ant-05").get_by_role("button", name="Keep", exact=True).click()
    desk.grid.expect_choice("ant-05", "Keep")
    desk.grid.choose("Show", "Decided")
    desk.grid.expect_cards("ant-05")
    desk.grid.choose("Show", "Undecided")
    desk.grid.expect_status("40 pictures")


def test_sides_are_those_of_the_split(desk):
    """Each side shows the pictures that split.csv puts on it."""
    desk.grid.show_all()
    split = read_split(desk.project)
    for side, told in (("train", "Training set"), ("valid", "Validation set"), ("test", "Test set")):
        members = sum(split[id][1] == side for id in files(desk.project.images) if id in split)
        desk.grid.choose("Set", told)
        desk.grid.expect_status(f"{members} pictures")


def test_every_picture_can_be_reached_by_turning_pages(desk):
    """n and p, and the two buttons, turn pages; each of the 41 pictures comes once, the last page is the end."""
    desk.grid.show_all()
    seen = desk.grid.shown()
    desk.grid.focus(seen[0])
    for number, how in ((2, "n"), (3, "Next page"), (4, "n")):
        desk.grid.press(how) if how == "n" else desk.grid.button(how).click()
        desk.grid.expect_status(f"Page {number} of 4")
        expect(desk.grid.card(seen[-1])).to_have_count(0)
        if how != "n":
            desk.grid.focus(desk.grid.shown()[0])
        seen += desk.grid.shown()
    assert sorted(seen) == sorted(files(desk.project.images))
    expect(desk.grid.button("Next page")).to_be_disabled()
    desk.grid.press("p")
    desk.grid.expect_status("Page 3 of 4")
    desk.grid.button("Previous page").click()
    desk.grid.expect_status("Page 2 of 4")


def test_pages_turned_in_haste_are_all_turned(desk):
    """n three times, faster than the kernel answers, leads three pages on."""
    desk.grid.show_all()
    desk.grid.focus("ant-00")
    desk.grid.press("n", "n", "n")
    desk.grid.expect_status("Page 4 of 4")


def test_the_page_in_view_stays_while_what_comes_next_is_put_in_a_new_order(desk, screenshot):
    """With features, a choice leaves the cards where they are and is counted; later pages change; back is as it was."""
    desk.notebook.write_last_cell(LEARNING)
    desk.notebook.run_all()
    grid = Grid(desk.page, 1)
    grid.expect_status("Page 1 of ")
    first = grid.shown()
    later = "print([learning.cleaning.pictures[n].id for n in learning.widget._selected[learning.widget._per :]])"
    before = desk.notebook.execute(later)
    grid.focus(first[0])
    grid.press("d", "k", "d")
    grid.expect_choice(first[2], "Delete")
    grid.expect_status("Since you began: 2 wrong labels found")
    assert grid.shown() == first
    grid.focus(first[-1])
    grid.press("n")
    grid.expect_status("Page 2 of ")
    assert set(grid.shown()).isdisjoint(first) and desk.notebook.execute(later) != before
    grid.button("Select all on this page").click()
    grid.button("Keep").click()
    for number in (3, 4, 5):
        grid.button("Next page").click()
        grid.expect_status(f"Page {number} of ")
        grid.button("Select all on this page").click()
        grid.button("Keep").click()
    grid.expect_status("left (")
    screenshot(desk.page, "cleaner-follows")
    for number in (4, 3, 2, 1):
        grid.button("Previous page").click()
        grid.expect_status(f"Page {number} of ")
    assert grid.shown() == first


# --- what outlives the page --------------------------------------------------------------------------------------


def test_after_a_reload_everything_is_there(desk, screenshot):
    """A page reloaded with its kernel alive shows the same place and the same flags, and goes on from there."""
    desk.grid.show_all()
    desk.grid.focus("ant-00")
    desk.grid.press("n")
    desk.grid.expect_status("Page 2 of 4")
    keys = desk.grid.shown()
    desk.grid.focus(keys[1])
    desk.grid.press("d", "k")
    desk.grid.expect_choice(keys[2], "Keep")
    desk.notebook.save()
    desk.notebook.reload()
    desk.grid.expect_status("Page 2 of 4")
    desk.grid.expect_status("2 of 41 looked at")
    assert (desk.grid.shown(), desk.grid.choices()) == (keys, {keys[1]: "Delete", keys[2]: "Keep"})
    screenshot(desk.page, "after-reload")
    desk.grid.focus(keys[3])
    desk.grid.press("3")
    desk.grid.expect_status("3 of 41 looked at")
    assert len(read_review(desk.project)) == 3


def test_a_restarted_kernel_knows_the_flags_and_an_old_page_says_that_it_is_old(desk, screenshot):
    """After a restart, a key on the old page flags nothing and says why; the cells run again show every flag."""
    desk.grid.show_all()
    desk.grid.focus("ant-00")
    desk.grid.press("d", "k")
    desk.grid.expect_choice("ant-01", "Keep")
    desk.notebook.restart()
    desk.grid.focus("ant-03")
    desk.grid.press("d")
    expect(desk.grid.alert.filter(has_text="run all cells above this one, then this one")).to_be_visible()
    desk.grid.expect_choice("ant-03", "")
    screenshot(desk.page, "kernel-gone")
    desk.notebook.run_all()
    desk.grid.show_all()
    desk.grid.expect_choice("ant-01", "Keep")
    assert desk.grid.choices() == {"ant-00": "Delete", "ant-01": "Keep"} == read_review(desk.project)


@pytest.mark.long  # the page waits ten seconds before it says so
def test_a_kernel_killed_between_a_click_and_its_answer_takes_no_choice_with_it(desk):
    """What was answered is stored; the one on its way is not shown as made, and the page says what to run."""
    desk.grid.show_all()
    desk.grid.focus("ant-00")
    desk.grid.press("d")
    desk.grid.expect_choice("ant-00", "Delete")
    process = int(desk.notebook.execute("import os; print(os.getpid())"))
    with desk.notebook.kernel_at_work(silent=True):
        desk.grid.press("k")
        os.kill(process, signal.SIGKILL)
        desk.page.get_by_role("button", name="Ok", exact=True).click()  # JupyterLab says that it starts another one
    expect(desk.grid.alert.filter(has_text="run all cells above this one, then this one")).to_be_visible()
    desk.grid.expect_choice("ant-01", "")
    desk.notebook.run_all()
    desk.grid.show_all()
    assert desk.grid.choices() == {"ant-00": "Delete"} == read_review(desk.project)


def test_two_tabs_on_one_kernel_show_the_same_choices(desk):
    """The notebook open twice: what is chosen in one tab is seen in the other, and both are stored."""
    desk.grid.show_all()
    desk.notebook.save()
    second = desk.page.context.new_page()
    try:
        errors = watched(second)
        second.goto(desk.page.url)
        other = Grid(second)
        other.show_all()
        desk.grid.focus("ant-00")
        desk.grid.press("d")
        other.expect_choice("ant-00", "Delete")
        other.focus("ant-01")
        other.press("k")
        desk.grid.expect_choice("ant-01", "Keep")
        assert desk.grid.choices() == other.choices() == {"ant-00": "Delete", "ant-01": "Keep"}
        assert read_review(desk.project) == desk.grid.choices() and errors == []
    finally:
        second.close()


def test_apply_moves_the_files_and_undo_brings_them_back(desk, screenshot):
    """Apply moves what was flagged and says what to run next; the button beside it brings all of it back."""
    before = files(desk.project.images)
    desk.grid.show_all()
    desk.grid.focus("ant-00")
    desk.grid.press("d", "3", "k")
    desk.grid.expect_choice("ant-02", "Keep")
    assert files(desk.project.images) == before
    expect(desk.grid.button("Take back the last Apply (0)")).to_be_disabled()
    screenshot(desk.page, "before-apply")
    desk.grid.button("Apply (2)").click()
    expect(desk.grid.root).to_contain_text("Moved 1 to another label and 1 to the trash. Next: run 03, 04 and 05 again")
    expect(desk.grid.button("Apply (0)")).to_be_disabled()
    desk.grid.expect_status("1 of 40 looked at: 1 to keep, 0 to delete, 0 to move")
    expect(desk.grid.card("ant-00")).to_have_count(0)
    screenshot(desk.page, "applied")
    after = before | {"ant-01": KANA}
    del after["ant-00"]
    assert files(desk.project.images) == after
    assert files(desk.project.trash) == {"ant-00": ANT}
    assert corrections(desk.project) == [("ant-00", ANT, "<Delete>"), ("ant-01", ANT, KANA)]
    assert read_review(desk.project) == {"ant-02": "Keep"}
    desk.grid.button("Take back the last Apply (2)").click()
    expect(desk.grid.alert).to_contain_text("Took back the last Apply: 2 pictures moved back.")
    assert files(desk.project.images) == before
    desk.grid.expect_choice("ant-00", "")
    desk.grid.expect_choice("ant-02", "Keep")
    expect(desk.grid.button("Take back the last Apply (0)")).to_be_disabled()
    screenshot(desk.page, "taken-back")


def test_a_flag_that_cannot_be_stored_is_not_shown(desk, screenshot):
    """A picture that left the training set by hand keeps its card as it was, and the reason is said."""
    desk.grid.show_all()
    (desk.project.images / ANT / "ant-03.jpg").unlink()
    desk.grid.focus("ant-03")
    desk.grid.press("d")
    expect(desk.grid.alert).not_to_be_empty()
    assert read_review(desk.project) == {}
    assert "Delete" not in desk.grid.choices().values()
    screenshot(desk.page, "refused")


def test_while_the_kernel_works_no_flag_is_lost(desk):
    """Flags set while a long cell runs are stored and shown, at once or when it is done."""
    desk.grid.show_all()
    with desk.notebook.kernel_at_work():
        desk.grid.focus("ant-00")
        desk.grid.press("d", "k")
        expect(desk.grid.card("ant-02")).to_be_focused()
    desk.grid.expect_choice("ant-00", "Delete")
    desk.grid.expect_choice("ant-01", "Keep")
    assert read_review(desk.project) == {"ant-00": "Delete", "ant-01": "Keep"}


def test_apply_asked_of_a_busy_kernel_is_done_once(desk):
    """It says that it will be done, takes no second click meanwhile, and what it did stays on the page."""
    desk.grid.show_all()
    desk.grid.focus("ant-00")
    desk.grid.press("d")
    desk.grid.expect_choice("ant-00", "Delete")
    apply = desk.grid.button("Apply (1)")
    apply.focus()
    with desk.notebook.kernel_at_work(silent=True):
        apply.evaluate(IMPATIENT)
        expect(desk.grid.alert.filter(has_text="It will be done when the kernel is idle.")).to_be_visible()
        expect(apply).to_be_disabled()
        expect(apply).to_be_focused()
        apply.click(force=True)
    expect(desk.grid.button("Apply (0)")).to_be_disabled()
    desk.notebook.execute("")
    expect(desk.grid.alert).to_contain_text("Moved 0 to another label and 1 to the trash")
    assert files(desk.project.trash) == {"ant-00": ANT}


@pytest.mark.parametrize("place", ["a card", "a card's button", "a menu", "the toolbar", "Move to"])
def test_jupyterlabs_shortcuts_stay_out_of_the_grid(desk, place):
    """Keys that insert, delete, cut, paste or change cells in JupyterLab do nothing to the notebook from in here."""
    desk.grid.show_all()
    desk.page.locator(".jp-Cell").nth(1).locator(".jp-InputPrompt").click()  # the notebook is in command mode
    before = desk.notebook.cells()
    card = desk.grid.card("ant-00")
    desk.grid.open_menu("Filter")
    {
        "a card": card,
        "a card's button": card.get_by_role("button", name="Zoom", exact=True),
        "a menu": desk.grid.root.get_by_role("combobox", name="Set", exact=True),
        "the toolbar": desk.grid.button("Next page"),
        "Move to": desk.grid.root.get_by_label("Move to", exact=True),
    }[place].focus()
    for key in "abxcvmyrddii":
        desk.grid.press(key)
        assert desk.notebook.cells() == before, key


def test_a_broken_ledger_is_said_and_nothing_is_lost(desk):
    """A review.csv that was damaged by hand is named, and nothing that stands in it goes."""
    desk.grid.show_all()
    table = desk.project.table("review")
    table.write_text("no,such,table\n1,2,3\n", encoding="utf-8")
    desk.grid.focus("ant-00")
    desk.grid.press("d")
    expect(desk.grid.alert.filter(has_text="review.csv")).to_be_visible()
    assert table.read_text(encoding="utf-8").startswith("no,such,table\n1,2,3\n")
