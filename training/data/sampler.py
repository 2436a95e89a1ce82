"""The registry of samplers: which images make up which step, so that a run can be continued at any of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.cases import case_codes
from training.data.config import DataConfig
from training.data.dataset import CaptionedImages
from training.data.samplers.base import Sampler
from training.data.samplers.case_aware import CaseAwareSampler
from training.data.samplers.neighbour_aware import NeighbourAwareSampler, neighbour_table
from training.data.samplers.random import RandomSampler

__all__ = ["SAMPLERS", "Sampler", "make_sampler"]


def _random(config: DataConfig, data: CaptionedImages, **common: Any) -> Sampler:
    return RandomSampler(**common)


def _case_aware(config: DataConfig, data: CaptionedImages, **common: Any) -> Sampler:
    return CaseAwareSampler(cases=_cases(data), **common)


def _neighbour_aware(config: DataConfig, data: CaptionedImages, **common: Any) -> Sampler:
    table = neighbour_table(data.store.column("neighbor_rows"), data.rows, _cases(data))
    return NeighbourAwareSampler(share=config.neighbour_share, neighbours=table, **common)


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "random": _random,
    "case_aware": _case_aware,
    "neighbour_aware": _neighbour_aware,
}
"""By ``data.sampler``."""


def make_sampler(
    config: DataConfig, images: CaptionedImages, seed: int, rank: int = 0, world_size: int = 1
) -> Sampler:
    """The configured sampler; what it plans is a function of (seed, epoch), and of the rank whose share it gives.

    Raises:
        ConfigError: the batch size does not fit the images or the processes.
    """
    return SAMPLERS[config.sampler](
        config,
        images,
        images=len(images),
        batch_size=config.batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
    )


def _cases(data: CaptionedImages) -> NDArray[np.int64]:
    return case_codes(data.store.group_ids)[data.rows]
