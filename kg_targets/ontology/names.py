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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from kg_targets.ontology.compiled import Bools, Compiled, Ints
from kg_targets.ontology.concept import ALL_CUIS, Concept, format_cui
from kg_targets.ontology.tables import EDGES, NAMES, TERMS, Tables

VOCABULARIES = ("seed", "UBERON", "HP", "MONDO", "DOID", "EFO")
"""Whose spelling of a name is shown when several agree; others follow in alphabetical order."""

_AT_ONCE = 1 << 18
"""Rows that are put in order together: those of some whole concepts."""


def compiled(tables: Tables) -> Compiled:
    """Derive everything that does not need the graph."""
    parts = [_Part.of(rows) for rows in _by_concept(tables.names)]
    ambiguous = _repeated(np.concatenate([part.spellings for part in parts]))
    terms = pa.concat_tables([_distinct(rows, TERMS) for rows in _by_concept(tables.terms)])
    settled = settled_edges(tables)
    pa.default_memory_pool().release_unused()  # what was in use on the way: hundreds of megabytes for all of UMLS
    return Compiled(
        concepts=_concept_table(parts, terms),
        names=pa.concat_tables([part.names for part in parts]),
        terms=terms,
        edges=settled.edges,
        self_loops=settled.self_loops,
        ambiguous_aliases=ambiguous,
    )


def settled_edges(tables: Tables) -> Tables:
    """Tables with distinct edges in the order of child, parent and relation; self-loops are counted and dropped."""
    relation = tables.edges["relation"].combine_chunks().dictionary_encode()
    present = sorted(relation.dictionary.to_pylist())
    code = np.array([present.index(name) for name in relation.dictionary.to_pylist()], dtype=np.int64)
    width = max(len(present), 1)
    ends = _ints(tables.edges["child"]) * ALL_CUIS + _ints(tables.edges["parent"])
    ends, codes = np.divmod(np.unique(ends * width + code[relation.indices.to_numpy()]), width)
    child, parent = np.divmod(ends, ALL_CUIS)
    kept = child != parent
    columns = [
        *[pa.array(numbers[kept].astype(np.int32)) for numbers in (child, parent)],
        pa.array(present, pa.string()).take(pa.array(codes[kept])),
    ]
    edges = pa.Table.from_arrays(columns, schema=EDGES)
    return replace(tables, edges=edges, self_loops=tables.self_loops + int((~kept).sum()))


def _by_concept(table: pa.Table) -> Iterator[pa.Table]:
    """The rows of some whole concepts at a time, by ``cui``; an empty table as it is."""
    batches = [(batch, batch["cui"].to_numpy()) for batch in table.to_batches() if len(batch)]
    if not batches:
        yield table
        return
    numbers = np.sort(np.concatenate([cui for _, cui in batches]))
    bounds = [*np.unique(numbers[::_AT_ONCE]).tolist(), ALL_CUIS]
    spans = [(int(cui.min()), int(cui.max())) for _, cui in batches]
    for low, high in pairwise(bounds):
        inside = [
            batch if low <= least and most < high else batch.filter(pa.array((low <= cui) & (cui < high)))
            for (batch, cui), (least, most) in zip(batches, spans, strict=True)
            if low <= most and least < high
        ]
        yield pa.Table.from_batches(inside, schema=table.schema)


def _distinct(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Distinct rows in the order of all columns, left to right, in one chunk."""
    return (
        table.group_by(schema.names, use_threads=False)
        .aggregate([])
        .select(schema.names)
        .sort_by([(name, "ascending") for name in schema.names])
        .combine_chunks()
    )


@dataclass(frozen=True)
class _Part:
    """Some whole concepts.

    Attributes:
        names: as `Compiled.names`.
        cuis: int32, ascending.
        starts: first row of each concept.
        verified: of each concept.
        spellings: a hash for each distinct pair of concept and normalised name that has a letter or digit.
    """

    names: pa.Table
    cuis: npt.NDArray[np.int32]
    starts: Ints
    verified: Bools
    spellings: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, rows: pa.Table) -> _Part:
        names = _distinct(rows, NAMES)
        cuis, concept = np.unique(names["cui"].to_numpy(), return_inverse=True)
        text = normalised(names["text"])
        key = np.where(np.asarray(pc.equal(text, "").to_numpy(), dtype=bool), -1, _codes(text))
        support, confirmed = _agreement(names, concept, key)
        distinct = np.unique(concept * (key.max(initial=0) + 2) + key, return_index=True)[1]
        spelled = text.take(pa.array(distinct[key[distinct] >= 0])).to_pylist()
        order = _preference_within_concepts(names, concept, key)
        names = names.append_column("support", pa.array(support.astype(np.uint16)))
        return cls(
            names=names.append_column("confirmed", pa.array(confirmed)).take(pa.array(order)),
            cuis=cuis,
            starts=np.searchsorted(concept, np.arange(len(cuis))),
            verified=np.bincount(concept[confirmed], minlength=len(cuis)) > 0,
            spellings=pd.util.hash_array(np.array(spelled, dtype=object), categorize=False),
        )


def _repeated(hashes: npt.NDArray[np.uint64]) -> int:
    """Number of values that occur more than once; two spellings in 10 million share one by a chance of 1 in 400,000."""
    hashes = np.sort(hashes)
    again = hashes[1:] == hashes[:-1]
    return int(again.sum() - (again[1:] & again[:-1]).sum())


def _concept_table(parts: Sequence[_Part], terms: pa.Table) -> pa.Table:
    """See `Compiled.concepts`."""
    cuis = np.concatenate([part.cuis for part in parts])
    count = len(cuis)
    sizes = [part.names.num_rows for part in parts]
    starts = [part.starts + before for part, before in zip(parts, np.cumsum([0, *sizes[:-1]]), strict=True)]
    names = pa.chunked_array(
        [part.names["text"].combine_chunks().take(pa.array(part.starts)) for part in parts]
    )
    terms = terms.filter(pc.is_in(terms["cui"], value_set=pa.array(cuis)))
    owner = np.searchsorted(cuis, terms["cui"].to_numpy())
    types = _first_filled(terms["semantic_types"], owner, count)
    label = pc.if_else(pc.equal(terms["term"], ""), terms["source"], terms["term"])
    codes = _codes(label)
    # Rows of the first mention of each label of a concept, in the order of its terms
    rows = np.sort(np.unique(owner * (codes.max(initial=0) + 1) + codes, return_index=True)[1])
    source_starts = np.searchsorted(owner[rows], np.arange(count + 1)).astype(np.int32)
    sources = label.take(pa.array(rows)).combine_chunks()
    nothing = pa.scalar([], pa.list_(pa.string()))
    return pa.table(
        {
            "cui": cuis,
            "first_name": np.concatenate(starts).astype(np.int32),
            "name": names,
            "kind": _first_filled(terms["kind"], owner, count),
            "semantic_types": pc.if_else(pc.equal(types, ""), nothing, pc.split_pattern(types, "|")),
            "sources": pa.ListArray.from_arrays(pa.array(source_starts), sources),
            "verified": np.concatenate([part.verified for part in parts]),
        }
    ).combine_chunks()


def normalised(texts: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Lower-case, with every run of anything but letters and digits turned into one space."""
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(pc.utf8_lower(texts), r"[^\p{L}\p{N}]+", " "))


