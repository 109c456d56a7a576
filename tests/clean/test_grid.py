"""The kernel's half of the grid: each message gets one answer, hostile ones an alert, and nothing grows."""

import gc
import io
import json
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cleaning_pictures import PROBS, draw, make_project
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from utils.clean import thumbnails
from utils.clean.cleaner import ImageClassifierCleaner
from utils.clean.grid import Grid
from utils.clean.session import Cleaning
from utils.clean.thumbnails import Thumbnails, draw_large, original
from utils.dataset import Picture, read_dataset
from utils.errors import FieldguideError
from utils.ledger import read_review
from utils.tables import SOURCES_COLUMNS, append_rows


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


def grid_of(project, **options) -> Grid:
    return ImageClassifierCleaner(project=project, **options).widget


def ask(grid: Grid, what: str, **details) -> dict:
    """Return the answer to a message, without its buffers."""
    return grid.answer({"ask": what, "view": "v1", "serial": 7, **details})[0]


def turn(grid: Grid, page: int = 0, **view) -> dict:
    """Ask for a page, of all pictures by file name where nothing else is said."""
    return ask(grid, "page", page=page, **{"list": "", "label": "", "side": "", "show": "", "sort": "File name"} | view)


def keys(page: dict) -> list[str]:
    return [card["key"] for card in page["cards"]]


def test_own_file_names_come_first(project, tmp_path):
    """Cards, the order by name, the table of what would move and the undo tell the person's own name, then the id."""
    rows = [{"id": "d1", "label": "dog", "engine": "folder", "title": "A 1.jpg"}]
    rows += [{"id": "d2", "label": "dog", "engine": "ddgs", "title": "A page of the web"}]
    append_rows(project.table("sources"), SOURCES_COLUMNS, rows)
    cleaner = ImageClassifierCleaner(project=project)
    page = turn(cleaner.widget)
    assert [card["file"] for card in page["cards"]] == [
        "A 1.jpg (d1)",
        *("c0.jpg", "c1.jpg", "c2.jpg", "c3.jpg", "d0.jpg", "d2.jpg", "d3.jpg"),
    ]
    ask(cleaner.widget, "flag", keys=["d1"], choice="cat")
    assert cleaner.planned().values.tolist() == [["A 1.jpg (d1)", "dog", "cat"]]
    assert ask(cleaner.widget, "undo")["alert"] == "Undone: A 1.jpg (d1)."


def test_a_broken_table_of_sources_costs_the_names_alone(project):
    """The cleaner shows the files' names as they are, and tells of the table once."""
    project.table("sources").write_text("no header\n")
    page = turn(grid_of(project))
    assert [card["file"] for card in page["cards"]][:2] == ["c0.jpg", "c1.jpg"]


# --- pages ---------------------------------------------------------------------------------------------------------


def test_hello_brings_everything_a_view_needs(project):
    """A view that has just been made gets the page, the menus, and whose answer it is."""
    page, buffers = grid_of(project, probs=PROBS, max_n=3, note="Look.").answer(
        {"ask": "hello", "view": "v1", "serial": 7}
    )
    assert (page["tell"], page["view"], page["serial"]) == ("page", "v1", 7)
    assert page["setup"] == {
        "note": "Look.",
        "labels": ["cat", "dog"],
        "sides": ["train", "valid", "test"],
        "shows": ["Undecided", "Decided"],
        "sorts": ["Worst first", "File name", "Label"],
        "project": True,
        "alike": False,
        "height": 128,
        "width": 256,
    }
    assert page["cards"][0] == {
        "key": "d2",
        "file": "d2.jpg",
        "label": "dog",
        "predicted": "cat",
        "confidence": "95 %",
        "loss": pytest.approx(2.9957, abs=1e-4),
        "side": "train",
        "reason": "",
        "page": "",
        "choice": None,
        "outside": None,
        "problem": "",
    }
    assert (page["counts"], page["place"]) == (
        "0 of 8 looked at: 0 to keep, 0 to delete, 0 to move",
        "Page 1 of 3, 8 pictures",
    )
    with Image.open(io.BytesIO(buffers[0])) as image:
        assert (image.format, image.size) == ("JPEG", (96, 64))
        assert tuple(round(value, -1) for value in image.getpixel((48, 32))) == (30, 30, 200)
    assert len(buffers) == 3


def test_what_a_view_shows_outlives_it(project):
    """A view made later, as after a reload of the page, gets the page, the menus and the flags as they are."""
    grid = grid_of(project, max_n=2)
    turn(grid, page=1, label="dog")
    ask(grid, "flag", keys=["d2"], choice="cat")
    page = ask(grid, "hello", view="v2")
    assert (page["page"], page["chosen"]["label"], keys(page)) == (1, "dog", ["d2", "d3"])
    assert page["cards"][0]["choice"] == "cat"


