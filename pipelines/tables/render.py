"""The tables as Markdown: means and differences in per cent (of differences: points), each with its 95 % interval."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines.audit.report import Table
from pipelines.tables.design import Contrast, Design, Hypothesis, TableDesign
from pipelines.tables.logs import Softness
from pipelines.tables.results import Difference, Results
from training.statistics.intervals import Interval
from training.statistics.paired_tests import p_text

LEVEL = 0.05
"""Below it a p value counts as a difference."""
NOTHING = "–"
GIVEN = "given these models; training noise unknown (one seed)"
UNMARKED = "One training of each row and fold: what another seed would give is unknown, so nothing is marked."
ELSEWHERE = (
    "With their intervals and descriptive differences they are in `tables.md`, and everything at full precision in "
    "`report.json`, which the command on top writes into its output folder."
)
SOFTNESS = (
    "Targets, as training logged them (means over steps, directions and runs): *own mass* is the probability of an "
    "image's own caption, *entropy* H in nats, *effective positives* exp(H), the own caption included. –: the loss "
    "(mse, sigmoid) compares single similarities, which are no distributions (its log shows clamp(S, 0, 1) over the "
    "row sum instead), or there is no log."
)


@dataclass(frozen=True)
class RowText:
    """What is said of a row besides its scores."""

    title: str
    paper: Mapping[str, float]
    """Measure to the paper's figure in per cent; empty where it has none."""
    command: str
    """Makes the row again."""
    seconds: float | None
    """Median wall time of its training runs; ``None`` where nobody noted it."""
    runs: int
    softness: Softness | None
    """Of its targets; ``None`` where they are no distributions."""


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


def as_markdown(page: Page, results: Results, design: Design, *, whole: bool = True) -> str:
    """The report; without ``whole``, what was asked before: the tested measures and those of the overviews."""
    lines = [f"# {page.title}", "", *(f"- **{name}:** {text}" for name, text in page.header.items())]
    if results.tested:
        lines += ["", "## In short", "", *(f"- {line}" for line in verdicts(page, results, design))]
    for title, table in page.tables:
        lines += ["", f"## {title}", "", *_overview(page, results, design, table)]
        for measure in design.measures:
            lines += ["", f"### {measure}{_role(design, measure)}", ""]
            lines += _measure_table(page, results, table, measure).markdown()
    lines += _controls(page, results, design)
    if whole:
        for section, measures in results.sections.items():
            lines += ["", f"## Every measure: {section}", "", *_everything(page, results, design, measures)]
    lines += ["", "## Runs", "", *_runs(page)]
    if not whole:
        lines += ["", "## All other measures", "", ELSEWHERE]
    return "\n".join(lines) + "\n"


def verdicts(page: Page, results: Results, design: Design) -> Iterator[str]:
    """What the tests say, in the same words whatever it is; nothing where nothing was tested."""
    primary = design.primary
    found = results.differences[primary.contrast][primary.measure]
    yield f"**{_sentence(page, primary, found.interval)}**, {_primary(found)}"
    for measure in design.measures[1:]:
        yield _corrected(page, results, Hypothesis(primary.contrast, measure))
    for name, subset in results.subsets.items():
        for measure, one in subset.differences.items():
            yield (
                f"On {name} ({subset.images:,} images of {subset.cases:,} cases): "
                f"{_sentence(page, Hypothesis(primary.contrast, measure), one.interval)}, "
                f"{_plain(one, results)}, uncorrected and outside the family."
            )
    for contrast in design.against_controls:
        yield _corrected(page, results, Hypothesis(contrast, primary.measure))


def _primary(found: Difference) -> str:
    if found.p is None:
        return f"{_p_said(found.p_models)} {GIVEN}: the one test named beforehand."
    below = "below" if _below(found.p) else "not below"
    said = f"{_p_said(found.p)}: the one test named beforehand, {below} {LEVEL:g}."
    if found.noise and found.interval.mean:
        some, pairs = found.noise.agreeing(found.interval.mean)
        said += f" In {some} of {pairs} pairs of trainings the difference has the sign of the mean."
    return said


