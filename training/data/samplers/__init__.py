"""Samplers: which images make up which step, so that a run can be continued at any. One file each, one line here."""

from importlib import import_module
from typing import TYPE_CHECKING

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
"""By ``data.sampler``: a class, or its place, so that a configuration is checked before numpy and torch are loaded."""


def make_sampler(
    name: str,
    store: "TargetStore",
    rows: "NDArray[np.int64]",
    *,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    neighbour_share: float = 0.5,
) -> "Sampler":
    """The sampler of this name; what it plans is a function of (seed, epoch), and of the rank whose share it gives.

    Args:
        name: one of ``SAMPLERS``.
        store: cases and neighbours of all rows.
        rows: store rows in use, int64 [M], ascending.
        batch_size: images per step over all processes.
        seed: of every order and draw.
        rank: of this process.
        world_size: number of processes.
        neighbour_share: share of each batch drawn from neighbours, where the sampler does so.

    Raises:
        ConfigError: the batch size does not fit the images or the processes.
    """
    found = SAMPLERS[name]
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        found = getattr(import_module(module), attribute)
    return found.of_store(
        store, rows, neighbour_share, images=len(rows), batch_size=batch_size, seed=seed, rank=rank,
        world_size=world_size,
    )  # fmt: skip
