"""The cleaner: fastai's defects, one by one, are not in it; flags belong to pictures and outlive the screen."""

import csv
import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pytest
from PIL import Image

from utils import cleaner as cleaner_module
from utils.cleaner import (
    ALL_SIDES,
    MENU_DELETE,
    MENU_KEEP,
    SUSPECTS,
    UNSEEN,
    Cleaning,
    ImageClassifierCleaner,
    Picture,
    learner_probs,
    summary,
)
from utils.files import FieldguideError
from utils.ledger import Ledger, Outcome, read_review
from utils.project import Project

# --- a project of drawn pictures ---------------------------------------------------------------------------------


def draw(path: Path, colour: tuple[int, int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (96, 64), colour).save(path, "JPEG")
    return path


def make_project(folder: Path, labels=("cat", "dog"), per_label: int = 4, sides=("train", "valid")) -> Project:
    """Return a project of red cats (c0, c1, …), blue dogs (d0, …), on alternating sides."""
    project = Project.model_validate(
        {
            "name": "t",
            "labels": {label: [label] for label in labels},
            "data_dir": str(folder / "data"),
            "models_dir": str(folder / "models"),
        }
    )
    rows = ["id,group,side"]
    project.images.mkdir(parents=True)
    for label, colour in (("cat", (200, 30, 30)), ("dog", (30, 30, 200))):
        for n in range(per_label):
            draw(project.images / label / f"{label[0]}{n}.jpg", colour)
            rows.append(f"{label[0]}{n},{label[0]}{n},{sides[n % len(sides)]}")
    project.table("split").write_text("\n".join(rows) + "\n")
    return project


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


PROBS = np.array(  # c0 … c3, then d0 … d3; the columns are cat and dog
    [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3], [0.1, 0.9], [0.3, 0.7], [0.95, 0.05], [0.4, 0.6]]
)


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


# --- a fastai learner, untrained: it only has to judge ------------------------------------------------------------


@pytest.fixture(scope="module")
def vision():
    return pytest.importorskip("fastai.vision.all")


def make_learner(vision, folder: Path, *, table: bool = False, augment: bool = False):
    """Return a learner on cats (red) and dogs (blue), from paths or from the rows of a DataFrame."""
    import pandas as pd
    import torch

    paths = [draw(folder / label / f"{label}{n}.jpg", colour) for label, colour in
             (("cat", (200, 30, 30)), ("dog", (30, 30, 200))) for n in range(4)]  # fmt: skip
    tfms = {"item_tfms": vision.Resize(32), "bs": 4, "num_workers": 0}
    if augment:
        tfms["batch_tfms"] = vision.aug_transforms(max_lighting=0.9, p_lighting=1.0)
    splitter = vision.FuncSplitter(lambda item: str(getattr(item, "file", item)).endswith(("1.jpg", "3.jpg")))
    if table:
        items = pd.DataFrame({"file": [str(path) for path in paths], "label": [path.parent.name for path in paths]})
        valid = [n for n, path in enumerate(paths) if path.stem[-1] in "13"]
        block = vision.DataBlock(
            blocks=(vision.ImageBlock, vision.CategoryBlock), get_x=vision.ColReader("file"),
            get_y=vision.ColReader("label"), splitter=vision.IndexSplitter(valid), item_tfms=tfms["item_tfms"],
        )  # fmt: skip
        dls = block.dataloaders(items, bs=4, num_workers=0)
    else:
        block = vision.DataBlock(
            blocks=(vision.ImageBlock, vision.CategoryBlock), get_y=vision.parent_label, splitter=splitter,
            item_tfms=tfms["item_tfms"], batch_tfms=tfms.get("batch_tfms"),
        )  # fmt: skip
        dls = block.dataloaders(paths, bs=4, num_workers=0)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
    return vision.Learner(dls, model, loss_func=vision.CrossEntropyLossFlat(), path=folder)


# --- fastai's defects ----------------------------------------------------------------------------------------------


