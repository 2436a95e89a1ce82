"""Candidates as a tree of their unique prefixes: a prefix that many answers share is decoded once.

The root is the token that every answer starts from, a node is a prefix, an answer is the node that its last token leads
to. Its log-likelihood is the sum over the edges of its path, log p(token | prefix), and log p(end | answer).

The decoder reads the tree as sequences (``pack``): every node at the position of its depth, seeing its ancestors only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
CHUNK = 256
"""Nodes in a sequence, at most: the decoder's memory grows with it (attention with its square)."""


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
        root: dict[int, Any] = {}
        last = []
        for sequence in sequences:
            node = root
            for token in sequence:
                node = node.setdefault(token, {})
            last.append(node)
        tokens, parents, numbers = list[int](), list[int](), dict[int, int]()
        pending = [(root, start, -1)]
        while pending:
            node, token, parent = pending.pop()
            number = numbers[id(node)] = len(tokens)
            tokens.append(token)
            parents.append(parent)
            pending += [(child, piece, number) for piece, child in reversed(node.items())]
        ends = [numbers[id(node)] for node in last]
        return cls(*(np.array(values, dtype=np.int64) for values in (tokens, parents, ends)))

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


@dataclass(frozen=True)
class Pack:
    """T nodes of a tree in one sequence; the last F are its own, those before are ancestors repeated for them.

    Every node is one pack's own. It is there that all continuations of its prefix are scored: that needs the tokens
    of its children, not their states, so children may lie in a later pack.
    """

    tokens: IntArray
    """Tokens that the decoder reads, int64 ``[T]``."""
    positions: IntArray
    """At which positions, ``[T]``: depths in the tree."""
    mask: NDArray[np.bool_]
    """``[T, T]``, True where row i may attend to column j: j is i itself or one of its ancestors."""
    own: int
    """F."""
    rows: IntArray
    """Own node, counted from 0, of each continuation to be scored, ``[E]``, ascending."""
    continuations: IntArray
    """Its token, ``[E]``: a child's, or the one that ends an answer."""
    places: IntArray
    """Place of its log-probability, ``[E]``: at v for a step to node v, at N + v for an answer that ends at v."""


def pack(trie: Trie, end: int, chunk: int = CHUNK) -> tuple[Pack, ...]:
    """The tree in sequences of about ``chunk`` nodes, split in preorder, so that whole subtrees stay together.

    Each split repeats the path above it: a few nodes, as answers are short.

    Args:
        trie: N prefixes.
        end: token that ends an answer.
        chunk: nodes in a sequence at most, ancestors among them; at least one is the sequence's own in any case.
    """
    packs, start = [], 0
    while start < len(trie):
        above = trie.ancestors(start)
        stop = min(start + max(chunk - len(above), 1), len(trie))
        packs.append(_pack(trie, end, above, start, stop))
        start = stop
    return tuple(packs)


def _pack(trie: Trie, end: int, above: IntArray, start: int, stop: int) -> Pack:
    nodes = np.concatenate([above, np.arange(start, stop)])
    row, column = nodes[:, None], nodes[None, :]
    children = np.flatnonzero((trie.parents >= start) & (trie.parents < stop))
    answers = np.unique(trie.ends[(trie.ends >= start) & (trie.ends < stop)])
    rows = np.concatenate([trie.parents[children], answers]) - start
    order = np.argsort(rows, kind="stable")
    return Pack(
        tokens=trie.tokens[nodes],
        positions=trie.depths[nodes],
        mask=(column <= row) & (row < trie.subtree_ends[column]),
        own=stop - start,
        rows=rows[order],
        continuations=np.concatenate([trie.tokens[children], np.full(len(answers), end)])[order],
        places=np.concatenate([children, len(trie) + answers])[order],
    )
