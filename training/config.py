"""The configuration of a training run: frozen dataclasses, one line with unit and range under each field.

A YAML file holds the same tree; ``--any.field value`` overrides it (see ``training/options.py``). Each room defines
the group that it reads.
"""

from dataclasses import dataclass, field

from training.checks import one_of, within
from training.clip.config import ModelConfig
from training.data.config import DataConfig
from training.engine.config import RESUME, LogConfig, OptimConfig, SaveConfig
from training.errors import ConfigError
from training.nb_clip.config import LossConfig, PolicyConfig


@dataclass(frozen=True)
class TrainConfig:
    """One NB-CLIP training run."""

    output: str = ""
    """Folder of the run: config.yaml, log.jsonl, checkpoint/, metrics.json; required."""
    overwrite: bool = False
    """Replace a run of another configuration in OUTPUT instead of refusing."""
    resume: str = "auto"
    """An unfinished run in OUTPUT: auto continues it or starts, never starts over, must fails if there is none."""
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
    save: SaveConfig = field(default_factory=SaveConfig)

    def __post_init__(self) -> None:
        within("seed", self.seed, 0, 2**31 - 1)
        within("threads", self.threads, 0, 1024)
        one_of("resume", self.resume, RESUME)
        if self.overwrite and self.resume == "must":
            raise ConfigError("overwrite true and resume must contradict each other: drop one")
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
        self._check_across()

    def _check_across(self) -> None:
        """Contradictions between fields of different groups."""
        if self.loss.name == "semantic_matching" and self.policy.name == "identity":
            raise ConfigError(
                "loss.name semantic_matching with policy.name identity is info_nce: set --loss.name info_nce"
            )
        if self.data.cached_views and not self.model.lock_image:
            raise ConfigError(
                "data.cached_views keeps what frozen layers of the image tower give: set --model.lock_image true, "
                "with --model.lock_image_unlocked_groups for the layers that learn"
            )
        if self.policy.name == "same_case" and self.loss.mask_same_case:
            raise ConfigError(
                "policy.name same_case gives weight to the pairs that loss.mask_same_case takes out: "
                "set --loss.mask_same_case false"
            )
        if self.loss.micro_batch is not None and self.loss.micro_batch > self.data.batch_size:
            raise ConfigError(
                f"loss.micro_batch {self.loss.micro_batch} exceeds data.batch_size {self.data.batch_size}: "
                "leave loss.micro_batch out, or lower it"
            )