def test_the_first_list_of_suspects_is_open_first(project):
    """Lists come with their counts; the first is shown, with its reasons."""
    found = [SimpleNamespace(position=n, list=name, reason=f"for {name}", figure=0.0) for n, name in
             ((6, "wrong, and sure"), (2, "wrong, and sure"), (6, "copies"))]  # fmt: skip
    page = ask(grid_of(project, suspects=found), "hello")
    assert page["lists"] == [["wrong, and sure", 2], ["copies", 1]]
    assert page["chosen"]["list"] == "wrong, and sure"
    assert [(card["key"], card["reason"]) for card in page["cards"]] == [
        ("d2", "for wrong, and sure"), ("c2", "for wrong, and sure")
    ]  # fmt: skip


def test_a_page_beyond_the_last_is_the_last(project):
    """Page numbers are brought into range; an empty selection says so in words."""
    grid = grid_of(project, max_n=3)
    assert keys(turn(grid, page=10**30)) == ["d2", "d3"]
    assert keys(turn(grid, page=-5)) == ["c0", "c1", "c2"]
    empty = turn(grid, side="test")
    assert (empty["cards"], empty["place"]) == ([], "Page 1 of 1, 0 pictures")
    assert empty["alert"].startswith("No pictures here")


def test_the_undecided_are_all_paged_through(project):
    """Deciding a page of the undecided does not make the next page skip as many; asked anew, only the rest is left."""
    grid = grid_of(project, max_n=3)
    first = keys(turn(grid, show="Undecided"))
    ask(grid, "flag", keys=first, choice="Keep")
    second = keys(turn(grid, page=1, show="Undecided"))
    assert second == ["c3", "d0", "d1"]
    turn(grid)
    assert keys(turn(grid, show="Undecided")) == ["c3", "d0", "d1"]


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_a_broken_or_missing_file_is_a_card_with_the_reason(project, content):
    """Such a picture has a problem and no thumbnail; it blocks no other, and the others have theirs."""
    path = project.images / "cat" / "c0.jpg"
    grid = grid_of(project)
    path.unlink() if content is None else path.write_bytes(content)
    page, buffers = grid.answer({"ask": "hello"})
    problems = {card["key"]: card["problem"] for card in page["cards"]}
    reason = {b"": "empty file", b"no picture": "not a picture", None: "The file is gone"}[content]
    assert reason in problems.pop("c0")
    assert set(problems.values()) == {""}
    assert len(buffers) == 7
    assert ask(grid, "flag", keys=["c1"], choice="Delete")["choices"]["c1"] == "Delete"


def test_a_page_carries_no_state(project):
    """Pictures travel as buffers of messages: the widget's state stays small, and holds none."""
    grid = grid_of(project)
    before = len(json.dumps(grid.get_state(), default=str))
    for label in ("cat", "dog"):
        turn(grid, label=label)
    assert len(json.dumps(grid.get_state(), default=str)) == before
    assert {name for name in grid.get_state() if not name.startswith("_")} == {"layout", "tabbable", "tooltip"}


def test_200_switches_leave_nothing_behind(project, monkeypatch):
    """No widget, no thread and no page's memory more, one message a switch, and a bounded number of thumbnails."""
    from ipywidgets.widgets import widget

    most_thumbnails, most_bytes = 2500, 100_000  # the pages of 200 switches have about 300,000

    grid, sent = grid_of(project, max_n=2), []
    monkeypatch.setattr(grid, "send", lambda content, buffers: sent.append(content["tell"]))
    view = {"list": "", "side": "", "show": "", "sort": "File name"}

    def switch(n):
        grid._receive(grid, {"ask": "page", "label": ("cat", "dog", "")[n % 3], "page": n % 2, **view}, [])

    def quiet() -> int:
        """Stop what is drawn ahead, and return the bytes in use."""
        grid._thumbnails.draw([])
        any(thread.join(10) or thread.is_alive() for thread in set(threading.enumerate()) - threads)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    threads = set(threading.enumerate())
    tracemalloc.start()
    try:
        for n in range(6):
            switch(n)
        before, memory = len(widget._instances), quiet()
        for n in range(200):
            switch(n)
        grown = quiet() - memory
    finally:
        tracemalloc.stop()
    assert sent == ["page"] * 206
    assert len(widget._instances) == before
    assert set(threading.enumerate()) == threads
    assert grown < most_bytes
    kept = thumbnails._thumbnail_of.cache_info()
    assert 0 < kept.currsize <= kept.maxsize <= most_thumbnails


