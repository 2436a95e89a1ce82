"""How sure a mean over queries is when images of one case are not independent: everything resamples cases."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    scores: NDArray[np.float64], cases: NDArray[np.int64], draws: int = 2000, seed: int = 0
) -> Interval:
    """Bootstrap over cases: cases are drawn with replacement, each brings all its queries.

    Args:
        scores: one per query, float64 ``[N]``; NaN queries take no part.
        cases: case of each query, int64 ``[N]``.
        draws: bootstrap samples.
        seed: of the draws.

    Returns:
        The mean over queries and its interval; NaN where there is no query.
    """
    sums, counts = _per_case(scores, cases)
    if not len(sums):
        return Interval(float("nan"), float("nan"), float("nan"), 0, 0)
    weights = np.random.default_rng(seed).multinomial(
        len(sums), np.full(len(sums), 1 / len(sums)), size=draws
    )
    means = (weights @ sums) / (weights @ counts)  # a ratio: a sample with big cases has more queries
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high), int(counts.sum()), len(sums))


def compare(
    scores: NDArray[np.float64],
    baseline: NDArray[np.float64],
    cases: NDArray[np.int64],
    draws: int = 2000,
    flips: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Paired comparison of two runs, case by case.

    The null hypothesis is that a case's summed difference is as likely to have the other sign. p is the share of
    random sign assignments whose total is at least as large in absolute value, counting the observed one.
    """
    difference = scores - baseline
    interval = case_interval(difference, cases, draws, seed)
    sums, _ = _per_case(difference, cases)
    if not len(sums):
        return Comparison(interval, float("nan"))
    rng = np.random.default_rng(seed + 1)
    observed = abs(sums.sum()) - 1e-12  # rounding must not make the observed total beat itself
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


def _per_case(
    scores: NDArray[np.float64], cases: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the scored queries of each case that has any."""
    scored = ~np.isnan(scores)
    _, index = np.unique(cases[scored], return_inverse=True)
    sums, counts = np.bincount(index, weights=scores[scored]), np.bincount(index)
    return sums.astype(np.float64), counts.astype(np.float64)
