"""Quantiles of the similarities between different cases: what a soft-target threshold is chosen from."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from kg_targets.scoring import Factors

PAIRS = 1_000_000
QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99)
_CHUNK = 65_536


def off_diagonal_quantiles(factors: Factors, group_ids: Sequence[str]) -> dict[str, float]:
    """Quantiles of S_ij over one million random ordered pairs of known images of different cases, fixed seed.

    Pairs of one case are left out: training masks them, so they say nothing about what a threshold does. A data set
    with fewer than two known cases has no such pair: all quantiles are 0.
    """
    known = np.flatnonzero(factors.known)
    groups = np.unique(np.asarray(group_ids, dtype=object), return_inverse=True)[1]
    values = np.zeros(0)
    if len(np.unique(groups[known])) > 1:
        generator = np.random.default_rng(0)
        left, right = generator.choice(known, PAIRS), generator.choice(known, PAIRS)
        different = groups[left] != groups[right]
        values = _pair_similarities(factors, left[different], right[different])
    return {f"p{round(100 * q)}": float(np.quantile(values, q)) if len(values) else 0.0 for q in QUANTILES}


def _pair_similarities(
    factors: Factors, left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.float64]:
    matrix = factors.matrix
    parts = []
    for start in range(0, len(left), _CHUNK):
        rows, columns = left[start : start + _CHUNK], right[start : start + _CHUNK]
        if sparse.issparse(matrix):
            products = matrix[rows].multiply(matrix[columns]).sum(axis=1)
        else:
            products = np.einsum("nd,nd->n", matrix[rows], matrix[columns])
        parts.append(np.asarray(products, dtype=np.float64).ravel())
    return np.concatenate(parts)