def test_flags_survive_category_switch(project):
    """1: a flag is there again after the category and the side were switched and switched back."""
    cleaner = ImageClassifierCleaner(project=project)
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


def test_wrong_file_is_never_deleted_when_a_thumbnail_fails(vision, tmp_path):
    """2: with a broken file in the next category, fastai's own loop deletes the flagged file and no other."""
    learn = make_learner(vision, tmp_path)
    (tmp_path / "dog" / "dog0.jpg").write_bytes(b"no picture")
    cleaner = ImageClassifierCleaner(learn)
    fns = cleaner.fns
    card_of(cleaner, "cat2").menu.value = MENU_DELETE
    cleaner.dd_cats.value = "dog"
    card_of(cleaner, "dog2").menu.value = "cat"
    assert cleaner.change() == [(cleaner.fns.index(tmp_path / "dog" / "dog2.jpg"), "cat")]
    for idx in cleaner.delete():
        cleaner.fns[idx].unlink()
    assert sorted(path.stem for path in tmp_path.rglob("*.jpg")) == [
        "cat0", "cat1", "cat3", "dog0", "dog1", "dog2", "dog3"
    ]  # fmt: skip
    assert cleaner.fns is fns


def test_a_second_apply_does_nothing(vision, tmp_path, project):
    """3: running the loop over delete() twice touches no missing file, and a second Apply moves nothing."""
    cleaner = ImageClassifierCleaner(make_learner(vision, tmp_path / "plain"))
    card_of(cleaner, "cat0").menu.value = MENU_DELETE
    for _ in range(2):
        for idx in cleaner.delete():
            cleaner.fns[idx].unlink()
    ours = ImageClassifierCleaner(project=project)
    card_of(ours, "c0").menu.value = "dog"
    ours.apply.click()
    ours.apply.click()
    assert len(Ledger(project).table()) == 1
    assert "nothing to apply" in ours.message.value


def test_a_name_collision_overwrites_nothing(project):
    """4: where the name is taken in the trash, Apply leaves both files, says so, and keeps the flag."""
    taken = project.trash / "cat" / "c0.jpg"
    draw(taken, (0, 0, 0))
    before = taken.read_bytes()
    cleaner = ImageClassifierCleaner(project=project)
    card_of(cleaner, "c0").menu.value = MENU_DELETE
    cleaner.apply.click()
    assert "c0 was left" in cleaner.message.value
    assert taken.read_bytes() == before
    assert (project.images / "cat" / "c0.jpg").exists()
    assert card_of(cleaner, "c0").menu.value == MENU_DELETE


def test_own_label_is_not_offered(project):
    """5: a picture's own label is no choice, and "kept" differs from "not looked at"."""
    cleaner = ImageClassifierCleaner(project=project)
    assert card_of(cleaner, "c0").menu.options == (UNSEEN, MENU_KEEP, MENU_DELETE, "dog")
    card_of(cleaner, "c0").menu.value = MENU_KEEP
    assert read_review(project) == {"c0": "Keep"}
    assert (card_of(cleaner, "c0").menu.value, card_of(cleaner, "c2").menu.value) == (MENU_KEEP, UNSEEN)
    assert (cleaner.delete(), cleaner.change()) == ([], [])


def test_prediction_probability_and_loss_are_shown(project):
    """6: a card tells label, prediction, probability, loss, side and file; worst first, disagreement in bold."""
    cleaner = ImageClassifierCleaner(project=project, probs=PROBS)
    assert on_screen(cleaner) == ["c2", "c0"]
    caption = cleaner.cards[0].caption.value
    for part in ("c2.jpg", "filed as cat", "<b>model: dog 80%</b>", f"loss {-np.log(0.2):.2f}", "Train"):
        assert part in caption


