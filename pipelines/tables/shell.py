"""What the commands that run a grid have in common: their options, their stages, how they end."""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kg_targets.errors import ConfigError, KGTargetsError
from kg_targets.manifest.model import unknown_name
from pipelines.build.executors import available_cores
from pipelines.tables.runner import Runner, StoppedError
from training.checks import within
from training.command import ArgumentParser
from training.engine.process import StopRequest

if TYPE_CHECKING:
    from pipelines.tables.job import Job, TrainingJob  # loads torch, which takes seconds

Stages = Sequence[tuple[str, Callable[[], Sequence["Job"]]]]
"""Name to what makes its jobs."""
REPORT = "report"
"""The last stage, which the command does by itself."""


def grid_parser(
    program: str, description: str | None, stages: Sequence[str], example: str, out: str
) -> argparse.ArgumentParser:
    """The options of every such command.

    Args:
        program: ``python -m …``.
        description: of ``--help``.
        stages: names, in their order.
        example: the name of a grid.
        out: where the grid's folder is by default.
    """
    command = ArgumentParser(program, description=description)
    add = command.add_argument
    add("grid", help=f"a grid of pipelines/grids by name, such as {example}, or the path of such a file")
    add("--data-root", type=Path, help="where the data are (default: as the grid says)")
    add("--out", type=Path, help=f"folder for everything that is made (default: {out}/<grid>)")
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
    add("--stage", choices=tuple(stages), help="only this stage (default: all of them)")
    add(
        "--replace",
        action="store_true",
        help="train anew where a finished run has other settings, data or threads (default: refuse)",
    )
    add("--dry-run", action="store_true", help="print the commands instead of running them")
    return command


def exit_code(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], int],
    arguments: Sequence[str] | None,
) -> int:
    """Do a command's work: 0 done, 2 for an error or a failed job, 130 or 143 for a stop."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        return work(parser.parse_args(arguments))
    except KGTargetsError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    except StoppedError as error:
        sys.stderr.write(f"{error}\n")
        return 128 + error.number
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command continues\n")
        return 130


def jobs_at_a_time(options: argparse.Namespace) -> int:
    """``--jobs``, or what the machine's cores allow.

    Raises:
        ConfigError: ``--jobs`` or ``--threads`` is out of range.
    """
    within("--threads", options.threads, 1, 1024)
    if options.jobs is not None:
        within("--jobs", options.jobs, 1, 1024)
    jobs: int = options.jobs or max(1, available_cores() // options.threads)
    return jobs


def only_rows(options: argparse.Namespace, rows: Sequence[str]) -> tuple[str, ...]:
    """The rows of ``--only``; none for all.

    Raises:
        ConfigError: one of them does not exist.
    """
    only = () if options.only is None else tuple(name.strip() for name in options.only.split(","))
    for name in only:
        if name not in rows:
            raise ConfigError(f"--only: {unknown_name('row', name, list(rows))}")
    return only


def run_stages(
    out: Path, jobs: int, lock: int, stages: Stages, kept: Sequence["TrainingJob"], replace: bool
) -> int:
    """Run the jobs of some stages.

    Args:
        out: the grid's folder, claimed.
        jobs: at a time.
        lock: of the folder.
        stages: the jobs of each are asked for when the stages before are done.
        kept: runs that the stages will make.
        replace: whether they may replace finished runs of other settings or data.

    Returns:
        How many jobs failed or could not be run.

    Raises:
        ConfigError: a finished run would be replaced unasked.
        StoppedError: a signal asked for it; the jobs have ended.
    """
    from pipelines.tables.job import TrainingJob
    from pipelines.tables.replaced import keep_finished

    failed = 0
    if not replace:
        keep_finished(kept, settings_only=True)  # before anything is made for nothing
    with StopRequest() as stop:
        runner = Runner(out, jobs, lock, stop, sys.stderr)
        for name, make in stages:
            found = make()
            if not replace:
                keep_finished([job for job in found if isinstance(job, TrainingJob)], settings_only=False)
            failed += runner.run(name, found)
    if failed:
        say(f"{failed} job(s) failed or were left out: mend what they say, the same command continues")
    return failed


def print_stages(module: str, options: argparse.Namespace, stages: Stages) -> None:
    """The commands of every stage, as a user could type them; the report's is the command itself.

    Args:
        module: of the command, ``pipelines.…``.
        options: its options.
        stages: all that are wanted.
    """
    from pipelines.tables.job import python

    given: Mapping[str, object] = {
        "--data-root": options.data_root,
        "--out": options.out,
        "--threads": options.threads if options.threads != 1 else None,
        "--only": options.only,
    }
    words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    report = shlex.join([python(), "-m", module, options.grid, *words, "--stage", REPORT])
    try:
        for name, make in stages:
            lines = [report] if name == REPORT else [job.shown() for job in make()]
            sys.stdout.write(f"# {name}: {len(lines)}\n" + "".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; keep Python from complaining again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: str) -> None:
    """Tell a person something, on one line."""
    sys.stderr.write(f"{line}\n")
