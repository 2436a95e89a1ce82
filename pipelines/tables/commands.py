"""Commands that a report prints beside figures: what a person types to make them again."""

import shlex
from pathlib import Path
from typing import Any

import yaml

from kg_targets.manifest import Manifest
from pipelines.tables.grid import GRIDS, Grid
from pipelines.tables.job import shown
from training.errors import ConfigError


def command(grid: Grid, out: Path, threads: int | None) -> str:
    """What runs the grid from the current folder, with the options that are not the defaults.

    Folders outside the current one are named DIR: a report goes to other people and other machines.

    Args:
        grid: what is run.
        out: its folder.
        threads: of each job; ``None`` where that is not known.

    Raises:
        ConfigError: the grid's file cannot be read.
    """
    return grid_command(
        "pipelines.tables",
        grid.path,
        (grid.data_root, _default_root(grid)),
        out,
        Path("build/tables"),
        threads,
    )


def grid_command(
    module: str,
    path: Path,
    data_root: tuple[Path, Path],
    out: Path,
    default_out: Path,
    threads: int | None,
) -> str:
    """The command of any kind of grid.

    Args:
        module: that ``python -m`` runs.
        path: of the grid.
        data_root: where the data are, and where they are by default.
        out: the grid's folder.
        default_out: what holds the grid's folder by default.
        threads: of each job; ``None`` where that is not known.
    """
    shipped = path.absolute().parent == GRIDS
    words = ["python", "-m", module, path.stem if shipped else _within(path, path.name)]
    if data_root[0].absolute() != data_root[1].absolute():
        words += ["--data-root", _within(data_root[0], "DIR")]
    if out.absolute() != (default_out / path.stem).absolute():
        words += ["--out", _within(out, "DIR")]
    if threads not in (None, 1):
        words += ["--threads", str(threads)]
    return shlex.join(words)


def _within(path: Path, otherwise: str) -> str:
    """A path from the current folder; something else where it does not start there."""
    text = shown(path)
    return otherwise if Path(text).is_absolute() else text


def _default_root(grid: Grid) -> Path:
    """Where the data lie unless --data-root says otherwise."""
    try:
        content: dict[str, Any] = yaml.safe_load(grid.path.read_text(encoding="utf-8"))
        root = content.get("data_root")
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise ConfigError(f"{grid.path} cannot be read: it was there when the grid began") from error
    return Path(root) if root else Manifest.load(grid.dataset).default_root
