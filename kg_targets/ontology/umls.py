"""UMLS Metathesaurus (RRF): names from ``MRCONSO``, relations from ``MRREL``, semantic types from ``MRSTY``.

Retired CUIs come from ``MRCUI`` where it is there. One that became a synonym (``SY``) of a single concept is followed
to it; those deleted, or split into broader, narrower or related ones, have no successor and are counted.

A concept's preferred name is UMLS's own by TS, STT and ISPREF. Where ``MRRANK`` is there, it is the kept name whose
source and term type it ranks highest, as MetamorphoSys chooses: with a filter on sources the two differ.

A row ``CUI1|…|REL|…|CUI2|RELA`` of MRREL says that **CUI2 stands in REL to CUI1** (``PAR``: CUI2 is the
parent of CUI1). Two readings of it, recorded in the release:

* *strict*: ``CHD``, ``RN`` with ``RELA = isa`` and ``PAR``, ``RB`` with ``RELA = inverse_isa``.
* *broad*: that, and every ``PAR`` / ``CHD`` whatever its RELA; in MeSH and others this is hierarchy, not
  always subsumption.

RELA is written from CUI2 to CUI1 as well: ``CHD``/``isa`` is "CUI2 isa CUI1", ``PAR``/``inverse_isa`` "CUI2
inverse_isa CUI1". Source: UMLS Reference Manual, chapters on MRCONSO, MRREL and MRRANK; shared methods §1.2. Files
are streamed in columns, see `kg_targets.ontology.rrf`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kg_targets.errors import OntologyError
from kg_targets.ontology.concept import ALL_CUIS, KIND_OF_TYPE
from kg_targets.ontology.rrf import RrfFile, rrf_parts
from kg_targets.ontology.tables import (
    EDGES,
    IS_A,
    NAMES,
    PREFERRED,
    REPLACED_BY,
    SYNONYM,
    TERMS,
    Tables,
    are_abbreviations,
    require_file,
    single_spaced,
)

Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int32]

READINGS = ("strict", "broad")
_WIDTHS = {"MRCONSO.RRF": 18, "MRREL.RRF": 16, "MRSTY.RRF": 6, "MRCUI.RRF": 7, "MRRANK.RRF": 4}
"""Columns per row, the final ``|`` not counted."""
_OPTIONAL = ("MRCUI.RRF", "MRRANK.RRF")
_ABBREVIATION_TYPES = {"AB", "ACR", "MTH_ACR"}
_HINT = "Point to the META folder of a UMLS release (MRCONSO.RRF, MRREL.RRF, MRSTY.RRF, unpacked, as .gz or in parts)."


@dataclass(frozen=True)
class UmlsOptions:
    """Filters on the rows of the Metathesaurus."""

    language: str = "ENG"
    """Value of LAT that names must have; several are joined by commas."""
    sources: frozenset[str] = frozenset()
    """Source vocabularies (SAB) for names and relations; empty takes all."""
    term_types: frozenset[str] = frozenset()
    """Term types (TTY) for names; empty takes all."""
    suppressed: bool = False
    """Also take rows marked obsolete or suppressed (SUPPRESS other than N)."""

    @classmethod
    def parse(cls, text: str) -> UmlsOptions:
        """Read ``language=ENG,SPA&sources=MSH,SNOMEDCT_US&term_types=PT,SY&suppressed=yes``, any of them.

        Raises:
            OntologyError: an option has another name, or a value is missing or none of those it takes.
        """
        found: dict[str, frozenset[str]] = {}
        for part in text.split("&"):
            name, _, value = part.partition("=")
            values = frozenset(filter(None, (one.strip() for one in value.split(","))))
            if name not in _OPTIONS:
                raise OntologyError(f"umls: no option {name!r}; there are {', '.join(_OPTIONS)}")
            if name in found or not values:
                raise OntologyError(f"umls: give {name} once, with a value, as in {name}={_OPTIONS[name]}")
            if name == "suppressed" and value not in ("yes", "no"):
                raise OntologyError(f"umls: suppressed is yes or no, not {value!r}")
            found[name] = values
        language = ",".join(sorted(found.pop("language", {"ENG"})))
        suppressed = "yes" in found.pop("suppressed", ())
        return cls(language=language, suppressed=suppressed, **found)

    @property
    def languages(self) -> frozenset[str]:
        """The values of LAT one by one."""
        return frozenset(self.language.split(","))

    def __str__(self) -> str:
        """The options for people to read, as a part of the release."""
        parts = [self.language]
        parts += [f"sources {', '.join(sorted(self.sources))}"] if self.sources else []
        parts += [f"term types {', '.join(sorted(self.term_types))}"] if self.term_types else []
        return ", ".join([*parts, *(["suppressed rows too"] if self.suppressed else [])])


_OPTIONS = {"language": "ENG,SPA", "sources": "MSH,SNOMEDCT_US", "term_types": "PT,SY", "suppressed": "yes"}
"""Options of a specification, each with an example."""


def umls_files(directory: Path) -> list[Path]:
    """The files of a META folder that are read, plain, compressed or in parts; optional ones where they are there."""
    return [
        path
        for name in _WIDTHS
        for path in rrf_parts(directory, name)
        if name not in _OPTIONAL or path.is_file()
    ]


def read_umls(directory: Path, reading: str = "strict", options: UmlsOptions | None = None) -> Tables:
    """Read a META folder.

    Raises:
        OntologyError: the reading has another name, a file is missing, an option names what the release does not
            have, or no name is left by the options.
    """
    if reading not in READINGS:
        raise OntologyError(f"umls: no reading {reading!r}; there are {' and '.join(READINGS)}")
    options = options or UmlsOptions()
    skipped: Counter[str] = Counter()
    files = {}
    for name, width in _WIDTHS.items():
        parts = rrf_parts(directory, name)
        if name not in _OPTIONAL or parts[0].is_file():
            files[name] = RrfFile([require_file(path, _HINT) for path in parts], width, skipped)
    names = _Names(files["MRCONSO.RRF"], options, _ranks(files.get("MRRANK.RRF")))
    table = names.table()
    edges = [*_relations(files["MRREL.RRF"], reading, options)]
    if "MRCUI.RRF" in files:
        edges.append(_retired(files["MRCUI.RRF"], names.named))
    return Tables(
        release=f"UMLS {umls_release(directory)}, {reading} reading, {options}",
        names=table,
        terms=_terms(files["MRSTY.RRF"], names.named),
        edges=pa.Table.from_batches(edges, schema=EDGES),
        skipped={reason: count for reason, count in skipped.items() if count},
    )


class _Names:
    """Reader of MRCONSO.

    Attributes:
        named: by the number of a CUI, whether the concept got a name.
    """

    def __init__(self, file: RrfFile, options: UmlsOptions, ranks: dict[tuple[str, str], int]) -> None:
        self.named = np.zeros(ALL_CUIS, dtype=bool)
        self._left_out = np.zeros(ALL_CUIS, dtype=bool)
        self._file, self._options, self._ranks = file, options, ranks
        self._seen: dict[str, set[str]] = {"language": set(), "source": set(), "term type": set()}

    def table(self) -> pa.Table:
        """All names that the options keep."""
        coded = {"LAT": 1, "TS": 2, "STT": 4, "ISPREF": 6, "SAB": 11, "TTY": 12, "SUPPRESS": 16}
        batches, scores = [], []
        for rows in self._file.read({"CUI": 0, "STR": 14}, coded):
            names, score = self._kept(rows)
            batches.append(names)
            scores.append(score)
        self._refuse_unknown_values()
        if not self.named.any():
            counts = Counter(self._file.skipped).most_common(3)
            reasons = "; ".join(f"{count:,} rows: {reason}" for reason, count in counts)
            raise OntologyError(
                f"{self._file}: no name in {self._options.language} that the options keep "
                f"({reasons or 'the file is empty'}); check the file, language and sources"
            )
        nameless = int((self._left_out & ~self.named).sum())
        if nameless:
            self._file.skipped["concept without a name that the options keep"] += nameless
        if self._ranks:
            batches = _with_ranks(batches, scores)
        return pa.Table.from_batches(batches, schema=NAMES)

    def _kept(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Numbers]:
        """The names of some rows that the options keep, and the score of each by MRRANK, zeros without it."""
        cui = self._file.cuis(batch["CUI"])
        kept = cui >= 0
        current = among(batch["SUPPRESS"], {"N"})
        for reason, keeps in self._filters(batch, current):
            self._drop(reason, cui[kept & ~keeps])
            kept &= keeps
        text = single_spaced(batch["STR"].filter(pa.array(kept)))
        filled = np.asarray(pc.not_equal(text, "").to_numpy(False), dtype=bool)
        self._drop("empty name", cui[kept][~filled])
        text, rows = text.filter(pa.array(filled)), np.flatnonzero(kept)[filled]
        self.named[cui[rows]] = True
        rank = np.where(current, _grades(batch), SYNONYM).astype(np.uint8)[rows]
        source = batch["SAB"]
        vocabulary = pc.binary_join_element_wise("UMLS", source.dictionary, "/")
        short = among(batch["TTY"], _ABBREVIATION_TYPES)[rows] | are_abbreviations(text)
        # UMLS answers for its CUIs, so its names are asserted; the vocabulary is told all the same.
        columns = [
            *[cui[rows], np.zeros(len(rows), np.uint8), rank, short, np.ones(len(rows), bool)],
            *[vocabulary.take(source.indices.take(pa.array(rows))), text],
        ]
        names = pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=NAMES)
        return names, (_places(batch, self._ranks) * current)[rows] * (SYNONYM + 1) - rank

    def _drop(self, reason: str, cuis: Numbers) -> None:
        self._file.skip(reason, len(cuis))
        self._left_out[cuis] = True

    def _filters(self, batch: pa.RecordBatch, current: Bools) -> Iterator[tuple[str, Bools]]:
        """Reasons why rows do not count, in this order, and which rows do."""
        options = self._options
        for name, column in (("language", "LAT"), ("source", "SAB"), ("term type", "TTY")):
            self._seen[name].update(batch[column].dictionary.to_pylist())
        yield "name in another language", among(batch["LAT"], options.languages)
        if not options.suppressed:
            yield "suppressed name", current
        if options.sources:
            yield "name of a source that was not asked for", among(batch["SAB"], options.sources)
        if options.term_types:
            yield "name of a term type that was not asked for", among(batch["TTY"], options.term_types)

    def _refuse_unknown_values(self) -> None:
        asked = (self._options.languages, self._options.sources, self._options.term_types)
        for (name, seen), wanted in zip(self._seen.items(), asked, strict=True):
            unknown = sorted(wanted - seen)
            if unknown and seen:
                known = ", ".join(sorted(seen))
                raise OntologyError(f"{self._file}: no {name} {unknown[0]!r}; there are {known}")


def _grades(batch: pa.RecordBatch) -> npt.NDArray[np.uint8]:
    """UMLS's own preference: preferred term (TS), preferred form (STT), preferred atom (ISPREF)."""
    form, preferred = among(batch["STT"], {"PF"}), among(batch["ISPREF"], {"Y"})
    return np.where(among(batch["TS"], {"P"}), PREFERRED + ~form * 2 + ~preferred, SYNONYM).astype(np.uint8)


