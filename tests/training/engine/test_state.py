"""A run's saved state: what is read is what was written, and damage is told, never trained on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn
from torch.optim import AdamW

from kg_targets.store.digest import file_sha256
from training.engine import state as module
from training.engine.state import STATE, Progress, drop_state, load_state, save_state, saved_key
from training.errors import CheckpointError

FILES = ("model.safetensors", "optimizer.pt", "state.json")


def trained(seed: int) -> tuple[nn.Module, AdamW]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = AdamW(model.parameters(), lr=0.1, betas=(0.9, 0.98))
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def save(output: Path, seed: int = 0, step: int = 7) -> tuple[nn.Module, AdamW]:
    model, optimizer = trained(seed)
    progress = Progress(step, epoch=2, step_in_epoch=3, best=0.25, metrics={"epoch": 1})
    save_state(
        output, "key", progress, model, {"optimizer": optimizer.state_dict()}, [{"rank": 0}, {"rank": 1}]
    )
    return model, optimizer


def assert_equal(first: Any, second: Any) -> None:
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype and torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            assert_equal(first[name], second[name])
    else:
        assert first == second


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    assert saved_key(tmp_path) is None
    model, optimizer = save(tmp_path)
    assert saved_key(tmp_path) == "key"
    state = load_state(tmp_path, processes=2)
    assert state.progress == Progress(7, 2, 3, 0.25, {"epoch": 1})
    assert state.data == [{"rank": 0}, {"rank": 1}]
    assert_equal(state.model, dict(model.state_dict()))
    assert_equal(state.optimizer["optimizer"]["state"], optimizer.state_dict()["state"])
    AdamW(trained(1)[0].parameters()).load_state_dict(state.optimizer["optimizer"])
    drop_state(tmp_path)
    assert not list(tmp_path.iterdir()) and saved_key(tmp_path) is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_damaged_state_is_told_and_never_used(name: str, damage: str, tmp_path: Path) -> None:
    save(tmp_path)
    path = tmp_path / STATE / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        middle = len(content) // 2
        path.write_bytes(
            content[:middle] + (b"" if damage == "truncated" else b"\0" * 9 + content[middle + 9 :])
        )
    with pytest.raises(CheckpointError, match="--resume never"):
        load_state(tmp_path, processes=2)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), SafetensorError("no space")])
@pytest.mark.parametrize("where", ["save_file", "torch.save"])
def test_a_full_disk_leaves_the_former_state_whole(
    failure: Exception, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = save(tmp_path, step=7)

    def fail(content: Any, path: Path, *_: Any) -> None:
        Path(path).write_bytes(b"as much as there was room for")
        raise failure if where == "save_file" else RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(*((module, "save_file") if where == "save_file" else (torch, "save")), fail)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save(tmp_path, seed=1, step=8)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == [STATE]  # what was half written is gone
    state = load_state(tmp_path, processes=2)
    assert state.progress.step == 7
    assert_equal(state.model, dict(model.state_dict()))


@pytest.mark.parametrize("left", ["state.new", "state.old"])
def test_a_kill_between_the_two_renames_loses_nothing(left: str, tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / STATE).rename(tmp_path / left)
    assert load_state(tmp_path, processes=2).progress.step == 7
    save(tmp_path, step=8)
    assert load_state(tmp_path, processes=2).progress.step == 8


def test_another_number_of_processes_cannot_continue(tmp_path: Path) -> None:
    save(tmp_path)
    with pytest.raises(CheckpointError, match=r"saved by 2 process.* and this is 1"):
        load_state(tmp_path, processes=1)


def test_a_state_that_is_a_pickle_of_something_else_is_not_run(tmp_path: Path) -> None:
    save(tmp_path)
    torch.save(Path("anything"), tmp_path / STATE / "optimizer.pt")
    description = tmp_path / STATE / "state.json"
    content = json.loads(description.read_text())
    content["sha256"]["optimizer.pt"] = file_sha256(tmp_path / STATE / "optimizer.pt")
    description.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="damaged"):
        load_state(tmp_path, processes=2)
