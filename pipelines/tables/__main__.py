"""Fill the tables of a grid: ``python -m pipelines.tables GRID [--data-root DIR] [--out DIR] [--jobs N] …``."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kg_targets.errors import ConfigError, DataError, ManifestError
from kg_targets.manifest import Manifest
from pipelines.tables.grid import GRIDS, Grid, Official
from pipelines.tables.read_grid import read_grid
from pipelines.tables.runner import StoppedError, claimed
from pipelines.tables.shell import (
    REPORT,
    exit_code,
    grid_parser,
    jobs_at_a_time,
    only_rows,
    print_stages,
    run_stages,
    say,
)
from training.engine.process import StopRequest

if TYPE_CHECKING:
    from pipelines.tables.job import Job
    from pipelines.tables.measured import Labels
    from pipelines.tables.plan import Plan  # loads torch, which takes seconds

MODULE = "pipelines.tables"
RUNS = "runs"
STAGES = ("folds", "stores", RUNS, "scores", REPORT)
DOCS = Path("docs/results")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = grid_parser(f"python -m {MODULE}", __doc__, STAGES, "demo", "build/tables")
    command.add_argument(
        "--docs",
        action="store_true",
        help=f"write {DOCS}/<grid>.md, too: of all rows of a grid of pipelines/grids",
    )
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a grid; 0 done, 2 for an error or a failed job, 130 or 143 for a stop. The same command continues."""
    return exit_code(parser(), fill_tables, arguments)


def fill_tables(options: argparse.Namespace) -> int:
    """Everything that the command does.

    Raises:
        KGTargetsError: the grid, an option, the data or the output folder is not usable.
        StoppedError: a signal asked for it while jobs ran.
    """
    with StopRequest() as stop:  # an exception out of torch's half-done import could not be told from others
        grid = read_grid(options.grid, options.data_root)
        _check_docs(options, grid)
        plan = _plan(options, grid)
        from pipelines.tables.measured import check_measures
    if stop.signal:
        raise StoppedError(stop.signal)
    stages = [options.stage] if options.stage else list(STAGES)
    check_measures(grid, _labels(grid, options.dry_run))
    if options.dry_run:
        print_stages(MODULE, options, [(stage, partial(plan.stage, stage)) for stage in stages])
        return 0
    with claimed(plan.out, grid.name, say) as lock:
        work = [(stage, partial(_jobs, plan, stage)) for stage in stages if stage != REPORT]
        kept = plan.runs() if RUNS in stages else []
        if run_stages(plan.out, plan.jobs, lock, work, kept, options.replace):
            return 2
        if REPORT in stages:
            _report(plan, options)
    return 0


def _jobs(plan: "Plan", stage: str) -> "Sequence[Job]":
    if stage == RUNS:
        plan.check_stores()
    return plan.stage(stage)


def _plan(options: argparse.Namespace, grid: Grid) -> "Plan":
    from pipelines.tables.plan import Plan

    jobs, only = jobs_at_a_time(options), only_rows(options, list(grid.rows))
    return Plan(grid, options.out or Path("build/tables") / grid.name, jobs, options.threads, only)


def _check_docs(options: argparse.Namespace, grid: Grid) -> None:
    """Refuse ``--docs`` where it would be left undone, or overwrite the page of another grid."""
    if not options.docs:
        return
    for option, given in (
        ("--only", options.only is not None),
        ("--stage", options.stage not in (None, REPORT)),
    ):
        if given:
            raise ConfigError(
                f"--docs and {option} contradict each other: {DOCS} shows all rows, drop one of them"
            )
    if grid.path.resolve().parent != GRIDS.resolve():
        raise ConfigError(
            f"--docs is for the grids of pipelines/grids, {grid.path} is none of them: drop it, the tables are in OUT"
        )


def _labels(grid: Grid, dry: bool) -> "Labels | None":
    """Labels of the queries, after all captions that the grid needs were found.

    Raises:
        ManifestError: captions are missing or a split is misspelt; a dry run says so and goes on without.
    """
    from pipelines.tables.measured import read_labels

    try:
        _check_data(grid)
        return read_labels(grid)
    except ManifestError as error:
        if not dry:
            raise
        say(f"splits and labels are not checked: {error}")
        return None


def _check_data(grid: Grid) -> None:
    split = grid.split
    named = (split.train, split.test) if isinstance(split, Official) else (*split.test, *split.train_only)
    for dataset in dict.fromkeys(variant.dataset for variant in grid.variants):
        manifest = Manifest.load(dataset)
        for name in (*named, *([grid.dev] if grid.dev else []), *grid.subsets.values()):
            manifest.split_file(name, grid.data_root)


def _report(plan: "Plan", options: argparse.Namespace) -> None:
    """Write the report: of every row with tests, or of the rows of --only, without.

    Raises:
        DataError: some score sheets are missing or were made from something else.
    """
    from pipelines.tables.job import shown
    from pipelines.tables.report import write_report

    jobs = plan.stage("scores")
    stale = [job for job in jobs if not all(path.exists() for path in job.needs) or not job.is_current()]
    if stale:
        raise DataError(
            f"{len(stale)} of {len(jobs)} score sheets are missing or out of date (first: {stale[0].name}): "
            "the command without --stage report makes them"
        )
    docs = DOCS / f"{plan.grid.name}.md" if options.docs else None
    for path in write_report(plan.grid, plan.out, docs, plan.only or None):
        say(f"wrote {shown(path)}")


if __name__ == "__main__":
    sys.exit(main())
