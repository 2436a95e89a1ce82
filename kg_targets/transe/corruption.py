"""Corrupted triples: which end of a true triple is replaced, and by which nodes.

Bernoulli (Wang et al. 2014): the head is replaced with probability tph/(tph + hpt), tph the mean number of tails of a
head, hpt of heads of a tail, so that a replacement is less often true by chance. Uniform (Bordes et al. 2013): ½.
Typed (after Krompaß et al. 2015): images are replaced by images, concepts by concepts. A replacement that happens to be
true is not looked for. The end is drawn for each corrupted triple.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kg_targets.transe.settings import TransESettings
from kg_targets.transe.triples import Ints


@dataclass(frozen=True)
class Corruption:
    """Probabilities and candidates for each relation, R of them."""

    head_probability: Tensor
    """float32 [R]: chance that the head is replaced."""
    first: Tensor
    """int64 [R, 2]: first node that may replace the tail (column 0) or the head (column 1)."""
    count: Tensor
    """int64 [R, 2]: number of nodes from there on that may."""

    @classmethod
    def fit(
        cls, edges: Ints, relations: int, images: int, nodes: int, settings: TransESettings, device: str
    ) -> "Corruption":
        """Probabilities from the edges [M, 3]; nodes are images first, then concepts; relation 0 starts at images."""
        probability = np.full(relations, 0.5, dtype=np.float32)
        for relation in range(relations if settings.corruption == "bernoulli" else 0):
            own = edges[edges[:, 1] == relation]
            heads, tails = len(np.unique(own[:, 0])), len(np.unique(own[:, 2]))
            # tph = M/heads, hpt = M/tails, so tph/(tph + hpt) = tails/(heads + tails)
            probability[relation] = tails / (heads + tails) if len(own) else 0.5
        first, count = np.zeros((2, relations, 2), dtype=np.int64)
        count[:] = nodes
        if settings.typed:
            first[:], count[:] = images, nodes - images
            first[0, 1], count[0, 1] = 0, images
        tensors = (torch.from_numpy(array).to(device) for array in (probability, first, count))
        return cls(*tensors)

    def draw(self, relations: Tensor, negatives: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Corruption of each triple of a batch.

        Args:
            relations: int64 [B].
        Returns:
            ``(replaces_head, nodes)``: bool and int64 [B, negatives]: which end, and the node put in its place.
        """
        device, shape = self.first.device, (len(relations), negatives)
        chance = torch.rand(shape, generator=generator, device=device)
        replaces_head = chance < self.head_probability[relations, None]
        side = relations[:, None] * 2 + replaces_head
        number = torch.randint(0, 2**62, shape, generator=generator, device=device)
        number.remainder_(self.count.view(-1)[side])
        return replaces_head, number.add_(self.first.view(-1)[side])
