"""Augmentation of a whole batch as tensors. No flips: left and right mean something in a medical image."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """Ranges of a random similarity transform and of brightness; units as in ``training.data.config.DataConfig``."""

    rotation: float
    shift: float
    zoom: float
    brightness: float

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one transform per image.

        Args:
            images: float32 [B, 3, H, W] in [0, 1].
            generator: CPU generator that determines the draw.

        Returns:
            float32 [B, 3, H, W] in [0, 1]; what is moved in from outside repeats the border.
        """
        count = images.shape[0]

        def draw(size: float, *shape: int) -> Tensor:
            return (torch.rand(count, *shape, generator=generator) * 2 - 1) * size

        angle = draw(math.radians(self.rotation))
        scale = 1.0 + draw(self.zoom)  # > 0, so never a mirror image
        offset = draw(2 * self.shift, 2)  # grid_sample's coordinates span 2
        gain, bias = 1.0 + draw(self.brightness, 1, 1, 1), draw(self.brightness, 1, 1, 1)
        theta = torch.stack(
            [
                torch.stack([angle.cos() * scale, -angle.sin() * scale, offset[:, 0]], dim=-1),
                torch.stack([angle.sin() * scale, angle.cos() * scale, offset[:, 1]], dim=-1),
            ],
            dim=1,
        ).to(images.device)  # [B, 2, 3]
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return (moved * gain.to(images.device) + bias.to(images.device)).clamp(0.0, 1.0)
