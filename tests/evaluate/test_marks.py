"""Marks inside the picture: found where one label has them at a corner or an edge, and not where photos just differ."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy.stats import fisher_exact

from utils.dataset import read_dataset
from utils.evaluate.marks import NOT_LOOKED_FOR, edge_structure, find_marks, mark_line, mark_sheet
from utils.intervals import wilson
from utils.pictures import jpeg_bytes
from utils.storage import write_whole
from utils.tables import SPLIT_COLUMNS, append_rows

EMPTY = {"pictures": 40, "found": []}


@pytest.fixture
def marked(make_project):
    """Return a function that fills a project with `make(label, n)`, 20 pictures per label, and gives its data set."""

    def fill(make, *, count=20, side="train", **settings):
        project = make_project(**settings)
        for k, label in enumerate(project.labels):
            for n in range(count):
                id = f"{1000 * k + n:016x}"
                write_whole(project.images / label / f"{id}.jpg", jpeg_bytes(make(label, 1000 * k + n)))
                append_rows(project.table("split"), SPLIT_COLUMNS, [{"id": id, "group": id, "side": side}])
        return read_dataset(project)

    return fill


def scene(n, *, size=(240, 180), cells=40):
    """Return a picture of coarse and fine patches, of other colours for each n."""
    rng = np.random.default_rng(n)
    layers = [rng.integers(0, 256, (c, c, 3), dtype=np.uint8) for c in (5, cells)]
    layers = [np.asarray(Image.fromarray(each).resize(size, Image.Resampling.BICUBIC)) for each in layers]
    return Image.fromarray(np.average(layers, axis=0, weights=(0.6, 0.4)).astype(np.uint8))


def dated(image, n):
    """Write a date at the lower right: other digits in each picture, at the same distance from the corner."""
    at = (image.width - 8, image.height - 6)
    text = f"{n % 28 + 1:02}/{n % 12 + 1:02}/2024"
    ImageDraw.Draw(image).text(at, text, fill=(255, 150, 0), font=ImageFont.load_default(14), anchor="rd")
    return image


def framed(image, n):
    """Draw a line around a picture."""
    ImageDraw.Draw(image).rectangle((0, 0, image.width - 1, image.height - 1), outline="black", width=2)
    return image


def stamped(image, n):
    """Lay a word at the upper left, a third opaque."""
    over = Image.new("L", image.size, 0)
    ImageDraw.Draw(over).text((6, 6), "photostock", fill=90, font=ImageFont.load_default(18))
    image.paste("white", mask=over)
    return image


@pytest.mark.parametrize(
    ("draw", "place"), [(dated, "lower right corner"), (framed, "edge"), (stamped, "upper left corner")]
)
def test_a_mark_of_one_label_is_found_at_its_place(marked, draw, place):
    """A date of other digits, a frame, a faint word on 14 of 20 dogs: label, place, counts, and who carries it."""
    dataset = marked(lambda label, n: draw(scene(n), n) if label == "dog" and n < 1014 else scene(n))
    marks = find_marks(dataset)
    (mark,) = marks["found"]
    assert (marks["pictures"], mark["label"], mark["own"]["n"], mark["others"]["n"]) == (40, "dog", 20, 20)
    assert mark["place"].endswith(place) and mark["p"] < 0.01
    assert 0.55 <= mark["own"]["value"] <= 0.7 and mark["others"]["value"] == 0
    assert set(mark["with"]) <= {f"{1000 + n:016x}" for n in range(14)} and len(mark["with"]) == 6
    assert {dataset[id].label for id in mark["without"]} == {"cat"} and len(mark["without"]) == 6
    assert find_marks(dataset) == marks


def test_others_that_carry_the_mark_count_against_it(marked):
    """A frame around all 20 dogs and 4 of 20 cats: both counts are told, and p is Fisher's."""
    dataset = marked(lambda label, n: framed(scene(n), n) if label == "dog" or n < 4 else scene(n))
    (mark,) = find_marks(dataset)["found"]
    hits, others = (round(20 * mark[key]["value"]) for key in ("own", "others"))
    assert (hits, others) == (20, 4)
    fisher = fisher_exact([[hits, 20 - hits], [others, 20 - others]], alternative="greater").pvalue
    assert mark["p"] == pytest.approx(2 * 8 * fisher, rel=1e-4)  # labels, views


def test_other_grounds_are_not_marks(marked):
    """Dogs on fine green patches, cats on coarse red ones: the labels differ everywhere and carry no mark."""

    def make(label, n):
        picture = np.asarray(scene(n, cells=60 if label == "dog" else 12)) / 2
        return Image.fromarray((picture + ((0, 90, 0) if label == "dog" else (90, 0, 0))).astype(np.uint8))

    assert find_marks(marked(make)) == EMPTY


def test_a_mark_that_all_labels_carry_tells_nothing(marked):
    """The same date on cats and dogs is no shortcut."""
    assert find_marks(marked(lambda label, n: dated(scene(n), n))) == EMPTY


