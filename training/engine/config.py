"""Configuration that all runs share, whatever they train: optimizer, log, how often the state is saved."""

from dataclasses import dataclass, field

from training.checks import all_within, given, one_of, within
from training.errors import ConfigError

RESUME = ("auto", "never", "must")
MAX_THREADS = 1024
"""Most CPU threads of a process that can be asked for."""


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    epochs: int = 20
    """Passes over the training data, at least 1."""
    max_steps: int | None = None
    """Stop after this many optimizer steps, at least 1; null runs all epochs."""
    lr: float = 1e-3
    """Peak learning rate, in (0, 100]."""
    warmup: float = 0.1
    """Share of the steps with linearly rising learning rate, in [0, 1)."""
    weight_decay: float = 0.1
    """Decoupled weight decay of matrices and kernels, >= 0; gains, biases and scales get none."""
    beta1: float = 0.9
    """AdamW's first-moment decay, in [0, 1)."""
    beta2: float = 0.98
    """AdamW's second-moment decay, in [0, 1)."""
    clip_norm: float | None = 1.0
    """Largest global gradient norm, > 0; null does not clip."""

    def __post_init__(self) -> None:
        all_within("optim.", self, epochs=(1, None), max_steps=(1, None), lr=(1e-12, 100), warmup=(0, 0.999))
        all_within("optim.", self, weight_decay=(0, None), beta1=(0, 0.999999), beta2=(0, 0.999999))
        all_within("optim.", self, clip_norm=(1e-12, None))


@dataclass(frozen=True)
class LogConfig:
    """Log of a run."""

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
        all_within("save.", self, every=(0, None), minutes=(0, None))


@dataclass(frozen=True)
class RunConfig:
    """One training run; each task adds its model, its data and its objective."""

    task: str = ""
    """Task to train: a name of training/tasks.py, nb_clip if absent; --task NAME --help shows that task's fields."""
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
    tf32: bool = False
    """On a GPU: products of float32 matrices and convolutions with 10 bits of mantissa; faster, less exact."""
    deterministic: bool = False
    """On a GPU: kernels that give the same bits in every run, for time and memory (docs/gpu.md); on a CPU always."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    log: LogConfig = field(default_factory=LogConfig)
    save: SaveConfig = field(default_factory=SaveConfig)

    def __post_init__(self) -> None:
        if self.task != type(self).task:  # the default is the task that the class describes
            raise ConfigError(f'task: these are the fields of {type(self).task}, not of "{self.task}"')
        all_within("", self, seed=(0, 2**31 - 1), threads=(0, MAX_THREADS))
        one_of("resume", self.resume, RESUME)
        if self.overwrite and self.resume == "must":
            raise ConfigError("overwrite true and resume must contradict each other: drop one")
        given("output", self.output)
