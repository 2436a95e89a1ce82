"""The runs under evaluation: finished training runs, alone or as one configuration trained from several seeds."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from training.arguments import flat
from training.data.config import LONG_CAPTIONS
from training.engine.checkpoint import FINISHED
from training.errors import CheckpointError, ConfigError

T = TypeVar("T")

CHANCE = "chance"
"""Name of the column that no run may have."""
_NOT_COMPARED = ("output", "overwrite", "resume", "log", "threads", "seed")
"""Fields of a run's config that may differ between the seeds of one group."""


@dataclass(frozen=True)
class RunGroup:
    """One configuration under a name, trained once or from several seeds."""

    name: str
    folders: tuple[Path, ...]
    seeds: tuple[int, ...]
    """Training seeds of the folders, in their order."""
    keys: tuple[str, ...]
    """Keys in the folders' finished.json: they tell one run from another, whatever its folder is called."""
    long_captions: str = LONG_CAPTIONS[0]
    """What the runs' text tower read of captions that are too long for it."""


def read_groups(arguments: Sequence[str]) -> list[RunGroup]:
    """Run groups from the command line: ``FOLDER``, or ``NAME=FOLDER,FOLDER,…`` for several seeds.

    Raises:
        ConfigError: two groups have the same name, or the runs of a group differ in more than the seed.
        CheckpointError: a folder has no finished run, or its config is damaged.
    """
    named: dict[str, tuple[Path, ...]] = {}
    for argument in arguments:
        name, folders = _split(argument)
        if name in named:
            raise ConfigError(
                f'--run: two of {", ".join(arguments)} have the name "{name}": rename one with NAME=FOLDER'
            )
        if name in ("", CHANCE):
            raise ConfigError(f'--run: "{name}" is no name for a run: write NAME=FOLDER')
        named[name] = folders
    return [_group(name, folders) for name, folders in named.items()]


def _split(argument: str) -> tuple[str, tuple[Path, ...]]:
    name, equals, folders = argument.partition("=")
    if not equals or Path(argument).is_dir():
        return Path(argument).resolve().name, (Path(argument),)
    if not all(folders.split(",")):
        raise ConfigError(f"--run: {argument} names an empty folder: write NAME=FOLDER,FOLDER")
    return name, tuple(Path(folder) for folder in folders.split(","))


def _group(name: str, folders: tuple[Path, ...]) -> RunGroup:
    for folder in folders:
        if not (folder / FINISHED).is_file():
            raise CheckpointError(
                f"{folder} is not a finished training run (no {FINISHED}): train it with training/run.py"
            )
    configs = [_parsed(folder / "config.yaml", _config) for folder in folders]
    seeds = tuple(config["seed"] for config in configs)
    compared = [flat({k: v for k, v in one.items() if k not in _NOT_COMPARED}) for one in configs]
    first = compared[0]
    for folder, other in zip(folders[1:], compared[1:], strict=True):
        differing = sorted(key for key in first.keys() | other.keys() if first.get(key) != other.get(key))
        if differing:
            raise ConfigError(
                f"--run: {name}: {folders[0]} and {folder} differ in {differing[0]} ({first.get(differing[0])} and "
                f"{other.get(differing[0])}): one group holds runs of one configuration that differ in the seed"
            )
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--run: {name}: two runs have the same seed ({', '.join(map(str, seeds))})")
    data = configs[0].get("data")
    mode = data.get("long_captions", LONG_CAPTIONS[0]) if isinstance(data, dict) else LONG_CAPTIONS[0]
    return RunGroup(name, folders, seeds, tuple(finished_key(folder) for folder in folders), mode)


def finished_key(folder: Path) -> str:
    """Key of a finished run.

    Raises:
        CheckpointError: its finished.json is missing or damaged.
    """
    return str(_parsed(folder / FINISHED, lambda text: json.loads(text)["key"]))


def _config(text: str) -> dict[str, Any]:
    config = dict(yaml.safe_load(text))
    return {**config, "seed": int(config["seed"])}


def _parsed(path: Path, parse: Callable[[str], T]) -> T:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} is missing or damaged: train the run again") from error
