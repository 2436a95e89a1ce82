"""Runs the commands of a stage, some at a time: logs, progress, failures that stop nobody else, and an orderly end."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from kg_targets.errors import ConfigError, KGTargetsError
from training.engine.process import StopRequest, die_with_parent
from training.folders import check_writable, writing

if TYPE_CHECKING:
    from pipelines.experiments.job import Job  # loads torch

MARKER = "grid.json"
"""In OUT: which grid is worked on there; locked while somebody does."""
_POLL = 0.1  # seconds
_OTHERS = 60.0  # seconds that jobs of a killed command get to save their state
_OF_ONE_JOB = (KGTargetsError, OSError, ValueError)
"""Errors of a job outside its process, such as damaged files: it fails, its neighbours go on."""


class StoppedError(Exception):
    """Ctrl-C or SIGTERM came: the jobs were stopped, the same command continues."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}: the same command continues")
        self.number = number


@contextmanager
def claimed(out: Path, grid: str, say: Callable[[str], None]) -> Iterator[int]:
    """OUT for this grid and this process alone; made if it does not exist.

    Jobs inherit the lock: those of a command that was killed outright hold it until they have saved their state.

    Yields:
        The lock's file descriptor, for jobs to inherit.

    Raises:
        ConfigError: OUT is another grid's or something else, or another command is at work there.
        CheckpointError: it cannot be written.
    """
    check_writable(out, "--out")
    marker = out / MARKER
    if out.is_dir() and any(out.iterdir()) and not marker.is_file():
        raise ConfigError(f"--out {out} is not empty and holds no tables: choose another folder")
    with writing(out, "--out"):
        out.mkdir(parents=True, exist_ok=True)
        stream = marker.open("a+", encoding="utf-8")
    with stream:
        _lock(stream, out, say)
        stream.seek(0)
        text = stream.read()
        mine = json.dumps({"grid": grid}) + "\n"
        if text and text != mine:
            raise ConfigError(
                f"--out {out} holds the tables of another grid: choose another folder for {grid}"
            )
        if not text:
            with writing(out, "--out"):
                stream.write(mine)
                stream.flush()
        yield stream.fileno()


def _lock(stream: TextIO, out: Path, say: Callable[[str], None]) -> None:
    deadline, told = time.monotonic() + _OTHERS, False
    while True:
        try:
            return fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                raise ConfigError(f"another command is at work in {out}: wait for it, or stop it") from None
        if not told:
            say(f"{out}: jobs of another command are still at work, waiting for up to {_OTHERS:.0f} s")
            told = True
        time.sleep(_POLL)


@dataclass
class _Running:
    job: "Job"
    process: "subprocess.Popen[bytes]"
    log: Path
    started: float = field(default_factory=time.monotonic)
    stopped: float | None = None

    def seconds(self) -> float:
        return (self.stopped or time.monotonic()) - self.started


