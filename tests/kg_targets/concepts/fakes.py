"""An ontology of a few lines, for tests of extraction that must not depend on the real ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


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
    def __init__(self, concepts: Sequence[FakeConcept], retired: Mapping[str, str] | None = None) -> None:
        self._concepts = {concept.cui: concept for concept in concepts}
        self._retired = retired or {}

    def current(self, cui: str) -> str:
        return self._retired.get(cui, cui)

    def __contains__(self, cui: object, /) -> bool:
        return cui in self._concepts

    def __getitem__(self, cui: str, /) -> FakeConcept:
        return self._concepts[cui]

    def aliases(self, by_preference: bool = False) -> Iterator[tuple[str, str, bool]]:
        for concept in self._concepts.values():
            for alias in (concept.name, *concept.synonyms):
                yield alias, concept.cui, False
            for alias in concept.abbreviations:
                yield alias, concept.cui, True
