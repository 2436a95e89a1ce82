"""A compact pair of tables: CUI ↔ name per source term, and CUI → parent CUI.

``cui_terms.tsv[.gz]``: header ``cui source source_id label synonyms`` (synonyms joined by ``|``).
``cui_isa.tsv[.gz]``: header ``child_cui parent_cui source``. A source whose name ends in ``_is_a_or_part_of``
mixes both relations: a pair that the same vocabulary's ``_is_a_strict`` has is ``is_a``, the rest is kept
    apart as ``part_of``.
CUIs with the same ``(source, source_id)`` stand on one term: they are equivalent.
"""

from __future__ import annotations

from pathlib import Path

from kg_targets.errors import OntologyError
from kg_targets.ontology.concept import KIND_OF_VOCABULARY
from kg_targets.ontology.tables import (
    IS_A,
    PART_OF,
    PREFERRED,
    TableBuilder,
    Tables,
    read_table,
    require_file,
)

TERMS_HEADER = ["cui", "source", "source_id", "label", "synonyms"]
IS_A_HEADER = ["child_cui", "parent_cui", "source"]
_MIXED = "_is_a_or_part_of"


def read_tsv(terms: Path, is_a: Path) -> Tables:
    """Read both tables.

    Raises:
        OntologyError: a file is missing or no such table, or has not one valid row.
    """
    for path in (terms, is_a):
        require_file(
            path, "Give the tables cui_terms.tsv.gz and cui_isa.tsv.gz, or the folder that holds both."
        )
    builder = TableBuilder()
    sources = _read_terms(terms, builder)
    _read_edges(is_a, builder)
    if not sources:
        raise OntologyError(
            f"{terms}: not one valid row of {', '.join(TERMS_HEADER)}; check that it is the right file"
        )
    return builder.build(f"TSV pair {terms.name} ({', '.join(sorted(sources))})")


def pair_in(directory: Path) -> tuple[Path, Path]:
    """The two tables of a folder, compressed or not."""
    first, second = (
        plain if (plain := directory / f"{stem}.tsv").is_file() else directory / f"{stem}.tsv.gz"
        for stem in ("cui_terms", "cui_isa")
    )
    return first, second


def _read_terms(path: Path, builder: TableBuilder) -> set[str]:
    sources: set[str] = set()
    carried: dict[tuple[str, str], list[int]] = {}
    for cui_text, source, source_id, label, synonyms in read_table(path, TERMS_HEADER, builder.skipped):
        cui = builder.cui(cui_text, path.name)
        if cui is None:
            continue
        names = [name for name in (label, *synonyms.split("|")) if name.strip()]
        if not names:
            builder.skipped[f"{path.name}: term without a name"] += 1
            continue
        sources.add(source)
        term = source_id if source_id.startswith(f"{source}:") else f"{source}:{source_id}"
        builder.add_name(cui, names[0], source, rank=PREFERRED)
        for synonym in names[1:]:
            builder.add_name(cui, synonym, source)
        builder.add_term(cui, source, term, kind=KIND_OF_VOCABULARY.get(source, ""))
        carried.setdefault((source, source_id), []).append(cui)
    for cuis in carried.values():
        builder.add_equivalents(cuis)
    return sources


def _read_edges(path: Path, builder: TableBuilder) -> None:
    strict: set[tuple[int, int]] = set()
    mixed: set[tuple[int, int]] = set()
    for child_text, parent_text, source in read_table(path, IS_A_HEADER, builder.skipped):
        child, parent = builder.cui(child_text, path.name), builder.cui(parent_text, path.name)
        if child is not None and parent is not None:
            (mixed if source.endswith(_MIXED) else strict).add((child, parent))
    for child, parent in strict:
        builder.add_edge(child, parent, IS_A)
    for child, parent in mixed - strict:
        builder.add_edge(child, parent, PART_OF)
