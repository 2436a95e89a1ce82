"""A model's evaluation transform as uint8: what images are kept and moved as, before they are normalised."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose, Normalize, ToTensor


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
        pixels: NDArray[np.uint8] = undone.round().clamp(0, 255).numpy().astype(np.uint8)
        return pixels
