"""Mistakes in a project file: what each refusal says, and that doing as it says helps."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from utils.project import Project, ProjectError

LABELS = '\n[labels]\ncat = ["cat photo"]\ndog = ["dog photo"]\n'
BACKSLASH = "Put text with backslashes in single quotes (in a path, / works too)"
NAME = "Put the name in quotes (only a to z, 0 to 9, _ and - go without)"
CURLY, COMMA = "Write straight quotes, not curly ones", "Put a comma between two texts"
EQUALS, SMALL = "Write = between a name and its value", "Write true or false in small letters"
POINT, TEXT, QUOTE = "Write a number with a point, such as 0.2", "Put text in quotes", "Add the quote that is missing"

# A line as people write it, what they are told, and the line as it should be.
SETTINGS = [
    (r'source = "C:\Users\me"', BACKSLASH, r"source = 'C:\Users\me'"),
    (r'source = "D:\photos"', BACKSLASH, r"source = 'D:\photos'"),
    (r'source = "C:\photos\"', BACKSLASH, r"source = 'C:\photos\'"),
    (r'source = "C:\O' + "'" + r'Brien"', BACKSLASH, 'source = "C:/O' + "'" + 'Brien"'),
    (r'source = "C:\new\test"', BACKSLASH, r"source = 'C:\new\test'"),
    (r'source = ["C:\birds", "duckduckgo"]', BACKSLASH, r"""source = ['C:\birds', "duckduckgo"]"""),
    (r'models_dir = "models\tests"', BACKSLASH, r"models_dir = 'models\tests'"),
    (r'group_by = "(site\d+)_"', BACKSLASH, r"group_by = '(site\d+)_'"),
    (r'group_by = "\bsite"', BACKSLASH, r"group_by = '\bsite'"),
    (r"source = C:\photos", TEXT, r"source = 'C:\photos'"),
    ("arch = resnet18", TEXT, 'arch = "resnet18"'),
    ("arch = “resnet18”   # small", CURLY, 'arch = "resnet18"   # small'),
    ("arch = „resnet18“", CURLY, 'arch = "resnet18"'),
    ("arch = ‘resnet18’", CURLY, "arch = 'resnet18'"),
    ("epochs\u00a0= 3", "Write plain blanks and a plain = [ ] , here", "epochs = 3"),
    ("epochs: 3", EQUALS, "epochs = 3"),
    ("epochs == 3", EQUALS, "epochs = 3"),
    ("arch: “resnet18”", f"{CURLY} and write = between a name and its value", 'arch = "resnet18"'),
    ("epochs 3", EQUALS, "epochs = 3"),
    ('arch "resnet18"', EQUALS, 'arch = "resnet18"'),
    ("batch size = 16", "Write _ for the blank", "batch_size = 16"),
    ("class_weights = True", SMALL, "class_weights = true"),
    ("honour_noai = FALSE", SMALL, "honour_noai = false"),
    ("valid = 0,2", POINT, "valid = 0.2"),
    ("valid = .2", POINT, "valid = 0.2"),
    ("images_per_label = 1,000", "Write a number without a comma or a blank in it", "images_per_label = 1000"),
    ("batch_size = 1 024", "Write a number without a comma or a blank in it", "batch_size = 1024"),
    ("valid = 20 %", "Write a fraction, not percent", "valid = 0.2"),
    ("seed = 042", "Write a number without a zero in front", "seed = 42"),
    ("size = 256 x 512", "Write height and width in square brackets", "size = [256, 512]"),
    ("size = 256×512   # pixels", "Write height and width in square brackets", "size = [256, 512]   # pixels"),
    ("size = 128, 224  # two", "Write several values in square brackets", "size = [128, 224]  # two"),
    ("size = 224 px", "Write a number without its unit", "size = 224"),
    ("epochs = 3;", "End the line after the value", "epochs = 3"),
    ('arch = "resnet18', QUOTE, 'arch = "resnet18"'),
    ('arch = resnet18"', QUOTE, 'arch = "resnet18"'),
    ("arch = 'resnet18", QUOTE, "arch = 'resnet18'"),
    ('allowed_hosts = ["nas"', "Close the bracket", 'allowed_hosts = ["nas"]'),
    ('allowed_hosts = ["nas"]]', "Remove the bracket that is too many", 'allowed_hosts = ["nas"]'),
    ("// more", "Begin a remark with #", "# more"),
    ("[filters", "Close the bracket", "[filters]"),
    ("filters = {", "Begin a section with its name in brackets", "[filters]"),
]
OF_LABELS = [
    ('sea cucumber = ["x"]', NAME, '"sea cucumber" = ["x"]'),
    ('Penaeus sp. 1 = ["x"]', NAME, '"Penaeus sp. 1" = ["x"]'),
    ('möwe = ["x"]', NAME, '"möwe" = ["x"]'),
    ('трепанг = ["x"]', NAME, '"трепанг" = ["x"]'),
    ('heron (grey) = ["x"]', NAME, '"heron (grey)" = ["x"]'),
    ("heron = [“grey heron”]", CURLY, 'heron = ["grey heron"]'),
    ("heron = grey heron", f"{TEXT} and put what to search for in square brackets", 'heron = ["grey heron"]'),
    ("heron = [grey heron]", TEXT, 'heron = ["grey heron"]'),
    ('heron = ["grey heron]', QUOTE, 'heron = ["grey heron"]'),
    ('heron = ["x" "y"]', COMMA, 'heron = ["x", "y"]'),
    ('heron = ["x"; "y"]', COMMA, 'heron = ["x", "y"]'),
    ('heron = ["x", "y"', "Close the bracket", 'heron = ["x", "y"]'),
    ('heron: ["x"]', EQUALS, 'heron = ["x"]'),
    ('heron ["x"]', EQUALS, 'heron = ["x"]'),
    ('heron = "x", "y"', "Put what to search for in square brackets", 'heron = ["x", "y"]'),
]
LINES = [
    *((f'name = "pets"\n{line}{LABELS}', 2, line, told, better) for line, told, better in SETTINGS),
    *((f'name = "pets"{LABELS}{line}\nemu = ["emu"]\n', 5, line, told, better) for line, told, better in OF_LABELS),
]


def refused(tmp_path, text):
    """Return what the refusal of a project file says, without its path."""
    (tmp_path / "project.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ProjectError) as refusal:
        Project.load(tmp_path / "project.toml")
    return str(refusal.value).removeprefix(str(tmp_path / "project.toml"))


@pytest.mark.parametrize(("text", "number", "line", "told", "better"), LINES, ids=[row[2] for row in LINES])
def test_a_line_is_shown_as_it_is_and_as_it_should_be(tmp_path, text, number, line, told, better):
    """A line that TOML reads not, or not as meant: its number, its text, what to do, and the right line."""
    assert refused(tmp_path, text) == f", line {number}:\n    {line}\n{told}:\n    {better}"


@pytest.mark.parametrize(("text", "number", "line", "told", "better"), LINES, ids=[row[2] for row in LINES])
def test_the_line_as_it_should_be_is_taken(tmp_path, text, number, line, told, better):
    """Whoever replaces the line by the one that is shown has a project file."""
    lines = text.split("\n")
    lines[number - 1] = better
    if better == "[filters]":
        lines[number - 1 : number] = [better, 'license = "any"']
    (tmp_path / "project.toml").write_text("\n".join(lines), encoding="utf-8")
    assert Project.load(tmp_path / "project.toml").name == "pets"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed = 1\nseed = 2", ", line 3:\n    seed = 2\nLine 2 has “seed” already: keep one of the two lines."),
        (
            '[labels]\nowl = ["a"]\n"owl" = ["b"]',
            ', line 4:\n    "owl" = ["b"]\nLine 3 has “owl” already: keep one of the two lines.',
        ),
        (
            '[labels]\nowl = ["a"]\n[labels]',
            ", line 4:\n    [labels]\nLine 2 has “labels” already: put these lines below that one.",
        ),
        ("seed = # later", ", line 2:\n    seed = # later\nWrite a value after =, or remove the line."),
        ("[labels]\nPenaeus sp. = []", f', line 3:\n    Penaeus sp. = []\n{NAME}:\n    "Penaeus sp." = []'),
        (
            "hello",
            ", line 2:\n    hello\nThis line cannot be read: write one name = value per line, with text in quotes, "
            "or begin a remark with #.",
        ),
        (
            '[labels]\nowl = [\n  "barn owl"\n  "tawny owl",\n]',
            ', line 4:\n    "barn owl"\nPut a comma between two texts:\n    "barn owl",',
        ),
        (
            '[labels]\nowl = [\n  "barn owl",\n  "tawny owl"\ncat = ["x"]',
            ', line 5:\n    "tawny owl"\nClose the bracket:\n    "tawny owl"]',
        ),
        (
            '[labels]\nowl = [\n  "barn owl",\n  "tawny,\n  "snowy",\n]',
            ', line 5:\n    "tawny,\nThe list cannot be read here: put each text in quotes, with a comma between two.',
        ),
        *(
            (
                f"{line}{LABELS}",
                f", line 2:\n    {line}\nThis line cannot be read: write one name = value per line, with text in "
                "quotes, or begin a remark with #.",
            )
            for line in ("epochs = ten", "valid = 1/5")
        ),
        (
            'source = """a\nb"""' + LABELS,
            ', line 2:\n    source = """a\nRemove the line break or the tab inside the quotes.',
        ),
    ],
)
def test_a_mistake_over_lines_is_shown_where_it_is(tmp_path, text, says):
    """What stands twice names both lines; of a list over many lines the one to change is shown."""
    assert refused(tmp_path, f'name = "pets"\n{text}') == says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("valid = 20" + LABELS, "valid = 20 (line 2): it must be less than 1; did you mean 0.2?"),
        ("valid = 2" + LABELS, "valid = 2 (line 2): it must be less than 1."),
        (
            "[augment]\np_affine = 75" + LABELS,
            "augment.p_affine = 75 (line 3): it must be less than or equal to 1; did you mean 0.75?",
        ),
        ('arch = "ResNet18"' + LABELS, "arch = 'ResNet18' (line 2): did you mean \"resnet18\"?"),
        ('arch = "resnet-50 "' + LABELS, "arch = 'resnet-50 ' (line 2): did you mean \"resnet50\"?"),
        ('arch = "MobileNet-V3-Small"' + LABELS, 'did you mean "mobilenet_v3_small"?'),
        ('weights = "ImageNet "' + LABELS, "weights (line 2): 'ImageNet ' is not known; did you mean \"imagenet\"?"),
        ('schedule = "Cyclic"' + LABELS, "schedule = 'Cyclic' (line 2): did you mean \"cyclic\"?"),
        ('augment = " strong"' + LABELS, "augment = ' strong' (line 2): did you mean \"strong\"?"),
        ('[filters]\nlicense = "public"' + LABELS, "filters.license = 'public' (line 3): did you mean \"Public\"?"),
        ('[filters]\nregion = "UK_en"' + LABELS, "filters.region = 'UK_en' (line 3): did you mean \"uk-en\"?"),
        *[
            (f'source = "{word}"{LABELS}', f"source = '{word}': there is no such folder; did you mean \"duckduckgo\"?")
            for word in ("web", "Google", "internet", "duckduckgo ", "Duck Duck Go", "duckduckgo.com", "duckgo")
        ],
        ('source = ["photos", "Web"]' + LABELS, "source = 'Web': there is no such folder"),
        ('source = " Sample"' + LABELS, "source = ' Sample': there is no such folder; did you mean \"sample\"?"),
        (
            "epochs = 10" + LABELS + "epochs = 20",
            "labels.epochs = 20 (line 6): epochs is a setting: move it above [labels].",
        ),
        (
            "size = [512]" + LABELS,
            "size (line 2): [512] has 1 number. Write one number of pixels, such as 224, or height",
        ),
        ("size = [512, 256, 3]" + LABELS, "size (line 2): [512, 256, 3] has 3 numbers. Write one number of pixels"),
        ('size = ["a", 2]' + LABELS, "size (line 2): ['a', 2] is not in whole pixels. Write one number of pixels"),
        ("size = 512.5" + LABELS, "size (line 2): 512.5 is not in whole pixels. Write one number of pixels"),
        ('size = "224"' + LABELS, "size (line 2): '224' is not in whole pixels. Write a whole number, without quotes."),
        ("size = [0, 256]" + LABELS, "size (line 2): [0, 256] is outside of 32 to 1024 pixels. Write one number"),
        ('optimizer = "Adam"' + LABELS, "optimizer = 'Adam' (line 2): did you mean \"adam\"?"),
        ('optimizer = "rmsprop"' + LABELS, "optimizer = 'rmsprop' (line 2): write 'adam' or 'sgd'"),
        (
            "lr = 5" + LABELS,
            "lr (line 2): 5 is outside of 1e-06 to 1. Write a rate such as 0.002, or 0: 04 chooses",
        ),
        (
            "[augment]\ncrop = 60" + LABELS,
            "augment.crop = 60 (line 3): it must be less than or equal to 1; did you mean 0.6?",
        ),
        ("[augment]\nstretch = 0.5" + LABELS, "augment.stretch = 0.5 (line 3): it must be greater than or equal to 1."),
        ("[augment]\nmax_hue = 1" + LABELS, "augment.max_hue = 1 (line 3): it must be less than or equal to 0.5."),
        ("[augment]\nsaturation = 0.2" + LABELS, "this key is unknown; did you mean max_saturation?"),
        ('cache = "ram"' + LABELS, "cache = 'ram' (line 2): write 'none', 'memory' or 'gpu'"),
        ("lr = 1e-9" + LABELS, "1e-09 is outside of 1e-06 to 1. Write a rate such as 0.002"),
        ("lr = -0.1" + LABELS, "-0.1 is outside of 1e-06 to 1."),
        ('lr = "0.1"' + LABELS, "lr = '0.1' (line 2): write a number such as 0.2, without quotes"),
        ("lr = nan" + LABELS, "nan is outside of 1e-06 to 1."),
        ("freeze_epochs = -1" + LABELS, "freeze_epochs = -1 (line 2): it must be greater than or equal to 0"),
        ("freeze_epochs = true" + LABELS, "freeze_epochs = True (line 2): write a whole number, without quotes"),
        ('[filters]\ntype = "photo"\nsize = 64' + LABELS, "filters.size = 64 (line 4): "),
        ("[filters]\nseed = 1" + LABELS, "filters.seed = 1 (line 3): seed is a setting: move it above [filters]."),
        ('[filters]\ntype = "photo"' + LABELS + "seed = 1", "seed is a setting: move it above [filters]."),
        (LABELS + 'arch = "resnet18"', "arch is a setting: move it above [labels]; for a label write a list: arch = ["),
        (LABELS + 'license = "any"', "did you mean license in the section [filters], or above [labels]?"),
        (LABELS + 'allowed_hosts = ["nas"]', "labels (line 3): allowed_hosts is a setting: move it above [labels]."),
        (LABELS + 'source = ["duckduckgo"]', "source is a setting: move it above [labels]."),
        (
            LABELS + 'heron = "grey heron"',
            "labels.heron = 'grey heron' (line 6): write a list: heron = [\"grey heron\"].",
        ),
        (LABELS + '"sea hare" = "hare"', 'write a list: "sea hare" = ["hare"].'),
        (LABELS + 'Penaeus.sp = ["x"]', 'a dot divides names; write "Penaeus.sp" = ["what to look for"].'),
        (LABELS + "epoch = 3", "or did you mean the setting epochs?"),
        ("Epochs = 3" + LABELS, "Epochs = 3 (line 2): this key is unknown; did you mean epochs?"),
        ('[LABELS]\ncat = ["x"]', "this key is unknown; did you mean labels?"),
    ],
)
def test_a_value_that_can_mean_one_thing_is_told(tmp_path, text, says):
    """Another case, blanks, percent, a near word or the wrong section: the line and what was meant."""
    assert says in refused(tmp_path, f'name = "pets"\n{text}')


