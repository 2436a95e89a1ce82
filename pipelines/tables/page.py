"""What a report says besides numbers of score sheets: data and protocol, times, versions, and commands."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

from kg_targets.manifest import Manifest
from pipelines.tables.commands import command
from pipelines.tables.design import Design, TableDesign
from pipelines.tables.grid import Grid, Official
from pipelines.tables.logs import Timing, softness, timing
from pipelines.tables.paper import SOURCE, paper_row
from pipelines.tables.render import Page, RowText
from pipelines.tables.results import Results
from pipelines.tables.statistics import Sheets

FEW = 2
"""Degrees of freedom of training noise up to which a difference can look surer than it is."""


def fingerprint(grid: Grid) -> str:
    """sha256 of what the grid says and of its base configuration; where the data lie plays no part."""
    content = asdict(replace(grid, path=Path(), data_root=Path(), base=Path()))
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode())
    digest.update(grid.base.read_bytes())
    return digest.hexdigest()


def page_of(grid: Grid, out: Path, design: Design, results: Results, sheets: Sheets) -> Page:
    """Header, titles, times and commands of a report.

    Raises:
        ConfigError: the grid names a row of the paper that does not exist, or its file is gone.
    """
    facts = [
        sheet.facts for by_seed in sheets.values() for folds in by_seed.values() for sheet in folds.values()
    ]
    runs = {row: [run_folder(out, *run) for run in runs_of(grid, [row])] for row in sheets}
    times = {row: [timing(run) for run in folders] for row, folders in runs.items()}
    header = {
        "Data": f"{Manifest.load(grid.dataset).name}, {results.images:,} images of {results.cases:,} cases; "
        + _folds(grid, results),
        "Protocol": _protocol(grid, [float(one["gallery"]) for one in facts]),
        "Training seeds": _seeds(results),
        **_floor(grid, design, results),
        "Intervals": _intervals(design, results),
        "Tests": _tests(design, results),
        "Time": _time([one for row in times.values() for one in row]),
        "Versions": "; ".join(
            f"{name} {', '.join(sorted({str(one[name]) for one in facts}))}"
            for name in ("torch", "open_clip")
        ),
        "Grid": f"{grid.name}, {fingerprint(grid)[:16]}",
        "Command": f"`{command(grid, out, _threads([one for row in times.values() for one in row]))}`",
    }
    rows = {
        row: RowText(
            grid.rows[row].title,
            paper_row(row, grid.rows[row].paper),
            f"{command(grid, out, _threads(times[row]))} --only {row}",
            _median([one.seconds for one in times[row] if one]),
            len(times[row]),
            softness(runs[row]),
        )
        for row in sheets
    }
    named = [(table.title, TableDesign(table.rows, table.baseline)) for table in grid.tables]
    tables = [(title, table) for title, table in named if any(row in sheets for row in table.rows)]
    return Page(grid.title, header, tables, rows, SOURCE)


def runs_of(grid: Grid, rows: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    """Row, training seed and fold of every run of some rows."""
    yield from ((row, seed, fold) for row in rows for seed in grid.seeds for fold in grid.folds)


def run_folder(out: Path, row: str, seed: int, fold: str) -> Path:
    """Of one training run."""
    return out / "runs" / row / f"{fold}-s{seed}"


def _seeds(results: Results) -> str:
    if not results.repeated:
        return f"{results.seeds[0]}; one model of each row and fold, so training noise is in nothing below"
    return (
        f"{', '.join(map(str, results.seeds))}; a query's score is averaged over them, ± is the standard deviation of "
        "the seeds' means"
    )


def _floor(grid: Grid, design: Design, results: Results) -> dict[str, str]:
    """How far trainings of one row lie apart; nothing with one seed, or where the primary rows are not shown."""
    primary = design.primary
    gaps = {
        row: results.rows[row].seed_gap(primary.measure)
        for row in (primary.contrast.row, primary.contrast.baseline)
        if row in results.rows
    }
    said = [
        f"{100 * gap:.1f} points ({grid.rows[row].title})" for row, gap in gaps.items() if gap is not None
    ]
    if not said:
        return {}
    return {
        "A against A": f"two seeds of one row, over all folds, differ in {primary.measure} by up to "
        f"{' and '.join(said)}: that much is training noise alone"
    }


def _intervals(design: Design, results: Results) -> str:
    bootstrap = f"percentile bootstrap over cases, {design.draws:,} draws"
    sure = "how sure the mean of these trained models is over cases, not what other seeds or folds would give"
    if not results.repeated:
        return f"95 %, {bootstrap}: {sure}"
    return (
        f"95 %; of means {bootstrap}: {sure}; of differences D ± t·SE, where SE holds other cases and other seeds, but "
        "not other folds"
    )


def _protocol(grid: Grid, galleries: Sequence[float]) -> str:
    config = grid.evaluation
    directions = ", ".join(one.replace("-", " to ") for one in config.directions)
    without = "(other cases) " if config.group_exclusion == "case" else ""
    return (
        f"{directions}; image features {' and '.join(config.features)} the projection; every held-out image queries "
        f"the others {without}of its test part ({_span(galleries)} images on average); formulas in "
        "docs/evaluation.md; chance is the expectation of a random order"
    )


def _folds(grid: Grid, results: Results) -> str:
    sizes = _span(list(results.folds.values()))
    if isinstance(grid.split, Official):
        return f"trained on {grid.split.train}, scored on {grid.split.test} (official splits)"
    always = (
        f"; cases of {' and '.join(grid.split.train_only)} always trained on" if grid.split.train_only else ""
    )
    return (
        f"{len(results.folds)} folds of whole cases of {' and '.join(grid.split.test)} (seed {grid.split.seed}, "
        f"{sizes} images held out), each case held out once{always}"
    )


def _tests(design: Design, results: Results) -> str:
    if not results.tested:
        return (
            "none: only some of the grid's rows are here, and a smaller family would be corrected too little"
        )
    rivals = "every other" if design.against is None else ", ".join(design.against)
    against = f", and the primary row against {rivals}" if rivals else ""
    flips = f"paired sign-flip test over cases, {results.flips:,} flips"
    test = f"{flips}, given these models: blind to training noise, so that another seed of the same row can pass it"
    if results.repeated:
        test = f"t test of D/SE{_warning(results)} (report.json has p given these models beside it: {flips})"
    return (
        f"{test}; one primary hypothesis without correction, Holm's "
        f"correction over {len(design.family)} others (each row against its table's baseline{against}, "
        f"in {', '.join(design.measures)}); all other measures are descriptive"
    )


def _warning(results: Results) -> str:
    degrees = len(results.folds) * (len(results.seeds) - 1)
    if degrees > FEW:
        return ""
    return (
        f", to be read with care: {degrees} degree(s) of freedom of training noise are few, train more seeds"
    )


def _median(seconds: Sequence[float]) -> float | None:
    return median(seconds) if seconds else None


def _threads(times: Sequence[Timing | None]) -> int | None:
    """What all runs had; ``None`` where they differ or nobody knows."""
    found = {one.threads for one in times if one}
    return found.pop() if len(found) == 1 else None


def _time(times: Sequence[Timing | None]) -> str:
    known = [one for one in times if one]
    if not known:
        return f"of {len(times)} training runs: not known"
    lacking = f" (not known of {len(times) - len(known)} others)" if len(known) < len(times) else ""
    return (
        f"{sum(one.seconds for one in known) / 3600:.1f} hours of {len(known)} training runs{lacking}, at most "
        f"{_span([one.jobs for one in known])} at a time, CPU threads of each: {_span([one.threads for one in known])}"
    )


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):,.0f}", f"{max(values):,.0f}"
    return low if low == high else f"{low} to {high}"
