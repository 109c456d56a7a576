"""03: sides that don't leak, don't reshuffle, and are the same everywhere."""

import hashlib
import json
import random
import re
import warnings
from collections import Counter, defaultdict
from itertools import product

import pytest
from conftest import draw_picture, picture_bytes, put_raw
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.copies import find_copies
from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.split import assign_sides, changed_settings, leak_warning, save_split, split_counts
from utils.split.sides import LabelTooSmall
from utils.storage import locked, write_whole
from utils.tables import REJECTED_COLUMNS, SPLIT_COLUMNS, append_rows, read_rows
from utils.verify import verify_images


def some_pictures(count, *, group_size=1, labels=("a", "b")):
    """Return groups and labels of `count` ids a label."""
    ids = [f"{label}{n:04}" for label in labels for n in range(count)]
    return {id: f"{id[0]}{int(id[1:]) // group_size}" for id in ids}, {id: id[0] for id in ids}


def test_every_label_stands_on_every_side_in_its_share():
    """100 pictures per label give 20 valid, 10 test and 70 train of each."""
    groups, labels = some_pictures(100)
    sides = assign_sides(groups, labels, valid=0.2, test=0.1, seed=1)
    counts = Counter((labels[id], side) for id, side in sides.items())
    expected = {(label, side): n for label in "ab" for side, n in (("train", 70), ("valid", 20), ("test", 10))}
    assert counts == expected


def test_the_sides_are_these_on_every_machine():
    """The ranking is a hash, so the sides of a small set can be written down."""
    groups, labels = some_pictures(10, labels=("a",))
    sides = assign_sides(groups, labels, valid=0.2, test=0.1, seed=42)
    ranked = sorted(groups, key=lambda id: hashlib.sha256(f"42:{groups[id]}".encode()).digest())
    expected = {id: "test" if n < 1 else "valid" if n < 3 else "train" for n, id in enumerate(ranked)}
    assert sides == dict(sorted(expected.items()))


def in_groups(sizes, label="a", seed=42):
    """Return groups and labels of one label whose groups, in the order of their rank, have these sizes."""
    names = sorted(
        (f"{label}{n}" for n in range(len(sizes))), key=lambda g: hashlib.sha256(f"{seed}:{g}".encode()).digest()
    )
    groups = {f"{name}-{k}": name for name, size in zip(names, sizes, strict=True) for k in range(size)}
    return groups, dict.fromkeys(groups, label)


def test_a_group_joins_a_side_that_has_room_for_half_of_it():
    """Of 20 pictures 4 should validate: a group of 8 may, one of 10 may not, and the sides stay near their share."""
    for size, side in ((8, "valid"), (10, "train")):
        groups, labels = in_groups([size, *[1] * (20 - size)])
        sides = assign_sides(groups, labels, valid=0.2, test=0)
        first = next(iter(groups))
        assert sides[first] == side


def test_a_group_of_several_labels_takes_up_the_room_of_its_own():
    """Of 20 pictures of a label 4 should validate: a group of 3, and of 2 of another label, leaves room for one."""
    groups, labels = (
        first | second for first, second in zip(in_groups([5, *[1] * 17]), in_groups([1] * 20, "b"), strict=True)
    )
    labels |= dict.fromkeys(list(groups)[:2], "b")
    sides = assign_sides(groups, labels, valid=0.2, test=0)
    assert sum(side == "valid" and labels[id] == "a" for id, side in sides.items()) == 4


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(20, 60),
    group_size=st.integers(1, 3),
    seed=st.integers(0, 5),
    order=st.randoms(use_true_random=False),
    gone=st.sets(st.integers(0, 4)),
    more=st.integers(0, 15),
    moved=st.sets(st.integers(5, 9)),
)
def test_survivors_never_move(count, group_size, seed, order, gone, more, moved):
    """In any order, after additions, deletions and relabels, a picture keeps its side and groups stay whole."""
    groups, labels = some_pictures(count, group_size=group_size)
    shuffled = list(groups)
    order.shuffle(shuffled)
    first = assign_sides({id: groups[id] for id in shuffled}, labels, valid=0.2, test=0.2, seed=seed)
    assert first == assign_sides(groups, labels, valid=0.2, test=0.2, seed=seed)

    groups_later, labels_later = some_pictures(count + more, group_size=group_size)
    for n in gone:  # some are forgotten; others left the training set, and still hold their group's side
        if n % 2:
            groups_later.pop(f"a{n:04}")
        labels_later.pop(f"a{n:04}")
    for n in moved:
        labels_later[f"a{n:04}"] = "b"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label may shrink too far
        later = assign_sides(groups_later, labels_later, valid=0.2, test=0.2, seed=seed, known=first)
    assert all(later[id] == first[id] for id in later if id in first)
    assert set(later) == set(groups_later) & set(labels_later)
    on = defaultdict(set)
    for id, side in (first | later).items():
        if id not in groups_later:
            continue
        on[groups_later[id]].add(side)
    assert all(len(sides) == 1 for sides in on.values())


