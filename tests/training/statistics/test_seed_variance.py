"""Tests whose standard error contains training noise: by hand, by simulation, and beside tests that are blind to it."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from training.errors import DataError
from training.statistics.paired_tests import Pair, compare_all
from training.statistics.seed_variance import t_test

FOLDS, SEEDS, CASES, IMAGES = 5, 3, 24, 2
"""Folds, seeds, cases of each fold and images of each case in the simulations."""
DRAWS = 500
NAMES = [f"fold{fold}" for fold in range(FOLDS)]
CASE = np.repeat(np.arange(FOLDS * CASES), IMAGES)
FOLD = np.repeat(np.arange(FOLDS), CASES * IMAGES)


class World(NamedTuple):
    """Standard deviations of what a difference consists of, and what it truly is."""

    case: float
    """What all trainings do alike on a case."""
    training: float
    """What one training does alike on all cases of its fold."""
    both: float
    """What one training does on one case."""
    truth: float = 0.0


def draws(world: World) -> Iterator[NDArray[np.float64]]:
    """Differences ``[S, N]`` of as many imagined grids."""
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        yield (
            world.truth
            + world.case * rng.standard_normal(FOLDS * CASES)[CASE]
            + world.training * rng.standard_normal((SEEDS, FOLDS))[:, FOLD]
            + world.both * rng.standard_normal((SEEDS, FOLDS * CASES))[:, CASE]
            + 0.1 * rng.standard_normal((SEEDS, len(CASE)))
        )


def rejected(world: World, classes: NDArray[np.int64] | None = None) -> float:
    """How often p < 0.05."""
    return float(np.mean([t_test(one, CASE, FOLD, NAMES, classes).p < 0.05 for one in draws(world)]))


def rejected_by_sign_flips(world: World) -> float:
    averaged = [one.mean(axis=0) for one in draws(world)]
    pairs = [Pair(one, np.zeros_like(one)) for one in averaged]
    return float(np.mean([one.p_value < 0.05 for one in compare_all(pairs, CASE, draws=2, flips=1000)]))


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(World(case=1, training=0.3, both=0.5), id="everything"),
        pytest.param(World(case=1, training=0, both=0), id="cases alone"),
        pytest.param(World(case=0.2, training=1, both=0.2), id="trainings alone"),
    ],
)
def test_rows_that_do_not_differ_are_called_different_at_the_level(world: World) -> None:
    assert 0.03 <= rejected(world) <= 0.08


def test_seeds_of_one_row_are_called_different_no_more_often_than_that() -> None:
    """All is training noise; counting it among cases as well would bring this below 0.01."""
    assert 0.01 <= rejected(World(case=0, training=0, both=1)) <= 0.05
    assert 0.03 <= rejected(World(case=0, training=0.3, both=1)) <= 0.08


def test_a_mean_of_classes_keeps_the_level() -> None:
    classes = np.random.default_rng(1).choice(3, len(CASE), p=(0.7, 0.2, 0.1))
    assert 0.03 <= rejected(World(case=1, training=0.3, both=0.5), classes) <= 0.08


def test_sign_flips_over_cases_take_training_noise_for_a_difference() -> None:
    world = World(case=0.5, training=0.3, both=0.5)
    assert rejected_by_sign_flips(world) > 0.2 and rejected(world) < 0.08
    assert rejected_by_sign_flips(World(case=0.2, training=1, both=0.2)) > 0.5


def test_true_differences_are_found() -> None:
    """Four and two standard errors; without training noise about as often as by sign flips, which may ignore it."""
    world = World(case=1, training=0.3, both=0.5)
    error = np.sqrt(1 / 120 + 0.3**2 / 15 + 0.5**2 / 360)
    assert rejected(world._replace(truth=4 * error)) > 0.9
    calm = World(case=1, training=0, both=0, truth=2 / np.sqrt(120))
    assert rejected(calm) == pytest.approx(rejected_by_sign_flips(calm), abs=0.04)


def test_the_error_is_never_below_the_one_given_these_models() -> None:
    for given in draws(World(case=0.3, training=0, both=1)):
        found = t_test(given, CASE, FOLD, NAMES).noise
        means = given.mean(axis=0).reshape(FOLDS, CASES, IMAGES).mean(axis=2)
        conditional = np.var(means, axis=1, ddof=1).mean() / CASES / FOLDS
        assert found is not None
        assert found.se_cases**2 + found.se_training**2 >= conditional * (1 - 1e-12)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    intervals = [t_test(one, CASE, FOLD, NAMES).interval for one in draws(World(0.5, 0.4, 0.5, truth=0.2))]
    assert 0.92 <= np.mean([one.low < 0.2 < one.high for one in intervals]) <= 0.98


@pytest.mark.parametrize("luck", [0.0, 3.0])
def test_every_part_equals_the_formula_by_hand(luck: float) -> None:
    """Two folds of three cases with two images each, two seeds, one query without a score; plain loops."""
    rng = np.random.default_rng(3)
    given = rng.standard_normal((2, 12))
    given[1, :6] += luck  # of one training, so that V_seed is above its floor
    given[:, 5] = np.nan
    cases, folds = np.repeat(np.arange(6), 2), np.repeat([0, 1], 6)
    found = t_test(given, cases, folds, ["one", "two"])

    members = [[0, 1, 2, 3, 4], [6, 7, 8, 9, 10, 11]]
    by_training = [[sum(given[seed, i] for i in part) / len(part) for seed in (0, 1)] for part in members]
    of_fold = [sum(values) / 2 for values in by_training]
    shares = [5 / 11, 6 / 11]
    mean = sum(share * value for share, value in zip(shares, of_fold, strict=True))
    training = sum(
        share**2 * (values[0] - values[1]) ** 2 / 2 / 2
        for share, values in zip(shares, by_training, strict=True)
    )
    of_cases = both = 0.0
    for case in range(6):
        fold = case // 3
        images = [i for i in members[fold] if cases[i] == case]
        of_cases += sum((given[0, i] + given[1, i]) / 2 - of_fold[fold] for i in images) ** 2 / 11**2
        for seed in (0, 1):
            own = sum(
                given[seed, i] - (given[0, i] + given[1, i]) / 2 - by_training[fold][seed] + of_fold[fold]
                for i in images
            )
            both += own**2 / 11**2 / (2 * 1)
    of_cases, both = 6 / 4 * of_cases, 6 / 4 * both
    assert of_cases > both and (training > both) == (luck > 0)
    of_cases, training = of_cases - both, max(training, both)
    trainings = sum(one**2 for one in shares) ** 2 / sum(one**4 for one in shares)
    degrees = (of_cases + training) ** 2 / (training**2 / trainings + of_cases**2 / 4)
    error = np.sqrt(of_cases + training)

    assert found.noise is not None
    assert found.noise.by_training == {
        "one": pytest.approx(by_training[0], abs=1e-12), "two": pytest.approx(by_training[1], abs=1e-12)
    }  # fmt: skip
    assert found.noise.se_training == pytest.approx(np.sqrt(training), abs=1e-12)
    assert found.noise.se_cases == pytest.approx(np.sqrt(of_cases), abs=1e-12)
    assert found.noise.degrees == pytest.approx(degrees, abs=1e-9)
    reach = stats.t.ppf(0.975, degrees) * error
    assert (found.interval.mean, found.interval.low, found.interval.high) == pytest.approx(
        (mean, mean - reach, mean + reach), abs=1e-12
    )
    assert found.p == pytest.approx(2 * stats.t.sf(abs(mean) / error, degrees), abs=1e-12)
    assert (found.interval.queries, found.interval.cases) == (11, 6)
    signs = [np.sign(value) == np.sign(mean) for values in by_training for value in values]
    assert found.noise.agreeing(mean) == (sum(signs), 4)


def test_folds_of_equal_size_give_the_pooled_variance_and_its_degrees_of_freedom() -> None:
    """Without case noise: V_train = s² Σ w_f²/S with F(S − 1) degrees of freedom."""
    by_training = np.random.default_rng(4).standard_normal((SEEDS, FOLDS))
    found = t_test(by_training[:, FOLD], CASE, FOLD, NAMES)
    assert found.noise is not None and found.noise.se_cases == pytest.approx(0, abs=1e-12)
    pooled = np.mean([np.var(by_training[:, fold], ddof=1) for fold in range(FOLDS)])
    assert found.noise.se_training == pytest.approx(np.sqrt(pooled / FOLDS / SEEDS))
    assert found.noise.degrees == pytest.approx(FOLDS * (SEEDS - 1))


def test_the_mean_of_classes_is_the_pooled_one_and_its_error_the_linearised_ratios() -> None:
    rng = np.random.default_rng(5)
    classes = rng.choice(3, len(CASE), p=(0.7, 0.2, 0.1))
    given = rng.standard_normal(len(CASE)) + classes
    same = np.stack([given, given])
    found = t_test(same, CASE, np.zeros_like(FOLD), NAMES, classes)
    means = np.array([given[classes == code].mean() for code in range(3)])
    assert found.interval.mean == pytest.approx(means.mean())
    sizes = np.bincount(classes)
    parts = np.bincount(CASE, (given - means[classes]) / sizes[classes] / 3)
    cases = FOLDS * CASES
    assert found.noise is not None and found.noise.se_training == pytest.approx(0, abs=1e-12)
    assert found.noise.se_cases == pytest.approx(np.sqrt(cases / (cases - 1) * (parts**2).sum()))
    assert found.noise.degrees == pytest.approx(cases - 1)


def test_what_cannot_be_estimated_is_not_a_number() -> None:
    nothing = t_test(np.full((2, 4), np.nan), np.arange(4), np.zeros(4, dtype=np.int64), NAMES)
    assert np.isnan([nothing.p, nothing.interval.mean]).all() and nothing.noise is None
    single = t_test(np.array([[1.0, 2.0], [2.0, 2.0]]), np.array([0, 1]), np.array([0, 1]), NAMES)
    assert single.interval.mean == pytest.approx(1.75) and np.isnan([single.p, single.interval.low]).all()
    equal = t_test(np.zeros((2, 4)), np.arange(4), np.array([0, 0, 1, 1]), NAMES)
    assert equal.p == 1 and equal.interval.low == equal.interval.high == 0
    with pytest.raises(DataError, match="train at least two"):
        t_test(np.zeros((1, 4)), np.arange(4), np.array([0, 0, 1, 1]), NAMES)


def test_differences_without_any_spread_are_no_certainty() -> None:
    alike = t_test(np.ones((3, 4)), np.arange(4), np.zeros(4, dtype=np.int64), ["all"])
    assert alike.interval.mean == 1.0 and math.isnan(alike.p)
    none = t_test(np.zeros((3, 4)), np.arange(4), np.zeros(4, dtype=np.int64), ["all"])
    assert none.p == 1.0
