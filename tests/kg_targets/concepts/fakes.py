"""An ontology of a few lines, for tests of extraction that must not depend on the real ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import pyarrow as pa

from kg_targets.ontology.concept import require_cui


@dataclass(frozen=True)
class FakeConcept:
    cui: str
    name: str
    kind: str = ""
    synonyms: tuple[str, ...] = ()
    abbreviations: tuple[str, ...] = ()
    semantic_types: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


class FakeOntology:
    cache_dir = None

    def __init__(self, concepts: Sequence[FakeConcept], retired: Mapping[str, str] | None = None) -> None:
        self._concepts = {concept.cui: concept for concept in concepts}
        self._retired = retired or {}

    def current(self, cui: str) -> str:
        return self._retired.get(cui, cui)

    def __contains__(self, cui: object, /) -> bool:
        return cui in self._concepts

    def __getitem__(self, cui: str, /) -> FakeConcept:
        return self._concepts[cui]

    def alias_table(self) -> pa.Table:
        texts, cuis, flags = zip(*self.aliases(), strict=True) if self._concepts else ((), (), ())
        return pa.table(
            {
                "text": pa.array(texts, pa.string()),
                "cui": pa.array(map(require_cui, cuis), pa.int32()),
                "abbreviation": pa.array(flags, pa.bool_()),
            }
        )

    def concept_table(self) -> pa.Table:
        concepts = sorted(self._concepts.values(), key=attrgetter("cui"))
        lists = pa.list_(pa.string())
        return pa.table(
            {
                "cui": pa.array([require_cui(concept.cui) for concept in concepts], pa.int32()),
                "name": pa.array([concept.name for concept in concepts], pa.string()),
                "kind": pa.array([concept.kind for concept in concepts], pa.string()),
                "semantic_types": pa.array([concept.semantic_types for concept in concepts], lists),
                "sources": pa.array([concept.sources for concept in concepts], lists),
            }
        )

    def aliases(self, by_preference: bool = False) -> Iterator[tuple[str, str, bool]]:
        for concept in self._concepts.values():
            for alias in (concept.name, *concept.synonyms):
                yield alias, concept.cui, False
            for alias in concept.abbreviations:
                yield alias, concept.cui, True