def test_a_name_in_the_wrong_place_is_not_missing(tmp_path):
    """A `name` below [labels], or in capitals, is told once, and not also asked for."""
    assert "missing" in refused(tmp_path, LABELS)
    assert (
        refused(tmp_path, LABELS + "name = 3")
        == ": labels.name = 3 (line 5): name is a setting: move it above [labels]."
    )
    assert refused(tmp_path, "NAME = 3" + LABELS) == ": NAME = 3 (line 1): this key is unknown; did you mean name?"
    assert refused(tmp_path, 'name = "pets "' + LABELS).endswith('begins or ends with a blank; did you mean "pets"?')


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_file_in_another_encoding_says_which_to_take(tmp_path, encoding):
    """The file is refused, and the sentence names UTF-8 and the line."""
    (tmp_path / "project.toml").write_bytes('name = "pets"\n# möwe'.encode(encoding))
    with pytest.raises(ProjectError, match=r"is not saved as UTF-8 \(line \d\)\. Save it again"):
        Project.load(tmp_path / "project.toml")


def test_a_word_that_is_a_folder_is_a_folder(tmp_path):
    """Where a folder is called "web", it is the source; a wrong word is refused only where there is none."""
    (tmp_path / "web").mkdir()
    (tmp_path / "project.toml").write_text('name = "pets"\nsource = "web"' + LABELS)
    assert Project.load(tmp_path / "project.toml").places == (tmp_path / "web",)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="ab1_ =\"'\\[]{}#,.:;\n“”é", max_size=30))
