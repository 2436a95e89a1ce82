"""The configuration of the optimizer and of what is reported."""

from dataclasses import dataclass

from training.checks import within


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
        within("optim.epochs", self.epochs, 1, None)
        if self.max_steps is not None:
            within("optim.max_steps", self.max_steps, 1, None)
        within("optim.lr", self.lr, 1e-12, None)
        within("optim.warmup", self.warmup, 0, 0.999)
        within("optim.weight_decay", self.weight_decay, 0, None)
        within("optim.beta1", self.beta1, 0, 0.999999)
        within("optim.beta2", self.beta2, 0, 0.999999)
        if self.clip_norm is not None:
            within("optim.clip_norm", self.clip_norm, 1e-12, None)
        within("optim.max_logit_scale", self.max_logit_scale, 1, None)


@dataclass(frozen=True)
class LogConfig:
    """What is reported while training."""

    every: int = 10
    """Optimizer steps between log lines (files and trackers), at least 1."""
    tensorboard: bool = True
    """Write TensorBoard events below OUTPUT/tensorboard."""

    def __post_init__(self) -> None:
        within("log.every", self.every, 1, None)
