"""Filtered ranks of held-out edges (Bordes et al. 2013): does h + r lead to t rather than to another node?

Both ends are asked for. Candidates that would make another known edge, of the fit or held out, do not count; neither do
nodes of another type where corruption is typed. Equal distances count half, so that equal vectors earn nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kg_targets.transe.triples import Ints

_BLOCK_DISTANCES = 1 << 24


@dataclass(frozen=True)
class LinkPrediction:
    """Means over both ends of all held-out edges; a relation with a handful of edges must not decide alone."""

    mrr: float
    """Mean reciprocal rank, in (0, 1]."""
    hits_at_10: float
    """Share of ranks up to 10, in [0, 1]."""

    @classmethod
    def of(cls, ranks: NDArray[np.float64]) -> "LinkPrediction":
        """Summary of ranks [H, 2], H ≥ 1."""
        return cls(mrr=float(np.mean(1.0 / ranks)), hits_at_10=float(np.mean(ranks <= 10)))


@dataclass(frozen=True)
class Ranker:
    """Ranks held-out edges; prepared once, used after some epochs each."""

    held: Ints
    """[H, 3]: head, relation, tail."""
    known: Ints
    """[M, 3]: all true edges, the held-out ones included."""
    first: Ints
    """[R, 2]: first candidate for the tail (column 0) and the head (column 1) of a relation."""
    count: Ints
    """[R, 2]: number of candidates from there on."""

    def ranks(self, table: Tensor, nodes: int, norm: str) -> NDArray[np.float64]:
        """Rank of the true tail (column 0) and the true head (column 1) of each held-out edge, from 1; float64 [H, 2].

        Args:
            table: [nodes + R, dim], vectors of nodes and relations.
        """
        ranks = np.zeros((len(self.held), 2))
        for side in (0, 1):
            for relation in np.unique(self.held[:, 1]):
                own = np.flatnonzero(self.held[:, 1] == relation)
                for chosen, rank in self._of_side(table, nodes, norm, own, int(relation), side):
                    ranks[chosen, side] = rank
        return ranks

    def _of_side(
        self, table: Tensor, nodes: int, norm: str, own: Ints, relation: int, side: int
    ) -> Iterator[tuple[Ints, NDArray[np.float64]]]:
        given, asked = (0, 2) if side == 0 else (2, 0)
        known = self.known[self.known[:, 1] == relation]
        known = known[np.argsort(known[:, given], kind="stable")]
        first, count = int(self.first[relation, side]), int(self.count[relation, side])
        candidates = table[first : first + count]
        translation = table[nodes + relation] if side == 0 else -table[nodes + relation]
        power = 1.0 if norm == "l1" else 2.0
        step = max(1, _BLOCK_DISTANCES // max(count, 1))
        for start in range(0, len(own), step):
            chosen = own[start : start + step]
            ends = self.held[chosen]
            query = table[torch.from_numpy(ends[:, given]).to(table.device)] + translation
            distances = torch.cdist(query[None], candidates[None], power)[0].cpu().numpy()
            lines = np.arange(len(chosen))
            true = distances[lines, ends[:, asked] - first].copy()
            begin, end = (
                np.searchsorted(known[:, given], ends[:, given], side) for side in ("left", "right")
            )
            for line in lines:
                distances[line, known[begin[line] : end[line], asked] - first] = np.inf
            closer = (distances < true[:, None]).sum(axis=1)
            equal = (distances == true[:, None]).sum(axis=1)
            yield chosen, 1.0 + closer + equal / 2
