"""Augmentation of a whole batch as tensors. No flips: left and right mean something in a medical image."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


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
        device = images.device
        grid = F.affine_grid(drawn.theta.to(device), list(images.shape), align_corners=False)
        moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return (moved * drawn.gain.to(device) + drawn.bias.to(device)).clamp(0.0, 1.0)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """``draw`` and ``apply`` together."""
        return self.apply(images, self.draw(len(images), generator))
