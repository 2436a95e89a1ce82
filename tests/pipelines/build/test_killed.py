"""Builds that are killed: no worker outlives its parent, and SIGTERM of a batch system cleans up as Ctrl-C does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kg_targets.errors import ConfigError
from pipelines.build.executors import map_in_order

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
REPOSITORY = Path(__file__).parents[3]
WORK = """
import os, sys, time
from pathlib import Path
from kg_targets.store import StoreWriter
from pipelines.build.executors import map_in_order

def work(item):
    (Path(sys.argv[1]) / f"worker-{os.getpid()}").touch()
    time.sleep(0.2)

with StoreWriter(Path(sys.argv[1]) / "out" / "train"):
    for _ in map_in_order(work, range(100_000), 3):
        pass
"""


def until(condition, seconds: float = 60.0) -> bool:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


def workers(folder: Path) -> list[int]:
    return [int(path.name.partition("-")[2]) for path in folder.glob("worker-*")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_workers_of_a_killed_build_end_and_let_go_of_its_lock(number: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORK, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL) as build:
        assert until(lambda: len(workers(tmp_path)) == 3)
        build.send_signal(number)
    assert until(lambda: not any(map(alive, workers(tmp_path))), 20)
    again = "import sys; from kg_targets.store import StoreWriter\nwith StoreWriter(sys.argv[1]) as w: w.finish({}, {})"
    out = tmp_path / "out" / "train"
    assert subprocess.run([sys.executable, "-c", again, str(out)], cwd=REPOSITORY).returncode == 0
    assert [path.name for path in out.parent.iterdir()] == ["train"]


def test_sigterm_cleans_up_as_ctrl_c_does(tmp_path: Path) -> None:
    command = ["-m", "pipelines.cli", "demo-data", "--images", "20000", "--out", str(tmp_path / "data")]
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as demo:
        assert until(lambda: any(tmp_path.glob(".data.*/new/images/*.png")))
        demo.terminate()
        err = demo.communicate(timeout=60)[1]
    assert demo.returncode == 128 + signal.SIGTERM
    assert err.startswith("interrupted: ") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def kill_own_process(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_killed_alone_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"a worker process was killed, .* take fewer --workers"):
        list(map_in_order(kill_own_process, range(8), 2))
