"""Train, score and report a grid of training runs; the same command continues one that was stopped."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kg_targets.errors import ConfigError
from pipelines.build.executors import available_cores
from pipelines.experiments.grid import GRIDS, Grid, known, shown
from pipelines.experiments.runner import Runner, StoppedError, claimed
from pipelines.experiments.tasks import STAGES, plan_of, read_grid
from training.checks import all_within
from training.command import Work, write_line
from training.engine.process import StopRequest

if TYPE_CHECKING:
    from pipelines.experiments.plan import Plan  # loads torch, which takes seconds

REPORT = STAGES[-1]
DOCS = Path("docs/results")


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets tables`."""
    parser.description = __doc__
    add = parser.add_argument
    add("grid", help="a grid of pipelines/grids by name, such as demo or vqa_rad, or the path of such a file")
    add("--data-root", type=Path, help="where the data are (default: as the grid says)")
    add("--out", type=Path, help="folder for everything that is made (default: build/tables/<grid>, of Med-VQA "
        "build/vqa_tables/<grid>)")  # fmt: skip
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
    add("--stage", choices=STAGES, help="only this stage, of those that the grid has (default: all of them)")
    add("--replace", action="store_true",
        help="train anew where a finished run has other settings, data or threads (default: refuse)")  # fmt: skip
    add("--dry-run", action="store_true", help="print the commands instead of running them")
    add("--docs", nargs="?", type=Path, const=Path(), metavar="FILE", help="write the page of all rows there, too "
        f"(without FILE: {DOCS}/<grid>.md, for grids of pipelines/grids)")  # fmt: skip
    return run_grid


def run_grid(options: argparse.Namespace) -> int:
    """Run a grid; 0 done, 2 for a failed job, 130 or 143 for a stop.

    Raises:
        KGTargetsError: the grid, an option, the data or the output folder is not usable.
    """
    try:
        return _run(options)
    except StoppedError as error:
        write_line(str(error))
        return 128 + error.number


def _run(options: argparse.Namespace) -> int:
    with StopRequest() as stop:  # an exception out of torch's half-done import could not be told from others
        grid = read_grid(options.grid, options.data_root)
        docs = _docs(options, grid)
        out, (jobs, only) = options.out or grid.out / grid.name, _settled(options, grid)
        plan = plan_of(grid, out, jobs, options.threads, only)
    if stop.signal:
        raise StoppedError(stop.signal)
    stages = [*plan.stages, REPORT]
    if options.stage is not None:
        stages = [known("--stage", "stage of this grid", options.stage, stages)]
    plan.check(dry=options.dry_run, say=write_line)
    if options.dry_run:
        _print_stages(options, plan, stages)
        return 0
    with claimed(out, grid.name, write_line) as lock:
        failed = _run_stages(plan, [stage for stage in stages if stage != REPORT], lock, options.replace)
        if failed:
            write_line(
                f"{failed} job(s) failed or were left out: mend what they say, the same command continues"
            )
            return 2
        if REPORT in stages:
            for path in plan.report(docs):
                write_line(f"wrote {shown(path)}")
    return 0


def _run_stages(plan: "Plan", stages: Sequence[str], lock: int, replace: bool) -> int:
    """Run the jobs of some stages; the number of those that failed or could not be run.

    Raises:
        ConfigError: a finished run would be replaced unasked.
        StoppedError: a signal asked for it; the jobs have ended.
    """
    from pipelines.experiments.plan import keep_finished

    failed = 0
    if not replace:
        keep_finished(plan.runs(stages), settings_only=True)  # before anything is made for nothing
    with StopRequest() as stop:
        runner = Runner(plan.workspace.out, plan.workspace.jobs, lock, stop, sys.stderr)
        for stage in stages:
            for name, make in plan.rounds(stage):
                plan.before(name)
                jobs = make()
                if not replace:
                    keep_finished(jobs, settings_only=False)
                failed += runner.run(name, jobs)
    return failed


def _print_stages(options: argparse.Namespace, plan: "Plan", stages: Sequence[str]) -> None:
    """The commands of every stage, as a user could type them; the report's is the command itself."""
    from pipelines.experiments.job import kg_targets_command

    given = {
        "--data-root": options.data_root,
        "--out": options.out,
        "--threads": options.threads if options.threads != 1 else None,
        "--only": options.only,
    }
    words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    report = shlex.join([kg_targets_command(), "tables", options.grid, *words, "--stage", REPORT])
    try:
        for stage in stages:
            rounds = [] if stage == REPORT else plan.rounds(stage)
            listed = [(name, [job.shown() for job in make()]) for name, make in rounds]
            listed += [(stage, [report])] if stage == REPORT else []
            for name, lines in listed:
                sys.stdout.write(f"# {name}: {len(lines)}\n" + "".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; keep Python from complaining again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _settled(options: argparse.Namespace, grid: Grid) -> tuple[int, tuple[str, ...]]:
    """Jobs at a time (``--jobs``, or what the machine's cores allow) and the rows of ``--only``, none for all."""
    all_within("--", options, threads=(1, 1024), jobs=(1, 1024))
    only = () if options.only is None else tuple(name.strip() for name in options.only.split(","))
    for name in only:
        known("--only", "row", name, grid.rows)
    return options.jobs or max(1, available_cores() // options.threads), only


def _docs(options: argparse.Namespace, grid: Grid) -> Path | None:
    """The page that ``--docs`` asks for; refused where it would be left undone, or overwrite that of another grid."""
    if options.docs is None:
        return None
    for option, given in (
        ("--only", options.only is not None),
        ("--stage", options.stage not in (None, REPORT)),
    ):
        if given:
            raise ConfigError(
                f"--docs and {option} contradict each other: the page shows all rows, drop one of them"
            )
    if options.docs != Path():
        return Path(options.docs)
    if grid.path.resolve().parent != GRIDS.resolve():
        raise ConfigError(
            f"--docs is for the grids of pipelines/grids, {grid.path} is none of them: give it a FILE, or drop it"
        )
    return DOCS / f"{grid.name}.md"