def _ranks(file: RrfFile | None) -> dict[tuple[str, str], int]:
    """Rank of each source and term type by MRRANK, the highest first in preference; empty without the file."""
    rows = (
        row
        for batch in (file.read({"RANK": 0, "SAB": 1, "TTY": 2}, {}) if file else ())
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    )
    return {(source, kind): int(rank) for rank, source, kind in rows if rank.isdecimal()}


def _places(batch: pa.RecordBatch, ranks: dict[tuple[str, str], int]) -> Numbers:
    """MRRANK's rank of each row, 0 for a pair that it does not have."""
    if not ranks:
        return np.zeros(len(batch), dtype=np.int32)
    sources, kinds = batch["SAB"].dictionary.to_pylist(), batch["TTY"].dictionary.to_pylist()
    table = np.array([[ranks.get((source, kind), 0) for kind in kinds] for source in sources], dtype=np.int32)
    return np.asarray(table[batch["SAB"].indices.to_numpy(), batch["TTY"].indices.to_numpy()], dtype=np.int32)


def _with_ranks(batches: list[pa.RecordBatch], scores: list[Numbers]) -> list[pa.RecordBatch]:
    """The best name of each concept by score becomes its preferred one, and no other stays so."""
    best = np.full(ALL_CUIS, -ALL_CUIS, dtype=np.int32)
    for batch, score in zip(batches, scores, strict=True):
        np.maximum.at(best, batch["cui"].to_numpy(), score)
    ranked = []
    for batch, score in zip(batches, scores, strict=True):
        first = score == best[batch["cui"].to_numpy()]
        rank = np.where(first, PREFERRED, np.maximum(batch["rank"].to_numpy(), PREFERRED + 1)).astype(
            np.uint8
        )
        ranked.append(batch.set_column(NAMES.get_field_index("rank"), NAMES.field("rank"), pa.array(rank)))
    return ranked


