"""Intervals of means over queries where images of one case are not independent: everything resamples cases."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from training.errors import DataError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_DRAWS_AT_A_TIME = 250
"""Bootstrap samples multiplied at once: bounds the memory of many cases."""
MIN_CASES = 10
"""With fewer, in all or in a class of a mean of classes, no interval is given."""
FEW_CASES = 200
"""Below it percentile intervals hold the truth more rarely than t intervals, and t is used instead."""


@dataclass(frozen=True)
class Interval:
    """A mean over queries with its 95 % interval; bounds are NaN where they are not estimable."""

    mean: float
    low: float
    high: float
    queries: int
    cases: int


def case_interval(
    scores: FloatArray, cases: IntArray, draws: int = 2000, seed: int = 0, strata: IntArray | None = None
) -> Interval:
    """Percentile bootstrap over cases: cases are drawn with replacement, each brings all its queries.

    With fewer than ``FEW_CASES`` t holds the truth more often (last table of docs/statistics.md): there the interval is
    mean ± t_ν·sqrt(Σ_c u_c²/(1 − H)), ν = 1/H − 1, in the terms of ``seed_variance.paired_test``. It is not estimable
    (NaN) with fewer than ``MIN_CASES`` cases, in all or in a class, and where all cases are alike: that is no proof.

    Args:
        scores: one per query, float64 ``[N]``; NaN queries take no part.
        cases: case of each query, int64 ``[N]``.
        draws: bootstrap samples.
        seed: of the draws.
        strata: class of each query, int64 ``[N]``: the mean is then the mean of the classes' means (balanced
            accuracy); a class that a sample misses is left out of that sample's mean.

    Returns:
        The mean over queries and its interval; NaN where there is no query.

    Raises:
        DataError: the shapes do not fit, or a score is infinite.
    """
    sums, counts = per_case(scores, cases, strata)
    if not len(sums):
        return Interval(float("nan"), float("nan"), float("nan"), 0, 0)
    mean, parts, shares = influences(sums, counts)
    reach = float(t_reach(parts, shares)) if is_estimable(counts) else math.nan
    if not reach > 1e-12 * abs(mean):
        reach = math.nan
    if len(sums) < FEW_CASES or math.isnan(reach):
        return Interval(float(mean), float(mean) - reach, float(mean) + reach, int(counts.sum()), len(sums))
    weights = case_weights(len(sums), draws, seed)
    means = np.concatenate(
        [
            _mean_of_classes(part @ sums, part @ counts)
            for start in range(0, draws, _DRAWS_AT_A_TIME)
            for part in [weights[start : start + _DRAWS_AT_A_TIME].astype(np.float64)]
        ]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(mean), float(low), float(high), int(counts.sum()), len(sums))


def t_reach(parts: FloatArray, shares: FloatArray) -> FloatArray:
    """Half the widths of t intervals, ``[…]``, from u_c ``[…, cases]`` and the cases' shares of the mean."""
    size = float((shares**2).sum())
    return np.asarray(stdtrit(1 / size - 1, 0.975) * np.sqrt((parts**2).sum(axis=-1) / (1 - size)))


def is_estimable(counts: FloatArray) -> bool:
    """Whether every class has queries of ``MIN_CASES`` cases, from ``[cases, classes]``."""
    return bool(((counts > 0).sum(axis=0) >= MIN_CASES).all())


def influences(sums: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Means of scored queries, and what each case adds to them.

    Args:
        sums: of each case's scores by class, ``[…, cases, classes]``, see ``per_case``.
        counts: number of its queries, ``[cases, classes]``.

    Returns:
        Means over the classes of their queries' means ``[…]``; u_c, what a case adds to it beyond its share,
        ``[…, cases]``, sum 0; shares of the cases, ``[cases]``, sum 1.
    """
    sizes = counts.sum(axis=0)
    shares = 1 / (len(sizes) * sizes)
    means = sums.sum(axis=-2, keepdims=True) / sizes
    parts = ((sums - counts * means) * shares).sum(axis=-1)
    return means.mean(axis=(-2, -1)), parts, (counts * shares).sum(axis=-1)


@lru_cache(maxsize=4)
def case_weights(cases: int, draws: int, seed: int) -> NDArray[np.uint16]:
    """Counts of each case in each bootstrap sample, ``[draws, cases]``; the measures of one report share them."""
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


def per_case(scores: FloatArray, cases: IntArray, strata: IntArray | None) -> tuple[FloatArray, FloatArray]:
    """Sum and number of the scored queries of each case that has any, by class, ``[cases, classes]``.

    Raises:
        DataError: the shapes do not fit, or a score is infinite.
    """
    shapes = [one.shape for one in (scores, cases, strata) if one is not None]
    if len(set(shapes)) > 1 or np.isinf(scores).any():
        raise DataError(f"scores must be finite or NaN, each with a case and a class: shapes {shapes}")
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


def seed_sd(means: Sequence[float]) -> float | None:
    """Standard deviation of the means of models that differ in the seed (S − 1 below); ``None`` for a single one."""
    return float(np.std(means, ddof=1)) if len(means) > 1 else None


def per_cent(interval: Interval, signed: bool = False) -> str:
    """``52.1 [48.0, 56.3]``; with a sign for differences; without an interval where there is none."""
    form = "+.1f" if signed else ".1f"
    if math.isnan(interval.low):
        return f"{100 * interval.mean:{form}} [–]"
    return f"{100 * interval.mean:{form}} [{100 * interval.low:{form}}, {100 * interval.high:{form}}]"


def nan_to_null(value: Any) -> Any:
    """The value as JSON can hold it, which has no NaN and no infinity: what cannot be told is null."""
    if isinstance(value, dict):
        return {key: nan_to_null(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_null(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
