"""Captions to concepts: one file per extractor, and the registry by which commands name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kg_targets.concepts.dictionary import DictionaryExtractor
from kg_targets.concepts.lexicon import Ambiguity, StopList
from kg_targets.concepts.mention import ConceptSource, Extractor, Mention
from kg_targets.concepts.provided import ProvidedExtractor, UnionExtractor

__all__ = [
    "EXTRACTORS",
    "Ambiguity",
    "ConceptSource",
    "DictionaryExtractor",
    "Extractor",
    "Mention",
    "ProvidedExtractor",
    "StopList",
    "UnionExtractor",
]

Factory = Callable[[ConceptSource, Mapping[str, Any]], Extractor]


def _dictionary(ontology: ConceptSource, config: Mapping[str, Any]) -> Extractor:
    return DictionaryExtractor(ontology, **config)


def _provided(ontology: ConceptSource, config: Mapping[str, Any]) -> Extractor:
    return ProvidedExtractor(ontology, config.get("stop_list"))


def _union(ontology: ConceptSource, config: Mapping[str, Any]) -> Extractor:
    return UnionExtractor([_dictionary(ontology, config), _provided(ontology, config)])


def _scispacy(ontology: ConceptSource, config: Mapping[str, Any]) -> Extractor:
    from kg_targets.concepts.scispacy import ScispacyExtractor  # spaCy is optional and slow to import

    return ScispacyExtractor(ontology, **config)


EXTRACTORS: dict[str, Factory] = {
    "dictionary": _dictionary,
    "provided": _provided,
    "scispacy": _scispacy,
    "union": _union,
}
"""Name to ``factory(ontology, config)``; ``config`` holds the extractor's keyword arguments."""
