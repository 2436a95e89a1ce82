"""Every batch is a random draw: nothing but chance decides which images meet."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.samplers.base import Sampler


@dataclass(frozen=True)
class RandomSampler(Sampler):
    """A new order of all images each epoch, cut into batches."""

    def batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Positions of all processes' images, int64 [batch_size], step by step."""
        order, _ = self.shuffled(epoch)
        for step in range(self.steps):
            yield order[step * self.batch_size : (step + 1) * self.batch_size]
