"""A Med-VQA grid from stores to the report as a user runs it: stopped on the way, continued, not repeated."""

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
from tests.processes import kg_targets
from tests.training.vqa.world import write_world

main = kg_targets("tables")

EPOCHS = 20
MODEL = {"preset": "tiny", "text": None, "tokenizer": "world/tokenizer", "dropout": 0}
BASE: dict[str, Any] = {
    "task": "med_vqa_finetune",
    "output": "run",
    "model": MODEL,
    "data": {"dataset": "vqa_rad", "data_root": "world/data", "batch_size": 8, "validation_share": 0.2},
    "optim": {"epochs": EPOCHS},
    "log": {"every": 1},
    "save": {"every": 5},
    "validate_every": EPOCHS,
}
ONE: dict[str, Any] = {
    "task": "med_vqa_pretrain",
    "output": "run",
    "model": MODEL,
    "data": {"store": "store", "data_root": "demo", "batch_size": 8, "dev_share": 0.0},
    "optim": {"epochs": 1, "max_steps": 2},
    "log": {"every": 1},
}
TWO = {**ONE, "stage": "two", "model": {**MODEL, "init_from": "before"}, "loss": {"outer": 5}}
GRID: dict[str, Any] = {
    "title": "Tiny",
    "dataset": "vqa_rad",
    "data_root": "world/data",
    "base": "base.yaml",
    "seeds": [0],
    "parts": [{"protocol": "strict"}],
    "stores": {
        "shared": {
            "command": "kg-targets leakage --dataset vqa_rad --data-root {data_root} --against demo "
            "--against-root demo --touching any --exclude-out {here}"
        },
        "kg": {
            "command": "kg-targets build demo --data-root demo --split train --exclude {shared} --workers 1 "
            "--out {here}"
        },
    },
    "pretrain": [
        {"base": name, "set": {"data.store": "{kg}/train", "soft_labels": [{"store": "{kg}/train"}]}}
        for name in ("one.yaml", "two.yaml")
    ],
    "baseline": "plain",
    "rows": {
        "plain": {"title": "plain", "controls": ["question_only", "shuffled"]},
        "kg": {"title": "knowledge graph", "pretrain": {"set": {"loss.tau_views": 0.1}}},
    },
}  # fmt: skip

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.chdir(tmp_path)
    write_world(tmp_path / "world")
    write_demo(tmp_path / "demo", images=40)
    for name, content in (("base", BASE), ("one", ONE), ("two", TWO), ("tiny", GRID)):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def modified(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_grid_is_stopped_continued_reported_and_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["tiny.yaml", "--out", "out", "--jobs", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "tables", *command, "--only", "plain"],
        stderr=subprocess.PIPE,
        text=True,
    )
    log, deadline = Path("out/runs/plain-strict-seed0/log.jsonl"), time.monotonic() + 240
    while not log.is_file() or not log.stat().st_size:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGTERM)
    assert "stopped by SIGTERM: the same command continues" in process.communicate()[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert not Path("out/runs/plain-strict-seed0/finished.json").exists()

    assert main(command) == 0
    said = capsys.readouterr().err
    for line in (
        "stores 1/1: shared",
        "stores 1/1: kg",
        "pretrain 1/1: kg-stage1-seed0",
        "pretrain (stage two) 1/1",
        "finetune 3/3",
        "wrote out/report.md",
    ):
        assert line in said
    assert "continued after step" in Path("out/logs/finetune/plain-strict-seed0.log").read_text()
    for run in ("plain", "plain-question_only", "kg"):
        lines = Path(f"out/runs/{run}-strict-seed0/log.jsonl").read_text().splitlines()
        assert sorted({json.loads(line)["step"] for line in lines}) == list(range(1, 5 * EPOCHS + 1))
    config = yaml.safe_load(Path("out/runs/kg-strict-seed0/config.yaml").read_text())
    assert config["model"]["init_from"] == "out/pretrain/kg-stage2-seed0"
    told = json.loads(Path("out/report.json").read_text())
    roles = [(row["name"], row["role"]) for row in told["comparison"]["tables"][0]["rows"]][:4]
    assert sorted(roles) == [
        ("knowledge graph", "model"), ("plain", "model"), ("plain", "question_only"), ("plain", "shuffled"),
    ]  # fmt: skip
    assert len(told["rows"]["kg"]["pretraining"]) == 2 and told["rows"]["kg"]["seconds"] > 0
    metadata = json.loads(Path("out/scores/plain-strict-seed0-shuffled/predictions.json").read_text())
    assert (metadata["name"], metadata["images"], metadata["shuffle_seed"]) == ("plain", "shuffled", 0)

    made = [Path("out") / name for name in ("runs", "pretrain", "scores")]
    before = [modified(folder) for folder in made]
    assert main(command) == 0
    said = capsys.readouterr().err
    for line in ("pretrain: 1 of 1 up to date", "finetune: 3 of 3 up to date", "score: 5 of 5 up to date"):
        assert line in said
    assert before == [modified(folder) for folder in made]

    content = {**GRID, "set": {"optim.epochs": 2}}
    Path("tiny.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: 3 finished runs would be replaced, the first: out/runs/plain-strict-seed0 (optim"
    )
    assert before == [modified(folder) for folder in made]

    content["rows"] = {"broken": {"title": "broken", "set": {"data.batch_size": 500}}}
    content["baseline"] = "broken"
    Path("tiny.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert main([*command, "--stage", "finetune"]) == 2
    assert "broken-strict-seed0 failed: error: " in capsys.readouterr().err
    assert main([*command, "--stage", "report"]) == 2
    assert "predictions are missing or out of date (first: broken-strict-seed0)" in capsys.readouterr().err
