"""Rounds: predictions that come back as they went, and a comparison that claims no more than the pictures show."""

import numpy as np
import pandas as pd
import pytest
from conftest import draw_picture
from scipy.stats import binomtest

from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.evaluate.rounds import (
    compare_rounds,
    pictures_needed,
    read_predictions,
    round_numbers,
    round_path,
    round_sentence,
    rounds_opened,
    save_predictions,
)
from utils.pictures import jpeg_bytes
from utils.storage import write_whole
from utils.tables import SPLIT_COLUMNS, append_rows


@pytest.fixture
def filled(make_project):
    """Return a function that puts a project's pictures and split in place: {id: (label, group, side)}."""

    def fill(pictures):
        project = make_project()
        data = jpeg_bytes(draw_picture(0, size=(64, 64)))
        for id, (label, _, _) in pictures.items():
            write_whole(project.images / label / f"{id}.jpg", data)
        rows = [{"id": id, "group": group, "side": side} for id, (_, group, side) in pictures.items()]
        append_rows(project.table("split"), SPLIT_COLUMNS, rows)
        return project

    return fill


def predictions(answers, side="valid", label="cat"):
    """Return a table of predictions from {id: predicted}."""
    rows = [
        {"id": id, "side": side, "label": label, "predicted": said, "cat": 0.5, "dog": 0.5}
        for id, said in answers.items()
    ]
    return pd.DataFrame(rows, columns=["id", "side", "label", "predicted", "cat", "dog"])


def cats(count, side="valid"):
    """Return `count` cats, each a group of its own."""
    return {f"{n:016}": ("cat", f"{n:016}", side) for n in range(count)}


# Twenty cats, ten of which are copies of one picture.
TEN_COPIES = {f"{n:016}": ("cat", "copies" if n < 10 else str(n), "valid") for n in range(20)}


def answers(ids, right):
    """Return {id: predicted} in which the pictures at the positions `right` are called cats."""
    return {id: "cat" if n in right else "dog" for n, id in enumerate(ids)}


def test_predictions_come_back_as_they_went(make_project):
    """Ids of digits stay text, a label called NA stays a label, a probability keeps its last digit."""
    project = make_project(labels={"NA": ["x"], "ñ, 1": ["y"]})
    table = pd.DataFrame({"id": ["0000000000000001", "1e10000000000000"], "side": "valid", "label": ["NA", "ñ, 1"]})
    table["predicted"] = ["ñ, 1", "NA"]
    table["NA"], table["ñ, 1"] = [0.1, 1 / 3], [0.9, 2 / 3]
    save_predictions(project, table, again=False)
    pd.testing.assert_frame_equal(read_predictions(project), table, check_dtype=False)
    assert read_predictions(project, side="test").empty


def test_the_same_predictions_are_no_new_round(make_project):
    """Saved twice, as after a kill, there is one round; other ones are the next, or the same one judged again."""
    project = make_project()
    table = predictions({"a": "cat"})
    save_predictions(project, table, again=False)
    save_predictions(project, table, again=False)
    assert round_numbers(project) == [1]
    save_predictions(project, predictions({"a": "dog"}), again=True)
    assert (round_numbers(project), read_predictions(project).predicted.tolist()) == ([1], ["dog"])
    save_predictions(project, table, again=False)
    write_whole(project.models / "rounds" / "001 (copy)" / "predictions.csv", "mine")
    assert round_numbers(project) == [1, 2]


def test_a_side_that_opens_or_shuts_makes_no_new_round(make_project):
    """The same valid predictions with those of the test set behind them are one round, which keeps the test set."""
    project = make_project()
    valid, test = predictions({"a": "cat"}), predictions({"b": "cat"}, side="test")
    for tables in ([valid], [valid, test], [valid]):
        save_predictions(project, pd.concat(tables), again=False)
    assert round_numbers(project) == [1] and len(read_predictions(project, side="test")) == 1


