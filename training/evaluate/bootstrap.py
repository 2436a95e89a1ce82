"""How sure a mean over queries is when images of one case are not independent: everything resamples cases."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_DRAWS_AT_A_TIME = 250
"""Bootstrap samples multiplied at once: bounds the memory of many cases."""


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
    weights = _weights(len(sums), draws, seed)
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


def compare(
    scores: FloatArray,
    baseline: FloatArray,
    cases: IntArray,
    draws: int = 2000,
    flips: int = 10_000,
    seed: int = 0,
    strata: IntArray | None = None,
) -> Comparison:
    """Paired comparison of two runs, case by case.

    The null hypothesis is that a case's summed difference is as likely to have the other sign. p is the share of
    random sign assignments whose total is at least as large in absolute value, counting the observed one. With
    ``strata`` a query weighs the inverse of its class's size, so that the total is the difference of the class means.
    """
    difference = scores - baseline
    interval = case_interval(difference, cases, draws, seed, strata)
    by_class, counts = _per_case(difference, cases, strata)
    if not len(by_class):
        return Comparison(interval, float("nan"))
    sums = by_class[:, 0] if strata is None else by_class @ (1 / np.maximum(counts.sum(axis=0), 1))
    rng = np.random.default_rng(seed + 1)
    observed = (
        abs(sums.sum()) - 1e-12 * np.abs(sums).sum()
    )  # rounding must not make the observed total beat itself
    extreme = 0
    for start in range(0, flips, 1000):
        signs = rng.integers(0, 2, size=(min(1000, flips - start), len(sums)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ sums) >= observed).sum())
    return Comparison(interval, (1 + extreme) / (1 + flips))


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
def _weights(cases: int, draws: int, seed: int) -> NDArray[np.uint16]:
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
