"""One command of a grid: what it needs, and how one tells that it need not be run again."""

import json
import shlex
import sys
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from training.engine.checkpoint import RUN, Start, how_to_start, write_json
from training.engine.config import RunConfig

SECONDS = "seconds.json"
"""In a run's folder: {"seconds": wall seconds of training, "jobs": at most this many at once, "threads": of each};
seconds are null while it is continued, and where a part of it was not timed."""
_BEFORE = "seconds before"
"""In the same file while a run is continued: those of its earlier parts."""


@dataclass(frozen=True)
class Job:
    """One command of a stage. Those that find out by themselves that nothing is to do are always run."""

    stage: str
    name: str
    """Unique within the stage; also the path of its log."""
    command: tuple[str, ...]
    needs: tuple[Path, ...] = ()
    """Files of earlier stages without which it cannot run."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def shown(self) -> str:
        """The command as a user can run it."""
        return " ".join(
            [*(f"{key}={value}" for key, value in self.environment.items()), shlex.join(self.command)]
        )

    def is_current(self) -> bool:
        """Whether what it makes is there and up to date; only asked where all that it needs is there."""
        return False

    def begins(self) -> None:
        """Called before its process is started."""

    def ended(self, seconds: float, finished: bool) -> None:
        """Called after its process has ended.

        Args:
            seconds: that the process took.
            finished: whether it did all of its work.
        """


class Share(Protocol):
    """Where a plan is worked on, and with how much of the machine."""

    @property
    def out(self) -> Path:
        """Folder for everything that is made."""

    @property
    def jobs(self) -> int:
        """Commands at a time, ≥ 1."""

    @property
    def threads(self) -> int:
        """CPU threads of each, ≥ 1."""


@dataclass(frozen=True)
class TrainingJob(Job):
    """A run of ``training/run.py``; current by the key that training itself goes by."""

    plan: Share = field(kw_only=True)

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Of the run."""

    @abstractmethod
    def config(self) -> RunConfig:
        """What ``training/run.py`` will make of the command, but for the places of data and output."""

    @abstractmethod
    def key(self) -> str:
        """By which training knows this very run.

        Raises:
            KGTargetsError: something that it trains on is damaged, or not there.
        """

    def start(self) -> Start:
        """What ``training/run.py`` will find in the folder."""
        return how_to_start(self.folder, self.key(), overwrite=True)

    def is_current(self) -> bool:
        """Whether this very run is finished."""
        return self.start() is Start.FINISHED

    def begins(self) -> None:
        """Forget how long another run took here; what an unfinished one took is kept aside until this part ends.

        Seconds of a part whose end nobody saw (its runner was killed) are unknown, and so is then the sum: null.
        """
        path = self.folder / SECONDS
        if self.start() is Start.CONTINUE:
            write_json(path, self._told(None) | {_BEFORE: _timing(path).get("seconds")})
        else:
            path.unlink(missing_ok=True)

    def ended(self, seconds: float, finished: bool) -> None:
        """Note the seconds, those of the parts of an interrupted run together."""
        path = self.folder / SECONDS
        if (self.folder / RUN).is_file():
            before = _timing(path).get(_BEFORE) if path.exists() else 0.0
            whole = round(before + seconds, 1) if isinstance(before, (int, float)) else None
            write_json(path, self._told(whole))

    def _told(self, seconds: float | None) -> dict[str, Any]:
        return {"seconds": seconds, "jobs": self.plan.jobs, "threads": self.plan.threads}


@dataclass(frozen=True)
class KeyedJob(Job):
    """A job that makes one file or folder; current by a key of everything that it follows from, kept under OUT/keys."""

    plan: Share = field(kw_only=True)

    @property
    @abstractmethod
    def made(self) -> Path:
        """What it writes last."""

    @abstractmethod
    def key(self) -> str:
        """Of everything that its content follows from.

        Raises:
            KGTargetsError: some of that is damaged, or not there.
        """

    @property
    def _key_file(self) -> Path:
        return self.plan.out / "keys" / self.stage / f"{self.name}.key"

    def is_current(self) -> bool:
        """Whether it is there and was made from the same."""
        there = self.made.exists() and self._key_file.is_file()
        return there and self._key_file.read_bytes() == self.key().encode()

    def begins(self) -> None:
        """From now on what is there is not this one's."""
        self._key_file.unlink(missing_ok=True)
        self.made.parent.mkdir(parents=True, exist_ok=True)

    def ended(self, seconds: float, finished: bool) -> None:
        """Note what it was made from."""
        if finished:
            self._key_file.parent.mkdir(parents=True, exist_ok=True)
            self._key_file.write_bytes(self.key().encode())


def _timing(path: Path) -> dict[str, Any]:
    """What ``SECONDS`` says; nothing if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def python() -> str:
    """This interpreter, as a command."""
    return shown(Path(sys.executable))


def shown(path: Path) -> str:
    """A path as a person would type it: relative where it lies below the current folder."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
