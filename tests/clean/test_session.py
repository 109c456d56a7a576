"""What is decided in cleaning: what to look at and in which order, flags that belong to pictures, undo, and news."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cleaning_pictures import PROBS, draw, make_project

from utils.clean import session
from utils.clean.applying import summary
from utils.clean.session import CHANGED_SINCE, DECIDED, LABEL, NAME, UNDECIDED, UNDO_STEPS, WORST, Cleaning, View
from utils.dataset import Picture, read_dataset
from utils.errors import FieldguideError
from utils.ledger import Ledger, read_review, save_flag


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


def opened(project, **options) -> Cleaning:
    return Cleaning(list(read_dataset(project)), list(project.labels), project=project, **options)


def keys(cleaning: Cleaning, **view) -> list[str]:
    """Return the ids that a view shows."""
    return [cleaning.pictures[n].id for n in cleaning.select(View(**view))]


def suspect(position: int, list: str, reason: str = "") -> SimpleNamespace:
    return SimpleNamespace(position=position, list=list, reason=reason, figure=0.0)


# --- looking -------------------------------------------------------------------------------------------------------


def test_worst_first_by_loss(project):
    """All pictures, the largest cross-entropy under their own label first: the order of -log of PROBS."""
    cleaning = opened(project, probs=PROBS)
    assert keys(cleaning) == ["d2", "c2", "c1", "d3", "c3", "d1", "c0", "d0"]
    assert cleaning.loss(2) == pytest.approx(-np.log(0.2))


def test_a_view_filters_by_label_side_and_what_is_decided(project):
    """Label, side and show narrow the selection together; "" stands for all."""
    cleaning = opened(project, probs=PROBS)
    cleaning.flag({"c0": "Keep"})
    assert keys(cleaning, label="cat", side="train") == ["c2", "c0"]
    assert keys(cleaning, label="cat", side="train", show=UNDECIDED) == ["c2"]
    assert keys(cleaning, show=DECIDED) == ["c0"]
    assert keys(cleaning, side="test") == []


def test_a_view_sorts(project):
    """By file name, or by label and within it the worst first."""
    cleaning = opened(project, probs=PROBS)
    assert keys(cleaning, sort=NAME) == ["c0", "c1", "c2", "c3", "d0", "d1", "d2", "d3"]
    assert keys(cleaning, sort=LABEL) == ["c2", "c1", "c3", "c0", "d2", "d3", "d1", "d0"]


def test_lists_of_suspects(project):
    """Lists stand in the order in which they first occur; a picture may stand in several; reasons go with the list."""
    found = [suspect(6, "wrong", "says cat"), suspect(3, "copies", "as d0"), suspect(1, "wrong"), suspect(6, "copies")]
    cleaning = opened(project, suspects=found)
    assert list(cleaning.lists) == ["wrong", "copies"]
    assert keys(cleaning, list="wrong") == ["d2", "c1"]
    assert keys(cleaning, list="copies") == ["c3", "d2"]
    assert keys(cleaning, list="copies", sort=NAME) == ["c3", "d2"]
    assert keys(cleaning, list="copies", label="cat") == ["c3"]
    assert cleaning.reasons["wrong"][6] == "says cat"


def test_without_judges_nothing_is_the_worst(project):
    """Worst first is offered only where a model or a list of suspects says what is worst."""
    assert opened(project).sorts == [NAME, LABEL]
    assert (
        opened(project, probs=PROBS).sorts
        == opened(project, suspects=[suspect(1, "wrong")]).sorts
        == [WORST, NAME, LABEL]
    )


def test_a_picture_without_a_prediction_is_not_ranked_by_one(project):
    """A row of NaN is a picture that could not be judged: no prediction, loss 0, last."""
    probs = PROBS.copy()
    probs[6] = np.nan
    cleaning = opened(project, probs=probs)
    assert (cleaning.predicted(6), cleaning.loss(6)) == (None, 0.0)
    assert keys(cleaning)[-1] == "d2"


def test_progress_counts_all_pictures(project):
    """Counts are over the whole training set, whatever is looked at."""
    cleaning = opened(project)
    cleaning.flag({"c0": "Keep", "c1": "Delete", "d0": "cat", "d1": "dog"})
    assert cleaning.progress() == "4 of 8 looked at: 2 to keep, 1 to delete, 1 to move"


# --- deciding ------------------------------------------------------------------------------------------------------


def test_kept_differs_from_not_looked_at(project):
    """A picture's own label is stored as Keep; None takes the flag back, on disk too."""
    cleaning = opened(project)
    cleaning.flag({"c0": "cat"})
    assert cleaning.choices == read_review(project) == {"c0": "Keep"}
    cleaning.flag({"c0": None})
    assert read_review(project) == {}


