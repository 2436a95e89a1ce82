"""Fill the tables of a grid: ``python -m pipelines.tables GRID [--data-root DIR] [--out DIR] [--jobs N] …``."""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kg_targets.errors import ConfigError, DataError, KGTargetsError, ManifestError
from kg_targets.manifest import Manifest
from kg_targets.manifest.model import unknown_name
from pipelines.machine import available_cores
from pipelines.tables.grid import GRIDS, Grid, Official
from pipelines.tables.read_grid import read_grid
from pipelines.tables.runner import Runner, StoppedError, claimed
from training.checks import within
from training.engine.signals import StopRequest
from training.evaluate.arguments import ArgumentParser

if TYPE_CHECKING:
    from pipelines.tables.measured import Labels
    from pipelines.tables.plan import Plan  # loads torch, which takes seconds

RUNS, REPORT = "runs", "report"
STAGES = ("folds", "stores", RUNS, "scores", REPORT)
DOCS = Path("docs/results")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = ArgumentParser("python -m pipelines.tables", description=__doc__)
    add = command.add_argument
    add("grid", help="a grid of pipelines/grids by name, such as demo, or the path of such a file")
    add("--data-root", type=Path, help="where captions and images are (default: as the grid says)")
    add("--out", type=Path, help="folder for everything that is made (default: build/tables/<grid>)")
    add(
        "--threads",
        type=int,
        default=1,
        help="CPU threads of each job, ≥ 1 (default: 1); results depend on it",
    )
    add(
        "--jobs",
        type=int,
        help="jobs at a time, ≥ 1 (default: cores / threads; on one GPU, choose what fits)",
    )
    add("--only", help="rows to train and score, comma-separated (default: all); tests need all")
    add("--stage", choices=STAGES, help="only this stage (default: all of them)")
    add(
        "--docs",
        action="store_true",
        help=f"write {DOCS}/<grid>.md, too: of all rows of a grid of pipelines/grids",
    )
    add(
        "--replace",
        action="store_true",
        help="train anew where a finished run has other settings, data or threads (default: refuse)",
    )
    add("--dry-run", action="store_true", help="print the commands instead of running them")
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a grid; 0 done, 2 for an error or a failed job, 130 or 143 for a stop. The same command continues."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        return fill_tables(parser().parse_args(arguments))
    except KGTargetsError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    except StoppedError as error:
        sys.stderr.write(f"{error}\n")
        return 128 + error.number
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command continues\n")
        return 130


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
        _print_stages(plan, stages, options)
        return 0
    with claimed(plan.out, grid.name, _say) as lock:
        failed = _run_stages(plan, [stage for stage in stages if stage != REPORT], lock, options.replace)
        if failed:
            _say(f"{failed} job(s) failed or were left out: mend what they say, the same command continues")
            return 2
        if REPORT in stages:
            _report(plan, options)
    return 0


def _run_stages(plan: "Plan", stages: Sequence[str], lock: int, replace: bool) -> int:
    """How many jobs failed or could not be run."""
    from pipelines.tables.replaced import keep_finished

    failed = 0
    keep = RUNS in stages and not replace
    if keep:
        keep_finished(plan.runs(), settings_only=True)  # before stores are made for nothing
    with StopRequest() as stop:
        runner = Runner(plan.out, plan.jobs, lock, stop, sys.stderr)
        for stage in stages:
            if stage == RUNS:
                plan.check_stores()
                if keep:
                    keep_finished(plan.runs(), settings_only=False)
            failed += runner.run(stage, plan.stage(stage))
    return failed


def _plan(options: argparse.Namespace, grid: Grid) -> "Plan":
    from pipelines.tables.plan import Plan

    within("--threads", options.threads, 1, 1024)
    if options.jobs is not None:
        within("--jobs", options.jobs, 1, 1024)
    only = () if options.only is None else tuple(name.strip() for name in options.only.split(","))
    for name in only:
        if name not in grid.rows:
            raise ConfigError(f"--only: {unknown_name('row', name, list(grid.rows))}")
    jobs = options.jobs or max(1, available_cores() // options.threads)
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
        _say(f"splits and labels are not checked: {error}")
        return None


def _check_data(grid: Grid) -> None:
    split = grid.split
    named = (split.train, split.test) if isinstance(split, Official) else (*split.test, *split.train_only)
    for dataset in dict.fromkeys(variant.dataset for variant in grid.variants):
        manifest = Manifest.load(dataset)
        for name in (*named, *([grid.dev] if grid.dev else []), *grid.subsets.values()):
            manifest.split_file(name, grid.data_root)


def _print_stages(plan: "Plan", stages: Sequence[str], options: argparse.Namespace) -> None:
    from pipelines.tables.plan import python

    given = {
        "--data-root": options.data_root,
        "--out": options.out,
        "--threads": options.threads if options.threads != 1 else None,
        "--only": options.only,
    }
    words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    report = shlex.join([python(), "-m", "pipelines.tables", options.grid, *words, "--stage", REPORT])
    try:
        for stage in stages:
            lines = [report] if stage == REPORT else [job.shown() for job in plan.stage(stage)]
            sys.stdout.write(f"# {stage}: {len(lines)}\n" + "".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; keep Python from complaining again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(plan: "Plan", options: argparse.Namespace) -> None:
    """Write the report: of every row with tests, or of the rows of --only, without.

    Raises:
        DataError: some score sheets are missing or were made from something else.
    """
    from pipelines.tables.plan import shown
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
        _say(f"wrote {shown(path)}")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
