"""Soft image–text similarity targets from medical knowledge: captions → concepts → graph → factors → store."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kg_targets.manifest import Manifest as Manifest
    from kg_targets.ontology import Ontology as Ontology
    from kg_targets.store import TargetStore as TargetStore

__version__ = "0.1.0"

_EXPORTS = {
    "Manifest": "kg_targets.manifest",
    "Ontology": "kg_targets.ontology",
    "TargetStore": "kg_targets.store",
}
__all__ = ["Manifest", "Ontology", "TargetStore", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the public classes on first use, so that ``import kg_targets`` stays instant."""
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'kg_targets' has no attribute {name!r}")