def test_a_newcomer_joins_the_side_of_its_near_duplicates():
    """A copy of a test picture goes to test, whatever its hash would say."""
    groups, labels = some_pictures(30, labels=("a",))
    known = assign_sides(groups, labels, valid=0.2, test=0.1)
    tested = next(id for id, side in known.items() if side == "test")
    sides = assign_sides(groups | {"new": groups[tested]}, labels | {"new": "a"}, known=known)
    assert sides["new"] == "test"


def test_a_newcomer_that_bridges_two_sides_gets_none():
    """On either side it would leak to the other."""
    groups = {"x": "g", "y": "g", "new": "g", **{f"a{n}": f"a{n}" for n in range(20)}}
    labels = dict.fromkeys(groups, "a")
    known = {"x": "train", "y": "valid", "a0": "test"}
    sides = assign_sides(groups, labels, known=known)
    assert "new" not in sides and sides["x"] == "train" and sides["y"] == "valid"


def test_a_picture_without_a_label_must_stand_on_a_side():
    """Only what an earlier split knows may be absent."""
    with pytest.raises(ValueError, match="picture y has a group but no label"):
        assign_sides({"x": "x", "y": "x"}, {"x": "a"}, known={"x": "train"})


def test_a_label_too_small_is_named_the_first_time_and_a_warning_later():
    """Two pictures can't stand on three sides; a label that cleaning made small is only warned of."""
    groups, labels = some_pictures(20, labels=("a",))
    groups |= {"b1": "b1", "b2": "b2"}
    labels |= {"b1": "b", "b2": "b"}
    with pytest.raises(LabelTooSmall, match=r"'b' has 2 pictures, and none for the training set"):
        assign_sides(groups, labels)
    with pytest.raises(LabelTooSmall, match=r"'b' has 1 picture, and none for the training set and the validation set"):
        assign_sides({id: group for id, group in groups.items() if id != "b2"}, labels)
    known = {"b1": "train", "b2": "valid"}
    with pytest.warns(UserWarning, match=r"'b' has 2 pictures, and none for the test set"):
        assign_sides(groups, labels, known=known)


def test_large_groups_need_larger_fractions():
    """Four groups of 10: only with room for half a group does a side get one, and the sentence says which fractions."""
    groups, labels = in_groups([10, 10, 10, 10])
    told = r"40 pictures in 4 groups, and none for the test set\. Set test = 0\.12 in"
    with pytest.raises(LabelTooSmall, match=told):
        assign_sides(groups, labels, valid=0.2, test=0.1)
    assert set(assign_sides(groups, labels, valid=0.2, test=0.12).values()) == {"train", "valid", "test"}


@settings(deadline=None, max_examples=60)
@given(
    first=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    second=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    valid=st.sampled_from([0.05, 0.125, 0.2, 0.5, 0.9]),
    test=st.sampled_from([0, 0.05, 0.09]),
)
def test_following_the_advice_works(first, second, valid, test):
    """Whichever fractions the refusal names, they give every label every side; without any, no fractions do."""
    groups, labels = (a | b for a, b in zip(in_groups(first, "a"), in_groups(second, "b"), strict=True))
    try:
        assign_sides(groups, labels, valid=valid, test=test)
    except LabelTooSmall as refusal:
        said = {key: float(value) for key, value in re.findall(r"(valid|test) = ([\d.]*\d)", str(refusal))}
        fractions = {"valid": valid, "test": test} | said
        if said:
            sides = assign_sides(groups, labels, **fractions)
            wanted = {"train", "valid", *["test"] * bool(fractions["test"])}
            assert {(labels[id], side) for id, side in sides.items()} == set(product("ab", wanted))
        else:
            assert min(len(first), len(second)) < 2