# --- the order that follows the person ---


def learning(tmp_path, **options) -> Grid:
    """Return a grid, six a page, on cats and dogs whose features tell them apart; c0 … c9 look like dogs."""
    return learning_again(make_project(tmp_path, per_label=20), **options)


def learning_again(project, **options) -> Grid:
    """Return the same for a project that is there already, as after a restart."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 30)) + (np.arange(40) >= 20)[:, None]
    features[:10] += 1
    return grid_of(project, features=options.pop("features", features), max_n=6, **options)


def worst(grid: Grid, page: int = 0, **view) -> dict:
    return turn(grid, page, **{"sort": "Worst first"} | view)


def test_the_page_in_view_stays_and_the_next_one_is_new(tmp_path):
    """A choice changes no page that was shown; those not shown yet come in another order, and none is lost."""
    grid = learning(tmp_path)
    pages = [keys(worst(grid)), keys(worst(grid, 1))]
    before = list(grid._selected)
    for key in pages[1][:3]:
        assert ask(grid, "flag", keys=[key], choice="cat" if key[0] == "d" else "dog")["tell"] == "flags"
        assert grid._selected[:12] == before[:12]
    third = keys(worst(grid, 2))
    assert grid._selected != before and sorted(grid._selected) == sorted(before)
    assert [keys(worst(grid, n)) for n in (0, 1, 2)] == [*pages, third]


def test_the_line_counts_what_was_found_also_after_apply_and_undo(tmp_path):
    """Moves and deletions count as found wrong labels, flagged or applied; what is kept or taken back does not."""
    grid = learning(tmp_path)
    ask(grid, "flag", keys=["c0", "c1"], choice="dog")
    ask(grid, "flag", keys=["c2"], choice="Delete")
    counts = [ask(grid, "flag", keys=["c3"], choice="Keep")["counts"], ask(grid, "apply")["counts"]]
    counts += [ask(grid, "back")["counts"], ask(grid, "flag", keys=["c4"], choice="dog")["counts"]]
    counts += [ask(grid, "undo")["counts"]]
    assert [text.split("Since you began: ")[1][:2] for text in counts] == ["3 ", "3 ", "0 ", "1 ", "0 "]


def test_an_apply_leaves_the_rest_of_the_page_where_it_was(tmp_path):
    """Of the page in view only what was deleted goes; the others stand in their order."""
    grid = learning(tmp_path)
    page = keys(worst(grid))
    ask(grid, "flag", keys=page[1:2], choice="Delete")
    ask(grid, "flag", keys=page[2:3], choice="dog" if page[2][0] == "c" else "cat")
    assert keys(ask(grid, "apply"))[:5] == page[:1] + page[2:]


def test_two_views_and_a_file_deleted_meanwhile(tmp_path):
    """Another tab on the same kernel sees the same pages; a picture deleted by hand is told and blocks nothing."""
    grid = learning(tmp_path)
    page = keys(worst(grid, view="a"))
    picture = grid.cleaning.pictures[grid.cleaning.positions[page[0]]]
    picture.path.unlink()
    assert "Not stored" in ask(grid, "flag", view="a", keys=page[:1], choice="Keep")["alert"]
    ask(grid, "flag", view="a", keys=page[1:3], choice="Keep")
    assert keys(ask(grid, "hello", view="b")) == page
    assert keys(worst(grid, 1, view="b")) == keys(ask(grid, "hello", view="a"))


def test_missing_features_and_choices_from_before_are_told_at_first(tmp_path):
    """The page says once for how many pictures there are no features, and which choices wait; nothing is applied."""
    features = np.random.default_rng(0).normal(size=(40, 5))
    features[:20] = np.nan
    first = learning(tmp_path)
    ask(first, "flag", keys=["c0", "d0"], choice="Delete")
    grid = learning_again(first.cleaning.project, features=features)
    told = ask(grid, "hello")
    assert "Nothing is known of how 20 pictures look" in told["alert"]
    assert "2 choices made before are shown, and not applied yet." in told["alert"]
    assert (told["pending"], worst(grid, 1)["alert"]) == (2, "")


@pytest.mark.parametrize("features", [np.ones((39, 5)), np.ones(40)])
def test_features_of_another_shape_are_refused(tmp_path, features):
    """One row per picture is expected, and the shape is told."""
    with pytest.raises(FieldguideError, match="features has the shape"):
        learning(tmp_path, features=features)


# --- choices -------------------------------------------------------------------------------------------------------


def test_a_choice_is_answered_once_it_is_stored(project):
    """The answer tells what is on disk, for the pictures asked for and those on the page."""
    grid = grid_of(project, max_n=2)
    turn(grid)
    answer = ask(grid, "flag", keys=["c0"], choice="dog")
    assert (answer["tell"], answer["choices"]) == ("flags", {"c0": "dog", "c1": None})
    assert answer["counts"].startswith("1 of 8 looked at")
    assert read_review(project) == {"c0": "dog"}


def test_many_are_flagged_and_taken_back_as_one(project):
    """One choice for several pictures is one step of undo; the answer says what was taken back."""
    grid = grid_of(project)
    ask(grid, "flag", keys=["c0", "c1", "d0"], choice="dog")
    assert read_review(project) == {"c0": "dog", "c1": "dog", "d0": "Keep"}
    answer = ask(grid, "undo")
    assert (answer["undone"], answer["alert"]) == (True, "Undone: the choice for 3 pictures.")
    assert read_review(project) == {}
    assert "There is no choice to undo" in ask(grid, "undo")["alert"]


def test_a_late_choice_finds_its_picture(project):
    """A choice on its way while the page turned flags the picture it was made for, and none that is shown now."""
    grid = grid_of(project, max_n=2)
    turn(grid)
    assert keys(turn(grid, page=1)) == ["c2", "c3"]
    assert ask(grid, "flag", keys=["c0"], choice="Delete")["choices"] == {"c0": "Delete", "c2": None, "c3": None}


def test_a_refused_choice_shows_the_old_one(project):
    """Where a flag cannot be stored, the answer tells the old choice and why."""
    grid = grid_of(project)
    (project.images / "cat" / "c0.jpg").unlink()
    answer = ask(grid, "flag", keys=["c0", "c1"], choice="Delete")
    assert (answer["choices"]["c0"], answer["choices"]["c1"]) == (None, "Delete")
    assert answer["alert"].startswith("Not stored: 'c0' is not in the training set")


def test_a_second_notebook_is_told(project):
    """Two grids on one project: the second shows the first one's flag at its next request, and says so once."""
    first, second = grid_of(project), grid_of(project)
    ask(first, "flag", keys=["c0"], choice="Delete")
    answer = ask(second, "flag", keys=["d0"], choice="cat")
    assert "changed elsewhere" in answer["alert"]
    assert (answer["choices"]["c0"], answer["choices"]["d0"]) == ("Delete", "cat")
    assert turn(second)["alert"] == ""


