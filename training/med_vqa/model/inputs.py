"""What the model sees of a step's images: pixels, augmented anew; tokens of some views, computed once; or nothing."""

from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from training.data.feature_cache import FrozenFeatures
from training.data.transforms import augmentation, step_generator
from training.errors import ConfigError
from training.med_vqa.finetune.config import FinetuneConfig, VQADataConfig
from training.med_vqa.model.pictures import Pictures, blank_images
from training.med_vqa.model.saving import MedVQA
from training.med_vqa.pretrain.config import PretrainDataConfig


class Inputs(Protocol):
    """Where a step's images come from."""

    def __call__(self, rows: Tensor, step: int, offset: int) -> dict[str, Tensor]:
        """Arguments of the model's forward pass.

        Args:
            rows: of the images of this process's questions, int64 ``[B_local]``.
            step: counted from 1.
            offset: of the first of them in the global batch.

        Returns:
            ``images`` ``[B_local, 3, S, S]`` or ``image_tokens`` ``[B_local, N, D]``, float32, on the device.
        """
        ...


def make_inputs(
    config: FinetuneConfig, vqa: MedVQA, pictures: Pictures | None, accelerator: Accelerator
) -> Inputs:
    """As configured.

    Args:
        config: the run's.
        vqa: the model, on the accelerator's device.
        pictures: None: every image is blank.
        accelerator: the run's.

    Raises:
        ConfigError: image tokens would take more memory than ``data.cached_mb``.
        DataError: cached tokens are damaged.
        CheckpointError: ``data.cache`` cannot be written.
    """
    if pictures is None:
        return BlankInputs(config, vqa, accelerator.device)
    if config.data.cached_views:
        return FrozenInputs(config, vqa, pictures, accelerator)
    return PixelInputs(config, vqa, pictures, accelerator.device)


class PixelInputs:
    """Every question sees a view of its own."""

    def __init__(self, config: FinetuneConfig, vqa: MedVQA, pictures: Pictures, device: torch.device) -> None:
        self._config, self._pixels, self._device = config, pictures.pixels, device
        self._mean, self._std = vqa.mean.to(device), vqa.std.to(device)

    def __call__(self, rows: Tensor, step: int, offset: int) -> dict[str, Tensor]:
        """See ``Inputs``."""
        augment = augmentation(self._config.data)
        everyone = augment.draw(self._config.data.batch_size, step_generator(self._config.seed, step))
        pixels = self._pixels[rows].to(self._device).float() / 255.0
        seen = augment.apply(pixels, everyone[offset : offset + len(rows)])
        return {"images": (seen - self._mean) / self._std}


class FrozenInputs:
    """Tokens that the frozen image tower made of each image's views once, kept on disk and, as float16, in memory."""

    def __init__(
        self, config: FinetuneConfig, vqa: MedVQA, pictures: Pictures, accelerator: Accelerator
    ) -> None:
        self._config, self._device = config, accelerator.device
        check_cached_memory(vqa, len(pictures), config.data, self._device)
        self._tokens = FrozenFeatures(config.data, accelerator).of_images(
            vqa.model.vision, pictures.pixels, vqa.mean, vqa.std, config.data.cached_views, "image tokens"
        )  # (P, views, N, D)

    def __call__(self, rows: Tensor, step: int, offset: int) -> dict[str, Tensor]:
        """See ``Inputs``."""
        data, generator = self._config.data, step_generator(self._config.seed, step)
        drawn = torch.randint(data.cached_views, (data.batch_size,), generator=generator)
        tokens = self._tokens[rows, drawn[offset : offset + len(rows)]]
        return {"image_tokens": tokens.to(self._device).float()}


@torch.no_grad()
def check_cached_memory(
    vqa: MedVQA, images: int, data: VQADataConfig | PretrainDataConfig, device: torch.device
) -> None:
    """Refuse to keep more image tokens than ``data.cached_mb`` allows.

    Args:
        vqa: the model whose image tower makes them.
        images: how many there are.
        data: how many views of each are kept, and what they may take.
        device: where the model is.

    Raises:
        ConfigError: they would take more memory.
    """
    one = vqa.model.image_tokens(blank_images(vqa, 1).to(device))
    needed = -(-2 * one.numel() * images * data.cached_views // 10**6)
    if needed > data.cached_mb:
        raise ConfigError(
            f"data.cached_views: {data.cached_views} views of {images:,} images take {needed:,} MB of memory, "
            f"data.cached_mb allows {data.cached_mb:,}: keep fewer views, or none by --data.cached_views 0"
        )


class BlankInputs:
    """The same mean colour for every question."""

    def __init__(self, config: FinetuneConfig, vqa: MedVQA, device: torch.device) -> None:
        self._image = blank_images(vqa, 1).to(device)
        self._tokens: Tensor | None = None
        if config.model.lock_vision:
            with torch.no_grad():
                self._tokens = vqa.model.image_tokens(self._image)

    def __call__(self, rows: Tensor, step: int, offset: int) -> dict[str, Tensor]:
        """See ``Inputs``."""
        if self._tokens is not None:
            return {"image_tokens": self._tokens.expand(len(rows), -1, -1)}
        return {"images": self._image.expand(len(rows), -1, -1, -1)}
