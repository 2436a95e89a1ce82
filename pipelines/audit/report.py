"""Measures with their intervals and tests, and sections of a report: on a terminal, in Markdown and in JSON."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.audit.subjects import EvaluationSettings, in_half
from training.folders import json_text
from training.rendering import cells as markdown_line
from training.rendering import header
from training.statistics.intervals import FloatArray, IntArray, Interval, case_interval, nan_to_null
from training.statistics.paired_tests import Comparison, Pair, compare_all, holm


@dataclass(frozen=True)
class Measured:
    """One measure of one thing, for every store."""

    subject: str
    """A label, or a kind of concept."""
    metric: str
    baseline: float
    """Chance or frequency; NaN where there is no such baseline."""
    stores: tuple[Interval, ...]
    """One per store."""
    minus_first: tuple[Comparison | None, ...]
    """Paired differences, store minus first store; ``None`` for the first."""


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
        scores: per store, one value per query, float64 [Q]; NaN queries take no part, nor those outside the half.
        baseline: expected score of the baseline per query, float64 [Q], or ``None``.
        cases: case of each query, int64 [Q].
    """
    inside = in_half(cases, settings.half)
    scores = [np.where(inside, score, np.nan) for score in scores]
    baseline = None if baseline is None else np.where(inside, baseline, np.nan)
    draws, seed = settings.bootstrap, settings.seed
    pairs = [Pair(score, scores[0]) for score in scores[1:]]
    return Measured(
        subject,
        metric,
        math.nan if baseline is None or not np.isfinite(baseline).any() else float(np.nanmean(baseline)),
        tuple(case_interval(score, cases, draws, seed) for score in scores),
        (None, *compare_all(pairs, cases, draws, settings.flips, seed)),
    )


def significant(measured: Sequence[Measured], level: float = 0.05) -> list[list[bool]]:
    """Whether comparisons stay below ``level`` after Holm's correction over all of a section's, [measure][store]."""
    p_values = [math.nan if item is None else item.p_value for row in measured for item in row.minus_first]
    flags = iter([p < level for p in holm(p_values)])
    return [[next(flags) for _ in row.minus_first] for row in measured]


def cells(measured: Sequence[Measured], scale: float = 100.0, digits: int = 1) -> list[list[str]]:
    """One list of cells per measure: subject, metric, baseline, then one cell per store.

    The first store's cell reads ``mean [low, high]``; the others' are ``mean, difference [low, high] p``, with ``*``
    where Holm's correction keeps it.
    """
    rows = []
    for row, flags in zip(measured, significant(measured), strict=True):
        line = [row.subject, row.metric, _number(row.baseline * scale, digits)]
        for one, comparison, flag in zip(row.stores, row.minus_first, flags, strict=True):
            mean = _number(one.mean * scale, digits)
            if comparison is None:
                line.append(f"{mean} {_span(one, scale, digits)}")
                continue
            gain = comparison.difference
            test = f"p {_number(comparison.p_value, 4)}{'*' if flag else ' '}"
            line.append(
                f"{mean}, {_number(gain.mean * scale, digits, '+')} {_span(gain, scale, digits, '+')} {test}"
            )
        rows.append(line)
    return rows


def _number(value: float, digits: int, sign: str = "") -> str:
    return "–" if math.isnan(value) else f"{value:{sign}.{digits}f}"


def _span(interval: Interval, scale: float, digits: int, sign: str = "") -> str:
    low, high = (_number(value * scale, digits, sign) for value in (interval.low, interval.high))
    return f"[{low}, {high}]"


@dataclass(frozen=True)
class Table:
    """Cells as text; the first row of the printed table is ``header``."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    """Number of columns aligned to the left; the others are aligned to the right."""

    def text(self) -> list[str]:
        """Aligned lines for a terminal."""
        lines = [self.header, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        signs = ["<" if column < self.left else ">" for column in range(len(widths))]
        return [
            "  ".join(
                f"{cell:{sign}{width}}" for cell, sign, width in zip(line, signs, widths, strict=True)
            ).rstrip()
            for line in lines
        ]

    def markdown(self) -> list[str]:
        """A Markdown table."""
        return [header(self.header, self.left), *map(markdown_line, self.rows)]


@dataclass(frozen=True)
class Section:
    """One part of the report."""

    name: str
    """Key in the JSON file."""
    title: str
    lines: Sequence[str] = ()
    """Said before the table: what was counted, and what was left out and why."""
    table: Table | None = None
    private: Sequence[str] = ()
    """Lines with captions: for the terminal only."""
    data: dict[str, Any] = field(default_factory=dict)
    """Everything, for JSON."""

    def text(self, number: int) -> str:
        """The section for a terminal."""
        table = self.table.text() if self.table else []
        return "\n".join(
            [f"{number}. {self.title}", *(f"  {line}" for line in (*self.lines, *table, *self.private)), ""]
        )

    def markdown(self, number: int) -> str:
        """The section in Markdown, without captions."""
        table = ["", *self.table.markdown()] if self.table else []
        return "\n".join(
            [f"## {number}. {self.title}", "", *(f"- {line}" for line in self.lines), *table, ""]
        )


def to_json(content: dict[str, Any]) -> str:
    """Standard JSON: sorted keys, ``null`` where a number does not exist; same input, same bytes."""
    return json_text(nan_to_null(content))
