"""`Ontology`: concepts, their names and what they are, held in columns and answered on demand."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from kg_targets.errors import OntologyError
from kg_targets.ontology.closure import ParentLists, ancestor_hops, cycles
from kg_targets.ontology.compiled import Bools, Compiled, Ints
from kg_targets.ontology.concept import (
    Concept,
    OntologyReport,
    cui_strings,
    format_cui,
    parse_cui,
    require_cui,
)
from kg_targets.ontology.intrinsic import intrinsic_content
from kg_targets.ontology.merge import merged
from kg_targets.ontology.names import NameIndex, compiled
from kg_targets.ontology.tables import IS_A, NAMES, RELATIONS, SAME_AS, Tables

if TYPE_CHECKING:
    from kg_targets.ontology.umls import UmlsOptions


Edge = tuple[str, str, str]

_REMEMBERED = 1 << 15
"""CUIs whose positions are remembered: workers ask for the same few thousands over and over."""


class Ontology:
    """A set of UMLS concepts with names and ``is_a`` / ``part_of`` relations, from one or several sources.

    ``a | b`` unites two ontologies: concepts, names and edges of both; where both know a concept, the left
    one's preferred name and kind win. ``SAME_AS`` edges (CUIs that one source term carries together) count as
    ``is_a`` in both directions wherever ``is_a`` is followed.

    Attributes:
        release: which releases of which sources, for people to read.
        fingerprint: sha256 (hex) of the content; independent of the order of rows in the files.
        report: counts, cycles, and what was skipped.
    """

    def __init__(self, data: Compiled, release: str, fingerprint: str, report: OntologyReport) -> None:
        self.release = release
        self.fingerprint = fingerprint
        self.report = report
        self._data = data
        self._names = NameIndex(data)
        self._latest: Concept | None = None
        self._numbers = data.cuis.data  # a memoryview: its elements are plain ints
        self._position = lru_cache(_REMEMBERED)(self._find)
        self._graphs: dict[frozenset[str], ParentLists] = {}

    # ---- where ontologies come from ----

    @classmethod
    def from_tables(cls, tables: Tables) -> Ontology:
        """Resolve what a reader has filled in."""
        data = compiled(tables)
        return cls(data, tables.release, fingerprint(data), describe(data, tables.skipped))

    @classmethod
    def seed(cls, include_unverified: bool = True) -> Ontology:
        """The radiology ontology that ships with the package; see `kg_targets.ontology.seed`."""
        from kg_targets.ontology.seed import read_seed

        return cls.from_tables(read_seed(include_unverified=include_unverified))

    @classmethod
    def from_tsv(cls, terms: str | Path, is_a: str | Path) -> Ontology:
        """A pair of tables, CUI ↔ name and CUI → parent CUI; see `kg_targets.ontology.tsv`."""
        from kg_targets.ontology.tsv import read_tsv

        return cls.from_tables(read_tsv(Path(terms), Path(is_a)))

    @classmethod
    def from_obo(cls, path: str | Path) -> Ontology:
        """An OBO file with UMLS cross-references; see `kg_targets.ontology.obo`."""
        from kg_targets.ontology.obo import read_obo

        return cls.from_tables(read_obo(Path(path)))

    @classmethod
    def from_umls(
        cls, directory: str | Path, reading: str = "strict", options: UmlsOptions | None = None
    ) -> Ontology:
        """A UMLS ``META`` folder with RRF files; see `kg_targets.ontology.umls` for the two readings."""
        from kg_targets.ontology.umls import read_umls

        return cls.from_tables(read_umls(Path(directory), reading, options))

    def __or__(self, other: Ontology) -> Ontology:
        return Ontology.from_tables(merged(self.tables(), other.tables()))

    # ---- concepts ----

    def __len__(self) -> int:
        return len(self._data.cuis)

    @property
    def cache_dir(self) -> Path | None:
        """The cache that it was read from, which keeps what is made of it as well; None if it is in memory."""
        return self._data.folder.parent if self._data.folder else None

    def __reduce__(self) -> tuple[type[Ontology], tuple[Compiled, str, str, OntologyReport]]:
        # Worker processes get the columns, or the path of their files, and set up their own look-ups.
        return Ontology, (self._data, self.release, self.fingerprint, self.report)

    def __repr__(self) -> str:
        return f"Ontology({self.release!r}, {len(self):,} concepts)"

    @cached_property
    def cuis(self) -> list[str]:
        """All CUIs, ascending."""
        return cui_strings(self._data.cuis)

    def __contains__(self, cui: object) -> bool:
        return isinstance(cui, str) and self._position(cui) >= 0

    def current(self, cui: str) -> str:
        """The concept's CUI today: that of its successor where it was retired, else as it was given."""
        retired, successors = self._data.successors
        number = parse_cui(cui) if len(retired) else None
        if number is None or cui in self:
            return cui
        where = int(np.searchsorted(retired, number))
        found = where < len(retired) and retired[where] == number
        return format_cui(int(successors[where])) if found else cui

    def __getitem__(self, cui: str) -> Concept:
        # Callers walk over aliases concept by concept: most of them ask for the same one again.
        if self._latest is None or self._latest.cui != cui:
            self._latest = self._names.concept(self._index(cui))
        return self._latest

    def name(self, cui: str) -> str:
        """Preferred name.

        Raises:
            OntologyError: the ontology does not have the concept (as for every method that takes one CUI).
        """
        return self._names.name(self._index(cui))

    def aliases(self, by_preference: bool = False) -> Iterator[tuple[str, str, bool]]:
        """All ``(name, cui, is_abbreviation)``, by CUI, the preferred name of each concept first.

        Args:
            by_preference: instead, the order in which concepts that share a name are to be preferred:
                confirmed pairs of name and CUI, then verified concepts, then the left part of a merge,
                preferred names before synonyms, more vocabularies, the smaller CUI. Whoever unites variants
                of a spelling keeps the first that comes.
        """
        return self._names.aliases(by_preference)

    def alias_table(self) -> pa.Table:
        """`aliases` by preference as columns: ``text``, ``cui`` (int32, the number), ``abbreviation``."""
        return self._names.alias_table(by_preference=True)

    def concept_table(self) -> pa.Table:
        """All concepts, ascending by CUI, with the fields of `Concept` that do not list names.

        Columns: ``cui`` (int32, the number), ``name``, ``kind``, ``semantic_types``, ``sources`` (lists), ``verified``.
        """
        return self._data.concepts.drop_columns(["first_name"])

    # ---- relations ----

    def parents(self, cui: str) -> list[str]:
        """Direct ``is_a`` parents, sorted."""
        return self._neighbours(cui, IS_A)

    def equivalents(self, cui: str) -> list[str]:
        """CUIs that share a source term with this one, directly or through others; sorted, without itself."""
        graph, start = self._graph((SAME_AS,)), self._index(cui)
        found = graph.reachable(np.array([start], dtype=np.int64))
        return cui_strings(self._data.cuis[found[found != start]])

    def ancestors(self, cui: str, max_hops: int | None = None) -> list[str]:
        """``is_a`` ancestors, nearest first, ties by CUI; `kg_targets.ontology.closure` defines distances."""
        _, nodes, hops = self._hops(np.array([self._index(cui)], dtype=np.int64), max_hops, (IS_A,))
        order = np.lexsort((nodes, hops))[1:]
        return cui_strings(self._data.cuis[nodes[order]])

    def ancestor_matrix(
        self, cuis: Sequence[str], max_hops: int | None = None, relations: Sequence[str] = (IS_A,)
    ) -> tuple[list[str], sparse.csr_array]:
        """The ancestor closure of many concepts at once.

        Args:
            cuis: C concepts. One that the ontology does not have stands for itself alone, without ancestors.
            max_hops: greatest distance, ≥ 0; None takes the whole closure.
            relations: which relations are followed.
        Returns:
            ``(nodes, A)``: the concepts with all their ancestors, sorted, and A, int32 ``[C, len(nodes)]``,
            with ``A[i, j] = hops + 1`` (1 is the concept itself) where ``nodes[j]`` is an ancestor of
            ``cuis[i]``.
        Raises:
            OntologyError: an identifier is no CUI, or ``max_hops`` is negative, or a relation has another
            name.
        """
        numbers = np.array([require_cui(cui) for cui in cuis], dtype=np.int64)
        where, known = self._where(numbers)
        rows, nodes, hops = self._hops(where[known], max_hops, relations)
        rows = np.concatenate([np.flatnonzero(known)[rows], np.flatnonzero(~known)])
        reached = np.concatenate([self._data.cuis[nodes], numbers[~known]])
        values = np.concatenate([hops, np.zeros(int((~known).sum()), np.int64)]) + 1
        columns, column = np.unique(reached, return_inverse=True)
        matrix = sparse.csr_array(
            (values.astype(np.int32), (rows, column.reshape(-1))), shape=(len(numbers), len(columns))
        )
        matrix.sort_indices()
        return cui_strings(columns), matrix

    def edges(self, nodes: Iterable[str], relations: Sequence[str] = (IS_A,)) -> list[Edge]:
        """``(child, relation, parent)`` between the nodes, sorted; ``is_a`` brings ``same_as`` along."""
        inside = np.zeros(len(self), dtype=bool)
        inside[self._known(nodes)] = True
        found: list[Edge] = []
        for relation in _followed(relations):
            graph = self._graph((relation,))
            starts = np.flatnonzero(inside)
            positions, parents = graph.of(starts)
            both = inside[parents]
            ends = (
                cui_strings(self._data.cuis[starts[positions[both]]]),
                cui_strings(self._data.cuis[parents[both]]),
            )
            found += [(child, relation, parent) for child, parent in zip(*ends, strict=True)]
        return sorted(found)

    def intrinsic_content(
        self, cuis: Sequence[str], relations: Sequence[str] = (IS_A,)
    ) -> npt.NDArray[np.float64]:
        """How much each concept tells by its place in the hierarchy, in [0, 1]; see `kg_targets.ontology.intrinsic`.

        Args:
            cuis: concepts; one that the ontology does not have counts as a leaf, 1.
            relations: which relations make the hierarchy.
        """
        where, known = self._where(np.array([require_cui(cui) for cui in cuis], dtype=np.int64))
        content = np.ones(len(cuis))
        content[known] = intrinsic_content(self._graph(_followed(relations)), where[known])
        return content

    # ---- inside ----

    def _find(self, cui: str) -> int:
        """Position of a concept, -1 if there is none."""
        number = parse_cui(cui)
        if number is None:
            return -1
        where = bisect_left(self._numbers, number)
        return where if where < len(self._numbers) and self._numbers[where] == number else -1

    def _index(self, cui: str) -> int:
        found = self._position(cui)
        if found < 0:
            raise OntologyError(
                f"ontology ({self.release}): no concept {cui!r}; check the CUI or add a source with |"
            )
        return found

    def _known(self, cuis: Iterable[str]) -> Ints:
        """Positions of the given CUIs; identifiers that are no CUI, or not here, are left out."""
        parsed = (parse_cui(cui) for cui in cuis)
        where, known = self._where(np.array([number for number in parsed if number is not None], np.int64))
        return where[known]

    def _where(self, numbers: Ints) -> tuple[Ints, Bools]:
        """Position of each CUI number, and whether it is really there."""
        where = np.searchsorted(self._data.cuis, numbers)
        known = np.zeros(len(numbers), dtype=bool)
        inside = where < len(self)
        known[inside] = self._data.cuis[where[inside]] == numbers[inside]
        return np.asarray(where, dtype=np.int64), known

    def _neighbours(self, cui: str, relation: str) -> list[str]:
        _, parents = self._graph((relation,)).of(np.array([self._index(cui)], dtype=np.int64))
        return cui_strings(self._data.cuis[parents])

    def _hops(self, nodes: Ints, max_hops: int | None, relations: Sequence[str]) -> tuple[Ints, Ints, Ints]:
        if max_hops is not None and max_hops < 0:
            raise OntologyError(f"ontology: max_hops must be 0 or more, or none, not {max_hops}")
        return ancestor_hops(self._graph(_followed(relations)), nodes, max_hops)

    def _graph(self, relations: Sequence[str]) -> ParentLists:
        wanted = frozenset(relations)
        if wanted not in self._graphs:
            self._graphs[wanted] = self._data.graph(wanted)
        return self._graphs[wanted]

    def tables(self) -> Tables:
        """The content as a reader would have filled it in; what merging starts from."""
        data, report = self._data, self.report
        names = data.names.select(NAMES.names)
        return Tables(self.release, names, data.terms, data.edges, dict(report.skipped), report.self_loops)

    def compiled(self) -> Compiled:
        """The columns behind this object, for caching; treat them as read-only."""
        return self._data


