"""Fill the tables of a Med-VQA grid: ``python -m pipelines.vqa_tables GRID [--data-root DIR] [--jobs N] …``."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kg_targets.errors import ConfigError, DataError
from pipelines.tables.runner import StoppedError, claimed
from pipelines.tables.shell import (
    REPORT,
    Stages,
    exit_code,
    grid_parser,
    jobs_at_a_time,
    only_rows,
    print_stages,
    run_stages,
    say,
)
from pipelines.vqa_tables.grid import FINETUNE, PRETRAIN, PRETRAIN_STAGES, SCORE, STORES, Grid
from pipelines.vqa_tables.read_grid import read_grid
from training.engine.process import StopRequest

if TYPE_CHECKING:
    from pipelines.tables.job import Job
    from pipelines.vqa_tables.plan import Plan  # loads torch, which takes seconds

MODULE = "pipelines.vqa_tables"
OUT = "build/vqa_tables"
STAGES = (STORES, PRETRAIN, FINETUNE, SCORE, REPORT)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = grid_parser(f"python -m {MODULE}", __doc__, STAGES, "vqa_rad", OUT)
    command.add_argument("--docs", type=Path, help="Markdown file that gets the report, too: of all rows")
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
        _check_docs(options)
        plan = _plan(options, grid)
    if stop.signal:
        raise StoppedError(stop.signal)
    _tell_absent(plan)
    stages = [options.stage] if options.stage else list(STAGES)
    if options.dry_run:
        print_stages(MODULE, options, _work(plan, stages))
        return 0
    plan.check_data()
    with claimed(plan.out, grid.name, say) as lock:
        work = [(name, jobs) for name, jobs in _work(plan, stages) if name != REPORT]
        if run_stages(plan.out, plan.jobs, lock, work, plan.runs(stages), options.replace):
            return 2
        if REPORT in stages:
            _report(plan, options)
    return 0


def _work(plan: "Plan", stages: Sequence[str]) -> Stages:
    """Stages with their jobs; what goes on from a finished job of the same stage comes in a round of its own."""
    work: list[tuple[str, Callable[[], Sequence[Job]]]] = []
    for stage in stages:
        if stage == STORES:
            work += [(STORES, partial(list, jobs)) for jobs in plan.store_rounds()]
        else:
            both = PRETRAIN_STAGES if stage == PRETRAIN else (stage,)
            work += [(name, partial(plan.stage, name)) for name in both]
    return work


def _plan(options: argparse.Namespace, grid: Grid) -> "Plan":
    from pipelines.vqa_tables.plan import Plan

    jobs, only = jobs_at_a_time(options), only_rows(options, list(grid.rows))
    return Plan(grid, options.out or Path(OUT) / grid.name, jobs, options.threads, only)


def _check_docs(options: argparse.Namespace) -> None:
    for option, given in (
        ("--only", options.only is not None),
        ("--stage", options.stage not in (None, REPORT)),
    ):
        if options.docs is not None and given:
            raise ConfigError(
                f"--docs and {option} contradict each other: the page shows all rows, drop one of them"
            )


def _tell_absent(plan: "Plan") -> None:
    """Say which rows cannot be run.

    Raises:
        ConfigError: none can.
    """
    absent = plan.absent
    if len(absent) == len(plan.asked):
        name, (path, how) = next(iter(absent.items()))
        raise ConfigError(f"no row can be run; {name} needs {path}: {how}")
    for name, (path, how) in absent.items():
        say(f"row {name} is not run, {path} is not there: {how}")


def _report(plan: "Plan", options: argparse.Namespace) -> None:
    """Write the report.

    Raises:
        DataError: some predictions are missing or were made from something else.
    """
    from pipelines.tables.job import shown
    from pipelines.vqa_tables.report import write_report

    jobs = [*plan.floors(), *plan.scores()]
    stale = [job for job in jobs if not all(path.exists() for path in job.needs) or not job.is_current()]
    if stale:
        raise DataError(
            f"{len(stale)} of {len(jobs)} predictions are missing or out of date (first: {stale[0].name}): "
            f"the command without --stage {REPORT} makes them"
        )
    for path in write_report(plan, options.docs):
        say(f"wrote {shown(path)}")


if __name__ == "__main__":
    sys.exit(main())
