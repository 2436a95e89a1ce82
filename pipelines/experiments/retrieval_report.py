"""A retrieval grid's report: score sheets to ``report.json`` (everything, shares of 1) and ``tables.md``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

import yaml

from kg_targets.losses.registry import LOSSES
from kg_targets.manifest import Manifest
from kg_targets.manifest.record import Record
from pipelines.audit.report import to_json
from pipelines.experiments.grid import paper
from pipelines.experiments.job import timing
from pipelines.experiments.results import Contrast, Design, Difference, Hypothesis, Results
from pipelines.experiments.retrieval_grid import CHANCE, Official, RetrievalGrid
from pipelines.experiments.statistics import Sheets, analyse
from training.engine.checkpoint import CONFIG, LOG
from training.errors import ConfigError, DataError
from training.folders import write_text
from training.rendering import render
from training.retrieval.score_sheets import ScoreSheet, Value, case_names, read_sheet

RESULT, TABLES = "report.json", "tables.md"
PART_RESULT, PART_TABLES = "part.json", "part.md"
"""File names for some rows only, without tests."""
LEVEL = 0.05
"""Below it a p value counts as a difference."""
NAMED = 3
"""Missing files that a message names."""
_SAME = ("dataset", "split", "store", "features", "exclusion")
"""Metadata in which the sheets of one fold agree."""


def run_name(row: str, fold: str, seed: int) -> str:
    """Name of a training run: its folder below ``runs``, its score sheet below ``scores``."""
    return f"{row}/{fold}-s{seed}"


def write_report(
    grid: RetrievalGrid, out: Path, docs: Path | None = None, only: Sequence[str] | None = None
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
    primary = Hypothesis(Contrast(grid.primary.row, grid.primary.baseline), grid.primary.measure)
    draws, seed = grid.evaluation.draws, grid.evaluation.seed
    design = Design(grid.tables, primary, grid.secondary, grid.against, draws, seed)
    unknown = [row for row in only or () if row not in design.rows]
    if unknown:
        raise ConfigError(f'--only: row "{unknown[0]}" is in no table: tables hold {", ".join(design.rows)}')
    rows = [row for row in design.rows if only is None or row in only]
    chance, sheets = _read(grid, out / "scores", rows)
    results = analyse(sheets, chance, design, None if only else _subsets(grid))
    content: dict[str, Any] = {
        "page": _page(grid, out, design, results, sheets),
        "results": results,
        "design": design,
    }
    content["verdicts"] = _paragraphs("retrieval_verdicts", **content) if results.tested else []
    result, tables = (RESULT, TABLES) if results.tested else (PART_RESULT, PART_TABLES)
    files = {out / result: to_json(_as_json(**content)), out / tables: _markdown(whole=True, **content)}
    if docs is not None and results.tested:
        files[docs] = _markdown(whole=False, **content)
    for path, text in files.items():
        write_text(path, text)
    return list(files)


def _read(
    grid: RetrievalGrid, scores: Path, rows: Sequence[str]
) -> tuple[dict[str, ScoreSheet], dict[str, dict[int, dict[str, ScoreSheet]]]]:
    """The sheets of the random order by fold, and those of rows by seed and fold."""
    paths = {fold: scores / CHANCE / f"{fold}.parquet" for fold in grid.folds}
    by_run = {
        run: scores / f"{run_name(run[0], run[2], run[1])}.parquet"
        for run in product(rows, grid.seeds, grid.folds)
    }
    needed = [*paths.values(), *by_run.values()]
    missing = [path.relative_to(scores.parent).as_posix() for path in needed if not path.is_file()]
    if missing:
        more = ", …" if len(missing) > NAMED else ""
        raise DataError(
            f"{len(missing)} of {len(needed)} score sheets are not in {scores.parent} "
            f"({', '.join(missing[:NAMED])}{more}): run the grid without --stage report, which makes them"
        )
    chance = {fold: read_sheet(path) for fold, path in paths.items()}
    sheets: dict[str, dict[int, dict[str, ScoreSheet]]] = {}
    for (row, seed, fold), path in by_run.items():
        sheet = read_sheet(path)
        expected: dict[str, Value | None] = {name: chance[fold].metadata.get(name) for name in _SAME}
        for name, value in {**expected, "training seed": grid.training_seed(seed, fold)}.items():
            if sheet.metadata.get(name) != value:
                raise DataError(
                    f"{path}: its {name} is {sheet.metadata.get(name)}, not {value}: delete it and run the grid again"
                )
        sheets.setdefault(row, {}).setdefault(seed, {})[fold] = sheet
    return chance, sheets


def _subsets(grid: RetrievalGrid) -> dict[str, frozenset[str]]:
    """Cases of the official splits that the grid names."""
    if not grid.subsets:
        return {}
    manifest = Manifest.load(grid.dataset)
    return {
        name: frozenset(case for record in manifest.records(split, grid.data_root) for case in _cases(record))
        for name, split in grid.subsets.items()
    }


def _cases(record: Record) -> list[str]:
    """Names of an image's case in a sheet; an image without a case has two names, folds give it the image's."""
    named = case_names([record.image_id], [record.group_id])
    return named if record.group_id else [*named, record.image_id]


def _page(grid: RetrievalGrid, out: Path, design: Design, results: Results, sheets: Sheets) -> dict[str, Any]:
    """Everything in a report but its scores: header, tables, and of each row title, paper's figures, time and targets.

    A row's ``seconds`` are the median wall time of its training runs, ``None`` where none was timed; ``command`` makes
    it again.
    """
    metadata = [
        sheet.metadata
        for by_seed in sheets.values()
        for folds in by_seed.values()
        for sheet in folds.values()
    ]
    runs = {
        row: [out / "runs" / run_name(row, fold, seed) for seed, fold in product(grid.seeds, grid.folds)]
        for row in sheets
    }
    times = {row: [timed for timed in map(timing, folders) if timed] for row, folders in runs.items()}
    known = [timed for row in times.values() for timed in row]
    primary = design.primary
    gaps = {
        grid.rows[row].title: results.rows[row].seed_gap(primary.measure)
        for row in (primary.contrast.row, primary.contrast.baseline)
        if row in results.rows
    }
    lines = _paragraphs(
        "retrieval_header", grid=grid, design=design, results=results, official=isinstance(grid.split, Official),
        dataset=Manifest.load(grid.dataset).name, galleries=[float(one["gallery"]) for one in metadata],
        gaps={title: gap for title, gap in gaps.items() if gap is not None},
        times=known, unknown=sum(map(len, runs.values())) - len(known),
        versions={name: ", ".join(sorted({str(one[name]) for one in metadata})) for name in ("torch", "open_clip")},
        command=grid.command(out, _threads(known)),
    )  # fmt: skip
    rows = {
        row: {
            "title": grid.rows[row].title,
            "paper": grid.rows[row].figures,
            "command": grid.command(out, _threads(times[row]), row),
            "seconds": median(timed["seconds"] for timed in times[row]) if times[row] else None,
            "runs": len(runs[row]),
            "softness": softness(runs[row]),
        }
        for row in sheets
    }
    return {
        "title": grid.title,
        "header": dict(line.split(": ", 1) for line in lines),
        "tables": [table for table in grid.tables if any(row in sheets for row in table.rows)],
        "rows": rows,
        "paper": paper("retrieval").source,
    }


def _threads(times: Sequence[Mapping[str, Any]]) -> int | None:
    """CPU threads of all runs; ``None`` where they differ or nobody knows."""
    found = {timed["threads"] for timed in times}
    return found.pop() if len(found) == 1 else None


def softness(runs: Sequence[Path]) -> dict[str, float] | None:
    """Softness of a row's targets, from the logs of its runs (``kg_targets.losses.contrastive.measure``).

    Returns:
        Means over directions, logged steps and runs of the probability of an image's own caption (``diagonal``), the
        entropy H in nats, and exp(H), the effective number of captions that an image is drawn to (``positives``).
        ``None`` for a loss whose targets are similarities (mse, sigmoid): they are no distributions, and the log has
        clamp(S, 0, 1) over its row sum for them, which no loss sees. Also where a log is missing or damaged.
    """
    steps: list[dict[str, float]] = []
    try:
        for run in runs:
            loss = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))["loss"]["name"]
            if LOSSES[loss].targets == "similarity":
                return None
            lines = map(json.loads, (run / LOG).read_text(encoding="utf-8").splitlines())
            steps += [step for step in lines if "diagonal" in step]
        return {name: fmean(step[name] for step in steps) for name in ("diagonal", "entropy", "positives")}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None


def _markdown(
    page: Mapping[str, Any], results: Results, design: Design, verdicts: Sequence[str], *, whole: bool
) -> str:
    """The report; without ``whole``, the tested measures and those of the overviews only."""

    def found(row: str, baseline: str, measure: str) -> Difference | None:
        return results.differences.get(Contrast(row, baseline), {}).get(measure)

    def mark(row: str, baseline: str, measure: str) -> str:
        """Mark a measure that a test has shown to be higher or lower than the baseline."""
        one = found(row, baseline, measure)
        if one is None or one.decisive_p is None or not one.decisive_p < LEVEL:
            return ""
        return " ▲" if one.interval.mean > 0 else " ▼"

    return _rendered(
        "retrieval", page=page, results=results, design=design, verdicts=verdicts, whole=whole, found=found, mark=mark,
        overview=next(names for names in results.sections.values() if design.primary.measure in names),
    )  # fmt: skip


def _rendered(template: str, **content: Any) -> str:
    return render("pipelines.experiments", f"{template}.md.j2", level=LEVEL, **content)


def _paragraphs(template: str, **content: Any) -> list[str]:
    """Paragraphs of a template, each on one line."""
    found = (" ".join(one.split()) for one in _rendered(template, **content).split("\n\n"))
    return [one for one in found if one]


def _as_json(
    page: Mapping[str, Any], results: Results, design: Design, verdicts: Sequence[str]
) -> dict[str, Any]:
    """Everything at full precision: shares of 1, JSON's null for what does not exist."""
    family = design.family if results.tested else ()
    return {
        **page,
        "tables": [table.model_dump() for table in page["tables"]],
        "verdicts": verdicts,
        "primary": {**asdict(design.primary.contrast), "measure": design.primary.measure},
        "tested measures": design.measures,
        "family": [{**asdict(one.contrast), "measure": one.measure} for one in family],
        **{name: getattr(results, name) for name in ("flips", "sections", "images", "cases", "seeds")},
        "draws": design.draws,
        "fold images": results.folds,
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
