"""Comparisons of two configurations, and Holm's correction of several tests.

Where training runs of both share their seeds, ``training.statistics.paired_test`` holds for other seeds, too. Single
runs, and what is not trained, are compared by sign flips over cases: a statement about these runs only.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.statistics.intervals import (
    FloatArray,
    IntArray,
    Interval,
    case_interval,
    is_estimable,
    per_case,
)
from training.statistics.seed_variance import PairedTest, SeedVariance

_FLIPS_AT_A_TIME = 1000
MIN_FLIPS = 10_000
"""Random sign assignments of a test."""
FLIPS_PER_COMPARISON = 200
"""At least so many for each of the comparisons that are corrected together."""
_SMALLEST_P = 0.0001


@dataclass(frozen=True)
class Comparison:
    """Mean difference of two runs on the same queries, its interval, and the sign-flip test's p value."""

    difference: Interval
    p_value: float


@dataclass(frozen=True)
class Difference:
    """Difference of two trained configurations."""

    interval: Interval
    """95 %; with ``seeds`` it contains the seed variance (NaN: not estimable), else it is that of these runs only."""
    p_value: float
    """Two-sided, of no difference: t test with ``seeds``, else paired sign flips; NaN where it is not estimable."""
    seeds: tuple[Any, ...] = ()
    """Seeds of the pairs of runs that were compared; none where interval and p are those of these runs only."""
    noise: SeedVariance | None = None
    """Evidence of the t test; ``None`` without one, and where it is not estimable: two seeds, or under ten cases."""

    @classmethod
    def of(cls, test: PairedTest | Comparison, seeds: Iterable[Any] = ()) -> "Difference":
        """The result of ``paired_test`` on training runs of these seeds, or of a comparison of these runs only."""
        if isinstance(test, Comparison):
            return cls(test.difference, test.p_value)
        return cls(test.interval, test.p, tuple(seeds), test.error)


@dataclass(frozen=True)
class Pair:
    """Scores of one measure by two runs on the same queries, float64 ``[N]`` each; NaN queries take no part."""

    scores: FloatArray
    baseline: FloatArray
    strata: IntArray | None = None
    """Class of each query, as in ``case_interval``."""


def flips_for(comparisons: int) -> int:
    """Random sign assignments for tests of which so many are corrected together.

    No p value is below 1 over (flips + 1): with fixed flips, none of many tests could pass Holm's first step. 200 for
    each of them let the smallest corrected p reach 0.005.
    """
    return max(MIN_FLIPS, FLIPS_PER_COMPARISON * comparisons)


def shared_seeds(ours: Sequence[Any], theirs: Sequence[Any]) -> dict[Any, tuple[int, int]]:
    """Training seeds that both have, each with its places in the two; an unknown seed (``None``) has no partner."""
    return {
        seed: (place, theirs.index(seed))
        for place, seed in enumerate(ours)
        if seed is not None and seed in theirs
    }


def compare_all(
    pairs: Sequence[Pair], cases: IntArray, draws: int = 2000, flips: int = MIN_FLIPS, seed: int = 0
) -> list[Comparison]:
    """Paired comparisons of runs, case by case.

    The null hypothesis is that a case's summed difference is as likely to have the other sign. p is the share of
    random sign assignments whose total is at least as large in absolute value, counting the observed one. With
    ``strata`` a query weighs the inverse of its class's size, so that the total is the difference of the class means.

    Args:
        pairs: what is compared with what.
        cases: case of each query, int64 ``[N]``.
        draws: bootstrap samples of each interval.
        flips: random sign assignments; pairs with as many scored cases share them.
        seed: of the draws and the flips.

    Returns:
        One for each pair; NaN where it has no query, and p also with fewer than ten cases (of a class).
    """
    intervals, sums = [], []
    for pair in pairs:
        difference = pair.scores - pair.baseline
        intervals.append(case_interval(difference, cases, draws, seed, pair.strata))
        by_class, counts = per_case(difference, cases, pair.strata)
        weights = np.ones(by_class.shape[1]) if pair.strata is None else 1 / np.maximum(counts.sum(axis=0), 1)
        sums.append(by_class @ weights if is_estimable(counts) else weights[:0])
    p_values = [float("nan")] * len(pairs)
    for size in {len(one) for one in sums if len(one)}:
        places = [place for place, one in enumerate(sums) if len(one) == size]
        found = _sign_flips(np.stack([sums[place] for place in places], axis=1), flips, seed + 1)
        for place, p_value in zip(places, found, strict=True):
            p_values[place] = float(p_value)
    return [Comparison(interval, p) for interval, p in zip(intervals, p_values, strict=True)]


def _sign_flips(sums: FloatArray, flips: int, seed: int) -> FloatArray:
    """p value of each column of summed differences, ``[cases, measures]`` to ``[measures]``."""
    rng = np.random.default_rng(seed)
    # Rounding must not make the observed total beat itself.
    observed = np.abs(sums.sum(axis=0)) - 1e-12 * np.abs(sums).sum(axis=0)
    extreme = np.zeros(sums.shape[1], dtype=np.int64)
    for start in range(0, flips, _FLIPS_AT_A_TIME):
        size = (min(_FLIPS_AT_A_TIME, flips - start), len(sums))
        signs = rng.integers(0, 2, size=size, dtype=np.int8) * 2 - 1
        extreme += (np.abs(signs @ sums) >= observed).sum(axis=0)
    p_values: FloatArray = (1 + extreme) / (1 + flips)
    return p_values


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down correction; NaN stays NaN and does not count."""
    adjusted = [float("nan")] * len(p_values)
    tested = sorted((p, index) for index, p in enumerate(p_values) if p == p)
    running = 0.0
    for rank, (p, index) in enumerate(tested):
        running = max(running, min(1.0, p * (len(tested) - rank)))
        adjusted[index] = running
    return adjusted


def p_text(p_value: float | None) -> str:
    """Four decimals, ``< 0.0001`` below them, and a dash where nothing was to be tested."""
    if p_value is None:
        return "–"
    if math.isnan(p_value):
        return "not estimable"
    return f"{p_value:.4f}" if p_value >= _SMALLEST_P else f"< {_SMALLEST_P}"
