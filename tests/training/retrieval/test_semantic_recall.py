"""Recall by overlap of concepts against its definition, in float64 and with Python's sets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from training.errors import ConfigError
from training.retrieval.config import EvalConfig
from training.retrieval.metrics import recall_at, recall_by_chance
from training.retrieval.ranking import pair_ranks
from training.retrieval.semantic_recall import alike, semantic_recall_by_chance

ROWS, DEPTHS = 12, (1, 3, 20)
IntArray = NDArray[np.int64]


def world(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32], IntArray, IntArray, list[set[int]]]:
    """Images and texts with ties, groups, captions with duplicates, and concepts, some images without any."""
    rng = np.random.default_rng(seed)
    captions = rng.integers(0, 9, ROWS)
    images, texts = (rng.integers(-1, 2, (ROWS, 3)).astype(np.float32) for _ in range(2))
    concepts = [set(np.flatnonzero(rng.random(5) < 0.4).tolist()) for _ in range(ROWS)]
    return images, texts, rng.integers(0, 6, ROWS), captions, concepts


def matrix(concepts: list[set[int]]) -> sparse.csr_array:
    dense = np.zeros((len(concepts), 5), np.float32)
    for row, found in enumerate(concepts):
        dense[row, list(found)] = 1
    return sparse.csr_array(dense)


def right_rows(
    query: int, groups: IntArray, captions: IntArray, concepts: list[set[int]], threshold: float
) -> set[int]:
    right = {query}
    for row in range(ROWS):
        if groups[row] != groups[query]:
            union = len(concepts[query] | concepts[row])
            overlap = len(concepts[query] & concepts[row]) / union if union else 0.0
            if captions[row] == captions[query] or (overlap > 0 and overlap >= threshold):
                right.add(row)
    return right


@given(
    seed=st.integers(0, 10_000),
    chunk=st.integers(1, 14),
    threshold=st.sampled_from([0.01, 1 / 3, 0.5, 0.75, 1.0]),
)
@settings(max_examples=80, deadline=None)
def test_it_equals_its_definition(seed: int, chunk: int, threshold: float) -> None:
    queries, gallery, groups, captions, concepts = world(seed)
    ranks = pair_ranks(queries, gallery, groups, captions, chunk, right=alike(matrix(concepts), threshold))
    found = recall_at(ranks, DEPTHS)
    similarity = queries.astype(np.float64) @ gallery.astype(np.float64).T
    for query in range(ROWS):
        right = right_rows(query, groups, captions, concepts, threshold)
        seen = [row for row in range(ROWS) if row == query or groups[row] != groups[query]]
        # Among equal scores wrong rows come first.
        order = sorted(seen, key=lambda row: (-similarity[query, row], row in right))
        for k in DEPTHS:
            assert found[k][query] == float(bool(right & set(order[:k])))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_it_is_never_below_the_strict_form_and_falls_with_the_threshold(seed: int) -> None:
    queries, gallery, groups, captions, concepts = world(seed)
    concepts[0] = set()
    cuis = matrix(concepts)
    strict = recall_at(pair_ranks(queries, gallery, groups, captions), DEPTHS)
    loose, tight = (
        recall_at(pair_ranks(queries, gallery, groups, captions, right=alike(cuis, threshold)), DEPTHS)
        for threshold in (0.2, 1.0)
    )
    for k in DEPTHS:
        assert (loose[k] >= tight[k]).all() and (tight[k] >= strict[k]).all()
        assert loose[k][0] >= strict[k][0]
    chance = recall_by_chance(captions, groups, DEPTHS)
    by_meaning = semantic_recall_by_chance(captions, groups, alike(cuis, 0.2), DEPTHS)
    assert all((by_meaning[k] >= chance[k] - 1e-9).all() for k in DEPTHS)


@given(seed=st.integers(0, 1000), chunk=st.integers(1, 14))
@settings(max_examples=5, deadline=None)
def test_chance_is_the_mean_over_random_orders(seed: int, chunk: int) -> None:
    _, _, groups, captions, concepts = world(seed)
    right = alike(matrix(concepts), 0.5)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(2000):
        noise = rng.permutation(ROWS).astype(np.float32)[:, None]
        ranks = pair_ranks(np.ones((ROWS, 1), np.float32), noise, groups, captions, right=right)
        drawn.append(recall_at(ranks, [3])[3])
    expected = semantic_recall_by_chance(captions, groups, right, [3], chunk)[3]
    np.testing.assert_allclose(np.mean(drawn, axis=0), expected, atol=0.05)


def test_without_concepts_chance_is_that_of_the_strict_form() -> None:
    _, _, groups, captions, _ = world(4)
    none = alike(matrix([set()] * ROWS), 0.5)
    for k, values in semantic_recall_by_chance(captions, groups, none, DEPTHS).items():
        np.testing.assert_allclose(values, recall_by_chance(captions, groups, [k])[k])


def test_at_one_the_concepts_are_equal() -> None:
    cuis = matrix([{0, 1}, {1, 0}, {0}, {0, 1, 2}, set(), set()])
    position, image = alike(cuis, 1.0)(slice(0, 6))
    assert sorted(zip(position.tolist(), image.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (2, 2),
        (3, 3),
    ]


@pytest.mark.parametrize("threshold", [0.0, 1.5, -1.0, float("nan")])
def test_a_threshold_outside_its_range_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match=r"--semantic-recall: .* is not in \(0, 1\]"):
        EvalConfig(semantic_recall=(threshold,))
    with pytest.raises(ConfigError, match="drop --no-recall"):
        EvalConfig(semantic_recall=(0.5,), recall=False)