def _corrected(page: Page, results: Results, hypothesis: Hypothesis) -> str:
    found = results.differences[hypothesis.contrast][hypothesis.measure]
    said = f"{_sentence(page, hypothesis, found.interval)}, {_plain(found, results)}"
    if not results.repeated:
        return f"{said}; after Holm's correction {p_text(found.p_models_holm)}."
    survives = "survives" if _below(found.p_holm) else "does not survive"
    return f"{said}; {survives} Holm's correction ({p_text(found.p_holm)})."


def _plain(found: Difference, results: Results) -> str:
    return _p_said(found.p) if results.repeated else f"{_p_said(found.p_models)} {GIVEN}"


def _sentence(page: Page, hypothesis: Hypothesis, difference: Interval) -> str:
    contrast, mean = hypothesis.contrast, difference.mean
    first, second = page.rows[contrast.row].title, page.rows[contrast.baseline].title
    if math.isnan(mean):
        return f"{hypothesis.measure}, {first} and {second}: no query in common"
    direction = "different" if abs(mean) < 0.0005 else "higher" if mean > 0 else "lower"
    return (
        f"{hypothesis.measure}, {first} against {second}: {direction} by {100 * abs(mean):.1f} points"
        + _bounds(difference, signed=True)
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
    said = f"Per cent. {_marks(baseline) if results.repeated else UNMARKED}"
    if any("the paper's" in line[0] for line in lines):
        said += f" *The paper's*: {page.paper}."
    return [said, "", *Table(["row", *measures], lines).markdown()]


def _marks(baseline: str) -> str:
    return (
        f"▲ ▼: higher or lower than the baseline ({baseline}) by one of the tests named beforehand, p < {LEVEL:g} "
        "after Holm's correction (the primary one: its own p). Unmarked measures differ from it by nothing that a test "
        "has shown, or were not to be tested."
    )


def _measure_table(page: Page, results: Results, table: TableDesign, measure: str) -> Table:
    head = ["row", "mean [95 %]", "± seeds", "paper", "− baseline [95 %]", "folds, min to max"]
    head += _p_heads(results)
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
            *(_difference_cells(found, results) if found else [NOTHING] * 4),
        ])  # fmt: skip
    return Table(head, lines)


def _difference_cells(found: Difference, results: Results) -> list[str]:
    folds = [value for value in found.folds.values() if not math.isnan(value)]
    span = f"{100 * min(folds):+.1f} to {100 * max(folds):+.1f}" if len(folds) > 1 else NOTHING
    return [_interval(found.interval, signed=True), span, *_p_cells(found, results)]


def _p_heads(results: Results) -> list[str]:
    return ["p", "p Holm"] if results.repeated else ["p given these models", "Holm given these models"]


def _p_cells(found: Difference, results: Results) -> list[str]:
    known = (found.p, found.p_holm) if results.repeated else (found.p_models, found.p_models_holm)
    return [p_text(value) for value in known]


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
            cells += [_interval(found.interval, signed=True), *_p_cells(found, results)]
        lines.append(cells)
    if not lines:
        return []
    head = [f"{page.rows[design.primary.contrast.row].title} −"]
    for measure in design.measures:
        head += [measure, *_p_heads(results)]
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


def _runs(page: Page) -> list[str]:
    head = ["row", "runs", "seconds per run (median)", "own mass", "entropy", "effective positives"]
    lines = []
    for text in page.rows.values():
        soft = text.softness
        lines.append([
            text.title,
            str(text.runs),
            NOTHING if text.seconds is None else f"{text.seconds:.0f}",
            *([NOTHING] * 3 if soft is None else
              [f"{soft.diagonal:.2f}", f"{soft.entropy:.2f}", f"{soft.positives:.1f}"]),
            f"`{text.command}`",
        ])  # fmt: skip
    return [SOFTNESS, "", *Table([*head, "makes it again"], lines).markdown()]


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


def _p_said(value: float | None) -> str:
    text = p_text(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _percent(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{100 * value:.1f}"


def _interval(interval: Interval, *, signed: bool = False) -> str:
    if math.isnan(interval.mean):
        return NOTHING
    return f"{100 * interval.mean:{'+' if signed else ''}.1f}" + _bounds(interval, signed=signed)


def _bounds(interval: Interval, *, signed: bool) -> str:
    """Nothing where they cannot be estimated: too few cases for a t interval."""
    if math.isnan(interval.low):
        return ""
    sign = "+" if signed else ""
    return f" [{100 * interval.low:{sign}.1f}, {100 * interval.high:{sign}.1f}]"
