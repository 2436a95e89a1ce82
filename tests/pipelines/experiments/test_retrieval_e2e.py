"""A grid from captions to tables as a user runs it: killed on the way, continued, not repeated, a broken row told."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.demo import write_demo
from tests import REPOSITORY
from tests.pipelines.experiments.grids import OFFICIAL
from tests.processes import kg_targets

main = kg_targets("tables")

STEPS = 200
BASE: dict[str, Any] = {
    "output": "run",
    "model": {"name": "test-vit"},
    "data": {"train_store": "store", "data_root": "data", "batch_size": 8},
    "optim": {"epochs": 50, "max_steps": STEPS},
    "log": {"every": 1},
    "save": {"every": 20},
}
GRID = {**OFFICIAL, "base": "base.yaml", "evaluation": {"draws": 50}}

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


def modified(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_grid_is_killed_continued_reported_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_demo(tmp_path / "data", images=60)
    Path("base.yaml").write_text(yaml.safe_dump(BASE))
    Path("tiny.yaml").write_text(yaml.safe_dump(GRID, sort_keys=False))
    command = ["tiny.yaml", "--data-root", "data", "--out", "out", "--jobs", "2"]

    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "tables", *command], stderr=subprocess.PIPE, text=True
    )
    log, deadline = Path("out/runs/sm/test-s0/log.jsonl"), time.monotonic() + 120
    while not log.is_file() or not log.stat().st_size:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not Path("out/runs/sm/test-s0/finished.json").exists()

    assert main(command) == 0
    said = capsys.readouterr().err
    assert "runs 2/2" in said and "scores 3/3" in said and "wrote out/tables.md" in said
    assert "continued after step" in Path("out/logs/runs/sm/test-s0.log").read_text()
    for row in ("infonce", "sm"):
        lines = Path(f"out/runs/{row}/test-s0/log.jsonl").read_text().splitlines()
        assert sorted({json.loads(line)["step"] for line in lines}) == list(range(1, STEPS + 1))
        assert json.loads(Path(f"out/runs/{row}/test-s0/seconds.json").read_text())["jobs"] == 2
        assert Path(f"out/scores/{row}/test-s0.parquet").is_file()
    assert Path("out/scores/chance/test.parquet").is_file() and Path("out/report.json").is_file()
    assert "InfoNCE" in Path("out/tables.md").read_text()

    before = modified(Path("out/runs")) | modified(Path("out/scores")) | modified(Path("out/stores"))
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "runs: 2 of 2 up to date" in said and "scores: 3 of 3 up to date" in said
    assert before == modified(Path("out/runs")) | modified(Path("out/scores")) | modified(Path("out/stores"))

    quick = {"title": "SM", "store": "ontology", "set": {"optim.max_steps": 3}}
    Path("own").mkdir()
    Path("own/tiny.yaml").write_text(yaml.safe_dump({**GRID, "rows": {**GRID["rows"], "sm": quick}}))
    for given, more, expected in (
        (
            "tiny.yaml",
            ["--threads", "2"],
            "2 finished runs would be replaced, the first: out/runs/infonce/test-s0",
        ),
        (
            "own/tiny.yaml",
            [],
            "1 finished run would be replaced, the first: out/runs/sm/test-s0 (optim.max_steps was",
        ),
    ):
        assert main([given, *command[1:], *more]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {expected}") and error.count("\n") == 1 and "--replace" in error
    assert before == modified(Path("out/runs")) | modified(Path("out/scores")) | modified(Path("out/stores"))
    kept = modified(Path("out/runs/infonce"))
    assert main(["own/tiny.yaml", *command[1:], "--stage", "runs", "--replace"]) == 0
    assert "runs: 1 of 2 up to date" in capsys.readouterr().err and kept == modified(Path("out/runs/infonce"))
    assert len(Path("out/runs/sm/test-s0/log.jsonl").read_text().splitlines()) < STEPS

    broken = {"title": "Broken", "store": "ontology", "set": {"data.batch_size": 500}}
    content = {**GRID, "rows": {"broken": broken, **GRID["rows"], "sm": quick}}
    content["tables"] = [{**GRID["tables"][0], "rows": ["broken", "infonce", "sm"]}]
    Path("tiny.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert main([*command, "--stage", "runs"]) == 2
    said = capsys.readouterr().err
    assert "runs: 2 of 3 up to date" in said and "broken/test-s0 failed: error: " in said
    assert main([*command, "--stage", "report"]) == 2
    assert "2 of 4 score sheets are missing or out of date (first: broken/test-s0)" in capsys.readouterr().err
