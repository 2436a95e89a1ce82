"""What a grid of training runs consists of: the content of one YAML file in ``pipelines/grids``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kg_targets.manifest.folds import TEST, TRAIN, FoldConfig, fold_names

if TYPE_CHECKING:
    from training.retrieval.config import EvalConfig  # loads torch

GRIDS = Path(__file__).resolve().parents[1] / "grids"
VQA = "vqa_"
"""What the names of Med-VQA's grids there begin with; the others are NB-CLIP's."""


def shipped_grids(vqa: bool = False) -> list[str]:
    """Names of the grids in ``GRIDS``, in alphabetical order.

    Args:
        vqa: those of ``pipelines.vqa_tables`` instead of those of ``pipelines.tables``.
    """
    return sorted(path.stem for path in GRIDS.glob("*.yaml") if path.stem.startswith(VQA) is vqa)


@dataclass(frozen=True)
class Official:
    """The data set's own split instead of folds."""

    train: str
    """Split to train on."""
    test: str
    """Split to score; also the name of the one "fold"."""


@dataclass(frozen=True)
class Variant:
    """One way to build target stores."""

    name: str
    dataset: str
    """Data set whose captions are read, of the same images and cases as the grid's."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `kg-targets build`, by field of ``pipelines.build.config.BuildConfig``."""
    arguments: tuple[str, ...] = ()
    """The same as command-line arguments."""


@dataclass(frozen=True)
class Row:
    """One configuration of the table."""

    name: str
    title: str
    store: str
    """Variant whose stores it is trained with."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Training fields that differ from the base, dotted name to value; those of the whole grid included."""
    paper: Any = None
    """What the paper reports for it, as the report reads it; ``None`` where there is nothing."""


@dataclass(frozen=True)
class Table:
    """Some of the rows, one of them the baseline."""

    title: str
    rows: tuple[str, ...]
    baseline: str


@dataclass(frozen=True)
class Comparison:
    """The one hypothesis that is tested without a correction."""

    row: str
    baseline: str
    measure: str


@dataclass(frozen=True)
class Grid:
    """A grid of training runs, checked: every name that it uses is defined."""

    name: str
    """The file's name without its suffix."""
    path: Path
    title: str
    dataset: str
    """Name of a manifest, or its path."""
    data_root: Path
    base: Path
    """Training configuration that every run starts from."""
    seeds: tuple[int, ...]
    """Of training; each row is trained with each of them on each fold."""
    split: FoldConfig | Official
    stores: Mapping[str, Variant]
    evaluate_on: str
    """Variant whose test parts score every row, so that captions and concepts are the same for all."""
    rows: Mapping[str, Row]
    """By name, in the order of the file."""
    tables: tuple[Table, ...]
    evaluation: "EvalConfig"
    evaluation_arguments: tuple[str, ...]
    """``evaluation`` as command-line arguments."""
    primary: Comparison
    against: tuple[str, ...] | None = None
    """Rows that the primary row is tested against besides its baseline; ``None``: every other row."""
    secondary: tuple[str, ...] = ()
    """Further measures that are tested, with Holm's correction."""
    subsets: Mapping[str, str] = field(default_factory=dict)
    """Title to official split: the primary comparison again on the queries whose case is in it."""
    dev: str | None = None
    """Official split that chooses the epoch to keep; ``None`` keeps the last. Official splits only."""

    @property
    def folds(self) -> tuple[str, ...]:
        """Names of the folds; the test split's name where there is only the official split."""
        return (self.split.test,) if isinstance(self.split, Official) else fold_names(self.split.count)

    @property
    def parts(self) -> tuple[str, str]:
        """What the train and the test part of a fold are called."""
        if isinstance(self.split, Official):
            return self.split.train, self.split.test
        return TRAIN, TEST

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Variants of stores that a row or the evaluation uses, in the order of the file."""
        used = {self.evaluate_on, *(row.store for row in self.rows.values())}
        return tuple(variant for name, variant in self.stores.items() if name in used)
