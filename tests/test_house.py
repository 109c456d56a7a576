"""The house itself: modules of a readable size, one home and one meaning per name, nothing written twice."""

import ast
from collections import defaultdict

import pytest

from utils.project import REPOSITORY

MODULES = sorted((REPOSITORY / "utils").rglob("*.py"))
SHARED = {"__all__", "logger", "__getattr__"}  # by Python's own custom in every module


def module_name(path) -> str:
    """Return a module's path below the repository, such as utils/split/sides.py."""
    return path.relative_to(REPOSITORY).as_posix()


def top_level_names(path):
    """Return the names that a module defines at its top level."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                yield from (each.id for each in ast.walk(target) if isinstance(each, ast.Name))


@pytest.mark.xfail(reason="the rooms are not all rebuilt yet")
def test_a_name_has_one_home_and_one_meaning():
    """No top-level name stands in two modules of utils."""
    homes = defaultdict(list)
    for path in MODULES:
        for name in top_level_names(path):
            homes[name].append(module_name(path))
    assert {name: found for name, found in homes.items() if len(found) > 1 and name not in SHARED} == {}


@pytest.mark.xfail(reason="the rooms are not all rebuilt yet")
@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_can_be_read_at_a_sitting(path):
    """400 lines at most; vetting, which must stay one closed table, may have more."""
    limit = 700 if path.name == "vetting.py" else 400
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


@pytest.mark.xfail(reason="the rooms are not all rebuilt yet")
def test_utils_stays_small():
    """13,000 lines of Python in all."""
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES) <= 13_000


@pytest.mark.xfail(reason="the rooms are not all rebuilt yet")
def test_nothing_is_written_twice():
    """No run of six lines of code stands in two places of utils, whatever their indent."""
    places = defaultdict(list)
    for path in MODULES:
        source = path.read_text(encoding="utf-8")
        imports = {
            number
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for number in range(node.lineno, node.end_lineno + 1)
        }
        lines = [
            (number, line.strip())
            for number, line in enumerate(source.splitlines(), start=1)
            if line.strip(" ()[]{},:\n") and not line.strip().startswith("#") and number not in imports
        ]
        for start in range(len(lines) - 5):
            run = lines[start : start + 6]
            places[tuple(text for _, text in run)].append(f"{module_name(path)}:{run[0][0]}")
    assert [found for found in places.values() if len(found) > 1] == []