def _terms(file: RrfFile, named: Bools) -> pa.Table:
    """One row for each concept with a name: its semantic types, and the kind that they say."""
    codes: dict[str, int] = {}
    pairs = []
    for batch in file.read({"CUI": 0}, {"TUI": 1}):
        cui = file.cuis(batch["CUI"])
        kept = (cui >= 0) & named[cui]
        own = np.array([codes.setdefault(tui, len(codes)) for tui in batch["TUI"].dictionary.to_pylist()])
        pairs.append(np.stack([cui[kept], own[batch["TUI"].indices.to_numpy()[kept]]]))
    cui, code = np.concatenate([np.zeros((2, 0), np.int64), *pairs], axis=1)
    types = sorted(codes)
    place = np.array([types.index(tui) for tui in codes], dtype=np.int64)  # by first appearance → by alphabet
    cui, code = np.divmod(
        np.unique(cui * max(len(types), 1) + (place[code] if types else code)), max(len(types), 1)
    )
    cuis = np.flatnonzero(named)
    starts = np.searchsorted(cui, np.append(cuis, ALL_CUIS)).astype(np.int32)
    of_concept = pa.ListArray.from_arrays(pa.array(starts), pa.array(types, pa.string()).take(pa.array(code)))
    kinds = np.array([KIND_OF_TYPE.get(tui, "") for tui in types], dtype=object)[code]
    telling = np.flatnonzero(kinds != "")
    owners, first = np.unique(cui[telling], return_index=True)
    kind = np.full(len(cuis), "", dtype=object)
    kind[np.searchsorted(cuis, owners)] = kinds[telling[first]]
    count = len(cuis)
    columns = [
        *[cuis.astype(np.int32), np.zeros(count, np.uint8), pa.repeat("UMLS", count), pa.repeat("", count)],
        *[pa.array(kind, pa.string()), pc.binary_join(of_concept, "|")],
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=TERMS)


