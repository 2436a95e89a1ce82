"""Base of every plan: stages of jobs, checks before them, and finished runs that are not replaced unless told to."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from kg_targets.errors import DataError
from pipelines.experiments.grid import Grid, shown
from pipelines.experiments.job import Job, KeyedJob, TrainingJob, Workspace, forget_fingerprints
from training.engine.checkpoint import CONFIG, FINISHED
from training.engine.run_key import other_settings
from training.errors import ConfigError, KGTargetsError

REPORT = "report"
"""The last stage, which the command does without a job."""
Say = Callable[[str], None]
"""Tells a person something, on one line."""
Rounds = list[tuple[str, Callable[[], Sequence[Job]]]]
"""Name to what makes the jobs of each round."""
_OTHER_DATA = "from other stores, images or weights"


@dataclass(frozen=True)
class Plan(ABC):
    """A grid's work: its stages as lists of commands."""

    workspace: Workspace
    only: tuple[str, ...] = ()
    """Rows that are trained and scored; empty for all."""
    grid: Grid = field(kw_only=True)

    stages: ClassVar[tuple[str, ...]]
    """Names of the stages, in their order; the report is the last."""
    scored: ClassVar[str]
    """Name of the files that a report is made from."""

    @property
    def selected(self) -> list[Any]:
        """The grid's rows of ``only``, or all."""
        return [row for name, row in self.grid.rows.items() if not self.only or name in self.only]

    @abstractmethod
    def check(self, *, dry: bool, say: Say) -> None:
        """Refuse, before anything runs, what cannot be done; tell what will not be.

        Args:
            dry: nothing is to be run, so that data need not be there.
            say: for what is no reason to stop.

        Raises:
            KGTargetsError: the data, or what is to be measured of them, are not there.
        """

    def before(self, stage: str) -> None:
        """Called before the jobs of a round of that name are made; those before it have run."""
        forget_fingerprints()

    @abstractmethod
    def rounds(self, stage: str) -> Rounds:
        """Name and jobs of each round of a stage; what goes on from another job comes in a later round."""

    def runs(self, stages: Sequence[str]) -> list[TrainingJob]:
        """The training runs of some stages."""
        jobs = [job for stage in stages for _, make in self.rounds(stage) for job in make()]
        return [job for job in jobs if isinstance(job, TrainingJob)]

    @abstractmethod
    def scores(self) -> list[KeyedJob]:
        """The jobs that make what the report is made from."""

    @abstractmethod
    def write_report(self, docs: Path | None) -> list[Path]:
        """Write the report, for ``docs``, too; returns the files. See the report of each task."""

    def report(self, docs: Path | None) -> list[Path]:
        """Write the report of every row, or of the rows of --only.

        Raises:
            DataError: something that it is made from is missing, or was made from something else.
        """
        jobs = self.scores()
        stale = [job for job in jobs if not all(path.exists() for path in job.needs) or not job.is_current()]
        if stale:
            raise DataError(
                f"{len(stale)} of {len(jobs)} {self.scored} are missing or out of date (first: {stale[0].name}): "
                f"the command without --stage {REPORT} makes them"
            )
        return self.write_report(docs)


def keep_finished(jobs: Sequence[Job], *, settings_only: bool) -> None:
    """Refuse to train where another finished run would go.

    Args:
        jobs: what is wanted; runs among them are looked at.
        settings_only: compare configurations only, for the time before stores are up to date.

    Raises:
        ConfigError: at least one would.
    """
    runs = [job for job in jobs if isinstance(job, TrainingJob)]
    lost = [(job.folder, difference) for job in runs if (difference := _difference(job, settings_only))]
    if lost:
        folder, difference = lost[0]
        count = "1 finished run" if len(lost) == 1 else f"{len(lost)} finished runs"
        raise ConfigError(
            f"{count} would be replaced, the first: {shown(folder)} ({difference}): --replace trains anew what "
            "differs, or choose another --out, or give the grid back what it had"
        )


def _difference(job: TrainingJob, settings_only: bool) -> str:
    """In what the finished run in the job's folder is another one; empty if in nothing, or if there is none."""
    if not (job.folder / FINISHED).is_file():
        return ""
    try:
        if settings := other_settings(job.folder / CONFIG, job.config()):
            return str(settings[0])
        if settings_only or not all(path.exists() for path in job.needs):
            return ""
        return "" if job.key() in job.finished_key() else _OTHER_DATA
    except (KGTargetsError, OSError):
        return ""  # a damaged store, or images that are gone: the job itself fails by it, before it replaces anything
