"""Samplers: which images make up which step, so that a run can be continued at any. One file each, one line here."""

from importlib import import_module
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kg_targets.store import TargetStore
    from training.data.samplers.base import Sampler

SAMPLERS: "dict[str, str | type[Sampler]]" = {
    "random": "training.data.samplers.base:RandomSampler",
    "case_aware": "training.data.samplers.case_aware:CaseAwareSampler",
    "neighbour_aware": "training.data.samplers.neighbour_aware:NeighbourAwareSampler",
}
"""By ``data.sampler``: a class, or where it is, so that a configuration is checked before torch is loaded."""


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
    def store(self) -> "TargetStore":
        """Cases and neighbours of all rows."""

    @property
    def rows(self) -> "NDArray[np.int64]":
        """Store rows in use, int64 [M], ascending."""


def make_sampler(
    options: SamplerOptions, images: StoreRows, seed: int, rank: int = 0, world_size: int = 1
) -> "Sampler":
    """The configured sampler; what it plans is a function of (seed, epoch), and of the rank whose share it gives.

    Raises:
        ConfigError: the batch size does not fit the images or the processes.
    """
    chosen = SAMPLERS[options.sampler]
    if isinstance(chosen, str):
        module, _, name = chosen.partition(":")
        chosen = getattr(import_module(module), name)
    sampler: Sampler = chosen.of_store(
        images.store,
        images.rows,
        options.neighbour_share,
        images=len(images.rows),
        batch_size=options.batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
    )
    return sampler
