"""A split that the source brought along: kept, filled where it lacks a side, and its leaks told."""

import pytest

from utils.split import assign_sides
from utils.split.sides import LabelTooSmall

IDS = [f"{n:02}" for n in range(40)]
LABELS = {id: "cat" if n % 2 else "dog" for n, id in enumerate(IDS)}
ALONE = {id: id for id in IDS}
WHOLE = {id: ("train", "valid", "test")[n // 2 % 3] for n, id in enumerate(IDS)}


def test_a_whole_split_is_kept():
    """Whatever the fractions and the seed are."""
    for seed in (1, 2):
        assert assign_sides(ALONE, LABELS, valid=0.5, test=0.1, seed=seed, given=WHOLE) == WHOLE


@pytest.mark.parametrize("lacking", ["valid", "test"])
def test_a_side_that_is_lacking_is_drawn_from_the_training_set(lacking):
    """In its share of each label; the other judging side keeps exactly its own."""
    given = {id: "train" if side == lacking else side for id, side in WHOLE.items()}
    sides = assign_sides(ALONE, LABELS, valid=0.2, test=0.2, given=given)
    assert {given[id] for id, side in sides.items() if side == lacking} == {"train"}
    assert all(sides[id] == side for id, side in given.items() if side != "train")
    for label in ("cat", "dog"):
        assert sum(sides[id] == lacking for id in IDS if LABELS[id] == label) == 4


def test_near_duplicates_of_a_given_picture_join_it_and_given_ones_stay():
    """The given side wins over the group; a newcomer between two given sides is left out; what is known stays."""
    given = {"00": "test", "02": "train", "04": "valid", "06": "train", "08": "test"} | {
        id: WHOLE[id] for id in IDS[12:]
    }
    groups = ALONE | {"10": "00", "02": "00", "05": "04", "07": "06", "09": "06", "08": "06"}
    sides = assign_sides(groups, LABELS, valid=0.2, test=0.2, given=given, known={"09": "valid"})
    assert {id: sides.get(id) for id in ("00", "02", "10", "04", "05", "06", "08", "09", "07")} == {
        **{"00": "test", "02": "train", "10": None, "04": "valid", "05": "valid"},
        **{"06": "train", "08": "test", "09": "valid", "07": None},
    }


def test_a_given_side_wins_over_a_group_on_another_that_was_brought_along():
    """Also where a third side is drawn from the training set."""
    given = {id: "valid" if int(id) % 8 < 2 else "train" for id in IDS}
    sides = assign_sides(ALONE | {"02": "00"}, LABELS, valid=0.2, test=0.2, known={"00": "valid"}, given=given)
    assert sides["02"] == "train"


def test_pictures_without_a_given_side_fill_the_fractions():
    """Photos from a source that was not split, beside one that was."""
    given = {id: side for id, side in WHOLE.items() if int(id) < 20}
    sides = assign_sides(ALONE, LABELS, valid=0.4, test=0.2, given=given)
    assert all(sides[id] == side for id, side in given.items())
    for label in ("cat", "dog"):
        own = [sides[id] for id in IDS if LABELS[id] == label]
        assert (own.count("valid"), own.count("test")) == (8, 4)


def test_a_label_that_the_split_gives_no_side_says_what_to_do():
    """The advice is not to change the fractions."""
    given = {id: "train" if LABELS[id] == "cat" and side == "valid" else side for id, side in WHOLE.items()}
    with pytest.raises(
        LabelTooSmall, match=r"'cat' has 20 pictures, and none for the validation set. .* use_given_split"
    ):
        assign_sides(ALONE, LABELS, valid=0.2, test=0.2, given=given)


def test_a_set_that_grows_is_not_drawn_from_what_was_given():
    """Newcomers from the training folder train: their source has the other sides already."""
    more = {f"n{n}": "train" for n in range(60)}
    labels = LABELS | dict.fromkeys(more, "cat")
    sides = assign_sides(ALONE | {id: id for id in more}, labels, valid=0.3, test=0.2, known=WHOLE, given=WHOLE | more)
    assert {sides[id] for id in more} == {"train"}


def test_a_newcomer_joins_its_group_in_a_set_that_was_drawn():
    """Only against sides that the source brought along does its own side count."""
    groups = {id: str(int(id) // 2) for id in IDS}
    given = {id: "valid" if int(id) % 8 < 2 else "train" for id in IDS}
    first = [id for id in IDS if int(id) % 2 == 0]
    before = assign_sides(
        {id: groups[id] for id in first}, {id: LABELS[id] for id in first}, valid=0.2, test=0.2, given=given
    )
    labels = dict.fromkeys(IDS, "dog")
    after = assign_sides(groups, labels, valid=0.2, test=0.2, known=before, given=given)
    assert "test" in before.values()
    assert all(len({after[id] for id in IDS if groups[id] == group}) == 1 for group in set(groups.values()))
