"""Tests of configurations whose error contains seeds and cases: by hand, by simulation, beside tests that are blind."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from training.errors import DataError
from training.statistics import paired_test
from training.statistics.paired_tests import Pair, compare_all
from training.statistics.seed_variance import crossed_error

FOLDS, SEEDS, CASES, IMAGES = 5, 3, 24, 2
"""Folds, seeds, cases of each fold and images of each case in the simulations."""
DRAWS = 500
CASE = np.repeat(np.arange(FOLDS * CASES), IMAGES)
FOLD = np.repeat(np.arange(FOLDS), CASES * IMAGES)
ONE_FOLD = np.zeros_like(FOLD)


class World(NamedTuple):
    """Standard deviations of what a difference consists of, and what it truly is."""

    case: float
    """What all training runs do alike on a case."""
    training: float
    """What one training run does alike on all cases of its fold."""
    both: float
    """What one training run does on one case."""
    shared: float = 0.0
    """What one seed does alike in all folds."""
    truth: float = 0.0


def draws(world: World, seeds: int = SEEDS) -> Iterator[NDArray[np.float64]]:
    """Differences ``[S, N]`` of as many imagined grids."""
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        yield (
            world.truth
            + world.case * rng.standard_normal(FOLDS * CASES)[CASE]
            + world.training * rng.standard_normal((seeds, FOLDS))[:, FOLD]
            + world.shared * rng.standard_normal((seeds, 1))
            + world.both * rng.standard_normal((seeds, FOLDS * CASES))[:, CASE]
            + 0.1 * rng.standard_normal((seeds, len(CASE)))
        )


def rejected(world: World, seeds: int = SEEDS, classes: NDArray[np.int64] | None = None) -> float:
    """How often p < 0.05."""
    tests = (paired_test(one, CASE, FOLD, classes=classes) for one in draws(world, seeds))
    return float(np.mean([one.p < 0.05 for one in tests]))


def rejected_by_sign_flips(world: World) -> float:
    averaged = [one.mean(axis=0) for one in draws(world)]
    pairs = [Pair(one, np.zeros_like(one)) for one in averaged]
    return float(np.mean([one.p_value < 0.05 for one in compare_all(pairs, CASE, draws=2, flips=1000)]))


def test_three_seeds_that_gain_the_same_are_as_sure_as_the_cases_let_them_be() -> None:
    """Right and wrong answers, one fold: the training variance of before, 1 or 2 degrees of freedom, hid this gain."""
    rng = np.random.default_rng(0)
    answers = np.r_[np.ones(80), -np.ones(60), np.zeros(260)]
    found = paired_test(
        np.stack([rng.permutation(answers) for _ in range(3)]), np.arange(400), np.zeros(400, dtype=np.int64)
    )
    assert found.mean == pytest.approx(0.05) and found.error is not None and found.error.se_training == 0
    assert found.error.se_cases == pytest.approx(math.sqrt((0.35 - 0.05**2) / 3 / 400), rel=0.1)
    assert 0 < found.low < 0.02 and 0.08 < found.high < 0.1 and 0.01 < found.p < 0.05


def test_answers_that_are_independent_from_seed_to_seed_are_its_most_conservative_case() -> None:
    """400 questions in one fold, 80 better and 60 worse: before, three seeds found that in 8 % of samples."""
    rng, weights = np.random.default_rng(0), np.full(400, 1 / 400)
    for seeds, most, least in ((3, 0.02, 0.28), (4, 0.03, 0.55), (5, 0.03, 0.74)):
        for better, worse in ((70, 70), (80, 60)):
            shares = [better / 400, worse / 400, 1 - (better + worse) / 400]
            answers = rng.choice([1.0, -1.0, 0.0], (1000, seeds, 400), p=shares) / 400
            by_seed = answers.sum(axis=2)
            error = crossed_error(by_seed, answers - by_seed[..., None] * weights, weights)
            found = np.mean(error.p(by_seed.mean(axis=1)) < 0.05)
            assert found <= most if better == worse else found >= least


def test_seeds_that_act_alike_in_all_folds_are_three_and_not_fifteen() -> None:
    rng = np.random.default_rng(0)
    given = np.array([[0.04], [0.02], [0.03]]) + rng.normal(0, 0.02, (3, 1000))
    found = paired_test(given, np.arange(1000), np.repeat(np.arange(5), 200))
    by_seed = stats.ttest_1samp(given.mean(axis=1), 0)
    assert found.p == pytest.approx(by_seed.pvalue, rel=0.01) and 0.03 < found.p < 0.05
    assert found.low == pytest.approx(by_seed.confidence_interval().low, abs=1e-4)
    assert found.error is not None and found.error.agreeing(found.mean) == (15, 15)


@pytest.mark.parametrize("seeds", [3, 4, 5])
@pytest.mark.parametrize(
    "world",
    [
        pytest.param(World(case=1, training=0.3, both=0.5), id="everything"),
        pytest.param(World(case=1, training=0, both=0), id="cases alone"),
        pytest.param(World(case=0.2, training=1, both=0.2), id="training runs alone"),
        pytest.param(
            World(case=0.2, training=0, both=0.2, shared=0.5), id="seeds that act alike in all folds"
        ),
        pytest.param(World(case=1, training=0, both=0.5, shared=0.2), id="cases and seeds"),
    ],
)
def test_rows_that_do_not_differ_are_called_different_at_the_level(world: World, seeds: int) -> None:
    assert 0.01 <= rejected(world, seeds) <= 0.08


def test_seeds_of_one_row_are_called_different_no_more_often_than_that() -> None:
    """All is seed variance on single cases; this is where the test is conservative."""
    assert rejected(World(case=0, training=0, both=1)) <= 0.05
    assert rejected(World(case=0, training=0.3, both=1)) <= 0.08


def test_right_and_wrong_answers_keep_the_level_in_thousands_of_draws() -> None:
    """60 cases of 1 to 8 questions; differences −1, 0, 1 whose seeds share three quarters of the variance."""
    rng, counts = np.random.default_rng(0), np.resize([1, 1, 2, 2, 3, 4, 6, 8], 60)
    latent = rng.standard_normal((4000, 1, counts.sum())) + 0.58 * rng.standard_normal(
        (4000, 3, counts.sum())
    )
    for shared, least in ((0.0, 0.02), (0.15, 0.03)):
        moved = latent + shared * rng.standard_normal((4000, 3, 1))
        answers = (moved > 1).astype(float) - (moved < -1)
        sums = np.add.reduceat(answers, np.cumsum(counts) - counts, axis=2) / counts.sum()
        by_seed, weights = sums.sum(axis=2), counts / counts.sum()
        error = crossed_error(by_seed, sums - by_seed[..., None] * weights, weights)
        assert least <= np.mean(error.p(by_seed.mean(axis=1)) < 0.05) <= 0.075


def test_a_mean_of_classes_keeps_the_level() -> None:
    classes = np.random.default_rng(1).choice(3, len(CASE), p=(0.7, 0.2, 0.1))
    assert 0.01 <= rejected(World(case=1, training=0.3, both=0.5), classes=classes) <= 0.08


def test_sign_flips_over_cases_take_seed_variance_for_a_difference() -> None:
    world = World(case=0.5, training=0.3, both=0.5)
    assert rejected_by_sign_flips(world) > 0.2 and rejected(world) < 0.08
    assert rejected_by_sign_flips(World(case=0.2, training=1, both=0.2)) > 0.5


def test_true_differences_are_found() -> None:
    """Four standard errors; and three without seed variance, with three seeds and with five."""
    error = np.sqrt(1 / 120 + 0.3**2 / 15 + 0.5**2 / 360)
    assert rejected(World(case=1, training=0.3, both=0.5, truth=4 * error)) > 0.85
    calm = World(case=1, training=0, both=0, truth=3 / np.sqrt(120))
    assert rejected(calm) > 0.7 and rejected(calm, seeds=5) > 0.8


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    tests = [paired_test(one, CASE, FOLD) for one in draws(World(0.5, 0.4, 0.5, truth=0.2))]
    assert 0.93 <= np.mean([one.low < 0.2 < one.high for one in tests]) <= 0.99


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_every_part_equals_the_formula_by_hand(shift: float) -> None:
    """Two folds of six cases with one or two images each, three seeds, one query not asked; plain loops."""
    rng = np.random.default_rng(8)
    cases = np.array([0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 6, 6, 7, 8, 8, 9, 10, 11])
    folds = cases // 6
    given = rng.standard_normal((3, 18))
    given[1] += shift  # of one seed, so that V_seeds is above V_both
    given[0, 5] = np.nan
    found = paired_test(given, cases, folds, ["one", "two"])

    asked = [i for i in range(18) if i != 5]
    by_seed = [sum(given[s, i] for i in asked) / 17 for s in range(3)]
    mean = sum(by_seed) / 3
    of_seeds = sum((one - mean) ** 2 for one in by_seed) / 2 / 3
    of_cases = both = size = 0.0
    for case in range(12):
        images = [i for i in asked if cases[i] == case]
        parts = [sum(given[s, i] - by_seed[s] for i in images) / 17 for s in range(3)]
        of_cases += (sum(parts) / 3) ** 2
        both += sum((one - sum(parts) / 3) ** 2 for one in parts)
        size += (len(images) / 17) ** 2
    of_cases, both = of_cases / (1 - size), both / (1 - size) / 6
    assert (of_seeds > both) == (shift > 0)
    training = max(of_seeds - both, 0.0)
    spare = min(1 / size - 1, 2 * 2**2)
    degrees = (of_cases + training) ** 2 / (of_seeds**2 / 2 + of_cases**2 / spare)
    error, degrees = math.sqrt(of_cases + training), max(degrees, 2)

    assert found.error is not None
    assert found.error.se_training == pytest.approx(math.sqrt(training), abs=1e-12)
    assert found.error.se_cases == pytest.approx(math.sqrt(of_cases), abs=1e-12)
    assert found.error.degrees == pytest.approx(degrees, abs=1e-9)
    reach = stats.t.ppf(0.975, degrees) * error
    expected = (mean, mean - reach, mean + reach)
    assert (found.mean, found.low, found.high) == pytest.approx(expected, abs=1e-12)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(mean) / error, degrees), abs=1e-12)
    assert (found.queries, found.cases, found.interval.low) == (17, 12, found.low)
    inside = [given[:, [i for i in asked if folds[i] == fold]].mean(axis=1).tolist() for fold in (0, 1)]
    assert found.error.by_training == {
        "one": pytest.approx(inside[0], abs=1e-12), "two": pytest.approx(inside[1], abs=1e-12)
    }  # fmt: skip
    signs = [np.sign(value) == np.sign(mean) for values in inside for value in values]
    assert found.error.agreeing(mean) == (sum(signs), 6)


def test_without_variance_of_cases_it_is_the_t_test_of_the_seeds() -> None:
    by_seed = np.random.default_rng(4).standard_normal((5, 1)) + 1
    found = paired_test(by_seed + np.zeros(len(CASE)), CASE, FOLD)
    assert found.error is not None and found.error.se_cases == pytest.approx(0, abs=1e-12)
    assert found.error.degrees == pytest.approx(4)
    assert found.p == pytest.approx(stats.ttest_1samp(by_seed[:, 0], 0).pvalue)


def test_the_mean_of_classes_is_the_pooled_one_and_its_error_the_linearised_ratios() -> None:
    rng = np.random.default_rng(5)
    classes = rng.choice(3, len(CASE), p=(0.7, 0.2, 0.1))
    given = rng.standard_normal(len(CASE)) + classes
    found = paired_test(np.stack([given] * 4), CASE, ONE_FOLD, classes=classes)
    means = np.array([given[classes == code].mean() for code in range(3)])
    assert found.mean == pytest.approx(means.mean())
    shares = 1 / np.bincount(classes)[classes] / 3
    parts = np.bincount(CASE, (given - means[classes]) * shares)
    size = (np.bincount(CASE, shares) ** 2).sum()
    assert found.error is not None and found.error.se_training == pytest.approx(0, abs=1e-12)
    assert found.error.se_cases == pytest.approx(np.sqrt((parts**2).sum() / (1 - size)))
    assert found.error.degrees == pytest.approx(min(1 / size - 1, 18))


def test_two_seeds_or_nine_cases_are_not_estimable() -> None:
    rng = np.random.default_rng(6)
    given = rng.standard_normal((3, len(CASE)))
    few = np.where(CASE < 9, given, np.nan)
    for one in (given[:2], given[:1], few):
        found = paired_test(one, CASE, FOLD)
        assert found.mean == pytest.approx(np.nanmean(one))
        assert np.isnan([found.low, found.high, found.p]).all() and found.error is None
    assert not math.isnan(paired_test(np.where(CASE < 10, given, np.nan), CASE, FOLD).p)
    for nothing in (np.full((3, 4), np.nan), np.zeros((3, 0)), np.zeros((0, 4))):
        size = nothing.shape[1]
        found = paired_test(nothing, np.arange(size), np.zeros(size, dtype=np.int64))
        assert np.isnan([found.mean, found.p]).all() and (found.queries, found.error) == (0, None)


def test_differences_without_any_spread_are_no_certainty() -> None:
    alike = paired_test(np.ones((3, 20)), np.arange(20), np.zeros(20, dtype=np.int64))
    assert alike.mean == 1.0 and np.isnan([alike.low, alike.high, alike.p]).all()
    none = paired_test(np.zeros((3, 20)), np.arange(20), np.zeros(20, dtype=np.int64))
    assert none.p == 1.0 and none.mean == 0 and np.isnan([none.low, none.high]).all()


def test_shapes_that_do_not_fit_and_cases_in_two_folds_are_refused() -> None:
    with pytest.raises(DataError, match="cases and folds"):
        paired_test(np.zeros((3, 4)), np.arange(3), np.zeros(4, dtype=np.int64))
    with pytest.raises(DataError, match="a case lies in two folds"):
        paired_test(np.zeros((3, 4)), np.zeros(4, dtype=np.int64), np.array([0, 0, 0, 1]))


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_a_difference_a_class_or_a_fold_is_one_line() -> None:
    given, cases, folds = (
        np.random.default_rng(7).standard_normal((3, 20)),
        np.arange(20),
        np.arange(20) // 10,
    )
    for infinite in (np.inf, -np.inf):
        with pytest.raises(DataError, match="finite"):
            paired_test(np.where(cases == 3, infinite, given), cases, folds)
    with pytest.raises(DataError, match="classes"):
        paired_test(given, cases, folds, classes=np.zeros(19, dtype=np.int64))
    with pytest.raises(DataError, match="from 0 to 0; given 0 to 1"):
        paired_test(given, cases, folds, names=["one"])
    with pytest.raises(DataError, match="given -1 to 0"):
        paired_test(given, cases, folds - 1)


def test_a_mean_of_classes_needs_ten_cases_of_each_class() -> None:
    given = np.random.default_rng(8).standard_normal((3, 40))
    for rare, known in ((9, False), (10, True)):
        classes = (np.arange(40) < rare).astype(np.int64)
        found = paired_test(given, np.arange(40), np.zeros(40, dtype=np.int64), classes=classes)
        assert found.mean == pytest.approx(np.mean([given[:, classes == code].mean() for code in (0, 1)]))
        assert (not math.isnan(found.p)) == (found.error is not None) == known
