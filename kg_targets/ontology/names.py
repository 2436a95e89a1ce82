"""From tables as read to names: the concepts, their preferred names, what is verified; by concept and by alias.

Two rules live here, both independent of the order of rows.

**Verified.** Cross-references contain errors (DOID gives pneumothorax the CUI of another concept), so a pair
of name and CUI is *confirmed* when two different vocabularies give it (compared without case and
punctuation), or when a source that answers for its CUIs asserts it (the seed's verified rows, UMLS). A
concept is *verified* when one of its names is confirmed.

**Preferred name.** The leftmost part of a merge wins; within it the best rank, then the name that most
vocabularies share, then the vocabularies in the order of `VOCABULARIES`, then the alphabet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kg_targets.ontology.closure import ParentLists
from kg_targets.ontology.concept import Concept, format_cui
from kg_targets.ontology.tables import EDGES, NAMES, REPLACED_BY, TERMS, Tables

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

VOCABULARIES = ("seed", "UBERON", "HP", "MONDO", "DOID", "EFO")
"""Whose spelling of a name is shown when several agree; others follow in alphabetical order."""


@dataclass(frozen=True)
class Resolved:
    """Tables in canonical order with what is derived from them.

    Shapes: C concepts, R names, E edges.

    Attributes:
        cuis: int32 ``[C]``, ascending.
        names: Arrow ``[R]``, sorted by concept, then preference within it.
        concept_of_name: int64 ``[R]``.
        key: int64 ``[R]``: names with the same normalised text have the same number; -1 where nothing is left
            of it.
        support: int64 ``[R]``: vocabularies that give this concept this name.
        confirmed: bool ``[R]``.
        verified: bool ``[C]``.
        terms: Arrow, sorted by concept, then layer.
        edges: Arrow ``[E]``, sorted, self-loops dropped; ends may dangle.
        self_loops: how many were dropped.
    """

    cuis: npt.NDArray[np.int32]
    names: pa.Table
    concept_of_name: Ints
    key: Ints
    support: Ints
    confirmed: Bools
    verified: Bools
    terms: pa.Table
    edges: pa.Table
    self_loops: int

    @cached_property
    def _ends(self) -> tuple[Ints, Ints, Bools]:
        """Positions of child and parent in ``cuis``, and whether both are there; each ``[E]``."""
        child, parent = _ints(self.edges["child"]), _ints(self.edges["parent"])
        attached = np.isin(child, self.cuis) & np.isin(parent, self.cuis)
        return np.searchsorted(self.cuis, child), np.searchsorted(self.cuis, parent), attached

    @cached_property
    def successors(self) -> tuple[Ints, Ints]:
        """Retired CUIs, ascending, and the concepts here that replace them; each has one. Each ``[S]``."""
        replaced = np.asarray(pc.equal(self.edges["relation"], REPLACED_BY).to_numpy(), dtype=bool)
        old, new = _ints(self.edges["child"])[replaced], _ints(self.edges["parent"])[replaced]
        numbers, counts = np.unique(old, return_counts=True)
        kept = np.isin(old, numbers[counts == 1]) & np.isin(new, self.cuis) & ~np.isin(old, self.cuis)
        return old[kept], new[kept]

    def attached_edges(self) -> pa.Table:
        """The edges with both ends among the concepts."""
        return self.edges.filter(pa.array(self._ends[2]))

    def graph(self, relations: frozenset[str]) -> ParentLists:
        """Parents of every concept under some relations, over positions in ``cuis``."""
        child, parent, attached = self._ends
        wanted = pc.is_in(self.edges["relation"], value_set=pa.array(sorted(relations), pa.string()))
        chosen = attached & np.asarray(wanted.to_numpy(), dtype=bool)
        return ParentLists.from_edges(child[chosen], parent[chosen], len(self.cuis))


def normalised(texts: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Lower-case, with every run of anything but letters and digits turned into one space."""
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(pc.utf8_lower(texts), r"[^\p{L}\p{N}]+", " "))


def resolve(tables: Tables) -> Resolved:
    """Derive everything that does not need the graph."""
    names = _distinct(tables.names, NAMES)
    cui_of_name = _ints(names["cui"])
    cuis = np.unique(cui_of_name)
    concept = np.searchsorted(cuis, cui_of_name)
    key, support, confirmed = _agreement(names, concept)
    order = _preference_within_concepts(names, concept, key)
    names, key, support, confirmed = names.take(order), key[order], support[order], confirmed[order]
    concept = concept[order]
    verified = np.bincount(concept[confirmed], minlength=len(cuis)) > 0
    terms = _distinct(tables.terms, TERMS)
    edges = _distinct(tables.edges, EDGES)
    loops = _ints(edges["child"]) == _ints(edges["parent"])
    edges = edges.filter(pa.array(~loops))
    return Resolved(
        cuis=cuis.astype(np.int32),
        names=names,
        concept_of_name=concept,
        key=key,
        support=support,
        confirmed=confirmed,
        verified=verified,
        terms=terms,
        edges=edges,
        self_loops=tables.self_loops + int(loops.sum()),
    )


