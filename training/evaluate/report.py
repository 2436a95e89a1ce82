"""The comparison of runs: computed once, shown as text, kept as JSON and Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import ConfigError
from training.evaluate.bootstrap import Comparison, Interval, case_interval, compare, holm
from training.evaluate.features import RetrievalSet
from training.evaluate.metrics import (
    cui_overlap_at,
    cui_overlap_by_chance,
    label_codes,
    precision_at,
    precision_by_chance,
)
from training.evaluate.retrieval import rank_images

CUI_DEPTHS = (5, 10, 50)
LABEL_DEPTHS = (5, 10, 30)
PRIMARY = "CUI@50"

Measures = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Run:
    """One evaluated run."""

    name: str
    seed: int
    features: NDArray[np.float32]
    """Unit features of the retrieval set's images, ``[N, D]``."""


def label_sets(available: Sequence[str], wanted: Sequence[str] | None) -> list[tuple[str, ...]]:
    """Label combinations to measure: those asked for (``modality+region``), else each label and the paper's pair.

    Without a request the conjunction is modality+region where both exist, otherwise all labels together.

    Raises:
        ConfigError: a label asked for is not in the store.
    """
    if wanted:
        for name in "+".join(wanted).split("+"):
            if name not in available:
                raise ConfigError(
                    f'--labels: the store has no label "{name}"; it has {", ".join(available) or "none at all"}'
                )
        return [tuple(name.split("+")) for name in wanted]
    pair = tuple(name for name in ("modality", "region") if name in available)
    conjunction = pair if len(pair) == 2 else tuple(available)
    return [(name,) for name in available] + ([conjunction] if len(conjunction) > 1 else [])


def measure_run(
    features: NDArray[np.float32], data: RetrievalSet, labels: Sequence[tuple[str, ...]]
) -> Measures:
    """Every measure of one run, per query, float64 ``[N]`` with NaN for queries without a score."""
    order = rank_images(features, data.cases, max(CUI_DEPTHS))
    cuis = data.store.cui_matrix()[data.rows]
    measures = {f"CUI@{k}": v for k, v in cui_overlap_at(order, cuis, data.cases, CUI_DEPTHS).items()}
    for names in labels:
        codes = label_codes(*(data.label(name) for name in names))
        ranked = rank_images(features, data.cases, max(LABEL_DEPTHS), codes >= 0)
        for k, scores in precision_at(ranked, codes, LABEL_DEPTHS).items():
            measures[f"{'+'.join(names)} P@{k}"] = scores
    return measures


def measure_chance(data: RetrievalSet, labels: Sequence[tuple[str, ...]]) -> Measures:
    """What a gallery in random order is expected to score (exact expectation, no draw)."""
    cuis = data.store.cui_matrix()[data.rows]
    measures = {f"CUI@{k}": v for k, v in cui_overlap_by_chance(cuis, data.cases, CUI_DEPTHS).items()}
    for names in labels:
        codes = label_codes(*(data.label(name) for name in names))
        for k in LABEL_DEPTHS:
            measures[f"{'+'.join(names)} P@{k}"] = precision_by_chance(codes, data.cases)
    return measures


@dataclass(frozen=True)
class Report:
    """Intervals of every run and measure, and every run against the first."""

    header: dict[str, Any]
    intervals: dict[str, dict[str, Interval]]
    """Run name (and ``chance``) to measure to interval."""
    comparisons: dict[str, dict[str, Comparison]]
    """Run name to measure to its difference from the first run."""
    holm: dict[str, dict[str, float]]
    """Holm-corrected p values over all comparisons, the primary endpoint excepted."""


def make_report(
    header: dict[str, Any],
    data: RetrievalSet,
    scores: Mapping[str, Measures],
    chance: Measures,
    draws: int,
    seed: int,
) -> Report:
    """Bootstrap every measure and compare every run with the first.

    Args:
        header: what is printed above the table (data, split, protocol).
        data: queries and their cases.
        scores: per-query measures of each run, the baseline first.
        chance: per-query expectation under random order.
        draws: bootstrap samples.
        seed: of bootstrap and sign flips.
    """
    everyone = {"chance": chance, **scores}
    intervals = {
        run: {name: case_interval(values, data.cases, draws, seed) for name, values in measures.items()}
        for run, measures in everyone.items()
    }
    baseline, *others = scores
    comparisons = {
        run: {
            name: compare(values, scores[baseline][name], data.cases, draws, seed=seed)
            for name, values in scores[run].items()
        }
        for run in others
    }
    secondary = [(run, name) for run in others for name in scores[run] if name != PRIMARY]
    corrected = holm([comparisons[run][name].p_value for run, name in secondary])
    table: dict[str, dict[str, float]] = {run: {} for run in others}
    for (run, name), value in zip(secondary, corrected, strict=True):
        table[run][name] = value
    return Report(header, intervals, comparisons, table)


def as_json(report: Report) -> dict[str, Any]:
    """The whole report as plain JSON values."""
    return {
        **report.header,
        "runs": {
            run: {
                "measures": {name: asdict(interval) for name, interval in measures.items()},
                "against_first": {
                    name: {
                        **asdict(result.difference),
                        "p": result.p_value,
                        "p_holm": report.holm[run].get(name),
                    }
                    for name, result in report.comparisons.get(run, {}).items()
                },
            }
            for run, measures in report.intervals.items()
        },
    }


def as_rows(report: Report) -> list[list[str]]:
    """The table: measure, chance, each run with its interval, each difference from the first run."""
    baseline = next(run for run in report.intervals if run != "chance")
    head = ["measure (%)", "chance", *(run for run in report.intervals if run != "chance")]
    for run in report.comparisons:
        head += [f"{run} − {baseline}", "p", "p Holm"]
    rows = [head, ["-" * len(cell) for cell in head]]
    for name in report.intervals["chance"]:
        cells = [
            name + (" *" if name == PRIMARY else ""),
            f"{100 * report.intervals['chance'][name].mean:.1f}",
        ]
        cells += [_interval_text(report.intervals[run][name]) for run in report.intervals if run != "chance"]
        for run, results in report.comparisons.items():
            result = results[name]
            corrected = report.holm[run].get(name)
            cells += [_interval_text(result.difference, signed=True), f"{result.p_value:.4f}"]
            cells.append("–" if corrected is None else f"{corrected:.4f}")
        rows.append(cells)
    return rows


def as_text(report: Report) -> str:
    """Header and aligned table for a terminal."""
    rows = as_rows(report)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows[1] = ["-" * width for width in widths]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([*_header_lines(report), "", *table]) + "\n"


def as_markdown(report: Report) -> str:
    """Header and table as Markdown."""
    head, _, *rows = as_rows(report)
    table = [head, ["---"] * len(head), *rows]
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return (
        "\n".join(["# Image retrieval", "", *(f"- {line}" for line in _header_lines(report)), "", *lines])
        + "\n"
    )


def _header_lines(report: Report) -> list[str]:
    return [
        *(f"{name}: {value}" for name, value in report.header.items()),
        f"* primary endpoint; Holm corrects the other {len(report.intervals['chance']) - 1} measures of each run",
    ]


def _interval_text(interval: Interval, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    mean, low, high = (f"{100 * value:{sign}.1f}" for value in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"
