"""Factors of both kinds side by side: every product against dense float64 matrices."""

import numpy as np
import pytest
from scipy import sparse

from kg_targets.scoring import Factors
from kg_targets.scoring.factors import pair_similarities
from kg_targets.scoring.neighbors import nearest
from kg_targets.store.factors import MixedFactors, as_float64, products, similarities
from pipelines.audit.similarity import similarity_chunks

IMAGES = 60
IDS = [str(row) for row in range(IMAGES)]


@pytest.fixture
def mixed() -> MixedFactors:
    generator = np.random.default_rng(0)
    left = sparse.random_array((IMAGES, 30), density=0.2, rng=generator, dtype=np.float32, format="csr")
    return MixedFactors(left, generator.standard_normal((IMAGES, 7)).astype(np.float32) / 3)


def wide(factors: MixedFactors) -> np.ndarray:
    return np.hstack([factors.sparse.toarray(), factors.dense]).astype(np.float64)


def test_mixed_factors_have_rows_like_a_matrix(mixed: MixedFactors) -> None:
    assert mixed.shape == (IMAGES, 37)
    np.testing.assert_array_equal(wide(mixed[[3, 3, 1]]), wide(mixed)[[3, 3, 1]])
    np.testing.assert_array_equal(wide(mixed[5:9]), wide(mixed)[5:9])


def test_similarities_of_mixed_factors_are_the_sum_over_both_parts(mixed: MixedFactors) -> None:
    exact = wide(mixed) @ wide(mixed).T
    rows, columns = np.array([4, 9, 4]), np.arange(20)
    np.testing.assert_allclose(products(mixed), exact, atol=1e-6)
    np.testing.assert_allclose(products(mixed[rows], mixed[columns]), exact[np.ix_(rows, columns)], atol=1e-6)
    np.testing.assert_allclose(similarities(mixed[rows], as_float64(mixed)), exact[rows], atol=1e-14)
    chunks = [block for _, block in similarity_chunks(mixed, mixed)]
    np.testing.assert_allclose(np.concatenate(chunks), exact, atol=1e-14)
    left, right = np.divmod(np.arange(IMAGES**2), IMAGES)
    found = pair_similarities(mixed, left, right)
    np.testing.assert_allclose(found, exact.ravel(), atol=1e-7)


def test_neighbours_of_mixed_factors_are_the_best_of_all_others(mixed: MixedFactors) -> None:
    exact = wide(mixed) @ wide(mixed).T
    np.fill_diagonal(exact, -np.inf)
    found = [each for chunk in nearest(Factors(mixed, np.ones(IMAGES, bool)), 5, IDS, 16) for each in chunk]
    assert len(found) == IMAGES
    for row, (others, scores) in enumerate(found):
        best = np.argsort(-exact[row])[:5]
        np.testing.assert_array_equal(others, best)
        np.testing.assert_allclose(scores, exact[row, best], atol=1e-6)
