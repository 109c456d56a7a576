"""The cleaner's plain menus: the same decisions as on the grid, on ipywidgets alone."""

import csv
import io

import ipywidgets
import numpy as np
import pytest
from cleaning_pictures import PROBS, draw, make_project
from PIL import Image

from utils.clean.cleaner import ImageClassifierCleaner
from utils.clean.menus import ALL_SIDES, MENU_DELETE, MENU_KEEP, UNSEEN, Menus, caption
from utils.clean.session import Cleaning, Picture
from utils.ledger.flags import read_review, save_flag
from utils.ledger.moves import Ledger


def menus(project, **options) -> Menus:
    return ImageClassifierCleaner(project=project, plain=True, **options).widget


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


def on_screen(cleaner) -> list[str]:
    """Return the names of the files whose cards are shown, in their order."""
    shown = [card for card in cleaner.cards if card.box in cleaner.grid.children]
    return [cleaner.cleaning.pictures[card.position].path.stem for card in shown]


def card_of(cleaner, stem: str):
    return next(card for card, name in zip(cleaner.cards, on_screen(cleaner), strict=False) if name == stem)


def colour_of(card) -> tuple[int, ...]:
    """Return the colour in the middle of a card's thumbnail, rounded to tens."""
    with Image.open(io.BytesIO(card.image.value)) as image:
        pixel = image.getpixel((image.width // 2, image.height - 3))
    return tuple(round(value, -1) for value in pixel)


def live_widgets() -> int:
    from ipywidgets.widgets import widget

    return len(widget._instances)


def test_flags_survive_category_switch(project):
    """A flag is there again after the category and the side were switched and switched back."""
    cleaner = menus(project)
    card_of(cleaner, "c0").menu.value = "dog"
    cleaner.dd_cats.value = "dog"
    card_of(cleaner, "d0").menu.value = MENU_DELETE
    cleaner.dd_ds.value = "Valid"
    card_of(cleaner, "d1").menu.value = MENU_KEEP
    cleaner.dd_ds.value = "Train"
    assert card_of(cleaner, "d0").menu.value == MENU_DELETE
    cleaner.dd_cats.value = "cat"
    assert card_of(cleaner, "c0").menu.value == "dog"
    assert read_review(project) == {"c0": "dog", "d0": "Delete", "d1": "Keep"}


def test_a_name_collision_overwrites_nothing(project):
    """Where the name is taken in the trash, Apply leaves both files, says so, and keeps the flag."""
    taken = project.trash / "cat" / "c0.jpg"
    draw(taken, (0, 0, 0))
    before = taken.read_bytes()
    cleaner = menus(project)
    card_of(cleaner, "c0").menu.value = MENU_DELETE
    cleaner.apply.click()
    assert "c0 was left" in cleaner.message.value
    assert taken.read_bytes() == before
    assert (project.images / "cat" / "c0.jpg").exists()
    assert card_of(cleaner, "c0").menu.value == MENU_DELETE


def test_own_label_is_not_offered(project):
    """A picture's own label is no choice, and "kept" differs from "not looked at"."""
    cleaner = menus(project)
    assert card_of(cleaner, "c0").menu.options == (UNSEEN, MENU_KEEP, MENU_DELETE, "dog")
    card_of(cleaner, "c0").menu.value = MENU_KEEP
    assert read_review(project) == {"c0": "Keep"}
    assert (card_of(cleaner, "c0").menu.value, card_of(cleaner, "c2").menu.value) == (MENU_KEEP, UNSEEN)
    assert (cleaner.cleaning.deletions(), cleaner.cleaning.changes()) == ([], [])


def test_prediction_probability_and_loss_are_shown(project):
    """A card tells label, prediction, probability, loss, side and file; worst first, disagreement in bold."""
    cleaner = menus(project, probs=PROBS)
    assert on_screen(cleaner) == ["c2", "c0"]
    caption = cleaner.cards[0].caption.value
    for part in ("c2.jpg", "filed as cat", "<b>model: dog 80%</b>", f"loss {-np.log(0.2):.2f}", "Train"):
        assert part in caption


def test_all_pictures_can_be_paged_through(tmp_path):
    """Every picture of a category comes up once, max_n a page, and the page says how many there are."""
    project = make_project(tmp_path, per_label=7, sides=("train",))
    cleaner = menus(project, max_n=3)
    seen = on_screen(cleaner)
    assert cleaner.place.value == "Page 1 of 3, 7 pictures"
    while not cleaner.next.disabled:
        cleaner.next.click()
        seen += on_screen(cleaner)
    assert seen == [f"c{n}" for n in range(7)]
    cleaner.previous.click()
    assert on_screen(cleaner) == ["c3", "c4", "c5"]


def test_a_page_starts_at_its_top(tmp_path):
    """The grid is emptied between pages: filled in place, a browser would leave it scrolled down, past the worst."""
    cleaner = menus(make_project(tmp_path, sides=("train",)), max_n=2)
    seen = []
    cleaner.grid.observe(lambda change: seen.append(len(change["new"])), "children")
    cleaner.next.click()
    assert seen == [0, 2]


def test_widget_count_is_flat(project):
    """After the first two pages, switching makes no widget more."""
    cleaner = menus(project)
    counts = []
    for _ in range(10):
        for category in ("dog", "cat"):
            cleaner.dd_cats.value = category
        counts.append(live_widgets())
    assert len(set(counts[1:])) == 1


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_a_broken_file_blocks_nothing(project, content):
    """An empty, broken or missing file is a grey card with the reason; it can be flagged, and so can the others."""
    path = project.images / "cat" / "c0.jpg"
    if content is not None:
        path.write_bytes(content)
    cleaner = menus(project)
    if content is None:
        path.unlink()
        cleaner.show()
    assert on_screen(cleaner) == ["c0", "c2"]
    assert colour_of(cleaner.cards[0]) == (200, 200, 200)
    assert colour_of(cleaner.cards[1]) == (200, 30, 30)
    reason = {b"": "empty file", b"no picture": "not a picture", None: "The file is gone"}[content]
    assert reason in cleaner.cards[0].caption.value
    card_of(cleaner, "c2").menu.value = MENU_DELETE
    assert read_review(project) == {"c2": "Delete"}


def test_an_empty_selection_says_so(project):
    """A category without pictures on a side is told in words."""
    cleaner = menus(project)
    cleaner.dd_ds.value = "Test"
    assert on_screen(cleaner) == []
    assert cleaner.message.value == "No pictures here: cat, Test."
    cleaner.dd_ds.value = "Train"
    assert cleaner.message.value == ""


def test_a_late_choice_finds_its_picture(tmp_path):
    """A choice that was on its way while the page turned flags the picture it was made for, not the one now there."""
    project = make_project(tmp_path, per_label=6, sides=("train",))
    cleaner = menus(project, max_n=2)
    menu = cleaner.cards[0].menu
    cleaner.next.click()
    menu.value = MENU_DELETE
    assert on_screen(cleaner) == ["c2", "c3"]
    assert read_review(project) == {"c0": "Delete"}
    assert cleaner.cards[0].menu.value == UNSEEN


def test_suspects_come_first_across_labels(project):
    """With an order, the list of suspects opens first: worst first, of every label and side."""
    cleaner = menus(project, probs=PROBS, order=[6, 2, 7])
    assert (cleaner.dd_cats.value, cleaner.dd_ds.value) == ("<Suspects>", ALL_SIDES)
    assert on_screen(cleaner) == ["d2", "c2", "d3"]
    cleaner.dd_ds.value = "Valid"
    assert on_screen(cleaner) == ["d3"]


def test_apply_moves_files_and_shows_them_where_they_are(project):
    """Apply moves what is flagged, says so and what to run, logs the prediction."""
    cleaner = menus(project, probs=PROBS)
    card_of(cleaner, "c2").menu.value = "dog"
    card_of(cleaner, "c0").menu.value = MENU_DELETE
    cleaner.apply.click()
    assert "Moved 1 to another label and 1 to the trash. Run 03, 04 and 05 again" in cleaner.message.value
    assert (project.images / "dog" / "c2.jpg").exists()
    assert (project.trash / "cat" / "c0.jpg").exists()
    rows = list(csv.DictReader(project.table("corrections").read_text().splitlines()))
    assert [(row["id"], row["predicted"], row["probability"]) for row in rows] == [
        ("c0", "cat", "0.9000"), ("c2", "dog", "0.8000")
    ]  # fmt: skip
    assert on_screen(cleaner) == []
    cleaner.dd_cats.value = "dog"
    assert sorted(on_screen(cleaner)) == ["c2", "d0", "d2"]
    assert card_of(cleaner, "c2").menu.options == (UNSEEN, MENU_KEEP, MENU_DELETE, "cat")
    assert cleaner.counts.value.startswith("0 of 7 looked at")


def test_a_flag_taken_back_is_taken_from_disk(project):
    """Setting the menu back to "not looked at" removes the flag."""
    cleaner = menus(project)
    card_of(cleaner, "c0").menu.value = MENU_DELETE
    card_of(cleaner, "c0").menu.value = UNSEEN
    assert read_review(project) == {}
    assert cleaner.cleaning.deletions() == []


def test_a_flag_that_cannot_be_stored_is_told(project):
    """Where the file is gone from the training set, the menu shows again what is stored, and why."""
    cleaner = menus(project)
    (project.images / "cat" / "c0.jpg").unlink()
    card_of(cleaner, "c0").menu.value = MENU_DELETE
    assert card_of(cleaner, "c0").menu.value == UNSEEN
    assert "not in the training set" in cleaner.message.value


def test_flags_set_elsewhere_are_shown_at_the_next_choice(project):
    """Another notebook's flags come with a word, and onto the cards, when a choice is made here."""
    cleaner = menus(project)
    save_flag(project, "c2", "Delete")
    card_of(cleaner, "c0").menu.value = MENU_KEEP
    assert "The flags of 1 picture" in cleaner.message.value
    assert (card_of(cleaner, "c0").menu.value, card_of(cleaner, "c2").menu.value) == (MENU_KEEP, MENU_DELETE)
    assert read_review(project) == {"c0": "Keep", "c2": "Delete"}


@pytest.mark.parametrize("here", [False, True])
def test_moves_made_elsewhere_are_shown_at_the_next_choice(project, here):
    """After another notebook or a cell applied, a choice is stored, and the page is shown anew."""
    cleaner = menus(project)
    save_flag(project, "c2", "dog")
    cleaner.cleaning.apply() if here else Ledger(project).apply()
    card_of(cleaner, "c0").menu.value = MENU_DELETE
    assert ("1 picture lies elsewhere" in cleaner.message.value) is not here
    assert on_screen(cleaner) == ["c0"]
    assert card_of(cleaner, "c0").menu.value == MENU_DELETE
    assert read_review(project) == {"c0": "Delete"}


def test_apply_carries_out_only_what_was_on_screen(project):
    """Flags from elsewhere are shown first, with a word; pressed again, Apply carries them out."""
    cleaner = menus(project)
    save_flag(project, "c2", "Delete")
    cleaner.apply.click()
    assert "press Apply again" in cleaner.message.value
    assert card_of(cleaner, "c2").menu.value == MENU_DELETE
    cleaner.apply.click()
    assert on_screen(cleaner) == ["c0"]


def test_counts_are_in_view(project):
    """The counts cover all pictures, whichever are shown."""
    cleaner = menus(project)
    card_of(cleaner, "c0").menu.value = MENU_DELETE
    cleaner.dd_cats.value = "dog"
    card_of(cleaner, "d0").menu.value = "cat"
    assert cleaner.counts.value == "2 of 8 looked at: 0 to keep, 1 to delete, 1 to move"


def test_a_flag_frames_its_card(project):
    """A card's frame tells keep, delete and move apart, follows the menu, and goes with its picture."""
    cleaner = menus(project)

    def frame():
        return card_of(cleaner, "c0").box.layout.border_top

    frames = [frame()]
    for choice in (MENU_KEEP, MENU_DELETE, "dog"):
        card_of(cleaner, "c0").menu.value = choice
        frames.append(frame())
    assert len(set(frames)) == 4
    cleaner.dd_cats.value = "dog"
    assert {card.box.layout.border_top for card in cleaner.cards[: len(on_screen(cleaner))]} == {frames[0]}
    cleaner.dd_cats.value = "cat"
    assert frame() == frames[3]
    card_of(cleaner, "c0").menu.value = UNSEEN
    assert frame() == frames[0]


def test_captions_are_escaped(tmp_path):
    """A file name cannot smuggle markup into the page."""
    picture = Picture("x", tmp_path / "<b>x.jpg", "cat & dog")
    text = caption(Cleaning([picture], ["cat & dog"]), 0, "<i>broken</i>")
    for part in ("filed as cat &amp; dog<br>", "&lt;b&gt;x.jpg", "&lt;i&gt;broken"):
        assert part in text


def test_a_thousand_labels(tmp_path):
    """With 1,000 labels each card offers the other 999."""
    names = ["cat", "dog", *(f"label{n:03}" for n in range(998))]
    cleaner = menus(make_project(tmp_path, labels=names))
    assert len(cleaner.cards[0].menu.options) == 3 + 999
    cleaner.cards[0].menu.value = "label997"
    assert cleaner.cleaning.changes() == [(0, "label997")]


def test_dropdowns_hold_no_none(project):
    """No menu has None as a value: some front ends cannot send it."""
    cleaner = menus(project)
    shown = [cleaner.dd_cats, cleaner.dd_ds, *(card.menu for card in cleaner.cards if card.menu)]
    assert all(isinstance(menu, ipywidgets.Dropdown) and None not in menu.options for menu in shown)


def test_an_empty_project_says_so(tmp_path):
    """A project without pictures opens, and says that there are none."""
    cleaner = menus(make_project(tmp_path, per_label=0))
    assert cleaner.cards == []
    assert "No pictures here" in cleaner.message.value
