"""The last stage: score sheets of a grid to ``report.json`` (everything, shares of 1) and ``tables.md``."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kg_targets.manifest import Manifest
from kg_targets.manifest.record import Record
from pipelines.audit.report import to_json
from pipelines.tables.design import Contrast, Design, Hypothesis, TableDesign
from pipelines.tables.grid import Grid
from pipelines.tables.page import page_of, runs_of
from pipelines.tables.render import Page, as_markdown, verdicts
from pipelines.tables.results import Results
from pipelines.tables.statistics import analyse
from training.errors import ConfigError, DataError
from training.folders import writing
from training.retrieval.runs import CHANCE
from training.retrieval.score_sheets import Fact, ScoreSheet, case_names, read_sheet

RESULT, TABLES = "report.json", "tables.md"
PART_RESULT, PART_TABLES = "part.json", "part.md"
"""The same of some rows only, without tests."""
NAMED = 3
"""Missing files that a message names."""
_SAME = ("dataset", "split", "store", "features", "exclusion")
"""Facts in which the sheets of one fold agree."""


def write_report(
    grid: Grid, out: Path, docs: Path | None = None, only: Sequence[str] | None = None
) -> list[Path]:
    """Analyse a finished grid and write its tables.

    Args:
        grid: what was run.
        out: its folder, with ``scores`` and ``runs``.
        docs: Markdown file that gets the tables too, without those of measures that are not tested.
        only: rows to show, in files of their own and without tests: a smaller family would be corrected too little.

    Returns:
        The files written.

    Raises:
        ConfigError: a row or measure that the grid names does not exist.
        DataError: sheets are missing, damaged or do not belong together.
        CheckpointError: a file cannot be written.
    """
    design = design_of(grid)
    rows = _rows(design, only)
    _check_present(grid, out, rows)
    chance = {fold: read_sheet(_chance_path(out, fold)) for fold in grid.folds}
    sheets = _read(grid, out, rows, chance)
    results = analyse(sheets, chance, design, None if only else _subsets(grid))
    page = page_of(grid, out, design, results, sheets)
    content = _as_json(page, results, design)
    part = not results.tested
    files = {
        out / (PART_RESULT if part else RESULT): to_json(content),
        out / (PART_TABLES if part else TABLES): as_markdown(page, results, design),
    }
    if docs is not None and not part:
        files[docs] = as_markdown(page, results, design, whole=False)
    for path, text in files.items():
        _write(path, text)
    return list(files)


def design_of(grid: Grid) -> Design:
    """What a grid compares and tests."""
    primary = grid.primary
    return Design(
        tuple(TableDesign(table.rows, table.baseline) for table in grid.tables),
        Hypothesis(Contrast(primary.row, primary.baseline), primary.measure),
        grid.secondary,
        grid.against,
        grid.evaluation.draws,
        grid.evaluation.seed,
    )


def _rows(design: Design, only: Sequence[str] | None) -> list[str]:
    unknown = [row for row in only or () if row not in design.rows]
    if unknown:
        raise ConfigError(f'--only: row "{unknown[0]}" is in no table: tables hold {", ".join(design.rows)}')
    return [row for row in design.rows if only is None or row in only]


def _check_present(grid: Grid, out: Path, rows: Sequence[str]) -> None:
    needed = [_chance_path(out, fold) for fold in grid.folds]
    needed += [_sheet_path(out, row, fold, seed) for row, seed, fold in runs_of(grid, rows)]
    missing = [path.relative_to(out).as_posix() for path in needed if not path.is_file()]
    if missing:
        more = ", …" if len(missing) > NAMED else ""
        raise DataError(
            f"{len(missing)} of {len(needed)} score sheets are not in {out} ({', '.join(missing[:NAMED])}{more}): "
            "run the grid without --stage report, which makes them"
        )


def _read(
    grid: Grid, out: Path, rows: Sequence[str], chance: Mapping[str, ScoreSheet]
) -> dict[str, dict[int, dict[str, ScoreSheet]]]:
    sheets: dict[str, dict[int, dict[str, ScoreSheet]]] = {}
    for row, seed, fold in runs_of(grid, rows):
        path = _sheet_path(out, row, fold, seed)
        sheet = read_sheet(path)
        expected: dict[str, Fact | None] = {name: chance[fold].facts.get(name) for name in _SAME}
        for name, value in {**expected, "training seed": seed}.items():
            if sheet.facts.get(name) != value:
                raise DataError(
                    f"{path}: its {name} is {sheet.facts.get(name)}, not {value}: delete it and run the grid again"
                )
        sheets.setdefault(row, {}).setdefault(seed, {})[fold] = sheet
    return sheets


def _chance_path(out: Path, fold: str) -> Path:
    return out / "scores" / CHANCE / f"{fold}.parquet"


def _sheet_path(out: Path, row: str, fold: str, seed: int) -> Path:
    return out / "scores" / row / f"{fold}-s{seed}.parquet"


def _subsets(grid: Grid) -> dict[str, frozenset[str]]:
    """Cases of the official splits that the grid names."""
    if not grid.subsets:
        return {}
    manifest = Manifest.load(grid.dataset)
    return {
        name: frozenset(case for record in manifest.records(split, grid.data_root) for case in _cases(record))
        for name, split in grid.subsets.items()
    }


def _cases(record: Record) -> list[str]:
    """What a sheet calls the case of an image; one without a case has two names, folds give it the image's."""
    named = case_names([record.image_id], [record.group_id])
    return named if record.group_id else [*named, record.image_id]


def _as_json(page: Page, results: Results, design: Design) -> dict[str, Any]:
    """Everything at full precision: shares of 1, JSON's null for what does not exist."""
    return {
        **asdict(page),
        "tables": [{"title": title, **asdict(table)} for title, table in page.tables],
        "verdicts": list(verdicts(page, results, design)) if results.tested else [],
        "primary": {**asdict(design.primary.contrast), "measure": design.primary.measure},
        "tested measures": design.measures,
        "family": [{**asdict(one.contrast), "measure": one.measure} for one in design.family]
        if results.tested
        else [],
        "flips": results.flips,
        "draws": design.draws,
        "sections": results.sections,
        "images": results.images,
        "cases": results.cases,
        "fold images": results.folds,
        "seeds": results.seeds,
        "chance": asdict(results.chance),
        "results": {
            row: {
                **asdict(one),
                "seed_sd": {name: one.seed_sd(name) for name in one.intervals},
                "seed_gap": {name: one.seed_gap(name) for name in one.intervals},
            }
            for row, one in results.rows.items()
        },
        "differences": [
            {**asdict(contrast), "measure": measure, **asdict(one)}
            for contrast, by_measure in results.differences.items()
            for measure, one in by_measure.items()
        ],
        "subsets": {name: asdict(one) for name, one in results.subsets.items()},
    }


def _write(path: Path, text: str) -> None:
    """A text file, by atomic rename."""
    partial = path.with_name(path.name + ".partial")
    with writing(path, "--out"):
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
