"""Learned similarity beside the targets': pairs, pooled correlations and their bootstrap, wins and losses."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

from kg_targets.store import TargetStore
from tests.training.engine.test_runs import write_store
from training.errors import ConfigError
from training.retrieval.features import RetrievalSet
from training.retrieval.spaces.changes import changes_by_label, largest, shown_labels
from training.retrieval.spaces.config import SpacesConfig
from training.retrieval.spaces.correlate import Estimate, PairWeights, correlate, mean_in_bins
from training.retrieval.spaces.pairs import ALL, pairs_of, strata_of

FloatArray = NDArray[np.float64]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> RetrievalSet:
    """Sixteen images in eight cases, the last one without concepts."""
    folder = tmp_path_factory.mktemp("store")
    store = TargetStore.open(write_store(folder / "train", folder / "data", "train"))
    return RetrievalSet.of(store, np.arange(len(store)))


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


def test_largest_changes_show_each_case_once_and_only_real_ones() -> None:
    difference = np.array([0.5, 0.4, 0.4, 0.0, np.nan, -0.2, -0.3, 0.1])
    cases = np.array([0, 0, 1, 2, 3, 4, 4, 5])
    assert largest(difference, cases, 2) == ([0, 2], [6])
    assert largest(difference, cases, 9) == ([0, 2, 7], [6])
    assert largest(np.zeros(3), np.arange(3), 2) == ([], [])


def test_groups_hold_their_queries_and_small_ones_have_no_interval(data: RetrievalSet) -> None:
    difference = np.where(np.array(data.label("finding")) == "mass", 1.0, 0.0)
    difference[0] = np.nan
    groups = {group.values: group for group in changes_by_label(data, difference, 50, 0)}
    assert groups[()].change.queries == 15 and groups[()].change.cases == 8
    assert groups[("mass",)].change.mean == 1.0 and np.isnan(groups[("mass",)].change.low)
    assert groups[("ct",)].change.low <= groups[("ct",)].change.mean
    assert ("ct", "mass") in groups and ("", "mass") not in groups


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        (("finding", "region", "modality"), ("modality", "region")),
        (("modality", "organ", "plane"), ("modality", "organ")),
        (("view",), ("view",)),
        ((), ()),
    ],
)
def test_changes_are_told_by_modality_and_region_where_they_exist(
    available: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert shown_labels(available) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "middle"}, '--features: "middle" is not one of before, after'),
        ({"policy": "hard"}, '--policy: "hard" is not one of softmax'),
        ({"batch_size": 1}, "--batch-size: 1 must be at least 2"),
        ({"queries": 0}, "--queries: 0 must be at least 1"),
        ({"max_broken": -1}, "--max-broken: -1 must be at least 0"),
    ],
)
def test_options_are_checked_by_their_names(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        SpacesConfig(**options)
    assert message in str(error.value)
