"""Which images make up which step: a pure function of (seed, epoch, step, rank), so that a run can be continued."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.errors import ConfigError


@dataclass(frozen=True)
class EpochBatches:
    """Shuffled batches of one epoch, split over processes; the images of a step do not depend on their number."""

    images: int
    """Images in the data set."""
    batch_size: int
    """Images per step over all processes."""
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.world_size:
            raise ConfigError(
                f"data.batch_size {self.batch_size} is not a multiple of the {self.world_size} processes"
            )
        if self.batch_size // self.world_size < 2 and self.world_size > 1:
            raise ConfigError(
                f"data.batch_size {self.batch_size} leaves {self.world_size} processes one image each"
            )
        if self.steps == 0:
            raise ConfigError(
                f"data.batch_size {self.batch_size} exceeds the {self.images} images of data.train_store: reduce it"
            )

    @property
    def steps(self) -> int:
        """Full batches in an epoch; the remainder sits out, another one each epoch."""
        return self.images // self.batch_size

    def epoch(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Positions of this process's images, int64 [batch_size / world_size], step by step."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(self.images, generator=generator).numpy()
        local = self.batch_size // self.world_size
        for step in range(self.steps):
            start = step * self.batch_size + self.rank * local
            yield order[start : start + local]
