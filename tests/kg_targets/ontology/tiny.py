"""A made-up ontology with the methods that graphs need, held in a dict; shared by the tests of graph and scoring."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True)
class TinyOntology:
    parents: dict[str, list[str]]

    def distances(self, cui: str) -> dict[str, int]:
        """Hops to the concept itself and every ancestor, by breadth-first search."""
        reached, frontier, hops = {cui: 0}, [cui], 0
        while frontier:
            hops += 1
            frontier = [up for node in frontier for up in self.parents.get(node, []) if up not in reached]
            reached |= dict.fromkeys(frontier, hops)
        return reached

    def ancestor_matrix(
        self, cuis: Sequence[str], max_hops: int | None = None, relations: Sequence[str] = ("is_a",)
    ) -> tuple[list[str], sparse.csr_array]:
        limit = 10**6 if max_hops is None else max_hops
        rows = [{node: hops for node, hops in self.distances(cui).items() if hops <= limit} for cui in cuis]
        nodes = sorted(set(cuis) | {node for row in rows for node in row})
        dense = np.array(
            [[row[node] + 1 if node in row else 0 for node in nodes] for row in rows], dtype=np.int32
        )
        return nodes, sparse.csr_array(dense.reshape(len(cuis), len(nodes)))

    def edges(self, nodes: Iterable[str], relations: Sequence[str] = ("is_a",)) -> list[tuple[str, str, str]]:
        kept = set(nodes)
        return sorted((c, "is_a", p) for c in kept for p in self.parents.get(c, []) if p in kept)


HIERARCHY = TinyOntology(
    {
        "C0000001": ["C0000009"],  # effusion is a pleural disease
        "C0000002": ["C0000009"],  # pneumothorax is a pleural disease
        "C0000003": ["C0000008"],  # infarct is a brain disease
        "C0000008": ["C0000007"],
        "C0000009": ["C0000007"],
    }
)


class _WithEquals(TinyOntology):
    """Two concepts of equal meaning."""

    def edges(self, nodes: Iterable[str], relations: Sequence[str] = ("is_a",)) -> list[tuple[str, str, str]]:
        equal = [("C0000001", "same_as", "C0000002"), ("C0000002", "same_as", "C0000001")]
        return sorted([*super().edges(nodes), *equal])


EQUAL_MEANING = _WithEquals({"C0000001": ["C0000002", "C0000009"], "C0000002": ["C0000001", "C0000009"]})
"""C0000001 and C0000002 are one concept, a kind of C0000009."""