def _ints(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column.to_numpy(), dtype=np.int64)


def _distinct(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Distinct rows in the order of all columns, left to right."""
    # One chunk with string offsets of its own: equal content then has equal bytes.
    return (
        table.group_by(schema.names, use_threads=False)
        .aggregate([])
        .select(schema.names)
        .sort_by([(name, "ascending") for name in schema.names])
    )


def _first_filled(column: pa.ChunkedArray, owner: Ints, count: int) -> pa.ChunkedArray:
    """For each of ``count`` owners the first value that is not empty, else the empty string; rows are by owner."""
    filled = np.flatnonzero(np.asarray(pc.not_equal(column, "").to_numpy(), dtype=bool))
    owners, first = np.unique(owner[filled], return_index=True)
    where = np.full(count, -1)
    where[owners] = filled[first]
    return pc.fill_null(column.take(pa.array(where, mask=where < 0)), "")


def _codes(column: pa.ChunkedArray) -> Ints:
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return np.asarray(encoded.indices.to_numpy(), dtype=np.int64)


def _agreement(names: pa.Table, concept: Ints) -> tuple[Ints, Ints, Bools]:
    """For each name: its key, how many vocabularies give the concept that key, and if that confirms it."""
    text = normalised(names["text"])
    key = np.where(np.asarray(pc.equal(text, "").to_numpy(), dtype=bool), -1, _codes(text))
    pair = _pairs(concept, key)
    support = _vocabularies(pair, names)
    flags = np.asarray(names["asserted"].to_numpy(), dtype=float)
    asserted = np.bincount(pair, weights=flags, minlength=int(pair.max(initial=-1)) + 1) > 0
    return key, support, asserted[pair] | (support >= 2)


def _pairs(concept: Ints, key: Ints) -> Ints:
    """Number of each pair of concept and key; a name without letters or digits is only equal to itself."""
    own = np.where(key < 0, key.max(initial=0) + 1 + np.arange(len(key)), key)
    numbers = np.unique(concept * (own.max(initial=0) + 1) + own, return_inverse=True)[1]
    return np.asarray(numbers, dtype=np.int64)


def _vocabularies(group: Ints, names: pa.Table) -> Ints:
    """For each name, how many vocabularies its group of names comes from."""
    source = _codes(names["source"])
    count = int(source.max(initial=0)) + 1
    present = np.unique(group * count + source) // count
    return np.asarray(np.bincount(present, minlength=int(group.max(initial=-1)) + 1)[group], dtype=np.int64)


def _preference_within_concepts(names: pa.Table, concept: Ints, key: Ints) -> Ints:
    """Order of rows: concept, layer, rank, most support, vocabulary; else the order they are in."""
    rank_of = {name: index for index, name in enumerate(VOCABULARIES)}
    present = sorted(set(names["source"].unique().to_pylist()))
    others = [name for name in present if name not in rank_of]
    rank_of.update({name: len(VOCABULARIES) + index for index, name in enumerate(others)})
    encoded = names["source"].combine_chunks().dictionary_encode()
    lookup = np.array([rank_of[name] for name in encoded.dictionary.to_pylist()], dtype=np.int64)
    vocabulary = lookup[np.asarray(encoded.indices.to_numpy(), dtype=np.int64)] if len(lookup) else key
    layer = _ints(names["layer"])
    # What the right part of a merge says must not change the left one's preferred names.
    support = _vocabularies(_pairs(concept, key) * (int(layer.max(initial=0)) + 1) + layer, names)
    keys = (vocabulary, -support, _ints(names["rank"]), layer, concept)
    return np.asarray(np.lexsort(keys), dtype=np.int64)


_BATCH = 1 << 16


class NameIndex:
    """Reads the names of a resolved ontology; a concept is its position in ``resolved.cuis``."""

    def __init__(self, resolved: Resolved) -> None:
        self._data = resolved
        self._text: pa.Array = resolved.names["text"].combine_chunks()
        positions = np.arange(len(resolved.cuis) + 1)
        self._starts = np.searchsorted(resolved.concept_of_name, positions)
        ends = np.append(resolved.cuis.astype(np.int64), 1 << 31)
        self._term_starts = np.searchsorted(resolved.terms["cui"].to_numpy(), ends)
        self._terms = {
            name: resolved.terms[name].combine_chunks()
            for name in ("source", "term", "kind", "semantic_types")
        }

    def name(self, index: int) -> str:
        """Preferred name."""
        return str(self._text[int(self._starts[index])].as_py())

    def concept(self, index: int) -> Concept:
        """Everything about one concept, put together now."""
        rows = slice(int(self._starts[index]), int(self._starts[index + 1]))
        texts: list[str] = self._text[rows].to_pylist()
        flags: list[bool] = self._short[rows].tolist()
        names = list(zip(texts, flags, strict=True))
        # Reversed, so that of two spellings the preferred one stays.
        synonyms = {text.casefold(): text for text, short in reversed(names) if not short}
        synonyms.pop(texts[0].casefold(), None)
        part = slice(int(self._term_starts[index]), int(self._term_starts[index + 1]))
        terms = {name: column[part].to_pylist() for name, column in self._terms.items()}
        types = next(filter(None, terms["semantic_types"]), "")
        sources = (term or source for term, source in zip(terms["term"], terms["source"], strict=True))
        return Concept(
            cui=format_cui(int(self._data.cuis[index])),
            name=texts[0],
            kind=next(filter(None, terms["kind"]), ""),
            semantic_types=tuple(types.split("|")) if types else (),
            synonyms=tuple(sorted(synonyms.values(), key=str.casefold)),
            abbreviations=tuple(sorted({text for text, short in names if short})),
            verified=bool(self._data.verified[index]),
            sources=tuple(dict.fromkeys(sources)),
        )

    def aliases(self, by_preference: bool) -> Iterator[tuple[str, str, bool]]:
        """See `Ontology.aliases`."""
        for batch in self.alias_table(by_preference).to_batches(max_chunksize=_BATCH):
            for text, cui, short in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield text, format_cui(cui), short

    def alias_table(self, by_preference: bool) -> pa.Table:
        """See `Ontology.alias_table`; else by CUI, the preferred name of each concept first."""
        order = self._preference if by_preference else np.sort(self._preference)
        return self._data.names.select(["text", "cui", "abbreviation"]).take(pa.array(order))

    @cached_property
    def concept_table(self) -> pa.Table:
        """See `Ontology.concept_table`."""
        data, count = self._data, len(self._data.cuis)
        terms = data.terms.filter(pc.is_in(data.terms["cui"], value_set=pa.array(data.cuis)))
        owner = np.searchsorted(data.cuis, _ints(terms["cui"]))
        types = _first_filled(terms["semantic_types"], owner, count)
        label = pc.if_else(pc.equal(terms["term"], ""), terms["source"], terms["term"])
        codes = _codes(label)
        # Rows of the first mention of each label of a concept, in the order of its terms
        rows = np.sort(np.unique(owner * (codes.max(initial=0) + 1) + codes, return_index=True)[1])
        starts = np.searchsorted(owner[rows], np.arange(count + 1)).astype(np.int32)
        sources = label.take(pa.array(rows)).combine_chunks()
        return pa.table(
            {
                "cui": data.cuis,
                "name": data.names["text"].take(pa.array(self._starts[:-1])),
                "kind": _first_filled(terms["kind"], owner, count),
                "semantic_types": pc.if_else(
                    pc.equal(types, ""), pa.scalar([], pa.list_(pa.string())), pc.split_pattern(types, "|")
                ),
                "sources": pa.ListArray.from_arrays(pa.array(starts), sources),
                "verified": data.verified,
            }
        )

    def _column(self, name: str) -> npt.NDArray[np.int64]:
        return np.asarray(self._data.names[name].to_numpy(), dtype=np.int64)

    @cached_property
    def _short(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self._data.names["abbreviation"].to_numpy(), dtype=bool)

    @cached_property
    def _by_preference(self) -> npt.NDArray[np.int64]:
        """All rows of names, most preferred first."""
        data = self._data
        concept = data.concept_of_name
        rank, layer = self._column("rank"), self._column("layer")
        keys = (concept, -data.support, rank, layer, ~data.verified[concept], ~data.confirmed)
        return np.asarray(np.lexsort(keys), dtype=np.int64)

    @cached_property
    def _preference(self) -> npt.NDArray[np.int64]:
        """The same, with one row per concept and spelling (but for case): the first."""
        encoded = pc.utf8_lower(self._text).dictionary_encode()
        spelling = np.asarray(encoded.indices.to_numpy(), dtype=np.int64)
        pair = self._data.concept_of_name * (spelling.max(initial=0) + 1) + spelling
        pair = pair * 2 + self._short
        order = self._by_preference
        first = np.unique(pair[order], return_index=True)[1]
        return np.asarray(order[np.sort(first)], dtype=np.int64)
