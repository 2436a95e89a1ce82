"""Soft image–text similarity targets from medical knowledge: captions → concepts → graph → factors → store."""

from typing import TYPE_CHECKING

from kg_targets.lazy import lazy_names

if TYPE_CHECKING:
    from kg_targets.concepts.annotate import annotate as annotate
    from kg_targets.manifest import Manifest as Manifest
    from kg_targets.ontology import Ontology as Ontology
    from kg_targets.store import TargetStore as TargetStore

__version__ = "0.2.0"
__all__ = ["Manifest", "Ontology", "TargetStore", "__version__", "annotate"]
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Manifest": "kg_targets.manifest",
        "Ontology": "kg_targets.ontology",
        "TargetStore": "kg_targets.store",
        "annotate": "kg_targets.concepts.annotate",
    },
)
