"""02's list of photos without a label: proposals, few keys, and no photo lost whatever happens in between."""

import numpy as np
import pytest
from conftest import draw_picture, picture_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.clean import Cleaning, Proposals
from utils.dataset import read_dataset
from utils.storage import content_id, write_whole
from utils.verify import labelling, verify_images
from utils.verify.labelling import CERTAIN, NEEDED, UNCERTAIN, UNLABELLED, LabelGrid
from utils.verify.sorting import outside_pictures

LABELS = ("ant", "bee", "cat")
SAME = picture_bytes(draw_picture(1))
SMALL = picture_bytes(draw_picture(2, size=(30, 30)))


def clusters(codes: np.ndarray, *, apart: float = 1.5, seed: int = 0) -> np.ndarray:
    """Return features (N, 24) of pictures drawn around their labels' centres."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, 24)) * apart
    return (centres[codes] + rng.normal(size=(len(codes), 24))).astype(np.float32)


def grid_of(project, features=None, *, most=48) -> LabelGrid:
    dataset = read_dataset(project)
    cleaning = Cleaning(list(dataset), list(project.labels), project=project, outside=outside_pictures, bring=None)
    if callable(features):
        features = features(cleaning)
    options = {"labels": list(project.labels), "height": 60, "width": 60, "max_n": most}
    return LabelGrid(cleaning, features=features, **options)


def ask(grid, what, **details):
    return grid.answer({"ask": what, "view": "v", "serial": 1, **details})[0]


def turn(grid, page=0, list=UNLABELLED, sort=CERTAIN):
    return ask(grid, "page", page=page, list=list, label="", side="", show="", sort=sort)


def put_unsorted(project, *pictures) -> list[str]:
    for data in pictures:
        write_whole(project.unsorted / f"{content_id(data)}.jpg", data)
    return [content_id(data) for data in pictures]


@pytest.fixture
def project(make_project):
    """A project of three labels, none of them with a picture."""
    return make_project(labels={label: [label] for label in LABELS})


class Person:
    """Who labels all photos: counts the keys that the browser's half would need for it."""

    def __init__(self, grid, truth):
        self.grid, self.truth, self.keys, self.page = grid, truth, 0, turn(grid)

    def press(self, labels):
        self.keys += 1
        answer = ask(self.grid, "file", labels=labels)
        for card in self.page["cards"]:
            card["choice"] = answer["choices"][card["key"]]
            if not card["choice"]:
                card["proposed"] = answer["proposals"][card["key"]]

    def label_page(self):
        """Press Enter where the proposal is right, else the label's number."""
        for card in self.page["cards"]:
            self.press({card["key"]: self.truth[card["key"]]})

    def label_page_at_once(self):
        """Go to each wrong proposal, an arrow per card, press its number, and Shift + Enter for all others."""
        at = 0
        for place, card in enumerate(self.page["cards"]):
            if not card["proposed"] or card["proposed"][0] != self.truth[card["key"]]:
                self.keys += abs(place - at)
                at = place + 1  # a number goes on to the next card
                self.press({card["key"]: self.truth[card["key"]]})
        if rest := {card["key"]: card["proposed"][0] for card in self.page["cards"] if not card["choice"]}:
            self.press(rest)


@pytest.mark.parametrize(("way", "per", "most"), [("label_page", 12, 330), ("label_page_at_once", 7, 150)])
def test_300_photos_of_3_labels_take_few_keys(make_project, monkeypatch, way, per, most):
    """
    From 5 examples of each label; all photos get their right label. A screen of 1366×768 shows 7 photos per page.

    A key is a key pressed: Enter, Shift + Enter, a number, an arrow, and the Enter that turns the page.
    """
    project = make_project(labels={label: [label] for label in LABELS})
    codes = np.arange(315) % 3
    ids = [f"{n:016x}" for n in range(315)]
    for n, id in enumerate(ids):
        folder = project.images / LABELS[codes[n]] if n < 15 else project.unsorted
        write_whole(folder / f"{id}.jpg", b"no picture is opened here")
    features = clusters(codes)
    grid = grid_of(project, lambda cleaning: features[[ids.index(one.id) for one in cleaning.pictures]], most=per)
    monkeypatch.setattr(grid._thumbnails, "draw", lambda paths: [type("Small", (), {"problem": "x"})] * len(paths))
    person = Person(grid, {id: LABELS[codes[n]] for n, id in enumerate(ids)})
    while True:
        getattr(person, way)()
        if person.page["page"] == person.page["pages"] - 1:
            break
        person.keys += 1
        person.page = turn(grid, person.page["page"] + 1)
    filed = {path.stem: path.parent.name for path in project.raw.glob("*/*")}
    assert filed == {id: LABELS[codes[n]] for n, id in enumerate(ids) if n >= 15}
    assert person.keys <= most, person.keys


def test_the_order_is_that_of_the_menu_and_what_was_shown_stays(project):
    """Most or least certain first; a label changes the proposals, and no card of the page."""
    ids = put_unsorted(project, *(picture_bytes(draw_picture(n)) for n in range(20, 32)))
    codes = np.arange(12) % 3
    grid = grid_of(project, lambda cleaning: clusters(codes, apart=0.4), most=6)
    first = ask(grid, "hello")
    assert first["chosen"]["sort"] == CERTAIN and first["alert"] == NEEDED
    keys = [card["key"] for card in first["cards"]]
    places = [grid.cleaning.positions[key] for key in keys]
    for place, key in zip(places[:4], keys[:4], strict=True):
        answer = ask(grid, "file", labels={key: LABELS[codes[place]]})
    assert answer["proposals"].keys() == set(keys[4:]) and all(answer["proposals"].values())
    again = turn(grid)
    assert [card["key"] for card in again["cards"]] == keys
    rest = [card["key"] for card in turn(grid, 1)["cards"]]
    assert set(rest) == set(ids) - set(keys)
    chances = grid._proposals.probability[[grid.cleaning.positions[key] for key in rest]]
    assert (np.diff(chances) <= 0).all()
    least = turn(grid, sort=UNCERTAIN)["cards"]
    chances = grid._proposals.probability[[grid.cleaning.positions[card["key"]] for card in least]]
    assert (np.diff(chances) >= 0).all()


