"""Pairs of images, and the queries that changed most."""

import numpy as np
import pytest
from numpy.typing import NDArray

from kg_targets.store import TargetStore
from tests.training.tiny import write_store
from training.retrieval.features import RetrievalSet
from training.retrieval.similarity import ALL, largest, pairs_of, strata_of

FloatArray = NDArray[np.float64]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> RetrievalSet:
    """Sixteen images in eight cases, the last one without concepts."""
    folder = tmp_path_factory.mktemp("store")
    store = TargetStore.open(write_store(folder / "train", folder / "data", "train"))
    return RetrievalSet(store, np.arange(len(store)))


def test_pairs_are_known_images_of_different_cases_with_the_stores_similarity(data: RetrievalSet) -> None:
    pairs = pairs_of(data)
    expected = [
        (i, j)
        for i in range(16)
        for j in range(i + 1, 16)
        if data.cases[i] != data.cases[j] and data.store.known[[i, j]].all()
    ]
    assert list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == expected
    block = data.store.block(np.arange(16))
    np.testing.assert_allclose(pairs.similarity, [block[i, j] for i, j in expected], atol=1e-6)
    assert pairs.population == 15 * 14 // 2
    both = pairs.both_ways
    assert len(both) == 2 * len(pairs) and (both.left[len(pairs) :] == pairs.right).all()


def test_of_too_many_pairs_some_are_drawn_by_the_seed(data: RetrievalSet) -> None:
    everything = pairs_of(data)
    everyone = zip(everything.left.tolist(), everything.right.tolist(), strict=True)
    known = dict(zip(everyone, everything.similarity, strict=True))
    drawn = pairs_of(data, seed=3, limit=40)
    assert 0 < len(drawn) <= 40 and drawn.population == everything.population
    chosen = list(zip(drawn.left.tolist(), drawn.right.tolist(), strict=True))
    assert len(set(chosen)) == len(chosen)
    np.testing.assert_allclose(drawn.similarity, [known[pair] for pair in chosen], atol=1e-6)
    assert (pairs_of(data, seed=3, limit=40).left == drawn.left).all()
    assert not np.array_equal(pairs_of(data, seed=4, limit=40).left, drawn.left)


def test_strata_hold_pairs_of_one_label_only(data: RetrievalSet) -> None:
    pairs = pairs_of(data)
    strata = strata_of(data, pairs)
    assert list(strata) == [ALL, "same modality", "same finding", "same modality+finding"]
    finding = np.array(data.label("finding"))
    same = finding[pairs.left] == finding[pairs.right]
    assert ((strata["same finding"] >= 0) == same).all()


def test_cosines_are_those_of_the_pairs(data: RetrievalSet) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(16, 5)).astype(np.float32) for _ in range(2))
    pairs = pairs_of(data)
    expected = (first @ second.T)[pairs.left, pairs.right]
    np.testing.assert_allclose(pairs.cosines(first, second), expected, atol=1e-6)


def test_largest_changes_show_each_case_once_and_only_real_ones() -> None:
    difference = np.array([0.5, 0.4, 0.4, 0.0, np.nan, -0.2, -0.3, 0.1])
    cases = np.array([0, 0, 1, 2, 3, 4, 4, 5])
    assert largest(difference, cases, 2) == ([0, 2], [6])
    assert largest(difference, cases, 9) == ([0, 2, 7], [6])
    assert largest(np.zeros(3), np.arange(3), 2) == ([], [])
