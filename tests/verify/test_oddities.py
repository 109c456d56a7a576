"""02 before training: which pictures are not like the rest of their folder, and what is not judged."""

import io

import numpy as np
from conftest import draw_picture, picture_bytes
from PIL import Image

from utils.dataset import Dataset, Picture, read_dataset
from utils.project import Project
from utils.verify import find_oddities
from utils.verify.oddities import Oddity, odd_positions, relative_likeness


def drawn_features(counts: list[int], *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features (N, 64) of labels that differ, the labels' codes, and one more direction, far from all."""
    rng = np.random.default_rng(seed)
    *centres, elsewhere = np.linalg.qr(rng.normal(size=(64, len(counts) + 1)))[0].T * 8
    rows = [centre + rng.normal(0, 0.5, (count, 64)) for centre, count in zip(centres, counts, strict=True)]
    return np.concatenate(rows), np.repeat(np.arange(len(counts)), counts), elsewhere


def put(project: Project, label: str, images: list[Image.Image]) -> Dataset:
    """Put images into a label's folder as training copies, and return the data set."""
    folder = project.images / label
    folder.mkdir(parents=True, exist_ok=True)
    for n, image in enumerate(images):
        (folder / f"{list(project.labels).index(label)}{n:015x}.jpg").write_bytes(picture_bytes(image, quality=95))
    return read_dataset(project)


def found(features: np.ndarray, codes: np.ndarray) -> list[tuple[int, int | None]]:
    """Return the odd pictures' positions in order, each with the label that it is more like."""
    return sorted(odd_positions(relative_likeness(features, codes), codes))


def test_a_reason_names_the_label_that_is_like_it(make_project):
    """Or says that there is none."""
    picture = Picture("0a", make_project().images / "cat" / "0a.jpg", "cat", "0a", None)
    assert Oddity(picture, "dog").reason == "like dog"
    assert Oddity(picture, None).reason == "like no label"


def test_ordinary_folders_show_nothing():
    """Three labels of different sizes, and no picture among them is odd."""
    features, codes, _ = drawn_features([8, 20, 40])
    assert found(features, codes) == []


def test_a_wrong_label_and_junk_are_told_apart():
    """A picture of label 1 in the folder of label 0 is more like label 1; one that is like neither is like none."""
    features, codes, elsewhere = drawn_features([20, 30])
    codes[20] = 0
    features[3] = elsewhere
    assert found(features, codes) == [(3, None), (20, 1)]


def test_junk_of_one_kind_does_not_hide_itself():
    """A fifth of a folder are pictures of the same other thing: more of them than there are nearest neighbours."""
    features, codes, elsewhere = drawn_features([40, 40])
    junk = range(8)
    features[junk] = elsewhere + np.random.default_rng(1).normal(0, 0.5, (8, 64))
    assert found(features, codes) == [(n, None) for n in junk]


def test_pictures_with_nothing_in_common_are_not_all_odd():
    """Each label holds one picture ten times over: nothing is usual, and nothing fails."""
    assert found(np.ones((20, 64)), np.repeat([0, 1], 10)) == []


def test_what_is_not_judged_is_said(make_project):
    """A label of few pictures and one that cannot be read; NaN spoils nobody's judgement."""
    project = make_project()
    put(project, "cat", [draw_picture(n) for n in range(9)])
    dataset = put(project, "dog", [draw_picture(100)])
    dataset.paths[0].write_bytes(b"no picture")
    told = find_oddities(dataset).sentence
    assert told.endswith("Not judged: “dog” (fewer than 8 pictures) and 1 picture that cannot be read.")


def test_three_pictures_are_too_few(make_project):
    """And so are none: one plain sentence, and nothing to show."""
    project = make_project()
    none = find_oddities(read_dataset(project))
    few = find_oddities(put(project, "cat", [draw_picture(n) for n in range(3)]))
    assert (none.found, few.found) == ({}, {})
    sentence = "No picture stands out from its folder. Not judged: “cat” and “dog” (fewer than 8 pictures)."
    assert none.sentence == few.sentence == sentence


def test_near_duplicates_only_do_no_harm(make_project):
    """One picture saved in ten qualities under each label: whatever is said, the odd ones are pictures of the set."""
    project = make_project()
    for n, label in enumerate(project.labels):
        images = [picture_bytes(draw_picture(n), quality=quality) for quality in range(50, 60)]
        dataset = put(project, label, [Image.open(io.BytesIO(data)) for data in images])
    assert find_oddities(dataset).sentence == "No picture stands out from its folder."


def test_an_odd_picture_is_shown_with_its_id_and_what_it_is_like(make_project):
    """One of twelve bluish pictures lies among the cats: its caption, and the sentence."""
    project = make_project()
    blue = [Image.blend(draw_picture(100 + n), Image.new("RGB", (160, 120), "blue"), 0.8) for n in range(12)]
    put(project, "cat", [*(draw_picture(n) for n in range(11)), blue[0]])
    oddities = find_oddities(put(project, "dog", blue[1:]))
    found = {
        label: [f"{oddity.picture.id}\n{oddity.reason}" for oddity in odd] for label, odd in oddities.found.items()
    }
    assert found == {"cat": [f"0{11:015x}\nlike dog"]}
    told = "Not like the rest of their folder: 1 picture more like another label (perhaps filed wrongly)."
    assert oddities.sentence == told
