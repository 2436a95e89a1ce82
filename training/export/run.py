"""A finished run, read for its model card: configuration, measures and the data it was trained on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kg_targets.store import TargetStore
from training.data.metadata import METADATA, describe_data
from training.engine.checkpoint import CHECKPOINT, DATA_METADATA, FINISHED
from training.errors import CheckpointError, ConfigError, KGTargetsError
from training.retrieval.runs import CHANCE, finished_key


@dataclass(frozen=True)
class RunRecord:
    """A run folder's own records."""

    folder: Path
    key: str
    """Key in finished.json: tells this run from every other."""
    config: dict[str, Any]
    """The resolved configuration."""
    metrics: dict[str, Any]
    """Content of metrics.json: the chosen epoch and its measures."""
    data: dict[str, dict[str, Any]]
    """``train`` and, if there was one, ``dev``: as ``describe_data`` gives them."""


@dataclass(frozen=True)
class ReportedNumbers:
    """One run's numbers in a report of ``kg-targets evaluate retrieval``."""

    name: str
    """The run's name there."""
    header: dict[str, str]
    """Data, protocol, seeds and intervals, in the report's words."""
    measures: dict[str, dict[str, float | None]]
    """Measure to mean, low and high, shares of 1."""
    chance: dict[str, dict[str, float | None]]
    """The same of a random order."""


def read_run(folder: Path) -> RunRecord:
    """Read a finished run.

    The run's own record of its data counts; runs without one are asked through the stores that their config names.

    Raises:
        CheckpointError: the run is not finished, a file is missing or damaged, or its data cannot be described.
    """
    if not (folder / FINISHED).is_file() or not (folder / CHECKPOINT).is_dir():
        raise CheckpointError(
            f"--run {folder} is not a finished training run (no {FINISHED} or no {CHECKPOINT}/): finish it first"
        )
    try:
        config = dict(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
        names = {"train": config["data"]["train_store"], "dev": config["data"].get("dev_store")}
        metrics = _json(folder / "metrics.json")
        metadata = _json(folder / DATA_METADATA) if (folder / DATA_METADATA).is_file() else None
        whole = metadata is None or (
            "train" in metadata and all(set(split) >= METADATA for split in metadata.values())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise CheckpointError(
            f"--run {folder}: config.yaml, metrics.json or {DATA_METADATA} is damaged"
        ) from error
    if not whole:
        raise CheckpointError(f"--run {folder}: {DATA_METADATA} is damaged: it lacks metadata of the data")
    data = metadata if metadata is not None else _from_stores(folder, names)
    return RunRecord(folder, finished_key(folder), config, metrics, data)


def read_evaluation(path: Path, run: RunRecord, name: str | None = None) -> ReportedNumbers:
    """The numbers of one run in a ``retrieval.json``.

    Args:
        path: the report.
        run: the run; the name of its folder is its name in the report.
        name: the run's name in the report, if it is another one there.

    Raises:
        ConfigError: there is no such report, or the run is not in it, or another one is by its name.
    """
    wanted = name or run.folder.resolve().name
    try:
        content = _json(path)
        runs = {key: dict(value["measures"]) for key, value in content["runs"].items()}
        keys = {key: list(value.get("keys", ())) for key, value in content["runs"].items()}
        numbers = {
            key: {m: {part: entry[part] for part in ("mean", "low", "high")} for m, entry in measures.items()}
            for key, measures in runs.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"--report {path} is not a retrieval.json of kg-targets evaluate retrieval: it is missing or damaged"
        ) from error
    if wanted not in numbers or wanted == CHANCE:
        known = ", ".join(key for key in numbers if key != CHANCE) or "none"
        raise ConfigError(
            f'--report {path} has no run "{wanted}"; it has {known}: name this run\'s by --report-run NAME'
        )
    if run.key not in keys[wanted]:
        raise ConfigError(
            f'--report {path}: "{wanted}" is another run there than {run.folder}, or it was trained again since: '
            "evaluate this run, or name it by --report-run NAME"
        )
    header = {key: str(value) for key, value in content.items() if isinstance(value, str) and key != "key"}
    return ReportedNumbers(wanted, header, numbers[wanted], numbers.get(CHANCE, {}))


def _from_stores(folder: Path, names: Mapping[str, str | None]) -> dict[str, dict[str, Any]]:
    try:
        return {split: describe_data(TargetStore.open(name)) for split, name in names.items() if name}
    except KGTargetsError as error:
        raise CheckpointError(
            f"--run {folder} has no {DATA_METADATA}, and the target store of its config cannot be read ({error}): "
            "put the store back, or run this where it is"
        ) from error


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))
