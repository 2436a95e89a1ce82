"""Options of a target build; every field is an option of ``kg-targets build`` with the same name."""

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kg_targets.errors import ConfigError
from kg_targets.scoring import SCORERS


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class BuildConfig:
    """What to build, from what, and how."""

    dataset: str = _option("demo", "data set: a name from `kg-targets datasets` or the path of a manifest")
    split: str = _option("all", "split to build, or all; the split that IC and idf are fitted on is built first")
    data_root: Path = _option(Path("data"), "folder that holds the data set's files")
    out: Path = _option(Path("build"), "folder that receives one target store per split")
    ontology: str = _option("seed", "where concepts and is_a come from; sources are merged with |")
    extractor: str = _option("dictionary", "how captions become concepts")
    scorer: str = _option("ontology", f"how concepts become similarities: {', '.join(sorted(SCORERS))}")
    use_ontology: bool = _option(True, "follow is_a edges; without them only the captions' own concepts count")
    max_hops: int | None = _option(None, "longest is_a path followed, in edges, ≥ 1; default: no limit")
    top_k: int = _option(64, "neighbours kept per image, 1–1024")
    rows_per_shard: int = _option(4096, "images per Parquet shard, ≥ 1; the unit of parallel work")
    seed: int = _option(0, "for the scorers that draw random numbers, ≥ 0")
    workers: int = _option(0, "worker processes, 0 for one per available core; never changes the result")
    force: bool = _option(False, "build even if an up-to-date store exists")

    def __post_init__(self) -> None:
        if self.scorer not in SCORERS:
            raise ConfigError(f"--scorer {self.scorer} is not one of {', '.join(sorted(SCORERS))}")
        limits = {"top_k": (1, 1024), "rows_per_shard": (1, 10_000_000), "seed": (0, 2**32 - 1), "workers": (0, 1024)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"--{name.replace('_', '-')} must be between {low} and {high}")
        if self.max_hops is not None and self.max_hops < 1:
            raise ConfigError("--max-hops must be at least 1 (use --no-ontology to follow no is_a edge at all)")
        if self.max_hops is not None and not self.use_ontology:
            raise ConfigError("--max-hops and --no-ontology contradict each other: drop one of them")

    @property
    def worker_count(self) -> int:
        """Number of processes to start."""
        return self.workers or len(os.sched_getaffinity(0))

    def stored(self) -> dict[str, Any]:
        """The fields that decide what a store holds; where it is written and by how many processes do not."""
        outside = {"data_root", "out", "workers", "force", "split", "dataset"}
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in outside}