@pytest.mark.parametrize(("valid", "test"), [(0.6, 0.5), (-0.1, 0.1), (1.0, 0.0)])
def test_fractions_that_leave_nothing_are_refused(valid, test):
    """The message gives both values."""
    with pytest.raises(ValueError, match=f"{valid}.*{test}"):
        assign_sides({"x": "x"}, {"x": "a"}, valid=valid, test=test)


@pytest.mark.parametrize(
    "copied",
    [
        lambda image: picture_bytes(image, quality=50),
        lambda image: picture_bytes(image.resize((200, 150)), quality=80),
        lambda image: picture_bytes(image.crop((16, 12, 400, 300)), quality=80),
        lambda image: picture_bytes(image.crop((4, 4, 396, 297)).resize((260, 195)), "WEBP", quality=60),
    ],
    ids=["re-encoded", "resized", "cropped by 4 %", "all three"],
)
def test_near_duplicates_share_a_group_and_others_do_not(make_project, fill_raw, copied):
    """A picture saved anew, smaller, slightly cropped or all of it is found; unlike pictures stay apart."""
    project = make_project()
    fill_raw(project, 8)
    image = draw_picture(901, size=(400, 300))
    first = put_raw(project, "cat", picture_bytes(image, quality=95))
    second = put_raw(project, "cat", copied(image))
    verify_images(project)
    groups = find_copies(read_dataset(project)).groups
    assert groups[first] == groups[second]
    assert len(set(groups.values())) == len(groups) - 1


def test_the_saved_split_is_append_only_and_the_folder_order_does_not_matter(make_project, fill_raw):
    """A second run with more pictures keeps every row that was there."""
    project = make_project()
    fill_raw(project, 12)
    verify_images(project)

    def run():
        dataset = read_dataset(project)
        groups, labels = find_copies(dataset).groups, dict(zip(dataset.ids, dataset.labels, strict=True))
        ids = list(groups)
        random.Random(3).shuffle(ids)
        known = {id: side for id, (_, side) in dataset.split.items()}
        sides = assign_sides({id: groups[id] for id in ids}, labels, known=known)
        saved = save_split(dataset, groups, sides)
        assert saved == read_dataset(project)
        return len(saved.split) - len(dataset.split)

    assert run() == 24
    before = project.table("split").read_bytes()
    assert run() == 0
    assert project.table("split").read_bytes() == before
    put_raw(project, "dog", picture_bytes(draw_picture(5000)))
    verify_images(project)
    assert run() == 1
    assert project.table("split").read_bytes().startswith(before)
    assert split_counts(read_dataset(project)).loc["all", "all"] == 25


def test_what_another_notebook_saved_meanwhile_counts(make_project, fill_raw):
    """Pictures that got a side since the data set was read keep it; if more are to be saved, 03 is to start anew."""
    project = make_project()
    fill_raw(project, 12)
    verify_images(project)
    dataset = read_dataset(project)
    groups = find_copies(dataset).groups
    rows = [{"id": id, "group": groups[id], "side": "train"} for id in dataset.ids]
    append_rows(project.table("split"), SPLIT_COLUMNS, rows[:1])
    before = project.table("split").read_bytes()
    with pytest.raises(
        FieldguideError, match=r"Another notebook added pictures to .*split\.csv.*Run this notebook again"
    ):
        save_split(dataset, groups, dict.fromkeys(dataset.ids, "valid"))
    assert project.table("split").read_bytes() == before
    append_rows(project.table("split"), SPLIT_COLUMNS, rows[1:])
    (project.data / f".{'0a' * 8}.part.json").write_text("{")
    assert save_split(dataset, groups, dict.fromkeys(dataset.ids, "valid")).sides == ("train",) * 24
    assert not list(project.data.glob(".*.part*")), "what a killed run left"


