"""Base of samplers, a plan that depends on (seed, epoch) alone, shared out to processes; and the random sampler."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from kg_targets.store import TargetStore
from training.errors import ConfigError

if TYPE_CHECKING:
    import torch  # takes seconds, too long for who only reads a configuration


@dataclass(frozen=True)
class Sampler(ABC):
    """Batches of one epoch. The images of a step do not depend on the number of processes; none is repeated."""

    what: ClassVar[str] = "images of data.train_store"
    """Name of what is drawn, for messages."""
    least: ClassVar[int] = 2
    """A process's share of a batch at least, where there are several."""

    images: int
    """Images in the data set."""
    batch_size: int
    """Images per step over all processes."""
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    @classmethod
    def of_store(cls, store: TargetStore, rows: NDArray[np.int64], share: float, **common: Any) -> Self:
        """The sampler for some rows of a store.

        Args:
            store: cases and neighbours of all rows.
            rows: store rows in use, int64 [images], ascending; what is drawn are positions among them.
            share: ``data.neighbour_share``.
            common: the fields that every sampler has.
        """
        return cls(**common)

    def __post_init__(self) -> None:
        if self.batch_size % self.world_size:
            raise ConfigError(
                f"data.batch_size {self.batch_size} is not a multiple of the {self.world_size} processes"
            )
        if self.batch_size // self.world_size < self.least and self.world_size > 1:
            raise ConfigError(
                f"data.batch_size {self.batch_size} leaves {self.world_size} processes one image each"
            )
        if self.steps == 0:
            raise ConfigError(
                f"data.batch_size {self.batch_size} exceeds the {self.images} {self.what}: reduce it"
            )

    @property
    def steps(self) -> int:
        """Full batches in an epoch; the remainder sits out, another one each epoch."""
        return self.images // self.batch_size

    def epoch(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Positions of this process's images, int64 [batch_size / world_size], step by step."""
        local = self.batch_size // self.world_size
        for batch in self.batches(epoch):
            yield batch[self.rank * local : (self.rank + 1) * local]

    @abstractmethod
    def batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Positions of all processes' images, int64 [batch_size], step by step."""

    def shuffled(self, epoch: int) -> tuple[NDArray[np.int64], "torch.Generator"]:
        """A random order of all images, and the generator that further draws of the epoch come from."""
        import torch

        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.images, generator=generator).numpy(), generator


@dataclass(frozen=True)
class RandomSampler(Sampler):
    """A new order of all images each epoch, split into batches."""

    def batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Positions of all processes' images, int64 [batch_size], step by step."""
        order, _ = self.shuffled(epoch)
        for step in range(self.steps):
            yield order[step * self.batch_size : (step + 1) * self.batch_size]
