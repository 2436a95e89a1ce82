"""Data sets: what splits they have, where captions, images and labels are, and under which licence."""

from kg_targets.manifest.exclusions import ExcludedCases
from kg_targets.manifest.model import Manifest, SplitSpec, known_data_sets
from kg_targets.manifest.record import ReadReport, Record

__all__ = ["ExcludedCases", "Manifest", "ReadReport", "Record", "SplitSpec", "known_data_sets"]
