"""Ancestors over ``child → parent`` edges that may contain cycles, for many concepts at once.

The closure is computed on the condensation (strongly connected components merged into one node), because
dropping "an" edge of a cycle would make the result depend on the order of rows. Distances follow from it:

* ``hops(a, a) = 0``;
* two members of one component are ancestors of one another: ``hops(a, b) = 1``;
* otherwise ``hops(a, b)`` is the least number of edges between different components on a path from a to b.

So all members of a component have the same further ancestors at the same distances, also under ``max_hops``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ParentLists:
    """Parents of every node: node i's are ``parents[starts[i]:starts[i + 1]]``, ascending and distinct.

    Attributes:
        starts: int64 ``[N + 1]``.
        parents: int64 ``[E]``.
    """

    starts: Ints
    parents: Ints

    @classmethod
    def from_edges(cls, child: npt.ArrayLike, parent: npt.ArrayLike, count: int) -> ParentLists:
        """Group edges (``child``, ``parent``: ``[E]``, in [0, count)) by child; duplicates are merged."""
        keys = np.asarray(child, np.int64) * max(count, 1) + np.asarray(parent, np.int64)
        if not (keys[1:] > keys[:-1]).all():
            keys = np.unique(keys)
        degrees = np.bincount(keys // max(count, 1), minlength=count)
        return cls(np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64), keys % max(count, 1))

    def of(self, nodes: Ints) -> tuple[Ints, Ints]:
        """All parents of many nodes: (position in ``nodes``, parent), one entry per edge, in order."""
        begins, counts = self.starts[nodes], self.starts[nodes + 1] - self.starts[nodes]
        positions = np.repeat(np.arange(len(nodes)), counts)
        within = np.arange(len(positions)) - np.repeat(np.cumsum(counts) - counts, counts)
        return positions, self.parents[np.repeat(begins, counts) + within]

    def reachable(self, nodes: Ints) -> Ints:
        """The nodes and all their ancestors, ascending."""
        seen = np.zeros(len(self.starts) - 1, dtype=bool)
        frontier = np.unique(nodes)
        while len(frontier):
            seen[frontier] = True
            parents = np.unique(self.of(frontier)[1])
            frontier = parents[~seen[parents]]
        return np.flatnonzero(seen)

    def components(self) -> Ints:
        """Strongly connected component of each node, int64 ``[N]``."""
        count = len(self.starts) - 1
        if count == 0:
            return np.zeros(0, dtype=np.int64)
        graph = sparse.csr_array(
            (np.ones(len(self.parents), np.int8), self.parents, self.starts), shape=(count, count)
        )
        return np.asarray(connected_components(graph, directed=True, connection="strong")[1], dtype=np.int64)


def cycles(graph: ParentLists) -> list[Ints]:
    """The components with more than one member, each ascending, ordered by their first member."""
    labels = graph.components()
    members = np.flatnonzero(np.bincount(labels)[labels] > 1)
    members = members[np.argsort(labels[members], kind="stable")]
    groups = np.split(members, np.flatnonzero(np.diff(labels[members])) + 1) if len(members) else []
    return sorted(groups, key=lambda group: int(group[0]))


def ancestor_hops(graph: ParentLists, nodes: Ints, max_hops: int | None = None) -> tuple[Ints, Ints, Ints]:
    """Every (node, ancestor) pair with its distance, the node itself at 0 included.

    Args:
        graph: N nodes.
        nodes: int64 ``[C]``, repetitions allowed.
        max_hops: largest distance returned, ≥ 0; None for all.
    Returns:
        ``(rows, ancestors, hops)``, each int64 ``[P]``, sorted by row, then ancestor; ``rows`` index
        ``nodes``.
    """
    sub = graph.reachable(nodes)  # Every component of an ancestor lies in here as a whole.
    positions, parents = graph.of(sub)
    local = ParentLists.from_edges(positions, np.searchsorted(sub, parents), len(sub))
    labels = local.components()
    condensed = condense(local, labels)
    rows, components, hops = _search(condensed, labels[np.searchsorted(sub, nodes)], max_hops)
    rows, ancestors, hops = _expand(labels, rows, components, hops)
    itself = sub[ancestors] == nodes[rows] if len(rows) else np.zeros(0, dtype=bool)
    hops = np.where(itself, 0, np.maximum(hops, 1))
    keep = np.ones(len(rows), dtype=bool) if max_hops is None else hops <= max_hops
    return rows[keep], sub[ancestors[keep]], hops[keep]


def condense(graph: ParentLists, labels: Ints) -> ParentLists:
    """The graph with every component as one node, without cycles; ``labels`` come from ``components``."""
    children = np.repeat(np.arange(len(labels)), np.diff(graph.starts))
    child, parent = labels[children], labels[graph.parents]
    between = child != parent
    return ParentLists.from_edges(child[between], parent[between], int(labels.max(initial=-1)) + 1)


def _search(graph: ParentLists, starts: Ints, max_hops: int | None) -> tuple[Ints, Ints, Ints]:
    """Breadth-first search from every start at once; a pair (row, node) is the key ``row · N + node``."""
    count = max(len(graph.starts) - 1, 1)
    frontier = np.arange(len(starts)) * count + starts
    seen, found, level = frontier, [frontier], 0
    while len(frontier) and (max_hops is None or level < max_hops):
        level += 1
        positions, parents = graph.of(frontier % count)
        keys = np.unique((frontier // count)[positions] * count + parents)
        where = np.searchsorted(seen, keys)
        known = seen[np.minimum(where, len(seen) - 1)] == keys
        frontier = keys[~known]
        # A stable sort is a linear merge here: both halves are sorted already.
        seen = np.sort(np.concatenate([seen, frontier]), kind="stable")
        found.append(frontier)
    keys = np.concatenate(found)
    hops = np.repeat(np.arange(len(found)), [len(part) for part in found])
    return keys // count, keys % count, hops


def _expand(labels: Ints, rows: Ints, components: Ints, hops: Ints) -> tuple[Ints, Ints, Ints]:
    """Replace each component by its members, and sort by row, then member."""
    members = ParentLists.from_edges(labels, np.arange(len(labels)), len(labels))
    positions, nodes = members.of(components)
    order = np.lexsort((nodes, rows[positions]))
    return rows[positions][order], nodes[order], hops[positions][order]