def test_what_is_filed_is_judged_later_and_what_is_set_aside_is_told(project):
    """A label moves the photo's file at once; the pause judges it, and the card says what became of it."""
    good, small = put_unsorted(project, SAME, SMALL)
    grid = grid_of(project)
    turn(grid)
    answer = ask(grid, "file", labels={good: "bee", small: "bee"})
    assert answer["choices"] == {good: "bee", small: "bee"} and answer["unjudged"] == 2
    assert {path.stem for path in (project.raw / "bee").iterdir()} == {good, small}
    assert not project.images.exists()
    cards = turn(grid, sort="File name")["cards"]
    assert [(card["choice"], card["problem"]) for card in cards] == [("bee", "")] * 2
    told = ask(grid, "settle")
    assert told["alert"].startswith("1 photo came into the training set. 1 photo set aside: too small: 30×30")
    cards = {card["key"]: card for card in told["cards"]}
    assert cards[good]["label"] == "bee" and cards[small]["outside"]["list"] == "Set aside: too small"
    assert told["unjudged"] == 0
    assert "were judged since" in ask(grid, "undo")["alert"]


def test_undo_and_another_number_move_the_photo_until_it_is_judged(project):
    """Back to the label before, and then back to where it came from, with its bytes."""
    (id,) = put_unsorted(project, SAME)
    grid = grid_of(project)
    ask(grid, "file", labels={id: "bee"})
    ask(grid, "file", labels={id: "cat"})
    assert [path.parent.name for path in project.raw.glob("*/*")] == ["cat"]
    assert ask(grid, "undo")["choices"] == {id: "bee"}
    assert ask(grid, "undo")["choices"] == {id: None}
    assert (project.unsorted / f"{id}.jpg").read_bytes() == SAME
    assert "no choice to undo" in ask(grid, "undo")["alert"]


def test_a_photo_that_is_gone_stops_no_other(project):
    """It is named; the others of the page are filed."""
    gone, there = put_unsorted(project, SAME, SMALL)
    grid = grid_of(project)
    turn(grid)
    (project.unsorted / f"{gone}.jpg").unlink()
    answer = ask(grid, "file", labels={gone: "bee", there: "ant"})
    assert f"{gone}.jpg is not in" in answer["alert"] and answer["choices"] == {gone: None, there: "ant"}


def test_a_kill_before_judging_is_made_good(project):
    """The next run of 02 judges what was filed; the killed kernel's grid does not take it back then."""
    (id,) = put_unsorted(project, SAME)
    grid = grid_of(project)
    ask(grid, "file", labels={id: "bee"})
    assert verify_images(project).added == 1
    assert read_dataset(project)[id].label == "bee"
    assert "was judged under bee meanwhile" in ask(grid, "undo")["alert"]
    assert read_dataset(project)[id].label == "bee"


@pytest.mark.parametrize(
    "labels", [None, [], {}, {"strange": "bee"}, {"ID": "wasp"}, {"ID": None}, {"ID": ["bee"]}, {"ID": "Keep"}]
)
def test_a_bad_message_files_nothing(project, labels):
    """It is answered with an alert."""
    (id,) = put_unsorted(project, SAME)
    labels = {id if key == "ID" else key: label for key, label in labels.items()} if type(labels) is dict else labels
    assert ask(grid_of(project), "file", labels=labels)["alert"]
    assert (project.unsorted / f"{id}.jpg").exists()


def test_probabilities_are_calibrated_and_unknown_pictures_have_none():
    """Of overlapping clusters: the mean probability is near the share of right ones; one label proposes nothing."""
    codes = np.repeat([0, 1, 2], 400)
    features = clusters(codes, apart=0.35)
    features[5] = np.nan
    proposals = Proposals(features)
    known = np.where(np.arange(1200) % 4 == 0, codes, -1)
    proposals.learn(np.where(known == 0, 0, -1), now=True)
    assert (proposals.label == -1).all()
    proposals.learn(known, now=True)
    asked = (known < 0) & (np.arange(1200) != 5)
    right = (proposals.label == codes)[asked].mean()
    assert 0.6 < right < 0.95 and abs(proposals.probability[asked].mean() - right) < 0.06
    assert proposals.label[5] == -1 and proposals.arranged([5, 1, 2], certain=False)[-1] == 5


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["ant", "bee", "undo", "settle", "kill"]), max_size=8))
def test_no_photo_is_lost(tmp_path_factory, steps):
    """Whatever is pressed, and wherever the kernel dies, the photo's bytes lie in one place."""
    from utils.project import Project

    folder = tmp_path_factory.mktemp("lost")
    where = {"data_dir": str(folder / "data"), "models_dir": str(folder / "models")}
    project = Project.model_validate({"name": "t", "labels": {label: [label] for label in LABELS}, **where})
    (id,) = put_unsorted(project, SAME)
    grid = grid_of(project)
    for step in steps:
        if step in LABELS:
            ask(grid, "file", labels={id: step})
        elif step == "kill":
            grid = grid_of(project)
        else:
            ask(grid, step)
        found = [*project.unsorted.glob("*"), *project.raw.glob("*/*")]
        assert [path.read_bytes() for path in found] == [SAME]
    labelling.verify_images(project)
