"""The map: alike pictures together, the same places each time, a cache that may break, and hostile messages."""

import json

import numpy as np
import pytest
from cleaning_pictures import make_project
from test_grid import ask

from utils.clean import layout
from utils.clean.cleaner import ImageClassifierCleaner
from utils.clean.layout import kept_layout, picture_layout
from utils.clean.picture_map import NOWHERE

COUNT = 24
SIDES = ["cat"] * 12 + ["dog"] * 12


def seen(count: int = COUNT) -> np.ndarray:
    """Return features of two kinds, half of each; the first cat looks like a dog."""
    features = np.random.default_rng(0).normal(size=(count, 16)) + 6 * (np.arange(count) >= count // 2)[:, None]
    features[0] += 6
    return features.astype(np.float32)


@pytest.fixture
def cleaner(tmp_path):
    project = make_project(tmp_path, per_label=COUNT // 2)
    features = seen()
    features[-1] = np.nan
    return ImageClassifierCleaner(project=project, features=features, max_n=6)


@pytest.fixture
def no_computing(monkeypatch):
    """Have a test fail that computes places anew."""
    monkeypatch.setattr(layout, "picture_layout", lambda features: pytest.fail("computed anew"))


# --- places --------------------------------------------------------------------------------------------------------


def test_alike_pictures_lie_together():
    """The nearest neighbour of each of 80 pictures of two kinds is of its kind; all lie in the unit square."""
    features = seen(80)[1:]
    places = picture_layout(features)
    apart = np.linalg.norm(places[:, None] - places, axis=2) + np.eye(79)
    assert ((apart.argmin(1) >= 39) == (np.arange(79) >= 39)).all()
    assert places.min() >= 0 and places.max() <= 1 and np.ptp(places) > 0.9


@pytest.mark.parametrize("count", [0, 1, 2, 9, 10])
def test_few_pictures_have_places_too(count):
    """However few pictures there are, or many alike, each has a place, and the same one each time."""
    for features in (seen(12)[:count], np.ones((count, 16), np.float32)):
        places = picture_layout(features)
        assert places.shape == (count, 2) and ((places >= 0) & (places <= 1)).all()
        assert (picture_layout(features) == places).all()


def test_unknown_pictures_have_no_place():
    """A row of NaN gives NaN, and moves no other picture."""
    features = seen()
    holes = np.insert(features, 5, np.nan, axis=0)
    places = picture_layout(holes)
    assert np.isnan(places[5]).all() and (np.delete(places, 5, axis=0) == picture_layout(features)).all()


# --- the cache -----------------------------------------------------------------------------------------------------


def test_places_are_kept_and_read(tmp_path, no_computing, monkeypatch):
    """The second time nothing is computed; in another order, or when some are gone, each keeps its place."""
    ids, features = [f"p{n}" for n in range(COUNT)], seen()
    monkeypatch.undo()
    places = kept_layout(tmp_path, ids, features)
    monkeypatch.setattr(layout, "picture_layout", lambda features: pytest.fail("computed anew"))
    assert (kept_layout(tmp_path, ids, features) == places).all()
    some = np.random.default_rng(1).permutation(COUNT)[: COUNT // 2]
    assert (kept_layout(tmp_path, [ids[n] for n in some], features[some]) == places[some]).all()
    assert [path.name for path in tmp_path.iterdir()] == ["map.npz"]


def test_new_pictures_and_few_left_are_arranged_anew(tmp_path):
    """A picture not seen before, changed features, or less than half of the pictures: all places are computed anew."""
    ids, features = [f"p{n}" for n in range(9)], seen(9)
    kept_layout(tmp_path, ids, features)
    for names, rows in (
        (["new", *ids[1:]], features),
        (ids, features + 1),
        (ids[:4], (features + 1)[:4]),
    ):
        before = (tmp_path / "map.npz").read_bytes()
        assert (kept_layout(tmp_path, names, rows) == picture_layout(rows)).all()
        assert (tmp_path / "map.npz").read_bytes() != before


def broken_files(whole: bytes, path) -> list[bytes]:
    """Return what may lie in the place of the file."""
    keys, places = (np.load(path)[name] for name in ("keys", "places"))
    found = [b"", b"no archive", whole[: len(whole) // 2]]
    for other in (
        {"form": 99, "keys": keys, "places": places},
        {"form": 1, "keys": keys, "places": places + 5},
        {"form": 1, "keys": keys, "places": places * np.nan},
        {"form": 1, "keys": keys, "places": places[:3]},
        {"form": 1, "keys": np.array([{}], dtype=object), "places": places},
        {"keys": keys},
    ):
        np.savez(path, **other)
        found.append(path.read_bytes())
    np.savez_compressed(path, form=1, keys=keys, places=places, much=np.zeros(10_000))
    return [*found, path.read_bytes()]


def test_a_broken_or_foreign_file_is_written_anew(tmp_path, monkeypatch):
    """Cut short, of another form, with places outside the map, pickled or huge: none is believed, the next is whole."""
    monkeypatch.setattr(layout, "LARGEST_LAYOUT", 10_000)
    ids, features = [f"p{n}" for n in range(9)], seen(9)
    path = tmp_path / "map.npz"
    places = kept_layout(tmp_path, ids, features)
    whole = path.read_bytes()
    for data in broken_files(whole, path):
        path.write_bytes(data)
        assert (kept_layout(tmp_path, ids, features) == places).all()
        assert path.read_bytes() == whole


# --- messages ------------------------------------------------------------------------------------------------------


def test_hello_brings_places_colours_and_rings(cleaner):
    """A view gets each picture's place, label and ring; one that cannot be read is not on the map, and counted."""
    message, (places, codes, marks) = cleaner.map().answer({"ask": "hello"})
    assert (message["tell"], message["labels"]) == ("map", ["cat", "dog"])
    assert message["note"] == "Nothing is known of how 1 picture looks, so it is not on the map."
    assert np.frombuffer(codes, "<u2").tolist() == [0] * 12 + [1] * 11 + [NOWHERE]
    assert np.flatnonzero(np.frombuffer(marks, "u1")).tolist() == [0]  # the cat that looks like a dog
    found = np.frombuffer(places, "<f4").reshape(-1, 2)
    assert np.isnan(found[-1]).all() and not np.isnan(found[:-1]).any()


def test_a_point_is_told_as_on_its_card(cleaner):
    """File, folder and choice come as text, with a thumbnail."""
    ask(cleaner.widget, "flag", keys=["c0"], choice="dog")
    message, (jpeg,) = cleaner.map().answer({"ask": "point", "n": 0})
    assert (message["file"], message["told"]) == ("c0.jpg", "Folder: cat. Move to dog.")
    assert jpeg[:2] == b"\xff\xd8"


def test_a_picture_that_was_deleted_says_so(cleaner):
    """Pointed at after its file was deleted, a picture is named, with what is wrong in place of the thumbnail."""
    chart = cleaner.map()
    cleaner.fns[3].unlink()
    message, buffers = chart.answer({"ask": "point", "n": 3})
    assert (message["tell"], message["file"], buffers) == ("point", cleaner.fns[3].name, []) and message["problem"]


def test_cells_run_again_share_one_map(cleaner):
    """A cell that is run again shows the map that is there, so that choices are followed once."""
    assert cleaner.map() is cleaner.map() and len(cleaner.widget.followers) == 1


def test_what_is_drawn_around_fills_the_grid(cleaner, monkeypatch):
    """Each view of the grid gets the pictures, the wrong-looking first; a second time the list is replaced."""
    sent = []
    monkeypatch.setattr(cleaner.widget, "send", lambda message, buffers: sent.append(message))
    chart = cleaner.map()
    message, _ = chart.answer({"ask": "fill", "points": [13, 5, 0, 5]})
    assert message["alert"] == "3 pictures shown in the cleaner, worst first."
    assert sent[0]["chosen"]["list"] == "From the map" and sorted(cleaner.widget._selected) == [0, 5, 13]
    assert cleaner.widget._selected[0] == 0
    chart.answer({"ask": "fill", "points": [7]})
    assert (cleaner.widget._selected, len(cleaner.cleaning.lists)) == ([7], 1)
    assert ask(cleaner.widget, "leave")["chosen"]["list"] == ""
    json.dumps(sent)


def test_choices_change_the_points(cleaner, monkeypatch):
    """A picture that is moved has another colour and no ring, a deleted one goes; others are not sent."""
    chart, sent = cleaner.map(), []
    monkeypatch.setattr(chart, "send", lambda message, buffers: sent.append((message, buffers)))
    monkeypatch.setattr(cleaner.widget, "send", lambda message, buffers: None)
    for keys, choice in ((["c0"], "dog"), (["d0"], "Delete")):
        cleaner.widget._receive(None, {"ask": "flag", "keys": keys, "choice": choice}, [])
    assert [message for message, _ in sent] == [{"tell": "changed"}] * 2
    (which, codes, marks), gone = sent[0][1], sent[1][1]
    assert np.frombuffer(which, "<u4")[0] == 0 and codes[:2] == b"\1\0" and marks[:1] == b"\0"
    assert 12 in np.frombuffer(gone[0], "<u4") and NOWHERE in np.frombuffer(gone[1], "<u2")
    assert len(np.frombuffer(which, "<u4")) < COUNT
    cleaner.apply()
    assert chart.answer({"ask": "hello"})[1][1] == chart._now()[0].astype("<u2").tobytes()


@pytest.mark.parametrize(
    "content",
    [
        None,
        "hello",
        {},
        {"ask": "__init__"},
        {"ask": ["fill"]},
        {"ask": "point", "n": COUNT},
        {"ask": "point", "n": -1},
        {"ask": "point", "n": True},
        {"ask": "point", "n": float("nan")},
        {"ask": "point", "n": "9" * 1_000_000},
        {"ask": "fill"},
        {"ask": "fill", "points": []},
        {"ask": "fill", "points": {"0": 1}},
        {"ask": "fill", "points": [0, float("nan")]},
        {"ask": "fill", "points": [0, COUNT]},
        {"ask": "fill", "points": [[0]]},
        {"ask": "fill", "points": [0] * 1_000_000},
    ],
)
def test_hostile_messages_are_answered_with_an_alert(cleaner, content):
    """Unknown pictures, no numbers and huge lists open nothing, and the answer is short."""
    message, buffers = cleaner.map().answer(content)
    assert (message["tell"], buffers) == ("alert", []) and 0 < len(message["alert"]) < 300
    assert not cleaner.cleaning.lists


def test_without_features_a_sentence_says_why(tmp_path):
    """There is no map, and nothing is written."""
    cleaner = ImageClassifierCleaner(project=make_project(tmp_path))
    assert cleaner.map().startswith("No map: ")
    assert not (cleaner.cleaning.project.data / "features").exists()
