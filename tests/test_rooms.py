"""Which room may import which: the contracts of pyproject.toml, and what import-linter cannot see."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import REPOSITORY

ROOMS = ("kg_targets", "training", "pipelines")
SLOW = {"torch", "torchvision", "open_clip", "spacy", "scispacy", "transformers", "accelerate"}
NAME = re.compile(rf"(?:{'|'.join(ROOMS)})(?:\.\w+)+(?::\w+)?")


def modules(room: str) -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module of a room."""
    for file in sorted((REPOSITORY / room).rglob("*.py")):
        parts = file.relative_to(REPOSITORY).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def strings(file: Path) -> Iterator[str]:
    """Modules that a file names in a string, as ``import_module`` takes them; ``module:function`` counts, too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.fullmatch(node.value):
            yield node.value.partition(":")[0]


def test_no_circle_of_imports_strings_included() -> None:
    """Neither of files nor of packages beside each other; import-linter alone would pass over imports by string."""
    networkx, grimp = pytest.importorskip("networkx"), pytest.importorskip("grimp")
    graph = grimp.build_graph(*ROOMS, cache_dir=None)
    named = [
        (importer, imported)
        for room in ROOMS
        for importer, file in modules(room)
        for imported in strings(file)
        if imported in graph.modules and imported != importer
    ]
    assert any(importer == "training.teachers.registry" for importer, _ in named)  # the strings are found
    for importer, imported in named:
        graph.add_import(importer=importer, imported=imported)
    files = networkx.DiGraph(
        (module, imported)
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
        if not module.startswith(
            f"{imported}."
        )  # `from package import name` runs the package's __init__ anyway
    )
    assert [circle for circle in networkx.strongly_connected_components(files) if len(circle) > 1] == []
    packages = [module for module in graph.modules if graph.find_children(module)]
    assert {name: found for name in packages if (found := graph.nominate_cycle_breakers(name))} == {}


def test_the_library_imports_nothing_slow_at_module_level() -> None:
    """A room that needs torch says so by being imported; nobody pays for it before."""
    taken = {
        (name, alias)
        for name, file in modules("kg_targets")
        if not name.startswith("kg_targets.losses")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        for alias in (
            [one.name for one in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert taken
    assert {(name, alias) for name, alias in taken if alias.split(".")[0] in SLOW} == set()


def test_no_file_is_over_400_lines() -> None:
    long = {
        str(file.relative_to(REPOSITORY)): lines
        for room in (*ROOMS, "benchmarks", "tests", "tools")
        for _, file in modules(room)
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}
