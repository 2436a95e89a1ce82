"""Jobs of a grid are run some at a time: one failure stops no other, a stop is orderly, a folder has one user."""

import io
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kg_targets.errors import ConfigError, StoreError
from pipelines.experiments.job import Job
from pipelines.experiments.runner import MARKER, Runner, StoppedError, claimed
from training.engine.process import StopRequest


@dataclass(frozen=True)
class Noted(Job):
    """A job whose ends are noted."""

    current: bool = False
    damaged: str = ""

    def is_current(self) -> bool:
        if self.damaged == "key":
            raise StoreError("the store is\ndamaged")
        return self.current

    def begins(self) -> None:
        if self.damaged == "folder":
            raise PermissionError(13, "Permission denied", "place")

    def ended(self, seconds: float, finished: bool) -> None:
        if self.damaged == "seconds":
            raise ValueError("no number")
        ENDED.append((self.name, finished))


ENDED: list[tuple[str, bool]] = []


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def runner(out: Path, stop: StopRequest, screen: io.StringIO, jobs: int = 2) -> Any:
    ENDED.clear()
    lock = (out / MARKER).open("a+")
    return Runner(out, jobs, lock.fileno(), stop, screen), lock


def test_a_failing_job_is_told_by_its_last_error_and_stops_nobody(tmp_path: Path) -> None:
    screen = io.StringIO()
    fail = "import sys; print('x'); sys.stderr.write('error: the disk is full\\nbye\\n'); sys.exit(2)"
    jobs = [
        Noted("runs", "bad/a", python(fail)),
        Noted("runs", "good/b", python("import os; print(os.environ['MINE'])"), (), {"MINE": "3"}),
        Noted("runs", "done/c", python("raise SystemExit(1)"), current=True),
        Noted("runs", "lost/d", python("1"), (tmp_path / "nowhere",)),
    ]  # fmt: skip
    with StopRequest() as stop:
        running, lock = runner(tmp_path, stop, screen)
        with lock:
            assert running.run("runs", jobs) == 2
    said = screen.getvalue()
    assert "runs: 1 of 4 up to date" in said and "1 left out" in said and "nowhere is not there" in said
    assert f"bad/a failed: error: the disk is full (see {tmp_path}/logs/runs/bad/a.log)" in said
    assert sorted(ENDED) == [("bad/a", False), ("good/b", True)]
    assert (tmp_path / "logs/runs/good/b.log").read_text() == "3\n"


def test_damaged_files_of_a_job_are_its_failure_and_nobody_elses(tmp_path: Path) -> None:
    screen, slow = io.StringIO(), python("import time; time.sleep(1)")
    jobs = [
        Noted("runs", "slow/a", slow),
        Noted("runs", "bad/b", python("1"), damaged="key"),
        Noted("runs", "bad/c", python("1"), damaged="folder"),
        Noted("runs", "bad/d", python("1"), damaged="seconds"),
        Noted("runs", "good/e", python("1")),
    ]
    with StopRequest() as stop:
        running, lock = runner(tmp_path, stop, screen)
        with lock:
            assert running.run("runs", jobs) == 3
    said = screen.getvalue()
    assert "runs: bad/b failed: error: the store is damaged\n" in said
    assert "runs: bad/c failed: error: --out" in said and "Permission denied" in said
    assert "bad/d failed: error: no number\n" in said and "runs 3/3: slow/a, " in said
    assert sorted(ENDED) == [("good/e", True), ("slow/a", True)]


def test_a_request_to_stop_ends_the_jobs_and_starts_no_others(tmp_path: Path) -> None:
    screen, code = (
        io.StringIO(),
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(143)); time.sleep(60)",
    )
    jobs = [Noted("runs", f"job{number}", python(code)) for number in range(4)]
    with StopRequest() as stop:
        stop_later(stop)
        running, lock = runner(tmp_path, stop, screen)
        begun = time.monotonic()
        with lock, pytest.raises(StoppedError) as caught:
            running.run("runs", jobs)
    assert caught.value.number == 15 and time.monotonic() - begun < 30
    assert sorted(ENDED) == [("job0", False), ("job1", False)] and "failed" not in screen.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_what_is_running_and_a_pipe_one_line_for_each_job(tmp_path: Path) -> None:
    for screen in (Terminal(), io.StringIO()):
        with StopRequest() as stop:
            running, lock = runner(tmp_path, stop, screen)
            with lock:
                assert (
                    running.run("runs", [Noted("runs", f"job{number}", python("1")) for number in range(3)])
                    == 0
                )
        said = screen.getvalue()
        assert ("\r\x1b[Kruns 0/3, running: job0 0 s, job1 0 s" in said) is screen.isatty()
        assert "runs 3/3: job" in said and ("\r" in said) is screen.isatty()
        assert "left" in said.split("1/3")[-1].split("\n")[0]


def stop_later(stop: StopRequest) -> None:
    import threading

    def note() -> None:
        time.sleep(1)
        stop.signal = 15

    threading.Thread(target=note).start()


def test_a_folder_belongs_to_one_grid_and_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.experiments.runner._OTHERS", 0.2)
    out, said = tmp_path / "out", list[str]()
    with (
        claimed(out, "demo", said.append),
        pytest.raises(ConfigError, match="another command is at work"),
        claimed(out, "demo", said.append),
    ):
        pass
    assert said == [f"{out}: jobs of another command are still at work, waiting for up to 0 s"]
    assert json.loads((out / MARKER).read_text()) == {"grid": "demo"}
    with claimed(out, "demo", said.append):
        pass
    with (
        pytest.raises(ConfigError, match="holds the tables of another grid"),
        claimed(out, "medpix", said.append),
    ):
        pass
    (tmp_path / "thesis.txt").write_text("kept")
    with pytest.raises(ConfigError, match="holds no tables"), claimed(tmp_path, "demo", said.append):
        pass