def test_a_table_that_cannot_be_read_is_not_added_to(project):
    """With review.csv broken by hand, pages are shown and say so, and nothing is stored until it is mended."""
    grid = grid_of(project)
    ask(grid, "flag", keys=["c0"], choice="Delete")
    good = project.table("review").read_bytes()
    project.table("review").write_text("no,such,table\n1,2,3\n")
    for _ in range(2):
        assert "no,such,table" in turn(grid)["alert"]
        answer = ask(grid, "flag", keys=["c1"], choice="Delete")
        assert answer["tell"] == "alert" and "no,such,table" in answer["alert"]
    assert project.table("review").read_text() == "no,such,table\n1,2,3\n"
    project.table("review").write_bytes(good)
    assert ask(grid, "flag", keys=["c1"], choice="Delete")["choices"]["c0"] == "Delete"


def test_a_message_waits_while_a_cell_is_at_the_flags(project):
    """Front-ends may deliver messages while a cell runs, in another thread: each waits until the other is done."""
    for request in ({"what": "flag", "keys": ["c0"], "choice": "Delete"}, {"what": "no such thing"}):
        grid, answers = grid_of(project), []
        asking = threading.Thread(target=lambda: answers.append(ask(grid, **request)))  # noqa: B023, joined below
        before = read_review(project)
        with grid.cleaning.lock:
            asking.start()
            asking.join(0.3)
            assert answers == [] and read_review(project) == before
        asking.join(60)
        assert answers[0]["counts"].startswith("1 of 8 looked at")


def test_moves_made_elsewhere_are_shown_at_once(project):
    """A choice made after another notebook applied its own is answered with the page as it is now."""
    first, second = grid_of(project), grid_of(project)
    ask(first, "flag", keys=["c0"], choice="Delete")
    ask(first, "apply")
    answer = ask(second, "flag", keys=["d0"], choice="cat")
    assert answer["tell"] == "page" and "1 picture lies elsewhere" in answer["alert"]
    assert "c0" not in keys(answer)
    assert read_review(project) == {"d0": "cat"}


