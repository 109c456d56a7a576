"""The house itself: modules of a readable size, one home and one meaning per name, nothing written twice."""

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import code_cells

from utils.project import REPOSITORY

MODULES = sorted((REPOSITORY / "utils").rglob("*.py"))
IMPORTED = [*MODULES, *sorted((REPOSITORY / "sample").rglob("*.py"))]  # by notebooks, benchmarks and tests
SHARED = {"__all__", "logger", "__getattr__"}  # by Python's own custom in every module
VETTING = REPOSITORY / "utils" / "inference" / "vetting.py"  # one closed table, which must not be torn apart
BLOCKS = (ast.If, ast.Try, ast.With, ast.For, ast.While)


def module_name(path: Path) -> str:
    """Return a module's path below the repository, such as utils/split/sides.py."""
    return path.relative_to(REPOSITORY).as_posix()


def parsed(path: Path) -> ast.Module:
    """Return a module, or the code cells of a notebook, as a syntax tree."""
    if path.suffix == ".ipynb":
        return ast.parse("\n".join(code_cells(path)))
    return ast.parse(path.read_text(encoding="utf-8"))


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module's top level, also those in an if, try, with or loop."""
    for node in body:
        yield node
        if isinstance(node, BLOCKS):
            handlers = [statement for handler in getattr(node, "handlers", ()) for statement in handler.body]
            finals = [*getattr(node, "orelse", ()), *getattr(node, "finalbody", ())]
            yield from statements([*node.body, *handlers, *finals])


def top_level_names(path: Path) -> Iterator[str]:
    """Yield the names that a module defines at its top level; what it imports is not among them."""
    for node in statements(parsed(path).body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                yield from (each.id for each in ast.walk(target) if isinstance(each, ast.Name))


def public_names(path: Path) -> set[str] | None:
    """Return what ``__all__`` lists, also by ``*TABLE`` of a table in the same module, or None if there is none."""
    values = {
        target.id: node.value
        for node in parsed(path).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if "__all__" not in values:
        return None
    names = set()
    for item in values["__all__"].elts:
        names |= set(ast.literal_eval(values[item.value.id] if isinstance(item, ast.Starred) else ast.Tuple([item])))
    return names


def file_of(module: str) -> Path:
    """Return the file of a module of the house: utils.split is utils/split/__init__.py."""
    path = REPOSITORY.joinpath(*module.split("."))
    return path / "__init__.py" if (path / "__init__.py").exists() else path.with_suffix(".py")


def test_a_name_has_one_home_and_one_meaning():
    """No top-level name stands in two modules of utils."""
    homes = defaultdict(set)
    for path in MODULES:
        for name in top_level_names(path):
            homes[name].add(module_name(path))
    assert {name: found for name, found in homes.items() if len(found) > 1 and name not in SHARED} == {}


def test_a_name_is_imported_from_its_home():
    """Whoever imports a name takes it from the module that defines it, or from the front of its package."""
    users = [*IMPORTED, *sorted((REPOSITORY / "notebooks").rglob("[!.]*.ipynb")), REPOSITORY / "notebooks" / "run.py"]
    users += [*sorted((REPOSITORY / "tests").rglob("*.py")), *sorted((REPOSITORY / "benchmarks").glob("*.py"))]
    wrong = []
    for path in users:
        for node in ast.walk(parsed(path)):
            if not (isinstance(node, ast.ImportFrom) and not node.level and node.module):
                continue
            if node.module.split(".")[0] not in ("utils", "sample"):
                continue
            home = file_of(node.module)
            there = set(top_level_names(home)) if home.exists() else set()
            there |= (public_names(home) or set()) if home.name == "__init__.py" else set()
            for name in (alias.name for alias in node.names):
                if name not in there and not file_of(f"{node.module}.{name}").exists():
                    wrong.append(f"{module_name(path)}: from {node.module} import {name}")
    assert wrong == []


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_only_a_front_passes_names_on(path):
    """``__all__`` of a part lists its own names; a package's front has an ``__all__``."""
    public = public_names(path)
    if path.name == "__init__.py" and path.parent != REPOSITORY / "utils":
        assert public
    elif public is not None:
        assert public - set(top_level_names(path)) == set()


@pytest.mark.parametrize("path", IMPORTED, ids=module_name)
def test_importing_does_no_work(path):
    """
    At its top level a module imports and defines, and nothing else. No function imports a module of the house, but one:
    it keeps torch, 600 MB, out of stages that only compare pictures.
    """
    tree = parsed(path)
    if path.name != "__main__.py":
        own = set(top_level_names(path))
        assert [ast.unparse(node) for node in tree.body if not is_quiet(node, own)] == []
    lazy = [
        ast.unparse(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom) and imports_the_house(node)
    ]
    assert lazy == (["from utils.seeing import seen_by_network"] if module_name(path) == "utils/features.py" else [])


def is_quiet(node: ast.stmt, own: set[str]) -> bool:
    """Return whether a statement imports, defines or documents; `own` are the names that its module defines."""
    if isinstance(node, ast.If):  # one of two ways to import the same
        return all(isinstance(each, ast.Import | ast.ImportFrom) for each in [*node.body, *node.orelse])
    if isinstance(node, ast.AugAssign):
        return isinstance(node.target, ast.Name) and node.target.id in own
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
    return isinstance(node, definitions | ast.Import | ast.ImportFrom)


def imports_the_house(node: ast.Import | ast.ImportFrom) -> bool:
    """Return whether an import names utils or sample, or a neighbour by a dot."""
    if isinstance(node, ast.ImportFrom):
        return bool(node.level) or node.module.split(".")[0] in ("utils", "sample")
    return any(alias.name.split(".")[0] in ("utils", "sample") for alias in node.names)


def test_the_contract_covers_every_package():
    """Each package of utils has its parts protected, and no contract has an exception."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        linter = tomllib.load(file)["tool"]["importlinter"]
    packages = {path.parent.name for path in MODULES if path.name == "__init__.py"} - {"utils"}
    protected = {
        module: contract["allowed_importers"]
        for contract in linter["contracts"]
        if contract["type"] == "protected"
        for module in contract["protected_modules"]
    }
    assert protected == {f"utils.{name}.*": [f"utils.{name}"] for name in packages}
    assert [contract["name"] for contract in linter["contracts"] if "ignore_imports" in contract] == []
    assert "acyclic_siblings" in [contract["type"] for contract in linter["contracts"]]


def test_every_example_is_run():
    """The examples in docstrings are tests: none is skipped, and pytest looks for them in utils and sample."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        options = tomllib.load(file)["tool"]["pytest"]["ini_options"]
    assert "--doctest-modules" in options["addopts"] and {"utils", "sample"} <= set(options["testpaths"])
    assert [module_name(path) for path in IMPORTED if "+SKIP" in path.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_can_be_read_at_a_sitting(path):
    """At most 400 lines; vetting, one closed table, may have 730."""
    limit = 730 if path == VETTING else 400
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


def test_utils_stays_small():
    """At most 39,500 lines of Python in all: whoever adds a capability looks first for what can go."""
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES) <= 39_500


def test_nothing_is_written_twice():
    """No run of six lines of code stands in two places of utils, whatever its indent."""
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


def test_test_files_have_names_of_their_own():
    """Of two files of one name in different folders pytest would collect only the first."""
    names = [path.name for path in sorted((REPOSITORY / "tests").rglob("test_*.py"))]
    assert sorted(names) == sorted(set(names))
