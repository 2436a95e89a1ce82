"""Belief: two images are alike as far as what their captions assert is alike, rare things counting more.

    v_c = norm(Σ_{a ∈ {c} ∪ Anc(c)} IC(a)·e_a)      a concept is itself and everything it is a kind of
    u_i = Σ_{c ∈ i} idf(c)·v_c                      an image is its concepts
    K_i = norm(u_i),  S_ij = K_i·K_j ∈ [0, 1]

Sibling findings share ancestors and come out close, unrelated ones do not. Exact, deterministic, sparse, additive over
concepts (so it can be explained), and inductive: new images need no retraining. Without ontology edges, v_c = e_c.

Cosine ignores how much is known: two captions that say "CT" and nothing else come out identical. With shrinkage λ > 0,
K_i = u_i/√(‖u_i‖² + λ²), so that little evidence gives little similarity (to others; S_ii stays 1). With flat ancestors
IC(a) is replaced by 1, and "thing" counts as much as "pleural effusion": the ablation of IC.

With blocks, technique, anatomy and finding are compared apart: u_i^b has the columns of u_i whose kind belongs to b,

    K_i = [√w_1·norm(u_i^1), √w_2·norm(u_i^2), √w_3·norm(u_i^3)],   S_ij = Σ_b w_b·cos(u_i^b, u_j^b),   Σ_b w_b = 1

A block about which a caption says nothing is 0 and adds nothing, neither is its weight given to the others: what is
not known must not make two images alike. So ‖K_i‖² is the weight of the blocks that image i has, and S_ij at most that
of the blocks that both have; two captions that say "CT" and nothing else have S = w_technique. S_ii stays 1. Shrinkage
acts within each block.
Source: docs/methods.md#ontology-scorer (our reconstruction of the knowledge graph's similarity, training-free).
"""

import math
from collections.abc import Iterator

import numpy as np
from scipy import sparse

from kg_targets.errors import ConfigError
from kg_targets.scoring.factors import Factors, ScoringInput, normalise_rows, stacked

_ROWS_AT_ONCE = 65_536  # rows whose float64 products are there at once
BLOCKS: dict[str, tuple[str, ...]] = {
    "technique": ("modality", "sequence", "view", "plane", "procedure", "contrast"),
    "anatomy": ("region", "organ"),
    "finding": ("finding", "device", ""),
}
"""Kinds of each block; those of no block (laterality, qualifier) are left out. A kind that no source tells counts as a
finding, so that CUIs that a data set ships and the ontology lacks are not lost."""


def score(data: ScoringInput) -> Factors:
    """Sparse factors over concepts, float32 [N, C]; an image without any weighted concept is unknown."""
    graph = data.graph
    ic = data.statistics.information_content(graph.concepts)
    if data.flat_ancestors:
        ic = np.ones_like(ic)
    idf = data.statistics.inverse_document_frequency(graph.concepts)
    concept_vectors = normalise_rows(sparse.csr_array(graph.closure @ sparse.diags_array(ic)))  # [C, C]

    def pieces() -> Iterator[sparse.csr_array]:
        for start in range(0, graph.images, _ROWS_AT_ONCE):
            weighted = graph.attributes[start : start + _ROWS_AT_ONCE] @ sparse.diags_array(idf)
            factors = _normalised(sparse.csr_array(weighted @ concept_vectors), data)
            factors.eliminate_zeros()
            factors.sort_indices()
            yield factors

    shape = (graph.images, len(graph.concepts))
    matrix = stacked(pieces(), shape, data.scratch if graph.images > _ROWS_AT_ONCE else None)
    return Factors(matrix, np.diff(matrix.indptr) > 0)


def _normalised(vectors: sparse.csr_array, data: ScoringInput) -> sparse.csr_array:
    """K from u, float64 [N, C]: each block over its own columns, or all of them together."""
    if not data.blocks:
        return normalise_rows(vectors, data.shrinkage)
    kinds, factors = np.asarray(data.kinds, dtype=str), sparse.csr_array(vectors.shape)
    for weight, members in zip(data.blocks, BLOCKS.values(), strict=True):
        inside = sparse.diags_array(np.isin(kinds, members).astype(np.float64))
        block = normalise_rows(sparse.csr_array(vectors @ inside), data.shrinkage)
        factors = sparse.csr_array(factors + math.sqrt(weight) * block)
    return factors


def parse_blocks(text: str) -> tuple[float, ...]:
    """Weights of technique, anatomy and finding that sum to 1: ``"1:2:1"`` gives (¼, ½, ¼); nothing gives no blocks.

    Raises:
        ConfigError: these are not three numbers, at least 0 and not all 0.
    """
    if not text:
        return ()
    try:
        weights = [float(part) for part in text.split(":")]
    except ValueError:
        weights = []
    if (
        len(weights) != len(BLOCKS)
        or not all(0 <= weight < math.inf for weight in weights)
        or not any(weights)
    ):
        raise ConfigError(f"--blocks {text}: give three weights, {':'.join(BLOCKS)}, such as 1:2:1")
    return tuple(weight / sum(weights) for weight in weights)