def test_what_a_cell_applied_is_shown_at_once(project):
    """After an apply in a cell, the next choice is answered with the page as it is now."""
    grid = grid_of(project)
    turn(grid)
    ask(grid, "flag", keys=["c0"], choice="Delete")
    grid.cleaning.apply()
    assert ask(grid, "flag", keys=["zz"], choice="cat")["tell"] == "alert"  # shows no page: the next answer has to
    answer = ask(grid, "flag", keys=["d0"], choice="cat")
    assert answer["tell"] == "page" and "c0" not in keys(answer)
    assert ask(grid, "flag", keys=["d1"], choice="cat")["tell"] == "flags"


def test_apply_carries_out_only_what_was_on_screen(project):
    """Flags from elsewhere are shown first, with a word; pressed again, Apply carries them out."""
    first, second = grid_of(project), grid_of(project)
    ask(second, "flag", keys=["d0"], choice="cat")
    ask(first, "flag", keys=["c0"], choice="Delete")
    answer = ask(second, "apply")
    assert answer["tell"] == "page" and "press the button again" in answer["alert"]
    assert {card["key"]: card["choice"] for card in answer["cards"]}["c0"] == "Delete"
    assert len(list(project.images.rglob("*.jpg"))) == 8
    assert "Moved 1 to another label and 1 to the trash." in ask(second, "apply")["alert"]


def test_what_was_seen_in_a_cell_is_news_to_the_page(project):
    """delete() in a cell takes over flags from elsewhere; the page still shows them before it applies."""
    first, second = grid_of(project), grid_of(project)
    ask(first, "flag", keys=["c0"], choice="Delete")
    assert second.cleaning.still_there() == [(0, "Delete")]
    assert "press the button again" in ask(second, "apply")["alert"]


def test_news_come_with_a_refusal_too(project):
    """Where the answer is an alert, what happened elsewhere is told with it."""
    first, second = grid_of(project), grid_of(project)
    ask(first, "flag", keys=["c0"], choice="Delete")
    alert = ask(second, "undo")["alert"]
    assert "The flags of 1 picture" in alert and "There is no choice to undo" in alert


def test_undo_tells_what_was_changed_elsewhere(project):
    """What another notebook flagged anew is left, and said to be; the rest of the step is taken back."""
    grid = grid_of(project)
    ask(grid, "flag", keys=["c0", "c1"], choice="Delete")
    ask(grid_of(project), "flag", keys=["c0"], choice="dog")
    answer = ask(grid, "undo")
    assert answer["alert"].endswith("Undone: c1.jpg. Not undone: 1 choice changed elsewhere since.")
    assert answer["choices"] | {"c2": None} == answer["choices"] | {"c0": "dog", "c1": None}
    assert "Not stored" not in answer["alert"]


def test_apply_moves_and_tells(project):
    """Apply has the ledger move the files, says so and what to run, and shows the pictures where they lie."""
    grid = grid_of(project, probs=PROBS)
    turn(grid, label="dog")
    ask(grid, "flag", keys=["c2"], choice="dog")
    ask(grid, "flag", keys=["c0"], choice="Delete")
    answer = ask(grid, "apply")
    assert "Moved 1 to another label and 1 to the trash. Next: run 03, 04 and 05 again" in answer["alert"]
    assert sorted(keys(answer)) == ["c2", "d0", "d1", "d2", "d3"]
    assert answer["counts"].startswith("0 of 7 looked at")
    assert "nothing to apply" in ask(grid, "apply")["alert"]


def test_the_buttons_know_how_many_pictures_they_move(project):
    """Every answer counts what Apply would move, and what the last Apply moved; Keep moves nothing."""
    grid = grid_of(project)
    counts = [
        ask(grid, "flag", keys=keys, choice=choice) for keys, choice in ((["c0", "c1"], "Delete"), (["c2"], "Keep"))
    ]
    counts += [ask(grid, "flag", keys=["d0"], choice="cat"), ask(grid, "apply"), ask(grid, "back"), ask(grid, "back")]
    assert [(each["pending"], each["applied"]) for each in counts] == [(2, 0), (2, 0), (3, 0), (0, 3), (0, 0), (0, 0)]
    assert counts[4]["alert"].startswith("Took back the last Apply: 3 pictures moved back. Next: run 03, 04 and 05")
    assert sorted(keys(counts[4])) == [*(f"c{n}" for n in range(4)), *(f"d{n}" for n in range(4))]
    assert counts[5]["alert"] == "There is no Apply to take back."


