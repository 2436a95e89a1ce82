"""Mixtures of factors against dense float64 matrices."""

import numpy as np
import pytest
from scipy import sparse

from kg_targets.scoring.mixture import mix
from kg_targets.store.factors import AnyFactors, MixedFactors, products

IMAGES, UNION = 40, 12


def narrow(columns: np.ndarray, seed: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Unit rows over some concepts, every fifth one empty; and the same over the union, dense."""
    values = np.random.default_rng(seed).random((IMAGES, len(columns)))
    values[values < 0.5] = 0
    values[seed::5] = 0
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
    wide = np.zeros((IMAGES, UNION))
    wide[:, columns] = values
    return sparse.csr_array(values.astype(np.float32)), wide


def vectors(seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((IMAGES, 5))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("kinds", ["ss", "sd", "ds", "dd", "sds", "dsd"])
def test_similarity_is_the_weighted_mean_of_the_parts(kinds: str) -> None:
    parts: list[AnyFactors] = []
    columns, exact = [], []
    for seed, kind in enumerate(kinds):
        own = np.sort(np.random.default_rng(10 + seed).permutation(UNION)[:8])
        factors, wide = narrow(own, seed) if kind == "s" else (vectors(seed), vectors(seed))
        parts.append(factors)
        columns.append(own)
        exact.append(wide.astype(np.float64) @ wide.T.astype(np.float64))
    weights = np.arange(1, len(kinds) + 1) / np.arange(1, len(kinds) + 1).sum()
    mixed = mix(parts, columns, weights.tolist(), UNION)
    expected = sum(weight * block for weight, block in zip(weights, exact, strict=True))
    np.testing.assert_allclose(products(mixed), expected, atol=1e-6)
    sparse_parts = kinds.count("s")
    if "d" not in kinds:
        assert isinstance(mixed, sparse.csr_array)
    elif sparse_parts:
        assert isinstance(mixed, MixedFactors) and mixed.dense.shape[1] == 5 * kinds.count("d")
        mixed = mixed.sparse
    if sparse_parts:
        assert mixed.shape == (IMAGES, sparse_parts * UNION) and mixed.has_sorted_indices
