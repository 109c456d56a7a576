"""What the card promises: facts counted rightly, said plainly, and safe to open."""

import ast
import csv
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.metadata import version

import mistune
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.evaluate import mark_line, shortcut_line
from utils.export.attribution import attribution, visible
from utils.export.card import LARGEST_CARD, read_card
from utils.export.facts import FEW_JUDGED, FEW_TRAINED, limits, make_card
from utils.export.modelcard import escaped, front_matter, model_card, with_licence
from utils.intervals import figure, wilson
from utils.project import REPOSITORY
from utils.storage import content_id, write_whole
from utils.tables import SOURCES_COLUMNS, SPLIT_COLUMNS, append_rows, csv_text
from utils.words import percent, verdict_sentence

SHA256 = {"export.pkl": "a" * 64, "model.onnx": "b" * 64, "ATTRIBUTION.csv": "c" * 64, "split.csv": "d" * 64}
HOSTILE = 'cat | "dog": <b>*x*</b> `y` [z](http://a.b) # 1\n---\nlicense: mit\\ \u202e=\ud800'


def judged(*counts: tuple[int, int]) -> dict:
    """Return the entry of one side: how many of how many are right; each figure is another, as in truth."""
    names = ("accuracy", "balanced_accuracy", "macro_f1", "calibration_error", "calibration_error_scaled")
    return {name: wilson(hits, n) for name, (hits, n) in zip(names, counts, strict=True)}


@pytest.fixture
def evaluation() -> dict:
    """Return what evaluation.json holds of two labels, valid and test opened once."""
    scores = {"precision": wilson(7, 9), "recall": wilson(7, 10), "f1": figure(0.73, 0.5, 0.9, 10), "n": 10}
    others = {"precision": wilson(8, 11), "recall": wilson(8, 10), "f1": figure(0.76, 0.5, 0.9, 10), "n": 10}
    return {
        "valid": judged((15, 20), (14, 19), (13, 18), (3, 17), (2, 16)),
        "test": judged((12, 21), (11, 22), (10, 23), (4, 24), (3, 25)),
        "labels": {"cat": scores, "dog": others},
        "test_labels": {
            "cat": scores | {"recall": wilson(5, 11), "n": 11},
            "dog": others | {"precision": wilson(0, 0, why="no picture was called 'dog'")},
        },
        "confused": [{"label": "cat", "predicted": "dog", "pictures": 3, "share": wilson(3, 10)}],
        "shortcuts": None,
        "test_opened": 1,
        "fingerprint": "0123456789abcdef",
        "verdict": {"right": 12, "n": 21, "guess": 11, "p": 0.4, "better": False, "side": "test"},
        "settings": SETTINGS,
        "changed": "",
    }


# Other settings than those of the project file below: a cell of 04 was changed.
SETTINGS = {"seed": 7, "arch": "resnet34", "weights": "none", "size": 48, "epochs": 3, "loss": "CrossEntropy | *x*"}


@pytest.fixture
def unknown() -> dict:
    """Return when a model says unknown, as `certify_threshold` tells it."""
    unseen = {"unknown": wilson(9, 29), "labels": {"cat": wilson(4, 13), "dog": wilson(5, 16)}}
    unseen |= {"false_alarms": 0.071, "note": "Optimistic: so."}
    curve = [{"threshold": n / 20, "coverage": 1 - n / 20, "error": 0.2 - n / 100} for n in range(20)]
    found = {"threshold": 0.625, "target_error": 0.2, "reached": True, "confidence": 0.9, "bound": 0.142}
    found |= {"chosen_by": "out of fold", "error": wilson(1, 26), "coverage": wilson(26, 28)}
    return found | {"curve": curve, "unseen": unseen, "why": ""}


@pytest.fixture
def dataset(make_project):
    """Return a data set of sixteen pictures: cat 5 train, 2 valid, 1 test; dog 4, 2, 1 and one on no side."""
    project = make_project(source="sample", seed=7)
    rows = []
    for label, sides in (("cat", "tttttvvT"), ("dog", "ttttvvT-")):
        for n, side in enumerate(sides):
            write_whole(project.images / label / f"{name_of(label, n)}.jpg", b"")
            if side != "-":
                words = {"t": "train", "v": "valid", "T": "test"}
                rows.append({"id": name_of(label, n), "group": f"{label}{n}", "side": words[side]})
    append_rows(project.table("split"), SPLIT_COLUMNS, rows)
    return read_dataset(project)