def test_what_another_notebook_applied_is_not_taken_back_unseen(project):
    """The last Apply of another notebook is shown first; pressed again, the button takes it back."""
    first, second = grid_of(project), grid_of(project)
    ask(first, "flag", keys=["c0"], choice="Delete")
    ask(first, "apply")
    assert "press the button again" in ask(second, "back")["alert"] and len(read_dataset(project)) == 7
    assert "1 picture moved back" in ask(second, "back")["alert"] and len(read_dataset(project)) == 8


def test_a_name_taken_in_the_trash_keeps_both_files(project):
    """Where the name is taken, Apply leaves both files, says so, and keeps the flag."""
    taken = draw(project.trash / "cat" / "c0.jpg", (0, 0, 0))
    before = taken.read_bytes()
    grid = grid_of(project)
    ask(grid, "flag", keys=["c0"], choice="Delete")
    answer = ask(grid, "apply")
    assert "c0 was left" in answer["alert"]
    assert (taken.read_bytes(), (project.images / "cat" / "c0.jpg").exists()) == (before, True)
    assert next(card["choice"] for card in answer["cards"] if card["key"] == "c0") == "Delete"


def test_without_a_project_nothing_is_applied(tmp_path):
    """Paths and labels alone can be flagged; moving is left to the person's own loop."""
    path = draw(tmp_path / "a.jpg", (200, 30, 30))
    cleaning = Cleaning([Picture(str(path), path, "cat", "", "train")], ["cat", "dog"])
    grid = Grid(cleaning, labels=["cat", "dog"], height=64, width=64, max_n=3)
    assert ask(grid, "hello")["setup"]["project"] is False
    assert ask(grid, "flag", keys=[str(path)], choice="dog")["choices"] == {str(path): "dog"}
    assert "cleaner.delete()" in ask(grid, "apply")["alert"]
    assert grid.cleaning.still_there() == [(0, "dog")]


# --- zoom ----------------------------------------------------------------------------------------------------------


def test_zoom_shows_the_original(project):
    """The full picture is the file in raw/, at most 1600 pixels; without one, the training copy."""
    Image.new("RGB", (2000, 1000), (1, 2, 3)).save(make_folder(project.raw / "cat") / "c0.png")
    grid = grid_of(project)
    message, buffers = grid.answer({"ask": "zoom", "key": "c0"})
    assert (message["tell"], message["key"], message["problem"]) == ("zoom", "c0", "")
    with Image.open(io.BytesIO(buffers[0])) as image:
        assert image.size == (1600, 800)
    with Image.open(io.BytesIO(grid.answer({"ask": "zoom", "key": "c1"})[1][0])) as image:
        assert image.size == (96, 64)


def test_zoom_of_a_broken_original_shows_the_copy(project):
    """An original that cannot be read is no reason to show nothing; where no file can, the reason is told."""
    (make_folder(project.raw / "cat") / "c0.jpg").write_bytes(b"no picture")
    grid = grid_of(project)
    assert len(grid.answer({"ask": "zoom", "key": "c0"})[1]) == 1
    (project.images / "cat" / "c0.jpg").unlink()
    message, buffers = grid.answer({"ask": "zoom", "key": "c0"})
    assert "There is no picture" in message["problem"] and buffers == []


def test_the_original_is_found_under_any_label(project):
    """The file in raw/ is found also after its picture was moved; one whose name goes on after a dot is another's."""
    picture = next(iter(read_dataset(project)))
    draw(project.raw / "cat" / "c0.b.jpg", (1, 2, 3))
    assert original(project, picture) == picture.path
    raw = draw(project.raw / "dog" / "c0.png", (1, 2, 3))
    assert original(project, picture) == raw


def make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


# --- messages that nobody should send ------------------------------------------------------------------------------