def _ints(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column.to_numpy(), dtype=np.int64)


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


def _agreement(names: pa.Table, concept: Ints, key: Ints) -> tuple[Ints, Bools]:
    """For each name: how many vocabularies give the concept its key, and if that confirms it."""
    pair = _pairs(concept, key)
    support = _vocabularies(pair, names)
    flags = np.asarray(names["asserted"].to_numpy(), dtype=float)
    asserted = np.bincount(pair, weights=flags, minlength=int(pair.max(initial=-1)) + 1) > 0
    return support, asserted[pair] | (support >= 2)


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
    """Reads the names of a compiled ontology; a concept is its position in ``data.cuis``."""

    def __init__(self, data: Compiled) -> None:
        self._data = data
        self._fields = {
            name: data.concepts[name] for name in ("name", "kind", "semantic_types", "sources", "verified")
        }

    def name(self, index: int) -> str:
        """Preferred name."""
        return str(self._fields["name"][index].as_py())

    def concept(self, index: int) -> Concept:
        """Everything about one concept, put together now."""
        start, *following = self._data.first_names[index : index + 2].tolist()
        rows = self._data.names.slice(start, following[0] - start if following else None)
        names = list(zip(rows["text"].to_pylist(), rows["abbreviation"].to_pylist(), strict=True))
        fields = {name: column[index].as_py() for name, column in self._fields.items()}
        # Reversed, so that of two spellings the preferred one stays.
        synonyms = {text.casefold(): text for text, short in reversed(names) if not short}
        synonyms.pop(names[0][0].casefold(), None)
        return Concept(
            cui=format_cui(int(self._data.cuis[index])),
            name=fields["name"],
            kind=fields["kind"],
            semantic_types=tuple(fields["semantic_types"]),
            synonyms=tuple(sorted(synonyms.values(), key=str.casefold)),
            abbreviations=tuple(sorted({text for text, short in names if short})),
            verified=fields["verified"],
            sources=tuple(fields["sources"]),
        )

    def aliases(self, by_preference: bool) -> Iterator[tuple[str, str, bool]]:
        """See `Ontology.aliases`."""
        for batch in self.alias_table(by_preference).to_batches(max_chunksize=_BATCH):
            for text, cui, short in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield text, format_cui(cui), short

    def alias_table(self, by_preference: bool) -> pa.Table:
        """See `Ontology.alias_table`; else by CUI, the preferred name of each concept first."""
        found = [self._spellings(batch) for batch in self._data.names.to_batches()]
        table = pa.Table.from_batches([rows for rows, _ in found], schema=self._columns)
        if not by_preference:
            return table
        code = np.concatenate([code for _, code in found])
        values, code = np.unique(code, return_inverse=True)
        # Few values in few bits are sorted by counting, in one pass.
        return table.take(pa.array(np.argsort(code.astype(np.min_scalar_type(len(values))), kind="stable")))

    @property
    def _columns(self) -> pa.Schema:
        return pa.schema([NAMES.field(name) for name in ("text", "cui", "abbreviation")])

    def _spellings(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Ints]:
        """One row per concept and spelling (but for case), the most preferred one, and a code that orders them.

        Ties of the code are left in the order of rows: by concept.
        """
        concept = np.searchsorted(self._data.cuis, batch["cui"].to_numpy())
        verified = self._data.concepts["verified"].to_numpy()[concept]
        flags = (~np.asarray(batch["confirmed"].to_numpy(False), dtype=bool)).astype(
            np.int64
        ) << 1 | ~verified
        code = flags << 8 | batch["layer"].to_numpy()
        code = (code << 8 | batch["rank"].to_numpy()) << 16 | (0xFFFF - batch["support"].to_numpy())
        spelling = pc.utf8_lower(batch["text"]).dictionary_encode().indices.to_numpy()
        short = np.asarray(batch["abbreviation"].to_numpy(False), dtype=bool)
        pair = (concept * (spelling.max(initial=0) + 1) + spelling) * 2 + short
        order = np.argsort(code, kind="stable")
        kept = np.sort(order[np.unique(pair[order], return_index=True)[1]])
        return batch.select(self._columns.names).take(pa.array(kept)), code[kept]
