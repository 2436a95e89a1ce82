"""UMLS Metathesaurus (RRF): names from ``MRCONSO``, relations from ``MRREL``, semantic types from ``MRSTY``.

Retired CUIs come from ``MRCUI`` where it is there. One that became a synonym (``SY``) of a single concept is followed
to it; those deleted, or split into broader, narrower or related ones, have no successor and are counted.

A row ``CUI1|…|REL|…|CUI2|RELA`` of MRREL says that **CUI2 stands in REL to CUI1** (``PAR``: CUI2 is the
parent of CUI1). Two readings of it, recorded in the release:

* *strict*: ``CHD``, ``RN`` with ``RELA = isa`` and ``PAR``, ``RB`` with ``RELA = inverse_isa``.
* *broad*: that, and every ``PAR`` / ``CHD`` whatever its RELA; in MeSH and others this is hierarchy, not
  always subsumption.

RELA is written from CUI2 to CUI1 as well: ``CHD``/``isa`` is "CUI2 isa CUI1", ``PAR``/``inverse_isa`` "CUI2
inverse_isa CUI1". Source: UMLS Reference Manual, chapters on MRCONSO and MRREL; shared methods §1.2. Files
are streamed line by line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from kg_targets.errors import OntologyError
from kg_targets.ontology.concept import kind_of_types, parse_cui
from kg_targets.ontology.tables import (
    IS_A,
    PREFERRED,
    REPLACED_BY,
    SYNONYM,
    TableBuilder,
    Tables,
    read_lines,
    read_rows,
    require_file,
)

READINGS = ("strict", "broad")
_FILES = {"MRCONSO.RRF": 18, "MRREL.RRF": 16, "MRSTY.RRF": 6}
_RETIRED = "MRCUI.RRF"
_WIDTHS = {**_FILES, _RETIRED: 7}
"""Columns per row, the final ``|`` not counted."""
_HEAD = 100
"""Rows that show whether a file ends its rows with ``|``; some exports do not."""
_ABBREVIATION_TYPES = {"AB", "ACR", "MTH_ACR"}
_SUBSUMED = {("CHD", "isa"), ("RN", "isa")}
_SUBSUMING = {("PAR", "inverse_isa"), ("RB", "inverse_isa")}
_HINT = "Point to the META folder of a UMLS release (MRCONSO.RRF, MRREL.RRF, MRSTY.RRF, unpacked or as .gz)."


@dataclass(frozen=True)
class UmlsOptions:
    """Filters on the rows of the Metathesaurus."""

    language: str = "ENG"
    """Value of LAT that names must have."""
    sources: frozenset[str] = frozenset()
    """Source vocabularies (SAB) for names and relations; empty takes all."""
    suppressed: bool = False
    """Also take rows marked obsolete or suppressed (SUPPRESS other than N)."""


def umls_files(directory: Path) -> list[Path]:
    """The files of a META folder that are read, compressed or not; ``MRCUI`` last, where it is there."""
    paths = [(directory / name, directory / f"{name}.gz") for name in _WIDTHS]
    files = [packed if packed.is_file() and not plain.is_file() else plain for plain, packed in paths]
    return files if files[-1].is_file() else files[:-1]


def read_umls(directory: Path, reading: str = "strict", options: UmlsOptions | None = None) -> Tables:
    """Read a META folder.

    Raises:
        OntologyError: the reading has another name, a file is missing, or no name is left by the options.
    """
    if reading not in READINGS:
        raise OntologyError(f"umls: no reading {reading!r}; there are {' and '.join(READINGS)}")
    options = options or UmlsOptions()
    names, relations, types, *retired = (require_file(path, _HINT) for path in umls_files(directory))
    builder = TableBuilder()
    concepts, others = _read_names(names, options, builder)
    if not concepts:
        reasons = "; ".join(f"{count:,} rows: {reason}" for reason, count in builder.skipped.most_common(3))
        raise OntologyError(
            f"{names}: no name in {options.language} that the options keep ({reasons or 'the file is empty'}); check "
            "the file, language and sources"
        )
    builder.skipped["concept without a name that the options keep"] += len(others - concepts)
    _read_types(types, concepts, builder)
    _read_relations(relations, reading, options, builder)
    for path in retired:
        _read_retired(path, concepts, builder)
    filters = f", sources {', '.join(sorted(options.sources))}" if options.sources else ""
    return builder.build(f"UMLS {_version(directory)}, {reading} reading, {options.language}{filters}")


def _read_names(path: Path, options: UmlsOptions, builder: TableBuilder) -> tuple[set[int], set[int]]:
    """Add the names; returns the CUIs that got one, and those that had a row which the options leave out."""
    named: set[int] = set()
    others: set[int] = set()
    file = path.name
    for row in _rows(path, builder):
        cui = builder.cui(row[0], file)
        if cui is None:
            continue
        reason = _left_out(row, options)
        if reason:
            builder.skipped[f"{file}: {reason}"] += 1
            others.add(cui)
            continue
        named.add(cui)
        status, form, preferred, source, term_type, text, suppress = (
            row[2], row[4], row[6], row[11], row[12], row[14], row[16],
        )  # fmt: skip
        rank = _rank(status, form, preferred) if suppress == "N" else SYNONYM
        short = term_type in _ABBREVIATION_TYPES
        # UMLS answers for its CUIs, so its names are asserted; the vocabulary is told all the same.
        builder.add_name(cui, text, f"UMLS/{source}", rank=rank, abbreviation=short, asserted=True)
    return named, others


def _left_out(row: list[str], options: UmlsOptions) -> str:
    """Reason why a row of MRCONSO does not count; empty if it does."""
    if row[1] != options.language:
        return "name in another language"
    if row[16] != "N" and not options.suppressed:
        return "suppressed name"
    if options.sources and row[11] not in options.sources:
        return "name of a source that was not asked for"
    return "" if row[14].strip() else "empty name"


def _rank(status: str, form: str, preferred: str) -> int:
    """UMLS's own preference: preferred term (TS), preferred form (STT), preferred atom (ISPREF)."""
    if status != "P":
        return SYNONYM
    return PREFERRED + (form != "PF") * 2 + (preferred != "Y")