def _relations(file: RrfFile, reading: str, options: UmlsOptions) -> Iterator[pa.RecordBatch]:
    for batch in file.read({"CUI1": 0, "CUI2": 4}, {"REL": 3, "RELA": 7, "SAB": 10, "SUPPRESS": 14}):
        below = among(batch["REL"], {"CHD", "RN"}) & among(batch["RELA"], {"isa"})
        above = among(batch["REL"], {"PAR", "RB"}) & among(batch["RELA"], {"inverse_isa"})
        if reading == "broad":
            below |= among(batch["REL"], {"CHD"})
            above |= among(batch["REL"], {"PAR"})
        kept = below | above
        if not options.suppressed:
            current = among(batch["SUPPRESS"], {"N"})
            file.skip("suppressed relation", int((kept & ~current).sum()))
            kept &= current
        if options.sources:
            asked = among(batch["SAB"], options.sources)
            file.skip("relation of a source that was not asked for", int((kept & ~asked).sum()))
            kept &= asked
        first, second = (file.cuis(batch[name].filter(pa.array(kept))) for name in ("CUI1", "CUI2"))
        yield _edges(np.where(below[kept], second, first), np.where(below[kept], first, second), IS_A)


def _retired(file: RrfFile, named: Bools) -> pa.RecordBatch:
    """Edges from each retired CUI to its successor; chains are followed to their ends."""
    successors: dict[int, set[int]] = {}
    for batch in file.read({"CUI1": 0, "CUI2": 5}, {"REL": 2}):
        retired, current = file.cuis(batch["CUI1"]), file.cuis(batch["CUI2"], counted=False)
        rows = np.flatnonzero((retired >= 0) & ~named[retired])
        synonym = among(batch["REL"], {"SY"}) & (current >= 0)
        columns = retired[rows].tolist(), current[rows].tolist(), synonym[rows].tolist()
        for old, new, same in zip(*columns, strict=True):
            found = successors.setdefault(old, set())
            if same:
                found.add(new)
    pairs = []
    for old in successors:
        new, seen = old, {old}
        while not named[new] and len(successors.get(new, ())) == 1:
            (new,) = successors[new]
            if new in seen:
                break
            seen.add(new)
        if named[new]:
            pairs.append((old, new))
    file.skip("retired CUI without one successor among the concepts", len(successors) - len(pairs))
    ends = np.array(pairs, dtype=np.int32).reshape(-1, 2)
    return _edges(ends[:, 0], ends[:, 1], REPLACED_BY)


def _edges(child: Numbers, parent: Numbers, relation: str) -> pa.RecordBatch:
    """Edges with both ends; -1 stands for none."""
    both = (child >= 0) & (parent >= 0)
    columns = [pa.array(child[both]), pa.array(parent[both]), pa.repeat(relation, int(both.sum()))]
    return pa.RecordBatch.from_arrays(columns, schema=EDGES)


def among(column: pa.DictionaryArray, values: Collection[str]) -> Bools:
    """Whether each cell is one of the values."""
    found = np.array([value in values for value in column.dictionary.to_pylist()], dtype=bool)
    return np.asarray(found[column.indices.to_numpy()], dtype=bool)


def umls_release(directory: Path) -> str:
    """Name of the release: NLM unpacks it as ``2025AB/META``; any other folder is called by its own name."""
    return directory.resolve().parent.name if directory.name == "META" else directory.name
