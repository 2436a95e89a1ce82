"""``make bench-gpu`` as far as a CPU goes: every part of it runs in a small size and writes its file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import REPOSITORY

pytest.importorskip("open_clip")
pytestmark = pytest.mark.e2e
FIGURES = {
    "large_batches": "batches", "nb_clip": "steps", "med_vqa": "steps_per_s", "teachers": "transe_triples_per_s",
}  # fmt: skip


def bench(*options: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "gpu.py"), *options]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


def test_a_trial_goes_the_whole_way_and_names_the_device(tmp_path: Path) -> None:
    done = bench("--trial", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert set(found) == {f"gpu_{name}.json" for name in FIGURES}
    for name, figure in FIGURES.items():
        assert found[f"gpu_{name}.json"]["device"] == "cpu" and found[f"gpu_{name}.json"][figure]


def test_parts_that_are_out_of_time_are_named(tmp_path: Path) -> None:
    done = bench("--trial", "--out", str(tmp_path), "--minutes", "0")
    assert done.returncode == 1
    assert "not measured: tests (out of time), losses at large batches (out of time)" in done.stderr
