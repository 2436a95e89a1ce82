"""A run's folder: what is written, in which order, and how one tells that it is finished.

OUTPUT/config.yaml        the resolved configuration
OUTPUT/log.jsonl          one line per logged step and per epoch
OUTPUT/tensorboard/       events
OUTPUT/checkpoint/        open_clip model: create_model("local-dir:OUTPUT/checkpoint")
OUTPUT/metrics.json       the chosen epoch and its measures
OUTPUT/finished.json      written last: key of (configuration, stores, images); its presence means finished
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from training.clip.load import OPEN_CLIP_CONFIG
from training.config import TrainConfig
from training.errors import CheckpointError
from training.folders import check_writable, writing

FINISHED = "finished.json"
CHECKPOINT = "checkpoint"
WEIGHTS = "open_clip_model.safetensors"


def run_key(config: TrainConfig, fingerprints: list[str], threads: int) -> str:
    """sha256 over what decides the result: the configuration (less output and log), the data and the threads.

    Args:
        config: the configuration.
        fingerprints: of the stores and of the images they name.
        threads: CPU threads per process, resolved; rounding depends on them.
    """
    content: dict[str, Any] = {**asdict(config), "threads": threads}
    for name in ("output", "overwrite", "log"):
        del content[name]
    # Stores and images are named by their content: moving them does not make another run.
    for name in ("train_store", "dev_store", "data_root"):
        del content["data"][name]
    text = json.dumps([content, fingerprints], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_finished(output: Path, key: str, *, overwrite: bool = False) -> bool:
    """Whether OUTPUT already holds this very run; a finished other run is protected.

    Raises:
        CheckpointError: OUTPUT holds another finished run and ``overwrite`` is not set, or is not a run folder, or
            cannot be written.
    """
    check_writable(output, "--output")
    marker = output / FINISHED
    with writing(output, "--output"):
        if not marker.is_file():
            if output.exists() and not (output / "config.yaml").is_file() and any(output.iterdir()):
                raise CheckpointError(
                    f"{output} is not empty and is not a training run: choose another --output"
                )
            return False
        try:
            found = json.loads(marker.read_text(encoding="utf-8"))["key"]
        except (ValueError, KeyError, TypeError):
            found = None
    if found == key and (output / CHECKPOINT / WEIGHTS).is_file():
        return True
    if not overwrite:
        raise CheckpointError(
            f"{output} holds a finished run of another configuration, target store, set of images or thread count: "
            "choose another --output, or --overwrite true to replace it"
        )
    return False


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


def save_checkpoint(output: Path, model: nn.Module, open_clip_config: dict[str, Any]) -> None:
    """Write OUTPUT/checkpoint for open_clip; the previous one stays until the new one is whole."""
    fresh, current, old = (output / f"{CHECKPOINT}{suffix}" for suffix in (".new", "", ".old"))
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with writing(output, "--output"):
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        try:
            save_file(weights, fresh / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:  # how a full disk comes out of safetensors
            raise OSError(str(error)) from error
        write_json(fresh / OPEN_CLIP_CONFIG, open_clip_config)
        shutil.rmtree(old, ignore_errors=True)
        if current.exists():
            os.replace(current, old)
        os.replace(fresh, current)
        shutil.rmtree(old, ignore_errors=True)


def finish_run(output: Path, key: str, metrics: dict[str, Any]) -> None:
    """Write the measures, then the marker."""
    with writing(output, "--output"):
        write_json(output / "metrics.json", metrics)
        write_json(output / FINISHED, {"key": key})


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file by atomic rename."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
