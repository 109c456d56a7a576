"""02's grid: what is outside the training set is shown with its reason, and comes in at the press of a button."""

import pytest
from conftest import draw_picture, picture_bytes, put_raw

from utils.dataset import read_dataset
from utils.ledger import Ledger, save_flags
from utils.storage import content_id, write_whole
from utils.verify import find_contradictions, find_oddities, picture_grid, verify_images

SMALL = picture_bytes(draw_picture(501, size=(40, 40)))
BROKEN = picture_bytes(draw_picture(502))[:1000]
BOTH = picture_bytes(draw_picture(503))
BLUE = picture_bytes(draw_picture(504))
GREY = picture_bytes(draw_picture(505, size=(30, 30)))


@pytest.fixture
def project(make_project, fill_raw):
    """A project with two pictures set aside, one under both labels, one in the trash, two without a label."""
    project = make_project()
    fill_raw(project, 4)
    put_raw(project, "cat", SMALL)
    put_raw(project, "dog", BROKEN)
    for label in ("cat", "dog"):
        put_raw(project, label, BOTH)
    for data in (BLUE, GREY):
        write_whole(project.unsorted / f"{content_id(data)}.jpg", data)
    verify_images(project)
    deleted = read_dataset(project).of("cat").ids[0]
    save_flags(project, {deleted: "Delete"})
    Ledger(project).apply()
    return project


def grid_of(project):
    """Return 02's grid."""
    report, dataset = verify_images(project), read_dataset(project)
    return picture_grid(project, report, oddities=find_oddities(dataset), twice=find_contradictions(dataset))


def ask(grid, what, **details):
    """Return the answer to a message of the browser."""
    return grid.answer({"ask": what, "view": "v", "serial": 1, **details})[0]


def listed(grid, name):
    """Return the cards of a list."""
    view = {"list": name, "label": "", "side": "", "show": "", "sort": "File name"}
    return ask(grid, "page", page=0, **view)["cards"]


def test_each_kind_has_its_list_with_the_reason(project):
    """Those without a label come first; each card says why, and what its button does."""
    grid = grid_of(project)
    lists = dict(ask(grid, "hello")["lists"])
    assert (next(iter(lists)), list(lists)[-1]) == ("Without a label", "In the trash")
    assert lists["Without a label"] == 2 and lists["In the trash"] == 1
    told = {name: [card["outside"] for card in listed(grid, name)] for name in lists}
    assert [each["action"] for each in told["Without a label"]] == ["", ""]
    assert told["In the trash"] == [{"list": "In the trash", "reason": "Was cat.", "action": "Restore"}]
    (small,) = told["Set aside: too small"]
    assert small["reason"] == "Came as “cat”. 40×40 pixels, at least 64 on a side are needed"
    assert small["action"] == "Take back"
    (both,) = next(cards for name, cards in told.items() if "under" in name)
    assert both["action"] == "" and both["reason"].startswith("Came as “cat” and “dog”.")
    everything = listed(grid, "")
    assert len(everything) == 7 and all(card["outside"] is None for card in everything)


def test_take_back_is_a_button(project):
    """The picture is in the training set, its list shrinks, and the card of the grid becomes an ordinary one."""
    grid = grid_of(project)
    (card,) = listed(grid, "Set aside: too small")
    answer = ask(grid, "bring", keys=[card["key"]], choice="Keep")
    assert answer["alert"] == "Took back 1 picture." and answer["cards"] == []
    assert read_dataset(project)[card["key"]].label == "cat"
    (now,) = [each for each in listed(grid, "") if each["key"] == card["key"]]
    assert now["outside"] is None and now["label"] == "cat"
    assert ask(grid, "flag", keys=[card["key"]], choice="Delete")["choices"][card["key"]] == "Delete"