def test_all_pictures_can_be_paged_through(tmp_path):
    """7: every picture of a category comes up once, max_n a page, and the page says how many there are."""
    project = make_project(tmp_path, per_label=7, sides=("train",))
    cleaner = ImageClassifierCleaner(project=project, max_n=3)
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
    cleaner = ImageClassifierCleaner(project=make_project(tmp_path, sides=("train",)), max_n=2)
    seen = []
    cleaner.grid.observe(lambda change: seen.append(len(change["new"])), "children")
    cleaner.next.click()
    assert seen == [0, 2]


def test_scores_come_through_the_validation_transforms(vision, tmp_path):
    """8: the training side's figures are the same each time, and those of the plain picture."""
    plain = make_learner(vision, tmp_path)
    augmented = make_learner(vision, tmp_path, augment=True)
    paths = [Path(item) for item in plain.dls.train_ds.items]
    first, second = (learner_probs(augmented, paths, ["cat", "dog"]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, learner_probs(plain, paths, ["cat", "dog"]), atol=1e-6)


def test_widget_count_is_flat(project):
    """9: after the first two pages, switching makes no widget more."""
    cleaner = ImageClassifierCleaner(project=project)
    counts = []
    for _ in range(10):
        for category in ("dog", "cat"):
            cleaner.dd_cats.value = category
        counts.append(live_widgets())
    assert len(set(counts[1:])) == 1


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_a_broken_file_blocks_nothing(project, content):
    """10: an empty, broken or missing file is a grey card with the reason; it can be flagged, and so can the others."""
    path = project.images / "cat" / "c0.jpg"
    if content is not None:
        path.write_bytes(content)
    cleaner = ImageClassifierCleaner(project=project)
    if content is None:
        path.unlink()
        cleaner.show()
    assert on_screen(cleaner) == ["c0", "c2"]
    assert colour_of(cleaner.cards[0]) == (200, 200, 200)
    assert colour_of(cleaner.cards[1]) == (200, 30, 30)
    reason = {b"": "empty file", b"no picture": "not a picture", None: "There is no picture"}[content]
    assert reason in cleaner.cards[0].caption.value
    card_of(cleaner, "c2").menu.value = MENU_DELETE
    assert read_review(project) == {"c2": "Delete"}


def test_a_truncated_file_blocks_no_scoring(vision, tmp_path):
    """10: a learner judges the other pictures; the truncated one is shown without a prediction."""
    learn = make_learner(vision, tmp_path)
    path = tmp_path / "cat" / "cat0.jpg"
    path.write_bytes(path.read_bytes()[:300])
    cleaner = ImageClassifierCleaner(learn)
    assert sorted(on_screen(cleaner)) == ["cat0", "cat2"]
    assert "no prediction" in card_of(cleaner, "cat0").caption.value
    assert "loss" in card_of(cleaner, "cat2").caption.value


def test_an_empty_selection_says_so(project):
    """11: a category without pictures on a side is told in words."""
    cleaner = ImageClassifierCleaner(project=project)
    cleaner.dd_ds.value = "Test"
    assert on_screen(cleaner) == []
    assert cleaner.message.value == "No pictures here: cat, Test."
    cleaner.dd_ds.value = "Train"
    assert cleaner.message.value == ""


def test_dataframe_items(vision, tmp_path):
    """12: a learner made from a DataFrame gives its files, labels and sides."""
    cleaner = ImageClassifierCleaner(make_learner(vision, tmp_path, table=True))
    assert sorted(on_screen(cleaner)) == ["cat0", "cat2"]
    assert all(isinstance(path, Path) and path.exists() for path in cleaner.fns)
    assert "loss" in cleaner.cards[0].caption.value


def test_a_loaded_learner(vision, tmp_path):
    """13: a learner from load_learner judges a project's pictures; alone it is refused with the way out."""
    project = make_project(tmp_path / "project")
    learn = make_learner(vision, tmp_path / "plain")
    learn.dls = learn.dls.new_empty()
    cleaner = ImageClassifierCleaner(learn, project=project)
    assert "loss" in cleaner.cards[0].caption.value
    with pytest.raises(FieldguideError, match="project=project"):
        ImageClassifierCleaner(learn)


def test_display_needs_no_builtin(project, monkeypatch):
    """14: the widget is displayed through an imported `display`, outside IPython as well."""
    shown = []
    monkeypatch.setattr(cleaner_module, "display", shown.append)
    cleaner = ImageClassifierCleaner(project=project)
    cleaner._ipython_display_()
    assert shown == [cleaner.widget]


def test_flags_survive_a_kernel_restart(project):
    """15: what another process flagged is shown by a new cleaner."""
    code = (
        "import sys; from utils.project import Project; from utils.cleaner import ImageClassifierCleaner as Cleaner\n"
        "cleaner = Cleaner(project=Project.model_validate_json(sys.argv[1])); cleaner.cards[0].menu.value = 'dog'"
    )
    subprocess.run(
        [sys.executable, "-c", code, project.model_dump_json()], cwd=Path(__file__).parents[1], check=True
    )  # fmt: skip
    cleaner = ImageClassifierCleaner(project=project)
    assert card_of(cleaner, "c0").menu.value == "dog"
    assert cleaner.change() == [(0, "dog")]


# --- and beyond ----------------------------------------------------------------------------------------------------


def test_a_late_choice_finds_its_picture(tmp_path):
    """A choice that was on its way while the page turned flags the picture it was made for, not the one now there."""
    project = make_project(tmp_path, per_label=6, sides=("train",))
    cleaner = ImageClassifierCleaner(project=project, max_n=2)
    menu = cleaner.cards[0].menu
    cleaner.next.click()
    menu.value = MENU_DELETE
    assert on_screen(cleaner) == ["c2", "c3"]
    assert read_review(project) == {"c0": "Delete"}
    assert cleaner.cards[0].menu.value == UNSEEN


def test_suspects_come_first_across_labels(project):
    """With an order, the list of suspects opens first: worst first, of every label and side."""
    cleaner = ImageClassifierCleaner(project=project, probs=PROBS, order=[6, 2, 7])
    assert (cleaner.dd_cats.value, cleaner.dd_ds.value) == (SUSPECTS, ALL_SIDES)
    assert on_screen(cleaner) == ["d2", "c2", "d3"]
    cleaner.dd_ds.value = "Valid"
    assert on_screen(cleaner) == ["d3"]


def test_apply_moves_files_and_shows_them_where_they_are(project):
    """Apply moves what is flagged, says so and what to run, logs the prediction, and `fns` stays the same."""
    cleaner = ImageClassifierCleaner(project=project, probs=PROBS)
    fns = cleaner.fns
    card_of(cleaner, "c2").menu.value = "dog"
    card_of(cleaner, "c0").menu.value = MENU_DELETE
    cleaner.apply.click()
    assert "Moved 1 to another label and 1 to the trash. Run 04 and 05 again" in cleaner.message.value
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
    assert cleaner.fns is fns
    assert cleaner.counts.value.startswith("0 of 7 looked at")


def test_a_flag_taken_back_is_taken_from_disk(project):
    """Setting the menu back to "not looked at" removes the flag."""
    cleaner = ImageClassifierCleaner(project=project)
    card_of(cleaner, "c0").menu.value = MENU_DELETE
    card_of(cleaner, "c0").menu.value = UNSEEN
    assert read_review(project) == {}
    assert cleaner.delete() == []


def test_a_flag_that_cannot_be_stored_is_told(project):
    """Where the file is gone from the training set, the menu shows again what is stored, and why."""
    cleaner = ImageClassifierCleaner(project=project)
    (project.images / "cat" / "c0.jpg").unlink()
    card_of(cleaner, "c0").menu.value = MENU_DELETE
    assert card_of(cleaner, "c0").menu.value == UNSEEN
    assert "not in the training set" in cleaner.message.value


def test_counts_are_in_view(project):
    """The counts cover all pictures, whichever are shown."""
    cleaner = ImageClassifierCleaner(project=project)
    card_of(cleaner, "c0").menu.value = MENU_DELETE
    cleaner.dd_cats.value = "dog"
    card_of(cleaner, "d0").menu.value = "cat"
    assert cleaner.counts.value == "2 of 8 looked at: 0 to keep, 1 to delete, 1 to move"


def test_a_flag_frames_its_card(project):
    """A card's frame tells keep, delete and move apart, follows the menu, and goes with its picture."""
    cleaner = ImageClassifierCleaner(project=project)

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
    caption = cleaner_module._caption(Cleaning([picture], ["cat & dog"]), 0, "<i>broken</i>")
    for part in ("filed as cat &amp; dog<br>", "&lt;b&gt;x.jpg", "&lt;i&gt;broken"):
        assert part in caption


def test_a_thousand_labels(tmp_path):
    """With 1,000 labels each card offers the other 999."""
    names = ["cat", "dog", *(f"label{n:03}" for n in range(998))]
    cleaner = ImageClassifierCleaner(project=make_project(tmp_path, labels=names))
    assert len(cleaner.cards[0].menu.options) == 3 + 999
    cleaner.cards[0].menu.value = "label997"
    assert cleaner.change() == [(0, "label997")]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"probs": np.ones((3, 2))}, r"\(3, 2\); expected \(8, 2\)"),
        ({"order": [8]}, "order holds 8"),
        ({"opts": ["fish"]}, "'fish'"),
        ({"max_n": 0}, "max_n = 0"),
    ],
)
def test_wrong_arguments_are_refused(project, options, part):
    """A wrong argument is refused with its value and what was expected."""
    with pytest.raises(FieldguideError, match=part):
        ImageClassifierCleaner(project=project, **options)


