"""The configuration of a training run: frozen dataclasses, one line with unit and range under each field.

A YAML file holds the same tree; ``--any.field value`` overrides it (see ``training/options.py``). Each room defines
the group that it reads.
"""

from dataclasses import dataclass, field

from training.checks import within
from training.clip.config import ModelConfig
from training.data.config import DataConfig
from training.engine.config import LogConfig, OptimConfig
from training.errors import ConfigError
from training.nb_clip.config import LossConfig, PolicyConfig


@dataclass(frozen=True)
class TrainConfig:
    """One NB-CLIP training run."""

    output: str = ""
    """Folder of the run: config.yaml, log.jsonl, checkpoint/, metrics.json; required."""
    overwrite: bool = False
    """Replace a finished run of another configuration in OUTPUT instead of refusing."""
    seed: int = 0
    """Seed of weights, order and augmentation, >= 0."""
    threads: int = 0
    """CPU threads per process, in [0, 1024]; 0: all available cores, shared by the machine's processes."""
    select: str = "cui@50"
    """Dev measure that chooses the epoch to keep: cui@K, or p@K on all label columns together."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        within("seed", self.seed, 0, 2**31 - 1)
        within("threads", self.threads, 0, 1024)
        for name, value in (
            ("output", self.output),
            ("data.train_store", self.data.train_store),
            ("data.data_root", self.data.data_root),
        ):
            if not value:
                raise ConfigError(f"{name} is not set: give it in the YAML file or as --{name} PATH")
        if self.data.dev_store is not None and self.data.dev_store == self.data.train_store:
            raise ConfigError(
                "data.dev_store and data.train_store are the same: the choice of the epoch needs other data"
            )
        measure, _, depth = self.select.partition("@")
        if measure not in ("cui", "p") or not depth.isdigit() or int(depth) < 1:
            raise ConfigError(f'select: "{self.select}" is not cui@K or p@K with K >= 1, such as cui@10')
        soft = self.loss.name == "semantic_matching"
        if soft and self.policy.name == "identity":
            raise ConfigError(
                "loss.name semantic_matching with policy.name identity is info_nce: set --loss.name info_nce"
            )
