"""Intervals of means over few cases: t instead of percentiles, nothing under ten."""

import math

import numpy as np
import pytest
from scipy import stats

from training.errors import DataError
from training.statistics.intervals import case_interval, per_cent
from training.statistics.paired_tests import Pair, compare_all


def test_few_cases_get_the_t_interval_of_their_means() -> None:
    scores = np.random.default_rng(0).standard_normal(40)
    cases = np.repeat(np.arange(20), 2)
    found = case_interval(scores, cases)
    means = scores.reshape(20, 2).mean(axis=1)
    low, high = stats.t.interval(0.95, 19, means.mean(), stats.sem(means))
    assert (found.mean, found.low, found.high) == pytest.approx((means.mean(), low, high))


@pytest.mark.parametrize("cases", [10, 15, 19])
def test_few_cases_hold_the_truth(cases: int) -> None:
    """Percentiles hold it in .87 to .91 of the samples."""
    rng, case = np.random.default_rng(cases), np.repeat(np.arange(cases), 3)
    held = []
    for _ in range(1500):
        found = case_interval(rng.standard_normal(cases)[case] + rng.standard_normal(3 * cases), case)
        held.append(found.low <= 0 <= found.high)
    assert 0.935 <= np.mean(held) <= 0.965


def test_fewer_than_ten_cases_have_no_interval() -> None:
    scores = np.append(np.arange(9.0), np.nan)
    found = case_interval(scores, np.arange(10))
    assert (found.mean, found.queries, found.cases) == (4.0, 9, 9)
    assert math.isnan(found.low) and math.isnan(found.high) and per_cent(found) == "400.0 [–]"


def test_a_mean_of_classes_over_few_cases_is_centred_within_them() -> None:
    rng = np.random.default_rng(1)
    strata, cases = np.tile([0, 0, 1], 15), np.repeat(np.arange(15), 3)
    scores = 5.0 * strata + 0.01 * rng.standard_normal(45)
    found = case_interval(scores, cases, strata=strata)
    assert found.mean == pytest.approx(2.5, abs=0.01) and found.high - found.low < 0.02


@pytest.mark.parametrize("rare", [9, 10])
@pytest.mark.parametrize("cases", [40, 400])
def test_a_mean_of_classes_needs_ten_cases_of_each_class(rare: int, cases: int) -> None:
    scores, strata = np.random.default_rng(2).random(cases), (np.arange(cases) < rare).astype(np.int64)
    found = case_interval(scores, np.arange(cases), strata=strata)
    (test,) = compare_all([Pair(scores, np.zeros(cases), strata)], np.arange(cases), flips=100)
    assert found.mean == pytest.approx((scores[:rare].mean() + scores[rare:].mean()) / 2)
    assert math.isnan(found.low) == math.isnan(test.p_value) == (rare < 10)


@pytest.mark.parametrize("cases", [20, 400])
@pytest.mark.parametrize("score", [0.0, 1.0, 1 / 3])
def test_scores_that_are_all_the_same_are_no_certainty(cases: int, score: float) -> None:
    found = case_interval(np.full(cases, score), np.arange(cases))
    assert found.mean == pytest.approx(score) and math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.filterwarnings("error")
def test_infinite_scores_and_shapes_that_do_not_fit_are_one_line() -> None:
    for scores, cases in ((np.array([1.0, np.inf]), np.arange(2)), (np.zeros(3), np.arange(2))):
        with pytest.raises(DataError, match="finite"):
            case_interval(scores, cases)


@pytest.mark.parametrize("cases", [30, 250])
def test_an_interval_counts_its_queries_and_cases(cases: int) -> None:
    scores = np.random.default_rng(0).normal(size=3 * cases)
    scores[:5] = np.nan  # not asked
    found = case_interval(scores, np.repeat(np.arange(cases), 3), 100)
    assert (found.queries, found.cases) == (3 * cases - 5, cases - 1)
    none = case_interval(np.full(cases, np.nan), np.arange(cases), 100)
    assert (none.queries, none.cases) == (0, 0)
