"""The command line with a detector: what it prints, and the tables, YOLO and COCO files and crops that it writes."""

import json

import numpy as np
import pytest
from drawn_detector import LABELS, save_detector, things
from PIL import Image
from test_commands import ask, rows
from test_inference import colour_model, saved

from utils.inference import load_detector
from utils.inference.commands import main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model.onnx that finds red balls and blue blocks."""
    return save_detector(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture
def photos(tmp_path):
    """A folder of three photos: two things, nothing, and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    things((640, 400)).save(folder / "a.jpg", quality=95)
    Image.new("RGB", (60, 40), "grey").save(folder / "b.png")
    (folder / "c.jpg").write_bytes(b"\xff\xd8 no more")
    return folder


def test_a_line_is_a_box(model, photos, capsys):
    """File, label, probability and corners in pixels; a photo with nothing says so; an unread one exits with 2."""
    (found, *_) = load_detector(model).predict(photos / "a.jpg")
    code, lines, said = ask(capsys, model, photos)
    path = str(photos / "a.jpg")
    wanted = [[path, box.label, f"{box.probability:.4f}", *map(str, box.pixels)] for box in found.boxes]
    assert {line[1] for line in wanted} == set(LABELS)
    assert (code, lines[: len(wanted)], said) == (2, wanted, "")
    assert lines[len(wanted)] == [str(photos / "b.png"), "nothing"]
    assert lines[-1][:2] == [str(photos / "c.jpg"), "error"] and len(lines) == len(wanted) + 2
    assert ask(capsys, model, photos / "b.png")[0] == 0


def test_json_prints_an_object_a_photo(model, photos, capsys):
    """Size, and boxes in fractions; of an unread photo file and error."""
    main([str(model), str(photos), "--json"])
    first, second, third = map(json.loads, capsys.readouterr().out.splitlines())
    (found, *_) = load_detector(model).predict(photos / "a.jpg")
    assert (first["width"], first["height"]) == (640, 400)
    assert [tuple(box.values()) for box in first["boxes"]] == [
        (box.label, box.probability, *box.corners) for box in found.boxes
    ]
    assert second["boxes"] == [] and set(third) == {"file", "error"}


def test_a_threshold_can_be_asked_for(model, photos, capsys):
    """--threshold 0.85 leaves out what is less probable; what is no probability is refused with 1."""
    assert len(ask(capsys, model, photos / "a.jpg", "--threshold", 0.85)[1]) == 1
    with pytest.raises(SystemExit, match="1"):
        main([str(model), str(photos), "--threshold", "1.5"])
    assert "'1.5' is not a number from 0 to 1" in capsys.readouterr().err


def test_the_table_has_a_row_a_box(model, photos, tmp_path, capsys, monkeypatch):
    """--csv: corners as fractions; a photo with nothing has a row without label, an unread one its reason."""
    (photos / "b.png").rename(photos / "=b.png")
    table = tmp_path / "found.csv"
    monkeypatch.chdir(photos)
    ask(capsys, model, "a.jpg", "=b.png", "c.jpg", "--csv", table)
    header, *found, nothing, broken = rows(table)
    assert header == ["file", "label", "probability", "left", "top", "right", "bottom", "error"]
    boxes = load_detector(model).predict(photos / "a.jpg")[0].boxes
    for row, box in zip(found, boxes, strict=True):
        assert row[:2] == ["a.jpg", box.label] and row[-1] == ""
        np.testing.assert_allclose([float(cell) for cell in row[2:7]], [box.probability, *box.corners], atol=1e-7)
    assert nothing == ["./=b.png", *[""] * 7]
    assert broken[:2] == ["c.jpg", ""] and broken[-1]
    assert ask(capsys, model, "a.jpg", "--csv", table)[0] == 1  # it is there already


def test_yolo_files_are_read_back(model, photos, tmp_path, capsys):
    """One text file per photo that was read, empty where nothing is, and the labels in the order of their numbers."""
    folder = tmp_path / "yolo"
    assert ask(capsys, model, photos, "--yolo", folder)[0] == 2
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.txt", "classes.txt"]
    names = (folder / "classes.txt").read_text().splitlines()
    boxes = load_detector(model).predict(photos / "a.jpg")[0].boxes
    assert names == list(LABELS) and (folder / "b.txt").read_text() == ""
    for line, box in zip((folder / "a.txt").read_text().splitlines(), boxes, strict=True):
        number, *numbers = line.split(" ")
        x, y, wide, high = map(float, numbers)
        assert names[int(number)] == box.label
        np.testing.assert_allclose([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], box.corners, atol=1e-8)


