"""Which room may import which: the contracts of pyproject.toml, and what import-linter cannot see."""

import ast
import itertools
import re
import tomllib
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


def test_imports_by_string_keep_the_contracts() -> None:
    """The layers and forbidden rooms of pyproject.toml, for what import-linter cannot see."""
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "importlinter"
    ]
    rank: dict[str, int] = {}
    forbidden: list[tuple[str, str]] = []
    for contract in contracts["contracts"]:
        for container in contract.get("containers", [""]):
            for height, layer in enumerate(reversed(contract.get("layers", []))):
                for name in layer.split(" | "):
                    rank[f"{container}.{name}".strip(".")] = height
        forbidden += itertools.product(
            contract.get("source_modules", []), contract.get("forbidden_modules", [])
        )
    assert rank and forbidden
    named = [(name, string) for room in ROOMS for name, file in modules(room) for string in strings(file)]
    wrong = [
        (importer, imported)
        for importer, imported in named
        if any(importer.startswith(source) and imported.startswith(target) for source, target in forbidden)
        or any(
            _below(importer, depth, rank) < _below(imported, depth, rank)
            and importer.split(".")[: depth - 1] == imported.split(".")[: depth - 1]
            for depth in (1, 2)
        )
    ]
    assert wrong == []


def _below(module: str, depth: int, rank: dict[str, int]) -> int:
    """How high the layer of a module is among rooms of one depth; modules outside all layers are higher than none."""
    return rank.get(".".join(module.split(".")[:depth]), 0)


def test_every_file_that_is_read_is_in_the_wheel() -> None:
    """Data beside the code that no pattern of package-data names would be missing for people who install a wheel."""
    patterns = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]
    listed = {
        found
        for package, globs in patterns["package-data"].items()
        for glob in globs
        for found in (REPOSITORY / package).glob(glob)
    }
    beside = {
        path
        for room in (*ROOMS, "data_manifests")
        for path in (REPOSITORY / room).rglob("*")
        if path.suffix in (".yaml", ".tsv", ".json", ".j2", ".html") and path.is_file()
    }
    assert beside and beside - listed == set()


def test_the_library_imports_nothing_slow_at_module_level() -> None:
    """A room that needs torch says so by being imported; nobody pays for it before."""
    taken = {
        (name, alias)
        for name, file in modules("kg_targets")
        if not name.startswith(("kg_targets.losses", "kg_targets.transe"))
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
