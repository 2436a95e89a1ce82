"""What every kind of grid says in the same way: where it is, its base configuration, fields of training, seeds."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kg_targets.errors import ConfigError
from kg_targets.manifest.model import unknown_name
from pipelines.tables.content import listed, whole
from pipelines.tables.grid import GRIDS

REPOSITORY = GRIDS.parents[1]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def find_grid(name_or_path: str, shipped: Sequence[str]) -> Path:
    """The file of the grid of that name, or the path itself, which need not exist.

    Args:
        name_or_path: one of ``shipped``, or a path that ends in .yaml.
        shipped: names of grids in ``pipelines/grids``.

    Raises:
        ConfigError: it is neither a grid's name nor the path of a YAML file.
    """
    if name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path)
    if name_or_path not in shipped:
        raise ConfigError(f"{unknown_name('grid', name_or_path, list(shipped))}; a path must end in .yaml")
    return GRIDS / f"{name_or_path}.yaml"


def base_file(given: str) -> Path:
    """The file as given, or below the repository where the command runs elsewhere.

    Raises:
        ConfigError: it is in neither place.
    """
    path = Path(given)
    if not path.is_file() and (REPOSITORY / path).is_file():
        path = REPOSITORY / path
    if not path.is_file():
        raise ConfigError(f"base: {given} does not exist: give a training configuration")
    return path


def settings_of(
    where: str, content: Any, runners: Sequence[str], lists: Sequence[str] = ()
) -> dict[str, Any]:
    """Training fields, dotted name to value.

    Args:
        where: what is read.
        content: of the file; None for no field.
        runners: fields that the grid's runner sets itself.
        lists: fields that hold a list.

    Raises:
        ConfigError: it is no such mapping, or has one of ``runners``.
    """
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: expected a mapping of training fields, such as {{loss.name: info_nce}}")
    settings = {str(key): value for key, value in content.items()}
    for key, value in settings.items():
        if isinstance(value, dict) or (isinstance(value, list) and key not in lists):
            raise ConfigError(f"{where}: {key} must have one value: write its fields as {key}.name: value")
        if key in runners:
            raise ConfigError(f"{where}: {key} is set by the grid's runner: leave it out")
    return settings


def as_arguments(settings: Mapping[str, Any]) -> list[str]:
    """``{"loss.name": "info_nce"}`` → ``["--loss.name", "info_nce"]``, values as YAML reads them back."""
    return [text for key, value in settings.items() for text in (f"--{key}", _as_argument(value))]


def _as_argument(value: Any) -> str:
    if value is None or isinstance(value, (bool, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def seeds_of(content: Any) -> tuple[int, ...]:
    """Seeds of training.

    Raises:
        ConfigError: none, one twice, or one out of range.
    """
    seeds = tuple(whole("seeds", seed) for seed in listed("seeds", content))
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) >= 2**31:
        raise ConfigError("seeds: give at least one, each once, from 0 to 2³¹ - 1, such as [0, 1]")
    return seeds


def named(where: str, content: Any) -> dict[str, Any]:
    """A mapping whose keys can name folders; not empty.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{where}: give at least one, by name")
    for name in content:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(
                f'{where}: "{name}" cannot name a folder: use letters, digits, "_", "-" and "."'
            )
    return content