def test_the_coco_file_holds_all(model, photos, tmp_path, capsys):
    """Images with their sizes, categories, and boxes in pixels with their scores; an unread photo is not among them."""
    path = tmp_path / "found.json"
    assert ask(capsys, model, photos, "--coco", path)[0] == 2
    whole = json.loads(path.read_text())
    assert [(each["file_name"], each["width"]) for each in whole["images"]] == [
        (str(photos / "a.jpg"), 640),
        (str(photos / "b.png"), 60),
    ]
    assert [each["name"] for each in whole["categories"]] == list(LABELS)
    for each, box in zip(whole["annotations"], load_detector(model).predict(photos / "a.jpg")[0].boxes, strict=True):
        left, top, wide, high = each["bbox"]
        corners = np.array([left, top, left + wide, top + high]) / (640, 400, 640, 400)
        np.testing.assert_allclose(corners, box.corners, atol=1e-5)
        assert LABELS[each["category_id"] - 1] == box.label and each["score"] == box.probability
    assert ask(capsys, model, photos, "--coco", path)[0] == 1


def test_crops_are_a_folder_per_label(model, photos, tmp_path, capsys):
    """A classifier can learn from them: each thing at full size with a margin, in the folder of its label."""
    folder = tmp_path / "crops"
    assert ask(capsys, model, photos, "--crops", folder)[0] == 2
    boxes = load_detector(model).predict(photos / "a.jpg")[0].boxes
    wanted = {f"{box.label}/a_{n}.jpg": box for n, box in enumerate(boxes, start=1)}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")} == set(wanted)
    for name, box in wanted.items():
        with Image.open(folder / name) as crop:
            left, top, right, bottom = box.pixels
            assert right - left < crop.width <= 1.2 * (right - left) + 2
            assert bottom - top < crop.height <= 1.2 * (bottom - top) + 2
            red, _, blue = np.asarray(crop)[crop.height // 2, crop.width // 2].astype(int)
            assert (red > blue + 80) if box.label == "ball" else (blue > red + 80)


def test_nothing_is_written_over(model, photos, tmp_path, capsys):
    """Run again, all stays; another photo of the same name gets crops of its own, and its YOLO file is told."""
    arguments = (model, photos / "a.jpg", "--crops", tmp_path / "crops", "--yolo", tmp_path / "yolo")
    state = lambda: {  # noqa: E731
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(tmp_path.rglob("*")) if path.is_file()
    }
    assert ask(capsys, *arguments)[0] == 0
    (tmp_path / "crops" / "ball" / f".{'0' * 16}.part.jpg").write_bytes(b"of a run that was killed")
    before = state()
    assert ask(capsys, *arguments)[0] == 0
    assert state().items() == {path: held for path, held in before.items() if ".part" not in path.name}.items()
    (tmp_path / "more").mkdir()
    things((640, 400), seed=1).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "more" / "a.jpg")
    code, _, said = ask(capsys, model, tmp_path / "more" / "a.jpg", *arguments[2:])
    assert code == 2 and "a.txt is there already, with other boxes" in said and said.count("\n") == 1
    assert all(state()[path] == held for path, held in before.items() if ".part" not in path.name)
    assert any("(2)" in path.name for path in (tmp_path / "crops").rglob("*.jpg"))


@pytest.mark.parametrize(
    ("option", "value"),
    [("--top", "2"), ("--tta", None), ("--unknown", None), ("--sort-into", "there"), ("--submission", "t.csv")],
)
def test_what_detectors_cannot_is_refused(model, photos, capsys, monkeypatch, option, value):
    """Options that say nothing of boxes exit with 1, name option and model, and write nothing."""
    monkeypatch.chdir(photos)
    (photos / "t.csv").write_text("id,label\na,\n")
    code, lines, said = ask(capsys, model, photos, option, *filter(None, [value]))
    assert (code, lines, said.count("\n")) == (1, [], 1)
    assert ("find" in said and str(model) in said) and not (photos / "there").exists()


@pytest.mark.parametrize("option", ["--crops", "--yolo", "--coco"])
def test_what_classifiers_cannot_is_refused(photos, tmp_path, capsys, option):
    """A model that tells photos apart draws no boxes: exit 1, nothing is written."""
    colours = saved(colour_model(), tmp_path / "colours.onnx")
    code, _, said = ask(capsys, colours, photos, option, tmp_path / "new")
    assert code == 1 and f"{option} does not go with {colours}, which tells photos apart" in said
    assert not (tmp_path / "new").exists()


def test_crops_do_not_go_among_the_photos(model, photos, tmp_path, capsys):
    """FOLDER may be neither the folder of the photos nor a file; crops of before are not looked through again."""
    assert "the folder of the photos itself" in ask(capsys, model, photos, "--crops", photos)[2]
    assert "is a file" in ask(capsys, model, photos, "--crops", photos / "a.jpg")[2]
    ask(capsys, model, photos, "--crops", photos / "crops")
    assert ask(capsys, model, photos, "--crops", photos / "crops")[1][-1][0] == str(photos / "c.jpg")


def test_other_labels_have_another_yolo_folder(model, photos, tmp_path, capsys):
    """A folder whose classes.txt names other labels is left as it is."""
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "classes.txt").write_text("cat\n")
    code, _, said = ask(capsys, model, photos, "--yolo", tmp_path / "yolo")
    assert (code, [path.name for path in (tmp_path / "yolo").iterdir()]) == (1, ["classes.txt"])
    assert "names other labels" in said
