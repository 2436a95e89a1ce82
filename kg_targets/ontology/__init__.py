"""Ontologies of UMLS concepts: one file per source, merged with ``|``, closed over ``is_a``."""

from kg_targets.ontology.concept import AliasCandidate, Concept, OntologyReport
from kg_targets.ontology.ontology import Ontology
from kg_targets.ontology.registry import SOURCES, load_ontology

__all__ = ["SOURCES", "AliasCandidate", "Concept", "Ontology", "OntologyReport", "load_ontology"]
