"""A Med-VQA grid's report: predictions to ``report.json`` (everything, shares of 1), ``report.md`` and its plot."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from kg_targets.manifest import Manifest
from pipelines.audit.report import to_json
from pipelines.experiments.grid import paper
from pipelines.experiments.job import Timing, Workspace, timing
from pipelines.experiments.med_vqa_grid import MedVQAGrid, Row
from pipelines.experiments.render import Panel, draw, render
from training.engine.checkpoint import METRICS
from training.folders import write_text
from training.statistics.intervals import per_cent
from training.statistics.paired_tests import flips_for, holm
from training.vqa import comparison
from training.vqa.compare import as_json, as_markdown
from training.vqa.predictions import read_predictions
from training.vqa.scores import FLOOR, HEADLINES, OVERALL, Accuracy, Difference, differences

REPORT, PART = "report", "part"
"""Names of the files, and of those of some rows only."""
DRAWS, SEED = 2000, 0
"""Of the bootstrap, as in ``kg-targets compare-vqa``."""


@dataclass(frozen=True)
class Finished:
    """What a finished grid, or some rows of it, left behind."""

    grid: MedVQAGrid
    workspace: Workspace
    asked: Sequence[Row]
    """The rows asked for."""
    rows: Sequence[Row]
    """Those of them that were run."""
    absent: Mapping[str, tuple[str, str]]
    """Row that was not run to what is missing and how to get it."""
    predictions: Sequence[tuple[str, Path]]
    """Files of models by their rows' titles; of baselines by their own names, which is an empty text."""
    folders: Mapping[str, Sequence[Sequence[Path]]]
    """Row to the folders of its fine-tunings, question-only baselines included, then of each stage of pre-training."""

    def command(self, row: str | None = None) -> str:
        """What makes everything, or one row, again."""
        return self.grid.command(self.workspace.out, self.workspace.threads, row)


@dataclass(frozen=True)
class Against:
    """A row against the baseline, on the questions of one protocol."""

    row: str
    protocol: str
    group: str
    difference: Difference
    corrected: float
    """p after Holm over all of them."""


@dataclass(frozen=True)
class RowFacts:
    """What is known of a row's training runs."""

    parameters: int | None
    """Of the fine-tuned model; ``None`` where a run does not tell."""
    runs: int
    """Fine-tunings, those of the question-only baseline included."""
    seconds: float | None
    """Median of one fine-tuning; ``None`` where none was timed."""
    pretraining: tuple[float | None, ...]
    """The same of each stage before it."""


@dataclass(frozen=True)
class Results:
    """Everything that a report says in numbers."""

    tables: tuple[comparison.Table, ...]
    """One for each protocol where cuts are pooled, else for each part."""
    against: tuple[Against, ...]
    """Every row against the baseline; none without one."""
    rows: Mapping[str, RowFacts]
    times: tuple[Timing | None, ...]
    """Of every run."""

    def as_dict(self) -> dict[str, Any]:
        """Every number, as shares of 1, for JSON."""
        return {
            "comparison": as_json(self.tables),
            "against_baseline": [asdict(one) for one in self.against],
            "rows": {name: asdict(one) for name, one in self.rows.items()},
        }


def write_report(finished: Finished, docs: Path | None = None, *, part: bool = False) -> list[Path]:
    """Compare the predictions of a finished grid.

    Args:
        finished: what was run.
        docs: Markdown file that gets the page, too; a plot stands beside it.
        part: only some rows were asked for: the files have names of their own.

    Returns:
        The files written.

    Raises:
        DataError: predictions are damaged or do not fit together.
        CheckpointError: a file cannot be written.
    """
    grid, out, results = finished.grid, finished.workspace.out, results_of(finished)
    name, figures = PART if part else REPORT, paper("med_vqa").rows
    content = {
        "grid": grid.name,
        "fingerprint": grid.fingerprint(),
        "title": grid.title,
        "command": finished.command(),
        "seeds": grid.seeds,
        "pretrain_seeds": grid.pretrain_seeds,
        "baseline": grid.baseline,
        "titles": {row.name: row.title for row in finished.asked},
        "paper": {row.name: figures[row.paper] for row in finished.asked if row.paper is not None},
        "not_run": {row: {"needs": path, "how": how} for row, (path, how) in finished.absent.items()},
        "points": {row.name: row.point.x for row in finished.rows if row.point is not None},
        **results.as_dict(),
    }
    write_text(out / f"{name}.json", to_json(content))
    written = [out / f"{name}.json"]
    for file, option in [(out / f"{name}.md", "--out"), *([(docs, "--docs")] if docs else [])]:
        picture = file.with_suffix(".png") if grid.plot is not None else None
        if grid.plot is not None and picture is not None:
            panels = [_panel(table, finished.rows) for table in results.tables]
            draw(picture, panels, grid.title, grid.plot.x, grid.plot.marked, option)
            written.append(picture)
        write_text(file, _page(finished, results, picture), option)
        written.append(file)
    return written


