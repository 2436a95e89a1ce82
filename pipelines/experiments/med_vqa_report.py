"""A Med-VQA grid's report: predictions to ``report.json`` (everything, shares of 1), ``report.md`` and its plot."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kg_targets.manifest import Manifest
from pipelines.audit.report import to_json
from pipelines.experiments.grid import paper
from pipelines.experiments.job import Workspace, timing
from pipelines.experiments.med_vqa_grid import MedVQAGrid, Row
from training.engine.checkpoint import METRICS
from training.folders import whole_file, write_text
from training.rendering import render
from training.statistics.intervals import Interval
from training.statistics.paired_tests import Difference, flips_for, holm
from training.vqa import comparison
from training.vqa.compare import as_json, as_markdown
from training.vqa.predictions import MAJORITY, read_predictions
from training.vqa.scores import HEADLINES, OVERALL, Accuracy, differences

REPORT, PART = "report", "part"
"""Names of the files, and of those of some rows only."""
MEAN = "mean"
"""The paper's column of means over its data sets."""
COLOURS = ("#1f5fbf", "#c8352b", "#2a9d4a", "#8e44ad")
_APART = 0.12  # units of the plot's axis, between lines that would hide each other
DRAWS, SEED = 2000, 0
"""Samples and seed of the bootstrap, as in ``kg-targets compare-vqa``."""


@dataclass(frozen=True)
class Finished:
    """The output of a finished grid, or of some rows of it."""

    grid: MedVQAGrid
    workspace: Workspace
    selected: Sequence[Row]
    """The rows of --only, or all."""
    rows: Sequence[Row]
    """The selected rows that were run."""
    absent: Mapping[str, tuple[str, str]]
    """Row that was not run to what is missing and how to get it."""
    predictions: Sequence[tuple[str, Path]]
    """Files of models by their rows' titles; of baselines by their own names, which is an empty text."""
    folders: Mapping[str, Sequence[Sequence[Path]]]
    """Row to the folders of its fine-tuning runs, question-only baselines included, then of each pre-training stage."""

    def command(self, row: str | None = None) -> str:
        """The command that makes everything, or one row, again."""
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
class OverAll:
    """The rows over several data sets, under the grid's first protocol."""

    protocol: str
    datasets: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float | None], float | None]]
    """Title, accuracy on each data set, and the paper's mean; shares of 1, None where there is none."""


@dataclass(frozen=True)
class Panel:
    """One protocol of a plot."""

    title: str
    lines: Mapping[str, Mapping[float, Interval]]
    """Line to x to accuracy, shares of 1."""
    baseline: float | None
    """Accuracy of the best baseline."""


def write_report(finished: Finished, docs: Path | None = None, *, part: bool = False) -> list[Path]:
    """Compare the predictions of a finished grid.

    Args:
        finished: what was run.
        docs: Markdown file that gets the page, too; a plot stands beside it.
        part: only some rows were selected: the files have names of their own.

    Returns:
        The files written.

    Raises:
        DataError: predictions are damaged or do not fit together.
        CheckpointError: a file cannot be written.
    """
    grid, out, figures = finished.grid, finished.workspace.out, paper("med_vqa").rows
    given = [(title, read_predictions(file)) for title, file in finished.predictions]
    tables = comparison.tables_of(given, DRAWS, SEED, grid.pooled)
    against = _against(finished, tables)
    content: dict[str, Any] = {
        "grid": grid.name,
        "fingerprint": grid.fingerprint(),
        "title": grid.title,
        "command": finished.command(),
        "seeds": grid.seeds,
        "pretrain_seeds": grid.pretrain_seeds,
        "baseline": grid.baseline,
        "titles": {row.name: row.title for row in finished.selected},
        "paper": {row.name: figures[row.paper] for row in finished.selected if row.paper is not None},
        "dataset": grid.dataset,
        "accuracy": {_protocol(table): _means(table, finished.rows) for table in tables},
        "not_run": {row: {"needs": path, "how": how} for row, (path, how) in finished.absent.items()},
        "points": {row.name: row.point.x for row in finished.rows if row.point is not None},
        "comparison": as_json(tables),
        "against_baseline": [asdict(one) for one in against],
        "rows": {row.name: _training_runs(*finished.folders[row.name]) for row in finished.rows},
    }
    written = [out / f"{PART if part else REPORT}.json"]
    write_text(written[0], to_json(content))
    for file, option in [(written[0].with_suffix(".md"), "--out"), *([(docs, "--docs")] if docs else [])]:
        if grid.plot is not None:
            panels = [_panel(table, finished.rows) for table in tables]
            written.append(file.with_suffix(".png"))
            draw(written[-1], panels, grid.title, grid.plot.x, grid.plot.marked, option)
        write_text(file, _page(finished, tables, file, against=against, runs=content["rows"]), option)
        written.append(file)
    return written


