"""CUI@K in all its variants, and paired Recall@K, against float64 loops over every pair written without the library."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from training.retrieval.concepts import VARIANTS, cui_at, cui_by_chance
from training.retrieval.metrics import caption_codes, none_of, recall_at, recall_by_chance
from training.retrieval.ranking import pair_ranks, rank

IntArray = NDArray[np.int64]
DEPTHS = (1, 3, 6)


def world(seed: int, images: int = 9) -> tuple[IntArray, list[set[int]], IntArray]:
    """Lists of other groups' images (some too short), concepts of each image (some none) and groups."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 5, images)
    concepts = [set(np.flatnonzero(rng.random(6) < 0.35).tolist()) for _ in range(images)]
    order = np.full((images, max(DEPTHS)), -1)
    for query in range(images):
        others = rng.permutation([r for r in range(images) if groups[r] != groups[query]])[: max(DEPTHS)]
        order[query, : len(others)] = others
    return order, concepts, groups


def matrix(concepts: Sequence[set[int]]) -> sparse.csr_array:
    dense = np.zeros((len(concepts), 6), np.float32)
    for row, found in enumerate(concepts):
        dense[row, list(found)] = 1
    return sparse.csr_array(dense)


def by_definition(
    variant: str, query: set[int], found: Sequence[set[int]], gallery: Sequence[set[int]]
) -> float:
    """One query's measure, from sets."""
    shared = [len(query & other) for other in found]
    best = sorted((len(query & other) for other in gallery), reverse=True)[: len(found)]

    def discounted(counts: Sequence[int]) -> float:
        return sum(count / math.log2(place + 2) for place, count in enumerate(counts))

    if variant == "oracle":
        return sum(shared) / sum(best)
    if variant == "hits":
        return sum(count > 0 for count in shared) / len(found)
    if variant == "share":
        return sum(count / len(query) for count in shared) / len(found)
    if variant == "jaccard":
        return sum(len(query & other) / len(query | other) for other in found) / len(found)
    if variant == "union":
        return len(query & set().union(*found)) / len(query)
    return discounted(shared) / discounted(best)


def galleries(concepts: Sequence[set[int]], groups: IntArray) -> list[list[int]]:
    return [[r for r in range(len(groups)) if groups[r] != groups[q]] for q in range(len(groups))]


def findable(query: int, gallery: Sequence[int], concepts: Sequence[set[int]]) -> bool:
    return any(concepts[query] & concepts[r] for r in gallery)


@pytest.mark.parametrize("variant", VARIANTS)
@given(seed=st.integers(0, 10_000), chunk=st.integers(1, 10))
@settings(max_examples=25, deadline=None)
def test_every_variant_equals_its_definition_on_sets(variant: str, seed: int, chunk: int) -> None:
    order, concepts, groups = world(seed)
    scores = cui_at(order, matrix(concepts), groups, DEPTHS, [variant], chunk)[variant]
    for query, gallery in enumerate(galleries(concepts, groups)):
        for k in DEPTHS:
            if not findable(query, gallery, concepts):
                assert math.isnan(scores[k][query])
                continue
            found = [concepts[r] for r in order[query, :k] if r >= 0]
            expected = by_definition(variant, concepts[query], found, [concepts[r] for r in gallery])
            assert scores[k][query] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
@given(seed=st.integers(0, 10_000), chunk=st.integers(1, 10))
@settings(max_examples=6, deadline=None)
def test_chance_is_the_mean_over_every_possible_list(variant: str, seed: int, chunk: int) -> None:
    _, concepts, groups = world(seed, images=7)
    scores = cui_by_chance(matrix(concepts), groups, (1, 3), [variant], chunk)[variant]
    for query, gallery in enumerate(galleries(concepts, groups)):
        for k in (1, 3):
            if not findable(query, gallery, concepts):
                assert math.isnan(scores[k][query])
                continue
            lists = itertools.permutations(gallery, min(k, len(gallery)))
            everything = [concepts[r] for r in gallery]
            means = [
                by_definition(variant, concepts[query], [concepts[r] for r in one], everything)
                for one in lists
            ]
            assert scores[k][query] == pytest.approx(float(np.mean(means)), abs=1e-9)


def test_variants_differ_where_they_should() -> None:
    # The first image found has one of two concepts and one more, the second has the same one, the third nothing.
    concepts = [{0, 1}, {0, 2}, {0}, {3}]
    order = np.array([[1, 2, 3]] + [[-1] * 3] * 3)
    scores = cui_at(order, matrix(concepts), np.arange(4), [3], list(VARIANTS))
    measured = {name: float(by_depth[3][0]) for name, by_depth in scores.items()}
    assert measured["oracle"] == 1.0 and measured["ndcg"] == 1.0
    assert measured["hits"] == pytest.approx(2 / 3)
    assert measured["share"] == pytest.approx((1 / 2 + 1 / 2) / 3)
    assert measured["jaccard"] == pytest.approx((1 / 3 + 1 / 2) / 3)
    assert measured["union"] == 1 / 2