def test_a_split_is_not_saved_while_another_notebook_writes(make_project, monkeypatch):
    """The lock of the data folder is held: a sentence says so, and nothing is written."""
    project = make_project()
    monkeypatch.setattr("utils.split.sides.locked", lambda folder: locked(folder, wait=0.01))
    with locked(project.data), pytest.raises(FieldguideError, match="Another notebook or program is working on"):
        save_split(read_dataset(project), {}, {})
    assert not project.table("split").exists()


@pytest.mark.parametrize("value", ["xyz", "", "f" * 20, "-000000000000001"])
def test_a_spoilt_hash_is_named_and_made_anew(make_project, fill_raw, value):
    """The sentence names table, picture and value; without that line, 02 writes the same row again."""
    project = make_project()
    fill_raw(project, 3)
    verify_images(project)
    table = project.table("pictures")
    whole = table.read_text()
    header, first, *others = whole.splitlines(keepends=True)
    id, _, hash, *_ = first.split(",")
    table.write_text("".join([header, first.replace(hash, value), *others]))
    with pytest.raises(FieldguideError, match=rf"pictures\.csv says '{value}' in the column hash of picture {id}"):
        find_copies(read_dataset(project))
    table.write_text("".join([header, *others]))
    assert verify_images(project).added == 1
    assert sorted(table.read_text().splitlines()) == sorted(whole.splitlines())


def test_a_label_without_pictures_is_named(make_project, fill_raw):
    """03 draws no split that lacks a label, and says what to do."""
    project = make_project()
    fill_raw(project, 3)
    verify_images(project)
    for path in (project.images / "dog").iterdir():
        path.unlink()
    with pytest.raises(FieldguideError, match=r"Label 'dog' has no pictures in .*dog.*Run 02 again.*remove the label"):
        find_copies(read_dataset(project))


def test_photos_without_a_label_are_named(make_project):
    """03 says where they get one."""
    project = make_project()
    write_whole(project.unsorted / "a.jpg", picture_bytes(draw_picture(1)))
    with pytest.raises(FieldguideError, match=r"1 photo in .*unsorted without a label: give each one .* in 02's grid"):
        find_copies(read_dataset(project))


def near_duplicates(seed):
    """Return the bytes of a drawn picture and of a near-duplicate of it."""
    image = draw_picture(seed, size=(400, 300))
    return picture_bytes(image, quality=95), picture_bytes(image.crop((4, 4, 396, 297)).resize((260, 195)), quality=60)


def split_again(project):
    """Do what 03 does; return what was compared and the data set with its sides."""
    dataset = read_dataset(project)
    copies, labels = find_copies(dataset), dict(zip(dataset.ids, dataset.labels, strict=True))
    known = {id: side for id, (_, side) in dataset.split.items()}
    return copies, save_split(dataset, copies.groups, assign_sides(copies.groups, labels, known=known))


def sides_of(project):
    """Return id → side of the pictures that are there."""
    dataset = read_dataset(project)
    return dict(zip(dataset.ids, dataset.sides, strict=True))


@pytest.mark.parametrize("seed", range(901, 905))
@pytest.mark.parametrize("how", ["trash", "label"])
def test_what_left_the_training_set_keeps_its_near_duplicates_side(make_project, fill_raw, how, seed):
    """A near-duplicate that comes while its original is in the trash, or its label left the project, leaks nowhere."""
    project = smaller = make_project(labels={"cat": ["c"], "dog": ["d"], "fox": ["f"]})
    fill_raw(project, 12)
    original, copy = near_duplicates(seed)
    first = put_raw(project, "fox", original)
    verify_images(project)
    split_again(project)
    tested = {id: "test" if id == first else side for id, side in sides_of(project).items()}
    rows = "".join(f"{id},{id},{side}\n" for id, side in tested.items())
    project.table("split").write_text("id,group,side\n" + rows)
    place = read_dataset(project)[first].path
    if how == "trash":
        (project.trash / "fox").mkdir(parents=True)
        place.rename(project.trash / "fox" / place.name)
    else:
        smaller = make_project()
    second = put_raw(smaller, "dog", copy)
    verify_images(smaller)
    copies, dataset = split_again(smaller)
    assert first not in dataset and dataset[second].side == "test"
    assert copies.groups[second] == copies.groups[first] == first
    if how == "trash":
        (project.trash / "fox" / place.name).rename(place)
    assert {sides_of(project)[first], sides_of(project)[second]} == {"test"}
    assert first not in [row["id"] for row in read_rows(project.table("rejected"), REJECTED_COLUMNS)]
    assert leak_warning(read_dataset(project), copies.links) == ""