VIEW = {"list": "", "label": "", "side": "", "show": "", "sort": "Label", "page": 0}


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        "hello",
        {},
        {"ask": "answer"},
        {"ask": ["flag"]},
        {"ask": "flag"},
        {"ask": "flag", "keys": "c0", "choice": "Delete"},
        {"ask": "flag", "keys": [], "choice": "Delete"},
        {"ask": "flag", "keys": ["c0"] * 31, "choice": "Delete"},
        {"ask": "flag", "keys": ["c0", "../../etc/passwd"], "choice": "Delete"},
        {"ask": "flag", "keys": ["c0", 1], "choice": "Delete"},
        {"ask": "flag", "keys": ["c0", {}], "choice": "Delete"},
        {"ask": "flag", "keys": ["c0"], "choice": "cow"},
        {"ask": "flag", "keys": ["c0"], "choice": "<Delete>"},
        {"ask": "flag", "keys": ["c0"], "choice": ["Delete"]},
        {"ask": "flag", "keys": ["c0"], "choice": 1},
        {"ask": "zoom", "key": "/etc/passwd"},
        {"ask": "zoom", "key": None},
        {"ask": "page"},
        {"ask": "page", **VIEW, "page": 1.5},
        {"ask": "page", **VIEW, "page": True},
        {"ask": "page", **VIEW, "label": "cow"},
        {"ask": "page", **VIEW, "list": "Suspects"},
        {"ask": "page", **VIEW, "sort": "Worst first"},  # nobody judged these
        {"ask": "page", **VIEW, "sort": "__class__"},
        {"ask": "page", **VIEW, "show": {"a": 1}},
    ],
    ids=lambda message: str(message)[:60],
)
def test_a_bad_message_is_answered_with_an_alert(project, message):
    """Nothing is stored, nothing moves, nothing is raised; the answer says what was wrong."""
    grid = grid_of(project)
    answer, buffers = grid.answer(message)
    assert (answer["tell"], buffers) == ("alert", [])
    assert answer["alert"] and "That did not work" not in answer["alert"]
    assert (read_review(project), len(list(project.images.rglob("*.jpg")))) == ({}, 8)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["ask", "view", "serial", "keys", "key", "choice", *VIEW])
GOOD = st.sampled_from(["hello", "page", "flag", "undo", "zoom", "back", "", "cat", "Label", "c0", "Delete", ["c0"]])


def test_no_message_raises(tmp_path_factory):
    """Whatever comes, there is one answer that can be sent, and only flags of known pictures are stored."""
    project = make_project(tmp_path_factory.mktemp("any"), per_label=1)
    grid = grid_of(project)

    @given(st.dictionaries(NAMES, GOOD | ANY) | ANY)
    def check(message):
        answer, _ = grid.answer(message)
        json.dumps(answer, allow_nan=False).encode("utf-8")
        assert answer["tell"] in ("page", "flags", "zoom", "alert")
        assert "That did not work" not in answer["alert"]

    check()
    assert set(read_review(project)) <= {"c0"}


def test_an_error_nobody_thought_of_is_told(project, monkeypatch):
    """Also where our own code fails, the browser gets an answer; the error is logged."""
    grid = grid_of(project)
    monkeypatch.setattr(grid.cleaning, "flag", lambda choices: 1 / 0)
    answer = ask(grid, "flag", keys=["c0"], choice="Delete")
    assert (answer["tell"], answer["alert"]) == ("alert", "That did not work: ZeroDivisionError: division by zero")


# --- names, and what the table of sources says -----------------------------------------------------------------------


def test_names_of_any_script_and_markup_travel_as_they_are(tmp_path):
    """Labels and files in any script, and with signs of HTML, reach the browser unchanged: it puts them in as text."""
    names = ["<b>cat</b> & dog", "نحل", "蜂", "ё"]
    pictures = [Picture(f"k{n}", draw(tmp_path / f"{n} {name[:3]}.jpg".replace("/", ""), (1, 2, 3)), name, "", None)
                for n, name in enumerate(names)]  # fmt: skip
    grid = Grid(Cleaning(pictures, names), labels=names, height=64, width=64, max_n=9)
    page = ask(grid, "hello")
    assert page["setup"]["labels"] == names
    assert sorted(card["label"] for card in page["cards"]) == sorted(names)
    assert ask(grid, "flag", keys=["k0"], choice="نحل")["choices"]["k0"] == "نحل"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are valid text")
def test_a_file_name_that_is_no_text_can_be_flagged(tmp_path):
    """A path with bytes that are no UTF-8 travels under another key, and its flag finds it."""
    path = draw(tmp_path / "a\udcff.jpg", (1, 2, 3))
    cleaning = Cleaning([Picture(str(path), path, "cat", "", "train")], ["cat", "dog"])
    grid = Grid(cleaning, labels=["cat", "dog"], height=64, width=64, max_n=9)
    card = ask(grid, "hello")["cards"][0]
    assert card["file"] == "a?.jpg" and card["problem"] == ""
    ask(grid, "flag", keys=[card["key"]], choice="Delete")
    assert grid.cleaning.still_there() == [(0, "Delete")]


def test_a_thousand_labels(tmp_path):
    """With 1,000 labels each can be chosen and filtered by; labels travel once a view, not with every page."""
    names = ["cat", "dog", *(f"label{n:03}" for n in range(998))]
    grid = grid_of(make_project(tmp_path, labels=names))
    assert len(ask(grid, "hello")["setup"]["labels"]) == 1000
    assert ask(grid, "flag", keys=["c0"], choice="label997")["choices"]["c0"] == "label997"
    page = turn(grid, label="label997")
    assert page["cards"] == [] and "setup" not in page


