"""A run's image features on a store's images."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kg_targets.store import TargetStore
from training.clip.features import image_features
from training.clip.load import Clip
from training.data.dataset import CaptionedImages
from training.nb_clip.task import case_codes


@dataclass(frozen=True)
class RetrievalSet:
    """The images that are queries and gallery at once, with what is known about them; N readable images."""

    store: TargetStore
    rows: NDArray[np.int64]
    """Store row of each image."""
    cases: NDArray[np.int64]
    """Case code of each image."""

    @classmethod
    def of(cls, store: TargetStore, rows: NDArray[np.int64]) -> "RetrievalSet":
        """The set of a store's rows."""
        return cls(store, rows, case_codes(store.group_ids)[rows])

    def label(self, name: str) -> list[str]:
        """Label of each image, empty where missing."""
        values = self.store.label(name)
        return [values[row] for row in self.rows]


def normalise(pixels: Tensor, clip: Clip, device: torch.device | str = "cpu") -> Tensor:
    """uint8 [B, 3, S, S] to the model's float32 input."""
    return (pixels.to(device).float() / 255.0 - clip.mean.to(device)) / clip.std.to(device)


@torch.no_grad()
def encode_images(
    model: nn.Module,
    clip: Clip,
    images: CaptionedImages,
    *,
    projected: bool = False,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Unit features of all images in ``images``, float32 ``[N, D]``; the model returns to its mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        parts = []
        for start in range(0, len(images), batch_size):
            batch = images.batch(range(start, min(start + batch_size, len(images))))
            features = image_features(model, normalise(batch.pixels, clip, device), projected=projected)
            parts.append(features.cpu().numpy())
        return np.concatenate(parts)
    finally:
        model.train(was_training)