def name_of(label: str, n: int) -> str:
    return content_id(f"{label} {n}".encode())


def note(dataset, id: str, label: str, **facts) -> None:
    """Add a row to sources.csv."""
    row = dict.fromkeys(SOURCES_COLUMNS, "") | {"id": id, "label": label, "status": "kept"}
    append_rows(dataset.project.table("sources"), SOURCES_COLUMNS, [row | facts])


def listing(text: str) -> dict[str, dict[str, str]]:
    """Return ATTRIBUTION.csv as id → row."""
    return {row["id"]: row for row in csv.DictReader(io.StringIO(text))}


@pytest.fixture
def card(dataset, evaluation, unknown) -> dict:
    licences = {"unknown": 9, "Share": 6}
    return make_card(dataset, evaluation, temperature=1.25, unknown=unknown, licences=licences, sha256=SHA256)


# --- ATTRIBUTION.csv -------------------------------------------------------------------------------------------------


def test_each_picture_on_a_side_has_a_row(dataset):
    """Fifteen of the sixteen pictures stand on a side and are listed, by label and id, with their side."""
    table = listing(attribution(dataset)[0])
    expected = [(label, name_of(label, n)) for label, count in (("cat", 8), ("dog", 7)) for n in range(count)]
    assert [(row["label"], id) for id, row in table.items()] == sorted(expected)
    assert [row["side"] for row in table.values()].count("train") == 9
    assert table[name_of("dog", 6)]["side"] == "test"


def test_licences_are_counted(dataset):
    """Three of one licence, two of another, and the rest unknown: also those that say nothing, or have no row."""
    for n, licence in enumerate(["Share", "Share", "CC0-1.0 (drawn)", "", "unknown", "Unknown "]):
        note(dataset, name_of("cat", n), "cat", license=licence)
    for n, licence in enumerate(["Share", "CC0-1.0 (drawn)"]):
        note(dataset, name_of("dog", n), "dog", license=licence)
    note(dataset, name_of("dog", 7), "dog", license="Public")  # on no side
    assert list(attribution(dataset)[1].items()) == [("unknown", 10), ("Share", 3), ("CC0-1.0 (drawn)", 2)]


def test_the_kept_row_is_taken(dataset):
    """Of many rows for one picture, the one counts that stands for its file, under its label where there is one."""
    id = name_of("cat", 0)
    note(dataset, id, "cat", title="a copy", status="copy", license="Public")
    note(dataset, id, "dog", title="kept under dog", license="Share")
    note(dataset, id, "cat", title="kept under cat", status="thumbnail", license="Modify")
    note(dataset, id, "cat", title="kept later", license="Public")
    note(dataset, name_of("cat", 1), "dog", title="moved to cat since", license="Share")
    note(dataset, name_of("cat", 2), "cat", title="refused", status="refused", license="Share")
    text, licences = attribution(dataset)
    table = listing(text)
    assert [table[name_of("cat", n)]["title"] for n in range(3)] == ["kept under cat", "moved to cat since", ""]
    assert licences == {"unknown": 13, "Modify": 1, "Share": 1}


def test_other_sources_keep_their_words_but_no_path(dataset):
    """The sample, a folder and a hand have engine and title; no address of this computer is passed on."""
    note(dataset, name_of("cat", 0), "cat", engine="sample", url="sample:cat-0", title="cat-0", license="CC0")
    note(dataset, name_of("cat", 1), "cat", engine="folder", url="file:///home/me/cats/tom.jpg", title="tom.jpg")
    note(dataset, name_of("cat", 2), "cat", engine="hand", title="my cat.jpg", license="unknown")
    found = attribution(dataset)[0]
    rows = [listing(found)[name_of("cat", n)] for n in range(3)]
    assert [(row["engine"], row["title"], row["url"]) for row in rows] == [
        ("sample", "cat-0", ""),
        ("folder", "tom.jpg", ""),
        ("hand", "my cat.jpg", ""),
    ]
    assert "file:" not in found and "/home" not in found


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("https://example.org/a?b=c#d", "https://example.org/a?b=c#d"),
        ("http://example.org/a b", "http://example.org/a%20b"),
        ("https://me:secret@example.org/a", "https://example.org/a"),
        ("https://example.org/\u202egpj.exe", "https://example.org/gpj.exe"),
        ("javascript:alert(1)", ""),
        ("java\x00script:alert(1)", ""),
        ("data:text/html,<script>", ""),
        ("file:///etc/passwd", ""),
        ("http://[::1", ""),
        ("https:///nowhere", ""),
    ],
)
def test_only_addresses_of_the_web_are_passed_on(dataset, told, expected):
    """An address is of http or https and names a host, or the cell is empty."""
    note(dataset, name_of("cat", 0), "cat", url=told, page_url=told)
    row = listing(attribution(dataset)[0])[name_of("cat", 0)]
    assert (row["url"], row["page_url"]) == (expected, expected)


