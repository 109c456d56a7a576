"""What applying did, in words, and the choices that come from a file."""

from cleaning_pictures import make_project

from utils.clean import apply_choices
from utils.clean.applying import RUN_AGAIN, summary
from utils.dataset import read_dataset
from utils.ledger import Outcome, read_review, save_flag


def test_a_long_summary_is_cut():
    """Refusals of one reason are told together; of many reasons five are told, with a way to the rest."""
    one = [Outcome(f"p{n}", "cat", "dog", False, "taken") for n in range(8)]
    assert summary(one).endswith("trash. p0, p1, p2, p3, p4 and 3 more were left: taken.")
    others = [Outcome(f"q{n}", "cat", "dog", False, f"q{n}.jpg is taken") for n in range(6)]
    text = summary([*others, *one])
    assert "3 more were left: taken. q0 was left: q0.jpg is taken." in text
    assert text.endswith("2 more reasons: Ledger(project).apply() returns each picture's.")


def test_what_moved_is_followed_by_what_to_run():
    """After an Apply or its undo the sentence names 03, 04 and 05; where nothing moved it does not."""
    moved, left = Outcome("a", "cat", "dog", True), Outcome("b", "cat", "dog", False, "taken")
    assert (
        summary([moved]) == f"Moved 1 to another label and 0 to the trash. {RUN_AGAIN}" and "03, 04 and 05" in RUN_AGAIN
    )
    undone = summary([moved, left], undone=True)
    assert undone == f"Took back the last Apply: 1 picture moved back. b was left: taken. {RUN_AGAIN}"
    assert RUN_AGAIN not in summary([left])


def test_a_clean_start(tmp_path):
    """06 begins by removing what a killed run left half-written beside the tables, and nothing else."""
    project = make_project(tmp_path)
    left = project.data / f".{'0a' * 8}.part.csv"
    left.write_text("id,cho")
    before = {path for path in project.data.rglob("*") if path != left}
    apply_choices(project)
    assert {path for path in project.data.rglob("*") if path.name != ".lock"} == before


def test_the_choices_of_a_file_are_applied_and_no_others(tmp_path):
    """choices.csv moves its own pictures; flags of the cleaner stay; what cannot be taken over is named."""
    project = make_project(tmp_path)
    save_flag(project, "d0", "cat")
    project.table("choices").write_text("id,choice\nc0,dog\nc1,Delete\nc2,Keep\nc9,dog\n")
    told = apply_choices(project)
    assert told.startswith("Took over 3 choices from choices.csv. c9 was left: 'c9' is not in the training set")
    assert "Moved 1 to another label and 1 to the trash." in told
    labels = {picture.id: picture.label for picture in read_dataset(project)}
    assert (labels["c0"], labels["c2"], labels["d0"], "c1" in labels) == ("dog", "cat", "dog", False)
    assert read_review(project) == {"c2": "Keep", "d0": "cat"}
    assert not project.table("choices").exists()
    assert apply_choices(project).startswith("No choices to take over")