def test_what_cannot_be_taken_back_says_why(project):
    """A broken file stays set aside; so does what is in the training set already."""
    grid = grid_of(project)
    (card,) = listed(grid, "Set aside: truncated or broken inside")
    assert "cannot be taken back: truncated" in ask(grid, "bring", keys=[card["key"]], choice="Keep")["alert"]
    inside = listed(grid, "")[0]["key"]
    assert "is in the training set already" in ask(grid, "bring", keys=[inside], choice="Keep")["alert"]
    assert "is not offered here" in ask(grid, "bring", keys=[card["key"]], choice="Delete")["alert"]


def test_a_picture_under_two_labels_is_given_one(project):
    """Under the label that is chosen; without one the grid asks."""
    grid = grid_of(project)
    name = next(name for name, _ in ask(grid, "hello")["lists"] if "under" in name)
    (card,) = listed(grid, name)
    assert f"Which label has {card['key']}?" in ask(grid, "bring", keys=[card["key"]], choice="Keep")["alert"]
    ask(grid, "bring", keys=[card["key"]], choice="dog")
    assert read_dataset(project)[card["key"]].label == "dog"


def test_the_trash_gives_back(project):
    """Under its own label, or under another."""
    grid = grid_of(project)
    (card,) = listed(grid, "In the trash")
    assert ask(grid, "bring", keys=[card["key"]], choice="dog")["alert"] == "Restored 1 picture."
    assert read_dataset(project)[card["key"]].label == "dog"


def test_a_project_of_photos_without_labels_begins_with_the_grid(make_project):
    """02 does not refuse it: it says what to do."""
    project = make_project()
    write_whole(project.unsorted / f"{content_id(BLUE)}.jpg", BLUE)
    assert verify_images(project).remarks[0] == "1 photo without a label: give each one its label in the grid below."
    grid = grid_of(project)
    assert [card["key"] for card in ask(grid, "hello")["cards"]] == [content_id(BLUE)]


def test_what_came_in_and_went_out_again_is_where_it_is_now(project):
    """A photo that got its label and was deleted is in the trash; one that was set aside is there."""
    grid = grid_of(project)
    blue, grey = content_id(BLUE), content_id(GREY)
    listed(grid, "Without a label")
    ask(grid, "file", labels={blue: "dog", grey: "dog"})
    ask(grid, "settle")
    listed(grid, "In the trash")
    assert listed(grid, "Without a label") == []
    assert grey in [card["key"] for card in listed(grid, "Set aside: too small")]
    ask(grid, "flag", keys=[blue], choice="Delete")
    ask(grid, "apply")
    assert blue in [card["key"] for card in listed(grid, "In the trash")]
    assert ask(grid, "bring", keys=[blue], choice="Keep")["alert"] == "Restored 1 picture."


def test_what_lies_in_a_label_already_is_not_asked_for(project):
    """The same photo was put into a label's folder by hand, or came again in one."""
    (project.images / "cat" / "mine.jpg").write_bytes(BLUE)
    grid = grid_of(project)
    assert [card["key"] for card in listed(grid, "Without a label")] == [content_id(GREY)]
    assert verify_images(project).remarks[0].startswith("1 photo without a label")


def test_the_trash_of_a_label_that_left_the_project_is_not_offered(project):
    """Nothing could be made of it here."""
    other = project.model_copy(update={"labels": {"bird": [], "dog": []}})
    assert "In the trash" not in dict(ask(grid_of(other), "hello")["lists"])


def test_a_table_that_cannot_be_read_does_not_hide_what_moved(project):
    """Apply says so; the picture is shown where it is."""
    grid = grid_of(project)
    key = listed(grid, "")[0]["key"]
    ask(grid, "flag", keys=[key], choice="Delete")
    table = project.table("rejected")
    table.write_text(table.read_text().replace(",", ";"))
    ask(grid, "apply")
    told = ask(grid, "hello")
    assert key not in [card["key"] for card in listed(grid, "")]
    assert told["pending"] == 0
