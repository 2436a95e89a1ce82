"""The configuration of the two towers."""

import os
from dataclasses import dataclass

from training.checks import all_within, one_of
from training.errors import ConfigError

PRECISIONS = ("fp32", "bf16", "fp16")
LAUNCHER_PRECISION = "ACCELERATE_MIXED_PRECISION"
"""Environment variable by which ``accelerate launch --mixed_precision`` reaches the processes that it starts."""
MAX_IMAGE_SIZE = 4096


@dataclass(frozen=True)
class ModelConfig:
    """The two towers, by open_clip: architecture, pretrained weights and which part of them learns."""

    name: str = "demo-resnet"
    """open_clip architecture: shipped in training/clip/model_configs, built-in, local-dir:PATH or hf-hub:ORG/REPO."""
    pretrained: str | None = None
    """Weights of both towers: an open_clip tag, or a .safetensors or state_dict file; null: random weights."""
    image_weights: str | None = None
    """Weights of the image tower alone: efficientnet-lite0 (ImageNet, extra [benchmarks]) or a file; null: none."""
    text_weights: str | None = None
    """Weights of a Hugging Face text tower alone: minilm-l6-v2 (extra [benchmarks]) or a model folder; null: none."""
    image_size: int | None = None
    """Side of the square input in pixels, in [16, 4096]; null keeps the architecture's."""
    precision: str = "auto"
    """fp32, bf16 or fp16 (GPU only), losses float32 in all; auto: as accelerate launch --mixed_precision says."""
    lock_image: bool = False
    """Freeze the image tower: weights, BatchNorm statistics and dropout; timm towers keep learning their projection."""
    lock_image_unlocked_groups: int = 0
    """Last groups (ViT: projection, then blocks; timm: its own) of the locked image tower that still learn, >= 0."""
    lock_text: bool = False
    """Freeze the text tower; Hugging Face towers keep learning their projection."""
    lock_text_unlocked_layers: int = 0
    """Last layers of the locked text tower that still learn, >= 0; open_clip's own towers count their projection."""
    freeze_batch_norm: bool = False
    """BatchNorm normalises by its stored statistics and never updates them; its scale and shift still learn."""
    grad_checkpointing: bool = False
    """Keep no activations of the transformer blocks or timm stages, compute them again in the backward pass."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", resolve_precision(self.precision))
        all_within("model.", self, image_size=(16, MAX_IMAGE_SIZE), lock_image_unlocked_groups=(0, 1000))
        all_within("model.", self, lock_text_unlocked_layers=(0, 1000))
        for lock, unlocked in (
            ("lock_image", "lock_image_unlocked_groups"),
            ("lock_text", "lock_text_unlocked_layers"),
        ):
            if getattr(self, unlocked) and not getattr(self, lock):
                raise ConfigError(f"model.{unlocked} needs model.{lock} true: nothing else is locked")
        whole = "model.name" if is_folder(self.name) else "model.pretrained" if self.pretrained else ""
        for field in ("pretrained", "image_weights", "text_weights"):
            if whole and getattr(self, field) is not None and f"model.{field}" != whole:
                raise ConfigError(
                    f"{whole} brings the weights of both towers: leave model.{field} out, or take a plain "
                    "architecture name"
                )


def is_folder(name: str) -> bool:
    """Whether the name stands for a folder or repository that holds weights, too."""
    return name.startswith(("local-dir:", "hf-hub:"))


def resolve_precision(asked: str) -> str:
    """``model.precision`` as a run has it: fp32, bf16 or fp16.

    Args:
        asked: one of them, or auto: what the launcher was told, fp32 where it was told nothing.

    Raises:
        ConfigError: it is none of them.
    """
    if asked != "auto":
        one_of("model.precision", asked, (*PRECISIONS, "auto"))
        return asked
    told = os.environ.get(LAUNCHER_PRECISION, "no").lower()
    if told not in ("no", *PRECISIONS[1:]):
        raise ConfigError(f"accelerate's --mixed_precision {told} is not supported: choose no, bf16 or fp16")
    return PRECISIONS[0] if told == "no" else told


def check_precision(precision: str, device: str) -> None:
    """Refuse what the device cannot do.

    Args:
        precision: ``model.precision``.
        device: type of the device, such as ``cpu`` or ``cuda``.

    Raises:
        ConfigError: fp16 on a CPU, where automatic mixed precision would lose small gradients without a scaler.
    """
    if precision == "fp16" and device == "cpu":
        raise ConfigError("model.precision fp16 needs a GPU: set --model.precision bf16 or fp32 on a CPU")
