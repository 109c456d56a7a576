"""The shortcut alarm: rings for what the files give away, is silent where they give nothing, counts copies once."""

import io

import numpy as np
import pytest
from conftest import draw_picture, put_raw
from PIL import Image, ImageOps

from utils.dataset import read_dataset
from utils.evaluate import shortcuts
from utils.evaluate.shortcuts import border_colour, file_facts, find_shortcuts, shortcut_line
from utils.pictures import jpeg_bytes
from utils.storage import write_whole
from utils.tables import PICTURES_COLUMNS, SOURCES_COLUMNS, SPLIT_COLUMNS, append_rows


@pytest.fixture(autouse=True)
def fewer_permutations(monkeypatch):
    """Deal the labels out anew 39 times: p is then 0.025 at the least."""
    monkeypatch.setattr(shortcuts, "PERMUTATIONS", 39)


@pytest.fixture
def filled(make_project):
    """Return a function that fills a project, 20 pictures per label; `make(label, n)`: picture, bytes, size, URL."""

    def fill(make, *, count=20, side="train", **settings):
        project = make_project(**settings)
        split, pictures, sources = [], [], []
        for k, label in enumerate(project.labels):
            for n in range(count):
                image, length, (width, height), url = make(label, 1000 * k + n)
                id = put_raw(project, label, jpeg_bytes(image).ljust(length, b"\0"))
                write_whole(project.images / label / f"{id}.jpg", jpeg_bytes(image))
                split.append({"id": id, "group": id, "side": side})
                pictures.append({"id": id, "label": label, "width": width, "height": height, "hash": "0" * 16})
                sources.append({"id": id, "label": label, "url": url, "status": "kept"})
        append_rows(project.table("split"), SPLIT_COLUMNS, split)
        append_rows(project.table("pictures"), PICTURES_COLUMNS, pictures)
        append_rows(project.table("sources"), SOURCES_COLUMNS, sources)
        return project

    return fill


def plain(label, n):
    """Return a picture whose file says nothing about its label."""
    return draw_picture(n, size=(96, 72)), 20_000 + 37 * n % 499, (960, 720), f"https://host{n % 4}.example/{n}.jpg"


def test_files_that_say_nothing_ring_no_alarm(filled):
    """Same sizes, hosts and grounds for both labels: not better than guessing, and one line says so."""
    project = filled(plain)
    found = find_shortcuts(read_dataset(project))
    assert found["majority"] == 0.5 and found["p"] > 0.05
    assert set(found["facts"]) == {"file size", "picture size", "aspect", "border colour", "source"}
    line = shortcut_line(found)
    assert line.startswith("No shortcut found. File facts alone give the right label for ") and "\n" not in line
    assert find_shortcuts(read_dataset(project)) == found


CHANGES = {
    "file size": lambda image: (image, 25_000, (960, 720), "https://host.example/"),
    "picture size": lambda image: (image, 20_000, (480, 360), "https://host.example/"),
    "aspect": lambda image: (image, 20_000, (720, 960), "https://host.example/"),
    "border colour": lambda image: (ImageOps.expand(image.resize((84, 60)), 6, "white"), 20_000, (960, 720), ""),
    "source": lambda image: (image, 20_000, (960, 720), "https://other.example/"),
}


@pytest.mark.parametrize("fact", CHANGES)
def test_a_fact_that_tells_the_labels_is_named(filled, fact):
    """Each planted difference rings the alarm and is named, with its figure and what to look for."""

    def make(label, n):
        image, *rest = plain(label, n)
        return CHANGES[fact](image) if label == "dog" else (image, *rest[:2], "https://host.example/")

    found = find_shortcuts(read_dataset(filled(make)))
    assert (found["strongest"], found["p"]) == (fact, 0.025)
    assert found["facts"][fact]["value"] >= 0.95 and found["accuracy"]["value"] >= 0.9
    line = shortcut_line(found)
    assert line.startswith("Shortcut! File facts alone") and shortcuts.WHERE_TO_LOOK[fact] in line


@pytest.mark.parametrize(
    ("p", "alarm"),
    [(0.005, "Shortcut!"), (0.049, "Shortcut!"), (0.051, "No shortcut found."), (0.2, "No shortcut found.")],
)
def test_the_alarm_rings_at_5_percent(p, alarm):
    """60 of 100 right where 40 are guessed: an alarm only if fewer than 5 of 100 dealt-out sets do as well."""
    facts = {"aspect": shortcuts.wilson(60, 100)}
    found = {"accuracy": facts["aspect"], "majority": 0.4, "p": p, "strongest": "aspect", "facts": facts}
    assert shortcut_line(found).startswith(
        f"{alarm} File facts alone give the right label for 60 % (95 % interval 50 %"
    )


