"""Information content of a concept by its place in the hierarchy alone, where no corpus tells it.

    h(a) = −ln((leaves(a)/subsumers(a) + 1)/(leaves + 1))/ln(leaves + 1) ∈ [0, 1]

leaves(a) = leaves below a (0 for a leaf itself), subsumers(a) = a and its ancestors, leaves = leaves of the whole
ontology. A leaf has 1, a concept above all about 0. Concepts that are ancestors of one another (``same_as``, cycles)
are one. Source: Sánchez, Batet and Isern 2011, "Ontology-based information content computation", divided by its
largest value. Between small and large fit splits it moves less than Seco et al. 2004 (descendants, no depth) would:
docs/methods.md#ontology-scorer.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kg_targets.ontology.closure import Ints, ParentLists, ancestor_hops, condense

_AT_ONCE = 64
"""Concepts whose leaves are counted in one pass: a bit each."""


def intrinsic_content(graph: ParentLists, nodes: Ints) -> npt.NDArray[np.float64]:
    """h of each node, in [0, 1].

    Args:
        graph: child → parent over the whole ontology.
        nodes: int64 ``[C]``.
    """
    labels = graph.components()
    merged = condense(graph, labels)
    count = len(merged.starts) - 1
    leaf = np.ones(count, dtype=bool)
    leaf[merged.parents] = False
    wanted, place = np.unique(labels[nodes], return_inverse=True)
    rows, _, _ = ancestor_hops(merged, wanted)
    subsumers = np.bincount(rows, minlength=len(wanted))
    below = np.concatenate(
        [np.zeros(0, np.int64)]
        + [_leaves_below(merged, leaf, wanted[at : at + _AT_ONCE]) for at in range(0, len(wanted), _AT_ONCE)]
    )
    below[leaf[wanted]] = 0
    total = np.log(leaf.sum() + 1.0)
    content = 1.0 - np.log(below / np.maximum(subsumers, 1) + 1.0) / total if count else np.zeros(0)
    return np.asarray(content[place.reshape(-1)], dtype=np.float64)


def _leaves_below(graph: ParentLists, leaf: npt.NDArray[np.bool_], nodes: Ints) -> Ints:
    """Leaves among each of at most 64 nodes and its descendants, int64 [len(nodes)]: bits handed down to children."""
    bits = np.zeros(len(leaf), dtype=np.uint64)
    bits[nodes] = np.uint64(1) << np.arange(len(nodes), dtype=np.uint64)
    children = np.flatnonzero(np.diff(graph.starts))  # those that have a parent
    while len(children):
        handed = bits[children] | np.bitwise_or.reduceat(bits[graph.parents], graph.starts[children])
        if np.array_equal(handed, bits[children]):
            break
        bits[children] = handed
    held = np.unpackbits(bits[leaf][:, None].view(np.uint8), axis=1, bitorder="little")
    return np.asarray(held.sum(axis=0, dtype=np.int64)[: len(nodes)], dtype=np.int64)
