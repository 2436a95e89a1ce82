"""The configuration of an NB-CLIP run: frozen dataclasses, one line with unit and range under each field.

A YAML file holds the same tree; ``--any.field value`` overrides it (see ``training/options.py``). Each room defines
the group that it reads; what all tasks have in common is in ``training/engine/config.py``.
"""

from dataclasses import dataclass, field

from training.checks import given
from training.clip.config import ModelConfig
from training.data.config import DataConfig
from training.engine.config import RunConfig
from training.errors import ConfigError
from training.nb_clip.config import ContrastiveOptimConfig, LossConfig, PolicyConfig


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """One NB-CLIP training run."""

    task: str = "nb_clip"
    select: str = "cui@50"
    """Dev measure that chooses the epoch to keep: cui@K, or p@K on all label columns together."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    optim: ContrastiveOptimConfig = field(default_factory=ContrastiveOptimConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        given("data.train_store", self.data.train_store)
        given("data.data_root", self.data.data_root)
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
