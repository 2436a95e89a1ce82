"""How sure a mean over queries is when images of one case are not independent: everything resamples cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_DRAWS_AT_A_TIME = 250
"""Bootstrap samples multiplied at once: bounds the memory of many cases."""
_FLIPS_AT_A_TIME = 1000
MIN_FLIPS = 10_000
"""Random sign assignments of a test."""
FLIPS_PER_COMPARISON = 200
"""At least so many for each of the comparisons that are corrected together."""


@dataclass(frozen=True)
class Interval:
    """A mean over queries with a 95 % percentile interval from resampled cases."""

    mean: float
    low: float
    high: float
    queries: int
    cases: int


@dataclass(frozen=True)
class Comparison:
    """Mean difference of two runs on the same queries, its interval, and the sign-flip test's p value."""

    difference: Interval
    p_value: float


def case_interval(
    scores: FloatArray, cases: IntArray, draws: int = 2000, seed: int = 0, strata: IntArray | None = None
) -> Interval:
    """Bootstrap over cases: cases are drawn with replacement, each brings all its queries.

    Args:
        scores: one per query, float64 ``[N]``; NaN queries take no part.
        cases: case of each query, int64 ``[N]``.
        draws: bootstrap samples.
        seed: of the draws.
        strata: class of each query, int64 ``[N]``: the mean is then the mean of the classes' means (balanced
            accuracy); a class that a sample misses is left out of that sample's mean.

    Returns:
        The mean over queries and its interval; NaN where there is no query.
    """
    sums, counts = _per_case(scores, cases, strata)
    if not len(sums):
        return Interval(float("nan"), float("nan"), float("nan"), 0, 0)
    weights = case_weights(len(sums), draws, seed)
    means = np.concatenate(
        [
            _mean_of_classes(part @ sums, part @ counts)
            for start in range(0, draws, _DRAWS_AT_A_TIME)
            for part in [weights[start : start + _DRAWS_AT_A_TIME].astype(np.float64)]
        ]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    (mean,) = _mean_of_classes(sums.sum(axis=0)[None], counts.sum(axis=0)[None])
    return Interval(float(mean), float(low), float(high), int(counts.sum()), len(sums))


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


def compare(
    scores: FloatArray,
    baseline: FloatArray,
    cases: IntArray,
    draws: int = 2000,
    flips: int = MIN_FLIPS,
    seed: int = 0,
    strata: IntArray | None = None,
) -> Comparison:
    """Paired comparison of two runs, case by case: ``compare_all`` of one pair."""
    (comparison,) = compare_all([Pair(scores, baseline, strata)], cases, draws, flips, seed)
    return comparison


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
        One for each pair; NaN where it has no query.
    """
    intervals, sums = [], []
    for pair in pairs:
        difference = pair.scores - pair.baseline
        intervals.append(case_interval(difference, cases, draws, seed, pair.strata))
        by_class, counts = _per_case(difference, cases, pair.strata)
        weights = np.ones(by_class.shape[1]) if pair.strata is None else 1 / np.maximum(counts.sum(axis=0), 1)
        sums.append(by_class @ weights)
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


@lru_cache(maxsize=4)
def case_weights(cases: int, draws: int, seed: int) -> NDArray[np.uint16]:
    """How often each bootstrap sample holds each case, ``[draws, cases]``; the measures of one report share it."""
    rng = np.random.default_rng(seed)
    weights = np.empty((draws, cases), dtype=np.uint16)
    for start in range(0, draws, _DRAWS_AT_A_TIME):
        part = weights[start : start + _DRAWS_AT_A_TIME]
        # It fits: a count is at most the number of cases, and where those are more than 65,535 it is 1 on average.
        part[:] = rng.multinomial(cases, np.full(cases, 1 / cases), size=len(part))
    return weights


def _mean_of_classes(sums: FloatArray, counts: FloatArray) -> FloatArray:
    """Mean over the classes that have queries of each class's mean, ``[draws, classes]`` to ``[draws]``.

    A ratio, because a sample with big cases has more queries.
    """
    present = counts > 0
    means: FloatArray = np.divide(sums, counts, out=np.zeros_like(sums), where=present)
    mean: FloatArray = means.sum(axis=1) / present.sum(axis=1)
    return mean


def _per_case(scores: FloatArray, cases: IntArray, strata: IntArray | None) -> tuple[FloatArray, FloatArray]:
    """Sum and number of the scored queries of each case that has any, by class, ``[cases, classes]``."""
    scored = ~np.isnan(scores)
    found, index = np.unique(cases[scored], return_inverse=True)
    classes, column = np.unique(
        strata[scored] if strata is not None else np.zeros(scored.sum(), dtype=np.int64), return_inverse=True
    )
    place, shape = index * len(classes) + column, (len(found), len(classes))
    size = shape[0] * shape[1]
    sums = np.bincount(place, weights=scores[scored], minlength=size).reshape(shape)
    counts = np.bincount(place, minlength=size).reshape(shape)
    return sums.astype(np.float64), counts.astype(np.float64)