@pytest.mark.parametrize("told", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\u202e=1", "＝1"])
def test_no_cell_is_a_formula(dataset, told):
    """Whatever a title or licence begins with, a spreadsheet shows it and computes nothing."""
    note(dataset, name_of("cat", 0), "cat", title=told, license=told)
    row = listing(attribution(dataset)[0])[name_of("cat", 0)]
    assert row["title"] == row["license"] == "'" + told.strip(" \t\u202e")


def test_a_title_stays_one_line(dataset):
    """Line breaks, control and invisible characters of a title are gone; quotes and commas are kept."""
    note(dataset, name_of("cat", 0), "cat", title='a "cat",\r\n\x1b[31mred\u200b\u202e')
    text = attribution(dataset)[0]
    assert listing(text)[name_of("cat", 0)]["title"] == 'a "cat", [31mred'
    assert len(text.splitlines()) == 16


# --- card.json -------------------------------------------------------------------------------------------------------


def test_the_card_holds_the_facts(card, evaluation, unknown):
    """Counts are those counted by hand; figures, verdict and hashes are what was given."""
    assert card["counts"] == {"cat": {"test": 1, "train": 5, "valid": 2}, "dog": {"test": 1, "train": 4, "valid": 2}}
    assert (card["valid"], card["test"], card["unknown"]) == (evaluation["valid"], evaluation["test"], unknown)
    assert card["by_label"] == {"valid": evaluation["labels"], "test": evaluation["test_labels"]}
    facts = {"name": "pets", "labels": ["cat", "dog"], "verdict": evaluation["verdict"], "changed": ""}
    facts |= {"temperature": 1.25, "licences": {"unknown": 9, "Share": 6}, "sha256": SHA256}
    facts |= {"sources": ["sample"], "test_opened": 1, "fingerprint": "0123456789abcdef"}
    assert facts.items() <= card.items()
    assert set(card["versions"]) == {"python", "fastai", "torch", "torchvision", "onnx", "numpy", "Pillow"}
    assert card["created"].endswith("+00:00")


def test_the_settings_are_those_of_the_training(card, evaluation):
    """The project file asks for resnet18, 32 pixels and one epoch; the record of the training says otherwise."""
    shown = {"seed": 7, "arch": "resnet34", "weights": "none", "size": 48, "epochs": 3}
    assert shown.items() <= card.items() and card["settings"] == SETTINGS
    rows = rendered(parts(model_card(card | {"changed": "04 trained 3 epochs; the project file asks for 1."}))[1])
    assert [row for row in rows.rows if row[0] in ("arch", "epochs", "loss")] == [
        ["arch", "resnet34"],
        ["epochs", "3"],
        ["loss", "CrossEntropy | *x*"],
    ]
    assert "04 trained 3 epochs; the project file asks for 1." in rows.texts


def test_a_network_of_timm_says_that_it_needs_timm(dataset, evaluation, unknown, card):
    """The card names timm with its version and the command, and says so of no other network."""
    pytest.importorskip("timm", reason="needs requirements-optional.txt")
    evaluation["settings"] = SETTINGS | {"arch": "timm/resnet10t"}
    facts = {"unknown": unknown, "licences": {"unknown": 9}, "sha256": SHA256}
    of_timm = make_card(dataset, evaluation, temperature=1.25, **facts)
    assert of_timm["versions"] == card["versions"] | {"timm": version("timm")}
    assert f"`export.pkl` needs timm too, in either way: `pip install timm=={version('timm')}`" in model_card(of_timm)
    assert "timm" not in model_card(card)


def test_what_is_written_is_read(card, tmp_path):
    """read_card returns what was made, from the file, the folder or the model beside it."""
    (tmp_path / "card.json").write_text(json.dumps(card), encoding="utf-8")
    assert read_card(tmp_path) == read_card(tmp_path / "card.json") == read_card(tmp_path / "model.onnx") == card


def test_a_card_of_an_older_evaluation_can_be_made(dataset, evaluation, unknown):
    """An evaluation without labels, pairs and shortcuts still gives a card and its text."""
    older = {key: evaluation[key] for key in ("verdict", "settings", "fingerprint")} | {"valid": {}, "test": {}}
    facts = make_card(dataset, older, temperature=1, unknown=unknown, licences={}, sha256={})
    assert facts["by_label"] == {} and "# pets" in model_card(facts)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_is_refused(dataset, evaluation, unknown, value):
    """NaN would be written as something that no other program reads."""
    evaluation["valid"]["accuracy"]["value"] = value
    with pytest.raises(FieldguideError, match=r"not a number .* Run 05 again"):
        make_card(dataset, evaluation, temperature=1, unknown=unknown, licences={}, sha256={})


def test_no_path_of_this_computer_stands_in_the_card(make_project, evaluation, unknown, tmp_path):
    """A folder as source is called a folder; where it lies is nobody's business."""
    project = make_project(source=["duckduckgo", str(tmp_path / "one"), str(tmp_path / "two")])
    facts = make_card(read_dataset(project), evaluation, temperature=1, unknown=unknown, licences={}, sha256={})
    assert facts["sources"] == ["duckduckgo", "folder"]
    assert str(tmp_path) not in json.dumps(facts) + model_card(facts)


BROKEN = {
    "empty": (b"", "not readable JSON"),
    "no JSON": (b"{", "not readable JSON"),
    "no text": (b"\xff\xfe{}", "not readable JSON"),
    "nested": (b"[" * 200_000, "not readable JSON"),
    "NaN": (b'{"temperature": NaN}', "NaN is not a number"),
    "Infinity": (b'{"x": -Infinity}', "-Infinity is not a number"),
    "beyond all numbers": (b'{"x": 1e999}', "1e999 is not a number"),
    "a number of 5,000 digits": (b'{"x": ' + b"9" * 5000 + b"}", "not readable JSON"),
    "half a character": (b'{"name": "\\ud800"}', "not readable JSON"),
    "a list": (b"[]", "holds list"),
    "without labels": (b'{"name": "pets"}', "labels = .*Field required"),
    "labels are no list": (b'{"labels": "cat"}', "labels = 'cat'"),
    "a label is no text": (b'{"labels": ["cat", 7]}', r"labels\.1 = '7'"),
    "counts are texts": (b'{"labels": [], "counts": {"cat": {"train": "7"}}}', r"counts\.cat\.train = '7'"),
    "a figure lacks its ends": (b'{"labels": [], "valid": {"accuracy": {"value": 1}}}', r"valid\.accuracy\.low"),
    "a figure is a text": (
        b'{"labels": [], "valid": {"accuracy": {"value": "1", "low": 1, "high": 1, "n": 1}}}',
        "accuracy.value",
    ),
    "a threshold is a text": (b'{"labels": [], "unknown": {"threshold": "0.9"}}', r"unknown\.threshold = '0\.9'"),
    "hashes are numbers": (b'{"labels": [], "sha256": {"export.pkl": 7}}', "sha256"),
    "limits hold a mapping": (b'{"labels": [], "limits": [{}]}', r"limits\.0"),
    "huge": (b'{"x": "' + b"x" * LARGEST_CARD + b'"}', "larger than 3 MB"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_card_is_told(tmp_path, name):
    """Whatever lies there in place of a card, one sentence says what is wrong, and to run 07."""
    data, told = BROKEN[name]
    (tmp_path / "card.json").write_bytes(data)
    with pytest.raises(FieldguideError, match=rf"(?s)card\.json .*{told}.*Run 07") as caught:
        read_card(tmp_path)
    assert len(str(caught.value)) < 700 + len(str(tmp_path)) and "\n" not in str(caught.value)


def test_no_card_and_no_file_are_told(tmp_path):
    """A missing card, and a folder of its name, are sentences."""
    with pytest.raises(FieldguideError, match=r"There is no .*card\.json\. Run 07"):
        read_card(tmp_path / "export.pkl")
    (tmp_path / "card.json").mkdir()
    with pytest.raises(FieldguideError, match="is not a file"):
        read_card(tmp_path)


def test_an_older_card_is_read(tmp_path):
    """A card with fewer keys, and one with a key more, are cards."""
    facts = {"name": "pets", "labels": ["cat", "dog"], "later": [1]}
    (tmp_path / "card.json").write_text(json.dumps(facts))
    assert read_card(tmp_path) == facts


def test_reading_a_card_loads_no_torch():
    """The app reads a card and runs model.onnx: neither torch, fastai nor scikit-learn is loaded for it."""
    heavy = "{'torch', 'fastai', 'sklearn', 'scipy', 'pandas', 'matplotlib', 'huggingface_hub', 'jinja2'}"
    code = f"import sys; from utils.export import read_card; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- what to beware of -----------------------------------------------------------------------------------------------


@pytest.fixture
def safe(card) -> dict:
    """Return a card of which there is nothing to say but what it knows, and how it spots what it does not know."""
    enough = {"train": FEW_TRAINED, "valid": FEW_JUDGED, "test": FEW_JUDGED}
    card["test"]["accuracy"] = figure(0.9, 0.86, 0.95, 500)
    return card | {"sources": ["folder"], "counts": {"cat": enough, "dog": enough}, "licences": {"CC0": 220}}


def test_a_model_without_known_limits_knows_its_labels_only(safe):
    """Two sentences stand in every card: it knows its labels, and how it spots others."""
    assert limits(safe) == [
        "It knows “cat” and “dog” and nothing else: a photo of anything else gets one of these names too, unless it is "
        "asked to say “unknown” and does.",
        f"Of the photos of a label that was left out for a trial, {percent(wilson(9, 29))} were called unknown; the "
        "others got one of its names.",
    ]


SHORTCUT = {"accuracy": wilson(90, 100), "majority": 0.5, "p": 0.005, "strongest": "source"}
SHORTCUT |= {"facts": {"source": wilson(85, 100)}}
CASES = {
    "drawn": ({"sources": ["sample"]}, "photos are drawn by a program"),
    "web": ({"sources": ["duckduckgo", "folder"]}, "come from a web search"),
    "few": (
        {"counts": {"cat": {"train": 49, "valid": 99, "test": 99}, "dog": {"train": 3, "test": 30}}},
        "Fewer than 50 photos trained it to know “dog” and “cat” (3, 49).",
    ),
    "few judged": (
        {"counts": {"cat": {"train": 50, "valid": 99, "test": 29}, "dog": {"train": 50, "test": 30}}},
        "Fewer than 30 photos of the test set say how well it knows “cat” (29).",
    ),
    "few of an individual": (
        {"individuals": {}, "counts": {"cat": {"train": 4, "test": 1}, "dog": {"train": 5, "test": 1}}},
        "Fewer than 5 photos trained it to know “cat” (4).",
    ),
    "individuals": (
        {
            "individuals": {
                "individuals": 9,
                "photos": 40,
                "valid": {"nearest": {"top1": figure(0.5, 0.4, 0.6, 20), "top5": figure(0.8, 0.7, 0.9, 20)}},
            }
        },
        "the nearest of 40 known photos shows the right individual for 50 % (95 % interval 40 % to 60 %).",
    ),
    "wide": (
        {"test": {"accuracy": figure(0.9, 0.84, 0.95, 100)}},
        f"roughly only: {percent(figure(0.9, 0.84, 0.95, 100))}, from 100 photos.",
    ),
    "shut": ({"test": {}, "test_opened": 0, "valid": {}}, "The test set was never opened. The figures are of the"),
    "shut for this one": (
        {"test": {}, "test_opened": 2, "valid": {}},
        "opened for other models (2 in all), not for this",
    ),
    "opened often": ({"test_opened": 3}, "The test set was opened for 3 models"),
    "licences": ({"licences": {"unknown": 9, "CC0": 1200}}, "The licence of 9 of its 1,209 photos is unknown"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_limit_is_said(safe, name):
    """Each fact adds one sentence to the two, and that sentence names it."""
    change, told = CASES[name]
    said = limits(safe | change)
    assert [sentence for sentence in said if told in sentence] != []
    assert len(said) == 3


def test_pairs_and_shortcuts_are_said(safe, evaluation):
    """The pairs confused most are named with their counts; an alarm is told, also a mark; a trace is not."""
    pairs = evaluation["confused"] * 5
    assert limits(safe, confused=pairs)[2:] == [
        "In the validation set it took most often " + "; ".join(["“cat” for “dog” (3 of 10)"] * 3) + "."
    ]
    (told,) = limits(safe, shortcuts=SHORTCUT)[2:]
    assert told.startswith("It may have learned something other than what the photos show. ")
    assert told.endswith(shortcut_line(SHORTCUT).removeprefix("Shortcut! "))
    assert limits(safe, shortcuts=SHORTCUT | {"majority": 0.85}) == limits(safe)
    mark = {"label": "cat", "place": "lower edge", "own": wilson(38, 40), "others": wilson(1, 80)}
    found = SHORTCUT | {"majority": 0.85, "marks": {"pictures": 120, "found": [mark]}}
    (told,) = limits(safe, shortcuts=found)[2:]
    assert told.endswith(mark_line(found).removeprefix("Shortcut! ")) and "38 of 40 photos of “cat”" in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"threshold": None, "why": "one picture only"},
            "It cannot say “unknown”: one picture only. Go by its confidence.",
        ),
        ({"threshold": 0.0}, "Its threshold is 0: it never says “unknown”, not even to what it never saw."),
        (
            {"unseen": {"why": "2 labels"}},
            "What it says to a label that it never saw was not measured: 2 labels.",
        ),
    ],
)
def test_what_unknown_cannot_do_is_said(safe, change, told):
    """No threshold, one of 0, and no trial with a label left out are each said."""
    assert any(sentence.startswith(told) for sentence in limits(safe | {"unknown": safe["unknown"] | change}))


# --- MODEL_CARD.md ---------------------------------------------------------------------------------------------------


def parts(text: str) -> tuple[dict, str]:
    """Return the front matter, parsed, and the rest."""
    opening, front, body = text.split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(front), body


class Page(HTMLParser):
    """Collects of a page its tables' rows, its texts (heading, paragraphs, items), its links and names of elements."""

    def __init__(self):
        super().__init__()
        self.rows, self.texts, self.links, self.names, self._into = [], [], [], set(), None

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th", "h1", "li", "p"):
            self._into = self.rows[-1] if tag in ("td", "th") else self.texts
            self._into.append("")

    def handle_endtag(self, tag):
        if tag in ("td", "th", "h1", "li", "p"):
            self._into = None

    def handle_data(self, data):
        if self._into is not None:
            self._into[-1] += data


def rendered(body: str) -> Page:
    """Return what a reader sees of Markdown, with tables, bare addresses as links, and HTML let through."""
    page = Page()
    page.feed(mistune.create_markdown(escape=False, plugins=["table", "url", "strikethrough"])(body))
    return page


def test_the_front_matter_holds_the_metrics(card):
    """Hugging Face finds the library, the task and the figures of both sides; the licence is left to the user."""
    front, _ = parts(model_card(card))
    assert front["library_name"] == "fastai" and front["pipeline_tag"] == "image-classification"
    assert "license" not in front
    (model,) = front["model-index"]
    assert model["name"] == "pets"
    assert [result["dataset"]["split"] for result in model["results"]] == ["test", "validation"]
    for result, side in zip(model["results"], ("test", "valid"), strict=True):
        assert result["task"]["type"] == "image-classification"
        assert {"type", "name"} <= set(result["dataset"])
        values = {metric["type"]: metric["value"] for metric in result["metrics"]}
        assert values == {"accuracy": card[side]["accuracy"]["value"], "f1": card[side]["macro_f1"]["value"]}


def test_without_figures_there_is_no_index(card):
    """A model that was judged on nothing has front matter all the same."""
    missing = {"accuracy": figure(None, None, None, 0, why="no picture")}
    front, _ = parts(model_card(card | {"valid": missing, "test": {}}))
    assert "model-index" not in front and front["library_name"] == "fastai"


def test_every_figure_is_the_cards(card, unknown):
    """Each percentage in the text is a value, an end or a share of the card, and each figure of it is there."""
    body = re.sub(r"(?<=\d) %", "%", parts(model_card(card))[1])
    known = {"95%", "20%", "90%", "7%"}  # the intervals', what is certified, how surely; false alarms
    figures = [found for side in ("valid", "test") for name, found in card[side].items() if "calibration" not in name]
    figures += [score[name] for score in card["by_label"]["test"].values() for name in ("recall", "precision")]
    figures += [card["test"]["calibration_error_scaled"], unknown["error"], unknown["coverage"]]
    unseen = unknown["unseen"]
    figures += [unseen["unknown"], *unseen["labels"].values()]
    for found in figures:
        shown = f"{found['value']:.1%}" if found["value"] is not None else found["why"]
        assert shown in body
        known |= {f"{found[end]:.1%}" for end in ("value", "low", "high") if found[end] is not None}
    known |= {f"{row[key]:.1%}" for row in unknown["curve"] for key in ("coverage", "error")}
    assert set(re.findall(r"\d+(?:\.\d+)?%", body)) <= known
    assert "0.625" in body and "1.250" in body


def test_the_tables_hold_what_was_counted(card):
    """Counts by label and side with their sums, licences, and a row a label with n, recall and precision."""
    rows = rendered(parts(model_card(card))[1]).rows
    for row in (
        ["cat", "5", "2", "1"],
        ["dog", "4", "2", "1"],
        ["all", "9", "4", "2"],
        ["unknown", "9"],
        ["Share", "6"],
    ):
        assert row in rows
    assert ["cat", "11", percent(wilson(5, 11), told=""), percent(wilson(7, 9), told="")] in rows
    assert ["dog", "10", percent(wilson(8, 10), told=""), "– (no picture was called 'dog')"] in rows
    assert ["photos", "21", "20"] in rows
    curve = [row for row in rows if row[0] in ("0.000", "0.200", "0.400", "0.550", "0.750", "0.950")]
    assert [row[1] for row in curve] == ["100.0 %", "80.0 %", "60.0 %", "45.0 %", "25.0 %", "5.0 %"]


def test_the_same_card_gives_the_same_text(card):
    """Neither the time nor the hash of this text changes it, so that an export made again is the same."""
    later = card | {"created": "2099-01-01T00:00:00+00:00", "sha256": card["sha256"] | {"MODEL_CARD.md": "e" * 64}}
    assert model_card(json.loads(json.dumps(later))) == model_card(card)
    assert [digest for digest in SHA256.values() if digest not in model_card(card)] == []


def test_hostile_names_are_shown_as_they_are(card):
    """Names of labels, licences and reasons make no markup, no row, no link and no line of front matter."""
    shown = 'cat | "dog": <b>*x*</b> `y` [z](http://a.b) # 1 --- license: mit\\ ='
    scores = card["by_label"]["test"]["cat"]
    hostile = card | {"name": HOSTILE, "labels": [HOSTILE, "dog"], "counts": {HOSTILE: {"train": 3}, "dog": {}}}
    hostile |= {
        "licences": {HOSTILE: 2},
        "by_label": {"test": {HOSTILE: scores}},
        "limits": [HOSTILE, "1. one", "- two"],
    }
    hostile["unknown"] = card["unknown"] | {"why": HOSTILE, "unseen": {"why": HOSTILE}}
    hostile |= {"changed": HOSTILE, "settings": {"arch": HOSTILE}}
    text = model_card(hostile)
    front, body = parts(text)
    assert front["model-index"][0]["name"] == shown and "license" not in front
    seen = rendered(body)
    assert {"b", "em", "del", "script", "ol", "hr"} & seen.names == set()
    assert sum(row[0] == shown for row in seen.rows) == 3  # by label, counts, licences
    assert {len(row) for row in seen.rows if row[0] == shown} == {2, 4}
    assert seen.texts[0] == shown
    assert [item for item in seen.texts if item in (shown, "1. one", "- two")] == [
        *(shown, shown, shown),  # its name, what changed, a limit
        *("1. one", "- two"),
    ]
    assert seen.links == []
    text.encode("utf-8")


@given(st.text())
def test_any_name_is_inert_in_the_front_matter(text):
    """Read again, it is the same name but for invisible characters; no line of it ends the front matter."""
    figures = {"accuracy": figure(0.5, 0.25, 0.75, 4)}
    front = front_matter({"name": text, "valid": figures, "test": {}})
    (model,) = yaml.safe_load(front)["model-index"]
    assert model["name"] == visible(text) == model["results"][0]["dataset"]["name"]
    assert [line for line in front.split("\n") if line.startswith(("---", "license"))] == [] and front.encode("utf-8")


@given(
    st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.sampled_from("|*_`<>[]()#-+1. "))
)
def test_any_text_survives_markdown(text):
    """In a table and in a list, a reader sees the text that was given, but for spaces."""
    told = " ".join(text.split())
    seen = rendered(f"- {escaped(text)}\n\n| a | b |\n| --- | --- |\n| {escaped(text)} | x |\n")
    assert seen.rows[-1] == [told, "x"]
    assert not {"a", "em", "strong", "code", "ol", "h1", "hr"} & seen.names


