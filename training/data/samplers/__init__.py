"""Samplers: which images make up which step, so that a run can be continued at any. One file each, one line here."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kg_targets.store import TargetStore
from training.data.samplers.base import Sampler
from training.data.samplers.case_aware import CaseAwareSampler
from training.data.samplers.neighbour_aware import NeighbourAwareSampler
from training.data.samplers.random import RandomSampler

__all__ = ["SAMPLERS", "Sampler", "make_sampler"]

SAMPLERS: dict[str, type[Sampler]] = {
    "random": RandomSampler,
    "case_aware": CaseAwareSampler,
    "neighbour_aware": NeighbourAwareSampler,
}
"""By ``data.sampler``."""


class SamplerOptions(Protocol):
    """The fields of a configuration that samplers read."""

    @property
    def sampler(self) -> str:
        """One of ``SAMPLERS``."""

    @property
    def batch_size(self) -> int:
        """Images per step over all processes."""

    @property
    def neighbour_share(self) -> float:
        """Share of each batch drawn from neighbours, where the sampler does so."""


class StoreRows(Protocol):
    """The images in use, as rows of a store."""

    @property
    def store(self) -> TargetStore:
        """Cases and neighbours of all rows."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """Store rows in use, int64 [M], ascending."""


def make_sampler(
    options: SamplerOptions, images: StoreRows, seed: int, rank: int = 0, world_size: int = 1
) -> Sampler:
    """The configured sampler; what it plans is a function of (seed, epoch), and of the rank whose share it gives.

    Raises:
        ConfigError: the batch size does not fit the images or the processes.
    """
    return SAMPLERS[options.sampler].of_store(
        images.store,
        images.rows,
        options.neighbour_share,
        images=len(images.rows),
        batch_size=options.batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
    )
