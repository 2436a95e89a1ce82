"""Captions to concepts: one file per extractor, and the registry by which commands name them."""

from collections.abc import Callable
from typing import Any

from kg_targets.concepts.dictionary import DictionaryExtractor
from kg_targets.concepts.mention import Extractor, Mention
from kg_targets.concepts.provided import ProvidedExtractor, UnionExtractor
from kg_targets.concepts.stop_list import StopEntry, StopList
from kg_targets.ontology import Ontology

__all__ = [
    "EXTRACTORS",
    "DictionaryExtractor",
    "Extractor",
    "Mention",
    "ProvidedExtractor",
    "StopEntry",
    "StopList",
    "UnionExtractor",
]


def _union(ontology: Ontology, stop_list: StopList | None = None, **options: Any) -> Extractor:
    dictionary = DictionaryExtractor(ontology, stop_list, **options)
    return UnionExtractor([dictionary, ProvidedExtractor(ontology, stop_list)])


def _scispacy(ontology: Ontology, **options: Any) -> Extractor:
    from kg_targets.concepts.scispacy import ScispacyExtractor  # spaCy is optional and slow to import

    return ScispacyExtractor(ontology, **options)


EXTRACTORS: dict[str, Callable[..., Extractor]] = {
    "dictionary": DictionaryExtractor,
    "provided": ProvidedExtractor,
    "scispacy": _scispacy,
    "union": _union,
}
"""Name to ``extractor(ontology, **options)``, usually the class itself."""
