"""More like this, and the lists that a person opens: the right pictures, the way back, and no harm by a bad message."""

import numpy as np
import pytest
from cleaning_pictures import make_project
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_grid import ask, grid_of, keys, turn

from utils.clean.alike import LookAlikes
from utils.clean.opened import OPENED_LISTS, PLACES_BACK
from utils.errors import FieldguideError

COUNT = 40  # c0 … c19, d0 … d19


@pytest.fixture
def grid(tmp_path):
    """Six a page; ten cats look like dogs, and nothing is known of the last picture, d9."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(COUNT, 30)) + (np.arange(COUNT) >= COUNT // 2)[:, None]
    features[:10] += 1
    features[-1] = np.nan
    return grid_of(make_project(tmp_path, per_label=COUNT // 2), features=features, max_n=6)


def by_hand(features: np.ndarray, n: int) -> list[tuple[float, int]]:
    """Return minus the cosine with each other picture that is known, and its position, sorted."""
    row = features[n].astype(float)
    found = []
    for m, other in enumerate(features.astype(float)):
        if m != n and not np.isnan(other).any():
            found.append((-float(other @ row / np.sqrt((other @ other) * (row @ row))), m))
    return sorted(found)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.int8, st.tuples(st.integers(2, 12), st.just(4)), elements=st.integers(1, 9)),
    st.data(),
)
def test_the_nearest_are_those_found_by_hand(small, data):
    """The nearest by cosine, most similar first; of equally similar ones that at the lower position comes first."""
    features = small.astype(np.float32)
    n, count = data.draw(st.integers(0, len(features) - 1)), data.draw(st.integers(1, 15))
    expected = by_hand(features, n)[:count]
    found, similar = LookAlikes(features).nearest(n, count)
    assert similar.tolist() == pytest.approx([-minus for minus, _ in expected], abs=2e-5)
    pairs = list(zip(-similar, found, strict=True))
    assert pairs == sorted(pairs) and n not in found and len(set(found.tolist())) == len(expected)


def test_unknown_pictures_are_like_none(grid):
    """A picture without features is in no list of look-alikes, and asking for its own says why there is none."""
    alike = grid.cleaning.alike
    found, _ = alike.nearest(0, 1000)
    assert sorted([0, *found]) == list(range(COUNT - 1))
    with pytest.raises(FieldguideError, match="Nothing is known"):
        alike.nearest(COUNT - 1, 5)
    assert "Nothing is known" in ask(grid, "like", key="d9")["alert"]


def test_look_alikes_are_as_alike_as_the_nearest_of_half_of_all():
    """Two tight groups of four and a loner: a picture of a group has three look-alikes, the loner none."""
    features = np.array([[9, 0, 0]] * 4 + [[0, 9, 0]] * 4 + [[1, 1, 9]], dtype=np.float32)
    features += np.arange(27).reshape(9, 3) % 5 * 1e-3
    alike = LookAlikes(features)
    assert sorted(alike.look_alikes(5, 59)) == [4, 6, 7] and alike.look_alikes(8, 59) == []


def test_more_like_this_and_back(grid):
    """The picture comes first, then the nearest of any label; b leads back to the page and the card in focus."""
    turn(grid, 2, sort="Label")
    before = keys(ask(grid, "hello"))
    page = ask(grid, "like", key=before[3], **{"from": before[3]})
    position = grid.cleaning.positions[before[3]]
    nearest = [position, *(m for _, m in by_hand(grid.cleaning.alike.features, position))]
    assert grid._selected == nearest
    assert (keys(page)[0], page["chosen"]["list"], page["order"]) == (
        before[3],
        f"Like {before[3]}.jpg",
        "Nearest first",
    )
    ask(grid, "flag", keys=keys(page)[:3], choice="Delete")
    back = ask(grid, "leave")
    assert (keys(back), back["focus"], back["page"], back["back"]) == (before, before[3], 2, "")
    assert back["chosen"]["sort"] == "Label"
    assert "no list to go back to" in ask(grid, "leave")["alert"]


def test_the_way_back_leads_through_every_list(grid):
    """Lists opened from lists: each step back shows the one before, also after files moved; the menu stays short."""
    first = keys(turn(grid, 1))
    shown = [first[0], "c3", "d4"]
    for key in shown:
        ask(grid, "like", key=key)
    assert [ask(grid, "hello")["back"], list(grid.cleaning.lists)] == [
        "Back to Like c3.jpg",
        [f"Like {key}.jpg" for key in shown],
    ]
    ask(grid, "flag", keys=[first[1]], choice="Delete")
    ask(grid, "apply")
    assert [ask(grid, "leave")["chosen"]["list"] for _ in shown] == [f"Like {shown[1]}.jpg", f"Like {shown[0]}.jpg", ""]
    assert first[1] not in keys(ask(grid, "hello")) and first[0] in keys(ask(grid, "hello"))
    for _ in range(3):
        for n in range(12):
            ask(grid, "like", key=f"c{n}")
    assert len(grid.cleaning.lists) <= OPENED_LISTS + 1 and len(grid._opened._places) <= PLACES_BACK + 1
    while (page := ask(grid, "leave"))["back"]:
        pass
    assert page["chosen"]["list"] == ""


def test_five_lists_stay_in_the_menu_and_on_the_way_back(grid):
    """Opened one from the other; a sixth takes the place of the first."""
    opened = [f"c{n}" for n in range(6)]
    for key in opened[:5]:
        ask(grid, "like", key=key)
    assert list(grid.cleaning.lists) == [f"Like {key}.jpg" for key in opened[:5]]
    back = [ask(grid, "leave")["chosen"]["list"] for _ in range(5)]
    assert back == [*(f"Like {key}.jpg" for key in opened[3::-1]), ""]
    for key in opened:
        ask(grid, "leave")
        ask(grid, "like", key=key)
    assert list(grid.cleaning.lists) == [f"Like {key}.jpg" for key in opened[1:]]


def test_a_refused_way_is_answered_by_the_page_that_is_open(grid):
    """The browser waits for a page, as when b is pressed twice, or m on a picture that nothing is known of."""
    turn(grid, 1)
    ask(grid, "like", key="c0")
    for what, details in (("leave", {}), ("leave", {}), ("like", {"key": "d9"})):
        page = ask(grid, what, **details)
        assert (page["tell"], page["page"], page["chosen"]["list"]) == ("page", 1, "")
    assert "Nothing is known" in page["alert"]


def test_pictures_that_left_take_no_place_among_the_look_alikes(grid, monkeypatch):
    """What is in the trash is in no list: the next nearest are. An offer counts what m shows and is not decided."""
    monkeypatch.setattr("utils.clean.grid.ALIKE_SHOWN", 4)
    monkeypatch.setattr("utils.clean.opened.ALIKE_SHOWN", 4)
    near = [grid.cleaning.pictures[n].id for _, n in by_hand(grid.cleaning.alike.features, 0)]
    ask(grid, "flag", keys=near[:4], choice="Delete")
    ask(grid, "apply")
    assert keys(ask(grid, "like", key="c0")) == ["c0", *near[4:8]]
    ask(grid, "leave")
    grid.cleaning.alike._usual = -1  # all are alike
    ask(grid, "flag", keys=near[4:6], choice="Keep")
    assert ask(grid, "flag", keys=["c0"], choice="dog")["alert"].startswith("2 pictures look like c0.jpg")


def test_the_way_back_leaves_out_what_another_notebook_deleted(grid):
    """Also where the files were looked at between that and the opening of the list."""
    first = keys(turn(grid))
    other = grid_of(grid.cleaning.project)
    ask(other, "flag", keys=first[:1], choice="Delete")
    ask(other, "apply")
    grid.cleaning.look()
    grid.send = lambda *_: None
    grid.show_list("From the map", [3, 4], "Worst first")
    assert first[0] not in keys(ask(grid, "leave"))


def test_a_wrong_picture_offers_its_look_alikes(grid):
    """After one picture was moved or deleted the answer says how many look like it; else it does not."""
    alike = grid.cleaning.alike
    near = alike.look_alikes(0, 59)
    assert near
    message = ask(grid, "flag", keys=["c0"], choice="dog")
    assert (message["offer"], message["alert"]) == (
        "c0",
        f"{len(near)} pictures look like c0.jpg: m shows them."
        if len(near) > 1
        else "1 picture looks like c0.jpg: m shows it.",
    )
    assert "offer" not in ask(grid, "flag", keys=["c0"], choice="cat")  # its own label: it is kept
    assert "offer" not in ask(grid, "flag", keys=["c0", "c1"], choice="Delete")
    assert "offer" not in ask(grid, "flag", keys=["c0"], choice=None)
    ids = [grid.cleaning.pictures[n].id for n in near]
    for id in ids:
        ask(grid, "flag", keys=[id], choice="Keep")
    assert "offer" not in ask(grid, "flag", keys=["c0"], choice="Delete")  # those like it are decided
    ask(grid, "flag", keys=ids[:1], choice=None)
    ask(grid, "like", key="c0")
    assert "offer" not in ask(grid, "flag", keys=["c0"], choice="dog")


def test_without_features_there_are_no_look_alikes(tmp_path):
    """The page is told so, and a request for them is refused."""
    grid = grid_of(make_project(tmp_path))
    assert ask(grid, "hello")["setup"]["alike"] is False
    assert "give the cleaner features" in ask(grid, "like", key="c0")["alert"]
    assert "offer" not in ask(grid, "flag", keys=["c0"], choice="dog")


@pytest.mark.parametrize("key", [None, 3, ["c0"], "c99", "x" * 1_000_000, float("nan")])
def test_hostile_keys_are_answered_with_an_alert(grid, key):
    """An unknown picture opens no list; a focus that is none is forgotten."""
    assert "There is no picture" in ask(grid, "like", key=key)["alert"]
    assert not grid.cleaning.lists
    ask(grid, "like", key="c0", **{"from": key})
    assert ask(grid, "leave")["focus"] == ""
