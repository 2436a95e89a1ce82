"""Retrieval, its measures and its statistics against brute force over all pairs."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from training.errors import DataError
from training.retrieval.concepts import cui_at, cui_by_chance
from training.retrieval.metrics import label_codes, precision_at, precision_by_chance
from training.retrieval.ranking import pair_ranks, rank
from training.statistics.intervals import case_interval
from training.statistics.paired_tests import Pair, compare_all, flips_for, holm

IntArray = NDArray[np.int64]


def world(seed: int, images: int = 14) -> tuple[NDArray[np.float32], IntArray, IntArray, NDArray[np.float32]]:
    """Features (with ties), cases, labels (some missing) and an image × concept matrix (some rows empty)."""
    rng = np.random.default_rng(seed)
    features = rng.integers(-1, 2, (images, 3)).astype(np.float32)
    cases = rng.integers(0, 6, images)
    labels = rng.integers(-1, 3, images)
    cuis = (rng.random((images, 5)) < 0.35).astype(np.float32)
    return features, cases, labels, cuis


def brute_force_order(
    features: NDArray[np.float32], cases: IntArray, k: int, gallery: IntArray
) -> list[list[int]]:
    lists = []
    for query in range(len(features)):
        others = [r for r in gallery if cases[r] != cases[query]]
        lists.append(sorted(others, key=lambda r: (-float(features[query] @ features[r]), r))[:k])
    return lists


@given(seed=st.integers(0, 10_000), k=st.integers(1, 16), chunk=st.integers(1, 20))
@settings(max_examples=50, deadline=None)
def test_ranking_equals_brute_force_with_ties_by_row_in_any_chunking(seed: int, k: int, chunk: int) -> None:
    features, cases, labels, _ = world(seed)
    order = rank(features, features, cases, k, labels >= 0, chunk=chunk)
    expected = brute_force_order(features, cases, k, np.flatnonzero(labels >= 0))
    assert [[r for r in row if r >= 0] for row in order.tolist()] == expected


def test_no_query_retrieves_itself_or_its_own_case() -> None:
    features, cases, _, _ = world(3)
    order = rank(features, features, cases, 14)
    for query, found in enumerate(order):
        assert all(cases[r] != cases[query] for r in found if r >= 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    features, cases, _, _ = world(3)
    spoilt = features.copy()
    spoilt[2, 1] = value
    for queries, gallery in ((features, spoilt), (spoilt, features)):
        with pytest.raises(DataError, match="features to rank hold values that are not finite"):
            rank(queries, gallery, cases, 3)
        with pytest.raises(DataError, match="not finite"):
            pair_ranks(queries, gallery, cases, cases)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_precision_equals_counting(seed: int) -> None:
    features, cases, labels, _ = world(seed)
    order = rank(features, features, cases, 10, labels >= 0)
    scores = precision_at(order, labels, [1, 4, 10])
    for k, values in scores.items():
        for query, value in enumerate(values):
            found = [r for r in order[query][:k] if r >= 0]
            if labels[query] < 0 or not found:
                assert math.isnan(value)
            else:
                assert value == pytest.approx(np.mean([labels[r] == labels[query] for r in found]))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_cui_overlap_is_normalised_by_the_best_possible_k_images(seed: int) -> None:
    features, cases, _, cuis = world(seed, images=8)
    order = rank(features, features, cases, 3)
    scores = cui_at(order, sparse.csr_array(cuis), cases, [1, 3], chunk=3)["oracle"]
    for k, values in scores.items():
        for query, value in enumerate(values):
            gallery = [r for r in range(8) if cases[r] != cases[query]]
            overlap = {r: float(cuis[query] @ cuis[r]) for r in gallery}
            subsets = itertools.combinations(gallery, min(k, len(gallery)))
            best = max((sum(overlap[r] for r in subset) for subset in subsets), default=0.0)
            if best == 0:
                assert math.isnan(value)
            else:
                found = [r for r in order[query][:k] if r >= 0]
                assert value == pytest.approx(sum(overlap[r] for r in found) / best)


def test_a_perfect_ranking_reaches_one_at_every_depth() -> None:
    _, _, _, cuis = world(5, images=20)
    cases = np.arange(20)
    overlap = cuis @ cuis.T
    np.fill_diagonal(overlap, -1)
    perfect = np.argsort(-overlap, axis=1, kind="stable")[:, :10]
    for values in cui_at(perfect, sparse.csr_array(cuis), cases, [1, 5, 10])["oracle"].values():
        assert np.nanmin(values) == pytest.approx(1)


def test_chance_is_the_mean_over_many_random_orders() -> None:
    _, cases, labels, cuis = world(8)
    rng = np.random.default_rng(0)
    precision, overlap = [], []
    for _ in range(3000):
        noise = rng.normal(size=(14, 14)).astype(np.float32)
        order = np.full((14, 4), -1)
        labelled = np.full((14, 4), -1)
        for query in range(14):
            ranked = [r for r in np.argsort(noise[query]) if cases[r] != cases[query]]
            order[query, : len(ranked[:4])] = ranked[:4]
            kept = [r for r in ranked if labels[r] >= 0][:4]
            labelled[query, : len(kept)] = kept
        precision.append(precision_at(labelled, labels, [4])[4])
        overlap.append(cui_at(order, sparse.csr_array(cuis), cases, [4])["oracle"][4])
    np.testing.assert_allclose(np.mean(precision, axis=0), precision_by_chance(labels, cases), atol=0.03)
    expected = cui_by_chance(sparse.csr_array(cuis), cases, [4])["oracle"][4]
    np.testing.assert_allclose(np.mean(overlap, axis=0), expected, atol=0.03)


def test_conjunction_of_labels_is_missing_where_any_label_is() -> None:
    codes = label_codes(["ct", "ct", "mri", ""], ["chest", "", "chest", "chest"])
    assert codes[1] == codes[3] == -1 and codes[0] >= 0 and codes[0] != codes[2]


def test_interval_resamples_cases_not_images() -> None:
    # 1,200 images in sixty cases that are all right or all wrong: images look plentiful, cases are few.
    scores = np.repeat([0.0, 1.0], 600)
    grouped = case_interval(scores, np.repeat(np.arange(60), 20))
    assert (grouped.queries, grouped.cases) == (1200, 60)
    single = case_interval(scores, np.arange(1200))
    assert single.high - single.low < 0.06 and 0.23 < grouped.high - grouped.low < 0.28


def test_interval_has_its_nominal_width_and_ignores_queries_without_a_score() -> None:
    scores = np.random.default_rng(0).normal(0.5, 0.1, 400)
    scores[::4] = np.nan
    interval = case_interval(scores, np.arange(400))
    assert interval.mean == pytest.approx(np.nanmean(scores))
    standard_error = np.nanstd(scores) / np.sqrt(300)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)
    assert interval == case_interval(scores, np.arange(400))


def test_sign_flip_p_value_equals_the_exact_one_over_all_assignments() -> None:
    difference = np.array([0.3, 0.1, -0.05, 0.2, 0.4, -0.1, 0.25, 0.15, -0.2, -0.3])
    cases = np.arange(10)
    totals = [
        abs(sum(s * d for s, d in zip(signs, difference, strict=True)))
        for signs in itertools.product((-1, 1), repeat=10)
    ]
    exact = np.mean([total >= abs(difference.sum()) - 1e-12 for total in totals])
    (result,) = compare_all([Pair(difference, np.zeros(10))], cases, flips=20_000)
    assert result.p_value == pytest.approx(exact, abs=0.005)
    assert compare_all([Pair(np.zeros(10), np.zeros(10))], cases)[0].p_value == 1.0
    assert math.isnan(compare_all([Pair(difference[:9], np.zeros(9))], cases[:9])[0].p_value)


def test_many_tests_get_flips_enough_for_one_of_them_to_pass_holm() -> None:
    assert flips_for(0) == flips_for(17) == flips_for(50) == 10_000
    assert flips_for(500) == 100_000
    clear, noise = np.ones(40), np.random.default_rng(0).choice([-1.0, 1.0], (499, 40))
    pairs = [Pair(scores, np.zeros(40)) for scores in (clear, *noise)]

    def corrected(flips: int) -> float:
        return holm([result.p_value for result in compare_all(pairs, np.arange(40), 20, flips)])[0]

    assert corrected(flips_for(500)) < 0.05 / 5
    assert corrected(10_000 - 1) == pytest.approx(0.05)  # the least that is possible then


def test_pairs_compared_together_get_what_each_gets_alone() -> None:
    rng = np.random.default_rng(7)
    cases = np.repeat(np.arange(40), 2)
    classes = rng.integers(0, 3, 80)
    pairs = [
        Pair(rng.random(80) + shift, rng.random(80), strata)
        for shift in (0.0, 0.1, 0.2)
        for strata in (None, classes)
    ]
    for pair in pairs[:2]:  # other cases, so other flips
        pair.scores[:4] = np.nan
    pairs.append(Pair(np.full(80, np.nan), np.zeros(80)))
    together = compare_all(pairs, cases, 50, 2500, seed=3)
    for pair, result in zip(pairs[:-1], together[:-1], strict=True):
        assert [result] == compare_all([pair], cases, 50, 2500, 3)
        by_hand = pair.scores - pair.baseline
        if pair.strata is None:
            by_case = np.array([by_hand[cases == c].sum() for c in np.unique(cases[~np.isnan(by_hand)])])
            draw = np.random.default_rng(4)
            signs = np.concatenate(
                [draw.integers(0, 2, (n, len(by_case)), np.int8) for n in (1000, 1000, 500)]
            )
            totals = np.abs((signs * 2.0 - 1) @ by_case)
            extreme = int((totals >= abs(by_case.sum()) - 1e-9).sum())
            assert result.p_value == (1 + extreme) / 2501
    assert math.isnan(together[-1].p_value)


def test_holm_steps_down_and_never_falls_below_a_smaller_p() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert math.isnan(holm([float("nan"), 0.01])[0]) and holm([float("nan"), 0.01])[1] == 0.01


def test_balanced_mean_is_the_mean_of_class_means_and_its_interval_resamples_cases() -> None:
    rng = np.random.default_rng(3)
    classes = np.repeat([0, 1, 2], [380, 30, 20])
    scores = (rng.random(430) < np.array([0.9, 0.5, 0.2])[classes]).astype(float)
    cases = np.arange(430) // 2
    interval = case_interval(scores, cases, draws=400, seed=5, strata=classes)
    assert interval.mean == pytest.approx(np.mean([scores[classes == c].mean() for c in range(3)]))
    draws = np.random.default_rng(5).multinomial(215, np.full(215, 1 / 215), size=400)
    means = []
    for draw in draws:
        weight = draw[cases].astype(float)
        parts = [
            (weight * scores)[classes == c].sum() / weight[classes == c].sum()
            for c in range(3)
            if weight[classes == c].sum()
        ]
        means.append(np.mean(parts))
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(means, [0.025, 0.975]), atol=1e-12)


def test_balanced_comparison_flips_what_each_case_adds_to_the_balanced_mean() -> None:
    """Ten cases with queries of both classes, two more of one class; every assignment of signs."""
    rng = np.random.default_rng(4)
    classes = np.r_[np.zeros(12, dtype=np.int64), np.ones(10, dtype=np.int64)]
    cases = np.r_[np.arange(12), np.arange(10)]
    difference = rng.normal(0.1, 0.3, 22) + 0.2 * classes
    weights = np.where(classes == 0, 1 / 12, 1 / 10)
    by_case = np.bincount(cases, weights * difference)
    totals = np.abs(np.array(list(itertools.product((-1, 1), repeat=12))) @ by_case)
    exact = np.mean(totals >= abs(weights @ difference) - 1e-12)
    (result,) = compare_all([Pair(difference, np.zeros(22), classes)], cases, flips=20_000)
    assert result.p_value == pytest.approx(exact, abs=0.01)
    assert result.difference.mean == pytest.approx((weights @ difference) / 2)