def results_of(finished: Finished) -> Results:
    """Read the predictions of a grid and compare them.

    Raises:
        DataError: they are damaged or do not fit together.
    """
    given = [(title, read_predictions(file)) for title, file in finished.predictions]
    tables = tuple(comparison.tables_of(given, DRAWS, SEED, finished.grid.pooled))
    rows, times = {}, list[Timing | None]()
    for row in finished.rows:
        runs, *stages = finished.folders[row.name]
        rows[row.name] = RowFacts(_parameters(runs), len(runs), _median(runs), tuple(map(_median, stages)))
        times += [timing(run) for folders in (runs, *stages) for run in folders]
    return Results(tables, _against(finished.grid, finished.rows, tables), rows, tuple(times))


def _against(
    grid: MedVQAGrid, rows: Sequence[Row], tables: Sequence[comparison.Table]
) -> tuple[Against, ...]:
    if grid.baseline is None:
        return ()
    baseline = grid.rows[grid.baseline]
    pairs = [
        (row.name, table, model, other)
        for table in tables
        for row in rows
        if row.name != grid.baseline and (model := _model(table, row)) and (other := _model(table, baseline))
    ]
    flips = flips_for(len(HEADLINES) * len(pairs))
    found = [
        (name, str(table.facts["protocol"]), group, difference)
        for name, table, model, other in pairs
        for group, difference in differences(
            model.predictions, other.predictions, HEADLINES, DRAWS, flips, SEED
        ).items()
    ]
    corrected = holm([difference.p_value for *_, difference in found])
    return tuple(Against(*one, p) for one, p in zip(found, corrected, strict=True))


def _model(table: comparison.Table, row: Row) -> comparison.Row | None:
    """A row of the grid in a table; ``None`` where it was not run."""
    return next((one for one in table.rows if one.name == row.title and one.role == comparison.MODEL), None)


def _accuracy(table: comparison.Table, row: Row) -> Accuracy | None:
    """Of a row, overall."""
    found = _model(table, row)
    return None if found is None else found.accuracies[OVERALL]


def _median(runs: Sequence[Path]) -> float | None:
    seconds = [told.seconds for told in map(timing, runs) if told is not None]
    return median(seconds) if seconds else None


def _parameters(runs: Sequence[Path]) -> int | None:
    try:
        return int(json.loads((runs[0] / METRICS).read_text(encoding="utf-8"))["parameters"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _panel(table: comparison.Table, rows: Sequence[Row]) -> Panel:
    """What the plot shows of a table."""
    lines = {name: {x: one.interval for x, one in line.items()} for name, line in _lines(table, rows).items()}
    baselines = [row.accuracies[OVERALL].interval.mean for row in table.rows if row.mode == FLOOR]
    return Panel(_protocol(table), lines, max(baselines, default=None))


def _lines(table: comparison.Table, rows: Sequence[Row]) -> dict[str, dict[float, Accuracy]]:
    lines: dict[str, dict[float, Accuracy]] = {}
    for row in rows:
        accuracy = _accuracy(table, row)
        if row.point is not None and accuracy is not None:
            for name in row.point.series:
                lines.setdefault(name, {})[row.point.x] = accuracy
    return lines


def _page(finished: Finished, results: Results, picture: Path | None) -> str:
    """The report; ``picture``: the plot's file beside the page."""
    compared = as_markdown(results.tables, DRAWS).split("\n", 2)[2]  # without its title
    return render(
        "med_vqa", finished=finished, grid=finished.grid, results=results, picture=picture, comparison=compared,
        manifest=Manifest.load(finished.grid.dataset, "questions"), paper=paper("med_vqa"),
        titles={row.name: row.title for row in finished.asked},
        protocols=[(table, _protocol(table)) for table in results.tables],
        times=[one for one in results.times if one is not None],
        versions={name: version(name) for name in ("torch", "transformers", "open_clip_torch")},
        points=sorted({row.point.x for row in finished.rows if row.point is not None}),
        lines=lambda table: _lines(table, finished.rows), accuracy=_accuracy, cell=_cell, per_cent=per_cent,
    )  # fmt: skip


def _protocol(table: comparison.Table) -> str:
    """A table's protocol, with its cuts where these have other test questions."""
    protocol, cuts = str(table.facts["protocol"]), str(table.facts["split_seed"])
    if protocol != "image_disjoint":
        return protocol
    return f"{protocol}, {'cuts' if ',' in cuts else 'cut'} {cuts}"


def _cell(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return "–"
    spread = "" if accuracy.seed_sd is None else f" ± {100 * accuracy.seed_sd:.1f}"
    return per_cent(accuracy.interval) + spread
