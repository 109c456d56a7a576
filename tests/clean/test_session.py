"""What is decided in cleaning: what to look at and in which order, flags that belong to pictures, undo, and news."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cleaning_pictures import PROBS, draw, make_learner, make_project

from utils.clean import session as cleaning_module
from utils.clean.session import (
    CHANGED,
    DECIDED,
    LABEL,
    NAME,
    STEPS,
    SUSPECTS,
    UNDECIDED,
    Cleaning,
    Picture,
    View,
    learner_probs,
    original,
    project_pictures,
    summary,
    web_pages,
)
from utils.errors import FieldguideError
from utils.ledger.flags import read_review, save_flag
from utils.ledger.moves import Ledger, Outcome
from utils.tables import SOURCES_COLUMNS, append_rows


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


def opened(project, **options) -> Cleaning:
    return Cleaning(project_pictures(project), list(project.labels), project=project, **options)


def keys(cleaning: Cleaning, **view) -> list[str]:
    """Return the keys that a view shows."""
    return [cleaning.pictures[n].key for n in cleaning.select(View(**view))]


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
    cleaning.choose(0, "Keep")
    assert keys(cleaning, label="cat", side="Train") == ["c2", "c0"]
    assert keys(cleaning, label="cat", side="Train", show=UNDECIDED) == ["c2"]
    assert keys(cleaning, show=DECIDED) == ["c0"]
    assert keys(cleaning, side="Test") == []


def test_a_view_sorts(project):
    """By file name, or by label and within it the worst first."""
    cleaning = opened(project, probs=PROBS)
    assert keys(cleaning, sort=NAME) == ["c0", "c1", "c2", "c3", "d0", "d1", "d2", "d3"]
    assert keys(cleaning, sort=LABEL) == ["c2", "c1", "c3", "c0", "d2", "d3", "d1", "d0"]


def test_an_order_is_a_list_and_ranks_the_rest(project):
    """With an order, its pictures are a list of their own, and come first among all."""
    cleaning = opened(project, probs=PROBS, order=[6, 4, 2])
    assert keys(cleaning, list=SUSPECTS) == ["d2", "d0", "c2"]
    assert keys(cleaning, label="dog") == ["d2", "d0", "d3", "d1"]


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
    cleaning.choose(0, "cat")
    assert (cleaning.choice(0), cleaning.choice(1)) == ("Keep", None)
    assert read_review(project) == {"c0": "Keep"}
    cleaning.choose(0, None)
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
    cleaning.choose(0, "Keep")
    cleaning.flag({"c0": "Delete", "c1": "Delete", "d0": "cat"})
    cleaning.choose(5, "cat")
    assert cleaning.undo() == {"d1": ""}
    assert cleaning.undo() == {"c0": "", "c1": "", "d0": ""}
    assert read_review(project) == cleaning.choices == {"c0": "Keep"}
    cleaning.undo()
    with pytest.raises(FieldguideError, match=r"Ledger\(project\)\.undo"):
        cleaning.undo()
    assert read_review(project) == {}


def test_undo_leaves_what_was_changed_elsewhere(project):
    """A flag set anew by another notebook since is not taken back here."""
    cleaning = opened(project)
    cleaning.flag({"c0": "Delete", "c1": "Delete"})
    save_flag(project, "c0", "dog")
    cleaning.refresh()
    assert cleaning.undo() == {"c0": CHANGED, "c1": ""}
    assert read_review(project) == {"c0": "dog"}


def test_steps_are_bounded(tmp_path):
    """What can be taken back is bounded, so that a long day needs no more memory."""
    cleaning = Cleaning([Picture("a", tmp_path / "a.jpg", "cat")], ["cat", "dog"])
    for n in range(STEPS + 50):
        cleaning.choose(0, ("dog", "Delete")[n % 2])
    assert len(cleaning._steps) == STEPS


def test_a_file_that_stands_there_twice_is_returned_once(tmp_path):
    """Without a project, a path that a learner holds twice is one picture to delete: a loop unlinks it once."""
    path = draw(tmp_path / "a.jpg", (1, 2, 3))
    cleaning = Cleaning([Picture(str(path), path, "cat")] * 2, ["cat", "dog"])
    cleaning.choose(1, "Delete")
    assert cleaning.deletions() == [0]


def test_only_files_still_at_their_first_place_are_returned(project):
    """A loop unlinks by the paths of the start: a picture that was moved since is left out, whatever lies there now."""
    cleaning = opened(project)
    cleaning.flag({"c1": "dog", "c2": "dog"})
    cleaning.apply()
    cleaning.flag({"c0": "Delete", "c1": "Delete", "c2": "cat", "c3": "dog"})
    draw(cleaning.start[1], (0, 0, 0))  # another file
    assert (cleaning.deletions(), cleaning.changes()) == ([0], [(3, "dog")])


def test_what_another_notebook_decided_later_counts(project):
    """Deletions and changes are those on disk; what was taken over is told afterwards all the same."""
    cleaning = opened(project)
    cleaning.flag({"c0": "Delete", "c1": "Delete", "c2": "dog"})
    save_flag(project, "c0", "Keep")
    save_flag(project, "c2", None)
    assert (cleaning.deletions(), cleaning.changes()) == ([1], [])
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
    second.choose(4, "cat")
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
    monkeypatch.setattr(cleaning_module, "read_review", lambda project: reads.append(1) or read_review(project))
    cleaning.choose(0, "Delete")
    cleaning.flag({"c1": "Keep", "c2": None})
    cleaning.undo()
    assert (cleaning.refresh(), reads) == ("", [])
    save_flag(project, "d0", "cat")
    cleaning.choose(1, "Delete")
    assert "1 picture" in cleaning.refresh()
    assert (len(reads), cleaning.choices) == (1, {"c0": "Delete", "d0": "cat", "c1": "Delete"})


def test_two_processes_lose_no_flag(project):
    """Flags that two processes set at the same time are all stored."""
    code = (
        "import sys; from utils.project import Project; from utils.cleaning import *\n"
        "project = Project.model_validate_json(sys.argv[1])\n"
        "cleaning = Cleaning(project_pictures(project), list(project.labels), project=project)\n"
        "for n in range(int(sys.argv[2]), 8, 2): cleaning.choose(n, 'Delete')"
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
    cleaning.choose(0, "Delete")
    with project.table("review").open("a") as table:
        table.write("c1,Del\n")
    before = project.table("review").read_bytes()
    for asked in (cleaning.refresh, cleaning.refresh, cleaning.deletions, cleaning.changes):
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
    with pytest.raises(FieldguideError, match="no flag to take back"):
        cleaning.undo()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_images_folder_keeps_the_flags(project):
    """Where files cannot be moved, Apply says why and the flags stay."""
    cleaning = opened(project)
    cleaning.choose(0, "dog")
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
    cleaning.choose(0, "dog")
    monkeypatch.setattr(Path, "rename", refuse)
    said = summary(cleaning.apply())
    assert "c0 was left" in said and "permission" in said.lower()
    assert read_review(project) == cleaning.choices == {"c0": "dog"}


# --- words and files -----------------------------------------------------------------------------------------------


def test_a_long_summary_is_cut():
    """Refusals of one reason are told together; of many reasons five are told, the rest counted, with a way to them."""
    one = [Outcome(f"p{n}", "cat", "dog", False, "taken") for n in range(8)]
    assert summary(one).endswith("trash. p0, p1, p2, p3, p4 and 3 more were left: taken.")
    others = [Outcome(f"q{n}", "cat", "dog", False, f"q{n}.jpg is taken") for n in range(6)]
    text = summary([*others, *one])
    assert "3 more were left: taken. q0 was left: q0.jpg is taken." in text
    assert text.endswith("2 more left: Ledger(project).apply() tries again, and returns each with its reason.")


def test_web_pages_are_web_addresses(project):
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
    assert web_pages(project) == {"c0": "https://example.org/a", "c3": "http://example.org/c"}


def test_the_original_is_found_under_any_label(project):
    """The file in raw/ is found also after its picture was moved; without one, the training copy stands in."""
    picture = project_pictures(project)[0]
    assert original(project, picture) == picture.path
    raw = draw(project.raw / "dog" / "c0.png", (1, 2, 3))
    assert original(project, picture) == raw


def test_the_original_of_a_longer_name_is_another_s(project):
    """A file in raw/ whose name goes on after a dot belongs to another picture."""
    picture = project_pictures(project)[0]
    draw(project.raw / "cat" / "c0.b.jpg", (1, 2, 3))
    assert original(project, picture) == picture.path


def test_a_learner_of_other_labels_is_refused(project):
    """A learner that tells other labels apart cannot judge these pictures."""
    learn = SimpleNamespace(dls=SimpleNamespace(vocab=["cat", "cow"]))
    with pytest.raises(FieldguideError, match="cat, cow"):
        learner_probs(learn, [], ["cat", "dog"])


def test_columns_follow_the_labels(tmp_path):
    """Probabilities are returned in the order of the labels asked for, whatever the learner's vocabulary is."""
    learn = make_learner(pytest.importorskip("fastai.vision.all"), tmp_path)
    paths = [tmp_path / "cat" / "cat0.jpg", tmp_path / "dog" / "dog0.jpg"]
    np.testing.assert_array_equal(
        learner_probs(learn, paths, ["dog", "cat"]), learner_probs(learn, paths, ["cat", "dog"])[:, ::-1]
    )