def test_whatever_is_written_gets_a_sentence(tmp_path, text):
    """No text of a project file ends in anything but a refusal of ours."""
    said = refused(tmp_path, text)
    assert re.match(r"(, line \d+:\n    .*\n[A-Z][^\n]+|: .+[.?]$)", said, flags=re.S)


# --- A source that holds what the project itself writes ---------------------------------------------------------------


def project_beside(tmp_path, source, *, name="birds", labels="", dirs='data_dir = "data"\nmodels_dir = "models"\n'):
    """Write a project file beside data/ and photos/, with a source."""
    for folder in ("photos/heron", "photos/egret", "data/birds/images/heron", "data/photos/heron", "data/photos/egret"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for label in ("heron", "egret"):
        (tmp_path / label).mkdir(exist_ok=True)
    path = tmp_path / "project.toml"
    path.write_text(f'name = "{name}"\nsource = "{source}"\n{dirs}{labels}', encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("source", "how"),
    [
        *((source, "lies in") for source in ("data/birds", "data/birds/images", "models/birds/rounds", "linked")),
        *((source, "holds") for source in ("data", ".", "models")),
    ],
)
def test_a_source_with_our_own_files_is_refused(tmp_path, source, how):
    """A source that is, holds or lies in data/<name> or models/<name>: the set would double at the second run."""
    path = project_beside(tmp_path, source)
    (tmp_path / "models" / "birds" / "rounds" / "1").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "data" / "birds" / "images")
    with pytest.raises(ProjectError, match=rf"\.toml: source = '.*' {how} .*, where this project keeps its own.* set "):
        Project.load(path)


