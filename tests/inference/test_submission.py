"""A contest's template, filled: what is not asked for stays to the byte; each id has an answer or a reason."""

import csv
import io
from pathlib import Path

import pytest
from test_commands import ask, photo
from test_inference import colour_model, saved, softmax

from utils.inference import submission, template
from utils.inference.submission import PhotoNames

SURE, REST = (f"{p:.6g}" for p in softmax(1, 0, 0)[:2])


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Return a function that fills a template in an empty folder with photos a (red), b (green), c (blue) in test/."""
    model = saved(colour_model(), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    for name, tone in (("a.png", "red"), ("b.png", "green"), ("c.png", "blue")):
        photo(Path("test", name), tone)

    def fill(text: str | bytes, *options, model=model):
        Path("sample.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return ask(capsys, model, "test", "--submission", "sample.csv", *options)

    return fill


def written(path: str = "submission.csv") -> str | None:
    """Return what was written, or None."""
    return Path(path).read_bytes().decode() if Path(path).exists() else None


# One column for the label


def test_only_the_label_changes(run):
    """Header, order, ids, further columns, quotes, line ends and a missing last one stay, and no row is printed."""
    text = '\ufeff"file",species,Usage\r\n"c.png",x,"Public, early"\r\nb.png,"x",\r\n\r\na.png,x,Private'
    assert run(text, "--columns", "file,species") == (
        0,
        [],
        "sample.csv has the text “x” in the column of the label, not known to the model. See whether the labels are "
        "asked for as it writes them: 3 labels: “red”, “green”, “blue”.\nsubmission.csv: 3 rows.\n",
    )
    assert written() == (
        '\ufeff"file",species,Usage\r\n"c.png",blue,"Public, early"\r\nb.png,"green",\r\n\r\na.png,red,Private'
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_any_separator_and_encoding_is_kept(run, encoding, separator):
    """Commas, semicolons or tabs; UTF-8 or UTF-16 of either kind: the table goes out as it came."""
    text = "\ufeff" * (encoding != "utf-8") + separator.join(["idé", "label\n"]) + f"a{separator}\n"
    code, lines, said = run(text.encode(encoding))
    assert (code, lines, said) == (
        0,
        [],
        "No row asks for 2 photos: “test/b.png”, “test/c.png”.\nsubmission.csv: 1 row.\n",
    )
    assert Path("submission.csv").read_bytes() == text.replace(f"a{separator}", f"a{separator}red").encode(encoding)


def test_a_label_is_written_as_in_the_template(run, tmp_path):
    """Case, blanks and underscores are forgiven, and told; a label that needs quotes has them."""
    model = saved(colour_model(labels=["fat_hen", "green, big", "Sp"]), tmp_path / "m.onnx")
    text = "id,species\na,Fat hen\nb,Fat hen\nc,sp.\n"
    code, _, said = run(text, model=model)
    assert (code, written()) == (0, 'id,species\na,Fat hen\nb,"green, big"\nc,sp.\n')
    assert said.splitlines()[0] == (
        "Taken for the same, but for case, blanks, underscores and dots: “Fat hen” in the template, “fat_hen” in the "
        "model; “sp.” in the template, “Sp” in the model."
    )


def test_several_labels_in_a_cell(run, tmp_path):
    """--top writes the best labels with blanks between, and refuses labels that hold one."""
    assert run("id,label\na,red blue\n", "--top", 2)[0] == 0
    assert written() == "id,label\na,red green\n"
    model = saved(colour_model(labels=["a b", "c", "d"]), tmp_path / "m.onnx")
    code, _, said = run("id,label\na,c\n", "--top", 2, "--csv", "other.csv", model=model)
    assert (code, said) == (1, "--top 2 puts blanks between labels, and the label 'a b' holds one itself.\n")


# One column per label


def test_probabilities_stand_under_their_labels(run):
    """The columns may have another order and spelling; a row holds the probabilities of its picture."""
    code, lines, said = run("Image,BLUE,red,Green\nb.png,0,0,0\nc,0.3,0.3,0.3\na,,,\n")
    assert (code, lines) == (0, [])
    assert "“BLUE” in the template, “blue” in the model; “Green” in the template, “green” in the model." in said
    rows = [f"b.png,{REST},{REST},{SURE}", f"c,{SURE},{REST},{REST}", f"a,{REST},{SURE},{REST}"]
    assert written() == "\n".join(["Image,BLUE,red,Green", *rows, ""])


def test_a_column_that_the_model_does_not_know(run):
    """It is named and nothing is written, unless --fill gives a number; a label without column is told."""
    text = "id,red,wasp,green\na,0,0,0\n"
    code, lines, said = run(text)
    assert (code, lines, written()) == (1, [], None)
    assert said.startswith("sample.csv: the model has no label for the column “wasp”. ") and said.count("\n") == 1
    assert run(text, "--fill", "many")[:2] == (1, [])
    code, _, said = run(text, "--fill", "0")
    assert (code, written()) == (0, f"id,red,wasp,green\na,{SURE},0,{REST}\n")
    assert "The model has no label for the column “wasp”: filled as --fill says.\n" in said
    assert "The template has no column for the label “blue”: such probabilities are left out.\n" in said


def test_columns_may_be_named(run):
    """--columns says which holds the ids and which are filled; the others stay. Where none fits, it says so."""
    text = "n,id,red,wasp\n7,a,0,x\n"
    assert run(text, "--columns", "id,red")[0] == 0
    assert written() == f"n,id,red,wasp\n7,a,{SURE},x\n"
    for columns, says in (
        ("id,bee", "has no column 'bee'"),
        ("id", "name the column of the ids and one or more others"),
        ("id,id", "each once"),
    ):
        code, lines, said = run(text, "--columns", columns, "--csv", "other.csv")
        assert (code, lines, says in said) == (1, [], True)
    code, _, said = run("n,id,what\n7,a,x\n", "--csv", "other.csv")
    assert code == 1 and said.endswith("Name that of the ids, and that for the label: --columns n,id\n")
    code, _, said = run("id,red,Red\na,,\n", "--csv", "other.csv")
    assert (code, "two columns for the label 'red'" in said) == (1, True)


# Which photo an id means


@pytest.mark.parametrize(
    ("id", "photo"),
    [
        *[("1.png", "test/1.png"), ("1", "test/1.png"), ("test/1.png", "test/1.png"), ("./test/1", "test/1.png")],
        *[("test\\1.png", "test/1.png"), (" 1.PNG ", "test/1.png"), ("b", None), ("x/b", "test/x/b.jpg")],
        *[("y/b.jpg", "test/y/b.jpg"), ("b.jpg", None), ("c", "test/c"), ("c.jpg", "test/c.jpg")],
        *[("D.jpg", "test/D.jpg"), ("d", "test/d.jpg"), ("D", "test/D.jpg"), ("é", "test/e\u0301.jpg")],
        *[("e.f", "test/e.f.jpg"), ("z/1.png", None), ("..", None), ("", None), ("/", None), ("2", None)],
    ],
)
def test_an_id_means_one_photo(id, photo):
    """A name with or without ending and folders; the nearest spelling wins; of two, or of none, there is no guess."""
    names = ("1.png", "x/b.jpg", "y/b.jpg", "c", "c.jpg", "D.jpg", "d.jpg", "e\u0301.jpg", "e.f.jpg")
    asked = PhotoNames(f"test/{name}" for name in names).meant(id)
    assert (asked.id, asked.photo, bool(asked.reason)) == (id, photo, photo is None)


def test_of_very_many_photos_of_one_name_none_is_meant():
    """An id that would be compared with all, again in each row, is told at once; with the folder it is clear."""
    photos = PhotoNames(f"{n}/img.png" for n in range(submission.MANY + 1))
    assert photos.meant("IMG").reason == "101 photos have this name, such as 0/img.png and 1/img.png"
    assert photos.meant("70/img").photo == "70/img.png"


def test_each_id_without_an_answer_is_named(run):
    """An id unknown, doubled, of two photos or empty: a line each; nothing is judged or written; the code is 2."""
    photo(Path("test/sub/b.jpg"))
    code, lines, said = run('id,label\na,\n"no, none",\na,\nb,\n,\nelsewhere/c.png,\n')
    assert (code, written()) == (2, None)
    assert lines == [
        ["no, none", "error", "no photo has this name"],
        ["a", "error", "it stands in line 2 already, and again in line 4"],
        ["b", "error", "2 photos have this name, such as test/b.png and test/sub/b.jpg"],
        ["", "error", "the row has no id"],
        ["elsewhere/c.png", "error", "there is test/c.png, but it is not in a folder elsewhere"],
    ]
    assert said.splitlines()[-1] == (
        "5 of 6 rows have no answer, so nothing was written, and no photo was judged. The lines above name them. Mend "
        "what they say, or give --fill what to write there."
    )


def test_a_photo_that_cannot_be_read_leaves_nothing_written(run):
    """It is named by its id; with --fill the table is written, and the code stays 2."""
    Path("test/b.png").write_bytes(b"\x89PNG broken")
    code, [line], said = run("id,label\na,\nb,\n")
    assert (code, line[:2], written(), said.count("nothing was written.")) == (2, ["b", "error"], None, 1)
    assert sorted(path.name for path in Path().iterdir()) == ["model.onnx", "sample.csv", "test"]
    code, lines, said = run("id,label\na,\nb,\nnone,\n", "--fill", "moth")
    assert (code, [line[0] for line in lines]) == (2, ["none", "b"])
    assert written() == "id,label\na,red\nb,moth\nnone,moth\n"
    assert "--fill “moth” is not a label of the model. It is written as it is.\n" in said
    assert said.endswith("submission.csv: 3 rows, 2 of them filled with “moth”.\n")


def test_a_template_of_other_photos_is_not_filled_up(run):
    """Where no row asks for a photo that is there, --fill does not make a table of nothing else."""
    code, _, said = run("id,label\nx,\ny,\n", "--fill", "red")
    assert (code, written()) == (1, None)
    assert said.splitlines()[-1] == "No row of sample.csv asks for one of the photos, so nothing is filled in."


def test_no_path_of_a_template_is_opened(run, tmp_path):
    """What lies outside the folders named is not reached, by a relative or a whole path."""
    photo(tmp_path / "outside.png")
    code, lines, _ = run(f"id,label\n../outside.png,\n{tmp_path}/outside.png,\noutside.png,\n")
    assert (code, {line[2] for line in lines}) == (2, {"no photo has this name"})


# The table that is written


def test_nothing_is_written_over(run):
    """The default name and that of --csv are refused where a file is, before the model is loaded."""
    Path("submission.csv").write_text("mine")
    code, lines, said = run("id,label\na,\n", model="no model")
    assert (code, lines, written()) == (1, [], "mine")
    assert said == "--csv submission.csv: this file is there already, and is not written over. Name another.\n"
    assert run("id,label\na,\n", "--csv", "sample.csv")[0] == 1 and written("sample.csv") == "id,label\na,\n"
    assert run("id,label\na,\n", "--csv", "mine.csv")[0] == 0 and written("mine.csv") == "id,label\na,red\n"


@pytest.mark.parametrize("options", [["--json"], ["--unknown"], ["--sort-into", "x"]])
def test_what_says_nothing_of_a_template_is_refused(run, options):
    """Options that do not go with --submission, and those that need it, are told; the code is 1."""
    with pytest.raises(SystemExit, match="1"):
        run("id,label\na,\n", *options)


def test_columns_and_fill_need_a_template(run, tmp_path, capsys):
    """Alone they would do nothing, so they are refused."""
    for options in (["--fill", ""], ["--columns", "a,b"]):
        with pytest.raises(SystemExit, match="1"):
            ask(capsys, tmp_path / "model.onnx", "test", *options)
        assert capsys.readouterr().err.endswith("--columns and --fill go with --submission.\n")


# Templates that are broken or hostile


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has one column"),
        ("id\na\n", "its first line 'id' has one column"),
        ("id,label\n", "has a header and no rows"),
        ("id,label\na,red,\n", "line 2: 3 cells, and the header has 2"),
        ('id,label\na,\n"b,\nc,\n', "line 3: a quote is opened and never closed"),
        ("id,label\na,\0\n", "holds zero bytes"),
        ("id,läbel\n".encode("latin-1"), "is not text in UTF-8 or UTF-16"),
        ("id,label\na," + 300 * "x" + "\n", "line 2: a row of more than 200 characters"),
        ('id,label\n"a,\n' + 100 * "x,\n", "line 2: a row of more than 200 characters, or a quote that is not closed"),
        ("id,label\n" + 400 * "a,\n", "has more than 300 rows"),
        ("id,label\n" + 4000 * "\n", "has more than 0 MB"),
    ],
)
def test_a_template_that_is_no_table_is_told(run, monkeypatch, text, says):
    """Too large, cut short, in another encoding: one sentence, no table, exit code 1."""
    monkeypatch.setattr(template, "MAX_RECORD", 200)
    monkeypatch.setattr(template, "MAX_ROWS", 300)
    monkeypatch.setattr(template, "MAX_TEMPLATE", 2000)
    code, lines, said = run(text)
    assert (code, lines, said.count("\n"), written()) == (1, [], 1, None)
    assert says in said


def test_a_template_that_is_not_there_is_told(run, tmp_path, capsys):
    """A missing one, and a folder: one sentence each."""
    for name in ("none.csv", "test"):
        code, lines, said = ask(capsys, tmp_path / "model.onnx", "test", "--submission", name)
        assert (code, lines, said) == (1, [], f"--submission {name}: there is no such file.\n")


def test_cells_are_taken_apart_as_csv_does():
    """The cells of any line are those that Python's csv finds, and joined again they are the text."""
    text = 'a,"b ""c"", d",\r\n"e\nf",5" g,\n,,"",h\n" i"," "\n'
    made = template.Template(Path("t.csv"), text.encode(), "utf-8", ",")
    records = list(made.records())
    assert [[template.cell_text(cell) for cell in cells] for _, cells, _ in records] == list(
        csv.reader(io.StringIO(text, newline=""))
    )
    assert "".join(",".join(cells) + end for _, cells, end in records) == text
    assert [number for number, _, _ in records] == [1, 2, 4, 5]