def test_the_code_is_python_and_fits_the_model(card):
    """What is shown to copy is Python; a model without a threshold is not asked to say unknown."""
    without = card | {
        "unknown": {"threshold": None, "why": "one picture tells nothing", "curve": [], "unseen": {"why": "two labels"}}
    }
    for facts, asked in ((card, True), (without, False)):
        text = model_card(facts)
        blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        assert [type(ast.parse(block)) for block in blocks] == [ast.Module, ast.Module]
        assert ("unknown=True" in blocks[0]) == ("unknown=True" in text) == asked
    assert "It never does: one picture tells nothing. Go by the confidence" in model_card(without)


def test_the_card_opens_with_the_verdict(card):
    """Before any figure stands what was judged right, what guessing gets, and whether that is better."""
    seen = rendered(parts(model_card(card))[1]).texts
    assert seen[:2] == [
        "pets",
        f"{verdict_sentence(card['verdict'])} (Test set.)",
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, "below 0.625. Of the labels it gives to photos like these, **at most 20 % are wrong**. That is certified"),
        ({"threshold": 0.0}, "Its threshold is 0: it names every photo, for that is good enough."),
        ({"chosen_by": "validation"}, "There are no out-of-fold answers (06), so the model's own confidences chose"),
        ({"why": "40 | are too few"}, "Nothing stricter is certified: 40 \\| are too few."),
    ],
)
def test_what_is_certified_is_said(card, change, told):
    """The share that may be wrong, who chose the threshold, and why nothing stricter is promised."""
    assert told in " ".join(model_card(card | {"unknown": card["unknown"] | change}).split())


