"""Names of concepts: by concept, as a stream of aliases in order of preference, and by alias."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kg_targets.ontology.concept import AliasCandidate, Concept, format_cui
from kg_targets.ontology.resolve import Resolved, normalised
from kg_targets.ontology.tables import SYNONYM

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
        order = self._preference if by_preference else np.sort(self._preference)
        cuis = self._data.cuis[self._data.concept_of_name[order]]
        short = self._short[order]
        for start in range(0, len(order), _BATCH):
            part = slice(start, start + _BATCH)
            texts = self._text.take(pa.array(order[part])).to_pylist()
            for text, cui, flag in zip(texts, cuis[part].tolist(), short[part].tolist(), strict=True):
                yield text, format_cui(cui), flag

    def candidates(self, alias: str) -> list[AliasCandidate]:
        """See `Ontology.alias_candidates`."""
        wanted = normalised(pa.array([alias]))[0]
        if not wanted.as_py():
            return []
        rows = np.flatnonzero(np.asarray(pc.equal(self._normalised, wanted).to_numpy(zero_copy_only=False)))
        rows = rows[np.argsort(self._place[rows])]
        found: dict[int, AliasCandidate] = {}
        for row in rows.tolist():
            concept = int(self._data.concept_of_name[row])
            short = bool(self._short[row])
            if concept not in found and not (short and self._text[row].as_py() != alias):
                found[concept] = self._candidate(row, concept, short)
        return list(found.values())

    def _candidate(self, row: int, concept: int, short: bool) -> AliasCandidate:
        return AliasCandidate(
            cui=format_cui(int(self._data.cuis[concept])),
            confirmed=bool(self._data.confirmed[row]),
            verified=bool(self._data.verified[concept]),
            layer=int(self._column("layer")[row]),
            support=int(self._data.support[row]),
            preferred=bool(self._column("rank")[row] < SYNONYM),
            abbreviation=short,
        )

    def _column(self, name: str) -> npt.NDArray[np.int64]:
        return np.asarray(self._data.names[name].to_numpy(), dtype=np.int64)

    @cached_property
    def _short(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self._data.names["abbreviation"].to_numpy(), dtype=bool)

    @cached_property
    def _normalised(self) -> pa.Array:
        return normalised(self._text)

    @cached_property
    def _by_preference(self) -> npt.NDArray[np.int64]:
        """All rows of names, most preferred first."""
        data = self._data
        concept = data.concept_of_name
        rank, layer = self._column("rank"), self._column("layer")
        keys = (concept, -data.support, rank, layer, ~data.verified[concept], ~data.confirmed)
        return np.asarray(np.lexsort(keys), dtype=np.int64)

    @cached_property
    def _place(self) -> npt.NDArray[np.int64]:
        place = np.empty(len(self._by_preference), dtype=np.int64)
        place[self._by_preference] = np.arange(len(place))
        return place

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
