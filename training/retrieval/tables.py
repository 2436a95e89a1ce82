"""A report as text for a terminal, as Markdown and as JSON; all numbers but p values in per cent, except in JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from training.retrieval.report import Report
from training.retrieval.runs import CHANCE
from training.statistics.intervals import Interval


def as_json(report: Report) -> dict[str, Any]:
    """The whole report as plain JSON values, shares of 1."""
    return {
        **report.header,
        "primary": report.primary,
        "sections": report.sections,
        "runs": {
            run: {
                **({"keys": list(report.keys[run])} if run != CHANCE else {}),
                "measures": {
                    name: {**asdict(interval), **_seeds(report, run, name)}
                    for name, interval in measures.items()
                },
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


def as_text(report: Report) -> str:
    """Header and aligned table for a terminal."""
    head = _head(report)
    body = {section: [_cells(report, name) for name in names] for section, names in report.sections.items()}
    rows = [head, *(row for rows in body.values() for row in rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]

    def line(cells: list[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    lines = [*_header_lines(report), "", line(head), line(["-" * width for width in widths])]
    for section, cells in body.items():
        lines += [f"[{section}]", *map(line, cells)]
    return "\n".join(lines) + "\n"


def as_markdown(report: Report) -> str:
    """Header and one table per section as Markdown."""
    lines = ["# Retrieval", "", *(f"- {_escaped(line)}" for line in _header_lines(report))]
    for section, names in report.sections.items():
        rows = [_head(report), ["---"] * len(_head(report)), *(_cells(report, name) for name in names)]
        lines += ["", f"## {section[0].upper()}{section[1:]}", ""]
        lines += ["| " + " | ".join(map(_escaped, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _escaped(cell: str) -> str:
    """A bar would end a table's cell; a star at the front would begin a list."""
    text = cell.replace("|", "\\|")
    return "\\" + text if text.startswith("* ") else text


def _head(report: Report) -> list[str]:
    head = ["measure (%)", "queries", CHANCE, *report.runs]
    for run in report.comparisons:
        head += [f"{run} − {report.runs[0]}", "p", "p Holm"]
    return head


def _cells(report: Report, name: str) -> list[str]:
    by_chance = report.intervals[CHANCE][name]
    queries = report.intervals[report.runs[0]][name].queries
    cells = [name + (" *" if name == report.primary else ""), f"{queries:,}", f"{100 * by_chance.mean:.1f}"]
    for run in report.runs:
        deviation = report.seed_deviation(run, name)
        spread = "" if deviation is None else f" ±{100 * deviation:.1f}"
        cells.append(_interval_text(report.intervals[run][name]) + spread)
    for run, results in report.comparisons.items():
        result = results[name]
        corrected = report.holm[run].get(name)
        cells += [_interval_text(result.difference, signed=True), f"{result.p_value:.4f}"]
        cells.append("–" if corrected is None else f"{corrected:.4f}")
    return cells


def _seeds(report: Report, run: str, name: str) -> dict[str, Any]:
    """Each seed's mean and their spread, for a run of several seeds."""
    if run == CHANCE or len(report.seed_means[run][name]) < 2:
        return {}
    return {"seed_means": report.seed_means[run][name], "seed_sd": report.seed_deviation(run, name)}


def _header_lines(report: Report) -> Iterator[str]:
    yield from (f"{name}: {value}" for name, value in report.header.items())
    if report.comparisons:
        runs = "" if len(report.comparisons) == 1 else f" of {len(report.comparisons)} runs together"
        yield f"* primary endpoint; Holm corrects all {report.corrected} other comparisons{runs}"
    else:
        yield "* primary endpoint"


def _interval_text(interval: Interval, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    mean, low, high = (f"{100 * value:{sign}.1f}" for value in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"