def test_near_duplicates_on_two_sides_are_said(make_project, fill_raw):
    """A split.csv that was edited, or made before, may leak: a sentence names how many, and two of them."""
    project = make_project()
    fill_raw(project, 12)
    first, second = (put_raw(project, "cat", data) for data in near_duplicates(901))
    verify_images(project)
    copies, dataset = split_again(project)
    assert leak_warning(dataset, copies.links) == ""
    text = project.table("split").read_text()
    row = next(line for line in text.splitlines() if line.startswith(second))
    other = "valid" if row.endswith("train") else "train"
    project.table("split").write_text(text.replace(row, f"{second},{first},{other}"))
    sentence = leak_warning(read_dataset(project), copies.links)
    assert sentence.startswith("1 group ") and first in sentence and second in sentence and f"({other})" in sentence


def test_unknown_and_doubled_ids_move_nobody(make_project, fill_raw):
    """A row of a picture that is not there changes nothing; of an id's rows the first counts, in 03 and after."""
    project = make_project()
    fill_raw(project, 12)
    verify_images(project)
    _, dataset = split_again(project)
    counts, sides = split_counts(dataset), dict(zip(dataset.ids, dataset.sides, strict=True))
    table = project.table("split")
    others = {"train": "valid", "valid": "test", "test": "train"}
    doubled = "".join(f"{id},{id},{others[side]}\n" for id, side in sides.items())
    table.write_text(table.read_text() + f"{'0' * 16},{'0' * 16},test\n" + doubled)
    assert sides_of(project) == sides
    before = table.read_bytes()
    copies, again = split_again(project)
    assert again.sides == dataset.sides and "0" * 16 not in copies.groups and table.read_bytes() == before
    assert split_counts(again).equals(counts) and leak_warning(again, copies.links) == ""


def test_counts_hold_a_label_of_any_name(make_project, fill_raw):
    """The totals are no label's row, even of one that is called as they are."""
    project = make_project()
    fill_raw(project, 12)
    verify_images(project)
    split_again(project)
    (project.images / "dog").rename(project.images / "all")
    counts = split_counts(read_dataset(project.model_copy(update={"labels": {"cat": [], "all": []}})))
    assert counts["all"].tolist() == [12, 12, 24]
    assert counts.index.tolist() == ["all", "cat", "all"]
    assert counts.columns.tolist() == ["train", "valid", "test", "all"]


@pytest.mark.parametrize("text", ["[]", "null", "{", "", "\udcff"])
def test_a_broken_record_of_settings_is_said(make_project, text):
    """A split.json that is no JSON object is a sentence with what to do, not an error."""
    project = make_project()
    project.data.mkdir(parents=True)
    (project.data / "split.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "split.json" in changed_settings(project) and "Delete" in changed_settings(project)


def test_changed_settings_are_said(make_project, fill_raw):
    """Another seed does not redraw the split; a sentence says so and how to."""
    project = make_project()
    fill_raw(project, 12)
    verify_images(project)
    split_again(project)
    assert changed_settings(project) == ""
    assert "seed 42 → 7" in changed_settings(make_project(seed=7))
    assert "group_by '' → 'IMG'" in changed_settings(make_project(group_by="IMG"))
    older = {"seed": 42, "valid": 0.2, "test": 0.1}  # as written before there was group_by
    (project.data / "split.json").write_text(json.dumps(older))
    assert changed_settings(project) == ""
