"""The configuration of the objective: which loss, how similarities become its targets, and how it is optimised."""

from dataclasses import dataclass

from training.checks import one_of, within
from training.engine.config import OptimConfig

POLICY_NAMES = ("softmax", "fixed_mass", "evidence", "identity", "uniform", "same_case")
TEMPERATURES = {"softmax": 1.0, "fixed_mass": 0.05}
LOSS_NAMES = ("semantic_matching", "info_nce", "mse", "sigmoid")


@dataclass(frozen=True)
class LossConfig:
    """The training objective."""

    name: str = "semantic_matching"
    """semantic_matching (soft targets by the policy), info_nce (CLIP's baseline), mse or sigmoid (similarities)."""
    mask_same_case: bool = True
    """Take pairs of one case (group_id) out of the batch: neither target nor logit counts them."""
    init_bias: float = -10.0
    """Sigmoid: learnable bias of the logits at the start, in [-100, 100]; a model that has one keeps its own."""
    micro_batch: int | None = None
    """Images per forward pass and process, >= 1, same gradient in less memory; null: the whole local batch at once."""
    device_factors_mb: int = 2048
    """On a GPU: memory for the store's factors, MB, >= 0; if they need more, the CPU computes the similarities."""

    def __post_init__(self) -> None:
        one_of("loss.name", self.name, LOSS_NAMES)
        within("loss.init_bias", self.init_bias, -100, 100)
        if self.micro_batch is not None:
            within("loss.micro_batch", self.micro_batch, 1, None)
        within("loss.device_factors_mb", self.device_factors_mb, 0, None)


@dataclass(frozen=True)
class PolicyConfig:
    """How similarities become targets (training/nb_clip/targets.py); info_nce ignores all of it."""

    name: str = "fixed_mass"
    """softmax, fixed_mass, evidence, identity, or a control, uniform or same_case; semantic_matching only."""
    temperature: float | None = None
    """Of softmax and fixed_mass, units of similarity, > 0; null: 1 for softmax (the authors'), 0.05 for fixed_mass."""
    alpha: float = 0.7
    """Probability the true pair keeps: exactly (fixed_mass, uniform, same_case) or at least (evidence), in (0, 1]."""
    threshold: float | None = None
    """Evidence: similarity below which an image counts as unrelated, in [-1, 1); null: the store's p95."""
    saturation: float = 1.0
    """Evidence: summed weight of relatives at which a row is as soft as it gets, > 0."""
    identity_mix_start: float = 0.0
    """Weight w of the identity in soft targets, (1 - w)*P + w*I, at the first step, in [0, 1]; 0: no mix."""
    identity_mix_share: float = 0.25
    """Share of the optimizer steps over which that weight falls linearly to 0, in (0, 1]."""

    def __post_init__(self) -> None:
        one_of("policy.name", self.name, POLICY_NAMES)
        if self.temperature is not None:
            within("policy.temperature", self.temperature, 1e-6, None)
        within("policy.alpha", self.alpha, 1e-6, 1)
        within("policy.saturation", self.saturation, 1e-6, None)
        within("policy.identity_mix_start", self.identity_mix_start, 0, 1)
        within("policy.identity_mix_share", self.identity_mix_share, 1e-6, 1)
        if self.threshold is not None:
            within("policy.threshold", self.threshold, -1, 0.999999)

    @property
    def used_temperature(self) -> float:
        """The temperature, or the policy's own."""
        return TEMPERATURES.get(self.name, 1.0) if self.temperature is None else self.temperature


@dataclass(frozen=True)
class ContrastiveOptimConfig(OptimConfig):
    """AdamW with linear warm-up and cosine decay, and a bound on the temperature that is learnt."""

    max_logit_scale: float = 100.0
    """Upper bound of exp(logit_scale), >= 1 (CLIP: 100)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("optim.max_logit_scale", self.max_logit_scale, 1, None)
