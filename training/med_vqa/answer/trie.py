"""Candidates as a tree of their unique prefixes: a prefix that many answers share is decoded once.

The root is the token that every answer starts from, a node is a prefix, an answer is the node that its last token leads
to. Its log-likelihood is the sum over the edges of its path, log p(token | prefix), and log p(end | answer).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Trie:
    """N unique prefixes of C token sequences, in preorder: a node's descendants follow it without a gap."""

    tokens: IntArray
    """Last token of each prefix, int64 ``[N]``; the root's is the starting token."""
    parents: IntArray
    """The prefix without its last token, ``[N]``; the root's is -1."""
    ends: IntArray
    """Node of each whole sequence, ``[C]``, in the order they were given; equal sequences have the same one."""

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], start: int) -> "Trie":
        """The tree of token sequences; children stand in the order of their first sequence.

        Args:
            sequences: token ids, C of them, without special tokens.
            start: token of the root.
        """
        tokens, parents, children = [start], [-1], [dict[int, int]()]
        ends = []
        for sequence in sequences:
            node = 0
            for token in sequence:
                if token not in children[node]:
                    children[node][token] = len(tokens)
                    tokens.append(token)
                    parents.append(node)
                    children.append({})
                node = children[node][token]
            ends.append(node)
        order, pending = [], [0]
        while pending:
            node = pending.pop()
            order.append(node)
            pending.extend(reversed(children[node].values()))
        place = np.empty(len(order) + 1, dtype=np.int64)
        place[order] = np.arange(len(order))
        place[-1] = -1  # the root's parent stays what it is
        return cls(
            tokens=np.array(tokens, dtype=np.int64)[order],
            parents=place[np.array(parents, dtype=np.int64)[order]],
            ends=place[np.array(ends, dtype=np.int64)],
        )

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def depths(self) -> IntArray:
        """Tokens after the root, ``[N]``: the position at which the decoder reads the node."""
        depths = np.zeros(len(self), dtype=np.int64)
        for node in range(1, len(self)):  # preorder: parents come first
            depths[node] = depths[self.parents[node]] + 1
        return depths

    @cached_property
    def subtree_ends(self) -> IntArray:
        """One past the last descendant of each node, ``[N]``."""
        ends = np.arange(1, len(self) + 1)
        for node in range(len(self) - 1, 0, -1):
            ends[self.parents[node]] = max(ends[self.parents[node]], ends[node])
        return ends

    @cached_property
    def levels(self) -> tuple[IntArray, ...]:
        """Nodes of depth 1, 2, …: what a sum along all paths goes through."""
        return tuple(np.flatnonzero(self.depths == depth) for depth in range(1, int(self.depths.max()) + 1))

    def ancestors(self, node: int) -> IntArray:
        """The nodes above ``node``, the root first."""
        path = []
        while (node := int(self.parents[node])) >= 0:
            path.append(node)
        return np.array(path[::-1], dtype=np.int64)
