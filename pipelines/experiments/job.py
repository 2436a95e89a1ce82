"""One command of a grid: its inputs, and whether its output is up to date."""

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import training
from kg_targets.store.digest import json_sha256
from pipelines.experiments.grid import as_arguments, shown, training_config
from training.engine.checkpoint import FINISHED, RUN, Start, how_to_start
from training.engine.config import RunConfig
from training.engine.run_key import run_key
from training.folders import write_json
from training.tasks import TASKS

SECONDS = "seconds.json"
"""In a run's folder: {"seconds": wall seconds of training, "jobs": at most this many at once, "threads": of each};
seconds are null while it is continued, and where a part of it was not timed."""
_NOT_THE_DATA = ("output", "seed", "optim", "policy", "log")
"""Parts of a configuration on which data and pretrained weights do not depend."""
_BEFORE = "seconds before"
"""In the same file while a run is continued: those of its earlier parts."""


@dataclass(frozen=True)
class Workspace:
    """Output folder of a grid, and its share of the machine."""

    out: Path
    """Folder for everything that is made."""
    jobs: int
    """Commands at a time, ≥ 1."""
    threads: int
    """CPU threads of each, ≥ 1."""

    @property
    def environment(self) -> dict[str, str]:
        """Environment of jobs that have no option for threads."""
        return {"OMP_NUM_THREADS": str(self.threads)}

    def run_settings(self, folder: Path, seed: int) -> dict[str, Any]:
        """Training fields that every run is given, dotted name to value."""
        common = {"seed": seed, "threads": self.threads, "log.trackers": "none"}
        return {**common, "output": shown(folder), "overwrite": True}


@dataclass(frozen=True)
class Job:
    """One command of a stage. Commands that check themselves whether they are up to date are always run."""

    stage: str
    name: str
    """Unique within the stage; also the path of its log."""
    command: tuple[str, ...]
    needs: tuple[Path, ...] = ()
    """Files of earlier stages without which it cannot run."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def shown(self) -> str:
        """The command as a user can run it."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return " ".join([*variables, shlex.join(self.command)])

    def is_current(self) -> bool:
        """Whether its output is there and up to date; only called where all that it needs is there."""
        return False

    def begins(self) -> None:
        """Called before its process is started."""

    def ended(self, seconds: float, finished: bool) -> None:
        """Called after its process has ended.

        Args:
            seconds: that the process took.
            finished: whether it did all of its work.
        """


_known: dict[str, Mapping[str, str]] = {}


def fingerprints(config: RunConfig) -> Mapping[str, str]:
    """Fingerprints of the data and weights that a run is made from, as training itself finds them.

    Found once for all configurations that differ in nothing that they depend on, until ``forget_fingerprints``.

    Raises:
        KGTargetsError: something is damaged, or not there.
    """
    kept = json_sha256({k: v for k, v in asdict(config).items() if k not in _NOT_THE_DATA}, str)
    if kept not in _known:
        _known[kept] = TASKS[config.task].load()(config).fingerprints
    return _known[kept]


def forget_fingerprints() -> None:
    """Look at stores, images and weights again."""
    _known.clear()