def test_a_refused_flag_changes_nothing(project):
    """Where the file is gone, its flag is refused with the reason, and those of the others are stored."""
    cleaning = opened(project)
    (project.images / "cat" / "c0.jpg").unlink()
    refused = cleaning.flag({"c0": "Delete", "c1": "Delete"})
    assert list(refused) == ["c0"] and "not in the training set" in refused["c0"]
    assert cleaning.choices == read_review(project) == {"c1": "Delete"}


def test_undo_takes_back_the_last_step(project):
    """A step may hold many flags; each undo takes one step back, and brings back what was there before."""
    cleaning = opened(project)
    cleaning.flag({"c0": "Keep"})
    cleaning.flag({"c0": "Delete", "c1": "Delete", "d0": "cat"})
    cleaning.flag({"d1": "cat"})
    assert cleaning.undo() == {"d1": ""}
    assert cleaning.undo() == {"c0": "", "c1": "", "d0": ""}
    assert read_review(project) == cleaning.choices == {"c0": "Keep"}
    cleaning.undo()
    with pytest.raises(FieldguideError, match="no choice to undo"):
        cleaning.undo()
    assert read_review(project) == {}


def test_a_choice_that_changes_nothing_is_no_step(project):
    """Pressing Keep twice is one step: a single undo takes the picture back to not looked at."""
    cleaning = opened(project)
    for _ in range(2):
        cleaning.flag({"c0": "Keep"})
    assert cleaning.undo() == {"c0": ""}
    assert (cleaning.choices, read_review(project)) == ({}, {})
    with pytest.raises(FieldguideError, match="no choice to undo"):
        cleaning.undo()


def test_undo_leaves_what_was_changed_elsewhere(project):
    """A flag set anew by another notebook since is not taken back here."""
    cleaning = opened(project)
    cleaning.flag({"c0": "Delete", "c1": "Delete"})
    save_flag(project, "c0", "dog")
    cleaning.refresh()
    assert cleaning.undo() == {"c0": CHANGED_SINCE, "c1": ""}
    assert read_review(project) == {"c0": "dog"}


def test_steps_are_bounded(tmp_path):
    """What can be taken back is bounded, so that a long day needs no more memory."""
    cleaning = Cleaning([Picture("a", tmp_path / "a.jpg", "cat", "a", "train")], ["cat", "dog"])
    for n in range(UNDO_STEPS + 50):
        cleaning.flag({"a": ("dog", "Delete")[n % 2]})
    assert len(cleaning._steps) == UNDO_STEPS


def test_a_file_that_stands_there_twice_is_returned_once(tmp_path):
    """Without a project, a path that a learner holds twice is one picture to delete: a loop unlinks it once."""
    path = draw(tmp_path / "a.jpg", (1, 2, 3))
    cleaning = Cleaning([Picture(str(path), path, "cat", str(path), "train")] * 2, ["cat", "dog"])
    cleaning.flag({str(path): "Delete"})
    assert cleaning.still_there() == [(0, "Delete")]


def test_only_files_still_at_their_first_place_are_returned(project):
    """A loop unlinks by the paths of the start: a picture that was moved since is left out, whatever lies there now."""
    cleaning = opened(project)
    cleaning.flag({"c1": "dog", "c2": "dog"})
    cleaning.apply()
    cleaning.flag({"c0": "Delete", "c1": "Delete", "c2": "cat", "c3": "dog"})
    draw(cleaning.start[1], (0, 0, 0))  # another file
    assert cleaning.still_there() == [(0, "Delete"), (3, "dog")]


def test_what_another_notebook_decided_later_counts(project):
    """Deletions and changes are those on disk; what was taken over is told afterwards all the same."""
    cleaning = opened(project)
    cleaning.flag({"c0": "Delete", "c1": "Delete", "c2": "dog"})
    save_flag(project, "c0", "Keep")
    save_flag(project, "c2", None)
    assert cleaning.still_there() == [(1, "Delete")]
    assert "The flags of 2 pictures" in cleaning.refresh()


def test_the_folders_tell_a_picture_s_label(project):
    """A choice made when the picture had been moved unseen is what it says, and is shown as it was stored."""
    cleaning = opened(project)
    for id in ("c0", "c1"):
        (project.images / "cat" / f"{id}.jpg").rename(project.images / "dog" / f"{id}.jpg")
    cleaning.flag({"c0": "cat", "c1": "dog"})
    assert read_review(project) == cleaning.choices == {"c0": "cat", "c1": "Keep"}
    cleaning.undo()
    assert read_review(project) == {}


def test_counting_needs_no_lock(project):
    """Progress is told also while another thread takes a flag back."""

    class Fleeting(dict):
        def __contains__(self, key):
            return True

    cleaning = opened(project)
    cleaning.choices = Fleeting({"c0": "Keep"})
    assert cleaning.progress().startswith("1 of 8 looked at: 1 to keep")


