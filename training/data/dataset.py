"""A target store's images and captions, in memory or decoded at each use, by store row."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kg_targets.store import TargetStore
from training.clip.load import Clip
from training.data.images import check_present, load_images, read_uint8, resolve
from training.errors import DataError


@dataclass(frozen=True)
class Batch:
    """One process's share of a step."""

    rows: Tensor
    """Store rows, int64 [B]."""
    pixels: Tensor
    """uint8 [B, 3, S, S], not augmented, not normalised."""
    tokens: Tensor
    """int64 [B, context_length]."""


class CaptionedImages:
    """The image–caption pairs of one store.

    Raises:
        DataError: images are missing or broken beyond ``max_broken``, or fewer than two are left.
    """

    def __init__(
        self, store: TargetStore, data_root: Path, clip: Clip, *, in_memory: bool = True, max_broken: int = 0
    ) -> None:
        self.store = store
        self._read = partial(read_uint8, preprocess=clip.preprocess, mean=clip.mean, std=clip.std)
        self._paths = [resolve(data_root, relative) for relative in store.image_paths]
        self._pixels: Tensor | None = None
        if in_memory:
            table = load_images(data_root, store.image_paths, self._read, max_broken)
            self.rows, self._pixels, self.broken = table.rows, table.pixels, table.broken
        else:
            check_present(data_root, store.image_paths, self._paths, max_broken)
            present = [row for row, path in enumerate(self._paths) if path.is_file()]
            self.rows = np.array(present, dtype=np.int64)
            self.broken = [str(path) for path in self._paths if not path.is_file()]
        if len(self.rows) < 2:
            raise DataError(
                f"{store.path}: {len(self.rows)} readable image(s): a contrastive batch needs at least 2"
            )
        captions = store.captions
        self._tokens = clip.tokenizer([captions[row] for row in self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, positions: Sequence[int] | NDArray[np.int64]) -> Batch:
        """The pairs at ``positions`` of ``self.rows``.

        Raises:
            DataError: an image that was there at the start cannot be read.
        """
        index = torch.as_tensor(np.asarray(positions, dtype=np.int64))
        rows = torch.as_tensor(self.rows)[index]
        return Batch(rows, self._decode(index, rows), self._tokens[index])

    def _decode(self, index: Tensor, rows: Tensor) -> Tensor:
        if self._pixels is not None:
            return self._pixels[index]
        images = []
        for row in rows.tolist():
            try:
                images.append(self._read(self._paths[row]))
            except (OSError, SyntaxError, ValueError) as error:
                path = self._paths[row]
                raise DataError(
                    f"{path} cannot be read ({error}): data.in_memory true can skip it"
                ) from error
        return torch.stack(images)