class Runner:
    """Runs jobs, at most ``jobs`` at a time, each with a log of its own under OUT/logs.

    Args:
        out: the grid's folder.
        jobs: commands at a time.
        lock: descriptor that jobs inherit, see ``claimed``.
        stop: an entered request to stop.
        screen: receives progress: a live line on a terminal, a line per finished job elsewhere.
    """

    def __init__(self, out: Path, jobs: int, lock: int, stop: StopRequest, screen: TextIO) -> None:
        self.out, self.jobs, self.lock, self.stop, self.screen = out, jobs, lock, stop, screen

    def run(self, stage: str, jobs: Sequence["Job"]) -> int:
        """Run those that are not up to date, in their order.

        Returns:
            How many failed, or could not run because an earlier stage left something out.

        Raises:
            StoppedError: a signal asked for it; the jobs have ended.
        """
        absent = {job.name: next((path for path in job.needs if not path.exists()), None) for job in jobs}
        able = [job for job in jobs if absent[job.name] is None]
        lacking = [job.name for job in jobs if absent[job.name] is not None]
        waiting, failed = self._outdated(stage, able)
        count = len(waiting)
        if len(able) > count + failed:
            self._say(f"{stage}: {len(able) - count - failed} of {len(jobs)} up to date")
        running: list[_Running] = []
        seconds: list[float] = []
        try:
            while waiting or running:
                while waiting and len(running) < self.jobs and not self.stop.signal:
                    started = self._start(stage, waiting.popleft())
                    if started is not None:
                        running.append(started)
                    else:
                        failed, count = failed + 1, count - 1
                self._show(f"{stage} {len(seconds)}/{count}", running)
                time.sleep(_POLL)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    problem = self._end(one)
                    seconds.append(one.seconds())
                    if not self.stop.signal:
                        failed += bool(problem)
                        left = len(waiting) + len(running)
                        said = f" failed: {problem}" if problem else f", {_duration(one.seconds())}"
                        if left and not problem:  # if it goes on like the median so far
                            typical = sorted(seconds)[len(seconds) // 2]
                            said += f", about {_duration(typical * left / min(self.jobs, left))} left"
                        self._say(f"{stage} {len(seconds)}/{count}: {one.job.name}{said}")
                if self.stop.signal:
                    self._stop(running)
                    raise StoppedError(self.stop.signal)
        except BaseException:
            for one in running:
                one.process.kill()
                one.process.wait()
            raise
        finally:
            self._clear()
        if lacking:
            first = lacking[0]
            self._say(f"{stage}: {len(lacking)} left out, {absent[first]} is not there (first: {first})")
        return failed + len(lacking)

    def _outdated(self, stage: str, jobs: Sequence["Job"]) -> tuple[deque["Job"], int]:
        """Jobs that are to be run, and the number of those that cannot even be checked."""
        outdated, failed = deque["Job"](), 0
        for job in jobs:
            try:
                if not job.is_current():
                    outdated.append(job)
            except _OF_ONE_JOB as error:
                failed += 1
                self._say(f"{stage}: {job.name} failed: {_line(error)}")
        return outdated, failed

    def _start(self, stage: str, job: "Job") -> _Running | None:
        """Start a job; None, with a message, if that fails."""
        log = self.out / "logs" / job.stage / f"{job.name}.log"
        try:
            with writing(self.out, "--out"):
                job.begins()
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("wb") as stream:
                    process = subprocess.Popen(
                        job.command,
                        stdin=subprocess.DEVNULL,
                        stdout=stream,
                        stderr=subprocess.STDOUT,
                        env={**os.environ, **job.environment},
                        pass_fds=(self.lock,),
                        start_new_session=True,  # a terminal's Ctrl-C is passed on once, by this process
                        preexec_fn=die_with_parent,
                    )
        except _OF_ONE_JOB as error:
            self._say(f"{stage}: {job.name} failed: {_line(error)}")
            return None
        return _Running(job, process, log)

    def _end(self, one: _Running) -> str:
        """The reason why the job failed, empty if it did not."""
        one.stopped = time.monotonic()
        finished = one.process.returncode == 0
        try:
            with writing(self.out, "--out"):
                one.job.ended(one.seconds(), finished)
                return "" if finished else f"{_last_error(one.log)} (see {one.log})"
        except _OF_ONE_JOB as error:
            return _line(error)

    def _stop(self, running: list[_Running]) -> None:
        """Let training save its state; a second Ctrl-C does not wait for that."""
        if running:
            self._say(f"stopping {len(running)} job(s), which save their state ...")
        for one in running:
            one.process.terminate()
        while running:
            one = running[0]
            one.process.wait()
            self._end(one)
            running.pop(0)

    def _show(self, done: str, running: list[_Running]) -> None:
        if self.screen.isatty():
            line = f"{done}, running: " + ", ".join(
                f"{one.job.name} {_duration(one.seconds())}" for one in running
            )
            self.screen.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
            self.screen.flush()

    def _clear(self) -> None:
        if self.screen.isatty():
            self.screen.write("\r\x1b[K")

    def _say(self, line: str) -> None:
        self._clear()
        self.screen.write(line + "\n")
        self.screen.flush()


def _line(error: Exception) -> str:
    return f"error: {' '.join(str(error).split())}"


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), seconds / 3600
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{hours:.1f} h"


def _last_error(log: Path) -> str:
    """The last line that says what was wrong, else the last line."""
    lines = [
        line.strip()
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or ["it said nothing"])[-1]
