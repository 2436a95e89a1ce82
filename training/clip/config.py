"""The configuration of the two towers."""

from dataclasses import dataclass

from training.checks import one_of

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class ModelConfig:
    """The two towers, by open_clip."""

    name: str = "demo-resnet"
    """open_clip architecture: one shipped in training/clip/model_configs, built-in, or local-dir:PATH."""
    pretrained: str | None = None
    """open_clip weights tag or file to start from; null starts from random weights."""
    precision: str = "fp32"
    """fp32, or bf16 for automatic mixed precision; losses and targets are float32 in both."""

    def __post_init__(self) -> None:
        one_of("model.precision", self.precision, PRECISIONS)
