"""Everything that a report says in numbers: comparison, tests against the baseline, times, points of the plot."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pipelines.tables.logs import Timing, timing
from pipelines.vqa_tables.grid import Grid, Row
from pipelines.vqa_tables.plan import Plan
from training.engine.checkpoint import METRICS
from training.statistics.paired_tests import flips_for, holm
from training.vqa import comparison
from training.vqa.compare import as_json
from training.vqa.predictions import Predictions, read_predictions
from training.vqa.scores import HEADLINES, OVERALL, Accuracy, Difference, differences

DRAWS, SEED = 2000, 0
"""Of the bootstrap, as in ``python -m training.vqa.compare``."""


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
    """What is known of a row's trainings."""

    parameters: int | None
    """Of the fine-tuned model; ``None`` where a run does not tell."""
    runs: int
    """Fine-tunings, those of the question-only twin included."""
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
    rows: dict[str, RowFacts]
    times: tuple[Timing | None, ...]
    """Of every run."""

    def model(self, table: comparison.Table, row: Row) -> comparison.Row | None:
        """A row of the grid in a table; ``None`` where it was not run."""
        return next(
            (one for one in table.rows if one.name == row.title and one.role == comparison.MODEL), None
        )

    def accuracy(self, table: comparison.Table, row: Row) -> Accuracy | None:
        """Of a row, overall."""
        found = self.model(table, row)
        return None if found is None else found.accuracies[OVERALL]


def results_of(plan: Plan) -> Results:
    """Read the predictions of a plan and compare them.

    Raises:
        DataError: they are damaged or do not fit together.
    """
    grid = plan.grid
    tables = tuple(comparison.tables_of(_given(plan), DRAWS, SEED, grid.pooled))
    rows, times = {}, list[Timing | None]()
    for row in plan.rows:
        runs = [job.folder for job in plan.finetunings() if job.row is row]
        stages = [
            [job.folder for job in plan.pretrainings(stage) if job.row is row]
            for stage in range(len(row.pretrain))
        ]
        rows[row.name] = RowFacts(
            _parameters(runs), len(runs), _median(runs), tuple(_median(folders) for folders in stages)
        )
        times += [timing(run) for folders in (runs, *stages) for run in folders]
    return Results(tables, _against(grid, plan.rows, tables), rows, tuple(times))


def _given(plan: Plan) -> list[tuple[str, Predictions]]:
    """Models by their titles, floors by their own names."""
    models = [(job.run.row.title, read_predictions(job.made.with_suffix(".csv"))) for job in plan.scores()]
    return models + [("", read_predictions(file)) for job in plan.floors() for file in job.files]


def _against(grid: Grid, rows: Iterable[Row], tables: Sequence[comparison.Table]) -> tuple[Against, ...]:
    if grid.baseline is None:
        return ()
    baseline = grid.rows[grid.baseline]
    pairs = []
    for table in tables:
        models = {row.name: row for row in table.rows if row.role == comparison.MODEL}
        pairs += [
            (row.name, table, models[row.title], models[baseline.title])
            for row in rows
            if row.name != grid.baseline and {row.title, baseline.title} <= models.keys()
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


def _median(runs: Sequence[Path]) -> float | None:
    seconds = [told.seconds for told in map(timing, runs) if told is not None]
    return median(seconds) if seconds else None


def _parameters(runs: Sequence[Path]) -> int | None:
    try:
        return int(json.loads((runs[0] / METRICS).read_text(encoding="utf-8"))["parameters"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def as_dict(results: Results) -> dict[str, Any]:
    """Every number, as shares of 1, for JSON."""
    return {
        "comparison": as_json(results.tables),
        "against_baseline": [asdict(one) for one in results.against],
        "rows": {name: asdict(one) for name, one in results.rows.items()},
    }
