"""A run's folder: what is written, in which order, and how one tells that it is finished.

OUTPUT/config.yaml        the resolved configuration
OUTPUT/log.jsonl          one line per logged step and per epoch
OUTPUT/tensorboard/       events
OUTPUT/state/             what an unfinished run continues from (training/engine/state.py)
OUTPUT/checkpoint/        open_clip model: create_model("local-dir:OUTPUT/checkpoint")
OUTPUT/metrics.json       the chosen epoch and its measures
OUTPUT/finished.json      written last: key of (configuration, stores, images); its presence means finished
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from torch import nn

from training.clip.load import Clip
from training.clip.save import WEIGHTS, write_model_folder
from training.config import TrainConfig
from training.engine.state import drop_state, saved_key
from training.errors import CheckpointError
from training.folders import check_writable, replace_folder, writing

FINISHED = "finished.json"
CHECKPOINT = "checkpoint"
LOG = "log.jsonl"


NOT_THE_RESULT = ("output", "overwrite", "resume", "log", "save")
"""Fields on which a run's result does not depend; paths are in the key by what they hold."""
NOT_THE_DATA = ("train_store", "dev_store", "data_root", "workers", "prefetch")


def run_key(config: TrainConfig, fingerprints: list[str], threads: int) -> str:
    """sha256 over what decides the result: the configuration (less output and log), the data and the threads.

    Args:
        config: the configuration.
        fingerprints: of the stores and of the images they name.
        threads: CPU threads per process, resolved; rounding depends on them.
    """
    content: dict[str, Any] = {**asdict(config), "threads": threads}
    for name in NOT_THE_RESULT:
        del content[name]
    for name in NOT_THE_DATA:
        content["data"].pop(name, None)
    text = json.dumps([content, fingerprints], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Start(Enum):
    """What a run finds in its folder."""

    FRESH = "nothing to build on"
    CONTINUE = "an unfinished run with a saved state"
    FINISHED = "this very run, finished"


def how_to_start(output: Path, key: str, *, resume: str = "auto", overwrite: bool = False) -> Start:
    """Whether OUTPUT holds this very run, finished or not; a run of another configuration is protected.

    Args:
        output: the run's folder, which need not exist.
        key: of the run to start.
        resume: auto, never or must.
        overwrite: replace another run.

    Raises:
        CheckpointError: OUTPUT holds another run and ``overwrite`` is not set, or is not a run folder, or cannot be
            written, or there is nothing to continue and ``resume`` is must.
    """
    check_writable(output, "--output")
    with writing(output, "--output"):
        if output.exists() and not (output / "config.yaml").is_file() and any(output.iterdir()):
            raise CheckpointError(f"{output} is not empty and is not a training run: choose another --output")
        marker = output / FINISHED
        finished = _finished_key(marker) if marker.is_file() else None
    if finished == key and (output / CHECKPOINT / WEIGHTS).is_file():
        return Start.FINISHED
    saved = saved_key(output) if finished is None and resume != "never" else None
    if saved is not None and saved[0] == key:
        return Start.CONTINUE
    if (finished is not None or saved is not None) and not overwrite:
        kind = "a finished run" if saved is None else f"an unfinished run (saved after step {saved[1]:,})"
        raise CheckpointError(
            f"{output} holds {kind} of another configuration, target store, set of images or thread count: "
            "choose another --output, or --overwrite true to replace it"
        )
    if resume == "must":
        raise CheckpointError(f"{output} holds no unfinished run to continue: --resume auto starts one")
    return Start.FRESH


def _finished_key(marker: Path) -> str:
    try:
        return str(json.loads(marker.read_text(encoding="utf-8"))["key"])
    except (ValueError, KeyError, TypeError):
        return "damaged"


def start_run(output: Path, resolved_yaml: str) -> None:
    """An empty run folder with its config; what an unfinished or replaced run left there goes away.

    Raises:
        CheckpointError: the folder cannot be written; so in the functions below.
    """
    with writing(output, "--output"):
        (output / FINISHED).unlink(missing_ok=True)  # first, so that a crash below leaves an unfinished run
        if output.exists():
            shutil.rmtree(output)
        output.mkdir(parents=True)
        (output / "config.yaml").write_text(resolved_yaml, encoding="utf-8")


def continue_run(output: Path, step: int) -> None:
    """Take the log back to where the state was saved: what came after will be written again."""
    log = output / LOG
    with writing(output, "--output"):
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.is_file() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        partial = log.with_name(LOG + ".partial")
        partial.write_text("".join(kept), encoding="utf-8")
        os.replace(partial, log)


def save_checkpoint(output: Path, model: nn.Module, clip: Clip) -> None:
    """Write OUTPUT/checkpoint for open_clip; the previous one stays until the new one is whole."""
    fresh, current, old = (output / f"{CHECKPOINT}{suffix}" for suffix in (".new", "", ".old"))
    with writing(output, "--output"):
        shutil.rmtree(fresh, ignore_errors=True)
        write_model_folder(fresh, model, clip)
        replace_folder(fresh, current, old)


def finish_run(output: Path, key: str, metrics: dict[str, Any]) -> None:
    """Write the measures, then the marker."""
    with writing(output, "--output"):
        write_json(output / "metrics.json", metrics)
        write_json(output / FINISHED, {"key": key})
    drop_state(output)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file by atomic rename."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
