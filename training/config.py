"""The configuration of a training run: frozen dataclasses, one line with unit and range under each field.

A YAML file holds the same tree; ``--any.field value`` overrides it (see ``training/options.py``).
"""

from dataclasses import dataclass, field

from training.errors import ConfigError

POLICY_NAMES = ("softmax", "fixed_mass", "evidence", "identity")
LOSS_NAMES = ("semantic_matching", "info_nce", "mse", "sigmoid")
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class ModelConfig:
    """The two towers, by open_clip."""

    name: str = "demo-resnet"
    """open_clip architecture: one shipped in training/nb_clip/model_configs, built-in, or local-dir:PATH."""
    pretrained: str | None = None
    """open_clip weights tag or file to start from; null starts from random weights."""
    precision: str = "fp32"
    """fp32, or bf16 for automatic mixed precision; losses and targets are float32 in both."""

    def __post_init__(self) -> None:
        _one_of("model.precision", self.precision, PRECISIONS)


@dataclass(frozen=True)
class DataConfig:
    """Images, captions and their target stores."""

    train_store: str = ""
    """Folder of the training split's target store; required."""
    dev_store: str | None = None
    """Folder of the development split's store, to choose the best epoch; null keeps the last epoch."""
    data_root: str = ""
    """Folder that the store's image paths are relative to; required."""
    batch_size: int = 128
    """Images per optimizer step, summed over all processes; at least 2."""
    in_memory: bool = True
    """Decode every image once, as uint8 (3 x size x size bytes each); false decodes at each use."""
    max_broken: int = 0
    """Images that may be missing or unreadable, as a count; skipped and reported; more is an error."""
    rotation: float = 8.0
    """Augmentation: largest rotation, degrees, in [0, 180)."""
    shift: float = 0.06
    """Augmentation: largest shift, share of the image side, in [0, 0.5]."""
    zoom: float = 0.12
    """Augmentation: largest relative change of scale, in [0, 1)."""
    brightness: float = 0.15
    """Augmentation: largest change of contrast (relative) and offset (share of the range), in [0, 1)."""

    def __post_init__(self) -> None:
        _within("data.batch_size", self.batch_size, 2, None)
        _within("data.max_broken", self.max_broken, 0, None)
        _within("data.rotation", self.rotation, 0, 179.999)
        _within("data.shift", self.shift, 0, 0.5)
        _within("data.zoom", self.zoom, 0, 0.999)
        _within("data.brightness", self.brightness, 0, 0.999)


@dataclass(frozen=True)
class LossConfig:
    """The training objective."""

    name: str = "semantic_matching"
    """semantic_matching (soft targets by the policy), info_nce (CLIP's baseline), mse or sigmoid (similarities)."""
    mask_same_case: bool = True
    """Take pairs of one case (group_id) out of the batch: neither target nor logit counts them."""
    init_bias: float = -10.0
    """Sigmoid: learnable bias of the logits at the start, in [-100, 100]; a model that has one keeps its own."""

    def __post_init__(self) -> None:
        _one_of("loss.name", self.name, LOSS_NAMES)
        _within("loss.init_bias", self.init_bias, -100, 100)


@dataclass(frozen=True)
class PolicyConfig:
    """How similarities become targets (training/nb_clip/targets.py); info_nce ignores all of it."""

    name: str = "evidence"
    """softmax, fixed_mass, evidence or identity; semantic_matching only, as are the next four fields."""
    temperature: float = 1.0
    """Temperature of softmax and fixed_mass, units of similarity, > 0."""
    alpha: float = 0.7
    """Probability the true pair keeps: exactly (fixed_mass) or at least (evidence), in (0, 1]."""
    threshold: float | None = None
    """Evidence: similarity below which an image counts as unrelated, in [-1, 1); null: the store's p95."""
    saturation: float = 1.0
    """Evidence: summed weight of relatives at which a row is as soft as it gets, > 0."""
    identity_mix_start: float = 0.0
    """Weight w of the identity in soft targets, (1 - w)*P + w*I, at the first step, in [0, 1]; 0: no mix."""
    identity_mix_share: float = 0.25
    """Share of the optimizer steps over which that weight falls linearly to 0, in (0, 1]."""

    def __post_init__(self) -> None:
        _one_of("policy.name", self.name, POLICY_NAMES)
        _within("policy.temperature", self.temperature, 1e-6, None)
        _within("policy.alpha", self.alpha, 1e-6, 1)
        _within("policy.saturation", self.saturation, 1e-6, None)
        _within("policy.identity_mix_start", self.identity_mix_start, 0, 1)
        _within("policy.identity_mix_share", self.identity_mix_share, 1e-6, 1)
        if self.threshold is not None:
            _within("policy.threshold", self.threshold, -1, 0.999999)


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    epochs: int = 20
    """Passes over the training images, at least 1."""
    max_steps: int | None = None
    """Stop after this many optimizer steps, at least 1; null runs all epochs."""
    lr: float = 1e-3
    """Peak learning rate, > 0."""
    warmup: float = 0.1
    """Share of the steps with linearly rising learning rate, in [0, 1)."""
    weight_decay: float = 0.1
    """Decoupled weight decay of matrices and kernels, >= 0; gains, biases and the logit scale get none."""
    beta1: float = 0.9
    """AdamW's first-moment decay, in [0, 1)."""
    beta2: float = 0.98
    """AdamW's second-moment decay, in [0, 1)."""
    clip_norm: float | None = 1.0
    """Largest global gradient norm, > 0; null does not clip."""
    max_logit_scale: float = 100.0
    """Upper bound of exp(logit_scale), >= 1 (CLIP: 100)."""

    def __post_init__(self) -> None:
        _within("optim.epochs", self.epochs, 1, None)
        if self.max_steps is not None:
            _within("optim.max_steps", self.max_steps, 1, None)
        _within("optim.lr", self.lr, 1e-12, None)
        _within("optim.warmup", self.warmup, 0, 0.999)
        _within("optim.weight_decay", self.weight_decay, 0, None)
        _within("optim.beta1", self.beta1, 0, 0.999999)
        _within("optim.beta2", self.beta2, 0, 0.999999)
        if self.clip_norm is not None:
            _within("optim.clip_norm", self.clip_norm, 1e-12, None)
        _within("optim.max_logit_scale", self.max_logit_scale, 1, None)


@dataclass(frozen=True)
class LogConfig:
    """What is reported while training."""

    every: int = 10
    """Optimizer steps between log lines (files and trackers), at least 1."""
    tensorboard: bool = True
    """Write TensorBoard events below OUTPUT/tensorboard."""

    def __post_init__(self) -> None:
        _within("log.every", self.every, 1, None)


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
        _within("seed", self.seed, 0, 2**31 - 1)
        _within("threads", self.threads, 0, 1024)
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


def _within(name: str, value: float, low: float, high: float | None) -> None:
    if not value >= low or (high is not None and not value <= high):
        upper = "" if high is None else f" and at most {high:g}"
        raise ConfigError(f"{name}: {value} must be at least {low:g}{upper}")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f'{name}: "{value}" is not one of {", ".join(choices)}')
