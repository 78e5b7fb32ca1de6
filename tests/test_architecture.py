"""The page on the architecture describes the code as it is, and the code keeps to its limits."""

from __future__ import annotations

import ast
import functools
import re
import statistics
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = {"tau_pipeline": ROOT / "tau_pipeline", "tau_workflows": ROOT / "workflows" / "tau_workflows"}
#: A package whose subpackages are layers too.
CONTAINERS = (*PACKAGES, "tau_pipeline.synthesis")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CONTRACTS = tomllib.loads(PYPROJECT)["tool"]["importlinter"]["contracts"]
MODULES = sorted(
    (f"{name}.{'.'.join(path.relative_to(folder).with_suffix('').parts)}".removesuffix(".__init__"), path)
    for name, folder in PACKAGES.items()
    for path in folder.rglob("*.py")
)
NAMES = sorted(set(re.findall(r"`(tau_(?:pipeline|workflows)\.[\w.]+)`", PAGE)))


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def resolve(name: str) -> Any:
    """Import as much of a dotted name as is a module; the rest are attributes."""
    found = import_module(name.split(".", maxsplit=1)[0])
    for depth, part in enumerate(name.split(".")[1:], start=2):
        if not hasattr(found, part):
            import_module(".".join(name.split(".")[:depth]))
        found = getattr(found, part)
    return found


def test_every_name_on_the_page_exists() -> None:
    assert len(NAMES) > 10
    for name in NAMES:
        resolve(name)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("heading", ["From a PET scan to a table", "From a training pair to the loss"])
def test_a_path_has_at_most_eight_stops_and_each_names_a_function(heading: str) -> None:
    stops = re.findall(r"^\d+\. (.*(?:\n   .*)*)", section(heading), re.MULTILINE)
    assert 1 < len(stops) <= 8
    assert all(callable(resolve(re.findall(r"`(tau_[\w.]+)`", stop)[0])) for stop in stops)


def tree() -> Iterator[str]:
    """Yield the dotted name of every entry of the tree on the page."""
    parents: list[str] = []
    block = re.findall(r"```text\n(.*?)```", section("Packages"), re.DOTALL)[0]
    for line in block.splitlines():
        entry = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        parents[depth:] = [entry.removesuffix("/").removesuffix(".py")]
        assert entry.endswith("/") == (depth == 0 or (folder_of(parents)).is_dir()), entry
        yield ".".join(parents)


def folder_of(parts: list[str]) -> Path:
    return PACKAGES[parts[0]].joinpath(*parts[1:])


def test_the_tree_lists_exactly_the_packages_and_modules_that_exist() -> None:
    children = {
        f"{container}.{path.stem}"
        for container in CONTAINERS
        for path in folder_of(container.split(".")).iterdir()
        if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").is_file())
    }
    assert sorted(tree()) == sorted({*PACKAGES, *children})
    packages = {name for name, path in MODULES if path.name == "__init__.py"}
    assert packages <= {*tree()}


def test_the_contract_on_the_page_is_that_of_the_linter() -> None:
    found = re.findall(r"^`([\w.]+)`:\n\n```text\n(.*?)```", section("Import contract"), re.MULTILINE | re.DOTALL)
    on_page = {name: block.splitlines() for name, block in found}
    layers = [contract for contract in CONTRACTS if contract["type"] == "layers"]
    checked = {contract.get("containers", ["tau_pipeline"])[0]: contract["layers"] for contract in layers}
    assert on_page == {name: [line.replace(f"{name}.", "") for line in lines] for name, lines in checked.items()}
    for contract in CONTRACTS:
        for module in contract.get("forbidden_modules", ()):
            assert f"`{module}`" in section("Import contract")


def test_the_contract_fits_on_a_screen() -> None:
    lists = re.findall(r"^layers = \[(.*?)\]", PYPROJECT, re.MULTILINE | re.DOTALL)
    assert len(lists) == 3
    assert sum(len(text.strip().splitlines()) for text in lists) <= 16


def test_packages_do_not_import_each_other_in_a_circle() -> None:
    graph = nx.DiGraph()
    for name, path in MODULES:
        for imported in imports(name, path):
            if package(imported) != package(name):
                graph.add_edge(package(name), package(imported))
    assert [*nx.simple_cycles(graph)] == []
    assert graph.number_of_edges() > len({package(name) for name, _ in MODULES})


def imports(name: str, path: Path) -> Iterator[str]:
    """Yield the modules of ours that a module imports, at its head or inside a function."""
    known = {module for module, _ in MODULES}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in PACKAGES)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module.split(".")[0] in PACKAGES:
            yield from (
                full if (full := f"{node.module}.{alias.name}") in known else node.module for alias in node.names
            )
        else:
            assert getattr(node, "level", 0) == 0, f"{name} has a relative import"


def package(module: str) -> str:
    """Return the layer that a module belongs to: the package, or the module itself beside the packages."""
    container = max((name for name in CONTAINERS if f"{module}.".startswith(f"{name}.")), key=len)
    return ".".join(module.split(".")[: container.count(".") + 2])


def test_a_module_has_at_most_400_lines() -> None:
    n_lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES}
    assert len(n_lines) > 100
    assert {name: n for name, n in n_lines.items() if n > 400} == {}, "split them"


def test_half_of_the_modules_have_at_most_five_public_functions_and_classes() -> None:
    counts = [
        sum(
            isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            for node in parsed(path).body
        )
        for _, path in MODULES
        if path.name != "__init__.py"
    ]
    assert statistics.median(counts) <= 5


#: First words of no summary line; `ARTICLES` begin none of a public function.
QUESTIONS = {"What", "Whether", "How", "Where", "Who", "Whose", "Why", "Which", "When"}
ARTICLES = {"A", "An", "The", "All", "Any", "Both", "Each", "Every", "One"}
FOLDERS = (*PACKAGES.values(), *(ROOT / name for name in ("benchmarks", "containers", "docs", "tests")))
SOURCES = sorted(path for folder in FOLDERS for path in folder.rglob("*.py"))


@pytest.mark.slow
def test_no_docstring_begins_with_a_question() -> None:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    assert len(SOURCES) > 300
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, documented) and (text := ast.get_docstring(node)):
                assert first_word(text) not in QUESTIONS, f"{path}, {name_of(node)}: {text.splitlines()[0]}"


def test_docstrings_of_public_functions_begin_with_an_imperative() -> None:
    for path in SOURCES:
        if path.parent == ROOT / "tests":
            continue
        for function in public_functions(parsed(path)):
            word, place = (
                first_word(ast.get_docstring(function) or "Documented by its base class"),
                f"{path}: {function.name}",
            )
            assert word[0].isupper(), f"{place}: {word}"
            assert word not in ARTICLES, f"{place}: begin with a verb such as Return, not with {word}"
            assert not re.search(r"[^su]s$", word), f"{place}: begin with an imperative, not with {word}"


def first_word(text: str) -> str:
    return text.split(maxsplit=1)[0].strip(".,:;")


def name_of(node: ast.AST) -> str:
    return getattr(node, "name", "the module")


def public_functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield public functions and methods, without properties and what is inside a function."""
    for child in ast.iter_child_nodes(node):
        if name_of(child).startswith("_"):
            continue
        if isinstance(child, ast.ClassDef):
            yield from public_functions(child)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not is_property(child):
            yield child


def is_property(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in function.decorator_list)
