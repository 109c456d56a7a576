"""The notebooks as files: stripped, valid, short, and written the way the house writes them."""

import json
import re
import warnings

import nbformat
import pytest

from utils.project import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
STAGES = [path for path in NOTEBOOKS if path.stem[:2].isdigit()]


def code_cells(path):
    """Return the sources of a notebook's code cells."""
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_all_stages_are_there():
    """Eight stages in their order, the app, and the truth of the sample."""
    names = ["01_download", "02_verify", "03_split", "04_train", "05_evaluate", "06_clean", "07_export", "08_predict"]
    assert [path.stem for path in NOTEBOOKS] == [*names, "app", "sample_truth"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_defines_nothing_and_stays_short(path):
    """No def, class, magic, shell or star import; 15 cells, 10 lines a cell, 80 lines."""
    cells = code_cells(path)
    lines = [line for cell in cells for line in cell.splitlines() if line.strip()]
    assert [line for line in lines if re.match(r"\s*(async def|def|class)\s|[!%]|.*import \*", line)] == []
    assert len(cells) <= 15 and len(lines) <= 80
    first = cells[0].count("\n") + 1  # the imports
    assert first <= 16
    assert [cell for cell in cells[1:] if cell.count("\n") + 1 > 10] == []


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_a_stage_says_what_it_reads_writes_and_takes(path):
    """H1, a one-line blockquote and the table; at the end, what was written and what comes next."""
    cells = nbformat.read(path, as_version=4).cells
    header = cells[0].source.splitlines()
    assert header[0].startswith(f"# {path.stem[:2]} · ") and header[2].startswith("> ")
    assert [word for word in ("**Reads**", "**Writes**", "**Takes**") if word not in cells[0].source] == []
    assert "**Next:**" in cells[-1].source
    assert "Project.load()" in code_cells(path)[0]


def test_04_shows_the_datablock_that_the_folds_use():
    """What the reader sees in 04 and what 06 trains its folds with is one recipe, argument by argument."""
    import inspect

    from utils.train.loaders import MIN_SCALE, image_block

    shown = next(cell for cell in code_cells(REPOSITORY / "notebooks" / "04_train.ipynb") if "DataBlock(" in cell)
    used = inspect.getsource(image_block).replace("MIN_SCALE", str(MIN_SCALE))

    def arguments(source):
        inner = source[source.index("DataBlock(\n") :]
        return [line.strip() for line in inner[: inner.index("\n)") if "\n)" in inner else None].splitlines()[1:5]]

    assert arguments(shown) == arguments(used)


def test_every_requirement_says_why():
    """Each line of requirements.txt has a bound and a reason, and constraints.txt pins it."""
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in wanted if not re.match(r"[\w-]+>=[\d.]+,<[\d.]+ +# \w", line)] == []
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in constraints()}
    names = [re.split(r"[>=]", line)[0].lower().replace("_", "-") for line in wanted]
    assert [name for name in names if name not in pinned] == []


def constraints():
    """Return the pins of constraints.txt."""
    return [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if "==" in line]


def test_the_conda_environment_installs_the_same_files():
    """environment.yml leaves the versions to requirements.txt and constraints.txt."""
    text = (REPOSITORY / "environment.yml").read_text()
    assert "- -r requirements.txt" in text and "- -c constraints.txt" in text


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "data/README.md", "models/README.md"])
def test_no_figure_is_left_open(name):
    """No placeholder stands where a measured figure belongs."""
    assert re.findall(r"@[A-Z0-9]+@", (REPOSITORY / name).read_text(encoding="utf-8")) == []