def test_the_licence_of_an_earlier_card_stays(card):
    """What a person wrote at its head takes the reminder's place; other lines, and other texts, add nothing."""
    text = model_card(card)
    chosen = text.replace("---\n", "---\nlicense: other\nlicense_name: ours\nfoo: bar\n", 1) + "license: below\n"
    front, body = parts(with_licence(text, chosen))
    assert (front["license"], front["license_name"], front["library_name"]) == ("other", "ours", "fastai")
    assert "foo" not in front and body == parts(text)[1] and "yours to choose" not in with_licence(text, chosen)
    assert with_licence(with_licence(text, chosen), chosen) == with_licence(text, with_licence(text, chosen))
    assert [with_licence(text, other) for other in ("", text, "# Mine\nlicense: mit\n---\n")] == [text] * 3


@pytest.mark.parametrize(
    ("temperature", "told"),
    [
        (
            1,
            "as training left them: no temperature was fitted. In the test set, its confidence and how often it is "
            "right differ by 16.7",
        ),
        (1.5, "left it too confident. Both files put that right by a temperature of 1.500"),
        (0.5, "left it not confident enough. Both files put that right by a temperature of 0.500"),
    ],
)
def test_the_temperature_is_said(card, temperature, told):
    """Scaled or not, the calibration error is the one of the files that were written."""
    text = " ".join(model_card(card | {"temperature": temperature}).split())
    assert told in text
    assert ("differ by 12.0" in text) == (temperature != 1)  # calibration_error_scaled of the test side, 3 of 25


def test_a_figure_without_value_says_why(card):
    """What could not be measured is said with its reason, in sentences and in tables."""
    missing = figure(None, None, None, 4, why="one | picture")
    text = model_card(card | {"test": card["test"] | {"calibration_error_scaled": missing, "macro_f1": missing}})
    assert "could not be measured: one \\| picture." in text
    assert ["finding and being right, mean over the labels (macro F1)", "– (one | picture)"] in [
        row[:2] for row in rendered(parts(text)[1]).rows
    ]


def test_the_csv_is_what_the_tables_are(dataset):
    """ATTRIBUTION.csv is written as all tables are: without pictures it is its header."""
    columns = attribution(dataset)[0].splitlines()[0].split(",")
    assert columns == [
        "id",
        "label",
        "side",
        "title",
        "page_url",
        "url",
        "license",
        "creator",
        "rights_holder",
        "engine",
        "fetched_at",
    ]
    dataset.project.table("split").unlink()
    assert attribution(read_dataset(dataset.project)) == (csv_text(columns, (), header=True), {})
