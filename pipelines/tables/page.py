"""What a report says besides numbers of score sheets: data and protocol, times, versions, and commands."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from kg_targets.manifest import Manifest
from pipelines.tables.design import Design, TableDesign
from pipelines.tables.grid import GRIDS, Grid, Official
from pipelines.tables.paper import SOURCE, paper_row
from pipelines.tables.plan import SECONDS
from pipelines.tables.render import Page, RowText
from pipelines.tables.results import Results
from pipelines.tables.statistics import Sheets
from training.errors import DataError


def command(grid: Grid) -> str:
    """What runs the grid, as a person would type it."""
    shipped = grid.path.absolute().parent == GRIDS
    return f"python -m pipelines.tables {grid.name if shipped else grid.path.name}"


def fingerprint(grid: Grid) -> str:
    """sha256 of what the grid says and of its base configuration; where the data lie plays no part."""
    content = asdict(replace(grid, path=Path(), data_root=Path(), base=Path()))
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode())
    digest.update(grid.base.read_bytes())
    return digest.hexdigest()


def page_of(grid: Grid, out: Path, design: Design, results: Results, sheets: Sheets) -> Page:
    """Header, titles, times and commands of a report.

    Raises:
        ConfigError: the grid names a row of the paper that does not exist.
        DataError: a run's seconds are damaged.
    """
    facts = [
        sheet.facts for by_seed in sheets.values() for folds in by_seed.values() for sheet in folds.values()
    ]
    times = {row: [_timing(out, *run) for run in runs_of(grid, [row])] for row in sheets}
    header = {
        "Data": f"{Manifest.load(grid.dataset).name}, {results.images:,} images of {results.cases:,} cases; "
        + _folds(grid, results),
        "Protocol": _protocol(grid, [float(one["gallery"]) for one in facts]),
        "Training seeds": _seeds(grid),
        "Intervals": f"95 %, percentile bootstrap over cases, {design.draws:,} draws: how sure the mean of these "
        "trained models is over cases, not what other seeds or folds would give",
        "Tests": _tests(design, results),
        "Time": _threads([one for row in times.values() for one in row]),
        "Versions": "; ".join(
            f"{name} {', '.join(sorted({str(one[name]) for one in facts}))}"
            for name in ("torch", "open_clip")
        ),
        "Grid": f"{grid.name}, {fingerprint(grid)[:16]}",
        "Command": f"`{command(grid)}`",
    }
    rows = {
        row: RowText(
            grid.rows[row].title,
            paper_row(row, grid.rows[row].paper),
            f"{command(grid)} --only {row}",
            median(one["seconds"] for one in times[row]),
            len(times[row]),
        )
        for row in sheets
    }
    named = [(table.title, TableDesign(table.rows, table.baseline)) for table in grid.tables]
    tables = [(title, table) for title, table in named if any(row in sheets for row in table.rows)]
    return Page(grid.title, header, tables, rows, SOURCE)


def runs_of(grid: Grid, rows: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    """Row, training seed and fold of every run of some rows."""
    yield from ((row, seed, fold) for row in rows for seed in grid.seeds for fold in grid.folds)


def _seeds(grid: Grid) -> str:
    if len(grid.seeds) == 1:
        return f"{grid.seeds[0]}; one model of each row and fold, so training noise is in nothing below"
    return (
        f"{', '.join(map(str, grid.seeds))}; a query's score is averaged over them, ± is the standard deviation of the "
        "seeds' means"
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
    return (
        f"paired sign-flip test over cases, {results.flips:,} flips; one primary hypothesis without correction, Holm's "
        f"correction over {len(design.family)} others (each row against its table's baseline{against}, "
        f"in {', '.join(design.measures)}); all other measures are descriptive"
    )


def _timing(out: Path, row: str, seed: int, fold: str) -> dict[str, Any]:
    path = out / "runs" / row / f"{fold}-s{seed}" / SECONDS
    try:
        timing = json.loads(path.read_text(encoding="utf-8"))
        return {name: float(timing[name]) for name in ("seconds", "jobs", "threads")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is missing or damaged: delete its folder and run the grid again") from error


def _threads(times: Sequence[dict[str, float]]) -> str:
    threads, jobs = ([int(one[name]) for one in times] for name in ("threads", "jobs"))
    hours = sum(one["seconds"] for one in times) / 3600
    return (
        f"{hours:.1f} hours of {len(times)} training runs, at most {_span(jobs)} at a time, CPU threads of each: "
        f"{_span(threads)}"
    )


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):,.0f}", f"{max(values):,.0f}"
    return low if low == high else f"{low} to {high}"
