"""Where a run gains and where it loses, query by query: descriptive, no test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.retrieval.features import RetrievalSet
from training.statistics.intervals import Interval, case_interval

FloatArray = NDArray[np.float64]
MIN_CASES = 5
"""A group of fewer cases has no interval: resampling so few would tell nothing."""
EQUAL = 1e-9
"""Means over seeds of equal scores differ by rounding; that is no change."""


@dataclass(frozen=True)
class Group:
    """The queries of one value of a label (or of one combination of two)."""

    labels: tuple[str, ...]
    """Label columns."""
    values: tuple[str, ...]
    """Of each column."""
    change: Interval
    """Mean difference; NaN bounds where there are fewer than ``MIN_CASES`` cases."""


def shown_labels(available: Sequence[str]) -> tuple[str, ...]:
    """The two label columns by which changes are told: modality and region (or organ) where they exist."""
    familiar = [name for name in ("modality", "region", "organ") if name in available]
    return tuple((familiar + [name for name in available if name not in familiar])[:2])


def changes_by_label(data: RetrievalSet, difference: FloatArray, draws: int, seed: int) -> list[Group]:
    """Mean difference of all queries, by each shown label, and by both together.

    Args:
        data: queries, cases and labels.
        difference: of each query, NaN without a score, ``[N]``.
        draws: bootstrap samples over cases.
        seed: of the samples.
    """
    labels = shown_labels(data.store.labels)
    chosen = [(), *((name,) for name in labels), *([labels] if len(labels) > 1 else [])]
    groups = []
    for names in chosen:
        columns = [data.label(name) for name in names]
        combined = list(zip(*columns, strict=True)) if columns else [()] * len(data.rows)
        for values in sorted({value for value in combined if all(value)}):
            inside = np.array([value == values for value in combined])
            groups.append(
                Group(names, values, _interval(np.where(inside, difference, np.nan), data, draws, seed))
            )
    return [group for group in groups if group.change.queries]


def largest(difference: FloatArray, cases: NDArray[np.int64], count: int) -> tuple[list[int], list[int]]:
    """Queries of the largest gains and of the largest losses, at most one of each case in either list.

    Args:
        difference: of each query, NaN without a score, ``[N]``.
        cases: of each query, ``[N]``.
        count: most queries in a list.

    Returns:
        Rows, the largest first, ties by row; only queries that do gain (lose).
    """
    return _first(difference, cases, count), _first(-difference, cases, count)


def _first(gain: FloatArray, cases: NDArray[np.int64], count: int) -> list[int]:
    rows = np.flatnonzero(gain > EQUAL)
    rows = rows[np.argsort(-gain[rows], kind="stable")]
    _, first = np.unique(cases[rows], return_index=True)
    return [int(row) for row in rows[np.sort(first)][:count]]


def _interval(values: FloatArray, data: RetrievalSet, draws: int, seed: int) -> Interval:
    found = case_interval(values, data.cases, draws, seed)
    if found.cases >= MIN_CASES:
        return found
    return Interval(found.mean, float("nan"), float("nan"), found.queries, found.cases)
