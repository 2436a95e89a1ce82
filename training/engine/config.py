"""The configuration of the optimizer, of what is reported and of how often a run is saved."""

from dataclasses import dataclass

from training.checks import within

RESUME = ("auto", "never", "must")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    epochs: int = 20
    """Passes over the training images, at least 1."""
    max_steps: int | None = None
    """Stop after this many optimizer steps, at least 1; null runs all epochs."""
    lr: float = 1e-3
    """Peak learning rate, in (0, 100]."""
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
        within("optim.lr", self.lr, 1e-12, 100)
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
    trackers: str = "tensorboard"
    """Comma-separated trackers of accelerate (tensorboard, wandb, mlflow, ...); none writes OUTPUT/log.jsonl only."""

    def __post_init__(self) -> None:
        within("log.every", self.every, 1, None)

    @property
    def tracker_names(self) -> list[str]:
        """The trackers asked for, each once."""
        names = [name.strip() for name in self.trackers.split(",")]
        return [name for name in dict.fromkeys(names) if name not in ("", "none")]


@dataclass(frozen=True)
class SaveConfig:
    """When the state of a run is saved, from which it continues after a kill; it is gone once the run is finished."""

    every: int = 0
    """Optimizer steps between saved states, >= 0; 0: at the ends of epochs only."""
    minutes: float = 1.0
    """Least time between states saved at the ends of epochs, minutes, >= 0: short epochs would do little else."""

    def __post_init__(self) -> None:
        within("save.every", self.every, 0, None)
        within("save.minutes", self.minutes, 0, None)
