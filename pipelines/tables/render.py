"""The tables as Markdown: means and differences in per cent (of differences: points), each with its 95 % interval."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines.evaluate_targets.report import Table
from pipelines.tables.design import Contrast, Design, Hypothesis, TableDesign
from pipelines.tables.results import Difference, Results
from training.evaluate.bootstrap import Interval

LEVEL = 0.05
"""Below it a p value counts as a difference."""
NOTHING = "–"


@dataclass(frozen=True)
class RowText:
    """What is said of a row besides its scores."""

    title: str
    paper: Mapping[str, float]
    """Measure to the paper's figure in per cent; empty where it has none."""
    command: str
    """Makes the row again."""
    seconds: float
    """Median wall time of its training runs."""
    runs: int


@dataclass(frozen=True)
class Page:
    """Words of the report."""

    title: str
    header: Mapping[str, str]
    """What the numbers rest on, one line each."""
    tables: Sequence[tuple[str, TableDesign]]
    rows: Mapping[str, RowText]
    paper: str
    """Where the paper's figures are from."""


def as_markdown(page: Page, results: Results, design: Design) -> str:
    """The whole report."""
    lines = [f"# {page.title}", "", *(f"- **{name}:** {text}" for name, text in page.header.items())]
    if results.tested:
        lines += ["", "## In short", "", *(f"- {line}" for line in verdicts(page, results, design))]
    for title, table in page.tables:
        lines += ["", f"## {title}", "", *_overview(page, results, design, table)]
        for measure in design.measures:
            lines += ["", f"### {measure}{_role(design, measure)}", ""]
            lines += _measure_table(page, results, table, measure).markdown()
    lines += _controls(page, results, design)
    for section, measures in results.sections.items():
        lines += ["", f"## Every measure: {section}", "", *_everything(page, results, design, measures)]
    lines += ["", "## Runs", "", *_runs(page).markdown()]
    return "\n".join(lines) + "\n"


def verdicts(page: Page, results: Results, design: Design) -> Iterator[str]:
    """What the tests say, in the same words whatever it is; nothing where nothing was tested."""
    primary = design.primary
    found = results.differences[primary.contrast][primary.measure]
    yield (
        f"**{_sentence(page, primary, found.interval)}**, p = {_p(found.p)}: the one test named beforehand, "
        f"{'below' if _below(found.p) else 'not below'} {LEVEL:g}."
    )
    for measure in design.measures[1:]:
        yield _corrected(page, results, Hypothesis(primary.contrast, measure))
    for name, subset in results.subsets.items():
        for measure, compared in subset.differences.items():
            yield (
                f"On {name} ({subset.images:,} images of {subset.cases:,} cases): "
                f"{_sentence(page, Hypothesis(primary.contrast, measure), compared.difference)}, "
                f"p = {_p(compared.p_value)}, uncorrected and outside the family."
            )
    for contrast in design.against_controls:
        yield _corrected(page, results, Hypothesis(contrast, primary.measure))


def _corrected(page: Page, results: Results, hypothesis: Hypothesis) -> str:
    found = results.differences[hypothesis.contrast][hypothesis.measure]
    survives = "survives" if _below(found.p_holm) else "does not survive"
    return (
        f"{_sentence(page, hypothesis, found.interval)}, p = {_p(found.p)}; {survives} Holm's correction "
        f"({_p(found.p_holm)})."
    )


def _sentence(page: Page, hypothesis: Hypothesis, difference: Interval) -> str:
    contrast, mean = hypothesis.contrast, difference.mean
    first, second = page.rows[contrast.row].title, page.rows[contrast.baseline].title
    if math.isnan(mean):
        return f"{hypothesis.measure}, {first} and {second}: no query in common"
    low, high = f"{100 * difference.low:+.1f}", f"{100 * difference.high:+.1f}"
    direction = "higher" if mean > 0 else "lower" if mean < 0 else "different"
    return (
        f"{hypothesis.measure}, {first} against {second}: {direction} by {100 * abs(mean):.1f} points "
        f"[{low}, {high}]"
    )


def _overview(page: Page, results: Results, design: Design, table: TableDesign) -> list[str]:
    """Means in the paper's layout: a line for each row, and the paper's below it."""
    measures = next(names for names in results.sections.values() if design.primary.measure in names)
    chance = [_percent(results.chance.intervals[measure].mean) for measure in measures]
    lines: list[list[str]] = [["chance", *chance]]
    for row in _shown(results, table):
        cells = [
            _percent(results.rows[row].intervals[measure].mean) + _mark(results, table, row, measure)
            for measure in measures
        ]
        lines.append([page.rows[row].title, *cells])
        paper = page.rows[row].paper
        if any(measure in paper for measure in measures):
            figures = [f"*{paper[measure]:.1f}*" if measure in paper else "" for measure in measures]
            lines.append(["*the paper's*", *figures])
    baseline = page.rows[table.baseline].title if table.baseline in page.rows else table.baseline
    said = (
        f"Per cent. ▲ ▼: higher or lower than the baseline ({baseline}) by one of the tests named beforehand, p < "
        f"{LEVEL:g} after Holm's correction (the primary one: its own p). Unmarked measures differ from it by nothing "
        "that a test has shown, or were not to be tested."
    )
    if any("the paper's" in line[0] for line in lines):
        said += f" *The paper's*: {page.paper}."
    return [said, "", *Table(["row", *measures], lines).markdown()]


