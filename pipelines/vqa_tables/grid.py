"""What a grid of Med-VQA models consists of: the content of one YAML file ``pipelines/grids/vqa_*.yaml``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STORES, PRETRAIN, FINETUNE, SCORE = "stores", "pretrain", "finetune", "score"
"""Stages of the work."""
PRETRAIN_STAGES = (PRETRAIN, f"{PRETRAIN} (stage two)")
QUESTION_ONLY, SHUFFLED = CONTROLS = ("question_only", "shuffled")
"""A twin that is trained and asked with blank images; the same model asked with other images."""


@dataclass(frozen=True)
class Part:
    """Questions that train, select and test: a protocol and a cut by image (``training/vqa/protocols.py``)."""

    protocol: str
    cut: int
    """``--split-seed``; not a seed of training."""

    @property
    def name(self) -> str:
        """As it stands in the names of folders."""
        several = self.protocol == "image_disjoint" or self.cut
        return f"{self.protocol}-cut{self.cut}" if several else self.protocol


@dataclass(frozen=True)
class Store:
    """Something that rows need and a command makes: target stores, a list of cases to leave out."""

    name: str
    command: tuple[str, ...]
    """Words, with ``{here}`` for its own place, ``{data_root}``, and ``{name}`` for other stores' places."""
    stores: tuple[str, ...]
    """Others that the command names, defined above it."""
    requires: Mapping[str, str] = field(default_factory=dict)
    """Path that only the user can provide, to how to get it."""


@dataclass(frozen=True)
class Stage:
    """One stage of a pre-training."""

    base: Path
    """Its training configuration."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields that differ from it, dotted name to value."""


@dataclass(frozen=True)
class Point:
    """Where a row stands in the grid's plot."""

    series: tuple[str, ...]
    """Lines that go through it."""
    x: float


@dataclass(frozen=True)
class Row:
    """One configuration of the table."""

    name: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of fine-tuning that differ from the base; those of the whole grid included."""
    pretrain: tuple[Stage, ...] = ()
    """Stages before the fine-tuning; none: it starts from the base's own weights."""
    controls: tuple[str, ...] = ()
    """Of ``CONTROLS``."""
    stores: tuple[str, ...] = ()
    """Stores that its settings name, and those that these need."""
    requires: Mapping[str, str] = field(default_factory=dict)
    """Path that only the user can provide, to how to get it; those of its stores included."""
    paper: str | None = None
    """The paper's row whose figures stand beside it."""
    point: Point | None = None


@dataclass(frozen=True)
class Plot:
    """Accuracy over a quantity that differs between rows."""

    x: str
    """What the quantity is called."""
    marked: float | None = None
    """The paper's choice."""


@dataclass(frozen=True)
class Grid:
    """A grid of Med-VQA models, checked: every name that it uses is defined."""

    name: str
    """The file's name without its suffix."""
    path: Path
    title: str
    dataset: str
    """Name of a Med-VQA data set, or its manifest's path."""
    data_root: Path
    default_root: Path
    """Where the data are unless --data-root says otherwise."""
    base: Path
    """Configuration that every fine-tuning starts from."""
    seeds: tuple[int, ...]
    """Of the fine-tunings; each row is trained with each of them on each part."""
    pretrain_seeds: tuple[int, ...]
    """Of the pre-training that each of ``seeds`` starts from, in their order."""
    parts: tuple[Part, ...]
    evaluation: tuple[str, ...]
    """Options of ``python -m training.med_vqa.answer`` beyond the runner's own."""
    stores: Mapping[str, Store]
    rows: Mapping[str, Row]
    """By name, in the order of the file."""
    baseline: str | None = None
    """Row that every other row is tested against; ``None``: none."""
    plot: Plot | None = None

    @property
    def pooled(self) -> bool:
        """Whether several cuts of one protocol are put end to end."""
        return len({part.protocol for part in self.parts}) < len(self.parts)