def test_a_source_is_refused_before_the_first_run(tmp_path):
    """What would only come into being is refused too: else a label "data" appears at the second run."""
    path = project_beside(tmp_path, ".", dirs='data_dir = "store"\nmodels_dir = "store"\n')
    with pytest.raises(ProjectError, match=r"holds .*store/birds.* set data_dir to another folder\.$"):
        Project.load(path)


def test_a_label_that_leads_to_our_own_files_is_refused(tmp_path):
    """Neither a link nor a label of the name of the data folder lets our own pictures in."""
    path = project_beside(tmp_path, "photos", labels="[labels]\nheron = []\ngull = []\n")
    (tmp_path / "photos" / "gull").symlink_to(tmp_path / "data" / "birds" / "images" / "heron")
    with pytest.raises(ProjectError, match="keeps its own files"):
        Project.load(path)
    with pytest.raises(ProjectError, match="keeps its own files"):
        Project.load(project_beside(tmp_path, ".", labels="[labels]\nheron = []\ndata = []\n"))


@pytest.mark.parametrize(
    ("source", "settings"),
    [
        ("photos", {}),
        ("data/photos", {}),
        ("data/birds/images", {"name": "other"}),
        (".", {"labels": "[labels]\nheron = []\negret = []\n"}),
        (".", {"dirs": 'data_dir = ".own"\nmodels_dir = ".own"\n'}),
        (".", {"dirs": ""}),
    ],
)
def test_a_source_beside_our_own_files_is_taken(tmp_path, source, settings):
    """Photos in data/, another project's pictures, chosen labels, a hidden or a far data folder do no harm."""
    (tmp_path / "data" / "birds" / "images" / "egret").mkdir(parents=True)
    project = Project.load(project_beside(tmp_path, source, **settings))
    assert {"heron", "egret"} <= set(project.labels)


def test_a_home_that_is_not_there_is_said(tmp_path):
    """A slash forgotten after ~ names somebody else's home."""
    for key in ("source", "data_dir"):
        told = refused(tmp_path, f'name = "pets"\n{key} = "~nobody-of-that-name/photos"{LABELS}')
        assert told.startswith(": a folder named there cannot be found") and told.endswith("as in ~/photos.")