def test_a_mark_that_moves_about_is_not_found(marked):
    """A word somewhere else in each picture is what the sentence says was not looked for."""

    def make(label, n):
        image, rng = scene(n), np.random.default_rng(n)
        at = tuple(rng.integers(0, (160, 160)).tolist())
        if label == "dog":
            ImageDraw.Draw(image).text(at, "photostock", fill="white", font=ImageFont.load_default(14))
        return image

    assert find_marks(marked(make)) == EMPTY


def test_the_place_counts_from_the_corner(marked):
    """Pictures of four shapes, small to large: a date at the same distance from the corner is found."""
    shapes = [(240, 180), (180, 240), (300, 160), (512, 384)]
    dataset = marked(lambda label, n: (dated if label == "dog" else lambda i, n: i)(scene(n, size=shapes[n % 4]), n))
    (mark,) = find_marks(dataset)["found"]
    assert (mark["label"], mark["place"]) == ("dog", "lower right corner") and mark["own"]["value"] >= 0.7


def test_the_marked_label_is_named_among_three(marked):
    """Of three labels only the one that carries the mark is named."""
    labels = {name: [name] for name in ("cat", "dog", "owl")}
    dataset = marked(lambda label, n: stamped(scene(n), n) if label == "owl" else scene(n), labels=labels)
    (mark,) = find_marks(dataset)["found"]
    assert (mark["label"], mark["others"]["n"]) == ("owl", 40)


@pytest.mark.parametrize(("count", "side", "read"), [(1, "train", 2), (3, "train", 6), (20, "test", 0)])
def test_too_few_pictures_are_said(marked, count, side, read):
    """One or three per label prove nothing, and the test set stays closed: no mark, and the line says why."""
    marks = find_marks(marked(lambda label, n: dated(scene(n), n), count=count, side=side))
    assert marks == {"pictures": read, "found": [], "why": "too few pictures to look for marks"}
    assert mark_line({"marks": marks}) == "No mark was looked for: too few pictures to look for marks."


def test_pictures_that_cannot_be_read_are_left_out(marked):
    """A torn file, grey files and one of a single pixel: the torn one is not counted, the others do no harm."""

    def make(label, n):
        image = dated(scene(n), n) if label == "dog" else scene(n)
        return Image.new("RGB", (1, 1)) if n == 3 else image.convert("L") if n % 5 == 0 else image

    dataset = marked(make)
    dataset.paths[0].write_bytes(dataset.paths[0].read_bytes()[:200])
    marks = find_marks(dataset)
    assert marks["pictures"] == 39 and [mark["label"] for mark in marks["found"]] == ["dog"]


def test_structure_is_what_differs_from_around():
    """A plain picture has none; a bright line at the lower edge stands in the last rows of the views below alone."""
    plain = np.full((384, 512, 3), 90, dtype=np.uint8)
    assert not edge_structure(plain).any() and edge_structure(plain).shape == (8, 48, 192, 3)
    plain[-8:] = 200
    light = edge_structure(plain)[..., 0].astype(int)
    assert not light[[0, 4, 5]].any() and not light[[1, 6, 7], :40].any()
    assert (light[[1, 6, 7], -3] > 50).all() and (light[2:4, :, -3] > 50).all()


MARK = {"label": "dog", "place": "lower edge", "own": wilson(38, 40), "others": wilson(1, 80), "p": 0.0001}


def test_the_line_says_what_was_found_and_what_was_not_looked_for():
    """A mark with its counts, no mark, and a round that an earlier version judged: one line each."""
    assert mark_line({"marks": {"pictures": 120, "found": [MARK]}}) == (
        "Shortcut! Something alike at the lower edge: 38 of 40 photos of “dog” have it, 1 of 80 others. A date, a "
        f"logo, a frame, the same ground? {NOT_LOOKED_FOR}"
    )
    assert mark_line({"marks": {"pictures": 1200, "found": []}}) == (
        f"No mark found at the corners and edges of 1,200 photos. {NOT_LOOKED_FOR}"
    )
    assert mark_line({}).startswith("No mark was looked for: an earlier version")


def test_the_sheet_shows_the_place(marked):
    """Two rows of six per mark, also of few or deleted photos; without a mark, nothing."""
    dataset = marked(lambda label, n: scene(n), count=3)
    ids = {"with": [*dataset.ids[3:], "gone"], "without": list(dataset.ids[:3])}
    dataset.paths[0].write_bytes(b"torn")
    sheet = mark_sheet(dataset, {"marks": {"found": [MARK | ids]}}, side=60)
    assert sheet.size == (6 * 66 + 6, 2 * 82 + 6)
    shown = np.asarray(sheet)[6:66, 6 + 66 : 66 + 66]  # the second of three: a strip, 60 × 15, in the middle
    assert (shown[:20] == 255).all() and (shown[26:34] != 255).any()
    assert mark_sheet(dataset, {"marks": {"found": []}}) is None and mark_sheet(dataset, {}) is None
