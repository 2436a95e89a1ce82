"""Which room may import which: read from the code, so that a rule broken anywhere is named with its file and line."""

import ast
from collections.abc import Iterator

from tests import REPOSITORY

SLOW = {"torch", "torchvision", "open_clip", "spacy", "scispacy", "transformers", "accelerate"}


def imports(room: str, top_level_only: bool = False) -> Iterator[tuple[str, str]]:
    """(file:line, module imported) of every file of a room."""
    for file in sorted((REPOSITORY / room).rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in tree.body if top_level_only else ast.walk(tree):
            place = f"{file.relative_to(REPOSITORY)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                yield from ((place, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield place, str(node.module)


def test_training_takes_only_store_and_manifest_from_the_library() -> None:
    allowed = ("kg_targets.store", "kg_targets.manifest", "kg_targets.losses", "kg_targets.errors")
    taken = [(place, name) for place, name in imports("training") if name.split(".")[0] == "kg_targets"]
    assert taken
    assert not [item for item in taken if not item[1].startswith(allowed)]


def test_nothing_imports_pipelines_but_itself() -> None:
    rooms = [*imports("kg_targets"), *imports("training")]
    assert not [item for item in rooms if item[1].split(".")[0] == "pipelines"]


def test_the_library_imports_neither_training_nor_anything_slow_at_module_level() -> None:
    assert not [item for item in imports("kg_targets") if item[1].split(".")[0] == "training"]
    slow = [item for item in imports("kg_targets", top_level_only=True) if item[1].split(".")[0] in SLOW]
    assert not [
        item for item in slow if not (item[0].startswith("kg_targets/losses/") and item[1] == "torch")
    ]
