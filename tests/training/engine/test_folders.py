"""What names a run's data, where it may write, and how many threads it computes with."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import REPOSITORY
from tests.training.data.test_data import configure
from training.data.files import image_digest
from training.engine.checkpoint import finish_run, start_run
from training.engine.process import resolve_threads
from training.errors import CheckpointError, ConfigError, DataError
from training.folders import check_writable
from training.retrieval.measures import label_sets
from training.retrieval.pictures import _caption

NAMES = ["a.png", "b.png"]


def _images(folder: Path) -> Path:
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(name.encode() * 100)
    return folder


def test_images_are_named_by_content_and_not_by_time_or_place(tmp_path: Path) -> None:
    first = image_digest(_images(tmp_path / "a"), NAMES)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    os.utime(tmp_path / "b" / "a.png", (time.time() + 9, time.time() + 9))
    assert image_digest(tmp_path / "b", NAMES) == first == image_digest(tmp_path / "b", NAMES[::-1])
    (tmp_path / "b" / "a.png").write_bytes(b"b.png" * 100)  # same size
    assert image_digest(tmp_path / "b", NAMES) != first
    (tmp_path / "b" / "a.png").unlink()
    assert image_digest(tmp_path / "b", NAMES) != first


def test_above_the_limit_only_sizes_tell_images_apart(tmp_path: Path) -> None:
    root = _images(tmp_path / "a")
    first = image_digest(root, NAMES, limit=999)
    (root / "a.png").write_bytes(b"b.png" * 100)
    assert image_digest(root, NAMES, limit=999) == first != image_digest(root, NAMES)
    (root / "a.png").write_bytes(b"b.png" * 101)
    assert image_digest(root, NAMES, limit=999) != first


def test_image_digest_reads_nothing_outside_the_data_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="outside the data root"):
        image_digest(tmp_path, ["../a.png"])


def test_zero_threads_are_all_cores_shared_by_the_processes_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert (resolve_threads(0), resolve_threads(3)) == (8, 3)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert (resolve_threads(0), resolve_threads(3)) == (2, 3)
    with pytest.raises(ConfigError, match="threads: -1 must be at least 0"):
        configure("--threads=-1")


def test_the_command_loads_numpy_only_after_it_has_set_the_threads() -> None:
    # OpenBLAS reads OMP_NUM_THREADS when it is loaded: two launchers gave targets that differ in the last bit.
    check = "import sys, training.run; sys.exit(bool({'numpy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], cwd=REPOSITORY).returncode == 0


def test_a_folder_that_cannot_be_written_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    check_writable(tmp_path / "new" / "run", "--out")
    assert not (tmp_path / "new").exists()
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(CheckpointError, match=r"file is a file, not a folder: choose another"):
            check_writable(output, "--out")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(CheckpointError, match=r"--out .*no permission to write"):
        check_writable(tmp_path / "new", "--out")


def test_the_systems_errors_while_writing_a_run_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"^--output .* cannot be written \(.*choose another folder$"):
        start_run(configure(f"--output={tmp_path / 'file' / 'run'}"), {}, 1)
    with pytest.raises(CheckpointError, match="cannot be written"):
        finish_run(tmp_path / "gone", "key", {})


def test_a_label_that_the_store_lacks_is_named_with_those_it_has() -> None:
    for wanted in ("regoin", "finding+regoin", ""):
        with pytest.raises(ConfigError, match=r'no label ".*"; it has finding, region'):
            label_sets(["finding", "region"], [wanted])
    assert label_sets(["finding", "region"], ["finding+region"]) == [("finding", "region")]


def test_long_label_names_are_wrapped_and_not_clipped() -> None:
    caption = _caption([["magnetic resonance"], ["brain"], ["intracerebral haemorrhage"]], 0)
    assert caption.split() == ["magnetic", "resonance", "·", "brain", "intracerebral", "haemorrhage"]
    assert max(map(len, caption.splitlines())) <= 22
    assert _caption([["ct"], [""]], 0) == "ct · –"
