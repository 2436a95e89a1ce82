"""Data sets of captions and of questions: what splits they have, where files and images are, and their licence."""

from kg_targets.manifest.exclusions import ExcludedCases
from kg_targets.manifest.model import Manifest, known_data_sets
from kg_targets.manifest.places import SplitSpec
from kg_targets.manifest.question import ALL, LANGUAGES, PARTS, TEST, TRAIN, VALIDATION, Question
from kg_targets.manifest.record import ReadReport, Record

__all__ = [
    "ALL",
    "LANGUAGES",
    "PARTS",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "ExcludedCases",
    "Manifest",
    "Question",
    "ReadReport",
    "Record",
    "SplitSpec",
    "known_data_sets",
]