def _read_types(path: Path, concepts: set[int], builder: TableBuilder) -> None:
    types: dict[int, tuple[str, ...]] = {}
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # Millions of concepts, a few hundred combinations.
    file = path.name
    for row in _rows(path, builder):
        cui = builder.cui(row[0], file)
        if cui in concepts and cui is not None:
            found = (*types.get(cui, ()), row[1])
            types[cui] = shared.setdefault(found, found)
    for cui in concepts:
        found = types.get(cui, ())
        builder.add_term(cui, "UMLS", kind=kind_of_types(found), semantic_types=found)


def _read_relations(path: Path, reading: str, options: UmlsOptions, builder: TableBuilder) -> None:
    broad, file = reading == "broad", path.name
    for row in _rows(path, builder):
        first, relation, second, meaning, source, suppress = row[0], row[3], row[4], row[7], row[10], row[14]
        if (relation, meaning) in _SUBSUMED or (broad and relation == "CHD"):
            child, parent = second, first
        elif (relation, meaning) in _SUBSUMING or (broad and relation == "PAR"):
            child, parent = first, second
        else:
            continue
        if suppress != "N" and not options.suppressed:
            builder.skipped[f"{file}: suppressed relation"] += 1
        elif options.sources and source not in options.sources:
            builder.skipped[f"{file}: relation of a source that was not asked for"] += 1
        else:
            low, high = builder.cui(child, file), builder.cui(parent, file)
            if low is not None and high is not None:
                builder.add_edge(low, high, IS_A)


def _read_retired(path: Path, concepts: set[int], builder: TableBuilder) -> None:
    """Add an edge from each retired CUI to its successor; chains are followed to their ends."""
    successors: dict[int, set[int]] = {}
    for row in _rows(path, builder):
        old, new = builder.cui(row[0], path.name), parse_cui(row[5])
        if old is None or old in concepts:
            continue
        found = successors.setdefault(old, set())
        if row[2] == "SY" and new is not None:
            found.add(new)
    for old in successors:
        new, seen = old, {old}
        while new not in concepts and len(successors.get(new, ())) == 1:
            (new,) = successors[new]
            if new in seen:
                break
            seen.add(new)
        if new in concepts:
            builder.add_edge(old, new, REPLACED_BY)
        else:
            builder.skipped[f"{path.name}: retired CUI without one successor among the concepts"] += 1


def _rows(path: Path, builder: TableBuilder) -> Iterator[list[str]]:
    width = _WIDTHS[path.name.removesuffix(".gz")]
    cells = Counter(line.count("|") + 1 for line in islice(read_lines(path, Counter()), _HEAD))
    ended = cells[width + 1] >= cells[width]  # A separator after the last column: one empty cell more.
    return read_rows(path, width + ended, "|", builder.skipped)


def _version(directory: Path) -> str:
    """Name of the release: NLM unpacks it as ``2025AB/META``; any other folder is called by its own name."""
    return directory.resolve().parent.name if directory.name == "META" else directory.name
