"""The radiology ontology that this project has written and ships (tables in ``seed/``, sources in ``docs/``).

``concepts.tsv``: header ``cui name kind semantic_types synonyms abbreviations verified sources note``,
several values in a cell joined by ``|``. ``relations.tsv``: header ``child relation parent`` with ``is_a`` or
``part_of``. A row is verified when two independent sources give its CUI, and says so; the strict reading leaves
the others out. An alias may stand on a verified row and on an unverified one with the narrower meaning: it belongs
to the narrower one wherever that is read ("fluoroscopy" is radiographic imaging only for the strict reading).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from kg_targets.errors import OntologyError
from kg_targets.ontology.merge import bridged
from kg_targets.ontology.tables import (
    IS_A,
    PART_OF,
    PREFERRED,
    TableBuilder,
    Tables,
    read_table,
    require_file,
)

CONCEPTS_HEADER = [
    "cui", "name", "kind", "semantic_types", "synonyms", "abbreviations", "verified", "sources", "note",
]  # fmt: skip
RELATIONS_HEADER = ["child", "relation", "parent"]
SEED_DIRECTORY = Path(__file__).parent / "seed"


def seed_files(directory: Path = SEED_DIRECTORY) -> tuple[Path, Path]:
    """The table of concepts and the table of relations."""
    return directory / "concepts.tsv", directory / "relations.tsv"


def read_seed(directory: Path = SEED_DIRECTORY, *, include_unverified: bool = True) -> Tables:
    """Read the seed, or any folder with tables of the same form.

    Args:
        directory: folder of the two tables.
        include_unverified: False leaves out the rows whose CUI a single source gives; their children are tied to the
            next ancestors that stay.

    Raises:
        OntologyError: a table is missing, has another header, or has no usable row.
    """
    concepts, relations = seed_files(directory)
    for path in (concepts, relations):
        require_file(path, "The seed ontology belongs to the package: install it again.")
    builder = TableBuilder()
    kept = _read_concepts(concepts, builder, include_unverified)
    if not kept:
        raise OntologyError(
            f"{concepts}: not one usable row of {', '.join(CONCEPTS_HEADER)}; check the table"
        )
    parents = _read_relations(relations, builder)
    for child, relation, parent in bridged(parents, kept):
        builder.add_edge(child, parent, relation)
    return builder.build(
        f"seed ({len(kept):,} concepts{'' if include_unverified else ', each with two sources for its CUI'})"
    )


def _read_concepts(path: Path, builder: TableBuilder, include_unverified: bool) -> set[int]:
    kept: set[int] = set()
    rows = [
        dict(zip(CONCEPTS_HEADER, row, strict=True))
        for row in read_table(path, CONCEPTS_HEADER, builder.skipped)
    ]
    unverified = [cells for cells in rows if include_unverified and cells["verified"] == "false"]
    narrower = {_plain(alias) for cells in unverified for alias in (cells["name"].lower(), *_aliases(cells))}
    for cells in rows:
        cui = builder.cui(cells["cui"], path.name)
        if cui is None:
            continue
        verified = cells["verified"] == "true"
        if not verified and cells["verified"] != "false":
            builder.skipped[f"{path.name}: verified is neither true nor false"] += 1
        elif not verified and not include_unverified:
            builder.skipped[f"{path.name}: unverified concept"] += 1
        elif not cells["name"].strip():
            builder.skipped[f"{path.name}: concept without a name"] += 1
        else:
            _add_concept(builder, cui, cells, narrower if verified else ())
            kept.add(cui)
    return kept


def _add_concept(builder: TableBuilder, cui: int, cells: dict[str, str], elsewhere: Collection[str]) -> None:
    """Add a row without the aliases that are ``elsewhere``."""
    verified = cells["verified"] == "true"
    cited = _values(cells["sources"])
    # An unverified row speaks for the vocabulary it cites: meeting that one again is no second source.
    source = "seed" if verified or not cited else cited[0].split(":")[0]
    builder.add_name(cui, cells["name"], source, rank=PREFERRED, asserted=verified)
    for column in ("synonyms", "abbreviations"):
        for alias in _values(cells[column]):
            if _plain(alias) not in elsewhere:
                short = column == "abbreviations"
                builder.add_name(cui, alias, source, abbreviation=short, asserted=verified)
    types = _values(cells["semantic_types"])
    for term in cited or [""]:
        builder.add_term(cui, "seed", term, kind=cells["kind"], semantic_types=types)


def _read_relations(path: Path, builder: TableBuilder) -> dict[int, list[tuple[str, int]]]:
    parents: dict[int, list[tuple[str, int]]] = {}
    for child_text, relation, parent_text in read_table(path, RELATIONS_HEADER, builder.skipped):
        child, parent = builder.cui(child_text, path.name), builder.cui(parent_text, path.name)
        if relation not in (IS_A, PART_OF):
            builder.skipped[f"{path.name}: relation is neither is_a nor part_of"] += 1
        elif child is not None and parent is not None:
            parents.setdefault(child, []).append((relation, parent))
    return parents


def _aliases(cells: dict[str, str]) -> list[str]:
    return _values(cells["synonyms"]) + _values(cells["abbreviations"])


def _plain(alias: str) -> str:
    """The alias without hyphens and slashes; abbreviations keep their case."""
    return re.sub(r"[^A-Za-z0-9]+", " ", alias).strip()


def _values(cell: str) -> list[str]:
    return [value.strip() for value in cell.split("|") if value.strip()]