def _measure_table(page: Page, results: Results, table: TableDesign, measure: str) -> Table:
    head = ["row", "mean [95 %]", "± seeds", "paper", "− baseline [95 %]", "folds, min to max", "p", "p Holm"]
    lines = [["chance", _interval(results.chance.intervals[measure]), *[NOTHING] * (len(head) - 2)]]
    for row in _shown(results, table):
        text, result = page.rows[row], results.rows[row]
        deviation = result.seed_sd(measure)
        found = _against(results, row, table.baseline, measure)
        lines.append([
            text.title + (" (baseline)" if row == table.baseline else ""),
            _interval(result.intervals[measure]),
            NOTHING if deviation is None else f"{100 * deviation:.1f}",
            f"{text.paper[measure]:.1f}" if measure in text.paper else NOTHING,
            *(_difference_cells(found) if found else [NOTHING] * 4),
        ])  # fmt: skip
    return Table(head, lines)


def _difference_cells(found: Difference) -> list[str]:
    folds = [value for value in found.folds.values() if not math.isnan(value)]
    span = f"{100 * min(folds):+.1f} to {100 * max(folds):+.1f}" if len(folds) > 1 else NOTHING
    return [_interval(found.interval, signed=True), span, _p(found.p), _p(found.p_holm)]


def _controls(page: Page, results: Results, design: Design) -> list[str]:
    """The primary row against every other one; nothing where it is not shown."""
    if not design.against_controls:
        return []
    contrasts = (design.primary.contrast, *design.against_controls)
    lines = []
    for contrast in (one for one in contrasts if one in results.differences):
        cells = [page.rows[contrast.baseline].title]
        for measure in design.measures:
            found = results.differences[contrast][measure]
            cells += [_interval(found.interval, signed=True), _p(found.p), _p(found.p_holm)]
        lines.append(cells)
    if not lines:
        return []
    head = [f"{page.rows[design.primary.contrast.row].title} −"]
    for measure in design.measures:
        head += [measure, "p", "p Holm"]
    said = "The primary row against the others: differences in points, 95 % intervals."
    return ["", "## Knowledge against controls", "", said, "", *Table(head, lines).markdown()]


def _everything(page: Page, results: Results, design: Design, measures: Sequence[str]) -> list[str]:
    rows = [row for row in design.rows if row in results.rows]
    means = Table(
        ["measure", "queries", "chance", *(page.rows[row].title for row in rows)],
        [
            [
                measure,
                f"{results.chance.intervals[measure].queries:,}",
                _percent(results.chance.intervals[measure].mean),
                *(_interval(results.rows[row].intervals[measure]) for row in rows),
            ]
            for measure in measures
        ],
    ).markdown()
    shown = [one for one in design.against_baseline if one in results.differences]
    if not shown:
        return means
    differences = Table(
        ["measure", *(f"{page.rows[one.row].title} − {page.rows[one.baseline].title}" for one in shown)],
        [
            [measure, *(_interval(results.differences[one][measure].interval, signed=True) for one in shown)]
            for measure in measures
        ],
    ).markdown()
    untested = (
        "Differences in points; descriptive: intervals without a correction, and no p value but those above."
    )
    return [*means, "", untested, "", *differences]


def _runs(page: Page) -> Table:
    return Table(
        ["row", "runs", "seconds per run (median)", "makes it again"],
        [
            [text.title, str(text.runs), f"{text.seconds:.0f}", f"`{text.command}`"]
            for text in page.rows.values()
        ],
    )


def _shown(results: Results, table: TableDesign) -> list[str]:
    return [row for row in table.rows if row in results.rows]


def _against(results: Results, row: str, baseline: str, measure: str) -> Difference | None:
    return results.differences.get(Contrast(row, baseline), {}).get(measure)


def _mark(results: Results, table: TableDesign, row: str, measure: str) -> str:
    found = _against(results, row, table.baseline, measure)
    if found is None or not _below(found.decisive_p):
        return ""
    return " ▲" if found.interval.mean > 0 else " ▼"


def _role(design: Design, measure: str) -> str:
    return " (primary)" if measure == design.primary.measure else ""


def _below(p: float | None) -> bool:
    return p is not None and p < LEVEL


def _p(value: float | None) -> str:
    return NOTHING if value is None or math.isnan(value) else f"{value:.4f}"


def _percent(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{100 * value:.1f}"


def _interval(interval: Interval, *, signed: bool = False) -> str:
    if math.isnan(interval.mean):
        return NOTHING
    sign = "+" if signed else ""
    mean, low, high = (f"{100 * value:{sign}.1f}" for value in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"
