"""Belief: several scorers are right in part. S is the weighted mean of theirs.

    K = [√w_1·K^1, √w_2·K^2, …],  S_ij = K_i·K_j = Σ_p w_p·S^p_ij,  w_p > 0,  Σ_p w_p = 1

Sparse parts keep their columns apart: column = place among the sparse parts · C + concept, with C concepts in the union
of the parts' concepts. Dense parts stand side by side. An image that is unknown to one part has only the other parts'
share of its similarities; S_ii stays 1. Nothing is fitted; θ is the mixture's own.
Source: docs/methods.md#mixture (our proposal).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from kg_targets.store.factors import AnyFactors, MixedFactors, dense_matrix, sparse_matrix


def mix(
    parts: Sequence[AnyFactors],
    columns: Sequence[NDArray[np.int64]],
    weights: Sequence[float],
    concepts: int,
) -> AnyFactors:
    """Factors of the mixture, float32 [N, D].

    Args:
        parts: K^p of the same N images; sparse columns are the part's own concepts.
        columns: for each part, the place of each of its concepts in the union, int64 [C_p].
        weights: w_p, positive; they sum to 1.
        concepts: C, the size of the union.
    """
    narrow, wide = [], []
    for part, place, weight in zip(parts, columns, weights, strict=True):
        matrix, vectors = sparse_matrix(part), dense_matrix(part)
        if matrix is not None:
            values = (matrix.data * np.sqrt(weight)).astype(np.float32)
            narrow.append(
                sparse.csr_array(
                    (values, place[matrix.indices], matrix.indptr), shape=(matrix.shape[0], concepts)
                )
            )
        if vectors is not None:
            wide.append((vectors * np.sqrt(weight)).astype(np.float32))
    if not narrow:
        return np.hstack(wide)
    joined = sparse.csr_array(sparse.hstack(narrow, format="csr"))
    joined.sort_indices()
    return MixedFactors(joined, np.hstack(wide)) if wide else joined