def _against(finished: Finished, tables: Sequence[comparison.Table]) -> list[Against]:
    """Every row against the grid's baseline, if it has one, in each table; Holm corrects all of them together."""
    grid = finished.grid
    pairs = [
        (row.name, table, model, other)
        for table in tables
        for row in finished.rows
        if grid.baseline not in (None, row.name)
        and (model := _model(table, row))
        and (other := _model(table, grid.rows[str(grid.baseline)]))
    ]
    flips = flips_for(len(HEADLINES) * len(pairs))
    found = [
        (name, str(table.metadata["protocol"]), group, difference)
        for name, table, model, other in pairs
        for group, difference in differences(
            model.predictions, other.predictions, HEADLINES, DRAWS, flips, SEED
        ).items()
    ]
    corrected = holm([difference.p_value for *_, difference in found])
    return [Against(*one, p) for one, p in zip(found, corrected, strict=True)]


def _means(table: comparison.Table, rows: Sequence[Row]) -> dict[str, float]:
    """Row to its overall accuracy, where it was run."""
    found = {row.name: _accuracy(table, row) for row in rows}
    return {name: one.interval.mean for name, one in found.items() if one is not None}


def _over_all(finished: Finished, tables: Sequence[comparison.Table]) -> OverAll | None:
    """This grid's rows and those of the grids ``beside`` it; None where it names none."""
    grid, protocol = finished.grid, _protocol(tables[0])
    if not grid.beside:
        return None
    found = {grid.dataset: _means(tables[0], finished.rows)}
    for name, dataset in grid.beside.items():
        found[dataset] = _reported(finished.workspace.out.parent / name / f"{REPORT}.json", protocol)
    figures = paper("med_vqa").rows
    rows = [
        (
            row.title,
            [means.get(row.name) for means in found.values()],
            figures.get(row.paper or "", {}).get(MEAN),
        )
        for row in finished.selected
    ]
    return OverAll(protocol, list(found), rows)


def _reported(path: Path, protocol: str) -> dict[str, float]:
    """Accuracies in the report of another grid; none where it was not made."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["accuracy"][protocol])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _training_runs(runs: Sequence[Path], *stages: Sequence[Path]) -> dict[str, Any]:
    """Parameters and number of fine-tuned models, and median seconds of a fine-tuning run and of each stage before it.

    ``None`` for parameters that a run does not record, and for seconds where no run was timed.
    """
    try:
        parameters = int(json.loads((runs[0] / METRICS).read_text(encoding="utf-8"))["parameters"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        parameters = None
    timed = [[one["seconds"] for one in map(timing, part) if one is not None] for part in (runs, *stages)]
    seconds, *before = [median(found) if found else None for found in timed]
    return {"parameters": parameters, "runs": len(runs), "seconds": seconds, "pretraining": before}


def _model(table: comparison.Table, row: Row) -> comparison.Row | None:
    """A row of the grid in a table; ``None`` where it was not run."""
    return next((one for one in table.rows if one.name == row.title and one.role == comparison.MODEL), None)


def _accuracy(table: comparison.Table, row: Row) -> Accuracy | None:
    """Overall accuracy of a row."""
    found = _model(table, row)
    return None if found is None else found.accuracies[OVERALL]


def _panel(table: comparison.Table, rows: Sequence[Row]) -> Panel:
    """The table's part of the plot."""
    lines = {name: {x: one.interval for x, one in line.items()} for name, line in _lines(table, rows).items()}
    baselines = [row.accuracies[OVERALL].interval.mean for row in table.rows if row.mode == MAJORITY]
    return Panel(_protocol(table), lines, max(baselines, default=None))


