"""A run's folder: what is written, in which order, and how one tells that it is finished.

OUTPUT/run.json           written first: key of (configuration, data, weights); names the folder a run's
OUTPUT/config.yaml        the resolved configuration
OUTPUT/data.json          metadata of the data, for a model card
OUTPUT/log.jsonl          one line per logged step and per epoch
OUTPUT/tensorboard/       events
OUTPUT/state/             what an unfinished run continues from (training/engine/state.py)
OUTPUT/checkpoint/        the chosen model, as its task writes it (NB-CLIP: for open_clip; Med-VQA: Hugging Face's way)
OUTPUT/metrics.json       the chosen epoch and its measures
OUTPUT/finished.json      written last: the key again; its presence means finished
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from kg_targets.store.digest import json_sha256
from training.engine.config import RunConfig
from training.engine.state import STATE, drop_state, saved_key
from training.errors import CheckpointError
from training.folders import check_writable, fresh_folder, replace_folder, write_json, writing

FINISHED = "finished.json"
CHECKPOINT = "checkpoint"
LOG = "log.jsonl"
RUN = "run.json"
CONFIG = "config.yaml"
METRICS = "metrics.json"
DATA_METADATA = "data.json"
"""Metadata of the data, for a model card: a store may be rebuilt or moved after the run."""
OURS = (RUN, CONFIG, DATA_METADATA, LOG, "tensorboard", f"{STATE}*", f"{CHECKPOINT}*", METRICS, FINISHED)
"""Files of a run, as patterns: nothing else is ever removed from its folder."""

NOT_THE_RESULT = ("task", "output", "overwrite", "resume", "log", "save")
"""Fields on which a run's result does not depend, or that the others tell."""
NOT_THE_DATA = (
    "train_store", "dev_store", "store", "exclude", "dataset", "data_root", "workers", "prefetch", "cache",
)  # fmt: skip
"""Fields of ``data`` likewise; what they name is in the key by what it holds. So are ``model.init_from`` and the stores
of ``soft_labels``."""


def run_key(config: RunConfig, fingerprints: list[str], threads: int) -> str:
    """sha256 over what decides the result: the configuration (less output and log), the data and the threads.

    Args:
        config: the configuration.
        fingerprints: of the data, such as stores and the images they name, and of local weights.
        threads: CPU threads per process, resolved; rounding depends on them.
    """
    content: dict[str, Any] = {**asdict(config), "threads": threads}
    for name in NOT_THE_RESULT:
        del content[name]
    for name in NOT_THE_DATA:
        content["data"].pop(name, None)
    content.get("model", {}).pop("init_from", None)
    for labels in content.get("soft_labels", ()):
        labels.pop("store")
    return json_sha256([content, fingerprints])


class Start(Enum):
    """State of a run's folder when the run begins."""

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
    there = _key_of(output)
    if there is not None and there != key and not overwrite:
        kind = "a finished run" if (output / FINISHED).is_file() else "an unfinished run"
        raise CheckpointError(
            f"{output} holds {kind} of another configuration, target store, set of images or questions, or thread "
            "count: choose another --output, or --overwrite true to replace it"
        )
    if there == key:
        if (output / FINISHED).is_file() and any((output / CHECKPOINT).glob("*.safetensors")):
            return Start.FINISHED
        if resume != "never" and saved_key(output) == key:
            return Start.CONTINUE
    if resume == "must":
        raise CheckpointError(f"{output} holds no unfinished run to continue: --resume auto starts one")
    return Start.FRESH


def _key_of(output: Path) -> str | None:
    """Key of the run in ``output``, finished or not; None where there is nothing.

    Raises:
        CheckpointError: there is something that is not a run.
    """
    with writing(output, "--output"):
        if not output.exists() or not any(output.iterdir()):
            return None
        for name in (RUN, FINISHED):
            if (output / name).is_file():
                try:
                    return str(json.loads((output / name).read_text(encoding="utf-8"))["key"])
                except (ValueError, KeyError, TypeError):
                    return "damaged"
    raise CheckpointError(f"{output} is not empty and is not a training run: choose another --output")


def start_run(output: Path, key: str, resolved_yaml: str) -> None:
    """A run folder with its key and config; what a former run left there goes away, and nothing else.

    Raises:
        CheckpointError: the folder cannot be written; so in the functions below.
    """
    with writing(output, "--output"):
        (output / FINISHED).unlink(missing_ok=True)  # first, so that a crash below leaves an unfinished run
        for pattern in OURS:
            for path in output.glob(pattern):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / RUN, {"key": key})
        (output / CONFIG).write_text(resolved_yaml, encoding="utf-8")


def continue_run(output: Path, step: int, epoch: int) -> None:
    """Take the log back to where the state was saved: what came after will be written again.

    Args:
        output: the run's folder.
        step: optimizer steps that the state has done.
        epoch: the epoch it is in; those before are measured.
    """
    log = output / LOG
    with writing(output, "--output"):
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.is_file() else []
        kept = "".join(line for line in lines if line.endswith("\n") and _is_past(line, log, step, epoch))
        partial = log.with_name(LOG + ".partial")
        partial.write_text(kept, encoding="utf-8")
        os.replace(partial, log)


def _is_past(line: str, log: Path, step: int, epoch: int) -> bool:
    try:
        entry = json.loads(line)
        return bool(entry["step"] <= step and entry.get("epoch", 0) < epoch)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{log} is damaged: start the run over with --resume never") from error


def write_checkpoint(output: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a folder, which becomes OUTPUT/checkpoint; the previous one stays until it is whole."""
    fresh, current, old = (output / f"{CHECKPOINT}{suffix}" for suffix in (".new", "", ".old"))
    with writing(output, "--output"):
        with fresh_folder(fresh):
            write(fresh)
        replace_folder(fresh, current, old)


def finish_run(output: Path, key: str, metrics: dict[str, Any]) -> None:
    """Write the measures, then the marker."""
    with writing(output, "--output"):
        write_json(output / METRICS, metrics)
        write_json(output / FINISHED, {"key": key})
    drop_state(output)