def test_rounds_with_an_open_test_side_are_counted(make_project):
    """By their predictions, also where hands broke a table; a label called test opens nothing."""
    project = make_project()
    assert rounds_opened(project) == 0
    save_predictions(project, predictions({"a": "dog"}, side="test"), again=False)
    save_predictions(project, predictions({"test": "cat"}).assign(label="test"), again=False)
    write_whole(round_path(project, 3), b"id,side\nb,test,\xff\n")
    assert rounds_opened(project) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00\xff",
        "id,side\na,valid\n",
        "id,side,label,predicted,cat,dog\na,valid,cat,cat,0.5\n",
        "id,side,label,predicted,cat,dog\na,valid,cat,cat,0.5,0.5,0.5\n",
        "id,side,label,predicted,cat,dog\na,valid,cat,cat,much,0.5\n",
        "id,side,label,predicted,cat,dog\na,valid,cat,cat,nan,0.5\n",
        "id,side,label,predicted,cat,dog\na,valid,cat,cat,7,0.5\n",
        "id,side,label,predicted,cat,dog\na,valid,cat,owl,0.5,0.5\n",
        "id,side,label,predicted,cat,dog\na,left,cat,cat,0.5,0.5\n",
        "id,side,label,predicted,cat,dog\na,valid,cat,cat,0.5,0.5\na,valid,cat,cat,0.5,0.5\n",
        "id;side;label;predicted;cat;dog\na;valid;cat;cat;0,5;0,5\n",
    ],
)
def test_a_table_that_hands_broke_is_named(make_project, text):
    """The sentence names the file and what to do."""
    project = make_project()
    write_whole(round_path(project, 1), text.encode("latin-1"))
    with pytest.raises(FieldguideError, match=r"001.predictions\.csv is broken .*Delete it and run 05 again"):
        read_predictions(project)


def test_rounds_that_are_not_there_say_so(make_project):
    """Before 05 the sentence names it; a wrong number is answered with the right ones."""
    project = make_project()
    with pytest.raises(FieldguideError, match="Run 05 first"):
        read_predictions(project)
    assert compare_rounds(read_dataset(project)) is None
    assert round_sentence(read_dataset(project)) == "This is the first round: there is no other to compare it with."
    save_predictions(project, predictions({"a": "cat"}), again=False)
    assert compare_rounds(read_dataset(project)) is None
    with pytest.raises(FieldguideError, match=r"There is no round 7 .* There are: 1\."):
        compare_rounds(read_dataset(project), 7, 1)


def test_the_promised_number_of_pictures_has_80_percent_power():
    """With 20 % gained and 10 % lost, 233 pictures: 74 to 84 of 100 drawn sets are told apart at 5 %."""
    n = round(pictures_needed(20, 10, 100))
    assert n == 233
    draws = np.random.default_rng(0).multinomial(n, (0.2, 0.1, 0.7), size=1500)
    told = [binomtest(int(gained), int(gained + lost)).pvalue < 0.05 for gained, lost, _ in draws]
    assert 0.74 < np.mean(told) < 0.84
    assert pictures_needed(4, 4, 50) is None


def test_a_better_round_is_called_better(filled):
    """30 right of 60, then 45, none lost: 25 points, and p = 2 / 2^15."""
    project = filled(cats(60))
    ids = list(read_dataset(project).ids)
    save_predictions(project, predictions(answers(ids, range(30))), again=False)
    save_predictions(project, predictions(answers(ids, range(45))), again=False)
    found = compare_rounds(read_dataset(project))
    assert (found.n, found.gained, found.lost, found.p) == (60, 15, 0, 2 / 2**15)
    assert (found.before["value"], found.after["value"], found.difference["value"]) == (0.5, 0.75, 0.25)
    assert 0.1 < found.difference["low"] < 0.25 < found.difference["high"] < 0.4
    assert "better by 25.0 points" in found.sentence and "p < 0.001" in found.sentence
    back = compare_rounds(read_dataset(project), 2, 1)
    assert (back.difference["value"], back.p) == (-0.25, found.p) and "worse by 25.0 points" in back.sentence


def test_too_few_pictures_are_said_to_be_too_few(filled):
    """Two gained of ten prove nothing; the sentence says how many pictures would."""
    project = filled(cats(10))
    ids = list(read_dataset(project).ids)
    save_predictions(project, predictions(answers(ids, range(5))), again=False)
    save_predictions(project, predictions(answers(ids, range(7))), again=False)
    found = compare_rounds(read_dataset(project))
    assert (found.p, found.needed) == (0.5, 37)  # (1.96 √.2 + .84 √.16)² / .04 = 36.8
    assert found.sentence.endswith("p = 0.5: not enough photos to tell; about 37 would do.")


def test_no_difference_promises_no_number(filled):
    """The same answers twice: nothing to prove, and the interval is as wide as ten pictures are few."""
    project = filled(cats(10))
    for _ in range(2):
        save_predictions(project, predictions(answers(read_dataset(project).ids, range(5))), again=False)
    save_predictions(project, predictions(answers(read_dataset(project).ids, range(5)), label="dog"), again=False)
    found = compare_rounds(read_dataset(project))
    assert (found.difference["value"], found.p, found.needed) == (0.0, 1.0, None)
    assert found.difference["low"] == -found.difference["high"] and found.difference["high"] > 0.2
    assert found.sentence.endswith("no difference to be seen, p = 1.")