def test_nothing_to_clean_is_refused():
    """Without a learner and without a project there is nothing to show."""
    with pytest.raises(FieldguideError, match="give a learner"):
        ImageClassifierCleaner()


def test_a_learner_of_other_labels_is_refused(project):
    """A learner that tells other labels apart cannot judge these pictures."""
    learn = SimpleNamespace(dls=SimpleNamespace(vocab=["cat", "cow"]))
    with pytest.raises(FieldguideError, match="cat, cow"):
        ImageClassifierCleaner(learn, project=project)


def test_columns_follow_the_labels(vision, tmp_path):
    """Probabilities are returned in the order of the labels asked for, whatever the learner's vocabulary is."""
    learn = make_learner(vision, tmp_path)
    paths = [tmp_path / "cat" / "cat0.jpg", tmp_path / "dog" / "dog0.jpg"]
    np.testing.assert_array_equal(
        learner_probs(learn, paths, ["dog", "cat"]), learner_probs(learn, paths, ["cat", "dog"])[:, ::-1]
    )


def test_an_empty_project_says_so(tmp_path):
    """A project without pictures opens, and says that there are none."""
    cleaner = ImageClassifierCleaner(project=make_project(tmp_path, per_label=0))
    assert cleaner.fns == ()
    assert "No pictures here" in cleaner.message.value


def test_a_long_summary_is_cut():
    """Of many refusals five are told in full, the rest counted."""
    text = summary([Outcome(f"p{n}", "cat", "dog", False, "taken") for n in range(8)])
    assert text.count("was left: taken") == 5
    assert "3 more" in text


def test_importing_needs_no_torch():
    """The cleaner opens without torch or fastai where probabilities are given."""
    code = "import sys, utils.cleaner; sys.exit(any(name in sys.modules for name in ('torch', 'fastai')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


def test_dropdowns_hold_no_none(project):
    """No menu has None as a value: some front ends cannot send it."""
    cleaner = ImageClassifierCleaner(project=project)
    menus = [cleaner.dd_cats, cleaner.dd_ds, *(card.menu for card in cleaner.cards if card.menu)]
    assert all(isinstance(menu, ipywidgets.Dropdown) and None not in menu.options for menu in menus)
