"""The configuration of an NB-CLIP run: frozen dataclasses, one line with unit and range under each field.

A YAML file holds the same tree; ``--any.field value`` overrides it (see ``training/arguments.py``). Each room defines
the group that it reads; what all tasks have in common is in ``training/engine/config.py``. The names of losses and of
policies are those of ``kg_targets/losses/registry.py``.
"""

from dataclasses import dataclass, field
from typing import Literal

from kg_targets.losses.registry import LOSSES, POLICIES
from training.checks import all_within, given, one_of, within
from training.clip.config import ModelConfig
from training.data.config import DataConfig
from training.engine.config import OptimConfig, RunConfig
from training.errors import ConfigError


@dataclass(frozen=True)
class LossConfig:
    """The training objective."""

    name: str = field(
        default="semantic_matching",
        metadata={"choices": [f"{name} ({loss.summary})" for name, loss in LOSSES.items()]},
    )
    """Loss to minimise."""
    mask_same_case: bool = True
    """Take pairs of one case (group_id) out of the batch: neither target nor logit counts them."""
    exclude_related: float | Literal["threshold"] | None = None
    """Take pairs of other images above this similarity out of the batch as well, neither pulled nor pushed, in (-1, 1);
    threshold: above what the store suggests (its p95); null: none."""
    init_bias: float = -10.0
    """Sigmoid: learnable bias of the logits at the start, in [-100, 100]; a model that has one keeps its own."""
    micro_batch: int | None = None
    """Images per forward pass and process, >= 1, same gradient in less memory; null: the whole local batch at once."""
    device_factors_mb: int = 2048
    """On a GPU: memory for the store's factors, MB, >= 0; if they need more, the CPU computes the similarities."""

    def __post_init__(self) -> None:
        one_of("loss.name", self.name, tuple(LOSSES))
        if isinstance(self.exclude_related, float | int):
            within("loss.exclude_related", self.exclude_related, -0.999999, 0.999999)
        all_within("loss.", self, init_bias=(-100, 100), micro_batch=(1, None), device_factors_mb=(0, None))


@dataclass(frozen=True)
class PolicyConfig:
    """How similarities become targets (kg_targets/losses/policies.py); info_nce ignores all of it."""

    name: str = field(
        default="evidence",
        metadata={
            "choices": [f"{name} (a control)" if of.control else name for name, of in POLICIES.items()]
        },
    )
    """Target policy; semantic_matching only."""
    temperature: float | None = None
    """softmax, both fixed_mass: units of similarity, > 0; null: 1 for softmax (the authors'), 0.05 for the others."""
    alpha: float = 0.7
    """Probability the true pair keeps: at least (fixed_mass, evidence) or exactly (the others), in (0, 1]."""
    threshold: float | None = None
    """Similarity up to which an image takes nothing, in [-1, 1); null: 0 (fixed_mass), the store's p95 (evidence)."""
    saturation: float = 1.0
    """Evidence: summed weight of soft positives at which a row is as soft as it gets, > 0."""
    identity_mix_start: float = 0.0
    """Weight w of the identity in soft targets, (1 - w)*P + w*I, at the first step, in [0, 1]; 0: no mix."""
    identity_mix_share: float = 0.25
    """Share of the optimizer steps over which that weight falls linearly to 0, in (0, 1]."""

    def __post_init__(self) -> None:
        one_of("policy.name", self.name, tuple(POLICIES))
        all_within("policy.", self, temperature=(1e-6, None), alpha=(1e-6, 1), saturation=(1e-6, None))
        all_within("policy.", self, identity_mix_start=(0, 1), identity_mix_share=(1e-6, 1))
        all_within("policy.", self, threshold=(-1, 0.999999))

    @property
    def used_temperature(self) -> float:
        """The temperature, or the policy's own."""
        return POLICIES[self.name].temperature if self.temperature is None else self.temperature

    def used_threshold(self, suggested: float) -> float:
        """The threshold, or the policy's own, or what the store suggests."""
        own = POLICIES[self.name].threshold
        return next(value for value in (self.threshold, own, suggested) if value is not None)


@dataclass(frozen=True)
class ContrastiveOptimConfig(OptimConfig):
    """AdamW with linear warm-up and cosine decay, and a bound on the temperature that is learnt."""

    max_logit_scale: float = 100.0
    """Upper bound of exp(logit_scale), >= 1 (CLIP: 100)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("optim.max_logit_scale", self.max_logit_scale, 1, None)


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
        spent_above = self.policy.threshold is None and self.policy.name == "evidence"
        if self.loss.name == "semantic_matching" and self.loss.exclude_related == "threshold" and spent_above:
            raise ConfigError(
                "loss.exclude_related threshold takes out every pair that policy.name evidence gives weight to: set "
                "--loss.name info_nce, or --policy.threshold below what is excluded"
            )
        if self.data.cached_views and not self.model.lock_image:
            raise ConfigError(
                "data.cached_views keeps what frozen layers of the image tower give: set --model.lock_image true, "
                "with --model.lock_image_unlocked_groups for the layers that learn"
            )
        if POLICIES[self.policy.name].within_case and self.loss.mask_same_case:
            raise ConfigError(
                f"policy.name {self.policy.name} gives weight to the pairs that loss.mask_same_case takes out: "
                "set --loss.mask_same_case false"
            )
        if self.loss.micro_batch is not None and self.loss.micro_batch > self.data.batch_size:
            raise ConfigError(
                f"loss.micro_batch {self.loss.micro_batch} exceeds data.batch_size {self.data.batch_size}: "
                "leave loss.micro_batch out, or lower it"
            )
