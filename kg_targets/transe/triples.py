"""The concept graph as triples (head, relation, tail), and the edges held out of the fit.

Nodes: first the images that have a concept, in row order, then the concepts, CUIs of equal meaning as one node.
Relations: ``has_attribute`` (image → concept), then ``is_a`` and, where the graph has it, ``part_of`` (direct edges).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kg_targets.graph import ConceptGraph

HAS_ATTRIBUTE = "has_attribute"
MOST_HELD_OUT = 500
"""Held-out edges of a relation at most: enough for an MRR, few enough to rank in a second."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Triples:
    """Edges between numbered nodes."""

    edges: Ints
    """[M, 3]: head, relation, tail; distinct."""
    rows: Ints
    """Row of each image node in the graph, ascending; image nodes are 0 … len(rows) − 1."""
    concept_nodes: Ints
    """Node of each concept of the graph, [C]."""
    relations: tuple[str, ...]

    @property
    def images(self) -> int:
        """Number of image nodes."""
        return len(self.rows)

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return int(self.concept_nodes.max(initial=self.images - 1)) + 1

    @classmethod
    def of(cls, graph: ConceptGraph) -> "Triples":
        """Triples of a graph; the weight ½ of what a caption holds possible is not told from 1."""
        _, group = np.unique(graph.meanings, return_inverse=True)
        rows = np.flatnonzero(np.diff(graph.has_attribute.indptr))
        concept_nodes = (len(rows) + group).astype(np.int64)
        attributes = graph.has_attribute.tocoo()
        heads = np.searchsorted(rows, attributes.row)
        parts = [np.stack([heads, np.zeros_like(heads), concept_nodes[attributes.col]], axis=1)]
        relations = [HAS_ATTRIBUTE]
        for name in sorted({relation for _, relation, _ in graph.edges} - {"same_as"}):
            pairs = [(child, parent) for child, relation, parent in graph.edges if relation == name]
            ends = concept_nodes[np.searchsorted(graph.concepts, np.asarray(pairs, dtype=str))]
            ends = ends[ends[:, 0] != ends[:, 1]]  # equal meanings made one
            parts.append(np.stack([ends[:, 0], np.full(len(ends), len(relations)), ends[:, 1]], axis=1))
            relations.append(name)
        edges = np.unique(np.concatenate(parts).astype(np.int64), axis=0)
        return cls(edges, rows, concept_nodes, tuple(relations))

    def hold_out(self, share: float, seed: int) -> tuple[Ints, Ints]:
        """(edges to fit on, held-out edges): of each relation a share, never a node's last edge.

        Of a pair of nodes with two relations one edge may be held out, whose rank the other makes easier; such pairs
        are rare (what is a kind of something and a part of it).
        """
        degree = np.bincount(self.edges[:, [0, 2]].ravel(), minlength=self.nodes)
        generator = np.random.default_rng(seed)
        held = np.zeros(len(self.edges), dtype=bool)
        for relation in range(len(self.relations)):
            candidates = generator.permutation(np.flatnonzero(self.edges[:, 1] == relation))
            wanted = min(round(share * len(candidates)), MOST_HELD_OUT)
            for edge in candidates[degree[self.edges[candidates][:, [0, 2]]].min(axis=1) > 1]:
                if wanted == 0:
                    break
                ends = self.edges[edge, [0, 2]]
                if degree[ends].min() > 1:
                    degree[ends] -= 1
                    held[edge] = True
                    wanted -= 1
        return self.edges[~held], self.edges[held]