def test_a_trace_is_not_called_an_alarm():
    """Better than guessing beyond doubt, but by 4 points: said, and said to be little."""
    found = {"accuracy": shortcuts.wilson(740, 1000), "majority": 0.7, "p": 0.005, "strongest": "aspect"}
    found["facts"] = {"aspect": shortcuts.wilson(735, 1000)}
    assert shortcut_line(found).startswith("Hardly a shortcut. File facts alone give the right label for 74 %")


def test_near_duplicates_count_once(filled):
    """Six copies each of ten pictures per label: asked about sixty they would be told by heart, asked about ten not."""

    def copies(label, n):
        return plain(label, n)[0], 20_000 + n // 6 * 97, (960, 720), "https://host.example/"

    project = filled(copies, count=60)
    assert find_shortcuts(read_dataset(project))["accuracy"]["value"] > 0.9
    rows = project.table("split").read_text().splitlines()
    grouped = [rows[0]] + [f"{row.split(',')[0]},g{n // 6},train" for n, row in enumerate(rows[1:])]
    project.table("split").write_text("\n".join(grouped) + "\n")
    assert find_shortcuts(read_dataset(project))["accuracy"]["n"] == 20


def test_the_test_side_is_left_alone(filled, monkeypatch):
    """No file of the frozen side is looked at; where nothing else is left, the line says that it is too little."""
    monkeypatch.setattr(shortcuts, "border_colour", lambda path: pytest.fail("opened"))
    found = find_shortcuts(read_dataset(filled(plain, count=6, side="test")))
    assert found["accuracy"]["value"] is None
    assert shortcut_line(found) == "No shortcut was looked for: too few pictures to look for shortcuts."


def test_a_label_of_few_pictures_is_left_out(filled):
    """Two labels of 20 and one of 3: the alarm asks about the 40."""
    labels = {name: [name] for name in ("cat", "dog", "owl")}
    project = filled(plain, labels=labels)
    for path in sorted((project.images / "owl").iterdir())[3:]:
        path.unlink()
    assert find_shortcuts(read_dataset(project))["accuracy"]["n"] == 40


def test_a_large_set_is_sampled(filled, monkeypatch):
    """More than MOST pictures are not all opened."""
    monkeypatch.setattr(shortcuts, "MOST", 24)
    assert find_shortcuts(read_dataset(filled(plain)))["accuracy"]["n"] == 24


def test_facts_that_cannot_be_had_are_no_obstacle(filled):
    """Originals gone, tables gone or edited, a picture that won't open: the rest is used, nothing fails."""
    project = filled(plain)
    for path in sorted(project.raw.glob("*/*"))[::2]:
        path.unlink()
    text = project.table("pictures").read_text().splitlines()
    fields = text[1].split(",")
    project.table("pictures").write_text("\n".join([text[0], ",".join([*fields[:3], "wide", "-3", "", ""])]) + "\n")
    project.table("sources").unlink()
    dataset = read_dataset(project)
    broken = dataset.paths[0]
    broken.write_bytes(broken.read_bytes()[:200])
    facts = file_facts(dataset)
    assert set(facts) == {"file size", "border colour"}
    assert np.isnan(facts["file size"]).sum() == 20 and np.isnan(facts["border colour"]).sum() == 4
    assert find_shortcuts(read_dataset(project))["accuracy"]["n"] == 40


def test_the_border_is_the_border(tmp_path):
    """A red frame about a green picture: red, even; also where it is reduced on opening, and without a middle."""
    image = ImageOps.expand(Image.new("RGB", (440, 300), "lime"), 36, "red")
    image.save(tmp_path / "a.jpg", quality=95)
    red, green, blue, spread = border_colour(tmp_path / "a.jpg")
    assert red > 230 and green < 25 and blue < 25 and spread < 20
    Image.new("RGB", (3, 1), "red").save(tmp_path / "b.jpg", quality=95)
    assert border_colour(tmp_path / "b.jpg")[0] > 230


def test_a_file_that_is_no_training_copy_opens_nothing(tmp_path):
    """PNG bytes under the name of a JPEG, a bomb's header, nothing at all: no colour, no error."""
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "PNG")
    huge = bytearray(jpeg_bytes(Image.new("RGB", (16, 16))))
    at = huge.index(b"\xff\xc0")
    huge[at + 5 : at + 9] = b"\xff\xdc\xff\xdc"  # 65,500 × 65,500
    for n, data in enumerate((buffer.getvalue(), bytes(huge), b"", b"\xff\xd8\xff")):
        (tmp_path / f"{n}.jpg").write_bytes(data)
        assert np.isnan(border_colour(tmp_path / f"{n}.jpg")).all()
    assert np.isnan(border_colour(tmp_path / "none.jpg")).all()
