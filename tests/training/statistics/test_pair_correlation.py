"""Correlations over pairs, pooled within strata, and their bootstrap over cases."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

from training.statistics.pair_correlation import Estimate, PairWeights, correlate, mean_in_bins

FloatArray = NDArray[np.float64]


@pytest.fixture
def sample() -> SimpleNamespace:
    """Pairs of 30 images in 12 cases: x with many ties, two models' y, and a label of three values and none."""
    rng = np.random.default_rng(1)
    cases, labels = rng.integers(0, 12, 30), rng.integers(-1, 3, 30)
    left, right = np.triu_indices(30, 1)
    apart = cases[left] != cases[right]
    left, right = left[apart], right[apart]
    x = np.round(rng.random(len(left)), 1)
    y = {
        "a": [x + rng.normal(size=len(x)), rng.normal(size=len(x))],
        "b": [np.round(x + rng.random(len(x)), 1)],
    }
    strata = np.where(labels[left] == labels[right], labels[left], -1)
    return SimpleNamespace(first=cases[left], second=cases[right], x=x, y=y, strata=strata)


def by_hand(x: FloatArray, y: FloatArray, strata: NDArray[np.int64], ranked: bool) -> float:
    """The module's formula with scipy's ranks, stratum by stratum."""
    from scipy.stats import rankdata

    parts = []
    for stratum in np.unique(strata[strata >= 0]):
        inside = strata == stratum
        one, other = x[inside], y[inside]
        if ranked:
            one, other = rankdata(one) / inside.sum(), rankdata(other) / inside.sum()
        parts.append((one - one.mean(), other - other.mean()))
    one, other = (np.concatenate(column) for column in zip(*parts, strict=True))
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


def test_correlations_of_all_pairs_are_scipys(sample: SimpleNamespace) -> None:
    weights = PairWeights(sample.first, sample.second, 1, 0)
    found = correlate(sample.x, sample.y, np.zeros(len(sample.x), np.int64), weights)
    for name, seeds in sample.y.items():
        rho = np.mean([spearmanr(sample.x, y).statistic for y in seeds])
        r = np.mean([pearsonr(sample.x, y).statistic for y in seeds])
        assert found[name]["spearman"][0] == pytest.approx(rho, abs=1e-12)
        assert found[name]["pearson"][0] == pytest.approx(r, abs=1e-12)


def test_a_sample_of_cases_is_the_same_pairs_repeated(sample: SimpleNamespace) -> None:
    weights = PairWeights(sample.first, sample.second, 5, 7)
    for strata in (np.zeros(len(sample.x), np.int64), sample.strata):
        found = correlate(sample.x, sample.y, strata, weights)
        for draw, weight in enumerate(weights.of(np.arange(len(sample.x)))):
            again = np.repeat(np.arange(len(sample.x)), weight.astype(int))
            for name, kind in (("a", "spearman"), ("b", "spearman"), ("a", "pearson")):
                expected = np.mean(
                    [
                        by_hand(sample.x[again], y[again], strata[again], kind == "spearman")
                        for y in sample.y[name]
                    ]
                )
                assert found[name][kind][draw] == pytest.approx(expected, abs=1e-12)


def test_pairs_weigh_how_often_both_cases_were_drawn(sample: SimpleNamespace) -> None:
    weights = PairWeights(sample.first, sample.second, 3, 0)
    plain, *drawn = weights.of(np.arange(len(sample.x)))
    assert (plain == 1).all() and len(drawn) == 3
    cases, codes = np.unique(np.concatenate([sample.first, sample.second]), return_inverse=True)
    times = np.random.default_rng(0).multinomial(len(cases), np.full(len(cases), 1 / len(cases)), size=3)
    first, second = np.split(codes, 2)
    np.testing.assert_array_equal(drawn[2], times[2][first] * times[2][second])


def test_a_label_that_explains_everything_leaves_no_correlation_within_it() -> None:
    rng = np.random.default_rng(0)
    strata = np.repeat(np.arange(4), 200)
    x, y = (strata + 0.01 * rng.normal(size=800) for _ in range(2))
    cases = rng.integers(0, 40, 800), rng.integers(40, 80, 800)
    weights = PairWeights(*cases, 100, 0)
    whole = correlate(x, {"m": [y]}, np.zeros(800, np.int64), weights)["m"]["spearman"]
    within = correlate(x, {"m": [y]}, strata, weights)["m"]["spearman"]
    assert whole[0] > 0.9
    estimate = Estimate.of(within)
    assert abs(estimate.value) < 0.1 and estimate.low < 0 < estimate.high


def test_what_does_not_vary_or_does_not_exist_has_no_correlation() -> None:
    weights = PairWeights(np.array([0, 1]), np.array([2, 3]), 4, 0)
    flat = correlate(np.zeros(2), {"m": [np.array([0.1, 0.2])]}, np.zeros(2, np.int64), weights)
    none = correlate(np.array([0.0, 1.0]), {"m": [np.array([0.1, 0.2])]}, np.full(2, -1), weights)
    for found in (flat, none):
        assert np.isnan(found["m"]["spearman"]).all() and np.isnan(found["m"]["pearson"]).all()
    assert np.isnan(Estimate.of(none["m"]["pearson"]).low)


def test_bins_have_the_weighted_mean_of_their_pairs(sample: SimpleNamespace) -> None:
    bins = (sample.x * 5).astype(np.int64)
    weights = PairWeights(sample.first, sample.second, 2, 5)
    found = mean_in_bins(bins, 8, sample.y, weights)
    y = np.mean(sample.y["a"], axis=0)
    for draw, weight in enumerate(weights.of(np.arange(len(bins)))):
        for place in range(8):
            inside = bins == place
            expected = np.average(y[inside], weights=weight[inside]) if inside.any() else np.nan
            assert found["a"][draw, place] == pytest.approx(expected, nan_ok=True)
