"""Ontologies of UMLS concepts: one file per source, merged with ``|``, closed over ``is_a``."""

from kg_targets.ontology.concept import Concept, OntologyReport
from kg_targets.ontology.ontology import Ontology
from kg_targets.ontology.registry import SOURCES, load_ontology

__all__ = ["SOURCES", "Concept", "Ontology", "OntologyReport", "load_ontology"]