@given(gallery=st.integers(1, 12), right=st.integers(0, 12), k=st.integers(1, 14))
def test_probability_of_drawing_none_is_a_ratio_of_binomials(gallery: int, right: int, k: int) -> None:
    right, drawn = min(right, gallery), min(k, gallery)
    expected = math.comb(gallery - right, drawn) / math.comb(gallery, drawn)
    assert none_of([gallery], [right], k)[0] == pytest.approx(expected, abs=1e-9)


def pairs(seed: int, rows: int = 12) -> tuple[NDArray[np.float32], NDArray[np.float32], IntArray, IntArray]:
    """Image and text features with ties, cases and captions with duplicates (equal captions have equal features)."""
    rng = np.random.default_rng(seed)
    captions = rng.integers(0, 8, rows)
    images = rng.integers(-1, 2, (rows, 3)).astype(np.float32)
    texts = rng.integers(-1, 2, (8, 3)).astype(np.float32)[captions]
    return images, texts, rng.integers(0, 6, rows), captions


@given(seed=st.integers(0, 10_000), chunk=st.integers(1, 14), to_text=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_pair_ranks_behind_every_wrong_row_that_scores_as_much(
    seed: int, chunk: int, to_text: bool
) -> None:
    images, texts, groups, captions = pairs(seed)
    queries, gallery = (images, texts) if to_text else (texts, images)
    ranks = pair_ranks(queries, gallery, groups, captions, chunk)
    for query, found in enumerate(ranks):
        allowed = [r for r in range(12) if groups[r] != groups[query] or r == query]
        right = [r for r in allowed if captions[r] == captions[query]]
        best = max(float(queries[query] @ gallery[r]) for r in right)
        wrong = [r for r in allowed if r not in right and float(queries[query] @ gallery[r]) >= best]
        assert found == 1 + len(wrong)


def test_a_model_that_maps_everything_to_one_point_recalls_nothing() -> None:
    same = np.ones((50, 4), np.float32) / 2
    ranks = pair_ranks(same, same, np.arange(50), np.arange(50))
    assert (ranks == 50).all()
    assert recall_at(ranks, [1, 10])[10].sum() == 0


def test_captions_that_differ_in_case_and_spaces_only_are_one() -> None:
    codes = caption_codes(["CT of the chest.", "ct of  the chest. ", "CT of the head."])
    assert codes[0] == codes[1] != codes[2]


@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_recall_by_chance_is_the_mean_over_random_orders(seed: int) -> None:
    _, _, groups, captions = pairs(seed)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(2000):
        noise = rng.permutation(12).astype(np.float32)[:, None]
        drawn.append(recall_at(pair_ranks(np.ones((12, 1), np.float32), noise, groups, captions), [1, 3])[3])
    np.testing.assert_allclose(np.mean(drawn, axis=0), recall_by_chance(captions, groups, [3])[3], atol=0.05)


@given(seed=st.integers(0, 10_000), k=st.integers(1, 14), chunk=st.integers(1, 14), own=st.booleans())
@settings(max_examples=60, deadline=None)
def test_ranking_between_images_and_texts_equals_sorting_with_ties_by_row(
    seed: int, k: int, chunk: int, own: bool
) -> None:
    images, texts, groups, captions = pairs(seed)
    allowed = captions > 1
    order = rank(images, texts, groups, k, allowed, keep_own=own, chunk=chunk)
    for query, found in enumerate(order.tolist()):
        rows = [r for r in np.flatnonzero(allowed) if groups[r] != groups[query] or (own and r == query)]
        expected = sorted(rows, key=lambda r: (-float(images[query] @ texts[r]), r))[:k]
        assert found == expected + [-1] * (k - len(expected))


def test_ties_across_the_end_of_a_long_list_go_to_the_first_rows() -> None:
    # A thousand equal scores for fifty places: which of them topk gives is open, ours are the first.
    same = np.ones((1000, 2), np.float32)
    order = rank(same, same, np.arange(1000), 50)
    assert order[0].tolist() == list(range(1, 51))
    assert order[10].tolist() == [*range(10), *range(11, 51)]


def test_excluding_images_instead_of_cases_keeps_siblings_in_the_gallery() -> None:
    features = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    by_case = rank(features, features, np.array([0, 0, 1, 2]), 3)
    by_image = rank(features, features, np.arange(4), 3)
    assert by_image[0].tolist() == [1, 2, 3] and by_case[0].tolist() == [2, 3, -1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_ranking_on_a_gpu_equals_ranking_on_the_cpu() -> None:
    images, texts, groups, captions = pairs(4, rows=200)  # integers: exact on both
    for own in (False, True):
        on_cpu = rank(images, texts, groups, 20, captions > 1, keep_own=own)
        np.testing.assert_array_equal(
            rank(images, texts, groups, 20, captions > 1, keep_own=own, device="cuda"), on_cpu
        )
    on_gpu = pair_ranks(images, texts, groups, captions, device="cuda")
    np.testing.assert_array_equal(on_gpu, pair_ranks(images, texts, groups, captions))