@dataclass(frozen=True)
class TrainingJob(Job):
    """A run of ``training/run.py``; current by the key that training itself goes by."""

    workspace: Workspace = field(kw_only=True)
    task: str = field(kw_only=True)
    base: Path = field(kw_only=True)
    settings: Mapping[str, Any] = field(kw_only=True)
    """Every field that the command gives, dotted name to value."""

    @classmethod
    def of(cls, stage: str, name: str, base: Path, settings: Mapping[str, Any], **more: Any) -> "TrainingJob":
        """The job that trains with these settings; ``more``: its other fields."""
        command = (*train(), "--config", shown(base), *as_arguments(settings))
        return cls(stage, name, command, base=base, settings=settings, **more)

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return Path(self.settings["output"])

    def config(self) -> RunConfig:
        """Configuration that ``training/run.py`` makes of the command."""
        return training_config(self.base, self.task, self.settings)

    def key(self) -> str:
        """Key by which training knows this very run.

        Raises:
            KGTargetsError: something that it trains on is damaged, or not there.
        """
        config = self.config()
        return run_key(config, list(fingerprints(config).values()), self.workspace.threads)

    def finished_key(self) -> str:
        """Key of the finished run, as its folder has it."""
        return (self.folder / FINISHED).read_text(encoding="utf-8", errors="replace")

    def start(self) -> Start:
        """State in which ``training/run.py`` will find the folder."""
        config = self.config()
        return how_to_start(config, fingerprints(config), self.workspace.threads)[0]

    def is_current(self) -> bool:
        """Whether this very run is finished."""
        return self.start() is Start.FINISHED

    def begins(self) -> None:
        """Forget how long another run took here; what an unfinished one took is kept aside until this part ends.

        Seconds of a part whose end nobody saw (its runner was killed) are unknown, and so is then the sum: null.
        """
        path = self.folder / SECONDS
        if self.start() is Start.CONTINUE:
            write_json(path, self._told(None) | {_BEFORE: _noted(path).get("seconds")})
        else:
            path.unlink(missing_ok=True)

    def ended(self, seconds: float, finished: bool) -> None:
        """Note the seconds, those of the parts of an interrupted run together."""
        path = self.folder / SECONDS
        if (self.folder / RUN).is_file():
            before = _noted(path).get(_BEFORE) if path.exists() else 0.0
            total = round(before + seconds, 1) if isinstance(before, (int, float)) else None
            write_json(path, self._told(total))

    def _told(self, seconds: float | None) -> dict[str, Any]:
        return {"seconds": seconds, "jobs": self.workspace.jobs, "threads": self.workspace.threads}


@dataclass(frozen=True)
class KeyedJob(Job):
    """A job that makes one file or folder; current by a key of everything that it follows from, kept under OUT/keys."""

    workspace: Workspace = field(kw_only=True)
    made: Path = field(kw_only=True)
    """The file or folder that is written last."""
    follows_from: Callable[[], Any] = field(kw_only=True)
    """Everything that its content follows from, for JSON. Raises KGTargetsError: some of it is damaged or missing."""
    run: TrainingJob | None = field(default=None, kw_only=True)
    """The run that it scores."""
    checks_itself: bool = field(default=False, kw_only=True)
    """Whether the command itself finds out what is up to date."""

    @property
    def _key_file(self) -> Path:
        return self.workspace.out / "keys" / self.stage / f"{self.name}.key"

    def _key(self) -> bytes:
        return json_sha256(self.follows_from()).encode()

    def is_current(self) -> bool:
        """Whether it is there and was made from the same, by a run that is current itself."""
        if self.checks_itself or not (self.run is None or self.run.is_current()):
            return False
        there = self.made.exists() and self._key_file.is_file()
        return there and self._key_file.read_bytes() == self._key()

    def begins(self) -> None:
        """From now on what is there is not this one's."""
        self._key_file.unlink(missing_ok=True)
        self.made.parent.mkdir(parents=True, exist_ok=True)

    def ended(self, seconds: float, finished: bool) -> None:
        """Note what it was made from."""
        if finished:
            self._key_file.parent.mkdir(parents=True, exist_ok=True)
            self._key_file.write_bytes(self._key())


def timing(run: Path) -> dict[str, Any] | None:
    """Time of a run, see ``SECONDS``; ``None`` where nobody noted it or the note is damaged."""
    noted = _noted(run / SECONDS)
    try:
        jobs, threads = int(noted["jobs"]), int(noted["threads"])
        return {"seconds": float(noted["seconds"]), "jobs": jobs, "threads": threads}
    except (ValueError, KeyError, TypeError):
        return None


def _noted(path: Path) -> dict[str, Any]:
    """Content of ``SECONDS``; nothing if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def train() -> tuple[str, ...]:
    """``training/run.py`` by this interpreter."""
    return shown(Path(sys.executable)), shown(Path(training.__file__).parent / "run.py")


def kg_targets_command() -> str:
    """``kg-targets`` beside this interpreter, whose folder may not be on the PATH."""
    return shown(Path(sys.executable).with_name("kg-targets"))
