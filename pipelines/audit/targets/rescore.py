"""An image's factor from other concepts than it asserts: the store's own scorer, statistics and closure, rerun."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from kg_targets.graph import ConceptGraph, representatives
from kg_targets.ontology.closure import ParentLists, ancestor_hops
from kg_targets.scoring import ConceptStatistics, ScoringInput, ontology
from kg_targets.store import TargetStore

_ADDITIVE = ("ontology",)


def is_additive(store: TargetStore) -> bool:
    """Whether factors follow from an image's own concepts, so that one can be taken away (not permuted, not noise)."""
    return store.manifest["config"]["scorer"] in _ADDITIVE


def rescore(store: TargetStore, asserted: sparse.csr_array) -> sparse.csr_array:
    """Factors of images that assert ``asserted``, by the ontology scorer (docs/methods.md#ontology-scorer).

    Args:
        store: gives IC, idf and the ``is_a`` closure, within its own ``max_hops``.
        asserted: float64 [Q, C], columns as in ``store.concepts``.

    Returns:
        float32 [Q, C]: unit vectors; zeros where nothing weighted is asserted.
    """
    concepts, config = store.concepts, store.manifest["config"]
    names = concepts["cui"].tolist()
    statistics = ConceptStatistics(
        captions=store.manifest["fit"]["captions"],
        asserted=dict(zip(names, concepts["fit_asserted"].tolist(), strict=True)),
        covered=dict(zip(names, concepts["fit_covered"].tolist(), strict=True)),
    )
    edges = is_a_edges(store) if config["use_ontology"] else []
    closure = _shared_columns(store, names, ancestors(names, edges, config["max_hops"]))
    graph = ConceptGraph(names, asserted, closure, edges=[])
    data = ScoringInput(
        graph,
        statistics,
        image_ids=[],
        shrinkage=config["shrinkage"],
        flat_ancestors=config.get("flat_ancestors", False),  # older stores have no such field
    )
    return sparse.csr_array(ontology.score(data).matrix)


def _shared_columns(store: TargetStore, names: list[str], closure: sparse.csr_array) -> sparse.csr_array:
    """The closure with one column for CUIs of equal meaning, as the graph has it."""
    edges = list(store.is_a[["child", "relation", "parent"]].itertuples(index=False, name=None))
    first = representatives(names, edges)
    pairs = closure.tocoo()
    merged = sparse.csr_array((np.ones(len(pairs.row)), (pairs.row, first[pairs.col])), shape=closure.shape)
    merged.data[:] = 1.0
    return merged


def recomputation_error(store: TargetStore) -> float:
    """Largest difference between the stored factors and those recomputed from the stored concepts."""
    own = sparse.csr_array(store.cui_matrix(), dtype=np.float64)
    difference = sparse.csr_array(rescore(store, own) - store.factors)
    return float(np.abs(difference.data).max(initial=0.0))


def is_a_edges(store: TargetStore) -> list[tuple[str, str]]:
    """(child, parent) of every edge that the closure follows."""
    return list(zip(store.is_a["child"].tolist(), store.is_a["parent"].tolist(), strict=True))


def ancestors(
    cuis: Sequence[str], edges: Sequence[tuple[str, str]], max_hops: int | None = None
) -> sparse.csr_array:
    """float64 [V, V]: 1 where the column is the row itself or an ancestor of it; ``cuis`` are in ascending order."""
    child, parent = (np.searchsorted(cuis, [pair[side] for pair in edges]) for side in (0, 1))
    graph = ParentLists.from_edges(child, parent, len(cuis))
    rows, columns, _ = ancestor_hops(graph, np.arange(len(cuis), dtype=np.int64), max_hops)
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(cuis), len(cuis)))
