"""The tasks of grids: NB-CLIP, scored by retrieval, or Med-VQA. A grid's keys decide which one it is."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kg_targets.errors import ConfigError, KGTargetsError
from kg_targets.manifest.model import unknown_name
from pipelines.experiments.grid import GRIDS, Grid, load, parse
from pipelines.experiments.med_vqa_grid import MedVQAGrid
from pipelines.experiments.retrieval_grid import RetrievalGrid

if TYPE_CHECKING:
    from pipelines.experiments.plan import Plan  # loads torch, which takes seconds

KINDS: tuple[type[Grid], ...] = (RetrievalGrid, MedVQAGrid)
STAGES = ("folds", "stores", "runs", "scores", "pretrain", "finetune", "score", "report")
"""Stages of all kinds of grids."""
VQA = "vqa_"
"""May be left out at the beginning of a grid's name."""


def shipped_grids() -> list[str]:
    """Names of the grids in ``GRIDS``, in alphabetical order."""
    return sorted(path.stem for path in GRIDS.glob("*.yaml"))


def read_grid(name_or_path: str, data_root: Path | None = None) -> Grid:
    """The grid of that name in ``pipelines/grids``, or at that path.

    Args:
        name_or_path: a name, of Med-VQA's with or without ``vqa_`` before it, or a path that ends in .yaml.
        data_root: instead of the file's.

    Raises:
        ConfigError: no such grid, or something in it is wrong; the message names file and key.
    """
    path, shipped = Path(name_or_path), shipped_grids()
    if path.suffix not in (".yaml", ".yml"):
        names = [name for name in (name_or_path, f"{VQA}{name_or_path}") if name in shipped]
        if not names:
            raise ConfigError(f"{unknown_name('grid', name_or_path, shipped)}; a path must end in .yaml")
        path = GRIDS / f"{names[0]}.yaml"
    content = _with_parents(path)
    kind = max(KINDS, key=lambda kind: len(content.keys() & kind.keys().keys()))
    try:
        return parse(kind, content).resolved(path, data_root)
    except KGTargetsError as error:
        raise ConfigError(f"{path}: {error}") from error


def _with_parents(path: Path, children: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The file's content over that of the grid beside it which it ``extends``; groups are merged, lists replaced.

    Raises:
        ConfigError: a file cannot be read, or extends itself.
    """
    if path in children:
        raise ConfigError(f"{path}: extends: it extends itself")
    content = load(path)
    if (parent := content.pop("extends", None)) is None:
        return content
    return _over(_with_parents(path.with_name(f"{parent}.yaml"), (*children, path)), content)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {key: _over(below[key], one) for key, one in above.items() if _groups(below.get(key), one)}
    return {**below, **above, **both}


def _groups(*content: Any) -> bool:
    return all(isinstance(one, dict) for one in content)


def plan_of(grid: Grid, out: Path, jobs: int, threads: int, only: tuple[str, ...] = ()) -> "Plan":
    """The grid's work.

    Args:
        grid: what is to be made.
        out: folder for everything that is made.
        jobs: commands at a time, ≥ 1.
        threads: CPU threads of each, ≥ 1.
        only: rows that are trained and scored; empty for all.
    """
    from pipelines.experiments.job import Workspace
    from pipelines.experiments.med_vqa import MedVQAPlan
    from pipelines.experiments.retrieval import RetrievalPlan

    workspace = Workspace(out, jobs, threads)
    if isinstance(grid, MedVQAGrid):
        return MedVQAPlan(workspace, only, grid=grid)
    if isinstance(grid, RetrievalGrid):
        return RetrievalPlan(workspace, only, grid=grid)
    raise TypeError(f"no plan for {type(grid).__name__}")