def test_a_label_with_one_picture_and_one_with_none(tmp_path):
    """Small labels are shown like any other; an empty one says that it is."""
    project = make_project(tmp_path, labels=("cat", "cow", "dog"), per_label=1)
    grid = grid_of(project)
    assert keys(turn(grid, label="cat")) == ["c0"]
    assert "No pictures here" in turn(grid, label="cow")["alert"]


def test_the_page_it_came_from_is_told(project):
    """A card carries its web page; a broken table of sources is told, and the pictures are shown all the same."""
    append_rows(project.table("sources"), SOURCES_COLUMNS, [{"id": "c0", "page_url": "https://example.org/a?b=1&c"}])
    assert {card["key"]: card["page"] for card in ask(grid_of(project), "hello")["cards"]}["c0"] == (
        "https://example.org/a?b=1&c"
    )
    project.table("sources").write_text("id,url\n")
    page = ask(grid_of(project), "hello")
    assert len(page["cards"]) == 8 and "are not linked" in page["alert"]


def test_only_web_addresses_are_linked(project):
    """Only http and https pages are linked; of an id that came twice, the first."""
    pages = {
        "c0": ["https://example.org/a", "https://example.org/b"],
        "c1": ["javascript:alert(1)", "javascript://example.org/%0aalert(1)", "ftp://example.org/a"],
        "c2": ["file:///etc/passwd"],
        "c3": ["", "http://example.org/c"],
        "d0": ["http://[::1"],
    }
    rows = [{"id": id, "page_url": page} for id, found in pages.items() for page in found]
    append_rows(project.table("sources"), SOURCES_COLUMNS, rows)
    linked = {card["key"]: card["page"] for card in ask(grid_of(project), "hello")["cards"] if card["page"]}
    assert linked == {"c0": "https://example.org/a", "c3": "http://example.org/c"}


def test_colab_is_asked_to_show_such_widgets(project):
    """In Colab, widgets from elsewhere must be switched on; opening the grid does it."""
    code = (
        "import sys, types; calls = []; output = types.ModuleType('google.colab.output')\n"
        "output.enable_custom_widget_manager = lambda: calls.append(1); sys.modules['google.colab.output'] = output\n"
        "from utils.clean.grid import Grid; from utils.clean.session import Cleaning\n"
        "Grid(Cleaning([], ['a', 'b']), labels=['a', 'b'], height=9, width=9, max_n=9); sys.exit(calls != [1])"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


# --- thumbnails ----------------------------------------------------------------------------------------------------


def test_thumbnails_are_drawn_once_and_anew_when_the_file_changes(tmp_path, monkeypatch):
    """The second time a thumbnail comes from memory; of a file that was replaced, it is the new one."""
    path, opened = draw(tmp_path / "a.jpg", (200, 30, 30)), []
    monkeypatch.setattr(thumbnails, "open_picture", lambda path, **how: opened.append(path) or Image.new("RGB", (9, 9)))
    small = Thumbnails(height=20, width=30)
    small.draw([path, path])
    small.draw([path])
    assert set(opened) == {path} and len(opened) <= 2  # two threads may meet at the first
    before = len(opened)
    draw(path, (30, 30, 200)).write_bytes(path.read_bytes() + b" ")
    small.draw([path])
    assert len(opened) == before + 1


def test_drawing_ahead_stops_when_another_page_is_asked_for(tmp_path, monkeypatch):
    """The thread that draws ahead ends at the picture it is at, and leaves no error behind."""
    paths = [draw(tmp_path / f"{n}.jpg", (1, 2, 3)) for n in range(50)]
    at_first, go_on, opened = threading.Event(), threading.Event(), []

    def slow(path, **how):
        opened.append(path)
        at_first.set()
        go_on.wait(10)
        return Image.new("RGB", (9, 9))

    monkeypatch.setattr(thumbnails, "open_picture", slow)
    small = Thumbnails(height=20, width=30)
    thread = small.draw_ahead(paths)
    assert at_first.wait(10)
    small.draw([])
    go_on.set()
    thread.join(10)
    assert not thread.is_alive() and opened == paths[:1]
    assert thread.daemon


def test_drawing_large_tells_why_nothing_can_be_read(tmp_path):
    """Of several files the first that can be read is drawn; of none, the last reason is told."""
    (tmp_path / "a.jpg").write_bytes(b"")
    good = draw(tmp_path / "b.jpg", (1, 2, 3))
    assert draw_large([tmp_path / "a.jpg", good]).problem == ""
    assert draw_large([tmp_path / "a.jpg"]).problem == "empty file"
