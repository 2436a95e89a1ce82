"""Per-query scores of several stores → means, intervals and paired differences with the first store."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.audit.targets.settings import EvaluationSettings
from training.statistics.bootstrap import Comparison, Interval, case_interval, compare, holm

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Measured:
    """One measure of one thing, for every store."""

    subject: str
    """What is measured: a label, a kind of concept."""
    metric: str
    baseline: float
    """What ignorance reaches: chance or frequency; NaN where there is no such level."""
    intervals: tuple[Interval, ...]
    """One per store."""
    against_first: tuple[Comparison | None, ...]
    """Paired differences, store minus first store; ``None`` for the first."""

    def as_json(self) -> dict[str, Any]:
        """The measure as plain values."""
        return {
            "subject": self.subject,
            "metric": self.metric,
            "baseline": self.baseline,
            "stores": [asdict(interval) for interval in self.intervals],
            "minus_first": [None if item is None else asdict(item) for item in self.against_first],
        }


def measure(
    subject: str,
    metric: str,
    scores: Sequence[FloatArray],
    baseline: FloatArray | None,
    cases: IntArray,
    settings: EvaluationSettings,
) -> Measured:
    """Mean with a 95 % interval from a bootstrap over cases, and a paired sign-flip test against the first store.

    Args:
        scores: per store, one value per query, float64 [Q]; NaN queries take no part.
        baseline: expected score of ignorance per query, float64 [Q], or ``None``.
        cases: case of each query, int64 [Q].
    """
    draws, seed = settings.bootstrap, settings.seed
    return Measured(
        subject,
        metric,
        math.nan if baseline is None or not np.isfinite(baseline).any() else float(np.nanmean(baseline)),
        tuple(case_interval(score, cases, draws, seed) for score in scores),
        (None, *(compare(score, scores[0], cases, draws, settings.flips, seed) for score in scores[1:])),
    )


def significant(measured: Sequence[Measured], level: float = 0.05) -> list[list[bool]]:
    """Which comparisons stay below ``level`` after Holm's correction over all of a section's, [measure][store]."""
    p_values = [math.nan if item is None else item.p_value for row in measured for item in row.against_first]
    flags = [p < level for p in holm(p_values)]
    width = len(measured[0].against_first) if measured else 0
    return [flags[start : start + width] for start in range(0, len(flags), width)] if width else []


def cells(measured: Sequence[Measured], scale: float = 100.0, digits: int = 1) -> list[list[str]]:
    """One list of cells per measure: subject, metric, baseline, then one cell per store.

    A cell reads ``mean [low, high]``; stores after the first add ``p``, with ``*`` where Holm's correction keeps it.
    """
    rows = []
    for row, flags in zip(measured, significant(measured), strict=True):
        line = [row.subject, row.metric, _number(row.baseline * scale, digits)]
        for interval, comparison, flag in zip(row.intervals, row.against_first, flags, strict=True):
            mean, low, high = (
                _number(value * scale, digits) for value in (interval.mean, interval.low, interval.high)
            )
            test = "" if comparison is None else f" p {_p_value(comparison.p_value)}{'*' if flag else ' '}"
            line.append(f"{mean} [{low}, {high}]{test}")
        rows.append(line)
    return rows


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _p_value(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"
