"""A teacher that costs nothing: a linear layer over 8 × 8 pixels, another over letters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from training.teachers.encoder import Encoder


class FakeEncoder(Encoder):
    """``fake:SEED``."""

    kind = "fake"

    def __init__(self, source: str, name: str, device: torch.device) -> None:
        torch.manual_seed(int(source))
        towers = nn.ModuleDict({"image": nn.Linear(64, 5), "text": nn.Linear(64, 5)})
        super().__init__(name, towers, {"size": 8}, [], None, device, 14.0)

    def prepare(self, image: Image.Image) -> Tensor:
        """Grey, 8 × 8, three times."""
        pixels = np.asarray(image.convert("L").resize((8, 8)), dtype=np.float32) / 255.0
        return torch.from_numpy(pixels).expand(3, 8, 8).clone()

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Counts of letters."""
        counts = [np.bincount([ord(letter) % 64 for letter in text], minlength=64) for text in texts]
        return {"input_ids": torch.from_numpy(np.stack(counts)).float()}

    def encode_image(self, pixels: Tensor) -> Tensor:
        """``[B, 5]``."""
        towers: Any = self.model
        features: Tensor = towers["image"](pixels[:, 0].flatten(1))
        return features

    def encode_text(self, tokens: dict[str, Tensor]) -> Tensor:
        """``[B, 5]``."""
        towers: Any = self.model
        features: Tensor = towers["text"](tokens["input_ids"])
        return features
