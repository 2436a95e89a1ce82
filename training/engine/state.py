"""The state of an unfinished run: all that the next step depends on, so that a killed run continues identically.

OUTPUT/state/model.safetensors     weights and buffers
OUTPUT/state/optimizer.pt          optimizer, schedule and gradient scaler (tensors and numbers; read with weights_only)
OUTPUT/state/state.json            position, measures so far, data state of each process, and the digests of the others

Random numbers are no part of it: order, augmentation and dropout are functions of (seed, epoch, step, rank). A new
state is written beside the former one and then takes its place, so that one of them is whole at any time.
"""

import json
import pickle
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kg_targets.store.digest import file_sha256
from training.errors import CheckpointError
from training.folders import fresh_folder, replace_folder, writing
from training.weights import saved_weights

STATE = "state"
_MODEL, _OPTIMIZER, _STATE = "model.safetensors", "optimizer.pt", "state.json"


@dataclass
class Progress:
    """Progress of a run."""

    step: int = 0
    """Optimizer steps done."""
    epoch: int = 1
    """The current epoch, counted from 1."""
    step_in_epoch: int = 0
    """Steps of it done."""
    best: float | None = None
    """Best dev measure so far."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Entries of metrics.json for the chosen epoch."""


@dataclass(frozen=True)
class State:
    """A saved state, read and checked."""

    progress: Progress
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    """State dicts by name: optimizer, schedule and, under fp16, scaler."""
    data: list[Any]
    """Data state of each process, by rank."""


def saved_key(output: Path) -> str | None:
    """Key of the run whose state is saved in ``output``; None where nothing is saved.

    Raises:
        CheckpointError: there is a state and it is damaged.
    """
    folder = _whole(output)
    return None if folder is None else str(_description(folder)["key"])


def save_state(
    output: Path,
    key: str,
    progress: Progress,
    model: nn.Module,
    optimizer: dict[str, Any],
    data: list[Any],
) -> None:
    """Write OUTPUT/state; what was there stays until the new one is whole. By the main process only.

    Raises:
        CheckpointError: it cannot be written (the disk is full, say); the former state is untouched.
    """
    with writing(output, "--output"):
        fresh = _beside(output, ".new")
        with fresh_folder(fresh):
            try:
                save_file(saved_weights(model), fresh / _MODEL)
                torch.save(optimizer, fresh / _OPTIMIZER)
            except (
                SafetensorError,
                RuntimeError,
            ) as error:  # how a full disk comes out of safetensors and of torch
                raise OSError(str(error)) from error
            content = {
                "key": key,
                "progress": asdict(progress),
                "data": data,
                "sha256": {name: file_sha256(fresh / name) for name in (_MODEL, _OPTIMIZER)},
            }
            (fresh / _STATE).write_text(json.dumps(content), encoding="utf-8")
        replace_folder(fresh, output / STATE, _beside(output, ".old"))


def load_state(output: Path, processes: int) -> State:
    """Read the saved state of ``output``.

    Args:
        output: the run's folder; it has a state.
        processes: number of processes now; the data states belong to as many.

    Raises:
        CheckpointError: a file is missing, truncated or altered, or the number of processes is another one.
    """
    folder = _whole(output)
    if folder is None:
        raise CheckpointError(f"{output} holds no saved state: start over with --resume never")
    content = _description(folder)
    if len(content["data"]) != processes:
        raise CheckpointError(
            f"{folder} was saved by {len(content['data'])} process(es) and this is {processes}: "
            "continue with as many, or start over with --resume never"
        )
    for name, digest in content["sha256"].items():
        if not (folder / name).is_file() or file_sha256(folder / name) != digest:
            raise _damaged(folder / name)
    try:
        model = load_file(folder / _MODEL)
        optimizer = torch.load(folder / _OPTIMIZER, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError) as error:
        raise _damaged(folder) from error
    return State(Progress(**content["progress"]), model, optimizer, content["data"])


def drop_state(output: Path) -> None:
    """Remove the state of a run that needs it no more."""
    with writing(output, "--output"):
        for folder in (output / STATE, _beside(output, ".old"), _beside(output, ".new")):
            shutil.rmtree(folder, ignore_errors=True)


def _beside(output: Path, suffix: str) -> Path:
    return output / f"{STATE}{suffix}"


def _whole(output: Path) -> Path | None:
    """The newest complete state: state.json is written last, and a kill between two renames leaves no ``state``."""
    candidates = (output / STATE, _beside(output, ".new"), _beside(output, ".old"))
    return next((folder for folder in candidates if (folder / _STATE).is_file()), None)


def _description(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        complete = isinstance(content, dict) and {"key", "progress", "data", "sha256"} <= set(content)
    except (OSError, ValueError) as error:
        raise _damaged(folder / _STATE) from error
    if not complete:
        raise _damaged(folder / _STATE)
    return dict(content)


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is damaged or incomplete: start the run over with --resume never")
