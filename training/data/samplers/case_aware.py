"""Images of one case are kept apart: pairs of a case are masked in the loss, so they would only shrink the batch."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kg_targets.store import TargetStore
from training.data.samplers.base import Sampler


@dataclass(frozen=True)
class CaseAwareSampler(Sampler):
    """Cases are dealt out like cards, so that they spread as evenly over the batches as they can.

    Guaranteed: a case with n images in an epoch of ``steps`` batches has at most ceil(n / steps) of them in a batch,
    the least that is possible; one, whenever the case is not larger than the number of batches.
    """

    cases: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64), repr=False)
    """Case code of each image, int64 [images], codes from 0."""

    @classmethod
    def of_store(cls, store: TargetStore, rows: NDArray[np.int64], share: float, **common: Any) -> Self:
        """Sampler with the case of each row."""
        return cls(cases=store.cases[rows], **common)

    def batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Positions of all processes' images, int64 [batch_size], step by step."""
        import torch

        order, generator = self.shuffled(epoch)
        order = order[: self.steps * self.batch_size]
        rank = torch.randperm(int(self.cases.max()) + 1, generator=generator).numpy()
        by_case = order[np.argsort(rank[self.cases[order]], kind="stable")]
        for first in torch.randperm(self.steps, generator=generator).tolist():
            # Every steps-th image: neighbours in by_case, which may be of one case, go to different batches.
            yield by_case[first :: self.steps]
