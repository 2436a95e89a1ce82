"""Belief: two images are alike as far as what their captions assert is alike, rare things counting more.

    v_c = norm(Σ_{a ∈ {c} ∪ Anc(c)} IC(a)·e_a)      a concept is itself and everything it is a kind of
    u_i = Σ_{c ∈ i} idf(c)·v_c                      an image is its concepts
    K_i = norm(u_i),  S_ij = K_i·K_j ∈ [0, 1]

Sibling findings share ancestors and come out close, unrelated ones do not. Exact, deterministic, sparse, additive over
concepts (so it can be explained), and inductive: new images need no retraining. Without ontology edges, v_c = e_c.

Cosine ignores how much is known: two captions that say "CT" and nothing else come out identical. With shrinkage λ > 0,
K_i = u_i/√(‖u_i‖² + λ²), so that little evidence gives little similarity (to others; S_ii stays 1). With flat ancestors
IC(a) is replaced by 1, and "thing" counts as much as "pleural effusion": the ablation of IC.
Source: docs/methods.md#ontology-scorer (our reconstruction of the knowledge graph's similarity, training-free).
"""

import numpy as np
from scipy import sparse

from kg_targets.scoring.factors import Factors, ScoringInput, normalise_rows


def score(data: ScoringInput) -> Factors:
    """Sparse factors over concepts, float32 [N, C]; an image without any weighted concept is unknown."""
    graph = data.graph
    ic = data.statistics.information_content(graph.concepts)
    if data.flat_ancestors:
        ic = np.ones_like(ic)
    idf = data.statistics.inverse_document_frequency(graph.concepts)
    concept_vectors = normalise_rows(sparse.csr_array(graph.closure @ sparse.diags_array(ic)))  # [C, C]
    weighted = graph.attributes @ sparse.diags_array(idf)  # [N, C]
    factors = normalise_rows(sparse.csr_array(weighted @ concept_vectors), data.shrinkage)
    factors.eliminate_zeros()
    factors.sort_indices()
    known = np.diff(factors.indptr) > 0
    return Factors(sparse.csr_array(factors, dtype=np.float32), known)
