"""What the command line promises: a line a photo, files whole or not at all, nothing overwritten, exit codes."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from conftest import picture_bytes, tree
from drawn_heic import heic
from PIL import Image
from test_inference import REPOSITORY, colour_model, run, saved, softmax

from utils.inference import commands, onnx_file, sorting
from utils.inference.commands import main
from utils.inference.outputs import RUN_AS_FORMULA
from utils.tables import guarded, plain_text

TONES = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "grey": (90, 90, 90)}
SURE = softmax(1, 0, 0)[0]


@pytest.fixture
def _model(tmp_path) -> Path:
    """Return a model.onnx that tells red, green and blue photos apart, and is unsure of grey ones."""
    return saved(colour_model(), tmp_path / "model" / "model.onnx")


def photo(path: Path, tone: str = "red", *, seed: int | None = None) -> Path:
    """Draw a photo of one colour; another seed gives other bytes of the same colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((24, 32, 3), TONES[tone], dtype=np.uint8)
    if seed is not None:
        pixels[0, seed % 32] = (seed % 256, seed // 256 % 256, 77)
    path.write_bytes(picture_bytes(Image.fromarray(pixels), "PNG"))
    return path


def ask(capsys, *arguments) -> tuple[int, list[list[str]], str]:
    """Run the command line here; return its exit code, its lines taken apart at their tabs, and what it says beside."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, [line.split("\t") for line in captured.out.splitlines()], captured.err


def rows(path: Path) -> list[list[str]]:
    """Return the rows of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


# What is printed


def test_a_line_is_file_label_and_probability(_model, tmp_path, capsys):
    """A photo is one line, its parts between tabs, in the order asked; the exit code is 0 and nothing else is said."""
    blue, red = photo(tmp_path / "1 b.png", "blue"), photo(tmp_path / "2.png", "red")
    assert ask(capsys, _model, red, blue) == (
        0,
        [[str(red), "red", f"{SURE:.4f}"], [str(blue), "blue", f"{SURE:.4f}"]],
        "",
    )


def test_top_prints_the_best_in_turn(_model, tmp_path, capsys):
    """--top N prints the N best labels, each with its probability; more than there are prints them all."""
    path = photo(tmp_path / "a.png", "green")
    rest = f"{softmax(1, 0, 0)[1]:.4f}"
    _, [line], _ = ask(capsys, _model, path, "--top", 2)
    assert line == [str(path), "green", f"{SURE:.4f}", "red", rest]
    _, [line], _ = ask(capsys, _model, path, "--top", 9)
    assert line == [str(path), "green", f"{SURE:.4f}", "red", rest, "blue", rest]


def test_unknown_is_said_where_the_model_abstains(_model, tmp_path, capsys):
    """--unknown says "unknown" in a line and null in JSON, with the probability; without it the best label is said."""
    path = photo(tmp_path / "a.png", "grey")
    assert ask(capsys, _model, path, "--unknown")[1] == [[str(path), "unknown", "0.3333"]]
    assert ask(capsys, _model, path)[1] == [[str(path), "red", "0.3333"]]
    assert ask(capsys, _model, path, "--unknown", "--top", 2)[1] == [
        [str(path), "unknown", "0.3333", "green", "0.3333"]
    ]
    main([str(_model), str(path), "--unknown", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["label"], found["probability"]) == (None, pytest.approx(1 / 3))


def test_json_prints_an_object_a_line(_model, tmp_path, capsys):
    """--json prints file, label, probability, probabilities, with --top also the best; of one unread file and error."""
    path, gone = photo(tmp_path / "a.png"), tmp_path / "gone.png"
    assert main([str(_model), str(path), str(gone), "--json", "--top", "1"]) == 2
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert list(first) == ["file", "label", "probability", "probabilities", "top"]
    assert first["probabilities"] == pytest.approx(dict(zip(["red", "green", "blue"], softmax(1, 0, 0), strict=True)))
    assert first["top"] == [["red", first["probability"]]]
    assert second == {"file": str(gone), "error": f"There is no picture {gone}."}
    main([str(_model), str(path), "--json"])
    assert list(json.loads(capsys.readouterr().out)) == ["file", "label", "probability", "probabilities"]


def test_what_cannot_be_read_is_named_and_stops_nothing(_model, tmp_path, capsys):
    """A broken photo, a missing one and an address have their lines; the others are judged; the exit code is 2."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no more")
    names = [broken, tmp_path / "gone.jpg", "https://example.org/a.jpg", photo(tmp_path / "a.png")]
    code, lines, _ = ask(capsys, _model, *names)
    assert (code, [line[0] for line in lines]) == (2, [str(name) for name in names])
    assert [line[1] for line in lines] == ["error", "error", "error", "red"]
    assert "address" in lines[2][2]


def test_a_batch_of_any_size_gives_the_same(_model, tmp_path, capsys):
    """--batch-size changes no answer."""
    for n in range(7):
        photo(tmp_path / "p" / f"{n}.png", ("red", "green", "blue")[n % 3])
    answers = [ask(capsys, _model, tmp_path / "p", "--batch-size", size) for size in (1, 3, 100)]
    assert answers[0] == answers[1] == answers[2]
    assert len(answers[0][1]) == 7


def test_strange_names_stay_on_their_lines(tmp_path, capsys):
    """Tabs, line breaks and what a terminal would obey in a name or a label become spaces in a line."""
    labels = ["two\nlines\u2028\x85and\x1b[2Jmore", "ta\tb", 'a "b"']
    model = saved(colour_model(labels=labels), tmp_path / "m.onnx")
    path = photo(tmp_path / "a\tb\nc\x1b[31m.png")
    assert ask(capsys, model, path)[1] == [[str(tmp_path / "a b c [31m.png"), "two lines and [2Jmore", f"{SURE:.4f}"]]


# Which photos


def test_a_folder_is_its_photos(_model, tmp_path, capsys):
    """A folder is the photos in it and below, sorted, without hidden ones; what else there is, is counted by kind."""
    for name in ("b.png", "a/2.PNG", "a/1.png", "c/d/e.png", "a.b/0.png", ".hidden/x.png", "a/.x.png"):
        photo(tmp_path / "p" / name)
    for name in ("notes.txt", "a/more.TXT", "c/LICENSE"):
        (tmp_path / "p" / name).write_text("no photo")
    code, lines, said = ask(capsys, _model, tmp_path / "p")
    found = [line[0] for line in lines]
    assert (code, found) == (
        0,
        [str(tmp_path / "p" / name) for name in ("a/1.png", "a/2.PNG", "a.b/0.png", "b.png", "c/d/e.png")],
    )
    assert found == [str(path) for path in sorted(map(Path, found))]
    assert said == "Left out 3 files whose names are not those of photos: 2 .txt, 1 without extension.\n"


def test_a_photo_named_by_hand_counts_whatever_its_name(_model, tmp_path, capsys):
    """A file given by its name is opened, also where its extension is none of a photo's."""
    path = photo(tmp_path / "photo.dat")
    assert ask(capsys, _model, path)[1][0][1] == "red"


def test_an_iphones_photos_are_judged(_model, tmp_path, capsys):
    """HEIC files in a folder are photos; a broken one is named."""
    photo(tmp_path / "p" / "a.png")
    (tmp_path / "p" / "b.HEIC").write_bytes(heic(Image.new("RGB", (48, 48), "red")))
    (tmp_path / "p" / "c.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(30))
    code, lines, _ = ask(capsys, _model, tmp_path / "p")
    assert (code, [line[1] == "error" for line in lines]) == (2, [False, False, True])


def test_a_pattern_is_expanded(_model, tmp_path, capsys, monkeypatch):
    """Where the shell does not, * ** ? and [ are expanded, sorted; a file of that very name wins."""
    for name in ("b1.png", "a1.png", "a2.png", "x/a3.png", "[a]1.png"):
        photo(tmp_path / "p" / name)
    monkeypatch.chdir(tmp_path / "p")

    def found(pattern):
        return [Path(line[0]).as_posix() for line in ask(capsys, _model, pattern)[1]]

    assert found("a?.png") == ["a1.png", "a2.png"]
    assert found("**/a*.png") == ["a1.png", "a2.png", "x/a3.png"]
    assert found("[a]1.png") == ["[a]1.png"]
    assert found("[b]1.png") == ["b1.png"]
    code, [line], _ = ask(capsys, _model, "*.gif")
    assert (code, line[:2]) == (2, ["*.gif", "error"])


def test_a_dash_is_a_list_on_standard_input(_model, tmp_path, capsys, monkeypatch):
    """- reads paths from standard input, one a line, of any system's line breaks, and folders among them."""
    a, b = photo(tmp_path / "фото 1.png"), photo(tmp_path / "p" / "b.png", "blue")
    lines = f"\ufeff{a}\r\n\n{b.parent}\n{a}".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    code, found, _ = ask(capsys, _model, "-")
    assert (code, [line[:2] for line in found]) == (0, [[str(a), "red"], [str(b), "blue"], [str(a), "red"]])


def test_links_in_a_circle_end(_model, tmp_path, capsys):
    """A linked folder is looked through once, though a link leads back."""
    photo(tmp_path / "p" / "a.png")
    photo(tmp_path / "elsewhere" / "b.png")
    try:
        (tmp_path / "p" / "back").symlink_to(tmp_path / "p", target_is_directory=True)
        (tmp_path / "p" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    except OSError:
        pytest.skip("no links may be made here")
    code, lines, _ = ask(capsys, _model, tmp_path / "p")
    assert (code, [Path(line[0]).name for line in lines]) == (0, ["a.png", "b.png"])


def test_a_link_to_itself_stops_nothing(_model, tmp_path, capsys):
    """A link that leads nowhere but to itself is a photo that cannot be read; the others are judged."""
    photo(tmp_path / "p" / "b.png")
    try:
        (tmp_path / "p" / "a.png").symlink_to(tmp_path / "p" / "a.png")
    except OSError:
        pytest.skip("no links may be made here")
    code, lines, _ = ask(capsys, _model, tmp_path / "p")
    assert (code, [line[1] for line in lines]) == (2, ["error", "red"])


def test_a_closed_folder_is_told(_model, tmp_path, capsys, monkeypatch):
    """A folder that may not be looked through is named, the rest is judged, and the exit code is 2."""
    photo(tmp_path / "p" / "a.png")
    photo(tmp_path / "p" / "closed" / "b.png")
    scandir = os.scandir

    def scan(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(commands.os, "scandir", scan)
    code, lines, said = ask(capsys, _model, tmp_path / "p")
    assert (code, len(lines)) == (2, 1)
    assert said == f"The folder {tmp_path / 'p' / 'closed'} cannot be looked through: Permission denied.\n"


def test_a_large_folder_answers_before_it_is_opened_whole(_model, tmp_path, monkeypatch):
    """Photos are judged as they are listed: of many folders only those of the batches in hand are listed first."""
    for n in range(30):
        photo(tmp_path / "p" / f"{n:02}" / "a.png")
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(commands.os, "scandir", lambda path: listed.append(path) or scandir(path))
    seen = []
    monkeypatch.setattr("builtins.print", lambda *text, **_: seen.append(len(listed)))
    assert main([str(_model), str(tmp_path / "p"), "--batch-size", "2"]) == 0
    assert seen[0] <= 1 + (onnx_file.LANES + 1) * 2
    assert len(seen) == 30


def test_no_photo_is_told(_model, tmp_path, capsys, monkeypatch):
    """An empty folder or list: a sentence that names it, exit code 1, and no table."""
    (tmp_path / "p").mkdir()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    code, lines, said = ask(capsys, _model, tmp_path / "p", "-", "--csv", tmp_path / "t.csv")
    assert (code, lines) == (1, [])
    assert said == f"There is no photo in {tmp_path / 'p'}, the list on standard input.\n"
    assert not (tmp_path / "t.csv").exists()


# --csv


def test_a_table_reads_back(tmp_path, capsys):
    """predictions.csv holds file, label and probability; quotes and line breaks survive, formulas are guarded."""
    labels = ['say "a", b', "two\nlines", "=1+1"]
    model = saved(colour_model(labels=labels), tmp_path / "m.onnx")
    names = [photo(tmp_path / "p" / f"{n}, 'x' \"y\".png", tone) for n, tone in enumerate(("red", "green", "blue"))]
    grey, gone = photo(tmp_path / "grey.png", "grey"), tmp_path / "gone.png"
    table = tmp_path / "predictions.csv"
    code, _, _ = ask(capsys, model, *names, grey, gone, "--csv", table, "--unknown")
    header, *found, unsure, unread = rows(table)
    assert (code, header) == (2, ["file", "label", "probability"])
    assert [row[0] for row in found] == [str(name) for name in names]
    assert [row[1] for row in found] == [*labels[:2], "'=1+1"] and plain_text(found[2][1]) == labels[2]
    assert [float(row[2]) for row in found] == pytest.approx([SURE] * 3)
    assert (unsure[:2], unread) == ([str(grey), "unknown"], [str(gone), "", ""])


def test_a_name_is_no_formula(_model, tmp_path, capsys, monkeypatch):
    """A path that a spreadsheet would run is written as the same path from here: ./ in front."""
    monkeypatch.chdir(tmp_path)
    names = ["=1+1.png", "@x.png", "+2.png", "＝3.png", ' "=4.png', "plain.png"]
    for name in names:
        photo(Path(name))
    assert ask(capsys, _model, *names, "--csv", "t.csv")[0] == 0
    found = [row[0] for row in rows(Path("t.csv"))[1:]]
    assert [Path(name) for name in found] == [Path(name) for name in names]
    assert found == [guarded(name) for name in found]


def test_what_is_guarded_is_what_the_tables_guard():
    """The command line, which stands alone, knows the same formulas as the tables of a project."""
    texts = ["".join(text) for n in range(5) for text in product("=;'\t a\n", repeat=n)] + list("＝＋－＠+-@")
    assert [RUN_AS_FORMULA.sub(r"\1'", text) for text in texts] == [guarded(text) for text in texts]


def test_a_table_is_never_written_over(_model, tmp_path, capsys):
    """A file that is there is refused before the model is loaded, and stays."""
    table = tmp_path / "t.csv"
    table.write_text("mine")
    code, lines, said = ask(capsys, tmp_path / "no model", photo(tmp_path / "a.png"), "--csv", table)
    assert (code, lines, table.read_text()) == (1, [], "mine")
    assert said == f"--csv {table}: this file is there already, and is not written over. Name another.\n"
    code, _, said = ask(capsys, _model, tmp_path / "a.png", "--csv", tmp_path / "no" / "t.csv")
    assert (code, said) == (
        1,
        f"--csv {tmp_path / 'no' / 't.csv'}: there is no folder {tmp_path / 'no'}. Make it first.\n",
    )


def test_a_table_that_cannot_be_written_is_named(_model, tmp_path, capsys):
    """Where the disk refuses the table, the sentence names it as it was asked for."""
    table = tmp_path / f"{'t' * 300}.csv"
    code, _, said = ask(capsys, _model, photo(tmp_path / "a.png"), "--csv", table)
    assert (code, said.startswith(f"{table}: "), said.count("\n")) == (1, True, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "model"]


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no closed streams")
def test_closed_streams_are_no_error(_model, tmp_path):
    """Without a standard output the table is written; without an input there is no list on it."""
    shell = '"$1" -m utils.inference "$2" "$3" --csv "$4" >&- && "$1" -m utils.inference "$2" - <&-'
    names = [sys.executable, _model, photo(tmp_path / "a.png"), tmp_path / "t.csv"]
    done = subprocess.run(["sh", "-c", shell, "sh", *names], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "There is no photo in the list on standard input.\n")
    assert len(rows(tmp_path / "t.csv")) == 2


def test_a_table_made_meanwhile_stays(_model, tmp_path, capsys, monkeypatch):
    """A file that another program puts there while photos are judged is not written over either."""
    table = tmp_path / "t.csv"
    load = commands.load_classifier
    monkeypatch.setattr(commands, "load_classifier", lambda path: table.write_text("theirs") and load(path))
    code, _, said = ask(capsys, _model, photo(tmp_path / "a.png"), "--csv", table)
    assert (code, table.read_text()) == (1, "theirs")
    assert said == f"{table}: is there already, and is not written over.\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "model", "t.csv"]


def test_a_table_is_whole_or_not_there(_model, tmp_path, capsys):
    """Where the work stops, no table and no part of one is left."""
    before = tree(tmp_path)
    assert ask(capsys, tmp_path / "no model", tmp_path, "--csv", tmp_path / "t.csv")[0] == 1
    assert tree(tmp_path) == before


# --sort-into


def test_photos_are_copied_into_their_labels_folders(_model, tmp_path, capsys):
    """Each photo's bytes lie in FOLDER/<label>/ under its name, "unknown" where unsure; the photos stay."""
    for tone in TONES:
        photo(tmp_path / "p" / f"{tone}.png", tone)
    (tmp_path / "p" / "broken.jpg").write_bytes(b"no")
    os.utime(tmp_path / "p" / "red.png", (10**9, 10**9))
    before = tree(tmp_path / "p")
    code, lines, _ = ask(capsys, _model, tmp_path / "p", "--unknown", "--sort-into", tmp_path / "out" / "sorted")
    assert (code, tree(tmp_path / "p")) == (2, before)
    assert [line[:2] for line in lines if "error" in line] == [[str(tmp_path / "p" / "broken.jpg"), "error"]]
    expected = {f"{'unknown' if tone == 'grey' else tone}/{tone}.png": before[f"{tone}.png"] for tone in TONES}
    assert {Path(name).as_posix(): data for name, data in tree(tmp_path / "out" / "sorted").items()} == expected
    assert (tmp_path / "out" / "sorted" / "red" / "red.png").stat().st_mtime == 10**9


def test_names_that_are_taken_get_a_number(_model, tmp_path, capsys):
    """Another photo of the same name gets a number, the same is not copied twice, a second run adds nothing."""
    first, other = photo(tmp_path / "p" / "a" / "x.png", seed=1), photo(tmp_path / "p" / "b" / "x.png", seed=2)
    photo(tmp_path / "p" / "c" / "x.png", seed=1)
    photo(tmp_path / "p" / "d" / "x.png", seed=3)
    mine = tmp_path / "sorted" / "red" / "x (2).png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    expected = {"x.png": first, "x (2).png": mine, "x (3).png": other, "x (4).png": tmp_path / "p" / "d" / "x.png"}
    expected = {name: path.read_bytes() for name, path in expected.items()}
    for _ in range(2):
        assert ask(capsys, _model, tmp_path / "p", "--sort-into", tmp_path / "sorted")[0] == 0
        assert tree(tmp_path / "sorted" / "red") == expected


def test_copies_among_the_photos_are_not_judged_again(_model, tmp_path, capsys):
    """A FOLDER inside the folder that is looked through is left out, on the first run and on the next."""
    for n in range(5):
        photo(tmp_path / "p" / f"{n}.png", seed=n)
    photo(tmp_path / "p" / "z" / "9.png", "blue")
    for _ in range(2):
        code, lines, _ = ask(
            capsys, _model, tmp_path / "p", "--sort-into", tmp_path / "p" / "sorted", "--batch-size", 1
        )
        assert (code, len(lines)) == (0, 6)
    assert len(tree(tmp_path / "p" / "sorted")) == 6


def test_sorting_into_the_photos_own_folder_is_refused(_model, tmp_path, capsys):
    """FOLDER may be neither the folder of the photos nor a file; nothing is written."""
    path = photo(tmp_path / "p" / "a.png")
    before = tree(tmp_path)
    for folder, words in [(tmp_path / "p" / ".." / "p", "the folder of the photos itself"), (path, "is a file")]:
        code, lines, said = ask(capsys, _model, tmp_path / "p", "--sort-into", folder)
        assert (code, lines, said.count("\n")) == (1, [], 1)
        assert words in said
    assert tree(tmp_path) == before


def test_labels_become_safe_folders(tmp_path, capsys):
    """A label that is no folder's name, or leads elsewhere, becomes one that is; no two share a folder."""
    labels = ["../../up", "a/b", "A:B"]
    model = saved(colour_model(labels=labels), tmp_path / "m.onnx")
    for tone in ("red", "green", "blue"):
        photo(tmp_path / "p" / f"{tone}.png", tone)
    ask(capsys, model, tmp_path / "p", "--sort-into", tmp_path / "out" / "sorted")
    found = {Path(name).as_posix() for name in tree(tmp_path / "out")}
    assert found == {"sorted/_.._up/red.png", "sorted/a_b/green.png", "sorted/A_B (2)/blue.png"}


def test_folders_have_names_of_their_own():
    """A label that reads "unknown" keeps apart from what the model is unsure of; names fit every system's disk."""
    found = sorting.folder_names(["Unknown", "con.jpg", "鯨" * 100, "鯨" * 101])
    assert list(found.values()) == ["Unknown (2)", "_con.jpg", "鯨" * 40, "鯨" * 40 + " (2)"]


def test_a_photo_gone_before_its_copy_is_told(_model, tmp_path, capsys, monkeypatch):
    """A photo that goes away after it was judged is named, the others are copied, and the exit code is 2."""
    paths = [photo(tmp_path / "p" / f"{n}.png", seed=n) for n in range(3)]
    copied = sorting.copied

    def late(path, folder):
        if path == paths[1]:
            path.unlink()
        return copied(path, folder)

    monkeypatch.setattr(sorting, "copied", late)
    expected = 2, f"{paths[1]} was judged but not copied: No such file or directory.\n"
    code, _, said = ask(capsys, _model, *paths, "--sort-into", tmp_path / "sorted")
    assert (code, said) == expected
    assert sorted(tree(tmp_path / "sorted" / "red")) == ["0.png", "2.png"]
    photo(paths[1], seed=1)
    photo(tmp_path / "sorted" / "red" / "1.png", seed=7)  # something of its name, to compare it with
    code, _, said = ask(capsys, _model, *paths, "--sort-into", tmp_path / "sorted")
    assert (code, said) == expected
    assert sorted(tree(tmp_path / "sorted" / "red")) == ["0.png", "1.png", "2.png"]


def test_a_disk_without_links_is_enough(_model, tmp_path, capsys, monkeypatch):
    """Where the disk knows no links, tables and copies are put in place all the same, and nothing is replaced."""

    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(commands.os, "link", no_links)
    test_names_that_are_taken_get_a_number(_model, tmp_path, capsys)
    test_a_table_is_never_written_over(_model, tmp_path, capsys)
    assert ask(capsys, _model, tmp_path / "a.png", "--csv", tmp_path / "new.csv")[0] == 0
    assert len(rows(tmp_path / "new.csv")) == 2


def test_killed_and_run_again_ends_the_same(_model, tmp_path, capsys):
    """A run killed in the middle leaves whole copies; the next run completes them, and no part of a file stays."""
    for n in range(40):
        photo(tmp_path / "p" / f"{n:02}.png", ("red", "green", "blue")[n % 3], seed=n)
    command = [_model, tmp_path / "p", "--batch-size", "1", "--sort-into"]
    assert ask(capsys, *command, tmp_path / "whole")[0] == 0
    whole, sorted_ = tree(tmp_path / "whole"), tmp_path / "sorted"
    for lines in (1, 9, 20):
        with start(*command, sorted_) as child:
            for _ in range(lines):
                child.stdout.readline()
            child.kill()
        (sorted_ / "red" / f".{'0f' * 8}.part.png").write_bytes(b"torn")
        finished = {name: data for name, data in tree(sorted_).items() if ".part" not in name}
        assert {name: whole[name] for name in finished} == finished
        assert len(finished) >= lines
    assert ask(capsys, *command, sorted_)[0] == 0
    assert tree(sorted_) == whole


# How it ends


def start(*arguments, **options) -> subprocess.Popen:
    """Start the command line in another process."""
    command = [sys.executable, "-m", "utils.inference", *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=REPOSITORY, text=True, **pipes | options)


def test_a_model_that_cannot_be_used_is_told(tmp_path, capsys):
    """No model, a folder, an address: exit code 1, one sentence on stderr, nothing on stdout."""
    for model in (tmp_path / "none.onnx", tmp_path, "https://example.org/model.onnx"):
        code, lines, said = ask(capsys, model, "x.jpg")
        assert (code, lines, said.count("\n")) == (1, [], 1)


def test_unknown_without_a_threshold_is_told(tmp_path, capsys):
    """--unknown with a model that has no threshold: exit code 1, one sentence, no folder made."""
    model = saved(colour_model(threshold=None), tmp_path / "m.onnx")
    code, lines, said = ask(
        capsys,
        model,
        photo(tmp_path / "a.png"),
        "--unknown",
        "--sort-into",
        tmp_path / "sorted",
        "--csv",
        tmp_path / "t",
    )
    assert (code, lines, said.count("\n")) == (1, [], 1)
    assert "no threshold" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "m.onnx"]


@pytest.mark.parametrize("options", [["--top", "0"], ["--top", "x"], ["--batch-size", "-1"], ["--frob"], []])
def test_a_wrong_option_is_told(_model, capsys, options):
    """An option that is unknown or no number, or no photo at all: exit code 1 (not 2) and a sentence."""
    with pytest.raises(SystemExit) as exit:
        main([str(_model), *(["x.jpg"] if options else []), *options])
    captured = capsys.readouterr()
    assert (exit.value.code, captured.out) == (1, "")
    assert captured.err.endswith(".\n")


def test_options_may_stand_anywhere(_model, tmp_path, capsys):
    """Options before, between and after the names."""
    a, b = photo(tmp_path / "a.png"), photo(tmp_path / "b.png")
    expected = ask(capsys, _model, a, b, "--top", 1)
    assert expected == ask(capsys, "--top", 1, _model, a, b) == ask(capsys, _model, a, "--top", 1, b)


def test_a_reader_that_leaves_is_no_error(_model, tmp_path):
    """Where the reader goes away, as head does, the endless list ends: nothing is said, no table is left."""
    path = photo(tmp_path / "a.png")
    with start(_model, "-", "--batch-size", "2", "--csv", tmp_path / "t.csv") as child:
        child.stdin.write(f"{path}\n" * 8)
        child.stdin.flush()
        assert child.stdout.readline().startswith(str(path))
        child.stdout.close()
        try:
            child.stdin.write(f"{path}\n" * 5000)
            child.stdin.close()
        except BrokenPipeError:
            child.stdin = None
        assert (child.stderr.read(), child.wait()) == ("", 141)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "model"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_ctrl_c_is_no_error(_model, tmp_path):
    """Ctrl-C ends it with 130, without a traceback and without a table."""
    path = photo(tmp_path / "a.png")
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a test run in the background inherits deafness
    with start(_model, "-", "--batch-size", "1", "--csv", tmp_path / "t.csv", preexec_fn=heard) as child:
        child.stdin.write(f"{path}\n" * 4)
        child.stdin.flush()
        for _ in range(3):
            child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=60) == 130
        assert child.stderr.read() == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "model"]


def test_answers_come_while_the_list_is_still_written(_model, tmp_path):
    """A list on standard input is answered as it comes, no more than two batches behind."""
    path = photo(tmp_path / "a.png")
    with start(_model, "-", "--batch-size", "1") as child:
        child.stdin.write(f"{path}\n" * 3)
        child.stdin.flush()
        assert child.stdout.readline().startswith(str(path))
        child.stdin.close()
        assert len(child.stdout.readlines()) == 2
        assert child.wait() == 0


def test_a_progress_bar_only_on_a_terminal(_model, tmp_path, capsys, monkeypatch):
    """The bar is drawn on stderr where that is a terminal, and nowhere else; the lines stay the same."""
    path = photo(tmp_path / "a.png")
    expected = ask(capsys, _model, path)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code, lines, said = ask(capsys, _model, path)
    assert (code, lines) == expected[:2]
    assert expected[2] == "" and "photos" in said


def test_the_command_line_needs_no_torch(_model, tmp_path):
    """Asking a model.onnx from the command line imports neither torch nor fastai."""
    path = photo(tmp_path / "a.png")
    code = (
        "import sys; from utils.inference.commands import main; assert main(sys.argv[1:]) == 0; "
        "print(sorted({'torch', 'fastai'} & set(sys.modules)))"
    )
    done = run("-c", code, _model, path)
    assert done.stdout.splitlines()[-1] == b"[]", done.stderr