def _lines(table: comparison.Table, rows: Sequence[Row]) -> dict[str, dict[float, Accuracy]]:
    lines: dict[str, dict[float, Accuracy]] = {}
    for row in rows:
        accuracy = _accuracy(table, row)
        if row.point is not None and accuracy is not None:
            for name in row.point.series:
                lines.setdefault(name, {})[row.point.x] = accuracy
    return lines


def _page(finished: Finished, tables: Sequence[comparison.Table], file: Path, **results: Any) -> str:
    """The report that stands in ``file``, beside its plot."""
    folders = [run for stages in finished.folders.values() for runs in stages for run in runs]
    return render(
        "pipelines.experiments", "med_vqa.md.j2", finished=finished, grid=finished.grid, file=file, **results,
        comparison=as_markdown(tables, DRAWS).split("\n", 2)[2],  # without its title
        manifest=Manifest.load(finished.grid.dataset, "questions"), paper=paper("med_vqa"),
        titles={row.name: row.title for row in finished.selected},
        protocols=[(table, _protocol(table)) for table in tables], times=list(map(timing, folders)),
        versions={name: version(name) for name in ("torch", "transformers", "open_clip_torch")},
        points=sorted({row.point.x for row in finished.rows if row.point is not None}),
        lines=lambda table: _lines(table, finished.rows), accuracy=_accuracy, over_all=_over_all(finished, tables),
    )  # fmt: skip


def _protocol(table: comparison.Table) -> str:
    """A table's protocol, with its folds where these have other test questions."""
    protocol, folds = str(table.metadata["protocol"]), str(table.metadata["split_seed"])
    if protocol != "image_disjoint":
        return protocol
    return f"{protocol}, {'folds' if ',' in folds else 'fold'} {folds}"


def draw(path: Path, panels: Sequence[Panel], title: str, x: str, marked: float | None, option: str) -> None:
    """Write a PNG of accuracy over a quantity that differs between rows, by atomic rename.

    The values of x stand at equal distances, in ascending order: 0 and powers of ten have no scale in common.

    Args:
        path: the file.
        panels: from left to right.
        title: above them.
        x: what is on the axis.
        marked: the value that gets a line of its own.
        option: of the command, that names the file.
    """
    figure = Figure(figsize=(4.9 * len(panels) + 0.5, 5.0), facecolor="white", layout="constrained")
    figure.suptitle(title, fontsize=11)
    every = sorted({value for panel in panels for line in panel.lines.values() for value in line})
    places = {value: float(place) for place, value in enumerate(every)}
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for rank, (name, line) in enumerate(panel.lines.items()):
            values, means = sorted(line), [line[value].mean for value in sorted(line)]
            shift = _APART * (rank - (len(panel.lines) - 1) / 2)
            ends = [[line[value].low for value in values], [line[value].high for value in values]]
            axes.errorbar(
                [places[value] + shift for value in values],
                100 * np.array(means),
                yerr=100 * np.nan_to_num(np.abs(np.subtract(ends, means))),  # no bar where there is no interval
                color=COLOURS[rank % len(COLOURS)], marker="o", markersize=4, linewidth=1.4, elinewidth=0.8,
                capsize=2, label=name,
            )  # fmt: skip
        grey: dict[str, Any] = {"color": "#999999", "linewidth": 1}
        if panel.baseline is not None:
            axes.axhline(100 * panel.baseline, linestyle="--", label="best baseline", **grey)
        if marked in places:
            axes.axvline(places[marked], linestyle=":", label="the paper's choice", **grey)
        axes.set_xticks(list(places.values()), [f"{value:g}" for value in every])
        axes.set_xlabel(x)
        axes.set_ylabel("" if place else "overall accuracy, % (bars: 95 %, these trained models)", fontsize=9)
        axes.set_title(panel.title, fontsize=10, loc="left")
        axes.grid(alpha=0.25)
        if not place:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=9)
    with whole_file(path, option) as partial:
        figure.savefig(partial, format="png", dpi=110, metadata={"Software": None})
