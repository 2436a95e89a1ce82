"""Soft positives meet: part of every batch is drawn from the store's neighbours of the rest.

In a random batch of a large data set nearly all pairs are unrelated, so that soft targets have little to say. Here a
share of each batch is related to its seeds: soft positives, and negatives that are hard to tell apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kg_targets.store import TargetStore
from training.data.samplers.base import Sampler

NEAREST = 16
"""Neighbours looked at of each image; those further down its list are hardly related."""


@dataclass(frozen=True)
class NeighbourAwareSampler(Sampler):
    """Seeds in random order, and for each in turn one of its neighbours that the epoch has not shown yet.

    Guaranteed: every image at most once an epoch. The share is what is aimed at: late in an epoch, and for images
    without neighbours, random images take the places. Neighbours of the seed's own case are not looked at, since pairs
    of a case are masked in the loss.
    """

    share: float = 0.5
    """Share of the batch drawn from neighbours, in [0, 0.9]."""
    neighbours: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 0), np.int32), repr=False)
    """Positions of each image's neighbours, nearest first, int32 [images, K]; -1: none."""

    @classmethod
    def of_store(cls, store: TargetStore, rows: NDArray[np.int64], share: float, **common: Any) -> Self:
        """Sampler with the store's neighbours of other cases."""
        cases = store.cases[rows]
        return cls(
            share=share, neighbours=neighbour_table(store.column("neighbor_rows"), rows, cases), **common
        )

    def batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Positions of all processes' images, int64 [batch_size], step by step."""
        import torch

        order, generator = self.shuffled(epoch)
        used = np.zeros(self.images, dtype=bool)
        wanted = min(round(self.share * self.batch_size), self.batch_size - 1)
        next_seed = iter(order.tolist())
        depth = self.neighbours.shape[1]
        for _ in range(self.steps):
            seeds = list(_take(next_seed, used, self.batch_size - wanted))
            batch = list(seeds)
            starts = torch.randint(max(depth, 1), (max(wanted, 1),), generator=generator).tolist()
            for turn in range(wanted):
                found = self._unused(seeds[turn % len(seeds)], starts[turn], used)
                if found is not None:
                    used[found] = True
                    batch.append(found)
            batch.extend(_take(next_seed, used, self.batch_size - len(batch)))
            mixed = torch.randperm(self.batch_size, generator=generator).numpy()  # every process gets of both
            yield np.array(batch, dtype=np.int64)[mixed]

    def _unused(self, seed: int, start: int, used: NDArray[np.bool_]) -> int | None:
        """A random neighbour that is still to be shown: the first from a random place of the list on, round it."""
        row = self.neighbours[seed]
        free = row[(row >= 0) & ~used[row]]
        return int(free[start % len(free)]) if len(free) else None


def _take(order: Iterator[int], used: NDArray[np.bool_], count: int) -> Iterator[int]:
    """The next ``count`` images of ``order`` that are not used, and are from now on."""
    while count:
        position = next(order)
        if not used[position]:
            used[position] = True
            count -= 1
            yield position


def neighbour_table(
    lists: pa.ChunkedArray, rows: NDArray[np.int64], cases: NDArray[np.int64]
) -> NDArray[np.int32]:
    """The nearest neighbours among the images in use, by position.

    Args:
        lists: the store's ``neighbor_rows``, list<int32> [N], nearest first.
        rows: store rows in use, int64 [M], ascending.
        cases: case code of each of them, int64 [M].

    Returns:
        int32 [M, NEAREST]; -1 where there are fewer, of other cases and among ``rows``.
    """
    position = np.full(len(lists), -1, dtype=np.int32)
    position[rows] = np.arange(len(rows), dtype=np.int32)
    table = np.full((len(rows), NEAREST), -1, dtype=np.int32)
    before = 0
    for chunk in lists.chunks:
        # A chunk at a time, so that not all lists are there as numbers at once.
        offsets, flat = chunk.offsets.to_numpy(), chunk.values.to_numpy()
        here = position[before : before + len(chunk)]
        lengths = np.diff(offsets)
        owner = np.repeat(here, lengths)
        other = position[flat[offsets[0] : offsets[-1]]]
        kept = (owner >= 0) & (other >= 0)
        kept[kept] = cases[owner[kept]] != cases[other[kept]]
        owner, other = owner[kept], other[kept]
        column = np.arange(len(owner)) - np.searchsorted(owner, owner)  # owners ascend, as rows do
        near = column < NEAREST
        table[owner[near], column[near]] = other[near]
        before += len(chunk)
    return table
