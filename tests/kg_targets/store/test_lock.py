"""The lock of an output: its holder is named, the dead hold nothing, and it works on disks without ``flock``."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kg_targets.errors import StoreError
from kg_targets.store import StoreWriter, lock
from kg_targets.store.lock import FolderLock

DISKS = ["with flock", "without"]


@pytest.fixture(params=DISKS)
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "without":
        monkeypatch.setattr(lock, "_has_flock", lambda folder: False)
    return str(request.param)


def signed(path: Path, process: int, host: str = "") -> None:
    content = {"process": process, "host": host or socket.gethostname(), "since": "yesterday"}
    path.write_text(json.dumps(content))


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_a_second_writer_is_told_who_is_at_work_and_the_next_finds_it_free(disk: str, tmp_path: Path) -> None:
    with (
        FolderLock(tmp_path / "train"),
        pytest.raises(StoreError, match=rf"process {os.getpid()} on {socket.gethostname()}, since 20"),
        FolderLock(tmp_path / "train"),
    ):
        pass
    with FolderLock(tmp_path / "train"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.*taken over")
def test_what_a_dead_process_of_this_machine_left_is_taken(disk: str, tmp_path: Path) -> None:
    signed(tmp_path / ".train.lock", dead_process())
    with FolderLock(tmp_path / "train") as held:
        assert held.holder()["process"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_without_flock_another_machine_holds_it_until_it_has_been_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_has_flock", lambda folder: False)
    path = tmp_path / ".train.lock"
    signed(path, os.getpid(), "elsewhere")
    with pytest.raises(StoreError, match="on elsewhere, since yesterday"), FolderLock(tmp_path / "train"):
        pass
    os.utime(path, (time.time() - 2 * lock.STALE,) * 2)
    with (
        pytest.warns(UserWarning, match="taken over, its holder .* on elsewhere"),
        FolderLock(tmp_path / "train"),
    ):
        pass


def test_without_flock_a_holder_at_work_touches_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_has_flock", lambda folder: False)
    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    with FolderLock(tmp_path / "train") as held:
        os.utime(held.path, (0, 0))
        until = time.monotonic() + 20
        while held.path.stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.01)
        assert held.path.stat().st_mtime > 0


def test_a_link_in_the_place_of_hidden_files_costs_its_target_nothing(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / "targets").mkdir(parents=True)
    (precious / "targets" / "letter.txt").write_text("dear")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".train.partial").symlink_to(precious)
    with StoreWriter(tmp_path / "out" / "train") as writer:
        writer.finish({"rows": 0}, {})
    assert (precious / "targets" / "letter.txt").read_text() == "dear"
    assert sorted(path.name for path in precious.rglob("*")) == ["letter.txt", "targets"]
    assert (tmp_path / "out" / "train" / "manifest.json").is_file()
    assert not (tmp_path / "out" / "train").is_symlink()