def _followed(relations: Sequence[str]) -> tuple[str, ...]:
    unknown = sorted(set(relations) - set(RELATIONS))
    if unknown:
        raise OntologyError(f"ontology: no relation {unknown[0]!r}; there are {', '.join(RELATIONS)}")
    return tuple(sorted({*relations, *((SAME_AS,) if IS_A in relations else ())}))


def describe(data: Compiled, skipped: Mapping[str, int]) -> OntologyReport:
    """Count what is there; ``skipped`` comes from the reader."""
    graphs = {relation: data.graph(frozenset([relation])) for relation in RELATIONS}
    retired = data.successors[0]
    return OntologyReport(
        concepts=len(data.cuis),
        verified=int(np.count_nonzero(data.concepts["verified"].to_numpy())),
        names=data.names.num_rows,
        ambiguous_aliases=data.ambiguous_aliases,
        edges={relation: len(graph.parents) for relation, graph in graphs.items() if len(graph.parents)},
        cycles=tuple(tuple(cui_strings(data.cuis[group])) for group in cycles(graphs[IS_A])),
        equivalence_classes=len(cycles(graphs[SAME_AS])),
        self_loops=data.self_loops,
        dangling_edges=data.edges.num_rows - data.attached_edges().num_rows - len(retired),
        retired=len(retired),
        skipped=dict(sorted(skipped.items())),
    )


def fingerprint(data: Compiled) -> str:
    """sha256 over the content in canonical order: names, terms, edges between concepts, successors of retired CUIs."""
    digest = hashlib.sha256()
    if len(data.successors[0]):
        digest.update(b"".join(numbers.tobytes() for numbers in data.successors))
    for table in (data.names.select(NAMES.names), data.terms, data.attached_edges()):
        for name in table.column_names:
            digest.update(f"{name}:{table.num_rows}\n".encode())
            for chunk in table[name].chunks:
                digest.update(_lines(chunk))
    return digest.hexdigest()


def _lines(values: pa.Array) -> memoryview:
    """The values of a column as text, each on a line."""
    flags = pa.types.is_boolean(values.type)
    text = pc.if_else(values, "True", "False") if flags else values.cast(pa.string())
    lines = pc.binary_join_element_wise(text, "", "\n")
    end = np.frombuffer(lines.buffers()[1], np.int32)[len(lines)] if len(lines) else 0
    return memoryview(lines.buffers()[2] or b"")[:end]