def test_rounds_are_compared_under_the_labels_of_today(filled):
    """A picture that moved counts under its new label, one that is gone drops out, a newcomer to one round does too."""
    project = filled(cats(12))
    ids = list(read_dataset(project).ids)
    save_predictions(project, predictions(answers(ids[:10], range(10))), again=False)
    save_predictions(project, predictions(answers(ids, range(8))), again=False)
    (project.images / "cat" / f"{ids[0]}.jpg").unlink()
    write_whole(project.images / "dog" / f"{ids[9]}.jpg", (project.images / "cat" / f"{ids[9]}.jpg").read_bytes())
    (project.images / "cat" / f"{ids[9]}.jpg").unlink()
    found = compare_rounds(read_dataset(project))
    assert (found.n, found.gained, found.lost) == (9, 1, 1)


def test_near_duplicates_count_once(filled):
    """Ten copies of one picture, gained together, are one picture's evidence."""
    project = filled(TEN_COPIES)
    ids = list(read_dataset(project).ids)
    save_predictions(project, predictions(answers(ids, range(10, 20))), again=False)
    save_predictions(project, predictions(answers(ids, range(20))), again=False)
    found = compare_rounds(read_dataset(project))
    assert (found.n, found.gained, found.lost, found.p) == (20, 1, 0, 1.0)
    assert found.after["low"] < 0.6  # 20 of 20, but worth 400 / (100 + 10) = 3.6 pictures
    assert found.difference["value"] == 0.5 and "not enough photos to tell" in found.sentence
    save_predictions(project, predictions(answers(ids, range(10, 17))), again=False)
    save_predictions(project, predictions(answers(ids, range(18))), again=False)
    against = compare_rounds(read_dataset(project), 2, 3)  # ten copies are lost, and three other pictures
    assert (against.gained, against.lost) == (0, 4)


def test_groups_and_pictures_that_disagree_claim_nothing(filled):
    """One large group gained and six pictures lost: more pictures are right, more groups wrong; neither is claimed."""
    project = filled(TEN_COPIES)
    ids = list(read_dataset(project).ids)
    save_predictions(project, predictions(answers(ids, range(10, 20))), again=False)
    save_predictions(project, predictions(answers(ids, [*range(10), 18, 19])), again=False)
    found = compare_rounds(read_dataset(project))
    assert (found.gained, found.lost, found.difference["value"], found.needed) == (1, 8, 0.1, None)
    assert "no difference to be seen" in found.sentence


def test_the_test_side_is_used_where_both_rounds_opened_it(filled):
    """Opened by one round alone, valid decides; opened by both, the test set."""
    project = filled(cats(6) | {f"t{n}": ("cat", f"t{n}", "test") for n in range(4)})
    valid, test = cats(6), [f"t{n}" for n in range(4)]
    both = pd.concat([predictions(answers(valid, range(3))), predictions(answers(test, range(2)), side="test")])
    save_predictions(project, both, again=False)
    save_predictions(project, predictions(answers(valid, range(4))), again=False)
    dataset = read_dataset(project)
    assert (compare_rounds(dataset).side, compare_rounds(dataset).n) == ("valid", 6)
    save_predictions(project, both, again=False)
    assert (compare_rounds(dataset, 1, 3).side, compare_rounds(dataset, 1, 3).n) == ("test", 4)


def test_rounds_without_a_picture_in_common_are_not_compared(filled):
    """After a split drawn anew the sentence says so, and nothing fails."""
    project = filled(cats(4))
    ids = list(read_dataset(project).ids)
    save_predictions(project, predictions(answers(ids[:2], ())), again=False)
    save_predictions(project, predictions(answers(ids[2:], ())), again=False)
    assert round_sentence(read_dataset(project)).startswith("Rounds 1 and 2 have no judged picture in common")


def test_labels_that_look_like_formulas_come_back(filled):
    """Labels that a spreadsheet would run are guarded in predictions.csv, in cells and header, and read back."""
    project = filled({})
    table = predictions({"a": "=ants", "b": "-"}, label="=ants").rename(columns={"cat": "-", "dog": "=ants"})
    save_predictions(project, table, again=False)
    lines = round_path(project, 1).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "id,side,label,predicted,'-,'=ants" and lines[2].startswith("b,valid,'=ants,'-,")
    pd.testing.assert_frame_equal(read_predictions(project), table)