def test_a_word_of_the_cleaner_is_no_label(tmp_path):
    """A learner's label "Delete" is refused: to move a picture there would delete it."""
    with pytest.raises(FieldguideError, match="'Delete'"):
        Cleaning([], ["Delete", "dog"])


# --- what happens elsewhere ----------------------------------------------------------------------------------------


def test_flags_set_elsewhere_are_taken_over_and_told(project):
    """Two open cleaners: the second takes over the first one's flags when it looks, and is told once."""
    first, second = opened(project), opened(project)
    first.flag({"c0": "Delete", "c1": "Delete"})
    second.flag({"d0": "cat"})
    news = second.refresh()
    assert "changed elsewhere" in news and "2 pictures" in news and second.moves == 0
    assert second.choices == read_review(project) == {"c0": "Delete", "c1": "Delete", "d0": "cat"}
    assert second.refresh() == ""


def test_own_flags_are_no_news(project):
    """What was set here is not told as if it came from elsewhere."""
    cleaning = opened(project)
    cleaning.flag({"c0": "Delete", "d0": "cat"})
    cleaning.undo()
    assert cleaning.refresh() == ""


def test_the_table_is_not_read_again_after_own_flags(project, monkeypatch):
    """A flag of one's own makes the next look no longer; one from elsewhere, before it, is found all the same."""
    cleaning, reads = opened(project), []
    monkeypatch.setattr(session, "read_review", lambda project: reads.append(1) or read_review(project))
    cleaning.flag({"c0": "Delete"})
    cleaning.flag({"c1": "Keep", "c2": None})
    cleaning.undo()
    assert (cleaning.refresh(), reads) == ("", [])
    save_flag(project, "d0", "cat")
    cleaning.flag({"c1": "Delete"})
    assert "1 picture" in cleaning.refresh()
    assert (len(reads), cleaning.choices) == (1, {"c0": "Delete", "d0": "cat", "c1": "Delete"})


def test_two_processes_lose_no_flag(project):
    """Flags that two processes set at the same time are all stored."""
    code = (
        "import sys; from utils.project import Project; from utils.dataset import read_dataset\n"
        "from utils.clean.session import Cleaning; project = Project.model_validate_json(sys.argv[1])\n"
        "cleaning = Cleaning(list(read_dataset(project)), list(project.labels), project=project)\n"
        "for n in range(int(sys.argv[2]), 8, 2): cleaning.flag({cleaning.pictures[n].id: 'Delete'})"
    )
    command = [sys.executable, "-c", code, project.model_dump_json()]
    running = [subprocess.Popen([*command, first], cwd=Path(__file__).parents[2]) for first in "01"]
    assert [process.wait(60) for process in running] == [0, 0]
    assert len(read_review(project)) == 8


def test_moves_made_elsewhere_are_taken_over(project):
    """What another notebook applied, undid, or a hand moved is shown where it lies now, and counted."""
    cleaning = opened(project)
    save_flag(project, "c0", "dog")
    save_flag(project, "c1", "Delete")
    Ledger(project).apply()
    assert "2 pictures lie elsewhere" in cleaning.refresh() and cleaning.moves == 1
    assert keys(cleaning, sort=NAME) == ["c0", "c2", "c3", "d0", "d1", "d2", "d3"]
    assert cleaning.pictures[0].label == "dog"
    Ledger(project).undo(2)
    (project.images / "dog" / "d0.jpg").rename(project.images / "cat" / "d0.jpg")
    assert "3 pictures" in cleaning.refresh() and cleaning.moves == 2
    assert [picture.label for picture in cleaning.pictures] == [*["cat"] * 5, *["dog"] * 3]


def test_a_missing_file_stays_to_be_seen(project):
    """A file that is neither in the training set nor in the trash stays in the selection, as missing."""
    cleaning = opened(project)
    (project.images / "cat" / "c0.jpg").unlink()
    assert cleaning.refresh() == ""
    assert "c0" in keys(cleaning)


def test_a_table_cut_by_hand_is_told_and_loses_nothing(project):
    """A broken line in review.csv is told with its number, also to who asks for the flags; nothing is lost by it."""
    cleaning = opened(project)
    cleaning.flag({"c0": "Delete"})
    with project.table("review").open("a") as table:
        table.write("c1,Del\n")
    before = project.table("review").read_bytes()
    for asked in (cleaning.refresh, cleaning.refresh, cleaning.still_there):
        with pytest.raises(FieldguideError, match="line 3"):
            asked()
    assert cleaning.choices == {"c0": "Delete"}
    assert project.table("review").read_bytes() == before


