"""From images to what a model sees: its evaluation transform as uint8, and augmentation of a whole batch as tensors.

No flips: left and right mean something in a medical image. What a step draws is drawn for the global batch from (seed,
step), so that an image is seen alike whatever the number of processes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import Compose, Normalize, ToTensor

from training.data.config import ViewsConfig


class PixelTransform:
    """Resizes and crops as open_clip's ``preprocess`` does, without its conversion to normalised floats.

    Where ``preprocess`` ends in that conversion, it is left out, which costs nothing and gives the same pixels; any
    other transform is run in full and its normalisation undone.

    Args:
        preprocess: PIL image to float32 [3, H, W].
        mean: per-channel mean of its normalisation, [3, 1, 1].
        std: per-channel standard deviation, [3, 1, 1].
    """

    def __init__(self, preprocess: Callable[[Image.Image], Tensor], mean: Tensor, std: Tensor) -> None:
        self._preprocess, self._mean, self._std = preprocess, mean, std
        steps = list(getattr(preprocess, "transforms", ()))
        ends_in_floats = (
            len(steps) > 1 and isinstance(steps[-2], ToTensor) and isinstance(steps[-1], Normalize)
        )
        self._geometry = Compose(steps[:-2]) if ends_in_floats else None
        self.shape: tuple[int, ...] = tuple(self(Image.new("RGB", (8, 8))).shape)
        """(3, H, W)."""

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """An image, mode L or RGB, to uint8 [3, H, W]."""
        if self._geometry is not None:
            resized: Image.Image = self._geometry(image)
            return np.asarray(resized if resized.mode == "RGB" else resized.convert("RGB")).transpose(2, 0, 1)
        undone = (self._preprocess(image) * self._std + self._mean) * 255.0
        return undone.round().clamp(0, 255).numpy().astype(np.uint8)


@dataclass(frozen=True)
class Drawn:
    """One transform per image, on the CPU; a slice of it belongs to the same slice of the images."""

    theta: Tensor
    """float32 [B, 2, 3]: similarity transform in grid_sample's coordinates."""
    gain: Tensor
    """float32 [B, 1, 1, 1]: contrast."""
    bias: Tensor
    """float32 [B, 1, 1, 1]: brightness, share of the range."""

    def __len__(self) -> int:
        return len(self.theta)

    def __getitem__(self, part: slice) -> "Drawn":
        return Drawn(self.theta[part], self.gain[part], self.bias[part])


@dataclass(frozen=True)
class Augmentation:
    """Ranges of a random similarity transform and of brightness; units as in ``training.data.config.DataConfig``."""

    rotation: float
    shift: float
    zoom: float
    brightness: float

    def draw(self, count: int, generator: torch.Generator) -> Drawn:
        """Transforms of ``count`` images, determined by a CPU generator."""

        def uniform(size: float, *shape: int) -> Tensor:
            return (torch.rand(count, *shape, generator=generator) * 2 - 1) * size

        angle = uniform(math.radians(self.rotation))
        scale = 1.0 + uniform(self.zoom)  # > 0, so never a mirror image
        offset = uniform(2 * self.shift, 2)  # grid_sample's coordinates span 2
        gain, bias = 1.0 + uniform(self.brightness, 1, 1, 1), uniform(self.brightness, 1, 1, 1)
        theta = torch.stack(
            [
                torch.stack([angle.cos() * scale, -angle.sin() * scale, offset[:, 0]], dim=-1),
                torch.stack([angle.sin() * scale, angle.cos() * scale, offset[:, 1]], dim=-1),
            ],
            dim=1,
        )  # [B, 2, 3]
        return Drawn(theta, gain, bias)

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """Transform each image by its own draw; the same draw gives the same result, whole or in slices.

        Args:
            images: float32 [B, 3, H, W] in [0, 1], on any device.
            drawn: of the same B images.

        Returns:
            float32 [B, 3, H, W] in [0, 1]; what is moved in from outside repeats the border.
        """
        theta, gain, bias = (
            one.to(images.device, non_blocking=True) for one in (drawn.theta, drawn.gain, drawn.bias)
        )
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return (moved * gain + bias).clamp(0.0, 1.0)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """``draw`` and ``apply`` together."""
        return self.apply(images, self.draw(len(images), generator))


def step_generator(seed: int, step: int) -> torch.Generator:
    """Generator of a step's draws for its images."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 4096)


def augmentation(config: ViewsConfig) -> Augmentation:
    """The configured augmentation."""
    return Augmentation(config.rotation, config.shift, config.zoom, config.brightness)