def test_apply_moves_files_and_takes_the_folders_as_they_are(project):
    """What is flagged moves, with the model's word in the log; the pictures are known where they lie now."""
    cleaning = opened(project, probs=PROBS)
    cleaning.flag({"c2": "dog", "c0": "Delete", "d0": "Keep"})
    assert [outcome.done for outcome in cleaning.apply()] == [True, True]
    assert (project.images / "dog" / "c2.jpg").exists() and (project.trash / "cat" / "c0.jpg").exists()
    rows = list(csv.DictReader(project.table("corrections").read_text().splitlines()))
    assert [(row["id"], row["predicted"], row["probability"]) for row in rows] == [
        ("c0", "cat", "0.9000"), ("c2", "dog", "0.8000")
    ]  # fmt: skip
    assert keys(cleaning, label="dog", sort=NAME) == ["c2", "d0", "d1", "d2", "d3"]
    assert cleaning.loss(2) == pytest.approx(-np.log(0.8))  # under its new label
    assert cleaning.choices == {"d0": "Keep"}
    assert cleaning.refresh() == ""
    with pytest.raises(FieldguideError, match="no choice to undo"):
        cleaning.undo()


def test_only_what_is_shown_as_pending_is_applied(project):
    """A flag that another notebook set unseen, or of a picture that came later, waits until a person has seen it."""
    cleaning = opened(project)
    cleaning.flag({"c0": "dog", "c1": "cat", "d0": "Delete"})
    draw(project.images / "cat" / "later.jpg", (0, 0, 0))
    save_flag(project, "later", "Delete")
    save_flag(project, "c3", "dog")
    assert cleaning.pending() == [(0, "dog"), (4, "Delete")]
    assert {outcome.id for outcome in cleaning.apply()} == {"c0", "d0"}
    assert read_review(project) == {"c1": "Keep", "later": "Delete", "c3": "dog"}


def test_the_last_apply_is_taken_back_as_a_whole(project):
    """Each time one Apply goes back, the latest first, also in another session; flags set since stay."""
    cleaning, before = opened(project), read_dataset(project).labels
    cleaning.flag({"c0": "dog", "c1": "Delete"})
    cleaning.apply()
    cleaning.flag({"d0": "cat", "d1": "cat", "d2": "Delete"})
    cleaning.apply()
    cleaning.flag({"d3": "Keep"})
    assert (cleaning.applied, opened(project).applied) == (3, 3)
    assert {outcome.id for outcome in opened(project).take_back()} == {"d0", "d1", "d2"}
    cleaning.refresh()
    assert cleaning.applied == 2
    assert [outcome.done for outcome in cleaning.take_back()] == [True, True]
    assert read_dataset(project).labels == before
    assert (cleaning.applied, cleaning.take_back(), read_review(project)) == (0, [], {"d3": "Keep"})


def test_a_picture_that_a_hand_moved_since_blocks_no_other_apply(project):
    """Of the last Apply, what lies elsewhere now is left and named; the next time the Apply before it goes back."""
    cleaning = opened(project)
    for choices in ({"c0": "dog"}, {"c1": "dog", "c2": "Delete"}):
        cleaning.flag(choices)
        cleaning.apply()
    (project.images / "dog" / "c1.jpg").rename(project.images / "cat" / "c1.jpg")
    outcomes = {outcome.id: outcome for outcome in cleaning.take_back()}
    assert outcomes["c2"].done and "moved by hand" in outcomes["c1"].reason
    Ledger(project).restore(["c0"])  # refused, and nothing to take back
    assert [outcome.id for outcome in cleaning.take_back() if outcome.done] == ["c0"]
    assert read_dataset(project).labels == ("cat",) * 4 + ("dog",) * 4


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_images_folder_keeps_the_flags(project):
    """Where files cannot be moved, Apply says why and the flags stay."""
    cleaning = opened(project)
    cleaning.flag({"c0": "dog"})
    (project.images / "cat").chmod(0o555)
    try:
        outcomes = cleaning.apply()
    finally:
        (project.images / "cat").chmod(0o755)
    assert [outcome.done for outcome in outcomes] == [False] and outcomes[0].reason
    assert read_review(project) == {"c0": "dog"}


def test_a_folder_that_cannot_be_moved_from_keeps_the_flags(project, monkeypatch):
    """The same, seen as any account: the reason is in the summary, and nothing is lost."""

    def refuse(self, target):
        raise PermissionError(13, "Permission denied")

    cleaning = opened(project)
    cleaning.flag({"c0": "dog"})
    monkeypatch.setattr(Path, "rename", refuse)
    said = summary(cleaning.apply())
    assert "c0 was left" in said and "permission" in said.lower()
    assert read_review(project) == cleaning.choices == {"c0": "dog"}
